package journal

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// cluster is three NATS servers, as an operator would run them beside Weir.
type cluster struct {
	t     *testing.T
	opts  []*server.Options
	nodes []*server.Server
}

func startCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, nodes: make([]*server.Server, 3)}
	routes := ""
	for i := range c.nodes {
		port, route := freePort(t), freePort(t)
		c.opts = append(c.opts, &server.Options{
			ServerName: fmt.Sprintf("n%d", i), Host: "127.0.0.1", Port: port, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true,
			NoLog: true, NoSigs: true, JetStreamMaxStore: 16 << 30, JetStreamMaxMemory: 64 << 20,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: route},
		})
		routes += fmt.Sprintf(",nats://127.0.0.1:%d", route)
	}
	for _, o := range c.opts {
		o.Routes = server.RoutesFromStr(routes[1:])
	}
	for i := range c.nodes {
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	waitFor(t, func() bool {
		for _, n := range c.nodes {
			if n.JetStreamIsLeader() {
				return n.ActivePeers() != nil && len(n.ActivePeers()) == 3
			}
		}
		return false
	})
	return c
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *cluster) start(i int) {
	c.t.Helper()
	s, err := server.NewServer(c.opts[i].Clone())
	if err != nil {
		c.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		c.t.Fatal("a server is not ready")
	}
	c.nodes[i] = s
}

func (c *cluster) stop(i int) {
	if s := c.nodes[i]; s != nil {
		stopServer(s)
		c.nodes[i] = nil
	}
}

func (c *cluster) url() string {
	return fmt.Sprintf("nats://127.0.0.1:%d,nats://127.0.0.1:%d,nats://127.0.0.1:%d", c.opts[0].Port, c.opts[1].Port, c.opts[2].Port)
}

// leader is the node that leads a stream.
func (c *cluster) leader(js jetstream.JetStream, shard uint8) int {
	c.t.Helper()
	found := -1
	waitFor(c.t, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s, err := js.Stream(ctx, streamName(shard))
		if err != nil || s.CachedInfo().Cluster == nil {
			return false
		}
		for i, o := range c.opts {
			if o.ServerName == s.CachedInfo().Cluster.Leader {
				found = i
			}
		}
		return found >= 0
	})
	return found
}

// writers records in several sessions at once until it is told to stop, each record settled before the next.
type writers struct {
	stop  atomic.Bool
	wg    sync.WaitGroup
	ids   []string
	count []int // written by one goroutine each, read when all have ended
	worst atomic.Int64
}

func write(t *testing.T, j *Journal, promises ...core.Promise) *writers {
	w := &writers{count: make([]int, len(promises))}
	for i, promise := range promises {
		id := core.NewID(time.Now())
		w.ids = append(w.ids, id)
		r, err := j.Open(&core.Session{ID: id, Target: &core.Target{Promise: promise}})
		if err != nil {
			t.Fatal(err)
		}
		w.wg.Go(func() {
			for ; !w.stop.Load(); w.count[i]++ {
				start := time.Now()
				m, err := r.Record(context.Background(), record(uint64(w.count[i]), fmt.Sprint("record ", w.count[i])))
				if err == nil {
					err = r.Settle(context.Background(), m)
				}
				if err != nil {
					t.Errorf("record %d: %v", w.count[i], err)
					return
				}
				w.worst.Store(max(w.worst.Load(), int64(time.Since(start))))
				time.Sleep(time.Millisecond)
			}
			if err := r.Seal(core.EndClosed); err != nil {
				t.Error(err)
			}
		})
	}
	return w
}

// end stops the writers and demands that JetStream has all that they wrote, once and in order.
func (w *writers) end(t *testing.T, j *Journal, shards int) {
	t.Helper()
	w.stop.Store(true)
	w.wg.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for i, id := range w.ids {
		got, seal := read(t, blocksIn(t, j.JetStream(), shards, id))
		if len(got) != w.count[i] || seal == nil || seal.Records != uint64(w.count[i]) {
			t.Fatalf("session %d: %d records of %d, seal %+v", i, len(got), w.count[i], seal)
		}
		for n, g := range got {
			if g.Seq != uint64(n) || string(g.Wire) != fmt.Sprint("record ", n) {
				t.Fatalf("session %d, record %d: seq %d, %q", i, n, g.Seq, g.Wire)
			}
		}
	}
}

// TestCluster: three nodes, R3, under load of sessions of both promises. The leader of a stream goes and comes back;
// then all nodes do. The log is the spool: nobody waits for the cluster, and in the end everything is there once.
func TestCluster(t *testing.T) {
	t.Parallel()
	cl := startCluster(t)
	c := small(t.TempDir())
	c.NATS = NATS{URL: cl.url(), Replicas: 3}
	c.MaxWAL = 64 << 20
	j := mustOpen(t, c)
	w := write(t, j, core.PromiseStrict, core.PromiseStrict, core.PromiseBounded, core.PromiseBounded)
	time.Sleep(200 * time.Millisecond)

	leader := cl.leader(j.JetStream(), 0)
	cl.stop(leader)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second) // an election takes 4 to 9 s
	defer cancel()
	if err := j.Flush(ctx); err != nil {
		t.Fatalf("two of three nodes do not take blocks: %v", err)
	}
	cl.start(leader)
	time.Sleep(200 * time.Millisecond)

	for i := range cl.nodes {
		cl.stop(i)
	}
	w.worst.Store(0)
	time.Sleep(time.Second)
	if d := time.Duration(w.worst.Load()); d == 0 || d > 900*time.Millisecond {
		t.Errorf("without the cluster a record took %v", d)
	}
	for i := range cl.nodes {
		cl.start(i)
	}
	w.end(t, j, c.Shards)
	mustClose(t, j)
}

