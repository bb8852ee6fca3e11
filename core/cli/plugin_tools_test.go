package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/wasm"
)

func TestPluginInspect(t *testing.T) {
	p := newPlace(t)
	module := manifested(passing("1.2.3"), `"version"`, `"needs":{"kv":true},"config_schema":{"properties":{"b":{},"a":{}},"required":["b"]},"version"`)
	path := p.file("mine.wasm", module)
	text := p.must("plugin", "inspect", path)
	for _, want := range []string{"no-op 1.2.3", hexSum(module), "sees      command", "grants: [kv]", "memory 64.0 MiB, command 50ms", "config    a, b (required)", "on_error  deny"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	var x struct {
		Ref, SHA256 string
		Size        int
		Grants      []string
		Manifest    wasm.Manifest
		Limits      struct {
			Memory int64
			Rows   string
		}
	}
	if err := json.Unmarshal([]byte(p.must("plugin", "inspect", path, "-o", "json", "--sha256", hexSum(module))), &x); err != nil {
		t.Fatal(err)
	}
	if x.Ref != path || x.SHA256 != hexSum(module) || x.Size != len(module) || len(x.Grants) != 1 || x.Manifest.Version != "1.2.3" || x.Limits.Memory != 64<<20 || x.Limits.Rows != "100ms" {
		t.Errorf("%+v", x)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{path + "x"}, exitUse, "no such file"},
		{[]string{path, "--sha256", hexSum([]byte("other"))}, exitUse, "has the SHA-256 " + hexSum(module)},
		{[]string{p.file("text.wasm", []byte("no module"))}, exitNo, "no WebAssembly module"},
		{[]string{"builtin:none"}, exitUse, "no builtin plugin"},
		{nil, exitUse, "accepts 1 arg"},
	} {
		if code, _, err := p.weir(append([]string{"plugin", "inspect"}, c.args...)...); code != c.code || !strings.Contains(err, c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, err)
		}
	}
	evil := bytes.Replace(passing("1.2.3"), []byte(`no-op`), []byte("\x1b[31m"), 1) // JSON has no such byte in a text
	if code, out, err := p.weir("plugin", "inspect", p.file("evil.wasm", evil)); code != exitNo || strings.Contains(out+err, "\x1b") {
		t.Errorf("exit %d: %q %q", code, out, err)
	}
	evil = manifested(passing("1.2.3"), `"no-op"`, `"\u001b[31mred"`)
	if out := p.must("plugin", "inspect", p.file("evil.wasm", evil)); strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
}

const passVectors = `{"configurations": [{"text": "{}", "accepted": true}, {"plugin": "another", "text": "{}", "accepted": false}],
"vectors": [
 {"name": "a command", "frame": {"kind": 2, "rows": 1, "columns": 1, "attributes": [{"id": 1, "text": "wire"}], "cells": ["select 1"], "room": 64},
  "expect": {"verdict": "pass", "aux": 0, "cells": ["select 1"], "findings": [], "counters": {}}},
 {"name": "another's", "plugin": "another", "frame": {"kind": 2}, "expect": {"verdict": "deny"}},
 {"name": "rows", "frame": {"kind": 3, "editable": true, "rows": 1, "columns": 2, "cells": [{"hex": "00ff"}, null], "room": 64}, "expect": {"verdict": "pass", "cells": [{"hex": "00ff"}, null]}}
]}`

