package opa

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
)

// TestFaults is the list of what can go wrong with a policy. Whatever does, the answer is a refusal or the rules that
// were in force before.
func TestFaults(t *testing.T) {
	t.Run("F27 does not parse or compile", faultBroken)
	t.Run("F28 undefined", faultUndefined)
	t.Run("F29 a built-in function fails", faultBuiltin)
	t.Run("F30 too slow", faultSlow)
	t.Run("F31 reaches outside", faultOutside)
	t.Run("F32 the server is away", faultAway)
	t.Run("F33 not signed, or older", faultOlder)
	t.Run("F34 a bundle that is larger than it looks", faultBomb)
	t.Run("F35 too much data", faultData)
	t.Run("F36 in each other's way", faultRoots)
	t.Run("F37 the clock jumps", faultClock)
	t.Run("reloads under load", faultReload)
}

// packed makes a bundle of files, as any tool may make one: nothing in it is checked.
func packed(t testing.TB, kv ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	var err error
	for i := 0; i < len(kv); i += 2 {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: kv[i], Mode: 0o600, Size: int64(len(kv[i+1]))}))
		_, bad := io.WriteString(w, kv[i+1])
		err = errors.Join(err, bad)
	}
	if err := errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// shelf is a server of bundles, and a gateway's way of asking it.
type shelf struct {
	*Remote
	t       testing.TB
	content atomic.Pointer[[]byte] // nil: the server is away
}

