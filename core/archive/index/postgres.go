package index

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// Postgres says where the database is whose schema holds the index. The role owns the schema, or may make it; the extension
// pg_trgm has to be there, or the role may make it.
type Postgres struct {
	Address, Database, Schema string // Schema: default weir_index
	User, Password            string
	TLS                       *tls.Config // nil: none
}

const (
	postgresConns   = 4
	postgresTime    = 10 * time.Second // to connect
	statementTime   = "60s"            // of one statement
	defaultSchema   = "weir_index"
	writers         = 0x7765697269647821 // the advisory lock of those who write
	insufficient    = "42501"            // insufficient_privilege
	undefinedObject = "58P01"            // undefined_file: an extension that is not installed
)

const postgresSchema = `
CREATE TABLE sessions (
  id TEXT PRIMARY KEY, identity TEXT NOT NULL, issuer TEXT NOT NULL, target TEXT NOT NULL, protocol TEXT NOT NULL, run TEXT NOT NULL,
  started BIGINT NOT NULL, ended BIGINT NOT NULL, commands BIGINT NOT NULL, rows BIGINT NOT NULL, bytes BIGINT NOT NULL, denied BIGINT NOT NULL,
  "end" TEXT NOT NULL, blocks BIGINT NOT NULL, next BIGINT NOT NULL, partial BOOLEAN NOT NULL, head BYTEA, chained BOOLEAN NOT NULL, sealed BOOLEAN NOT NULL
);
CREATE INDEX sessions_started ON sessions(started);
CREATE INDEX sessions_identity ON sessions(identity, started);
CREATE INDEX sessions_target ON sessions(target, started);
CREATE INDEX sessions_denied ON sessions(started) WHERE denied > 0;
CREATE INDEX sessions_run ON sessions(run) WHERE run <> '';
CREATE TABLE texts (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sha BYTEA NOT NULL UNIQUE, body TEXT NOT NULL);
CREATE INDEX texts_body ON texts USING gin (body gin_trgm_ops);
CREATE TABLE uses (session TEXT NOT NULL, text BIGINT NOT NULL, n BIGINT NOT NULL, PRIMARY KEY (session, text));
CREATE INDEX uses_text ON uses(text);
CREATE TABLE resources (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, kind TEXT NOT NULL, name TEXT NOT NULL, base TEXT NOT NULL, UNIQUE (kind, name));
CREATE INDEX resources_name ON resources(name);
CREATE INDEX resources_base ON resources(base);
CREATE TABLE touches (
  session TEXT NOT NULL, resource BIGINT NOT NULL, use TEXT NOT NULL, record BIGINT NOT NULL, time BIGINT NOT NULL,
  PRIMARY KEY (session, resource, use)
);
CREATE INDEX touches_resource ON touches(resource, use, time);
CREATE TABLE parts (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, session TEXT NOT NULL, words TEXT[] NOT NULL);
CREATE INDEX parts_session ON parts(session);
CREATE INDEX parts_words ON parts USING gin (words);
CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL);
`

// OpenPostgres opens the index in a database, and makes it when it is not there. Many may have it open, and write.
func OpenPostgres(ctx context.Context, o Postgres, readOnly bool) (*Index, error) {
	c, err := pgx.ParseConfig("")
	if err != nil {
		return nil, errors.New("index: the environment holds settings of PostgreSQL that cannot be read (PGHOST and the like)")
	}
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("index: the port of %s: %w", o.Address, err)
	}
	if o.Schema == "" {
		o.Schema = defaultSchema
	}
	schema := pgx.Identifier{o.Schema}.Sanitize()
	c.Host, c.Port, c.Database, c.User, c.Password, c.TLSConfig, c.Fallbacks = host, uint16(n), o.Database, o.User, o.Password, o.TLS, nil
	c.ConnectTimeout = postgresTime
	c.RuntimeParams = map[string]string{"application_name": "weir index", "search_path": schema + ", public", "statement_timeout": statementTime}
	if readOnly {
		c.RuntimeParams["default_transaction_read_only"] = "on"
	}
	db := stdlib.OpenDB(*c)
	db.SetMaxOpenConns(postgresConns)
	db.SetConnMaxIdleTime(time.Minute)
	x := newIndex(postgres{o.Schema}, readOnly)
	x.db = db
	if err := x.prepare(ctx, schema, o); err != nil {
		return nil, errors.Join(fmt.Errorf("index: %s, database %s: %w", o.Address, o.Database, err), db.Close())
	}
	return x, nil
}