func TestPluginTest(t *testing.T) {
	p := newPlace(t)
	path := p.file("mine.wasm", passing("1.0.0"))
	if code, _, err := p.weir("plugin", "test", path); code != exitUse || !strings.Contains(err, "name the vectors with --vectors") {
		t.Errorf("exit %d, %s", code, err)
	}
	p.file("tests.json", []byte(passVectors))
	if out := p.must("plugin", "test", path); out != "3 tests, 0 failed\n" {
		t.Error(out)
	}
	for old, c := range map[string]struct{ fresh, want string }{
		`"verdict": "pass", "aux": 0`:        {`"verdict": "deny"`, "it answered pass , not deny"},
		`"cells": ["select 1"], "findings"`:  {`"cells": ["select 2"], "findings"`, `cell 0 is "select 1", not "select 2"`},
		`"findings": []`:                     {`"findings": [["a", "b"]]`, `it finds [], not [["a","b"]]`},
		`"counters": {}`:                     {`"counters": {"1": 2}`, `it counts {}, not {"1":2}`},
		`"accepted": true`:                   {`"accepted": false`, "it is accepted, and should be refused"},
		`"cells": [{"hex": "00ff"}, null]}}`: {`"cells": [null, "x"]}}`, `cell 1 is NULL, not "x"`},
		`"aux": 0`:                           {`"aux": 1`, "aux is 0, not 1"},
	} {
		text := strings.Replace(passVectors, old, c.fresh, 1)
		if text == passVectors {
			t.Fatal(old)
		}
		file := p.file("v.json", []byte(text))
		code, out, _ := p.weir("plugin", "test", path, "--vectors", file)
		if code != exitNo || !strings.Contains(out, "FAILED") || !strings.Contains(out, c.want) || !strings.Contains(out, "3 tests, 1 failed") {
			t.Errorf("exit %d\n%swant %s", code, out, c.want)
		}
	}
	var list []tested
	if err := json.Unmarshal([]byte(p.must("plugin", "test", path, "-o", "json")), &list); err != nil || len(list) != 3 || !list[0].OK || list[1].Name != "a command" {
		t.Errorf("%v %v", list, err)
	}
	for text, want := range map[string]string{
		`{`:              "unexpected EOF",
		`{"vectorz": 1}`: "vectorz",
		`{"vectors": [{"name": "a", "frame": {}, "expect": {"verdict": "maybe"}}]}`:               "a verdict that is one of",
		`{"vectors": [{"name": "a", "plugin": "x", "hex": "00", "expect": {"verdict": "pass"}}]}`: "no vector is for this plugin",
	} {
		if code, out, err := p.weir("plugin", "test", path, "--vectors", p.file("v.json", []byte(text))); code == 0 || !strings.Contains(err, want) {
			t.Errorf("%s: exit %d %s %s", text, code, out, err)
		}
	}
	for _, bad := range [][]string{{"--set", "novalue"}, {"--vectors", "v.json", "--session", "x"}, {"-o", "yaml"}} {
		if code, _, _ := p.weir(append([]string{"plugin", "test", path}, bad...)...); code != exitUse {
			t.Errorf("%v: exit %d", bad, code)
		}
	}
}

// TestPluginConformance runs the SDKs' vectors, as far as their examples were built.
func TestPluginConformance(t *testing.T) {
	p := newPlace(t)
	files, _ := filepath.Glob("../../sdk/*/examples/*/*.wasm")
	asked := 0
	for _, f := range files {
		if info, err := os.Stat(f); err != nil || info.Size() > 1<<20 && !strings.HasSuffix(f, "mask.wasm") { // a Go guest takes a second to compile
			continue
		}
		asked++
		code, out, err := p.weir("plugin", "test", f, "--vectors", "../../sdk/conformance/vectors.json")
		if code != 0 || !strings.HasSuffix(out, ", 0 failed\n") {
			t.Errorf("%s: exit %d\n%s%s", f, code, out, err)
		}
	}
	if asked == 0 {
		t.Skip("no example was built: make sdks")
	}
}

// TestPluginSession tries a plugin on what a gateway has recorded.
func TestPluginSession(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, got := r.talk(t, token, "hello world", "drop everything", "again")
	id := strings.TrimPrefix(got[0], "ok ")
	_ = conn.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	path := p.file("mine.wasm", passing("1.0.0"))
	if out := p.must("plugin", "test", path, "--session", id); !strings.HasPrefix(out, "7 events asked about, 0 denied, 0 values changed;") {
		t.Error(out)
	}
	if out := p.must("plugin", "test", path, "--session", id, "-o", "json"); out != "[]\n" {
		t.Error(out)
	}
	if code, _, err := p.weir("plugin", "test", path, "--session", "01aaaaaaaaaaaaaaaaaaaaaaaa"); code != exitNo || !strings.Contains(err, "there is no session") {
		t.Errorf("exit %d %s", code, err)
	}
	block := "../../sdk/c/examples/block/block.wasm"
	if _, err := os.Stat(block); err != nil {
		t.Skip("make sdks builds a plugin that does something")
	}
	out := p.must("plugin", "test", block, "--session", id, "--set", `effects=["ddl"]`)
	if !strings.Contains(out, "DENIED by rule block-effect") || !strings.Contains(out, "drop everything") || strings.Count(out, "DENIED") != 1 || !strings.Contains(out, ", 1 denied") {
		t.Error(out)
	}
	var list []change
	if err := json.Unmarshal([]byte(p.must("plugin", "test", block, "--session", id, "--set", `effects=["read"]`, "-o", "json")), &list); err != nil || len(list) != 2 || list[0].Deny.Rule != "block-effect" || list[0].Said != "hello world" {
		t.Errorf("%+v %v", list, err)
	}
	if code, _, err := p.weir("plugin", "test", block, "--session", id, "--set", `effects=ddl`); code != exitNo || !strings.Contains(err, "refuses its config") {
		t.Errorf("exit %d %s", code, err)
	}
}

