package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// tap keeps what a connection has read.
type tap struct {
	net.Conn
	mu   *sync.Mutex
	seen *bytes.Buffer
}

func (t tap) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	t.seen.Write(b[:n])
	t.mu.Unlock()
	return n, err
}

// afterSignIn returns what a client was sent without the messages that no record may hold: sign-in and cancel key.
func afterSignIn(b []byte) (out []byte) {
	for len(b) >= headerSize {
		n := 1 + int(binary.BigEndian.Uint32(b[1:]))
		if b[0] != 'R' && b[0] != 'K' {
			out = append(out, b[:n]...)
		}
		b = b[n:]
	}
	return out
}

// TestRecordIsWhatTheClientSaw is invariant I1: each byte that a client received stands in the record, and nothing else.
func TestRecordIsWhatTheClientSaw(t *testing.T) {
	for name, mode := range modes {
		for _, chain := range []guard{{}, {deny: noWrites, mask: map[string]string{"email": "x", "name": "longer than it was"}}} {
			t.Run(fmt.Sprintf("%s/masks=%d", name, len(chain.mask)), func(t *testing.T) {
				g := startGate(t, withChain(chain))
				config, err := pgx.ParseConfig(g.url(""))
				if err != nil {
					t.Fatal(err)
				}
				var mu sync.Mutex
				var seen bytes.Buffer
				config.DefaultQueryExecMode = mode
				config.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
					return tap{c, &mu, &seen}, err
				}
				c, err := pgx.ConnectConfig(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Exec(t.Context(), "select * from s.wide")
				_, _ = c.Exec(t.Context(), "drop table if exists s.other")
				_, _ = c.Exec(t.Context(), "select 1/0")
				_, _ = c.Exec(t.Context(), "listen x")
				_, _ = c.Exec(t.Context(), "notify x, 'payload'")
				_, _ = c.Exec(t.Context(), "set application_name = 'other'")
				_, _ = c.PgConn().CopyTo(t.Context(), io.Discard, "copy s.wide (id, total) to stdout")
				_, _ = c.PgConn().CopyTo(t.Context(), io.Discard, "copy s.customers to stdout")
				_, _ = c.PgConn().CopyTo(t.Context(), io.Discard, "copy nothing to stdout")
				if _, err := c.Exec(t.Context(), "create temp table cp (a int)"); err == nil {
					_, _ = c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n2\n"), "copy cp from stdin")
				}
				b := &pgx.Batch{}
				b.Queue("select 1")
				b.Queue("select email from s.customers")
				b.Queue("truncate s.mix0")
				b.Queue("select 3")
				_ = c.SendBatch(t.Context(), b).Close()
				if err := c.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
				_ = c.Close(t.Context())
				mu.Lock()
				defer mu.Unlock()
				want, got := afterSignIn(seen.Bytes()), g.journal.clientBytes()
				if !bytes.Equal(want, got) {
					i := 0
					for i < len(want) && i < len(got) && want[i] == got[i] {
						i++
					}
					t.Fatalf("client saw %d bytes, the record has %d; they differ at %d:\nsaw      %q\nrecorded %q", len(want), len(got), i, cut(want, i), cut(got, i))
				}
				for i, r := range g.journal.all() {
					if r.Seq != uint64(i) {
						t.Fatalf("record %d has number %d", i, r.Seq)
					}
				}
			})
		}
	}
}

func cut(b []byte, i int) []byte { return b[max(0, i-20):min(len(b), i+60)] }

