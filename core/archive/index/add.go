package index

import (
	"bytes"
	"context"
	"crypto/sha256"
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
	blocks                                  uint64
	head                                    [32]byte
	chained, sealed                         bool
	gap                                     bool              // the store has blocks that come after one it has not
	texts                                   map[string]int64  // new uses by text
	said                                    map[string]string // facts of a command, without parameters -> its text
}

// Add takes blocks that store holds. A block seen before changes nothing; where blocks in between are missing, or the
// process was restarted in the middle of a session, the session is read anew from the store.
func (x *Index) Add(ctx context.Context, store core.Store, blocks []core.Block) error {
	if x.readOnly {
		return errors.New("index: open for reading only")
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	touched := map[string]*building{}
	anew := map[string]bool{}
	for i := range blocks {
		b := &blocks[i]
		id := b.Header.Session
		if anew[id] {
			continue
		}
		s := x.building[id]
		if s == nil {
			blocks, err := x.known(ctx, id)
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
			s = newBuilding()
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
		s := newBuilding()
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

// known returns how many blocks of a session are in the index.
func (x *Index) known(ctx context.Context, id string) (n uint64, err error) {
	err = x.db.QueryRowContext(ctx, "SELECT blocks FROM sessions WHERE id = ?", id).Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("index: %w", err)
	}
	return n, nil
}

func newBuilding() *building {
	return &building{dec: ledger.Decoder{Passing: true}, decodes: true, chained: true, texts: map[string]int64{}}
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
	err = s.dec.Decode(&h, func(r *core.Record, _ time.Duration) error {
		s.record(r)
		return nil
	})
	if err != nil {
		s.decodes, s.chained = false, false
	}
	if seal := s.dec.Seal(); h.Seal && seal != nil {
		s.sealed = true
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
		return
	case core.KindCommand:
		s.commands++
		s.text(r.Facts)
	case core.KindRows:
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
	if bytes.Contains(r.Facts, []byte(`"denied":{`)) {
		var f struct {
			Denied *core.Denial `json:"denied"`
		}
		if json.Unmarshal(r.Facts, &f) == nil && f.Denied != nil {
			s.denied++
		}
	}
}

func (s *building) text(facts []byte) {
	// A prepared statement comes again and again with other parameters: it is decoded once. The separator cannot stand
	// inside a JSON string, where its quotation marks would be escaped.
	said, _, _ := bytes.Cut(facts, []byte(`,"params":[`))
	if t, ok := s.said[string(said)]; ok {
		s.texts[t]++
		return
	}
	var f struct {
		Command struct {
			Action    string          `json:"action"`
			Text      string          `json:"text"`
			Resources []core.Resource `json:"resources"`
		} `json:"command"`
	}
	if json.Unmarshal(facts, &f) != nil {
		return
	}
	t := f.Command.Text
	if t == "" {
		t = f.Command.Action
	}
	if len(t) > maxText {
		t = strings.ToValidUTF8(t[:maxText], "")
	}
	var b strings.Builder
	b.WriteString(t)
	for _, r := range f.Command.Resources {
		if b.Len() < maxText && !strings.Contains(t, r.Name) {
			b.WriteByte('\n')
			b.WriteString(r.Name)
		}
	}
	t = b.String()
	s.texts[t]++
	if len(s.said) < maxSaid {
		if s.said == nil {
			s.said = map[string]string{}
		}
		s.said[string(said)] = t
	}
}

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

// save writes what has been read, all at once.
func (x *Index) save(ctx context.Context, touched map[string]*building, anew map[string]bool) (err error) {
	if len(touched) == 0 {
		return nil
	}
	defer func() {
		if err != nil { // what is in memory is ahead of the file: read those sessions anew
			for id := range touched {
				delete(x.building, id)
			}
			clear(x.texts)
			err = fmt.Errorf("index: %w", err)
		}
	}()
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	for id, s := range touched {
		if anew[id] {
			if _, err := tx.ExecContext(ctx, "DELETE FROM uses WHERE session = ?", id); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT OR REPLACE INTO sessions
			(id, identity, issuer, target, protocol, run, started, ended, commands, rows, bytes, denied, end, blocks, next, partial, head, chained, sealed)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)`,
			id, s.identity, s.issuer, s.target, s.protocol, s.run, s.started, s.ended, s.commands, s.rows, s.bytes, s.denied, s.end,
			int64(s.blocks), int64(s.dec.Next()), s.dec.Partial(), s.head[:], s.chained, s.sealed)
		if err != nil {
			return err
		}
		for text, n := range s.texts {
			rowid, err := x.textID(ctx, tx, text)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, "INSERT INTO uses(session, text, n) VALUES (?,?,?) ON CONFLICT DO UPDATE SET n = n + excluded.n", id, rowid, n); err != nil {
				return err
			}
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for id, s := range touched {
		clear(s.texts)
		if s.sealed {
			delete(x.building, id)
		}
	}
	return nil
}

// textID stores a text once, and returns its number.
func (x *Index) textID(ctx context.Context, tx *sql.Tx, text string) (int64, error) {
	sum := sha256.Sum256([]byte(text))
	key := [16]byte(sum[:16])
	if id, ok := x.texts[key]; ok {
		return id, nil
	}
	var id int64
	err := tx.QueryRowContext(ctx, "SELECT id FROM texts WHERE sha = ?", key[:]).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		res, err := tx.ExecContext(ctx, "INSERT INTO texts(sha, body) VALUES (?,?)", key[:], text)
		if err != nil {
			return 0, err
		}
		if id, err = res.LastInsertId(); err != nil {
			return 0, err
		}
		if _, err := tx.ExecContext(ctx, "INSERT INTO words(rowid, body) VALUES (?,?)", id, text); err != nil {
			return 0, err
		}
	} else if err != nil {
		return 0, err
	}
	if len(x.texts) >= maxKnown {
		clear(x.texts)
	}
	x.texts[key] = id
	return id, nil
}

// Rebuild empties the index and reads every session of the store.
func (x *Index) Rebuild(ctx context.Context, store core.Store) error {
	if x.readOnly {
		return errors.New("index: open for reading only")
	}
	x.mu.Lock()
	_, err := x.db.ExecContext(ctx, `BEGIN; DELETE FROM sessions; DELETE FROM uses; DELETE FROM texts;
		INSERT INTO words(words) VALUES ('delete-all'); COMMIT;`)
	clear(x.building)
	clear(x.texts)
	x.mu.Unlock()
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return store.Sessions(ctx, func(id string) error {
		return x.Add(ctx, store, []core.Block{{Header: core.BlockHeader{Session: id, Number: 1 << 62}}}) // "something is missing"
	})
}
