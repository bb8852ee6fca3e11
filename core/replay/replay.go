// Package replay shows a recorded session to a person or a program: as a timeline, as the loop saw it, or as one JSON
// object a record. It reads a store and nothing else.
package replay

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// Options of Show, Text and JSON.
type Options struct {
	// Speed is how many times faster than recorded Text plays; 0: as fast as possible.
	Speed float64
	// MaxGap bounds a pause of Text, in recorded time. 0: as recorded.
	MaxGap time.Duration
	// Follow waits for more until the session is sealed.
	Follow bool
	// Reader renders wire bytes; nil shows their size only.
	Reader core.Reader
	// Player shows a session of its protocol as Playing says; nil: Text shows it in the way that all share.
	Player  core.Player
	Playing core.Playing
	// Color marks what was denied, and errors, with terminal colours.
	Color bool
	// Width is the length of a line to which texts are shortened; 0: 100 characters of text.
	Width int
}

const (
	pollEvery = 250 * time.Millisecond
	maxShown  = 1 << 20 // bytes of one text that are looked at for display
)

// Records returns the records of a session in order. It ends with an error where the session cannot be read on.
func Records(ctx context.Context, store core.Store, id string) iter.Seq2[*core.Record, error] {
	return func(yield func(*core.Record, error) bool) {
		w := walker{store: store, id: id}
		err := w.walk(ctx, func(r *core.Record) error {
			if !yield(r, nil) {
				return errStop
			}
			return nil
		})
		if err != nil && !errors.Is(err, errStop) {
			yield(nil, err)
		}
	}
}

var errStop = errors.New("replay: no more wanted")

// walker reads a session and can go on where it stopped.
type walker struct {
	store core.Store
	id    string
	dec   ledger.Decoder
	next  uint64
}

// walk calls f with the records of the blocks that were not there the last time.
func (w *walker) walk(ctx context.Context, f func(*core.Record) error) error {
	return w.store.Blocks(ctx, w.id, func(b core.Block) error {
		if b.Header.Number < w.next {
			return nil
		}
		h, err := ledger.ParseBlock(b.Bytes)
		if err != nil {
			return fmt.Errorf("replay: session %s, block %d: %w", w.id, w.next, err)
		}
		if h.Number != w.next || h.Session != w.id {
			return fmt.Errorf("replay: session %s: block %d is missing", w.id, w.next)
		}
		if h.Codec == 0 { // a raw payload points into the block, which is valid until f returns
			h.Stored = append([]byte(nil), h.Stored...)
		}
		if err := w.dec.Decode(&h, func(r *core.Record, _ time.Duration) error { return f(r) }); err != nil {
			if errors.Is(err, errStop) {
				return err
			}
			return fmt.Errorf("replay: %w", err)
		}
		w.next++
		return nil
	})
}

// all calls f with every record, and with Follow waits for those to come until the session is sealed.
func (w *walker) all(ctx context.Context, follow bool, f func(*core.Record) error) error {
	for {
		err := w.walk(ctx, f)
		if !follow || w.dec.Seal() != nil || (err != nil && !errors.Is(err, core.ErrNoSession)) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

// line is one record as JSON.
type line struct {
	Session   string          `json:"session"`
	Seq       uint64          `json:"seq"`
	Time      time.Time       `json:"time"`
	Kind      string          `json:"kind"`
	Direction string          `json:"direction"`
	Facts     json.RawMessage `json:"facts"`
	Decisions []core.Decision `json:"decisions,omitempty"`
	Wire      []byte          `json:"wire,omitempty"` // base64
}

// JSON writes one object a record, a line each; the last line is the session's seal if it has one:
// {"session", "seal": {"end", "records", "blocks", "root", "time"}}.
func JSON(ctx context.Context, out io.Writer, store core.Store, id string, o Options) error {
	w := walker{store: store, id: id}
	buf := bufio.NewWriterSize(out, 64<<10)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	err := w.all(ctx, o.Follow, func(r *core.Record) error {
		l := line{Session: id, Seq: r.Seq, Time: r.Time, Kind: r.Kind.String(), Direction: r.Direction.String(), Facts: r.Facts, Decisions: r.Decisions, Wire: r.Wire}
		if !json.Valid(l.Facts) {
			l.Facts = json.RawMessage(`{}`)
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
		if o.Follow {
			return buf.Flush()
		}
		return nil
	})
	if s := w.dec.Seal(); s != nil && err == nil {
		err = enc.Encode(map[string]any{"session": id, "seal": map[string]any{
			"end": s.End, "records": s.Records, "blocks": s.Blocks, "root": fmt.Sprintf("%x", s.Root), "time": s.Time,
		}})
	}
	return errors.Join(err, buf.Flush())
}
