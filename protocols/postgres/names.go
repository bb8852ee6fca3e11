package postgres

import (
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// A statement is a prepared statement as one Parse or PREPARE made it.
type statement struct {
	name   string
	script *sql.Script
	// sequence is where in the conversation it was asked for: a number for what one Sync ends. Of the client's side.
	sequence uint64
	// described is set by the client's side when a Describe of it has been asked for.
	described bool
	raw       string    // its text as the client sent it, where its command's is another
	declared  []uint32  // the types that Parse named
	question  *question // of one that Weir asks about itself, where somebody waits for what the server says

	mu     sync.Mutex
	shape  []field  // of its result, once the server has said it
	known  bool     // the server has said it, or that there is none
	params []uint32 // the types of its parameters, as Parse named them or the server has said
}

// setParams notes the parameters' types; zeros are types that are not known.
func (s *statement) setParams(types []byte) {
	if len(types) == 0 {
		return
	}
	oids := make([]uint32, len(types)/4)
	for i := range oids {
		oids[i] = binary.BigEndian.Uint32(types[4*i:])
	}
	s.mu.Lock()
	s.params = oids
	s.mu.Unlock()
}

// paramType returns the type of parameter i, or 0.
func (s *statement) paramType(i int) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i < len(s.params) {
		return s.params[i]
	}
	return 0
}

func (s *statement) setShape(f []field) {
	s.mu.Lock()
	s.shape, s.known = f, true
	s.mu.Unlock()
}

func (s *statement) getShape() ([]field, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shape, s.known
}

// A portal is a statement with parameters. A cursor that SQL declared is one, too.
type portal struct {
	name       string
	from       string       // the name of the prepared statement
	statements []*statement // what that may have meant when Bind was sent
	params     []core.Param
	few        [4]core.Param // room for params
	formats    []int16
	described  bool    // a Describe of it has been asked for
	before     *portal // what had the name before a DECLARE, and has it still where the server refuses that
	bind       bool    // a Bind asked for it, in the sequence
	sequence   uint64
	confirmed  atomic.Bool // the server has said that it is bound

	// What follows belongs to the upstream's side.
	shape  []field // of its result, once the server has said it
	known  bool
	actual *statement // what the name meant, once the server has bound it
}

// bound notes that the server has bound the portal: now it is known which statement it is of.
func (p *portal) bound(n *names) {
	if p == nil {
		return
	}
	p.confirmed.Store(true)
	if now := n.first(p.from); now != nil && slices.Contains(p.statements, now) {
		p.actual = now
	}
}

// meantIn reports whether a message of a sequence that names the portal gets this one. Within the sequence of its Bind it
// does: had that failed, the server would not get to the message. Later the server must have said that it is bound: where
// a savepoint undid the failure, what had the name before has it still.
func (p *portal) meantIn(sequence uint64) bool {
	return !p.bind || p.sequence == sequence || p.confirmed.Load()
}

// statement returns what the portal is of, if it is one thing only.
func (p *portal) statement() *statement {
	switch {
	case p == nil:
		return nil
	case p.actual != nil:
		return p.actual
	case len(p.statements) == 1:
		return p.statements[0]
	}
	return nil
}

// fields returns the shape of the portal's answers, if the server has said it, and the formats that a Bind asked for;
// a portal's own description has its formats already.
func (p *portal) fields() (fields []field, formats []int16, ok bool) {
	if p == nil {
		return nil, nil, false
	}
	if p.known {
		return p.shape, nil, true
	}
	if s := p.statement(); s != nil {
		if shape, ok := s.getShape(); ok {
			return shape, p.formats, true
		}
	}
	return nil, nil, false
}

// names are a session's prepared statements: one namespace for SQL and protocol, as in the server.
//
// The server's answer comes later than the client's next message, so a name may have several meanings at once: what
// was there, and what has been asked for. All of them are judged until the server has said which it is.
type names struct {
	mu sync.Mutex
	m  map[string][]*statement
}

const (
	maxMeanings = 16
	maxNames    = 65_536
)

// add notes that s may become the meaning of its name. It reports whether there was room. A pipeline may give one name
// many times before the server answers, as drivers do with the unnamed statement.
func (n *names) add(s *statement) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.m == nil {
		n.m = map[string][]*statement{}
	}
	if len(n.m[s.name]) >= maxPipeline || len(n.m) >= maxNames {
		return false
	}
	n.m[s.name] = append(n.m[s.name], s)
	return true
}

// confirm notes that s is the meaning of its name now.
func (n *names) confirm(s *statement) {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.m[s.name]
	for i, x := range list {
		if x == s { // what came later is still open
			n.m[s.name] = list[i:]
			return
		}
	}
}

// reject notes that s has not become the meaning of its name.
func (n *names) reject(s *statement) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var left []*statement
	for _, x := range n.m[s.name] {
		if x != s {
			left = append(left, x)
		}
	}
	n.put(s.name, left)
}

// forget notes that a name, or every name when it is "*", has lost the meanings listed by get before.
func (n *names) forget(name string, was []*statement) {
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := map[*statement]bool{}
	for _, s := range was {
		gone[s] = true
	}
	for k, list := range n.m {
		if name != "*" && k != name {
			continue
		}
		var left []*statement
		for _, x := range list {
			if !gone[x] {
				left = append(left, x)
			}
		}
		n.put(k, left)
	}
}

func (n *names) put(name string, list []*statement) {
	if len(list) == 0 {
		delete(n.m, name)
		return
	}
	n.m[name] = list
}

// last returns the newest meaning of a name, or nil.
func (n *names) last(name string) *statement {
	n.mu.Lock()
	defer n.mu.Unlock()
	if list := n.m[name]; len(list) > 0 {
		return list[len(list)-1]
	}
	return nil
}

// first returns the oldest meaning of a name, or nil.
func (n *names) first(name string) *statement {
	n.mu.Lock()
	defer n.mu.Unlock()
	if list := n.m[name]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// meant returns what a name may mean to a message of a sequence. Within one sequence it is what was asked for last: had
// that failed, the server would not get to the message. A name with more meanings than are judged has none. The list is
// for reading: a list of meanings grows and is cut, but what it holds is never written over.
func (n *names) meant(name string, sequence uint64) []*statement {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := n.m[name]
	if len(list) == 0 {
		return nil
	}
	if s := list[len(list)-1]; s.sequence == sequence {
		return list[len(list)-1 : len(list) : len(list)]
	}
	if len(list) > maxMeanings {
		return nil
	}
	return list[:len(list):len(list)]
}

// get returns what a name may mean, or every meaning of all names when it is "*". The newest is the last.
func (n *names) get(name string) []*statement {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name == "*" {
		var all []*statement
		for _, list := range n.m {
			all = append(all, list...)
		}
		return all
	}
	return append([]*statement(nil), n.m[name]...)
}
