package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

const whole = `data: ./weir-data
listen:
  admin: 127.0.0.1:8480
  tls: {cert: tls/server.pem, key: tls/server.key}
  connections: 2000
identity:
  oidc:
    - {name: corp, issuer: https://idp.example, audience: weir, groups_claim: roles, clients: [weir-cli], subject_claim: email, require: {tid: 7, acr: high}, kinds: [{kind: agent, claim: azp, values: [loops]}], run_claim: run, login: {client_id: weir-cli, scopes: [openid]}}
  service_tokens: {enabled: true, max_ttl: 12h}
journal:
  nats: embedded
  promise: strict
archive:
  - {kind: file, path: ./archive}
retention: {default: 400d}
policies:
  - {name: guardrails, path: policies/}
plugins:
  - {name: pii, wasm: builtin:pii, columns: [note, sales.people.email], config: {entities: [EMAIL, CARD], depth: 3, strict: true}}
chain: [guardrails, pii]
targets:
  - name: orders
    protocol: wire
    listen: 127.0.0.1:15432
    upstream: {address: db.internal:5432, database: orders, tls: verify-full}
    credential: {user: app, password: "${env:ORDERS_PASSWORD}"}
    record: full
    chain: [guardrails]
    limits: {max_frame: 64MiB, statement_timeout: 60s, idle: 1h, rows: 1000000}
    labels: {risk: low, tier: 1}
    wire: {options: 5s, big: 1KiB}
  - name: billing
    protocol: wire
    promise: bounded
    allow_incomplete: true
    upstream: {address: /run/db.sock}
    credential: {user: app, password: "${file:secret}"}
`

func TestWhole(t *testing.T) {
	c, err := Parse("/etc/weir/weir.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	for what, got := range map[string]struct{ got, want any }{
		"data":      {c.Data, "/etc/weir/weir-data"},
		"cert":      {c.Listen.TLS.Cert, "/etc/weir/tls/server.pem"},
		"groups":    {c.Identity.OIDC[0].GroupsClaim, "roles"},
		"ttl":       {c.Identity.ServiceTokens.MaxTTL, 12 * time.Hour},
		"archive":   {c.Archive[0].Path, "/etc/weir/archive"},
		"policy":    {c.Policies[0].Path, "/etc/weir/policies"},
		"plugin":    {c.Plugins[0].WASM, "builtin:pii"},
		"columns":   {fmt.Sprint(c.Plugins[0].Columns), "[note sales.people.email]"},
		"settings":  {fmt.Sprint(c.Plugins[0].Config), "map[depth:3 entities:[EMAIL CARD] strict:true]"},
		"max_frame": {c.Targets[0].Limits.MaxFrame, int64(64 << 20)},
		"label":     {c.Targets[0].Labels["tier"], "1"},
		"own chain": {fmt.Sprint(c.Targets[0].Steps()), "[guardrails]"},
		"chain":     {fmt.Sprint(c.Targets[1].Steps()), "[guardrails pii]"},
		"promise":   {c.Targets[0].Promise, core.PromiseStrict},
		"promise 2": {c.Targets[1].Promise, core.PromiseBounded},
		"unix tls":  {c.Targets[1].Upstream.TLS, core.TLSDisable},
		"secret":    {c.Targets[0].Credential.Password.Reference(), "${env:ORDERS_PASSWORD}"},
		"line":      {c.Line("targets[0].limits.rows"), 29},
		"line up":   {c.Line("targets[0].limits.unset"), 29},
		"kept":      {c.Retention.Default, 400 * 24 * time.Hour},
		"warnings":  {len(c.Warnings), 0},
	} {
		if got.got != got.want {
			t.Errorf("%s = %v, want %v", what, got.got, got.want)
		}
	}
	target, err := c.Targets[0].Core()
	if err != nil {
		t.Fatal(err)
	}
	if target.Upstream.TLS.ServerName != "db.internal" || target.Record != core.LevelFull {
		t.Errorf("target = %+v", target)
	}
	var own struct {
		Options time.Duration `yaml:"options"`
		Big     int64         `yaml:"big,size"`
	}
	if err := target.Decode(&own); err != nil || own.Options != 5*time.Second || own.Big != 1024 {
		t.Errorf("Decode = %v, %+v", err, own)
	}
	var other struct {
		Option time.Duration `yaml:"option"`
	}
	err = target.Decode(&other)
	if err == nil || !strings.Contains(err.Error(), "weir.yaml:31: targets[0].wire.options: unknown key (did you mean option?)") {
		t.Errorf("Decode of an unknown key = %v", err)
	}
}

