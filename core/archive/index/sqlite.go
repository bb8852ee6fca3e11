package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	_ "modernc.org/sqlite" // the driver "sqlite"
)

const sqliteSchema = `
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
	x := newIndex(sqlite{}, readOnly)
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
		_, err = db.Exec("BEGIN IMMEDIATE;" + drop + sqliteSchema +
			fmt.Sprintf("INSERT INTO state VALUES ('stale', '%d'); PRAGMA user_version=%d; COMMIT;", version, schemaVersion))
		version = schemaVersion
	}
	if err == nil {
		err = wrongVersion(path, version)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("index: %w", err), db.Close())
	}
	x.db = db
	return nil
}

// sqlite is a file. Its transactions are immediate: there is one writer.
type sqlite struct{}

func (sqlite) bind(s string) string                { return s }
func (sqlite) text(s string) string                { return s }
func (sqlite) lock(context.Context, *sql.Tx) error { return nil }
func (sqlite) inOrder() string                     { return "CROSS JOIN" }
func (sqlite) among(query string) string           { return "IN " + query }

func (sqlite) saveText(ctx context.Context, tx *sql.Tx, sha []byte, body string) (id int64, err error) {
	if err = tx.QueryRowContext(ctx, "INSERT INTO texts(sha, body) VALUES (?,?) RETURNING id", sha, body).Scan(&id); err == nil {
		_, err = tx.ExecContext(ctx, "INSERT INTO words(rowid, body) VALUES (?,?)", id, body)
	}
	return id, err
}

func (sqlite) saveWords(ctx context.Context, tx *sql.Tx, session, words string) error {
	var part int64
	err := tx.QueryRowContext(ctx, "INSERT INTO parts(session) VALUES (?) RETURNING id", session).Scan(&part)
	if err == nil {
		_, err = tx.ExecContext(ctx, "INSERT INTO answers(rowid, body) VALUES (?,?)", part, words)
	}
	return err
}

func (sqlite) forget(ctx context.Context, tx *sql.Tx, session string) error {
	for _, s := range []string{"DELETE FROM answers WHERE rowid IN (SELECT id FROM parts WHERE session = ?)", "DELETE FROM parts WHERE session = ?"} {
		if _, err := tx.ExecContext(ctx, s, session); err != nil {
			return err
		}
	}
	return nil
}

func (sqlite) orphans(ctx context.Context, tx *sql.Tx) error {
	return execAll(ctx, tx,
		"INSERT INTO words(words, rowid, body) SELECT 'delete', id, body FROM texts WHERE id NOT IN (SELECT text FROM uses)",
		"DELETE FROM texts WHERE id NOT IN (SELECT text FROM uses)")
}

// shrink merges the tables of words, whose entries are only marked so far.
func (sqlite) shrink(ctx context.Context, x *Index) error {
	for _, table := range []string{"answers", "words"} {
		if err := x.merge(ctx, table); err != nil {
			return err
		}
	}
	return nil
}

func (sqlite) grepTexts(piece string) set {
	like := "%" + escapeLike.Replace(piece) + "%"
	s := set{
		test: `EXISTS (SELECT 1 FROM uses JOIN texts ON texts.id = uses.text WHERE uses.session = sessions.id AND texts.body LIKE ? ESCAPE '\')`, testArgs: []any{like},
		members: `SELECT session FROM texts JOIN uses ON uses.text = texts.id WHERE texts.body LIKE ? ESCAPE '\'`, args: []any{like},
	}
	if len([]rune(piece)) >= 3 { // the trigram index answers from three characters on
		s.members = `SELECT uses.session FROM words JOIN uses ON uses.text = words.rowid WHERE words MATCH ?`
		s.args = []any{`"` + strings.ReplaceAll(piece, `"`, `""`) + `"`}
		if strings.ContainsFunc(piece, func(r rune) bool { return r > 0x7f }) { // LIKE knows the case of ASCII only
			s.test, s.testArgs = "sessions.id IN ("+s.members+")", s.args
		}
	}
	return s
}

func (sqlite) grepWords(words []string) set {
	match := `"` + strings.Join(words, `" "`) + `"`
	return set{
		members: `SELECT session FROM answers JOIN parts ON parts.id = answers.rowid WHERE answers MATCH ?`, args: []any{match},
		test: `EXISTS (SELECT 1 FROM parts WHERE parts.session = sessions.id AND +parts.id IN (SELECT rowid FROM answers WHERE answers MATCH ?))`, testArgs: []any{match},
	}
}

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

var _ dialect = sqlite{}
