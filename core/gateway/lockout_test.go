package gateway

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/identity"
)

func TestLockout(t *testing.T) {
	now := time.Unix(1000, 0)
	path := filepath.Join(t.TempDir(), "locks.json")
	made := func(hold time.Duration) *lockout { return newLockout(func() time.Time { return now }, hold, path) }
	l := made(15 * time.Minute)
	for i := range freeFailures {
		if l.locked("a") {
			t.Fatalf("locked after %d", i)
		}
		if locked := l.failed("a"); locked != (i == freeFailures-1) {
			t.Fatalf("failure %d: %v", i, locked)
		}
	}
	if !l.locked("a") || l.locked("b") || l.failed("a") {
		t.Error("not locked, or another one is, or it is locked twice")
	}
	for range freeFailures - 2 {
		l.failed("c")
	}
	if err := l.save(); err != nil {
		t.Fatal(err)
	}
	// The next start knows of both.
	l = made(15 * time.Minute)
	if err := l.load(); err != nil || !l.locked("a") || len(l.list()) != 1 {
		t.Fatalf("after a restart: %v %v", err, l.list())
	}
	l.failed("c")
	if !l.failed("c") || !l.locked("c") {
		t.Error("failures before the restart do not count")
	}
	if !l.release("c") || l.locked("c") || l.release("c") || l.failed("c") {
		t.Error("a release does not hold")
	}
	now = now.Add(15*time.Minute + time.Second)
	if l.locked("a") || len(l.list()) != 0 {
		t.Error("a lock does not end")
	}
	// A minute apart they do not add up.
	for range 3 * freeFailures {
		now = now.Add(window / (freeFailures - 2))
		if l.failed("slow") {
			t.Fatal("who fails seldom is locked")
		}
	}
	// A flood of sources takes no more than its room, and does not push out who is locked.
	for range freeFailures {
		l.failed("locked")
	}
	for i := range 2 * maxSources {
		l.failed(fmt.Sprint("flood ", i))
	}
	if len(l.sources) > maxSources || !l.locked("locked") {
		t.Errorf("%d sources; %v", len(l.sources), l.locked("locked"))
	}
	if off := made(0); off.failed("a") || off.locked("a") {
		t.Error("it is off, and locks")
	}
	for _, broken := range []string{"", "{", `{"a": 1}`} {
		if err := os.WriteFile(path, []byte(broken), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := made(time.Minute).load(); err == nil || !strings.Contains(err.Error(), "forgotten") {
			t.Errorf("%q: %v", broken, err)
		}
	}
	// Nobody can write a lock that lasts for ever into it.
	if err := os.WriteFile(path, []byte(`{"a": {"since": "1970-01-01T00:16:40Z", "count": 10, "until": "2970-01-01T00:00:00Z"}, "b": null}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if l = made(time.Minute); l.load() != nil || l.locked("a") {
		t.Error("a lock of a thousand years")
	}
}

// TestLockedOut: who fails ten times is refused for a quarter of an hour, whatever is shown then, in the same words and
// without the token being looked at; others get in; it outlives the process; an operator can end it. Without the lock, which is the
// control, the right token gets in.
func TestLockedOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "locks.json")
	for _, hold := range []time.Duration{15 * time.Minute, 0} {
		seen := &counting{}
		change := func(c *Config, s *Settings) { c.Lock, c.Locks, s.Verifier = hold, path, seen }
		r := behind(t, change, listed)
		from := func(r *rig, source, token string) string {
			k := r.through("PROXY TCP6 " + source + " ::1 1 2\r\n")
			defer k.Close()
			return k.say("one " + token)
		}
		for i := range freeFailures { // anywhere in the /64 of one customer
			if got := from(r, fmt.Sprintf("2001:db8:1:2::%x", i+1), "nobody"); !strings.HasPrefix(got, "no: names: nobody") {
				t.Fatalf("failure %d: %q", i, got)
			}
		}
		verified := seen.n
		right, wrong := from(r, "2001:db8:1:2:ffff::1", "good"), ""
		if hold == 0 {
			if !strings.HasPrefix(right, "ok") {
				t.Errorf("the control: %q", right)
			}
			continue
		}
		wrong = from(r, "2001:db8:1:2::1", "nobody")
		if right != wrong || !strings.Contains(right, "too many sign-ins have failed from this address") || seen.n != verified {
			t.Errorf("the right token hears %q, a wrong one %q; %d were looked at", right, wrong, seen.n-verified)
		}
		if got := from(r, "2001:db8:1:3::1", "good"); !strings.HasPrefix(got, "ok") {
			t.Errorf("a neighbour hears %q", got)
		}
		if _, m := r.get("/metrics"); !strings.Contains(m, `weir_gateway_refused_total{reason="locked"} 2`) || !strings.Contains(m, "weir_gateway_locks_total 1") {
			t.Error("not counted")
		}
		if err := r.end(); err != nil {
			t.Fatal(err)
		}
		again := behind(t, func(c *Config, s *Settings) { change(c, s); s.Verifier = operators{} }, listed)
		if got := from(again, "2001:db8:1:2::9", "good"); !strings.Contains(got, "too many") {
			t.Errorf("after a restart: %q", got)
		}
		if code, text := again.ask("GET", "/api/v1/locks", "key", ""); code != 200 || !strings.Contains(text, `"2001:db8:1:2::/64"`) {
			t.Errorf("%d %s", code, text)
		}
		if code, text := again.ask("POST", "/api/v1/locks/release", "key", `{"source":"2001:db8:1:2::/64"}`); code != 200 {
			t.Errorf("%d %s", code, text)
		}
		if got := from(again, "2001:db8:1:2::9", "good"); !strings.HasPrefix(got, "ok") {
			t.Errorf("after the lock was ended: %q", got)
		}
		_ = again.end()
		_ = os.Remove(path)
	}
}

type counting struct {
	names
	n int
}

func (c *counting) Verify(ctx context.Context, token string) (core.Identity, error) {
	c.n++
	return c.names.Verify(ctx, token)
}

// TestLoopbackIsNotLocked: one of many on this machine does not lock out all.
func TestLoopbackIsNotLocked(t *testing.T) {
	r := start(t, func(c *Config, _ *Settings) { c.Lock = time.Hour })
	for range freeFailures {
		r.dial().want("one nobody", "no: ")
	}
	r.dial().want("one good", "ok")
}

// TestSlowByUser: failures in one name are slow wherever they come from, and a token that holds is not.
func TestSlowByUser(t *testing.T) {
	th := newThrottle(time.Now)
	for i := range freeFailures {
		if tell, delay := th.failed(fmt.Sprint("source ", i), "app"); !tell || delay > 0 {
			t.Errorf("failure %d: %v %v", i, tell, delay)
		}
	}
	if tell, delay := th.failed("another source", "app"); !tell || delay == 0 { // it is told of all the same
		t.Errorf("%v %v", tell, delay)
	}
	if _, delay := th.failed("a third source", "other"); delay > 0 {
		t.Errorf("another name waits %v", delay)
	}
}

// TestNoEnumeration: neither the text nor the time tells a subject that exists from one that does not.
func TestNoEnumeration(t *testing.T) {
	ours, err := identity.OpenIssuer(t.TempDir(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := identity.OpenIssuer(t.TempDir(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	v, err := identity.New(t.Context(), identity.Config{Service: ours})
	if err != nil {
		t.Fatal(err)
	}
	known, err := ours.Issue(identity.Grant{Subject: "ada"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), known.Token); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(known.Token, ".")
	wrong := parts[0] + "." + parts[1] + "." + strings.Repeat("A", len(parts[2])) // of a subject that is there
	never, err := theirs.Issue(identity.Grant{Subject: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Split(never.Token, ".")
	unknown := parts[0] + "." + other[1] + "." + other[2] // of one that is not
	median := func(token string) (time.Duration, string) {
		var took []time.Duration
		text := ""
		for range 200 {
			begin := time.Now()
			_, err := v.Verify(t.Context(), token)
			took = append(took, time.Since(begin))
			if err == nil {
				t.Fatal("it is taken")
			}
			text = err.Error()
		}
		slices.Sort(took)
		return took[len(took)/2], text
	}
	a, said := median(wrong)
	b, told := median(unknown)
	if said != told || max(a, b)-min(a, b) > 5*time.Millisecond {
		t.Errorf("%v %q, and %v %q", a, said, b, told)
	}
}
