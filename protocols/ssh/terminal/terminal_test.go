package terminal

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// sequencesOfHarm are what a target may send to drive the terminal of whoever reads a recording (SH-07).
var sequencesOfHarm = []struct{ name, sent, read string }{
	{"plain", "hello\r\n", "hello\n"},
	{"no end", "hello", "hello\n"},
	{"colours", "\x1b[1;31mred\x1b[0m\r\n", "red\n"},
	{"clipboard", "a\x1b]52;c;cm0gLXJmIC8=\x07b\r\n", "ab\n"},
	{"clipboard with ST", "a\x1b]52;c;cm0gLXJmIC8=\x1b\\b\r\n", "ab\n"},
	{"link", "\x1b]8;;http://evil.example\x1b\\text\x1b]8;;\x1b\\\r\n", "text\n"},
	{"title", "\x1b]0;title\x07x\r\n", "x\n"},
	{"answerback", "\x05x\r\n", "x\n"},
	{"question of state", "\x1b[6n\x1b[c\x1b[>q\x1b[21tx\r\n", "x\n"},
	{"device string", "\x1bP$q\"p\x1b\\x\r\n", "x\n"},
	{"device string of a picture", "\x1bPq#0;2;0;0;0~~\x1b\\x\r\n", "x\n"},
	{"application command", "\x1b_Gf=100;AAAA\x1b\\x\r\n", "x\n"},
	{"eight bits in UTF-8", "\u009b31mx\u009d52;c;AAAA\u009cy\r\n", "xy\n"},
	{"eight bits as they are", "\x9b31mx\x9d52;c;AA\x07y\r\n", "\uFFFD31mx\uFFFD52;c;AAy\n"},
	{"overlong escape", "\xc0\x9b]52;c;AA\x07x\r\n", "\uFFFD\uFFFD]52;c;AAx\n"},
	{"overlong slash", "\xe0\x80\xafx\r\n", "\uFFFD\uFFFD\uFFFDx\n"},
	{"cut character", "\xe2\x82\r\n", "\uFFFD\n"},
	{"overwritten", "rm -rf /\rls      \r\n", "ls\n"},
	{"erased", "rm -rf /\x1b[2K\rls\r\n", "ls\n"},
	{"backspaces", "rm\b \b\b \bls\r\n", "ls\n"},
	{"erased to the left", "abc\x1b[1Kd\r\n", "   d\n"},
	{"characters taken out", "abcd\b\b\b\x1b[1P\r\n", "acd\n"},
	{"characters put in", "acd\b\b\x1b[1@b\r\n", "abcd\n"},
	{"alternate screen", "a\r\n\x1b[?1049hsecret of vim\x1b[?1049lb\r\n", "a\n[a program has the whole screen]\nb\n"},
	{"old alternate screen", "\x1b[?47hx\x1b[?47lb\r\n", "[a program has the whole screen]\nb\n"},
	{"bracketed paste", "\x1b[?2004h$ \x1b[?2004lx\r\n", "$ x\n"},
	{"cleared screen", "a\x1b[2J\x1b[Hb\r\n", "a\nb\n"},
	{"open text", "a\x1b]0;never\r\nended", "a\n"},
	{"open text and cancel", "a\x1b]0;t\x18b\r\n", "ab\n"},
	{"escape in text", "\x1b]0;t\x1b[31mx\r\n", "x\n"},
	{"numbers without end", "\x1b[" + strings.Repeat("9", 10000) + "Cx", strings.Repeat(" ", MaxLine) + "\n"},
	{"parameters without end", "\x1b[" + strings.Repeat("1;", 10000) + "mx\r\n", "x\n"},
	{"direction", "a\u202eb\r\n", `a\u202eb` + "\n"},
	{"nothing to see", "a\u200b\U000e0041b\r\n", `a\u200b\U000e0041b` + "\n"},
	{"NUL and DEL", "a\x00\x7fb\r\n", "ab\n"},
	{"tabs", "a\tb\r\n", "a       b\n"},
	{"reset", "a\x1bcb\r\n", "a\nb\n"},
	{"character set", "\x1b(0x\x1b(B\r\n", "x\n"},
}

func TestTranscriptIsSafe(t *testing.T) {
	t.Parallel()
	harm := 0
	for _, c := range sequencesOfHarm {
		got := Text([]byte(c.sent))
		if want := strings.TrimRight(c.read, " \n"); strings.TrimRight(got, " \n") != want {
			t.Errorf("%s: %q, not %q", c.name, got, want)
		}
		harmless(t, c.name, got)
		if strings.ContainsFunc(c.sent, func(r rune) bool { return dangerous(r) && r != '\r' }) || !utf8.ValidString(c.sent) {
			harm++ // the control: as it was sent, it would have driven a terminal
		}
		var b strings.Builder
		one := NewTranscript(&b, 0)
		for i := range len(c.sent) { // pieces may end anywhere
			_, _ = one.Write([]byte(c.sent)[i : i+1])
		}
		_ = one.Close()
		if b.String() != got {
			t.Errorf("%s: byte by byte %q, at once %q", c.name, b.String(), got)
		}
	}
	if harm < 30 {
		t.Errorf("only %d rows hold anything that drives a terminal", harm)
	}
}

