package sql

import (
	"context"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// A Catalog says what a name in a statement may mean. What it does not know may be anything.
type Catalog interface {
	// Relations returns every relation that a name may mean; schema is empty when the statement names none.
	Relations(schema, name string) []*Relation
}

// Relation is a table, view or the like.
type Relation struct {
	Schema, Name string
	Columns      []string          // in order
	View         string            // of a view: the query that defines it
	Parents      []string          // qualified names of the tables that it is a partition or child of
	Children     []string          // and of those that are partitions or children of it, at any depth
	Numerous     bool              // it has more children than are named
	Generated    map[string]string // columns that are computed from others of their row: the expressions
}

// Anything is the origin of a value of which nothing can be said: it may come from every column there is.
var Anything = core.Origin{Table: "*", Column: "*"}

// Lineage says for each of n result columns of one statement which base columns its value may hold. at is the
// statement's place in the text. What cannot be followed is Anything.
func (r *Reader) Lineage(ctx context.Context, text string, at, n int, c Catalog) [][]core.Origin {
	tree, err := r.parse(ctx, text)
	if err != nil || at >= len(tree.Stmts) {
		return spread([]output{{many: true, from: opaque()}}, n)
	}
	l := &lineage{ctx: ctx, reader: r, catalog: c}
	return spread(l.statement(tree.Stmts[at].Stmt, nil), n)
}

// ViewLineage says the same for the columns of a view, by name.
func (r *Reader) ViewLineage(ctx context.Context, v *Relation, c Catalog) map[string][]core.Origin {
	l := &lineage{ctx: ctx, reader: r, catalog: c}
	it := l.relation(v)
	out := map[string][]core.Origin{}
	for _, col := range it.columns {
		out[col.name] = col.from.list()
	}
	return out
}

// origins is a set of base columns.
type origins map[core.Origin]bool

func opaque() origins { return origins{Anything: true} }

func (o origins) add(more origins) {
	for k := range more {
		o[k] = true
	}
}

func (o origins) list() []core.Origin {
	out := make([]core.Origin, 0, len(o))
	if o[Anything] {
		return append(out, Anything)
	}
	for k := range o {
		out = append(out, k)
	}
	sort.Slice(out, func(i, j int) bool {
		return out[i].Table < out[j].Table || out[i].Table == out[j].Table && out[i].Column < out[j].Column
	})
	return out
}

// output is one column of a result; many stands for any number of them.
type output struct {
	name string
	from origins
	many bool
	// loose is set where uses are asked for: its name is certain, and its place is not.
	loose bool
}

// item is one thing in a FROM clause.
type item struct {
	name    string // its alias, or the relation's name
	schema  string
	columns []output
	open    bool    // it may have further columns
	all     origins // of all its columns together
	base    bool    // a relation
	unknown string  // a relation of which the catalog knows nothing: its name, where uses are asked for
}

func (it *item) column(name string) (origins, bool) {
	for i := range it.columns {
		if it.columns[i].name == name {
			return it.columns[i].from, true
		}
	}
	return nil, false
}

// scope is what column names may mean.
type scope struct {
	items []*item
	outer *scope
}

type lineage struct {
	ctx     context.Context //nolint:containedctx // lives for one call
	reader  *Reader
	catalog Catalog
	ctes    []*item
	depth   int
	uses    *uses // nil: only the lineage of outputs is asked for
	// reached are, by the relation that the statement names, those that its rows come from or go to. nil: not asked for
	reached map[string]map[string]bool
	root    string // the relation that the statement names, while one is looked at
}

// maxDepth bounds how deep queries and views may nest.
const maxDepth = 48

// spread gives each of n result columns its origins. Where the outputs do not tell how many columns they are, what
// stands between the known ones from the left and from the right may be any of them.
func spread(outs []output, n int) [][]core.Origin {
	result := make([][]core.Origin, n)
	first, last := -1, -1
	for i := range outs {
		if outs[i].many {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	middle := outs // when the count does not fit, any of them
	if first >= 0 && len(outs)-1 <= n {
		middle = outs[first : last+1]
	}
	every := origins{}
	for _, o := range middle {
		every.add(o.from)
	}
	for i := range result {
		switch right := len(outs) - (n - i); {
		case first < 0 && len(outs) == n, first >= 0 && i < first && len(outs)-1 <= n:
			result[i] = outs[i].from.list()
		case first >= 0 && right > last && right < len(outs) && len(outs)-1 <= n:
			result[i] = outs[right].from.list()
		default:
			result[i] = every.list()
		}
	}
	return result
}

// statement returns the outputs of one statement.
func (l *lineage) statement(stmt node, outer *scope) []output {
	for typ, f := range stmt {
		return l.query(typ, asNode(f), outer)
	}
	return nil
}

func (l *lineage) query(typ string, f node, outer *scope) []output {
	l.depth++
	defer func() { l.depth-- }()
	if l.depth > maxDepth || l.ctx.Err() != nil {
		if l.uses != nil {
			l.uses.anything()
		}
		return []output{{many: true, from: opaque()}}
	}
	marked := len(l.ctes)
	defer func() { l.ctes = l.ctes[:marked] }()
	if with, ok := f["withClause"].(node); ok {
		l.with(with, outer)
	}
	switch typ {
	case "SelectStmt":
		outs := l.selects(f, outer)
		if f["intoClause"] != nil {
			l.copies(outs)
		}
		return outs
	case "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt":
		s := &scope{outer: outer}
		target := l.aliased(l.rangeVar(asNode(f["relation"]), true), asNode(f["relation"]))
		s.items = append(s.items, target)
		for _, key := range []string{"fromClause", "usingClause"} {
			for _, x := range list(f[key]) {
				l.from(x, s)
			}
		}
		if src, ok := f["sourceRelation"]; ok {
			l.from(src, s)
		}
		l.writes(typ, f, s)
		// old and new values are the target's own columns
		s.items = append(s.items, alias(target, "old"), alias(target, "new"), alias(target, "excluded"))
		return l.targets(list(f["returningList"]), s, 1)
	case "ExplainStmt", "PrepareStmt", "DeclareCursorStmt":
		if typ == "ExplainStmt" {
			if l.uses != nil { // a plan tells how many rows there are
				l.statement(asNode(f["query"]), outer)
			}
			return nil
		}
		return l.statement(asNode(f["query"]), outer)
	case "CreateTableAsStmt", "ViewStmt":
		if l.uses != nil {
			outs := l.statement(asNode(f["query"]), outer)
			if typ == "CreateTableAsStmt" {
				l.copies(outs)
			}
		}
	case "CopyStmt":
		if l.uses != nil {
			l.copyStatement(f, outer)
			return nil
		}
		if q := asNode(f["query"]); len(q) > 0 {
			return l.statement(q, outer)
		}
		it := l.rangeVar(asNode(f["relation"]), true)
		return it.columns
	case "VariableShowStmt":
		return []output{{many: true, from: origins{}}}
	}
	return []output{{many: true, from: opaque()}}
}

func alias(it *item, name string) *item {
	c := *it
	c.name = name
	return &c
}

func (l *lineage) selects(f node, outer *scope) []output {
	if op := text(f["op"]); op != "" && op != "SETOP_NONE" {
		left, right := l.query("SelectStmt", asNode(f["larg"]), outer), l.query("SelectStmt", asNode(f["rarg"]), outer)
		outs := union(left, right)
		l.clauses(f, outer, outs)
		return outs
	}
	if values := list(f["valuesLists"]); len(values) > 0 {
		var outs []output
		for _, v := range values {
			var row []output
			for i, x := range list(inner(v, "List")["items"]) {
				from := l.expression(x, outer)
				l.transforms(from)
				row = append(row, output{name: "column" + strconv.Itoa(i+1), from: from})
			}
			if outs == nil {
				outs = row
				continue
			}
			outs = union(outs, row)
		}
		l.clauses(f, outer, outs)
		return outs
	}
	s := &scope{outer: outer}
	for _, x := range list(f["fromClause"]) {
		l.from(x, s)
	}
	outs := l.targets(list(f["targetList"]), s, len(s.items))
	l.clauses(f, s, outs)
	return outs
}

// union merges two results column by column; where their widths are not the same, every column may be any.
func union(a, b []output) []output {
	plain := len(a) == len(b)
	for _, o := range append(append([]output(nil), a...), b...) {
		plain = plain && !o.many
	}
	if plain {
		out := make([]output, len(a))
		for i := range a {
			out[i] = output{name: a[i].name, from: origins{}, loose: a[i].loose || b[i].loose}
			out[i].from.add(a[i].from)
			out[i].from.add(b[i].from)
		}
		return out
	}
	all := output{many: true, from: origins{}}
	for _, o := range append(append([]output(nil), a...), b...) {
		all.from.add(o.from)
	}
	return []output{all}
}

// targets returns the outputs of a target list. A star stands for the first n items of the scope.
func (l *lineage) targets(list_ []any, s *scope, n int) []output {
	var outs []output
	for _, t := range list_ {
		rt := inner(t, "ResTarget")
		val := asNode(rt["val"])
		if ref, ok := val["ColumnRef"]; ok {
			fields := list(asNode(ref)["fields"])
			if len(fields) > 0 {
				if _, star := asNode(fields[len(fields)-1])["A_Star"]; star {
					outs = append(outs, l.star(fields[:len(fields)-1], s, n)...)
					continue
				}
			}
		}
		if ind, ok := val["A_Indirection"]; ok { // (expr).*
			path := list(asNode(ind)["indirection"])
			if len(path) > 0 {
				if _, star := asNode(path[len(path)-1])["A_Star"]; star {
					from := l.expression(rt["val"], s)
					l.transforms(from)
					outs = append(outs, output{many: true, from: from})
					continue
				}
			}
		}
		name := text(rt["name"])
		if name == "" {
			name = nameOf(val)
		}
		from := l.expression(rt["val"], s)
		if _, plain := val["ColumnRef"]; !plain {
			l.transforms(from)
		}
		outs = append(outs, output{name: name, from: from})
	}
	return outs
}

// star expands * or name.*.
func (l *lineage) star(path []any, s *scope, n int) (outs []output) {
	var items []*item
	if len(path) == 0 {
		items = s.items[:min(n, len(s.items))]
	} else {
		parts := make([]string, len(path))
		for i, p := range path {
			parts[i] = text(inner(p, "String")["sval"])
		}
		for sc := s; sc != nil && len(items) == 0; sc = sc.outer {
			for _, it := range sc.items {
				if it.is(parts) {
					items = append(items, it)
				}
			}
		}
		if len(items) == 0 { // a composite column's fields
			return []output{{many: true, from: l.resolve(path, s)}}
		}
	}
	for _, it := range items {
		if l.uses != nil {
			l.uses.columns.add(it.all)
			for o := range it.all {
				if it.base {
					l.uses.columns[core.Origin{Table: o.Table, Column: "*"}] = true
				}
			}
		}
		outs = append(outs, it.columns...)
		if it.open {
			outs = append(outs, output{many: true, from: it.all})
		}
	}
	if len(path) == 0 && len(items) > 1 && l.uses != nil && !slices.ContainsFunc(outs, func(o output) bool { return o.many }) {
		outs = folded(outs)
		for i := range outs {
			outs[i].loose = true
		}
		return outs
	}
	if len(path) == 0 && len(items) > 1 { // JOIN … USING folds columns: the count is not certain
		all := origins{}
		for _, o := range outs {
			all.add(o.from)
		}
		return []output{{many: true, from: all}}
	}
	return outs
}

// is reports whether a qualified name means the item.
func (it *item) is(parts []string) bool {
	if len(parts) == 0 || parts[len(parts)-1] != it.name {
		return false
	}
	return len(parts) == 1 || it.schema == "" || parts[len(parts)-2] == it.schema
}

// with puts the queries of a WITH clause in sight.
func (l *lineage) with(with node, outer *scope) {
	recursive, _ := with["recursive"].(bool)
	ctes := list(with["ctes"])
	if recursive { // each may use each: all columns of all of them may be any of them
		var items []*item
		for _, c := range ctes {
			it := &item{name: text(inner(c, "CommonTableExpr")["ctename"]), open: true, all: origins{}}
			items = append(items, it)
			l.ctes = append(l.ctes, it)
		}
		all := origins{}
		var marker core.Origin
		if l.uses != nil { // what they are is known when all of them have been read
			marker = l.uses.marker()
			for _, it := range items {
				it.all[marker] = true
			}
			defer func() {
				delete(all, marker)
				l.uses.replace(marker, all)
			}()
		}
		var outs [][]output
		for _, c := range ctes {
			o := l.statement(asNode(inner(c, "CommonTableExpr")["ctequery"]), outer)
			for i := range o {
				all.add(o[i].from)
			}
			outs = append(outs, o)
		}
		for i, it := range items {
			it.all = all
			names := names(inner(ctes[i], "CommonTableExpr")["aliascolnames"])
			for j, o := range outs[i] {
				if o.many {
					break
				}
				name := o.name
				if j < len(names) {
					name = names[j]
				}
				it.columns = append(it.columns, output{name: name, from: all})
			}
			it.open = len(it.columns) != len(outs[i])
		}
		return
	}
	for _, c := range ctes {
		f := inner(c, "CommonTableExpr")
		it := derived(text(f["ctename"]), l.statement(asNode(f["ctequery"]), outer), names(f["aliascolnames"]))
		l.ctes = append(l.ctes, it)
	}
}

// derived makes an item of a query's outputs.
func derived(name string, outs []output, names []string) *item {
	it := &item{name: name, all: origins{}}
	for i, o := range outs {
		it.all.add(o.from)
		if o.many {
			it.open = true
		}
		if it.open { // from here on names and places are not certain
			continue
		}
		if i < len(names) {
			o.name = names[i]
		}
		it.columns = append(it.columns, o)
	}
	if it.open && len(names) > 0 { // the names are the query's columns, in an order that is not certain
		it.columns = nil
	}
	return it
}

// from puts one part of a FROM clause into a scope.
func (l *lineage) from(x any, s *scope) {
	n := asNode(x)
	for typ, v := range n {
		f := asNode(v)
		switch typ {
		case "RangeVar":
			it := l.rangeVar(f, false)
			s.items = append(s.items, l.aliased(it, f))
		case "RangeSubselect":
			outs := l.statement(asNode(f["subquery"]), lateral(f, s))
			s.items = append(s.items, derived(text(asNode(f["alias"])["aliasname"]), outs, names(asNode(f["alias"])["colnames"])))
		case "JoinExpr":
			before := len(s.items)
			l.from(f["larg"], s)
			half := len(s.items)
			l.from(f["rarg"], s)
			l.joins(f, s.items[before:half], s.items[half:], s)
			if a := asNode(f["alias"]); len(a) > 0 { // (a JOIN b) AS j: only j is in sight
				it := &item{name: text(a["aliasname"]), open: true, all: origins{}}
				open := false
				for _, part := range s.items[before:] {
					it.all.add(part.all)
					open = open || part.open
					if l.uses != nil {
						it.columns = folded(append(it.columns, part.columns...))
					}
				}
				it.open = open || l.uses == nil
				s.items = append(s.items[:before], it)
			}
		case "RangeTableSample":
			l.from(f["relation"], s)
			l.decides(f["args"], s)
		case "RangeFunction", "RangeTableFunc", "JsonTable":
			it := &item{name: text(asNode(f["alias"])["aliasname"]), open: true, all: l.expression(f, s)}
			if it.name == "" {
				it.name = nameOfFunction(f)
			}
			l.transforms(it.all)
			s.items = append(s.items, it)
		default:
			s.items = append(s.items, &item{open: true, all: opaque()})
		}
	}
}

// lateral is the scope that a subquery in FROM sees: with or without LATERAL what stands before it, which is more than
// it may see and so safe.
func lateral(_ node, s *scope) *scope { return s }

func (l *lineage) aliased(it *item, f node) *item {
	a := asNode(f["alias"])
	if len(a) == 0 {
		return it
	}
	c := *it
	c.name, c.schema = text(a["aliasname"]), ""
	if cols := names(a["colnames"]); len(cols) > 0 {
		c.columns = append([]output(nil), it.columns...)
		for i := range cols {
			if i < len(c.columns) {
				c.columns[i].name = cols[i]
			}
		}
	}
	return &c
}

// rangeVar returns what a table's name stands for.
func (l *lineage) rangeVar(r node, target bool) *item {
	schema, name := text(r["schemaname"]), text(r["relname"])
	if schema == "" && !target {
		for i := len(l.ctes) - 1; i >= 0; i-- {
			if l.ctes[i].name == name {
				return l.ctes[i]
			}
		}
	}
	if holdsStatistics(name) {
		return l.strange(schema, name)
	}
	if name == "pg_stat_activity" && (schema == "" || schema == "pg_catalog") { // what others have said may hold any value
		return activity(name, schema)
	}
	relations := l.catalog.Relations(schema, name)
	if len(relations) == 0 {
		if schema == "pg_catalog" || schema == "information_schema" || schema == "" && systemRelations[name] {
			return &item{name: name, schema: schema, open: true, all: origins{}} // the server's own: it holds no rows of tables
		}
		return l.strange(schema, name)
	}
	it := l.relation(relations[0])
	for _, more := range relations[1:] { // whichever the search path finds: any of them
		other := l.relation(more)
		it = &item{name: name, columns: append(append([]output(nil), it.columns...), other.columns...), open: l.uses == nil || it.open || other.open, all: both(it.all, other.all), base: true}
		it.columns = folded(it.columns)
	}
	it.name = name
	return it
}

// strange is a relation of which nothing is known.
func (l *lineage) strange(schema, name string) *item {
	it := &item{name: name, schema: schema, open: true, all: opaque()}
	if l.uses != nil && !holdsStatistics(name) {
		it.base, it.unknown = true, qualified(schema, name)
		it.all = origins{{Table: it.unknown, Column: "*"}: true}
	}
	return it
}

// holdsStatistics reports whether a relation of pg_catalog holds values of other tables.
func holdsStatistics(name string) bool {
	return strings.HasPrefix(name, "pg_stats") || strings.HasPrefix(name, "pg_statistic") && name != "pg_statistic_ext" // which says what is collected
}

func both(a, b origins) origins {
	c := origins{}
	c.add(a)
	c.add(b)
	return c
}

// folded makes one of the columns that have the same name.
func folded(cols []output) (out []output) {
	at := map[string]int{}
	for _, c := range cols {
		if i, ok := at[c.name]; ok {
			out[i].from = both(out[i].from, c.from)
			continue
		}
		at[c.name] = len(out)
		out = append(out, c)
	}
	return out
}

// relation returns a relation's columns with where they come from.
func (l *lineage) relation(r *Relation) *item {
	defer l.reaches(r)()
	it := &item{name: r.Name, schema: r.Schema, all: origins{}, base: true}
	if r.View != "" {
		u := l.uses // what a view does inside is its owner's
		l.uses = nil
		defer func() { l.uses = u }()
		var outs []output
		if tree, err := l.reader.parse(l.ctx, r.View); err == nil && len(tree.Stmts) == 1 && l.depth < maxDepth {
			saved := l.ctes
			l.ctes = nil // a view sees no WITH of the statement that uses it
			outs = l.statement(tree.Stmts[0].Stmt, nil)
			l.ctes = saved
		} else {
			outs = []output{{many: true, from: opaque()}}
		}
		from := spread(outs, len(r.Columns))
		for i, c := range r.Columns {
			o := output{name: c, from: origins{}}
			for _, x := range from[i] {
				o.from[x] = true
			}
			if u != nil {
				o.from[core.Origin{Table: r.Schema + "." + r.Name, Column: c}] = true
			}
			it.columns = append(it.columns, o)
			it.all.add(o.from)
		}
		return it
	}
	for _, c := range r.Columns {
		o := output{name: c, from: origins{{Table: r.Schema + "." + r.Name, Column: c}: true}}
		for _, p := range r.Parents {
			o.from[core.Origin{Table: p, Column: c}] = true
		}
		for _, child := range r.Children {
			o.from[core.Origin{Table: child, Column: c}] = true
		}
		if r.Numerous {
			o.from[Anything] = true
		}
		it.columns = append(it.columns, o)
		it.all.add(o.from)
	}
	for i := range it.columns {
		if text := r.Generated[it.columns[i].name]; text != "" {
			from := l.generated(text, it)
			it.columns[i].from.add(from)
			it.all.add(from)
		}
	}
	return it
}

// reaches notes that a relation is reached, by itself or through the one that the statement names, whether any of its
// columns is used or not. What it returns is called when the relation has been looked at.
func (l *lineage) reaches(r *Relation) func() {
	if l.reached == nil {
		return func() {}
	}
	name, was := r.Schema+"."+r.Name, l.root
	if was == "" {
		l.root = name
	}
	set := l.reached[l.root]
	if set == nil {
		set = map[string]bool{}
		l.reached[l.root] = set
	}
	for _, n := range slices.Concat([]string{name}, r.Parents, r.Children) {
		if n != l.root {
			set[n] = true
		}
	}
	return func() { l.root = was }
}

// generated returns the base columns of a row that a generated column is computed from.
func (l *lineage) generated(text string, row *item) origins {
	u := l.uses
	l.uses = nil
	defer func() { l.uses = u }()
	tree, err := l.reader.parse(l.ctx, "select "+text)
	if err != nil || len(tree.Stmts) != 1 {
		return opaque()
	}
	return l.expression(inner(tree.Stmts[0].Stmt, "SelectStmt")["targetList"], &scope{items: []*item{row}})
}

// expression returns every base column whose value an expression may carry.
func (l *lineage) expression(v any, s *scope) origins {
	out := origins{}
	l.collect(v, s, out)
	return out
}

func (l *lineage) collect(v any, s *scope, out origins) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			l.collect(x, s, out)
		}
	case node:
		for key, x := range v {
			f := asNode(x)
			switch key {
			case "ColumnRef":
				out.add(l.resolve(list(f["fields"]), s))
			case "SubLink":
				l.collect(f["testexpr"], s, out)
				if text(f["subLinkType"]) == "EXISTS_SUBLINK" {
					if l.uses != nil {
						l.statement(asNode(f["subselect"]), s)
					}
					continue
				}
				for _, o := range l.statement(asNode(f["subselect"]), s) {
					out.add(o.from)
				}
			case "FuncCall":
				parts := names(f["funcname"])
				schema, name := "", ""
				if len(parts) > 0 {
					name = parts[len(parts)-1]
				}
				if len(parts) > 1 {
					schema = parts[len(parts)-2]
				}
				if l.uses != nil { // what a function reads by itself is no use of the statement's
					l.parts(f, s, out, "agg_filter", "agg_order", "over")
					continue
				}
				if effect, known := functionEffect(schema, name); !known || effect == core.EffectUnknown || effect == core.EffectNetwork ||
					strings.HasPrefix(name, "lo_") || name == "loread" || name == "pg_stat_get_activity" || name == "pg_stat_get_backend_activity" {
					out[Anything] = true
				}
				l.collect(x, s, out)
			case "CaseExpr":
				l.parts(f, s, out, "arg")
			case "CaseWhen":
				l.parts(f, s, out, "expr")
			default:
				l.collect(x, s, out)
			}
		}
	}
}

