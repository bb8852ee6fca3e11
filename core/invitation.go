package core

import (
	"context"
	"time"
)

// Inviter is a Gate whose client may sign in without a token: its person opens a page, on whatever device has a browser, and enters a
// code there. Whoever is shown a code is taken for the person who enters it, so a protocol says with it what it is for.
type Inviter interface {
	// Invites reports whether there is such a page.
	Invites() bool
	// Invite begins a sign-in, and lets the client take as long for it as the code is good, within bounds of the gateway's. It fails
	// with a *Denial where too many wait, or with an error that wraps ErrUnauthenticated; both are safe to show.
	Invite(ctx context.Context) (*Invitation, error)
}

// Invitation is a sign-in that waits for a person.
type Invitation struct {
	Page  string    // to open
	Whole string    // the page with the code in it; may be empty
	Code  string    // to enter there
	Until time.Time // nobody can sign in by it any more
	// Token waits until the person has signed in, and returns what Open takes. Its errors are safe to show, and wrap ErrUnauthenticated.
	// It is called once.
	Token func(ctx context.Context) (string, error)
}