// edit replaces old by new in the whole configuration; the texts must then be among the problems.
func TestProblems(t *testing.T) {
	for _, tc := range []struct{ name, old, new, want string }{
		{"unknown key", "tls: verify-full", "tsl: verify-full", "weir.yaml:25: targets[0].upstream.tsl: unknown key (did you mean tls?)"},
		{"unknown top key", "retention: {default: 400d}", "retentoin: {default: 400d}", "weir.yaml:15: retentoin: unknown key (did you mean retention?)"},
		{"twice", "    record: full", "    record: full\n    record: off", "weir.yaml:28: targets[0].record: stands twice; first in line 27"},
		{"kind", "  connections: 2000", "  connections: many", `weir.yaml:5: listen.connections: "many" is not a whole number`},
		{"negative", "rows: 1000000", "rows: -1", "targets[0].limits.rows: cannot be negative"},
		{"overflow", "connections: 2000", "connections: 99999999999999999999", "is not a whole number"},
		{"no unit", "idle: 1h", "idle: 60", `"60" has no unit; write 60s`},
		{"null", "    record: full", "    record:", "targets[0].record: has no value"},
		{"list for text", "database: orders", "database: [a]", "must be a text, not a list"},
		{"text for list", "chain: [guardrails, pii]", "chain: pii", "chain: must be a list, not a text"},
		{"bool for text", "name: orders", "name: true", "must be a text, not true or false (put it in quotes)"},
		{"text for bool", "allow_incomplete: true", "allow_incomplete: maybe", "must be true or false, not a text"},
		{"yaml", "targets:\n", "targets: [\n", "is not YAML"},
		{"tab", "listen:\n  admin", "listen:\n\tadmin", "is not YAML"},
		{"merge", "    record: full", "    <<: {record: full}", "merge keys (<<) are not supported"},
		{"admin", "admin: 127.0.0.1:8480", "admin: 0.0.0.0:8480", "listen.admin: must be on loopback"},
		{"admin port", "admin: 127.0.0.1:8480", "admin: localhost", `"localhost" is not host:port`},
		{"half tls", "tls: {cert: tls/server.pem, key: tls/server.key}", "tls: {cert: a}", "listen.tls: needs both cert and key"},
		{"saml", "  service_tokens:", "  saml: [{name: sso}]\n  service_tokens:", "identity.saml[0]: has no metadata"},
		{"issuer", "https://idp.example", "http://idp.example", "keys fetched without TLS can be forged"},
		{"no audience", ", audience: weir", "", "identity.oidc[0]: has no audience"},
		{"alg", "groups_claim: roles", "algorithms: [HS256]", `"HS256" is not allowed`},
		{"revocations", "  service_tokens:", "  revocations: {max_age: 5s}\n  service_tokens:", "identity.revocations.max_age: must be from 15s to 24h"},
		{"on_expiry", "    record: full", "    record: full\n    on_expiry: drian", `"drian" is not refuse, drain, close or keep (did you mean drain?)`},
		{"kind of identity", "groups_claim: roles", "kinds: [{kind: robot, claim: x}]", "identity.oidc[0].kinds[0]: the kind \"robot\" is not human"},
		{"two pages to sign in at", "login: {client_id: weir-cli, scopes: [openid]}}", "login: {invite: true}}\n    - {name: second, issuer: https://second.example, audience: weir, login: {invite: true}}", "identity.oidc[1].login.invite: another issuer has it"},
		{"kind without a claim", "groups_claim: roles", "kinds: [{kind: agent, values: [a]}]", "identity.oidc[0].kinds[0]: names no claim"},
		{"ttl", "{enabled: true, max_ttl: 12h}", "{enabled: false, max_ttl: 12h}", "would do nothing: service_tokens is not enabled"},
		{"nats", "nats: embedded", "nats: embeded", "must be embedded, or a mapping with url"},
		{"nats url", "nats: embedded", "nats: {url: http://x}", "is not a nats:// or tls:// URL"},
		{"nats key", "nats: embedded", "nats: {urls: nats://x}", "journal.nats.urls: unknown key (did you mean url?)"},
		{"promise", "promise: strict", "promise: strickt", `"strickt" is not strict, bounded or off (did you mean strict?)`},
		{"kind of store", "kind: file, path: ./archive", "kind: tape", `this build has no store of kind "tape"`},
		{"s3 without a server", "kind: file, path: ./archive", "kind: s3, bucket: b", `archive[0]: has no endpoint`},
		{"s3 without a bucket", "kind: file, path: ./archive", `kind: s3, endpoint: "https://s3.example"`, `archive[0]: has no bucket`},
		{"s3 in clear text", "kind: file, path: ./archive", `kind: s3, bucket: b, endpoint: "http://s3.example"`, "is not https"},
		{"s3 with a path", "kind: file, path: ./archive", `kind: s3, bucket: b, endpoint: "https://s3.example", path: x`, "archive[0].path: does nothing in a store of kind s3"},
		{"half a pair of keys", "kind: file, path: ./archive", `kind: s3, bucket: b, endpoint: "https://s3.example", access_key: a`, "has one of access_key and secret_key"},
		{"short lock", "kind: file, path: ./archive", `kind: s3, bucket: b, endpoint: "https://s3.example", object_lock: 1h`, "object_lock: must be from 1d"},
		{"lock of a folder", "path: ./archive", "path: ./archive, object_lock: 30d", "archive[0].object_lock: does nothing in a store of kind file"},
		{"one folder twice", "- {kind: file, path: ./archive}", "- {kind: file, path: ./archive}\n  - {kind: file, path: archive}", "archive[1]: stands twice"},
		{"archive key", "path: ./archive", "pth: ./archive", "archive[0].pth: unknown key (did you mean path?)"},
		{"short retention", "400d", "30m", "retention.default: must be from 1h to 36500d"},
		{"retention for nothing", "default: 400d", "default: 400d, classes: {short: 30d}", "retention.classes.short: would do nothing: no target names it"},
		{"bundle poll", "path: policies/", "path: https://x/b.tar.gz, poll: 10ms", "is less than a second"},
		{"bundle token without a URL", "path: policies/", "path: b.tar.gz, token: x", "would do nothing: the bundle is not fetched"},
		{"bundle key without a bundle", "path: policies/", "path: policies/, key: k.pem, algorithm: ES256", "only bundles are signed"},
		{"bundle key without an algorithm", "path: policies/", "path: b.tar.gz, key: k.pem", "has a key and no algorithm"},
		{"bundle algorithm without a key", "path: policies/", "path: b.tar.gz, algorithm: ES256", "there is no key"},
		{"bundle signed with a shared secret", "path: policies/", "path: b.tar.gz, key: k.pem, algorithm: HS256", "is no signature by a key pair"},
		{"no such step", "chain: [guardrails, pii]", "chain: [guardrial, pii]", `chain[0]: there is no policy or plugin "guardrial" (did you mean guardrails?)`},
		{"step twice", "chain: [guardrails, pii]", "chain: [pii, pii]", `"pii" stands twice`},
		{"unused", "chain: [guardrails, pii]\n", "chain: [guardrails]\n", `plugins[0]: "pii" is in no chain: it would do nothing`},
		{"no column", "columns: [note, sales.people.email]", `columns: [note, ""]`, "plugins[0].columns[1]: is empty"},
		{"one column", "columns: [note, sales.people.email]", "columns: note", "plugins[0].columns: must be a list, not a text"},
		{"step names", "name: pii", "name: guardrails", `plugins[0].name: "guardrails" stands twice`},
		{"target names", "name: billing", "name: orders", `targets[1].name: "orders" stands twice`},
		{"name shape", "name: billing", "name: a/b", `"a/b" cannot be a name`},
		{"no protocol", "    protocol: wire\n    listen", "    listen", "targets[0]: has no protocol"},
		{"no upstream", "    upstream: {address: db.internal:5432, database: orders, tls: verify-full}\n", "", "targets[0].upstream: has no address"},
		{"no credential", `    credential: {user: app, password: "${env:ORDERS_PASSWORD}"}` + "\n", "", "targets[0]: has no credential"},
		{"tls word", "tls: verify-full", "tls: verify_full", `"verify_full" is not disable, require`},
		{"ca does nothing", "tls: verify-full", "tls: disable, ca: ca.pem", "targets[0].upstream.ca: would do nothing"},
		{"record", "record: full", "record: ful", `"ful" is not full, metadata or off (did you mean full?)`},
		{"foreign settings", "    wire: {", "    wier: {", "targets[0].wier: unknown key (did you mean wire?)"},
		{"no listener", "name: billing\n    protocol: wire", "name: billing\n    protocol: other", "no listener speaks other"},
		{"admin taken", "listen: 127.0.0.1:15432", "listen: 127.0.0.1:8480", "127.0.0.1:8480 is taken by listen.admin"},
		{"two protocols", "name: billing\n    protocol: wire", "name: billing\n    listen: 0.0.0.0:15432\n    protocol: other", "which speaks wire"},
		{"overlap", "name: billing", "name: billing\n    listen: 0.0.0.0:15432", "overlaps with targets[0].listen"},
		{"env elsewhere", "address: db.internal:5432", "address: \"${env:DB}:5432\"", "${…} is understood only where a secret is"},
		{"second document", "targets:\n", "---\ntargets:\n", "has a second document"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(whole, tc.old, tc.new, 1)
			if text == whole {
				t.Fatalf("the configuration does not hold %q", tc.old)
			}
			_, err := Parse("weir.yaml", []byte(text))
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
		})
	}
}

