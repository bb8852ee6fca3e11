package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// A catalog is what one session knows of its database. What the session has changed and not committed is not in it: until
// then whatever depends on it may be anything.
type catalog struct {
	*database
	changing atomic.Bool // it has changed relations
	routines atomic.Bool // it may have changed functions
}

// A database is what Weir knows of one database's relations, read over a connection of its own with the target's own
// credential: each relation when it is first asked for. OIDs and attribute numbers are never given again while a table
// lives, so what can go stale is only what a rename changes: everything is forgotten after DDL that Weir sees, and after
// catalogAge.
type database struct {
	target  *core.Target
	reader  *sql.Reader
	clients *clients
	clear   bool
	name    string // of the database

	facts atomic.Pointer[facts]
	stale atomic.Bool

	mu         sync.Mutex // of the connection
	credential core.Credential
	conn       *upstream
}

const (
	catalogAge     = 10 * time.Second
	catalogTimeout = 5 * time.Second
	// catalogPatience is how long a session waits that is changing relations: a view's definition cannot be read while it
	// is locked.
	catalogPatience = 250 * time.Millisecond
	maxRelations    = 100_000 // kept at a time
	maxChildren     = 1000    // partitions and children of one table that are named; 1001 are asked for
	keptShapes      = 4096
)

// facts are what is known since one moment.
type facts struct {
	catalog *database
	since   time.Time
	shapes  *lru.Cache[shapeKey, [][]core.Origin] // lineage of the outputs of a statement

	mu     sync.Mutex
	byOID  map[uint32]*relation // nil: asked for, and not there
	byName map[string][]*sql.Relation
	views  map[*relation]map[string][]core.Origin
	full   *lru.Cache[*core.Command, *core.Command] // commands by shape -> with the names of their tables resolved
	// functions are the names of the database's functions of one argument; nil: not read yet
	functions map[string]bool
}

type shapeKey struct {
	command *core.Command // the shape: statements that differ in literals share it
	at, n   int
}

type relation struct {
	sql.Relation
	attributes map[uint16]string
}

// now returns facts that are young enough.
func (c *database) now() *facts {
	f := c.facts.Load()
	if f != nil && !c.stale.Load() && time.Since(f.since) < catalogAge {
		f.mu.Lock()
		full := len(f.byOID) > maxRelations
		f.mu.Unlock()
		if !full {
			return f
		}
	}
	c.stale.Store(false) // before anything is read: a change from here on makes these facts stale again
	fresh := &facts{
		catalog: c, since: time.Now(), byOID: map[uint32]*relation{}, byName: map[string][]*sql.Relation{},
		views: map[*relation]map[string][]core.Origin{},
	}
	fresh.shapes, _ = lru.New[shapeKey, [][]core.Origin](keptShapes)
	fresh.full, _ = lru.New[*core.Command, *core.Command](keptShapes)
	c.facts.Store(fresh)
	return fresh
}

// relationsQuery reads relations with their columns: those that are not the server's own, and of the server's own those
// that hold values of others. Partitions and children come with all their ancestors. %s says which.
const relationsQuery = `
select c.oid, n.nspname, c.relname,
       case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end,
       (with recursive up(parent) as (
            select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = c.oid
            union select i.inhparent from pg_catalog.pg_inherits i join up on i.inhrelid = up.parent)
        select pg_catalog.string_agg(pn.nspname || '.' || pc.relname, E'\n')
        from up join pg_catalog.pg_class pc on pc.oid = up.parent join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace),
       case when c.relhassubclass then (with recursive down(child) as (
            select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = c.oid
            union select i.inhrelid from pg_catalog.pg_inherits i join down on i.inhparent = down.child)
        select pg_catalog.string_agg(few.name, E'\n') from (
            select pn.nspname || '.' || pc.relname as name
            from down join pg_catalog.pg_class pc on pc.oid = down.child join pg_catalog.pg_namespace pn on pn.oid = pc.relnamespace
            limit 1001) few) end,
       a.attnum, a.attname,
       case when a.attgenerated <> '' then coalesce(
           (select pg_catalog.pg_get_expr(d.adbin, d.adrelid) from pg_catalog.pg_attrdef d where d.adrelid = a.attrelid and d.adnum = a.attnum), '?') end
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where %s and c.relkind in ('r', 'p', 'v', 'm', 'f', 'c')
  and (n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_toast'
       or n.nspname = 'pg_catalog' and c.relname ~ '^pg_(stats|statistic|largeobject|stat_activity$)')
order by c.oid, a.attnum`

