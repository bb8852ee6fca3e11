package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// cut cuts links in one way, and heals them after a while. Links that are cut already are left as they are.
func (t *torture) cut(what string, links []*loopback.Link) {
	t.mu.Lock()
	how := []loopback.Cut{loopback.CutSilently, loopback.CutSilently, loopback.CutThere, loopback.CutBack, loopback.CutReset}[t.rnd.IntN(5)]
	pause := time.Duration(200+t.rnd.IntN(4000)) * time.Millisecond
	if t.rnd.IntN(5) == 0 { // longer than an election, and than pings are waited for
		pause += 8 * time.Second
	}
	var mine []*loopback.Link
	for _, k := range links {
		if !t.cutNow[k] {
			t.cutNow[k] = true
			mine = append(mine, k)
		}
	}
	t.mu.Unlock()
	if len(mine) == 0 {
		return
	}
	t.count(fmt.Sprintf("cut %s, %v", what, how))
	for _, k := range mine {
		k.Cut(how)
	}
	t.wg.Go(func() {
		time.Sleep(pause)
		t.mu.Lock()
		defer t.mu.Unlock()
		for _, k := range mine {
			k.Heal()
			delete(t.cutNow, k)
		}
	})
}

// links are those between a process and others, all of them or one by chance.
func (t *torture) links(of *loopback.Process, others string, all bool) (found []*loopback.Link) {
	for _, k := range t.c.Links {
		other, ours := k.To, k.From == of.Name
		if k.To == of.Name {
			other, ours = k.From, true
		}
		if ours && strings.HasPrefix(other, others) {
			found = append(found, k)
		}
	}
	if !all && len(found) > 0 {
		t.mu.Lock()
		defer t.mu.Unlock()
		return []*loopback.Link{found[t.rnd.IntN(len(found))]}
	}
	return found
}

// one picks a process by chance.
func (t *torture) one(group []*loopback.Process) *loopback.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	return group[t.rnd.IntN(len(group))]
}

// partNodes cuts NATS servers off each other: one from both others, or one way of two between a pair.
func (t *torture) partNodes(all bool) {
	what := "NATS server from another"
	if all {
		what = "NATS server from both others"
	}
	t.cut(what, t.links(t.one(t.c.Nodes), "nats-", all))
}

// partClient cuts a gateway or an archive worker off one of the NATS servers, or off all of them.
func (t *torture) partClient(what string, group []*loopback.Process, all bool) {
	to := " from a NATS server"
	if all {
		to = " from all NATS servers"
	}
	t.cut(what+to, t.links(t.one(group), "nats-", all))
}
