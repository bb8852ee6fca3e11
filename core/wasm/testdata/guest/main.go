//go:build wasip1

// A guest for the tests: what it does is in its configuration.
package main

import (
	"bytes"

	weir "github.com/weir-gateway/weir/sdk/go"
)

var mode string

func init() {
	weir.Register(weir.Plugin{
		Name: "guest", Version: "0.1.0", Mutates: true,
		Subscribe: []weir.Subscription{
			{Kinds: []weir.Kind{weir.Open, weir.Command, weir.Columns, weir.Bytes, weir.Result, weir.Notice, weir.Close}},
			{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}},
		},
		Metrics:   []weir.Metric{{ID: 1, Name: "seen"}},
		Configure: configure,
		OnCommand: command, OnOpen: command, OnColumns: columns, OnResult: texts, OnBytes: texts,
		OnRows: rows,
	})
}

func main() {}

func configure(c weir.Value) error {
	mode, _ = c.Get("mode").Text()
	if mode == "refuse" {
		return weir.Error("mode cannot be refuse")
	}
	return nil
}

func command(e *weir.Event) {
	weir.Count(1, 1)
	switch mode {
	case "deny":
		e.Deny("no", "because", "instead")
	case "hold":
		e.Hold("wait", "important", "dba", "lead")
	case "panic":
		panic("asked to")
	case "loop":
		for i := 0; ; i++ {
			mode = mode[:4+i%2*0]
		}
	case "spin": // on one statement only
		if text, _ := e.Value(0); bytes.Contains(text, []byte("spin for ever")) {
			for i := 0; ; i++ {
				mode = mode[:4+i%2*0]
			}
		}
	case "edit":
		e.Set(0, []byte("x"))
	case "tell":
		r := e.Resources()
		text, _ := e.Value(0)
		s := e.Protocol() + "|" + e.Target() + "|" + e.Subject() + "|" + e.Action() + "|" + string(text)
		if len(r) > 0 {
			s += "|" + r[0].Name + "|" + r[0].Use[0]
		}
		for _, x := range e.Effects() {
			s += "|" + x
		}
		if v, ok := e.Value(1); ok {
			s += "|" + string(v)
		}
		if _, ok := e.Value(2); !ok {
			s += "|null"
		}
		e.Deny("tell", s, "")
	}
}

func columns(e *weir.Event) {
	if mode == "tell" {
		s := ""
		for _, c := range e.Columns() {
			s += c.Name + ":" + c.Type + ":" + c.Table + ";"
		}
		e.Deny("tell", s, "")
	}
}

func texts(e *weir.Event) {
	for i := range e.Cells() {
		if v, ok := e.Value(i); ok {
			e.Set(i, bytes.ReplaceAll(v, []byte("secret"), []byte("****")))
		}
	}
}

func rows(r *weir.Rows) {
	switch mode {
	case "deny":
		r.Deny("no", "because", "instead")
	case "panic":
		panic("asked to")
	case "upper": // in place
		for i := range r.Cells() {
			if v, ok := r.Value(i); ok {
				copy(v, bytes.ToUpper(v))
				r.Touch(i)
			}
		}
		weir.Found("UPPER", "rows")
	case "patch": // other lengths, backwards, and twice
		for i := r.Cells() - 1; i >= 0; i-- {
			if v, ok := r.Value(i); ok {
				if r.Column(i).Name == "gone" {
					r.SetNull(i)
					continue
				}
				r.Set(i, []byte("once"))
				r.Set(i, append([]byte("<"+r.Column(i).Name+">"), v...))
			} else {
				r.Set(i, []byte("was null"))
			}
		}
	case "long":
		long := bytes.Repeat([]byte("x"), 1000)
		for i := range r.Cells() {
			r.Set(i, long)
		}
	}
}
