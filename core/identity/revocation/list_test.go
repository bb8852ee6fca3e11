package revocation

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-gateway/weir/core"
)

// bus is a JetStream that several gateways share.
type bus struct {
	t   *testing.T
	dir string
	s   *server.Server
}

func newBus(t *testing.T) *bus {
	b := &bus{t: t, dir: t.TempDir()}
	b.start(-1)
	t.Cleanup(b.stop)
	return b
}

func (b *bus) start(port int) {
	b.t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: b.dir, NoSigs: true, NoLog: true})
	if err != nil {
		b.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		b.t.Fatal("no server")
	}
	b.s = s
}

func (b *bus) stop() { b.s.Shutdown(); b.s.WaitForShutdown() }

func (b *bus) connect() jetstream.JetStream {
	b.t.Helper()
	conn, err := nats.Connect(b.s.ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		b.t.Fatal(err)
	}
	return js
}

type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func (b *bus) list(c *clock) *List {
	b.t.Helper()
	l := Open(b.t.Context(), Config{JetStream: b.connect(), Now: c.now, Metrics: prometheus.NewRegistry(), every: 50 * time.Millisecond, call: 500 * time.Millisecond})
	b.t.Cleanup(l.Close)
	return l
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for range 1000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("never: " + what)
}

var ada = core.Identity{Subject: "ada", Issuer: "https://idp.example", Token: "t-1"}

func rule(l *List, id core.Identity) string {
	if d := l.Check(id); d != nil {
		return d.Rule
	}
	return ""
}

