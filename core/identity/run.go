package identity

import (
	"fmt"
	"time"

	"github.com/weir-gateway/weir/core"
)

// actingFor is what a run's token says of the token that it was made out of.
type actingFor struct {
	Issuer string         `json:"iss"`
	Token  string         `json:"jti,omitempty"`
	Claims map[string]any `json:"claims,omitempty"`
}

// Run makes a token for a run of who: an agent with the same name, issuer, groups and claims, for the targets named. It
// does not outlive the token that who has shown, unless runTTL says so. Why there is none for who is a core.Refusal.
func (v *Verifier) Run(who core.Identity, run string, targets []string, ttl time.Duration) (string, time.Time, error) {
	now := v.now()
	switch {
	case v.service == nil:
		return "", time.Time{}, core.Refusal("this gateway makes no tokens (identity.service_tokens)")
	case who.Parent != "" || who.Run != "":
		return "", time.Time{}, core.Refusal("that is the token of a run already: use it as it is")
	}
	if run == "" {
		run = core.NewID(now)
	}
	most := max(who.Expires.Sub(now), v.runTTL)
	if who.Expires.IsZero() {
		most = v.service.maxTTL
	}
	if most = min(most, v.service.maxTTL); ttl == 0 || ttl > most {
		if ttl > most {
			return "", time.Time{}, core.Refusal(fmt.Sprintf("%s is longer than this run may last (%s): sign in anew for a longer one, or ask for identity.service_tokens.run_ttl", ttl, most.Round(time.Second)))
		}
		ttl = most
	}
	if ttl < time.Second {
		return "", time.Time{}, core.Refusal("your token is about to expire: sign in anew")
	}
	made, err := v.service.make(Grant{Subject: who.Subject, Groups: who.Groups, Kind: "agent", Run: run, Targets: targets, TTL: ttl}, now, &actingFor{who.Issuer, who.Token, who.Claims})
	if err != nil {
		return "", time.Time{}, core.Refusal(err.Error())
	}
	if err := v.service.enter(&made); err != nil {
		return "", time.Time{}, fmt.Errorf("identity: the token cannot be entered into the list of tokens: %w", err)
	}
	return made.Token, made.Expires, nil
}