func TestPluginBench(t *testing.T) {
	p := newPlace(t)
	path := p.file("mine.wasm", passing("1.0.0"))
	if out := p.must("plugin", "bench", path, "--time", "8ms"); !strings.HasPrefix(out, "EVENT") || !strings.Contains(out, "command") || strings.Contains(out, "rows") {
		t.Error(out)
	}
	rows := wasm.NoOp(&wasm.Manifest{Subscribe: []wasm.Subscribe{{Kinds: []string{"rows"}, Columns: []string{"type:text"}}}})
	var list []benched
	if err := json.Unmarshal([]byte(p.must("plugin", "bench", p.file("rows.wasm", rows), "--time", "8ms", "-o", "json")), &list); err != nil || len(list) != 3 {
		t.Fatal(list, err)
	}
	for i, b := range list {
		if b.NS <= 0 || b.NoOp <= 0 || b.MBs <= 0 || b.Overhead < 0.05 || b.Overhead > 20 || b.NSRow <= 0 || i > 0 && b.NS < list[i-1].NS {
			t.Errorf("%+v", b)
		}
	}
	open := wasm.NoOp(&wasm.Manifest{Subscribe: []wasm.Subscribe{{Kinds: []string{"open"}}}})
	for _, args := range [][]string{{p.file("open.wasm", open)}, {path, "--time", "0s"}, {path, "--set", "x"}} {
		if code, _, err := p.weir(append([]string{"plugin", "bench"}, args...)...); code == 0 {
			t.Errorf("%v: exit %d %s", args, code, err)
		}
	}
}

// TestPluginReadme runs what core/wasm/README.md prints, in its order, and loads its configuration.
func TestPluginReadme(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	text, err := os.ReadFile("../wasm/README.md")
	if err != nil {
		t.Fatal(err)
	}
	p := newPlace(t)
	p.file("mask.wasm", passing("1.0.0"))
	p.file("tests.json", []byte(passVectors))
	p.guest("wasm: mask.wasm")
	t.Chdir(p.dir)
	commands := 0
	for i, part := range strings.Split(string(text), "```") {
		kind, lines, _ := strings.Cut(part, "\n")
		switch {
		case i%2 == 0:
		case kind == "yaml":
			_, list, _ := strings.Cut(lines, "\n")
			if _, err := config.Parse(p.config, []byte(strings.Replace(p.text(), "  - {name: mine, wasm: mask.wasm}\n", strings.Replace(list, "name: mask", "name: mine", 1), 1))); err != nil {
				t.Error(err)
			}
		case kind == "sh":
			for line := range strings.Lines(lines) {
				words := strings.Fields(line)
				if commands++; words[0] == "weir" {
					p.must(words[1:]...)
				} else if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", line, err, out)
				}
			}
		}
	}
	if commands != 8 {
		t.Errorf("%d commands", commands)
	}
	p.write("plugin_keys: [plugins.pem]\n" + p.text())
	p.must("check")
}

// commas is a reader whose rows are lines of words with commas between them; - is NULL.
type commas struct{}

