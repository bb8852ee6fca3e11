package ssh

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

func TestSessionExec(t *testing.T) {
	g := startGate(t)
	c := g.client()
	out, stderr, err := g.run(c, "cat; echo oops >&2; exit 3", "fed\n")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 3 || out != "fed\n" || stderr != "oops\n" {
		t.Fatalf("%q %q %v", out, stderr, err)
	}
	if got := g.journal.said(core.FromUpstream, false); got != "fed\n" {
		t.Errorf("recorded %q", got)
	}
	if got := g.journal.said(core.FromUpstream, true); got != "oops\n" {
		t.Errorf("recorded stderr %q", got)
	}
	if got := g.journal.said(core.FromClient, false); got != "fed\n" {
		t.Errorf("recorded stdin %q", got)
	}
	for _, want := range []string{`"action":"cat","text":"cat; echo oops \u003e\u00262; exit 3"`, `"result":{"status":"error","code":"3"}`} {
		if !strings.Contains(g.journal.text(), want) {
			t.Errorf("the record has no %s:\n%s", want, g.journal.text())
		}
	}
	_ = c.Close()
	if ends := g.journal.ended(t, 1); ends[0] != core.EndClosed {
		t.Error(ends)
	}
}

func TestSessionSignal(t *testing.T) {
	g := startGate(t)
	_, _, err := g.run(g.client(), "kill -TERM $$", "")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Fatal(err)
	}
	s, err := g.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = in.Close()
	err = s.Wait() // sshd signals no session of root's own, and says so
	if log := server.Log(); !errors.As(err, &exit) && !strings.Contains(log, "signalling") {
		t.Fatal(err, log)
	}
	if !strings.Contains(g.journal.text(), `"message":"signal INT"`) {
		t.Error("the record has no signal")
	}
}

func TestSessionRefused(t *testing.T) {
	g := startGate(t, withChain(deny("rm ")))
	c := g.client()
	for range 2 {
		out, stderr, err := g.run(c, "rm -rf /nowhere; echo done", "")
		var exit *ssh.ExitError
		if !errors.As(err, &exit) || exit.ExitStatus() != 126 || out != "" {
			t.Fatalf("%q %v", out, err)
		}
		if want := "weir: refused by Weir: the test says so (rule no-such-thing); hint: do something else\n"; stderr != want {
			t.Fatalf("%q", stderr)
		}
	}
	if out, _, err := g.run(c, "echo still here", ""); err != nil || out != "still here\n" {
		t.Fatal(out, err)
	}
}

func TestSessionShell(t *testing.T) {
	g := startGate(t)
	s, err := g.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	var out strings.Builder
	s.Stdout = &out
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	if err := s.WindowChange(50, 132); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("stty size; exit 7\n")); err != nil {
		t.Fatal(err)
	}
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 7 || !strings.Contains(out.String(), "50 132") {
		t.Fatalf("%v %q", err, out.String())
	}
	for _, want := range []string{`"message":"terminal xterm 80x24"`, `"message":"window 132x50"`, `"action":"shell"`} {
		if !strings.Contains(g.journal.text(), want) {
			t.Errorf("the record has no %s", want)
		}
	}
}

