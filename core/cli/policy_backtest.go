package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/opa"
	"github.com/weir-gateway/weir/core/replay"
)

// backtested is what weir policy backtest found.
type backtested struct {
	Policy  string              `json:"policy"`
	Count   opa.BacktestCount   `json:"count"`
	Seconds float64             `json:"seconds"`
	Guessed []string            `json:"guessed"` // parts of the input that no recording holds
	Unread  []string            `json:"unread"`  // sessions that cannot be read, with why
	Groups  []opa.BacktestGroup `json:"groups"`
}

func (a *app) policyBacktest() *cobra.Command {
	var path, output string
	var when span
	q := index.Query{Except: gateway.AdminProtocol, Limit: math.MaxInt32} // every session: what is left out would look as if it had not changed
	var packages []string
	show, limit := 0, int64(-1)
	c := &cobra.Command{
		Use:   "backtest PATH",
		Short: "Put every recorded command to a candidate policy, and show what it would have changed",
		Long: "Put every recorded command and answer to a candidate policy, in the place of the policies that were asked then, and show\n" +
			"what would have been different: newly denied, newly allowed, newly masked and no longer masked, by rule, identity, target\n" +
			"and shape of statement. What a plugin or the gateway itself refused stays refused.",
		Example: "  weir policy backtest candidate/ --since 30d\n" +
			"  weir policy backtest builtin:strict --target orders --max-new-denials 0 -o json",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := when.ask(&q); err != nil {
				return err
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			p, err := a.loadPolicy(cmd.Context(), args[0], args[0], packages)
			if err != nil {
				return err
			}
			r, err := a.backtest(cmd.Context(), cfg, p, q)
			if err != nil {
				return coded(err)
			}
			r.Policy = args[0]
			if output == "json" {
				err = a.printJSON(r)
			} else {
				err = a.printBacktest(r, show)
			}
			if err != nil {
				return err
			}
			denials := r.Count.Changes[opa.NewlyDenied] + r.Count.Changes[opa.Failed]
			switch {
			case len(r.Unread) > 0:
				return no(fmt.Errorf("%s cannot be read; verify the archive", plural(len(r.Unread), "session")))
			case limit >= 0 && denials > limit:
				return no(fmt.Errorf("%d newly denied, more than --max-new-denials %d", denials, limit))
			}
			return nil
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	f := c.Flags()
	when.flags(c)
	f.StringVar(&q.Target, "target", "", "only with this `target`")
	f.StringVar(&q.Identity, "identity", "", "only of this `subject`")
	f.StringSliceVar(&packages, "package", nil, "a `package` to ask (default: weir.access and weir.guardrails); may be given again")
	f.Int64Var(&limit, "max-new-denials", -1, "exit with 1 when more than `n` are newly denied (default: any number is fine)")
	f.IntVar(&show, "show", 20, "show `n` groups of changes; 0: all")
	return c
}

func (a *app) backtest(ctx context.Context, cfg *config.Config, p *opa.Policy, q index.Query) (*backtested, error) {
	x, err := openIndex(ctx, cfg, true)
	if errors.Is(err, os.ErrNotExist) {
		return nil, no(fmt.Errorf("nothing is recorded in %s", cfg.Data))
	}
	if err != nil {
		return nil, unreachable(err)
	}
	defer x.Close()
	sessions, err := x.Sessions(ctx, q)
	if err != nil {
		return nil, unreachable(err)
	}
	ids := make([]string, len(sessions))
	for i := range sessions {
		ids[i] = sessions[i].ID
	}
	if err := a.reads(ctx, cfg, gateway.Reading{Sessions: ids, How: "policy backtest"}); err != nil {
		return nil, err
	}
	store, err := a.openReadingOf(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	b := opa.NewBacktest(p)
	r := &backtested{Guessed: b.Unknown(), Unread: []string{}}
	groups := [][]beside{}
	if b.Runs() {
		if groups, err = byRun(ctx, x, sessions); err != nil {
			return nil, unreachable(err)
		}
	} else {
		for i := range sessions {
			groups = append(groups, []beside{{Session: sessions[i]}})
		}
	}
	start := time.Now()
	var next, done atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(groups) {
					return
				}
				a.rejudge(ctx, cfg, store, b, groups[i], func(id string, err error) {
					mu.Lock()
					r.Unread = append(r.Unread, id+": "+err.Error())
					mu.Unlock()
				})
				done.Add(1)
			}
		})
	}
	stop := a.progress(&done, len(groups), "sessions and runs")
	wg.Wait()
	stop()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.Seconds = time.Since(start).Seconds()
	r.Count, r.Groups = b.Result()
	slices.Sort(r.Unread)
	return r, nil
}

// beside is a session that is judged, or only counted beside the others of its run.
type beside struct {
	index.Session
	only bool
}

