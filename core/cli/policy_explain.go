package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/opa"
	"github.com/weir-gateway/weir/core/replay"
)

// explainWhat is what is to be explained.
type explainWhat struct {
	config, archive, target string
	identity                core.Identity
	claims                  map[string]string
	session                 string
	seq                     uint64
	policy                  string // in place of the target's
}

// explained is one event with what each policy says of it.
type explained struct {
	Target   string            `json:"target"`
	Identity core.Identity     `json:"identity"`
	Kind     string            `json:"kind"`
	Text     string            `json:"text,omitempty"`
	Status   core.Status       `json:"status,omitempty"`
	Reason   string            `json:"reason,omitempty"` // why its facts are incomplete
	Policies []opa.Explanation `json:"policies"`
}

func (a *app) policyExplain() *cobra.Command {
	var w explainWhat
	var output string
	c := &cobra.Command{
		Use:   "explain [TEXT]",
		Short: "Say why a command gets its verdict: each rule that fired or nearly did, and the facts it read",
		Long: "Say why a command gets its verdict: each rule that fired or nearly did, and the facts it read. The command is TEXT, said by\n" +
			"--as to --target, or one record of a session. Nothing is sent to the target: names in TEXT stand as they are said.",
		Example: "  weir policy explain --target orders --as nightly --group agents 'delete from orders'\n" +
			"  weir policy explain --session 01m845yz6bn8qdznxx3k8y76bp --seq 7",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := ""
			if len(args) > 0 {
				text = args[0]
			}
			list, err := a.explain(cmd.Context(), w, text)
			if err != nil {
				return coded(err)
			}
			if output == "json" {
				return a.printJSON(list)
			}
			for i := range list {
				a.printExplained(&list[i])
			}
			return nil
		},
	}
	configFlag(c, &w.config)
	a.archiveFlag(c, &w.archive)
	outputFlag(c, &output)
	f := c.Flags()
	f.StringVar(&w.target, "target", "", "the `target` that is asked")
	f.StringVar(&w.identity.Subject, "as", "", "the `subject` that asks")
	f.StringSliceVar(&w.identity.Groups, "group", nil, "a `group` of the subject; may be given again")
	f.StringVar(&w.identity.Kind, "kind", "agent", "human, service or agent")
	f.StringToStringVar(&w.claims, "claim", nil, "a claim of the subject, as `name=value`; may be given again")
	f.StringVar(&w.session, "session", "", "explain a record of this `session`")
	f.Uint64Var(&w.seq, "seq", 0, "the `number` of the record, as weir show prints it")
	f.StringVar(&w.policy, "policy", "", "ask this policy, a `path` or builtin:NAME, in place of the target's")
	return c
}

func (a *app) explain(ctx context.Context, w explainWhat, text string) ([]explained, error) {
	cfg, err := load(w.config)
	if err != nil {
		return nil, err
	}
	var events []*core.Event
	switch {
	case w.session != "" && (text != "" || w.target != "" || w.identity.Subject != ""):
		return nil, use(errors.New("--session names a record: leave out TEXT, --target and --as"))
	case w.session != "":
		e, err := a.recorded(ctx, cfg, w)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	case text == "" || w.target == "" || w.identity.Subject == "":
		return nil, use(errors.New("say what is asked, by whom and of which target: --target T --as SUBJECT 'TEXT', or --session ID --seq N"))
	default:
		if events, err = a.said(ctx, cfg, w, text); err != nil {
			return nil, err
		}
	}
	policies, err := a.explainers(ctx, cfg, w, events[0].Session.Target.Name)
	if err != nil {
		return nil, err
	}
	var out []explained
	for _, e := range events {
		x := explained{Target: e.Session.Target.Name, Identity: e.Session.Identity, Kind: e.Kind.String(), Policies: []opa.Explanation{}}
		if c := e.Command(); c != nil {
			x.Text, x.Status, x.Reason = c.Text, c.Status, c.Reason
		}
		for _, p := range policies {
			if y, asked := p.Explain(ctx, e); asked {
				x.Policies = append(x.Policies, y)
			}
		}
		out = append(out, x)
	}
	return out, nil
}

