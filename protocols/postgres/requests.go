package postgres

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/reactor"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// requestState belongs to the goroutine that reads the client.
type requestState struct {
	out      []byte // for the upstream
	kept     int    // client.in[kept:r] has not been recorded yet
	settle   core.Mark
	sequence uint64 // counts the Syncs, and what is one by itself; see names.meant
	skipping bool   // a message was refused: the rest up to the next Sync is not for the upstream
	unsynced bool   // messages of the extended protocol have gone upstream since the last Sync
	portals  map[string]*portal
	copying  *core.Exchange // the COPY … FROM STDIN that data would belong to
	data     []byte         // what one read has brought of it
	draining atomic.Bool
	deadline time.Time
	need     int  // bytes that the next message needs; 0: not known
	bye      bool // the client has said goodbye
	pushed   int  // replies that are owed for what is in out
	judged   judged
	parked   bool       // the command that is being judged has waited for an approval
	event    core.Event // that command
}

// goodbyeTime bounds how long an upstream may go on answering a client that has said goodbye.
const goodbyeTime = 30 * time.Second

// readRequests reads once what the client has sent, and deals with it.
func (c *connection) readRequests(ctx context.Context) reactor.Next {
	q := &c.request
	if !c.client.paused {
		if err := c.await(q.need); err != nil {
			switch {
			case errors.Is(err, reactor.ErrAgain):
				return reactor.Again
			case errors.Is(err, errIdle):
				c.fail(err)
			case hungUp(err):
				c.stop(core.EndClosed, "the client hung up", nil)
			default:
				c.stop(core.EndClosed, "the client's connection failed", err)
			}
			return reactor.Over
		}
		if err := c.handle(ctx); err != nil {
			c.fail(err)
			return reactor.Over
		}
	}
	ok, err := c.settled(ctx, &c.client, q.settle)
	if c.client.paused = err == nil && !ok; c.client.paused {
		return reactor.Paused
	}
	if err == nil {
		err = c.ask(ctx)
	}
	switch {
	case err != nil:
		c.fail(err)
		return reactor.Over
	case q.bye: // what is owed is still delivered; the upstream hangs up when it has said all
		_ = c.server.conn.SetReadDeadline(time.Now().Add(goodbyeTime))
		return reactor.Over
	}
	return reactor.Again
}

// await reads from the client, which has the idle limit for it.
func (c *connection) await(need int) error {
	for {
		err := c.client.fill(need)
		switch {
		case err == nil:
			return c.allowIdle()
		case !errors.Is(err, os.ErrDeadlineExceeded) || c.idle <= 0 || c.over.Load():
			return err
		case c.quiet():
			return errIdle
		}
		c.request.deadline = time.Time{} // a long command is not idleness
		if err := c.allowIdle(); err != nil {
			return err
		}
	}
}

// allowIdle sets the time by which the client has to say something.
func (c *connection) allowIdle() error {
	if c.idle <= 0 {
		return nil
	}
	now := time.Now()
	if c.request.deadline.Sub(now) >= c.idle*3/4 { // not at each read: it costs
		return nil
	}
	c.request.deadline = now.Add(c.idle)
	return c.client.conn.SetReadDeadline(c.request.deadline)
}

// handle deals with every whole message that has been read. What is left of them is in out.
func (c *connection) handle(ctx context.Context) error {
	q, l := &c.request, &c.client
	q.out, q.settle, q.kept, q.need, q.pushed = q.out[:0], 0, l.r, 0, 0
	for !q.bye {
		size, more, err := frontend.next(l.in[l.r:l.w], c.maxBody)
		if err != nil {
			return err
		}
		if size == 0 {
			q.need = more
			break
		}
		frame := l.in[l.r : l.r+size]
		l.r += size
		if q.bye = frame[0] == 'X'; q.bye {
			c.leaving.Store(true) // the upstream will hang up: no need to tell
		}
		if err := c.message(ctx, frame); err != nil {
			return err
		}
	}
	if d := c.keepRest(ctx); d != nil { // nothing that is not recorded goes on, not even a Sync
		return d
	}
	return nil
}

// ask sends the upstream in one write what handle has left.
func (c *connection) ask(ctx context.Context) error {
	if !c.cutting.TryRLock() {
		core.WillWait(ctx)
		c.cutting.RLock()
	}
	err := c.server.write(ctx, c.request.out)
	c.cutting.RUnlock()
	if err != nil {
		return fmt.Errorf("%w: %w", errUpstreamGone, err)
	}
	return nil
}

