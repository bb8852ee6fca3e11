package sql

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// Uses says how a statement uses base columns: not only what its answer shows, but what decides about the answer or is
// written somewhere else. An origin whose table is "*" may be of any table of the statement, and one whose column is "*"
// any column of its table.
type Uses struct {
	Columns     []core.Origin // all of them
	Indirect    []core.Origin // they decide about the answer without being in it: conditions, joins, groups, order
	Copied      []core.Origin // their values are written somewhere else
	Transformed []core.Origin // they are in the answer inside an expression
	// Reached are the tables that rows come from or go to beside those that are named, by the one that leads to them: what
	// lies under a view, partitions and children, and what they are of.
	Reached map[string][]string
}

// Uses reads how a text's statements use columns. What cannot be followed is Anything.
func (r *Reader) Uses(ctx context.Context, text string, c Catalog) *Uses {
	u := &uses{columns: origins{}, indirect: origins{}, copied: origins{}, transformed: origins{}}
	tree, err := r.parse(ctx, text)
	reached := map[string]map[string]bool{}
	if err != nil {
		u.anything()
	} else {
		for i := range tree.Stmts {
			l := &lineage{ctx: ctx, reader: r, catalog: c, uses: u, reached: reached}
			l.statement(tree.Stmts[i].Stmt, nil)
		}
	}
	all := &Uses{
		Columns: u.columns.list(), Indirect: u.indirect.list(), Copied: u.copied.list(), Transformed: u.transformed.list(),
		Reached: make(map[string][]string, len(reached)),
	}
	for root, set := range reached {
		all.Reached[root] = slices.Sorted(maps.Keys(set))
	}
	return all
}

// uses is what a lineage collects of a whole statement on its way.
type uses struct {
	columns, indirect, copied, transformed origins
	markers                                int
}

func (u *uses) anything() {
	for _, set := range []origins{u.columns, u.indirect, u.copied, u.transformed} {
		set[Anything] = true
	}
}

// marker returns an origin that stands for columns which are not known yet.
func (u *uses) marker() core.Origin {
	u.markers++
	return core.Origin{Table: "\x00" + strconv.Itoa(u.markers)}
}

// replace puts what a marker stands for in its place.
func (u *uses) replace(marker core.Origin, by origins) {
	for _, set := range []origins{u.columns, u.indirect, u.copied, u.transformed} {
		set.replace(marker, by)
	}
}

func (o origins) replace(marker core.Origin, by origins) {
	if o[marker] {
		delete(o, marker)
		o.add(by)
	}
}

// What follows does nothing where only the lineage of outputs is asked for.

// decides notes that an expression decides about the answer.
func (l *lineage) decides(v any, s *scope) {
	if l.uses != nil && v != nil {
		l.uses.indirect.add(l.expression(v, s))
	}
}

// copies notes that outputs are written somewhere else.
func (l *lineage) copies(outs []output) {
	if l.uses != nil {
		for _, o := range outs {
			l.uses.copied.add(o.from)
		}
	}
}

// transforms notes that an output has come through an expression.
func (l *lineage) transforms(from origins) {
	if l.uses != nil {
		l.uses.transformed.add(from)
	}
}

// clauses notes the parts of a query beside its outputs. s is nil for the parts of a UNION.
func (l *lineage) clauses(f node, s *scope, outs []output) {
	if l.uses == nil {
		return
	}
	for _, key := range []string{"whereClause", "havingClause", "limitCount", "limitOffset"} {
		l.decides(f[key], s)
	}
	for _, key := range []string{"groupClause", "distinctClause", "sortClause"} {
		l.ordered(f[key], s, outs, key != "groupClause")
	}
	l.decides(f["windowClause"], s)
}

