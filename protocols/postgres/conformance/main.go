// Command conformance runs PostgreSQL's own regression suite twice against one server, direct and through Weir with
// parsing, recording and a no-op plugin on, and compares the result files byte by byte. `make conformance-postgres`
// builds and runs it; CONFORMANCE.md holds the last result.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

func main() {
	weir := flag.String("weir", "bin/weir", "the gateway's binary")
	work := flag.String("work", ".conformance", "where sources are kept")
	out := flag.String("o", "", "write the result to this file")
	only := flag.String("tests", "", "some tests only, by blank; setup tests are added")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	bad, err := run(ctx, *weir, *work, *out, *only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if bad > 0 {
		os.Exit(1)
	}
}

type suite struct {
	server  *postgrestest.Server
	dir     string // of this run, readable by the server's user
	regress string // src/test/regress of the sources
	pgxs    string
	tests   []string
}

func run(ctx context.Context, weir, work, out, only string) (bad int, err error) {
	say("a PostgreSQL server")
	bin, err := postgrestest.Find(ctx, os.Stderr)
	if err != nil {
		return 0, err
	}
	s := &suite{}
	if s.regress, err = sources(ctx, bin, work); err != nil {
		return 0, err
	}
	if s.dir, err = os.MkdirTemp("", "weir-conformance-"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(s.dir)
	if err := os.Chmod(s.dir, 0o755); err != nil {
		return 0, err
	}
	if err := s.build(ctx, bin); err != nil {
		return 0, err
	}
	if only != "" {
		s.tests = append([]string{"test_setup"}, strings.Fields(only)...)
	}
	results := map[string]string{}
	var version string
	for _, way := range []string{"direct", "weir"} { // a fresh server each, so that both start from the same state
		s.server, err = postgrestest.Start(ctx, postgrestest.Options{Log: os.Stderr, Settings: map[string]string{
			"max_prepared_transactions": "2", "timezone": "UTC", "autovacuum": "off",
		}})
		if err != nil {
			return 0, err
		}
		version, _ = s.server.Psql(ctx, "postgres", "show server_version")
		err := func() error {
			defer func() { _ = s.server.Stop() }()
			host, port, password := s.server.Host, strconv.Itoa(s.server.Port), s.server.Password
			if way == "weir" {
				g, err := startGateway(ctx, weir, s.dir, s.server)
				if err != nil {
					return err
				}
				defer g.stop()
				host, port, _ = net.SplitHostPort(g.addr)
				password = g.token
			}
			say("the suite, " + way)
			results[way], err = s.play(ctx, way, host, port, password)
			return err
		}()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", way, err)
		}
	}
	same, differ, missing, err := compare(results["direct"], results["weir"])
	if err != nil {
		return 0, err
	}
	report := fmt.Sprintf(`# Conformance of the Postgres path

PostgreSQL's own regression suite (pg_regress, sources of %s) against PostgreSQL %s: direct, and through Weir with the
grammar, full strict recording, a Rego policy that is asked and passes all, and a no-op WASM step.

| | |
|---|--:|
| result files | %d |
| byte-identical to the direct run | %d |
| different | %d |
| missing | %d |

Run on %s with `+"`make conformance-postgres`"+` (%s).
`, filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(s.regress)))), version, same+len(differ)+len(missing), same, len(differ), len(missing), time.Now().UTC().Format("2006-01-02"), machine())
	for _, d := range differ {
		report += "\n- different: " + d
	}
	for _, m := range missing {
		report += "\n- missing: " + m
	}
	fmt.Println(report)
	for _, d := range differ {
		diff := exec.CommandContext(ctx, "diff", "-u", filepath.Join(results["direct"], d), filepath.Join(results["weir"], d))
		b, _ := diff.Output()
		fmt.Printf("--- %s\n%s\n", d, clip(b, 4000))
	}
	if out != "" {
		if err := os.WriteFile(out, []byte(report), 0o644); err != nil {
			return 0, err
		}
	}
	return len(differ) + len(missing), nil
}

func say(what string) { fmt.Fprintf(os.Stderr, "conformance: %s\n", what) }

func clip(b []byte, n int) []byte { return b[:min(len(b), n)] }

func machine() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	return fmt.Sprintf("%d processors", strings.Count(string(b), "processor\t"))
}

