package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
)

// played is a recording that is served.
type played struct {
	addr string
	errs chan error // how each client's rehearsal ended
}

func recordsOf(list []core.Record) iter.Seq2[*core.Record, error] {
	return func(yield func(*core.Record, error) bool) {
		for i := range list {
			if !yield(&list[i], nil) {
				return
			}
		}
	}
}

func play(t *testing.T, records []core.Record, match core.Match) *played {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &played{addr: l.Addr().String(), errs: make(chan error, 16)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				p.errs <- protocol.Rehearse(ctx, conn, core.Rehearsal{Records: recordsOf(records), Match: match})
			})
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return p
}

func (p *played) url() string {
	return "postgres://agent@" + p.addr + "/orders?sslmode=disable&connect_timeout=10"
}

func (p *played) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.errs:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the rehearsal goes on")
		return nil
	}
}

// dialled connects, and keeps what comes back.
func dialled(t *testing.T, url string, mode pgx.QueryExecMode) (*pgx.Conn, func() []byte) {
	t.Helper()
	config, err := pgx.ParseConfig(url)
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
	return c, func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return afterSignIn(seen.Bytes())
	}
}

// agentWork is what an agent does in one session.
func agentWork(t *testing.T, c *pgx.Conn) (said []string) {
	ctx := t.Context()
	say := func(tag pgconn.CommandTag, err error) {
		text := tag.String()
		if err != nil {
			text = err.Error()
		}
		said = append(said, text)
	}
	for i := range 3 {
		rows, err := c.Query(ctx, "select id, email from s.customers where id <> $1 order by id", i)
		for err == nil && rows.Next() {
			v, _ := rows.Values()
			said = append(said, fmt.Sprint(v))
		}
		if err == nil {
			err = rows.Err()
		}
		say(pgconn.CommandTag{}, err)
	}
	say(c.Exec(ctx, "select * from s.wide"))
	say(c.Exec(ctx, "drop table if exists s.other")) // refused
	say(c.Exec(ctx, "select 1/0"))
	say(c.Exec(ctx, "alter role nobody_here password 'kestrel'")) // its text is not recorded
	var out bytes.Buffer
	say(c.PgConn().CopyTo(ctx, &out, "copy s.customers to stdout"))
	said = append(said, out.String())
	say(c.Exec(ctx, "create temp table cp (a int)"))
	say(c.PgConn().CopyFrom(ctx, strings.NewReader("1\n2\n"), "copy cp from stdin"))
	b := &pgx.Batch{}
	for _, q := range []string{"select 1", "select email from s.customers", "truncate s.mix0", "select 3"} {
		b.Queue(q)
	}
	say(pgconn.CommandTag{}, c.SendBatch(ctx, b).Close())
	say(pgconn.CommandTag{}, c.Ping(ctx))
	_ = c.Close(ctx)
	return said
}

// An unchanged client gets from the recording, byte for byte, what it got from the gateway, without an upstream.
func TestRehearsal(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t, withChain(guard{deny: noWrites, mask: map[string]string{"email": "x"}}))
			c, seen := dialled(t, g.url(""), mode)
			said := agentWork(t, c)
			records := g.journal.all()
			p := play(t, records, core.MatchOrder)
			c, again := dialled(t, p.url(), mode)
			if got := agentWork(t, c); strings.Join(got, "\n") != strings.Join(said, "\n") {
				t.Errorf("it was told\n%q\nand now\n%q", said, got)
			}
			if err := p.ended(t); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(seen(), again()) {
				t.Errorf("%d bytes before, %d now", len(seen()), len(again()))
			}
		})
	}
}

// Whoever asks for something else is told so, in the protocol's own error, and so is whoever plays the recording.
func TestDivergence(t *testing.T) {
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGate(t)
			c := g.connect(mode)
			for _, q := range []string{"select 1", "select 2"} {
				if _, err := c.Exec(t.Context(), q); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.Close(t.Context())
			records := g.journal.all()
			for what, tt := range map[string]struct {
				ask       []string
				want, got string
			}{
				"another text":  {[]string{"select 1", "select 3"}, "select 2", "select 3"},
				"another first": {[]string{"select 2"}, "select 1", "select 2"},
				"one more":      {[]string{"select 1", "select 2", "select 2"}, "", "select 2"},
				"one less":      {[]string{"select 1"}, "select 2", "nothing more"},
			} {
				p := play(t, records, core.MatchOrder)
				c, _ := dialled(t, p.url(), mode)
				var err error
				for _, q := range tt.ask {
					if _, err = c.Exec(t.Context(), q); err != nil {
						break
					}
				}
				_ = c.Close(t.Context())
				var d *core.Divergence
				if end := p.ended(t); !errors.As(end, &d) {
					t.Errorf("%s: %v", what, end)
					continue
				}
				if strings.HasPrefix(d.Got, "Bind") || strings.HasPrefix(d.Want, "Bind") { // the text was parsed before, under a name
					tt.want, tt.got = "", ""
				}
				if mode == pgx.QueryExecModeCacheStatement && what == "one more" {
					tt.got = "" // it is only executed
				}
				if !strings.Contains(d.Want, tt.want) || !strings.Contains(d.Got, tt.got) {
					t.Errorf("%s: %v", what, d)
				}
				var told *pgconn.PgError
				if what != "one less" && (!errors.As(err, &told) || told.Code != codeDiverged || told.Severity != "FATAL" || !strings.Contains(told.Detail, d.Got)) {
					t.Errorf("%s: the client was told %v", what, err)
				}
			}
		})
	}
}

