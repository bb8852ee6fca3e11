package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// A catalog is what Weir knows of one database's relations, read over a connection of its own with the target's own
// credential. OIDs and attribute numbers are never given again while a table lives, so what can go stale is only what
// a rename changes: the catalog is read again after DDL that Weir sees, for what it does not know, and every catalogAge.
type catalog struct {
	target  *core.Target
	reader  *sql.Reader
	clients *clients
	clear   bool
	name    string // of the database

	mu         sync.Mutex // of a reading
	facts      atomic.Pointer[facts]
	stale      atomic.Bool
	credential core.Credential
	conn       *upstream
}

const (
	catalogAge     = 10 * time.Second
	catalogTimeout = 5 * time.Second
	maxRelations   = 200_000
	keptShapes     = 4096
)

// facts are one reading of a catalog. They are not changed afterwards, but for what is worked out from them.
type facts struct {
	read   time.Time
	byOID  map[uint32]*relation
	byName map[string][]*sql.Relation // by name alone

	views  sync.Map                              // *relation -> map[string][]core.Origin
	shapes *lru.Cache[shapeKey, [][]core.Origin] // lineage of the outputs of a statement
}

type shapeKey struct {
	command *core.Command // the shape: statements that differ in literals share it
	at, n   int
}

type relation struct {
	sql.Relation
	attributes map[uint16]string
}

var _ sql.Catalog = (*facts)(nil)

// Relations implements sql.Catalog. A name without a schema may mean any relation of that name: which one, the
// session's search path decides, and that is the session's.
func (f *facts) Relations(schema, name string) (out []*sql.Relation) {
	for _, r := range f.byName[name] {
		if schema == "" || r.Schema == schema {
			out = append(out, r)
		}
	}
	return out
}

// get returns facts that are young enough, reading them if need be. fresh asks for facts that are younger than the
// call.
func (c *catalog) get(ctx context.Context, fresh bool) (*facts, error) {
	f := c.facts.Load()
	if f != nil && !fresh && !c.stale.Load() && time.Since(f.read) < catalogAge {
		return f, nil
	}
	asked := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.facts.Load(); f != nil && (f.read.After(asked) || !fresh && !c.stale.Load() && time.Since(f.read) < catalogAge) {
		return f, nil // somebody else has read it meanwhile
	}
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	c.stale.Store(false)
	read := time.Now()
	f, err := c.load(ctx)
	if err != nil {
		c.stale.Store(true)
		return nil, fmt.Errorf("postgres: reading the catalog of target %s: %w", c.target.Name, err)
	}
	f.read = read
	c.facts.Store(f)
	return f, nil
}

// relationsQuery reads every relation with columns that is not the server's own, and the statistics views that hold
// values of others. Partitions and children come with all their ancestors.
const relationsQuery = `
select c.oid, n.nspname, c.relname,
       case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end,
       (with recursive up(parent) as (
            select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = c.oid
            union select i.inhparent from pg_catalog.pg_inherits i join up on i.inhrelid = up.parent)
        select pg_catalog.string_agg(pn.nspname || '.' || pc.relname, E'\n')
        from up join pg_catalog.pg_class pc on pc.oid = up.parent join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace),
       a.attnum, a.attname
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
  and (n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
       or n.nspname = 'pg_catalog' and c.relname ~ '^pg_(stats|statistic|largeobject)')
order by c.oid, a.attnum`

func (c *catalog) load(ctx context.Context) (*facts, error) {
	rows, err := c.query(ctx, relationsQuery)
	if err != nil {
		return nil, err
	}
	f := &facts{byOID: map[uint32]*relation{}, byName: map[string][]*sql.Relation{}}
	f.shapes, _ = lru.New[shapeKey, [][]core.Origin](keptShapes)
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	var r *relation
	for _, row := range rows {
		if len(row) != 7 {
			return nil, errors.New("the server answers in another shape")
		}
		oid, err := strconv.ParseUint(text(row[0]), 10, 32)
		if err != nil {
			return nil, errors.New("the server answers with another kind of value")
		}
		attr, err := strconv.ParseUint(text(row[5]), 10, 16)
		if err != nil {
			return nil, errors.New("the server answers with another kind of value")
		}
		if r == nil || f.byOID[uint32(oid)] != r {
			if len(f.byOID) >= maxRelations {
				return nil, fmt.Errorf("more than %d relations", maxRelations)
			}
			r = &relation{
				Relation:   sql.Relation{Schema: text(row[1]), Name: text(row[2]), View: text(row[3]), Parents: lines(text(row[4]))},
				attributes: map[uint16]string{},
			}
			f.byOID[uint32(oid)] = r
			f.byName[r.Name] = append(f.byName[r.Name], &r.Relation)
		}
		r.Columns = append(r.Columns, text(row[6]))
		r.attributes[uint16(attr)] = text(row[6])
	}
	return f, nil
}

func lines(s string) (out []string) {
	for len(s) > 0 {
		i := 0
		for i < len(s) && s[i] != '\n' {
			i++
		}
		out = append(out, s[:i])
		s = s[min(len(s), i+1):]
	}
	return out
}

