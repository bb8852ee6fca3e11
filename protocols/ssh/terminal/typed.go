package terminal

import (
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Typed watches both sides of a terminal, and tells which lines were entered and which keys may be recorded.
//
// A line is what the terminal showed behind the prompt when Enter was echoed: what an editor of lines, the history or a
// completion made of the keys. Nothing is said of a program with the whole screen, of what was not shown, and of what
// answers a question after a password.
//
// Keys come out of Output, when it is known whether they were shown: a character is recorded as it is only where the
// terminal has shown it and no password was asked for; else a star stands for it. Control keys are recorded as they are.
// It is used by one goroutine at a time.
type Typed struct {
	// Line is told each line that was entered. Sure is false where keys were used that bring in more than was typed.
	Line func(text string, sure bool)
	// Keys is told what to record of the keys. The slice is valid during the call.
	Keys func(shown []byte)

	seq     sequences
	line    line
	start   int // where the prompt ends on the line
	begun   bool
	entered int  // Enter keys that have not been echoed
	sure    bool // only plain characters and erasing were typed
	asked   bool // a secret is being typed
	shown   bool // some of the present line has been echoed
	after   int  // where on the line Enter was typed last: what stands before was answered
	other   bool // since Enter something else has come, and no end of the line
	waiting []rune

	key   [utf8.UTFMax]byte
	have  int
	inEsc int
	out   []byte
}

const maxWaiting = 4096

var secret = regexp.MustCompile(`(?i)(pass(word|phrase|code|wd)?|\bpin|secret|token|verification code|\botp|one-time)\b[^\n]{0,120}[:>?]\s*$`)

// NewTyped returns one for a terminal of a width; 0: not known.
func NewTyped(columns int) *Typed {
	t := &Typed{}
	t.line.columns = columns
	t.line.ended = t.ended
	t.line.printed = t.printed
	return t
}

// Resize says that the terminal has another width.
func (t *Typed) Resize(columns int) { t.line.columns = max(columns, 0) }

// Full reports whether a program has the whole screen.
func (t *Typed) Full() bool { return t.line.full }

// Asked reports whether what is typed now answers a question after a secret.
func (t *Typed) Asked() bool { return t.asked }

// Shown reports whether the terminal has shown what was typed on the present line, or nothing that it could show was.
func (t *Typed) Shown() bool {
	return t.shown || !slices.ContainsFunc(t.waiting, func(r rune) bool { return r&keyed == 0 })
}

// Current is what stands behind the prompt now.
func (t *Typed) Current() string {
	if !t.begun || t.line.full || t.asked {
		return ""
	}
	return t.behind(t.line.cells)
}

func (t *Typed) behind(cells []rune) string {
	if t.start >= len(cells) {
		return ""
	}
	return strings.TrimSpace(string(cells[t.start:]))
}

// Input reads what the client sends.
func (t *Typed) Input(p []byte) {
	if t.entered > 0 && t.other { // the line before has ended where not even Enter is echoed, as in read -s
		t.release()
		t.entered, t.begun, t.asked, t.shown, t.other = 0, false, false, false, false
	}
	if !t.shown { // what is typed before the question comes answers it, too
		t.asked = t.asked || secret.MatchString(string(t.line.cells[min(max(t.after, len(t.line.cells)-256), len(t.line.cells)):]))
	}
	for _, b := range p {
		if !t.begun && !t.line.full {
			t.begun, t.sure, t.start, t.line.jumped, t.shown = true, true, t.line.at, false, false
		}
		switch {
		case t.inEsc > 0: // an arrow, a function key
			t.wait(rune(b), true)
			if t.inEsc++; b >= 0x40 && b <= 0x7e && (t.inEsc > 2 || b != '[' && b != 'O') || t.inEsc > 32 {
				t.inEsc = 0
			}
			t.sure = false
		case t.have > 0 || b >= utf8.RuneSelf:
			t.key[t.have] = b
			if t.have++; utf8.FullRune(t.key[:t.have]) || t.have == len(t.key) {
				r, _ := utf8.DecodeRune(t.key[:t.have])
				t.have = 0
				t.wait(r, false)
			}
		case b == '\r' || b == '\n':
			t.entered++
			t.other, t.after = false, len(t.line.cells)
			t.wait(rune(b), true)
		case b == 0x03 || b == 0x04: // ^C, ^D: the line is given up
			t.wait(rune(b), true)
			t.release()
			t.entered, t.begun, t.asked, t.shown = 0, false, false, false
		case b == 0x1b:
			t.inEsc = 1
			t.wait(rune(b), true)
		case b < 0x20 || b == 0x7f:
			t.sure = t.sure && (b == 0x7f || b == 0x08 || b == 0x15 || b == 0x17)
			t.wait(rune(b), true)
		default:
			t.wait(rune(b), false)
		}
	}
}

// keyed marks a control key in what waits.
const keyed = 1 << 24

func (t *Typed) wait(r rune, control bool) {
	if control {
		r |= keyed
	}
	if t.waiting = append(t.waiting, r); len(t.waiting) >= maxWaiting {
		t.release()
	}
}

// Output reads what the upstream sends.
func (t *Typed) Output(p []byte) {
	t.seq.feed(p, &t.line)
	if len(t.out) > 0 {
		if t.Keys != nil {
			t.Keys(t.out)
		}
		t.out = t.out[:0]
	}
}

// Close ends the recording: keys that were never shown are stars.
func (t *Typed) Close() {
	t.release()
	t.Output(nil)
}

// printed is an echo, perhaps.
func (t *Typed) printed(r rune) {
	for i, w := range t.waiting { // control keys before it have no echo of their own
		if w&keyed != 0 {
			continue
		}
		if w == r {
			if !t.begun && !t.line.full { // typed before the prompt came
				t.begun, t.sure, t.start, t.line.jumped = true, false, t.line.at, false
			}
			t.shown = true
			if t.asked {
				return
			}
			for _, c := range t.waiting[:i+1] {
				t.out = utf8.AppendRune(t.out, c&^keyed)
			}
			t.waiting = slices.Delete(t.waiting, 0, i+1)
		} else {
			t.other = true
		}
		return
	}
	t.other = true
}

// release records what waits: what was not shown, as stars.
func (t *Typed) release() {
	for _, w := range t.waiting {
		if w&keyed != 0 {
			t.out = append(t.out, byte(w))
		} else {
			t.out = append(t.out, '*')
		}
	}
	t.waiting = t.waiting[:0]
}

// ended is a line's end: the echo of Enter, where one was typed.
func (t *Typed) ended(cells []rune) {
	t.after = 0
	if t.entered == 0 || !t.begun && t.ahead() { // the output of a program
		t.start = 0
		return
	}
	t.entered--
	text := t.behind(cells)
	if t.asked && strings.Trim(text, "*•●· ") == "" {
		text = ""
	}
	if t.Line != nil && t.begun && t.shown && !t.line.jumped && text != "" { // what was shown is no secret, whatever the prompt says
		t.Line(text, t.sure && !t.asked)
	}
	t.begun, t.asked, t.shown = false, false, false
	if t.entered == 0 {
		t.release()
		return
	}
	for i, w := range t.waiting { // what was typed ahead waits for its own echo
		if w == keyed|'\r' || w == keyed|'\n' {
			rest := slices.Clone(t.waiting[i+1:])
			t.waiting = t.waiting[:i+1]
			t.release()
			t.waiting = append(t.waiting, rest...)
			return
		}
	}
}

// ahead reports whether the next line to be entered has characters that have not been shown.
func (t *Typed) ahead() bool {
	for _, w := range t.waiting {
		if w&keyed == 0 {
			return true
		}
		if w == keyed|'\r' || w == keyed|'\n' {
			return false
		}
	}
	return false
}
