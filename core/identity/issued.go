package identity

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// listFile holds one line for each token that was made with this key, so that it can be found to be revoked.
const (
	listFile     = "tokens.list"
	compactAfter = 1000   // lines that are over
	maxListed    = 20_000 // tokens that are not
)

// Issued is a token that was made.
type Issued struct {
	Token   string    `json:"-"`
	ID      string    `json:"id"`
	Subject string    `json:"subject"`
	Groups  []string  `json:"groups,omitempty"`
	Kind    string    `json:"kind"`
	Run     string    `json:"run,omitempty"`
	Targets []string  `json:"targets,omitempty"`
	Issued  time.Time `json:"issued"`
	Expires time.Time `json:"expires"`
}

// String never shows the token.
func (t Issued) String() string { return "token " + t.ID + " of " + t.Subject }

// GoString never shows the token.
func (t Issued) GoString() string { return t.String() }

// List returns the tokens that were made with this key and are not over, the oldest first.
func (i *Issuer) List() ([]Issued, error) {
	list, _, err := i.listed(time.Now())
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	return list, nil
}

// listed reads the list; over counts what need not be kept. A line that was cut short by a crash is skipped: its token
// was not given out.
func (i *Issuer) listed(now time.Time) (list []Issued, over int, err error) {
	b, err := os.ReadFile(filepath.Join(i.dir, listFile))
	if errors.Is(err, os.ErrNotExist) {
		return []Issued{}, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	list = []Issued{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 2*MaxToken)
	for lines.Scan() {
		var t Issued
		if err := json.Unmarshal(lines.Bytes(), &t); err != nil || now.After(t.Expires.Add(Skew)) {
			over++
			continue
		}
		list = append(list, t)
	}
	return list, over, lines.Err()
}

// enter adds a token to the list, durably.
func (i *Issuer) enter(t *Issued) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	dir, err := os.Open(i.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	list, over, err := i.listed(time.Now())
	if err != nil {
		return err
	}
	if len(list) >= maxListed {
		return fmt.Errorf("%d tokens are not over yet, which is the most", maxListed)
	}
	path := filepath.Join(i.dir, listFile)
	if over >= compactAfter {
		if err := rewrite(path, list); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := []byte{0}
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = append([]byte{'\n'}, line...)
		}
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Sync(), f.Close())
}

// rewrite replaces the list by the tokens that are not over.
func rewrite(path string, list []Issued) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".list-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	w := bufio.NewWriter(f)
	e := json.NewEncoder(w)
	for n := range list {
		err = errors.Join(err, e.Encode(&list[n]))
	}
	if err = errors.Join(err, w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
