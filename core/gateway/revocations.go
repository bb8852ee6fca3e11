package gateway

import (
	"context"
	"net/http"

	"github.com/weir-gateway/weir/core"
)

// serveRevocations adds the API of revocations, for operators, and the key set of the gateway's own tokens, for all.
func (a *api) serveRevocations(mux *http.ServeMux) {
	mux.HandleFunc("GET /.well-known/jwks.json", func(w http.ResponseWriter, _ *http.Request) {
		v, ok := a.verifier().(interface{ KeySet() []byte })
		if !ok || v.KeySet() == nil {
			http.Error(w, "gateway: this gateway makes no tokens", http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(v.KeySet())
	})
	list := a.g.Revocations
	if list == nil {
		return
	}
	mux.HandleFunc("GET /api/v1/revocations", a.operating(func(ctx context.Context, _ core.Identity, _ *http.Request) (any, error) {
		return list.List(ctx)
	}))
	for word, change := range map[string]func(context.Context, core.Revocation) error{"revoke": list.Revoke, "restore": list.Restore} {
		mux.HandleFunc("POST /api/v1/revocations/"+word, a.operating(func(ctx context.Context, who core.Identity, r *http.Request) (any, error) {
			var v core.Revocation
			if err := readBody(r, &v, `{"token": "…"} or {"subject": "…"}`); err != nil {
				return nil, err
			}
			v.By = who.Subject
			if err := change(ctx, v); err != nil {
				return nil, err
			}
			a.g.Log.Warn("gateway: "+word, "token", v.Token, "subject", v.Subject, "issuer", v.Issuer, "by", v.By, "reason", v.Reason)
			return v, nil
		}))
	}
}
