package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/retention"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity"
	"github.com/weir-gateway/weir/core/ledger"
)

// admin makes what judges acts, or the reading of recordings; nil: there is no policy for them.
func (l *loader) admin(at string, names []string) core.Plugin {
	var steps []chain.Step
	for _, name := range names {
		s, ok := l.steps[name]
		if !ok {
			return nil // its own problem was told
		}
		steps = append(steps, s)
	}
	if len(steps) == 0 {
		return nil
	}
	made, err := chain.Options{Log: l.log}.New(steps...)
	if err != nil {
		l.fail(at, "", err)
		return nil
	}
	return made
}

// tokens makes what signs tokens for the API; nil: they are off.
func (l *loader) tokens() gateway.Tokens {
	if l.dry || !l.c.Identity.ServiceTokens.On() {
		return nil
	}
	issuer, err := identity.OpenIssuer(keysDir(l.c), l.c.Identity.ServiceTokens.MaxTTL)
	if err != nil {
		return nil // verifier has told
	}
	return &issued{issuer, l.c}
}

// issued makes tokens for whoever may ask for them at the admin address.
type issued struct {
	issuer *identity.Issuer
	c      *config.Config
}

// Issue implements gateway.Tokens.
func (t *issued) Issue(_ context.Context, g gateway.Grant) (gateway.NewToken, error) {
	grant := identity.Grant{Subject: g.Subject, Groups: g.Groups, Kind: g.Kind, Run: g.Run, Targets: g.Targets}
	if g.TTL != "" {
		var err error
		if grant.TTL, err = config.ParseDuration(g.TTL); err != nil {
			return gateway.NewToken{}, core.Refusal("ttl: " + err.Error())
		}
	}
	if err := knownTargets(t.c, g.Targets); err != nil {
		return gateway.NewToken{}, core.Refusal(err.Error())
	}
	made, err := t.issuer.Issue(grant)
	if err != nil {
		return gateway.NewToken{}, err
	}
	return gateway.NewToken{Token: made.Token, ID: made.ID, Subject: made.Subject, Expires: made.Expires}, nil
}

// Issued implements gateway.Tokens.
func (t *issued) Issued(context.Context) ([]gateway.Token, error) {
	list, err := t.issuer.List()
	out := make([]gateway.Token, len(list))
	for i, x := range list {
		out[i] = gateway.Token{ID: x.ID, Subject: x.Subject, Groups: x.Groups, Kind: x.Kind, Run: x.Run, Targets: x.Targets, Issued: x.Issued, Expires: x.Expires}
	}
	return out, err
}

// knownTargets refuses a token for what is not there.
func knownTargets(c *config.Config, names []string) error {
	for _, name := range names {
		known := false
		for i := range c.Targets {
			known = known || c.Targets[i].Name == name
		}
		if !known {
			return fmt.Errorf("%s has no target %q", c.File, name)
		}
	}
	return nil
}

// holds puts sessions under legal hold for whoever may ask for that at the admin address.
type holds struct {
	keeper *retention.Keeper
	ledger string // its folder
}

// holds is nil where this process keeps no archive.
func (e *evidence) holds(c *config.Config) gateway.Holds {
	if e.upkeep == nil {
		return nil
	}
	return &holds{e.upkeep.keeper, ledgerDir(c)}
}

// Held implements gateway.Holds.
func (h *holds) Held(context.Context) ([]gateway.Held, error) {
	list, err := heldNow(h.ledger)
	out := make([]gateway.Held, len(list))
	for i, x := range list {
		out[i] = gateway.Held(x)
	}
	return out, err
}

// Hold implements gateway.Holds.
func (h *holds) Hold(ctx context.Context, by, why string, sessions ...string) error {
	return refusal(h.keeper.Hold(ctx, by, why, sessions...))
}

// Release implements gateway.Holds.
func (h *holds) Release(ctx context.Context, by, why string, sessions ...string) error {
	return refusal(h.keeper.Release(ctx, by, why, sessions...))
}

// refusal makes a no of an error that is one.
func refusal(err error) error {
	if errors.Is(err, core.ErrNoSession) || errors.Is(err, ledger.ErrStanding) {
		return core.Refusal(err.Error())
	}
	return err
}

// adminWhat is what the commands that ask the admin address share.
type adminWhat struct{ config, tokenFile string }

func (w *adminWhat) flags(c *cobra.Command) {
	configFlag(c, &w.config)
	c.Flags().StringVar(&w.tokenFile, "token-file", "", "`file` with your token (default: the gateway's own key, where you can read it; then $"+tokenEnv+", then what weir login keeps)")
	_ = c.MarkFlagFilename("token-file")
}

// ask asks the gateway that runs with the configuration.
func (w *adminWhat) ask(ctx context.Context, method, what string, body, into any) error {
	cfg, err := load(w.config)
	if err != nil {
		return err
	}
	token, err := adminToken(ctx, cfg, w.tokenFile)
	if err != nil {
		return err
	}
	return askGateway(ctx, cfg, token, method, what, body, into)
}

// adminToken says who asks: by the gateway's own key, where this process can read it, else by a token of one's own.
func adminToken(ctx context.Context, cfg *config.Config, file string) (string, error) {
	if f, err := os.Open(filepath.Join(keysDir(cfg), "tokens.key")); err == nil && file == "" { // none is to be made here
		_ = f.Close()
		issuer, err := identity.OpenIssuer(keysDir(cfg), cfg.Identity.ServiceTokens.MaxTTL)
		if err != nil {
			return "", unreachable(err)
		}
		return issuer.Operator(operatorName())
	}
	return tokenOf(ctx, file)
}

// operatorName is who runs this command, as the record of it has it.
func operatorName() string {
	name := operator()
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
