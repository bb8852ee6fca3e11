//go:build wasip1

// Command mask puts stars over the values of text columns, in place. The first character stays, and the domain of an
// e-mail address. What cannot be read with stars in it (JSON, an array, a binary form of something else) becomes NULL.
// Which columns, the operator says in the gateway's configuration.
package main

import weir "github.com/weir-gateway/weir/sdk/go"

const masked = 1

var nulled []bool // by column; of the present batch

func init() {
	weir.Register(weir.Plugin{
		Name: "mask", Version: "1.0.0", Mutates: true,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}}},
		Metrics:   []weir.Metric{{ID: masked, Name: "masked"}},
		Configure: func(config weir.Value) error {
			if !config.Object() || len(config.Names()) > 0 {
				return weir.Error("mask takes no configuration: name the columns in the gateway's")
			}
			return nil
		},
		OnRows: onRows,
	})
}

func onRows(r *weir.Rows) {
	nulled = nulled[:0]
	for _, c := range r.Columns() {
		nulled = append(nulled, c.Class == weir.ClassJSON || c.Class == weir.ClassArray || c.Binary && c.Class != weir.ClassText)
	}
	width, n := r.Width(), 0
	if len(nulled) != width {
		r.Fail("the columns are not described")
		return
	}
	column := -1
	for i := range r.Cells() {
		if column++; column == width {
			column = 0
		}
		v, ok := r.Value(i)
		switch {
		case !ok:
			continue
		case nulled[column]:
			r.SetNull(i)
		case len(v) > 0:
			mask(v)
			r.Touch(i)
		default:
			continue
		}
		n++
	}
	if n > 0 {
		weir.Count(masked, int64(n))
	}
}

func mask(v []byte) {
	keep, end := 1, atSign(v)
	if end == 0 {
		end = len(v)
	}
	if v[0] >= 0xc0 { // the first character is of several bytes
		for keep < end && v[keep]&0xc0 == 0x80 {
			keep++
		}
	}
	if keep >= end { // there is no more than it: it would tell all
		keep = 0
	}
	for i := keep; i < end; i++ {
		v[i] = '*'
	}
}

// atSign returns where the '@' of an e-mail address is, or 0: no space before it, a domain with a point after it.
func atSign(v []byte) int {
	at, point := 0, 0
	for i, c := range v {
		switch {
		case c == '@':
			if at > 0 || i == 0 {
				return 0
			}
			at = i
		case c <= ' ':
			return 0
		case at == 0:
		case c == '.':
			point = i
		case (c|0x20)-'a' >= 26 && c-'0' >= 10 && c != '-':
			return 0
		}
	}
	if point > at+1 && point+1 < len(v) {
		return at
	}
	return 0
}

func main() {}