// explainers are the policies of a target's chain, or the one that is named.
func (a *app) explainers(ctx context.Context, cfg *config.Config, w explainWhat, target string) ([]*opa.Policy, error) {
	if w.policy != "" {
		p, err := a.loadPolicy(ctx, w.policy, w.policy, nil)
		return []*opa.Policy{p}, err
	}
	t := targetNamed(cfg, target)
	if t == nil {
		return nil, use(fmt.Errorf("the configuration has no target %q any more: name a policy with --policy", target))
	}
	var list []*opa.Policy
	for _, step := range t.Steps() {
		for i := range cfg.Policies {
			if c := &cfg.Policies[i]; c.Name == step {
				p, err := a.loadPolicy(ctx, c.Name, c.Path, c.Packages)
				if err != nil {
					return nil, err
				}
				list = append(list, p)
			}
		}
	}
	if len(list) == 0 {
		return nil, use(fmt.Errorf("no policy is in the chain of target %q: everything passes but what plugins and the gateway itself refuse", target))
	}
	return list, nil
}

func targetNamed(cfg *config.Config, name string) *config.Target {
	for i := range cfg.Targets {
		if cfg.Targets[i].Name == name {
			return &cfg.Targets[i]
		}
	}
	return nil
}

// said makes the events of a text.
func (a *app) said(ctx context.Context, cfg *config.Config, w explainWhat, text string) ([]*core.Event, error) {
	t := targetNamed(cfg, w.target)
	if t == nil {
		return nil, use(fmt.Errorf("there is no target %q in %s", w.target, cfg.File))
	}
	if err := oneOf("--kind", w.identity.Kind, "human", "service", "agent"); err != nil {
		return nil, err
	}
	noun, err := t.Core()
	if err != nil {
		return nil, use(err)
	}
	i := slices.IndexFunc(a.Protocols, func(p core.Protocol) bool { return p.Name() == t.Protocol })
	if i < 0 {
		return nil, use(fmt.Errorf("this build does not speak %q", t.Protocol))
	}
	parser, ok := a.Protocols[i].(core.Parser)
	if !ok {
		return nil, use(fmt.Errorf("%s cannot tell what a text asks for without a session: use --session", t.Protocol))
	}
	commands, err := parser.Parse(ctx, text)
	if err != nil {
		return nil, err
	}
	if len(w.claims) > 0 {
		w.identity.Claims = map[string]any{}
		for k, v := range w.claims {
			w.identity.Claims[k] = v
		}
	}
	s := &core.Session{ID: "explain", Protocol: t.Protocol, Identity: w.identity, Target: noun, Started: time.Now()}
	var events []*core.Event
	for _, c := range commands {
		events = append(events, &core.Event{
			Kind: core.KindCommand, Direction: core.FromClient, Session: s, Time: time.Now(), Exchange: &core.Exchange{Command: c},
		})
	}
	return events, nil
}

// recorded makes the event of one record, with the counts of its session and of its run as they were.
func (a *app) recorded(ctx context.Context, cfg *config.Config, w explainWhat) (found *core.Event, err error) {
	err = a.play(ctx, "policy explain", w.config, w.archive, w.session, func(ctx context.Context, store core.Store, _ replay.Options) error {
		sessions, wanted := a.runOf(ctx, cfg, w.session)
		reruns := make([]replay.Rerun, len(sessions))
		for i := range reruns {
			reruns[i].Target, reruns[i].Protocol = labelled(cfg), a.speaking
		}
		var run *core.Run
		for next, err := range replay.Together(ctx, store, sessions) {
			i := next.Session
			r := &reruns[i]
			var e *core.Event
			if err == nil {
				e, _, err = r.Event(next.Record)
			}
			switch {
			case err != nil && i == wanted:
				return no(err)
			case err != nil:
				fmt.Fprintf(a.err, "weir: session %s of the same run cannot be read, so it is not in the counts: %s\n", sessions[i].ID, printable(err.Error()))
				continue
			case e == nil:
				continue
			}
			if e.Kind == core.KindOpen {
				if s := r.Session(); s.Run != "" && run == nil {
					run = core.NewRun(s.Run, true)
				}
				r.Begin(core.SessionConfig{Run: run, Tables: true})
			}
			if i == wanted && next.Record.Seq == w.seq {
				if e.Kind != core.KindOpen && e.Kind != core.KindCommand && e.Kind != core.KindColumns {
					return no(fmt.Errorf("record %d is a %s: policies are asked about open, command and columns", w.seq, e.Kind))
				}
				found = e
				return nil
			}
			r.Pass(ctx, e)
		}
		return no(fmt.Errorf("session %s has no record %d", w.session, w.seq))
	})
	return found, err
}

