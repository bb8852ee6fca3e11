// Package index finds sessions: by who, what, when, and by the full text of their commands.
//
// It is one SQLite file, derived from the archive. It can be deleted and rebuilt, and is never evidence.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/weir-gateway/weir/core"
)

const schemaVersion = 1

const schema = `
CREATE TABLE sessions (
  id TEXT PRIMARY KEY, identity TEXT NOT NULL DEFAULT '', issuer TEXT NOT NULL DEFAULT '', target TEXT NOT NULL DEFAULT '',
  protocol TEXT NOT NULL DEFAULT '', run TEXT NOT NULL DEFAULT '', started INTEGER NOT NULL DEFAULT 0, ended INTEGER NOT NULL DEFAULT 0,
  commands INTEGER NOT NULL DEFAULT 0, rows INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, denied INTEGER NOT NULL DEFAULT 0,
  end TEXT NOT NULL DEFAULT '', blocks INTEGER NOT NULL DEFAULT 0, next INTEGER NOT NULL DEFAULT 0, partial INTEGER NOT NULL DEFAULT 0,
  head BLOB, chained INTEGER NOT NULL DEFAULT 1, sealed INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX sessions_started ON sessions(started);
CREATE INDEX sessions_identity ON sessions(identity, started);
CREATE INDEX sessions_target ON sessions(target, started);
CREATE INDEX sessions_run ON sessions(run) WHERE run <> '';
CREATE TABLE texts (id INTEGER PRIMARY KEY, sha BLOB NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE uses (session TEXT NOT NULL, text INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (session, text)) WITHOUT ROWID;
CREATE INDEX uses_text ON uses(text);
CREATE VIRTUAL TABLE words USING fts5(body, content='texts', content_rowid='id', tokenize='trigram');
`

// Index is an open index. Safe for concurrent use.
type Index struct {
	db       *sql.DB
	readOnly bool

	mu       sync.Mutex // one writer
	building map[string]*building
	texts    map[[16]byte]int64 // some that are known to be stored
}

// Query says which sessions are wanted. Zero fields do not restrict.
type Query struct {
	Identity, Target, Protocol, Run string
	Since, Until                    time.Time // of the start
	Grep                            string    // in a command's text or what it touches; case does not matter
	Denied                          bool      // only sessions with something denied
	Limit                           int       // default 1000
}

// Session is one line of the answer.
type Session struct {
	ID       string     `json:"id"`
	Identity string     `json:"identity"`
	Target   string     `json:"target"`
	Protocol string     `json:"protocol"`
	Run      string     `json:"run"`
	Started  time.Time  `json:"started"`
	Ended    *time.Time `json:"ended"` // nil: still open
	Commands int64      `json:"commands"`
	Rows     int64      `json:"rows"`
	Denied   int64      `json:"denied"`
	End      string     `json:"end"`
	// Verified says that the session's chain was whole up to its seal when it was archived. Only `weir verify` is proof.
	Verified bool `json:"verified"`
}

// Open opens the index at path, and makes it when it is not there. Read-only it may be opened beside a gateway that
// writes it.
func Open(path string, readOnly bool) (*Index, error) {
	if !readOnly {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite gives its side files the same mode
		if err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		f.Close()
	} else if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	x := &Index{readOnly: readOnly, building: map[string]*building{}, texts: map[[16]byte]int64{}}
	if err := x.connect(path, ""); err != nil {
		if !readOnly {
			return nil, err
		}
		// A directory that cannot be written has no room for SQLite's side files; nobody writes there either.
		if again := x.connect(path, "&immutable=1"); again != nil {
			return nil, err
		}
	}
	return x, nil
}

func (x *Index) connect(path, more string) error {
	q := "?_pragma=busy_timeout(5000)"
	if x.readOnly {
		q += "&mode=ro" + more
	} else {
		q += "&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_txlock=immediate"
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String()+q)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	var version int
	if err = db.QueryRow("PRAGMA user_version").Scan(&version); err == nil && version == 0 && !x.readOnly {
		_, err = db.Exec("BEGIN;" + schema + fmt.Sprintf("PRAGMA user_version=%d;COMMIT;", schemaVersion))
		version = schemaVersion
	}
	if err == nil && version != schemaVersion {
		err = fmt.Errorf("%s is of version %d, this build needs %d: delete it and run: weir index rebuild", path, version, schemaVersion)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("index: %w", err), db.Close())
	}
	x.db = db
	return nil
}

// Close closes the index.
func (x *Index) Close() error { return x.db.Close() }

const columns = `id, identity, target, protocol, run, started, ended, commands, rows, denied, end, chained AND sealed`

// Sessions returns the sessions that match, the newest first.
func (x *Index) Sessions(ctx context.Context, q Query) ([]Session, error) {
	var where []string
	var args []any
	add := func(cond string, arg ...any) {
		where = append(where, cond)
		args = append(args, arg...)
	}
	for _, f := range []struct{ column, value string }{{"identity", q.Identity}, {"target", q.Target}, {"protocol", q.Protocol}, {"run", q.Run}} {
		if f.value != "" {
			add(f.column+" = ?", f.value)
		}
	}
	if !q.Since.IsZero() {
		add("started >= ?", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		add("started < ?", q.Until.UnixNano())
	}
	if q.Denied {
		add("denied > 0")
	}
	if q.Grep != "" {
		if len([]rune(q.Grep)) >= 3 { // the trigram index answers from three characters on
			add("id IN (SELECT session FROM uses WHERE text IN (SELECT rowid FROM words WHERE words MATCH ?))", `"`+strings.ReplaceAll(q.Grep, `"`, `""`)+`"`)
		} else {
			add(`id IN (SELECT session FROM uses WHERE text IN (SELECT id FROM texts WHERE body LIKE ? ESCAPE '\'))`, "%"+escapeLike.Replace(q.Grep)+"%")
		}
	}
	s := "SELECT " + columns + " FROM sessions"
	if len(where) > 0 {
		s += " WHERE " + strings.Join(where, " AND ")
	}
	if q.Limit <= 0 {
		q.Limit = 1000
	}
	s += " ORDER BY started DESC, id DESC LIMIT ?"
	return x.query(ctx, s, append(args, q.Limit)...)
}

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

// Session returns one session, or an error that wraps core.ErrNoSession.
func (x *Index) Session(ctx context.Context, id string) (Session, error) {
	all, err := x.query(ctx, "SELECT "+columns+" FROM sessions WHERE id = ?", id)
	if err != nil {
		return Session{}, err
	}
	if len(all) == 0 {
		return Session{}, fmt.Errorf("index: %s: %w", id, core.ErrNoSession)
	}
	return all[0], nil
}

func (x *Index) query(ctx context.Context, s string, args ...any) ([]Session, error) {
	rows, err := x.db.QueryContext(ctx, s, args...)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	out := []Session{}
	for rows.Next() {
		var v Session
		var started, ended int64
		if err := rows.Scan(&v.ID, &v.Identity, &v.Target, &v.Protocol, &v.Run, &started, &ended, &v.Commands, &v.Rows, &v.Denied, &v.End, &v.Verified); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		v.Started = time.Unix(0, started).UTC()
		if ended != 0 {
			t := time.Unix(0, ended).UTC()
			v.Ended = &t
		}
		out = append(out, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	return out, nil
}
