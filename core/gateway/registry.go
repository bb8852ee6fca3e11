package gateway

import (
	"sort"
	"sync"

	"github.com/weir-gateway/weir/core"
)

// registry knows who is here: connections, sessions, and the totals of those that are over.
type registry struct {
	mu        sync.Mutex
	clients   map[*client]func() // the function is called when the client is gone; may be nil
	listeners map[*listener]int
	unsigned  map[string]int // connections not signed in yet, by source
	sessions  map[string]*core.Session
	targets   map[string]*tally
}

// tally is the account of one target.
type tally struct {
	open  int // reserved or open
	ended map[core.End]int64
	done  core.Totals // of the sessions that are over
}

func newRegistry() *registry {
	return &registry{
		clients: map[*client]func(){}, listeners: map[*listener]int{}, unsigned: map[string]int{},
		sessions: map[string]*core.Session{}, targets: map[string]*tally{},
	}
}

// admit takes in a connection, or says in a word why not.
func (r *registry) admit(c *client, l Limits) (why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case len(r.clients) >= l.Connections:
		return "connections"
	case r.listeners[c.listener] >= l.PerListener:
		return "listener-connections"
	case !c.local && r.unsigned[c.source] >= l.UnsignedPerSource:
		return "unsigned-connections"
	}
	r.clients[c] = nil
	r.listeners[c.listener]++
	r.unsigned[c.source]++
	return ""
}

// remove forgets a connection that is over.
func (r *registry) remove(c *client) {
	r.mu.Lock()
	gone := r.clients[c]
	delete(r.clients, c)
	if r.listeners[c.listener]--; r.listeners[c.listener] <= 0 {
		delete(r.listeners, c.listener)
	}
	if !c.hasSignedIn() {
		r.signed(c.source)
	}
	r.mu.Unlock()
	if gone != nil {
		gone()
	}
}

// signed takes one from a source's connections that have not signed in. r.mu is held.
func (r *registry) signed(source string) {
	if r.unsigned[source]--; r.unsigned[source] <= 0 {
		delete(r.unsigned, source)
	}
}

// onGone has f called when c is gone, at once if it is already.
func (r *registry) onGone(c *client, f func()) {
	r.mu.Lock()
	_, here := r.clients[c]
	if here {
		r.clients[c] = f
	}
	r.mu.Unlock()
	if !here {
		f()
	}
}

func (r *registry) clientList() []*client {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([]*client, 0, len(r.clients))
	for c := range r.clients {
		list = append(list, c)
	}
	return list
}

func (r *registry) tally(target string) *tally {
	t := r.targets[target]
	if t == nil {
		t = &tally{ended: map[core.End]int64{}}
		r.targets[target] = t
	}
	return t
}

// reserve takes one of a target's places; release gives it back, once.
func (r *registry) reserve(target string, limit int) (ok bool, release func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := r.tally(target)
	if limit > 0 && t.open >= limit {
		return false, nil
	}
	t.open++
	return true, sync.OnceFunc(func() {
		r.mu.Lock()
		t.open--
		r.mu.Unlock()
	})
}

// opened lists a session; first reports that its client has signed in by it.
func (r *registry) opened(c *client, s *core.Session, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[s.ID] = s
	if first {
		r.signed(c.source)
	}
}

// closed adds a session that is over to the account of its target.
func (r *registry) closed(s *core.Session, end core.End) {
	totals := s.Totals()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.ID)
	t := r.tally(s.Target.Name)
	t.ended[end]++
	t.done = t.done.Plus(totals)
}

// list returns the open sessions, the oldest first.
func (r *registry) list() []*core.Session {
	r.mu.Lock()
	list := make([]*core.Session, 0, len(r.sessions))
	for _, s := range r.sessions {
		list = append(list, s)
	}
	r.mu.Unlock()
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list
}
