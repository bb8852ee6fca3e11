package loopback

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Finding is what holding the clients' accounts, the database's log and the archive against each other has shown.
type Finding struct {
	Sessions, Records, Answers int
	Ran, Recorded, Denied      int // statements by their marks
	Crashed                    int // sessions whose seal says that their gateway was gone
	Bounded                    Loss
	Problems                   []string
}

// Loss is what was lost of sessions whose promise is bounded, and may be.
type Loss struct {
	Sessions, Short, Gone int   // there were; that lack something at their end; of which there is no record at all
	Bytes                 int64 // the most that one lacks
	Time                  time.Duration
	Statements            int // ran without a record
}

func (f *Finding) problem(format string, v ...any) {
	if len(f.Problems) < 100 {
		f.Problems = append(f.Problems, fmt.Sprintf(format, v...))
	}
}

var marker = regexp.MustCompile(`/\*mark:([^*]+)\*/`)

// delivered follows what a session's records say that the client was given after its greeting.
type delivered struct {
	want    Seen
	hash    hash.Hash
	bytes   int64
	greeted bool
	sum     string // over the first want.Bytes bytes
}

func (d *delivered) add(r *Record) {
	if r.Direction == FromClient {
		return
	}
	if !d.greeted {
		d.greeted = r.Direction == FromUpstream
		if d.greeted {
			return
		}
	}
	b := r.Wire
	if left := d.want.Bytes - d.bytes; int64(len(b)) >= left && d.sum == "" {
		d.hash.Write(b[:left])
		d.sum = hex.EncodeToString(d.hash.Sum(nil))
	} else if d.sum == "" {
		d.hash.Write(b)
	}
	d.bytes += int64(len(r.Wire))
}

// Open reads through an archive, which is the cluster's own or a copy.
func (c *Cluster) Open(dir string) (*Stored, error) {
	s, err := OpenArchive(dir)
	if err == nil && c.reader != nil {
		s.Reader = c.reader
	}
	return s, err
}

// Check demands of the archive: what a client saw is in it, byte for byte (I1); what ran at the database is in it (I2);
// numbering and chains hold (I3) and nothing is there twice (I4); what was denied is in it as denied, and did not run
// (I5); each session has its seal (I7).
func (c *Cluster) Check(seen []Seen) (*Finding, error) {
	f := &Finding{}
	s, err := c.Open(c.Archive())
	if err != nil {
		return nil, err
	}
	if s.Doubled > 0 {
		f.problem("I4: %d blocks are stored twice", s.Doubled)
	}
	accounts, windows := map[string]Seen{}, map[string]*Window{}
	for _, a := range seen {
		accounts[a.Name] = a
		f.Answers += a.Answers
		if a.Window != nil {
			windows[a.Name] = a.Window
			f.Bounded.Sessions++
		}
	}
	recorded, denied := map[string]bool{}, map[string]bool{}
	for id := range s.Sessions {
		f.Sessions++
		name, d := "", &delivered{hash: sha256.New()}
		seal, err := s.Read(id, func(r *Record) error {
			f.Records++
			if c.secret(r.Facts) || c.secret(r.Wire) {
				f.problem("I6: a secret is in record %d of session %s", r.Seq, id)
			}
			var facts struct {
				Details map[string]string
				Stage   string
				Command struct{ Text string }
				Denied  *struct{ Rule string }
			}
			if r.Kind == KindOpen || r.Kind == KindCommand {
				if err := json.Unmarshal(r.Facts, &facts); err != nil {
					return err
				}
			}
			switch {
			case r.Kind == KindOpen:
				name = facts.Details["application_name"]
				d.want = accounts[name]
			case r.Kind == KindCommand:
				for _, m := range marker.FindAllStringSubmatch(facts.Command.Text, -1) {
					switch {
					case facts.Denied != nil:
						denied[m[1]] = true
					case facts.Stage != "prepare":
						recorded[m[1]] = true
					}
				}
			}
			d.add(r)
			return nil
		})
		switch {
		case errors.Is(err, ErrNoKey) && c.Unread != nil && c.Unread(id):
			continue
		case err != nil:
			f.problem("I3: %v", err)
		case seal == nil:
			f.problem("I7: session %s (%s) has no seal", id, name)
		case seal.End == "gateway-crash":
			f.Crashed++
		}
		if want, ok := accounts[name]; ok {
			switch {
			case d.bytes < want.Bytes && want.Window != nil:
				f.short(id, want, d)
			case d.bytes < want.Bytes:
				f.problem("I1: session %s (%s): the client saw %d bytes, the record has %d", id, name, want.Bytes, d.bytes)
			case want.Bytes > 0 && d.sum != want.Sum:
				f.problem("I1: session %s (%s): the first %d bytes of the record are not what the client saw", id, name, want.Bytes)
			}
			delete(accounts, name)
		}
	}
	for name, a := range accounts {
		if a.Window != nil && a.Window.mayMissAll(a.Bytes) {
			f.Bounded.Gone++
			f.Bounded.Bytes = max(f.Bounded.Bytes, a.Bytes)
			continue
		}
		f.problem("I1: %s was let in, and has no record", name)
	}
	ran, err := statements(c.Postgres.LogFile())
	if err != nil {
		return nil, err
	}
	for m := range ran {
		if recorded[m] {
			continue
		}
		if name, n := marked(m); windows[name] != nil && windows[name].mayMiss(n) {
			f.Bounded.Statements++
			continue
		}
		f.problem("I2: %s ran and is not in the record", m)
	}
	for m := range denied {
		if ran[m] {
			f.problem("I5: %s was denied and ran", m)
		}
	}
	for _, a := range seen {
		for _, m := range a.Denied {
			if _, n := marked(m); !denied[m] && (a.Window == nil || !a.Window.mayMiss(n)) {
				f.problem("I5: %s was denied, and the record does not say so", m)
			}
		}
	}
	f.Ran, f.Recorded, f.Denied = len(ran), len(recorded), len(denied)
	return f, nil
}

