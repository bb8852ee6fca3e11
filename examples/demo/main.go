// Command demo shows Weir's main job on this machine: a real PostgreSQL with a sample database, a host with a real sshd, a gateway before
// both, an agent loop that goes through it, and then the record of what the agent did. `make demo` builds and runs it.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

//go:embed sample.sql policies
var files embed.FS

func main() {
	keep := flag.Bool("keep", false, "leave everything running until Ctrl-C")
	bin := flag.String("bin", "bin", "the folder that holds weir and agent-loop")
	dir := flag.String("dir", ".demo", "where the demo keeps its files")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{bin: *bin, keep: *keep, start: time.Now()}
	err := d.run(ctx, *dir)
	d.close()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

type demo struct {
	bin, dir   string
	keep       bool
	start      time.Time
	server     *postgrestest.Server
	sshd       *sshtest.Server // nil: there is none
	web        string          // where the gateway listens for it
	gateway    *exec.Cmd
	exited     chan error
	config     string
	listen     string
	token      string
	said       []byte // by the agent
	ca         string
	upstream   upstream
	dropOnExit func()
}

// upstream is the server that the gateway stands before.
type upstream struct{ address, database, user, password, tls, ca string }

func (d *demo) run(ctx context.Context, root string) error {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"a place for the demo's files", func(context.Context) error { return d.place(root) }},
		{"a PostgreSQL with a sample database", d.database},
		{"a host with an SSH server", d.host},
		{"the gateway: weir serve", d.serve},
		{"a token for the agent: weir token", d.sign},
		{"the agent's loop, unchanged but for host, port and password", d.agent},
		{"an agent on the host, over SSH: weir certificate, ssh", d.commands},
		{"what the gateway kept: weir sessions, show, replay, verify", d.look},
		{"the auditor's question", d.audit},
		{"the same loop again, against its own recording: weir replay --serve", d.rehearse},
	} {
		fmt.Printf("\n== %s\n", step.what)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	fmt.Printf("\nDone in %.1f s. To look further:\n", time.Since(d.start).Seconds())
	weir := filepath.Join(d.bin, "weir")
	fmt.Printf("  %s sessions -c %s\n  %s verify --all -c %s\n  less %s\n", weir, d.config, weir, d.config, filepath.Join(d.dir, "policies", "guardrails.rego"))
	if !d.keep {
		fmt.Println("  make demo KEEP=1     # leaves the gateway and the database running")
		return nil
	}
	host, port, _ := net.SplitHostPort(d.listen)
	fmt.Printf("\nThe gateway stays up until Ctrl-C. Be the agent yourself:\n  PGPASSWORD=%s psql 'host=%s port=%s dbname=orders user=agent sslmode=verify-full sslrootcert=%s'\n", d.token, host, port, d.ca)
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.exited:
		return fmt.Errorf("the gateway ended: %w", err)
	}
}

