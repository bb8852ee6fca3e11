package ssh

import (
	"bytes"
	"context"
	"io"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// nothing says that no program runs, so that nobody waits for what it says.
func (ch *channel) nothing() {
	close(ch.delivered)
	close(ch.fed)
	close(ch.finished)
}

// carry starts the three streams of a program.
func (ch *channel) carry(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var out sync.WaitGroup
	var files *transfer
	if ch.request == "subsystem" && ch.in.Command.Text == subsystemCommand("sftp").Text {
		files = &transfer{ch: ch}
	}
	run := func(s *stream) {
		s.ch = ch
		if d := s.run(ctx); d != nil {
			ch.refuse(ctx, d)
		}
	}
	go func() {
		defer close(ch.fed)
		defer ch.c.recovered()
		in := &stream{from: ch.client, to: ch.server, way: core.FromClient, exchange: ch.in, mu: &ch.inMu, watch: ch.copied(ctx, core.FromClient)}
		if ch.request == "shell" && ch.hasPTY {
			in.next = (&keys{ch: ch}).next
		}
		if files != nil {
			in.packets = true
			in.next = func(s *stream, ctx context.Context) (piece, *core.Denial, error) { return files.fromClient(ctx, s) }
		}
		run(in)
		_ = ch.server.CloseWrite()
	}()
	for _, s := range []*stream{
		{from: ch.server, to: ch.client}, {from: ch.server.Stderr(), to: ch.client.Stderr(), extended: true},
	} {
		s.way, s.exchange, s.mu = core.FromUpstream, ch.out, &ch.outMu
		if !s.extended {
			s.watch = ch.copied(ctx, core.FromUpstream)
		}
		out.Go(func() {
			defer ch.c.recovered()
			if files != nil && !s.extended {
				s.to, s.packets = wholePackets{files}, true
				s.next = func(s *stream, ctx context.Context) (piece, *core.Denial, error) { return files.fromServer(ctx, s) }
			} else if ch.c.session.Judges(core.KindBytes) {
				g := gather(s.from)
				defer g.stop()
				s.from = g
			}
			run(s)
		})
	}
	var timer *time.Timer
	if limit := ch.timeLimit(); limit > 0 {
		timer = time.AfterFunc(limit, func() {
			defer ch.c.recovered()
			ch.refuse(ctx, notAllowed("limit-time", "it takes longer than "+limit.String(), ""))
		})
	}
	go func() {
		defer ch.c.recovered()
		out.Wait()
		if timer != nil {
			timer.Stop()
		}
		close(ch.delivered)
		ch.untilTold()
		ch.endOutput()
		close(ch.finished)
		<-ch.fed
		if files != nil {
			files.end(ctx)
		}
		if ch.typist != nil {
			ch.typist.end(ctx)
		}
		cancel()
	}()
}

// untilTold waits until the client may learn that there is no more output. One that has nothing more to say either closes the
// channel then, which ends it (x/crypto answers at once), and would never learn how the program ended. One that still feeds the program
// may wait for the end of its output before it stops.
func (ch *channel) untilTold() {
	t := time.NewTimer(eofDelay)
	defer t.Stop()
	for {
		select {
		case <-ch.told:
			return
		case <-ch.c.over:
			return
		case <-t.C:
			select {
			case <-ch.fed: // or nearly so: it waits for nothing of ours
			default:
				return
			}
		}
	}
}

// timeLimit bounds how long the program may run: what a rule says, and for one that nobody types into what the target says.
func (ch *channel) timeLimit() time.Duration {
	limit := ch.in.Limit
	if ch.request == "exec" && !ch.hasPTY {
		limit = limit.Merge(core.Limit{Time: ch.c.session.Target.Limits.StatementTimeout})
	}
	return limit.Time
}

// refuse tells the client that a rule ended what it asked for, and ends it.
func (ch *channel) refuse(ctx context.Context, d *core.Denial) {
	hangUp := func() {
		if ch.last.TryLock() { // else something of ours waits for the client to read, and ends with the channel
			_ = ch.client.CloseWrite()
			ch.last.Unlock()
		}
		_ = ch.server.Close()
		_ = ch.client.Close()
	}
	stop := time.AfterFunc(flushTime, hangUp) // a client that reads nothing is not told
	ch.ended.Do(func() {
		text := refused(d)
		ch.tell(ctx, text)
		wire := requestMessage(ch.number, "exit-status", false, ssh.Marshal(exitPayload{statusRefused}))
		if ch.say(ctx, core.KindResult, core.FromGateway, &core.Result{Status: "error", Code: strconv.Itoa(statusRefused), Message: text}, wire) == nil {
			_, _ = ch.client.SendRequest("exit-status", false, ssh.Marshal(exitPayload{statusRefused}))
		}
	})
	stop.Stop()
	hangUp()
}

// fromServer passes on the target's requests, and closes the client's side once the target has closed its own.
func (ch *channel) fromServer(ctx context.Context, requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "exit-status", "exit-signal":
			ch.exit(ctx, r)
		case "eow@openssh.com", "keepalive@openssh.com", "xon-xoff":
			ok, err := ch.client.SendRequest(r.Type, r.WantReply, r.Payload)
			_ = r.Reply(ok && err == nil, nil)
		default:
			_ = r.Reply(false, nil)
		}
	}
	ch.telling.Do(func() { close(ch.told) })
	if ch.wasAsked() && ch.out != nil {
		select {
		case <-ch.finished:
		case <-ch.c.over:
		}
		ch.result(ctx, &core.Result{Status: "ok", Tag: "closed"}, closeMessage(ch.number))
	}
	_ = ch.client.Close()
}

