package cli

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/wasm"
	"github.com/weir-gateway/weir/sdk"
)

// command runs weir and returns its exit code and what it printed.
func command(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), Build{SDK: sdk.FS}, args, &out, &err)
	return code, out.String(), err.String()
}

// begun makes a project of a language.
func begun(t *testing.T, language string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "my-plugin")
	if code, out, err := command(t, "plugin", "new", dir, "--lang", language); code != 0 || !strings.Contains(out, "weir plugin build") {
		t.Fatalf("new: %d %s %s", code, out, err)
	}
	if language == "assemblyscript" {
		modules, err := filepath.Abs("../../sdk/assemblyscript/node_modules")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(modules); err != nil {
			t.Skip("the compiler is not here: make sdks fetches it")
		}
		if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// build builds a project where there are the tools.
func build(t *testing.T, dir string) (module []byte) {
	t.Helper()
	code, out, err := command(t, "plugin", "build", dir)
	if code != 0 && strings.Contains(err, "is not installed here") {
		t.Skip(err)
	}
	if code != 0 || !strings.Contains(out, "my-plugin.wasm: ") {
		t.Fatalf("build: %d %s %s", code, out, err)
	}
	module, readErr := os.ReadFile(filepath.Join(dir, "my-plugin.wasm"))
	if readErr != nil {
		t.Fatal(readErr)
	}
	return module
}

// TestPluginNew makes, builds, loads and asks a project of each language.
func TestPluginNew(t *testing.T) {
	for _, language := range languageNames() {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			dir := begun(t, language)
			module := build(t, dir)
			ctx := t.Context()
			h, err := wasm.Open(ctx, wasm.HostConfig{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = h.Close(context.Background()) })
			p, err := h.Load(ctx, wasm.Config{Name: "p", Module: module})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close(context.Background()) })

			session := &core.Session{ID: "s", Protocol: "postgres", Target: &core.Target{Name: "orders"}, Identity: core.Identity{Subject: "ada"}}
			ask := func(e *core.Event) core.Verdict {
				e.Session = session
				v, err := p.Inspect(ctx, e)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
			judge := func(effect core.Effect) core.Verdict {
				c := &core.Command{Action: "x", Text: "x", Effects: []core.Effect{effect}, Status: core.StatusKnown}
				return ask(&core.Event{Kind: core.KindCommand, Direction: core.FromClient, Exchange: &core.Exchange{Command: c}})
			}
			if v := judge(core.EffectRead); v.Deny != nil {
				t.Errorf("reading: %+v", v.Deny)
			}
			if v := judge(core.EffectDDL); v.Deny == nil || *v.Deny != (core.Denial{Rule: "no-ddl", Reason: "the schema is not changed here", Hint: "write a migration"}) {
				t.Errorf("a change of the schema: %+v", v.Deny)
			}
			b := &core.Batch{Columns: []core.Column{{Name: "phone", Type: "text"}, {Name: "doc", Type: "jsonb"}, {Name: "n", Type: "int4"}}, Watch: []int{0, 1, 2}, Rows: 2}
			for _, s := range []string{"+1 202 555 0143", "{}", "12345", "straße", "", "1"} {
				b.Cells = append(b.Cells, core.Cell{Off: int32(len(b.Data)), Len: int32(len(s))})
				b.Data = append(b.Data, s...)
			}
			if v := ask(&core.Event{Kind: core.KindRows, Direction: core.FromUpstream, Rows: b, Exchange: &core.Exchange{}}); !v.Changed {
				t.Error("no value was changed")
			}
			var got []string
			for i := range b.Cells {
				v, ok := b.Value(i)
				if !ok {
					v = []byte("NULL")
				}
				got = append(got, string(v))
			}
			if want := []string{"***********0143", "NULL", "12345", "**raße", "", "1"}; !slices.Equal(got, want) {
				t.Errorf("the rows are %q, not %q", got, want)
			}
			if code, out, err := command(t, "plugin", "test", filepath.Join(dir, "my-plugin.wasm")); code != 0 || !strings.Contains(out, " 0 failed") {
				t.Errorf("its tests.json: %d %s %s", code, out, err)
			}
			if language == "go" {
				cmd := exec.CommandContext(ctx, "go", "test", "./...")
				cmd.Dir = dir
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("its own test: %v\n%s", err, out)
				}
			}
		})
	}
}

