package opa

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
)

// decode turns what the packages answered into a verdict. It is strict: a key or a value that is not understood is
// an error, because what a policy meant to say must not be lost.
func (p *Policy) decode(q *question, packages map[string]any) (v core.Verdict, err error) {
	for _, name := range q.packages {
		rules, ok := packages[name].(map[string]any)
		if !ok {
			return v, fmt.Errorf("package %s gave no answer", name)
		}
		if err := p.decodePackage(&v, name, rules); err != nil {
			return core.Verdict{}, fmt.Errorf("package %s: %w", name, err)
		}
	}
	return v, nil
}

func (p *Policy) decodePackage(v *core.Verdict, pkg string, rules map[string]any) error {
	note := func(action, rule, detail string) {
		if detail != "" {
			detail += " "
		}
		v.Decisions = append(v.Decisions, core.Decision{Action: action, Rule: rule, Detail: detail + "(" + pkg + "@" + p.short + ")"})
	}
	each := func(name string, f func(o *fieldsOf) error) error {
		set, ok, err := elements(rules[name])
		if !ok || err != nil {
			return wrap(name, err)
		}
		for _, x := range set {
			o, err := objectOf(x, answers[name])
			if err == nil {
				err = f(o)
			}
			if err == nil {
				err = o.err
			}
			if err != nil {
				return wrap(name, err)
			}
		}
		return nil
	}
	deny := func(d core.Denial) {
		if v.Deny == nil {
			v.Deny = &d
		}
		note("deny", d.Rule, d.Reason)
	}
	var denials []core.Denial

	if isAccess(pkg) {
		allowed, ok := one(rules["allow"])
		if b, isBool := allowed.(bool); ok && !isBool {
			return fmt.Errorf("allow is neither true nor false")
		} else if !b {
			deny(core.Denial{Rule: "access", Reason: unallowed(pkg), Hint: "ask the operator for access"})
		}
	}
	if err := each("deny", func(o *fieldsOf) error {
		denials = append(denials, core.Denial{Rule: o.text("rule"), Reason: o.text("reason"), Hint: o.text("hint")})
		return nil
	}); err != nil {
		return err
	}
	slices.SortFunc(denials, func(a, b core.Denial) int { // the first one is told; which, must not depend on chance
		return cmp.Or(strings.Compare(a.Rule, b.Rule), strings.Compare(a.Reason, b.Reason))
	})
	for _, d := range denials {
		deny(d)
	}
	if err := each("mask", func(o *fieldsOf) error {
		m := core.Mask{Column: o.text("column"), With: o.text("with"), Rule: o.text("rule"), Args: o.args("args")}
		v.Masks = append(v.Masks, m)
		return nil
	}); err != nil {
		return err
	}
	if err := each("hold", func(o *fieldsOf) error {
		h := core.Hold{Rule: o.text("rule"), Reason: o.text("reason"), Approvers: o.texts("approvers")}
		v.Hold = v.Hold.With(&h)
		note("hold", h.Rule, h.Reason)
		return nil
	}); err != nil {
		return err
	}
	if err := each("limit", func(o *fieldsOf) error {
		l := core.Limit{Rows: o.count("rows"), Bytes: o.count("bytes"), Time: o.duration("time")}
		if o.err == nil && l == (core.Limit{}) {
			return fmt.Errorf("it limits nothing: give rows, bytes or time")
		}
		v.Limit = v.Limit.Merge(l)
		rule := o.text("rule")
		if rule == "" {
			rule = "limit"
		}
		note("limit", rule, limitText(l))
		return nil
	}); err != nil {
		return err
	}
	if r, ok := one(rules["record"]); ok {
		s, _ := r.(string)
		level := core.ParseLevel(s)
		if level == core.LevelUnset {
			return fmt.Errorf("record is %v: say off, metadata or full", kindOf(r))
		}
		v.Record = max(v.Record, level)
		note("record", "record", level.String())
	}
	return nil
}

