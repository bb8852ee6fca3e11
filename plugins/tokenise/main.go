//go:build wasip1

// Tokenise is a guest that gives the values of text columns others of the same form, by a key: the same value has the same token in
// every table and answer.
//
//	columns: [customers.email, payments.card]   # of the plugin, in weir.yaml: what it may see
//	config:
//	  key: "${file:/run/secrets/tokens}"        # at least 16 characters
//
// How tokens are made is in the package token.
package main

import (
	"github.com/weir-gateway/weir/plugins/tokenise/token"
	weir "github.com/weir-gateway/weir/sdk/go"
)

const (
	schema   = `{"type":"object","additionalProperties":false,"required":["key"],"properties":{"key":{"type":"string","minLength":16}}}`
	leastKey = 16
)

var (
	tokens *token.Tokeniser
	out    []byte
)

func init() {
	weir.Register(weir.Plugin{
		Name: "tokenise", Version: "1.0.0", Mutates: true, Schema: schema, DeadlineMS: 5000,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}}},
		Metrics:   []weir.Metric{{ID: 1, Name: "tokens"}},
		Configure: configure,
		OnRows:    rows,
	})
}

func main() {}

func configure(c weir.Value) error {
	for _, name := range c.Names() {
		if name != "key" {
			return weir.Error("unknown key " + name + ": the only one is key")
		}
	}
	key, ok := c.Get("key").Text()
	if !ok || len(key) < leastKey {
		return weir.Error("key is a secret of at least 16 characters, such as ${file:/run/secrets/tokens}")
	}
	tokens = token.New([]byte(key))
	return nil
}

func rows(r *weir.Rows) {
	n := 0
	for i := range r.Cells() {
		v, ok := r.Value(i)
		if !ok || len(v) == 0 {
			continue
		}
		if c := r.Column(i); c.Class != weir.ClassText {
			r.SetNull(i) // JSON, an array, a type that nobody knows: a token of it would be no value of it
		} else {
			out = tokens.Token(out[:0], v)
			r.Set(i, out)
		}
		n++
	}
	if n > 0 {
		weir.Count(1, int64(n))
	}
}
