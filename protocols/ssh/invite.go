package ssh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// askFor asks one question, the answer to which is not shown.
func askFor(ask ssh.KeyboardInteractiveChallenge, instruction, prompt string) (string, error) {
	answers, err := ask("", instruction, []string{prompt}, []bool{false})
	if err != nil || len(answers) != 1 {
		return "", errors.New("ssh: no answer came")
	}
	return answers[0], nil
}

// invite signs a person in at a page: it says which, and with which code, and waits until that has been done. Each time costs what a token
// costs, so a connection has as many of both as it has tokens.
func (s *signIn) invite(ctx context.Context, m ssh.ConnMetadata, inviter core.Inviter, ask ssh.KeyboardInteractiveChallenge) error {
	if s.shown >= maxTokens {
		return s.enter(ctx, m, "", nil) // which hangs up
	}
	if _, _, err := choose(s.gate, m.User()); err != nil { // nobody is sent to a page for nothing
		return s.failed(err)
	}
	token, err := s.invited(ctx, m, inviter, ask)
	if err != nil {
		s.shown++
		return s.failed(err)
	}
	return s.enter(ctx, m, token, map[string]string{"method": "device"})
}

func (s *signIn) invited(ctx context.Context, m ssh.ConnMetadata, inviter core.Inviter, ask ssh.KeyboardInteractiveChallenge) (string, error) {
	x, err := inviter.Invite(ctx)
	if err != nil {
		return "", err
	}
	if err := s.conn.SetDeadline(x.Until); err != nil {
		return "", err
	}
	defer func() {
		if ctx.Err() == nil {
			_ = s.conn.SetDeadline(time.Now().Add(s.handler.signIn))
		}
	}()
	text := fmt.Sprintf("To reach %s from %s, open %s and enter the code %s\n", line(m.User()), line(m.RemoteAddr().String()), line(x.Page), line(x.Code))
	if x.Whole != "" {
		text += fmt.Sprintf("or open %s and compare the code.\n", line(x.Whole))
	}
	text += "Whoever enters it signs this connection in: never enter a code that somebody has sent you.\n"
	if _, err := askFor(ask, text, "Press Enter when you have signed in: "); err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // nothing is said while the provider is asked, but x/crypto reads
		select {
		case <-s.gone:
			cancel()
		case <-ctx.Done():
		}
	}()
	return x.Token(ctx)
}
