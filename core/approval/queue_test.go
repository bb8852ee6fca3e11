package approval

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/weir-gateway/weir/core"
)

// bus is a JetStream that several gateways share.
type bus struct {
	t *testing.T
	s *server.Server
}

func startBus(t *testing.T) *bus {
	t.Helper()
	s, err := server.NewServer(&server.Options{DontListen: true, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("no server")
	}
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	return &bus{t, s}
}

func (b *bus) jetStream() jetstream.JetStream {
	b.t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(b.s))
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

// clock is a time that tests move.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

func (b *bus) queue(c *clock) *Queue {
	b.t.Helper()
	q := New(Config{JetStream: b.jetStream(), Metrics: prometheus.NewRegistry(), Now: c.now})
	b.t.Cleanup(q.Close)
	return q
}

var (
	ada  = core.Identity{Subject: "ada", Issuer: "corp", Groups: []string{"analysts"}, Kind: "human"}
	dana = core.Identity{Subject: "dana", Issuer: "corp", Groups: []string{"dba"}, Kind: "human"}
	sam  = core.Identity{Subject: "sam", Issuer: "corp", Groups: []string{"security"}, Kind: "human"}
)

func asked(mode core.HoldMode, digest string) core.Approval {
	now := time.Now().UTC()
	return core.Approval{
		State: core.ApprovalWaiting, Created: now, Expires: now.Add(time.Hour), Valid: 15 * time.Minute, Mode: mode,
		Identity: ada.Subject, Issuer: ada.Issuer, Target: "orders", Protocol: "postgres", Session: "s", Digest: digest,
		Holds: []core.HeldBy{{Rule: "big-delete", Approvers: []string{"dba"}}}, Action: "delete", Text: "DELETE FROM orders",
	}
}

func ask(t *testing.T, q *Queue, a core.Approval) core.Approval {
	t.Helper()
	a, err := q.Ask(context.Background(), a)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func approve(t *testing.T, q *Queue, who core.Identity, id string) core.Approval {
	t.Helper()
	eventually(t, func() bool { _, ok := q.Get(id); return ok })
	a, err := q.Decide(context.Background(), who, id, true, "go on")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// counted reads weir_approvals_total.
func (q *Queue) counted(result string) float64 {
	var m dto.Metric
	_ = q.metrics.results.WithLabelValues(result).Write(&m)
	return m.GetCounter().GetValue()
}

func eventually(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never came to be")
		}
	}
}

// TestOneUse: of many who want to use one approval, in two gateways, one does. The control counts what would happen if
// use were not bound to what was read.
func TestOneUse(t *testing.T) {
	b, c := startBus(t), &clock{}
	here, there := b.queue(c), b.queue(c)
	a := ask(t, here, asked(core.HoldRefuse, "d1"))
	approve(t, there, dana, a.ID)
	eventually(t, func() bool { x, _ := here.Get(a.ID); return x.State == core.ApprovalApproved })
	var won, read atomic.Int64
	var wg sync.WaitGroup
	for i := range 50 {
		q := []*Queue{here, there}[i%2]
		wg.Go(func() {
			if x, ok := q.Get(a.ID); ok && x.State == core.ApprovalApproved {
				read.Add(1)
			}
			used, err := q.Use(context.Background(), a.ID, "d1")
			switch {
			case err == nil:
				won.Add(1)
				if used.State != core.ApprovalUsed || used.Used == nil || used.Holds[0].Approved.Subject != "dana" {
					t.Errorf("used: %+v", used)
				}
			case !errors.Is(err, core.ErrNoApproval) && !errors.Is(err, errUnreachable):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d used the approval", won.Load())
	}
	if read.Load() < 2 {
		t.Logf("only %d saw it approved: this run shows little", read.Load())
	}
	if n := here.counted("used") + there.counted("used"); n != 1 {
		t.Errorf("used is counted %v times", n)
	}
}

// TestUseIsBound: an approval is for one digest, once, for a time.
func TestUseIsBound(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	ctx := context.Background()
	use := func(id, digest string, want error) {
		t.Helper()
		if _, err := q.Use(ctx, id, digest); !errors.Is(err, want) {
			t.Errorf("use: %v, want %v", err, want)
		}
	}
	a := ask(t, q, asked(core.HoldRefuse, "d1"))
	use(a.ID, "d1", core.ErrNoApproval) // nobody has approved it
	approve(t, q, dana, a.ID)
	use(a.ID, "d2", core.ErrNoApproval) // another statement
	use(a.ID, "", core.ErrNoApproval)
	use("zzzz-zzzz-zzzz", "d1", core.ErrNoApproval)
	use(a.ID, "d1", nil)
	use(a.ID, "d1", core.ErrNoApproval) // again

	next := ask(t, q, asked(core.HoldRefuse, "d1")) // the same again is held anew
	if next.ID == a.ID || next.State != core.ApprovalWaiting {
		t.Errorf("the second: %+v", next)
	}
	approve(t, q, dana, next.ID)
	c.forward(16 * time.Minute)
	use(next.ID, "d1", core.ErrNoApproval)
	if x, _ := q.Get(next.ID); x.State != core.ApprovalExpired {
		t.Errorf("after its time: %s", x.State)
	}
}

// TestStoredStateAlone: a state that says approved is not enough, where somebody who is to approve has not.
func TestStoredStateAlone(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	forged := asked(core.HoldRefuse, "d1")
	forged.State = core.ApprovalApproved
	a := ask(t, q, forged)
	if _, err := q.Use(context.Background(), a.ID, "d1"); !errors.Is(err, core.ErrNoApproval) {
		t.Errorf("an approval without anybody's word was used: %v", err)
	}
}

func TestAskAgain(t *testing.T) {
	b, c := startBus(t), &clock{}
	here, there := b.queue(c), b.queue(c)
	first := ask(t, here, asked(core.HoldRefuse, "d1"))
	if second := ask(t, there, asked(core.HoldRefuse, "d1")); second.ID != first.ID {
		t.Errorf("a second request for the same: %s and %s", first.ID, second.ID)
	}
	if other := ask(t, here, asked(core.HoldRefuse, "d2")); other.ID == first.ID {
		t.Error("one request for two statements")
	}
	if _, err := here.Decide(context.Background(), dana, first.ID, false, "name the rows\x1b[2J"); err != nil {
		t.Fatal(err)
	}
	denied := ask(t, there, asked(core.HoldRefuse, "d1"))
	if denied.State != core.ApprovalDenied || denied.Denied.Reason != "name the rows [2J" || denied.Denied.Subject != "dana" {
		t.Errorf("denied: %+v", denied)
	}
	c.forward(2 * time.Hour)
	if anew := ask(t, here, asked(core.HoldRefuse, "d1")); anew.ID == first.ID {
		t.Error("a denial holds for ever")
	}
	one, two := ask(t, here, asked(core.HoldWait, "d3")), ask(t, here, asked(core.HoldWait, "d3"))
	if one.ID == two.ID {
		t.Error("two parked commands share a request")
	}
}

// TestWhoMayAnswer: the rules' approvers, and never the asker. The last case is the control: all that is refused before
// would have been taken from the right person.
func TestWhoMayAnswer(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	a := asked(core.HoldRefuse, "d1")
	a.Run = "run-7"
	a = ask(t, q, a)
	with := func(id core.Identity, f func(*core.Identity)) core.Identity { f(&id); return id }
	for _, x := range []struct {
		name string
		who  core.Identity
		want string
	}{
		{"nobody in particular", core.Identity{Subject: "eve", Issuer: "corp", Kind: "human"}, core.ErrNoApproval.Error()},
		{"another group", sam, core.ErrNoApproval.Error()},
		{"the asker", ada, "it takes another person than the one who asks"},
		{"the asker, as a DBA", with(ada, func(i *core.Identity) { i.Groups = []string{"dba"} }), "it takes another person than the one who asks"},
		{"the asker's run", with(dana, func(i *core.Identity) { i.Run = "run-7" }), "it takes a person outside the run that asks"},
		{"an agent", with(dana, func(i *core.Identity) { i.Kind = "agent" }), "an agent cannot answer: it takes a person"},
		{"a token for another target", with(dana, func(i *core.Identity) { i.Targets = []string{"people"} }), core.ErrNoApproval.Error()},
		{"the asker's name from another issuer", with(dana, func(i *core.Identity) { i.Subject, i.Issuer = "ada", "other" }), ""},
	} {
		for _, yes := range []bool{true, false} {
			if x.want == "" && !yes {
				continue
			}
			_, err := q.Decide(context.Background(), x.who, a.ID, yes, "")
			if got := fmt.Sprint(err); x.want != "" && got != x.want || x.want == "" && err != nil {
				t.Errorf("%s (%t): %v, want %q", x.name, yes, err, x.want)
			}
			if now, _ := q.Get(a.ID); x.want != "" && now.State != core.ApprovalWaiting {
				t.Fatalf("%s: it is %s", x.name, now.State)
			}
		}
	}
	if _, err := q.Decide(context.Background(), dana, a.ID, false, ""); fmt.Sprint(err) != "it is approved, and no longer waits for an answer" {
		t.Errorf("a second answer: %v", err)
	}
}

// TestSeveralRules: each rule that holds needs somebody whom it names.
func TestSeveralRules(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	a := asked(core.HoldRefuse, "d1")
	a.Holds = append(a.Holds, core.HeldBy{Rule: "secret-table", Approvers: []string{"security", "boss"}})
	a = ask(t, q, a)
	if x := approve(t, q, dana, a.ID); x.State != core.ApprovalWaiting {
		t.Errorf("one of two: %s", x.State)
	}
	if _, err := q.Use(context.Background(), a.ID, "d1"); !errors.Is(err, core.ErrNoApproval) {
		t.Errorf("used after one of two: %v", err)
	}
	if _, err := q.Decide(context.Background(), dana, a.ID, true, ""); err == nil {
		t.Error("one person approved for both")
	}
	if x := approve(t, q, sam, a.ID); x.State != core.ApprovalApproved || x.Holds[0].Approved.Subject != "dana" || x.Holds[1].Approved.Subject != "sam" {
		t.Errorf("both: %+v", x)
	}
}

func TestWhoSees(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	a := asked(core.HoldRefuse, "d1")
	a.Secret = true
	a = ask(t, q, a)
	for _, x := range []struct {
		who  core.Identity
		sees bool
	}{{ada, true}, {dana, true}, {sam, false}, {core.Identity{Subject: "dba", Issuer: "corp"}, true}} {
		list, err := q.List(context.Background(), x.who)
		if err != nil || (len(list) == 1) != x.sees {
			t.Errorf("%s: %v %v", x.who.Subject, list, err)
		}
		one, err := q.Show(context.Background(), x.who, a.ID)
		if x.sees != (err == nil) || !x.sees && !errors.Is(err, core.ErrNoApproval) {
			t.Errorf("%s: %v", x.who.Subject, err)
		}
		if one.Digest != "" {
			t.Errorf("%s: the digest of a secret is shown", x.who.Subject)
		}
	}
}

// TestRoom: a loop cannot fill the queue for the others.
func TestRoom(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	var last core.Approval
	for i := range maxPerIdentity {
		last = ask(t, q, asked(core.HoldRefuse, fmt.Sprint("d", i)))
	}
	if _, err := q.Ask(context.Background(), asked(core.HoldRefuse, "more")); !errors.Is(err, errTooMany) {
		t.Errorf("one too many: %v", err)
	}
	if again := ask(t, q, asked(core.HoldRefuse, last.Digest)); again.ID != last.ID {
		t.Error("what waits already is refused, too")
	}
	other := asked(core.HoldRefuse, "more")
	other.Identity = "bob"
	ask(t, q, other)
	if n := q.counted("refused"); n != 1 {
		t.Errorf("refused: %v", n)
	}
	if q.waiting() != maxPerIdentity+1 {
		t.Errorf("waiting: %v", q.waiting())
	}
	q.Withdraw(context.Background(), last.ID)
	if _, ok := q.Get(last.ID); ok {
		t.Error("it was withdrawn")
	}
	ask(t, q, asked(core.HoldRefuse, "more"))
	c.forward(2 * time.Hour)
	if q.waiting() != 0 {
		t.Errorf("waiting after their time: %v", q.waiting())
	}
	kv, err := q.open(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	q.sweep(kv)
	eventually(t, func() bool { q.mu.Lock(); defer q.mu.Unlock(); return len(q.all) == 0 })
}

// TestRestart: a gateway that starts knows what waits, and another one's withdrawal reaches it.
func TestRestart(t *testing.T) {
	b, c := startBus(t), &clock{}
	here := b.queue(c)
	a := ask(t, here, asked(core.HoldRefuse, "d1"))
	there := b.queue(c)
	list, err := there.List(context.Background(), dana)
	if err != nil || len(list) != 1 || list[0].ID != a.ID {
		t.Fatalf("%v %v", list, err)
	}
	changed, stop := there.Watch(a.ID)
	defer stop()
	here.Withdraw(context.Background(), a.ID)
	select {
	case <-changed:
	case <-time.After(30 * time.Second):
		t.Fatal("the other gateway is not told")
	}
	eventually(t, func() bool { _, ok := there.Get(a.ID); return !ok })
}

// TestUnreachable: without JetStream nothing is asked for and nothing is used, and it says so in time.
func TestUnreachable(t *testing.T) {
	b, c := startBus(t), &clock{}
	q := b.queue(c)
	a := ask(t, q, asked(core.HoldRefuse, "d1"))
	approve(t, q, dana, a.ID)
	b.s.Shutdown()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if _, err := q.Use(ctx, a.ID, "d1"); !errors.Is(err, errUnreachable) {
		t.Errorf("use: %v", err)
	}
	if _, err := q.Ask(ctx, asked(core.HoldRefuse, "d2")); !errors.Is(err, errUnreachable) {
		t.Errorf("ask: %v", err)
	}
}