// wasAsked waits until it is known whether a program runs here.
func (ch *channel) wasAsked() bool {
	select {
	case <-ch.started:
		return true
	case <-ch.c.over:
		return false
	case <-ch.delivered:
		return true
	case <-time.After(flushTime): // nothing was asked for, or it waits for an approval that nobody needs any more
		return false
	}
}

// exit passes on how the program ended: after what it has said, as far as that does not take long.
func (ch *channel) exit(ctx context.Context, r *ssh.Request) {
	t := time.NewTimer(lateResult)
	defer t.Stop()
	select {
	case <-ch.delivered:
	case <-t.C:
	}
	result := &core.Result{Status: "error"}
	payload := r.Payload
	var status exitPayload
	var signal signalPayload
	switch {
	case r.Type == "exit-status" && parse(payload, &status):
		if result.Code = strconv.FormatUint(uint64(status.Status), 10); status.Status == 0 {
			result.Status, result.Tag, result.Code = "ok", "exit 0", ""
		}
	case r.Type == "exit-signal" && parse(payload, &signal):
		result.Code = line(signal.Signal)
		signal.Message = "" // it may say anything, and nobody needs it
		payload = ssh.Marshal(signal)
	default:
		return
	}
	ch.ended.Do(func() {
		if ch.say(ctx, core.KindResult, core.FromUpstream, result, requestMessage(ch.number, r.Type, false, payload)) == nil {
			_, _ = ch.client.SendRequest(r.Type, false, payload)
		}
	})
	ch.telling.Do(func() { close(ch.told) })
}

// certificate makes a certificate for the key that the client sends.
func (ch *channel) certificate(ctx context.Context) {
	answer, status := "", uint32(0)
	b, err := io.ReadAll(io.LimitReader(ch.client, maxPublicKey))
	if err == nil {
		var key ssh.PublicKey
		if key, _, _, _, err = ssh.ParseAuthorizedKey(bytes.TrimSpace(b)); err == nil {
			var c *ssh.Certificate
			if c, err = ch.c.own.issue(key, &ch.c.session.Identity, ch.c.token, time.Now()); err == nil {
				answer = string(ssh.MarshalAuthorizedKey(c))
			}
		}
	}
	result := &core.Result{Status: "ok", Tag: "certificate made"}
	if err != nil {
		status = 1
		result = &core.Result{Status: "error", Code: "1", Message: "no certificate was made"}
		ch.tell(ctx, "no certificate: send a public key in one line, such as ~/.ssh/id_ed25519.pub, on the standard input: "+err.Error())
	}
	ch.ended.Do(func() {
		if ch.say(ctx, core.KindResult, core.FromGateway, result, dataMessage(ch.number, false, []byte(answer))) != nil {
			return
		}
		_, _ = io.WriteString(ch.client, answer)
		_, _ = ch.client.SendRequest("exit-status", false, ssh.Marshal(exitPayload{status}))
	})
	ch.endOutput()
	_ = ch.server.Close()
	_ = ch.client.Close()
}