// parts collects the parts of an expression, of which some decide about the others.
func (l *lineage) parts(f node, s *scope, out origins, deciding ...string) {
	for key, x := range f {
		if l.uses == nil || !slices.Contains(deciding, key) {
			l.collect(x, s, out)
			continue
		}
		from := l.expression(x, s)
		l.uses.indirect.add(from)
		out.add(from)
	}
}

var systemColumns = []string{"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid"}

// resolve returns what a column reference may hold.
func (l *lineage) resolve(fields []any, s *scope) origins {
	out := l.find(fields, s)
	if l.uses != nil {
		l.uses.columns.add(out)
	}
	return out
}

func (l *lineage) find(fields []any, s *scope) origins {
	parts := make([]string, 0, len(fields))
	for _, f := range fields {
		if n := asNode(f); n["String"] != nil {
			parts = append(parts, text(asNode(n["String"])["sval"]))
		}
	}
	if len(parts) == 0 {
		return opaque()
	}
	out, found := origins{}, false
	name := parts[len(parts)-1]
	for sc := s; sc != nil && !found; sc = sc.outer {
		for _, it := range sc.items {
			if len(parts) > 1 {
				if !it.is(parts[:len(parts)-1]) {
					continue
				}
				if from, ok := it.column(name); ok {
					out.add(from)
				} else if !slices.Contains(systemColumns, name) { // a further column, or a function of the row
					out.add(it.named(name))
				}
				found = true
				continue
			}
			if from, ok := it.column(name); ok {
				out.add(from)
				found = true
				continue
			}
			if it.name == name { // the whole row
				out.add(it.all)
				found = true
				continue
			}
			if it.open { // it may be there, or farther out
				out.add(it.named(name))
			}
		}
	}
	if found || slices.Contains(systemColumns, name) {
		return out
	}
	if len(parts) > 1 { // a field of a composite column
		first := l.resolve(fields[:1], s)
		return both(out, first)
	}
	if len(out) == 0 {
		for sc := s; sc != nil; sc = sc.outer {
			for _, it := range sc.items {
				if it.open { // the server's own relation, whose columns are not known and hold nothing
					return out
				}
			}
		}
		if l.uses != nil { // of any table, if there is such a column at all
			return origins{{Table: "*", Column: name}: true}
		}
		return opaque()
	}
	return out
}

