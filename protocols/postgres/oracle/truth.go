package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// The server's own view of a statement, as its log has it.

// settings make the server say what it makes of each statement.
var settings = map[string]string{
	"logging_collector": "on", "log_destination": "jsonlog", "log_directory": "log", "log_filename": "server.log",
	"log_rotation_age": "0", "log_rotation_size": "0", "log_statement": "all", "timezone": "UTC",
	"debug_print_parse": "on", "debug_print_plan": "on", "debug_pretty_print": "off",
	"jit": "off", "autovacuum": "off", "max_prepared_transactions": "2", "max_parallel_workers_per_gather": "0",
}

// names makes a database tell, in the server's log, what a relation is called from when on: trees have numbers only.
const names = `
create schema weir_oracle;
grant usage on schema weir_oracle to public;
create function weir_oracle.tell() returns event_trigger language plpgsql as $$
declare r record;
begin
	for r in select objid, coalesce(n.nspname, '') as schema, c.relname as name
		from pg_event_trigger_ddl_commands() d join pg_class c on c.oid = d.objid join pg_namespace n on n.oid = c.relnamespace
		where classid = 'pg_class'::regclass and c.relkind not in ('i', 'I')
	loop
		raise log e'weir_oracle\t%\t%\t%', r.objid, r.schema, r.name;
	end loop;
exception when others then
	raise log e'weir_oracle\tfailed: %', sqlerrm;
end $$;
create event trigger weir_oracle on ddl_command_end execute function weir_oracle.tell();
`

// entry is one line of the server's log.
type entry struct {
	User      string `json:"user"`
	Database  string `json:"dbname"`
	Session   string `json:"session_id"`
	Severity  string `json:"error_severity"`
	Message   string `json:"message"`
	Detail    string `json:"detail"`
	Context   string `json:"context"`
	Internal  string `json:"internal_query"`
	Statement string `json:"statement"`
}

// asked is one text that a client has sent, and what the server has made of it.
type asked struct {
	session string
	text    string
	writes  map[string]bool // relations, schema.name
	reads   map[string]bool
	changes bool   // some statement of it inserts, updates, deletes or merges
	utility bool   // some statement of it is not a query
	parsed  bool   // the server has got as far as a tree
	failed  string // the server's error
}

// relations tells what a number stands for: schema.name.
type relations map[string]string

// readLog calls f for each text, in the order in which they came. A text ends when its session sends the next one.
func readLog(r io.Reader, database string, known relations, f func(*asked)) error {
	in := bufio.NewReaderSize(r, 1<<20)
	open := map[string]*asked{}
	var order []string
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			break
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			continue // the server's encoding is not always UTF-8
		}
		if e.Database != database {
			continue
		}
		if rest, ok := strings.CutPrefix(e.Message, "weir_oracle\t"); ok {
			if told := strings.Split(rest, "\t"); len(told) == 3 {
				if strings.HasPrefix(told[1], "pg_temp") {
					told[1] = "pg_temp"
				}
				known[told[0]] = told[1] + "." + told[2]
			}
			continue
		}
		if text, ok := strings.CutPrefix(e.Message, "statement: "); ok && e.Severity == "LOG" && e.Context == "" {
			if last := open[e.Session]; last != nil {
				f(last)
			} else {
				order = append(order, e.Session)
			}
			open[e.Session] = &asked{session: e.Session, text: text, writes: map[string]bool{}, reads: map[string]bool{}}
			continue
		}
		a := open[e.Session]
		if a == nil || e.Context != "" || e.Internal != "" { // what a function does inside is another matter
			continue
		}
		switch {
		case e.Severity == "ERROR" || e.Severity == "FATAL":
			a.failed = e.Message
		case e.Message == "parse tree:":
			tree, err := readTree(e.Detail)
			if err != nil {
				return fmt.Errorf("%w: %.200s", err, e.Detail)
			}
			a.query(tree, known)
		case e.Message == "plan:" && a.utility:
			tree, err := readTree(e.Detail)
			if err != nil {
				return fmt.Errorf("%w: %.200s", err, e.Detail)
			}
			a.plan(tree, known)
		}
	}
	for _, s := range order {
		f(open[s])
	}
	return nil
}

// The server's numbers (nodes.h): a Query's and a PlannedStmt's commandType.
const (
	cmdSelect  = 1
	cmdUtility = 6
)

// query takes in a tree from before the rewriter: what the statement itself says, and no view's or rule's doing.
func (a *asked) query(tree *node, known relations) {
	a.parsed = true
	if tree.number("commandType") == cmdUtility {
		a.utility = true
	}
	tree.walk(func(n *node) {
		if n.name != "QUERY" {
			return
		}
		table := n.list("rtable")
		for _, r := range table {
			if r.name == "RTE" && r.number("rtekind") == 0 {
				a.reads[known.name(r)] = true
			}
		}
		command := n.number("commandType")
		if at := n.number("resultRelation"); at > 0 && at <= len(table) && command != cmdSelect && command != cmdUtility {
			a.changes = true
			a.writes[known.name(table[at-1])] = true
		}
	})
}

// Bits of requiredPerms (parsenodes.h): INSERT, UPDATE, DELETE.
const permsWrite = 1 | 4 | 8

// plan takes in the plan of a query inside a utility statement, whose tree the server does not write: EXPLAIN ANALYZE,
// CREATE TABLE AS. What a view or a rule has brought in is checked as its owner, and does not count.
func (a *asked) plan(tree *node, known relations) {
	infos := tree.list("permInfos") // since PostgreSQL 16 permissions are kept apart
	changes := tree.number("commandType") != cmdSelect || tree.word("hasModifyingCTE") == "true"
	for _, r := range tree.list("rtable") {
		if r.name != "RTE" || r.number("rtekind") != 0 {
			continue
		}
		perms := r
		if at := r.number("perminfoindex"); at > 0 && at <= len(infos) {
			perms = infos[at-1]
		}
		if perms.number("requiredPerms") == 0 || perms.number("checkAsUser") != 0 {
			continue
		}
		a.reads[known.name(r)] = true
		if changes && perms.number("requiredPerms")&permsWrite != 0 {
			a.writes[known.name(r)] = true
		}
	}
}

// name returns what a range table entry is called.
func (k relations) name(r *node) string {
	if name := k[r.word("relid")]; name != "" {
		return name
	}
	if v := r.fields["alias"]; v != nil && len(v.nodes) > 0 {
		return "?." + "relation " + r.word("relid") // only its alias is known
	}
	for _, e := range r.list("eref") {
		return "?." + e.word("aliasname")
	}
	return "?." + "relation " + r.word("relid")
}