func harmless(t *testing.T, name, text string) {
	t.Helper()
	if strings.ContainsFunc(text, dangerous) || !utf8.ValidString(text) {
		t.Errorf("%s: %q drives a terminal", name, text)
	}
}

// talk plays keys and what comes back. A piece that begins with > is sent, others come.
func talk(columns int, pieces ...string) (lines []string, sure []bool, keys string) {
	w := NewTyped(columns)
	w.Line = func(text string, s bool) { lines, sure = append(lines, text), append(sure, s) }
	w.Keys = func(b []byte) { keys += string(b) }
	for _, p := range pieces {
		if k, ok := strings.CutPrefix(p, ">"); ok {
			w.Input([]byte(k))
		} else {
			w.Output([]byte(p))
		}
	}
	w.Close()
	return lines, sure, keys
}

func TestTyped(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		pieces []string
		lines  []string
		keys   string
	}{
		{"a line", []string{"$ ", ">ls\r", "ls\r\n"}, []string{"ls"}, "ls\r"},
		{"key by key", []string{"$ ", ">l", "l", ">s", "s", ">\r", "\r\n", "$ "}, []string{"ls"}, "ls\r"},
		{"two lines", []string{"$ ", ">a\r", "a\r\nout\r\n$ ", ">b\r", "b\r\n"}, []string{"a", "b"}, "a\rb\r"},
		{"typed ahead", []string{"$ ", ">a\rb\r", "a\r\nout\r\n$ ", "b\r\n$ "}, []string{"a", "b"}, "a\rb\r"},
		{"backspace", []string{"$ ", ">lx\x7fs\r", "lx\b \bs\r\n"}, []string{"ls"}, "lx\x7fs\r"},
		{"word erased", []string{"$ ", ">rm x\x17y\r", "rm x\b\x1b[Ky\r\n"}, []string{"rm y"}, "rm x\x17y\r"},
		{"line erased", []string{"$ ", ">rm\x15ls\r", "rm\b\b\x1b[Kls\r\n"}, []string{"ls"}, "rm\x15ls\r"},
		{"given up", []string{"$ ", ">rm", "rm", ">\x03", "^C\r\n$ ", ">ls\r", "ls\r\n"}, []string{"ls"}, "rm\x03ls\r"},
		{"history", []string{"$ ", ">\x1b[A", "rm -rf x", ">\r", "\r\n"}, nil, "\x1b[A\r"},
		{"history and a key", []string{"$ ", ">\x1b[A", "rm -rf x", ">y\r", "y\r\n"}, []string{"rm -rf xy"}, "\x1b[Ay\r"},
		{"completion", []string{"$ ", ">ca\t", "cat", ">x\r", " x\r\n"}, []string{"cat x"}, "ca\tx\r"},
		{"password", []string{"Password: ", ">hunter2\r", "\r\n"}, nil, "*******\r"},
		{"password with stars", []string{"Password: ", ">hunter2\r", "*******\r\n"}, nil, "*******\r"},
		{"sudo", []string{"[sudo] password for me: ", ">hunter2\r", "\r\nok\r\n"}, nil, "*******\r"},
		{"passphrase", []string{"Enter passphrase for key '/x/id': ", ">hunter2\r", "\r\n"}, nil, "*******\r"},
		{"token", []string{"Token: ", ">hunter2\r", "\r\n"}, nil, "*******\r"},
		{"password typed before it is asked for", []string{">hunter2\r", "Password: ", "\r\n"}, nil, "*******\r"},
		{"password without a prompt", []string{"? ", ">hunter2\r", "\r\n"}, nil, "*******\r"},
		{"question whose answer has no echo at all", []string{"? ", ">hunter2\r", "$ ", ">ls\r", "ls\r\n"}, []string{"ls"}, "*******\rls\r"},
		{"password whose answer has no echo at all", []string{"Password: ", ">hunter2\r", "me> ", ">ls\r", "ls\r\n"}, []string{"ls"}, "*******\rls\r"},
		{"password never answered", []string{"Password: ", ">hun"}, nil, "***"},
		{"prompt that says password and shows", []string{"password: ", ">rm -rf /\r", "rm -rf /\r\n"}, []string{"rm -rf /"}, "********\r"},
		{"line that has password in it", []string{"$ ", ">a # password: ", "a # password: ", ">x\r", "x\r\n"}, []string{"a # password: x"}, "a # password: x\r"},
		{"whole screen", []string{"\x1b[?1049h", ">:!sh\r", ":!sh\r\n", "\x1b[?1049l$ ", ">ls\r", "ls\r\n"}, []string{"ls"}, ":!sh\rls\r"},
		{"cursor jumps", []string{"$ ", ">a", "a\x1b[5;5H", ">b\r", "b\r\n"}, nil, "ab\r"},
		{"not ASCII", []string{"$ ", ">é\r", "é\r\n"}, []string{"é"}, "é\r"},
		{"empty", []string{"$ ", ">\r", "\r\n"}, nil, "\r"},
	} {
		lines, _, keys := talk(0, c.pieces...)
		if !slices.Equal(lines, c.lines) {
			t.Errorf("%s: lines %q, not %q", c.name, lines, c.lines)
		}
		if keys != c.keys {
			t.Errorf("%s: keys %q, not %q", c.name, keys, c.keys)
		}
	}
	if lines, _, _ := talk(10, "$ ", ">0123456789abc\r", "01234567", "8 \r", "89abc", "\r\n"); len(lines) != 1 || lines[0] != "01234567"+"89abc" && lines[0] != "0123456789abc" {
		t.Errorf("a wrapped line is %q", lines)
	}
	if _, sure, _ := talk(0, "$ ", ">ls\r", "ls\r\n$ ", ">l\t", "ls", ">\r", "\r\n"); !slices.Equal(sure, []bool{true, false}) {
		t.Errorf("sure %v", sure)
	}
}

