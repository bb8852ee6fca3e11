package gateway

import (
	"cmp"
	"context"
	"net/http"

	"github.com/weir-gateway/weir/core"
)

// keySet serves the key set of the gateway's own tokens, for all.
func (a *api) keySet(w http.ResponseWriter, _ *http.Request) {
	v, ok := a.verifier().(interface{ KeySet() []byte })
	if !ok || v.KeySet() == nil {
		http.Error(w, "gateway: this gateway makes no tokens", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	_, _ = w.Write(v.KeySet())
}

var errNoRevocations = &apiError{http.StatusNotFound, "this gateway keeps no list of revocations"}

func revocationOf(c *call) (string, map[string]any) {
	v := c.body.(*core.Revocation)
	d := map[string]any{}
	for key, value := range map[string]string{"issuer": v.Issuer, "reason": v.Reason} {
		if value != "" {
			d[key] = value
		}
	}
	if v.Token != "" {
		return v.Token, d
	}
	d["all_of"] = "subject"
	return v.Subject, d
}

func (a *api) listRevocations(ctx context.Context, _ *call) (any, error) {
	if a.g.Revocations == nil {
		return nil, errNoRevocations
	}
	return a.g.Revocations.List(ctx)
}

func (a *api) revoke(revoke bool) func(context.Context, *call) (any, error) {
	return func(ctx context.Context, c *call) (any, error) {
		list := a.g.Revocations
		if list == nil {
			return nil, errNoRevocations
		}
		v := *c.body.(*core.Revocation)
		if tokenShape.MatchString(cmp.Or(v.Token, v.Subject)) {
			return nil, &apiError{http.StatusBadRequest, "that looks like a token itself, which is not to be shown: name its id (jti)"}
		}
		v.By, v.Reason = c.who.Subject, blot(v.Reason)
		change, word := list.Restore, "restore"
		if revoke {
			change, word = list.Revoke, "revoke"
		}
		if err := change(ctx, v); err != nil {
			return nil, err
		}
		a.g.Log.Warn("gateway: "+word, "token", v.Token, "subject", v.Subject, "issuer", v.Issuer, "by", v.By, "reason", v.Reason)
		return v, nil
	}
}