// link is a connection between the journal and a server that can hang: it stays open, and nothing passes.
type link struct {
	net.Listener
	mu   sync.Mutex
	cond *sync.Cond
	hung bool
}

func newLink(t *testing.T, to int) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{Listener: l}
	k.cond = sync.NewCond(&k.mu)
	t.Cleanup(func() { k.hang(false); l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", to))
			if err != nil {
				in.Close()
				continue
			}
			go k.carry(in, out)
			go k.carry(out, in)
		}
	}()
	return k
}

func (k *link) carry(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		k.mu.Lock()
		for k.hung {
			k.cond.Wait()
		}
		k.mu.Unlock()
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (k *link) hang(now bool) {
	k.mu.Lock()
	k.hung = now
	k.mu.Unlock()
	k.cond.Broadcast()
}

// TestHungLink: the server does not answer, and its sockets stay open, as with a machine that swaps or a cable that is
// pulled. It is noticed within seconds; sessions go on from the log in flat memory, however long it takes; when
// it is over, everything is published once and in order.
func TestHungLink(t *testing.T) {
	s := natsServer(t, t.TempDir(), -1)
	defer stopServer(s)
	k := newLink(t, s.Addr().(*net.TCPAddr).Port)
	c := small(t.TempDir())
	c.NATS.URL = "nats://" + k.Addr().String()
	c.MaxWAL, c.MaxPending = 64<<20, 4<<20
	j := mustOpen(t, c)
	w := write(t, j, core.PromiseStrict, core.PromiseBounded)
	big, err := j.Open(&core.Session{ID: core.NewID(time.Now()), Target: &core.Target{Promise: core.PromiseStrict}})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	before := heap()
	k.hang(true)
	w.worst.Store(0)
	noise, most := noise(64<<10, 1), uint64(0)
	for n := range 400 { // 25 MiB
		m, err := big.Record(context.Background(), record(uint64(n), noise))
		if err == nil {
			err = big.Settle(context.Background(), m)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n%100 == 0 {
			most = max(most, heap())
		}
	}
	for until := time.Now().Add(30 * time.Second); j.conn.IsConnected(); time.Sleep(20 * time.Millisecond) { // some pings long
		if time.Now().After(until) {
			t.Fatal("a server that does not answer is not noticed")
		}
	}
	most = max(most, heap())
	if grown := int64(most) - int64(before); grown > 24<<20 {
		t.Errorf("the heap grew by %d MiB while 25 MiB were recorded", grown>>20)
	}
	if d := time.Duration(w.worst.Load()); d == 0 || d > 900*time.Millisecond {
		t.Errorf("without the server a record took %v", d)
	}
	k.hang(false)
	if err := big.Seal(core.EndClosed); err != nil {
		t.Fatal(err)
	}
	w.end(t, j, c.Shards)
	mustClose(t, j)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// late is an archive that has nothing; when it is asked, a block that a killed process had sent arrives.
type late struct {
	core.Store
	arrive func()
}

func (l late) Last(context.Context, string) (core.Block, error) {
	l.arrive()
	return core.Block{}, core.ErrNoSession
}

// TestLateBlock: between the question how far a session got and the first block that is sent behind the answer, a block
// of the process that was killed arrives. It holds some of the same records, cut in another place: the session goes on
// behind it and loses nothing.
func TestLateBlock(t *testing.T) {
	for _, tt := range []struct {
		name string
		has  int // records in the late block
	}{{"some", 3}, {"all", 10}} {
		t.Run(tt.name, func(t *testing.T) {
			s := natsServer(t, t.TempDir(), -1)
			defer stopServer(s)
			c := small(t.TempDir())
			c.NATS.URL = s.ClientURL()
			j := mustOpen(t, c)
			stall(j)
			id := core.NewID(time.Now())
			r := mustRecorder(t, j, id)
			recs := make([]*core.Record, 10)
			for n := range recs {
				if err := settled(t, r, uint64(n), fmt.Sprint("record ", n)); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.release(); err != nil { // as a kill would
				t.Fatal(err)
			}

			var raw []byte
			var prior ledger.Prior
			for n := range tt.has {
				raw = ledger.AppendPiece(raw, ledger.AppendRecord(nil, record(uint64(n), fmt.Sprint("record ", n)), 0, &prior), false)
			}
			b, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: id, LastSeq: uint64(tt.has) - 1}, 0, raw)
			if err != nil {
				t.Fatal(err)
			}
			var once sync.Once
			c.Archive = late{arrive: func() {
				once.Do(func() {
					conn, js, err := dial(c)
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					if _, err := js.Publish(context.Background(), Subject(j.shard(id), id), b.Bytes); err != nil {
						t.Error(err)
					}
				})
			}}
			j = mustOpen(t, c)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			if err := j.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			got, seal := read(t, blocksIn(t, j.JetStream(), c.Shards, id))
			if len(got) != len(recs) || seal == nil || seal.End != core.EndCrash {
				t.Fatalf("%d records of %d, seal %+v", len(got), len(recs), seal)
			}
			for n, g := range got {
				if g.Seq != uint64(n) || string(g.Wire) != fmt.Sprint("record ", n) {
					t.Fatalf("record %d: seq %d, %q", n, g.Seq, g.Wire)
				}
			}
			mustClose(t, j)
		})
	}
}