// sources fetches the server's own sources as Debian keeps them and returns their src/test/regress.
func sources(ctx context.Context, bin, work string) (string, error) {
	major := filepath.Base(filepath.Dir(bin))
	found, _ := filepath.Glob(filepath.Join(work, "postgresql-"+major+".*", "src", "test", "regress"))
	if len(found) > 0 {
		return filepath.Abs(found[0])
	}
	say("fetching the sources of PostgreSQL " + major)
	if err := os.MkdirAll(filepath.Join(work, "lists", "partial"), 0o755); err != nil {
		return "", err
	}
	abs, err := filepath.Abs(work)
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	codename := regexp.MustCompile(`VERSION_CODENAME=(\w+)`).FindSubmatch(release)
	if codename == nil {
		return "", errors.New("the sources come from Debian, and this is not one")
	}
	mirror := "http://deb.debian.org/debian"
	if all, err := exec.Command("sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null").Output(); err == nil {
		if m := regexp.MustCompile(`(?m)^(?:URIs:|deb(?: \[[^]]*\])?) +(\S+/debian/?)(?:\s|$)`).FindSubmatch(all); m != nil {
			mirror = string(m[1])
		}
	}
	list := filepath.Join(abs, "sources.list")
	line := fmt.Sprintf("deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, codename[1])
	if err := os.WriteFile(list, []byte(line), 0o644); err != nil {
		return "", err
	}
	options := []string{"-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::State::lists=" + filepath.Join(abs, "lists")}
	for _, args := range [][]string{{"update"}, {"source", "--download-only", "postgresql-" + major}} {
		cmd := exec.CommandContext(ctx, "apt-get", append(append([]string(nil), options...), args...)...)
		cmd.Dir = abs
		if b, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get %s: %w\n%s", args[0], err, b)
		}
	}
	tars, _ := filepath.Glob(filepath.Join(abs, "postgresql-"+major+"_*.orig.tar.*"))
	if len(tars) == 0 {
		return "", errors.New("apt-get source brought no sources")
	}
	if b, err := exec.CommandContext(ctx, "tar", "-C", abs, "-xf", tars[0]).CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %w\n%s", err, b)
	}
	found, _ = filepath.Glob(filepath.Join(work, "postgresql-"+major+".*", "src", "test", "regress"))
	if len(found) == 0 {
		return "", errors.New("the sources hold no src/test/regress")
	}
	return filepath.Abs(found[0])
}

