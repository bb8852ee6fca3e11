package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// The bounds of one file: deeper or larger than anybody writes by hand, small enough that aliases cannot blow up.
const (
	maxDepth = 64
	maxNodes = 100_000
)

// decoder copies a YAML tree into Go values strictly, and goes on after a problem.
type decoder struct {
	file     string
	problems Problems
	lines    map[string]int
	nodes    int
}

var (
	secretType   = reflect.TypeFor[Secret]()
	durationType = reflect.TypeFor[time.Duration]()
	nodeType     = reflect.TypeFor[yaml.Node]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// nodeDecoder is a value that can be written in more than one way.
type nodeDecoder interface {
	decodeNode(d *decoder, n *yaml.Node, path string, depth int)
}

var nodeDecoderType = reflect.TypeFor[nodeDecoder]()

func (d *decoder) problem(line int, path, hint, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.file, Line: line, Path: path, Text: fmt.Sprintf(format, args...), Hint: hint})
}

// value decodes n into v, which must be settable.
func (d *decoder) value(n *yaml.Node, v reflect.Value, path string, depth int, option string) {
	n, ok := d.enter(n, path, depth)
	if !ok {
		return
	}
	if v.CanAddr() && v.Addr().Type().Implements(nodeDecoderType) {
		v.Addr().Interface().(nodeDecoder).decodeNode(d, n, path, depth)
		return
	}
	if v.Type() == nodeType {
		v.Set(reflect.ValueOf(*n))
		return
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.problem(n.Line, path, "give it one, or leave the key out", "has no value")
		return
	}
	switch {
	case v.Type() == secretType:
		if s, ok := d.text(n, path); ok {
			v.Set(reflect.ValueOf(Secret{s}))
		}
		return
	case v.Type() == durationType:
		if s, ok := d.text(n, path); ok {
			p, err := ParseDuration(s)
			d.set(n, path, err, func() { v.SetInt(int64(p)) })
		}
		return
	case v.CanAddr() && v.Addr().Type().Implements(textType):
		if s, ok := d.text(n, path); ok {
			if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil {
				d.problem(n.Line, path, "", "%v", err)
			}
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		d.value(n, v.Elem(), path, depth, option)
	case reflect.Struct:
		d.mapping(n, v, path, depth)
	case reflect.Slice:
		d.sequence(n, v, path, depth)
	case reflect.Map:
		d.table(n, v, path, depth)
	case reflect.String:
		if s, ok := d.text(n, path); ok {
			if strings.Contains(s, "${") && option != "reference" {
				d.problem(n.Line, path, "write the value itself", "${…} is understood only where a secret is")
				return
			}
			v.SetString(s)
		}
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.problem(n.Line, path, "", "must be true or false, not %s", describe(n))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		d.integer(n, v, path, option)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		if n.Kind != yaml.ScalarNode || err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			d.problem(n.Line, path, "", "must be a number, not %s", describe(n))
			return
		}
		v.SetFloat(f)
	case reflect.Interface:
		if x := d.free(n, path, depth); x != nil {
			v.Set(reflect.ValueOf(x))
		}
	default:
		d.problem(n.Line, path, "", "cannot be set from the file (%s)", v.Type())
	}
}

// enter follows an alias and keeps the bounds.
func (d *decoder) enter(n *yaml.Node, path string, depth int) (*yaml.Node, bool) {
	if d.nodes++; d.nodes > maxNodes {
		if d.nodes == maxNodes+1 {
			d.problem(n.Line, path, "", "the file has more than %d values", maxNodes)
		}
		return nil, false
	}
	if depth > maxDepth {
		d.problem(n.Line, path, "", "is nested more than %d deep", maxDepth)
		return nil, false
	}
	for hops := 0; n.Kind == yaml.AliasNode; hops++ {
		if n.Alias == nil || hops > maxDepth {
			d.problem(n.Line, path, "", "the alias leads nowhere")
			return nil, false
		}
		n = n.Alias
	}
	if _, ok := d.lines[path]; !ok && d.lines != nil {
		d.lines[path] = n.Line
	}
	return n, true
}

