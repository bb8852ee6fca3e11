package ssh

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// opened deals with a channel that the client opens.
func (c *connection) opened(ctx context.Context, n ssh.NewChannel) {
	c.touch()
	ch := c.channel(n.ChannelType())
	var x *core.Command
	var against *core.Denial
	switch n.ChannelType() {
	case "session":
		if c.noMore.Load() {
			_ = n.Reject(ssh.Prohibited, "weir: no more sessions")
			return
		}
		ch.session(ctx, n)
		return
	case "direct-tcpip":
		var p directPayload
		if !parse(n.ExtraData(), &p) {
			_ = n.Reject(ssh.ConnectionFailed, "weir: malformed")
			return
		}
		to := hostPort(p.Host, p.Port)
		x = networkCommand("direct-tcpip", "address", line(to), "connect")
		if !reaches(c.settings.Forward, to) {
			against = notAllowed("no-forward", "a forward to "+line(to)+" is not allowed", "ask for it to be in ssh.forward of the target")
		}
	case "direct-streamlocal@openssh.com":
		var p socketPayload
		if !parse(n.ExtraData(), &p) {
			_ = n.Reject(ssh.ConnectionFailed, "weir: malformed")
			return
		}
		x = networkCommand("direct-streamlocal", "socket", line(p.Path), "connect")
		if !reaches(c.settings.Forward, p.Path) {
			against = notAllowed("no-forward", "a forward to "+line(p.Path)+" is not allowed", "ask for it to be in ssh.forward of the target")
		}
	default: // tun@openssh.com too
		x = unknownCommand("channel", line(n.ChannelType()))
		against = notAllowed("unknown-channel", "Weir does not know channels of this type", "")
	}
	ch.forward(ctx, n, c.server, core.FromClient, x, against)
}

// offered deals with a channel that the target opens, because the client has asked for what leads to it.
func (c *connection) offered(ctx context.Context, n ssh.NewChannel) {
	ch := c.channel(n.ChannelType())
	var x *core.Command
	var against *core.Denial
	unasked := notAllowed("not-asked-for", "the client has not asked for this", "")
	known := func(at string) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.listening[at]
	}
	switch n.ChannelType() {
	case "forwarded-tcpip":
		var p directPayload
		if !parse(n.ExtraData(), &p) {
			_ = n.Reject(ssh.ConnectionFailed, "malformed")
			return
		}
		x = networkCommand("forwarded-tcpip", "address", line(hostPort(p.Host, p.Port)), "accept")
		if !known(hostPort(p.Host, p.Port)) {
			against = unasked
		}
	case "forwarded-streamlocal@openssh.com":
		var p socketPayload
		if !parse(n.ExtraData(), &p) {
			_ = n.Reject(ssh.ConnectionFailed, "malformed")
			return
		}
		x = networkCommand("forwarded-streamlocal", "socket", line(p.Path), "accept")
		if !known(p.Path) {
			against = unasked
		}
	case "auth-agent@openssh.com":
		x = networkCommand("agent", "", "", "")
		if !c.agent.Load() {
			against = unasked
		}
	case "x11":
		x = networkCommand("x11", "", "", "")
		if !c.x11.Load() {
			against = unasked
		}
	default:
		x = unknownCommand("channel", line(n.ChannelType()))
		against = notAllowed("unknown-channel", "Weir does not know channels of this type", "")
	}
	ch.forward(ctx, n, c.client, core.FromUpstream, x, against)
}

// forward carries a channel that is two streams of bytes and nothing else. way is who opens it, and to is the other side.
func (ch *channel) forward(ctx context.Context, n ssh.NewChannel, to ssh.Conn, way core.Direction, x *core.Command, against *core.Denial) {
	c := ch.c
	ch.begin(x)
	wire := openMessage(ch.number, n.ChannelType(), n.ExtraData())
	if d := c.command(ctx, ch.in, way, wire, ch, against); d != nil {
		reason := ssh.Prohibited
		if d.Rule == "unknown-channel" {
			reason = ssh.UnknownChannelType
		}
		_ = n.Reject(reason, "weir: "+refused(d))
		return
	}
	ch.out.Limit, ch.out.Record = ch.in.Limit, ch.in.Record
	far, farRequests, err := to.OpenChannel(n.ChannelType(), n.ExtraData())
	if err != nil {
		rejectAs(n, err)
		ch.result(ctx, &core.Result{Status: "error", Message: "the other side did not open it"}, closeMessage(ch.number))
		return
	}
	near, nearRequests, err := n.Accept()
	if err != nil {
		go ssh.DiscardRequests(farRequests)
		_ = far.Close()
		return
	}
	up, down := &stream{ch: ch, from: near, to: far, way: way}, &stream{ch: ch, from: far, to: near, way: opposite(way)}
	var both sync.WaitGroup
	for _, s := range []*stream{up, down} {
		s.exchange, s.mu = ch.in, &ch.inMu
		if s.way == core.FromUpstream {
			s.exchange, s.mu = ch.out, &ch.outMu
		}
		to, requests := s.to.(ssh.Channel), nearRequests
		if s == down {
			requests = farRequests
		}
		ended := make(chan struct{})
		go func() { // who has closed the channel hears no more
			ssh.DiscardRequests(requests)
			<-ended
			_ = to.Close()
		}()
		s.from = &inner{Reader: s.from, found: func() {
			ch.innerOnce.Do(func() {
				_ = c.note(ctx, "warning", "channel carries another SSH connection, which cannot be read: "+x.Text)
			})
		}}
		both.Go(func() {
			defer close(ended)
			defer c.recovered()
			if s.run(ctx) != nil {
				_ = near.Close()
				_ = far.Close()
			}
			_ = to.CloseWrite()
		})
	}
	both.Wait()
	_ = near.Close()
	_ = far.Close()
	ch.result(ctx, &core.Result{Status: "ok", Tag: "closed"}, closeMessage(ch.number))
}

func opposite(d core.Direction) core.Direction {
	if d == core.FromClient {
		return core.FromUpstream
	}
	return core.FromClient
}

// rejectAs refuses a channel for the reason that the other side had.
func rejectAs(n ssh.NewChannel, err error) {
	var open *ssh.OpenChannelError
	if errors.As(err, &open) {
		_ = n.Reject(open.Reason, open.Message)
		return
	}
	_ = n.Reject(ssh.ConnectionFailed, "weir: the other side is gone")
}

// inner looks at the first bytes of a stream for those of an SSH connection.
type inner struct {
	Reader interface{ Read([]byte) (int, error) }
	read   bool
	found  func()
}

func (i *inner) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if n > 0 && !i.read {
		i.read = true
		if bytes.HasPrefix(p[:n], []byte("SSH-")) {
			i.found()
		}
	}
	return n, err
}