// keepRest records the messages that belong to no event, such as a lone Sync.
func (c *connection) keepRest(ctx context.Context) *core.Denial {
	q, l := &c.request, &c.client
	if q.kept >= l.r || !c.wantsAnswer {
		return nil
	}
	v := c.tell(ctx, &core.Event{
		Kind: core.KindNotice, Direction: core.FromClient, Result: &core.Result{Status: "sync"}, Wire: l.in[q.kept:l.r],
	})
	q.kept = l.r
	return v.Deny
}

// tell checks an event of the client's side.
func (c *connection) tell(ctx context.Context, e *core.Event) core.Verdict {
	v := c.session.Check(ctx, e)
	c.request.settle = max(c.request.settle, v.Mark)
	return v
}

// judge asks about a command whose message ends at client.r. The record takes the message, what came before it and
// belongs to no other event, and the Describe, Sync or Flush that follows.
func (c *connection) judge(ctx context.Context, x *core.Exchange, stage string, params []core.Param) *core.Denial {
	if !c.wantsCommand {
		return nil
	}
	q, l := &c.request, &c.client
	end := l.r
	for l.w-end >= headerSize && (l.in[end] == 'S' || l.in[end] == 'H' || l.in[end] == 'D') {
		n, _, err := frontend.next(l.in[end:l.w], c.maxBody)
		if err != nil || n == 0 {
			break
		}
		end += n
	}
	q.event = core.Event{
		Kind: core.KindCommand, Direction: core.FromClient, Exchange: x, Stage: stage, Params: params, Wire: l.in[q.kept:end], Waiter: c,
	}
	v := c.tell(ctx, &q.event)
	q.kept, q.judged = end, judged{}
	if q.parked {
		c.unpark()
	}
	return v.Deny
}

// message deals with one message of the client.
func (c *connection) message(ctx context.Context, frame []byte) error {
	q := &c.request
	typ, b := frame[0], frame[headerSize:]
	if q.skipping && typ != 'S' && typ != 'X' {
		return nil // as the server does after an error (manual, "Extended Query")
	}
	switch typ {
	case 'Q', 'F', 'S': // whatever comes after it runs even if what was before it failed
		q.sequence++
		defer func() { q.sequence++ }()
	case 'P', 'B', 'D', 'E', 'C':
		q.unsynced = true
	}
	switch typ {
	case 'Q':
		return c.query(ctx, frame, b)
	case 'P':
		return c.parse(ctx, frame, b)
	case 'B':
		return c.bind(frame, b)
	case 'D':
		return c.describe(frame, b)
	case 'E':
		return c.execute(ctx, frame, b)
	case 'C':
		cb := body{b: b}
		kind, name := cb.u8(), string(cb.str())
		r := reply{kind: 'C'}
		if kind == 'S' {
			if was := c.names.last(name); was != nil {
				r.stmt, r.closing = was, name
			}
		} else {
			delete(q.portals, name)
		}
		return c.send(frame, r)
	case 'S':
		q.skipping, q.unsynced = false, false
		return c.send(frame, reply{kind: 'S'})
	case 'F':
		return c.function(ctx, frame, b)
	case 'd', 'c', 'f':
		return c.copyIn(ctx, frame, b)
	}
	q.out = append(q.out, frame...) // Flush, Terminate
	return nil
}

// send passes a message on and notes what is owed for it.
func (c *connection) send(frame []byte, r reply) error {
	owed, ok := c.queue.push(r)
	switch {
	case !ok:
		return &frameError{codeProgramLimitExceeded, "too many messages are waiting for their answers (" + strconv.Itoa(maxPipeline) + ")"}
	case !owed && r.kind == 'P' && r.stmt != nil:
		c.names.reject(r.stmt)
	case owed && r.exchange != nil:
		c.deadline.begin(r.exchange.Limit.Time)
	}
	if owed {
		c.request.pushed++
	}
	c.request.out = append(c.request.out, frame...)
	return nil
}

// refusedText is what goes upstream in the place of a refused message. It is no SQL, so it fails in every state, and
// the server itself then does all that follows from a failure: it aborts the transaction, skips the rest of the
// pipeline, and answers in its turn with the right status. Only the error's text is ours.
const refusedText = "weir refused a statement here"

