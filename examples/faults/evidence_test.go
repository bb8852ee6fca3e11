//go:build linux

package faults_test

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// record is a line of weir replay --format json.
type record struct {
	Seq             uint64
	Kind, Direction string
	Wire            []byte
	Facts           struct {
		Details map[string]string
		Command struct{ Text string }
		Stage   string
		Denied  *struct{ Rule, Reason string }
		Result  struct{ Status, Code, Message string }
		Reason  string
	}
	Seal *struct {
		End     string
		Records uint64
	}
}

// recording is one session as weir replay tells it.
type recording struct {
	id      string
	name    string // the client's application_name
	end     string
	records []record
}

// replay reads a session back, and demands that its numbering is dense (I3) and its seal counts right.
func (g *gateway) replay(id string) *recording {
	g.t.Helper()
	out, errs, code := g.run("replay", id, "--format", "json")
	if code != 0 {
		g.t.Fatalf("weir replay %s ended with %d: %s", id, code, errs)
	}
	r := &recording{id: id}
	for line := range strings.Lines(out) {
		var rec record
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			g.t.Fatalf("weir replay %s: %v: %.200s", id, err, line)
		}
		if rec.Seal != nil {
			r.end = rec.Seal.End
			if rec.Seal.Records != uint64(len(r.records)) {
				g.t.Errorf("session %s: the seal counts %d records, there are %d", id, rec.Seal.Records, len(r.records))
			}
			continue
		}
		if rec.Seq != uint64(len(r.records)) {
			g.t.Errorf("session %s: record %d is number %d", id, len(r.records), rec.Seq)
		}
		if rec.Kind == "open" {
			r.name = rec.Facts.Details["application_name"]
		}
		r.records = append(r.records, rec)
	}
	return r
}

// recordings reads all sessions back, by the names of their clients.
func (g *gateway) recordings() map[string]*recording {
	g.t.Helper()
	all := map[string]*recording{}
	for _, s := range g.sessions("--limit", "100000") {
		r := g.replay(s.ID)
		if r.name == "" {
			continue // never got as far as saying its name
		}
		if all[r.name] != nil {
			g.t.Errorf("two sessions are called %s", r.name)
		}
		all[r.name] = r
	}
	return all
}

// delivered is what the record says that the client was given after its greeting.
func (r *recording) delivered() []byte {
	var b []byte
	greeted := false
	for _, rec := range r.records {
		if rec.Direction == "client" {
			continue
		}
		if !greeted && rec.Direction == "upstream" {
			greeted = true
			continue
		}
		b = append(b, rec.Wire...)
	}
	return b
}

// commands are the texts of the commands that went upstream, or those that were refused.
func (r *recording) commands(denied bool) (texts []string) {
	for _, rec := range r.records {
		if rec.Kind == "command" && rec.Facts.Stage != "prepare" && (rec.Facts.Denied != nil) == denied {
			texts = append(texts, rec.Facts.Command.Text)
		}
	}
	return texts
}

// result finds a result or notice with this code.
func (r *recording) result(code string) *record {
	for i := range r.records {
		if r.records[i].Facts.Result.Code == code {
			return &r.records[i]
		}
	}
	return nil
}

// seen is I1: everything that a client wrote down is in the record, byte for byte. It returns what is not.
func (r *recording) seen(notes []note) error {
	b := r.delivered()
	for _, n := range notes {
		if n.bytes > int64(len(b)) {
			return fmt.Errorf("session %s (%s): after answer %d the client had seen %d bytes, the record has %d", r.id, r.name, n.n, n.bytes, len(b))
		}
		if sum := sha256.Sum256(b[:n.bytes]); hex.EncodeToString(sum[:]) != n.sum {
			return fmt.Errorf("session %s (%s): the first %d bytes, up to answer %d, are not what the client saw", r.id, r.name, n.bytes, n.n)
		}
	}
	return nil
}

// marker is what the tests' statements carry, so that both logs can be held against each other.
var marker = regexp.MustCompile(`/\*mark:([^*]+)\*/`)

// ran returns the markers with a prefix that are in the upstream's log of statements.
func ran(t testing.TB, logFile, prefix string) map[string]bool {
	t.Helper()
	f, err := os.Open(logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := map[string]bool{}
	lines := bufio.NewScanner(f)
	lines.Buffer(make([]byte, 1<<20), 16<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), "LOG:  ") {
			continue
		}
		for _, m := range marker.FindAllStringSubmatch(lines.Text(), -1) {
			if strings.HasPrefix(m[1], prefix) {
				found[m[1]] = true
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// recorded returns the markers of the commands in recordings.
func recorded(all map[string]*recording, denied bool) map[string]bool {
	found := map[string]bool{}
	for _, r := range all {
		for _, text := range r.commands(denied) {
			for _, m := range marker.FindAllStringSubmatch(text, -1) {
				found[m[1]] = true
			}
		}
	}
	return found
}

// missing are the keys of a that b does not have. With ran and recorded it is I2: what ran was recorded.
func missing(a, b map[string]bool) (out []string) {
	for k := range a {
		if !b[k] {
			out = append(out, k)
		}
	}
	return out
}

// forms are the ways in which a secret may turn up: as it stands, and as programs write bytes, addresses and JSON; hashed,
// as a password would be for somebody who wants to try words.
func forms(secret string) []string {
	b := []byte(secret)
	sum, old := sha256.Sum256(b), md5.Sum(append(b, "app"...))
	out := []string{secret, hex.EncodeToString(b), strings.ToUpper(hex.EncodeToString(b)), hex.EncodeToString(sum[:]), base64.StdEncoding.EncodeToString(sum[:]), hex.EncodeToString(old[:])}
	for shift := range 3 { // where it stands within groups of three bytes
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if text := e.EncodeToString(append(make([]byte, shift), b...)); len(text) > 20 {
				out = append(out, text[4:len(text)-4])
			}
		}
	}
	if s := url.QueryEscape(secret); s != secret {
		out = append(out, s)
	}
	if s, _ := json.Marshal(secret); string(s[1:len(s)-1]) != secret {
		out = append(out, string(s[1:len(s)-1]))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// shows reports whether a text holds a secret, in any form.
func shows(text, secret string) bool {
	return slices.ContainsFunc(forms(secret), func(f string) bool { return strings.Contains(text, f) })
}

// scan looks for texts in every file below dir, in every form: as they stand, and inside everything that zstd has packed,
// which is how blocks are kept.
func scan(t testing.TB, dir string, secrets ...string) (found []string) {
	t.Helper()
	var texts []string
	for _, s := range secrets {
		texts = append(texts, forms(s)...)
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(256<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	look := func(where string, b []byte) {
		for _, s := range texts {
			if i := bytes.Index(b, []byte(s)); i >= 0 {
				found = append(found, fmt.Sprintf("%s (at %d, %.8s…)", where, i, s))
			}
		}
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			if os.IsNotExist(err) {
				return nil
			}
			return err
		}
		look(path, b)
		magic := []byte{0x28, 0xb5, 0x2f, 0xfd}
		for at := 0; ; {
			i := bytes.Index(b[at:], magic)
			if i < 0 {
				return nil
			}
			at += i
			if z.Reset(bytes.NewReader(b[at:])) == nil {
				plain, _ := io.ReadAll(io.LimitReader(z, 64<<20)) // what follows the frame is an error, what was read counts
				look(fmt.Sprintf("%s, packed at %d", path, at), plain)
			}
			at += len(magic)
		}
	})
	if err != nil {
		t.Error(err)
	}
	return found
}