// query runs one query over the catalog's own connection, opening it if need be.
func (c *catalog) query(ctx context.Context, text string) (rows [][]*string, err error) {
	for attempt := range 2 { // the server may have closed an idle connection
		if c.conn == nil {
			params := append([]param{
				{"user", c.credential.User}, {"database", c.name}, {"application_name", "weir catalog"},
				{"options", "-c default_transaction_read_only=on -c statement_timeout=5000 -c search_path="},
			}, pinned...)
			if c.conn, err = connect(ctx, c.target, c.credential, params, c.clients, c.clear); err != nil {
				c.conn = nil
				return nil, err
			}
		}
		if rows, err = c.conn.query(ctx, text); err == nil {
			return rows, nil
		}
		_ = c.conn.conn.Close()
		c.conn = nil
		if attempt == 1 || ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

// query runs one simple query and returns its rows as texts.
func (u *upstream) query(ctx context.Context, text string) (rows [][]*string, err error) {
	if deadline, ok := ctx.Deadline(); ok {
		_ = u.conn.SetDeadline(deadline)
		defer func() { _ = u.conn.SetDeadline(time.Time{}) }()
	}
	l := leg{conn: u.conn}
	if err := l.write(appendFrame(nil, 'Q', []byte(text+"\x00"))); err != nil {
		return nil, err
	}
	var failed error
	for need := 0; ; {
		if err := l.fill(need); err != nil {
			return nil, err
		}
		for {
			size, more, err := backend.next(l.in[l.r:l.w], defaultMaxFrame)
			if err != nil {
				return nil, err
			}
			if need = more; size == 0 {
				break
			}
			frame := l.in[l.r : l.r+size]
			l.r += size
			switch frame[0] {
			case 'D':
				c := body{b: frame[headerSize:]}
				row := make([]*string, c.u16())
				for i := range row {
					if v, null := c.value(); !null {
						s := string(v)
						row[i] = &s
					}
				}
				rows = append(rows, row)
			case 'E':
				r := resultOf("error", frame[headerSize:])
				failed = fmt.Errorf("the server said %s: %s", r.Code, r.Message)
			case 'Z':
				return rows, failed
			}
		}
	}
}

// columns turns the fields of an answer into columns with their origins. What cannot be told may be anything.
func (c *catalog) columns(ctx context.Context, fields []field, formats []int16, command *core.Command, at int) []core.Column {
	columns := columnsOf(fields, formats)
	f, err := c.get(ctx, false)
	for _, fd := range fields {
		if err == nil && f.lacks(fd) { // newer than the facts
			f, err = c.get(ctx, true)
			break
		}
	}
	if err != nil {
		for i := range columns {
			columns[i].Lineage = []core.Origin{sql.Anything}
		}
		return columns
	}
	var lineage [][]core.Origin
	for i, fd := range fields {
		col := &columns[i]
		switch r := f.byOID[fd.table]; {
		case fd.table == 0 || fd.attr > maxAttribute: // worked out below, or a system column
		case r == nil && fd.table < firstUserOID: // the server's own, which holds no rows of tables
		case r == nil || r.attributes[fd.attr] == "" || r.Schema == "pg_catalog":
			col.Lineage = []core.Origin{sql.Anything}
		default:
			name := r.attributes[fd.attr]
			col.Origin = &core.Origin{Table: r.Schema + "." + r.Name, Column: name}
			if r.View != "" {
				col.Lineage = slices.Clone(f.view(ctx, c.reader, r)[name])
			}
			for _, p := range r.Parents {
				col.Lineage = append(col.Lineage, core.Origin{Table: p, Column: name})
			}
		}
		if fd.table == 0 {
			if lineage == nil {
				lineage = f.lineage(ctx, c.reader, command, at, len(fields))
			}
			col.Lineage = lineage[i]
		}
	}
	return columns
}

// lacks reports whether a field's table or attribute is not among the facts, though it might be in the database.
func (f *facts) lacks(fd field) bool {
	if fd.table < firstUserOID || fd.attr == 0 || fd.attr > maxAttribute {
		return false
	}
	r := f.byOID[fd.table]
	return r == nil || r.attributes[fd.attr] == ""
}

const (
	// firstUserOID is FirstNormalObjectId: what a server is born with has smaller OIDs. Of that, the relations that hold
	// values of other tables are among the facts.
	firstUserOID = 16384
	maxAttribute = 32767 // attribute numbers are signed; those of system columns are below zero
)

func (f *facts) view(ctx context.Context, r *sql.Reader, v *relation) map[string][]core.Origin {
	if m, ok := f.views.Load(v); ok {
		return m.(map[string][]core.Origin)
	}
	m := r.ViewLineage(ctx, &v.Relation, f)
	if ctx.Err() == nil {
		f.views.Store(v, m)
	}
	return m
}

func (f *facts) lineage(ctx context.Context, r *sql.Reader, command *core.Command, at, n int) [][]core.Origin {
	key := shapeKey{command.Shape(), at, n}
	if l, ok := f.shapes.Get(key); ok {
		return l
	}
	l := r.Lineage(ctx, command.Text, at, n, f)
	if ctx.Err() == nil {
		f.shapes.Add(key, l)
	}
	return l
}

// catalogs are the catalogs of all targets, one a database and credential.
type catalogs struct {
	mu sync.Mutex
	m  map[catalogKey]*catalog
}

type catalogKey struct {
	target         *core.Target
	database, user string
}

func (cs *catalogs) get(t *core.Target, database string, cred core.Credential, r *sql.Reader, clients *clients, clear bool) *catalog {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := catalogKey{t, database, cred.User}
	c := cs.m[key]
	if c == nil {
		c = &catalog{target: t, reader: r, clients: clients, clear: clear, name: database}
		if cs.m == nil {
			cs.m = map[catalogKey]*catalog{}
		}
		cs.m[key] = c
	}
	c.mu.Lock()
	c.credential = cred // the newest
	c.mu.Unlock()
	return c
}

// changed notes that DDL has passed.
func (c *catalog) changed() {
	if c != nil {
		c.stale.Store(true)
	}
}