func TestCopy(t *testing.T) {
	masked := maskingChain(t, "s.customers.email")
	for _, c := range []struct {
		sql  string
		rule string // of the refusal, with the guard on
	}{
		{"copy s.customers (id, note) to stdout", ""},
		{"copy (select id, note from s.customers) to stdout with csv", ""},
		{"copy s.customers to stdout (encoding latin1)", "copy-masked"},
		{"copy (select id from s.customers) to stdout; copy s.customers to stdout", "copy-masked"},
	} {
		for name, g := range map[string]*testGate{"guarded": startGate(t, withChain(masked)), "open": startGate(t)} {
			t.Run(name+"/"+c.sql, func(t *testing.T) {
				conn := g.connect(pgx.QueryExecModeExec)
				var out bytes.Buffer
				_, err := conn.PgConn().CopyTo(t.Context(), &out, c.sql)
				var pe *pgconn.PgError
				switch {
				case c.rule == "" || name == "open":
					if err != nil || out.Len() == 0 {
						t.Fatal(err, out.Len())
					}
				case !errors.As(err, &pe) || pe.Code != "42501" || pe.Detail != "rule "+c.rule:
					t.Fatal(err)
				case strings.Contains(out.String(), "@example"):
					t.Fatal(out.String())
				}
				if err := conn.Ping(t.Context()); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
	t.Run("from", func(t *testing.T) {
		conn := startGate(t, withChain(masked)).connect(pgx.QueryExecModeExec)
		if _, err := conn.Exec(t.Context(), "create temp table t (a int, b text)"); err != nil {
			t.Fatal(err)
		}
		n, err := conn.CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"a", "b"}, pgx.CopyFromSlice(5000, func(i int) ([]any, error) {
			return []any{i, strings.Repeat("x", i%300)}, nil
		}))
		if err != nil || n != 5000 {
			t.Fatal(n, err)
		}
		if _, err := conn.PgConn().CopyFrom(t.Context(), strings.NewReader("x\ty\n"), "copy t from stdin"); err == nil {
			t.Fatal("bad data passed")
		}
		if err := conn.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestCancel(t *testing.T) {
	conn := startGate(t).connect(pgx.QueryExecModeExec)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	go func() {
		<-ctx.Done()
		_ = conn.PgConn().CancelRequest(context.Background())
	}()
	start := time.Now()
	_, err := conn.Exec(context.Background(), "select pg_sleep(20)")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "57014" || time.Since(start) > 10*time.Second {
		t.Fatal(err, time.Since(start))
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, secret := conn.PgConn().PID(), conn.PgConn().SecretKey()
	var upstream uint32
	if err := conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&upstream); err != nil || upstream == pid {
		t.Fatal("the upstream's own process id is the cancel key's", err)
	}
	_ = secret
}

func TestTLS(t *testing.T) {
	g := startGate(t, withTLS(t))
	for _, mode := range []string{"require", "verify-ca", "verify-full", "disable", "prefer"} {
		config, err := pgx.ParseConfig(strings.Replace(g.url(""), "sslmode=disable", "sslmode="+mode, 1))
		if err != nil {
			t.Fatal(err)
		}
		if config.TLSConfig != nil && mode != "require" && mode != "prefer" {
			config.TLSConfig.RootCAs = g.caPool
		}
		c, err := pgx.ConnectConfig(t.Context(), config)
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if err := c.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		encrypted := g.open.Hello.TLS
		g.mu.Unlock()
		if encrypted != (mode != "disable") {
			t.Errorf("%s: encrypted %v", mode, encrypted)
		}
		_ = c.Close(t.Context())
	}
}

var mixes = flag.Int("mixes", 400, "how many random pipelines TestPipelineMixes plays")

// TestPipelineMixes sends random pipelines of good, failing and refused statements, with Syncs anywhere, and checks
// that each answer comes in its turn: the gateway's answers are those of a server that fails where Weir refuses.
func TestPipelineMixes(t *testing.T) {
	g := startGate(t, withChain(guard{deny: noWrites}))
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	conn := g.connect(pgx.QueryExecModeExec)
	direct, err := pgx.Connect(t.Context(), server.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = direct.Close(context.Background()) }()
	if _, err := direct.Exec(t.Context(), "create table if not exists s.mix (n int)"); err != nil {
		t.Fatal(err)
	}
	statements := []struct{ gateway, model string }{
		{"select 1", "select 1"},
		{"select 'two'", "select 'two'"},
		{"insert into s.mix values (1)", "insert into s.mix values (1)"},
		{"select 1/0", "select 1/0"},
		{"begin", "begin"},
		{"commit", "commit"},
		{"rollback", "rollback"},
		{"drop table s.victim", "raise"},
		{"delete from s.victim", "raise"}, // the model fails where Weir refuses
	}
	play := func(c *pgx.Conn, script []int, model bool) (out []string) {
		p := c.PgConn().StartPipeline(t.Context())
		for _, s := range script {
			if s < 0 {
				p.SendPipelineSync()
				continue
			}
			sql := statements[s].gateway
			if model {
				sql = statements[s].model
			}
			p.SendQueryParams(sql, nil, nil, nil, nil)
		}
		p.SendPipelineSync()
		_ = p.Flush()
		for {
			res, err := p.GetResults()
			if err != nil {
				var pe *pgconn.PgError
				if !errors.As(err, &pe) {
					out = append(out, err.Error())
					break
				}
				code := pe.Code
				if code == "42601" || code == "42501" {
					code = "refused"
				}
				out = append(out, code)
				continue
			}
			switch res := res.(type) {
			case *pgconn.ResultReader:
				result := res.Read()
				line := result.CommandTag.String()
				for _, row := range result.Rows {
					for _, v := range row {
						line += " " + string(v)
					}
				}
				if result.Err != nil {
					line = "error"
					var pe *pgconn.PgError
					if errors.As(result.Err, &pe) {
						line = pe.Code
						if line == "42601" || line == "42501" {
							line = "refused"
						}
					}
				}
				out = append(out, line)
			case *pgconn.PipelineSync:
				out = append(out, "sync "+string(c.PgConn().TxStatus()))
			case nil:
				_ = p.Close()
				return out
			}
		}
		_ = p.Close()
		return out
	}
	rounds := *mixes
	if testing.Short() {
		rounds = 50
	}
	for round := range rounds {
		script := make([]int, 1+r.IntN(12))
		for i := range script {
			script[i] = r.IntN(len(statements)+3) - 3
			if script[i] < -1 {
				script[i] = -1
			}
		}
		want, got := play(direct, script, true), play(conn, script, false)
		if strings.Join(want, "\n") != strings.Join(got, "\n") {
			t.Fatalf("seed %d round %d script %v\nserver:\n  %s\nWeir:\n  %s", seed, round, script, strings.Join(want, "\n  "), strings.Join(got, "\n  "))
		}
		for _, c := range []*pgx.Conn{direct, conn} {
			if c.PgConn().TxStatus() != 'I' {
				if _, err := c.Exec(t.Context(), "rollback"); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func TestPsqlAndPgbench(t *testing.T) {
	t.Parallel()
	g := startGate(t, withChain(guard{deny: noWrites, mask: map[string]string{"email": "hidden"}}))
	host, port, _ := net.SplitHostPort(g.addr)
	run := func(program string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), server.Program(program), append([]string{"-h", host, "-p", port, "-U", "agent"}, args...)...)
		cmd.Env = append(os.Environ(), "PGPASSWORD="+token, "PGSSLMODE=prefer", "LC_ALL=C")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("psql", "-X", "-d", "orders", "-A", "-t", "-c", "select email from s.customers order by id", "-c", "drop table s.victim", "-c", "select 'still here'", "-c", `\d s.customers`, "-c", "copy (select 1, 2) to stdout")
	if !strings.Contains(out, "hidden\nhidden\n") || !strings.Contains(out, "rule no-ddl") || !strings.Contains(out, "still here") || !strings.Contains(out, "character varying(40)") || !strings.Contains(out, "1\t2") {
		t.Errorf("%v\n%s", err, out)
	}
	initialise := exec.CommandContext(t.Context(), server.Program("pgbench"), "-q", "-i", "-s", "1", "-h", server.Dir, "-p", strconv.Itoa(server.Port), "-U", server.User, "postgres")
	if out, err := initialise.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, mode := range []string{"simple", "extended", "prepared"} {
		out, err := run("pgbench", "-n", "-S", "-s", "1", "-M", mode, "-c", "4", "-j", "2", "-t", "200", "orders")
		if err != nil || !strings.Contains(out, "800/800") {
			t.Errorf("%s: %v\n%s", mode, err, out)
		}
	}
}