// place makes a folder for this run, and removes those of runs that are over.
func (d *demo) place(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	old, err := filepath.Glob(filepath.Join(root, "run-*"))
	if err != nil {
		return err
	}
	for _, o := range old {
		b, _ := os.ReadFile(filepath.Join(o, "pid"))
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && syscall.Kill(pid, 0) == nil {
			continue // KEEP=1 in another window
		}
		_ = filepath.WalkDir(o, func(p string, e fs.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
		if err := os.RemoveAll(o); err != nil {
			return err
		}
	}
	if d.dir, err = os.MkdirTemp(root, "run-"); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(d.dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	fmt.Println("  " + d.dir)
	return fs.WalkDir(files, "policies", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(d.dir, filepath.FromSlash(p))
		if e.IsDir() {
			return os.MkdirAll(to, 0o700)
		}
		b, err := files.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o600)
	})
}

// database starts a private server, or takes the one that PGDEMO_URL names, and fills a database.
func (d *demo) database(ctx context.Context) error {
	admin := os.Getenv("PGDEMO_URL")
	if admin == "" {
		s, err := postgrestest.Start(ctx, postgrestest.Options{Log: os.Stdout})
		if err != nil {
			return err
		}
		d.server = s
		admin = s.URL("postgres")
		d.upstream = upstream{address: s.Addr(), user: s.User, password: s.Password, tls: "verify-full", ca: s.CA}
	} else {
		u, err := url.Parse(admin)
		if err != nil {
			return errors.New("PGDEMO_URL is not a URL")
		}
		password, _ := u.User.Password()
		d.upstream = upstream{address: u.Host, user: u.User.Username(), password: password, tls: "disable"}
		if mode := u.Query().Get("sslmode"); mode == "require" || mode == "verify-ca" || mode == "verify-full" {
			d.upstream.tls, d.upstream.ca = mode, u.Query().Get("sslrootcert")
		}
		if u.Port() == "" {
			d.upstream.address = net.JoinHostPort(u.Hostname(), "5432")
		}
	}
	d.upstream.database = "weir_demo_" + strconv.FormatInt(time.Now().Unix(), 36)
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+d.upstream.database); err != nil {
		return err
	}
	if d.server == nil {
		d.dropOnExit = func() {
			if c, err := pgx.Connect(context.Background(), admin); err == nil {
				_, _ = c.Exec(context.Background(), "DROP DATABASE IF EXISTS "+d.upstream.database)
				_ = c.Close(context.Background())
			}
		}
	}
	config, err := pgx.ParseConfig(admin)
	if err != nil {
		return err
	}
	config.Database = d.upstream.database
	sample, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = sample.Close(ctx) }()
	sql, err := files.ReadFile("sample.sql")
	if err != nil {
		return err
	}
	if _, err := sample.Exec(ctx, string(sql), pgx.QueryExecModeSimpleProtocol); err != nil {
		return err
	}
	var version string
	var rows int
	if err := sample.QueryRow(ctx, "SELECT current_setting('server_version'), (SELECT count(*) FROM customers) + (SELECT count(*) FROM orders) + (SELECT count(*) FROM payments)").Scan(&version, &rows); err != nil {
		return err
	}
	fmt.Printf("  PostgreSQL %s on %s, %d rows\n", version, d.upstream.address, rows)
	return nil
}

// serve writes the configuration and starts the gateway with it.
func (d *demo) serve(ctx context.Context) error {
	admin, err := freePort()
	if err != nil {
		return err
	}
	if d.listen, err = freePort(); err != nil {
		return err
	}
	ca := ""
	if d.upstream.ca != "" {
		ca = "\n      ca: " + d.upstream.ca
	}
	config := fmt.Sprintf(`# The demo's gateway. Paths are relative to this file.
data: ./data
listen: {admin: %q}
identity:
  service_tokens: {enabled: true, max_ttl: 24h}
policies:
  - {name: guardrails, path: policies}
%splugins:
  - {name: pii, wasm: "builtin:pii", config: {entities: [EMAIL, CARD]}}
chain: [guardrails, pii]
targets:
  - name: orders
    protocol: postgres
    listen: %q
    upstream:
      address: %q
      database: %s
      tls: %s%s
    credential: {user: %s, password: "${env:DEMO_PASSWORD}"}
    record: full
%s`, admin, d.webPolicy(), d.listen, d.upstream.address, d.upstream.database, d.upstream.tls, ca, d.upstream.user, d.webTarget())
	d.config = filepath.Join(d.dir, "weir.yaml")
	if err := os.WriteFile(d.config, []byte(config), 0o600); err != nil {
		return err
	}
	if out, err := d.weir(ctx, "check"); err != nil {
		return fmt.Errorf("weir check: %w\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(d.dir, "weir.log"))
	if err != nil {
		return err
	}
	d.gateway = exec.Command(filepath.Join(d.bin, "weir"), "serve", "-c", d.config)
	d.gateway.Env = append(os.Environ(), "DEMO_PASSWORD="+d.upstream.password)
	d.gateway.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours: the gateway is drained, not hit
	stderr, err := d.gateway.StderrPipe()
	if err != nil {
		return err
	}
	if err := d.gateway.Start(); err != nil {
		return err
	}
	d.exited = make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		defer log.Close()
		lines, once := bufio.NewScanner(stderr), false
		for lines.Scan() {
			fmt.Fprintln(log, lines.Text())
			if !once && strings.Contains(lines.Text(), "weir: ready") {
				once = true
				close(ready)
			}
		}
		d.exited <- d.gateway.Wait()
	}()
	began := time.Now()
	select {
	case <-ready:
	case err := <-d.exited:
		b, _ := os.ReadFile(log.Name())
		return fmt.Errorf("weir serve ended: %w\n%s", err, b)
	case <-time.After(30 * time.Second):
		return fmt.Errorf("weir serve is not ready after 30 s; see %s", log.Name())
	case <-ctx.Done():
		return ctx.Err()
	}
	d.ca = filepath.Join(d.dir, "data", "tls", "ca.pem")
	fmt.Printf("  ready in %.1f s: agents connect to %s; log in %s\n", time.Since(began).Seconds(), d.listen, log.Name())
	return nil
}

func (d *demo) sign(ctx context.Context) error {
	out, err := d.weir(ctx, "token", "--subject", "demo-agent", "--group", "agents", "--kind", "agent", "--ttl", "1h")
	if err != nil {
		return fmt.Errorf("weir token: %w\n%s", err, out)
	}
	d.token = strings.TrimSpace(string(out))
	fmt.Printf("  %s…  (subject demo-agent, group agents, one hour)\n", d.token[:min(24, len(d.token))])
	return nil
}

func (d *demo) agent(ctx context.Context) error {
	var said bytes.Buffer
	err := d.agentAt(ctx, d.listen, io.MultiWriter(&indent{w: os.Stdout}, &said))
	d.said = said.Bytes()
	return err
}

// agentAt runs the agent's loop.
func (d *demo) agentAt(ctx context.Context, address string, out io.Writer) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	loop := exec.CommandContext(ctx, filepath.Join(d.bin, "agent-loop"))
	loop.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGDATABASE=orders", "PGUSER=agent",
		"PGPASSWORD="+d.token, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+d.ca)
	loop.Stdout, loop.Stderr = out, out
	return loop.Run()
}

