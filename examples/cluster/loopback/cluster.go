// Package loopback runs a whole cluster on this machine: NATS servers, gateways, archive workers and a PostgreSQL. It is
// what the example, its test and the torture test stand on.
package loopback

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// Options of a cluster.
type Options struct {
	Dir      string // where everything is kept; it has to be there
	Weir     string // the program; empty: it is built
	NATS     string // the program nats-server; empty: it is built from the module that Weir depends on
	Gateways int    // default 2
	Workers  int    // default 2: one works, the others stand by
	Log      io.Writer
	// GatewayData overrides where a gateway keeps its data.
	GatewayData func(i int) string
	// Links says that the ways between NATS servers, and from gateways and workers to them, can be cut: see Cluster.Links.
	Links bool
	// Encrypted says that recordings are encrypted, with keys that are used for so long, and that there is a target whose
	// sessions are kept for KeptFor only.
	Encrypted time.Duration
	// S3 says that there is a second archive store, in a bucket of a server of its own, if that can be built here.
	S3 bool
	// Bounded says that every so-manyth client asks at a target whose promise is bounded; 0: none.
	Bounded int
}

// Cluster is the running whole.
type Cluster struct {
	Options
	Postgres *postgrestest.Server
	Password string // of the database's role app: a canary that must turn up nowhere
	Nodes    []*Process
	Gateways []*Process
	Workers  []*Process
	Listen   []string // where the gateways are
	Loose    []string // where their target is whose promise is bounded
	Short    []string // where their target is whose sessions are not kept for long
	Bucket   *Bucket  // nil: there is none
	// Unread says of which sessions nobody has the key any more; nil: of none.
	Unread func(session string) bool
	Links  []*Link
	Token  string

	signer   string // the configuration whose keys sign tokens
	reader   *age.X25519Identity
	clients  []string // where the NATS servers take clients
	monitors []string
}

const policy = `package weir.access

import rego.v1

allow if "agents" in input.identity.groups
`

const guardrails = `package weir.guardrails

import rego.v1

deny contains {"rule": "no-ddl", "reason": "schema changes go through migrations", "hint": "open a migration"} if {
	"ddl" in input.event.command.effects
}

mask contains {"column": "email", "with": "partial"}
`

const schema = `set log_statement = 'none';
create role app login password '%s';
create database orders owner app;
\c orders
set log_statement = 'none';
set role app;
create table customers (id int primary key, name text, email text);
insert into customers values (1, 'Ada', '%s'), (2, 'Bob', '%s');
create table wide as select g as id, 'name ' || g as name, repeat(md5(g::text), 6) as filler from generate_series(1, 5000) g;
create table written (marker text primary key);
`

// Emails are values that a policy masks: they must turn up nowhere behind it.
var Emails = []string{"ada.unmasked@example.com", "bob.unmasked@example.org"}

// Start builds what is missing and starts everything, in order.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	c := &Cluster{Options: o, Password: "upstreamCanary" + fmt.Sprint(time.Now().UnixNano())}
	if c.Options.Gateways == 0 {
		c.Options.Gateways = 2
	}
	if c.Options.Workers == 0 {
		c.Options.Workers = 2
	}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	for _, step := range []func(context.Context) error{c.programs, c.database, c.nodes, c.identity, c.bucket, c.workers, c.gateways} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// root is the module's folder.
func root() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

