package sql

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// statement says what one statement does.
func statement(text string, stmt node) Statement {
	w := &walker{command: &core.Command{Text: text, Where: true, Status: core.StatusKnown}}
	w.out.Command = w.command
	for typ, fields := range stmt { // exactly one
		w.command.Action = actionOf(typ)
		f, _ := fields.(node)
		w.statement(typ, f)
	}
	c := w.command
	if len(w.effects) == 0 {
		w.effect(core.EffectRead)
	}
	for e := range w.effects {
		c.Effects = append(c.Effects, e)
	}
	sortEffects(c.Effects)
	if w.secret {
		c.Secret, c.Text = true, withheld(c.Action)
	}
	w.columns()
	c.Fingerprint = fingerprint([]string{shape(stmt)})
	return w.out
}

// walker collects what a statement does.
type walker struct {
	command *core.Command
	out     Statement
	effects map[core.Effect]bool
	ctes    []string // the names that WITH clauses have put over tables, innermost last
	refs    []string // the columns named
	star    bool
	secret  bool
	pinned  string // the one setting whose row of pg_settings is asked for, see pinnedSetting
}

func (w *walker) effect(effects ...core.Effect) {
	if w.effects == nil {
		w.effects = map[core.Effect]bool{}
	}
	for _, e := range effects {
		w.effects[e] = true
	}
}

func (w *walker) unsure(format string, args ...any) {
	w.effect(core.EffectUnknown)
	if w.command.Status == core.StatusKnown {
		w.command.Status, w.command.Reason = core.StatusIncomplete, fmt.Sprintf(format, args...)
	}
}

func (w *walker) resource(kind, name string, use ...string) {
	w.command.Resources = addResource(w.command.Resources, core.Resource{Kind: kind, Name: name, Use: use})
}

// statement walks one statement, which may stand inside another.
func (w *walker) statement(typ string, f node) {
	if with, ok := f["withClause"].(node); ok {
		depth := len(w.ctes)
		w.with(with)
		defer func() { w.ctes = w.ctes[:depth] }()
		f = without(f, "withClause")
	}
	switch typ {
	case "SelectStmt":
		w.effect(core.EffectRead)
		outer := w.pinned
		w.pinned = pinnedSetting(f)
		defer func() { w.pinned = outer }()
		if into, ok := f["intoClause"].(node); ok {
			w.effect(core.EffectDDL, core.EffectWrite)
			w.table(into["rel"], "create")
			f = without(f, "intoClause")
		}
		w.walk(f)
	case "InsertStmt":
		w.effect(core.EffectWrite)
		uses := []string{"write", "insert"}
		if text(asNode(f["onConflictClause"])["action"]) == "ONCONFLICT_UPDATE" {
			uses = append(uses, "update")
		}
		w.table(f["relation"], uses...)
		w.targets(f["cols"])
		w.walk(without(f, "relation", "cols"))
	case "UpdateStmt", "DeleteStmt":
		w.effect(core.EffectWrite)
		w.table(f["relation"], "write", actionOf(typ))
		if typ == "UpdateStmt" {
			w.targets(f["targetList"])
		}
		if !selective(f["whereClause"]) {
			w.command.Where = false
		}
		w.walk(without(f, "relation"))
	case "MergeStmt":
		w.effect(core.EffectRead, core.EffectWrite)
		w.merge(f)
		w.walk(without(f, "relation"))
	case "TruncateStmt":
		w.effect(core.EffectWrite)
		w.command.Where = false
		for _, r := range list(f["relations"]) {
			w.table(inner(r, "RangeVar"), "write", "truncate")
		}
	case "CopyStmt":
		w.copy(f)
	case "ExplainStmt":
		w.explain(f)
	case "PrepareStmt":
		w.effect(core.EffectSession)
		w.out.Prepare = text(f["name"])
		w.body(f["query"])
	case "ExecuteStmt":
		// What it does is what was prepared: the codec knows the name.
		w.effect(core.EffectSession)
		w.out.Execute = text(f["name"])
		w.walk(f)
	case "DeallocateStmt":
		w.effect(core.EffectSession)
		if w.out.Deallocate = text(f["name"]); w.out.Deallocate == "" {
			w.out.Deallocate = "*"
		}
	case "DeclareCursorStmt":
		w.effect(core.EffectRead)
		w.out.Declare = text(f["portalname"])
		w.body(f["query"])
	case "FetchStmt":
		w.effect(core.EffectRead)
		w.out.Fetch = text(f["portalname"])
	case "VariableSetStmt":
		w.set(f)
	case "DiscardStmt":
		w.effect(core.EffectSession)
		w.out.Deallocate = "*"
		w.out.SearchPath = true
	case "CreateTableAsStmt":
		w.effect(core.EffectDDL, core.EffectWrite)
		if into, ok := f["into"].(node); ok {
			w.table(into["rel"], "create")
		}
		w.walk(f["query"])
	case "DropStmt":
		w.effect(core.EffectDDL)
		w.drop(f)
	case "RenameStmt":
		w.effect(plain[typ].effects...)
		w.tables(f, plain[typ].use)
		if strings.HasSuffix(text(f["renameType"]), "TABLE") || strings.HasSuffix(text(f["renameType"]), "VIEW") || text(f["renameType"]) == "OBJECT_SEQUENCE" {
			w.hides("", text(f["newname"]))
		}
	case "CallStmt":
		w.call(asNode(f["funccall"]))
		w.walk(f)
		w.unsure("CALL runs a procedure whose text is not seen")
	case "DoStmt":
		w.unsure("DO runs a block of code")
	case "ListenStmt", "NotifyStmt", "UnlistenStmt":
		w.effect(plain[typ].effects...)
		channel := text(f["conditionname"])
		if channel == "" {
			channel = "*"
		}
		w.resource("channel", channel, actionOf(typ))
	default:
		p, ok := plain[typ]
		if !ok {
			w.unsure("a %s statement is not known", actionOf(typ))
			w.walk(f)
			return
		}
		w.effect(p.effects...)
		w.holdsSecret(typ, f)
		switch p.use {
		case "":
			w.walk(f)
		case "maintain":
			w.walk(f)
			for i := range w.command.Resources {
				w.command.Resources[i].Use = []string{"maintain"}
			}
		default:
			w.tables(f, p.use)
		}
	}
}

