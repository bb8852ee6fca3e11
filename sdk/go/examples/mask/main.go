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
	keep, end := 1, len(v)
	if weir.Has(v, '@') {
		end = atSign(v)
	}
	if v[0] >= 0xc0 { // the first character is of several bytes
		for keep < end && v[keep]&0xc0 == 0x80 {
			keep++
		}
	}
	if keep >= end { // there is no more than it: it would tell all
		keep = 0
	}
	weir.Fill(v[keep:end], '*')
}

// atSign returns where the '@' of an e-mail address is, with no space anywhere and a domain with a point after it; else how
// long the value is. There is an '@'.
func atSign(v []byte) int {
	at, point := 0, 0
	for ; v[at] != '@'; at++ {
		if v[at] <= ' ' {
			return len(v)
		}
	}
	for i := at + 1; i < len(v); i++ {
		switch c := v[i]; {
		case c == '.':
			point = i
		case (c|0x20)-'a' >= 26 && c-'0' >= 10 && c != '-':
			return len(v)
		}
	}
	if at > 0 && point > at+1 && point+1 < len(v) {
		return at
	}
	return len(v)
}

func main() {}
