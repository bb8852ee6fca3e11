// Command bench measures what a policy costs, and writes the page that says so.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"testing/fstest"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/opa"
)

//go:embed realistic.rego
var realistic string

// line is one thing that was measured.
type line struct {
	what, unit    string
	median, least float64
	target        float64
	most          bool // the target is a least, not a most
	note          string
}

func main() {
	out := flag.String("o", "", "write the page to this `file`")
	rounds := flag.Int("rounds", 7, "rounds of each measure")
	size := flag.Int("data", 100, "`MB` of the document that is reloaded")
	commands := flag.Int("commands", 100_000, "commands that are recorded for the backtest")
	profile := flag.String("profile", "", "write a processor profile to this `file`")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		defer pprof.StopCPUProfile()
	}
	if err := run(*out, *rounds, *size, *commands); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(out string, rounds, size, commands int) error {
	ctx := context.Background()
	var lines []line
	for _, measure := range []func(context.Context, int) ([]line, error){
		asking, profiles, indexed,
		func(ctx context.Context, rounds int) ([]line, error) {
			return backtest(ctx, max(1, rounds/2), commands)
		},
		func(ctx context.Context, _ int) ([]line, error) { return reload(ctx, size) },
	} {
		more, err := measure(ctx, rounds)
		if err != nil {
			return err
		}
		for _, l := range more {
			fmt.Println(l.String())
		}
		lines = append(lines, more...)
		runtime.GC()
	}
	if out == "" {
		return nil
	}
	return os.WriteFile(out, []byte(page(lines, rounds)), 0o644)
}

func (l *line) verdict() string {
	switch {
	case l.target == 0:
		return ""
	case l.most && l.median >= l.target, !l.most && l.median <= l.target:
		return "met"
	}
	return "missed"
}

func (l *line) bound() string {
	switch {
	case l.target == 0:
		return ""
	case l.most:
		return fmt.Sprintf("≥ %s", number(l.target))
	}
	return fmt.Sprintf("≤ %s", number(l.target))
}

// String implements fmt.Stringer.
func (l *line) String() string {
	return fmt.Sprintf("%-62s %9s %-4s (best %s) %s %s %s", l.what, number(l.median), l.unit, number(l.least), l.bound(), l.verdict(), l.note)
}

