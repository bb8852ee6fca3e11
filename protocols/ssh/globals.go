package ssh

import (
	"context"
	"encoding/binary"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// clientGlobals answers the client's global requests (RFC 4254, 4). They are answered in their order.
func (c *connection) clientGlobals(ctx context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		c.touch()
		switch r.Type {
		case "keepalive@openssh.com":
			c.pass(c.server, r)
		case "no-more-sessions@openssh.com":
			c.noMore.Store(true)
			_ = r.Reply(true, nil)
		case "tcpip-forward", "streamlocal-forward@openssh.com":
			c.listen(ctx, r)
		case "cancel-tcpip-forward", "cancel-streamlocal-forward@openssh.com":
			c.unlisten(ctx, r)
		default: // hostkeys-prove-00@openssh.com too: the target's keys are none of the client's business
			_ = r.Reply(false, nil)
		}
	}
}

// serverGlobals answers the target's. Its host keys are not told: a client would take them for the gateway's.
func (c *connection) serverGlobals(_ context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		if r.Type == "keepalive@openssh.com" {
			c.pass(c.client, r)
			continue
		}
		_ = r.Reply(false, nil)
	}
}

// pass has the other side answer.
func (c *connection) pass(to ssh.Conn, r *ssh.Request) {
	ok, payload, err := to.SendRequest(r.Type, r.WantReply, r.Payload)
	if err == nil {
		_ = r.Reply(ok, payload)
	}
}

// place reads where the target is to listen.
func place(r *ssh.Request) (string, bool) {
	if r.Type == "tcpip-forward" || r.Type == "cancel-tcpip-forward" {
		var p forwardPayload
		if !parse(r.Payload, &p) {
			return "", false
		}
		return hostPort(p.Host, p.Port), true
	}
	var p textPayload
	return p.Text, parse(r.Payload, &p) && p.Text != ""
}

// listen has the target listen for the client, where that is allowed.
func (c *connection) listen(ctx context.Context, r *ssh.Request) {
	at, ok := place(r)
	if !ok {
		_ = r.Reply(false, nil)
		return
	}
	var against *core.Denial
	c.mu.Lock()
	full := len(c.listening) >= maxListening
	c.mu.Unlock()
	switch {
	case !reaches(c.settings.Listen, at):
		against = notAllowed("no-forward", "the target may not listen on "+line(at)+" for a client", "ask for it to be in ssh.listen of the target")
	case full:
		against = notAllowed("limit-forwards", "the connection has too many forwards", "cancel one")
	}
	x := &core.Exchange{Command: networkCommand(r.Type, "address", line(at), "listen")}
	if c.command(ctx, x, core.FromClient, globalMessage(r.Type, r.WantReply, r.Payload), nil, against) != nil {
		_ = r.Reply(false, nil)
		return
	}
	ok, answer, err := c.server.SendRequest(r.Type, true, r.Payload)
	if err != nil {
		return
	}
	if ok {
		c.mu.Lock()
		c.listening[at] = true
		if p := (forwardPayload{}); r.Type == "tcpip-forward" && parse(r.Payload, &p) && p.Port == 0 && len(answer) == 4 {
			delete(c.listening, at)
			c.listening[hostPort(p.Host, binary.BigEndian.Uint32(answer))] = true
		}
		c.mu.Unlock()
	}
	_ = r.Reply(ok, answer)
}

// unlisten ends that.
func (c *connection) unlisten(_ context.Context, r *ssh.Request) {
	at, ok := place(r)
	c.mu.Lock()
	ok = ok && c.listening[at]
	c.mu.Unlock()
	if !ok {
		_ = r.Reply(false, nil)
		return
	}
	ok, answer, err := c.server.SendRequest(r.Type, true, r.Payload)
	if err != nil {
		return
	}
	if ok {
		c.mu.Lock()
		delete(c.listening, at)
		c.mu.Unlock()
	}
	_ = r.Reply(ok, answer)
}
