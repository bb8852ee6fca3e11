package witness

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
	"github.com/weir-gateway/weir/core/ledger/witness/witnesstest"
)

// openLog opens the log in dir, whose key is in keys.
func openLog(t *testing.T, dir, keys string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.Open(dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// grow adds leaves of sessions that are called so.
func grow(t *testing.T, l *ledger.Ledger, of string, n int) {
	t.Helper()
	for i := range n {
		err := l.Append(ledger.Leaf{
			Kind: ledger.LeafSeal, Session: fmt.Sprint(of, "-", i), Blocks: 1, Records: 1, End: core.EndClosed, Hash: [32]byte{byte(i), of[0]}, Time: time.Unix(1, int64(i)),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func peerOf(t *testing.T, l *ledger.Ledger, f *witnesstest.Witness) *peer {
	t.Helper()
	s := prepare(Config{Ledger: l, Quorum: 1, Witnesses: []Witness{{Name: t.Name(), URL: f.URL + "/", Key: f.Parsed(t)}}})
	t.Cleanup(s.client.CloseIdleConnections)
	return s.peers[0]
}

func (p *peer) mustSend(t *testing.T) {
	t.Helper()
	if err := p.send(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func wantReason(t *testing.T, err error, why reason, text string) {
	t.Helper()
	if err == nil || reasonOf(err) != why || !strings.Contains(err.Error(), text) {
		t.Errorf("%v (%s), want %s: …%s…", err, reasonOf(err), why, text)
	}
}

func TestSend(t *testing.T) {
	dir, keys := t.TempDir(), t.TempDir()
	l := openLog(t, dir, keys)
	f := witnesstest.Start(t, "witness.example/w", l.PublicKey())
	p := peerOf(t, l, f)
	p.mustSend(t) // of an empty log nothing is sent
	if _, asked := f.Seen(); asked != 0 {
		t.Fatalf("asked %d times", asked)
	}
	want := func(size int64, times int) {
		t.Helper()
		has, asked := f.Seen()
		c, err := l.Cosigned(f.Parsed(t))
		if err != nil || c.Size != size || has != size || asked != times {
			t.Fatalf("kept %d, the witness has %d after %d requests, want %d after %d: %v", c.Size, has, asked, size, times, err)
		}
		if age := time.Since(c.Time); age < -time.Minute || age > time.Minute {
			t.Errorf("cosigned %s ago", age)
		}
	}
	at := int64(0)
	asked := 0
	for i, n := range []int{1, 1, 5, 40} {
		grow(t, l, fmt.Sprint(i), n)
		at += int64(n)
		asked++
		p.mustSend(t)
		p.mustSend(t) // and no more
		want(at, asked)
	}

	info, err := os.Stat(filepath.Join(dir, fmt.Sprintf("cosigned-%08x", f.Parsed(t).KeyHash())))
	if err != nil || info.Mode().Perm() != 0o644 {
		t.Error(info, err)
	}

	t.Run("after a restart", func(t *testing.T) {
		p = peerOf(t, l, f)
		p.mustSend(t)
		want(at, asked)
		grow(t, l, "r", 3)
		p.mustSend(t)
		at, asked = at+3, asked+1
		want(at, asked)
	})
	t.Run("what it cosigned is lost here", func(t *testing.T) {
		if err := os.Remove(filepath.Join(dir, fmt.Sprintf("cosigned-%08x", f.Parsed(t).KeyHash()))); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Cosigned(f.Parsed(t)); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		p = peerOf(t, l, f)
		p.mustSend(t) // 409 names the size: no proof is needed from there
		asked += 2
		want(at, asked)
	})
	t.Run("it is damaged here", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("cosigned-%08x", f.Parsed(t).KeyHash())), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		p = peerOf(t, l, f)
		grow(t, l, "d", 2)
		p.mustSend(t)
		at, asked = at+2, asked+2
		want(at, asked)
	})
	t.Run("the witness lost its state", func(t *testing.T) {
		f.Restore(ledger.Checkpoint{})
		grow(t, l, "l", 7)
		p.mustSend(t)
		at, asked = at+7, asked+2
		want(at, asked)
	})
	t.Run("the witness has an older state", func(t *testing.T) {
		grow(t, l, "o", 7)
		old, err := ledger.OpenCheckpoint(l.Checkpoint(), l.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		grow(t, l, "p", 70)
		p.mustSend(t)
		f.Restore(old)
		grow(t, l, "q", 1)
		p.mustSend(t)
		at, asked = at+78, asked+3
		want(at, asked)
	})
	t.Run("the log's key is another one", func(t *testing.T) {
		key, err := l.Rotate()
		if err != nil {
			t.Fatal(err)
		}
		wantReason(t, p.send(t.Context()), refused, "present keys/ledger.pub")
		f.With(func(s *witnesstest.State) { s.Log = key })
		p.mustSend(t)
		at, asked = at+1, asked+2
		want(at, asked)
		if p := peerOf(t, l, f); p.stuck != nil {
			t.Error(p.stuck)
		}
	})
}

// TestFork: whoever has the log's key cannot have another history of it cosigned; what was cosigned stays.
func TestFork(t *testing.T) {
	for _, c := range []struct {
		name   string
		leaves int
		text   string
	}{
		{"longer", 30, "cosigned another log"},
		{"as long", 20, "cosigned other 20 leaves"},
		{"shorter", 10, "the witness has cosigned 20 leaves, and this log has 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, keys := t.TempDir(), t.TempDir()
			l := openLog(t, dir, keys)
			f := witnesstest.Start(t, "witness.example/w", l.PublicKey())
			grow(t, l, "a", 20)
			peerOf(t, l, f).mustSend(t)
			was, err := l.Cosigned(f.Parsed(t))
			if err != nil {
				t.Fatal(err)
			}

			forged := t.TempDir()
			l2 := openLog(t, forged, keys) // with the real key
			grow(t, l2, "b", c.leaves)
			p := peerOf(t, l2, f)
			wantReason(t, p.send(t.Context()), forked, c.text)
			if _, err := l2.Cosigned(f.Parsed(t)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("kept: %v", err)
			}

			// With what the witness had cosigned beside it: it is told at the start, nothing is sent, and that stays.
			file := fmt.Sprintf("cosigned-%08x", f.Parsed(t).KeyHash())
			if err := os.WriteFile(filepath.Join(forged, file), was.Signed, 0o644); err != nil {
				t.Fatal(err)
			}
			f.Restore(ledger.Checkpoint{}) // the witness would sign now
			_, before := f.Seen()
			wantReason(t, peerOf(t, l2, f).send(t.Context()), forked, "not this log's first ones")
			if _, after := f.Seen(); after != before {
				t.Error("it was asked")
			}
			if b, err := os.ReadFile(filepath.Join(forged, file)); err != nil || string(b) != string(was.Signed) {
				t.Errorf("%s %v", b, err)
			}
		})
	}
}

// TestAnswers: what is no cosignature of this checkpoint by this witness is told, and not kept.
func TestAnswers(t *testing.T) {
	status := func(code int, kind, text string) func(http.ResponseWriter, []byte) bool {
		return func(w http.ResponseWriter, _ []byte) bool {
			if kind != "" {
				w.Header().Set("Content-Type", kind)
			}
			w.WriteHeader(code)
			_, _ = w.Write([]byte(text))
			return true
		}
	}
	var elsewhere atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	big := strings.Repeat("x", mostAnswer+1)
	sizes := int64(0)
	for name, c := range map[string]struct {
		change func(http.ResponseWriter, []byte) bool
		bend   func(string) string
		why    reason
		text   string
	}{
		"unknown log":       {change: status(404, "", "what log?"), why: refused, text: `keys/ledger.pub, and check the URL: "what log?"`},
		"unknown key":       {change: status(403, "", ""), why: refused, text: "present keys/ledger.pub"},
		"proof":             {change: status(422, "", ""), why: forked, text: "cosigned another log"},
		"down":              {change: status(503, "", ""), why: unreachable, text: "503"},
		"asked too often":   {change: status(429, "", ""), why: unreachable, text: "429"},
		"bad request":       {change: status(400, "", "\x1b[31mno"), why: answer, text: `400: "\x1b[31mno"`},
		"giant":             {change: status(200, "", big), why: answer, text: "larger than 64 KiB"},
		"giant refusal":     {change: status(404, "", big), why: answer, text: "larger than 64 KiB"},
		"empty":             {change: status(200, "", ""), why: answer, text: "is no cosignature"},
		"page":              {change: status(200, "text/html", "<html>welcome</html>\n"), why: answer, text: "is no cosignature"},
		"conflict, no size": {change: status(409, "text/plain", "3\n"), why: answer, text: "does not say which one it has"},
		"conflict, no kind": {change: status(409, "", "3\n"), why: answer, text: "does not say which one it has"},
		"conflict, words":   {change: status(409, "text/x.tlog.size", "three\n"), why: answer, text: "does not say which one it has"},
		"conflict, minus":   {change: status(409, "text/x.tlog.size", "-1\n"), why: answer, text: "does not say which one it has"},
		"conflict, plus":    {change: status(409, "text/x.tlog.size", "+1\n"), why: answer, text: "does not say which one it has"},
		"conflict, again":   {change: status(409, "text/x.tlog.size", "0\n"), why: answer, text: "which was done"},
		"conflict, for ever": {change: func(w http.ResponseWriter, b []byte) bool {
			sizes++
			return status(409, "text/x.tlog.size", fmt.Sprintln(sizes))(w, b)
		}, why: answer, text: "another size each time"},
		"conflict, more": {change: status(409, "text/x.tlog.size", "11\n"), why: forked, text: "has cosigned 11 leaves, and this log has 10"},
		"redirect": {change: func(w http.ResponseWriter, _ []byte) bool {
			w.Header().Set("Location", other.URL)
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		}, why: answer, text: "307"},
		"forged": {bend: func(s string) string {
			i := len(s) - 20
			return s[:i] + string(s[i]^1|0x40) + s[i+1:]
		}, why: answer, text: "is no cosignature"},
		"twice the line, one forged": {bend: func(s string) string { return s[:len(s)-6] + "AAA=\n" + s }, why: answer, text: "is no cosignature"},
		"cut":                        {bend: func(s string) string { return s[:len(s)/2] }, why: answer, text: "is no cosignature"},
		"of another":                 {bend: func(string) string { return "— other.example AAAAAAAA\n" }, why: answer, text: "is no cosignature"},
		"many":                       {bend: func(s string) string { return s + strings.Repeat("— other.example AAAAAAAA\n", 200) }, why: answer, text: "is no cosignature"},
	} {
		t.Run(name, func(t *testing.T) {
			l := openLog(t, t.TempDir(), t.TempDir())
			f := witnesstest.Start(t, "witness.example/w", l.PublicKey())
			grow(t, l, "a", 10)
			f.With(func(s *witnesstest.State) { s.Answer, s.Bend = c.change, c.bend })
			p := peerOf(t, l, f)
			wantReason(t, p.send(t.Context()), c.why, c.text)
			if _, err := l.Cosigned(f.Parsed(t)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("kept: %v", err)
			}
			if _, asked := f.Seen(); asked > tries {
				t.Errorf("asked %d times", asked)
			}
			f.With(func(s *witnesstest.State) { s.Answer, s.Bend = nil, nil }) // the control: with nothing bent it goes
			p.mustSend(t)
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}

	t.Run("another witness's key", func(t *testing.T) {
		l := openLog(t, t.TempDir(), t.TempDir())
		f, g := witnesstest.Start(t, "witness.example/w", l.PublicKey()), witnesstest.Start(t, "witness.example/w", l.PublicKey())
		grow(t, l, "a", 10)
		p := peerOf(t, l, f)
		p.Key = g.Parsed(t)
		wantReason(t, p.send(t.Context()), answer, "is no cosignature by the key in the configuration")
	})
	t.Run("a cosignature of another checkpoint", func(t *testing.T) {
		l := openLog(t, t.TempDir(), t.TempDir())
		f := witnesstest.Start(t, "witness.example/w", l.PublicKey())
		grow(t, l, "a", 10)
		text, _, _ := strings.Cut(string(l.Checkpoint()), "\n\n")
		f.With(func(s *witnesstest.State) {
			s.Bend = func(string) string { return f.Cosign(strings.Replace(text, "\n10\n", "\n11\n", 1)+"\n", time.Now()) }
		})
		p := peerOf(t, l, f)
		wantReason(t, p.send(t.Context()), answer, "is no cosignature")
		f.With(func(s *witnesstest.State) {
			s.Bend = func(string) string { return f.Cosign(text+"\n", time.Unix(0, 0)) }
		})
		wantReason(t, p.send(t.Context()), answer, "is no cosignature") // without a time
	})
}

// TestOnTheWay: straight to the witness, with TLS 1.2 or newer, and not for ever.
func TestOnTheWay(t *testing.T) {
	l := openLog(t, t.TempDir(), t.TempDir())
	f := witnesstest.Start(t, "witness.example/w", l.PublicKey())
	grow(t, l, "a", 10)
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the proxy was asked") }))
	defer proxy.Close()
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	for version, fails := range map[uint16]bool{tls.VersionTLS11: true, tls.VersionTLS12: false, tls.VersionTLS13: false} {
		s := httptest.NewUnstartedServer(f)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: version}
		s.StartTLS()
		defer s.Close()
		p := peerOf(t, l, f)
		p.URL = s.URL
		p.done = 0
		wantReason(t, p.send(t.Context()), unreachable, "tls: ") // by a certificate that nobody knows, if not for its version
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		p.s.client = newClient(roots)
		err := p.send(t.Context())
		if fails {
			wantReason(t, err, unreachable, "protocol version")
		} else if err != nil {
			t.Error(err)
		}
	}
	t.Run("slow", func(t *testing.T) {
		grow(t, l, "b", 1)
		release := make(chan struct{})
		f.With(func(s *witnesstest.State) {
			s.Answer = func(http.ResponseWriter, []byte) bool { <-release; return false }
		})
		p := peerOf(t, l, f)
		p.s.c.Timeout = 50 * time.Millisecond
		done := make(chan error, 1)
		go func() { done <- p.send(context.Background()) }()
		grow(t, l, "c", 5) // the log waits for nobody
		select {
		case err := <-done:
			wantReason(t, err, unreachable, "deadline exceeded")
		case <-time.After(30 * time.Second):
			t.Error("it waits for ever")
		}
		close(release)
	})
}
