package postgres

import (
	"context"

	"github.com/weir-gateway/weir/core"
)

// functionResult passes on what a FunctionCall returned. It is one value without a name or an origin, so it could hold
// any column: where a mask is in force it is refused, unless it is a number that the function makes itself.
func (c *connection) functionResult(ctx context.Context, frame, b []byte, head reply) error {
	a := &c.answer
	at := len(a.out)
	a.out = append(a.out, frame...)
	if !c.wantsAnswer {
		return nil
	}
	e := &core.Event{Kind: core.KindBytes, Direction: core.FromUpstream, Exchange: head.exchange, Bytes: a.out[len(a.out)-len(b):]}
	if !returnsNumber(head.exchange.Command) && c.masks(ctx, head.exchange) {
		e.Frame = unreadableResult{}
	}
	if d := c.say(ctx, e, len(a.out)); d != nil {
		a.out = a.out[:at]
		return c.abandon(ctx, head, d)
	}
	return nil
}

// returnsNumber reports whether a command is a call of one of the large-object functions but loread, which return
// descriptors, places and counts.
func returnsNumber(command *core.Command) bool {
	if command.Status != core.StatusKnown || len(command.Resources) != 1 {
		return false
	}
	for _, lo := range largeObjects {
		if name := "pg_catalog." + lo.name; command.Resources[0].Name == name {
			return lo.name != "loread"
		}
	}
	return false
}

// unreadableResult refuses an answer of which nobody can say what it holds.
type unreadableResult struct{}

// Wire implements core.Frame.
func (unreadableResult) Wire(*core.Event, *core.Verdict) ([]byte, error) {
	return nil, &core.Denial{Rule: "function-masked", Reason: "the result of a FunctionCall message may hold a column that is masked", Hint: "call the function with SELECT, whose columns are masked"}
}