// merge notes what the clauses of a MERGE do to its table.
func (w *walker) merge(f node) {
	uses := []string{"write"}
	for _, c := range list(f["mergeWhenClauses"]) {
		clause := inner(c, "MergeWhenClause")
		kind := text(clause["commandType"])
		switch kind {
		case "CMD_INSERT":
			uses = addAll(uses, []string{"insert"})
		case "CMD_UPDATE", "CMD_DELETE":
			uses = addAll(uses, []string{strings.ToLower(strings.TrimPrefix(kind, "CMD_"))})
			if !selective(f["joinCondition"]) && !selective(clause["condition"]) {
				w.command.Where = false
			}
		}
	}
	w.table(f["relation"], uses...)
}

// body walks a statement that a name now stands for, and keeps it for when the name is used.
func (w *walker) body(query any) {
	q, _ := query.(node)
	for typ, f := range q {
		w.statement(typ, asNode(f))
	}
	if len(q) == 1 {
		s := statement(w.command.Text, q)
		w.out.Body = s.Command
	}
}

// with walks a WITH clause. The name of a query without RECURSIVE is not in sight inside itself, nor before it.
func (w *walker) with(with node) {
	recursive, _ := with["recursive"].(bool)
	ctes := list(with["ctes"])
	name := func(c any) string { return text(inner(c, "CommonTableExpr")["ctename"]) }
	if recursive {
		for _, c := range ctes {
			w.ctes = append(w.ctes, name(c))
		}
	}
	for _, c := range ctes {
		w.walk(inner(c, "CommonTableExpr"))
		if !recursive {
			w.ctes = append(w.ctes, name(c))
		}
	}
}

// walk walks anything: nodes, lists, values.
func (w *walker) walk(v any) {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			w.walk(x)
		}
	case node:
		if with, ok := v["withClause"].(node); ok { // a SelectStmt that stands in a field of its own (larg, rarg)
			depth := len(w.ctes)
			w.with(with)
			defer func() { w.ctes = w.ctes[:depth] }()
			v = without(v, "withClause")
		}
		if _, ok := v["relpersistence"]; ok {
			if _, ok := v["relname"]; ok {
				w.table(v, "read")
				return
			}
		}
		for _, key := range sortedKeys(v) {
			x := v[key]
			switch {
			case strings.HasSuffix(key, "Stmt") && key[0] >= 'A' && key[0] <= 'Z':
				w.statement(key, asNode(x))
				continue
			case key == "FuncCall":
				w.call(asNode(x))
			case key == "ColumnRef":
				w.columnRef(asNode(x))
				continue
			case key == "A_Star":
				w.star = true
			case key == "A_Indirection":
				w.attributes(list(asNode(x)["indirection"]))
			case key == "A_Expr":
				w.operator(asNode(x)["name"])
			case key == "SubLink":
				w.operator(asNode(x)["operName"])
			case key == "SortBy":
				w.operator(asNode(x)["useOp"])
			}
			w.walk(x)
		}
	}
}

