package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// Config of a journal. Zero values mean the defaults named.
type Config struct {
	// Dir holds the write-ahead log (Dir/journal) and the embedded server's store (Dir/jetstream).
	Dir  string
	NATS NATS // zero: embedded
	// Shards is the number of streams that new sessions are spread over. Default 8, at most 100.
	Shards        int
	Gateway, Boot string
	Log           *slog.Logger
	// Archive is a store that has all that was purged from the streams. It is asked, after a crash, how far a session
	// got. Nil: the streams and the log's own notes are all there is, and those can be a few milliseconds old: a
	// session whose last blocks were archived and purged just then would be told twice, and the archive's worker
	// refuses the second telling.
	Archive core.Store
	// AskArchive says that another process keeps the archive, and answers for it on the bus; see AnswerLast. Sessions
	// that a crash left open are taken up once it has answered; until then the log holds what is recorded.
	AskArchive bool

	// Keys makes a recording key, and the record of it that the archive keeps: for a subject's sessions, or for what is left
	// of one session. Nil: nothing is encrypted. The log itself holds records in clear until JetStream has them; its files
	// are removed then in place of being used again.
	Keys func(subject, issuer, session string) (key *ledger.RecordingKey, record []byte, err error)

	// KeyPeriod is for how long a recording key is used for sessions that begin; default 1 h. Whoever destroys one waits for
	// that long, and for the sessions' end.
	KeyPeriod time.Duration

	SegmentSize int64         // bytes of a file of the write-ahead log; default 64 MiB, at least 256 KiB
	MaxWAL      int64         // bytes of the write-ahead log before the journal counts as lost; default 1 GiB
	MaxPending  int64         // bytes of records in memory on their way to JetStream; default 64 MiB
	StreamBytes int64         // bound of each stream; default 1 GiB
	BlockAge    time.Duration // how long a record waits for its block to fill; default 200 ms
	// BoundedTime and BoundedBytes are the window of the promise "bounded"; default 1 s and 4 MiB.
	BoundedTime  time.Duration
	BoundedBytes int

	disk disk // for tests
}

// NATS says where JetStream is. The zero value means a server inside this process, which listens on nothing.
type NATS struct {
	URL, Creds string
	Replicas   int // of each stream; default 1
}

// flushAfter is how old a record becomes at most that nobody waits for, before it is written. 20 ms is many writes'
// time on a common SSD: the disk stays free for those who wait, and what a crash takes of a bounded session stays far
// below the window it was promised.
const flushAfter = 20 * time.Millisecond

// Journal keeps the records of all sessions of this process. It implements core.Journal.
type Journal struct {
	c      Config
	log    *slog.Logger
	wal    *wal
	packer *packer
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	lock   *os.File
	stop   context.CancelFunc
	wg     sync.WaitGroup
	unmade bool // the streams are yet to be seen to

	mu     sync.Mutex
	open   map[*recorder]struct{}
	closed bool
}

