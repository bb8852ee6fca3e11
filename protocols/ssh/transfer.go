package ssh

import (
	"context"
	"encoding/binary"
	"io"
	"sync"

	"github.com/weir-gateway/weir/core"
)

// transfer is a channel with the file transfer protocol on it. Its streams are carried packet by packet: a request that a rule refuses
// gets its answer from Weir, and the others go on.
type transfer struct {
	ch    *channel
	files files
	write sync.Mutex // of whole packets to the client
}

// wholePackets is where packets for the client are written.
type wholePackets struct{ t *transfer }

func (w wholePackets) Write(p []byte) (int, error) {
	w.t.write.Lock()
	defer w.t.write.Unlock()
	return w.t.ch.client.Write(p)
}

// packet reads a whole packet, with its length, behind room for a head.
func packet(r io.Reader) (*[]byte, int, error) {
	buffer := pieces.Get().(*[]byte)
	b := *buffer
	if _, err := io.ReadFull(r, b[dataHead:dataHead+4]); err != nil {
		pieces.Put(buffer)
		return nil, 0, err
	}
	n := int(binary.BigEndian.Uint32(b[dataHead:]))
	if n < 1 || n > maxFilePacket {
		pieces.Put(buffer)
		return nil, 0, errFilePacket
	}
	if need := dataHead + 4 + n; need > len(b) {
		bigger := make([]byte, need)
		copy(bigger, b[:dataHead+4])
		pieces.Put(buffer)
		buffer, b = &bigger, bigger
	}
	if _, err := io.ReadFull(r, b[dataHead+4:dataHead+4+n]); err != nil {
		return nil, 0, err
	}
	return buffer, dataHead + 4 + n, nil
}

// fromClient reads, judges and records one request.
func (t *transfer) fromClient(ctx context.Context, s *stream) (p piece, denied *core.Denial, err error) {
	buffer, n, err := packet(s.from)
	if err != nil {
		return piece{}, unreadable(err), err
	}
	b := (*buffer)[:n]
	body := b[dataHead+4:]
	x, closed, err := t.files.request(body)
	if err != nil {
		return piece{}, unreadable(err), err
	}
	if closed != "" {
		t.ch.keep(ctx, core.KindResult, core.FromClient, &core.Result{Status: "file", Message: closed})
	}
	putHead(b, t.ch.number, false, n-dataHead)
	if x == nil {
		p, denied = s.judge(ctx, b, dataHead)
		p.buffer = buffer
		return p, denied, nil
	}
	t.ch.c.touch()
	own := &core.Exchange{Command: x, Limit: t.ch.in.Limit, Record: t.ch.in.Record}
	e := &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Exchange: own, Wire: b, Detail: t.ch.detail(), Waiter: &request{t.ch, x, true}}
	if v := t.ch.c.session.Check(ctx, e); v.Deny == nil {
		return piece{buffer: buffer, data: b[dataHead:], mark: v.Mark}, nil, nil
	} else if err := t.refuse(ctx, binary.BigEndian.Uint32(body[1:]), v.Deny); err != nil {
		return piece{}, v.Deny, err
	}
	pieces.Put(buffer)
	return piece{}, nil, nil
}

// end records what was done with the files that are still open.
func (t *transfer) end(ctx context.Context) {
	for _, said := range t.files.left() {
		t.ch.keep(ctx, core.KindResult, core.FromClient, &core.Result{Status: "file", Message: said})
	}
}

// refuse answers a request in the server's place.
func (t *transfer) refuse(ctx context.Context, id uint32, d *core.Denial) error {
	t.files.forget(id)
	text := refused(d)
	answer := deniedAnswer(id, text)
	if d := t.ch.say(ctx, core.KindNotice, core.FromGateway, &core.Result{Status: "error", Message: text}, dataMessage(t.ch.number, false, answer)); d != nil {
		return d
	}
	_, err := wholePackets{t}.Write(answer)
	return err
}

// fromServer reads, judges and records one answer.
func (t *transfer) fromServer(ctx context.Context, s *stream) (p piece, denied *core.Denial, err error) {
	buffer, n, err := packet(s.from)
	if err != nil {
		return piece{}, unreadable(err), err
	}
	b := (*buffer)[:n]
	t.files.answer(b[dataHead+4:])
	putHead(b, t.ch.number, false, n-dataHead)
	p, denied = s.judge(ctx, b, dataHead)
	p.buffer = buffer
	return p, denied, nil
}

// unreadable is why a transfer ends that is not as it should be; nil where it only ends.
func unreadable(err error) *core.Denial {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return nil
	}
	return notAllowed("unreadable", "this is not the file transfer protocol as Weir knows it", "")
}

// request is a Waiter for one command of a channel on which a program runs.
type request struct {
	*channel
	x      *core.Command
	silent bool // the program's protocol has no way to say that it waits
}

// Said implements core.Waiter.
func (r *request) Said() []string {
	return append([]string{r.x.Action + " " + r.x.Text}, r.channel.Said()...)
}

// Notice implements core.Waiter.
func (r *request) Notice(text string) []byte {
	if r.silent {
		return nil
	}
	return r.channel.Notice(text)
}