// nameOf returns the name that the server gives a column without one (FigureColname).
func nameOf(val node) string {
	for typ, v := range val {
		f := asNode(v)
		switch typ {
		case "ColumnRef":
			if n := names(f["fields"]); len(n) > 0 {
				return n[len(n)-1]
			}
		case "FuncCall":
			if n := names(f["funcname"]); len(n) > 0 {
				return n[len(n)-1]
			}
		case "A_Indirection":
			if n := names(f["indirection"]); len(n) > 0 && n[len(n)-1] != "" {
				return n[len(n)-1]
			}
			return nameOf(asNode(f["arg"]))
		case "TypeCast":
			if n := nameOf(asNode(f["arg"])); n != "?column?" {
				return n
			}
			if n := names(asNode(f["typeName"])["names"]); len(n) > 0 {
				return n[len(n)-1]
			}
		case "CollateClause":
			return nameOf(asNode(f["arg"]))
		case "CoalesceExpr":
			return "coalesce"
		case "CaseExpr":
			if n := nameOf(asNode(f["defresult"])); n != "?column?" {
				return n
			}
			return "case"
		case "SubLink":
			switch text(f["subLinkType"]) {
			case "EXISTS_SUBLINK":
				return "exists"
			case "ARRAY_SUBLINK":
				return "array"
			}
			t := list(inner(f["subselect"], "SelectStmt")["targetList"])
			if len(t) > 0 {
				rt := inner(t[0], "ResTarget")
				if n := text(rt["name"]); n != "" {
					return n
				}
				return nameOf(asNode(rt["val"]))
			}
		case "A_ArrayExpr":
			return "array"
		case "RowExpr":
			return "row"
		}
	}
	return "?column?"
}

func nameOfFunction(f node) string {
	for _, x := range list(f["functions"]) {
		for _, y := range list(inner(x, "List")["items"]) {
			if n := names(inner(y, "FuncCall")["funcname"]); len(n) > 0 {
				return n[len(n)-1]
			}
		}
	}
	return ""
}