func TestEveryProblemInOneRun(t *testing.T) {
	_, err := Parse("weir.yaml", []byte(`
listen: {admin: 0.0.0.0:1, tsl: {}}
chain: [nothing]
targets:
  - {name: a, protocol: wire, listen: nowhere, record: all}
`))
	var problems Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	if len(problems) != 7 {
		t.Errorf("%d problems, want 7:\n%v", len(problems), err)
	}
	if !slices.IsSortedFunc(problems, func(a, b Problem) int { return a.Line - b.Line }) {
		t.Errorf("not in the order of lines:\n%v", err)
	}
	for _, p := range problems {
		if p.Line == 0 {
			t.Errorf("no line: %v", p)
		}
	}
}

func TestWarnings(t *testing.T) {
	text := strings.NewReplacer("${env:ORDERS_PASSWORD}", "hunter2", "verify-full", "disable", "chain: [guardrails]", "chain: []").Replace(whole)
	c, err := Parse("weir.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	all := Problems(c.Warnings).Error()
	for _, want := range []string{"in clear", "db.internal:5432 in clear", "has no chain"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in\n%s", want, all)
		}
	}
	if strings.Contains(all, "hunter2") {
		t.Error("a warning shows the secret")
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "c", c.Targets[0].Credential.Password)
	j, _ := json.Marshal(c.Targets[0].Credential)
	for _, s := range []string{fmt.Sprintf("%v %+v %#v %s", c.Targets[0], c.Targets[0], c.Targets[0].Credential, c.Targets[0].Credential.Password), string(j), logged.String()} {
		if strings.Contains(s, "hunter2") {
			t.Errorf("the secret is shown: %s", s)
		}
	}
}

