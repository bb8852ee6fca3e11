package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// fate is what is to become of a subject's sessions, and is done while everything is being broken.
type fate int

const (
	shredded     fate = iota // its keys are destroyed
	heldAndKept              // the same is asked for, and a session is under legal hold
	removed                  // retention removes them
	heldFromFate             // the same, and a session is under legal hold
	fates
)

func (f fate) String() string {
	return [...]string{"shredded", "held, and asked to be shredded", "removed by retention", "held, and over its time"}[f]
}

// subject is somebody whose sessions are shredded or removed, or kept from that by a legal hold.
type subject struct {
	Name, Canary string
	Fate         fate
	IDs          []string  // its sessions
	Held         string    // the one that is held
	said         time.Time // when it said it last
	done         bool
}

// whisper begins what subjects say.
const whisper = "whisper"

// keyPeriod is for how long a recording key is used.
const keyPeriod = 8 * time.Second

// subjects are all of them.
type subjects struct {
	t       *torture
	run     string
	mu      sync.Mutex
	list    []*subject
	refused int // shreddings, because of a hold
	purges  int // that were answered
	wg      sync.WaitGroup
	cancel  context.CancelFunc
}

// begin has some subjects come and go, at a time so many.
func (t *torture) begin(ctx context.Context, atOnce int) *subjects {
	s := &subjects{t: t, run: fmt.Sprint("s", t.Seed%1000)}
	var fire context.Context
	fire, s.cancel = context.WithCancel(ctx)
	for i := range atOnce {
		s.wg.Go(func() {
			for n := i; fire.Err() == nil; n += atOnce {
				u := &subject{Name: fmt.Sprintf("%s-%d", s.run, n), Canary: whisper + rand.Text(), Fate: fate(n % int(fates))}
				if err := s.live(ctx, u); err != nil {
					t.fail(fmt.Errorf("%s, to be %v: %w", u.Name, u.Fate, err))
					return
				}
				s.mu.Lock()
				s.list = append(s.list, u)
				s.mu.Unlock()
			}
		})
	}
	return s
}

// end waits until those that have begun are through.
func (s *subjects) end() []*subject {
	s.cancel()
	s.wg.Wait()
	return s.list
}

// each counts how many of each fate there have been.
func (s *subjects) each() (n [fates]int, least int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.list {
		n[u.Fate]++
	}
	least = n[0]
	for _, k := range n {
		least = min(least, k)
	}
	return n, least
}

// untilDone bounds each thing that a subject waits for: workers are killed every second or two, and S3 is behind.
const untilDone = 4 * time.Minute

// goneAfter is after how long sessions that retention may remove at once, and that are in no index, count as removed: they
// are archived long before.
const goneAfter = time.Minute

