package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity/signin"
)

// invite makes what signs in clients without a token at a provider's page; nil where no issuer is to do that.
func (l *loader) invite() gateway.Invite {
	i := slices.IndexFunc(l.c.Identity.OIDC, func(o config.OIDC) bool { return o.Login.Invite })
	if i < 0 {
		return nil
	}
	o := l.c.Identity.OIDC[i]
	scopes := o.Login.Scopes
	if len(scopes) == 0 {
		scopes = usualScopes
	}
	scopes = slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return s == "offline_access" }) // nobody would renew it
	return func(ctx context.Context) (*core.Invitation, error) {
		c := &signin.Client{Issuer: o.Issuer, ClientID: cmp.Or(o.Login.ClientID, o.Audience), Scopes: scopes, Pause: loginPause}
		d, err := c.Begin(ctx)
		if err != nil {
			l.log.Warn("gateway: nobody can be invited to sign in", "issuer", o.Issuer, "error", err)
			return nil, fmt.Errorf("%w: %s cannot be asked for a code now; use a token", core.ErrUnauthenticated, o.Name)
		}
		return &core.Invitation{Page: d.Where, Whole: d.Shorter, Code: d.User, Until: d.Until(), Token: func(ctx context.Context) (string, error) {
			tokens, err := d.Wait(ctx)
			if err == nil {
				token, _, e := tokens.For(o.Audience)
				if err = e; err == nil {
					return token, nil
				}
			}
			switch {
			case errors.Is(err, signin.ErrRefused):
				return "", fmt.Errorf("%w: the sign-in at %s was refused", core.ErrUnauthenticated, o.Name)
			case errors.Is(err, signin.ErrLate) || errors.Is(err, context.DeadlineExceeded):
				return "", fmt.Errorf("%w: nobody signed in at %s in time", core.ErrUnauthenticated, o.Name)
			case ctx.Err() == nil:
				l.log.Warn("gateway: a sign-in came to nothing", "issuer", o.Issuer, "error", err)
			}
			return "", fmt.Errorf("%w: the sign-in at %s came to nothing", core.ErrUnauthenticated, o.Name)
		}}, nil
	}
}