func newShelf(t testing.TB) *shelf {
	s := &shelf{t: t}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if b := s.content.Load(); b != nil {
			_, _ = w.Write(*b)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	s.Remote = &Remote{URL: server.URL + "/b.tar.gz", File: filepath.Join(dir, "b.tar.gz"), History: filepath.Join(dir, "b.history.json")}
	return s
}

func (s *shelf) offers(b []byte) { s.content.Store(&b) }

// next fetches, checks and keeps what the server has. Without anything new it returns nil.
func (s *shelf) next(key *Key) (*Policy, error) {
	file, mark, err := s.Fetch(context.Background())
	if err != nil || file == "" {
		return nil, err
	}
	defer os.Remove(file)
	p, err := Load(context.Background(), Config{Name: "served", Path: file, Key: key})
	if err == nil {
		err = s.Check(p)
	}
	if err == nil {
		err = s.Keep(file, mark, p)
	}
	return p, err
}

// takes has the server offer a bundle, and wants it taken.
func (s *shelf) takes(what string, b []byte) {
	s.t.Helper()
	s.offers(b)
	if p, err := s.next(nil); err != nil || p == nil {
		s.t.Errorf("%s is not taken: %v", what, err)
	}
}

// leaves wants a bundle refused, and the one before it left in force.
func (s *shelf) leaves(what string, b []byte, key *Key, want string) {
	s.t.Helper()
	before, err := os.ReadFile(s.File)
	if err != nil {
		s.t.Fatal(err)
	}
	s.offers(b)
	if _, err := s.next(key); err == nil || !strings.Contains(err.Error(), want) {
		s.t.Errorf("%s: %v, not %q", what, err, want)
	}
	if after, err := os.ReadFile(s.File); err != nil || !bytes.Equal(before, after) {
		s.t.Errorf("%s has taken the place of the last good one", what)
	}
}

const denyDDL = head + `deny contains {"rule": "no-ddl"} if "ddl" in input.event.command.effects`

func revision(name string, sequence int, rego string) []string {
	manifest := fmt.Sprintf(`{"revision": %q, "roots": [""]}`, name)
	if sequence > 0 {
		manifest = fmt.Sprintf(`{"revision": %q, "roots": [""], "metadata": {"sequence": %d}}`, name, sequence)
	}
	return []string{"/.manifest", manifest, "/p.rego", rego}
}

// refused asks a policy as a chain does, where an error is a denial.
func refusedBy(t *testing.T, p *Policy, e *core.Event) string {
	t.Helper()
	c, err := chain.New(chain.Step{Name: "policy", Plugin: p})
	if err != nil {
		t.Fatal(err)
	}
	e.Session.Begin(core.SessionConfig{Chain: c})
	if v := e.Session.Check(context.Background(), e); v.Deny != nil {
		return v.Deny.Rule
	}
	return ""
}

func faultBroken(t *testing.T) {
	s := newShelf(t)
	s.takes("a good one", packed(t, revision("r1", 0, denyDDL)...))
	for what, c := range map[string]struct{ rego, want string }{
		"a syntax error":          {head + "deny contains {", "p.rego"},
		"a type error":            {head + `deny contains {"rule": "x"} if count(1) == 1`, "p.rego"},
		"an unsafe variable":      {head + `deny contains {"rule": x} if true`, "p.rego"},
		"no answer":               {head + "x := 1", "do nothing"},
		"an answer of other form": {head + `deny := "no"`, "wrong form"},
		"no rego":                 {"", "p.rego"},
	} {
		s.leaves(what, packed(t, revision("r2", 0, c.rego)...), nil, c.want)
	}
	s.leaves("no archive", []byte("<html>an error page</html>"), nil, "no .tar.gz")
	s.leaves("half of one", packed(t, revision("r2", 0, denyDDL)...)[:100], nil, "no .tar.gz")
	p, err := Load(context.Background(), Config{Name: "served", Path: s.File})
	if err != nil {
		t.Fatal(err)
	}
	if rule := refusedBy(t, p, command("drop", core.EffectDDL)); rule != "no-ddl" {
		t.Errorf("the one before is not in force: %q", rule)
	}
}

func faultUndefined(t *testing.T) {
	for rego, want := range map[string]string{
		"package weir.access\nallow if input.identity.claims.nothing.there":           "access",
		"package weir.access\nallow := input.identity.claims.nothing":                 "access",
		"package weir.access\nallow if data.weir.nothing.there":                       "access",
		"package weir.access\ndefault allow := false":                                 "access",
		"package weir.access\nallow := {}":                                            "step-error",
		"package weir.access\nallow if true\ndeny contains {\"rule\": \"x\"} if true": "x",
	} {
		p := mustLoad(t, Config{FS: files("a.rego", rego)})
		if rule := refusedBy(t, p, &core.Event{Kind: core.KindOpen, Session: newSession()}); rule != want {
			t.Errorf("%s: %q, not %s", rego, rule, want)
		}
	}
}

func faultBuiltin(t *testing.T) {
	for _, call := range []string{
		`to_number(input.event.command.text) > 1`, `time.parse_rfc3339_ns(input.event.command.text) > 1`, `json.unmarshal(input.event.command.text).a`,
		`1 / count(input.event.columns) > 1`, `object.get(input.event.command.text, "a", 1) == 1`, `base64.decode(input.event.command.text) == ""`,
		`regex.match(input.event.command.text, "x")`, `startswith(input.event.command.where, "x")`, `endswith(input.event.command.where, "x")`,
		`glob.match("x*", ["."], input.event.command.where)`, `strings.any_prefix_match(input.event.command.where, ["x"])`,
		`strings.any_suffix_match(input.event.command.where, {"x"})`, `net.cidr_contains(input.event.command.text, "10.0.0.1")`,
	} {
		e := command("(not any of it")
		e.Columns = []core.Column{}
		for _, written := range []string{
			`deny contains {"rule": "fired"} if ` + call, `deny contains {"rule": "fired"} if helper` + "\nhelper if " + call,
			"import future.keywords.and\n" + `deny contains {"rule": "fired"} if (` + call + ` and input.event.command.text)`,
			`deny contains {"rule": "fired"} if { some i in [1]; i == 1; ` + call + " }", `deny contains {"rule": "fired"} if not ` + call + "\n",
		} {
			if rule := refusedBy(t, guardrails(t, written), e); rule != "step-error" {
				t.Errorf("%s fails, and the answer is %q", written, rule)
			}
		}
	}
}

func faultSlow(t *testing.T) {
	p := mustLoad(t, Config{Timeout: 20 * time.Millisecond, FS: files("a.rego", head+
		`deny contains {"rule": "x"} if { some i, j in numbers.range(1, 3000); some k in numbers.range(1, 3000); i * k == -1 }`)})
	start := time.Now()
	if rule := refusedBy(t, p, command("x")); rule != "step-error" {
		t.Errorf("%q", rule)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.timeout = time.Hour
	if _, err := p.Inspect(ctx, command("y")); !errors.Is(err, context.Canceled) {
		t.Errorf("a client that is gone is still answered: %v", err)
	}
}

func faultOutside(t *testing.T) {
	for _, name := range []string{"http.send", "net.lookup_ip_addr", "opa.runtime", "time.now_ns", "rand.intn", "uuid.rfc4122"} {
		if refused[name] == "" {
			t.Errorf("%s is not refused", name)
		}
	}
	for _, b := range ast.Builtins {
		if refused[b.Name] == "" {
			continue
		}
		args := strings.TrimSuffix(strings.Repeat("input.x, ", len(b.Decl.FuncArgs().Args)), ", ")
		_, err := Load(context.Background(), Config{Name: "x", FS: files("p.rego", head+`deny contains {"rule": "x"} if `+b.Name+"("+args+")")})
		if err == nil || !strings.Contains(err.Error(), b.Name+" cannot be used here") {
			t.Errorf("%s: %v", b.Name, err)
		}
	}
}

func faultAway(t *testing.T) {
	s := newShelf(t)
	if _, err := s.next(nil); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a server that is away: %v", err)
	}
	if _, kept := s.Age(); kept {
		t.Error("there is a last good one before any has come")
	}
	if _, err := Load(context.Background(), Config{Name: "x", Path: s.File}); err == nil {
		t.Error("nothing is there, and it loads")
	}
	s.takes("the first", packed(t, revision("r1", 0, denyDDL)...))
	s.content.Store(nil)
	if _, err := s.next(nil); err == nil {
		t.Error("the server is away, and nobody is told")
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(s.File, old, old); err != nil {
		t.Fatal(err)
	}
	if age, kept := s.Age(); !kept || age < 59*time.Minute {
		t.Errorf("%v %v", age, kept)
	}
	p := mustLoad(t, Config{Path: s.File}) // a gateway that starts now
	if rule := refusedBy(t, p, command("drop", core.EffectDDL)); rule != "no-ddl" {
		t.Errorf("%q", rule)
	}
}

func faultOlder(t *testing.T) {
	private, public := keyPair(t)
	other, _ := keyPair(t)
	key := &Key{public, "ES256"}
	s := newShelf(t)
	s.offers(bundleOf(t, denyAll, private))
	if _, err := s.next(key); err != nil {
		t.Fatal(err)
	}
	s.leaves("not signed", bundleOf(t, denyDDL, ""), key, "signature")
	s.leaves("signed by another", bundleOf(t, denyDDL, other), key, "verif")
	s.leaves("changed", rewritten(t, bundleOf(t, denyDDL, private), "ddl", "dd1"), key, "digest")
	s.leaves("only changes", packed(t, "/.manifest", `{"revision": "r2", "roots": [""]}`, "/patch.json", `{"data": [{"op": "upsert", "path": "/x", "value": 1}]}`), nil, "changes only")

	s = newShelf(t)
	r1, r2, r3 := packed(t, revision("r1", 0, denyAll)...), packed(t, revision("r2", 0, denyDDL)...), packed(t, revision("r3", 0, denyDDL)...)
	s.takes("r1", r1)
	s.takes("r2", r2)
	s.leaves("r1 again", r1, nil, `revision "r1" was in force from`)
	s.leaves("r1 with other content", packed(t, revision("r1", 0, denyAll+"\n# again")...), nil, `revision "r1" was in force from`)
	s.takes("r3", r3)
	s.takes("r3, built again", packed(t, revision("r3", 0, denyDDL+"\n")...))
	again := *s.Remote // a gateway that is started again
	s.Remote = &again
	s.leaves("r2 after a restart", r2, nil, `"r2"`)
	s.Back = "r2"
	s.takes("r2, which the operator lets back", r2)
	s.Back = ""
	s.leaves("r1 after that", r1, nil, `"r1"`)

	s = newShelf(t) // no revision is given: the content is it
	a, b := packed(t, "/p.rego", denyAll), packed(t, "/p.rego", denyDDL)
	s.takes("a", a)
	s.takes("b", b)
	s.leaves("a again", a, nil, "was in force")

	s = newShelf(t) // a sequence tells of what was never seen here, too
	s.takes("the seventh", packed(t, revision("x", 7, denyAll)...))
	s.leaves("the sixth", packed(t, revision("y", 6, denyDDL)...), nil, "sequence 6")
	s.leaves("another seventh", packed(t, revision("y", 7, denyDDL)...), nil, "sequence 7")
	s.leaves("one without", packed(t, revision("y", 0, denyDDL)...), nil, "sequence 0")
	s.leaves("a sequence that is none", packed(t, "/.manifest", `{"revision": "y", "roots": [""], "metadata": {"sequence": "eight"}}`, "/p.rego", denyDDL), nil, "no whole number")
	s.takes("the eighth", packed(t, revision("y", 8, denyDDL)...))

	// What was written when the power failed: the history knows the new one, and the file is the old one.
	s = newShelf(t)
	s.takes("r1", r1)
	s.takes("r2", r2)
	if err := os.WriteFile(s.File, r1, 0o600); err != nil {
		t.Fatal(err)
	}
	s.takes("r2 again", r2)
	if err := os.WriteFile(s.History, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.leaves("r3 with a history that cannot be read", r3, nil, "cannot be read")
}

func faultBomb(t *testing.T) {
	large := strings.Repeat(" ", 65<<20)
	small := packed(t, "/p.rego", denyAll, "/data.json", `{"a":`+large+`1}`)
	if len(small) > 1<<20 {
		t.Fatal("it is no bomb")
	}
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	load := func(b []byte, most int64) error {
		t.Helper()
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(context.Background(), Config{Name: "x", Path: file, MaxBytes: most})
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if err := load(small, 0); err == nil || !strings.Contains(err.Error(), "unpacked it has more than 67108864 bytes: max_size") {
		t.Errorf("65 MB: %v", err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
		t.Errorf("%d bytes were taken to find out", n)
	}
	two := packed(t, "/p.rego", denyAll, "/data.json", `{"a":`+large[:2<<20]+`1}`)
	if err := load(two, 1<<20); err == nil || !strings.Contains(err.Error(), "more than 1048576 bytes") {
		t.Errorf("2 MB, where 1 may be: %v", err)
	}
	if err := load(two, 4<<20); err != nil {
		t.Errorf("2 MB, where 4 may be: %v", err)
	}
	if err := load(packed(t, "/p.rego", denyAll+large[:5<<20]), 0); err == nil || !strings.Contains(err.Error(), "p.rego has") {
		t.Errorf("5 MB of Rego: %v", err)
	}
	many := []string{"/p.rego", denyAll}
	for i := range maxFiles {
		many = append(many, fmt.Sprintf("/f%d/data.json", i), "{}")
	}
	if err := load(packed(t, many...), 0); err == nil || !strings.Contains(err.Error(), "more than 4096 files") {
		t.Errorf("too many files: %v", err)
	}
	s := newShelf(t)
	s.takes("a good one", packed(t, "/p.rego", denyAll))
	s.leaves("the bomb", small, nil, "unpacked")
	s.MaxBytes = 1 << 10
	noise := make([]byte, 4<<10)
	for i := range noise {
		noise[i] = byte(i * i >> 3)
	}
	s.leaves("more than may come", slices.Concat(small, noise), nil, "larger than 1 KiB")
}

func faultData(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte(denyAll), 0o600); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "data.json")
	for _, c := range []struct {
		bytes int64
		most  int64
		want  string
	}{
		{500 << 20, 0, "data.json has 524288000 bytes"}, {3 << 20, 2 << 20, "data.json has 3145728 bytes"},
	} {
		if err := errors.Join(os.WriteFile(name, []byte("{}"), 0o600), os.Truncate(name, c.bytes)); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(context.Background(), Config{Name: "x", Path: dir, MaxBytes: c.most}); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "max_size") {
			t.Errorf("%d bytes: %v", c.bytes, err)
		}
	}
	// Ten million bytes are fine; make bench-policies has a hundred.
	var b strings.Builder
	b.WriteString(`{"list": {`)
	for i := 0; b.Len() < 10_000_000; i++ {
		fmt.Fprintf(&b, `"entry-%d": %q, `, i, strings.Repeat("x", 1000))
	}
	b.WriteString(`"last": "here"}}`)
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "p.rego"), []byte(head+`deny contains {"rule": "r"} if data.list.last == "here"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if rule := refusedBy(t, mustLoad(t, Config{Path: dir}), command("x")); rule != "r" {
		t.Errorf("%q", rule)
	}
}

func faultRoots(t *testing.T) {
	s := newShelf(t)
	s.takes("a good one", packed(t, revision("r1", 0, denyAll)...))
	for what, c := range map[string]struct {
		files []string
		want  string
	}{
		"roots in each other":      {[]string{"/.manifest", `{"roots": ["weir", "weir/guardrails"]}`, "/p.rego", denyAll}, "overlapped roots"},
		"the same root twice":      {[]string{"/.manifest", `{"roots": ["weir", "weir"]}`, "/p.rego", denyAll}, "overlapped roots"},
		"rules outside the roots":  {[]string{"/.manifest", `{"roots": ["other"]}`, "/p.rego", denyAll}, "do not permit"},
		"data outside the roots":   {[]string{"/.manifest", `{"roots": ["weir"]}`, "/p.rego", denyAll, "/data.json", `{"other": 1}`}, "do not permit"},
		"data over a rule":         {[]string{"/p.rego", denyAll, "/weir/guardrails/data.json", `{"deny": []}`}, "conflict"},
		"rules of different forms": {[]string{"/p.rego", denyAll, "/q.rego", head + `deny := true`}, "conflict"},
		"a package over a rule":    {[]string{"/p.rego", denyAll + "\nx := 1", "/q.rego", "package weir.guardrails.x\ny := 1"}, "conflict"},
	} {
		s.leaves(what, packed(t, c.files...), nil, c.want)
	}
}

func faultClock(t *testing.T) {
	p := guardrails(t, `deny contains {"rule": "night"} if { [h, _, _] := time.clock(time.parse_rfc3339_ns(input.time)); h < 8 }`)
	at := func(s string) string {
		t.Helper()
		e := command("x")
		var err error
		if e.Time, err = time.Parse(time.RFC3339, s); err != nil {
			t.Fatal(err)
		}
		return refusedBy(t, p, e)
	}
	for _, c := range []struct{ at, want string }{
		{"2026-11-23T07:59:59Z", "night"}, {"2026-11-23T08:00:00Z", ""}, // ticks
		{"2026-11-23T07:30:00Z", "night"},                                         // stepped back
		{"2026-11-24T09:00:00Z", ""},                                              // stepped forward by a day
		{"2026-11-24T09:00:00+02:00", "night"}, {"1970-01-01T00:00:00Z", "night"}, // another zone; a clock that was never set
		{"2026-11-24T09:00:00Z", ""},
	} {
		if got := at(c.at); got != c.want {
			t.Errorf("at %s: %q, not %q", c.at, got, c.want)
		}
	}
	if s := p.Stats(); s.Entries != 0 || s.Hits != 0 {
		t.Errorf("a verdict that depends on the time is kept: %+v", s)
	}
}

// faultReload: while bundles come one after the other, no verdict is made of two of them.
func faultReload(t *testing.T) {
	content := func(n int) []byte {
		data := make([]string, 200)
		for i := range data {
			data[i] = fmt.Sprintf(`"k%d": %d`, i, n)
		}
		return packed(t, "/.manifest", fmt.Sprintf(`{"revision": "r%d", "roots": [""]}`, n),
			"/p.rego", fmt.Sprintf(head+`deny contains {"rule": "r%d", "reason": concat(",", values)} if values := {format_int(v, 10) | some v in data.list}`, n)+"\n"+
				fmt.Sprintf(`mask contains {"column": "c%d", "with": "redact"} if true`, n),
			"/q.rego", head+fmt.Sprintf(`limit contains {"rows": %d} if input.event.command.text != ""`, n+1),
			"/list/data.json", "{"+strings.Join(data, ",")+"}")
	}
	s := newShelf(t)
	s.takes("the first", content(0))
	var now atomic.Pointer[Policy]
	now.Store(mustLoad(t, Config{Path: s.File}))
	var over atomic.Bool
	var asked, seen atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := -1
			for i := 0; !over.Load(); i++ {
				p := now.Load()
				v, err := p.Inspect(context.Background(), command(fmt.Sprint(i%7)))
				asked.Add(1)
				if err != nil {
					t.Error(err)
					return
				}
				n := int(v.Limit.Rows) - 1
				if v.Deny == nil || v.Deny.Rule != fmt.Sprint("r", n) || v.Deny.Reason != fmt.Sprint(n) || len(v.Masks) != 1 || v.Masks[0].Column != fmt.Sprint("c", n) ||
					!strings.Contains(v.Decisions[0].Detail, "@"+p.Revision()[:12]) {
					t.Errorf("a verdict of two revisions: %+v %+v", v, v.Deny)
					return
				}
				if n < last {
					t.Errorf("revision %d after %d", n, last)
					return
				}
				if n != last {
					last = n
					seen.Add(1)
				}
			}
		})
	}
	for n := 1; n <= 12; n++ {
		s.offers(content(n))
		p, err := s.next(nil)
		if err != nil || p == nil {
			t.Fatal(n, err)
		}
		now.Store(p)
		if n%5 == 0 { // a broken one in between
			s.leaves("a broken one", packed(t, "/p.rego", head+"deny contains {"), nil, "p.rego")
		}
		s.offers(content(n))
	}
	over.Store(true)
	wg.Wait()
	if asked.Load() < 12 || seen.Load() < 8 {
		t.Errorf("%d questions met %d revisions: nothing was shown", asked.Load(), seen.Load())
	}
	t.Logf("%d questions during 12 reloads", asked.Load())
}
