package ssh

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/ssh/terminal"
)

var _ core.Player = (*Protocol)(nil)

// The ways in which a session can be shown, beside text.
const (
	formatCast  = "asciicast"
	formatRaw   = "raw"
	formatFiles = "files"
)

// Formats implements core.Player.
func (*Protocol) Formats() []string { return []string{formatCast, formatRaw, formatFiles} }

// Play implements core.Player. As text a terminal is a transcript of what stood on it, and on a person's terminal it is drawn as it was,
// but for what reaches past the screen.
func (*Protocol) Play(out io.Writer, how core.Playing) core.Playback {
	return &playback{out: out, how: how, programs: map[uint32]*played{}}
}

// playback shows one session.
type playback struct {
	out      io.Writer
	how      core.Playing
	target   string
	level    string
	programs map[uint32]*played
	order    []uint32 // of programs
	cast     *terminal.Cast
	last     time.Time
	chosen   *played // of asciicast and raw
	shown    bool    // something of it was
	lost     int64   // bytes that were not recorded
	listed   bool
	files    []carried
}

const (
	maxPrograms = 256     // that are kept account of
	maxListed   = 100_000 // files
)

const (
	errNoProgram   = core.Refusal("ssh: no program ran in this session whose output was recorded: --format text shows what there is")
	errNotRecorded = core.Refusal("ssh: what was on the screen was not recorded (record: full keeps it): --format text shows what there is")
)

// recorded are the facts that a playback reads.
type recorded struct {
	Target  string          `json:"target"`
	Record  string          `json:"record"`
	Stage   string          `json:"stage"`
	Bytes   int64           `json:"bytes"`
	Command *core.Command   `json:"command"`
	Result  *core.Result    `json:"result"`
	Denied  json.RawMessage `json:"denied"`
}

// message is what a record's bytes are about.
type message struct {
	kind     byte
	number   uint32
	request  string // of msgChannelRequest
	payload  []byte
	extended bool
	data     []byte // of msgData and msgExtendedData
}

func readMessage(wire []byte) (m message, ok bool) {
	if len(wire) < 5 {
		return m, false
	}
	m.kind, m.number = wire[0], binary.BigEndian.Uint32(wire[1:])
	switch m.kind {
	case msgData, msgExtendedData:
		m.extended = m.kind == msgExtendedData
		h := headSize(m.extended)
		if len(wire) < h {
			return m, false
		}
		m.data = wire[h:]
	case msgChannelRequest:
		name, rest, ok := cutString(wire[5:])
		if !ok || len(rest) < 1 {
			return m, false
		}
		m.request, m.payload = string(name), rest[1:]
	case msgChannelEOF, msgChannelClose:
	default:
		return m, false
	}
	return m, true
}

// Show implements core.Playback.
func (p *playback) Show(r *core.Record) (done bool, err error) {
	var f recorded
	if json.Unmarshal(r.Facts, &f) != nil {
		return p.how.Format != "text", nil
	}
	if r.Time.After(p.last) { // a clock that goes back does not turn the screen back
		p.last = r.Time
	}
	m, about := readMessage(r.Wire)
	refused := f.Denied != nil
	switch r.Kind {
	case core.KindOpen:
		p.target, p.level = f.Target, f.Record
	case core.KindCommand:
		done, err = p.command(&f, m, about, refused)
	case core.KindBytes:
		if !refused {
			done, err = true, p.bytes(r, &f, m, about)
		}
	case core.KindNotice:
		done, err = p.notice(r, &f, m, about)
	case core.KindResult:
		done, err = p.result(&f, m, about)
	case core.KindClose:
		err = p.finish()
	}
	return done || p.how.Format != "text", err
}

// program returns what is known of a channel.
func (p *playback) program(number uint32) *played {
	x := p.programs[number]
	if x != nil {
		return x
	}
	if len(p.programs) >= maxPrograms {
		p.forget()
	}
	x = &played{p: p, number: number}
	p.programs[number] = x
	p.order = append(p.order, number)
	return x
}

// forget makes room: the oldest programs that are over have nothing more to say.
func (p *playback) forget() {
	p.order = slices.DeleteFunc(p.order, func(n uint32) bool {
		x := p.programs[n]
		if x.over && x != p.chosen {
			_ = x.end()
			delete(p.programs, n)
			return true
		}
		return false
	})
	for len(p.order) >= maxPrograms { // more than Weir lets anybody have open
		x := p.programs[p.order[0]]
		_ = x.end()
		delete(p.programs, p.order[0])
		p.order = p.order[1:]
	}
}

func (p *playback) command(f *recorded, m message, about, refused bool) (done bool, err error) {
	if f.Stage == stageTyped {
		drawn := p.drawn()
		if p.cast != nil && refused {
			return true, p.cast.Mark(p.last, "refused: "+f.Command.Text)
		}
		return drawn != nil, nil // its echo is on the screen
	}
	if !about || m.kind != msgChannelRequest {
		return false, nil
	}
	switch m.request {
	case "exec", "shell", "subsystem":
		x := p.program(m.number)
		if x.request = m.request; f.Command != nil {
			x.text = f.Command.Text
		}
		x.files = x.request == "subsystem"
		if _, _, ok := copying(x.text); ok && x.request == "exec" && !x.hasPTY {
			x.files = true
		}
		if refused {
			return false, nil
		}
		return false, p.choose(x)
	}
	return false, nil
}

