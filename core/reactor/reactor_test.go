//go:build linux

package reactor

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// pipe returns two ends of a TCP connection.
func pipe(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			c = nil
		}
		got <- c
	}()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b = <-got; b == nil {
		t.Fatal("no connection")
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return a, b
}

// relay is two clients and a pair between them that passes on what either says.
type relay struct {
	left, right net.Conn // what the clients hold
	x, y        *Conn
	over        chan string
}

func newRelay(t testing.TB, before func(*Conn)) *relay {
	t.Helper()
	r, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	left, a := pipe(t)
	b, right := pipe(t)
	x, y, ok := r.Pair(a, b)
	if !ok {
		t.Fatal("two TCP connections are no pair")
	}
	t.Cleanup(func() { _ = x.Close(); _ = y.Close() })
	l := &relay{left: left, right: right, x: x, y: y, over: make(chan string, 2)}
	step := func(name string, from, to *Conn) Step {
		return func(buffer []byte) Next {
			n, err := from.Read(buffer)
			switch {
			case errors.Is(err, ErrAgain):
				return Again
			case err != nil:
				l.over <- name + ": " + err.Error()
				return Over
			}
			if before != nil {
				before(from)
			}
			if _, err := to.Write(buffer[:n]); err != nil {
				l.over <- name + ": " + err.Error()
				return Over
			}
			return Again
		}
	}
	x.Attach(step("x", x, y))
	y.Attach(step("y", y, x))
	return l
}

