package ledger

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// destroyedFile lists the recording keys that were destroyed, one a line: name, time in nanoseconds, who, why. It is no
// evidence: the leaves are. It is what keeps a key away that JetStream delivers once more, or to a store that was behind.
const destroyedFile = "destroyed"

// Destroyed says who destroyed a recording key, when and why.
type Destroyed struct {
	Time    time.Time
	By, Why string
}

// Destroy notes that recording keys are destroyed from now on; when it returns nil that is durable, and only then may they be
// dropped. One that is noted already stays as it is.
func (l *Ledger) Destroy(by, why string, now time.Time, keys ...KeyID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	var b strings.Builder
	for _, k := range keys {
		if _, ok := l.destroyed[k]; !ok {
			fmt.Fprintf(&b, "%s %d %s %s\n", k, now.UnixNano(), url.QueryEscape(by), url.QueryEscape(why))
		}
	}
	if b.Len() == 0 {
		return nil
	}
	if err := l.noteDestroyed(b.String()); err != nil {
		l.failed = fmt.Errorf("ledger: %w", err) // what is on the disk is unknown now
		return l.failed
	}
	for _, k := range keys {
		if _, ok := l.destroyed[k]; !ok {
			l.destroyed[k] = Destroyed{now, by, why}
		}
	}
	return nil
}

func (l *Ledger) noteDestroyed(text string) error {
	f, err := os.OpenFile(filepath.Join(l.dir, destroyedFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	d, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Destroyed reports whether a recording key was destroyed, and by whom. A nil Ledger knows of none.
func (l *Ledger) Destroyed(key KeyID) (Destroyed, bool) {
	if l == nil {
		return Destroyed{}, false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	d, ok := l.destroyed[key]
	return d, ok
}

// AnyDestroyed reports whether any recording key was. A nil Ledger knows of none.
func (l *Ledger) AnyDestroyed() bool {
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.destroyed) > 0
}

// loadDestroyed reads the list, and cuts off a last line that a crash has torn.
func (l *Ledger) loadDestroyed() error {
	l.destroyed = map[KeyID]Destroyed{}
	path := filepath.Join(l.dir, destroyedFile)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	defer f.Close()
	end := int64(0)
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			if line == "" {
				return nil
			}
			return os.Truncate(path, end) // it was never acknowledged
		}
		if err != nil {
			return fmt.Errorf("ledger: %w", err)
		}
		end += int64(len(line))
		key, d, err := parseDestroyed(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return fmt.Errorf("ledger: %s: %w; restore the file", path, err)
		}
		l.destroyed[key] = d
	}
}

func parseDestroyed(line string) (key KeyID, d Destroyed, err error) {
	f := strings.Split(line, " ")
	if len(f) != 4 {
		return key, d, errors.New("a line that names no destroyed key")
	}
	var errs [4]error
	var ns int64
	key, errs[0] = ParseKeyID(f[0])
	ns, errs[1] = strconv.ParseInt(f[1], 10, 64)
	d.Time = time.Unix(0, ns).UTC()
	d.By, errs[2] = url.QueryUnescape(f[2])
	d.Why, errs[3] = url.QueryUnescape(f[3])
	return key, d, errors.Join(errs[:]...)
}