func number(f float64) string {
	switch {
	case f >= 1000:
		s := fmt.Sprintf("%.0f", f)
		for i := len(s) - 3; i > 0; i -= 3 {
			s = s[:i] + "," + s[i:]
		}
		return s
	case f >= 10:
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func page(lines []line, rounds int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What a policy costs\n\nWritten by `make bench-policies` on %s: %s, %d cores, load %s; %s. Each figure is the median of %d\nrounds, with the best of them beside it. Questions are measured in processor time, the garbage collector included, because\nthe machine does other work as well: a backtest has as many commands as all cores would do. Pauses are by the clock.\n\n",
		time.Now().UTC().Format("2006-01-02"), processor(), runtime.NumCPU(), load(), runtime.Version(), rounds)
	b.WriteString("| measure | median | best | target | |\n|---|---|---|---|---|\n")
	for _, l := range lines {
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s |\n", l.what, number(l.median), l.unit, number(l.least), l.bound(), strings.TrimSpace(l.verdict()+" "+l.note))
	}
	b.WriteString(`
The realistic policy is ` + "`core/opa/bench/realistic.rego`" + `: six groups of rules over 1,000 entries. It is asked about a read, a
write, a join of four tables, a call and a schema change in turn. The question is everything that a statement waits for:
the key, the input, the evaluation and reading the answer. "wasm" is the policy compiled to WebAssembly, "topdown" OPA's
interpreter; what does not name one runs on what ` + "`engine: auto`" + ` chooses.
`)
	return b.String()
}

func processor() string {
	b, err := exec.Command("sh", "-c", "sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1").Output()
	if s := strings.TrimSpace(string(b)); err == nil && s != "" {
		return s
	}
	return runtime.GOARCH
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// processed is the processor time of this process so far, the collector's included.
func processed() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // only for a wrong argument
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// timed runs f so often that a round takes about a fifth of a second, and returns the processor time of one in µs:
// what else the machine does is not in it.
func timed(rounds int, f func(i int)) (median, least float64) {
	n := 1
	for {
		start := time.Now()
		for i := range n {
			f(i)
		}
		if d := time.Since(start); d > 20*time.Millisecond {
			n = int(float64(n)*float64(200*time.Millisecond)/float64(d)) + 1
			break
		}
		n *= 4
	}
	var all []float64
	for range rounds {
		start := processed()
		for i := range n {
			f(i)
		}
		all = append(all, float64((processed()-start).Nanoseconds())/1e3/float64(n))
	}
	slices.Sort(all)
	return all[len(all)/2], all[0]
}

func load1000() string {
	type entry struct {
		Team     string   `json:"team"`
		Open     []string `json:"open"`
		Personal []string `json:"personal"`
		Rows     int      `json:"rows"`
	}
	tables := map[string]entry{}
	for i := range 1000 {
		e := entry{Team: fmt.Sprintf("team-%d", i%20), Open: []string{"read"}, Personal: []string{}, Rows: 1000 + i}
		if i%3 == 0 {
			e.Personal = []string{"email", "phone"}
		}
		tables[fmt.Sprintf("shop.t%03d", i)] = e
	}
	b, err := json.Marshal(map[string]any{"house": map[string]any{
		"tables": tables, "functions": []string{"pg_catalog.count", "pg_catalog.lower", "pg_catalog.now", "pg_catalog.sum"},
		"refused": []string{"ddl", "privilege", "file", "process", "network", "admin", "unknown"},
	}})
	if err != nil {
		panic(err) // texts and numbers only
	}
	return string(b)
}

func files(kv ...string) fs.FS {
	m := fstest.MapFS{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = &fstest.MapFile{Data: []byte(kv[i+1])}
	}
	return m
}

func session() *core.Session {
	s := &core.Session{
		ID: "01s", Protocol: "sql", Started: time.Unix(1e9, 0),
		Identity: core.Identity{Subject: "ada", Issuer: "idp", Groups: []string{"team-1", "team-2", "analysts"}, Kind: "agent"},
		Target:   &core.Target{Name: "orders", Protocol: "sql", Labels: map[string]string{"risk": "low"}},
	}
	s.Begin(core.SessionConfig{})
	return s
}

// statement is a command about tables, such as an agent says it.
func statement(s *core.Session, action string, effect core.Effect, where bool, call string, tables ...int) *core.Event {
	c := &core.Command{
		Action: action, Text: fmt.Sprint(action, tables), Fingerprint: fmt.Sprint(action, tables), Effects: []core.Effect{effect},
		Where: where, Status: core.StatusKnown,
	}
	use := map[core.Effect]string{core.EffectRead: "read", core.EffectWrite: "write", core.EffectDDL: "alter"}[effect]
	for _, t := range tables {
		c.Resources = append(c.Resources, core.Resource{Kind: "table", Name: fmt.Sprintf("shop.t%03d", t), Use: []string{use}, Columns: []string{"id", "email", "total"}})
	}
	if call != "" {
		c.Resources = append(c.Resources, core.Resource{Kind: "function", Name: call, Use: []string{"call"}})
	}
	return &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Stage: "execute", Session: s, Time: time.Unix(1.5e9, 0), Exchange: &core.Exchange{Command: c}}
}

func mixed(s *core.Session, i int) *core.Event {
	switch i % 5 {
	case 0:
		return statement(s, "select", core.EffectRead, true, "", i%1000)
	case 1:
		return statement(s, "update", core.EffectWrite, i%2 == 0, "", i%1000)
	case 2:
		return statement(s, "select", core.EffectRead, true, "pg_catalog.count", i%1000, (i+7)%1000, (i+14)%1000, (i+21)%1000)
	case 3:
		return statement(s, "select", core.EffectRead, true, "shop.f", i%1000)
	}
	return statement(s, "alter", core.EffectDDL, true, "", i%1000)
}

// targets are what an evaluation may take on each engine, in µs.
var targets = map[opa.Engine]float64{opa.WASM: 25, opa.Topdown: 130}

// asking measures the realistic policy.
func asking(ctx context.Context, rounds int) ([]line, error) {
	s := session()
	events := make([]*core.Event, 1000)
	for i := range events {
		events[i] = mixed(s, i)
	}
	var failed error
	ask := func(p *opa.Policy, e *core.Event) {
		if _, err := p.Inspect(ctx, e); err != nil {
			failed = err
		}
	}
	policy := files("p.rego", realistic, "data.json", load1000())
	var lines []line
	for _, engine := range []opa.Engine{opa.WASM, opa.Topdown} {
		start := processed()
		never, err := opa.Load(ctx, opa.Config{Name: "realistic", FS: policy, CacheEntries: -1, Engine: engine})
		if err != nil {
			return nil, err
		}
		loaded := float64((processed() - start).Microseconds()) / 1e3
		lines = append(lines, line{what: "realistic policy on " + string(engine) + ", loaded", unit: "ms", median: loaded, least: loaded})
		m, l := timed(rounds, func(i int) { ask(never, events[i%len(events)]) })
		lines = append(lines, line{what: "realistic policy on " + string(engine) + ", nothing kept", unit: "µs", median: m, least: l, target: targets[engine]})
	}
	kept, err := opa.Load(ctx, opa.Config{Name: "realistic", FS: policy})
	if err != nil {
		return nil, err
	}
	m, l := timed(rounds, func(i int) { ask(kept, events[i%100]) })
	lines = append(lines, line{what: "realistic policy, the verdict is kept", unit: "µs", median: m, least: l})
	// One in a hundred is of a shape that was never seen: it is made before, so that only the question is timed.
	fresh, next := make([]*core.Event, 1<<16), 0
	for i := range fresh {
		fresh[i] = mixed(s, i)
		fresh[i].Exchange.Command.Resources[0].Columns = []string{"id", fmt.Sprint("c", i)}
	}
	before := kept.Stats()
	m, l = timed(rounds, func(i int) {
		if i%100 == 0 {
			ask(kept, fresh[next%len(fresh)])
			next++
			return
		}
		ask(kept, events[i%100])
	})
	after := kept.Stats()
	share := float64(after.Hits-before.Hits) / float64(after.Hits-before.Hits+after.Misses-before.Misses)
	lines = append(lines, line{what: "realistic policy, 99 % are kept", unit: "µs", median: m, least: l, target: 2, note: fmt.Sprintf("(%.1f %% were)", 100*share)})
	return lines, failed
}

// indexed measures a policy of 1,000 rules of which one can hold.
func indexed(ctx context.Context, rounds int) ([]line, error) {
	var b strings.Builder
	b.WriteString("package weir.guardrails\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "deny contains {\"rule\": \"r%d\"} if {\n\tinput.event.command.action == \"a%d\"\n\tinput.target.name == \"orders\"\n}\n", i, i)
	}
	s := session()
	events := make([]*core.Event, 100)
	for i := range events {
		events[i] = statement(s, fmt.Sprint("a", i*10), core.EffectRead, true, "", i)
	}
	var lines []line
	for _, engine := range []opa.Engine{opa.Auto, opa.WASM} {
		p, err := opa.Load(ctx, opa.Config{Name: "indexed", FS: files("p.rego", b.String()), CacheEntries: -1, Engine: engine})
		if err != nil {
			return nil, err
		}
		var failed error
		m, l := timed(rounds, func(i int) {
			v, err := p.Inspect(ctx, events[i%len(events)])
			if err != nil || v.Deny == nil {
				failed = fmt.Errorf("no rule of 1,000 has fired: %w", err)
			}
		})
		if failed != nil {
			return nil, failed
		}
		measured := line{what: "1,000 rules, indexed, one of which holds", unit: "µs", median: m, least: l, target: 20}
		if engine == opa.WASM {
			measured.what, measured.target = "1,000 rules, one of which holds, on wasm, which has no index", 0
		}
		lines = append(lines, measured)
	}
	return lines, nil
}

// profiles measures the shipped profile standard, which says a lot about each statement.
func profiles(ctx context.Context, rounds int) ([]line, error) {
	s := session()
	events := make([]*core.Event, 1000)
	for i := range events {
		events[i] = mixed(s, i)
	}
	var lines []line
	for _, engine := range []opa.Engine{opa.WASM, opa.Topdown} {
		p, err := opa.Load(ctx, opa.Config{Name: "standard", Path: "policies/standard", CacheEntries: -1, Engine: engine})
		if err != nil {
			return nil, err
		}
		var failed error
		m, l := timed(rounds, func(i int) {
			if _, err := p.Inspect(ctx, events[i%len(events)]); err != nil {
				failed = err
			}
		})
		if failed != nil {
			return nil, failed
		}
		lines = append(lines, line{what: "profile standard on " + string(engine) + ", nothing kept", unit: "µs", median: m, least: l})
	}
	return lines, nil
}
