// Package witnesstest is a witness for tests: it keeps what one keeps, refuses what one refuses, and signs (C2SP tlog-witness).
package witnesstest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/weir-gateway/weir/core/ledger"
)

// Witness verifies a log's signature and the proof that it goes on from what was cosigned before, and cosigns.
type Witness struct {
	URL string

	name  string
	key   ed25519.PrivateKey
	mu    sync.Mutex
	is    State
	size  int64
	root  tlog.Hash
	asked int
}

// State is what a test changes of a witness.
type State struct {
	Log string // the log's verifier key; empty: no log is known to it
	// Answer answers in its place where it returns true.
	Answer func(w http.ResponseWriter, body []byte) bool
	Bend   func(line string) string // a cosignature
}

// Start starts a witness of a name, and of the log with this verifier key. It ends with the test.
func Start(t testing.TB, name, log string) *Witness {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &Witness{name: name, key: key, is: State{Log: log}}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	w.URL = s.URL
	return w
}

func (f *Witness) typed() []byte { return append([]byte{4}, f.key.Public().(ed25519.PublicKey)...) }

func (f *Witness) hash() []byte {
	h := sha256.Sum256(append([]byte(f.name+"\n"), f.typed()...))
	return h[:4]
}

// Key is the verifier key that the witness publishes.
func (f *Witness) Key() string {
	return fmt.Sprintf("%s+%x+%s", f.name, f.hash(), base64.StdEncoding.EncodeToString(f.typed()))
}

// Parsed is the same, read.
func (f *Witness) Parsed(t testing.TB) *ledger.Witness {
	t.Helper()
	w, err := ledger.ParseWitness(f.Key())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Cosign signs the text of a checkpoint, without looking.
func (f *Witness) Cosign(text string, at time.Time) string {
	sig := ed25519.Sign(f.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at.Unix(), text))
	b := binary.BigEndian.AppendUint64(bytes.Clone(f.hash()), uint64(at.Unix()))
	return "— " + f.name + " " + base64.StdEncoding.EncodeToString(append(b, sig...)) + "\n"
}

// With changes what the witness does.
func (f *Witness) With(change func(*State)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.is)
}

// Restore gives the witness another state: it has lost its own, or was restored from a copy.
func (f *Witness) Restore(c ledger.Checkpoint) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.size, f.root = c.Size, c.Root
}

// Seen is how many leaves it has cosigned, and how often it was asked.
func (f *Witness) Seen() (size int64, asked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.asked
}

// ServeHTTP implements http.Handler.
func (f *Witness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/add-checkpoint" {
		http.Error(w, "no", http.StatusNotFound)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.is.Answer != nil && f.is.Answer(w, body) {
		return
	}
	head, signed, _ := strings.Cut(string(body), "\n\n")
	lines := strings.Split(head, "\n")
	old, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil || len(lines) > 64 {
		http.Error(w, "old", http.StatusBadRequest)
		return
	}
	var proof tlog.TreeProof
	for _, line := range lines[1:] {
		h, err := tlog.ParseHash(line)
		if err != nil {
			http.Error(w, "proof", http.StatusBadRequest)
			return
		}
		proof = append(proof, h)
	}
	if f.is.Log == "" {
		http.Error(w, "unknown log", http.StatusNotFound)
		return
	}
	v, err := note.NewVerifier(f.is.Log)
	if err != nil {
		panic(err)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		http.Error(w, "signature", http.StatusForbidden)
		return
	}
	c, err := ledger.OpenCheckpoint([]byte(signed), f.is.Log)
	if err != nil || old > c.Size {
		http.Error(w, "checkpoint", http.StatusBadRequest)
		return
	}
	if old != f.size || old == c.Size && c.Root != f.root {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%d\n", f.size)
		return
	}
	if old > 0 && old < c.Size && tlog.CheckTree(proof, c.Size, c.Root, old, f.root) != nil || (old == 0 || old == c.Size) && len(proof) > 0 {
		http.Error(w, "proof does not hold", http.StatusUnprocessableEntity)
		return
	}
	f.size, f.root = c.Size, c.Root
	line := f.Cosign(n.Text, time.Now())
	if f.is.Bend != nil {
		line = f.is.Bend(line)
	}
	_, _ = io.WriteString(w, line)
}
