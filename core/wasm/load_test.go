package wasm

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// manifest changes handManifest.
func manifest(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(handManifest) }

// described makes the guest say another manifest.
func described(text string) func(*module) {
	return func(m *module) {
		m.data = []byte(text)
		m.funcs[1].code = i64const(1024<<32 | int64(len(text)))
	}
}

// sectioned gives the guest a manifest in a section, and takes weir_describe away.
func sectioned(text string) func(*module) {
	return func(m *module) {
		m.custom = append(m.custom, [2]string{ManifestSection, text})
		m.funcs[1].export = ""
	}
}

func also(text string) func(*module) {
	return func(m *module) { m.custom = append(m.custom, [2]string{ManifestSection, text}) }
}

func TestManifestSection(t *testing.T) {
	pass := result(0, 0)
	other := manifest(`"version":"1"`, `"version":"2"`)
	var spaced any
	_ = json.Unmarshal([]byte(handManifest), &spaced)
	pretty, _ := json.MarshalIndent(spaced, "", "  ") // other spaces, other order
	for _, c := range []struct {
		name    string
		module  []byte
		version string
		want    string
	}{
		{"asked", hand(pass), "1", ""},
		{"in a section", hand(pass, sectioned(other)), "2", ""},
		{"both, the same", hand(pass, also(string(pretty))), "1", ""},
		{"both, not the same", hand(pass, also(other)), "", "do not say the same"},
		{"neither", hand(pass, func(m *module) { m.funcs[1].export = "" }), "", "it has no manifest"},
		{"two sections", hand(pass, sectioned(other), also(other)), "", "two sections"},
		{"a section too long", hand(pass, sectioned(other+strings.Repeat(" ", maxManifest))), "", "at most 65536"},
		{"a section that is none", hand(pass, sectioned("{")), "", "manifest:"},
		{"a section after the section", hand(pass, func(m *module) { m.custom = [][2]string{{"name", "x"}, {"producers", "y"}} }), "1", ""},
	} {
		p, err := newHost(t).Load(t.Context(), Config{Name: "m", Module: c.module})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if v, digest := p.Version(); v != c.version || len(digest) != len("sha256:")+64 {
			t.Errorf("%s: version %s, %s", c.name, v, digest)
		}
		_ = p.Close(context.Background())
	}
}

