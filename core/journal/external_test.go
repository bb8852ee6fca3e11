package journal

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/weir-gateway/weir/core"
)

// natsServer starts a NATS server on loopback, as an operator would run one beside Weir.
func natsServer(t *testing.T, dir string, port int) *server.Server {
	t.Helper()
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: dir, SyncAlways: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	return s
}

func stopServer(s *server.Server) {
	s.Shutdown()
	s.WaitForShutdown()
}

// TestExternalServer: blocks go to a server named by URL. While it is away records stay durable in the log; when it is
// back, everything is published, once and in order.
func TestExternalServer(t *testing.T) {
	store := t.TempDir()
	s := natsServer(t, store, -1)
	port := s.Addr().(*net.TCPAddr).Port
	c := small(t.TempDir())
	c.NATS.URL = s.ClientURL()
	j := mustOpen(t, c)
	id := core.NewID(time.Now())
	r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: core.PromiseStrict}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	n := 0
	more := func(count int) {
		t.Helper()
		for range count {
			m, err := r.Record(ctx, record(uint64(n), fmt.Sprint("record ", n)))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Settle(ctx, m); err != nil {
				t.Fatal(err)
			}
			n++
		}
	}
	more(200)
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	stopServer(s)
	more(200) // a strict promise is kept by the log
	time.Sleep(100 * time.Millisecond)
	s = natsServer(t, store, port)
	defer func() { stopServer(s) }()
	more(200)
	if err := r.Seal(core.EndClosed); err != nil {
		t.Fatal(err)
	}
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
	if len(got) != n || seal == nil || seal.Records != uint64(n) {
		t.Fatalf("%d records of %d, seal %+v", len(got), n, seal)
	}
	for i, g := range got {
		if g.Seq != uint64(i) || string(g.Wire) != fmt.Sprint("record ", i) {
			t.Fatalf("record %d: seq %d, %q", i, g.Seq, g.Wire)
		}
	}
	mustClose(t, j)
}

func TestExternalServerAway(t *testing.T) {
	c := small(t.TempDir())
	c.NATS.URL = "nats://127.0.0.1:1"
	if j, err := Open(context.Background(), c); err == nil {
		mustClose(t, j)
		t.Fatal("opened without a server")
	}
}

// TestRestartWithoutServer: a gateway that is killed while the server is away starts again without it. The log takes what
// is recorded; when the server is back, both processes' sessions are published.
func TestRestartWithoutServer(t *testing.T) {
	t.Parallel()
	store := t.TempDir()
	s := natsServer(t, store, -1)
	port := s.Addr().(*net.TCPAddr).Port
	c := small(t.TempDir())
	c.NATS.URL = s.ClientURL()
	c.MaxWAL = 64 << 20
	j := mustOpen(t, c)
	w := write(t, j, core.PromiseStrict, core.PromiseStrict)
	time.Sleep(50 * time.Millisecond)
	stopServer(s)
	time.Sleep(50 * time.Millisecond)
	w.stop.Store(true)
	w.wg.Wait()
	if err := j.release(); err != nil { // as a kill would
		t.Fatal(err)
	}
	j = mustOpen(t, c)
	again := write(t, j, core.PromiseStrict)
	time.Sleep(50 * time.Millisecond)
	s = natsServer(t, store, port)
	defer func() { stopServer(s) }()
	again.end(t, j, c.Shards)
	w.end(t, j, c.Shards)
	mustClose(t, j)
}