// refuse sends what fails in the place of a refused message of the extended or the simple protocol.
func (c *connection) refuse(d *core.Denial, x *core.Exchange, simple bool) error {
	r := reply{kind: 'P', exchange: x, refusal: d}
	msg := appendFrame(nil, 'P', []byte("weir_refused\x00"+refusedText+"\x00\x00\x00"))
	if simple {
		r.kind = 'Q'
		msg = appendFrame(nil, 'Q', []byte(refusedText+"\x00"))
	} else {
		c.request.skipping = true
	}
	return c.send(msg, r)
}

// query deals with the simple protocol's one message.
func (c *connection) query(ctx context.Context, frame, b []byte) error {
	var m pgproto3.Query
	if err := m.Decode(b); err != nil {
		return malformed("malformed Query message: %v", err)
	}
	script := c.read(ctx, m.String)
	command, body := c.resolve(ctx, script)
	x := &core.Exchange{Command: command}
	c.request.judged = judged{text: m.String, script: script}
	if d := c.judge(ctx, x, "", nil); d != nil {
		return c.refuse(d, x, true)
	}
	c.notice(script, x, nil)
	delete(c.request.portals, "") // the unnamed portal ends with any simple query
	if c.asksCopy(script) && !c.request.unsynced {
		return c.queryCopy(ctx, frame, reply{kind: 'Q', exchange: x, script: script, body: body})
	}
	return c.send(frame, reply{kind: 'Q', exchange: x, script: script, body: body})
}

// notice takes in what a script will do to names.
func (c *connection) notice(script *sql.Script, x *core.Exchange, params []core.Param) {
	c.request.copying = nil
	for i := range script.Statements {
		s := &script.Statements[i]
		switch {
		case s.Prepare != "" && s.Body != nil:
			c.names.add(&statement{name: s.Prepare, script: &sql.Script{Command: s.Body}, sequence: c.request.sequence})
		case s.Declare != "" && s.Body != nil:
			c.addPortal(&portal{name: s.Declare, params: params, statements: []*statement{{script: &sql.Script{Command: s.Body}}}})
		case s.Copy != nil && s.Copy.From:
			c.request.copying = x
		}
	}
}

// addPortal gives a portal its name. What had the name before a DECLARE may still have it, where the server refuses that;
// of a Bind see meantIn.
func (c *connection) addPortal(p *portal) {
	if old := c.request.portals[p.name]; old != nil && !p.bind {
		p.statements, p.before = append(append([]*statement(nil), old.statements...), p.statements...), old
		if len(p.statements) > maxMeanings {
			p.statements, p.before = nil, nil // more than are judged: it is nothing that is known
		}
	}
	if len(c.request.portals) >= maxNames {
		clear(c.request.portals)
	}
	c.request.portals[p.name] = p
}

// portal returns the portal that a message gets by a name; nil: none, or it is not known which.
func (c *connection) portal(name string) *portal {
	p := c.request.portals[name]
	if p == nil || !p.meantIn(c.request.sequence) {
		return nil
	}
	return p
}

// resolve adds to a script's facts what the names in it stand for in this session: tables, and what has been prepared. body
// is the latter, where the script is one statement and the name has one meaning.
func (c *connection) resolve(ctx context.Context, script *sql.Script) (command, body *core.Command) {
	var more []*core.Command
	for i := range script.Statements {
		s := &script.Statements[i]
		switch {
		case s.Execute != "":
			meanings := c.names.meant(s.Execute, c.request.sequence)
			if len(meanings) == 0 && script.Prepared(i) == nil { // or else its facts are the script's
				more = append(more, unknownName("prepared statement", s.Execute))
			}
			for _, m := range meanings {
				more = append(more, m.script.Command)
			}
		case s.Fetch != "":
			switch p := c.request.portals[s.Fetch]; {
			case p != nil && !p.meantIn(c.request.sequence):
				more = append(more, unknownName("cursor", s.Fetch))
			case p != nil:
				for _, m := range p.statements {
					more = append(more, m.script.Command)
				}
			}
		}
	}
	command = c.catalog.qualify(ctx, script.Command)
	if len(more) == 0 {
		return command, nil
	}
	if len(more) == 1 && len(script.Statements) == 1 {
		body = more[0]
	}
	all := []*core.Command{command}
	for _, m := range more {
		all = append(all, c.catalog.qualify(ctx, m))
	}
	u := sql.Union(script.Command.Text, all)
	u.Action = script.Command.Action
	return u, body
}