// ordered notes what a list of GROUP BY, DISTINCT ON or ORDER BY means: expressions, places in the target list, or names
// of outputs. To take a name for both a column and an output is the safe mistake.
func (l *lineage) ordered(v any, s *scope, outs []output, named bool) {
	for _, x := range list(v) {
		if by := inner(x, "SortBy"); len(by) > 0 {
			x = by["node"]
		}
		if set := inner(x, "GroupingSet"); len(set) > 0 {
			l.ordered(set["content"], s, outs, named)
			continue
		}
		if isConst(x) {
			place, _ := constant(x)
			n, err := strconv.Atoi(place)
			certain := err == nil && n <= len(outs) && !slices.ContainsFunc(outs, func(o output) bool { return o.many || o.loose })
			for i, o := range outs {
				if i+1 == n || !certain {
					l.uses.indirect.add(o.from)
				}
			}
			continue
		}
		found := false
		ref := list(inner(x, "ColumnRef")["fields"])
		if fields := names(ref); len(fields) == 1 {
			for _, o := range outs {
				if o.name == fields[0] {
					l.uses.indirect.add(o.from)
					found = true
				}
			}
			found = found && (named || l.find(ref, s)[core.Origin{Table: "*", Column: fields[0]}])
		}
		if !found {
			l.decides(x, s)
		}
	}
}

// places reports whether a tree has a list in which a number stands for a place in the target list: then it is not alike
// for all numbers.
func places(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if places(x) {
				return true
			}
		}
	case node:
		for key, x := range v {
			switch key {
			case "groupClause", "sortClause", "distinctClause", "content":
				for _, y := range list(x) {
					if isConst(y) || isConst(inner(y, "SortBy")["node"]) {
						return true
					}
				}
			}
			if places(x) {
				return true
			}
		}
	}
	return false
}

// joins notes what a join decides by.
func (l *lineage) joins(f node, left, right []*item, s *scope) {
	if l.uses == nil {
		return
	}
	l.decides(f["quals"], s)
	shared := names(f["usingClause"])
	if natural, _ := f["isNatural"].(bool); natural {
		here, more := namesOf(left)
		there, unsure := namesOf(right)
		for name := range here {
			if there[name] || unsure {
				shared = append(shared, name)
			}
		}
		for name := range there {
			if more && !here[name] {
				shared = append(shared, name)
			}
		}
		for _, it := range append(append([]*item(nil), left...), right...) {
			if more && unsure && it.open {
				l.uses.indirect.add(it.all)
			}
		}
	}
	for _, name := range shared {
		for _, it := range append(append([]*item(nil), left...), right...) {
			from, ok := it.column(name)
			if !ok && it.open {
				from = it.named(name)
			}
			l.uses.indirect.add(from)
			l.uses.columns.add(from)
		}
	}
}

// namesOf returns the names of the columns of some items, and whether there may be others.
func namesOf(items []*item) (names map[string]bool, open bool) {
	names = map[string]bool{}
	for _, it := range items {
		open = open || it.open
		for _, c := range it.columns {
			names[c.name] = true
		}
	}
	return names, open
}

// named is what a column of an item whose columns are not all known may hold.
func (it *item) named(name string) origins {
	if it.unknown != "" {
		return origins{{Table: it.unknown, Column: name}: true}
	}
	return it.all
}

// writes notes what the parts of INSERT, UPDATE, DELETE and MERGE do. s is what they see, the target first.
func (l *lineage) writes(typ string, f node, s *scope) {
	if l.uses == nil {
		return
	}
	target := s.items[0]
	set := func(targets any, s *scope) {
		for _, t := range list(targets) {
			rt := inner(t, "ResTarget")
			if name := text(rt["name"]); name != "" {
				from, ok := target.column(name)
				if !ok {
					from = target.named(name)
				}
				l.uses.columns.add(from)
			}
			if rt["val"] != nil {
				l.uses.copied.add(l.expression(rt["val"], s))
			}
		}
	}
	l.decides(f["whereClause"], s)
	switch typ {
	case "InsertStmt":
		set(f["cols"], s)
		if q := asNode(f["selectStmt"]); len(q) > 0 {
			l.copies(l.statement(q, s.outer))
		}
		conflict := asNode(f["onConflictClause"])
		proposed := *target // the row that the client has said, or that has been counted as copied above
		proposed.name, proposed.schema, proposed.all = "excluded", "", origins{}
		proposed.columns = nil
		for _, c := range target.columns {
			proposed.columns = append(proposed.columns, output{name: c.name, from: origins{}})
		}
		proposed.unknown = ""
		seen := &scope{items: []*item{target, &proposed}, outer: s.outer}
		set(conflict["targetList"], &scope{items: []*item{&proposed, target}, outer: s.outer})
		l.decides(conflict["whereClause"], seen)
		l.decides(asNode(conflict["infer"])["whereClause"], seen)
		for _, e := range list(asNode(conflict["infer"])["indexElems"]) {
			el := inner(e, "IndexElem")
			l.decides(el["expr"], seen)
			if name := text(el["name"]); name != "" {
				from, ok := target.column(name)
				if !ok {
					from = target.named(name)
				}
				l.uses.indirect.add(from)
				l.uses.columns.add(from)
			}
		}
	case "UpdateStmt":
		set(f["targetList"], s)
	case "MergeStmt":
		l.decides(f["joinCondition"], s)
		for _, c := range list(f["mergeWhenClauses"]) {
			clause := inner(c, "MergeWhenClause")
			l.decides(clause["condition"], s)
			set(clause["targetList"], s)
			for _, v := range list(clause["values"]) {
				l.uses.copied.add(l.expression(v, s))
			}
		}
	}
}