// tables walks the parts of a statement that does something to the tables it names, rather than read them. Queries
// inside read.
func (w *walker) tables(f node, use string) {
	for _, key := range sortedKeys(f) {
		v := f[key]
		switch x := v.(type) {
		case node:
			if _, ok := x["relname"]; ok {
				w.table(x, use)
				continue
			}
			if r, ok := x["RangeVar"]; ok {
				w.table(r, use)
				continue
			}
		case []any:
			for _, y := range x {
				if n, ok := y.(node); ok {
					if r, ok := n["RangeVar"]; ok {
						w.table(r, use)
						continue
					}
				}
				w.walk(y)
			}
			continue
		}
		w.walk(v)
	}
}

// table notes that a table is used, unless the name is that of a WITH query.
func (w *walker) table(v any, use ...string) {
	r := asNode(v)
	name := text(r["relname"])
	if name == "" {
		return
	}
	schema := text(r["schemaname"])
	if schema == "" && use[0] == "read" && slices.Contains(w.ctes, name) {
		return
	}
	if use[0] == "create" {
		w.hides(schema, name)
	}
	if text(r["relpersistence"]) == "t" && schema == "" {
		schema = "pg_temp"
	}
	w.resource("table", qualified(schema, name), use...)
	w.system(qualified(schema, name), use)
}

// hides notes that a relation of a name is made which would stand before the server's own: pg_temp is searched before
// pg_catalog (manual, "Client Connection Defaults"), and a view of a temporary table is temporary without saying so.
func (w *walker) hides(schema, name string) {
	if systemRelations[name] && (schema == "" || strings.HasPrefix(schema, "pg_temp")) {
		w.unsure("a relation with the name %s may stand before the server's own", name)
	}
}

// qualified returns schema.name; a name without a schema is left for the session's search path to resolve.
func qualified(schema, name string) string {
	if schema == "" {
		if systemRelations[name] {
			return "pg_catalog." + name
		}
		return name
	}
	return schema + "." + name
}

// call notes a function and what it may do.
func (w *walker) call(f node) {
	names := names(f["funcname"])
	if len(names) == 0 {
		return
	}
	schema, name := "", names[len(names)-1]
	if len(names) > 1 {
		schema = names[len(names)-2]
	}
	effect, known := functionEffect(schema, name)
	full := name
	switch {
	case schema != "":
		full = schema + "." + name
	case known && !fromExtension(name):
		full = "pg_catalog." + name
	}
	use := []string{"call"}
	if !known {
		use = append(use, "unknown")
	}
	w.resource("function", full, use...)
	w.effect(effect)
	if known && effect == core.EffectUnknown {
		w.unsure("%s runs a text or reads a table that its argument names", name)
	}
	if name == "set_config" {
		args := list(f["args"])
		if len(args) < 2 {
			w.unsure("set_config without its arguments")
			return
		}
		setting, ok := constant(args[0])
		value, fixed := constant(args[1])
		if !ok && isColumn(args[0], "name") {
			setting, ok = w.pinned, w.pinned != ""
		}
		if !ok {
			w.unsure("set_config of a setting that is not written out")
			return
		}
		w.setting(setting, value, fixed)
		setting = strings.ToLower(setting)
		w.resource("setting", setting, settingUse(setting, value, fixed)...)
		if !fixed && !parameter(args[1]) { // a setting is told to the client, and can be read: past every mask
			w.unsure("set_config of a value that is computed")
		}
	}
}

// set reads SET, RESET and SET TRANSACTION.
func (w *walker) set(f node) {
	w.effect(core.EffectSession)
	name, value, fixed := strings.ToLower(text(f["name"])), "default", true
	switch text(f["kind"]) {
	case "VAR_SET_VALUE":
		args := list(f["args"])
		value, fixed = "", len(args) > 0
		for i, a := range args {
			v, ok := constant(a)
			if i > 0 {
				value += ","
			}
			value += v
			fixed = fixed && ok
		}
		w.setting(name, value, fixed)
	case "VAR_SET_DEFAULT", "VAR_RESET":
		w.setting(name, value, fixed)
	case "VAR_RESET_ALL":
		w.out.SearchPath = true
	case "VAR_SET_CURRENT", "VAR_SET_MULTI":
	default:
		w.unsure("a form of SET that is not known")
	}
	w.resource("setting", name, settingUse(name, value, fixed)...)
	w.walk(f["args"])
}