func TestRelay(t *testing.T) {
	for name, before := range map[string]func(*Conn){
		"in turn": nil,
		"yields":  func(c *Conn) { c.Yield(); c.Yield() },
		"yields and waits": func(c *Conn) {
			c.Yield()
			time.Sleep(time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wg sync.WaitGroup
			for range 40 {
				l := newRelay(t, before)
				wg.Go(func() {
					for i := range 50 {
						for _, ends := range [][2]net.Conn{{l.left, l.right}, {l.right, l.left}} {
							said := bytes.Repeat([]byte{byte(i)}, 1+i*7)
							if _, err := ends[0].Write(said); err != nil {
								t.Error(err)
								return
							}
							heard := make([]byte, len(said))
							_ = ends[1].SetReadDeadline(time.Now().Add(10 * time.Second))
							if _, err := io.ReadFull(ends[1], heard); err != nil || !bytes.Equal(said, heard) {
								t.Errorf("%v %q", err, heard)
								return
							}
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// TestSlowReader: who does not read stops the one who writes to him, and nobody else. Nothing is lost.
func TestSlowReader(t *testing.T) {
	slow, quick := newRelay(t, nil), newRelay(t, nil)
	sent := make([]byte, 32<<20)
	_, _ = rand.Read(sent)
	var went atomic.Int64
	go func() {
		for b := sent; len(b) > 0; {
			n, err := slow.left.Write(b[:min(len(b), 64<<10)])
			if err != nil {
				return
			}
			went.Add(int64(n))
			b = b[n:]
		}
	}()
	time.Sleep(300 * time.Millisecond)
	stuck := went.Load()
	if stuck == int64(len(sent)) {
		t.Fatal("all of it was taken although nobody reads")
	}
	if _, err := quick.left.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	_ = quick.right.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(quick.right, make([]byte, 5)); err != nil {
		t.Fatalf("one who does not read stops others: %v", err)
	}
	if went.Load() != stuck {
		t.Error("it goes on to take")
	}
	_ = slow.right.SetReadDeadline(time.Now().Add(20 * time.Second))
	heard := make([]byte, len(sent))
	if _, err := io.ReadFull(slow.right, heard); err != nil || !bytes.Equal(sent, heard) {
		t.Fatalf("not what was sent: %v", err)
	}
}

// TestOvertime: a step that computes and never says so does not stop others.
func TestOvertime(t *testing.T) {
	stop := make(chan struct{})
	var relays []*relay
	for range 8 { // on each loop
		relays = append(relays, newRelay(t, func(*Conn) { <-stop }))
	}
	for _, l := range relays {
		if _, err := l.left.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	l := newRelay(t, nil)
	begin := time.Now()
	for range 20 {
		_ = l.right.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := l.left.Write([]byte("y")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(l.right, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("others waited %v", took)
	}
	close(stop)
	for _, l := range relays {
		_ = l.right.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := io.ReadFull(l.right, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestEnds(t *testing.T) {
	expect := func(t *testing.T, l *relay, what ...string) {
		t.Helper()
		for _, w := range what {
			select {
			case got := <-l.over:
				if got != w {
					t.Errorf("%q, not %q", got, w)
				}
			case <-time.After(30 * time.Second):
				t.Errorf("no %q", w)
			}
		}
	}
	t.Run("hangs up", func(t *testing.T) {
		l := newRelay(t, nil)
		_ = l.left.Close()
		expect(t, l, "x: EOF")
	})
	t.Run("deadline", func(t *testing.T) {
		l := newRelay(t, nil)
		begin := time.Now()
		_ = l.x.SetReadDeadline(begin.Add(100 * time.Millisecond))
		expect(t, l, "x: "+os.ErrDeadlineExceeded.Error())
		if took := time.Since(begin); took < 90*time.Millisecond {
			t.Errorf("after %v", took)
		}
	})
	t.Run("deadline moved", func(t *testing.T) {
		l := newRelay(t, nil)
		_ = l.x.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_ = l.x.SetReadDeadline(time.Now().Add(time.Hour))
		time.Sleep(100 * time.Millisecond)
		_ = l.x.SetReadDeadline(time.Time{})
		select {
		case got := <-l.over:
			t.Error(got)
		case <-time.After(100 * time.Millisecond):
		}
	})
	t.Run("deadline in the past", func(t *testing.T) {
		l := newRelay(t, nil)
		_ = l.y.SetDeadline(time.Unix(1, 0))
		expect(t, l, "y: "+os.ErrDeadlineExceeded.Error())
		if _, err := l.y.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(err)
		}
	})
	t.Run("closed", func(t *testing.T) {
		l := newRelay(t, nil)
		_ = l.x.Close()
		expect(t, l, "x: "+net.ErrClosed.Error())
		if err := l.x.Close(); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if _, err := l.x.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		_ = l.left.SetReadDeadline(time.Now().Add(30 * time.Second))
		if _, err := l.left.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the other end sees %v", err)
		}
	})
	t.Run("writer is told", func(t *testing.T) {
		l := newRelay(t, nil)
		done := make(chan error, 1)
		go func() {
			_, err := l.x.Write(make([]byte, 64<<20)) // nobody reads
			done <- err
		}()
		time.Sleep(50 * time.Millisecond)
		_ = l.x.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		select {
		case err := <-done:
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
		case <-time.After(30 * time.Second):
			t.Error("it waits for ever")
		}
	})
}

// TestBulk: who waits for much gets much at a time, and the rest soon.
func TestBulk(t *testing.T) {
	r, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	left, a := pipe(t)
	b, _ := pipe(t)
	x, y, ok := r.Pair(a, b)
	if !ok {
		t.Fatal("no pair")
	}
	t.Cleanup(func() { _ = x.Close(); _ = y.Close() })
	reads := make(chan int, 10_000)
	x.Attach(func(buffer []byte) Next {
		n, err := x.Read(buffer)
		if errors.Is(err, ErrAgain) {
			return Again
		}
		if err != nil {
			return Over
		}
		x.Bulk(true)
		reads <- n
		return Again
	})
	total, calls := 0, 0
	for range 200 {
		if _, err := left.Write(make([]byte, 8<<10)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Microsecond)
	}
	if _, err := left.Write(make([]byte, 7)); err != nil {
		t.Fatal(err)
	}
	for total < 200*8<<10+7 {
		select {
		case n := <-reads:
			total += n
			calls++
		case <-time.After(30 * time.Second):
			t.Fatalf("%d bytes came", total)
		}
	}
	if calls > 150 { // a busy machine writes slower than the reader is patient
		t.Errorf("%d reads for %d bytes", calls, total)
	}
}

func TestNotASocket(t *testing.T) {
	r, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	a, b := net.Pipe()
	c, _ := pipe(t)
	if _, _, ok := r.Pair(a, c); ok {
		t.Error("a pipe in memory")
	}
	if _, _, ok := r.Pair(c, b); ok {
		t.Error("a pipe in memory")
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("a refused connection does not work any more: %v", err)
	}
}

// TestPause: a step that pauses goes on when it is resumed, no sooner, and no other waits for it.
func TestPause(t *testing.T) {
	r, err := Shared()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		left, a := pipe(t)
		b, _ := pipe(t)
		x, y, ok := r.Pair(a, b)
		if !ok {
			t.Fatal("no pair")
		}
		t.Cleanup(func() { _ = x.Close(); _ = y.Close() })
		var held []byte
		may := make(chan bool, 1)
		x.Attach(func(buffer []byte) Next {
			if held != nil {
				select {
				case <-may:
				default:
					t.Error("it goes on although nobody said so")
				}
				_, _ = x.Write(held)
				held = nil
				return Again
			}
			n, err := x.Read(buffer)
			if errors.Is(err, ErrAgain) {
				return Again
			}
			if err != nil {
				return Over
			}
			held = bytes.Clone(buffer[:n])
			resume := func() {
				may <- true
				x.Resume()
			}
			switch i % 3 {
			case 0:
				resume() // before it has paused
			case 1:
				go resume()
			default:
				time.AfterFunc(2*time.Millisecond, resume)
			}
			return Paused
		})
		wg.Go(func() {
			for k := range 100 {
				said, heard := []byte{byte(k), 1}, make([]byte, 2)
				_ = left.SetDeadline(time.Now().Add(10 * time.Second))
				if _, err := left.Write(said); err != nil {
					t.Error(err)
					return
				}
				if _, err := io.ReadFull(left, heard); err != nil || !bytes.Equal(said, heard) {
					t.Errorf("%d: %q %v", k, heard, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestResumedTogether: of two that are resumed at the same time, the first waits; the second is called nevertheless.
func TestResumedTogether(t *testing.T) {
	t.Parallel()
	r, err := start(1)
	if err != nil {
		t.Fatal(err)
	}
	var first, second *Conn
	called, waits, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	pauses := func(c *Conn, then func() Next) Step {
		paused := false
		return func(buffer []byte) Next {
			if paused {
				return then()
			}
			if _, err := c.Read(buffer); err != nil {
				return Again
			}
			paused = true
			called <- struct{}{}
			return Paused
		}
	}
	for _, c := range []**Conn{&first, &second} {
		left, a := pipe(t)
		b, right := pipe(t)
		x, y, ok := r.Pair(a, b)
		if !ok {
			t.Fatal("not taken")
		}
		t.Cleanup(func() { _, _, _, _ = x.Close(), y.Close(), left.Close(), right.Close() })
		*c = x
		then := func() Next { close(waits); return Over }
		if c == &first {
			then = func() Next {
				x.Yield()
				<-waits
				close(ended)
				return Over
			}
		}
		x.Attach(pauses(x, then))
		if _, err := left.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		<-called
	}
	time.Sleep(20 * time.Millisecond) // both have paused
	first.l.mu.Lock()                 // the loop sees both at once
	for _, c := range []*Conn{first, second} {
		c.mu.Lock()
		c.paused = false
		c.mu.Unlock()
		first.l.again = append(first.l.again, c)
	}
	first.l.mu.Unlock()
	ring(first.l.bell)
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("the second was not called while the first waited")
	}
}