// pairs calls f with each key of a mapping, and reports keys that are not words or stand twice.
func (d *decoder) pairs(n *yaml.Node, path string, f func(key, value *yaml.Node, path string)) {
	if n.Kind != yaml.MappingNode {
		d.problem(n.Line, path, "", "must be a mapping of keys, not %s", describe(n))
		return
	}
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.Tag == "!!merge":
			d.problem(key.Line, path, "repeat the keys, or use an alias for the whole value", "merge keys (<<) are not supported")
			continue
		case key.Kind != yaml.ScalarNode:
			d.problem(key.Line, path, "", "a key must be a word, not %s", describe(key))
			continue
		}
		at := join(path, key.Value)
		if line, ok := seen[key.Value]; ok {
			d.problem(key.Line, at, "", "stands twice; first in line %d", line)
			continue
		}
		seen[key.Value] = key.Line
		if d.lines != nil {
			d.lines[at] = key.Line
		}
		f(key, value, at)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, path string, depth int) {
	fields, rest := fieldsOf(v.Type())
	d.pairs(n, path, func(key, value *yaml.Node, at string) {
		f, ok := fields[key.Value]
		switch {
		case ok:
			d.value(value, v.Field(f.index), at, depth+1, f.option)
		case rest >= 0:
			m := v.Field(rest)
			if m.IsNil() {
				m.Set(reflect.MakeMap(m.Type()))
			}
			if node, ok := d.enter(value, at, depth+1); ok {
				m.SetMapIndex(reflect.ValueOf(key.Value), reflect.ValueOf(*node))
			}
		default:
			d.problem(key.Line, at, hintNearest(key.Value, names(fields)), "unknown key")
		}
	})
}

func (d *decoder) sequence(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.problem(n.Line, path, "", "must be a list, not %s", describe(n))
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.value(item, s.Index(i), fmt.Sprintf("%s[%d]", path, i), depth+1, "")
	}
	v.Set(s)
}

func (d *decoder) table(n *yaml.Node, v reflect.Value, path string, depth int) {
	if v.Type().Key().Kind() != reflect.String {
		d.problem(n.Line, path, "", "cannot be set from the file (%s)", v.Type())
		return
	}
	m := reflect.MakeMap(v.Type())
	d.pairs(n, path, func(key, value *yaml.Node, at string) {
		item := reflect.New(v.Type().Elem()).Elem()
		d.value(value, item, at, depth+1, "")
		m.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), item)
	})
	v.Set(m)
}

func (d *decoder) integer(n *yaml.Node, v reflect.Value, path, option string) {
	s, ok := d.text(n, path)
	if !ok {
		return
	}
	var i int64
	var err error
	if option == "size" {
		i, err = ParseSize(s)
	} else if i, err = strconv.ParseInt(strings.ReplaceAll(s, "_", ""), 10, 64); err != nil {
		err = fmt.Errorf("%q is not a whole number", s)
	} else if i < 0 {
		err = fmt.Errorf("cannot be negative")
	}
	if err == nil && v.OverflowInt(i) {
		err = fmt.Errorf("%d is too large", i)
	}
	d.set(n, path, err, func() { v.SetInt(i) })
}

// free decodes what has no shape of its own: a plugin's settings. It returns nil after a problem, and for null.
func (d *decoder) free(n *yaml.Node, path string, depth int) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		d.pairs(n, path, func(key, value *yaml.Node, at string) {
			if value, ok := d.enter(value, at, depth+1); ok {
				m[key.Value] = d.free(value, at, depth+1)
			}
		})
		return m
	case yaml.SequenceNode:
		s := []any{}
		for i, item := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			if item, ok := d.enter(item, at, depth+1); ok {
				s = append(s, d.free(item, at, depth+1))
			}
		}
		return s
	}
	switch n.Tag {
	case "!!null":
		return nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true")
	case "!!int":
		if i, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64); err == nil {
			return i
		}
	case "!!float":
		if f, err := strconv.ParseFloat(n.Value, 64); err == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return f
		}
		d.problem(n.Line, path, "", "%q is not a number that can be used", n.Value)
		return nil
	}
	return n.Value
}

func (d *decoder) set(n *yaml.Node, path string, err error, set func()) {
	if err != nil {
		d.problem(n.Line, path, "", "%v", err)
		return
	}
	set()
}

// text returns the text of a scalar. Numbers may stand where a text is wanted; true and false may not, since who
// writes no or off there means a word.
func (d *decoder) text(n *yaml.Node, path string) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.problem(n.Line, path, "", "must be a text, not %s", describe(n))
		return "", false
	}
	if n.Tag == "!!bool" || n.Tag == "!!binary" {
		d.problem(n.Line, path, "put it in quotes", "must be a text, not %s", describe(n))
		return "", false
	}
	return n.Value, true
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!binary":
		return "binary data"
	}
	return "a text"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

type field struct {
	index  int
	option string
}

// fieldsOf lists the keys of a struct: the yaml tag, else the json tag, else the name in lower case.
// rest is the field that takes unknown keys, or -1.
func fieldsOf(t reflect.Type) (fields map[string]field, rest int) {
	fields, rest = make(map[string]field, t.NumField()), -1
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			tag = f.Tag.Get("json")
		}
		key, option, _ := strings.Cut(tag, ",")
		switch {
		case key == "-":
			continue
		case option == "rest":
			rest = i
			continue
		case key == "":
			key = strings.ToLower(f.Name)
		}
		fields[key] = field{i, option}
	}
	return fields, rest
}

func names(fields map[string]field) []string {
	keys := make([]string, 0, len(fields))
	for k := range fields {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
