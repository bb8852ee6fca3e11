package loopback

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"
)

// echo answers each line with the same line.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintln(c, lines.Text())
				}
			}()
		}
	}()
	return l.Addr().String()
}

type asker struct {
	net.Conn
	in *bufio.Reader
}

// ask sends a line, and returns what comes within the time.
func (a *asker) ask(line string, within time.Duration) (string, error) {
	if _, err := fmt.Fprintln(a, line); err != nil {
		return "", err
	}
	return a.hear(within)
}

func (a *asker) hear(within time.Duration) (string, error) {
	_ = a.SetReadDeadline(time.Now().Add(within))
	return a.in.ReadString('\n')
}

func dialLink(t *testing.T, k *Link) *asker {
	t.Helper()
	c, err := net.Dial("tcp", k.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &asker{c, bufio.NewReader(c)}
}

// TestLink: a cut link delivers nothing, in the ways that are cut; when it is healed, what a silent one held back arrives.
func TestLink(t *testing.T) {
	for _, how := range []Cut{CutSilently, CutThere, CutBack} {
		k, err := newLink("a", "b", echo(t))
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		a := dialLink(t, k)
		if got, err := a.ask("one", 5*time.Second); got != "one\n" {
			t.Fatalf("%v: before the cut: %q %v", how, got, err)
		}
		k.Cut(how)
		if got, err := a.ask("two", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: while it is cut: %q %v", how, got, err)
		}
		late := dialLink(t, k)
		if got, err := late.ask("three", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v: a new connection while it is cut: %q %v", how, got, err)
		}
		k.Heal()
		for _, c := range []struct {
			a    *asker
			want string
		}{{a, "two\n"}, {late, "three\n"}} {
			if got, err := c.a.hear(5 * time.Second); got != c.want {
				t.Errorf("%v: after it was healed: %q %v, want %q", how, got, err, c.want)
			}
		}
	}
}

// TestLinkReset: connections break at once, and none can be made until the link is healed.
func TestLinkReset(t *testing.T) {
	k, err := newLink("a", "b", echo(t))
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	a := dialLink(t, k)
	if got, err := a.ask("one", 5*time.Second); got != "one\n" {
		t.Fatalf("before the cut: %q %v", got, err)
	}
	k.Cut(CutReset)
	told := func(name string, c *asker) {
		if got, err := c.hear(5 * time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	told("an old connection", a)
	if c, err := net.Dial("tcp", k.Addr()); err == nil { // the reset may come before the dial is done, which tells as well
		defer c.Close()
		told("a new connection", &asker{c, bufio.NewReader(c)})
	}
	k.Heal()
	if got, err := dialLink(t, k).ask("two", 5*time.Second); got != "two\n" {
		t.Errorf("after it was healed: %q %v", got, err)
	}
}