// TestControl: without the account of echoes a password is in what was typed.
func TestControl(t *testing.T) {
	t.Parallel()
	sent := "hunter2\r"
	if _, _, keys := talk(0, "? ", ">"+sent, "\r\n"); strings.Contains(keys, "hunter2") || !strings.Contains(sent, "hunter2") {
		t.Errorf("%q", keys)
	}
}

func TestCast(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	start := time.Unix(1700000000, 0)
	c, err := NewCast(&b, Header{Columns: 100, Rows: 30, Start: start, Title: "a\x1b]0;b", Term: "xterm"})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		c.Output(start.Add(time.Second), []byte("\x1b[31mh\xc3")),
		c.Output(start.Add(1500*time.Millisecond), []byte("\xa9llo\x1b]52;c;AAAA\x07\x1b[6n\x1b[?1000h\x1b[?25l\x05\r\n")),
		c.Input(start.Add(2*time.Second), []byte("***\r")),
		c.Resize(start.Add(3*time.Second), 80, 24),
		c.Mark(start.Add(4*time.Second), "denied\x1b"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := `{"version":2,"width":100,"height":30,"timestamp":1700000000,"title":"a\\x1b]0;b","env":{"TERM":"xterm"}}
[1.000000, "o", "\u001b[31mh"]
[1.500000, "o", "éllo\u001b[?25l\r\n"]
[2.000000, "i", "***\r"]
[3.000000, "r", "80x24"]
[4.000000, "m", "denied\\x1b"]
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	for line := range strings.Lines(b.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("%q is no JSON", line)
		}
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	w := NewTyped(80)
	junk := bytes.Repeat([]byte("x\x1b[9999C\t\x1b[99@"), 20000)
	w.Output(junk)
	w.Input(junk)
	w.Output(bytes.Repeat([]byte("\x1b]52;"), 100000))
	if cap(w.line.cells) > 4*MaxLine || cap(w.waiting) > 4*maxWaiting {
		t.Errorf("%d cells, %d keys", cap(w.line.cells), cap(w.waiting))
	}
}

func FuzzTerminal(f *testing.F) {
	for _, c := range sequencesOfHarm {
		f.Add([]byte(c.sent), []byte("ls\r"), uint8(3))
	}
	f.Fuzz(func(t *testing.T, sent, keys []byte, columns uint8) {
		harmless(t, "transcript", Text(sent))
		w := NewTyped(int(columns))
		n := 0
		w.Keys = func(b []byte) { n += len(b) }
		half := len(sent) / 2
		w.Output(sent[:half])
		w.Input(keys)
		w.Output(sent[half:])
		w.Close()
		if w.line.at < 0 || w.line.at > MaxLine || len(w.line.cells) > MaxLine || n > 3*len(keys)+4 {
			t.Fatalf("%d of %d cells, %d of %d keys", w.line.at, len(w.line.cells), n, len(keys))
		}
		var b bytes.Buffer
		c, _ := NewCast(&b, Header{})
		_ = c.Output(time.Time{}, sent[:half])
		_ = c.Output(time.Time{}, sent[half:])
		for line := range strings.Lines(b.String()) {
			if !json.Valid([]byte(line)) {
				t.Fatalf("%q", line)
			}
		}
		if strings.Contains(b.String(), `\u001b]`) || strings.Contains(b.String(), `\u001bP`) {
			t.Fatalf("%q reaches past the screen", b.String())
		}
	})
}
