package ssh

import (
	"bytes"
	"regexp"
	"sync"
)

// prompts looks for questions after a password in what a target says, and hides the line that answers one from the record.
// It is best effort: whether the target's terminal shows what is typed is not told to anybody.
type prompts struct {
	mu    sync.Mutex
	line  []byte // the end of the last line that the target has sent
	asked bool
	whole bool // a program has the whole screen
}

// busy reports that what is typed now is no command.
func (p *prompts) busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked || p.whole
}

// screens are what gives a program the whole screen, and what takes it back (xterm's private modes).
var screens = regexp.MustCompile(`\x1b\[\?(?:1049|1047|47)([hl])`)

const maxPrompt = 256

var asksSecret = regexp.MustCompile(`(?i)(pass(word|phrase|code|wd)?|\bpin|secret|token|verification code)\b[^\n]{0,120}[:>?]\s*$`)

// said notes what the target has sent.
func (p *prompts) said(data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Contains(data, []byte("\x1b[?")) {
		if all := screens.FindAllSubmatch(data, -1); len(all) > 0 {
			p.whole = all[len(all)-1][1][0] == 'h'
		}
	}
	if i := bytes.LastIndexByte(data, '\n'); i >= 0 {
		p.line, data = p.line[:0], data[i+1:]
	}
	if n := len(data) - maxPrompt; n > 0 {
		data = data[n:]
	}
	p.line = append(p.line, data...)
	if n := len(p.line) - maxPrompt; n > 0 {
		p.line = append(p.line[:0], p.line[n:]...)
	}
	p.asked = asksSecret.Match(p.line)
}

// hide returns data with stars in the place of what answers a question after a password, and whether there is any.
func (p *prompts) hide(data []byte) (shown []byte, hidden bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		return data, false
	}
	shown = make([]byte, len(data))
	copy(shown, data)
	for i, b := range shown {
		if b == '\r' || b == '\n' {
			p.asked, p.line = false, p.line[:0]
			break
		}
		shown[i] = '*'
	}
	return shown, true
}