// setting judges a change of one setting.
func (w *walker) setting(name, value string, fixed bool) {
	name = strings.ToLower(name)
	switch name {
	case "role", "session_authorization":
		w.effect(core.EffectPrivilege)
	case "search_path":
		w.out.SearchPath = true
		if !fixed || hidesCatalog(value) {
			w.unsure("it may put another schema before pg_catalog, so names of the server's own would mean something else")
		}
	case "standard_conforming_strings", "client_encoding", "names", "backslash_quote":
		if !fixed || !pinnedTo(name, value) {
			w.unsure("it changes %s, which Weir reads SQL by", name)
		}
	}
}

func pinnedTo(name, value string) bool {
	value = strings.ToLower(value)
	switch name {
	case "standard_conforming_strings":
		return value == "on" || value == "true" || value == "1" || value == "yes" || value == "default"
	case "backslash_quote":
		return value != "on" && value != "true" && value != "1" && value != "yes"
	}
	value = strings.NewReplacer("-", "", "_", "").Replace(value)
	return value == "utf8" || value == "unicode" || value == "default"
}

// explain reads EXPLAIN: with ANALYZE the statement runs.
func (w *walker) explain(f node) {
	runs := false
	for _, o := range list(f["options"]) {
		d := inner(o, "DefElem")
		if text(d["defname"]) == "analyze" {
			v, ok := constant(d["arg"])
			runs = !ok || (v != "false" && v != "off" && v != "0")
		}
	}
	if runs {
		w.walk(f["query"])
		return
	}
	before := w.effects
	w.effects = nil
	w.walk(f["query"])
	changes := w.effects
	w.effects = before
	w.effect(core.EffectRead)
	if changes[core.EffectUnknown] { // a function may run while the plan is made
		w.effect(core.EffectUnknown)
	}
	w.command.Where = true
	for i := range w.command.Resources {
		w.command.Resources[i].Use = []string{"explain"}
	}
}

// drop reads DROP: the names stand in lists of lists.
func (w *walker) drop(f node) {
	kind := strings.ToLower(strings.TrimPrefix(text(f["removeType"]), "OBJECT_"))
	switch kind {
	case "table", "view", "matview", "foreign_table":
		kind = "table"
	}
	for _, o := range list(f["objects"]) {
		parts := names(o)
		if l, ok := o.(node)["List"]; ok {
			parts = names(asNode(l)["items"])
		}
		switch len(parts) {
		case 0:
		case 1:
			w.resource(kind, qualified("", parts[0]), "drop")
		default:
			w.resource(kind, strings.Join(parts[max(0, len(parts)-2):], "."), "drop")
		}
	}
}

// holdsSecret notices the statements that carry a password or another secret in their text.
func (w *walker) holdsSecret(typ string, f node) {
	switch typ {
	case "CreateRoleStmt", "AlterRoleStmt", "CreateUserMappingStmt", "AlterUserMappingStmt",
		"CreateForeignServerStmt", "AlterForeignServerStmt", "CreateSubscriptionStmt", "AlterSubscriptionStmt":
	default:
		return
	}
	if _, ok := f["conninfo"]; ok {
		w.secret = true
	}
	for _, o := range list(f["options"]) {
		name := strings.ToLower(text(inner(o, "DefElem")["defname"]))
		if strings.Contains(name, "password") || strings.Contains(name, "secret") || strings.Contains(name, "passfile") {
			w.secret = true
		}
	}
}

// columnRef notes a column's name.
func (w *walker) columnRef(f node) {
	fields := list(f["fields"])
	if len(fields) == 0 {
		return
	}
	w.attributes(fields[1:])
	last := asNode(fields[len(fields)-1])
	if s, ok := last["String"]; ok {
		w.refs = addAll(w.refs, []string{text(asNode(s)["sval"])})
		return
	}
	w.star = true
}

func (w *walker) targets(v any) {
	for _, t := range list(v) {
		if name := text(inner(t, "ResTarget")["name"]); name != "" {
			w.refs = addAll(w.refs, []string{name})
		}
	}
}

// columns gives the columns named to the table, when there is only one that they can belong to.
func (w *walker) columns() {
	at := -1
	for i, r := range w.command.Resources {
		if r.Kind != "table" {
			continue
		}
		if at >= 0 {
			return
		}
		at = i
	}
	if at < 0 {
		return
	}
	cols := append([]string(nil), w.refs...)
	sort.Strings(cols)
	if w.star {
		cols = append([]string{"*"}, cols...)
	}
	w.command.Resources[at].Columns = cols
}

// The shapes of libpg_query's JSON.

// parameter reports whether an argument is a parameter, which the client gives a value.
func parameter(v any) bool {
	n := asNode(v)
	if cast, ok := n["TypeCast"]; ok {
		return parameter(asNode(cast)["arg"])
	}
	_, ok := n["ParamRef"]
	return ok
}
