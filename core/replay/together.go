package replay

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"

	"github.com/weir-gateway/weir/core"
)

// Begun is a session that is to be read together with others.
type Begun struct {
	ID      string
	Started time.Time // not after its first record
}

// Next is a record of one of them.
type Next struct {
	Session int // which of those that were given
	Record  *core.Record
}

// Together yields the records of several sessions in the order of their times, each session's own order kept. A session
// that cannot be read yields its error, and the others go on. A session is open only while it went on.
func Together(ctx context.Context, store core.Store, sessions []Begun) iter.Seq2[Next, error] {
	return func(yield func(Next, error) bool) {
		waiting := make([]int, len(sessions))
		for i := range waiting {
			waiting[i] = i
		}
		slices.SortStableFunc(waiting, func(a, b int) int { return sessions[a].Started.Compare(sessions[b].Started) })
		var open []*reading // the next record's is the first
		defer func() {
			for _, r := range open {
				r.stop()
			}
		}()
		put := func(r *reading) (again bool) {
			rec, err, more := r.next()
			switch {
			case !more:
				r.stop()
				return true
			case err != nil:
				r.stop()
				return yield(Next{Session: r.session}, err)
			}
			if r.rec = rec; rec.Time.After(r.at) { // a clock that went back does not change a session's order
				r.at = rec.Time
			}
			at, _ := slices.BinarySearchFunc(open, r, func(a, b *reading) int {
				return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.session, b.session))
			})
			open = slices.Insert(open, at, r)
			return true
		}
		for len(waiting) > 0 || len(open) > 0 {
			if len(waiting) > 0 && (len(open) == 0 || !sessions[waiting[0]].Started.After(open[0].at)) {
				r := &reading{session: waiting[0]}
				waiting = waiting[1:]
				r.next, r.stop = iter.Pull2(Records(ctx, store, sessions[r.session].ID))
				if !put(r) {
					return
				}
				continue
			}
			r := open[0]
			open = open[1:]
			if !yield(Next{r.session, r.rec}, nil) {
				r.stop()
				return
			}
			if !put(r) {
				return
			}
		}
	}
}

// reading is a session that has begun and is not over.
type reading struct {
	session int
	next    func() (*core.Record, error, bool)
	stop    func()
	rec     *core.Record
	at      time.Time
}
