package ssh

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pkg/sftp"

	"github.com/weir-gateway/weir/core"
)

// play shows the last session that was recorded. What the playback leaves is written as its kind alone.
func (g *testGate) play(how core.Playing) (string, error) {
	all, err := g.plays(how)
	return all[len(all)-1], err
}

// plays shows each session that was recorded: they have come one after the other.
func (g *testGate) plays(how core.Playing) (all []string, err error) {
	g.journal.mu.Lock()
	defer g.journal.mu.Unlock()
	var b bytes.Buffer
	var p core.Playback
	end := func() {
		if p != nil {
			err = p.Close()
			all = append(all, b.String())
			b.Reset()
		}
	}
	for i := range g.journal.records {
		r := &g.journal.records[i]
		if r.Kind == core.KindOpen {
			end()
			p = New().Play(&b, how)
		}
		done, err := p.Show(r)
		if err != nil {
			return append(all, b.String()), err
		}
		if !done {
			var f recorded
			_ = json.Unmarshal(r.Facts, &f)
			fmt.Fprintf(&b, "<%s", r.Kind)
			if f.Command != nil {
				b.WriteString(" " + f.Command.Text)
			}
			b.WriteString(">\n")
		}
	}
	end()
	return all, err
}

func text(format string) core.Playing { return core.Playing{Format: format, Channel: -1} }

// asciicast reads a recording as its players do (docs.asciinema.org/manual/asciicast/v2): a header, and lines of [time, code, data].
func asciicast(t *testing.T, cast string) (header struct {
	Version, Width, Height int
	Timestamp              int64
	Idle                   float64 `json:"idle_time_limit"`
	Title                  string
	Env                    map[string]string
}, events map[string]string,
) {
	t.Helper()
	if !utf8.ValidString(cast) || !strings.HasSuffix(cast, "\n") {
		t.Errorf("%q is no text of lines", cast)
	}
	lines := strings.Split(strings.TrimSuffix(cast, "\n"), "\n")
	if err := json.Unmarshal([]byte(lines[0]), &header); err != nil || header.Version != 2 || header.Width < 1 || header.Height < 1 {
		t.Fatalf("the header %s: %v", lines[0], err)
	}
	events = map[string]string{}
	last := 0.0
	for _, l := range lines[1:] {
		var e []any
		if err := json.Unmarshal([]byte(l), &e); err != nil || len(e) != 3 {
			t.Fatalf("%s: %v", l, err)
		}
		at, ok1 := e[0].(float64)
		code, ok2 := e[1].(string)
		data, ok3 := e[2].(string)
		if !ok1 || !ok2 || !ok3 || at < last || len(code) != 1 || !strings.Contains("oirm", code) || strings.ContainsRune(data, utf8.RuneError) {
			t.Errorf("%s is no event", l)
		}
		last = at
		events[code] += data
		if code == "m" {
			events[code] += "\n"
		}
	}
	events["last"] = fmt.Sprint(last)
	return header, events
}

