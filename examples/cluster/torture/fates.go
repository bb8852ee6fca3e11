package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// shreds reads from the log which sessions were shredded, and why.
func (t *torture) shreds() (map[string]string, error) {
	b, err := os.ReadFile(filepath.Join(t.Dir, "archive", "ledger", "leaves"))
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 10 && f[1] == "shred" {
			found[f[2]] = f[9]
		}
	}
	return found, nil
}

// learn takes over what the log says of shredded sessions. Some came after their subject's keys had been destroyed.
func (t *torture) learn(all []*subject) error {
	why, err := t.shreds()
	if err != nil {
		return err
	}
	t.c.Unread = func(id string) bool { _, ok := why[id]; return ok }
	for _, u := range all {
		if u.Fate != shredded {
			continue
		}
		for _, id := range u.IDs {
			if why[id] == "" {
				return fmt.Errorf("I12: %s is shredded, and the log says nothing of its session %s", u.Name, id)
			}
		}
		for id, w := range why {
			if w == "erasure+"+u.Name && !slices.Contains(u.IDs, id) {
				u.IDs = append(u.IDs, id)
			}
		}
	}
	return nil
}

// shredLate asks once more for each shredding, now that everything is archived: what a gateway that was killed handed on only
// after that has a key of its own.
func (t *torture) shredLate(ctx context.Context, all []*subject, s *subjects) error {
	for _, u := range all {
		if u.Fate == shredded {
			if err := s.shred(ctx, u); err != nil {
				return err
			}
		}
	}
	return t.learn(all)
}

// judgeFates demands that what was shredded can be read nowhere (I12), and that what is held is there (I13).
func (t *torture) judgeFates(all []*subject, s *subjects) error {
	stores := map[string]string{"file": t.c.Archive()}
	if t.c.Bucket != nil {
		stores["s3"] = filepath.Join(t.Dir, "fetched")
	}
	for end := time.Now().Add(wipedWithin); ; time.Sleep(time.Second) { // a gateway's log is wiped after a while
		left, err := t.whispers(all)
		if err == nil {
			err = t.streams(all)
		}
		if err == nil {
			if left > 0 {
				fmt.Fprintf(t.Out, "the files of NATS servers hold %d records of destroyed keys that are removed there, and not yet written over\n", left)
			}
			break
		}
		if time.Now().After(end) {
			return err
		}
	}
	sessions, read := 0, 0
	for _, u := range all {
		for _, id := range u.IDs {
			if u.Fate != shredded {
				continue
			}
			sessions++
			bundle := filepath.Join(t.Dir, id+".weir")
			for _, args := range [][]string{{"show", id}, {"replay", id, "--format", "json"}, {"export", id, "-o", bundle}, {"sessions", "--grep", u.Canary}} {
				out, errs, _ := t.c.Run(args...)
				if strings.Contains(out+errs, u.Canary) || args[0] == "sessions" && strings.Contains(out, id) {
					return fmt.Errorf("I12: %s is shredded, and weir %s gives what it said", id, strings.Join(args, " "))
				}
			}
			if b, err := os.ReadFile(bundle); err == nil && bytes.Contains(b, []byte("keys.json")) {
				return fmt.Errorf("I12: the bundle of %s, which is shredded, has keys", id)
			}
			_ = os.Remove(bundle) // not there where export refused
		}
	}
	kept := 0
	for name, dir := range stores {
		a, err := t.c.Open(dir)
		if err != nil {
			return err
		}
		if err := t.whispered(a, name, all); err != nil {
			return err
		}
		for _, u := range all {
			for _, id := range u.IDs {
				_, err := a.Read(id, func(*loopback.Record) error { return nil })
				there := a.Sessions[id] != nil
				switch {
				case u.Fate == shredded && !errors.Is(err, loopback.ErrNoKey):
					return fmt.Errorf("I12: the store %s lets %s be read, which is shredded: %v", name, id, err)
				case u.Fate == shredded:
					read++
				case u.Fate == removed && there && name == "file":
					return fmt.Errorf("the store %s has %s, which is over its time", name, id)
				case (u.Fate == heldAndKept || id == u.Held) && (!there || err != nil):
					return fmt.Errorf("I13: the store %s does not have %s, which is held: %v", name, id, err)
				}
				if id == u.Held {
					kept++
				}
			}
		}
	}
	n, _ := s.each()
	fmt.Fprintf(t.Out, "I12 holds: %d sessions of %d subjects were shredded under fire; in none of %d looks into the stores, by no command, in no file and no record of a key can what they said be read\n", sessions, n[shredded], read)
	fmt.Fprintf(t.Out, "I13 holds: %d held sessions are in their stores (%d looks), after %d shreddings that were refused and %d purges; %d subjects' other sessions were removed\n",
		n[heldAndKept]+n[heldFromFate], kept, s.refused, s.purges, n[removed])
	if t.c.Bucket != nil {
		locked, err := t.c.Bucket.Remove(context.Background())
		if err != nil {
			return fmt.Errorf("I13: %w", err)
		}
		fmt.Fprintf(t.Out, "I13 holds in the bucket: with all rights in it, none of its %d segments can be deleted\n", locked)
	}
	return nil
}

