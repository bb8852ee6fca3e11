package ssh

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// tty is a shell with a terminal, as a person or a program drives it.
type tty struct {
	t   *testing.T
	s   *ssh.Session
	in  io.Writer
	mu  sync.Mutex
	out bytes.Buffer
}

func (x *tty) Write(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.Write(p)
}

func (x *tty) said() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.out.String()
}

// wait waits until the terminal has shown a text so many times.
func (x *tty) wait(text string, times int) {
	x.t.Helper()
	for until := time.Now().Add(30 * time.Second); strings.Count(x.said(), text) < times; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			x.t.Fatalf("%q does not come: %q", text, x.said())
		}
	}
}

func (x *tty) send(text string) {
	x.t.Helper()
	if _, err := io.WriteString(x.in, text); err != nil {
		x.t.Fatal(err)
	}
}

// terminal begins a shell with a terminal, and a prompt that nobody else writes: asked for as a shell, or as a command.
func (g *testGate) terminal(t *testing.T, how string) *tty {
	t.Helper()
	s, err := g.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	x := &tty{t: t, s: s}
	s.Stdout, s.Stderr = x, x
	if x.in, err = s.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 200, nil); err != nil {
		t.Fatal(err)
	}
	const bash = "exec env -i PATH=$PATH TERM=xterm PS1='ready> ' bash --norc -i"
	if how == "exec" {
		err = s.Start(bash)
	} else if err = s.Shell(); err == nil {
		x.send(bash + "\r")
	}
	if err != nil {
		t.Fatal(err)
	}
	x.wait("\x1b[?2004hready> ", 1)
	return x
}

// TestUnseenInput: what is typed where the terminal does not show it is not in the record, whatever the question was. The control is the
// same answer to a question that shows it.
func TestUnseenInput(t *testing.T) {
	const canary = "zebra-canary"
	for name, c := range map[string]struct {
		command  string
		byKeys   bool // one after the other, as a person types
		recorded bool
	}{
		"sudo":                        {"read -s -p '[sudo] password for me: ' x", false, false},
		"a question of no known kind": {"read -s -p 'what? ' x", false, false},
		"key by key":                  {"read -s -p 'what? ' x", true, false},
		"echo off":                    {"stty -echo; printf 'what? '; read x; stty echo", false, false},
		"control":                     {"read -p 'what? ' x", false, true},
		"control, key by key":         {"read -p 'what? ' x", true, true},
	} {
		for _, how := range []string{"exec", "shell"} {
			t.Run(name+", "+how, func(t *testing.T) {
				t.Parallel()
				g := startGate(t)
				x := g.terminal(t, how)
				asks := "what? "
				if name == "sudo" {
					asks = "password for me: "
				}
				x.send(c.command + "\r")
				x.wait(asks, 2) // in the command, and then
				if c.byKeys {
					for _, k := range canary {
						x.send(string(k))
						time.Sleep(2 * time.Millisecond)
					}
					x.send("\r")
				} else {
					x.send(canary + "\r")
				}
				x.wait("\x1b[?2004hready> ", 2)
				x.send("echo length ${#x}\r")
				x.wait("length 12", 1)
				x.send("exit\r")
				_ = x.s.Wait()
				text := g.journal.text()
				if strings.Contains(text, canary) != c.recorded {
					t.Errorf("recorded: %v\n%s", !c.recorded, text)
				}
				if how == "shell" && strings.Contains(text, "did not show") == c.recorded && name != "sudo" {
					t.Errorf("the line itself:\n%s", text)
				}
				keys := g.journal.keys()
				want := c.command + "\r" + strings.Repeat("*", len(canary)) + "\recho length ${#x}\rexit\r"
				if c.recorded {
					want = strings.ReplaceAll(want, strings.Repeat("*", len(canary)), canary)
				}
				if !strings.HasSuffix(keys, want) {
					t.Errorf("keys %q, not %q", keys, want)
				}
			})
		}
	}
}

// keys is what the record says was typed.
func (m *memory) keys() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b strings.Builder
	for _, r := range m.records {
		if r.Kind == core.KindNotice && bytes.Contains(r.Facts, []byte(`"status":"typed"`)) && len(r.Wire) > dataHead {
			b.Write(r.Wire[dataHead:])
		}
	}
	return b.String()
}

// TestUnseenLineIsJudged: hiding a line from the record does not hide it from the rules.
func TestUnseenLineIsJudged(t *testing.T) {
	t.Parallel()
	for name, guarded := range map[string]bool{"guarded": true, "not guarded": false} {
		path := t.TempDir() + "/file"
		var options []option
		if guarded {
			options = append(options, withChain(deny("touch "+path)))
		}
		g := startGate(t, options...)
		x := g.terminal(t, "shell")
		x.send("exec env PS1='plain> ' dash -i\r") // without an editor of lines
		x.wait("plain> ", 2)
		x.send("stty -echo\r")
		x.wait("plain> ", 3)
		x.send("touch " + path + "\r")
		if guarded {
			x.wait("which the terminal does not show", 1)
		} else {
			x.wait("plain> ", 4)
		}
		x.send("stty echo\r")
		x.wait("plain> ", map[bool]int{true: 4, false: 5}[guarded])
		x.send("test -e " + path + " && echo it is'' there || echo it is'' not\r")
		x.wait(map[bool]string{true: "it is not", false: "it is there"}[guarded], 1)
		x.send("exit\r")
		_ = x.s.Wait()
		if text := g.journal.text(); strings.Contains(text, `"text":"touch `) || strings.Contains(text, "no-such-thing") != guarded {
			t.Errorf("%s: %s", name, text)
		}
	}
}

func TestStarred(t *testing.T) {
	for keys, want := range map[string]string{
		"ls\r": "**\r", "\x1b[A\x1bOP\x1b[1;5Dx\r": "\x1b[A\x1bOP\x1b[1;5D*\r", "é": "**", "\x03\x7f\t": "\x03\x7f\t", "": "", "\x1b\x1b[xy": "\x1b\x1b[x*", "\x1b12": "\x1b**",
	} {
		if got := string(starred([]byte(keys))); got != want {
			t.Errorf("%q: %q, not %q", keys, got, want)
		}
	}
}
