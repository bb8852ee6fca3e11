package index

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
)

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
			clear(x.resources)
			err = fmt.Errorf("index: %w", err)
		}
	}()
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := x.d.lock(ctx, tx); err != nil {
		return err
	}
	if err := x.current(ctx, tx); err != nil {
		return err
	}
	for id, s := range touched {
		blocks, err := x.known(ctx, tx, id)
		if err != nil {
			return err
		}
		if !anew[id] && blocks != s.saved {
			return errMoved
		}
		if anew[id] {
			if blocks > s.blocks { // a gateway beside this process has read further
				continue
			}
			if err := x.forgetOne(ctx, tx, id); err != nil {
				return err
			}
		}
		_, err = tx.ExecContext(ctx, x.d.bind(saveSession), id, x.d.text(s.identity), x.d.text(s.issuer), x.d.text(s.target), x.d.text(s.protocol), x.d.text(s.run),
			s.started, s.ended, s.commands, s.rows, s.bytes, s.denied, x.d.text(s.end), int64(s.blocks), int64(s.dec.Next()), s.dec.Partial(), s.head[:], s.chained, s.sealed)
		if err != nil {
			return err
		}
		for text, n := range s.texts {
			rowid, err := x.textID(ctx, tx, text)
			if err != nil {
				return err
			}
			if _, err := tx.ExecContext(ctx, x.d.bind("INSERT INTO uses(session, text, n) VALUES (?,?,?) ON CONFLICT (session, text) DO UPDATE SET n = uses.n + excluded.n"), id, rowid, n); err != nil {
				return err
			}
		}
		if err := x.saveTouches(ctx, tx, id, s); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	for id, s := range touched {
		clear(s.texts)
		clear(s.touches)
		s.saved = s.blocks
		if s.sealed {
			delete(x.building, id)
		}
	}
	return nil
}

// current drops what is remembered as stored where texts have been removed since, by this process or by another.
func (x *Index) current(ctx context.Context, tx *sql.Tx) error {
	var cleared int64
	if err := tx.QueryRowContext(ctx, "SELECT coalesce((SELECT CAST(value AS BIGINT) FROM state WHERE key = 'cleared'), 0)").Scan(&cleared); err != nil {
		return err
	}
	if cleared != x.cleared {
		clear(x.texts)
		clear(x.resources)
		x.cleared = cleared
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
	err := tx.QueryRowContext(ctx, x.d.bind("SELECT id FROM texts WHERE sha = ?"), key[:]).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		id, err = x.d.saveText(ctx, tx, key[:], x.d.text(text))
	}
	if err != nil {
		return 0, err
	}
	if len(x.texts) >= maxKnown {
		clear(x.texts)
	}
	x.texts[key] = id
	return id, nil
}

// saveTouches writes what a session touched, and the words of what it got back.
func (x *Index) saveTouches(ctx context.Context, tx *sql.Tx, id string, s *building) error {
	for t, at := range s.touches {
		resource, err := x.resource(ctx, tx, t.resourceID)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, x.d.bind(`INSERT INTO touches(session, resource, use, record, time) VALUES (?,?,?,?,?)
			ON CONFLICT (session, resource, use) DO UPDATE SET record = excluded.record, time = excluded.time`), id, resource, x.d.text(t.use), int64(at.record), at.time); err != nil {
			return err
		}
	}
	if len(s.answers.fresh) == 0 {
		return nil
	}
	return x.d.saveWords(ctx, tx, id, x.d.text(s.answers.take()))
}

// resource stores a resource once, and returns its number.
func (x *Index) resource(ctx context.Context, tx *sql.Tx, r resourceID) (id int64, err error) {
	if id, ok := x.resources[r]; ok {
		return id, nil
	}
	kind, name := x.d.text(r.kind), x.d.text(r.name)
	err = tx.QueryRowContext(ctx, x.d.bind("SELECT id FROM resources WHERE kind = ? AND name = ?"), kind, name).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.QueryRowContext(ctx, x.d.bind("INSERT INTO resources(kind, name, base) VALUES (?,?,?) RETURNING id"), kind, name, baseOf(name)).Scan(&id)
	}
	if err != nil {
		return 0, err
	}
	if len(x.resources) >= maxKnown {
		clear(x.resources)
	}
	x.resources[r] = id
	return id, nil
}

// forgetOne removes what the index has of a session.
func (x *Index) forgetOne(ctx context.Context, tx *sql.Tx, id string) error {
	for _, s := range []string{"DELETE FROM uses WHERE session = ?", "DELETE FROM touches WHERE session = ?", "DELETE FROM sessions WHERE id = ?"} {
		if _, err := tx.ExecContext(ctx, x.d.bind(s), id); err != nil {
			return err
		}
	}
	return x.d.forget(ctx, tx, id)
}

const saveSession = `INSERT INTO sessions
	(id, identity, issuer, target, protocol, run, started, ended, commands, rows, bytes, denied, "end", blocks, next, partial, head, chained, sealed)
	VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)
	ON CONFLICT (id) DO UPDATE SET identity = excluded.identity, issuer = excluded.issuer, target = excluded.target, protocol = excluded.protocol,
	run = excluded.run, started = excluded.started, ended = excluded.ended, commands = excluded.commands, rows = excluded.rows, bytes = excluded.bytes,
	denied = excluded.denied, "end" = excluded."end", blocks = excluded.blocks, next = excluded.next, partial = excluded.partial, head = excluded.head,
	chained = excluded.chained, sealed = excluded.sealed`
