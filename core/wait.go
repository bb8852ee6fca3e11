package core

import "context"

type waitKey struct{}

// OnWait returns a context that calls f when code further down is about to wait. Whoever lends its goroutine to many
// sessions hands it in, so that one that waits does not stop the others.
func OnWait(ctx context.Context, f func()) context.Context {
	return context.WithValue(ctx, waitKey{}, f)
}

// WillWait announces that the caller is about to wait: for a disk, a lock that is held over input or output, another
// connection, or a computation of more than some tens of microseconds. It may be called often, and returns at once.
func WillWait(ctx context.Context) {
	if f, ok := ctx.Value(waitKey{}).(func()); ok {
		f()
	}
}