// choose makes x what a recording of one screen is about, where it is to be.
func (p *playback) choose(x *played) (err error) {
	if p.how.Format != formatCast && p.how.Format != formatRaw || p.chosen != nil || x.files {
		return nil
	}
	if p.how.Channel >= 0 && uint32(p.how.Channel) != x.number {
		return nil
	}
	p.chosen = x
	if p.how.Format == formatRaw {
		return nil
	}
	p.cast, err = terminal.NewCast(p.out, terminal.Header{
		Columns: x.columns, Rows: x.rows, Start: p.last, Title: p.target + ": " + x.text, Term: x.term, Pause: p.how.Pause,
	})
	if err != nil {
		return err
	}
	return p.cast.Mark(p.last, x.text)
}

func (p *playback) bytes(r *core.Record, f *recorded, m message, about bool) error {
	if !about {
		p.lost += f.Bytes
		return nil
	}
	x := p.program(m.number)
	if r.Direction == core.FromClient {
		return x.input(m.data)
	}
	return x.output(m.data, m.extended)
}

func (p *playback) notice(r *core.Record, f *recorded, m message, about bool) (done bool, err error) {
	if f.Result == nil {
		return false, nil
	}
	if f.Result.Status == statusKeys {
		if p.cast != nil && about && p.chosen.number == m.number {
			err = p.cast.Input(p.last, m.data)
		}
		return true, err
	}
	if !about {
		return false, nil
	}
	x := p.program(m.number)
	switch {
	case m.kind == msgExtendedData && r.Direction == core.FromGateway: // what Weir has told the client
		return true, x.output(m.data, true)
	case m.request == "pty-req":
		var pty ptyPayload
		if parse(m.payload, &pty) {
			x.hasPTY, x.term, x.columns, x.rows = true, pty.Term, int(min(pty.Columns, 10_000)), int(min(pty.Rows, 10_000))
		}
		return p.drawing(), nil
	case m.request == "window-change":
		var w windowPayload
		if parse(m.payload, &w) {
			err = x.resize(int(min(w.Columns, 10_000)), int(min(w.Rows, 10_000)))
		}
		return true, err
	}
	return p.drawn() != nil, nil
}

func (p *playback) result(f *recorded, m message, about bool) (done bool, err error) {
	if f.Result != nil && f.Result.Status == "file" {
		for _, c := range readCarried(f.Result.Message) {
			if len(p.files) < maxListed {
				p.files = append(p.files, c)
			}
		}
		return true, nil
	}
	if !about {
		return false, p.unrecorded()
	}
	x := p.program(m.number)
	x.over = true
	if p.cast != nil && x == p.chosen {
		text := "ended"
		if f.Result != nil {
			text = f.Result.Tag
			if f.Result.Status == "error" {
				text = "error " + f.Result.Code
			}
		}
		return true, p.cast.Mark(p.last, text)
	}
	return false, errors.Join(x.end(), p.unrecorded())
}

// drawn is the program that is drawn now, if any.
func (p *playback) drawn() *played {
	if !p.drawing() {
		return nil
	}
	for _, n := range p.order {
		if x := p.programs[n]; x.screen != nil {
			return x
		}
	}
	return nil
}

// drawing reports whether terminals are drawn on a person's terminal.
func (p *playback) drawing() bool { return p.how.Screen && p.how.Format == "text" }

// unrecorded says how much is not there.
func (p *playback) unrecorded() (err error) {
	if p.lost > 0 && p.how.Format == "text" {
		_, err = fmt.Fprintf(p.out, "(%d bytes that were not recorded)\n", p.lost)
		p.lost = 0
	}
	return err
}

// finish writes what is left at the end of the session, once.
func (p *playback) finish() error {
	if p.listed {
		return nil
	}
	p.listed = true
	var errs []error
	for _, n := range p.order {
		errs = append(errs, p.programs[n].end())
	}
	errs = append(errs, p.unrecorded())
	if p.how.Format == "text" && p.level != "" && p.level != core.LevelFull.String() {
		_, err := fmt.Fprintf(p.out, "(recorded as %s: what was on the screen and in files was not kept)\n", p.level)
		errs = append(errs, err)
	}
	if p.how.Format == formatFiles || p.how.Format == "text" && len(p.files) > 0 {
		errs = append(errs, p.list())
	}
	return errors.Join(errs...)
}

// list writes the files that were carried.
func (p *playback) list() error {
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FILE\tBYTES\tRANGE\tSHA256\tPATH")
	for _, f := range p.files {
		sum, what := f.sum, f.what
		if sum == "" {
			sum = "(not in order)"
		}
		if f.cut {
			what += ", not closed"
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", what, f.bytes, f.ranges, sum, terminal.Safe(f.path))
	}
	if len(p.files) >= maxListed {
		_, _ = fmt.Fprintln(w, "(and more)")
	}
	return w.Flush()
}

// Close implements core.Playback.
func (p *playback) Close() error {
	err := p.finish()
	if err == nil && (p.how.Format == formatCast || p.how.Format == formatRaw) && !p.shown {
		switch {
		case p.lost > 0 || p.level != "" && p.level != core.LevelFull.String():
			return errNotRecorded
		case p.chosen == nil:
			return errNoProgram
		}
	}
	return err
}
