package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/identity"
)

// askOperator asks the gateway with a token that only who can read its key can make.
func askOperator(ctx context.Context, cfg *config.Config, issuer *identity.Issuer, method, what string, body, into any) error {
	token, err := issuer.Operator(operatorName())
	if err != nil {
		return err
	}
	return askGateway(ctx, cfg, token, method, what, body, into)
}

// keyOf opens the key of the gateway of a configuration.
func keyOf(path string) (*config.Config, *identity.Issuer, error) {
	cfg, err := load(path)
	if err != nil {
		return nil, nil, err
	}
	issuer, err := identity.OpenIssuer(keysDir(cfg), cfg.Identity.ServiceTokens.MaxTTL)
	if err != nil {
		return nil, nil, unreachable(err)
	}
	return cfg, issuer, nil
}

// listedToken is one line of weir token list.
type listedToken struct {
	identity.Issued
	Revoked *core.Revocation `json:"revoked,omitempty"`
}

func (a *app) tokenList() *cobra.Command {
	var path, output string
	c := &cobra.Command{
		Use: "list", Short: "List the tokens that were made here and are not over, and what is revoked",
		Long: "List the tokens that were made with the key in this data folder and are not over. What is revoked, the running gateway\n" +
			"is asked for; revocations that are about other tokens, and denied subjects, follow. The tokens themselves are not kept.",
		Example: "  weir token list\n  weir token list -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, issuer, err := keyOf(path)
			if err != nil {
				return err
			}
			made, err := issuer.List()
			if err != nil {
				return unreachable(err)
			}
			var revoked []core.Revocation
			known := askOperator(cmd.Context(), cfg, issuer, http.MethodGet, "revocations", nil, &revoked)
			list := make([]listedToken, len(made))
			seen := map[int]bool{}
			for i, t := range made {
				list[i].Issued = t
				id := core.Identity{Issuer: identity.ServiceIssuer, Token: t.ID, Subject: t.Subject}
				if n := slices.IndexFunc(revoked, func(r core.Revocation) bool { return r.Covers(&id) }); n >= 0 {
					list[i].Revoked = &revoked[n]
					seen[n] = seen[n] || revoked[n].Token != ""
				}
			}
			others := []core.Revocation{}
			for n, r := range revoked {
				if !seen[n] {
					others = append(others, r)
				}
			}
			if output == "json" {
				err = a.printJSON(struct {
					Tokens []listedToken     `json:"tokens"`
					Others []core.Revocation `json:"revoked"`
					Known  bool              `json:"revocations_known"`
				}{list, others, known == nil})
			} else {
				err = a.printTokens(list, others, known == nil)
			}
			if err == nil && known != nil {
				fmt.Fprintf(a.err, "weir: which are revoked is not known: %v\n", known)
			}
			return err
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	return c
}

func (a *app) printTokens(list []listedToken, others []core.Revocation, known bool) error {
	rows := make([][]string, 0, len(list)+len(others))
	for _, t := range list {
		state := "good"
		switch {
		case t.Revoked != nil && t.Revoked.Token == "":
			state = "subject denied"
		case t.Revoked != nil:
			state = "revoked"
		case !known:
			state = "?"
		}
		rows = append(rows, []string{
			t.ID, state, t.Subject, t.Kind, cmp.Or(strings.Join(t.Groups, ","), "-"), cmp.Or(strings.Join(t.Targets, ","), "all"), t.Expires.Local().Format(time.DateTime),
		})
	}
	for _, r := range others {
		until := "-"
		if !r.Until.IsZero() {
			until = r.Until.Local().Format(time.DateTime)
		}
		rows = append(rows, []string{cmp.Or(r.Token, "-"), map[bool]string{true: "revoked", false: "subject denied"}[r.Token != ""], cmp.Or(r.Subject, "-"), "-", "-", "-", until})
	}
	return a.table([]string{"ID", "STATE", "SUBJECT", "KIND", "GROUPS", "TARGETS", "UNTIL"}, rows)
}

// revoking is what revoke and restore share.
func (a *app) revoking(c *cobra.Command, do func(cmd *cobra.Command, cfg *config.Config, issuer *identity.Issuer, r core.Revocation) error) *cobra.Command {
	var path string
	var r core.Revocation
	c.Args = cobra.MaximumNArgs(1)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			r.Token = args[0]
		}
		switch {
		case (r.Token == "") == (r.Subject == ""):
			return use(errors.New("name the id of a token, or --subject"))
		case strings.Count(r.Token, ".") == 2:
			return use(errors.New("that looks like the token itself; this takes its id: weir token list"))
		}
		cfg, issuer, err := keyOf(path)
		if err != nil {
			return err
		}
		return do(cmd, cfg, issuer, r)
	}
	configFlag(c, &path)
	f := c.Flags()
	f.StringVar(&r.Subject, "subject", "", "all tokens of the subject of this `name`, whoever vouches for it")
	f.StringVar(&r.Issuer, "issuer", "", "only what this `issuer` vouches for (weir: the gateway itself)")
	f.StringVar(&r.Reason, "reason", "", "`why`; it is kept with the revocation")
	return c
}

func (a *app) tokenRevoke() *cobra.Command {
	return a.revoking(&cobra.Command{
		Use: "revoke ID|--subject NAME", Short: "Refuse a token, or all of a subject, from now on, and end its open sessions",
		Long: "Refuse a token, or everything that a subject shows, from now on. All gateways that share the JetStream know within a\n" +
			"few seconds, and end the sessions that were opened with it. A token is named by its id (jti), a subject as policies\n" +
			"and records see it. A denied subject stays denied until weir token restore.",
		Example: "  weir token revoke 01m83jjq6b8jy7qhpb1ejna3na --reason 'in a public repository'\n  weir token revoke --subject nightly-report",
	}, func(cmd *cobra.Command, cfg *config.Config, issuer *identity.Issuer, r core.Revocation) error {
		if r.Token != "" {
			made, err := issuer.List()
			if err != nil {
				return unreachable(err)
			}
			n := slices.IndexFunc(made, func(t identity.Issued) bool { return t.ID == r.Token })
			switch {
			case n >= 0:
				r.Until = made[n].Expires
				r.Issuer = cmp.Or(r.Issuer, identity.ServiceIssuer)
			default:
				fmt.Fprintf(a.err, "weir: no token of the id %s was made here, or it is over: it is revoked all the same\n", printable(r.Token))
			}
		}
		var done core.Revocation
		if err := askOperator(cmd.Context(), cfg, issuer, http.MethodPost, "revocations/revoke", r, &done); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "revoked: %s\n", whatOf(r))
		return nil
	})
}

func (a *app) tokenRestore() *cobra.Command {
	return a.revoking(&cobra.Command{
		Use: "restore ID|--subject NAME", Short: "Take a revocation back",
		Example: "  weir token restore --subject nightly-report",
	}, func(cmd *cobra.Command, cfg *config.Config, issuer *identity.Issuer, r core.Revocation) error {
		if r.Issuer == "" && r.Token != "" {
			if made, err := issuer.List(); err == nil && slices.ContainsFunc(made, func(t identity.Issued) bool { return t.ID == r.Token }) {
				r.Issuer = identity.ServiceIssuer
			}
		}
		var done core.Revocation
		if err := askOperator(cmd.Context(), cfg, issuer, http.MethodPost, "revocations/restore", r, &done); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "restored: %s\n", whatOf(r))
		return nil
	})
}

func whatOf(r core.Revocation) string {
	if r.Token != "" {
		return "token " + printable(r.Token)
	}
	return "subject " + printable(r.Subject)
}
