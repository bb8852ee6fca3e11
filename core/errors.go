package core

import "errors"

// Errors that cross the borders between packages. Test for them with errors.Is.
var (
	// ErrNoSession says that a store has no session of that id.
	ErrNoSession = errors.New("no such session")
	// ErrJournalLost says that nothing can be recorded any more, so nothing may pass.
	ErrJournalLost = errors.New("the journal is lost")
	// ErrFork says that another block of that session and number is stored already: one of the two is not the truth.
	ErrFork = errors.New("a different block of that session and number is stored")
	// ErrUpstream says that a client got no session because of the target, not because of anything that it did. The
	// error's text is for the operator: the gateway logs it.
	ErrUpstream = errors.New("the target cannot be used")
	// ErrUnauthenticated says that nobody could be recognised; the text is safe to show to the client.
	ErrUnauthenticated = errors.New("not signed in")
)

// Refusal is a no: nothing has failed, and its text is for whoever asked. Test for it with errors.As.
type Refusal string

func (r Refusal) Error() string { return string(r) }