func (c *Cluster) programs(ctx context.Context) (err error) {
	if c.Weir == "" {
		if c.Weir, err = postgrestest.Binary(ctx); err != nil {
			return err
		}
	}
	if c.NATS == "" {
		c.NATS = os.Getenv("NATS_SERVER")
	}
	if c.NATS == "" {
		dir, err := root()
		if err != nil {
			return err
		}
		c.NATS = filepath.Join(os.TempDir(), "weir-nats-server")
		if _, err := output(dir, "go", "build", "-o", c.NATS, "github.com/nats-io/nats-server/v2"); err != nil {
			return err
		}
	}
	for _, p := range []*string{&c.Weir, &c.NATS, &c.Dir} {
		if *p, err = filepath.Abs(*p); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) database(ctx context.Context) (err error) {
	c.Postgres, err = postgrestest.Start(ctx, postgrestest.Options{
		Log: c.Log, NoTLS: true,
		Settings: map[string]string{"log_statement": "all", "log_min_messages": "warning", "jit": "off", "max_connections": "300"},
	})
	if err != nil {
		return err
	}
	_, err = c.Postgres.Psql(ctx, "postgres", fmt.Sprintf(schema, c.Password, Emails[0], Emails[1]))
	return err
}

// nodes starts three NATS servers of the journal's own, which flush every message.
func (c *Cluster) nodes(context.Context) error {
	ports, err := freePorts(9)
	if err != nil {
		return err
	}
	for i := range 3 {
		name := fmt.Sprint("nats-", i)
		var routes []string
		for k := range 3 {
			if k == i {
				continue
			}
			way, err := c.way(name, fmt.Sprint("nats-", k), ports[3*k+1])
			if err != nil {
				return err
			}
			routes = append(routes, `"nats://`+way+`"`)
		}
		// What servers tell of each other's addresses would lead past the links: clients are told nothing, and other
		// servers a port that nobody has.
		quiet := ""
		if c.Options.Links {
			quiet = `, advertise: "127.0.0.1:1", no_advertise: true`
		}
		dir := filepath.Join(c.Dir, name)
		file := filepath.Join(c.Dir, name+".conf")
		err := os.WriteFile(file, fmt.Appendf(nil, `server_name: %s
listen: "%s"
http: "%s"
jetstream { store_dir: "%s", max_file_store: 64GB, sync_interval: always }
cluster { name: weir, listen: "%s", routes: [%s]%s }
`, name, ports[3*i], ports[3*i+2], dir, ports[3*i+1], strings.Join(routes, ", "), quiet), 0o600)
		if err != nil {
			return err
		}
		p := &Process{Name: name, program: c.NATS, args: []string{"-c", file}, log: filepath.Join(c.Dir, name+".log"), ready: answers("http://" + ports[3*i+2] + "/healthz")}
		c.Nodes = append(c.Nodes, p)
		c.clients = append(c.clients, ports[3*i])
		c.monitors = append(c.monitors, ports[3*i+2])
	}
	return c.up(c.Nodes, 30*time.Second)
}

// way is where a process reaches an address of another one: there, or through a link.
func (c *Cluster) way(from, to, address string) (string, error) {
	if !c.Options.Links {
		return address, nil
	}
	k, err := newLink(from, to, address)
	if err != nil {
		return "", err
	}
	c.Links = append(c.Links, k)
	return k.Addr(), nil
}

// up starts processes and waits until all of them are ready.
func (c *Cluster) up(all []*Process, limit time.Duration) error {
	for _, p := range all {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range all {
		if err := p.Ready(limit); err != nil {
			return err
		}
	}
	return nil
}

// KeptFor is how long the sessions of the target orders-short are kept: as short as the build that make torture breaks takes.
const KeptFor = 5 * time.Second

func (c *Cluster) configuration(name, data, admin, listen, loose, short string) (string, error) {
	var urls []string
	for i, address := range c.clients {
		way, err := c.way(name, c.Nodes[i].Name, address)
		if err != nil {
			return "", err
		}
		urls = append(urls, "nats://"+way)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `data: %s
listen: {admin: %q}
journal:
  promise: strict
  nats: {url: %q, replicas: 3}
policies:
  - {name: guardrails, path: policies, timeout: 5s}
chain: [guardrails]
`, data, admin, strings.Join(urls, ","))
	if c.Encrypted > 0 {
		fmt.Fprintf(&b, "encryption: {recipients: [%s], identities: [%s], period: %v}\n", c.reader.Recipient(), readerFile, c.Encrypted)
		fmt.Fprintf(&b, "retention: {classes: {short: %v}}\n", KeptFor)
	}
	if c.Bucket != nil {
		fmt.Fprintf(&b, "archive:\n  - {kind: file, path: %q}\n  - %s\n", filepath.Join(data, "archive"), c.Bucket.configuration())
	}
	b.WriteString("targets:\n")
	target := func(name, listen, more string) {
		fmt.Fprintf(&b, `  - name: %s
    protocol: postgres
    listen: %q
    upstream: {address: %q, database: orders, tls: disable}
    credential: {user: app, password: "${env:ORDERS_PASSWORD}"}
    record: full
    limits: {drain: 3s}
%s`, name, listen, c.Postgres.Addr(), more)
	}
	target("orders", listen, "")
	target("orders-bounded", loose, "    promise: bounded\n")
	if c.Encrypted > 0 {
		target("orders-short", short, "    retention: short\n")
	}
	file := filepath.Join(c.Dir, name+".yaml")
	return file, os.WriteFile(file, []byte(b.String()), 0o600)
}

func (c *Cluster) process(name, role, config string) *Process {
	return &Process{
		Name: name, program: c.Weir, args: []string{"serve", "--role", role, "-c", config}, env: c.environment(),
		log: filepath.Join(c.Dir, name+".log"), ready: says("weir: ready"),
	}
}

// workers starts the archive's workers. They share their data: the first works, the others stand by.
func (c *Cluster) workers(context.Context) error {
	for _, f := range []struct{ name, text string }{{"access.rego", policy}, {"guardrails.rego", guardrails}} {
		if err := os.MkdirAll(filepath.Join(c.Dir, "policies"), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(c.Dir, "policies", f.name), []byte(f.text), 0o600); err != nil {
			return err
		}
	}
	ports, err := freePorts(4 * c.Options.Workers)
	if err != nil {
		return err
	}
	for i := range c.Options.Workers {
		name := fmt.Sprint("archive-", i)
		config, err := c.configuration(name, filepath.Join(c.Dir, "archive"), ports[4*i], ports[4*i+1], ports[4*i+2], ports[4*i+3])
		if err != nil {
			return err
		}
		p := c.process(name, "archive", config)
		if i > 0 {
			p.ready = says("weir: standing by")
		}
		c.Workers = append(c.Workers, p)
		if err := c.up([]*Process{p}, 60*time.Second); err != nil {
			return err
		}
		// Later either may be the one that works.
		p.ready = func(p *Process) bool { return says("weir: ready")(p) || says("weir: standing by")(p) }
	}
	return nil
}

// gateways starts the gateways. They have the same keys, so that a token is good for all of them.
func (c *Cluster) gateways(context.Context) error {
	ports, err := freePorts(4 * c.Options.Gateways)
	if err != nil {
		return err
	}
	first := ""
	for i := range c.Options.Gateways {
		name := fmt.Sprint("gateway-", i)
		data := filepath.Join(c.Dir, name)
		if c.GatewayData != nil {
			data = c.GatewayData(i)
		}
		if err := os.MkdirAll(data, 0o700); err != nil {
			return err
		}
		config, err := c.configuration(name, data, ports[4*i], ports[4*i+1], ports[4*i+2], ports[4*i+3])
		if err != nil {
			return err
		}
		if i == 0 {
			first = data
			c.signer = config
			if c.Token, err = c.TokenOf("loop"); err != nil {
				return err
			}
		} else if err := copyKeys(filepath.Join(first, "keys"), filepath.Join(data, "keys")); err != nil {
			return err
		}
		c.Listen = append(c.Listen, ports[4*i+1])
		c.Loose = append(c.Loose, ports[4*i+2])
		c.Short = append(c.Short, ports[4*i+3])
		p := c.process(name, "gateway", config)
		c.Gateways = append(c.Gateways, p)
		if err := c.up([]*Process{p}, 60*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func copyKeys(from, to string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return err
		}
		info, err := f.Info()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), b, info.Mode().Perm()); err != nil {
			return err
		}
	}
	return nil
}

// TokenOf makes a token for a subject.
func (c *Cluster) TokenOf(subject string) (string, error) {
	cmd := exec.Command(c.Weir, "token", "-c", c.signer, "--subject", subject, "--group", "agents", "--kind", "agent", "--ttl", "24h")
	cmd.Env = append(os.Environ(), c.environment()...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// environment has the secrets that the configurations name.
func (c *Cluster) environment() []string {
	env := []string{"ORDERS_PASSWORD=" + c.Password}
	if c.Bucket != nil {
		env = append(env, "BUCKET_KEY="+c.Bucket.secret)
	}
	return env
}

// readerFile holds the key with which the archive is read where it is encrypted.
const readerFile = "reader.key"

// identity makes that key.
func (c *Cluster) identity(context.Context) (err error) {
	if c.Encrypted == 0 {
		return nil
	}
	if c.reader, err = age.GenerateX25519Identity(); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Dir, readerFile), []byte(c.reader.String()+"\n"), 0o600)
}

// Run runs weir with the archive's configuration and returns what it printed on stdout, and its exit code.
func (c *Cluster) Run(args ...string) (stdout, stderr string, code int) {
	return c.RunWith(nil, append(args, "-c", filepath.Join(c.Dir, "archive-0.yaml"))...)
}

// RunWith runs weir without a configuration, and with more in its environment.
func (c *Cluster) RunWith(env []string, args ...string) (stdout, stderr string, code int) {
	cmd := exec.Command(c.Weir, args...)
	cmd.Env = append(append(append(os.Environ(), c.environment()...), "NO_COLOR=1"), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		return "", err.Error(), -1
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// Report is what weir verify says.
type Report struct {
	OK                        bool
	Sessions, Blocks, Records int
	Open                      []string
	Problems                  []any
}

// Verify runs weir verify over the archive.
func (c *Cluster) Verify(more ...string) (r Report, err error) {
	out, errs, code := c.Run(append([]string{"verify", "--all", "-o", "json"}, more...)...)
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("weir verify ended with %d: %s%s", code, out, errs)
	}
	if (code == 0) != r.OK {
		return r, fmt.Errorf("weir verify ended with %d and says %+v", code, r)
	}
	return r, nil
}

// Archive is the folder of the archive.
func (c *Cluster) Archive() string { return filepath.Join(c.Dir, "archive", "archive") }

// Close ends everything, in the order in which nothing is lost.
func (c *Cluster) Close() error {
	var all []error
	for _, k := range c.Links {
		k.Heal()
	}
	if c.Bucket != nil { // a worker that stops hands over what is left
		all = append(all, c.Bucket.Start())
		defer func() { c.Bucket.Kill() }()
	}
	for _, group := range [][]*Process{c.Gateways, c.Workers, c.Nodes} {
		for _, p := range group {
			if err := p.Stop(40 * time.Second); err != nil && !strings.HasPrefix(p.Name, "nats") {
				all = append(all, err)
			}
		}
	}
	for _, k := range c.Links {
		k.Close()
	}
	if c.Postgres != nil {
		all = append(all, c.Postgres.Stop())
	}
	return joined(all)
}