// runOf lists the sessions of the run that a session belongs to, and says which of them it is. Without an index, or a
// run, it is the only one.
func (a *app) runOf(ctx context.Context, cfg *config.Config, id string) (list []replay.Begun, at int) {
	alone := []replay.Begun{{ID: id}}
	x, err := openIndex(ctx, cfg, true)
	if err != nil {
		return alone, 0
	}
	defer x.Close()
	s, err := x.Session(ctx, id)
	if err != nil || s.Run == "" {
		return alone, 0
	}
	all, err := x.Sessions(ctx, index.Query{Run: s.Run, Except: gateway.AdminProtocol, Limit: math.MaxInt32})
	if err != nil {
		return alone, 0
	}
	at = -1
	for i, one := range all {
		list = append(list, replay.Begun{ID: one.ID, Started: one.Started})
		if one.ID == id {
			at = i
		}
	}
	if at < 0 {
		return alone, 0
	}
	return list, at
}

// speaking finds a protocol of this build; nil when it does not speak it.
func (a *app) speaking(name string) core.Protocol {
	for _, p := range a.Protocols {
		if p.Name() == name {
			return p
		}
	}
	return nil
}

// labelled finds a recorded session's target as the configuration has it now.
func labelled(cfg *config.Config) func(name string) *core.Target {
	return func(name string) *core.Target {
		t := targetNamed(cfg, name)
		if t == nil {
			return nil
		}
		noun, err := t.Core()
		if err != nil {
			return nil
		}
		return noun
	}
}

func (a *app) printExplained(x *explained) {
	p := func(format string, args ...any) { fmt.Fprintf(a.out, format+"\n", args...) }
	who := x.Identity.Subject
	if len(x.Identity.Groups) > 0 {
		who += " (" + strings.Join(x.Identity.Groups, ", ") + ")"
	}
	what := x.Text
	if x.Kind != "command" {
		what = strings.TrimSpace(x.Kind + " " + x.Text)
	}
	p("%s on %s: %s", printable(who), printable(x.Target), printable(shorten(what, 200)))
	if x.Status == core.StatusIncomplete {
		p("  its facts are incomplete (%s): the gateway refuses it unless the target allows that", printable(x.Reason))
	}
	for i := range x.Policies {
		y := &x.Policies[i]
		p("\n%s@%.12s", y.Policy, y.Revision)
		v := &y.Verdict
		switch {
		case y.Error != "":
			p("  DENIED: %s", printable(y.Error))
		case v.Deny != nil:
			p("  DENIED by rule %s: %s", printable(v.Deny.Rule), printable(v.Deny.Reason))
		case v.Hold != nil:
			for h := v.Hold; h != nil; h = h.And {
				p("  HELD by rule %s: %s (approvers: %s)", printable(h.Rule), printable(h.Reason), printable(cmp.Or(strings.Join(h.Approvers, ", "), "nobody, so it is refused")))
			}
		default:
			p("  passes")
		}
		for _, m := range v.Masks {
			p("  masks column %s with %s", printable(m.Column), printable(m.With))
		}
		if l := v.Limit; l != (core.Limit{}) {
			p("  limits: rows %d, bytes %d, time %v (0: none)", l.Rows, l.Bytes, l.Time)
		}
		if v.Record != core.LevelUnset {
			p("  records: %s", v.Record)
		}
		for _, r := range y.Rules {
			name := strings.TrimSpace(r.Answer + " " + r.Rule)
			if r.Fired {
				p("  fired    %-28s %s:%d", printable(name), r.File, r.Line)
				continue
			}
			where := ""
			if r.Stopped != "" {
				where = fmt.Sprintf(", not at line %d: %s", r.StoppedAt, printable(shorten(r.Stopped, 100)))
			}
			p("  %d of %-4d %-28s %s:%d%s", r.Held, r.Conditions, printable(name), r.File, r.Line, where)
		}
		for _, f := range y.Facts {
			value := "absent"
			if f.Value != nil {
				value = shorten(string(f.Value), 160)
			}
			p("  read     %s = %s", strings.TrimSuffix("input."+f.Path, "."), printable(value))
		}
	}
}