// TestSharedByGateways: what is revoked at one gateway is refused at the other within seconds, and only that.
func TestSharedByGateways(t *testing.T) {
	b := newBus(t)
	var c clock
	one, two := b.list(&c), b.list(&c)
	if rule(two, ada) != "" {
		t.Fatal("refused before anything was revoked")
	}
	for _, tc := range []struct {
		name string
		r    core.Revocation
		hit  core.Identity
		miss core.Identity
	}{
		{"token", core.Revocation{Token: "t-1"}, ada, core.Identity{Subject: "ada", Issuer: ada.Issuer, Token: "t-2"}},
		{"token of an issuer", core.Revocation{Token: "t-1", Issuer: ada.Issuer}, ada, core.Identity{Subject: "ada", Issuer: "weir", Token: "t-1"}},
		{"subject", core.Revocation{Subject: "ada"}, core.Identity{Subject: "ada", Issuer: "weir", Token: "t-9"}, core.Identity{Subject: "ada2", Token: "ada"}},
		{"subject of an issuer", core.Revocation{Subject: "ada", Issuer: ada.Issuer}, ada, core.Identity{Subject: "ada", Issuer: "weir"}},
		{"a token has no id", core.Revocation{Token: "x"}, core.Identity{Subject: "bob", Token: "x"}, core.Identity{Subject: "bob"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			select {
			case <-two.Changed():
			default:
			}
			if err := one.Revoke(t.Context(), tc.r); err != nil {
				t.Fatal(err)
			}
			if rule(one, tc.hit) != "token-revoked" {
				t.Error("the gateway that was told does not know at once")
			}
			select {
			case <-two.Changed():
			case <-time.After(10 * time.Second):
				t.Fatal("the other gateway was not told within 10 s")
			}
			if rule(two, tc.hit) != "token-revoked" || rule(two, tc.miss) != "" {
				t.Errorf("hit %q, miss %q", rule(two, tc.hit), rule(two, tc.miss))
			}
			if err := two.Restore(t.Context(), tc.r); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it is restored at the first", func() bool { return rule(one, tc.hit) == "" })
		})
	}
	var no core.Refusal
	for name, err := range map[string]error{
		"neither":  one.Revoke(t.Context(), core.Revocation{}),
		"both":     one.Revoke(t.Context(), core.Revocation{Token: "a", Subject: "b"}),
		"long":     one.Revoke(t.Context(), core.Revocation{Token: strings.Repeat("a", maxText+1)}),
		"not here": one.Restore(t.Context(), core.Revocation{Subject: "nobody"}),
	} {
		if !errors.As(err, &no) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOutOfReach: the last known state counts for a bounded time; then nobody is let in. Who is known to be revoked stays
// revoked throughout. A gateway that has never reached the list lets nobody in.
func TestOutOfReach(t *testing.T) {
	b := newBus(t)
	var c clock
	l := b.list(&c)
	if err := l.Revoke(t.Context(), core.Revocation{Subject: "eve"}); err != nil {
		t.Fatal(err)
	}
	port := b.s.Addr().String()
	js := b.connect()
	b.stop()
	blind := Open(t.Context(), Config{JetStream: js, Now: c.now, every: 50 * time.Millisecond, call: 500 * time.Millisecond})
	t.Cleanup(blind.Close)
	if rule(blind, ada) != "revocations-unknown" {
		t.Error("a gateway that knows nothing lets somebody in")
	}
	if rule(l, ada) != "" || rule(l, core.Identity{Subject: "eve"}) != "token-revoked" {
		t.Error("the last known state does not count")
	}
	if err := l.Revoke(t.Context(), core.Revocation{Subject: "x"}); err == nil {
		t.Error("revoked without the bucket")
	}
	if _, err := l.List(t.Context()); err == nil {
		t.Error("listed without the bucket")
	}
	c.forward(DefaultMaxAge + time.Second)
	if rule(l, ada) != "revocations-unknown" || rule(l, core.Identity{Subject: "eve"}) != "token-revoked" {
		t.Error("what is too old counts still")
	}
	if _, ok := l.Revoked(ada); ok {
		t.Error("open sessions are cut because of an outage")
	}
	n := 0
	for _, d := range port[strings.LastIndexByte(port, ':')+1:] {
		n = n*10 + int(d-'0')
	}
	b.start(n)
	eventually(t, "both let ada in again", func() bool { return rule(l, ada) == "" && rule(blind, ada) == "" })
	if rule(blind, core.Identity{Subject: "eve"}) != "token-revoked" {
		t.Error("the restart has lost a revocation")
	}
}

// TestBucketLost: somebody deletes the bucket. What gateways know is put back.
func TestBucketLost(t *testing.T) {
	b := newBus(t)
	var c clock
	l := b.list(&c)
	for _, s := range []string{"eve", "mallory"} {
		if err := l.Revoke(t.Context(), core.Revocation{Subject: s}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Restore(t.Context(), core.Revocation{Subject: "mallory"}); err != nil {
		t.Fatal(err)
	}
	if err := b.connect().DeleteKeyValue(t.Context(), Bucket); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is there again", func() bool {
		list, err := l.List(t.Context())
		return err == nil && len(list) == 1 && list[0].Subject == "eve"
	})
	fresh := b.list(&c)
	if rule(fresh, core.Identity{Subject: "eve"}) != "token-revoked" {
		t.Error("a new gateway does not know")
	}
}

func TestSweep(t *testing.T) {
	b := newBus(t)
	var c clock
	l := b.list(&c)
	for _, r := range []core.Revocation{{Token: "short", Until: time.Now().Add(time.Hour)}, {Token: "long", Until: time.Now().Add(48 * time.Hour)}, {Subject: "eve"}} {
		if err := l.Revoke(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	l.sweep(t.Context())
	if list, _ := l.List(t.Context()); len(list) != 3 {
		t.Fatalf("swept too early: %v", list)
	}
	c.forward(2*time.Hour + time.Minute)
	l.sweep(t.Context())
	list, err := l.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestStrangeEntry: what cannot be read might be a revocation, so nobody is let in on a guess.
func TestStrangeEntry(t *testing.T) {
	b := newBus(t)
	var c clock
	l := b.list(&c)
	kv, err := b.connect().KeyValue(context.Background(), Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.PutString(t.Context(), "token.x", `{"subject": "ada"}`); err != nil { // under a name that is not its own
		t.Fatal(err)
	}
	if _, err := l.List(t.Context()); err == nil {
		t.Fatal("a strange entry was taken")
	}
	c.forward(DefaultMaxAge + time.Second)
	if rule(l, core.Identity{Subject: "bob"}) != "revocations-unknown" {
		t.Error("somebody is let in")
	}
	if err := kv.Purge(t.Context(), "token.x"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is good again", func() bool { return rule(l, core.Identity{Subject: "bob"}) == "" })
}
