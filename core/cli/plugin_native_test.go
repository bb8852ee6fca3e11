package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
	native "github.com/weir-gateway/weir/plugins/pii/native"
)

// withNatives gives this test's gateways a plugin that runs without a guest.
func withNatives(t *testing.T) {
	t.Helper()
	was := testBuild.Natives
	testBuild.Natives = []*core.Native{{Name: "first", Schema: "{}", New: func(core.NativeConfig) (core.Plugin, error) { return nil, nil }}, native.New()}
	t.Cleanup(func() { testBuild.Natives = was })
}

func TestNativePlugin(t *testing.T) {
	p := newPlace(t)
	p.guest("native: pii")
	p.refuses(`weir.yaml:6: plugins[0].native: no native plugin "pii": this build has none`)
	withNatives(t)
	p.must("check")
	p.guest("native: pii, config: {entities: [EMAIL, SECRET]}, columns: [note, people.mail], on_error: deny")
	p.must("check")
	for settings, want := range map[string]string{
		"native: pi": `weir.yaml:6: plugins[0].native: no native plugin "pi": this build has first, pii`,
		"native: pii, config: {entities: [NAME]}":                      `weir.yaml:6: plugins[0].config: native: plugin "mine": it refuses its config: config.entities[0]: must be one of ["EMAIL"`,
		"native: pii, config: {entities: []}":                          "config.entities: minItems",
		"native: pii, config: {entity: EMAIL}":                         "config: additional properties 'entity' not allowed",
		"native: pii, config: {entities: [\"${env:WEIR_NOT_THERE}\"]}": "weir.yaml:6: plugins[0].config.entities[0]",
		"native: pii, wasm: \"builtin:pii\"":                           "weir.yaml:6: plugins[0].native: stands beside wasm",
		"native: pii, limits: {rows: 1s}":                              "weir.yaml:6: plugins[0].limits: would do nothing: nothing bounds a native plugin",
	} {
		p.guest(settings)
		p.refuses(want)
	}
}

// TestNativePluginCommands: what can be asked of a guest can be asked of it, but for what is about a module.
func TestNativePluginCommands(t *testing.T) {
	withNatives(t)
	p := newPlace(t)
	p.guest("native: pii")
	if out := p.must("plugin", "lock"); strings.Contains(out, "mine") {
		t.Errorf("lock: %s", out)
	}
	if b, err := os.ReadFile(filepath.Join(p.dir, "weir.lock")); err != nil || strings.Contains(string(b), "mine") {
		t.Errorf("%s %v", b, err)
	}
	p.must("check") // with a lock that does not have it

	out := p.must("plugin", "inspect", "native:pii")
	for _, want := range []string{"pii 1.1.0", "native:pii", "as part of the program: nothing bounds its memory", "sees      rows; columns type:text", "changes   values", "masked (counter)", "config    entities"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "sha256") || strings.Contains(out, "limits") {
		t.Errorf("%s", out)
	}
	var x inspected
	if err := json.Unmarshal([]byte(p.must("plugin", "inspect", "native:pii", "-o", "json")), &x); err != nil || x.Manifest.Name != "pii" || x.SHA256 != "" || !x.Manifest.Mutates {
		t.Errorf("%+v %v", x, err)
	}
	var list []benched
	if err := json.Unmarshal([]byte(p.must("plugin", "bench", "native:pii", "--time", "8ms", "--set", `entities=["EMAIL"]`, "-o", "json")), &list); err != nil || len(list) != 3 || list[2].NS <= 0 {
		t.Errorf("%+v %v", list, err)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{`no native plugin "none": this build has first, pii`, []string{"inspect", "native:none"}},
		{"there is nothing to fetch or to compare", []string{"inspect", "native:pii", "--sha256", hexSum(nil)}},
		{"vectors are frames of the contract for guests", []string{"test", "native:pii"}},
		{"vectors are frames of the contract for guests", []string{"test", "native:pii", "--vectors", p.file("v.json", []byte(passVectors))}},
	} {
		if code, _, err := p.weir(append([]string{"plugin"}, c.args...)...); code != exitUse || !strings.Contains(err, c.want) {
			t.Errorf("%v: exit %d, %s", c.args, code, err)
		}
	}
	if code, _, err := p.weir("plugin", "bench", "native:pii", "--set", `entities=["NAME"]`); code != exitNo || !strings.Contains(err, "refuses its config") {
		t.Errorf("exit %d %s", code, err)
	}

	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, got := r.talk(t, token, "hello world")
	_ = conn.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if out := p.must("plugin", "test", "native:pii", "--session", strings.TrimPrefix(got[0], "ok ")); !strings.Contains(out, "events asked about, 0 denied, 0 values changed;") {
		t.Error(out)
	}
}

// TestNativePluginReadme: the step that the plugin's page prints is one.
func TestNativePluginReadme(t *testing.T) {
	withNatives(t)
	text, err := os.ReadFile("../../plugins/pii/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "  - {name: pii, native")
	line, _, whole := strings.Cut(rest, "}\n")
	if !found || !whole {
		t.Fatal("it prints none")
	}
	p := newPlace(t)
	p.guest("native" + line)
	p.must("check")
}