// build compiles regress.so and finds pg_regress, installing the server's headers when they are not there.
func (s *suite) build(ctx context.Context, bin string) error {
	major := filepath.Base(filepath.Dir(bin))
	include := filepath.Join("/usr/include/postgresql", major, "server")
	s.pgxs = filepath.Join(filepath.Dir(bin), "lib", "pgxs", "src", "test", "regress", "pg_regress")
	if _, err := os.Stat(filepath.Join(include, "postgres.h")); err != nil {
		say("installing the server's headers")
		cmd := exec.CommandContext(ctx, "apt-get", "install", "-q", "-y", "--no-install-recommends", "postgresql-server-dev-"+major, "gcc", "libc6-dev")
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if b, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get install: %w\n%s", err, b)
		}
	}
	lib := filepath.Join(s.dir, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return err
	}
	gcc := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-O1", "-w", "-I"+include, "-o", filepath.Join(lib, "regress.so"), filepath.Join(s.regress, "regress.c"))
	if b, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc regress.c: %w\n%s", err, b)
	}
	for _, so := range []string{"refint.so", "autoinc.so"} { // they come with the server
		b, err := os.ReadFile(filepath.Join(filepath.Dir(bin), "lib", so))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(lib, so), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// play runs the suite and returns the folder of its results.
func (s *suite) play(ctx context.Context, way, host, port, password string) (string, error) {
	out := filepath.Join(s.dir, way)
	for _, d := range []string{out, filepath.Join(out, "results"), filepath.Join(out, "testtablespace"), filepath.Join(out, "sql"), filepath.Join(out, "expected")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return "", err
		}
		_ = os.Chmod(d, 0o777)
	}
	input := filepath.Join(s.dir, "input")
	if _, err := os.Stat(input); err != nil { // where the server's user can read it
		if b, err := exec.CommandContext(ctx, "cp", "-r", s.regress, input).CombinedOutput(); err != nil {
			return "", fmt.Errorf("cp: %w\n%s", err, b)
		}
		if b, err := exec.CommandContext(ctx, "chmod", "-R", "a+rX", input).CombinedOutput(); err != nil {
			return "", fmt.Errorf("chmod: %w\n%s", err, b)
		}
	}
	// The results hold paths where a test prints one: both runs see the same.
	same := filepath.Join(s.dir, "now")
	_ = os.Remove(same)
	if err := os.Symlink(out, same); err != nil {
		return "", err
	}
	args := []string{
		"--inputdir=" + input, "--outputdir=" + same, "--bindir=" + s.server.Bin, "--dlpath=" + filepath.Join(s.dir, "lib"),
		"--host=" + host, "--port=" + port, "--user=postgres", "--max-concurrent-tests=20",
	}
	if len(s.tests) > 0 {
		args = append(args, s.tests...)
	} else {
		args = append(args, "--schedule="+filepath.Join(input, "parallel_schedule"))
	}
	cmd := exec.CommandContext(ctx, s.pgxs, args...)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGSSLMODE=disable", "LC_ALL=C")
	if uid, gid, ok := unprivileged(); ok {
		if b, err := exec.CommandContext(ctx, "chown", "-R", fmt.Sprintf("%d:%d", uid, gid), out).CombinedOutput(); err != nil {
			return "", fmt.Errorf("chown: %w\n%s", err, b)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	_ = os.WriteFile(filepath.Join(s.dir, way+".log"), b, 0o644)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, l := range lines[max(0, len(lines)-9):] {
		if strings.Contains(l, "tests") || strings.Contains(l, "could not") {
			fmt.Fprintln(os.Stderr, "  "+strings.TrimSpace(l))
		}
	}
	results := filepath.Join(out, "results")
	if n, _ := filepath.Glob(filepath.Join(results, "*.out")); len(n) == 0 {
		return "", fmt.Errorf("no results:\n%s", b)
	}
	return results, nil
}

func unprivileged() (uid, gid uint32, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return 0, 0, false
	}
	a, _ := strconv.ParseUint(u.Uid, 10, 32)
	b, _ := strconv.ParseUint(u.Gid, 10, 32)
	return uint32(a), uint32(b), true
}

// compare holds the result files of two runs against each other.
func compare(a, b string) (same int, differ, missing []string, err error) {
	files, err := filepath.Glob(filepath.Join(a, "*.out"))
	if err != nil {
		return 0, nil, nil, err
	}
	for _, f := range files {
		x, err := os.ReadFile(f)
		if err != nil {
			return 0, nil, nil, err
		}
		y, err := os.ReadFile(filepath.Join(b, filepath.Base(f)))
		switch {
		case os.IsNotExist(err):
			missing = append(missing, filepath.Base(f))
		case err != nil:
			return 0, nil, nil, err
		case bytes.Equal(x, y):
			same++
		default:
			differ = append(differ, filepath.Base(f))
		}
	}
	sort.Strings(differ)
	return same, differ, missing, nil
}

type gateway struct {
	cmd         *exec.Cmd
	addr, token string
}

func startGateway(ctx context.Context, weir, dir string, server *postgrestest.Server) (*gateway, error) {
	g := &gateway{addr: freePort()}
	home := filepath.Join(dir, "gateway")
	if err := os.MkdirAll(filepath.Join(home, "policies"), 0o700); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"policies/access.rego":  "package weir.access\nimport rego.v1\nallow if true\n",
		"policies/observe.rego": "package weir.guardrails\nimport rego.v1\ndeny contains {\"rule\": \"never\"} if input.event.command.action == \"no such action\"\n",
		"weir.yaml": fmt.Sprintf(`data: data
listen: {admin: %q}
policies: [{name: observe, path: policies}]
plugins: [{name: noop, wasm: "builtin:pii", config: {entities: [PRIVATE_KEY]}}]
chain: [observe, noop]
targets:
  - name: regression
    protocol: postgres
    listen: %q
    upstream: {address: %q, tls: disable}
    credential: {user: %s, password: "${env:UPSTREAM_PASSWORD}"}
    record: full
    allow_incomplete: true
`, freePort(), g.addr, server.Addr(), server.User),
	} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	config := filepath.Join(home, "weir.yaml")
	g.cmd = exec.Command(weir, "serve", "-c", config)
	g.cmd.Env = append(os.Environ(), "UPSTREAM_PASSWORD="+server.Password)
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "weir.log"))
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan bool, 1)
	go func() {
		defer log.Close()
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(log, lines.Text())
			if strings.Contains(lines.Text(), "weir: ready") {
				ready <- true
			}
		}
		ready <- false
	}()
	select {
	case ok := <-ready:
		if !ok {
			b, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("weir serve: %s", b)
		}
	case <-time.After(time.Minute):
		return nil, errors.New("weir serve is not ready")
	}
	token := exec.CommandContext(ctx, weir, "token", "-c", config, "--subject", "regress", "--ttl", "12h")
	token.Env = g.cmd.Env
	b, err := token.Output()
	if err != nil {
		return nil, fmt.Errorf("weir token: %w", err)
	}
	g.token = strings.TrimSpace(string(b))
	return g, nil
}

func (g *gateway) stop() {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = g.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(40 * time.Second):
		_ = g.cmd.Process.Kill()
	}
}

func freePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().String()
}
