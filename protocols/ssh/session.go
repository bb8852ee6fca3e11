package ssh

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

const (
	statusRefused = 126 // what a shell says of what it may not run
	maxEnv        = 64  // variables of a session
	maxEnvText    = 32 << 10
	lateResult    = 250 * time.Millisecond
	eofDelay      = time.Second
)

// certificateCommand is a program of Weir's own: it makes a certificate for the public key on its standard input.
const certificateCommand = "weir-certificate"

// session carries a channel in which one program runs.
func (ch *channel) session(ctx context.Context, n ssh.NewChannel) {
	server, serverRequests, err := ch.c.server.OpenChannel("session", nil)
	if err != nil {
		rejectAs(n, err)
		return
	}
	client, clientRequests, err := n.Accept()
	if err != nil {
		_ = server.Close()
		return
	}
	ch.client, ch.server = client, server
	var sides sync.WaitGroup
	sides.Go(func() {
		defer ch.c.recovered()
		ch.fromServer(ctx, serverRequests)
	})
	ch.fromClient(ctx, clientRequests)
	ch.left.Store(true)
	if !ch.began {
		ch.nothing()
		close(ch.started)
	} else {
		<-ch.started
		select { // what it has sent before it closed still arrives
		case <-ch.fed:
		case <-ch.c.over:
		case <-time.After(flushTime):
		}
	}
	_ = server.Close()
	sides.Wait()
	ch.c.mu.Lock()
	delete(ch.c.live, ch)
	ch.c.mu.Unlock()
}

// fromClient answers the client's requests until it closes the channel (RFC 4254, 6).
func (ch *channel) fromClient(ctx context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		ch.c.touch()
		if ch.began && r.WantReply {
			<-ch.started // answers come in the order of the requests
		}
		switch r.Type {
		case "env":
			var p envPayload
			ok := parse(r.Payload, &p) && !ch.began && ch.c.settings.passesEnv(p.Name) && len(ch.env) < maxEnv && len(p.Name)+len(p.Value) <= maxEnvText
			if ok {
				if ch.env == nil {
					ch.env = map[string]string{}
				}
				ch.env[p.Name] = p.Value
			}
			ch.relay(ctx, r, ok, "env "+line(p.Name))
		case "pty-req":
			var p ptyPayload
			ok := parse(r.Payload, &p) && !ch.began && !ch.hasPTY && ch.c.settings.Mode != modeExecOnly
			if ch.relay(ctx, r, ok, fmt.Sprintf("terminal %s %dx%d", line(p.Term), p.Columns, p.Rows)) {
				ch.hasPTY, ch.typist = true, newTypist(ch, p.Columns)
			}
		case "window-change":
			var p windowPayload
			if ch.relay(ctx, r, parse(r.Payload, &p), fmt.Sprintf("window %dx%d", p.Columns, p.Rows)) && ch.typist != nil {
				ch.typist.resize(p.Columns)
			}
		case "signal":
			var p textPayload
			ch.relay(ctx, r, parse(r.Payload, &p), "signal "+line(p.Text))
		case "break":
			ch.relay(ctx, r, true, "break")
		case "eow@openssh.com", "keepalive@openssh.com":
			ok, err := ch.server.SendRequest(r.Type, r.WantReply, r.Payload)
			_ = r.Reply(ok && err == nil, nil)
		case "auth-agent-req@openssh.com":
			ch.permit(ctx, r, "agent", ch.c.settings.Agent, &ch.c.agent)
		case "x11-req":
			ch.permit(ctx, r, "x11", ch.c.settings.X11, &ch.c.x11)
		case "exec", "shell", "subsystem":
			if ch.began {
				_ = r.Reply(false, nil)
				continue
			}
			ch.began = true
			go func() { // it may wait for an approval, and the other requests need not
				defer ch.c.recovered()
				defer close(ch.started)
				ch.start(ctx, r)
			}()
		default:
			x := &core.Exchange{Command: unknownCommand("request", line(r.Type))}
			ch.c.command(ctx, x, core.FromClient, requestMessage(ch.number, r.Type, r.WantReply, r.Payload), nil,
				notAllowed("unknown-request", "Weir does not know requests of this type", ""))
			_ = r.Reply(false, nil)
		}
	}
}

