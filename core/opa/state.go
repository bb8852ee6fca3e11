package opa

import (
	"encoding/json"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-gateway/weir/core"
)

// asks is a set of the facts about the conversation that change while it goes on, but seldom: a verdict that depends on
// them can be kept for as long as they are the same. Counts change with every command; what reads them is not kept.
type asks uint8

const (
	askSession     asks = 1 << iota // what is a session's own from its beginning
	askTransaction                  // whether a transaction is open
	askTables                       // the tables that the session touched
	askRunTables                    // those that its run touched
	askRunID                        // which run it is
	askRun                          // whether there is one: with anything of it
	askAll         = askSession | askTransaction | askTables | askRunTables | askRunID | askRun
)

// sessionAsks and runAsks are the fields that may be part of a key.
var (
	sessionAsks = map[string]asks{
		"id": askSession, "run": askSession, "started": askSession, "client": askSession, "in_transaction": askTransaction,
		"tables_read": askTables, "tables_written": askTables, "tables_complete": askTables,
	}
	runAsks = map[string]asks{
		"id": askRunID | askRun, "tables_read": askRunTables | askRun, "tables_written": askRunTables | askRun, "tables_complete": askRunTables | askRun,
	}
)

// state is what a policy reads of the conversation, taken once for an event: the key and the input must not differ.
type state struct {
	digest        digest
	inTransaction bool
	tables, run   *tablesPart
}

// tablesPart is one version of a set of tables.
type tablesPart struct {
	version       uint64
	digest        digest
	complete      bool
	read, written *ast.Term
}

func (part *sessionPart) state(f *footprint, s *core.Session) (st state) {
	if f.asks == 0 {
		return st
	}
	mix := func(d digest) {
		for i := range st.digest {
			st.digest[i] = (st.digest[i]^d[i])*0x9e3779b97f4a7c15 + 1
		}
	}
	if f.asks&askSession != 0 {
		mix(part.own)
	}
	if f.asks&askTransaction != 0 {
		if st.inTransaction = s.InTransaction(); st.inTransaction {
			mix(digest{1, 1})
		}
	}
	if f.asks&askTables != 0 {
		st.tables = part.tables.Load()
		if st.tables == nil || st.tables.version != s.TablesVersion() {
			st.tables = tablesOf(s.Tables(), func(t core.Table) *ast.Term { return ast.StringTerm(t.Name) })
			part.tables.Store(st.tables)
		}
		mix(st.tables.digest)
	}
	run := s.OfRun()
	if f.asks&askRun != 0 && run != nil {
		mix(digest{2, 2})
	}
	if f.asks&askRunID != 0 && run != nil {
		mix(digestOf([]byte(run.ID)))
	}
	if f.asks&askRunTables != 0 && run != nil {
		st.run = part.runTables.Load()
		if st.run == nil || st.run.version != run.TablesVersion() {
			st.run = tablesOf(run.Tables(), func(t core.Table) *ast.Term {
				return object(pair("target", ast.StringTerm(t.Target)), pair("name", ast.StringTerm(t.Name)))
			})
			part.runTables.Store(st.run)
		}
		mix(st.run.digest)
	}
	return st
}

func tablesOf(t core.Tables, term func(core.Table) *ast.Term) *tablesPart {
	part := &tablesPart{version: t.Version, complete: t.Complete}
	b := []byte{0}
	if t.Complete {
		b[0] = 1
	}
	list := func(tables []core.Table) *ast.Term {
		terms := make([]*ast.Term, len(tables))
		for i, x := range tables {
			terms[i] = term(x)
			for _, s := range [...]string{x.Target, x.Name} {
				b = append(append(strconv.AppendInt(b, int64(len(s)), 10), ':'), s...)
			}
		}
		b = append(b, ';')
		return ast.ArrayTerm(terms...)
	}
	part.read, part.written = list(t.Read), list(t.Written)
	part.digest = digestOf(b)
	return part
}

// pairs are the fields that every set of tables has in the input.
func (t *tablesPart) pairs() [][2]*ast.Term {
	if t == nil {
		return nil
	}
	return [][2]*ast.Term{pair("tables_read", t.read), pair("tables_written", t.written), pair("tables_complete", ast.BooleanTerm(t.complete))}
}

func counts(t core.Totals) [][2]*ast.Term {
	return [][2]*ast.Term{
		pair("commands", number(t.Commands)), pair("rows", number(t.Rows)), pair("denied", number(t.Denied)),
		pair("bytes_to_client", number(t.Bytes)), pair("bytes_from_client", number(t.Received)),
	}
}

// sessionObject is input.session.
func sessionObject(s *core.Session, part *sessionPart, st *state) *ast.Term {
	pairs := [][2]*ast.Term{
		pair("id", part.idTerm), pair("run", part.runTerm), pair("started", part.startedTerm), pair("client", part.clientTerm), pair("in_transaction", ast.BooleanTerm(st.inTransaction)),
	}
	return object(append(append(pairs, counts(s.Totals())...), st.tables.pairs()...)...)
}

// runObject is input.run.
func runObject(r *core.Run, st *state) *ast.Term {
	totals, sessions := r.Totals()
	pairs := [][2]*ast.Term{pair("id", ast.StringTerm(r.ID)), pair("sessions", number(sessions))}
	return object(append(append(pairs, counts(totals)...), st.run.pairs()...)...)
}

func number(n int64) *ast.Term { return ast.NumberTerm(json.Number(strconv.FormatInt(n, 10))) }
