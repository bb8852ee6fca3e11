package journal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

const (
	blockTarget = 1 << 20  // bytes of payload at which a block need not wait for more
	blockMost   = 1 << 20  // bytes of payload of one block; it grows to this while JetStream is busy
	blockRoom   = 4 << 10  // what a message is larger than its block's payload
	passBytes   = 32 << 20 // bytes of blocks under way to JetStream at a time
	passBlocks  = 2048
)

// packer turns the log into blocks. One goroutine owns all of it but the queue.
type packer struct {
	log       *slog.Logger
	wal       *wal
	js        jetstream.JetStream
	stored    func(ctx context.Context, id string) (head, error) // how far the archive has a session; nil: nobody can say
	age       time.Duration
	budget    int // bytes of records in memory
	most      int // bytes of payload of one block
	queue     queue
	enc       *ledger.Encoder
	keys      func(subject, issuer, session string) (*ledger.RecordingKey, []byte, error) // nil: nothing is encrypted
	keyPeriod time.Duration
	made      map[owner]*made
	free      [][]byte // payload buffers
	// together says that the streams take batches.
	together bool

	sessions  map[string]*packed
	left      map[string]*leftover // sessions of an earlier process that have not been looked up yet
	read      uint64               // everything before this position has been read
	held      int                  // bytes of payloads and of pieces
	parted    int                  // those of pieces: they cannot be cut before their record is whole
	publisher publisher
	retry     time.Time // no pass before; zero: JetStream answers
	backoff   time.Duration

	hurry   atomic.Int32 // somebody waits for everything to be handed over
	stalled atomic.Bool  // for tests: JetStream does not answer
	mu      sync.Mutex
	low     uint64 // everything before it has been acknowledged
	moved   chan struct{}
}

// packed is one session on its way.
type packed struct {
	id     string
	shard  uint8
	head   head   // behind the blocks cut so far
	acked  head   // what JetStream has
	note   uint64 // the position of the log's last note of acked
	kept   uint64 // of the last note that is known to be durable; 0: none is
	young  uint64 // of a later one that was not when it was written; 0: none
	chunks []*chunk
	flight *flight
	part   [][]byte // pieces of a record so far
	partAt uint64
	parted int      // their bytes
	seal   core.End // the session is over when its chunks are out
	sealAt uint64
	dead   bool // given up: its records are dropped
	owner  owner
	key    *ledger.DataKey // nil: not encrypted, or not yet
	// resumed: an earlier process began it, and JetStream has taken no block of it from this one yet.
	resumed bool
}

// chunk is a block's payload as it grows.
type chunk struct {
	raw   []byte
	at    uint64 // the position of its first record
	since time.Time
	first uint64
	count uint64
	carry uint64 // of its begin
	tail  uint64 // bytes of its last, unfinished record, those of earlier chunks included
}

// flight is a block that has been cut and is not acknowledged.
type flight struct {
	block core.Block
	at    uint64
	tail  uint64
}

func newPacker(j *Journal, l *left) *packer {
	p := &packer{
		log: j.log, wal: j.wal, js: j.js, stored: j.stored(), age: j.c.BlockAge, budget: int(j.c.MaxPending / 2),
		together: true, enc: ledger.NewEncoder(), keys: j.c.Keys, keyPeriod: j.c.KeyPeriod, made: map[owner]*made{},
		sessions: map[string]*packed{}, left: l.sessions, moved: make(chan struct{}),
	}
	p.queue.bound, p.queue.wake = int(j.c.MaxPending/2), make(chan struct{}, 1)
	p.queue.spans = l.ranges
	p.wal.rolled = func() {
		select {
		case p.queue.wake <- struct{}{}:
		default:
		}
	}
	p.publisher.js, p.publisher.first, p.publisher.streams = j.js, map[uint8]uint64{}, map[uint8]jetstream.Stream{}
	return p
}

// take is told of each group that is durable.
func (p *packer) take(parts []part) {
	for i, s := range parts {
		if !p.queue.add(span{from: s.at, to: s.at + uint64(len(s.b)), b: s.b}) {
			if cap(s.b) <= keptBuffer && len(p.wal.pool) < 16 { // the log is locked by the caller
				p.wal.pool = append(p.wal.pool, parts[i].b)
			}
		}
	}
}

// giveUp is told that the log was lost.
func (p *packer) giveUp(epoch uint64) { p.queue.add(span{loss: epoch}) }

