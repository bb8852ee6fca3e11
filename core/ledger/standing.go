package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ErrStanding says that a deed does not fit what was done to the session before.
var ErrStanding = errors.New("nothing was done")

// ErrHeld is an ErrStanding: the session is under legal hold, and is neither removed nor shredded.
var ErrHeld = fmt.Errorf("it is under legal hold: %w", ErrStanding)

// standing is what the deeds in the log have made of a session.
type standing uint8

const (
	held standing = 1 << iota
	gone
	shredded
)

// with returns what a deed makes of a session, whether or not it fits.
func (s standing) with(k LeafKind) standing {
	switch k {
	case LeafHold:
		return s | held
	case LeafRelease:
		return s &^ held
	case LeafGone:
		return s | gone
	case LeafShred:
		return s | shredded
	}
	return s
}

// after returns what a deed makes of a session. A hold beats everything, and what is gone does not come back.
func (s standing) after(l *Leaf) (standing, error) {
	switch {
	case s&gone != 0 && l.Kind != LeafGone:
		return s, fmt.Errorf("ledger: session %s was removed already: %w", l.Session, ErrStanding)
	case s&held != 0 && (l.Kind == LeafGone || l.Kind == LeafShred):
		return s, fmt.Errorf("ledger: session %s: %w", l.Session, ErrHeld)
	case s&held != 0 && l.Kind == LeafHold:
		return s, fmt.Errorf("ledger: session %s is held already: release it first, for another reason: %w", l.Session, ErrStanding)
	case s&held == 0 && l.Kind == LeafRelease:
		return s, fmt.Errorf("ledger: session %s is not held: %w", l.Session, ErrStanding)
	}
	return s.with(l.Kind), nil
}

// Standing reports whether a session is under legal hold, and whether it has a tombstone.
func (l *Ledger) Standing(session string) (isHeld, isGone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.kept[sessionKey(session)]
	return s&held != 0, s&gone != 0
}

// Sealed reports whether the log has the seal of a session.
func (l *Ledger) Sealed(session string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.sealed[sessionKey(session)]
	return ok
}

// Each calls f with every leaf of the log in dir, in order, until f fails. It proves nothing; a gateway may be writing.
func Each(dir string, f func(Leaf) error) error {
	file, err := os.Open(filepath.Join(dir, leavesFile))
	if err != nil {
		return fmt.Errorf("ledger: leaves: %w", err)
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 1<<20)
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF {
			return nil // a torn line is a leaf that is being written
		}
		if err != nil {
			return fmt.Errorf("ledger: leaf %d: %w", n, err)
		}
		l, err := parseLeaf(string(line[:len(line)-1]))
		if err != nil {
			return fmt.Errorf("ledger: leaf %d: %w", n, err)
		}
		if err := f(l); err != nil {
			return err
		}
	}
}

// Each calls f with every leaf of the log, in order, until f fails.
func (l *Ledger) Each(f func(Leaf) error) error { return Each(l.dir, f) }
