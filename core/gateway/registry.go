package gateway

import (
	"fmt"
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
	places    map[place]int // sessions open, where that is bounded
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
		sessions: map[string]*core.Session{}, targets: map[string]*tally{}, places: map[place]int{},
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
	case c.crowded(r, l):
		return "unsigned-connections"
	}
	r.clients[c] = nil
	r.listeners[c.listener]++
	r.unsigned[c.source]++
	return ""
}

// crowded reports whether a client's source has as many connections as it may have before they have signed in. A source
// that is yet to be told by a proxy is not bounded: place tells then. r.mu is held.
func (c *client) crowded(r *registry, l Limits) bool {
	return !c.local && c.source != "" && r.unsigned[c.source] >= l.UnsignedPerSource
}

// place puts a connection to the source that its proxy told, or says in a word why not.
func (r *registry) place(c *client, source string, local bool, l Limits) (why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signed(c.source)
	c.source, c.local = source, local
	full := c.crowded(r, l)
	r.unsigned[c.source]++ // also of one that is turned away: it is removed like the others
	if full {
		return "unsigned-connections"
	}
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

// place is what sessions are counted by beside their target. Without a target it is of all of them.
type place struct{ target, issuer, subject, run string }

// reserve takes a session's places: its target's, its identity's there and everywhere, its run's there. It takes all or
// none, and says which one has no room; release gives them back, once.
func (r *registry) reserve(t *core.Target, id *core.Identity, everywhere int) (full *core.Denial, release func()) {
	type bound struct {
		place
		most int
	}
	var bounds []bound
	if t.Limits.PerIdentity > 0 {
		bounds = append(bounds, bound{place{target: t.Name, issuer: id.Issuer, subject: id.Subject}, t.Limits.PerIdentity})
	}
	if t.Limits.PerRun > 0 && id.Run != "" {
		bounds = append(bounds, bound{place{target: t.Name, run: id.Run}, t.Limits.PerRun})
	}
	if everywhere > 0 {
		bounds = append(bounds, bound{place{issuer: id.Issuer, subject: id.Subject}, everywhere})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.tally(t.Name)
	if most := t.Limits.Sessions; most > 0 && all.open >= most {
		return tooMany("limit-sessions", fmt.Sprintf("target %s has %d sessions open at this gateway, its limit", t.Name, most)), nil
	}
	for _, b := range bounds {
		if r.places[b.place] < b.most {
			continue
		}
		switch {
		case b.run != "":
			return tooMany("limit-sessions-run", fmt.Sprintf("run %s has %d sessions open with target %s at this gateway, its limit", b.run, b.most, t.Name)), nil
		case b.target != "":
			return tooMany("limit-sessions-identity", fmt.Sprintf("%s has %d sessions open with target %s at this gateway, the limit of one identity", b.subject, b.most, t.Name)), nil
		default:
			return tooMany("limit-sessions-identity", fmt.Sprintf("%s has %d sessions open at this gateway, the limit of one identity", b.subject, b.most)), nil
		}
	}
	all.open++
	for _, b := range bounds {
		r.places[b.place]++
	}
	return nil, sync.OnceFunc(func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		all.open--
		for _, b := range bounds {
			if r.places[b.place]--; r.places[b.place] <= 0 {
				delete(r.places, b.place)
			}
		}
	})
}

func tooMany(rule, reason string) *core.Denial {
	return &core.Denial{Rule: rule, Reason: reason, Hint: "close idle connections, or try again later"}
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

// session finds an open session; nil: there is none of that id.
func (r *registry) session(id string) *core.Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sessions[id]
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