func (p *packer) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for ctx.Err() == nil {
		if time.Now().After(p.retry) {
			if err := p.ingest(ctx); err != nil && ctx.Err() == nil {
				p.wait(err)
			}
		}
		var wait time.Duration
		if now := time.Now(); now.Before(p.retry) {
			wait = p.retry.Sub(now)
		} else if due, next := p.due(now); len(due) > 0 {
			p.pass(ctx, due)
			wait = 0
		} else {
			wait = next
		}
		p.settle(ctx)
		if wait == 0 || p.more() {
			continue
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
		case <-p.queue.wake:
		case <-timer.C:
		}
	}
}

// more reports whether there is something to read and room for it.
func (p *packer) more() bool {
	_, ok := p.queue.first()
	return ok && !p.full() && time.Now().After(p.retry)
}

// full reports whether memory is used up by what can be cut. Pieces alone never fill it: a record that is longer than
// the budget would wait for its own rest.
func (p *packer) full() bool { return p.held >= p.budget && p.held > p.parted }

// wait puts off the next try after JetStream or the archive did not answer.
func (p *packer) wait(err error) {
	if p.backoff == 0 {
		p.log.Warn("journal: JetStream does not take blocks; the log holds them", "error", err)
	}
	jetStreamUp.Set(0)
	p.backoff = min(max(2*p.backoff, 50*time.Millisecond), 2*time.Second)
	p.retry = time.Now().Add(p.backoff)
}

func (p *packer) well() {
	if p.backoff != 0 {
		p.log.Info("journal: JetStream takes blocks again")
	}
	jetStreamUp.Set(1)
	p.backoff, p.retry = 0, time.Time{}
}

// ingest reads what is durable into the sessions' payloads, as far as memory allows.
func (p *packer) ingest(ctx context.Context) error {
	if p.most == 0 {
		payload := int(p.js.Conn().MaxPayload())
		if payload == 0 {
			return errors.New("there is no connection yet")
		}
		p.most = min(blockMost, payload-blockRoom)
	}
	for !p.full() && ctx.Err() == nil {
		durable := p.wal.durable.Load()
		s, ok := p.queue.first()
		if !ok {
			p.read = max(p.read, durable)
			return nil
		}
		if s.loss != 0 {
			p.endAll()
			p.queue.drop(s.to)
			continue
		}
		at := s.from
		take := func(e entry) error {
			if p.full() {
				return errStop
			}
			if err := p.entry(ctx, e); err != nil {
				return err
			}
			at = e.end
			return nil
		}
		var err error
		if s.b == nil {
			if err = p.wal.read(s.from, s.to, take); err == nil {
				at = s.to
			}
		} else {
			b := s.b[len(s.b)-int(s.to-s.from):]
			for len(b) > 0 && err == nil {
				e, n, _, ok := parseEntry(b, at, true)
				if !ok {
					p.log.Error("journal: an entry in memory cannot be read", "position", at)
					at = s.to
					break
				}
				err = take(e)
				b = b[n:]
			}
		}
		done := at >= s.to
		p.queue.drop(at)
		p.read = max(p.read, at)
		if done && s.b != nil {
			p.wal.recycleBuffer(s.b)
		}
		if err != nil {
			if errors.Is(err, errStop) {
				return nil
			}
			return err
		}
	}
	return ctx.Err()
}

var errStop = errors.New("journal: memory is used up")

// entry takes one entry of the log.
func (p *packer) entry(ctx context.Context, e entry) error {
	if e.kind == entryHeadOf {
		return nil
	}
	s, err := p.session(ctx, e)
	if err != nil || s == nil {
		return err
	}
	switch e.kind {
	case entryFirst, entryNext:
		if e.kind == entryFirst {
			p.forget(s)
			s.partAt = e.at
		} else if len(s.part) == 0 {
			break // its beginning was in a segment used again since JetStream has the record
		}
		s.part = append(s.part, bytes.Clone(e.body))
		s.parted += len(e.body)
		p.held += len(e.body)
		p.parted += len(e.body)
	case entryLast:
		if len(s.part) == 0 {
			break
		}
		pieces := append(s.part, e.body)
		p.forget(s)
		p.record(s, s.partAt, pieces...)
	case entryRecord:
		p.record(s, e.at, e.body)
	case entrySeal:
		p.forget(s) // a torn record: never acknowledged
		if s.seal == "" {
			s.seal, s.sealAt = core.End(e.body), e.at
		}
	}
	return nil
}

