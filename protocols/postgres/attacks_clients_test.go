package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// deliveries are the ways in which a client can have one DELETE run.
var deliveries = []string{"query", "unnamed", "named", "prepare", "cursor", "batch", "do"}

// outcome is what a client saw of one delivery: the error as it tells it, and the rows that are left.
type outcome struct {
	said string
	left string
}

// TestAttackClients is PG-42: seven deliveries by five clients.
func TestAttackClients(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]func(*testing.T, string) map[string]outcome{
		"psql": byPsql, "pgx extended": byPgx(pgx.QueryExecModeCacheStatement), "pgx simple": byPgx(pgx.QueryExecModeSimpleProtocol),
		"node-pg": byNode, "psycopg": byPython,
	} {
		t.Run("PG-42/"+name, func(t *testing.T) {
			t.Parallel()
			r := newGround(t)
			before := r.mark(t)
			guarded, open := client(t, r.guarded.url("")), client(t, r.open.url(""))
			for _, way := range deliveries {
				t.Run(way, func(t *testing.T) {
					g, o := guarded[way], open[way]
					if !strings.Contains(g.said, "42501") && !strings.Contains(g.said, "rule ") || g.left != "5" {
						t.Errorf("guarded: %+v", g)
					}
					if o.left != "0" {
						t.Errorf("control: %+v", o)
					}
				})
			}
			if n := len(before.denials()); n < len(deliveries) {
				t.Errorf("%d refusals are recorded", n)
			}
			r.restore(t, false)
			before.holds(t)
		})
	}
}

func byPgx(mode pgx.QueryExecMode) func(*testing.T, string) map[string]outcome {
	const text = "delete from s.victim"
	return func(t *testing.T, url string) map[string]outcome {
		ctx, out := t.Context(), map[string]outcome{}
		for _, way := range deliveries {
			config, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}
			config.DefaultQueryExecMode = mode
			c, err := pgx.ConnectConfig(ctx, config)
			if err != nil {
				t.Fatal(err)
			}
			all := func(statements ...string) (err error) {
				for _, s := range statements {
					if err == nil {
						_, err = c.Exec(ctx, s)
					}
				}
				return err
			}
			switch way {
			case "query":
				err = all(text)
			case "unnamed":
				m := pgx.QueryExecModeExec
				if mode == pgx.QueryExecModeSimpleProtocol {
					m = mode
				}
				_, err = c.Exec(ctx, text+" where a > $1", m, 0)
			case "named":
				if mode == pgx.QueryExecModeSimpleProtocol {
					err = all("select 1", text+" -- d")
				} else if _, err = c.Prepare(ctx, "d", text); err == nil {
					_, err = c.Exec(ctx, "d")
				}
			case "prepare":
				err = all("prepare d as "+text, "execute d")
			case "cursor":
				err = all("begin", "declare d cursor for select s.wipe()", "fetch all d", "commit")
			case "batch":
				b := &pgx.Batch{}
				b.Queue("select 1")
				b.Queue(text)
				b.Queue("select 2")
				err = c.SendBatch(ctx, b).Close()
			case "do":
				err = all("do $$ begin " + text + "; end $$")
			}
			said := "ok"
			var pe *pgconn.PgError
			if errors.As(err, &pe) {
				said = pe.Code + " " + pe.Detail
			} else if err != nil {
				said = err.Error()
			}
			_ = all("rollback")
			var left int
			if err := c.QueryRow(ctx, "select count(*) from s.victim").Scan(&left); err != nil {
				t.Fatal(err)
			}
			out[way] = outcome{said, fmt.Sprint(left)}
			if left == 0 {
				_ = all("insert into s.victim select generate_series(1, 5)")
			}
			_ = c.Close(context.Background())
		}
		return out
	}
}

func byPsql(t *testing.T, url string) map[string]outcome {
	out := map[string]outcome{}
	unnamed := `select 'delete from s.victim' \gexec`
	if v, err := exec.CommandContext(t.Context(), server.Program("psql"), "--version").Output(); err == nil && !strings.Contains(string(v), " 15.") && !strings.Contains(string(v), " 14.") {
		unnamed = "delete from s.victim where a > $1 \\bind 0 \\g" // since 16
	}
	for way, script := range map[string]string{
		"query": "delete from s.victim;", "unnamed": unnamed, "named": "\\set d 'delete from s.victim'\n:d;",
		"prepare": "prepare d as delete from s.victim;\nexecute d;", "cursor": "\\set FETCH_COUNT 1\nselect s.wipe();",
		"batch": `select 1\; delete from s.victim\; select 2;`, "do": "do $$ begin delete from s.victim; end $$;",
	} {
		cmd := exec.CommandContext(t.Context(), server.Program("psql"), "-X", "-A", "-t", "-v", "VERBOSITY=verbose", "-d", url)
		cmd.Env = append(os.Environ(), "LC_ALL=C")
		cmd.Stdin = strings.NewReader(script + "\nselect 'left=' || count(*) from s.victim;\ninsert into s.victim select generate_series(1, 5) where not exists (select from s.victim);\n")
		b, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("psql: %v\n%s", err, b)
		}
		_, left, _ := strings.Cut(string(b), "left=")
		left, _, _ = strings.Cut(left, "\n")
		out[way] = outcome{string(b), left}
	}
	return out
}

func byNode(t *testing.T, url string) map[string]outcome {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node: install nodejs")
	}
	modules, err := nodeModules(t.Context())
	if err != nil {
		t.Skip("node's pg cannot be had: ", err)
	}
	cmd := exec.CommandContext(t.Context(), node, "testdata/attacks/clients/deliver.js", url)
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	return outcomes(t, cmd)
}

// nodeModules returns the folder that node finds pg in: one that npm has filled before, here or for the tests of the
// clients, Debian's, or one that it fills now.
func nodeModules(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	own := filepath.Join(cache, "weir-test", "attacks", "node_modules")
	for _, dir := range []string{own, filepath.Join(cache, "weir-test", "node", "node_modules"), "/usr/share/nodejs"} {
		if _, err := os.Stat(filepath.Join(dir, "pg", "package.json")); err == nil {
			return dir, nil
		}
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "/usr/share/nodejs", postgrestest.Packages(ctx, nil, "nodejs", "node-pg")
	}
	if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, npm, "install", "--prefix", filepath.Dir(own), "--no-audit", "--no-fund", "--no-save", "pg@8.23.1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm install pg: %w\n%s", err, out)
	}
	return own, nil
}

func byPython(t *testing.T, url string) map[string]outcome {
	const python = "/usr/bin/python3" // Debian's, which Debian's packages are for
	if exec.CommandContext(t.Context(), python, "-c", "import psycopg").Run() != nil {
		if err := postgrestest.Packages(t.Context(), nil, "python3-psycopg"); err != nil {
			t.Skip("psycopg cannot be had: ", err)
		}
	}
	return outcomes(t, exec.CommandContext(t.Context(), python, "testdata/attacks/clients/deliver.py", url))
}

// outcomes reads the lines that a program prints: way, what was said, rows left.
func outcomes(t *testing.T, cmd *exec.Cmd) map[string]outcome {
	t.Helper()
	b, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd.Path, err, b)
	}
	out := map[string]outcome{}
	for _, line := range strings.Split(string(b), "\n") {
		if part := strings.Split(line, "|"); len(part) == 3 {
			out[part[0]] = outcome{part[1], part[2]}
		}
	}
	return out
}