// relations reads the relations that a condition on pg_class c names.
func (c *database) relations(ctx context.Context, condition string) (map[uint32]*relation, error) {
	ctx, cancel := context.WithTimeout(ctx, catalogTimeout)
	defer cancel()
	c.mu.Lock()
	defer c.mu.Unlock()
	rows, err := c.query(ctx, fmt.Sprintf(relationsQuery, condition))
	if err != nil {
		return nil, fmt.Errorf("postgres: reading the catalog of target %s: %w", c.target.Name, err)
	}
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	found := map[uint32]*relation{}
	for _, row := range rows {
		if len(row) != 9 {
			return nil, errors.New("postgres: the catalog's answer has another shape")
		}
		oid, err := strconv.ParseUint(text(row[0]), 10, 32)
		if err != nil {
			return nil, errors.New("postgres: the catalog's answer has another kind of value")
		}
		attr, err := strconv.ParseUint(text(row[6]), 10, 16)
		if err != nil {
			return nil, errors.New("postgres: the catalog's answer has another kind of value")
		}
		r := found[uint32(oid)]
		if r == nil {
			r = &relation{
				Relation:   sql.Relation{Schema: text(row[1]), Name: text(row[2]), View: text(row[3]), Parents: lines(text(row[4]))},
				attributes: map[uint16]string{},
			}
			if r.Children = lines(text(row[5])); len(r.Children) > maxChildren {
				r.Children, r.Numerous = nil, true
			}
			found[uint32(oid)] = r
		}
		r.Columns = append(r.Columns, text(row[7]))
		r.attributes[uint16(attr)] = text(row[7])
		if row[8] != nil {
			if r.Generated == nil {
				r.Generated = map[string]string{}
			}
			r.Generated[text(row[7])] = *row[8]
		}
	}
	return found, nil
}

func lines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

// know makes sure that the facts have the tables of the fields, reading what is missing in one go.
func (f *facts) know(ctx context.Context, fields []field) error {
	var missing []string
	f.mu.Lock()
	for _, fd := range fields {
		if fd.table == 0 || fd.attr > maxAttribute {
			continue
		}
		if r, ok := f.byOID[fd.table]; !ok || r != nil && r.attributes[fd.attr] == "" {
			missing = append(missing, strconv.FormatUint(uint64(fd.table), 10))
		}
	}
	f.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	found, err := f.catalog.relations(ctx, "c.oid in ("+strings.Join(missing, ",")+")")
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fd := range fields {
		if fd.table != 0 {
			if r := found[fd.table]; r != nil || f.byOID[fd.table] == nil && fd.table < firstUserOID {
				f.byOID[fd.table] = r
			}
		}
	}
	return nil
}

func (f *facts) of(oid uint32) *relation {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byOID[oid]
}

// named is the facts as the lineage of a statement sees them: it reads the names that it does not know yet.
type named struct {
	ctx context.Context //nolint:containedctx // lives for one call
	*facts
	err     error
	nothing bool // what there is is being changed: every name may be anything
}

var _ sql.Catalog = (*named)(nil)

// Relations implements sql.Catalog. A name without a schema may mean any relation of that name: which one, the
// session's search path decides, and that is the session's.
func (n *named) Relations(schema, name string) (out []*sql.Relation) {
	if n.nothing {
		return nil
	}
	n.mu.Lock()
	all, known := n.byName[name]
	n.mu.Unlock()
	if !known && n.err == nil {
		found, err := n.catalog.relations(n.ctx, "c.relname = "+literal(name))
		if n.err = err; err != nil {
			return nil
		}
		for _, r := range found {
			all = append(all, &r.Relation)
		}
		if len(all) > 0 { // a name that is not there yet may be there the next time
			n.mu.Lock()
			n.byName[name] = all
			n.mu.Unlock()
		}
	}
	for _, r := range all {
		if schema == "" || r.Schema == schema {
			out = append(out, r)
		}
	}
	return out
}

