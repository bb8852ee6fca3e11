// Package index finds sessions: by who and when, by what they touched, and by the full text of their commands and of what
// came back.
//
// It is one SQLite file, or a schema of a PostgreSQL database that many gateways share; derived from the archive. It can be
// deleted and rebuilt, and is never evidence.
package index

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// schemaVersion is raised whenever the tables change. An index of an earlier version is emptied and read anew.
const schemaVersion = 2

// Index is an open index. Safe for concurrent use.
type Index struct {
	db       *sql.DB
	d        dialect
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

func newIndex(d dialect, readOnly bool) *Index {
	return &Index{d: d, readOnly: readOnly, building: map[string]*building{}, texts: map[[16]byte]int64{}, resources: map[resourceID]int64{}}
}

// wrongVersion says why an index of another version is of no use.
func wrongVersion(where string, version int) error {
	switch {
	case version < schemaVersion:
		return fmt.Errorf("%s is of an earlier version (%d): start the gateway, or run: weir index rebuild", where, version)
	case version > schemaVersion:
		return fmt.Errorf("%s was made by a later build (version %d, this one knows %d): use that build, or delete the index and run: weir index rebuild", where, version, schemaVersion)
	}
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
