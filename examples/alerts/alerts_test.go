package alerts_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// TestRules: promtool takes the rules, and their tests hold: each alert fires when it should, and none when all is well.
func TestRules(t *testing.T) {
	tool, err := promtool(t.Context())
	if err != nil {
		t.Skipf("promtool cannot be had: %v", err)
	}
	for _, args := range [][]string{{"check", "rules", "weir.rules.yaml"}, {"test", "rules", "weir.rules_test.yaml"}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// The control: a rule that never fires is noticed.
	dir := t.TempDir()
	rules := strings.Replace(read(t, "weir.rules.yaml"), "weir_journal_lost == 1", "weir_journal_lost == 2", 1)
	for name, text := range map[string]string{"weir.rules.yaml": rules, "weir.rules_test.yaml": read(t, "weir.rules_test.yaml")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command(tool, "test", "rules", filepath.Join(dir, "weir.rules_test.yaml")).CombinedOutput(); err == nil {
		t.Errorf("a rule that never fires passes:\n%s", out)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var (
	alert  = regexp.MustCompile(`- alert: (\w+)`)
	metric = regexp.MustCompile(`\bweir_[a-z_]+\b`)
)

// TestRunbooks: every alert has a heading in README.md, which its annotation leads to, and a test.
func TestRunbooks(t *testing.T) {
	rules, page, tests := read(t, "weir.rules.yaml"), read(t, "README.md"), read(t, "weir.rules_test.yaml")
	names := alert.FindAllStringSubmatch(rules, -1)
	if len(names) < 10 {
		t.Fatalf("%d alerts", len(names))
	}
	for _, m := range names {
		name := m[1]
		if !strings.Contains(page, "\n### "+name+"\n\n") {
			t.Errorf("README.md does not say what to do about %s", name)
		}
		if !strings.Contains(rules, "runbook: examples/alerts/README.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s does not say where README.md has it", name)
		}
		if !strings.Contains(tests, `alertname="`+name+`"`) {
			t.Errorf("%s has no test", name)
		}
	}
}

// TestMetrics: every metric that the rules name is one that a running gateway tells.
func TestMetrics(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	database, err := postgrestest.Start(ctx, postgrestest.Options{NoTLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer database.Stop()
	listen := postgrestest.FreePort()
	config := fmt.Sprintf(`ledger:
  witnesses: [{name: away, url: "http://127.0.0.1:1", key: "witness.example/weir+e1d7cd37+BEADpxIKBkxOYvnquYmMIs0tC5qxisdO2DxPAAFMDQSH"}]
policies: [{name: access, path: policies}]
chain: [access]
targets:
  - name: orders
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: postgres, tls: disable}
    credential: {user: postgres, password: "${env:ORDERS_PASSWORD}"}
`, listen, database.Addr())
	g, err := postgrestest.StartGateway(ctx, postgrestest.GatewayOptions{
		Config: config, Files: map[string]string{"policies/access.rego": "package weir.access\nallow if true\n"}, Env: []string{"ORDERS_PASSWORD=" + database.Password},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = g.Stop() }()
	token, err := g.Token(ctx, "ada", "agents")
	if err != nil {
		t.Fatal(err)
	}
	// What is counted by target or by how it ended is there once it has happened: an open session, and a reload that fails.
	client, err := loopback.Dial(listen, token, "alerts", false)
	if err != nil {
		t.Fatalf("%v\n%s", err, g.Log())
	}
	defer client.Close()
	if out, err := g.Run(ctx, "verify", "--all"); err != nil {
		t.Fatal(out, err)
	}
	if err := os.WriteFile(filepath.Join(g.Dir, "policies", "access.rego"), []byte("package weir.access\nallow if nonsense(1)\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := g.Run(ctx, "reload"); err == nil {
		t.Fatal("a policy that does not compile is taken:", out)
	}
	told := map[string]bool{}
	r, err := http.Get("http://" + g.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	for lines := bufio.NewScanner(r.Body); lines.Scan(); {
		if name := metric.FindString(lines.Text()); strings.HasPrefix(lines.Text(), name) {
			told[name] = true
		}
	}
	var names []string
	for line := range strings.Lines(read(t, "weir.rules.yaml")) {
		if e, ok := strings.CutPrefix(strings.TrimSpace(line), "expr: "); ok {
			names = append(names, metric.FindAllString(e, -1)...)
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 15 {
		t.Fatalf("the rules name %v", names)
	}
	for _, name := range names {
		if !told[name] {
			t.Errorf("a rule names %s, and no gateway tells that", name)
		}
	}
}

// promtool is the one that is installed, or the one of Debian's package, which is unpacked into the user's cache: the package
// would bring a server with it that runs.
func promtool(ctx context.Context) (string, error) {
	if path, err := exec.LookPath("promtool"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "weir-tools", "promtool")
	path := filepath.Join(dir, "promtool")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tmp, err := os.MkdirTemp("", "promtool-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	run := func(name string, args ...string) error {
		c := exec.CommandContext(ctx, name, args...)
		c.Dir = tmp
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, out)
		}
		return nil
	}
	if err := os.Chmod(tmp, 0o755); err != nil { // apt-get downloads as another user
		return "", err
	}
	const quiet = "APT::Sandbox::User=root"
	if first := run("apt-get", "download", "-q", "-o", quiet, "prometheus"); first != nil {
		if err := errors.Join(run("apt-get", "update", "-q"), run("apt-get", "download", "-q", "-o", quiet, "prometheus")); err != nil {
			return "", errors.Join(first, err)
		}
	}
	packages, err := filepath.Glob(filepath.Join(tmp, "prometheus_*.deb"))
	if err != nil || len(packages) != 1 {
		return "", fmt.Errorf("apt-get downloaded %v", packages)
	}
	if err := errors.Join(run("dpkg-deb", "-x", packages[0], tmp), os.MkdirAll(dir, 0o755)); err != nil {
		return "", err
	}
	b, err := os.ReadFile(filepath.Join(tmp, "usr", "bin", "promtool"))
	if err == nil {
		err = errors.Join(os.WriteFile(path+".new", b, 0o755), os.Rename(path+".new", path))
	}
	return path, err
}
