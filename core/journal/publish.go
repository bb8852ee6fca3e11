package journal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	ackTimeout = 5 * time.Second
	// wrongLast is the server's code for an expected-last-subject-sequence that does not hold.
	wrongLast = jetstream.ErrorCode(10071)
)

// publisher sends blocks.
type publisher struct {
	js    jetstream.JetStream
	first map[uint8]uint64 // the first sequence that a stream is known to hold still

	mu      sync.Mutex
	streams map[uint8]jetstream.Stream // those that were asked for: asking takes a round trip
}

func (p *publisher) stream(ctx context.Context, shard uint8) (jetstream.Stream, error) {
	p.mu.Lock()
	s := p.streams[shard]
	p.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s, err := p.js.Stream(ctx, streamName(shard))
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.streams[shard] = s
	p.mu.Unlock()
	return s, nil
}

type sent struct {
	s   *packed
	ack jetstream.PubAckFuture
}

// pass sends a block of each of the sessions, and returns when all are acknowledged or have failed. The next pass
// begins after it, with what has gathered meanwhile: so the blocks' size follows what JetStream can take.
func (p *packer) pass(ctx context.Context, due []*packed) {
	if p.stalled.Load() {
		p.wait(errors.New("stalled"))
		return
	}
	now := time.Now()
	var cut []*packed
	var out []sent
	var failed error
	size := 0
	for _, s := range due {
		if size >= passBytes || len(cut) >= passBlocks {
			break
		}
		if s.flight == nil {
			if failed = p.unlock(ctx, s, now); failed != nil {
				break
			}
			if err := p.cut(s, now); err != nil {
				p.log.Error("journal: a block cannot be made; the session is given up", "session", s.id, "error", err)
				p.drop(s)
				continue
			}
		}
		if s.acked.subject < p.publisher.first[s.shard] {
			s.acked.subject = 0 // purged since
		}
		cut = append(cut, s)
		size += len(s.flight.block.Bytes)
	}
	groups, single := p.batches(cut)
	if len(groups) > 0 {
		single = append(single, p.sendTogether(ctx, groups)...)
	}
	for _, s := range single {
		ack, err := p.send(s)
		if err != nil {
			publishErrors.Inc()
			failed = err
			break
		}
		out = append(out, sent{s, ack})
	}
	timeout := time.NewTimer(ackTimeout)
	defer timeout.Stop()
	stale := map[uint8]bool{}
	for _, o := range out {
		if ctx.Err() != nil {
			return
		}
		var err error
		select {
		case a := <-o.ack.Ok():
			if !a.Duplicate {
				p.acknowledged(o.s, a.Sequence)
				continue
			}
			// A message of this name is there already. It may be another block of the same number, which a process that was
			// killed had sent: what the stream holds says so, its answer does not.
			if err = p.reconcile(ctx, o.s, stale); err == nil {
				continue
			}
		case err = <-o.ack.Err():
		case <-timeout.C:
			timeout.Reset(0)
			err = errors.New("no answer within " + ackTimeout.String())
		case <-ctx.Done():
			return
		}
		var api *jetstream.APIError
		if errors.As(err, &api) && api.ErrorCode == wrongLast {
			err = p.reconcile(ctx, o.s, stale)
			if err == nil {
				continue
			}
		}
		publishErrors.Inc()
		failed = err
	}
	if failed != nil {
		p.wait(failed)
	} else if len(cut) > 0 {
		p.well()
	}
}

// send publishes the session's block.
func (p *packer) send(s *packed) (jetstream.PubAckFuture, error) {
	return p.js.PublishMsgAsync(p.message(s), jetstream.WithRetryAttempts(0), jetstream.WithStallWait(ackTimeout))
}

// acknowledged notes that JetStream has the session's block.
func (p *packer) acknowledged(s *packed, seq uint64) {
	p.wal.acked.Store(time.Now().UnixNano())
	blocksTotal.Inc()
	blockBytesTotal.Add(float64(len(s.flight.block.Bytes)))
	s.acked = s.head
	s.acked.subject = seq
	s.flight, s.resumed = nil, false
	p.note(s)
	if s.acked.sealed {
		delete(p.sessions, s.id)
	}
}

// note writes what JetStream has of a session into the log, for the next start.
func (p *packer) note(s *packed) {
	body := s.acked.append(make([]byte, 0, 96))
	if mark, err := p.wal.note(s.shard, s.id, body); err == nil {
		if s.note = mark; s.young == 0 {
			s.young = mark
		}
	}
}

