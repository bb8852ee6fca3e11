// Package index finds sessions: by who and when, by what they touched, and by the full text of their commands and of what
// came back.
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
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/weir-gateway/weir/core"
)

// schemaVersion is raised whenever the tables change. An index of an earlier version is emptied and read anew.
const schemaVersion = 2

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
CREATE INDEX sessions_denied ON sessions(started) WHERE denied > 0;
CREATE INDEX sessions_run ON sessions(run) WHERE run <> '';
CREATE TABLE texts (id INTEGER PRIMARY KEY, sha BLOB NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE TABLE uses (session TEXT NOT NULL, text INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (session, text)) WITHOUT ROWID;
CREATE INDEX uses_text ON uses(text);
CREATE VIRTUAL TABLE words USING fts5(body, content='texts', content_rowid='id', tokenize='trigram');
CREATE TABLE resources (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, base TEXT NOT NULL, UNIQUE (kind, name));
CREATE INDEX resources_name ON resources(name);
CREATE INDEX resources_base ON resources(base);
CREATE TABLE touches (
  session TEXT NOT NULL, resource INTEGER NOT NULL, use TEXT NOT NULL, record INTEGER NOT NULL, time INTEGER NOT NULL,
  PRIMARY KEY (session, resource, use)
) WITHOUT ROWID;
CREATE INDEX touches_resource ON touches(resource, use, time);
CREATE TABLE parts (id INTEGER PRIMARY KEY, session TEXT NOT NULL);
CREATE INDEX parts_session ON parts(session);
CREATE VIRTUAL TABLE answers USING fts5(body, content='', contentless_delete=1, detail=none, tokenize="ascii tokenchars '@._+-:/'");
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
`

// drop empties a file of any earlier version.
const drop = `
DROP TABLE IF EXISTS words; DROP TABLE IF EXISTS answers; DROP TABLE IF EXISTS sessions; DROP TABLE IF EXISTS texts;
DROP TABLE IF EXISTS uses; DROP TABLE IF EXISTS resources; DROP TABLE IF EXISTS touches; DROP TABLE IF EXISTS parts;
DROP TABLE IF EXISTS state;
`

// Index is an open index. Safe for concurrent use.
type Index struct {
	db       *sql.DB
	readOnly bool

	readers func(protocol string) core.Reader

	mu        sync.Mutex // one writer
	building  map[string]*building
	texts     map[[16]byte]int64   // some that are known to be stored
	resources map[resourceID]int64 // the same
	cleared   int64                // how often texts had been removed when those were noted
}

// Query says which sessions are wanted. Zero fields do not restrict.
type Query struct {
	IDs                             []string // only these sessions, at most 1000; none: all
	Identity, Target, Protocol, Run string
	Except                          string    // a protocol whose sessions are left out
	Since, Until                    time.Time // of the start
	// Grep stands in a command's text or in the name of something it touches; or each of its words is a word of what the
	// session sent as parameters or got back. Case does not matter.
	Grep string
	// Resource was touched by a command that was not refused, in the way Use: its whole name, or what follows the last
	// dot. A name that a command gave without a schema stands for every schema's.
	Resource, Use string
	Denied        bool // only sessions with something denied
	Limit         int  // default 1000
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
	x := &Index{readOnly: readOnly, building: map[string]*building{}, texts: map[[16]byte]int64{}, resources: map[resourceID]int64{}}
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
		q += "&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=secure_delete(1)&_txlock=immediate"
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String()+q)
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	var version int
	if err = db.QueryRow("PRAGMA user_version").Scan(&version); err == nil && version < schemaVersion && !x.readOnly {
		_, err = db.Exec("BEGIN IMMEDIATE;" + drop + schema +
			fmt.Sprintf("INSERT INTO state VALUES ('stale', '%d'); PRAGMA user_version=%d; COMMIT;", version, schemaVersion))
		version = schemaVersion
	}
	switch {
	case err == nil && version < schemaVersion:
		err = fmt.Errorf("%s is of an earlier version (%d): start the gateway, or run: weir index rebuild", path, version)
	case err == nil && version > schemaVersion:
		err = fmt.Errorf("%s was made by a later build (version %d, this one knows %d): use that build, or delete the file and run: weir index rebuild", path, version, schemaVersion)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("index: %w", err), db.Close())
	}
	x.db = db
	return nil
}

// Close closes the index.
func (x *Index) Close() error { return x.db.Close() }

// Stale reports whether sessions that the archive holds may be missing, because the file is new or was of an earlier
// version, and what it was of: 0 says that there was none. Rebuild ends it.
func (x *Index) Stale(ctx context.Context) (was int, stale bool, err error) {
	err = x.db.QueryRowContext(ctx, "SELECT value FROM state WHERE key = 'stale'").Scan(&was)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, false, nil
	case err != nil:
		return 0, false, fmt.Errorf("index: %w", err)
	}
	return was, true, nil
}

// Read says who can read the recorded bytes of a protocol; without it rows cannot be searched. It is called before the
// first Add.
func (x *Index) Read(readers func(protocol string) core.Reader) { x.readers = readers }
