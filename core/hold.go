package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// goneEvery is how often a parked command looks whether somebody still waits for it.
const goneEvery = 500 * time.Millisecond

// The stages of a command that are no running of it by a client that can wait.
const (
	stagePrepare = "prepare"
	stageStartup = "startup"
)

// expiryGrace is how long a session's token may have expired before a parked command ends: for the clocks' difference.
const expiryGrace = time.Minute

// hold deals with a verdict that holds an event: it is refused, or goes on because somebody approved it. It returns
// what is to be done then, in v.
func (s *Session) hold(ctx context.Context, e *Event, v *Verdict) {
	c := e.Command()
	switch {
	case e.Kind == KindOpen:
	case e.Kind == KindCommand && e.Stage == stagePrepare: // nothing runs yet: it is held when it does, with its parameters
		return
	case e.Kind == KindCommand && c.Status != StatusKnown && !s.Target.AllowIncomplete: // refused for that
		return
	case e.Kind == KindCommand:
	case e.Kind == KindColumns && (e.Exchange == nil || !e.Exchange.asked): // the shape of what has not run; its rows get another verdict
		return
	case e.Kind == KindColumns:
		for h := v.Hold; h != nil; h = h.And {
			if !slices.Contains(e.Exchange.approved, h.Rule) {
				v.refuse(h.Rule, "a rule holds the answer, and only commands can wait for an approval", "ask the operator to hold the command")
				return
			}
		}
		return
	case e.Kind == KindClose:
		return
	default:
		v.refuse(v.Hold.Rule, "only commands can wait for an approval", "ask the operator")
		return
	}
	if nobody(v) {
		return
	}
	said := s.said(e)
	switch {
	case s.approvals == nil:
		v.refuse(v.Hold.Rule, "this needs an approval", "ask one of: "+strings.Join(v.Hold.Approvers, ", "))
	case said == nil:
		v.refuse(v.Hold.Rule, "this needs an approval, and what it would run is not known well enough to ask for one", "say it in a simpler way")
	case s.Target.Hold.Mode == HoldWait && e.Kind == KindCommand && e.Stage != stageStartup:
		WillWait(ctx)
		s.park(ctx, e, v, said)
	default:
		WillWait(ctx)
		s.askFirst(ctx, e, v, said)
	}
}

// nobody refuses what a rule holds that names no approvers.
func nobody(v *Verdict) bool {
	for h := v.Hold; h != nil; h = h.And {
		if len(h.Approvers) == 0 {
			v.refuse(h.Rule, "this needs an approval, and the rule names nobody who may give it", "ask the operator to name approvers in the rule")
			return true
		}
	}
	return false
}

// said is all that an event would run. Nil: it is not known.
func (s *Session) said(e *Event) []string {
	switch c := e.Command(); {
	case e.Kind == KindOpen:
		return []string{"open"}
	case e.Waiter != nil:
		return e.Waiter.Said()
	case !c.Secret && c.Status == StatusKnown:
		return []string{c.Text}
	}
	return nil
}

// askFirst refuses what nobody has approved yet, and says how it can be.
func (s *Session) askFirst(ctx context.Context, e *Event, v *Verdict, said []string) {
	h := s.Target.Hold
	h.Mode = HoldRefuse
	a, err := s.approvals.Ask(ctx, asking(e, said, v.Hold, h.WithDefaults()))
	if err != nil {
		s.notAsked(v, err)
		return
	}
	switch a.State {
	case ApprovalApproved:
		if used, err := s.approvals.Use(ctx, a.ID, a.Digest); err != nil {
			s.notUsed(v, a.ID, err)
		} else {
			v.approve(e, &used)
		}
	case ApprovalDenied:
		v.denied(&a)
	default:
		v.refuse(a.Rule(), "this needs an approval"+because(&a), fmt.Sprintf(
			"ask %s to run `weir approvals approve %s` before %s, then send the same again", whom(&a), a.ID, a.Expires.Local().Format(time.TimeOnly)))
		v.Deny.Approval = a.ID
		v.note(&a, "asked")
	}
}

