package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// inviting is a gate at which a person can sign in at a page. Who that is a token says, when wait gives one.
type inviting struct {
	*testGate
	until   time.Duration
	wait    func(ctx context.Context) (string, error)
	invites atomic.Int32
}

func (*inviting) Invites() bool { return true }

func (i *inviting) Invite(context.Context) (*core.Invitation, error) {
	if i.invites.Add(1) > 5 {
		return nil, &core.Denial{Rule: "limit-invitations", Reason: "too many sign-ins wait already"}
	}
	return &core.Invitation{Page: "https://idp.example/\x1b]0;device", Code: "AB-CD", Until: time.Now().Add(i.until), Token: i.wait}, nil
}

// serveAs serves one more address, with another gate than g.
func serveAs(t *testing.T, g *testGate, as core.Gate) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { _ = l.Close(); cancel() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _ = g.handler.Serve(ctx, conn, as) }()
		}
	}()
	return l.Addr().String()
}

// TestInvited: how a sign-in at a page can end.
func TestInvited(t *testing.T) {
	late := fmt.Errorf("%w: nobody signed in at corp in time", core.ErrUnauthenticated)
	good := func(context.Context) (string, error) { return token, nil }
	for name, c := range map[string]struct {
		user     string
		until    time.Duration
		wait     func(ctx context.Context) (string, error)
		hesitate time.Duration // of the person, before Enter
		want     string        // in the banner; empty: the client is in
		asked    int           // how often somebody was invited, at most
	}{
		"signed in":           {"web", time.Minute, good, 0, "", 1},
		"expired":             {"web", time.Minute, func(context.Context) (string, error) { return "", late }, 0, "nobody signed in at corp in time", 3},
		"no answer in time":   {"web", 200 * time.Millisecond, good, 500 * time.Millisecond, "", 1},
		"another's token":     {"web", time.Minute, func(context.Context) (string, error) { return "not-ours", nil }, 0, "no token of ours", 3},
		"no such target":      {"nowhere", time.Minute, good, 0, `no target "nowhere" here`, 0},
		"with a code in hand": {"web", time.Minute, func(context.Context) (string, error) { return "", errors.New("secret-detail") }, 0, "the connection cannot be opened", 3},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t)
			i := &inviting{testGate: g, until: c.until, wait: c.wait}
			addr := serveAs(t, g, i)
			banner := ""
			client, err := ssh.Dial("tcp", addr, &ssh.ClientConfig{
				User: c.user, HostKeyCallback: ssh.FixedHostKey(g.hostKey()), Timeout: 30 * time.Second,
				BannerCallback: func(text string) error { banner += text; return nil },
				Auth: []ssh.AuthMethod{ssh.RetryableAuthMethod(ssh.KeyboardInteractive(func(_, instruction string, q []string, _ []bool) ([]string, error) {
					if len(q) == 1 && strings.HasPrefix(q[0], "Press Enter") {
						if strings.ContainsAny(instruction, "\x1b") || !strings.Contains(instruction, "AB-CD") {
							t.Errorf("%q", instruction)
						}
						time.Sleep(c.hesitate)
					}
					return make([]string, len(q)), nil
				}), 5)},
			})
			if err == nil {
				_ = client.Close()
			}
			switch in := c.want == "" && c.hesitate == 0; {
			case (err == nil) != in:
				t.Errorf("in: %v %q", err, banner)
			case !strings.Contains(banner, c.want) || strings.Contains(banner, "secret-detail"):
				t.Errorf("told %q", banner)
			case int(i.invites.Load()) > c.asked:
				t.Errorf("invited %d times", i.invites.Load())
			}
		})
	}
}

// TestInvitedAndGone: a client that hangs up is not waited for.
func TestInvitedAndGone(t *testing.T) {
	t.Parallel()
	g := startGate(t)
	waiting, over := make(chan struct{}), make(chan struct{})
	i := &inviting{testGate: g, until: time.Minute, wait: func(ctx context.Context) (string, error) {
		close(waiting)
		<-ctx.Done()
		close(over)
		return "", ctx.Err()
	}}
	addr := serveAs(t, g, i)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _, _, _ = ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
			User: "web", HostKeyCallback: ssh.FixedHostKey(g.hostKey()),
			Auth: []ssh.AuthMethod{ssh.KeyboardInteractive(func(_, _ string, q []string, _ []bool) ([]string, error) { return make([]string, len(q)), nil })},
		})
	}()
	for _, step := range []struct {
		what string
		ch   chan struct{}
	}{{"it waits", waiting}, {"it ends", over}} {
		select {
		case <-step.ch:
		case <-time.After(30 * time.Second):
			t.Fatal("never: " + step.what)
		}
		_ = conn.Close()
	}
}