func TestExecOnly(t *testing.T) {
	for mode, wall := range map[string]bool{modeAll: false, modeExecOnly: true} {
		t.Run(mode, func(t *testing.T) {
			g := startGate(t, with(func(s *settings) { s.Mode = mode }))
			c := g.client()
			s, err := c.NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.RequestPty("xterm", 24, 80, nil); (err != nil) != wall {
				t.Error("pty:", err)
			}
			s.Stdin = strings.NewReader("exit 0\n")
			err = s.Shell()
			if err == nil {
				err = s.Wait()
			}
			if (err != nil) != wall {
				t.Error("shell:", err)
			}
			if out, _, err := g.run(c, "echo ok", ""); err != nil || out != "ok\n" {
				t.Error(out, err)
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	g := startGate(t)
	s, err := g.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("LC_WEIR", "passes"); err != nil {
		t.Error(err)
	}
	if err := s.Setenv("LD_PRELOAD", "/tmp/evil.so"); err == nil {
		t.Error("LD_PRELOAD passes")
	}
	out, err := s.Output("echo $LC_WEIR-$LD_PRELOAD")
	if err != nil || string(out) != "passes-\n" {
		t.Fatalf("%q %v", out, err)
	}
}

func TestPasswordsAreNotRecorded(t *testing.T) {
	g := startGate(t)
	s, err := g.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start(`printf '[sudo] password for root: '; read p; read q; echo "got $p $q"`); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if _, err := out.Read(b); err != nil {
		t.Fatal(err)
	}
	_, _ = in.Write([]byte("hunter2-can"))
	_, _ = in.Write([]byte("ary\nplain\n"))
	n, _ := out.Read(b)
	if got := string(b[:n]); got != "got hunter2-canary plain\n" {
		t.Fatalf("%q", got)
	}
	if said := g.journal.said(core.FromClient, false); said != strings.Repeat("*", len("hunter2-canary"))+"\nplain\n" {
		t.Errorf("recorded %q", said)
	}
}

// TestTypedLines: lines of a shell are judged before their end is sent, as far as they can be told; and how far that is.
func TestTypedLines(t *testing.T) {
	for name, c := range map[string]struct {
		typed string
		ran   bool
	}{
		"refused":                {"touch FILE\n", false},
		"typed with corrections": {"toucx\x7fh FILX\x7fE\n", false},
		"with a word too many":   {"touch no\x17FILE\n", false},
		"not refused":            {"touch  FILE\n", true},
		"hidden from the keys":   {"F=FILE; touch $F\n", true}, // best effort
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := t.TempDir() + "/file"
			g := startGate(t, withChain(deny("touch "+path)))
			s, err := g.client().NewSession()
			if err != nil {
				t.Fatal(err)
			}
			if err := s.RequestPty("xterm", 24, 200, nil); err != nil {
				t.Fatal(err)
			}
			in, _ := s.StdinPipe()
			var stderr strings.Builder
			s.Stderr = &stderr
			if err := s.Shell(); err != nil {
				t.Fatal(err)
			}
			typed := strings.ReplaceAll(strings.ReplaceAll(c.typed, "FILE", path), "FILX\x7fE", path)
			_, _ = in.Write([]byte(typed))
			time.Sleep(100 * time.Millisecond)
			_, _ = in.Write([]byte("exit\n"))
			_ = s.Wait()
			if _, err := os.Stat(path); (err == nil) != c.ran {
				t.Errorf("%v\n%s", err, g.journal.text())
			}
			if strings.Contains(stderr.String(), "the test says so") == c.ran {
				t.Errorf("it was told %q", stderr.String())
			}
			if !strings.Contains(g.journal.text(), `"stage":"typed"`) {
				t.Error("no line is in the record")
			}
		})
	}
}

func TestKeys(t *testing.T) {
	for typed, want := range map[string]string{
		"ls -l\r":                        "ls -l",
		"abc\x15ls\r":                    "ls",
		"abc\x03ls\r":                    "ls",
		"a\xc3\xa9\x7fb\r":               "ab",
		"\x7f\x7fls\r":                   "ls",
		"\x1b[A\r":                       " unsure",
		"\x1b[1;5Dls\r":                  "ls unsure",
		"l\t\r":                          "l unsure",
		"one two  \x17three\r":           "one three",
		"\xff\xfels\r":                   "?ls",
		strings.Repeat("x", 5000) + "\r": strings.Repeat("x", maxLine) + " unsure",
	} {
		k := &keys{ch: &channel{}}
		text, whole := k.typed([]byte(typed))
		if k.unsure {
			text += " unsure"
		}
		if !whole || text != want {
			t.Errorf("%q: %q", typed, text)
		}
	}
	ch := &channel{}
	k := &keys{ch: ch}
	ch.prompts.said([]byte("\x1b[?1049h"))
	if _, whole := k.typed([]byte("dd\r")); whole {
		t.Error("an editor's keys are a line")
	}
	ch.prompts.said([]byte("\x1b[?1049l$ "))
	if _, whole := k.typed([]byte("ls\r")); !whole {
		t.Error("there are no lines after an editor")
	}
}