// park keeps a command until somebody has approved it, or nobody waits for it any more.
func (s *Session) park(ctx context.Context, e *Event, v *Verdict, said []string) {
	h := s.Target.Hold.WithDefaults()
	began := time.Now()
	until := began.Add(h.Wait)
	for {
		if nobody(v) {
			return
		}
		ask := asking(e, said, v.Hold, h)
		ask.Expires = until.UTC()
		a, err := s.approvals.Ask(ctx, ask)
		if err != nil {
			s.notAsked(v, err)
			return
		}
		if err := s.tell(ctx, e, &a); err != nil {
			s.approvals.Withdraw(context.WithoutCancel(ctx), a.ID)
			v.refuse(a.Rule(), "this needs an approval, and that it waits could not be recorded", "try again later")
			return
		}
		last, why := s.await(ctx, e, &a, until)
		e.Time = time.Now() // when it goes on, or is refused
		if why != "" {
			s.approvals.Withdraw(context.WithoutCancel(ctx), a.ID)
			rule := a.Rule()
			if why == GoneCancelled {
				rule = RuleCancelled
			}
			v.refuse(rule, "this needed an approval, and "+why, "")
			v.Deny.Approval = a.ID
			v.note(&a, "withdrawn")
			return
		}
		if last.State == ApprovalDenied {
			v.denied(&last)
			return
		}
		first := *v
		if !s.again(ctx, e, v) { // refused now, or not held any more
			s.approvals.Withdraw(context.WithoutCancel(ctx), a.ID)
			return
		}
		if now := asking(e, said, v.Hold, h); now.Digest != a.Digest { // the rules have changed: others have to be asked
			s.approvals.Withdraw(context.WithoutCancel(ctx), a.ID)
			continue
		}
		keepVersions(&first, v)
		used, err := s.approvals.Use(ctx, a.ID, a.Digest)
		if err != nil {
			s.notUsed(v, a.ID, err)
			return
		}
		v.approve(e, &used)
		v.Decisions[len(v.Decisions)-1].Detail += ", after " + time.Since(began).Round(time.Millisecond).String()
		return
	}
}

// again takes the verdict anew, under the rules that hold now. It reports whether the event is still held.
func (s *Session) again(ctx context.Context, e *Event, v *Verdict) bool {
	first := *v
	var err error
	if *v, err = s.chain.Inspect(ctx, e); err != nil {
		v.refuse("chain-error", "a step of the chain failed", "ask the operator; the gateway's log says why")
	}
	if v.Deny != nil || v.Hold == nil {
		keepVersions(&first, v)
		return false
	}
	return true
}

// keepVersions keeps what only the first verdict of a session says: which versions of the rules judge.
func keepVersions(first, v *Verdict) {
	var kept []Decision
	for _, d := range first.Decisions {
		if d.Action == "version" && !slices.Contains(v.Decisions, d) {
			kept = append(kept, d)
		}
	}
	v.Decisions = append(kept, v.Decisions...)
}

// tell records that a command waits, and tells the client where the protocol can.
func (s *Session) tell(ctx context.Context, e *Event, a *Approval) error {
	text := "waiting for approval " + a.ID + " of " + whom(a) + " (rule " + a.Rule() + ")"
	notice := Event{Kind: KindNotice, Direction: FromGateway, Result: &Result{Status: "held", Tag: a.ID, Message: text}}
	if e.Waiter != nil {
		notice.Wire = e.Waiter.Notice(text)
	}
	v := s.Check(ctx, &notice)
	if v.Deny != nil {
		return v.Deny
	}
	if err := s.Settle(ctx, v.Mark); err != nil || notice.Wire == nil {
		return err
	}
	_ = e.Waiter.Tell(ctx, notice.Wire) // a client that cannot be told is found to be gone
	return nil
}

