package ledger

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxSigned bounds a signed checkpoint, in bytes.
const maxSigned = 64 << 10

// Checkpoint is a signed statement of the log's size and root, as C2SP tlog-checkpoint lays it down.
type Checkpoint struct {
	Origin string // the name of the key, which is the log's name
	Size   int64
	Root   tlog.Hash
}

func (c Checkpoint) text() string {
	return c.Origin + "\n" + strconv.FormatInt(c.Size, 10) + "\n" + base64.StdEncoding.EncodeToString(c.Root[:]) + "\n"
}

func (c Checkpoint) sign(s note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: c.text()}, s)
}

// OpenCheckpoint verifies a signed checkpoint with a verifier key (the text of ledger.pub), or with one of several of one log.
func OpenCheckpoint(signed []byte, publicKeys ...string) (Checkpoint, error) {
	var c Checkpoint
	var known []note.Verifier
	for i, k := range publicKeys {
		if slices.Contains(publicKeys[:i], k) {
			continue // a list of verifiers takes each once
		}
		v, err := note.NewVerifier(strings.TrimSpace(k))
		if err != nil {
			return c, errors.New("ledger: the public key is malformed: give the text of ledger.pub")
		}
		known = append(known, v)
	}
	if len(known) == 0 {
		return c, errors.New("ledger: no public key is given")
	}
	name := known[0].Name()
	if len(signed) > maxSigned {
		return c, errors.New("ledger: checkpoint is too long")
	}
	n, err := note.Open(signed, note.VerifierList(known...))
	if err != nil {
		return c, fmt.Errorf("ledger: checkpoint is not signed by %s: %w", name, err)
	}
	f := strings.Split(n.Text, "\n")
	if len(f) != 4 || f[3] != "" {
		return c, errors.New("ledger: checkpoint is malformed")
	}
	c.Origin = f[0]
	size, err := strconv.ParseInt(f[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(f[2])
	c.Size = size
	copy(c.Root[:], root)
	if err != nil || err2 != nil || size < 0 || len(root) != tlog.HashSize || c.text() != n.Text {
		return c, errors.New("ledger: checkpoint is malformed")
	}
	if c.Origin != name {
		return c, fmt.Errorf("ledger: checkpoint is of the log %q, not of %q", c.Origin, name)
	}
	return c, nil
}