// stateful are plugins that keep a number for their session, try what kv offers, and deny with what they have found out.
var stateful = map[string]struct{ file, text string }{
	"go": {"main.go", `//go:build wasip1

package main

import weir "github.com/weir-gateway/weir/sdk/go"

var asked int

func init() {
	weir.Register(weir.Plugin{
		Name: "stateful", Version: "1", KV: true, Connection: true,
		Subscribe: []weir.Subscription{{Kinds: []weir.Kind{weir.Command}}},
		Begin: func(e *weir.Event) error {
			asked = 10
			if e.Subject() == "eve" {
				return weir.Error("eve is not taken")
			}
			return nil
		},
		End: func(session uint64) { weir.KVIncr("ended", 1, 0) },
		OnCommand: func(e *weir.Event) {
			asked++
			n, added := weir.KVIncr("n", 5, 0)
			b, found := weir.KVGet("n")
			put := weir.KVPut("n", []byte("abc"), 0)
			_, text := weir.KVIncr("n", 1, 0)
			weir.KVRemove("n")
			_, left := weir.KVGet("n")
			ended, _ := weir.KVGet("ended")
			if asked > 10 && added && n == 5 && found && len(b) == 8 && b[0] == 5 && put && !text && !left {
				e.Deny("kv", string(rune('0'+asked-10)), string(rune('0'+len(ended))))
			}
		},
	})
}

func main() {}
`},
	"c": {"plugin.c", `#include "weir.h"
static char asked[] = "0";
static bool begin(weir_event *e) {
	asked[0] = '0';
	if (!weir_is(weir_attribute(e, WEIR_SUBJECT), "eve")) return true;
	weir_log(WEIR_ERROR, "eve is not taken");
	return false;
}
static void end(uint64_t session) {
	int64_t n = (int64_t)session;
	weir_kv_incr(WEIR_TEXT("ended"), 1, 0, &n);
}
static void on_command(weir_event *e) {
	int64_t n = 0;
	uint8_t b[8];
	asked[0]++;
	bool added = weir_kv_incr(WEIR_TEXT("n"), 5, 0, &n) && n == 5 && weir_kv_get(WEIR_TEXT("n"), b, 8) == 8 && b[0] == 5;
	bool put = weir_kv_put(WEIR_TEXT("n"), WEIR_TEXT("abc"), 0) && !weir_kv_incr(WEIR_TEXT("n"), 1, 0, &n);
	weir_kv_remove(WEIR_TEXT("n"));
	if (added && put && weir_kv_get(WEIR_TEXT("n"), b, 8) == -1)
		weir_deny(e, "kv", asked, weir_kv_get(WEIR_TEXT("ended"), b, 8) == 8 ? "8" : "0");
}
WEIR_PLUGIN(.name = "stateful", .version = "1", .kv = true, .connection = true, .subscribe = {{.kinds = WEIR_COMMAND}},
	.begin = begin, .end = end, .on_command = on_command)
`},
	"rust": {"src/lib.rs", `#![no_std]
use weir::*;
struct K(usize);
impl Plugin for K {
    const MANIFEST: Manifest = Manifest {
        name: "stateful", version: "1", kv: true, connection: true,
        subscribe: &[Subscription { kinds: &[Kind::Command], ..Subscription::NONE }], ..Manifest::DEFAULT
    };
    fn configure(_: json::Value<'_>) -> Result<Self, &'static str> { Ok(K(0)) }
    fn begin(&mut self, e: &mut Event<'_>) -> Result<(), &'static str> {
        if e.subject() == b"eve" { Err("eve is not taken") } else { Ok(()) }
    }
    fn end(&mut self, _: u64) { kv_incr(b"ended", 1, 0); }
    fn on_command(&mut self, e: &mut Event<'_>) {
        self.0 += 1;
        let mut b = [0; 8];
        let added = kv_incr(b"n", 5, 0) == Some(5) && kv_get(b"n", &mut b) == Some(8) && b[0] == 5;
        let put = kv_put(b"n", b"abc", 0) && kv_incr(b"n", 1, 0).is_none();
        kv_remove(b"n");
        if added && put && kv_get(b"n", &mut b).is_none() {
            e.deny("kv", ["0", "1", "2", "3"][self.0], if kv_get(b"ended", &mut b).is_some() { "8" } else { "0" });
        }
    }
}
weir::plugin!(K);
weir::no_std!();
`},
	"assemblyscript": {"assembly/index.ts", `import { Event, Kind, kvGet, kvIncr, kvPut, kvRemove, Manifest, Plugin, register } from "./weir";
export * from "./weir/exports";
class K extends Plugin {
  asked: i32 = 0;
  manifest(): Manifest {
    const m = new Manifest("stateful", "1").subscribe([Kind.Command]);
    m.kv = true;
    m.connection = true;
    return m;
  }
  begin(e: Event): string | null {
    return e.subject == "eve" ? "eve is not taken" : null;
  }
  end(session: u64): void {
    kvIncr("ended", 1);
  }
  onCommand(e: Event): void {
    this.asked++;
    const added = kvIncr("n", 5) == 5 && kvGet("n")!.length == 8 && kvGet("n")![0] == 5;
    const put = kvPut("n", new Uint8Array(3)) && kvIncr("n", 1) == i64.MIN_VALUE;
    kvRemove("n");
    if (added && put && kvGet("n") === null) e.deny("kv", this.asked.toString(), kvGet("ended") === null ? "0" : "8");
  }
}
register(new K());
`},
}

