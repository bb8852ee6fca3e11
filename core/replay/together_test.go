package replay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// library is a store of sessions of one block each.
type library map[string]core.Block

func (l library) Put(context.Context, []core.Block) error                   { return nil }
func (l library) Close() error                                              { return nil }
func (l library) Sessions(_ context.Context, f func(id string) error) error { return nil }

func (l library) Blocks(_ context.Context, id string, f func(core.Block) error) error {
	b, ok := l[id]
	if !ok {
		return core.ErrNoSession
	}
	return f(b)
}

// at puts a session whose records were made at some seconds into the library.
func (l library) at(t *testing.T, id string, seconds ...int) {
	t.Helper()
	var p []byte
	for i, s := range seconds {
		r := core.Record{Seq: uint64(i), Time: time.Unix(int64(s), 0), Kind: core.KindNotice, Direction: core.FromUpstream, Facts: []byte(fmt.Sprintf(`{"at":%d}`, s))}
		p = ledger.AppendPiece(p, ledger.AppendRecord(nil, &r, 0, nil), false)
	}
	b, err := ledger.NewEncoder().Encode(core.BlockHeader{Session: id, LastSeq: uint64(len(seconds)) - 1}, 0, p)
	if err != nil {
		t.Fatal(err)
	}
	l[id] = b
}

func TestTogether(t *testing.T) {
	l := library{}
	l.at(t, "a", 1, 4, 9)
	l.at(t, "b", 2, 3, 10)
	l.at(t, "c", 20)
	l.at(t, "back", 5, 2, 6) // a clock that went back
	begun := func(ids ...string) (list []Begun) {
		for _, id := range ids {
			start := map[string]int64{"a": 1, "b": 2, "c": 20, "back": 5, "missing": 3}[id]
			list = append(list, Begun{ID: id, Started: time.Unix(start, 0)})
		}
		return list
	}
	for _, c := range []struct {
		sessions []Begun
		most     int
		want     string
	}{
		{nil, 99, ""},
		{begun("a"), 99, "0:1 0:4 0:9"},
		{begun("a", "b"), 99, "0:1 1:2 1:3 0:4 0:9 1:10"},
		{begun("c", "b", "a"), 99, "2:1 1:2 1:3 2:4 2:9 1:10 0:20"},
		{begun("a", "back"), 99, "0:1 0:4 1:5 1:2 1:6 0:9"},
		{begun("missing", "a", "b"), 99, "1:1 2:2 0:no 2:3 1:4 1:9 2:10"},
		{begun("missing"), 99, "0:no"},
		{[]Begun{{ID: "c"}, {ID: "a"}}, 99, "1:1 1:4 1:9 0:20"}, // nobody knows when they began
		{begun("a", "b"), 3, "0:1 1:2 1:3"},
	} {
		var got []string
		for next, err := range Together(t.Context(), l, c.sessions) {
			if errors.Is(err, core.ErrNoSession) {
				got = append(got, fmt.Sprint(next.Session, ":no"))
			} else if err != nil {
				t.Fatal(err)
			} else {
				got = append(got, fmt.Sprint(next.Session, ":", next.Record.Time.Unix()))
				if string(next.Record.Facts) != fmt.Sprintf(`{"at":%d}`, next.Record.Time.Unix()) {
					t.Errorf("another's facts: %s", next.Record.Facts)
				}
			}
			if len(got) == c.most {
				break
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%v: %s, not %s", c.sessions, s, c.want)
		}
	}
}
