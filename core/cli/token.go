package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
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
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if !cfg.Identity.ServiceTokens.On() {
				return use(fmt.Errorf("%s:%d: service tokens are off (identity.service_tokens.enabled)", cfg.File, cfg.Line("identity.service_tokens.enabled")))
			}
			if err := knownTargets(cfg, g.Targets); err != nil {
				return use(err)
			}
			made, err := a.issue(cmd.Context(), cfg, g)
			if err != nil {
				return err
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

// issue has the running gateway make a token, so that it is recorded who made it. Where none runs with this key, the token
// is made here, and the next gateway records it.
func (a *app) issue(ctx context.Context, cfg *config.Config, g identity.Grant) (made gateway.NewToken, err error) {
	issuer, err := identity.OpenIssuer(keysDir(cfg), cfg.Identity.ServiceTokens.MaxTTL)
	if err != nil {
		return made, unreachable(err)
	}
	ask := gateway.Grant{Subject: g.Subject, Groups: g.Groups, Kind: g.Kind, Run: g.Run, Targets: g.Targets}
	if g.TTL != 0 {
		ask.TTL = g.TTL.String()
	}
	operator, err := issuer.Operator(operatorName())
	if err != nil {
		return made, unreachable(err)
	}
	err = askGateway(ctx, cfg, operator, http.MethodPost, "tokens", ask, &made)
	if err == nil && made.Token == "" {
		return made, unreachable(fmt.Errorf("what answers on %s is no gateway", cfg.Listen.Admin))
	}
	if !errors.Is(err, errNotOurs) {
		return made, err
	}
	detail := map[string]any{"kind": g.Kind}
	for key, list := range map[string][]string{"groups": g.Groups, "targets": g.Targets} {
		if len(list) > 0 {
			detail[key] = list
		}
	}
	if g.Run != "" {
		detail["run"] = g.Run
	}
	token, err := issuer.Issue(g)
	if err != nil {
		return made, use(err)
	}
	detail["id"], detail["until"] = token.ID, token.Expires.UTC().Format(time.RFC3339)
	if err := writeBeside(cfg, deedBeside{At: time.Now(), By: operatorName(), Action: "tokens.issue", Object: g.Subject, Detail: detail}); err != nil {
		return made, unreachable(fmt.Errorf("the token cannot be accounted for, so it is not given out: %w", err))
	}
	return gateway.NewToken{Token: token.Token, ID: token.ID, Subject: token.Subject, Expires: token.Expires}, nil
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