// relay records a request, passes it on and answers it. A request that is not ok is refused.
func (ch *channel) relay(ctx context.Context, r *ssh.Request, ok bool, text string) bool {
	if ok {
		ok = ch.say(ctx, core.KindNotice, core.FromClient, &core.Result{Status: r.Type, Message: text}, requestMessage(ch.number, r.Type, r.WantReply, r.Payload)) == nil
	}
	if ok {
		answer, err := ch.server.SendRequest(r.Type, r.WantReply, r.Payload)
		ok = err == nil && (answer || !r.WantReply)
	}
	_ = r.Reply(ok, nil)
	return ok
}

// permit judges a request that lets the target open channels to the client.
func (ch *channel) permit(ctx context.Context, r *ssh.Request, action string, allowed bool, may interface{ Store(bool) }) {
	var against *core.Denial
	if !allowed {
		against = notAllowed("no-"+action, "forwarding of the client's "+map[string]string{"agent": "agent", "x11": "display"}[action]+" is not allowed", "ask for ssh."+action+" at the target")
	}
	x := &core.Exchange{Command: networkCommand(action, "", "", "")}
	if ch.c.command(ctx, x, core.FromClient, requestMessage(ch.number, r.Type, r.WantReply, hidden(r)), nil, against) != nil {
		_ = r.Reply(false, nil)
		return
	}
	may.Store(true)
	ok, err := ch.server.SendRequest(r.Type, r.WantReply, r.Payload)
	_ = r.Reply(ok && err == nil, nil)
}

// hidden is a request's payload without the cookie of a display, which is a secret.
func hidden(r *ssh.Request) []byte {
	if r.Type == "x11-req" {
		return nil
	}
	return r.Payload
}

// start judges what is to run, has it run, and carries what it says. It returns when the request is answered.
func (ch *channel) start(ctx context.Context, r *ssh.Request) {
	var p textPayload
	if r.Type != "shell" && !parse(r.Payload, &p) {
		_ = r.Reply(false, nil)
		ch.nothing()
		return
	}
	var against *core.Denial
	ch.request = r.Type
	own := r.Type == "exec" && p.Text == certificateCommand
	switch r.Type {
	case "exec":
		if own {
			ch.begin(&core.Command{Action: "certificate", Text: p.Text, Fingerprint: p.Text, Effects: []core.Effect{core.EffectSession}, Status: core.StatusKnown})
			break
		}
		ch.begin(execCommand(p.Text))
	case "shell":
		ch.begin(shellCommand())
		if ch.c.settings.Mode == modeExecOnly {
			against = notAllowed("exec-only", "this target takes commands only, no shell", "say the command: ssh … COMMAND")
		}
	case "subsystem":
		ch.begin(subsystemCommand(p.Text))
		if !slices.Contains(ch.c.settings.Subsystems, p.Text) {
			against = notAllowed("no-subsystem", "the subsystem "+line(p.Text)+" is not allowed", "ask for it to be in ssh.subsystems of the target")
		}
	}
	wire := requestMessage(ch.number, r.Type, r.WantReply, r.Payload)
	if d := ch.c.command(ctx, ch.in, core.FromClient, wire, ch, against); d != nil {
		_ = r.Reply(true, nil)
		ch.refuse(ctx, d)
		ch.nothing()
		return
	}
	ch.out.Limit, ch.out.Record = ch.in.Limit, ch.in.Record
	if own {
		_ = r.Reply(true, nil)
		ch.certificate(ctx)
		ch.nothing()
		return
	}
	if ok, err := ch.server.SendRequest(r.Type, true, r.Payload); !ok || err != nil {
		_ = r.Reply(false, nil)
		ch.result(ctx, &core.Result{Status: "error", Message: "the target did not start it"}, closeMessage(ch.number))
		ch.nothing()
		return
	}
	_ = r.Reply(true, nil)
	ch.c.mu.Lock()
	ch.c.live[ch] = struct{}{}
	ch.c.mu.Unlock()
	ch.carry(ctx)
}