// qualify gives a command's tables their schemas, and says how it uses their columns. A name without a schema may mean any
// table of that name, so it becomes all of them: which one it is, the session's search path decides. What cannot be looked
// up leaves the command incomplete.
func (c *catalog) qualify(ctx context.Context, command *core.Command) *core.Command {
	if c == nil || !slices.ContainsFunc(command.Resources, func(r core.Resource) bool { return r.Kind == "table" }) {
		return command
	}
	f, shape := c.now(), command.Shape()
	changing := c.changing.Load() || command.Action == "multiple" && command.HasEffect(core.EffectDDL)
	if full, ok := f.full.Get(shape); ok && !changing {
		if full.Text == command.Text {
			return full
		}
		return full.WithText(command.Text)
	}
	full := &core.Command{
		Action: command.Action, Text: command.Text, Fingerprint: command.Fingerprint, Effects: command.Effects,
		Where: command.Where, Status: command.Status, Reason: command.Reason, Secret: command.Secret,
	}
	reading, cancel := c.reading(ctx)
	defer cancel()
	n, all := &named{ctx: reading, facts: f}, true
	for _, r := range command.Resources {
		var found []*sql.Relation
		if r.Kind == "table" && strings.IndexByte(r.Name, '.') < 0 {
			found = n.Relations("", r.Name)
			all = all && len(found) > 0
		}
		if len(found) == 0 { // named in full, or not there: a table to be made, or one that the server will not find
			full.Resources = append(full.Resources, r)
		}
		for _, rel := range found {
			one := r
			one.Name = rel.Schema + "." + rel.Name
			full.Resources = append(full.Resources, one)
		}
	}
	if n.err != nil && full.Status == core.StatusKnown {
		full.Status, full.Reason = core.StatusIncomplete, "the names of its tables cannot be looked up now"
	}
	uses := c.reader.Uses(ctx, command.Text, n)
	if n.err != nil || changing {
		anything := []core.Origin{sql.Anything}
		uses = &sql.Uses{Columns: anything, Indirect: anything, Copied: anything, Transformed: anything}
	}
	full.Resources = uses.Spread(full.Resources)
	if all && n.err == nil && ctx.Err() == nil && !changing {
		f.full.Add(shape, full)
	}
	return full
}

// literal quotes a string for the catalog's connection, where strings conform to the standard.
func literal(s string) string {
	return "'" + strings.ReplaceAll(strings.ReplaceAll(s, "\x00", ""), "'", "''") + "'"
}