func (c *Config) defaults() error {
	if c.Dir == "" {
		return errors.New("journal: no directory given")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	set(&c.Shards, 8)
	set(&c.SegmentSize, 64<<20)
	set(&c.MaxWAL, 1<<30)
	set(&c.MaxPending, 64<<20)
	set(&c.StreamBytes, 1<<30)
	set(&c.BlockAge, 200*time.Millisecond)
	set(&c.BoundedTime, time.Second)
	set(&c.BoundedBytes, 4<<20)
	set(&c.NATS.Replicas, 1)
	set(&c.KeyPeriod, time.Hour)
	if c.disk == nil {
		c.disk = osDisk{}
	}
	switch {
	case c.Shards < 1 || c.Shards > 100:
		return fmt.Errorf("journal: shards is %d; 1 to 100 are possible", c.Shards)
	case c.SegmentSize < 256<<10 || c.SegmentSize > 1<<30 || c.SegmentSize%4096 != 0:
		return fmt.Errorf("journal: segment size is %d; whole pages from 256 KiB to 1 GiB are possible", c.SegmentSize)
	case c.MaxWAL < 2*c.SegmentSize:
		return fmt.Errorf("journal: the log's bound is %d bytes; it takes two segments (%d) at least", c.MaxWAL, 2*c.SegmentSize)
	case c.MaxPending < 4<<20:
		return fmt.Errorf("journal: the memory bound is %d bytes; it takes 4 MiB at least", c.MaxPending)
	}
	return nil
}

func set[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Open opens the journal, takes up what an earlier process left, and seals the sessions it left open. Blocks of
// earlier records are published in the background.
func Open(ctx context.Context, c Config) (*Journal, error) {
	if err := c.defaults(); err != nil {
		return nil, err
	}
	j := &Journal{c: c, log: c.Log, open: map[*recorder]struct{}{}}
	if err := j.start(ctx); err != nil {
		j.release()
		return nil, err
	}
	return j, nil
}

func (j *Journal) start(ctx context.Context) error {
	dir := filepath.Join(j.c.Dir, "journal")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.lock = lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("journal: %s is in use by another process", dir)
	}
	bus := make(chan error, 1)                                     // the server and the log start side by side: both may have to read
	before, _ := filepath.Glob(filepath.Join(dir, "*"+segmentExt)) // fails on a bad pattern only
	go func() { bus <- j.connect(ctx, len(before) > 0) }()
	left, err := j.openLog(dir)
	if err := errors.Join(err, <-bus); err != nil {
		return err
	}
	spoolLimit.Set(float64(j.c.MaxWAL))
	j.packer = newPacker(j, left)
	run, stop := context.WithCancel(context.Background())
	j.stop = stop
	j.wal.deliver = j.packer.take
	j.wal.lost = j.packer.giveUp
	j.wg.Go(func() { j.wal.preparer(run) })
	if err := j.begin(left); err != nil {
		return err
	}
	j.wg.Go(func() { j.wal.flusher(run) })
	j.wg.Go(func() { j.wal.committer(run) })
	j.wg.Go(func() { j.packer.run(run) })
	j.wg.Go(func() { j.reviver(run) })
	if j.unmade {
		j.wg.Go(func() { j.maker(run) })
	}
	return nil
}

// reviver brings a lost log back when there is room again.
func (j *Journal) reviver(ctx context.Context) {
	t := time.NewTicker(reviveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			j.wal.revive()
		}
	}
}

// Open implements core.Journal.
func (j *Journal) Open(s *core.Session) (core.Recorder, error) {
	promise := core.PromiseStrict
	if s.Target != nil && s.Target.Promise != "" {
		promise = s.Target.Promise
	}
	return j.recorder(s.ID, promise)
}

// JetStream returns the connection that the archive reads through.
func (j *Journal) JetStream() jetstream.JetStream { return j.js }

// Lost returns why nothing can be recorded, or nil.
func (j *Journal) Lost() error {
	j.wal.mu.Lock()
	defer j.wal.mu.Unlock()
	if j.wal.err != nil {
		return lostError(j.wal.err)
	}
	return nil
}

// Flush returns when everything recorded so far is in blocks that JetStream has acknowledged.
func (j *Journal) Flush(ctx context.Context) error {
	epoch, mark := j.wal.epoch.Load(), j.wal.position()
	if j.wal.durable.Load() < mark {
		if err := j.wal.settle(ctx, mark, epoch); err != nil {
			return err
		}
	}
	return j.packer.flush(ctx, mark)
}

// Close seals what is open as killed, hands everything to JetStream within ctx, and stops. What could not be handed
// over stays in the log for the next start. To have the archive complete, call Flush, close the archive's worker, and
// then Close.
func (j *Journal) Close(ctx context.Context) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	open := make([]*recorder, 0, len(j.open))
	for r := range j.open {
		open = append(open, r)
	}
	j.mu.Unlock()
	for _, r := range open {
		_ = r.Seal(core.EndKilled) // a lost journal says so below
	}
	err := j.Flush(ctx)
	j.stop()
	j.wg.Wait()
	if err == nil {
		err = j.wal.recycle(1<<64 - 1) // all of it is in JetStream: the next start has nothing to read
	} else {
		err = fmt.Errorf("journal: not everything was handed to JetStream; the next start goes on: %w", err)
	}
	return errors.Join(err, j.release())
}

func (j *Journal) release() error {
	var err error
	if j.stop != nil {
		j.stop()
		j.wg.Wait()
	}
	if j.conn != nil {
		j.conn.Close()
	}
	if j.server != nil {
		j.server.Shutdown()
		j.server.WaitForShutdown()
	}
	if j.wal != nil {
		err = j.wal.close()
	}
	if j.lock != nil {
		err = errors.Join(err, j.lock.Close())
	}
	return err
}

func (j *Journal) shard(session string) uint8 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(session)) // never fails
	return uint8(h.Sum32() % uint32(j.c.Shards))
}

var (
	_ core.Journal  = (*Journal)(nil)
	_ core.Recorder = (*recorder)(nil)
)
