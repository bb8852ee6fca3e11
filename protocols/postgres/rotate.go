package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/weir-gateway/weir/core"
)

// rotating are the pauses before a credential that was refused is asked for again, where it may be about to change: a secret
// and the server that it is for cannot be changed at the same moment.
var rotating = []time.Duration{100 * time.Millisecond, 400 * time.Millisecond, 1500 * time.Millisecond}

// signIn signs in at the upstream with what the target's credential is now.
func (h *handler) signIn(ctx, dialing context.Context, session *core.Session, s *startup) (core.Credential, []param, *upstream, error) {
	t := session.Target
	judged := ""
	for attempt := 0; ; attempt++ {
		cred, err := t.Credential(dialing, session.Identity)
		if err != nil {
			return cred, nil, nil, &upstreamError{codeInvalidAuthorization, "Weir has no credential for the target; ask the operator", err}
		}
		params, err := s.upstreamParams(t, cred.User)
		if err != nil {
			return cred, nil, nil, err
		}
		if attempt == 0 || judged != cred.User {
			if err := h.judgeSettings(ctx, session, params); err != nil {
				return cred, nil, nil, err
			}
			judged = cred.User
		}
		u, err := connect(dialing, t, cred, params, h.scram, h.settings[t].AllowClearPassword)
		var refused *upstreamError
		if err == nil || !cred.Rotates || attempt >= len(rotating) || !errors.As(err, &refused) || refused.code != codeInvalidAuthorization {
			return cred, params, u, err
		}
		pause := time.NewTimer(rotating[attempt])
		select {
		case <-pause.C:
		case <-dialing.Done():
			pause.Stop()
			return cred, params, nil, err
		}
	}
}