// rehearse has the loop talk to its own recording, with no database and no gateway between.
func (d *demo) rehearse(ctx context.Context) error {
	id, err := d.session(ctx, "--target", "orders")
	if err != nil {
		return err
	}
	address, err := freePort()
	if err != nil {
		return err
	}
	fmt.Printf("\n$ weir replay %s --serve %s --once\n", id, address)
	type end struct {
		out []byte
		err error
	}
	played := make(chan end, 1)
	go func() {
		out, err := d.weir(ctx, "replay", id, "--serve", address, "--once")
		played <- end{out, err}
	}()
	var said bytes.Buffer
	for tries := 0; ; tries++ {
		said.Reset()
		err := d.agentAt(ctx, address, &said)
		if err == nil {
			break
		}
		if tries == 50 || !bytes.Contains(said.Bytes(), []byte("connection refused")) { // it starts
			return fmt.Errorf("%w\n%s", err, said.Bytes())
		}
		time.Sleep(100 * time.Millisecond)
	}
	e := <-played
	_, _ = (&indent{w: os.Stdout}).Write(e.out)
	if e.err != nil {
		return e.err
	}
	if !bytes.Equal(said.Bytes(), d.said) {
		return fmt.Errorf("the loop said something else:\n%s", said.Bytes())
	}
	fmt.Println("  The loop has said the same, line by line, and no order was written.")
	return nil
}

// look runs the commands that a person would.
func (d *demo) look(ctx context.Context) error {
	id, err := d.session(ctx, "--target", "orders")
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"sessions"}, {"show", id}, {"replay", id, "--speed", "0"}} {
		if err := d.print(ctx, args...); err != nil {
			return err
		}
	}
	if err := d.lookAtHost(ctx); err != nil {
		return err
	}
	return d.print(ctx, "verify", "--all")
}

// print runs a weir command and shows it with what it prints.
func (d *demo) print(ctx context.Context, args ...string) error {
	fmt.Printf("\n$ weir %s\n", strings.Join(args, " "))
	out, err := d.weir(ctx, args...)
	if err != nil {
		return fmt.Errorf("weir %s: %w\n%s", args[0], err, out)
	}
	_, _ = (&indent{w: os.Stdout}).Write(out)
	return nil
}

