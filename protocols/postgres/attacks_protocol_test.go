package postgres

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// talk joins messages.
func talk(parts ...[]byte) (out []byte) {
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func parseMessage(name, sql string) []byte { return message('P', name+"\x00"+sql+"\x00\x00\x00") }

// run is the messages of one statement by the extended protocol, without a Sync.
func runMessages(sql string) []byte {
	return talk(parseMessage("", sql), message('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00"))
}

func queryMessage(sql string) []byte { return message('Q', sql+"\x00") }

// TestAttackPipelines is PG-87 to PG-90 and PG-94: a refusal has the effect of a failure, and nothing gets out of step.
// What comes is compared by message types; the control is the server's own answer to the same messages where a statement
// fails in place of the refused one.
func TestAttackPipelines(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	sync, line := message('S', ""), message('d', "7\n")
	const refused = "delete from s.victim"
	const fails = "delete from s.nothing"
	for _, c := range []struct {
		id, name string
		steps    func(bad string) [][]byte // each ends with what brings a ReadyForQuery
		types    string
		rows     string // of w.lines in the end
	}{
		{"PG-87", "a bad one first", func(bad string) [][]byte {
			return [][]byte{talk(runMessages(bad), runMessages("insert into w.lines values ('a')"), sync)}
		}, "EZ", ""},
		{"PG-87", "a bad one in the middle of many", func(bad string) [][]byte {
			return [][]byte{talk(runMessages("select 1"), runMessages(bad), bytes.Repeat(runMessages("insert into w.lines values ('a')"), 20), sync)}
		}, "12DCEZ", ""},
		{"PG-87", "Flush in place of Sync", func(bad string) [][]byte {
			return [][]byte{talk(runMessages(bad), message('H', ""), runMessages("select 1"), message('H', ""), sync)}
		}, "EZ", ""},
		{"PG-88", "insert, bad, insert", func(bad string) [][]byte {
			return [][]byte{talk(runMessages("insert into w.lines values ('a')"), runMessages(bad), runMessages("insert into w.lines values ('b')"), sync)}
		}, "12CEZ", ""},
		{"PG-88", "and another pipeline after it", func(bad string) [][]byte {
			return [][]byte{talk(runMessages("insert into w.lines values ('a')"), runMessages(bad), sync, runMessages("insert into w.lines values ('b')"), sync), nil}
		}, "12CEZ12CZ", "b"},
		{"PG-89", "in a transaction", func(bad string) [][]byte {
			return [][]byte{queryMessage("begin"), queryMessage("insert into w.lines values ('a')"), queryMessage(bad), queryMessage("select 1"), queryMessage("commit")}
		}, "CZCZEZEZCZ", ""},
		{"PG-89", "in a transaction, extended", func(bad string) [][]byte {
			return [][]byte{queryMessage("begin"), talk(runMessages("insert into w.lines values ('a')"), sync), talk(runMessages(bad), sync), talk(runMessages("select 1"), sync), talk(runMessages("commit"), sync)}
		}, "CZ12CZEZEZ12CZ", ""},
		{"PG-89", "back to a savepoint", func(bad string) [][]byte {
			return [][]byte{queryMessage("begin; insert into w.lines values ('a'); savepoint x"), queryMessage(bad), queryMessage("rollback to x"), queryMessage("commit")}
		}, "CCCZEZCZCZ", "a"},
		{"PG-90", "a Query inside a failed sequence", func(bad string) [][]byte {
			return [][]byte{talk(runMessages(bad), queryMessage("insert into w.lines values ('a')"), sync)}
		}, "EZ", ""},
		{"PG-90", "a FunctionCall inside a failed sequence", func(bad string) [][]byte {
			return [][]byte{talk(runMessages(bad), message('F', "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"), sync)}
		}, "EZ", ""},
		{"PG-90", "Close and Describe inside it", func(bad string) [][]byte {
			return [][]byte{talk(runMessages(bad), message('C', "S\x00"), message('D', "S\x00"), sync)}
		}, "EZ", ""},
		{"PG-94", "COPY data after a refusal", func(bad string) [][]byte {
			return [][]byte{talk(queryMessage(strings.Replace(bad, "delete from", "copy", 1)+" from program 'seq 3'"), line, line, message('c', "")), queryMessage("select 1")}
		}, "EZTDCZ", ""},
		{"PG-94", "COPY data and CopyFail after a refusal", func(bad string) [][]byte {
			return [][]byte{talk(queryMessage(bad), line, message('f', "no\x00")), queryMessage("select 1")}
		}, "EZTDCZ", ""},
		{"PG-94", "COPY data in an extended sequence", func(bad string) [][]byte {
			return [][]byte{talk(runMessages(bad), line, message('c', ""), sync), queryMessage("select 1")}
		}, "EZTDCZ", ""},
	} {
		t.Run(c.id+"/"+c.name, func(t *testing.T) {
			for _, g := range []*testGate{r.guarded, r.open} {
				guarded, bad, mark := g == r.guarded, fails, r.mark(t)
				if guarded {
					bad = refused
				}
				conn := g.dial()
				conn.signIn()
				var types strings.Builder
				var all []byte
				for _, step := range c.steps(bad) {
					conn.send(step)
					got, b := conn.frames()
					types.WriteString(got)
					all = append(all, b...)
				}
				if types.String() != c.types {
					t.Errorf("guarded %v: %s, want %s", guarded, types.String(), c.types)
				}
				if c.id == "PG-89" {
					status := ""
					for i := 0; i+5 < len(all); i++ {
						if string(all[i:i+5]) == "Z\x00\x00\x00\x05" {
							status += string(all[i+5])
						}
					}
					if want := map[string]string{"back to a savepoint": "TETI"}[c.name]; status != want && status != "TTEEI" {
						t.Errorf("guarded %v: transaction status %s", guarded, status)
					}
				}
				if guarded {
					if n := strings.Count(string(all), "C42501"); n != 1 {
						t.Errorf("%d refusals are told", n)
					}
					mark.holds(t, refused)
				}
				var rows string
				if err := r.side.QueryRow(t.Context(), "select coalesce(string_agg(line, ','), '') from w.lines").Scan(&rows); err != nil || rows != c.rows {
					t.Errorf("guarded %v: w.lines has %q, want %q: %v", guarded, rows, c.rows, err)
				}
				if _, err := r.side.Exec(t.Context(), "truncate w.lines"); err != nil {
					t.Fatal(err)
				}
				_ = conn.conn.Close()
			}
		})
	}
	t.Run("PG-88/control", func(t *testing.T) { // without the guard the delete of the pipeline happens
		conn := r.open.dial()
		conn.signIn()
		conn.send(talk(runMessages("insert into w.lines values ('a')"), runMessages(refused), sync))
		if types, _ := conn.frames(); types != "12C12CZ" || r.victims(t) != 0 {
			t.Error(types)
		}
		r.restore(t, true)
	})
}

// TestAttackSignIn is PG-96, PG-98 and PG-99: who tries to get in, and who would run the gateway from inside.
func TestAttackSignIn(t *testing.T) {
	t.Parallel()
	r := newGround(t)
	for name, m := range map[string][]byte{
		"a SCRAM answer":                message('p', "SCRAM-SHA-256\x00\x00\x00\x00\x20n,,n=,r=rOprNGfwEbeRWgbNEkqO%hvY"),
		"a SCRAM answer of length -1":   message('p', "SCRAM-SHA-256\x00\xff\xff\xff\xff"),
		"a SCRAM answer of length 2^31": message('p', "SCRAM-SHA-256\x00\x7f\xff\xff\xffn,,"),
		"a SCRAM answer cut short":      message('p', "SCRAM-SHA-256\x00\x00\x00"),
		"an empty answer":               message('p', ""),
		"two ends":                      message('p', "x\x00\x00"),
		"another message":               message('Q', "select 1\x00"),
		"a cancel request":              packet(cancelRequest, "12345678"),
		"a huge password message":       {'p', 0x7f, 0xff, 0xff, 0xff},
	} {
		t.Run("PG-96/"+name, func(t *testing.T) {
			before := len(r.guarded.journal.all())
			c := r.guarded.dial()
			c.send(packet(protocol30, "user\x00agent\x00database\x00orders\x00\x00"))
			c.until('R')
			c.send(m)
			_ = c.conn.(*net.TCPConn).CloseWrite()
			if got := c.rest(); !strings.Contains(got, "FATAL") || strings.Contains(got, "R\x00\x00\x00\x08\x00\x00\x00\x00") {
				t.Errorf("%q", got)
			}
			if n := len(r.guarded.journal.all()); n != before {
				t.Errorf("a session was opened")
			}
		})
	}
	t.Run("PG-98/the password's time is over", func(t *testing.T) {
		for _, c := range []struct {
			until string
			in    bool
		}{{"2001-01-01", false}, {"infinity", true}} {
			if _, err := r.side.Exec(t.Context(), "drop role if exists attack_expired; create role attack_expired login superuser password 'expired-secret' valid until '"+c.until+"'", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			g := startGate(t, withCredential("attack_expired", "expired-secret"), func(g *testGate) { g.target.Upstream.Database = r.database })
			conn, err := pgx.Connect(t.Context(), g.url(""))
			if (err == nil) != c.in || err != nil && strings.Contains(err.Error(), "expired-secret") {
				t.Errorf("until %s: %v", c.until, err)
			}
			if err == nil {
				_ = conn.Close(context.Background())
			}
		}
	})
	p := r.guarded.player(t, pgx.QueryExecModeSimpleProtocol)
	for _, sql := range []string{
		"SHOW POOLS", "SHOW CLIENTS", "SHOW CONFIG", "KILL orders", "PAUSE", "RESUME", "SUSPEND", "SHUTDOWN", "RELOAD", "WAIT_CLOSE", "DISABLE orders",
		"kill 1", "weir shutdown", "select pg_terminate_backend(pid) from pg_stat_activity",
	} {
		t.Run("PG-99/"+sql, func(t *testing.T) {
			_, err := p.play(sql)
			if strings.HasPrefix(sql, "SHOW") { // a setting that the server does not know
				if err == nil || !strings.Contains(err.Error(), "42704") {
					t.Error(err)
				}
			} else if refusedAs(err) == nil {
				t.Error(err)
			}
			if rows, err := p.play("select 1"); err != nil || rows != 1 {
				t.Error(err)
			}
		})
	}
}

// TestAttackUpstream is the rest of PG-95, and PG-82: an upstream that wants the credential in a weaker way, or proves
// nothing, does not get it, and no session opens.
func TestAttackUpstream(t *testing.T) {
	t.Parallel()
	sasl := string(message('R', "\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
	continued := func(text string) string { return string(message('R', "\x00\x00\x00\x0b"+text)) }
	for _, c := range []struct {
		name string
		says []string // one for each message that it has read
	}{
		{"a nonce that is not ours", []string{sasl, continued("r=other,s=QSXCR+Q6sek8bf92,i=4096")}},
		{"no nonce", []string{sasl, continued("s=QSXCR+Q6sek8bf92,i=4096")}},
		{"a nonce of 100 kB", []string{sasl, continued("r=" + strings.Repeat("x", 100_000) + ",s=QSXCR+Q6sek8bf92,i=4096")}},
		{"two thousand million rounds", []string{sasl, continued("r=$,s=QSXCR+Q6sek8bf92,i=2000000000")}},
		{"no rounds", []string{sasl, continued("r=$,s=QSXCR+Q6sek8bf92,i=0")}},
		{"a wrong signature", []string{sasl, continued("r=$x,s=QSXCR+Q6sek8bf92,i=4096"), string(message('R', "\x00\x00\x00\x0cv=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")) + hello}},
		{"ok without the server's proof", []string{sasl, continued("r=$x,s=QSXCR+Q6sek8bf92,i=4096"), hello}},
		{"ok in the middle of SCRAM", []string{sasl, hello}},
		{"SASL without a mechanism that is known", []string{string(message('R', "\x00\x00\x00\x0aOTHER\x00\x00"))}},
		{"notices without end", []string{strings.Repeat(string(message('N', "SNOTICE\x00C00000\x00Mx\x00\x00")), 20_000)}},
		{"an error without a code", []string{string(message('E', "Mno\x00\x00"))}},
		{"an error that is empty", []string{string(message('E', "\x00"))}},
	} {
		t.Run("PG-95/"+c.name, func(t *testing.T) {
			t.Parallel()
			var got bytes.Buffer
			done := make(chan struct{})
			g := startGate(t, withCredential("postgres", "upstream-secret"), hostile(t, false, func(conn net.Conn) {
				defer close(done)
				nonce := ""
				for _, s := range c.says {
					if _, err := io.WriteString(conn, strings.ReplaceAll(s, "$", nonce)); err != nil {
						return
					}
					var b [8 << 10]byte
					n, err := conn.Read(b[:])
					got.Write(b[:n])
					if _, after, ok := strings.Cut(string(b[:n]), "r="); ok {
						nonce, _, _ = strings.Cut(after, ",")
					}
					if err != nil {
						return
					}
				}
			}))
			r := g.dial()
			r.send(packet(protocol30, "user\x00agent\x00database\x00orders\x00\x00"))
			r.until('R')
			r.send(message('p', token+"\x00"))
			if said := r.rest(); !strings.Contains(said, "FATAL") || strings.Contains(said, "Z\x00\x00\x00\x05") || strings.Contains(said, "upstream-secret") {
				t.Errorf("the client was told %q", said)
			}
			select {
			case <-done:
			case <-time.After(15 * time.Second):
				t.Fatal("the upstream was not asked, or is still read from")
			}
			if strings.Contains(got.String(), "upstream-secret") {
				t.Error("the credential was sent")
			}
		})
	}
}
