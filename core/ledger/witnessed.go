package ledger

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cosignedNote is what is kept of a witness, not verified yet.
type cosignedNote struct {
	signed []byte
	err    error
}

// readCosigned reads what is kept of each witness. Before the leaves: there are as many as it covers.
func (v *verifier) readCosigned() (all []cosignedNote) {
	for _, w := range v.c.Witnesses {
		var n cosignedNote
		n.signed, n.err = readCosigned(v.c.LedgerDir, w)
		all = append(all, n)
	}
	return all
}

func readCosigned(dir string, w *Witness) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, w.file()))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ledger: there is no checkpoint that %s has cosigned: no %s beside the log: %w", w.name, w.file(), fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSigned+1))
	if err != nil {
		return nil, fmt.Errorf("ledger: %s: %w", w.file(), err)
	}
	return b, nil // a longer one is refused by whoever verifies it
}

// checkCosigned holds the log's leaves against what the witnesses have cosigned. One that has cosigned something else is always
// told; ones that have cosigned nothing, where too few have.
func (v *verifier) checkCosigned(all []cosignedNote, keys []string, size int64, tree *memory) error {
	l := v.log
	note := func(format string, args ...any) {
		l.problems = append(l.problems, Problem{Block: -1, Seq: -1, Text: fmt.Sprintf(format, args...)})
	}
	need := v.c.Enough
	if need == 0 {
		need = len(v.c.Witnesses)
	}
	var missing []string
	for i, w := range v.c.Witnesses {
		n := all[i]
		if n.err != nil {
			missing = append(missing, strings.TrimPrefix(n.err.Error(), "ledger: "))
			continue
		}
		c, err := w.Open(n.signed, keys...)
		if err != nil {
			missing = append(missing, w.file()+": "+strings.TrimPrefix(err.Error(), "ledger: "))
			continue
		}
		at := c.Time.Format(time.RFC3339)
		if c.Size > size {
			note("the witness %s cosigned %d leaves at %s, the log has %d: leaves were cut off, or the log is an old copy", w.name, c.Size, at, size)
			continue
		}
		root, err := tree.root(c.Size)
		if err != nil {
			return err
		}
		if root != c.Root {
			note("the witness %s cosigned %d leaves at %s, and the log's first %d are others: the log was written anew", w.name, c.Size, at, c.Size)
			continue
		}
		l.witnessed = append(l.witnessed, Witnessed{Witness: w.name, Leaves: c.Size, Time: c.Time})
	}
	if len(l.witnessed) < need {
		for _, text := range missing {
			note("%s", text)
		}
		if need < len(v.c.Witnesses) {
			note("%d of %d witnesses have cosigned the log, and %d are asked for", len(l.witnessed), len(v.c.Witnesses), need)
		}
	}
	return nil
}