// prepare sees to the tables.
func (x *Index) prepare(ctx context.Context, schema string, o Postgres) error {
	version, err := x.postgresVersion(ctx, x.db)
	if err != nil {
		return err
	}
	if version >= schemaVersion || x.readOnly {
		return wrongVersion("the schema "+o.Schema, version)
	}
	tx, err := x.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after a commit it does nothing
	if err := x.d.lock(ctx, tx); err != nil {
		return err
	}
	if version, err = x.postgresVersion(ctx, tx); err != nil {
		return err
	}
	if version < schemaVersion {
		if err := execAll(ctx, tx, "CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public"); err != nil {
			return hinted(err, "an administrator has to run CREATE EXTENSION pg_trgm in this database first (it comes with PostgreSQL, in many distributions as postgresql-contrib)")
		}
		if err := execAll(ctx, tx, "DROP SCHEMA IF EXISTS "+schema+" CASCADE", "CREATE SCHEMA "+schema); err != nil {
			return hinted(err, "the role has to own the schema, or be allowed to make one: GRANT CREATE ON DATABASE")
		}
		for s := range strings.SplitSeq(postgresSchema, ";\n") {
			if strings.TrimSpace(s) == "" {
				continue
			}
			if err := execAll(ctx, tx, s); err != nil {
				return err
			}
		}
		if err := execAll(ctx, tx, fmt.Sprintf("INSERT INTO state VALUES ('version', '%d'), ('stale', '%d')", schemaVersion, version)); err != nil {
			return err
		}
		version = schemaVersion
	}
	return errors.Join(wrongVersion("the schema "+o.Schema, version), tx.Commit())
}

// hinted adds what to do to an error that says that the role may not, or that something is not there.
func hinted(err error, hint string) error {
	var refused *pgconn.PgError
	if errors.As(err, &refused) && (refused.Code == insufficient || refused.Code == undefinedObject) {
		return fmt.Errorf("%w: %s", err, hint)
	}
	return err
}

// Belongs makes the index that of one archive, and is an error where it is that of another: a rebuild would forget the other's
// sessions.
func (x *Index) Belongs(ctx context.Context, archive string) error {
	var to string
	_, err := x.db.ExecContext(ctx, x.d.bind("INSERT INTO state VALUES ('archive', ?) ON CONFLICT (key) DO NOTHING"), archive)
	if err == nil {
		err = x.db.QueryRowContext(ctx, "SELECT value FROM state WHERE key = 'archive'").Scan(&to)
	}
	if err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if to != archive {
		return fmt.Errorf("index: it is the index of the archive whose log is %s, not of %s: give each archive a schema of its own (index.postgres.schema)", to, archive)
	}
	return nil
}

func (x *Index) postgresVersion(ctx context.Context, db queryer) (version int, err error) {
	var there bool
	err = db.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'state')", x.d.(postgres).schema).Scan(&there)
	if err == nil && there {
		err = db.QueryRowContext(ctx, "SELECT value FROM state WHERE key = 'version'").Scan(&version)
	}
	return version, err
}

// postgres is a schema of a database.
type postgres struct{ schema string }

func (postgres) bind(s string) string { return numbered(s) }
func (postgres) inOrder() string      { return "JOIN" }

// among makes an array of the query's answer: of IN the planner would think that half of the table fits, and read all of it.
func (postgres) among(query string) string { return "= ANY(ARRAY" + query + ")" }

// text leaves out what PostgreSQL stores in no text.
func (postgres) text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", ""), "\uFFFD")
}

// lock has one writer at a time, as SQLite has: a batch is written in milliseconds, and a session that two workers have is
// written by the one that knows more of it.
func (p postgres) lock(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock(hashtextextended($1, $2))", p.schema, int64(writers))
	return err
}

// saveText stores the text in lower case: it is only searched, and this way no collation has a say.
func (postgres) saveText(ctx context.Context, tx *sql.Tx, sha []byte, body string) (id int64, err error) {
	err = tx.QueryRowContext(ctx, "INSERT INTO texts(sha, body) VALUES ($1,$2) RETURNING id", sha, strings.ToLower(body)).Scan(&id)
	return id, err
}

func (postgres) saveWords(ctx context.Context, tx *sql.Tx, session, words string) error {
	_, err := tx.ExecContext(ctx, "INSERT INTO parts(session, words) VALUES ($1,$2)", session, strings.Fields(words))
	return err
}

func (postgres) forget(ctx context.Context, tx *sql.Tx, session string) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM parts WHERE session = $1", session)
	return err
}

func (postgres) orphans(ctx context.Context, tx *sql.Tx) error {
	return execAll(ctx, tx, "DELETE FROM texts WHERE NOT EXISTS (SELECT 1 FROM uses WHERE uses.text = texts.id)")
}

// shrink vacuums: what was removed can then be read by no statement and no tool of PostgreSQL's.
func (postgres) shrink(ctx context.Context, x *Index) error {
	for _, table := range []string{"texts", "parts", "uses", "touches", "sessions"} {
		if _, err := x.db.ExecContext(ctx, "VACUUM "+table); err != nil {
			return err
		}
	}
	return nil
}

func (postgres) grepTexts(piece string) set {
	like := []any{"%" + escapeLike.Replace(strings.ToLower(piece)) + "%"}
	return set{
		members: `SELECT session FROM texts JOIN uses ON uses.text = texts.id WHERE texts.body LIKE ? ESCAPE '\'`, args: like,
		test: `EXISTS (SELECT 1 FROM uses JOIN texts ON texts.id = uses.text WHERE uses.session = sessions.id AND texts.body LIKE ? ESCAPE '\')`, testArgs: like,
	}
}

func (postgres) grepWords(words []string) set {
	return set{
		members: `SELECT session FROM parts WHERE words @> ?`, args: []any{words},
		test: `EXISTS (SELECT 1 FROM parts WHERE parts.session = sessions.id AND words @> ?)`, testArgs: []any{words},
	}
}

var _ dialect = postgres{}