// TestPlayTerminal plays what OpenSSH's client did in a shell: as asciicast, as text, as it was, and on a terminal.
func TestPlayTerminal(t *testing.T) {
	t.Parallel()
	g := startGate(t, withChain(deny("touch")))
	script := `exec env -i PATH=$PATH TERM=xterm HOME=/ PS1='ready> ' bash --norc --noediting -i
printf '\033[31mred\033[0m \303'; sleep 0.3; printf '\251 \033]52;c;cm0gLXJmIC8=\a\033[6n\033]0;title\a\n'
touch x
read -s secret
hunter2-canary
exit
`
	args := append([]string{"-c", `( while IFS= read -r line; do sleep 0.4; printf '%s\n' "$line"; done ) | "$@"`, "sh", "ssh"}, append(g.openssh(), "-tt", "web@127.0.0.1")...)
	said, stderr, err := g.tool(script, "sh", args...)
	if err != nil || !strings.Contains(said, "red") {
		t.Fatalf("%q %s %v", said, stderr, err)
	}
	g.journal.ended(t, 1)
	if text := g.journal.text(); strings.Contains(text, "hunter2-canary") {
		t.Errorf("what was not shown is recorded: %s", text)
	}

	cast, err := g.play(core.Playing{Format: formatCast, Channel: -1, Pause: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	h, e := asciicast(t, cast)
	if h.Idle != 2 || h.Env["TERM"] == "" || h.Timestamp == 0 || !strings.Contains(h.Title, "shell") {
		t.Errorf("%+v", h)
	}
	if !strings.Contains(e["o"], "\x1b[31mred\x1b[m é ") || strings.Contains(e["o"], "\x1b]") || strings.Contains(e["o"], "\x1b[6n") {
		t.Errorf("output %q", e["o"])
	}
	if !strings.Contains(e["m"], "refused: touch x") || !strings.Contains(e["i"], "read -s secret") || !strings.Contains(e["i"], strings.Repeat("*", len("hunter2-canary"))) {
		t.Errorf("%q %q", e["i"], e["m"])
	}
	if e["last"] < "1.5" { // six lines, 0.4 s each
		t.Errorf("all is over after %s s", e["last"])
	}

	transcript, err := g.play(text("text"))
	if err != nil || strings.ContainsAny(transcript, "\x1b\r\a") || !strings.Contains(transcript, "\nred é\n") || !strings.Contains(transcript, "<command touch x>") {
		t.Errorf("%v %q", err, transcript)
	}
	raw, err := g.play(text(formatRaw))
	if err != nil || !strings.Contains(raw, "\x1b]52;c;cm0gLXJmIC8=\a\x1b[6n") { // the control: this is what the others leave out
		t.Errorf("%v %q", err, raw)
	}
	screen, err := g.play(core.Playing{Format: "text", Screen: true, Channel: -1})
	if err != nil || !strings.Contains(screen, "\x1b[31mred\x1b[m é ") || strings.Contains(screen, "\x1b]") || strings.Contains(screen, "\x1b[6n") || strings.Contains(screen, "<command touch x>") || !strings.Contains(screen, "\x1b[?1049l") {
		t.Errorf("%v %q", err, screen)
	}
}

// TestPlayCommands plays commands without a terminal, and files.
func TestPlayCommands(t *testing.T) {
	t.Parallel()
	g := startGate(t, withChain(deny("forbidden")))
	c := g.client()
	if _, _, err := g.run(c, `cat; printf 'esc\033]52;c;AA\aape\r\n'; echo oops >&2; printf 'a\0b'`, "from stdin\n"); err != nil {
		t.Fatal(err)
	}
	_, _, _ = g.run(c, "echo forbidden", "")
	_ = c.Close()
	g.journal.ended(t, 1)
	got, err := g.play(text("text"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n< from stdin\n", "\nfrom stdin\n", "\noops\n", "\nesc\\x1b]52;c;AA\\x07ape\n", "(3 bytes that are no text)", "<command echo forbidden>", "refused by Weir"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	cast, err := g.play(text(formatCast))
	if err != nil {
		t.Fatal(err)
	}
	if h, e := asciicast(t, cast); h.Width != 80 || h.Height != 24 || !strings.Contains(e["o"], "from stdin\r\n") || !strings.Contains(e["m"], "exit 0") {
		t.Errorf("%+v %q", h, e)
	}
	if _, err := g.play(core.Playing{Format: formatCast, Channel: 7}); !errors.Is(err, errNoProgram) {
		t.Errorf("a channel that is not there: %v", err)
	}
}

// TestPlayFiles: what OpenSSH's scp and sftp carried, with hashes, and what was not in order or not closed.
func TestPlayFiles(t *testing.T) {
	t.Parallel()
	g := startGate(t)
	from := writeRandom(t, 300_000)
	dir := t.TempDir()
	to, old, tree := filepath.Join(dir, "to: 5 bytes"), filepath.Join(dir, "old"), filepath.Join(dir, "tree")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := errors.Join(os.WriteFile(empty, nil, 0o600), os.MkdirAll(tree+"/d", 0o700), os.WriteFile(tree+"/d/x", []byte("inside"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{from, "web@127.0.0.1:" + to},
		{empty, "web@127.0.0.1:" + dir},
		{"web@127.0.0.1:" + to, filepath.Join(t.TempDir(), "back")},
		{"-O", from, "web@127.0.0.1:" + old},
		{"-O", "-r", "-p", "web@127.0.0.1:" + tree, filepath.Join(t.TempDir(), "back")},
	} {
		if _, stderr, err := g.tool("", "scp", append(g.openssh(), args...)...); err != nil {
			t.Fatalf("%q: %s %v", args, stderr, err)
		}
	}
	client := g.client()
	c, err := sftp.NewClient(client)
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Create(filepath.Join(dir, "mixed"))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{100, 0, 50} {
		if _, err := f.WriteAt(make([]byte, 10), at); err != nil {
			t.Fatal(err)
		}
	}
	_ = f.Close()
	if f, err = c.OpenFile(filepath.Join(dir, "tail"), os.O_WRONLY|os.O_CREATE); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("tail"), 1000); err != nil {
		t.Fatal(err)
	}
	_ = client.Close() // and nobody closes it
	g.journal.ended(t, 6)
	sum := sha256.Sum256(nil)
	whole, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := g.plays(text(formatFiles))
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Join(lists, "")
	lines := strings.Split(list, "\n")
	for i, l := range lines {
		lines[i] = strings.Join(strings.Fields(l), " ")
	}
	list = strings.Join(lines, "\n") + "\n"
	for _, want := range []string{
		fmt.Sprintf("written 300000 0-299999 %x %s", sha256.Sum256(whole), to),
		fmt.Sprintf("read 300000 0-299999 %x %s", sha256.Sum256(whole), to),
		fmt.Sprintf("written 0 %x %s", sum, filepath.Join(dir, "empty")),
		fmt.Sprintf("written 300000 0-299999 %x %s: %s", sha256.Sum256(whole), old, filepath.Base(from)),
		fmt.Sprintf("read 6 0-5 %x %s: tree/d/x", sha256.Sum256([]byte("inside")), tree),
		fmt.Sprintf("written 30 0-9 50-59 100-109 (not in order) %s", filepath.Join(dir, "mixed")),
		fmt.Sprintf("written, not closed 4 1000-1003 %x %s", sha256.Sum256([]byte("tail")), filepath.Join(dir, "tail")),
	} {
		if !strings.Contains(list, "\n"+want+"\n") {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	if got, err := g.play(text("text")); err != nil || !strings.Contains(got, "SHA256") || strings.Contains(got, "\x1b") {
		t.Errorf("%v %q", err, got)
	}
}

// TestPlayWithoutBytes: where less than everything was recorded, that is said, and no recording of a screen is made up.
func TestPlayWithoutBytes(t *testing.T) {
	t.Parallel()
	g := startGate(t, func(g *testGate) { g.target.Record = core.LevelMetadata })
	if _, _, err := g.run(g.client(), "echo canary-of-output", ""); err != nil {
		t.Fatal(err)
	}
	got, err := g.play(text("text"))
	if err != nil || !strings.Contains(got, "<command echo canary-of-output>") || !strings.Contains(got, "(17 bytes that were not recorded)") || !strings.Contains(got, "(recorded as metadata: ") {
		t.Errorf("%v %q", err, got)
	}
	for _, format := range []string{formatCast, formatRaw} {
		if got, err := g.play(text(format)); !errors.Is(err, errNotRecorded) || strings.Contains(got, "canary") {
			t.Errorf("%s: %v %q", format, err, got)
		}
	}
}

func TestCopying(t *testing.T) {
	for command, want := range map[string]string{
		"scp -t /x":               "client /x",
		"scp -v -r -p -f -- /x y": "upstream /x y",
		"/usr/bin/scp -pt -d .":   "client .",
		"scp a b:c":               "",
		"scpx -t /x":              "",
		"":                        "",
		"scp":                     "",
	} {
		got := ""
		if way, below, ok := copying(command); ok {
			got = way.String() + " " + below
		}
		if got != want {
			t.Errorf("%q: %q, not %q", command, got, want)
		}
	}
}

func TestExtent(t *testing.T) {
	x := &extent{}
	for _, at := range []uint64{0, 10, 20} {
		x.add(at, make([]byte, 10))
	}
	if got := x.text("read"); !strings.HasPrefix(got, "read 30 bytes (0-29), sha256 ") {
		t.Error(got)
	}
	x.add(5, make([]byte, 10))
	if got := x.text("read"); got != "read 40 bytes (0-29), not in order" {
		t.Error(got)
	}
	x = &extent{}
	for i := range uint64(100) {
		x.add(1000-10*i, make([]byte, 2))
	}
	if got := x.text("written"); len(x.ranges) != maxRanges || !strings.Contains(got, " and more), not in order") {
		t.Error(got)
	}
	x = &extent{}
	x.add(^uint64(0)-1, make([]byte, 10)) // an offset that cannot be
	if x.add(0, []byte("x")); !x.mixed {
		t.Error("a file longer than any is in order")
	}
	f := &file{path: "a, not closed: read 5 bytes (0-4), not in order: b", use: []string{"write"}}
	if got := readCarried(f.text("")); len(got) != 1 || got[0].path != f.path || got[0].cut || got[0].what != "written" {
		t.Errorf("%+v", got)
	}
	if got := readCarried("closed: /x"); got != nil {
		t.Errorf("%+v", got)
	}
}

// FuzzPlay: no record that somebody has made up makes a playback panic, or drive a terminal.
func FuzzPlay(f *testing.F) {
	for _, wire := range [][]byte{
		dataMessage(0, false, []byte("out\x1b]52;c;AA\a\n")), dataMessage(0, true, []byte("err")), requestMessage(0, "exec", true, appendString(nil, "ls")),
		requestMessage(0, "pty-req", true, appendString(nil, "xterm")), closeMessage(0), eofMessage(0), openMessage(0, "session", nil),
		{94, 0, 0},
		nil,
	} {
		f.Add(wire, `{"command":{"action":"ls","text":"ls"},"result":{"status":"file","message":"read 5 bytes (0-4), not in order: /x"},"bytes":7}`)
	}
	f.Fuzz(func(t *testing.T, wire []byte, facts string) {
		for _, how := range []core.Playing{text("text"), text(formatCast), text(formatFiles), {Format: "text", Screen: true, Channel: -1}} {
			var b bytes.Buffer
			p := New().Play(&b, how)
			for _, w := range [][]byte{requestMessage(0, "exec", true, appendString(nil, "ls")), wire, wire} {
				for k := core.KindOpen; k <= core.KindOpaque; k++ {
					for _, way := range []core.Direction{core.FromClient, core.FromUpstream, core.FromGateway} {
						if _, err := p.Show(&core.Record{Kind: k, Direction: way, Facts: []byte(facts), Wire: w}); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			_ = p.Close()
			if how.Format == "text" && !how.Screen && strings.ContainsAny(b.String(), "\x1b\a\r\u009b") {
				t.Fatalf("%q", b.String())
			}
		}
	})
}