// TestPluginState: an instance for each session, and what instances share, in each language.
func TestPluginState(t *testing.T) {
	for language, source := range stateful {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			dir := begun(t, language)
			if err := os.WriteFile(filepath.Join(dir, source.file), []byte(source.text), 0o600); err != nil {
				t.Fatal(err)
			}
			module := build(t, dir)
			h, err := wasm.Open(t.Context(), wasm.HostConfig{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = h.Close(context.Background()) })
			p, err := h.Load(t.Context(), wasm.Config{Name: "p", Module: module, GrantAll: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = p.Close(context.Background()) })
			sessions := map[string]*core.Session{}
			ask := func(id, subject string) (core.Verdict, error) {
				if sessions[id] == nil {
					sessions[id] = &core.Session{ID: id, Protocol: "postgres", Target: &core.Target{Name: "orders"}, Identity: core.Identity{Subject: subject}}
				}
				c := &core.Command{Action: "x", Text: "x", Status: core.StatusKnown}
				return p.Inspect(t.Context(), &core.Event{Kind: core.KindCommand, Direction: core.FromClient, Session: sessions[id], Exchange: &core.Exchange{Command: c}})
			}
			for i, step := range []struct{ session, asked, ended string }{{"a", "1", "0"}, {"a", "2", "0"}, {"b", "1", "0"}, {"a", "3", "0"}, {"c", "1", "8"}} {
				if step.ended == "8" {
					p.Forget(sessions["a"])
				}
				v, err := ask(step.session, "ada")
				if err != nil || v.Deny == nil || v.Deny.Rule != "kv" || v.Deny.Reason != step.asked || v.Deny.Hint != step.ended {
					t.Fatalf("step %d: %+v %v", i, v.Deny, err)
				}
			}
			if _, err := ask("d", "eve"); err == nil || !strings.Contains(err.Error(), "eve is not taken") {
				t.Errorf("a session that is refused: %v", err)
			}
		})
	}
}

func TestPluginNewRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"new", dir + "/a", "--lang", "cobol"}, "--lang is one of go, rust, c, assemblyscript"},
		{[]string{"new", dir + "/a"}, `required flag(s) "lang" not set`},
		{[]string{"new", dir + "/Upper", "--lang", "c"}, `cannot be called "Upper"`},
		{[]string{"new", dir + "/weir", "--lang", "go"}, `cannot be called "weir"`},
		{[]string{"new", dir + "/a-", "--lang", "c"}, `cannot be called "a-"`},
		{[]string{"new", dir + `/a"b`, "--lang", "c"}, "cannot be called"},
		{[]string{"build", dir}, "is no plugin's project"},
	} {
		if code, _, err := command(t, append([]string{"plugin"}, c.args...)...); code != exitUse || !strings.Contains(err, c.want) {
			t.Errorf("%q: %d %s", c.args, code, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("a refusal left %v", left)
	}
	if code, _, err := command(t, "plugin", "new", dir+"/mine", "--lang", "c"); code != 0 {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/mine/plugin.c", []byte("my work"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, err := command(t, "plugin", "new", dir+"/mine", "--lang", "c"); code != exitUse || !strings.Contains(err, "is there already") {
		t.Errorf("%d %s", code, err)
	}
	if b, _ := os.ReadFile(dir + "/mine/plugin.c"); string(b) != "my work" {
		t.Error("it wrote over a project")
	}
}

// TestPluginBuildSaysWhatIsMissing has no tools at all.
func TestPluginBuildSaysWhatIsMissing(t *testing.T) {
	if _, err := os.Stat("/usr/bin/rustc"); err == nil {
		t.Log("Debian's rustc is found without PATH: rust is left out")
	}
	t.Setenv("PATH", t.TempDir())
	for language, want := range map[string]string{
		"go": "apt-get install golang-go", "c": "apt-get install clang-19 lld-19", "assemblyscript": "apt-get install nodejs npm",
	} {
		dir := filepath.Join(t.TempDir(), "mine")
		if code, _, err := command(t, "plugin", "new", dir, "--lang", language); code != 0 {
			t.Fatal(err)
		}
		if code, _, err := command(t, "plugin", "build", dir); code != exitUse || !strings.Contains(err, "is not installed here") || !strings.Contains(err, want) {
			t.Errorf("%s: %d %s", language, code, err)
		}
	}
}

// TestPluginBuildShowsErrors: what the compiler says is on stderr.
func TestPluginBuildShowsErrors(t *testing.T) {
	dir := begun(t, "c")
	if err := os.WriteFile(filepath.Join(dir, "plugin.c"), []byte("#include \"weir.h\"\nthis is no C\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, err := command(t, "plugin", "build", dir)
	if strings.Contains(err, "is not installed here") {
		t.Skip(err)
	}
	if code != exitUse || !strings.Contains(err, "plugin.c:2:") {
		t.Errorf("%d %s", code, err)
	}
}

func TestTOMLTable(t *testing.T) {
	text := "[package]\nname = \"x\"\n[dependencies]\n# no = 1\nweir = { path = \"weir\" }\n\nserde = \"1\"\n[dependencies.regex]\nversion = \"1\"\n[lib]\na = 1\n"
	if got := tomlTable([]byte(text), "dependencies"); !slices.Equal(got, []string{"weir", "serde", "regex"}) {
		t.Errorf("%q", got)
	}
}
