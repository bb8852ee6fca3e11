package opa

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// plain reads a value as ast.JSON would give it.
func (r *valueReader) plain(at uint32, depth int) any {
	if r.nodes--; r.nodes < 0 || depth > maxDepth || at == 0 {
		panic(errValue)
	}
	head := r.bytes(at, 2)
	switch head[0] {
	case guestNull:
		return nil
	case guestBoolean, guestBooleanInterned:
		return head[1] != 0
	case guestNumber:
		if head[1] == 1 {
			return json.Number(strconv.FormatInt(int64(binary.LittleEndian.Uint64(r.bytes(at+8, 8))), 10))
		}
		return json.Number(r.bytes(r.word(at+8), r.word(at+12)))
	case guestString, guestStringInterned:
		return r.text(at)
	case guestArray:
		from, n := r.word(at+4), r.word(at+8)
		list := make([]any, 0, min(n, 1024))
		for i := range n {
			list = append(list, r.plain(r.word(from+8*i+4), depth+1))
		}
		return list
	case guestObject:
		o := make(map[string]any, min(r.word(at+12), 1024))
		r.buckets(at, func(elem uint32) uint32 {
			key := r.word(elem)
			if t := r.bytes(key, 1)[0]; t != guestString && t != guestStringInterned {
				panic(errValue)
			}
			o[r.text(key)] = r.plain(r.word(elem+4), depth+1)
			return r.word(elem + 8)
		})
		return o
	case guestSet:
		list := make([]any, 0, min(r.word(at+12), 1024))
		r.buckets(at, func(elem uint32) uint32 {
			list = append(list, r.plain(r.word(elem), depth+1))
			return r.word(elem + 4)
		})
		sortPlain(list)
		return list
	}
	panic(errValue)
}

// words are the strings that answers are made of.
var words = func() map[string]string {
	m := map[string]string{}
	for name, a := range answers {
		for _, s := range slices.Concat([]string{name}, a.required, a.optional, DefaultPackages) {
			m[s] = s
		}
	}
	return m
}()

func (r *valueReader) text(at uint32) string {
	b := r.bytes(r.word(at+8), r.word(at+4))
	if s, ok := words[string(b)]; ok {
		return s
	}
	return string(b)
}

// sortPlain sorts the elements of a set. Most are objects with the same keys, which are sorted once.
func sortPlain(list []any) {
	if len(list) < 2 {
		return
	}
	first, _ := list[0].(map[string]any)
	if first == nil {
		slices.SortFunc(list, comparePlain)
		return
	}
	keys := slices.Sorted(maps.Keys(first))
	for _, x := range list[1:] {
		m, _ := x.(map[string]any)
		same := len(m) == len(keys)
		for _, k := range keys {
			_, there := m[k]
			same = same && there
		}
		if !same {
			slices.SortFunc(list, comparePlain)
			return
		}
	}
	slices.SortFunc(list, func(a, b any) int {
		x, y := a.(map[string]any), b.(map[string]any)
		for _, k := range keys {
			if d := comparePlain(x[k], y[k]); d != 0 {
				return d
			}
		}
		return 0
	})
}

// comparePlain orders the elements of a set as OPA does, but that a set in one is as an array there.
func comparePlain(a, b any) int {
	if d := cmp.Compare(rank(a), rank(b)); d != 0 {
		return d
	}
	switch a := a.(type) {
	case bool:
		if a == b.(bool) {
			return 0
		} else if a {
			return 1
		}
		return -1
	case json.Number:
		return ast.Number(a).Compare(ast.Number(b.(json.Number)))
	case string:
		return strings.Compare(a, b.(string))
	case []any:
		return slices.CompareFunc(a, b.([]any), comparePlain)
	case map[string]any:
		o := b.(map[string]any)
		keys, others := slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(o))
		for i := range min(len(keys), len(others)) {
			if d := cmp.Or(strings.Compare(keys[i], others[i]), comparePlain(a[keys[i]], o[others[i]])); d != 0 {
				return d
			}
		}
		return cmp.Compare(len(keys), len(others))
	}
	return 0
}

func rank(v any) int {
	switch v.(type) {
	case bool:
		return 1
	case json.Number:
		return 2
	case string:
		return 3
	case []any:
		return 4
	case map[string]any:
		return 5
	}
	return 0
}