// byRun puts the sessions of a run together, with those of it that were not asked for: they count for the others.
func byRun(ctx context.Context, x *index.Index, sessions []index.Session) (groups [][]beside, err error) {
	asked, done := map[string]bool{}, map[string]bool{}
	for _, s := range sessions {
		asked[s.ID] = true
	}
	for _, s := range sessions {
		if s.Run == "" {
			groups = append(groups, []beside{{Session: s}})
			continue
		}
		if done[s.Run] {
			continue
		}
		done[s.Run] = true
		all, err := x.Sessions(ctx, index.Query{Run: s.Run, Except: gateway.AdminProtocol, Limit: math.MaxInt32})
		if err != nil {
			return nil, err
		}
		var group []beside
		for _, one := range all {
			group = append(group, beside{one, !asked[one.ID]})
		}
		groups = append(groups, group)
	}
	return groups, nil
}

// rejudge passes the events of sessions, of one or of a whole run, through the backtest.
func (a *app) rejudge(ctx context.Context, cfg *config.Config, store core.Store, b *opa.Backtest, group []beside, unread func(id string, err error)) {
	var run *core.Run
	if group[0].Run != "" && b.Runs() {
		run = core.NewRun(group[0].Run, true)
	}
	judges, reruns := make([]*opa.BacktestSession, len(group)), make([]replay.Rerun, len(group))
	begun := make([]replay.Begun, len(group))
	for i, one := range group {
		judges[i] = b.Session()
		judges[i].Run, judges[i].Beside = run, one.only
		reruns[i].Target, reruns[i].Protocol = labelled(cfg), a.speaking
		begun[i] = replay.Begun{ID: one.ID, Started: one.Started}
	}
	failed := make([]bool, len(group))
	for next, err := range replay.Together(ctx, store, begun) {
		i := next.Session
		if failed[i] {
			continue
		}
		var e *core.Event
		var past replay.Past
		if err == nil {
			e, past, err = reruns[i].Event(next.Record)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failed[i] = true
			unread(group[i].ID, err)
		case e != nil && (e.Kind != core.KindBytes || b.Bytes()):
			judges[i].Event(ctx, e, past.Denied, past.Decisions)
			if e.Kind == core.KindClose { // what comes later does not wait for it
				judges[i].Close()
			}
		}
	}
	for _, s := range judges {
		s.Close()
	}
}

// progress shows how far something has got, to a person who waits.
func (a *app) progress(done *atomic.Int64, all int, what string) (stop func()) {
	if !a.terminal() {
		return func() {}
	}
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(200 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-over:
				fmt.Fprint(a.err, "\r\x1b[K")
				return
			case <-t.C:
				n := done.Load()
				bar := make([]byte, 30)
				for i := range bar {
					bar[i] = '.'
					if int64(i*all) < n*int64(len(bar)) {
						bar[i] = '#'
					}
				}
				fmt.Fprintf(a.err, "\r[%s] %d of %d %s", bar, n, all, what)
			}
		}
	})
	return func() { close(over); wg.Wait() }
}

func (a *app) printBacktest(r *backtested, show int) error {
	c := &r.Count
	fmt.Fprintf(a.out, "%s: %d sessions, %d commands (%d were denied; %d would be), %d answers, in %.1f s\n",
		r.Policy, c.Sessions, c.Commands, c.Denied, c.Would, c.Answers, r.Seconds)
	for _, g := range r.Guessed {
		fmt.Fprintf(a.out, "  not recorded: %s\n", g)
	}
	for _, u := range r.Unread {
		fmt.Fprintf(a.out, "  cannot be read: %s\n", printable(u))
	}
	if len(r.Groups) == 0 {
		fmt.Fprintln(a.out, "Nothing would have been different.")
		return nil
	}
	for _, change := range opa.Changes {
		if n := c.Changes[change]; n > 0 {
			fmt.Fprintf(a.out, "  %-22s %d\n", change, n)
		}
	}
	fmt.Fprintln(a.out)
	groups := r.Groups
	if show > 0 && len(groups) > show {
		groups = groups[:show]
	}
	rows := make([][]string, len(groups))
	for i, g := range groups {
		rule := g.Rule
		if g.Column != "" {
			rule = g.Column
			if g.Rule != "" {
				rule += " (" + g.Rule + ")"
			}
		}
		rows[i] = []string{g.Change, strconv.FormatInt(g.Count, 10), rule, g.Identity, g.Target, g.Session + " " + strconv.FormatUint(g.Seq, 10), shorten(g.Text, 60)}
	}
	if err := a.table([]string{"CHANGE", "COUNT", "RULE", "IDENTITY", "TARGET", "EXAMPLE", "COMMAND"}, rows); err != nil {
		return err
	}
	if more := len(r.Groups) - len(groups); more > 0 {
		fmt.Fprintf(a.out, "… and %s; --show 0 shows all\n", plural(more, "more group"))
	}
	return nil
}
