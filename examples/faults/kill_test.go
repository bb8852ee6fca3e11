//go:build linux

package faults_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// loop is an agent's loop that writes down all it sees until its gateway is gone: reads by both protocols, writes,
// transactions, and what is refused. Every statement carries a mark.
func loop(g *gateway, name string, run string, note func(*client)) {
	c, err := g.dial(name, g.token(name))
	if err != nil {
		return // killed before it could sign in
	}
	defer c.Close()
	note(c)
	for n := 0; ; n++ {
		mark := fmt.Sprintf("/*mark:%s.%s.%d*/", run, name, n)
		var err error
		switch n % 6 {
		case 0:
			_, err = c.query(mark + " select * from wide order by id limit " + strconv.Itoa(1+n*37%400))
		case 1:
			_, err = c.extended(mark+" select id, email from customers where id = $1", strconv.Itoa(1+n%2))
		case 2:
			_, err = c.query(mark + " drop table customers")
		case 3:
			_, err = c.extended(mark+" insert into written values ($1)", fmt.Sprint(run, name, n))
		case 4:
			_, err = c.query("begin; " + mark + " select count(*) from written; commit")
		case 5:
			_, err = c.query(mark + " select nosuch from customers")
		}
		if err != nil {
			return
		}
	}
}

// TestKill kills the gateway at random moments under load, and starts it again. At the end: what a client saw is in
// the record, byte for byte (I1); what ran was recorded first (I2); what was refused did not run (I5); every session has
// its seal (I7); and the archive is whole.
func TestKill(t *testing.T) {
	kills := 15
	if testing.Short() {
		kills = 10
	}
	if n, err := strconv.Atoi(os.Getenv("WEIR_KILLS")); err == nil { // for a night
		kills = n
	}
	g := start(t, setup{})
	run := "kill" + random(3)
	const loops = 6
	var clients []*client
	for k := range kills {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var now []*client
		for i := range loops {
			wg.Go(func() {
				loop(g, fmt.Sprintf("%s-%d-%d", run, k, i), run, func(c *client) {
					mu.Lock()
					defer mu.Unlock()
					now = append(now, c)
				})
			})
		}
		if k%4 != 3 { // most kills come under load, some while the sessions open
			eventually(t, 20*time.Second, "the loops turn", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(now) == loops && len(ran(t, upstream.LogFile(), fmt.Sprintf("%s.%s-%d-", run, run, k))) > loops
			}, nothing)
		}
		time.Sleep(time.Duration(rand.IntN(150_000)) * time.Microsecond)
		g.kill()
		wg.Wait()
		clients = append(clients, now...)
		g.serve()
	}
	// Beside the running gateway: what was left is sealed within 30 s (I7), and all of it is in the archive.
	var last report
	eventually(t, 30*time.Second, "every session has its seal", func() bool {
		last = g.verify()
		return last.OK && len(last.Open) == 0
	}, func() string { return fmt.Sprintf("%+v", last) })
	g.stop()
	last = g.verify()
	if !last.OK || len(last.Open) > 0 {
		t.Errorf("%+v", last)
	}
	t.Logf("verified: %d sessions, %d blocks, %d records", last.Sessions, last.Blocks, last.Records)

	all := g.recordings()
	answers := 0
	for _, c := range clients {
		r := all[c.name]
		if r == nil {
			t.Errorf("there is no record of %s, which was let in", c.name)
			continue
		}
		if r.end != "gateway-crash" {
			t.Errorf("%s ended as %q", c.name, r.end)
		}
		if err := r.seen(c.notes); err != nil {
			t.Error(err)
		}
		answers += len(c.notes)
	}
	statements := ran(t, upstream.LogFile(), run+".")
	commands, denied := recorded(all, false), recorded(all, true)
	if lost := missing(statements, commands); len(lost) > 0 {
		t.Errorf("%d statements ran that are not in the record: %.10q", len(lost), lost)
	}
	for m := range denied {
		if statements[m] {
			t.Errorf("%s was refused, and ran", m)
		}
	}
	if len(statements) < kills*loops || len(denied) == 0 || answers < kills*loops {
		t.Errorf("too little happened: %d statements, %d refusals, %d answers", len(statements), len(denied), answers)
	}
	t.Logf("%d kills, %d sessions, %d answers seen, %d statements at the upstream, %d in the record, %d refused", kills, len(clients), answers, len(statements), len(commands), len(denied))
	checkersBite(t, all, clients, statements)
}

// checkersBite is the control: the checks above report what they are there to report.
func checkersBite(t *testing.T, all map[string]*recording, clients []*client, statements map[string]bool) {
	t.Helper()
	i := slices.IndexFunc(clients, func(c *client) bool { return len(c.notes) > 3 && all[c.name] != nil })
	if i < 0 {
		t.Fatal("no client has seen three answers")
	}
	c := clients[i]
	whole := all[c.name]
	last := len(whole.records) - 1
	for last > 0 && (whole.records[last].Direction == "client" || len(whole.records[last].Wire) == 0) {
		last--
	}
	second := 0
	for n, greeted := 0, false; n < len(whole.records); n++ {
		if r := whole.records[n]; r.Direction == "upstream" && len(r.Wire) > 0 {
			if greeted {
				second = n
				break
			}
			greeted = true
		}
	}
	for what, change := range map[string]func(r *recording){
		"a flipped bit": func(r *recording) {
			w := slices.Clone(r.records[second].Wire)
			w[len(w)/2] ^= 1
			r.records[second].Wire = w
		},
		"a record that is missing": func(r *recording) { r.records = slices.Delete(r.records, second, second+1) },
		"a tail that is cut":       func(r *recording) { r.records = r.records[:second] },
	} {
		r := &recording{id: whole.id, name: whole.name, records: slices.Clone(whole.records)}
		change(r)
		if r.seen(c.notes) == nil {
			t.Errorf("%s is not noticed", what)
		}
	}
	planted := map[string]bool{"planted": true}
	for m := range statements {
		planted[m] = true
	}
	if lost := missing(planted, recorded(all, false)); len(lost) != 1 || lost[0] != "planted" {
		t.Errorf("a statement that ran without a record: %v", lost)
	}
	without := map[string]*recording{}
	for name, r := range all {
		if name != c.name {
			without[name] = r
		}
	}
	if len(missing(statements, recorded(without, false))) == 0 {
		t.Error("a whole session that is missing is not noticed")
	}
}
