//go:build linux

package limits

import (
	"context"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// provoked is, for each key of limits, something that goes beyond it, and the code and words that the client must get.
var provoked = map[string]struct {
	code, words string
	provoke     func(t *testing.T) error
}{
	"max_frame": {"54000", "max_frame", func(t *testing.T) error {
		return ask(connect(t, "small"), "select '"+strings.Repeat("x", 2*mib)+"'")
	}},
	"statement_timeout": {"57014", "limits.statement_timeout", func(t *testing.T) error {
		c := connect(t, "statement")
		err := ask(c, "select pg_sleep(20)")
		if again := ask(c, "select 1"); again != nil {
			t.Error("the session does not go on:", again)
		}
		return err
	}},
	"idle": {"57P05", "limits.idle", func(t *testing.T) error { return farewell(t, open(t, "idle")) }},
	"rows": {"54000", "more than 100 rows", func(t *testing.T) error {
		c := connect(t, "rows")
		err := ask(c, "select generate_series(1, 101)")
		if again := ask(c, "select generate_series(1, 100)"); again != nil {
			t.Error("what is within it does not pass:", again)
		}
		return err
	}},
	"sessions": {"53300", "has 1 sessions open at this gateway, its limit", func(t *testing.T) error {
		connect(t, "sessions")
		_, err := pgconn.Connect(t.Context(), address(listen["sessions"], "sessions", token))
		return err
	}},
	"sessions_per_identity": {"53300", "the limit of one identity", func(t *testing.T) error {
		connect(t, "identities")
		_, err := pgconn.Connect(t.Context(), address(listen["identities"], "identities", token))
		return err
	}},
	"sessions_per_run": {"53300", "run r1 has 1 sessions open", func(t *testing.T) error {
		out, err := gateway.Run(t.Context(), "token", "--subject", "looper", "--run", "r1")
		if err != nil {
			t.Fatal(out, err)
		}
		of := address(listen["runs"], "runs", strings.TrimSpace(out))
		c, err := pgconn.Connect(t.Context(), of)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close(context.Background()) })
		_, err = pgconn.Connect(t.Context(), of)
		return err
	}},
	"sign_in": {"57014", "limits.sign_in", func(t *testing.T) error {
		conn, err := net.Dial("tcp", listen["sign_in"])
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		startup := "\x00\x03\x00\x00user\x00agent\x00database\x00sign_in\x00\x00"
		if _, err := conn.Write(append([]byte{0, 0, 0, byte(len(startup) + 4)}, startup...)); err != nil {
			t.Fatal(err)
		}
		return farewell(t, conn) // it says who it is, and never sends the token
	}},
	"drain": {"57P01", "limits.drain", func(t *testing.T) error {
		targets = append(targets, struct{ name, limits, more string }{"drain", "drain: 300ms", ""})
		own, err := postgrestest.StartGateway(t.Context(), options(file("drain")))
		if err != nil {
			t.Fatal(err)
		}
		token, err := own.Token(t.Context(), "drain")
		if err != nil {
			t.Fatal(err)
		}
		c, err := pgconn.Connect(t.Context(), address(listen["drain"], "drain", token))
		if err != nil {
			t.Fatal(err)
		}
		if err := ask(c, "select 1"); err != nil {
			t.Fatal(err)
		}
		said := make(chan error, 1)
		go func() { said <- ask(c, "select pg_sleep(20)") }()
		time.Sleep(200 * time.Millisecond)
		begin := time.Now()
		if err := own.Stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took > 8*time.Second {
			t.Errorf("the gateway took %v to stop", took)
		}
		return <-said
	}},
}

// TestEveryLimit provokes each key of limits that a target can have. A key that has no case here fails the test.
func TestEveryLimit(t *testing.T) {
	keys := reflect.TypeFor[config.Limits]()
	if keys.NumField() != len(provoked) {
		t.Errorf("limits has %d keys, and %d are provoked", keys.NumField(), len(provoked))
	}
	other := connect(t, "plain")
	for i := range keys.NumField() {
		key, _, _ := strings.Cut(keys.Field(i).Tag.Get("yaml"), ",")
		t.Run(key, func(t *testing.T) {
			p, ok := provoked[key]
			if !ok {
				t.Fatal("nothing provokes it")
			}
			err := p.provoke(t)
			var e *pgconn.PgError
			if !errors.As(err, &e) || e.Code != p.code || !strings.Contains(e.Message+"; "+e.Detail, p.words) {
				t.Errorf("the client was told %v (%+v), not %s with %q", err, e, p.code, p.words)
			}
		})
	}
	alive(t, other)
}

// farewell reads what is sent until the other end closes, and returns the error in it.
func farewell(t *testing.T, conn net.Conn) error {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Index(string(b), "SFATAL\x00")
	if at < 0 {
		return errors.New("no farewell: " + string(b))
	}
	e := &pgconn.PgError{}
	for _, f := range strings.Split(string(b[at:]), "\x00") {
		switch {
		case strings.HasPrefix(f, "C"):
			e.Code = f[1:]
		case strings.HasPrefix(f, "M"):
			e.Message = f[1:]
		}
	}
	return e
}
