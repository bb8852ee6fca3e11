package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// leftover is what the log of an earlier process says of one session.
type leftover struct {
	shard  uint8
	head   head // the last note of what JetStream has
	sealed bool // the log holds its end
	found  bool // head is how far it got: it has been looked up
}

// left is what an earlier process left.
type left struct {
	sessions map[string]*leftover
	ranges   []span // what lies in the log, in order
	end      uint64 // the position at which the new log begins
}

// openLog opens the log's directory and reads through what is in it.
func (j *Journal) openLog(dir string) (*left, error) {
	used, free, err := listSegments(j.c.disk, dir)
	if err != nil {
		return nil, fmt.Errorf("journal: %s: %w", dir, err)
	}
	l := &wal{
		kick: make(chan struct{}, 1),
		dir:  dir, segSize: uint64(j.c.SegmentSize), maxSegs: int(j.c.MaxWAL / j.c.SegmentSize), disk: j.c.disk, log: j.log,
		rolled: func() {},
		segs:   used, freed: make(chan struct{}, 1), prepare: make(chan struct{}, 1),
	}
	if j.c.Keys != nil {
		l.wipes = min(j.c.KeyPeriod, longestClear)
	}
	l.acked.Store(time.Now().UnixNano())
	j.wal = l
	for _, s := range append(used, free...) {
		n, _ := strconv.Atoi(strings.TrimSuffix(filepath.Base(s.path), segmentExt))
		l.made = max(l.made, n+1)
	}
	for _, s := range free {
		if s.size == l.segSize && len(l.free) < l.kept() {
			l.free = append(l.free, s)
			continue
		}
		if err := errors.Join(s.file.Close(), os.Remove(s.path)); err != nil { // half made, or of another size
			return nil, fmt.Errorf("journal: %w", err)
		}
	}
	out := &left{sessions: map[string]*leftover{}}
	for _, s := range used {
		end, err := s.read(0, 0, func(e entry) error {
			id := string(e.session)
			o := out.sessions[id]
			if o == nil {
				o = &leftover{shard: e.shard}
				out.sessions[id] = o
			}
			switch e.kind {
			case entrySeal:
				o.sealed = true
			case entryHeadOf:
				if h, ok := parseHead(e.body); ok {
					o.head = h
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		out.ranges = append(out.ranges, span{from: s.base, to: end})
		s.stop.Store(max(end, s.base+segmentPage))
		out.end = s.end()
	}
	return out, nil
}

// begin takes the first segment of the new log, and seals the sessions that an earlier process left open.
func (j *Journal) begin(left *left) error {
	l := j.wal
	l.allowExtra(2) // a log that was full when its process ended must not keep out the one that empties it
	defer l.allowExtra(0)
	l.segMu.Lock()
	base := max(left.end, l.segSize)
	s, err := l.first()
	if err == nil {
		err = s.use(base, 0)
	}
	if err != nil {
		l.segMu.Unlock()
		return fmt.Errorf("journal: the first segment of the log: %w", err)
	}
	l.segs = append(l.segs, s)
	l.segMu.Unlock()
	l.mu.Lock()
	l.next, l.segEnd = base+segmentPage, base+s.size
	l.durable.Store(l.next)
	l.mu.Unlock()
	n := 0
	for id, o := range left.sessions {
		if o.sealed || o.head.sealed {
			continue
		}
		n++
		if _, err := l.append(context.Background(), l.epoch.Load(), entrySeal, o.shard, id, []byte(core.EndCrash), nil); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	j.log.Warn("journal: an earlier process left sessions open; they are sealed as "+string(core.EndCrash), "sessions", n)
	return l.settle(context.Background(), l.position(), l.epoch.Load())
}

// errUnknown says that it could not be found out now how far a session got.
var errUnknown = errors.New("journal: the session's last block cannot be looked up")

// laster is a store that finds a session's last block without reading the others.
type laster interface {
	Last(ctx context.Context, id string) (core.Block, error)
}

// lookUps is how many sessions are looked up at a time: a crash leaves thousands, and each takes round trips.
const lookUps = 64

// lookUpMany looks a session up, and others that will be asked for after it.
func (p *packer) lookUpMany(ctx context.Context, id string) error {
	ids := append(make([]string, 0, lookUps), id)
	for other, o := range p.left {
		if len(ids) == lookUps {
			break
		}
		if other != id && !o.found {
			ids = append(ids, other)
		}
	}
	errs := make([]error, len(ids))
	var wg sync.WaitGroup
	for i, id := range ids {
		o := p.left[id]
		wg.Go(func() {
			h, err := p.lookUp(ctx, id, o)
			if errs[i] = err; err == nil {
				o.head, o.found = h, true
			}
		})
	}
	wg.Wait()
	return errs[0] // of the others, whoever asks for them hears
}

// lookUp finds out how far a session got: the furthest of its last message, the log's notes and the archive. None of
// them is enough alone: the message may have been purged, the note may be some milliseconds old, and the archive may
// lag behind. After a crash in the middle of a purge the last message can even be an older one than the archive has.
func (p *packer) lookUp(ctx context.Context, id string, o *leftover) (head, error) {
	if o.head.sealed {
		return o.head, nil
	}
	inStream, _, err := p.lastBlock(ctx, o.shard, id)
	if err != nil {
		return head{}, fmt.Errorf("%w: %w", errUnknown, err)
	}
	h := o.head
	if inStream.blocks > h.blocks {
		h = inStream
	}
	if p.stored != nil && !h.sealed {
		stored, err := p.stored(ctx, id)
		if err != nil {
			return head{}, fmt.Errorf("%w: %w", errUnknown, err)
		}
		if stored.blocks > h.blocks {
			h = stored
		}
	}
	h.subject = inStream.subject
	return h, nil
}

// stored returns who says how far the archive has a session.
func (j *Journal) stored() func(context.Context, string) (head, error) {
	switch {
	case j.c.AskArchive:
		return func(ctx context.Context, id string) (head, error) { return askLast(ctx, j.conn, id) }
	case j.c.Archive != nil:
		return func(ctx context.Context, id string) (head, error) { return lastStored(ctx, j.c.Archive, id) }
	}
	return nil
}

// lastStored asks a store how far it has a session.
func lastStored(ctx context.Context, s core.Store, id string) (head, error) {
	b, err := lastBlockOf(ctx, s, id)
	if errors.Is(err, core.ErrNoSession) {
		return head{}, nil
	}
	if err != nil {
		return head{}, err
	}
	return headOf(b)
}

// lastBlockOf returns the last block of a session.
func lastBlockOf(ctx context.Context, s core.Store, id string) (last core.Block, err error) {
	if l, ok := s.(laster); ok {
		return l.Last(ctx, id)
	}
	err = s.Blocks(ctx, id, func(b core.Block) error {
		b.Bytes = bytes.Clone(b.Bytes)
		last = b
		return nil
	})
	return last, err
}

// lastBlock asks JetStream for the last block of a session.
func (p *packer) lastBlock(ctx context.Context, shard uint8, id string) (h head, found bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s, err := p.publisher.stream(ctx, shard)
	if err != nil {
		return h, false, err
	}
	m, err := s.GetLastMsgForSubject(ctx, Subject(shard, id))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return h, false, nil
	}
	if err != nil {
		return h, false, err
	}
	b, err := ledger.DecodeBlock(m.Data)
	if err != nil {
		return h, false, fmt.Errorf("the last message of %s: %w", m.Subject, err)
	}
	h, err = headOf(b)
	h.subject = m.Sequence
	return h, err == nil, err
}