// session returns the id of the agent's session at a target, once it is in the archive.
func (d *demo) session(ctx context.Context, which ...string) (string, error) {
	var last string
	for range 100 {
		out, err := d.weir(ctx, append([]string{"sessions", "-o", "json"}, which...)...)
		last = string(out)
		var list []struct{ ID, Ended string }
		if err == nil && json.Unmarshal(out, &list) == nil && len(list) > 0 && list[0].Ended != "" {
			return list[0].ID, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return "", fmt.Errorf("the session does not appear in weir sessions: %s", last)
}

// record is what weir replay --format json prints of a record, as far as the auditor needs it.
type record struct {
	Seq       int64
	Kind      string
	Direction string
	Facts     struct {
		Identity struct{ Subject string }
		Target   string
		Command  struct {
			Text    string
			Effects []string
		}
		Params []any
		Denied *struct{ Rule string }
		Stage  string
		Result struct {
			Status, Tag string
			Rows        int
		}
	}
}

// audit answers: who issued the final write, and what came back?
func (d *demo) audit(ctx context.Context) error {
	id, err := d.session(ctx, "--target", "orders")
	if err != nil {
		return err
	}
	out, err := d.weir(ctx, "replay", id, "--format", "json")
	if err != nil {
		return err
	}
	var who, target string
	var write, answer *record
	for line := range bytes.Lines(out) {
		r := new(record)
		if err := json.Unmarshal(line, r); err != nil {
			return fmt.Errorf("weir replay --format json: %w", err)
		}
		switch {
		case r.Kind == "open":
			who, target = r.Facts.Identity.Subject, r.Facts.Target
		case r.Kind == "command" && r.Facts.Stage != "prepare" && r.Facts.Denied == nil && contains(r.Facts.Command.Effects, "write"):
			write, answer = r, nil
		case r.Kind == "result" && write != nil && answer == nil:
			answer = r
		}
	}
	if write == nil || answer == nil {
		return errors.New("no write in the record")
	}
	fmt.Printf("  Who issued the final write?  %s, at target %s, record %d of session %s\n", who, target, write.Seq, id)
	fmt.Printf("  What was it?                 %s\n  With which values?           %s\n", write.Facts.Command.Text, values(write.Facts.Params))
	fmt.Printf("  What came back?              %s (record %d)\n", answer.Facts.Result.Tag, answer.Seq)
	return nil
}

// values writes a command's parameters for people. A binary one is known by its bytes only.
func values(params []any) string {
	list := make([]string, len(params))
	for i, p := range params {
		switch p := p.(type) {
		case nil:
			list[i] = "NULL"
		case map[string]any:
			list[i] = fmt.Sprint("0x", p["hex"])
		default:
			list[i] = fmt.Sprintf("%q", p)
		}
	}
	return strings.Join(list, ", ")
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// weir runs a weir command with the demo's configuration and returns what it prints on stdout; on failure, on stderr.
func (d *demo) weir(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(d.bin, "weir"), append(args, "-c", d.config)...)
	cmd.Env = append(os.Environ(), "DEMO_PASSWORD="+d.upstream.password)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return append(out.Bytes(), errs.Bytes()...), err
	}
	return out.Bytes(), nil
}

// close stops what run started.
func (d *demo) close() {
	if d.gateway != nil && d.gateway.Process != nil {
		_ = d.gateway.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(40 * time.Second):
			_ = d.gateway.Process.Kill()
		}
	}
	if d.dropOnExit != nil {
		d.dropOnExit()
	}
	if d.server != nil {
		_ = d.server.Stop()
	}
	if d.sshd != nil {
		_ = d.sshd.Stop()
	}
	if d.dir != "" {
		_ = os.Remove(filepath.Join(d.dir, "pid"))
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// indent shifts what passes, by two columns unless it says another margin. A line may come in pieces.
type indent struct {
	w      io.Writer
	margin string
	inLine bool
}

func (i *indent) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if !i.inLine {
			line = append([]byte(cmp.Or(i.margin, "  ")), line...)
		}
		i.inLine = !bytes.HasSuffix(line, []byte("\n"))
		if _, err := i.w.Write(line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
