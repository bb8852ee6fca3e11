package ssh

import (
	"context"
	"errors"
	"slices"

	"github.com/weir-gateway/weir/core"
)

var _ core.Waiter = (*channel)(nil)

// Said implements core.Waiter: the command, who it runs as, and what else the client has chosen for it.
func (ch *channel) Said() []string {
	if ch.in == nil || ch.in.Command.Secret {
		return nil
	}
	said := []string{ch.in.Command.Action + " " + ch.in.Command.Text}
	if ch.c.login != "" {
		said = append(said, "login "+ch.c.login)
	}
	for name, value := range ch.env {
		said = append(said, "env "+name+"="+value)
	}
	slices.Sort(said[1:])
	return said
}

// Notice implements core.Waiter: a line on the standard error of whoever waits.
func (ch *channel) Notice(text string) []byte {
	if ch.client == nil {
		return nil
	}
	end := "\n"
	if ch.hasPTY {
		end = "\r\n"
	}
	return dataMessage(ch.number, true, []byte("weir: "+line(text)+end))
}

// Tell implements core.Waiter. A client that reads nothing does not keep its command from being looked after.
func (ch *channel) Tell(ctx context.Context, notice []byte) error {
	done := make(chan error, 1)
	go func() {
		_, err := ch.client.Stderr().Write(notice[extendedHead:])
		done <- err
	}()
	ctx, cancel := context.WithTimeout(ctx, flushTime)
	defer cancel()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return errors.New("ssh: the client reads nothing")
	}
}

// Gone implements core.Waiter.
func (ch *channel) Gone() string {
	select {
	case <-ch.c.over:
		return "the session has ended"
	default:
	}
	if ch.left.Load() {
		return "the client hung up"
	}
	return ""
}
