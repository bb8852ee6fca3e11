package opa

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// maxHistory bounds the revisions that are remembered. A bundle with a sequence needs none of them.
const maxHistory = 10_000

// used is a bundle that was put into force.
type used struct {
	Revision string    `json:"revision,omitempty"` // of its manifest
	Sequence int64     `json:"sequence,omitempty"`
	SHA256   string    `json:"sha256"`
	Since    time.Time `json:"since"`
}

// history is what was in force, oldest first; the last one is.
type history struct {
	Used []used `json:"used"`
}

func (r *Remote) readHistory() (h history, err error) {
	b, err := os.ReadFile(r.History)
	if errors.Is(err, os.ErrNotExist) {
		return h, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &h)
	}
	if err != nil {
		return h, fmt.Errorf("what was used before cannot be read, so an older one could come back unseen: %w (repair %s, or remove it)", err, r.History)
	}
	return h, nil
}

// Check says why a bundle that was fetched must not be used: it, or one with its revision, was used before the one that
// is in force now; or the manifest of that one has a higher metadata.sequence.
func (r *Remote) Check(p *Policy) error {
	if r.History == "" {
		return nil
	}
	h, err := r.readHistory()
	if err != nil {
		return fmt.Errorf("opa: %w", err)
	}
	if err := r.check(&h, p); err != nil {
		return fmt.Errorf("opa: %w", err)
	}
	return nil
}

func (r *Remote) check(h *history, p *Policy) error {
	if len(h.Used) == 0 || r.Back != "" && (r.Back == p.manifest.revision || len(r.Back) >= 12 && strings.HasPrefix(p.revision, r.Back)) {
		return nil
	}
	now, name := h.Used[len(h.Used)-1], p.manifest.revision
	if name == "" {
		name = p.revision[:12]
	}
	if now.SHA256 == p.revision {
		return nil
	}
	if now.Sequence > 0 && p.manifest.sequence <= now.Sequence {
		return fmt.Errorf("revision %q has the sequence %d, and the one in force has %d: an older one does not come back (to allow it, set rollback: %q)", name, p.manifest.sequence, now.Sequence, name)
	}
	for _, old := range h.Used[:len(h.Used)-1] {
		same := old.SHA256 == p.revision || old.Revision != "" && old.Revision == p.manifest.revision && now.Revision != p.manifest.revision
		if same {
			return fmt.Errorf("revision %q was in force from %s and was replaced: it does not come back (to allow it, set rollback: %q)", name, old.Since.UTC().Format(time.RFC3339), name)
		}
	}
	return nil
}

// remember notes that a bundle is put into force.
func (r *Remote) remember(p *Policy) error {
	if r.History == "" {
		return nil
	}
	h, err := r.readHistory()
	if err != nil {
		return err
	}
	if err := r.check(&h, p); err != nil {
		return err
	}
	if n := len(h.Used); n > 0 && h.Used[n-1].SHA256 == p.revision {
		return nil
	}
	h.Used = append(h.Used, used{Revision: p.manifest.revision, Sequence: p.manifest.sequence, SHA256: p.revision, Since: time.Now().UTC()})
	if len(h.Used) > maxHistory {
		h.Used = h.Used[len(h.Used)-maxHistory:]
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	dir := filepath.Dir(r.History)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".history-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), r.History)
}
