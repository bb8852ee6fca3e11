package approval

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"unicode"

	"github.com/weir-gateway/weir/core"
)

// refuse says why an identity may not answer a request that it may see.
func refuse(format string, args ...any) error { return core.Refusal(fmt.Sprintf(format, args...)) }

// sees reports whether an identity may look at a request: it is its own, or it may be asked about it.
func sees(who core.Identity, a *core.Approval) bool {
	return own(who, a) || slices.ContainsFunc(a.Holds, func(h core.HeldBy) bool { return entitled(who, a, &h) })
}

func own(who core.Identity, a *core.Approval) bool {
	return who.Subject == a.Identity && who.Issuer == a.Issuer
}

// entitled reports whether a rule names an identity or one of its groups, and its token is good for the target.
func entitled(who core.Identity, a *core.Approval, h *core.HeldBy) bool {
	if len(who.Targets) > 0 && !slices.Contains(who.Targets, a.Target) {
		return false
	}
	return slices.Contains(h.Approvers, who.Subject) || slices.ContainsFunc(who.Groups, func(g string) bool { return slices.Contains(h.Approvers, g) })
}

// forPeople is a request as people see it.
func forPeople(a core.Approval) core.Approval {
	if a.Secret {
		a.Digest = ""
	}
	return a
}

// List returns the requests that an identity may see, the oldest first.
func (q *Queue) List(ctx context.Context, who core.Identity) ([]core.Approval, error) {
	if _, err := q.open(ctx); err != nil {
		return nil, err
	}
	list := []core.Approval{}
	now := q.c.Now()
	q.mu.Lock()
	for _, e := range q.all {
		if sees(who, &e.Approval) {
			e.State = e.StateAt(now)
			list = append(list, forPeople(e.Approval))
		}
	}
	q.mu.Unlock()
	sort.Slice(list, func(i, j int) bool {
		if !list[i].Created.Equal(list[j].Created) {
			return list[i].Created.Before(list[j].Created)
		}
		return list[i].ID < list[j].ID
	})
	return list, nil
}

// Show returns one request, if the identity may see it; else the error is core.ErrNoApproval, as if there were none.
func (q *Queue) Show(ctx context.Context, who core.Identity, id string) (core.Approval, error) {
	if _, err := q.open(ctx); err != nil {
		return core.Approval{}, err
	}
	a, ok := q.Get(id)
	if !ok || !sees(who, &a) {
		return core.Approval{}, core.ErrNoApproval
	}
	return forPeople(a), nil
}

// Decide answers a request in the name of an identity. A command that several rules hold goes on when each has been
// approved by somebody whom it names; whoever is named by several approves for all of them. One denial is enough.
func (q *Queue) Decide(ctx context.Context, who core.Identity, id string, approve bool, reason string) (core.Approval, error) {
	if len(reason) > maxReason {
		return core.Approval{}, refuse("a reason has at most %d bytes", maxReason)
	}
	reason = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(reason, "")))
	a, err := q.change(ctx, id, func(a *core.Approval) error {
		if !sees(who, a) {
			return core.ErrNoApproval
		}
		if err := q.may(who, a); err != nil {
			return err
		}
		now := q.c.Now().UTC()
		word := &core.Word{Subject: who.Subject, Issuer: who.Issuer, Time: now, Reason: reason}
		if !approve {
			a.State, a.Denied = core.ApprovalDenied, word
			return nil
		}
		said, all := false, true
		for i := range a.Holds {
			h := &a.Holds[i]
			if h.Approved == nil && entitled(who, a, h) {
				h.Approved, said = word, true
			}
			all = all && h.Approved != nil
		}
		if !said {
			return refuse("you have approved this already; it still needs others")
		}
		if all {
			a.State = core.ApprovalApproved
			if a.Mode == core.HoldRefuse {
				a.Expires = now.Add(a.Valid)
			}
		}
		return nil
	})
	var no core.Refusal
	switch {
	case errors.As(err, &no):
		q.metrics.count("forbidden")
		q.log.Warn("approval: an answer was refused", "approval", id, "identity", who.Subject, "issuer", who.Issuer, "approve", approve, "reason", string(no))
		return core.Approval{}, err
	case err != nil:
		return core.Approval{}, err
	}
	word := "approved"
	if !approve {
		word = "denied"
	}
	q.metrics.count(word)
	q.log.Info("approval: "+word, "approval", id, "by", who.Subject, "issuer", who.Issuer, "identity", a.Identity, "target", a.Target, "rule", a.Rule(), "session", a.Session, "reason", reason)
	return forPeople(a), nil
}

// may reports whether an identity may answer a request that it sees.
func (q *Queue) may(who core.Identity, a *core.Approval) error {
	switch state := a.StateAt(q.c.Now()); {
	case own(who, a):
		return refuse("it takes another person than the one who asks")
	case a.Run != "" && who.Run == a.Run:
		return refuse("it takes a person outside the run that asks")
	case who.Kind == "agent":
		return refuse("an agent cannot answer: it takes a person")
	case state != core.ApprovalWaiting:
		return refuse("it is %s, and no longer waits for an answer", state)
	}
	return nil
}
