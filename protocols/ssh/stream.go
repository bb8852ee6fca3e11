package ssh

import (
	"context"
	"io"
	"sync"

	"github.com/weir-gateway/weir/core"
)

// stream carries one direction of a channel. What is read is judged and recorded; once it is settled it is written. While the
// journal settles one piece the next are read, up to a bound; then the sender's window fills, which is how SSH slows it down.
type stream struct {
	ch       *channel
	from     io.Reader
	to       io.Writer
	way      core.Direction
	exchange *core.Exchange
	mu       *sync.Mutex // of the exchange, in this direction
	extended bool
	// next reads one piece; nil: what there is. A piece without a buffer is none.
	next    func(s *stream, ctx context.Context) (piece, *core.Denial, error)
	packets bool              // pieces are packets, which keep their lengths
	watch   func(data []byte) // is shown what is passed on; nil: nobody is

	event core.Event
	data  []byte // as it stood in the buffer, to see whether a step has changed it
	wire  []byte
	hide  bool // the record is not to have it
	stars bool // the record has stars in the place of keys
}

var _ core.Frame = (*stream)(nil)

const (
	pieceSize = 32 << 10
	inFlight  = 16 // pieces of a stream that wait for the journal
)

// piece is what has been read and not yet written.
type piece struct {
	buffer *[]byte
	data   []byte
	mark   core.Mark
}

var pieces = sync.Pool{New: func() any { b := make([]byte, extendedHead+pieceSize); return &b }}

// run carries the stream until it ends. A refusal, and nothing else, is an error.
func (s *stream) run(ctx context.Context) (denied *core.Denial) {
	queue := make(chan piece, inFlight)
	written := make(chan struct{})
	go func() {
		defer close(written)
		defer s.ch.c.recovered()
		broken := false
		for p := range queue {
			if !broken {
				broken = s.deliver(ctx, p) != nil
			}
			pieces.Put(p.buffer)
		}
	}()
	next := s.next
	if next == nil {
		next = (*stream).read
	}
	for {
		p, d, err := next(s, ctx)
		if p.buffer != nil && d == nil {
			if s.watch != nil {
				s.watch(p.data)
			}
			queue <- p
		} else if p.buffer != nil {
			pieces.Put(p.buffer)
		}
		if denied = d; d != nil || err != nil {
			break
		}
	}
	close(queue)
	<-written
	return denied
}

// read reads, judges and records what there is.
func (s *stream) read(ctx context.Context) (p piece, denied *core.Denial, err error) {
	head := headSize(s.extended)
	buffer := pieces.Get().(*[]byte)
	b := *buffer
	n, err := s.from.Read(b[head : head+pieceSize])
	if n == 0 {
		pieces.Put(buffer)
		return piece{}, nil, err
	}
	putHead(b, s.ch.number, s.extended, n)
	p, denied = s.judge(ctx, b[:head+n], head)
	p.buffer = buffer
	return p, denied, err
}

// deliver writes a piece once its record is settled.
func (s *stream) deliver(ctx context.Context, p piece) error {
	if err := s.ch.c.session.Settle(ctx, p.mark); err != nil {
		s.ch.c.fail(err)
		return err
	}
	_, err := s.to.Write(p.data)
	return err
}

// judge puts a piece to the chain and the record.
func (s *stream) judge(ctx context.Context, wire []byte, head int) (piece, *core.Denial) {
	c := s.ch.c
	data := wire[head:]
	said := data
	c.touch()
	switch {
	case s.packets: // no person is asked anything
	case s.way == core.FromClient:
		said, s.hide = s.ch.prompts.hide(data)
		if s.ch.typist != nil {
			s.stars = true
			s.ch.typist.sent(data)
		}
	default:
		s.ch.prompts.said(data)
		if s.ch.typist != nil {
			s.ch.typist.said(ctx, data)
		}
	}
	if !c.session.Wants(core.KindBytes) && s.exchange.Limit.Bytes == 0 {
		return piece{data: data}, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.data, s.wire = said, wire
	s.event = core.Event{Kind: core.KindBytes, Direction: s.way, Exchange: s.exchange, Bytes: said, Frame: s}
	v := c.session.Check(ctx, &s.event)
	if v.Deny != nil {
		return piece{}, v.Deny
	}
	if s.packets && len(s.event.Bytes) != len(data) {
		return piece{}, notAllowed("unmaskable", "a step has changed the length of a packet, which cannot be", "")
	}
	if !s.hide {
		data = s.event.Bytes
	}
	return piece{data: data, mark: v.Mark}, nil
}

// Wire implements core.Frame.
func (s *stream) Wire(e *core.Event, _ *core.Verdict) ([]byte, error) {
	if s.stars {
		return dataMessage(s.ch.number, s.extended, starred(e.Bytes)), nil
	}
	if len(e.Bytes) == len(s.data) && (len(s.data) == 0 || &e.Bytes[0] == &s.data[0]) && !s.hide {
		return s.wire, nil
	}
	return dataMessage(s.ch.number, s.extended, e.Bytes), nil
}
