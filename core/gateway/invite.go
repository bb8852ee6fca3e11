package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Bounds of sign-ins that wait for a person. Each costs the provider questions, and one code more that somebody could be talked into
// entering.
const (
	inviteTime       = 5 * time.Minute // from the invitation to the session
	maxInvited       = 100             // that wait at a time
	maxInvitedSource = 5               // of one source
	maxInvites       = 20              // of one source within the throttle's window
)

// Invite begins a sign-in at a provider's page: see core.Invitation. Its errors are safe to show.
type Invite func(ctx context.Context) (*core.Invitation, error)

// invited counts those who wait.
type invited struct {
	mu      sync.Mutex
	all     int
	sources map[string]int
}

// enter takes a place, unless there is none.
func (i *invited) enter(source string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.all >= maxInvited || i.sources[source] >= maxInvitedSource {
		return false
	}
	if i.sources == nil {
		i.sources = map[string]int{}
	}
	i.all++
	i.sources[source]++
	return true
}

func (i *invited) leave(source string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.all--
	if i.sources[source]--; i.sources[source] <= 0 {
		delete(i.sources, source)
	}
}

var _ core.Inviter = (*client)(nil)

// Invites implements core.Inviter.
func (c *client) Invites() bool { return c.served.Invite != nil }

// Invite implements core.Inviter. A client has one invitation at a time.
func (c *client) Invite(ctx context.Context) (*core.Invitation, error) {
	g := c.g
	if c.served.Invite == nil {
		return nil, core.ErrUnauthenticated
	}
	if !c.local && g.lockout.locked(c.source) {
		return nil, &errLocked{g.lockout.hold}
	}
	if g.throttle.often(c.source+" invited", maxInvites) || !g.invited.enter(c.source) {
		g.metrics.refused.WithLabelValues("invitations").Inc()
		return nil, &core.Denial{Step: "weir", Rule: "limit-invitations", Reason: "too many sign-ins wait already", Hint: "finish those that wait, or try again in a minute"}
	}
	c.uninvite()
	var once sync.Once
	leave := func() { once.Do(func() { g.invited.leave(c.source) }) }
	x, err := c.served.Invite(ctx)
	if err != nil {
		leave()
		return nil, err
	}
	if most := time.Now().Add(inviteTime); x.Until.After(most) {
		x.Until = most
	}
	c.mu.Lock()
	c.leaveInvited = leave
	c.mu.Unlock()
	c.signIn.Reset(time.Until(x.Until))
	wait := x.Token
	x.Token = func(ctx context.Context) (string, error) {
		defer func() {
			leave()
			c.signIn.Reset(c.served.signIn) // Open stops it
		}()
		ctx, cancel := context.WithDeadline(ctx, x.Until)
		defer cancel()
		return wait(ctx)
	}
	return x, nil
}

// uninvite gives up the client's place among those who wait, if it has one.
func (c *client) uninvite() {
	c.mu.Lock()
	leave := c.leaveInvited
	c.leaveInvited = nil
	c.mu.Unlock()
	if leave != nil {
		leave()
	}
}