// reconcile finds out why a block was refused: it may be there already, the one before may have been purged since
// the archive has it, or somebody else wrote the session's history.
func (p *packer) reconcile(ctx context.Context, s *packed, stale map[uint8]bool) error {
	h, found, err := p.lastBlock(ctx, s.shard, s.id)
	if err != nil {
		return err
	}
	number := s.flight.block.Header.Number
	switch {
	case found && h.blocks == number+1 && h.prev == s.flight.block.Hash:
		p.acknowledged(s, h.subject)
	case found && h.blocks == number && h.prev == s.flight.block.Header.Prev:
		s.acked.subject = h.subject
	case found && h.blocks > number && s.resumed:
		p.log.Warn("journal: a block that an earlier process sent has arrived late; the session goes on behind it", "session", s.id, "block", number, "blocks there", h.blocks)
		return p.retell(ctx, s, h)
	case found && h.blocks > number:
		forksTotal.Inc()
		p.log.Error("journal: JetStream holds another history of the session; ours is given up", "session", s.id, "block", number, "blocks there", h.blocks)
		p.drop(s)
	case found:
		p.log.Error("journal: JetStream has lost blocks of the session that it acknowledged", "session", s.id, "block", number, "blocks there", h.blocks)
		s.acked.subject = h.subject
	default:
		if s.acked.subject == 0 {
			return fmt.Errorf("stream %s refuses the first block of session %s", streamName(s.shard), s.id)
		}
		s.acked.subject = 0
		if !stale[s.shard] {
			stale[s.shard] = true
			return p.refresh(ctx, s.shard)
		}
	}
	return nil
}

// retell makes a session's blocks anew from the log, behind those that JetStream has. An earlier process that was killed
// may have left a block on its way, in the buffers of a connection or of a node that hung: it holds the same records,
// cut in another place.
func (p *packer) retell(ctx context.Context, s *packed, h head) error {
	from, _ := s.oldest()
	for _, c := range s.chunks {
		p.held -= len(c.raw)
	}
	p.forget(s)
	seal, sealAt := s.seal, s.sealAt
	s.chunks, s.flight, s.seal = nil, nil, ""
	s.head, s.acked = h, h
	if h.sealed {
		delete(p.sessions, s.id)
		p.left[s.id] = &leftover{shard: s.shard, head: h, found: true}
		return nil
	}
	err := p.wal.read(from, p.read, func(e entry) error {
		if string(e.session) != s.id {
			return nil
		}
		return p.entry(ctx, e)
	})
	if s.seal == "" {
		s.seal, s.sealAt = seal, sealAt
	}
	return err
}

// refresh asks which of a stream's messages have been purged.
func (p *packer) refresh(ctx context.Context, shard uint8) error {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	st, err := p.js.Stream(ctx, streamName(shard)) // asks for its state
	if err != nil {
		return err
	}
	p.publisher.first[shard] = st.CachedInfo().State.FirstSeq
	return nil
}

// drop gives a session up: nothing more of it is sent.
func (p *packer) drop(s *packed) {
	for _, c := range s.chunks {
		p.held -= len(c.raw)
	}
	p.forget(s)
	s.chunks, s.flight, s.dead = nil, nil, true
}

// settle works out how far JetStream has everything, and frees the segments before.
func (p *packer) settle(ctx context.Context) {
	low := p.read
	if s, ok := p.queue.first(); ok && s.loss == 0 {
		low = min(low, s.from)
	}
	open := 0
	for _, s := range p.sessions {
		if at, ok := s.oldest(); ok && !s.dead {
			low = min(low, at)
		}
		if !s.dead {
			open++
		}
	}
	unsealed.Set(float64(open))
	pendingBytes.Set(float64(p.held))
	next := p.wal.position()
	spoolBytes.Set(float64(next - min(next, low)))
	p.mu.Lock()
	if low != p.low {
		p.low = low
		close(p.moved)
		p.moved = make(chan struct{})
	}
	p.mu.Unlock()
	end := p.wal.recyclable(low)
	if end == 0 {
		return
	}
	// A session that is open keeps a durable note in the log, or the next start would not know that it has to be sealed.
	// What lies before every note can go at once.
	before, durable := end, p.wal.durable.Load()
	for id, s := range p.sessions {
		if s.dead {
			delete(p.sessions, id) // nothing of it is left in the log
			continue
		}
		if s.note <= durable {
			s.kept, s.young = s.note, 0
		} else if s.young != 0 && s.young <= durable {
			s.kept, s.young = s.young, 0
		}
		before = min(before, max(s.kept, 1)-1) // its mark is the note's end
	}
	if !p.recycle(before) || before == end || !p.noteAll(ctx, end) {
		return
	}
	p.recycle(end)
}

// noteAll notes anew, durably, the sessions whose notes lie before a position.
func (p *packer) noteAll(ctx context.Context, end uint64) bool {
	noted := uint64(0)
	for _, s := range p.sessions {
		if s.note <= end {
			p.note(s)
			if s.note <= end {
				return false // the log is lost: its sessions are sealed first
			}
		}
		noted = max(noted, s.note)
	}
	if p.wal.durable.Load() >= noted {
		return true
	}
	p.wal.allowExtra(2) // a full log must not keep out the notes that make room in it; see groupMost
	defer p.wal.allowExtra(0)
	return p.wal.settle(ctx, noted, p.wal.epoch.Load()) == nil
}

func (p *packer) recycle(end uint64) bool {
	if err := p.wal.recycle(end); err != nil {
		p.log.Error(err.Error())
		return false
	}
	return true
}

// flush returns when everything before a position is acknowledged.
func (p *packer) flush(ctx context.Context, mark uint64) error {
	p.hurry.Add(1)
	defer p.hurry.Add(-1)
	for {
		p.mu.Lock()
		low, moved := p.low, p.moved
		p.mu.Unlock()
		if low >= mark {
			return nil
		}
		select {
		case p.queue.wake <- struct{}{}:
		default:
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
