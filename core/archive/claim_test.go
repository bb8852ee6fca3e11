package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

func bus(t *testing.T) jetstream.JetStream {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func openLedger(t *testing.T, dir string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(filepath.Join(dir, "ledger"), filepath.Join(dir, "keys"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func grow(t *testing.T, l *ledger.Ledger, id string) {
	t.Helper()
	if err := l.Append(ledger.Leaf{Kind: ledger.LeafSeal, Session: id, Blocks: 1, Records: 1, End: core.EndClosed, Time: time.Now()}); err != nil {
		t.Fatal(err)
	}
}

// TestClaim: the streams of a cluster are one ledger's. Another one, an old copy and a copy that has grown by itself are
// refused when they start; and when two copies that were the same go on side by side, one of them stops.
func TestClaim(t *testing.T) {
	ctx := context.Background()
	js := bus(t)
	dir := t.TempDir()
	l := openLedger(t, dir)
	c, err := newClaim(ctx, js, l, 1)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, "a")
	if err := c.tell(ctx); err != nil {
		t.Fatal(err)
	}
	copied := func() *ledger.Ledger {
		to := t.TempDir()
		for _, folder := range []string{"ledger", "keys"} {
			if err := os.CopyFS(filepath.Join(to, folder), os.DirFS(filepath.Join(dir, folder))); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(to, "keys", "ledger.key"), 0o600); err != nil {
			t.Fatal(err)
		}
		return openLedger(t, to)
	}
	same, old, grown := copied(), copied(), copied()

	if _, err := newClaim(ctx, js, openLedger(t, t.TempDir()), 1); err == nil || !strings.Contains(err.Error(), "another ledger") || !strings.Contains(err.Error(), "--role gateway") {
		t.Errorf("another ledger: %v", err)
	}
	// A process that works answers, and is left alone.
	answering, stop := context.WithCancel(ctx)
	if err := c.answer(answering); err != nil {
		t.Fatal(err)
	}
	if _, err := newClaim(ctx, js, same, 1); err == nil || !strings.Contains(err.Error(), "another archive worker keeps what is recorded") {
		t.Errorf("beside one that works: %v", err)
	}
	stop()
	eventually(t, func() bool { return js.Conn().NumSubscriptions() == 1 }) // that of requests
	// One that does not answer is replaced, and finds out before it acknowledges anything.
	twin, err := newClaim(ctx, js, same, 1)
	if err != nil {
		t.Fatalf("the same ledger: %v", err)
	}
	for range 2 { // and it stays so
		if err := c.tell(ctx); !errors.Is(err, core.ErrFork) {
			t.Errorf("the one that was replaced: %v", err)
		}
	}
	if err := twin.tell(ctx); err != nil {
		t.Error(err)
	}
	c, err = newClaim(ctx, js, l, 1)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, l, "b")
	if err := c.tell(ctx); err != nil {
		t.Fatal(err)
	}
	shown := func(c *claim, l *ledger.Ledger) ([]byte, error) {
		return (&Worker{claim: c, c: Config{Ledger: l}}).Checkpoint()
	}
	was, err := shown(twin, same)
	if err != nil {
		t.Fatal(err)
	}
	grow(t, same, "c")
	if now, err := shown(twin, same); err != nil || string(now) != string(was) || string(now) == string(same.Checkpoint()) {
		t.Errorf("what the bus has not taken is shown to others: %v", err)
	}
	if now, err := shown(nil, same); err != nil || string(now) != string(same.Checkpoint()) {
		t.Errorf("without a cluster: %v", err)
	}
	if err := twin.tell(ctx); !errors.Is(err, core.ErrFork) {
		t.Errorf("the twin: %v", err)
	}
	if _, err := shown(twin, same); !errors.Is(err, core.ErrFork) {
		t.Errorf("the twin shows its own: %v", err)
	}
	if now, err := shown(c, l); err != nil || string(now) != string(l.Checkpoint()) {
		t.Errorf("the other: %v", err)
	}
	if _, err := newClaim(ctx, js, old, 1); err == nil || !strings.Contains(err.Error(), "old copy") {
		t.Errorf("an old copy: %v", err)
	}
	grow(t, grown, "x")
	grow(t, grown, "y")
	if _, err := newClaim(ctx, js, grown, 1); err == nil || !strings.Contains(err.Error(), "grown by itself") {
		t.Errorf("a copy that has grown: %v", err)
	}
	// A process that ended between its ledger and the bus goes on.
	grow(t, l, "d")
	again, err := newClaim(ctx, js, l, 1)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(ctx, ledgerStream)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.GetLastMsgForSubject(ctx, ledgerSubject)
	if err != nil || string(m.Data) != string(l.Checkpoint()) {
		t.Errorf("the newest checkpoint is not on the bus: %v", err)
	}
	if err := again.tell(ctx); err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// TestNoClaim: a worker of an embedded JetStream asks nobody.
func TestNoClaim(t *testing.T) {
	if err := (*claim)(nil).tell(context.Background()); err != nil {
		t.Error(err)
	}
}