// whispered demands that no session in a store that can be read has what a shredded subject said.
func (t *torture) whispered(a *loopback.Stored, name string, all []*subject) error {
	for id := range a.Sessions {
		var found string
		_, err := a.Read(id, func(r *loopback.Record) error {
			for _, b := range [][]byte{r.Wire, r.Facts} {
				if !bytes.Contains(b, []byte(whisper)) {
					continue
				}
				for _, u := range all {
					if u.Fate == shredded && bytes.Contains(b, []byte(u.Canary)) {
						found = u.Name
					}
				}
			}
			return nil
		})
		if found != "" {
			return fmt.Errorf("I12: session %s in the store %s has what %s said, who is shredded", id, name, found)
		}
		if err != nil && !t.c.Unread(id) {
			return fmt.Errorf("the store %s: session %s: %w", name, id, err)
		}
	}
	return nil
}

// whispers looks through every file for what shredded subjects said, and for keys with which it could be read. The files of NATS
// servers may hold keys that are removed there: how many is returned.
func (t *torture) whispers(all []*subject) (left int, err error) {
	who := shreddedNames(all)
	var found []string
	note := func(path, what string) {
		if path, _ = strings.CutPrefix(path, t.Dir+"/"); !slices.Contains(found, path+": "+what) {
			found = append(found, path+": "+what)
		}
	}
	err = t.c.EachFile(func(path string, b []byte) {
		for _, u := range who {
			if bytes.Contains(b, []byte(u.Canary)) {
				note(path, "what "+u.Name+" said")
			}
		}
		loopback.KeyRecords(b, func(r loopback.KeyRecord) {
			u := who[r.Subject]
			if u == nil {
				u = who[r.Session]
			}
			switch {
			case u == nil:
			case strings.Contains(path, "/jetstream/"):
				left++
			default:
				note(path, "a key of "+u.Name)
			}
		})
	})
	if err == nil && len(found) > 0 {
		err = fmt.Errorf("I12: of subjects that are shredded there is still\n%s", strings.Join(found[:min(len(found), 40)], "\n"))
	}
	return left, err
}

// shreddedNames are the shredded subjects by name, and by session: what a crash left of one has a key of its own.
func shreddedNames(all []*subject) map[string]*subject {
	who := map[string]*subject{}
	for _, u := range all {
		if u.Fate != shredded {
			continue
		}
		who[u.Name] = u
		for _, id := range u.IDs {
			who[id] = u
		}
	}
	return who
}

// streams demands that no NATS server gives a key of a shredded subject to whoever reads the journal's streams.
func (t *torture) streams(all []*subject) error {
	who := shreddedNames(all)
	return t.c.Keys(func(stream string, r loopback.KeyRecord) error {
		if u := cmp.Or(who[r.Subject], who[r.Session]); u != nil {
			return fmt.Errorf("I12: %s is shredded, and the stream %s has a key of it", u.Name, stream)
		}
		return nil
	})
}

// compareStores demands that the bucket has what the file store has: the same sessions, but for those that the file store
// has removed and the bucket has locked, and the same blocks; and that weir verify accepts it.
func (t *torture) compareStores(all []*subject) error {
	if t.c.Bucket == nil {
		return nil
	}
	dir := filepath.Join(t.Dir, "fetched")
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := t.c.Bucket.Fetch(context.Background(), dir); err != nil {
		return err
	}
	file, err := t.c.Open(t.c.Archive())
	if err != nil {
		return err
	}
	bucket, err := t.c.Open(dir)
	if err != nil {
		return fmt.Errorf("the bucket: %w", err)
	}
	leaves, err := os.ReadFile(filepath.Join(t.Dir, "archive", "ledger", "leaves"))
	if err != nil {
		return err
	}
	may := map[string]bool{} // whose removal the log tells: core/ARCHIVE.md
	for line := range strings.Lines(string(leaves)) {
		if f := strings.Fields(line); len(f) > 2 && f[1] == "gone" {
			may[f[2]] = true
		}
	}
	for _, u := range all {
		if may[u.Held] {
			return fmt.Errorf("I13: the log says that %s was removed, which is held", u.Held)
		}
	}
	if what := file.Differs(bucket, func(id string) bool { return may[id] }); what != "" {
		return fmt.Errorf("the bucket is not what the file store is: %s", what)
	}
	out, errs, code := t.c.RunWith(t.c.Bucket.Environment(), "verify", "--all", "--archive", t.c.Bucket.URL(),
		"--ledger", filepath.Join(t.Dir, "archive", "ledger"), "--key", filepath.Join(t.Dir, "archive", "keys", "ledger.pub"))
	if code != 0 {
		return fmt.Errorf("weir verify of the bucket ended with %d: %s%s", code, out, errs)
	}
	fmt.Fprintf(t.Out, "the bucket has the same %d sessions and their blocks, %d blocks in all; weir %s", len(file.Sessions), bucket.Blocks, out)
	return nil
}