// again does something until it is done; false, nil says that it is not yet.
func (s *subjects) again(ctx context.Context, what string, do func() (bool, error)) error {
	for end := time.Now().Add(untilDone); ; {
		ok, err := do()
		if ok {
			return nil
		}
		if s.t.failure() != nil || ctx.Err() != nil {
			return errors.New("given up")
		}
		if errors.Is(err, errRemoved) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("not within %v: %s: %w", untilDone, what, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
}

// live is a subject's whole life.
func (s *subjects) live(ctx context.Context, u *subject) error {
	token := ""
	err := s.again(ctx, "a token", func() (_ bool, err error) {
		token, err = s.t.c.TokenOf(u.Name)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	listen := s.t.c.Listen
	if u.Fate == removed || u.Fate == heldFromFate {
		listen = s.t.c.Short
	}
	for at := 0; ; { // again where it was removed before it could be held
		if at, err = s.say(ctx, u, listen, token, at); err == nil {
			err = s.again(ctx, "its sessions are sealed in the index", func() (bool, error) { return s.sealed(u) })
		}
		if err == nil && (u.Fate == heldAndKept || u.Fate == heldFromFate) {
			err = s.hold(ctx, u)
		}
		if u.Fate == removed && errors.Is(err, errRemoved) {
			err = nil
		}
		if err == nil {
			break
		}
		if !errors.Is(err, errRemoved) {
			return err
		}
	}
	if u.Fate == shredded || u.Fate == heldAndKept {
		err = s.shred(ctx, u)
	} else {
		err = s.purge(ctx, u)
	}
	u.done = err == nil
	return err
}

// say has two sessions that say it, beside those that were cut short. at counts them all.
func (s *subjects) say(ctx context.Context, u *subject, listen []string, token string, at int) (int, error) {
	for said := 0; said < 2; at++ { // two sessions that say it, and those that were cut short
		if s.t.failure() != nil || ctx.Err() != nil {
			return at, errors.New("given up")
		}
		c, err := loopback.Dial(listen[at%len(listen)], token, fmt.Sprint(u.Name, "-", at), false)
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		for range 5 {
			if _, err = c.Query("select '" + u.Canary + "' as whispered, id, name from customers order by id"); err != nil {
				break
			}
		}
		if c.Bye(); err == nil {
			said++
		}
	}
	u.said = time.Now()
	return at, nil
}

// hold puts one of a subject's sessions under legal hold.
func (s *subjects) hold(ctx context.Context, u *subject) error {
	began := time.Now()
	return s.again(ctx, "a legal hold", func() (bool, error) {
		_, errs, code := s.t.c.Run("hold", u.Held, "--reason", "case "+u.Name)
		if code == 0 || strings.Contains(errs, "is held already") { // by a call whose answer was lost
			return true, nil
		}
		if u.Fate == heldFromFate && time.Since(began) > goneAfter {
			return false, errRemoved
		}
		return false, errors.New(errs)
	})
}

// errRemoved says that a subject's sessions were over their time, and removed by another one's purge, before they were looked at.
var errRemoved = errors.New("its sessions are gone already")

// sealed looks whether all of a subject's sessions are over.
func (s *subjects) sealed(u *subject) (bool, error) {
	out, errs, code := s.t.c.Run("sessions", "--identity", u.Name, "-o", "json")
	var list []struct{ ID, End string }
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
		return false, fmt.Errorf("weir sessions ended with %d: %s %w", code, errs, err)
	}
	u.IDs = nil
	for _, l := range list {
		if u.IDs = append(u.IDs, l.ID); l.End == "" {
			return false, fmt.Errorf("session %s is open", l.ID)
		}
		if u.Fate == heldAndKept || u.Fate == heldFromFate {
			u.Held = l.ID
		}
	}
	if over := u.Fate == removed || u.Fate == heldFromFate; over && len(list) < 2 && time.Since(u.said) > goneAfter {
		return false, errRemoved
	}
	return len(list) >= 2, fmt.Errorf("it has %d sessions", len(list))
}

// shred asks for a shredding until it is done, or is refused because of a hold. A key that may be in use is waited for.
func (s *subjects) shred(ctx context.Context, u *subject) error {
	return s.again(ctx, "weir shred", func() (bool, error) {
		out, errs, code := s.t.c.Run("shred", "--subject", u.Name, "--reason", "erasure "+u.Name, "-o", "json")
		var r struct {
			Keys  int
			Waits []any
		}
		switch {
		case strings.Contains(errs, "legal hold") && u.Fate == heldAndKept:
			s.mu.Lock()
			s.refused++
			s.mu.Unlock()
			return true, nil
		case strings.Contains(errs, "legal hold"):
			return false, fmt.Errorf("nothing is held: %s", errs)
		case strings.Contains(errs, "no recording key of this subject"):
			return u.Fate == shredded, errors.New(errs) // an earlier call did it, and its answer was lost
		case code != 0:
			return false, errors.New(errs)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			return false, err
		}
		if u.Fate == heldAndKept && r.Keys > 0 {
			s.t.fail(fmt.Errorf("I13: %s is held, and %d of its keys were destroyed", u.Name, r.Keys))
		}
		return len(r.Waits) == 0, fmt.Errorf("%d keys are waited for: %s", len(r.Waits), out)
	})
}

// purge has what is over its time removed. What is held is over its time as well, and stays.
func (s *subjects) purge(ctx context.Context, u *subject) error {
	time.Sleep(loopback.KeptFor)
	return s.again(ctx, "weir purge", func() (bool, error) {
		out, errs, code := s.t.c.Run("purge", "-o", "json")
		if code != 0 {
			return false, errors.New(errs)
		}
		var r struct{ Held []struct{ ID string } }
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			return false, err
		}
		s.mu.Lock()
		s.purges++
		s.mu.Unlock()
		if u.Fate == removed {
			return true, nil
		}
		for _, h := range r.Held {
			if h.ID == u.Held {
				return true, nil
			}
		}
		return false, fmt.Errorf("the purge does not say that %s is held: %s", u.Held, out)
	})
}
