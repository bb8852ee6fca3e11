package index

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

const columns = `id, identity, target, protocol, run, started, ended, commands, rows, denied, "end", chained AND sealed`

// few is how many sessions a condition may have for them to be collected first. Where there are more, sessions are looked
// at one by one, the newest first, until there are enough.
const few = 2000

// where collects the conditions of a query.
type where struct {
	conds []string
	args  []any
}

func (w *where) add(cond string, args ...any) {
	w.conds = append(w.conds, cond)
	w.args = append(w.args, args...)
}

func (w *where) String() string {
	if len(w.conds) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(w.conds, " AND ")
}

// Sessions returns the sessions that match, the newest first.
func (x *Index) Sessions(ctx context.Context, q Query) ([]Session, error) {
	q.clean(x.d)
	w := q.plain()
	for _, set := range append(x.grep(&q), q.touched(x.d)...) {
		if err := x.restrict(ctx, w, set); err != nil {
			return nil, err
		}
	}
	return x.query(ctx, "SELECT "+columns+" FROM sessions"+w.String()+" ORDER BY started DESC, id DESC LIMIT ?", append(w.args, q.limit())...)
}

// clean makes of each word one that the database can be asked for.
func (q *Query) clean(d dialect) {
	for _, s := range []*string{&q.Identity, &q.Target, &q.Protocol, &q.Run, &q.Except, &q.Grep, &q.Resource, &q.Use} {
		*s = d.text(*s)
	}
}

func (q *Query) limit() int {
	if q.Limit <= 0 {
		return 1000
	}
	return q.Limit
}

// plain are the conditions that a row of sessions answers by itself.
func (q *Query) plain() *where {
	w := &where{}
	for _, f := range []struct{ column, value string }{{"identity", q.Identity}, {"target", q.Target}, {"protocol", q.Protocol}, {"run", q.Run}} {
		if f.value != "" {
			w.add(f.column+" = ?", f.value)
		}
	}
	if len(q.IDs) > 0 {
		ids := make([]any, len(q.IDs))
		for i, id := range q.IDs {
			ids[i] = id
		}
		w.add("id IN (?"+strings.Repeat(",?", len(ids)-1)+")", ids...)
	}
	if q.Except != "" {
		w.add("protocol <> ?", q.Except)
	}
	if !q.Since.IsZero() {
		w.add("started >= ?", q.Since.UnixNano())
	}
	if !q.Until.IsZero() {
		w.add("started < ?", q.Until.UnixNano())
	}
	if q.Denied {
		w.add("denied > 0")
	}
	return w
}

// set is a set of sessions, said twice: as all of its members, and as a test of one.
type set struct {
	members, test  string // SQL; the test is of the column sessions.id
	args, testArgs []any
	either         *set // a session may be in this one instead
}

// grep is the set of the sessions in which Grep stands.
func (x *Index) grep(q *Query) []set {
	if q.Grep == "" {
		return nil
	}
	s := x.d.grepTexts(q.Grep)
	if words := asked(q.Grep); len(words) > 0 {
		either := x.d.grepWords(words)
		s.either = &either
	}
	return []set{s}
}

// named are the resources of a name.
const named = `(SELECT id FROM resources WHERE name = ? OR (base = ? AND ? = '') OR (name = ? AND name = base))`

func (q *Query) named() []any {
	base := baseOf(q.Resource)
	schema := ""
	if base != q.Resource {
		schema = "given"
	}
	return []any{q.Resource, base, schema, base}
}

// touched is the set of the sessions that touched Resource in the way Use.
func (q *Query) touched(d dialect) []set {
	if q.Resource == "" && q.Use == "" {
		return nil
	}
	var conds []string
	var args []any
	if q.Resource != "" {
		conds, args = append(conds, "resource "+d.among(named)), q.named()
	}
	if q.Use != "" {
		conds, args = append(conds, "use = ?"), append(args, q.Use)
	}
	cond := strings.Join(conds, " AND ")
	return []set{{
		members: "SELECT session FROM touches WHERE " + cond, args: args,
		test: "EXISTS (SELECT 1 FROM touches WHERE session = sessions.id AND " + cond + ")", testArgs: args,
	}}
}