// forget drops the pieces of a record.
func (p *packer) forget(s *packed) {
	p.held -= s.parted
	p.parted -= s.parted
	s.part, s.parted = nil, 0
}

// session returns the session of an entry; nil when the entry is of one that is done.
func (p *packer) session(ctx context.Context, e entry) (*packed, error) {
	if s := p.sessions[string(e.session)]; s != nil {
		if s.dead || s.seal != "" {
			return nil, nil
		}
		return s, nil
	}
	id := string(e.session)
	s := &packed{id: id, shard: e.shard}
	if o := p.left[id]; o != nil {
		if !o.found {
			if err := p.lookUpMany(ctx, id); err != nil {
				return nil, err
			}
		}
		if o.head.sealed {
			return nil, nil
		}
		s.head, s.acked, s.resumed = o.head, o.head, true
		delete(p.left, id)
	}
	p.sessions[id] = s
	return s, nil
}

// record adds an encoded record, whole or in pieces, to the session's payloads. It lets go of each piece when it is there.
func (p *packer) record(s *packed, at uint64, pieces ...[]byte) {
	seq, _ := binary.Uvarint(pieces[0])
	size := 0
	for _, b := range pieces {
		size += len(b)
	}
	want := s.nextSeq()
	if seq < want {
		return // JetStream has it
	}
	if seq > want {
		p.log.Error("journal: records of a session are missing from the log; it ends here", "session", s.id, "want", want, "got", seq)
		s.seal, s.sealAt = core.EndJournalLost, at
		return
	}
	if p.keys != nil && seq == 0 {
		s.owner = ownerOf(s.id, pieces)
	}
	carry := s.tail()
	if carry > 0 { // an earlier process stored its begin
		if carry >= uint64(size) {
			p.log.Error("journal: JetStream holds more of a record than the log; the session ends here", "session", s.id, "seq", seq)
			s.dead = true
			return
		}
		size -= int(carry)
		for n := int(carry); n > 0; {
			k := min(n, len(pieces[0]))
			if pieces[0] = pieces[0][k:]; len(pieces[0]) == 0 {
				pieces = pieces[1:]
			}
			n -= k
		}
	}
	for ; len(pieces) > 0; pieces = pieces[1:] {
		b := pieces[0]
		pieces[0] = nil
		size -= len(b)
		p.piece(s, at, b, size)
	}
}

// piece adds a piece of a record, of which so many bytes are to come behind it.
func (p *packer) piece(s *packed, at uint64, b []byte, behind int) {
	for len(b) > 0 {
		c := s.last()
		room := 0
		if c != nil {
			room = p.most - len(c.raw) - ledger.ElementOverhead
		}
		if c == nil || (len(b)+behind > room && (len(b)+behind <= p.most-ledger.ElementOverhead || room < 64<<10)) {
			c = &chunk{raw: p.buffer(), at: at, since: time.Now(), first: s.nextBegin(), carry: s.tail()}
			c.tail = c.carry
			s.chunks = append(s.chunks, c)
			room = p.most - ledger.ElementOverhead
		}
		if len(c.raw) == 0 {
			c.at = at
		}
		n := min(len(b), room)
		before := len(c.raw)
		more := n < len(b) || behind > 0
		c.raw = ledger.AppendPiece(c.raw, b[:n], more)
		p.held += len(c.raw) - before
		if c.tail == 0 {
			c.count++
		}
		if b = b[n:]; more {
			c.tail += uint64(n)
		} else {
			c.tail = 0
		}
	}
}

func (p *packer) buffer() []byte {
	if n := len(p.free); n > 0 {
		b := p.free[n-1]
		p.free = p.free[:n-1]
		return b[:0]
	}
	return make([]byte, 0, 4<<10)
}

func (s *packed) last() *chunk {
	if n := len(s.chunks); n > 0 {
		return s.chunks[n-1]
	}
	return nil
}

// tail is how many bytes of an unfinished record are in what has been cut or gathered.
func (s *packed) tail() uint64 {
	if c := s.last(); c != nil {
		return c.tail
	}
	return s.head.carry
}

// nextBegin is the seq of the next record to begin.
func (s *packed) nextBegin() uint64 {
	if c := s.last(); c != nil {
		return c.first + c.count
	}
	if s.head.carry > 0 {
		return s.head.next + 1
	}
	return s.head.next
}

