package index

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// atOnce is how many sessions a rebuild reads for one transaction.
const atOnce = 64

// Rebuild reads every session of the store anew, and forgets those that the store does not have. What is searched meanwhile
// is the old or the new of each session. A gateway may go on adding to the same file. progress, which may be nil, is told
// how many sessions have been read.
func (x *Index) Rebuild(ctx context.Context, store core.Store, progress func(n int)) error {
	had, err := x.Targets(ctx) // before the store's: what is added meanwhile stays
	if err != nil {
		return err
	}
	var batch []string
	n := 0
	flush := func() error {
		if err := x.Again(ctx, store, batch...); err != nil {
			return err
		}
		n += len(batch)
		batch = batch[:0]
		if progress != nil {
			progress(n)
		}
		return nil
	}
	err = store.Sessions(ctx, func(id string) error {
		delete(had, id)
		batch = append(batch, id)
		if len(batch) < atOnce {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return err
	}
	gone := make([]string, 0, len(had))
	for id := range had {
		gone = append(gone, id)
	}
	if err := x.Forget(ctx, gone...); err != nil {
		return err
	}
	if _, err := x.db.ExecContext(ctx, "DELETE FROM state WHERE key = 'stale'"); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// Again reads some sessions of the store anew.
func (x *Index) Again(ctx context.Context, store core.Store, sessions ...string) error {
	for list := range slices.Chunk(sessions, atOnce) {
		batch := make([]core.Block, len(list))
		x.mu.Lock()
		for i, id := range list {
			delete(x.building, id)
			batch[i].Header = core.BlockHeader{Session: id, Number: behindAll}
		}
		x.mu.Unlock()
		if err := x.Add(ctx, store, batch); err != nil {
			return err
		}
	}
	return nil
}

// behindAll is the number of a block that stands for "something is missing": its session is read anew.
const behindAll = 1 << 62

// Targets returns the target of every session.
func (x *Index) Targets(ctx context.Context) (map[string]string, error) {
	rows, err := x.db.QueryContext(ctx, "SELECT id, target FROM sessions")
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	out := map[string]string{}
	for rows.Next() {
		var id, target string
		if err := rows.Scan(&id, &target); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		out[id] = target
	}
	return out, rows.Err()
}

// Forget removes sessions, and the texts and resources that were theirs alone: nothing of them is left in the file.
func (x *Index) Forget(ctx context.Context, sessions ...string) error {
	if x.readOnly {
		return errors.New("index: open for reading only")
	}
	for rest := sessions; len(rest) > 0; {
		n := min(len(rest), forgetAtOnce)
		if err := x.forget(ctx, rest[:n]); err != nil {
			return fmt.Errorf("index: %w", err)
		}
		rest = rest[n:]
	}
	if len(sessions) == 0 {
		return nil
	}
	if err := x.d.shrink(ctx, x); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

const forgetAtOnce = 1000

func (x *Index) forget(ctx context.Context, sessions []string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := x.d.lock(ctx, tx); err != nil {
		return err
	}
	for _, id := range sessions {
		delete(x.building, id)
		if err := x.forgetOne(ctx, tx, id); err != nil {
			return err
		}
	}
	if err := x.d.orphans(ctx, tx); err != nil {
		return err
	}
	if err := execAll(ctx, tx,
		"DELETE FROM resources WHERE id NOT IN (SELECT resource FROM touches)",
		"INSERT INTO state VALUES ('cleared', '1') ON CONFLICT (key) DO UPDATE SET value = CAST(CAST(state.value AS BIGINT) + 1 AS TEXT)"); err != nil {
		return err
	}
	return tx.Commit()
}

// merge rewrites a full-text table without what was removed from it, a piece at a time, so that blocks are added in between.
func (x *Index) merge(ctx context.Context, table string) error {
	const pages = 500
	for n := -pages; ; n = pages { // the first, negative one says that all of the table is meant (SQLite, FTS5, 6.8)
		x.mu.Lock()
		done, err := x.mergeOnce(ctx, table, n)
		x.mu.Unlock()
		if done || err != nil {
			return err
		}
	}
}

func (x *Index) mergeOnce(ctx context.Context, table string, pages int) (done bool, err error) {
	c, err := x.db.Conn(ctx)
	if err != nil {
		return false, err
	}
	defer c.Close()
	var before, after int64
	if err := c.QueryRowContext(ctx, "SELECT total_changes()").Scan(&before); err != nil {
		return false, err
	}
	if _, err := c.ExecContext(ctx, "INSERT INTO "+table+"("+table+", rank) VALUES ('merge', ?)", pages); err != nil {
		return false, err
	}
	if err := c.QueryRowContext(ctx, "SELECT total_changes()").Scan(&after); err != nil {
		return false, err
	}
	return after-before < 2, nil
}

// Lacks returns those of some sessions that the index does not list; at most a thousand may be asked for at a time.
func (x *Index) Lacks(ctx context.Context, sessions []string) (lacks []string, err error) {
	if len(sessions) == 0 {
		return nil, nil
	}
	args := make([]any, len(sessions))
	for i, id := range sessions {
		args[i] = id
	}
	rows, err := x.db.QueryContext(ctx, x.d.bind("SELECT id FROM sessions WHERE id IN (?"+strings.Repeat(",?", len(args)-1)+")"), args...)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	has := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		has[id] = true
	}
	for _, id := range sessions {
		if !has[id] {
			lacks = append(lacks, id)
		}
	}
	return lacks, rows.Err()
}

// Open returns sessions that began in a time, or nobody knows when, and that the index has no seal of, the oldest first.
func (x *Index) Open(ctx context.Context, since, until time.Time, most int) ([]string, error) {
	return x.some(ctx, "NOT sealed", since, until, most)
}

// Unread returns sessions that began in a time, or nobody knows when, and of which nothing could be read, the oldest first.
func (x *Index) Unread(ctx context.Context, since, until time.Time, most int) ([]string, error) {
	return x.some(ctx, "protocol = ''", since, until, most)
}

func (x *Index) some(ctx context.Context, cond string, since, until time.Time, most int) (ids []string, err error) {
	rows, err := x.db.QueryContext(ctx, x.d.bind("SELECT id FROM sessions WHERE (started >= ? OR started = 0) AND started < ? AND "+cond+" ORDER BY started LIMIT ?"), since.UnixNano(), until.UnixNano(), most)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}