func (commas) ReadRows(_ []core.Column, wire []byte) (rows [][]*string, err error) {
	if bytes.HasPrefix(wire, []byte("?")) {
		return nil, errors.New("not rows")
	}
	for line := range strings.Lines(string(wire)) {
		var row []*string
		for w := range strings.SplitSeq(strings.TrimSpace(line), ",") {
			if w == "-" {
				row = append(row, nil)
				continue
			}
			row = append(row, &w)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (commas) ReadText(b []byte) string { return string(b) }

// shouting is a step that sees texts: it makes them loud, takes an x away, and denies y.
type shouting struct{}

func (shouting) Subscription() core.Subscription {
	return core.Subscription{Kinds: core.KindSet(core.KindCommand, core.KindRows, core.KindBytes), Columns: []string{"type:text"}}
}

func (shouting) Inspect(_ context.Context, e *core.Event) (v core.Verdict, err error) {
	switch e.Kind {
	case core.KindCommand:
		for _, p := range e.Params {
			if string(p.Value) == "y" {
				v.Deny = &core.Denial{Rule: "no-y", Reason: "not y"}
			}
		}
	case core.KindBytes:
		e.Bytes = bytes.ToUpper(e.Bytes)
		v.Changed = true
	case core.KindRows:
		for i := range e.Rows.Cells {
			b, ok := e.Rows.Value(i)
			switch {
			case !ok:
			case string(b) == "x":
				e.Rows.Set(i, nil)
			default:
				e.Rows.Set(i, append(bytes.ToUpper(b), '!'))
			}
		}
		v.Changed = true
		v.Decisions = []core.Decision{{Action: "finding", Rule: "LOUD", Detail: "1"}}
	}
	return v, nil
}

// TestRerun makes events of records of every kind.
func TestRerun(t *testing.T) {
	steps, err := chain.New(chain.Step{Name: "shouting", Plugin: shouting{}})
	if err != nil {
		t.Fatal(err)
	}
	r := &rerun{steps: steps, reader: commas{}}
	for i, rec := range []core.Record{
		{Kind: core.KindOpen, Facts: []byte(`{"session":"01","protocol":"echo","target":"one","identity":{"subject":"ada"}}`)},
		{Kind: core.KindCommand, Facts: []byte(`{"command":{"action":"say","text":"hello","status":"known"},"params":["y",null,{"hex":"00"}]}`)},
		{Kind: core.KindColumns, Facts: []byte(`{"columns":[{"name":"n","type":"int4","binary":true},{"name":"word","type":"text"},{"name":"other","type":"text"}]}`)},
		{Kind: core.KindRows, Facts: []byte(`{"rows":2}`), Wire: []byte("1,one,x\n2,-,two\n")},
		{Kind: core.KindRows, Facts: []byte(`{"rows":1}`)},
		{Kind: core.KindRows, Facts: []byte(`{"rows":1}`), Wire: []byte("?")},
		{Kind: core.KindRows, Facts: []byte(`{"rows":1}`), Wire: []byte("1\n")},
		{Kind: core.KindRows, Facts: []byte(`{"rows":1,"denied":{"rule":"r"}}`)},
		{Kind: core.KindBytes, Facts: []byte(`{"bytes":5}`), Wire: []byte("piece")},
		{Kind: core.KindResult, Facts: []byte(`{"result":{"status":"ok"}}`)},
		{Kind: core.KindOpaque, Facts: []byte(`{"reason":"?"}`)},
		{Kind: core.KindClose, Facts: []byte(`{"end":"closed","reason":"gone"}`)},
	} {
		rec.Seq, rec.Direction = uint64(i), core.FromUpstream
		if err := r.record(t.Context(), &rec); err != nil {
			t.Fatal(err)
		}
	}
	if r.events != 7 || r.unread != 3 || len(r.changes) != 3 {
		t.Fatalf("%d events, %d unread, %s", r.events, r.unread, asJSON(r.changes))
	}
	if c := r.changes[0]; c.Seq != 1 || c.Deny == nil || c.Deny.Rule != "no-y" || c.Said != "hello" {
		t.Error(asJSON(c))
	}
	if got := asJSON(r.changes[1]); got != `{"seq":3,"kind":"rows","said":"hello","values":3,"examples":[{"column":"word","row":0,"was":"one","now":"ONE!"},{"column":"other","row":0,"was":"x","now":null},{"column":"other","row":1,"was":"two","now":"TWO!"}],"findings":[{"step":"shouting","action":"finding","rule":"LOUD","detail":"1"}]}` {
		t.Error(got)
	}
	var out bytes.Buffer
	(&app{out: &out}).rerun(r)
	for _, want := range []string{"DENIED by rule no-y: not y  hello", "3 values changed; finding LOUD 1  hello", `other, row 1: "x" became NULL`, `"piece" became "PIECE"`, "7 events asked about, 1 denied, 4 values changed, 3 without recorded bytes;"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	for _, facts := range []string{`{`, `{}`} {
		if err := (&rerun{steps: steps}).record(t.Context(), &core.Record{Kind: core.KindCommand, Facts: []byte(facts)}); err == nil {
			t.Errorf("%s was taken", facts)
		}
	}
}