// query runs one query over the catalog's own connection, opening it if need be.
func (c *database) query(ctx context.Context, text string) (rows [][]*string, err error) {
	core.WillWait(ctx)
	for attempt := range 2 { // the server may have closed an idle connection
		if c.conn == nil {
			params := append([]param{
				{"user", c.credential.User},
				{"database", c.name},
				{"application_name", "weir catalog"},
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
	if err := l.write(ctx, appendFrame(nil, 'Q', []byte(text+"\x00"))); err != nil {
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
	f, changing := c.now(), c.changing.Load()
	reading, cancel := c.reading(ctx)
	defer cancel()
	err := f.know(reading, fields)
	var lineage [][]core.Origin
	for i, fd := range fields {
		col := &columns[i]
		r := f.of(fd.table)
		switch {
		case fd.table == 0:
			if lineage == nil {
				lineage = f.lineage(ctx, command, at, len(fields), changing)
			}
			col.Lineage = lineage[i]
		case fd.attr > maxAttribute: // a system column
		case err == nil && r == nil && fd.table < firstUserOID: // the server's own, which holds no rows of tables
		case err == nil && r != nil && r.Schema == "pg_catalog" && r.Name == "pg_stat_activity" && !slices.Contains([]string{"query", ""}, r.attributes[fd.attr]): // what others say is
		case err != nil || r == nil || r.attributes[fd.attr] == "" || r.Schema == "pg_catalog":
			col.Lineage = []core.Origin{sql.Anything}
		default:
			name := r.attributes[fd.attr]
			col.Origin = &core.Origin{Table: r.Schema + "." + r.Name, Column: name}
			switch {
			case r.View != "" && changing:
				col.Lineage = []core.Origin{sql.Anything}
			case r.View != "", r.Generated[name] != "":
				col.Lineage = slices.Clone(f.view(ctx, r)[name])
			}
			for _, p := range r.Parents {
				col.Lineage = append(col.Lineage, core.Origin{Table: p, Column: name})
			}
			for _, child := range r.Children { // its rows are in the answer, too
				col.Lineage = append(col.Lineage, core.Origin{Table: child, Column: name})
			}
			if r.Numerous {
				col.Lineage = append(col.Lineage, sql.Anything)
			}
		}
	}
	return columns
}

// stored returns the fields without the generated columns, which COPY leaves out of a table (manual, "COPY"). The facts
// may be of before or after the fields: a column never becomes generated, it is made so, with a number of its own. So
// the right number of columns left means that they are the right ones.
func (c *catalog) stored(ctx context.Context, fields []field) []field {
	f := c.now()
	reading, cancel := c.reading(ctx)
	defer cancel()
	if f.know(reading, fields) != nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(fields), func(fd field) bool {
		r := f.of(fd.table)
		return r != nil && r.Generated[r.attributes[fd.attr]] != ""
	})
}

const (
	// firstUserOID is FirstNormalObjectId: what a server is born with has smaller OIDs. Of that, the relations that hold
	// values of other tables are among the facts.
	firstUserOID = 16384
	maxAttribute = 32767 // attribute numbers are signed; those of system columns are below zero
)

func (f *facts) view(ctx context.Context, v *relation) map[string][]core.Origin {
	f.mu.Lock()
	m, ok := f.views[v]
	f.mu.Unlock()
	if ok {
		return m
	}
	n := &named{ctx: ctx, facts: f}
	m = f.catalog.reader.ViewLineage(ctx, &v.Relation, n)
	if n.err != nil || ctx.Err() != nil {
		for c := range m {
			m[c] = []core.Origin{sql.Anything}
		}
		return m
	}
	f.mu.Lock()
	f.views[v] = m
	f.mu.Unlock()
	return m
}

func (f *facts) lineage(ctx context.Context, command *core.Command, at, count int, changing bool) [][]core.Origin {
	key := shapeKey{command.Shape(), at, count}
	if l, ok := f.shapes.Get(key); ok && !changing {
		return l
	}
	n := &named{ctx: ctx, facts: f, nothing: changing}
	l := f.catalog.reader.Lineage(ctx, command.Text, at, count, n)
	if n.err != nil || ctx.Err() != nil {
		for i := range l {
			l[i] = []core.Origin{sql.Anything}
		}
		return l
	}
	if !changing {
		f.shapes.Add(key, l)
	}
	return l
}

// catalogs are the catalogs of all targets, one a database and credential.
type catalogs struct {
	mu sync.Mutex
	m  map[catalogKey]*database
}

type catalogKey struct {
	target     *core.Target
	name, user string
}

func (cs *catalogs) get(t *core.Target, name string, cred core.Credential, r *sql.Reader, clients *clients, clear bool) *catalog {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := catalogKey{t, name, cred.User}
	c := cs.m[key]
	if c == nil {
		c = &database{target: t, reader: r, clients: clients, clear: clear, name: name}
		if cs.m == nil {
			cs.m = map[catalogKey]*database{}
		}
		cs.m[key] = c
	}
	c.mu.Lock()
	c.credential = cred // the newest
	c.mu.Unlock()
	return &catalog{database: c}
}

// changed notes that DDL has passed.
func (c *database) changed() { c.stale.Store(true) }

// changes notes that a command of this session has passed, or is about to.
func (c *catalog) changes(command *core.Command) {
	if c == nil {
		return
	}
	c.changing.Store(true)
	if command.Action == "create function" || command.Action == "multiple" || command.HasEffect(core.EffectUnknown) {
		c.routines.Store(true)
	}
	c.changed()
}

// settled notes that the session has no transaction open. changed is set where one has changed something.
func (c *catalog) settled(changed bool) {
	if c == nil {
		return
	}
	if changed {
		c.changed()
	}
	c.changing.Store(false)
	c.routines.Store(false)
}

// reading bounds what a session may wait for that is changing something: it may itself hold the lock.
func (c *catalog) reading(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.changing.Load() {
		return context.WithTimeout(ctx, catalogPatience)
	}
	return ctx, func() {}
}