func baseOf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// restrict adds a set to the conditions of a query, in the way that is quicker for its size.
func (x *Index) restrict(ctx context.Context, w *where, s set) error {
	var ways []string
	var args []any
	for part := &s; part != nil; part = part.either {
		var n int
		err := x.db.QueryRowContext(ctx, x.d.bind("SELECT count(*) FROM ("+part.members+" LIMIT ?) AS some_of_them"), append(slices.Clone(part.args), few)...).Scan(&n)
		if err != nil {
			return fmt.Errorf("index: %w", err)
		}
		if n == 0 && part.either == nil && len(ways) > 0 {
			continue // it adds nothing
		}
		if n < few {
			ways, args = append(ways, "id IN ("+part.members+")"), append(args, part.args...)
		} else {
			ways, args = append(ways, part.test), append(args, part.testArgs...)
		}
	}
	w.add("("+strings.Join(ways, " OR ")+")", args...)
	return nil
}

// Touch is the last command of a session that touched a resource in one way.
type Touch struct {
	Session  string    `json:"session"`
	Identity string    `json:"identity"`
	Target   string    `json:"target"`
	Run      string    `json:"run"`
	Kind     string    `json:"kind"`
	Resource string    `json:"resource"`
	Use      string    `json:"use"`
	Record   uint64    `json:"record"` // of the command
	Time     time.Time `json:"time"`
}

const mostPairs = 256

// Touches returns the last touches of the resources that the query names, the latest first: at most one of each session,
// resource and use. Grep and Denied do not count.
func (x *Index) Touches(ctx context.Context, q Query) ([]Touch, error) {
	q.clean(x.d)
	cond, args := "", []any(nil)
	if q.Resource != "" {
		cond, args = " WHERE id IN "+named, q.named()
	}
	type pair struct {
		id         int64
		kind, name string
	}
	var pairs []pair
	rows, err := x.db.QueryContext(ctx, x.d.bind("SELECT id, kind, name FROM resources"+cond+" LIMIT ?"), append(args, mostPairs+1)...)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var p pair
		if err := rows.Scan(&p.id, &p.kind, &p.name); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		pairs = append(pairs, p)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	if len(pairs) > mostPairs {
		return nil, fmt.Errorf("index: more than %d resources have that name: say more of it", mostPairs)
	}
	q.Grep, q.Denied = "", false
	var out []Touch
	for _, p := range pairs {
		uses := []string{q.Use}
		if q.Use == "" {
			if uses, err = x.uses(ctx, p.id); err != nil {
				return nil, err
			}
		}
		for _, use := range uses { // one way of one resource is read in the index's own order, and no further than needed
			w := q.plain()
			w.add("resource = ? AND use = ?", p.id, use)
			found, err := x.touches(ctx, w, q.limit(), Touch{Kind: p.kind, Resource: p.name, Use: use})
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
		}
	}
	slices.SortFunc(out, func(a, b Touch) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return strings.Compare(b.Session, a.Session)
	})
	return out[:min(len(out), q.limit())], nil
}

func (x *Index) uses(ctx context.Context, resource int64) (out []string, err error) {
	// Each step of the recursion finds the next use: the entries of one need not be looked at one by one.
	rows, err := x.db.QueryContext(ctx, x.d.bind(`WITH RECURSIVE u(use) AS (SELECT min(use) FROM touches WHERE resource = ?
		UNION ALL SELECT (SELECT min(use) FROM touches WHERE resource = ? AND use > u.use) FROM u WHERE u.use IS NOT NULL)
		SELECT use FROM u WHERE use IS NOT NULL`), resource, resource)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var use string
		if err := rows.Scan(&use); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		out = append(out, use)
	}
	return out, rows.Err()
}

func (x *Index) touches(ctx context.Context, w *where, limit int, of Touch) (out []Touch, err error) {
	rows, err := x.db.QueryContext(ctx, x.d.bind("SELECT id, identity, target, run, record, time FROM touches "+x.d.inOrder()+" sessions ON sessions.id = touches.session"+
		w.String()+" ORDER BY touches.time DESC LIMIT ?"), append(w.args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var at int64
		if err := rows.Scan(&of.Session, &of.Identity, &of.Target, &of.Run, &of.Record, &at); err != nil {
			return nil, fmt.Errorf("index: %w", err)
		}
		of.Time = time.Unix(0, at).UTC()
		out = append(out, of)
	}
	return out, rows.Err()
}

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
	rows, err := x.db.QueryContext(ctx, x.d.bind(s), args...)
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
