package cli

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/identity"
)

func (a *app) token() *cobra.Command {
	var path, output string
	var g identity.Grant
	c := &cobra.Command{
		Use:   "token --subject NAME [--group G]... [--ttl 1h]",
		Short: "Make a service token with the gateway's own key",
		Long:  "Make a service token with the key in the data folder, for loops without an identity provider and for tests.\nWhoever can read that key can be anybody: run it where the gateway runs.",
		Example: `  weir token --subject nightly-report --group analysts --ttl 1h
  PGPASSWORD=$(weir token --subject me) psql -h localhost -p 15432 -d orders
  weir token list
  weir token revoke 01m83jjq6b8jy7qhpb1ejna3na --reason 'in a public repository'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if !cfg.Identity.ServiceTokens.On() {
				return use(fmt.Errorf("%s:%d: service tokens are off (identity.service_tokens.enabled)", cfg.File, cfg.Line("identity.service_tokens.enabled")))
			}
			for _, t := range g.Targets {
				if !slices.ContainsFunc(cfg.Targets, func(c config.Target) bool { return c.Name == t }) {
					return use(fmt.Errorf("%s has no target %q", cfg.File, t))
				}
			}
			issuer, err := identity.OpenIssuer(keysDir(cfg), cfg.Identity.ServiceTokens.MaxTTL)
			if err != nil {
				return unreachable(err)
			}
			made, err := issuer.Issue(g)
			if err != nil {
				return use(err)
			}
			if output == "json" {
				return a.printJSON(map[string]any{"token": made.Token, "id": made.ID, "subject": g.Subject, "expires": made.Expires})
			}
			fmt.Fprintln(a.out, made.Token)
			fmt.Fprintf(a.err, "weir: token of %s, until %s\n", printable(g.Subject), made.Expires.Local().Format(time.RFC3339))
			return nil
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	f := c.Flags()
	f.StringVar(&g.Subject, "subject", "", "`name` that policies and records see (required)")
	f.StringArrayVar(&g.Groups, "group", nil, "`group` that the subject is in; may be repeated")
	f.Var((*duration)(&g.TTL), "ttl", "how long it is valid, such as 90s, 1h or 7d (default 1h)")
	f.StringVar(&g.Kind, "kind", "service", "service, agent or human")
	f.StringVar(&g.Run, "run", "", "`id` of the run that its sessions belong to")
	f.StringArrayVar(&g.Targets, "target", nil, "only `target` that it is good for; may be repeated (default: all)")
	_ = c.MarkFlagRequired("subject")
	c.AddCommand(a.tokenList(), a.tokenRevoke(), a.tokenRestore())
	return c
}

// duration is a flag in the configuration's way of writing durations.
type duration time.Duration

func (d *duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *duration) Set(s string) error {
	v, err := config.ParseDuration(s)
	*d = duration(v)
	return err
}

func (d *duration) Type() string { return "duration" }
