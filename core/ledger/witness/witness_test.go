package witness

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

// fakeWitness keeps what a witness keeps, and refuses what one refuses: it verifies the log's signature and the proof, and
// signs. change bends what it answers.
type fakeWitness struct {
	name   string
	key    ed25519.PrivateKey
	server *httptest.Server

	mu     sync.Mutex
	log    string // the log's verifier key; empty: no log is known to it
	size   int64
	root   tlog.Hash
	asked  int
	change func(w http.ResponseWriter, body []byte) bool // true: it has answered
	bend   func(line string) string                      // of a cosignature
}

func startWitness(t *testing.T, name, log string) *fakeWitness {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &fakeWitness{name: name, key: key, log: log}
	w.server = httptest.NewServer(w)
	t.Cleanup(w.server.Close)
	return w
}

func (f *fakeWitness) typed() []byte { return append([]byte{4}, f.key.Public().(ed25519.PublicKey)...) }

func (f *fakeWitness) hash() []byte {
	h := sha256.Sum256(append([]byte(f.name+"\n"), f.typed()...))
	return h[:4]
}

func (f *fakeWitness) vkey() string {
	return fmt.Sprintf("%s+%x+%s", f.name, f.hash(), base64.StdEncoding.EncodeToString(f.typed()))
}

func (f *fakeWitness) parsed(t *testing.T) *ledger.Witness {
	t.Helper()
	w, err := ledger.ParseWitness(f.vkey())
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (f *fakeWitness) cosign(text string, at time.Time) string {
	sig := ed25519.Sign(f.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at.Unix(), text))
	b := binary.BigEndian.AppendUint64(bytes.Clone(f.hash()), uint64(at.Unix()))
	return "— " + f.name + " " + base64.StdEncoding.EncodeToString(append(b, sig...)) + "\n"
}

func (f *fakeWitness) with(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeWitness) state() (size int64, asked int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.size, f.asked
}

func (f *fakeWitness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/add-checkpoint" {
		http.Error(w, "no", http.StatusNotFound)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	if f.change != nil && f.change(w, body) {
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
	if f.log == "" {
		http.Error(w, "unknown log", http.StatusNotFound)
		return
	}
	v, err := note.NewVerifier(f.log)
	if err != nil {
		panic(err)
	}
	n, err := note.Open([]byte(signed), note.VerifierList(v))
	if err != nil {
		http.Error(w, "signature", http.StatusForbidden)
		return
	}
	c, err := ledger.OpenCheckpoint([]byte(signed), f.log)
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
	line := f.cosign(n.Text, time.Now())
	if f.bend != nil {
		line = f.bend(line)
	}
	_, _ = io.WriteString(w, line)
}
