package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/identity"
)

// withAdmins gives a place a policy for its admin address: the group ops may do everything, and so may the key.
func (p *place) withAdmins() {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, "admins.rego"), []byte(`package weir.admin
allow if input.event.admin.operator
allow if "ops" in input.identity.groups
`), 0o600); err != nil {
		p.t.Fatal(err)
	}
	p.replace("policies:\n", "admin: {chain: [admins]}\npolicies:\n  - {name: admins, path: ./admins.rego}\n")
}

// TestAdminChain: a policy about the gateway is asked about it and about nothing else, or nothing starts.
func TestAdminChain(t *testing.T) {
	for name, c := range map[string]struct {
		change func(p *place)
		want   string
	}{
		"one for sessions": {func(p *place) {
			p.replace("chain: [small]", "chain: [small]\nadmin: {chain: [other]}")
			p.replace("policies:\n", "policies:\n  - {name: other, path: \"builtin:small\"}\n")
		}, "has no package weir.admin"},
		"in a chain of targets": {func(p *place) {
			p.withAdmins()
			p.replace("admin: {chain: [admins]}\n", "")
			p.replace("chain: [small]", "chain: [small, admins]")
		}, "which no chain of a target asks"},
		"both in one folder": {func(p *place) {
			p.withAdmins()
			p.replace("path: ./admins.rego", "path: ./admins.rego, packages: [weir.access]")
		}, "weir.access"},
		"one that does not compile": {func(p *place) {
			p.withAdmins()
			if err := os.WriteFile(filepath.Join(p.dir, "admins.rego"), []byte("package weir.admin\nallow if nonsense(1)\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "admins.rego:2"},
	} {
		p := newPlace(t)
		c.change(p)
		if code, _, text := p.weir("check"); code != exitUse || !strings.Contains(text, c.want) {
			t.Errorf("%s: %d %s", name, code, text)
		}
	}
	p := newPlace(t)
	p.withAdmins()
	p.must("check")
}

// TestAdminCommands: with a policy the commands say who asks: by the key where it can be read, by a token elsewhere.
func TestAdminCommands(t *testing.T) {
	p := newPlace(t)
	p.withAdmins()
	if code, _, text := p.weir("status"); code != exitUse || !strings.Contains(text, "takes a token") {
		t.Errorf("neither key nor token: %d %s", code, text)
	}
	r := p.serve()
	conn, got := r.talk(t, strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff")), "hello")
	if got[1] != "hello" {
		t.Fatal(got)
	}
	live := func() (list []map[string]any) {
		t.Helper()
		if err := json.Unmarshal([]byte(p.must("sessions", "--live", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := live()
	if len(list) != 1 || list[0]["identity"] != "ada" || len(p.list()) != 1 {
		t.Fatalf("live: %v, all: %v", list, p.list())
	}
	if code, _, text := p.weir("sessions", "--live", "--grep", "x"); code != exitUse || !strings.Contains(text, "--live knows no texts") {
		t.Errorf("%d %s", code, text)
	}
	if code, _, text := p.weir("sessions", "end", "../x"); code != exitUse || !strings.Contains(text, "no id") {
		t.Errorf("%d %s", code, text)
	}
	eve := filepath.Join(p.dir, "eve")
	if err := os.WriteFile(eve, []byte(p.must("token", "--subject", "eve", "--group", "staff")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"sessions", "end", list[0]["id"].(string)}, {"reload"}, {"status"}, {"unlock", "203.0.113.7"}} {
		if code, out, text := p.weir(append(args, "--token-file", eve)...); code != exitNo || out != "" || !strings.Contains(text, "refused by rule access: no policy lets this identity do this") {
			t.Errorf("%v as eve: %d %s%s", args, code, out, text)
		}
	}
	if out := p.must("status"); !strings.Contains(out, "sessions     1") || !strings.Contains(out, "echo: one") {
		t.Error(out)
	}
	if out := p.must("reload"); out != "reloaded\n" {
		t.Error(out)
	}
	if code, _, text := p.weir("unlock", "203.0.113.7"); code != exitNo || !strings.Contains(text, "no such address is locked") {
		t.Errorf("%d %s", code, text)
	}
	if out := p.must("sessions", "end", list[0]["id"].(string), "--reason", "enough"); !strings.HasPrefix(out, "ended: "+list[0]["id"].(string)+" of ada at one") {
		t.Error(out)
	}
	_, _ = conn.Read(make([]byte, 1)) // until it is gone
	eventually(t, "nobody is there", func() bool { return len(live()) == 0 })
	if err := os.WriteFile(filepath.Join(p.dir, "admins.rego"), []byte("package weir.admin\nallow if nonsense(1)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, text := p.weir("reload"); code != exitNo || !strings.Contains(text, "nothing has changed") || !strings.Contains(text, "admins.rego:2") {
		t.Errorf("a reload that cannot be: %d %s", code, text)
	}
	eventually(t, "what eve tried is recorded", func() bool {
		return len(p.list("--protocol", "admin", "--identity", "eve", "--denied")) == 4
	})
}

// TestTokenWithoutItsGateway: where nobody answers at the admin address, or another gateway does, a token is made all the
// same, when it can be accounted for; what the gateway refuses is not made.
func TestTokenWithoutItsGateway(t *testing.T) {
	pending := func(p *place) string {
		b, err := os.ReadFile(filepath.Join(p.dir, "data", besideFile))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return string(b)
	}
	p := newPlace(t)
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	if got := pending(p); !strings.Contains(got, `"action":"tokens.issue","object":"ada"`) || strings.Contains(got, token) {
		t.Errorf("pending: %s", got)
	}
	for name, c := range map[string]struct {
		status int
		answer string
		code   int
		made   bool
	}{
		"another's gateway":        {401, `{"error": "the token is not good here"}`, exitDone, true},
		"an archive worker":        {404, "404 page not found", exitDone, true},
		"an older gateway":         {405, "Method Not Allowed", exitDone, true},
		"a policy that refuses":    {403, `{"error": "refused by rule access"}`, exitNo, false},
		"a journal that is gone":   {503, `{"error": "nothing can be recorded now"}`, exitUnreachable, false},
		"a grant that cannot be":   {400, `{"error": "no"}`, exitUse, false},
		"an address that is blank": {200, `{}`, exitUnreachable, false},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.answer))
		}))
		p := newPlace(t)
		text := p.text()
		_, rest, _ := strings.Cut(text, `admin: "`)
		old, _, _ := strings.Cut(rest, `"`)
		p.write(strings.Replace(text, old, strings.TrimPrefix(server.URL, "http://"), 1))
		if code, out, errs := p.weir("token", "--subject", "ada"); code != c.code || (strings.Count(out, ".") == 2) != c.made || (pending(p) != "") != c.made {
			t.Errorf("%s: %d %q %s, pending %q", name, code, out, errs, pending(p))
		}
		server.Close()
	}
	// What cannot be accounted for is not given out.
	p = newPlace(t)
	if err := os.MkdirAll(filepath.Join(p.dir, "data", besideFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := p.weir("token", "--subject", "ada"); code != exitUnreachable || out != "" || !strings.Contains(errs, "cannot be accounted for") {
		t.Errorf("%d %q %s", code, out, errs)
	}
}

// refusing is a journal that takes so many sessions and no more.
type refusing struct{ left int }

func (j *refusing) Open(*core.Session) (core.Recorder, error) {
	if j.left--; j.left < 0 {
		return nil, core.ErrJournalLost
	}
	return quietRecorder{}, nil
}

type quietRecorder struct{}

func (quietRecorder) Record(context.Context, *core.Record) (core.Mark, error) { return 1, nil }
func (quietRecorder) Settle(context.Context, core.Mark) error                 { return nil }
func (quietRecorder) Settled(core.Mark, func()) bool                          { return true }
func (quietRecorder) Seal(core.End) error                                     { return nil }

// TestPendingStays: what was done beside the gateway is kept until it is recorded, each act by itself, whatever else is in
// the file.
func TestPendingStays(t *testing.T) {
	p := newPlace(t)
	cfg, err := load(p.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{"one", "two", "three"} {
		if err := writeBeside(cfg, deedBeside{By: "root@host", Action: "tokens.issue", Object: who}); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.OpenFile(besidePath(cfg), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"action": "cut by a cr`)
	_ = f.Close()
	issuer, err := identity.OpenIssuer(keysDir(cfg), 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := identity.New(t.Context(), identity.Config{Service: issuer})
	if err != nil {
		t.Fatal(err)
	}
	j := &refusing{left: 1}
	g, err := gateway.New(gateway.Config{Journal: j}, gateway.Settings{Verifier: v})
	if err != nil {
		t.Fatal(err)
	}
	log := &syncBuffer{}
	recordBeside(t.Context(), cfg, g, slog.New(slog.NewTextHandler(log, nil)))
	left, _ := os.ReadFile(besidePath(cfg))
	if text := string(left); strings.Contains(text, `"one"`) || !strings.Contains(text, `"two"`) || !strings.Contains(text, `"three"`) || strings.Contains(text, "crash") {
		t.Errorf("left: %s", left)
	}
	if !strings.Contains(log.String(), "is not recorded yet") {
		t.Errorf("the log says %s", log)
	}
	j.left = 10
	recordBeside(t.Context(), cfg, g, slog.New(slog.DiscardHandler))
	if left, _ := os.ReadFile(besidePath(cfg)); len(left) > 0 || j.left != 8 {
		t.Errorf("left: %s; %d were recorded", left, 10-j.left)
	}
	if info, err := os.Stat(besidePath(cfg)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}