func unknownName(kind, name string) *core.Command {
	return &core.Command{
		Action: "execute", Text: "", Effects: []core.Effect{core.EffectUnknown}, Where: true,
		Status: core.StatusIncomplete, Reason: "no " + kind + " of the name " + strconv.Quote(name) + " is known in this session",
	}
}

// parse deals with a statement that is prepared by the protocol.
func (c *connection) parse(ctx context.Context, frame, b []byte) error {
	cb := body{b: b}
	name, text := string(cb.str()), string(cb.str())
	script := c.read(ctx, text)
	command, _ := c.resolve(ctx, script)
	x := &core.Exchange{Command: command}
	if d := c.judge(ctx, x, "prepare", nil); d != nil {
		return c.refuse(d, x, false)
	}
	s := &statement{name: name, script: script, sequence: c.request.sequence}
	s.setParams(cb.take(4 * cb.u16()))
	s.declared = s.params
	if script.Command.Text != text {
		s.raw = text
	}
	if !c.names.add(s) {
		return &frameError{codeProgramLimitExceeded, "too many prepared statements"}
	}
	return c.send(frame, reply{kind: 'P', stmt: s})
}

// bind makes a portal.
func (c *connection) bind(frame, b []byte) error {
	var m pgproto3.Bind
	if err := m.Decode(b); err != nil {
		return malformed("malformed Bind message: %v", err)
	}
	p := &portal{name: m.DestinationPortal, from: m.PreparedStatement, statements: c.names.meant(m.PreparedStatement, c.request.sequence), formats: m.ResultFormatCodes, bind: true, sequence: c.request.sequence}
	if c.wantsCommand && len(m.Parameters) > 0 {
		if p.params = p.few[:]; len(m.Parameters) > len(p.few) {
			p.params = make([]core.Param, len(m.Parameters))
		}
		p.params = p.params[:len(m.Parameters)]
		for i, v := range m.Parameters {
			format := int16(0)
			switch len(m.ParameterFormatCodes) {
			case 0:
			case 1:
				format = m.ParameterFormatCodes[0]
			default:
				if i < len(m.ParameterFormatCodes) {
					format = m.ParameterFormatCodes[i]
				}
			}
			p.params[i] = p.param(i, v, format == 1)
		}
	}
	c.addPortal(p)
	return c.send(frame, reply{kind: 'B', portal: p})
}

// param copies a parameter: the frame's bytes are reused before the portal is. A binary one becomes text where its
// type is known, so that a policy or a reader of the record need not know the form; the record's bytes have it as sent.
func (p *portal) param(i int, v []byte, binary bool) core.Param {
	if v == nil {
		return core.Param{Binary: binary}
	}
	if binary && len(p.statements) > 0 {
		name := typeName(p.statements[len(p.statements)-1].paramType(i))
		switch core.ClassOf(name) {
		case core.ClassUnknown:
		case core.ClassText: // the two forms are one
			binary = false
		default:
			if text := valueText(core.Column{Type: name, Binary: true}, v); !strings.HasPrefix(text, `\x`) {
				return core.Param{Value: []byte(text)}
			}
		}
	}
	return core.Param{Value: append([]byte{}, v...), Binary: binary}
}

// describe asks for the shape of a statement or a portal.
func (c *connection) describe(frame, b []byte) error {
	cb := body{b: b}
	kind, name := cb.u8(), string(cb.str())
	r := reply{kind: 'D'}
	if kind == 'S' {
		if r.stmt = c.names.last(name); r.stmt != nil {
			r.stmt.described = true
		}
	} else if p := c.portal(name); p != nil {
		p.described = true
		r.portal = p
	}
	return c.send(frame, r)
}

// execute runs a portal.
func (c *connection) execute(ctx context.Context, frame, b []byte) error {
	cb := body{b: b}
	name := string(cb.str())
	p := c.portal(name)
	if p == nil || len(p.statements) == 0 {
		x := &core.Exchange{Command: unknownName("portal", name)}
		if d := c.judge(ctx, x, "execute", nil); d != nil {
			return c.refuse(d, x, false)
		}
		return c.send(frame, reply{kind: 'E', exchange: x, portal: p})
	}
	s := p.statements[len(p.statements)-1]
	command, body := c.resolve(ctx, s.script)
	if len(p.statements) > 1 { // the server has not said yet which it is: it must be allowed in every meaning
		all := make([]*core.Command, len(p.statements))
		for i, m := range p.statements {
			all[i], _ = c.resolve(ctx, m.script)
		}
		command, body = sql.Union(s.script.Command.Text, all), nil
	}
	x := &core.Exchange{Command: command}
	c.request.judged = judged{portal: p}
	if d := c.judge(ctx, x, "execute", p.params); d != nil {
		return c.refuse(d, x, false)
	}
	c.notice(s.script, x, p.params)
	if !p.described && (!s.described || len(p.statements) > 1) && c.wantsAnswer { // nobody has asked for the shape of the answer, so Weir does
		p.described = true
		if err := c.send(appendFrame(nil, 'D', []byte("P"+name+"\x00")), reply{kind: 'D', portal: p, own: true}); err != nil {
			return err
		}
	}
	var shape *statement
	if c.asksCopy(s.script) {
		var err error
		if shape, err = c.askCopy(s.script, nil); err != nil {
			return err
		}
	}
	return c.send(frame, reply{kind: 'E', exchange: x, script: s.script, body: body, portal: p, stmt: shape})
}