// With match: text, the same text gets the same answer in any order, and each time again.
func TestRehearsalByText(t *testing.T) {
	if _, err := server.Psql(t.Context(), "postgres", "create table s.sandboxed (a int)"); err != nil {
		t.Fatal(err)
	}
	ask := map[string]func(c *pgx.Conn) string{
		"rows": func(c *pgx.Conn) string {
			var email string
			err := c.QueryRow(t.Context(), "select email from s.customers where id = $1", 2).Scan(&email)
			return fmt.Sprint(email, err)
		},
		"other": func(c *pgx.Conn) string {
			var n int
			err := c.QueryRow(t.Context(), "select count(*) from s.wide where id > $1", 100).Scan(&n)
			return fmt.Sprint(n, err)
		},
		"error": func(c *pgx.Conn) string { _, err := c.Exec(t.Context(), "select 1/0"); return fmt.Sprint(err) },
		"copy": func(c *pgx.Conn) string {
			tag, err := c.PgConn().CopyFrom(t.Context(), strings.NewReader("1\n2\n"), "copy s.sandboxed from stdin")
			return fmt.Sprint(tag, err)
		},
		"out": func(c *pgx.Conn) string {
			var out bytes.Buffer
			_, err := c.PgConn().CopyTo(t.Context(), &out, "copy (select 7) to stdout")
			return fmt.Sprint(out.String(), err)
		},
		"batch": func(c *pgx.Conn) string {
			b := &pgx.Batch{}
			b.Queue("select 1")
			b.Queue("select 2 from s.victim limit 1")
			return fmt.Sprint(c.SendBatch(t.Context(), b).Close())
		},
	}
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			g := startGate(t)
			c := g.connect(mode)
			want := map[string]string{}
			for _, what := range []string{"rows", "other", "error", "copy", "out", "batch"} {
				want[what] = ask[what](c)
			}
			_ = c.Close(t.Context())
			p := play(t, g.journal.all(), core.MatchText)
			c, _ = dialled(t, p.url(), mode)
			for _, what := range []string{"batch", "copy", "other", "copy", "error", "rows", "out", "rows", "batch"} {
				if got := ask[what](c); got != want[what] {
					t.Fatalf("%s: %q, recorded was %q", what, got, want[what])
				}
			}
			_, err := c.Exec(t.Context(), "select 'never asked'")
			var told *pgconn.PgError
			if !errors.As(err, &told) || told.Code != codeDiverged {
				t.Errorf("another text: %v", err)
			}
			var d *core.Divergence
			if err := p.ended(t); !errors.As(err, &d) || d.Command < 9 {
				t.Error(err)
			}
		})
	}
}

// The same lines of psql print the same.
func TestRehearsalWithPsql(t *testing.T) {
	g := startGate(t, withChain(guard{deny: noWrites, mask: map[string]string{"email": "x"}}))
	script := "select * from s.customers;\nselect 1/0;\ndelete from s.victim;\nbegin; select count(*) from s.wide; commit;\n\\d s.customers\n\\copy s.customers to stdout\n"
	psql := func(url string) string {
		cmd := exec.CommandContext(t.Context(), filepath.Join(server.Bin, "psql"), "-X", url)
		cmd.Stdin = strings.NewReader(script)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return string(out)
	}
	want := psql(g.url(""))
	p := play(t, g.journal.all(), core.MatchOrder)
	if got := psql(p.url()); got != want || !strings.Contains(got, "refused by Weir") {
		t.Errorf("then\n%s\nnow\n%s", want, got)
	}
	if err := p.ended(t); err != nil {
		t.Error(err)
	}
}

// What cannot be played says why, to the client as well.
func TestUnplayable(t *testing.T) {
	g := startGate(t)
	c := g.connect(pgx.QueryExecModeSimpleProtocol)
	_, _ = c.Exec(t.Context(), "select 1")
	_ = c.Close(t.Context())
	whole := g.journal.all()
	metadata := bytes.Replace(whole[0].Facts, []byte(`"record":"full"`), []byte(`"record":"metadata"`), 1)
	for name, tt := range map[string]struct {
		change func([]core.Record) []core.Record
		want   string
	}{
		"metadata only": {func(l []core.Record) []core.Record { l[0].Facts = metadata; return l }, "not recorded in full"},
		"refused":       {func(l []core.Record) []core.Record { return append(l[:1:1], l[2:]...) }, "was refused"},
		"cut":           {func(l []core.Record) []core.Record { return l[:1] }, "ends before"},
		"a command without its bytes": {func(l []core.Record) []core.Record {
			for i := range l {
				if l[i].Kind == core.KindCommand {
					l[i].Wire = nil
				}
			}
			return l
		}, "not recorded in full"},
		"half a message": {func(l []core.Record) []core.Record {
			for i := range l {
				if l[i].Kind == core.KindCommand {
					l[i].Wire = l[i].Wire[:7]
				}
			}
			return l
		}, "half a message"},
	} {
		for _, match := range []core.Match{core.MatchOrder, core.MatchText} {
			p := play(t, tt.change(append([]core.Record(nil), whole...)), match)
			c, err := pgx.Connect(t.Context(), p.url())
			if err == nil {
				_, err = c.Exec(t.Context(), "select 1", pgx.QueryExecModeSimpleProtocol)
				_ = c.Close(t.Context())
			}
			if end := p.ended(t); end == nil || !strings.Contains(end.Error(), tt.want) {
				t.Errorf("%s, %s: %v (the client: %v)", name, match, end, err)
			}
		}
	}
	p := play(t, whole, core.MatchOrder) // and a client that speaks nothing
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
	_, _ = io.ReadAll(conn)
	_ = conn.Close()
	if p.ended(t) == nil {
		t.Error("a stranger was served")
	}
}