// nextSeq is the seq of the next record, or of the one that is unfinished.
func (s *packed) nextSeq() uint64 {
	n := s.nextBegin()
	if s.tail() > 0 {
		n--
	}
	return n
}

// oldest is the position of the first entry that JetStream does not have.
func (s *packed) oldest() (uint64, bool) {
	switch {
	case s.flight != nil:
		return s.flight.at, true
	case len(s.chunks) > 0:
		return s.chunks[0].at, true
	case len(s.part) > 0:
		return s.partAt, true
	case s.seal != "":
		return s.sealAt, true
	}
	return 0, false
}

// endAll ends the sessions that were open when the log was lost.
func (p *packer) endAll() {
	for _, s := range p.sessions {
		if s.seal == "" {
			p.forget(s)
			s.seal, s.sealAt = core.EndJournalLost, p.read
		}
	}
}

// due returns the sessions with a block to cut or to send again, and else how long it is until one has. When one's time
// has come, those whose has half come go with it: JetStream, archive and index have a cost for each time, too.
func (p *packer) due(now time.Time) ([]*packed, time.Duration) {
	var out, half []*packed
	most := p.patience()
	next := most
	all := p.hurry.Load() > 0 || p.full()
	come := false
	for _, s := range p.sessions {
		switch {
		case s.dead:
		case s.flight != nil, len(s.chunks) > 1, s.seal != "":
			out = append(out, s)
		case len(s.chunks) == 1:
			age := now.Sub(s.chunks[0].since)
			switch {
			case all || age >= most || len(s.chunks[0].raw) >= blockTarget:
				out = append(out, s)
				come = true
			case age >= most/2:
				half = append(half, s)
				fallthrough
			default:
				next = min(next, most-age)
			}
		}
		if len(out) == passBlocks {
			return out, next
		}
	}
	if come {
		out = append(out, half[:min(len(half), passBlocks-len(out))]...)
	}
	return out, max(next, time.Millisecond)
}

// patience is how long a record waits for its block to fill. Each block costs JetStream, archive and index the same,
// however little is in it, so the more sessions have something to say the longer it is: up to five times the age.
func (p *packer) patience() time.Duration {
	busy := 0
	for _, s := range p.sessions {
		if len(s.chunks) > 0 {
			busy++
		}
	}
	return p.age * time.Duration(min(5, 1+busy/8))
}

// cut makes the session's next block.
func (p *packer) cut(s *packed, now time.Time) error {
	h := core.BlockHeader{Session: s.id, Number: s.head.blocks, FirstSeq: s.head.next, LastSeq: s.head.next - 1, Prev: s.head.prev}
	if s.head.carry > 0 {
		h.FirstSeq, h.LastSeq = h.FirstSeq+1, h.LastSeq+1
	}
	f := &flight{at: s.sealAt, tail: s.head.carry}
	var raw []byte
	carry := s.head.carry
	if len(s.chunks) > 0 {
		c := s.chunks[0]
		raw = c.raw
		h.LastSeq = h.FirstSeq + c.count - 1
		f.at, f.tail = c.at, c.tail
		s.chunks[0] = nil
		s.chunks = s.chunks[1:]
		p.held -= len(raw)
	}
	secret := s.key != nil && len(raw) > 0
	if len(s.chunks) == 0 && s.seal != "" && f.tail == 0 && !secret { // a seal is not encrypted: it is a block of its own
		h.Seal = true
		raw = ledger.AppendSeal(raw, ledger.Seal{End: s.seal, Records: h.LastSeq + 1, Blocks: h.Number + 1, Root: h.Prev, Time: now})
	}
	var b core.Block
	var err error
	if secret {
		b, err = p.enc.EncodeSecret(h, carry, f.tail, raw, s.key)
	} else {
		b, err = p.enc.Encode(h, carry, raw)
	}
	if cap(raw) > 0 && cap(raw) <= 2*blockMost && len(p.free) < 64 {
		p.free = append(p.free, raw)
	}
	if err != nil {
		return err
	}
	f.block = b
	s.flight = f
	s.head.blocks++
	s.head.prev = b.Hash
	s.head.carry = f.tail
	s.head.next = h.LastSeq + 1
	if f.tail > 0 {
		s.head.next--
	}
	s.head.sealed = h.Seal
	return nil
}