// largeObjects are the functions that libpq's large-object calls run by OID (pg_proc).
var largeObjects = map[uint32]struct {
	name   string
	effect core.Effect
}{
	952: {"lo_open", core.EffectWrite}, 953: {"lo_close", core.EffectRead}, 954: {"loread", core.EffectRead},
	955: {"lowrite", core.EffectWrite}, 956: {"lo_lseek", core.EffectRead}, 957: {"lo_creat", core.EffectWrite},
	958: {"lo_tell", core.EffectRead}, 964: {"lo_unlink", core.EffectWrite}, 715: {"lo_create", core.EffectWrite},
	1004: {"lo_truncate", core.EffectWrite}, 3170: {"lo_lseek64", core.EffectRead}, 3171: {"lo_tell64", core.EffectRead},
	3172: {"lo_truncate64", core.EffectWrite},
}

// function deals with a FunctionCall, which names a function by OID and has no text.
func (c *connection) function(ctx context.Context, frame, b []byte) error {
	oid := binary.BigEndian.Uint32(b)
	command := &core.Command{
		Action: "function call", Text: "function call " + strconv.FormatUint(uint64(oid), 10), Where: true,
		Fingerprint: "function:" + strconv.FormatUint(uint64(oid), 10),
	}
	if lo, ok := largeObjects[oid]; ok {
		command.Status, command.Effects = core.StatusKnown, []core.Effect{lo.effect}
		command.Resources = []core.Resource{{Kind: "function", Name: "pg_catalog." + lo.name, Use: []string{"call"}}}
	} else {
		command.Status, command.Effects = core.StatusIncomplete, []core.Effect{core.EffectUnknown}
		command.Reason = "a FunctionCall message names a function by its OID only"
		command.Resources = []core.Resource{{Kind: "function", Name: "oid:" + strconv.FormatUint(uint64(oid), 10), Use: []string{"call", "unknown"}}}
	}
	x := &core.Exchange{Command: command}
	c.request.judged = judged{call: b}
	if d := c.judge(ctx, x, "", nil); d != nil {
		return c.refuse(d, x, true)
	}
	return c.send(frame, reply{kind: 'F', exchange: x})
}

// copyIn passes COPY data on: all that one read brings is one event. Data that belongs to no COPY is dropped, as the
// server does.
func (c *connection) copyIn(ctx context.Context, frame, b []byte) error {
	q, l := &c.request, &c.client
	x := q.copying
	if x == nil {
		return nil
	}
	if frame[0] == 'd' && c.wantsAnswer {
		in := copyIn{c: c, start: l.r - len(frame)}
		q.data = append(q.data[:0], b...)
		for l.w-l.r >= headerSize && l.in[l.r] == 'd' {
			n, _, err := frontend.next(l.in[l.r:l.w], c.maxBody)
			if err != nil || n == 0 {
				break
			}
			q.data = append(q.data, l.in[l.r+headerSize:l.r+n]...)
			l.r += n
		}
		v := c.tell(ctx, &core.Event{Kind: core.KindBytes, Direction: core.FromClient, Exchange: x, Bytes: q.data, Frame: &in})
		q.kept = l.r
		if cap(q.data) > 2*largeBuffer {
			q.data = nil
		}
		if v.Deny != nil { // the COPY fails with our words; what was refused does not reach the server
			q.copying = nil
			q.out = appendFrame(q.out, 'f', []byte("refused by Weir: rule "+clean(v.Deny.Rule)+"\x00"))
			return nil
		}
		frame = in.frames
	}
	q.out = append(q.out, frame...)
	return nil
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
