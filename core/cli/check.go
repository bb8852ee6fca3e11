package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/wasm/fetch"
)

func (a *app) check() *cobra.Command {
	var path, output string
	c := &cobra.Command{
		Use:     "check",
		Short:   "Load everything that serve would, and start nothing",
		Long:    "Load everything that serve would: the configuration, policies, plugins and credentials. Nothing is started, made or\nchanged. Every problem is printed in one run, with file and line; then the exit code is 2.",
		Example: "  weir check\n  weir check -c /etc/weir/weir.yaml -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, engines, err := a.examined(cmd.Context(), configPath(path))
			problems := problemsOf(err)
			if output == "json" {
				report := struct {
					OK       bool            `json:"ok"`
					Problems config.Problems `json:"problems"`
					Warnings config.Problems `json:"warnings"`
					Policies []engineOf      `json:"policies"`
				}{len(problems) == 0, append(config.Problems{}, problems...), config.Problems{}, append([]engineOf{}, engines...)}
				if cfg != nil {
					report.Warnings = append(report.Warnings, cfg.Warnings...)
				}
				if err := a.printJSON(report); err != nil {
					return err
				}
				if !report.OK {
					return &exit{exitUse, nil}
				}
				return nil
			}
			if cfg != nil {
				a.warn(cfg)
			}
			if len(problems) > 0 {
				return use(problems)
			}
			for _, e := range engines {
				fmt.Fprintln(a.out, e)
			}
			fmt.Fprintf(a.out, "%s is good: %s, %s, %s\n", cfg.File, plural(len(cfg.Targets), "target"), count(len(cfg.Policies), "policy", "policies"), plural(len(cfg.Plugins), "plugin"))
			return nil
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	return c
}

// engineOf is what evaluates a policy.
type engineOf struct {
	Name   string `json:"name"`
	Engine string `json:"engine"`
	Why    string `json:"why,omitempty"` // it is not the faster one
}

// String implements fmt.Stringer.
func (e engineOf) String() string {
	if e.Why != "" {
		return fmt.Sprintf("policy %s runs on %s: %s", e.Name, e.Engine, e.Why)
	}
	return fmt.Sprintf("policy %s runs on %s", e.Name, e.Engine)
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprint(n, " ", many)
}

func (a *app) warn(c *config.Config) {
	for _, w := range c.Warnings {
		w.Text = "warning: " + w.Text
		fmt.Fprintln(a.err, w)
	}
}

// checked loads the file and everything it names, without starting anything. The configuration is there for its
// warnings even if there are problems.
func (a *app) checked(ctx context.Context, path string) (*config.Config, error) {
	cfg, _, err := a.examined(ctx, path)
	return cfg, err
}

// examined is checked, and what evaluates each policy that could be loaded.
func (a *app) examined(ctx context.Context, path string) (*config.Config, []engineOf, error) {
	cfg, err := config.Load(path)
	if cfg == nil {
		return nil, nil, err
	}
	problems := problemsOf(err)
	if len(problems) == 0 && cfg.Index.Postgres.On() {
		if _, err := postgresIndex(ctx, cfg); err != nil {
			problems = append(problems, problemsOf(err)...)
		}
	}
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	w, err := newWiring(ctx, a.Build, cfg, quiet, nil, true)
	if err != nil {
		return cfg, nil, append(problems, config.Problem{Text: err.Error()})
	}
	defer w.close()
	s, err := w.settings(ctx, cfg)
	warnUnused(cfg)
	more := problemsOf(err)
	if err == nil {
		defer s.Release()
		if len(problems) == 0 { // otherwise the gateway would only say the same in other words
			_, err = gateway.New(gateway.Config{Protocols: a.Protocols, Journal: nowhere{}}, s)
			more = problemsOf(err)
		}
	}
	for _, p := range more { // a broken part can be told twice
		known := false
		for _, q := range problems {
			known = known || q.Path == p.Path && q.Line == p.Line
		}
		if !known {
			problems = append(problems, p)
		}
	}
	if len(problems) == 0 {
		return cfg, w.engines, nil
	}
	problems.Sort()
	return cfg, w.engines, problems
}

// warnUnused names what a lock file holds for nothing.
func warnUnused(c *config.Config) {
	lock, err := fetch.ReadLock(fetch.LockFile(c.File))
	if err != nil {
		return // told as a problem
	}
	names := make([]string, len(c.Plugins))
	for i := range c.Plugins {
		names[i] = c.Plugins[i].Name
	}
	for _, name := range lock.Unused(names) {
		c.Warnings = append(c.Warnings, c.Problem("plugins", fmt.Sprintf("the lock file has %q, which the configuration does not name", name), "weir plugin lock"))
	}
}

// problemsOf takes an error apart into problems.
func problemsOf(err error) config.Problems {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all config.Problems
		for _, e := range joined.Unwrap() {
			all = append(all, problemsOf(e)...)
		}
		return all
	}
	var problems config.Problems
	if errors.As(err, &problems) {
		return problems
	}
	return config.Problems{{Text: err.Error()}}
}

// nowhere is a journal for a gateway that is never run.
type nowhere struct{}

func (nowhere) Open(*core.Session) (core.Recorder, error) { return nil, core.ErrJournalLost }
