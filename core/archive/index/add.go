package index

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

const (
	maxText  = 64 << 10 // bytes of one command that are searchable
	maxKnown = 10_000   // texts remembered as stored
)

// building is a session as far as it has been read.
type building struct {
	dec                                     ledger.Decoder
	decodes                                 bool // dec has seen every block so far
	identity, issuer, target, protocol, run string
	started, ended                          int64
	commands, rows, bytes, denied           int64
	end                                     string
	blocks, saved                           uint64 // read; of them in the file
	head                                    [32]byte
	chained, sealed                         bool
	gap                                     bool              // the store has blocks that come after one it has not
	texts                                   map[string]int64  // new uses by text
	said                                    map[string]*said  // by the facts of a command, without parameters
	touches                                 map[touchID]touch // new or later ones
	answers                                 answers
	readers                                 func(protocol string) core.Reader
}

// said is a command as it is indexed.
type said struct {
	text    string
	touches []touchID // of one that runs
}

type resourceID struct{ kind, name string }

type touchID struct {
	resourceID
	use string
}

// touch is where a session touched a resource last.
type touch struct {
	record uint64
	time   int64
}

// Add takes blocks that store holds. A block seen before changes nothing; where blocks in between are missing, or the
// process was restarted in the middle of a session, the session is read anew from the store.
func (x *Index) Add(ctx context.Context, store core.Store, blocks []core.Block) error {
	if x.readOnly {
		return errors.New("index: open for reading only")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	var err error
	for range 3 {
		if err = x.add(ctx, store, blocks); !errors.Is(err, errMoved) {
			break
		}
	}
	return err
}

// errMoved says that another process has written a session's row since this one did: a worker that hung has had a successor.
var errMoved = errors.New("another process has written the same session")

func (x *Index) add(ctx context.Context, store core.Store, blocks []core.Block) (err error) {
	touched := map[string]*building{}
	defer func() {
		if err != nil { // what is in memory is ahead of what is stored: read those sessions anew
			for id := range touched {
				delete(x.building, id)
			}
		}
	}()
	anew := map[string]bool{}
	for i := range blocks {
		b := &blocks[i]
		id := b.Header.Session
		if anew[id] {
			continue
		}
		s := x.building[id]
		if s == nil {
			blocks, err := x.known(ctx, x.db, id)
			if err != nil {
				return err
			}
			if b.Header.Number < blocks {
				continue // seen
			}
			if blocks > 0 || b.Header.Number > 0 {
				anew[id] = true
				continue
			}
			s = x.newBuilding()
			x.building[id] = s
		}
		if b.Header.Number < s.blocks {
			continue
		}
		if b.Header.Number > s.blocks || s.gap {
			anew[id] = true
			continue
		}
		s.add(b)
		touched[id] = s
	}
	for id := range anew {
		s := x.newBuilding()
		err := store.Blocks(ctx, id, func(b core.Block) error {
			if b.Header.Number == s.blocks {
				s.add(&b)
			} else { // what follows is taken in when the gap is filled
				s.gap = true
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("index: session %s: %w", id, err)
		}
		x.building[id] = s
		touched[id] = s
	}
	return x.save(ctx, touched, anew)
}

type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// known returns how many blocks of a session are in the index.
func (x *Index) known(ctx context.Context, db queryer, id string) (n uint64, err error) {
	err = db.QueryRowContext(ctx, x.d.bind("SELECT blocks FROM sessions WHERE id = ?"), id).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("index: %w", err)
	}
	return n, nil
}

func (x *Index) newBuilding() *building {
	return &building{
		dec: ledger.Decoder{Passing: true}, decodes: true, chained: true,
		texts: map[string]int64{}, touches: map[touchID]touch{}, readers: x.readers,
	}
}

// add reads one block. What cannot be read makes the session unverified; it does not end the indexing.
func (s *building) add(b *core.Block) {
	h, err := ledger.ParseBlock(b.Bytes)
	if err != nil || h.Prev != s.head || h.Number != s.blocks {
		s.chained = false
	}
	s.blocks = b.Header.Number + 1
	s.head = b.Hash
	if err != nil || !s.decodes {
		return
	}
	if h.Secret || s.dec.Skips { // its key is not at hand
		err = s.dec.Skip(&h)
	} else {
		err = s.dec.Decode(&h, func(r *core.Record, _ time.Duration) error {
			s.record(r)
			return nil
		})
	}
	if err != nil {
		s.decodes, s.chained = false, false
	}
	if seal := s.dec.Seal(); h.Seal && seal != nil {
		s.sealed = true
		if s.started == 0 { // nothing of it could be read
			s.started = seal.Time.UnixNano()
		}
		s.end = string(seal.End)
		if s.ended == 0 || seal.End != core.EndClosed {
			s.ended = max(s.ended, seal.Time.UnixNano())
		}
		if seal.Blocks != s.blocks || seal.Records != s.dec.Next() {
			s.chained = false
		}
	}
}

// record takes what is searched for from one record. The shapes are those of core.Session.
func (s *building) record(r *core.Record) {
	if s.started == 0 {
		s.started = r.Time.UnixNano()
	}
	switch r.Kind {
	case core.KindOpen:
		var f struct {
			Run      string        `json:"run"`
			Identity core.Identity `json:"identity"`
			Target   string        `json:"target"`
			Protocol string        `json:"protocol"`
			Denied   *core.Denial  `json:"denied"`
		}
		if json.Unmarshal(r.Facts, &f) == nil {
			s.run, s.identity, s.issuer, s.target, s.protocol = f.Run, f.Identity.Subject, f.Identity.Issuer, f.Target, f.Protocol
		}
		if f.Denied != nil {
			s.denied++
		}
		if s.readers != nil {
			s.answers.reader = s.readers(f.Protocol)
		}
		return
	case core.KindCommand:
		s.commands++
		s.command(r)
	case core.KindColumns:
		if a := &s.answers; a.reader != nil && !a.full && !bytes.Equal(r.Facts, a.shape) {
			var f struct {
				Columns []core.Column `json:"columns"`
			}
			_ = json.Unmarshal(r.Facts, &f) // else the rows are read without
			a.columns, a.shape = f.Columns, append(a.shape[:0], r.Facts...)
		}
	case core.KindResult:
		if !s.answers.full && bytes.Contains(r.Facts, []byte(`"message":"`)) {
			var f struct {
				Result core.Result `json:"result"`
			}
			if json.Unmarshal(r.Facts, &f) == nil && s.answers.room(len(f.Result.Message)) {
				s.answers.text(f.Result.Message)
			}
		}
	case core.KindRows:
		if !bytes.Contains(r.Facts, isDenied) { // the client did not get it
			s.answers.rows(r.Wire)
		}
		if n, ok := plainRows(r.Facts); ok {
			s.rows += n
			return
		}
		var f struct {
			Rows int64 `json:"rows"`
		}
		if json.Unmarshal(r.Facts, &f) == nil {
			s.rows += f.Rows
		}
	case core.KindClose:
		var f struct {
			Totals core.Totals `json:"totals"`
		}
		if json.Unmarshal(r.Facts, &f) == nil {
			s.commands, s.rows, s.bytes, s.denied = f.Totals.Commands, f.Totals.Rows, f.Totals.Bytes, f.Totals.Denied
		}
		s.ended = r.Time.UnixNano()
		return
	}
	if bytes.Contains(r.Facts, isDenied) {
		var f struct {
			Denied *core.Denial `json:"denied"`
		}
		if json.Unmarshal(r.Facts, &f) == nil && f.Denied != nil {
			s.denied++
		}
	}
}

// isDenied is how the facts of what was refused say so. Inside a JSON string the quotation marks would be escaped.
var isDenied = []byte(`"denied":{`)

// command takes the text of a command, what it touches, and its parameters.
func (s *building) command(r *core.Record) {
	// A prepared statement comes again and again with other parameters: it is decoded once. Neither separator can stand
	// inside a JSON string.
	begin, rest, _ := bytes.Cut(r.Facts, []byte(`,"params":[`))
	c, ok := s.said[string(begin)]
	if !ok {
		if c = saidOf(r.Facts); c == nil {
			return
		}
		if len(s.said) < maxSaid {
			if s.said == nil {
				s.said = map[string]*said{}
			}
			s.said[string(begin)] = c
		}
	}
	s.texts[c.text]++
	if bytes.Contains(r.Facts, isDenied) {
		return // it did not reach the target
	}
	for _, id := range c.touches {
		s.touches[id] = touch{r.Seq, r.Time.UnixNano()}
	}
	if len(rest) > 0 && s.answers.room(len(rest)) {
		var f struct {
			Params []json.RawMessage `json:"params"`
		}
		_ = json.Unmarshal(r.Facts, &f) // else there is nothing to take
		for _, p := range f.Params {
			var text string
			if json.Unmarshal(p, &text) == nil {
				s.answers.text(text)
			}
		}
	}
}

// saidOf decodes a command; nil: it cannot be read.
func saidOf(facts []byte) *said {
	var f struct {
		Stage   string `json:"stage"`
		Command struct {
			Action    string          `json:"action"`
			Text      string          `json:"text"`
			Resources []core.Resource `json:"resources"`
		} `json:"command"`
	}
	if json.Unmarshal(facts, &f) != nil {
		return nil
	}
	t := f.Command.Text
	if t == "" {
		t = f.Command.Action
	}
	if len(t) > maxText {
		t = strings.ToValidUTF8(t[:maxText], "")
	}
	c := &said{}
	var b strings.Builder
	b.WriteString(t)
	for _, r := range f.Command.Resources {
		if b.Len() < maxText && !strings.Contains(t, r.Name) {
			b.WriteByte('\n')
			b.WriteString(r.Name)
		}
		if f.Stage == stagePrepare || len(r.Name) > maxName {
			continue
		}
		for _, use := range r.Use {
			if len(c.touches) < maxTouches {
				c.touches = append(c.touches, touchID{resourceID{r.Kind, r.Name}, use})
			}
		}
	}
	c.text = b.String()
	return c
}

// stagePrepare is a command that is parsed and does not run.
const stagePrepare = "prepare"

// Bounds of what one command adds.
const (
	maxTouches = 256
	maxName    = 1024 // bytes of a resource's name
)

// maxSaid bounds the decoded commands that are remembered while one session's blocks are added.
const maxSaid = 1024

// plainRows reads the facts of rows that nobody decided about, as the gateway writes them.
func plainRows(facts []byte) (n int64, ok bool) {
	digits, ok := bytes.CutPrefix(facts, []byte(`{"rows":`))
	if !ok {
		return 0, false
	}
	digits, ok = bytes.CutSuffix(digits, []byte(`}`))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(string(digits), 10, 64)
	return n, err == nil
}