// TestGrants: a guest gets what it needs and was granted, and does not load when it needs more.
func TestGrants(t *testing.T) {
	clock, both := manifest(`"abi":1`, `"abi":1,"needs":{"clock":true}`), manifest(`"abi":1`, `"abi":1,"needs":{"clock":true,"kv":true}`)
	raw := manifest(`"abi":1`, `"abi":1,"needs":{"raw":true}`)
	imports := func(names ...string) func(*module) {
		return func(m *module) {
			for _, n := range names {
				m.imports = append(m.imports, [2]string{hostModule, n})
			}
		}
	}
	pass := result(0, 0)
	for _, c := range []struct {
		name   string
		module []byte
		grants []string
		all    bool
		want   string
	}{
		{"needs nothing", hand(pass), nil, false, ""},
		{"more than it needs", hand(pass), []string{"clock", "kv"}, false, ""},
		{"granted", hand(pass, described(clock)), []string{"clock"}, false, ""},
		{"not granted", hand(pass, described(clock)), nil, false, "it needs clock, which it was not granted (if it may have it, say grants: [clock])"},
		{"another granted", hand(pass, described(clock)), []string{"kv"}, false, "it needs clock"},
		{"half granted", hand(pass, described(both)), []string{"clock"}, false, "it needs kv, which it was not granted (if it may have it, say grants: [clock, kv])"},
		{"all", hand(pass, described(both)), nil, true, ""},
		{"raw", hand(pass, described(raw)), nil, true, "it needs raw"},
		{"imports it, and does not say so", hand(pass, imports("kv_get")), []string{"kv"}, true, "does not say that it needs kv"},
		{"imports it", hand(pass, imports("kv_get", "kv_put", "kv_incr"), described(both)), []string{"clock", "kv"}, false, ""},
	} {
		p, err := newHost(t).Load(t.Context(), Config{Name: "g", Module: c.module, Grants: c.grants, GrantAll: c.all})
		if c.want != "" {
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", c.name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		_ = p.Close(context.Background())
	}
}

func TestConfigSchema(t *testing.T) {
	const schema = `{"type":"object","additionalProperties":false,"required":["words"],"properties":{
		"words":{"type":"array","minItems":1,"items":{"enum":["A","B"]}},
		"key":{"type":"string","pattern":"^[a-z]+$","minLength":4,"maxLength":8},
		"depth":{"type":"integer","minimum":1,"maximum":3},"mode":{"const":"x"},"inner":{"type":"object","properties":{"n":{"type":"number"}}},
		"any":{"anyOf":[{"type":"string","const":"q"},{"type":"integer"}]}}}`
	guest := func(schema string) []byte {
		return hand(result(0, 0), sectioned(manifest(`"abi":1`, `"abi":1,"config_schema":`+schema)))
	}
	words := []any{"A"}
	for _, c := range []struct {
		config map[string]any
		want   string
	}{
		{map[string]any{"words": words, "key": "abcd", "depth": 3, "mode": "x"}, ""},
		{nil, "missing property 'words'"},
		{map[string]any{"words": words, "wrods": 1}, "additional properties 'wrods' not allowed"},
		{map[string]any{"words": []any{"A", "c4n4ry"}}, `config.words[1]: must be one of ["A","B"]`},
		{map[string]any{"words": "c4n4ry"}, "config.words: got string, want array"},
		{map[string]any{"words": []any{}}, "config.words: minItems"},
		{map[string]any{"words": words, "key": "c4n4ry"}, "config.key: must match ^[a-z]+$"},
		{map[string]any{"words": words, "key": "canarycanary"}, "config.key: maxLength"},
		{map[string]any{"words": words, "depth": 4}, "config.depth: must be at most 3"},
		{map[string]any{"words": words, "depth": 1.5}, "config.depth: got number, want integer"},
		{map[string]any{"words": words, "mode": "c4n4ry"}, `config.mode: must be "x"`},
		{map[string]any{"words": words, "inner": map[string]any{"n": "c4n4ry"}}, "config.inner.n: got string, want number"},
		{map[string]any{"words": words, "any": "c4n4ry"}, "config.any: "},
	} {
		p, err := newHost(t).Load(t.Context(), Config{Name: "s", Module: guest(schema), Config: c.config})
		if err == nil {
			_ = p.Close(context.Background())
		}
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v\nwant %q", c.config, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "c4n4ry") || strings.Contains(err.Error(), "canarycanary")) {
			t.Errorf("a value is in the error: %v", err)
		}
	}
	for name, c := range map[string]struct{ schema, want string }{
		"no schema":      {`{"type":"words"}`, "config_schema"},
		"a number":       {`7`, "config_schema"},
		"reads files":    {`{"$ref":"file:///etc/passwd"}`, "stands on its own"},
		"reads URLs":     {`{"$ref":"http://127.0.0.1/x"}`, "stands on its own"},
		"refers to self": {`{"$ref":"#"}`, "refuses its config"},
		"bad pattern":    {`{"pattern":"("}`, "config_schema"},
	} {
		_, err := newHost(t).Load(t.Context(), Config{Name: "s", Module: guest(c.schema), Config: map[string]any{"a": 1}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// A schema that nests without end must end with the configuration.
	p := load(t, Config{Module: guest(`{"type":"object","additionalProperties":{"$ref":"#"}}`), Config: map[string]any{"a": map[string]any{"b": map[string]any{}}}})
	ask(t, p, event(core.KindCommand))
}

// TestSelfTest: a guest that fails at what it subscribes to does not load, and trying it leaves nothing behind.
func TestSelfTest(t *testing.T) {
	for name, c := range map[string]struct {
		code []byte
		want string
	}{
		"passes":          {result(0, 0), ""},
		"denies without":  {result(3, 0), "without a rule"},
		"traps":           {[]byte{0}, "asked about a command event: wasm error: unreachable"},
		"loops":           {join([]byte{0x03, 0x40, 0x0c, 0, 0x0b}, result(0, 0)), "in time"},
		"unknown verdict": {result(9, 0), "verdict 9"},
		"fails politely":  {result(-1, 0), ""},
	} {
		p, err := newHost(t).Load(t.Context(), Config{Name: "t", Module: hand(c.code)})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), "self-test: ") || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err == nil {
			_ = p.Close(context.Background())
		}
		p, err = newHost(t).Load(t.Context(), Config{Name: "t", Module: hand(c.code), noSelfTest: true}) // the guard off
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := p.Inspect(t.Context(), event(core.KindCommand)); (err != nil) != (c.want != "" || name == "fails politely") {
			t.Errorf("%s, unguarded: %v", name, err)
		}
		_ = p.Close(context.Background())
	}
}

func TestNoOp(t *testing.T) {
	p := load(t, Config{Module: NoOp(&Manifest{Subscribe: []Subscribe{{Kinds: []string{"command", "rows"}, Columns: []string{"*"}}}})})
	if v := ask(t, p, event(core.KindCommand)); v.Deny != nil {
		t.Error(v.Deny)
	}
	b := batch(threeColumns, []string{"one", "1", "x"})
	if v := ask(t, p, rowsEvent(b)); v.Changed || fmt.Sprint(values(b)) != "[one 1 x]" {
		t.Error(values(b))
	}
}
