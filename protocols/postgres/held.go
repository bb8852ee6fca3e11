package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgproto3/v2"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/reactor"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// judged is the command that is being judged, as the client sent it: one of a text with its script, a portal, and the
// body of a FunctionCall. Only a rule that holds the command asks for it.
type judged struct {
	text   string
	script *sql.Script
	portal *portal
	call   []byte
}

var _ core.Waiter = (*connection)(nil)

// maxNested bounds how far a name may stand for another.
const maxNested = 4

// Said implements core.Waiter.
func (c *connection) Said() []string {
	j := &c.request.judged
	var said []string
	ok := false
	switch {
	case j.portal != nil:
		said, ok = c.portalSaid(nil, j.portal, 0)
	case j.call != nil:
		said, ok = []string{"function call", fmt.Sprintf("%x", j.call)}, true
	case j.script != nil:
		said, ok = c.scriptSaid(nil, j.text, j.script, 0)
	}
	if !ok {
		return nil
	}
	return said
}

// scriptSaid appends a text, and what the names in it stand for.
func (c *connection) scriptSaid(said []string, text string, script *sql.Script, depth int) (_ []string, ok bool) {
	if depth > maxNested {
		return nil, false
	}
	said = append(said, text)
	for i := range script.Statements {
		s := &script.Statements[i]
		if p := c.request.portals[s.Fetch]; s.Fetch != "" && p != nil {
			if !p.meantIn(c.request.sequence) {
				return nil, false
			}
			more, ok := c.portalSaid(nil, p, depth+1)
			if !ok {
				return nil, false
			}
			said = underName(said, s.Fetch, more)
		}
		if s.Execute == "" {
			continue
		}
		meanings := c.names.meant(s.Execute, c.request.sequence)
		if len(meanings) == 0 && script.Prepared(i) == nil {
			return nil, false
		}
		more, ok := c.meaningsSaid(nil, meanings, depth+1)
		if !ok {
			return nil, false
		}
		said = underName(said, s.Execute, more)
	}
	return said, true
}

// underName appends what a name stands for, each with the name before it: no statement begins with one in quotes, so this
// cannot be taken for another.
func underName(said []string, name string, more []string) []string {
	for _, text := range more {
		said = append(said, strconv.Quote(name)+": "+text)
	}
	return said
}

// meaningsSaid appends all that a name may mean: the server does not always say which it is. What would be said twice is
// said once, or giving a name the same meaning again would make it another.
func (c *connection) meaningsSaid(said []string, meanings []*statement, depth int) ([]string, bool) {
	from := len(said)
	for _, m := range meanings {
		one, ok := c.statementSaid(nil, m, depth)
		if !ok {
			return nil, false
		}
		for _, text := range one {
			if !slices.Contains(said[from:], text) {
				said = append(said, text)
			}
		}
	}
	return said, true
}

func (c *connection) statementSaid(said []string, s *statement, depth int) ([]string, bool) {
	text := s.raw
	if text == "" {
		if text = s.script.Command.Text; s.script.Command.Secret {
			return nil, false // the text is not all of it
		}
	}
	for _, oid := range s.declared {
		if oid != 0 {
			text = fmt.Sprintf("types %v: %s", s.declared, text)
			break
		}
	}
	return c.scriptSaid(said, text, s.script, depth)
}

// portalSaid appends all that a portal may be. The parameters of one that is executed come with its event.
func (c *connection) portalSaid(said []string, p *portal, depth int) (_ []string, ok bool) {
	from := len(said)
	if said, ok = c.meaningsSaid(said, p.statements, depth); !ok || len(p.statements) == 0 {
		return nil, false
	}
	if depth == 0 {
		p = p.before
	}
	for ; p != nil; p = p.before {
		if len(p.params) > 0 {
			var values strings.Builder
			for _, v := range p.params {
				fmt.Fprintf(&values, "parameter %t %t %x\n", v.Value == nil, v.Binary, v.Value)
			}
			if text := values.String(); !slices.Contains(said[from:], text) {
				said = append(said, text)
			}
		}
	}
	return said, true
}

// Notice implements core.Waiter. The server may send a NoticeResponse at any time, and so may Weir (manual, "Asynchronous
// Operations"); while earlier answers are on their way there is none, so that the record has all in its order.
func (c *connection) Notice(text string) []byte {
	c.request.parked = true
	c.cancelled.Store(false)
	c.waiting.Store(true)
	if c.queue.length() > c.request.pushed {
		return nil
	}
	m := pgproto3.NoticeResponse{Severity: "NOTICE", SeverityUnlocalized: "NOTICE", Code: "00000", Message: clean(text)}
	out, err := m.Encode(nil)
	if err != nil { // only a message of over a gigabyte
		return nil
	}
	return out
}

// tellTime bounds how long a client may take to read that its command waits.
const tellTime = time.Second

// Tell implements core.Waiter. A client that reads nothing does not keep its command from being looked after.
func (c *connection) Tell(ctx context.Context, notice []byte) error {
	done := make(chan error, 1)
	go func() { done <- c.client.write(ctx, notice) }()
	t := time.NewTimer(tellTime)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return errGone
	}
}

// Gone implements core.Waiter.
func (c *connection) Gone() string {
	switch {
	case c.cancelled.Load():
		return core.GoneCancelled
	case c.over.Load():
		return "the session has ended"
	case reactor.HungUp(c.client.conn):
		return "the client hung up"
	}
	return ""
}

// takeBack cancels the command that waits for an approval, and reports whether there is one. The upstream knows of none.
func (c *connection) takeBack() bool {
	if !c.waiting.Load() {
		return false
	}
	c.cancelled.Store(true)
	return true
}

// unpark goes on after a command has waited.
func (c *connection) unpark() {
	c.request.parked = false
	c.waiting.Store(false)
	c.request.deadline = time.Time{} // a command that waits is not idleness
	_ = c.allowIdle()                // fails only where the connection is closed, which the next read finds
}