func wrap(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func limitText(l core.Limit) string {
	var parts []string
	if l.Rows > 0 {
		parts = append(parts, "rows="+strconv.FormatInt(l.Rows, 10))
	}
	if l.Bytes > 0 {
		parts = append(parts, "bytes="+strconv.FormatInt(l.Bytes, 10))
	}
	if l.Time > 0 {
		parts = append(parts, "time="+l.Time.String())
	}
	return strings.Join(parts, " ")
}

// one unpacks [x] as the query gives it: no element means undefined.
func one(x any) (any, bool) {
	list, _ := x.([]any)
	if len(list) != 1 {
		return nil, false
	}
	return list[0], true
}

// elements unpacks the elements of a set; false means undefined.
func elements(x any) ([]any, bool, error) {
	v, ok := one(x)
	if !ok {
		return nil, false, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, false, fmt.Errorf("it is no set but %s", kindOf(v))
	}
	return list, true, nil
}

// kindOf names the kind of a value; the value itself may be data that must not be shown.
func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case []any:
		return "a list"
	}
	return "an object"
}

// fieldsOf reads the keys of one object and keeps the first error.
type fieldsOf struct {
	m   map[string]any
	err error
}

func objectOf(x any, a answer) (*fieldsOf, error) {
	m, ok := x.(map[string]any)
	if !ok {
		return nil, fmt.Errorf("an element is %s, not an object", kindOf(x))
	}
	for k := range m {
		if !slices.Contains(a.required, k) && !slices.Contains(a.optional, k) {
			return nil, fmt.Errorf("unknown key %q: known are %s", k, strings.Join(slices.Concat(a.required, a.optional), ", "))
		}
	}
	o := &fieldsOf{m: m}
	for _, k := range a.required {
		if o.text(k) == "" && o.err == nil {
			return nil, fmt.Errorf("key %q is missing or empty", k)
		}
	}
	return o, nil
}

func (o *fieldsOf) fail(key, want string) {
	if o.err == nil {
		o.err = fmt.Errorf("key %q is %s, not %s", key, kindOf(o.m[key]), want)
	}
}

func (o *fieldsOf) text(key string) string {
	v, ok := o.m[key]
	s, isString := v.(string)
	if ok && !isString {
		o.fail(key, "a string")
	}
	return s
}

func (o *fieldsOf) texts(key string) (out []string) {
	v, ok := o.m[key]
	if !ok {
		return nil
	}
	list, isList := v.([]any)
	if !isList {
		o.fail(key, "a list of strings")
	}
	for _, x := range list {
		s, isString := x.(string)
		if !isString {
			o.fail(key, "a list of strings")
		}
		out = append(out, s)
	}
	return out
}

func (o *fieldsOf) args(key string) map[string]string {
	v, ok := o.m[key]
	if !ok {
		return nil
	}
	m, isObject := v.(map[string]any)
	if !isObject {
		o.fail(key, "an object")
		return nil
	}
	out := make(map[string]string, len(m))
	for k, x := range m {
		switch x := x.(type) {
		case string:
			out[k] = x
		case json.Number:
			out[k] = x.String()
		case bool:
			out[k] = strconv.FormatBool(x)
		default:
			o.fail(key, "an object of strings and numbers")
		}
	}
	return out
}

func (o *fieldsOf) count(key string) int64 {
	v, ok := o.m[key]
	if !ok {
		return 0
	}
	n, isNumber := v.(json.Number)
	i, err := n.Int64()
	if !isNumber || err != nil || i < 1 {
		o.fail(key, "a whole number from 1")
	}
	return i
}

func (o *fieldsOf) duration(key string) time.Duration {
	if _, ok := o.m[key]; !ok {
		return 0
	}
	d, err := time.ParseDuration(o.text(key))
	if err != nil || d <= 0 {
		o.fail(key, `a duration such as "30s"`)
	}
	return d
}
