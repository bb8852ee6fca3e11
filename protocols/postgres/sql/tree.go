package sql

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
)

// node is one node of a parse tree: a map from field to value, or from a node's type to its fields.
type node = map[string]any

// selective reports whether a WHERE clause depends on the row at all: WHERE true does not.
func selective(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			if selective(x) {
				return true
			}
		}
	case node:
		for key, x := range v {
			if key == "ColumnRef" || key == "CurrentOfExpr" || selective(x) {
				return true
			}
		}
	}
	return false
}

// shape writes a tree without its constants and places, so that statements that differ in literals only are alike.
func shape(v any) string {
	var b strings.Builder
	writeShape(&b, v)
	return b.String()
}

func writeShape(b *strings.Builder, v any) {
	switch v := v.(type) {
	case []any:
		b.WriteByte('[')
		for i, x := range v {
			if i > 0 && isConst(x) && isConst(v[i-1]) { // IN (1, 2, 3) is IN (1)
				continue
			}
			writeShape(b, x)
			b.WriteByte(',')
		}
		b.WriteByte(']')
	case node:
		b.WriteByte('{')
		for _, k := range sortedKeys(v) {
			switch k {
			case "location", "stmt_len", "stmt_location":
				continue
			case "A_Const":
				b.WriteString("?")
				continue
			}
			b.WriteString(k)
			b.WriteByte(':')
			writeShape(b, v[k])
		}
		b.WriteByte('}')
	case string:
		b.WriteString(v)
	case float64:
		b.WriteString(strconv.FormatFloat(v, 'g', -1, 64))
	case bool:
		b.WriteString(strconv.FormatBool(v))
	}
}

func isConst(v any) bool {
	_, ok := asNode(v)["A_Const"]
	return ok
}

func fingerprint(shapes []string) string {
	h := sha256.New()
	for _, s := range shapes {
		h.Write([]byte(s))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func asNode(v any) node {
	n, _ := v.(node)
	return n
}

func inner(v any, typ string) node { return asNode(asNode(v)[typ]) }

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// names reads a list of String nodes.
func names(v any) (out []string) {
	for _, x := range list(v) {
		out = append(out, text(inner(x, "String")["sval"]))
	}
	return out
}

// constant reads a literal.
func constant(v any) (string, bool) {
	n := asNode(v)
	for key, x := range n {
		f := asNode(x)
		switch key {
		case "A_Const":
			for _, kind := range []string{"sval", "ival", "fval", "boolval", "bsval"} {
				if c, ok := f[kind]; ok {
					for _, y := range asNode(c) {
						return fmt.Sprint(y), true
					}
					return map[string]string{"ival": "0", "boolval": "false"}[kind], true
				}
			}
			return "", false
		case "String":
			return text(f["sval"]), true
		case "Integer":
			if f["ival"] == nil { // zero is left out
				return "0", true
			}
			return fmt.Sprint(f["ival"]), true
		case "Boolean":
			b, _ := f["boolval"].(bool)
			return strconv.FormatBool(b), true
		case "TypeCast":
			return constant(f["arg"])
		}
	}
	return "", false
}

func without(f node, keys ...string) node {
	out := make(node, len(f))
	for k, v := range f {
		if !slices.Contains(keys, k) {
			out[k] = v
		}
	}
	return out
}

func sortedKeys(n node) []string {
	keys := make([]string, 0, len(n))
	for k := range n {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