// What Waiter.Gone says of a client that took its command back, and the rule that then refuses it.
const (
	GoneCancelled = "the client cancelled it"
	RuleCancelled = "hold-cancelled"
)

// await waits for the answer to a request; why says that there will be none.
func (s *Session) await(ctx context.Context, e *Event, a *Approval, until time.Time) (last Approval, why string) {
	changed, stop := s.approvals.Watch(a.ID)
	defer stop()
	expired := false
	if x := s.Identity.Expires; !x.IsZero() && x.Add(expiryGrace).Before(until) {
		until, expired = x.Add(expiryGrace), true
	}
	over := time.NewTimer(time.Until(until))
	defer over.Stop()
	look := time.NewTicker(goneEvery)
	defer look.Stop()
	for {
		last, ok := s.approvals.Get(a.ID)
		switch {
		case !ok:
			return last, "its request was removed"
		case last.State == ApprovalApproved, last.State == ApprovalDenied:
			return last, ""
		}
		select {
		case <-changed:
		case <-look.C:
			if e.Waiter != nil {
				if why := e.Waiter.Gone(); why != "" {
					return last, why
				}
			}
		case <-s.draining:
			return last, s.Leaving()
		case <-ctx.Done():
			return last, "the session ends: " + context.Cause(ctx).Error()
		case <-over.C:
			if expired {
				return last, "the session's token has expired"
			}
			return last, "nobody answered in time"
		}
	}
}

// notAsked refuses what could not be put into the queue.
func (s *Session) notAsked(v *Verdict, err error) {
	v.refuse(v.Hold.Rule, "this needs an approval, and none can be asked for: "+err.Error(), "try again later")
}

// notUsed refuses what was approved, when the approval could not be taken.
func (s *Session) notUsed(v *Verdict, id string, err error) {
	reason := "its approval could not be used: " + err.Error()
	if errors.Is(err, ErrNoApproval) {
		reason = "its approval has been used, or has expired"
	}
	v.refuse(v.Hold.Rule, reason, "send it again to ask for another")
	v.Deny.Approval = id
}

// approve notes who approved the event.
func (v *Verdict) approve(e *Event, a *Approval) {
	for _, h := range a.Holds {
		if e.Exchange != nil {
			e.Exchange.approved = append(e.Exchange.approved, h.Rule)
		}
		if h.Approved != nil {
			v.Decisions = append(v.Decisions, Decision{Step: "weir", Action: "approved", Rule: h.Rule, Detail: a.ID + " by " + h.Approved.String()})
		}
	}
}

// denied refuses what a person has denied, in the person's words.
func (v *Verdict) denied(a *Approval) {
	reason := "its approval was denied"
	if a.Denied != nil {
		reason += " by " + a.Denied.Subject
		if a.Denied.Reason != "" {
			reason += ": " + a.Denied.Reason
		}
		v.Decisions = append(v.Decisions, Decision{Step: "weir", Action: "denied", Rule: a.Rule(), Detail: a.ID + " by " + a.Denied.String()})
	}
	v.refuse(a.Rule(), reason, "")
	v.Deny.Approval = a.ID
}

// note puts what became of a request into the record.
func (v *Verdict) note(a *Approval, action string) {
	v.Decisions = append(v.Decisions, Decision{Step: "weir", Action: action, Rule: a.Rule(), Detail: a.ID})
}

func because(a *Approval) string {
	if len(a.Holds) > 0 && a.Holds[0].Reason != "" {
		return " (" + a.Holds[0].Reason + ")"
	}
	return ""
}

// whom names the approvers that are still to be asked.
func whom(a *Approval) string {
	var who []string
	for _, h := range a.Holds {
		if h.Approved != nil {
			continue
		}
		one := strings.Join(h.Approvers, " or ")
		if !slices.Contains(who, one) {
			who = append(who, one)
		}
	}
	return strings.Join(who, ", and ")
}
