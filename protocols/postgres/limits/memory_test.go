//go:build linux

package limits

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// TestSlowReader: a client that stops reading in the middle of a large answer, and then reads slowly, holds up itself and
// nothing else; the gateway keeps next to nothing of the answer.
func TestSlowReader(t *testing.T) {
	other := connect(t, "plain")
	if err := ask(other, "select repeat(md5(g::text), 31) from generate_series(1, 20000) g"); err != nil { // the journal has what it works with
		t.Fatal(err)
	}
	conn := open(t, "plain")
	most := growth(t)
	rows := *megabytes * 1e6 / 1002 // bytes of a row and its head
	if _, err := conn.Write(message('Q', fmt.Sprintf("select repeat(md5(g::text), 31) from generate_series(1, %d) g\x00", rows))); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second) // reads nothing at all
	alive(t, other)
	pause := 80 * time.Millisecond
	if *megabytes > 300 { // which takes its time anyway
		pause = 20 * time.Millisecond
	}
	begin, total, half := time.Now(), int64(0), int64(0)
	for in := bufio.NewReaderSize(conn, 64<<10); ; {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			t.Fatalf("after %d MB: %v", total/1e6, err)
		}
		size := int64(binary.BigEndian.Uint32(head[1:])) - 4
		if _, err := io.CopyN(io.Discard, in, size); err != nil {
			t.Fatal(err)
		}
		if total/8e6 != (total+size+5)/8e6 { // every 8 MB
			time.Sleep(pause)
		}
		if half == 0 && total > *megabytes*5e5 {
			half = most()
		}
		if total += size + 5; head[0] == 'Z' {
			break
		}
	}
	if total < *megabytes*99e4 {
		t.Fatalf("%d MB came", total/1e6)
	}
	alive(t, other)
	peak, bound := most(), int64(112*mib) // a busy archive is behind by more than a quiet one, and what waits for it is bounded
	t.Logf("%d MB in %v; the gateway grew by %d MiB at most, and by %d MiB in the first half", total/1e6, time.Since(begin).Round(time.Second/10), peak/mib, half/mib)
	if *megabytes > 300 { // at full speed more is under way to the archive at a time, but not more and more
		bound = 160 * mib
	}
	if peak > bound || peak > half+64*mib {
		t.Errorf("the gateway grew by %d MiB", peak/mib)
	}
}

// TestGiantRow: a row that is larger than limits.max_frame ends its session, which is told of the limit, before the
// gateway has kept any of it.
func TestGiantRow(t *testing.T) {
	other, c := connect(t, "frame"), connect(t, "frame")
	for _, one := range []*pgconn.PgConn{other, c} {
		if err := ask(one, "select 1"); err != nil {
			t.Fatal(err)
		}
	}
	most := growth(t)
	err := ask(c, "select repeat('x', 200000000)")
	if code(err) != "54000" || !strings.Contains(err.Error(), "max_frame") {
		t.Errorf("the client was told: %v", err)
	}
	if err := ask(c, "select 1"); err == nil {
		t.Error("the session goes on")
	}
	alive(t, other)
	peak := most()
	t.Logf("the gateway grew by %d MiB", peak/mib)
	if peak > 32*mib {
		t.Errorf("the gateway grew by %d MiB", peak/mib)
	}
	if err := ask(other, "select length(repeat('x', 200000000))"); err != nil { // the control: it is the row that is refused
		t.Error(err)
	}
	small := connect(t, "small")
	results, err := small.Exec(t.Context(), "select repeat('x', 1048000)").ReadAll()
	if err != nil || len(results[0].Rows[0][0]) != 1048000 {
		t.Errorf("a row that the limit allows does not pass: %v", err)
	}
	if err := ask(small, "select repeat('x', 1049000)"); code(err) != "54000" {
		t.Errorf("a row that is a little too large: %v", err)
	}
}

// hostile is the address of a server that greets, and answers every query with the head of a row of 1 GB and ten bytes.
var hostile = postgrestest.FreePort()

func beHostile(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", hostile)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 16<<10)
				if _, err := c.Read(buf); err != nil {
					return
				}
				_, _ = c.Write([]byte("R\x00\x00\x00\x08\x00\x00\x00\x00K\x00\x00\x00\x0c\x00\x00\x00\x01\x00\x00\x00\x02Z\x00\x00\x00\x05I"))
				if _, err := c.Read(buf); err != nil {
					return
				}
				_, _ = c.Write([]byte("T\x00\x00\x00\x1a\x00\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00D\x40\x00\x00\x00\x00\x01\x3f\xff\xff\xf0tenbytes.."))
				_, _ = io.Copy(io.Discard, c)
			}()
		}
	}()
}

// TestLyingLength: who announces a gigabyte and sends ten bytes gets no gigabyte, from neither side, however many do so.
func TestLyingLength(t *testing.T) {
	beHostile(t)
	other := connect(t, "huge")
	if err := ask(other, "select 1"); err != nil {
		t.Fatal(err)
	}
	const many = 40
	most := growth(t)
	for range many {
		c := connect(t, "huge")
		h, err := c.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		defer h.Conn.Close()
		if _, err := h.Conn.Write([]byte("Q\x40\x00\x00\x00select 'xy")); err != nil {
			t.Fatal(err)
		}
	}
	for range many {
		c := connect(t, "hostile")
		h, err := c.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		defer h.Conn.Close()
		if _, err := h.Conn.Write(message('Q', "select a from t\x00")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(300 * time.Millisecond)
	alive(t, other)
	peak := most()
	t.Logf("%d clients and %d servers that lie: the gateway grew by %d MiB", many, many, peak/mib)
	if peak > 32*mib { // 80 sessions, and not one of 80 GB
		t.Errorf("the gateway grew by %d MiB", peak/mib)
	}
}

// TestLargeRow: a row of many megabytes is in the gateway's memory a few times, on its way to the client
// and to the journal, and not more; and it leaves nothing behind.
func TestLargeRow(t *testing.T) {
	conn := open(t, "frame")
	most := growth(t)
	const size = 60 << 20
	if _, err := conn.Write(message('Q', fmt.Sprintf("select repeat('x', %d)\x00", size))); err != nil {
		t.Fatal(err)
	}
	total := int64(0)
	for in := bufio.NewReaderSize(conn, 64<<10); ; {
		var head [5]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			t.Fatal(err)
		}
		n, err := io.CopyN(io.Discard, in, int64(binary.BigEndian.Uint32(head[1:]))-4)
		if err != nil {
			t.Fatal(err)
		}
		if total += n; head[0] == 'Z' {
			break
		}
	}
	if total < size {
		t.Fatalf("%d bytes came", total)
	}
	peak := most()
	t.Logf("the gateway grew by %d MiB", peak/mib)
	if peak > 300*mib {
		t.Errorf("the gateway grew by %d MiB", peak/mib)
	}
}