func TestAliases(t *testing.T) {
	c, err := Parse("weir.yaml", []byte(strings.NewReplacer("limits: {", "limits: &l {", "allow_incomplete: true", "limits: *l").Replace(whole)))
	if err != nil || c.Targets[1].Limits != c.Targets[0].Limits {
		t.Errorf("alias: %v", err)
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i < 'k'; i++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	text := strings.Replace(whole, "config: {", "config: {bomb: *j, ", 1)
	start := time.Now()
	if _, err = Parse("weir.yaml", []byte(bomb+text)); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("bomb: %v after %v", err, time.Since(start))
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "weir.yaml")); err == nil || !strings.Contains(err.Error(), "there is no such file") {
		t.Error(err)
	}
	for text, want := range map[string]string{"": "is empty", "# nothing\n": "is empty", "[]": "must be a mapping"} {
		path := filepath.Join(dir, "weir.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestScalars(t *testing.T) {
	for s, want := range map[string]time.Duration{"0": 0, "60s": time.Minute, "400d": 400 * 24 * time.Hour, "2w": 14 * 24 * time.Hour, "1d12h": 36 * time.Hour, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute} {
		if d, err := ParseDuration(s); err != nil || d != want {
			t.Errorf("ParseDuration(%q) = %v, %v", s, d, err)
		}
	}
	for _, s := range []string{"", "d", "-1s", "60", "1.5", "-2d", "999999999d", "99999999999999999999w", "1d-1h", "1x"} {
		if d, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v", s, d)
		}
	}
	for s, want := range map[string]int64{"512": 512, "64MiB": 64 << 20, "10MB": 10_000_000, "1 KiB": 1024, "5B": 5, "0": 0} {
		if n, err := ParseSize(s); err != nil || n != want {
			t.Errorf("ParseSize(%q) = %v, %v", s, n, err)
		}
	}
	for _, s := range []string{"", "MiB", "-1", "9999999999GiB", "1.5MiB", "1XB"} {
		if n, err := ParseSize(s); err == nil {
			t.Errorf("ParseSize(%q) = %v", s, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("targets: [{name: a, <<: {b: c}}]"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Add([]byte("listen: !!binary x\nchain: {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("weir.yaml", text)
		if err == nil && (c == nil || len(c.Targets) == 0) {
			t.Fatal("no problem, and nothing to serve")
		}
		if err == nil {
			for i := range c.Targets {
				_, _ = c.Targets[i].Core()
			}
		}
	})
}