// short judges a session that lacks something at its end: the promise bounded says how much that may be.
func (f *Finding) short(id string, want Seen, d *delivered) {
	lost, ok := want.Window.mayEnd(d.bytes, want.Bytes, hex.EncodeToString(d.hash.Sum(nil)))
	if !ok {
		f.problem("I1: session %s (%s), bounded: the client saw %d bytes, the record has %d, and ends where it may not", id, want.Name, want.Bytes, d.bytes)
		return
	}
	f.Bounded.Short++
	f.Bounded.Bytes, f.Bounded.Time = max(f.Bounded.Bytes, want.Bytes-d.bytes), max(f.Bounded.Time, lost)
}

// marked takes a mark apart: the client's session, and the number of what it asked.
func marked(mark string) (name string, n int) {
	name, rest, _ := strings.Cut(mark, ".")
	digits, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(digits)
	if err != nil {
		n = -1
	}
	return name, n
}

// statements are the marks in the database's log of statements.
func statements(logFile string) (map[string]bool, error) {
	f, err := os.Open(logFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	found := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<20), 16<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte("LOG:  ")) {
			continue
		}
		for _, m := range marker.FindAllStringSubmatch(lines.Text(), -1) {
			found[m[1]] = true
		}
	}
	return found, lines.Err()
}

// Secrets looks for what must be nowhere (I6): the database's password, and values that a policy masked, in every file
// of the cluster, packed or not. The name of each file that has one is returned.
func (c *Cluster) Secrets() (found []string, err error) {
	err = c.EachFile(func(path string, b []byte) {
		if c.secret(b) {
			found = append(found, path)
		}
	})
	return found, err
}

// secret reports whether a secret is in b.
func (c *Cluster) secret(b []byte) bool {
	secrets := []string{c.Password, c.Token, Emails[0], Emails[1]}
	if c.Bucket != nil {
		secrets = append(secrets, c.Bucket.secret)
	}
	return slices.ContainsFunc(secrets, func(s string) bool { return bytes.Contains(b, []byte(s)) })
}

// EachFile calls f with every file of the cluster, and with what it holds that is packed.
func (c *Cluster) EachFile(f func(path string, b []byte)) error {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
	if err != nil {
		return err
	}
	defer z.Close()
	return filepath.WalkDir(c.Dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasSuffix(path, ".filler") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f(path, b)
		for at, magic := 0, []byte{0x28, 0xb5, 0x2f, 0xfd}; ; at += len(magic) {
			i := bytes.Index(b[at:], magic)
			if i < 0 {
				return nil
			}
			at += i
			if z.Reset(bytes.NewReader(b[at:])) == nil {
				plain, _ := io.ReadAll(io.LimitReader(z, 64<<20)) // what follows the frame is an error, what was read counts
				f(path, plain)
			}
		}
	})
}
