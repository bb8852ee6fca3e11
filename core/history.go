package core

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Table is a table of a target, by the name that commands have for it.
type Table struct {
	Target string
	Name   string
}

// Tables are those that were touched so far, sorted. A command counts once it has passed: what was refused touched nothing.
type Tables struct {
	Read    []Table // also when only a condition asked about it, or it was reached through a view
	Written []Table // or made, altered, dropped …
	// Complete is false when there may be others: a command passed that cannot be read for certain or called what is
	// unknown, there were too many, or nobody kept account from the beginning.
	Complete bool
	Version  uint64 // another one whenever the rest differs
}

// Bounds of what is kept of the tables of one session, or of one run.
const (
	maxTables    = 256
	maxTableName = 256
)

// tableSet keeps the tables. Names are added and never removed.
type tableSet struct {
	version atomic.Uint64

	mu            sync.Mutex
	read, written map[Table]struct{}
	lost          bool
	last          *Command // the shape that was added last: mostly the next one is the same
}

// add notes what a command touches, and reports what was new.
func (t *tableSet) add(target string, c *Command) (changed bool) {
	c = c.Shape()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last == c {
		return false
	}
	t.last = c
	if c.Status != StatusKnown || c.HasEffect(EffectUnknown) {
		changed = t.lose()
	}
	for i := range c.Resources {
		r := &c.Resources[i]
		if r.Kind != "table" {
			continue
		}
		reads, writes := r.used()
		if reads && t.note(&t.read, Table{target, r.Name}) {
			changed = true
		}
		if writes && t.note(&t.written, Table{target, r.Name}) {
			changed = true
		}
	}
	if changed {
		t.version.Add(1)
	}
	return changed
}

// note adds one name; t.mu is held.
func (t *tableSet) note(to *map[Table]struct{}, name Table) (changed bool) {
	if _, have := (*to)[name]; have {
		return false
	}
	if len(*to) >= maxTables || len(name.Name) > maxTableName {
		return t.lose()
	}
	if *to == nil {
		*to = map[Table]struct{}{}
	}
	(*to)[name] = struct{}{}
	return true
}

// lose notes that something is missing; t.mu is held.
func (t *tableSet) lose() (changed bool) {
	changed, t.lost = !t.lost, true
	return changed
}

// miss notes that something is missing.
func (t *tableSet) miss() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.lose() {
		t.version.Add(1)
	}
}

// merge adds what another set holds.
func (t *tableSet) merge(o *tableSet) {
	from := o.all()
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := !from.Complete && t.lose()
	for _, name := range from.Read {
		changed = t.note(&t.read, name) || changed
	}
	for _, name := range from.Written {
		changed = t.note(&t.written, name) || changed
	}
	if changed {
		t.version.Add(1)
	}
}

func (t *tableSet) all() Tables {
	t.mu.Lock()
	defer t.mu.Unlock()
	sorted := func(m map[Table]struct{}) []Table {
		return slices.SortedFunc(maps.Keys(m), func(a, b Table) int {
			return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Name, b.Name))
		})
	}
	return Tables{Read: sorted(t.read), Written: sorted(t.written), Complete: !t.lost, Version: t.version.Load()}
}

// unchanging are the uses of a resource that leave it as it is. A word that is not among them counts as a change.
var unchanging = map[string]bool{"read": true, "through": true, "explain": true, "lock": true, "maintain": true}

// used reports whether a use of the resource reads it, and whether one may change it. What is changed by a condition, or
// given back, is read too.
func (r *Resource) used() (reads, writes bool) {
	reads = len(r.Use) == 0 || len(r.Indirect)+len(r.Copied)+len(r.Transformed) > 0
	for _, u := range r.Use {
		switch {
		case u == "read", u == "through", u == "explain":
			reads = true
		case !unchanging[u]:
			writes = true
			reads = reads || u != "insert" && u != "write" && u != "create" && len(r.Columns) > 0
		}
	}
	return reads, writes || len(r.Use) == 0
}

// Tables returns the tables that the session touched so far. Account is kept from the first time that it is asked for;
// what passed before makes the answer incomplete.
func (s *Session) Tables() Tables { return s.tableSet().all() }

// TablesVersion is the Version of what Tables would return.
func (s *Session) TablesVersion() uint64 { return s.tableSet().version.Load() }

func (s *Session) tableSet() *tableSet {
	if t := s.tables.Load(); t != nil {
		return t
	}
	s.tables.CompareAndSwap(nil, &tableSet{})
	t := s.tables.Load()
	if s.unkept.Load() {
		t.miss()
	}
	return t
}

// touched notes what a command touches that has passed.
func (s *Session) touched(c *Command) {
	t := s.tables.Load()
	if t == nil {
		if !s.unkept.Load() {
			s.unkept.Store(true)
			if t = s.tables.Load(); t != nil { // somebody has asked meanwhile, and may not have seen it
				t.miss()
			}
		}
		return
	}
	if t.add(s.Target.Name, c) && s.run != nil {
		s.run.tables.merge(t)
	}
}

// Run adds up the sessions of one run at one gateway. It is safe for use by several goroutines.
type Run struct {
	ID string

	mu       sync.Mutex
	open     map[*Session]struct{}
	sessions int64
	left     time.Time // when a session was over last
	done     Totals    // of the sessions that are over
	asked    bool      // for the tables: every session keeps account of them
	unkept   bool      // a session that is over did not
	tables   tableSet
}

// NewRun returns a run without a session. known is false when sessions of it may have been forgotten.
func NewRun(id string, known bool) *Run {
	r := &Run{ID: id, open: map[*Session]struct{}{}}
	if !known {
		r.tables.miss()
	}
	return r
}

// OfRun returns the run that the session belongs to, as it is counted here; nil when nobody counts it.
func (s *Session) OfRun() *Run { return s.run }

// join adds a session that begins.
func (r *Run) join(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open[s] = struct{}{}
	r.sessions++
	if r.asked {
		s.tableSet()
	}
}

// leave adds up a session that is over.
func (r *Run) leave(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, here := r.open[s]; !here {
		return
	}
	delete(r.open, s)
	r.left = time.Now()
	r.done = r.done.Plus(s.Totals())
	if t := s.tables.Load(); t != nil {
		r.tables.merge(t)
	} else {
		r.unkept = r.unkept || s.unkept.Load()
	}
}

// Idle reports whether no session of the run is open, and since when.
func (r *Run) Idle() (since time.Time, idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left, len(r.open) == 0
}

// Totals returns the counts of all sessions so far, and how many sessions there were.
func (r *Run) Totals() (t Totals, sessions int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t = r.done
	for s := range r.open {
		t = t.Plus(s.Totals())
	}
	return t, r.sessions
}

// Tables returns the tables that the run's sessions touched so far, as Session.Tables does.
func (r *Run) Tables() Tables {
	r.ask()
	return r.tables.all()
}

// TablesVersion is the Version of what Tables would return.
func (r *Run) TablesVersion() uint64 {
	r.ask()
	return r.tables.version.Load()
}

// ask has every session keep account from now on, at the latest.
func (r *Run) ask() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asked {
		return
	}
	r.asked = true
	if r.unkept {
		r.tables.miss()
	}
	for s := range r.open {
		r.tables.merge(s.tableSet())
	}
}
