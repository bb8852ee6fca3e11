package postgres

import (
	"bytes"
	"context"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// discard is a recorder that keeps nothing.
type discard struct{ bytes int }

func (d *discard) Record(_ context.Context, r *core.Record) (core.Mark, error) {
	d.bytes += len(r.Facts) + len(r.Wire)
	return 1, nil
}
func (*discard) Settle(context.Context, core.Mark) error { return nil }
func (*discard) Settled(core.Mark, func()) bool          { return true }
func (*discard) Seal(core.End) error                     { return nil }

// loop is a connection between two scripts: what the client asks, what the server answers.
type loop struct {
	c              *connection
	client, server *scriptConn
	ask, answer    []byte
}

func newLoop(chain core.Plugin, ask, answer []byte) *loop {
	s := &core.Session{Protocol: "postgres", Target: &core.Target{Name: "orders", Record: core.LevelFull}}
	s.Begin(core.SessionConfig{Chain: chain, Recorder: &discard{}})
	l := &loop{client: &scriptConn{in: bytes.NewReader(nil)}, server: &scriptConn{in: bytes.NewReader(nil)}, ask: ask, answer: answer}
	l.c = newConnection(s, protocol.reader, l.client, &upstream{conn: l.server})
	return l
}

// turn carries one request and its answer.
func (l *loop) turn() error {
	l.client.in.Reset(l.ask)
	l.server.in.Reset(l.answer)
	l.client.out.Reset()
	l.server.out.Reset()
	if err := l.c.client.fill(0); err != nil {
		return err
	}
	if err := l.c.handle(context.Background()); err != nil {
		return err
	}
	if err := l.c.ask(context.Background()); err != nil {
		return err
	}
	for l.server.in.Len() > 0 {
		if err := l.c.server.fill(0); err != nil {
			return err
		}
		if err := l.c.deliver(context.Background()); err != nil {
			return err
		}
		if err := l.c.forward(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

func frames(list ...[]byte) (out []byte) {
	for _, f := range list {
		out = append(out, f...)
	}
	return out
}

const (
	pgbenchColumns = "\x00\x01abalance\x00\x00\x00\x40\x01\x00\x03\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00"
	pgbenchSelect  = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;"
)

// BenchmarkTransaction is one pgbench -S transaction without the network: codec, session, facts.
func BenchmarkTransaction(b *testing.B) {
	row := message('D', "\x00\x01\x00\x00\x00\x010")
	for name, talk := range map[string][2][]byte{
		"simple": {
			message('Q', "SELECT abalance FROM pgbench_accounts WHERE aid = 7;\x00"),
			frames(message('T', pgbenchColumns), row, message('C', "SELECT 1\x00"), message('Z', "I")),
		},
		"prepared": {
			frames(message('B', "\x00P0\x00\x00\x00\x00\x01\x00\x00\x00\x017\x00\x00"), message('D', "P\x00"), message('E', "\x00\x00\x00\x00\x00"), message('S', "")),
			frames(message('2', ""), message('T', pgbenchColumns), row, message('C', "SELECT 1\x00"), message('Z', "I")),
		},
	} {
		for kind, chain := range map[string]core.Plugin{"bare": nil, "guarded": guard{mask: map[string]string{"email": "x"}}} {
			b.Run(name+"/"+kind, func(b *testing.B) {
				l := newLoop(chain, frames(message('P', "P0\x00"+pgbenchSelect+"\x00\x00\x00"), message('S', "")), frames(message('1', ""), message('Z', "I")))
				if err := l.turn(); err != nil {
					b.Fatal(err)
				}
				l.ask, l.answer = talk[0], talk[1]
				b.ReportAllocs()
				for b.Loop() {
					if err := l.turn(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkRows is a long answer, in reads of 64 KiB.
func BenchmarkRows(b *testing.B) {
	var rows []byte
	n := 0
	for len(rows) < 64<<10 {
		rows = append(rows, message('D', "\x00\x04\x00\x00\x00\x04 123\x00\x00\x00\x10user@example.com\x00\x00\x00\x08customer\xff\xff\xff\xff")...)
		n++
	}
	shape := "\x00\x04id\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\x00\x04\xff\xff\xff\xff\x00\x00email\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00" +
		"name\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00note\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
	for kind, chain := range map[string]core.Plugin{
		"passed": nil, "masked in place": guard{mask: map[string]string{"email": "****@example.com"}}, "masked longer": guard{mask: map[string]string{"email": "somebody@example.com"}},
	} {
		b.Run(kind, func(b *testing.B) {
			l := newLoop(chain, message('Q', "select * from t\x00"), message('T', shape))
			if err := l.turn(); err != nil {
				b.Fatal(err)
			}
			l.ask, l.answer = message('H', ""), rows
			b.SetBytes(int64(len(rows)))
			b.ReportAllocs()
			for b.Loop() {
				if err := l.turn(); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/row")
		})
	}
}