// copyStatement notes what a COPY reads, and whether it writes it elsewhere than to the client.
func (l *lineage) copyStatement(f node, outer *scope) {
	elsewhere := text(f["filename"]) != ""
	if program, _ := f["is_program"].(bool); program {
		elsewhere = true
	}
	from, _ := f["is_from"].(bool)
	var outs []output
	if q := asNode(f["query"]); len(q) > 0 {
		outs = l.statement(q, outer)
	} else {
		it := l.rangeVar(asNode(f["relation"]), true)
		l.decides(f["whereClause"], &scope{items: []*item{it}})
		chosen := list(f["attlist"])
		for _, name := range names(chosen) {
			o, ok := it.column(name)
			if !ok {
				o = it.named(name)
			}
			outs = append(outs, output{from: o})
		}
		if len(chosen) == 0 {
			outs = append(append(outs, it.columns...), output{from: it.all})
		}
		for _, o := range outs {
			l.uses.columns.add(o.from)
		}
	}
	if elsewhere && !from {
		l.copies(outs)
	}
}

// Spread gives each table of a command its part of the uses. Tables that are reached through a view, a partition, a child
// or a parent are added, with the use "through" and those of the table that leads to them.
func (u *Uses) Spread(resources []core.Resource) []core.Resource {
	at := map[string][]int{}
	named := map[int]bool{} // their columns are the uses', not those that were named without the catalog
	out := append([]core.Resource(nil), resources...)
	for i := range out {
		if out[i].Kind == "table" {
			at[out[i].Name] = append(at[out[i].Name], i)
		}
	}
	direct := len(out)
	for i := range direct {
		if out[i].Kind != "table" {
			continue
		}
		for _, name := range u.Reached[out[i].Name] {
			if len(at[name]) == 0 {
				at[name] = []int{len(out)}
				out = append(out, core.Resource{Kind: "table", Name: name, Use: []string{"through"}})
			}
			if k := at[name][0]; k >= direct { // one that is named itself has uses of its own
				out[k].Use = addAll(out[k].Use, out[i].Use)
			}
		}
	}
	add := func(i int, field func(*core.Resource) *[]string, column string) {
		r := &out[i]
		if !named[i] {
			named[i] = true
			star := len(r.Columns) > 0 && r.Columns[0] == "*"
			r.Columns = nil
			if star {
				r.Columns = []string{"*"}
			}
		}
		to := field(r)
		*to = addAll(*to, []string{column})
	}
	for _, list := range []struct {
		of    []core.Origin
		field func(*core.Resource) *[]string
	}{
		{u.Columns, func(r *core.Resource) *[]string { return &r.Columns }},
		{u.Indirect, func(r *core.Resource) *[]string { return &r.Indirect }},
		{u.Copied, func(r *core.Resource) *[]string { return &r.Copied }},
		{u.Transformed, func(r *core.Resource) *[]string { return &r.Transformed }},
	} {
		for _, o := range list.of {
			if strings.HasPrefix(o.Table, "\x00") {
				continue
			}
			if o == Anything {
				o.Column = "*.*"
			}
			if o.Table == "*" { // of whichever table
				for i := range direct {
					if out[i].Kind == "table" {
						add(i, list.field, o.Column)
					}
				}
				continue
			}
			if len(at[o.Table]) == 0 {
				at[o.Table] = []int{len(out)}
				out = append(out, core.Resource{Kind: "table", Name: o.Table, Use: []string{"through"}})
			}
			for _, i := range at[o.Table] {
				add(i, list.field, o.Column)
			}
		}
	}
	return out
}
