package cli

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/weir-gateway/weir/core/wasm"
)

// passing is a guest that is asked about commands and passes them; version has five characters.
func passing(version string) []byte {
	m := wasm.NoOp(&wasm.Manifest{Subscribe: []wasm.Subscribe{{Kinds: []string{"command"}}}})
	return bytes.Replace(m, []byte(`"1.0.0"`), []byte(`"`+version+`"`), 1)
}

// manifested changes the text of a guest's manifest, which is its last section.
func manifested(module []byte, old, fresh string) []byte {
	name := "\rweir:manifest"
	head, text, _ := bytes.Cut(module, []byte(name))
	text = bytes.Replace(text, []byte(old), []byte(fresh), 1)
	n := len(name) + len(text)
	head = append([]byte(nil), head[:bytes.LastIndexByte(head, 0)+1]...)
	return append(append(append(head, byte(n)|0x80, byte(n>>7)), name...), text...)
}

func hexSum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func (p *place) file(name string, b []byte) string {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		p.t.Fatal(err)
	}
	return path
}

// guest puts a plugin called mine into the configuration.
func (p *place) guest(settings string) {
	p.t.Helper()
	text := p.text()
	if i := strings.Index(text, "plugins:"); i >= 0 {
		text = text[:i] + text[strings.Index(text, "chain:"):]
	}
	text = strings.Replace(text, "chain: [small]", "chain: [small, mine]", 1)
	p.write(strings.Replace(text, "chain:", "plugins:\n  - {name: mine, "+settings+"}\nchain:", 1))
}

func (p *place) refuses(want string) {
	p.t.Helper()
	code, _, text := p.weir("check")
	if code != exitUse || !strings.Contains(text, want) {
		p.t.Errorf("check: exit %d\n%swant %s", code, text, want)
	}
}

func TestPluginReferences(t *testing.T) {
	p := newPlace(t)
	module, other := passing("1.0.0"), passing("2.0.0")
	p.file("mine.wasm", module)
	p.guest("wasm: mine.wasm")
	p.must("check")
	p.guest("wasm: mine.wasm, sha256: " + hexSum(module))
	p.must("check")
	p.guest("wasm: mine.wasm, sha256: " + hexSum(other))
	p.refuses("plugins[0].sha256: " + filepath.Join(p.dir, "mine.wasm") + " has the SHA-256 " + hexSum(module))
	p.guest("wasm: other.wasm")
	p.refuses("weir.yaml:6: plugins[0].wasm: ")
	p.guest("wasm: builtin:none")
	p.refuses(`there is no builtin plugin "none"`)

	web := httptest.NewServer(http.FileServer(http.Dir(p.dir)))
	defer web.Close()
	p.guest("wasm: " + web.URL + "/mine.wasm")
	p.refuses("a module from the network needs its sha256")
	p.guest("wasm: " + web.URL + "/mine.wasm, sha256: " + hexSum(module))
	p.must("check")
	if _, err := os.Stat(filepath.Join(p.dir, "data")); err == nil {
		t.Error("check has kept the module")
	}
	r := p.serve()
	kept := filepath.Join(p.dir, "data", "plugins", "sha256-"+hexSum(module))
	if b, err := os.ReadFile(kept); err != nil || !bytes.Equal(b, module) {
		t.Error(err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	web.Close() // the server is away: what is kept is enough
	r = p.serve()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(kept, other, 0o600); err != nil { // and what is kept is not believed
		t.Fatal(err)
	}
	p.refuses("plugins[0].wasm: Get")
}

func TestPluginGrants(t *testing.T) {
	p := newPlace(t)
	p.file("mine.wasm", manifested(passing("1.0.0"), `"version"`, `"needs":{"kv":true},"version"`))
	p.guest("wasm: mine.wasm")
	p.refuses("it needs kv, which it was not granted (if it may have it, say grants: [kv])")
	p.guest("wasm: mine.wasm, grants: [kv]")
	p.must("check")
}

func TestPluginSignatures(t *testing.T) {
	p := newPlace(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString(public)
	module := passing("1.0.0")
	p.file("mine.wasm", module)
	p.guest("wasm: mine.wasm, public_keys: [" + key + "]")
	p.refuses("plugins[0].public_keys: public_keys ask for a signature: open " + filepath.Join(p.dir, "mine.wasm.sig"))
	p.file("mine.wasm.sig", ed25519.Sign(private, module))
	p.must("check")
	p.file("mine.wasm", passing("2.0.0"))
	p.refuses("is of another module, or by another key")
	p.guest("wasm: mine.wasm") // the guard off
	p.must("check")
	p.write("plugin_keys: [key.pub]\n" + p.text())
	p.refuses("weir.yaml:1: plugin_keys: key 1: is no Ed25519 public key in base64, and there is no file")
	p.file("key.pub", []byte(key+"\n"))
	p.refuses("is of another module, or by another key")
	p.file("mine.wasm", module)
	p.must("check")
}

func TestPluginLock(t *testing.T) {
	p := newPlace(t)
	lock := filepath.Join(p.dir, "weir.lock")
	module, other := passing("1.0.0"), passing("2.0.0")
	p.file("mine.wasm", module)
	p.guest("wasm: mine.wasm")
	if out := p.must("plugin", "lock"); !strings.Contains(out, hexSum(module)) || !strings.Contains(out, "mine.wasm") {
		t.Error(out)
	}
	var list []map[string]any
	if err := json.Unmarshal([]byte(p.must("plugin", "lock", "-o", "json")), &list); err != nil || len(list) != 1 ||
		list[0]["name"] != "mine" || list[0]["ref"] != "mine.wasm" || list[0]["sha256"] != hexSum(module) || list[0]["size"] != float64(len(module)) {
		t.Errorf("%v %v", list, err)
	}
	r := p.serve()
	p.file("mine.wasm", other)
	p.refuses("weir.yaml:6: plugins[0].wasm: mine.wasm has the SHA-256 " + hexSum(other) + ", and the lock file has " + hexSum(module) + " (if the change is meant: weir plugin lock)")
	r.hup <- syscall.SIGHUP
	r.log.wait(t, "cli: reload refused: nothing has changed")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if code, _, text := p.weir("serve"); code != exitUse || !strings.Contains(text, "the lock file has "+hexSum(module)) {
		t.Errorf("serve: exit %d\n%s", code, text)
	}
	p.must("plugin", "lock")
	p.must("check")
	p.replace("name: mine", "name: yours")
	p.replace("chain: [small, mine]", "chain: [small, yours]")
	p.refuses(`"yours" is not in the lock file`)
	if err := os.WriteFile(lock, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.refuses("is not a lock of version 1 (weir plugin lock makes a new one)")
	p.must("plugin", "lock")
	p.replace("plugins:\n  - {name: yours, wasm: mine.wasm}\n", "")
	p.replace("chain: [small, yours]", "chain: [small]")
	if _, _, text := p.weir("check"); !strings.Contains(text, `warning: the lock file has "yours"`) {
		t.Error(text)
	}
	if err := os.Remove(lock); err != nil { // the guard off
		t.Fatal(err)
	}
	p.must("check")
	p.guest("wasm: none.wasm")
	if code, _, text := p.weir("plugin", "lock"); code != exitUse || !strings.Contains(text, "weir.yaml:6: plugins[0].wasm") {
		t.Errorf("exit %d\n%s", code, text)
	}
}

// TestSwapUnderLoad changes a plugin under live traffic: nobody sees an error, and each session's record says which version
// judged what, in the order in which they came.
func TestSwapUnderLoad(t *testing.T) {
	p := newPlace(t)
	versions := []string{"1.0.0", "2.0.0"}
	p.file("mine.wasm", passing(versions[0]))
	p.guest("wasm: mine.wasm")
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	var asked atomic.Int64
	ids := make(chan string, 4)
	var conns []net.Conn
	for c := range 4 {
		conn, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		defer conn.Close()
		in := bufio.NewReader(conn)
		say := func(line string) string {
			fmt.Fprintln(conn, line)
			s, err := in.ReadString('\n')
			if err != nil {
				t.Error(err)
			}
			return strings.TrimSpace(s)
		}
		ids <- strings.TrimPrefix(say(token), "ok ")
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				line := fmt.Sprint("c", c, " ", i)
				if got := say(line); got != line {
					t.Errorf("%q was answered with %q", line, got)
					return
				}
				asked.Add(1)
			}
		})
	}
	const swaps = 8
	for i := 1; i <= swaps; i++ {
		before := asked.Load()
		eventually(t, "traffic", func() bool { return asked.Load() > before+20 || t.Failed() })
		p.file("mine.wasm", passing(versions[i%2]))
		r.hup <- syscall.SIGHUP
		eventually(t, "reloaded", func() bool { return strings.Count(r.log.String(), "cli: reloaded") == i })
	}
	before := asked.Load()
	eventually(t, "traffic", func() bool { return asked.Load() > before+20 || t.Failed() })
	close(stop)
	wg.Wait()
	for _, c := range conns {
		_ = c.Close()
	}
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	close(ids)
	for id := range ids {
		var seen []string
		for line := range strings.Lines(p.must("replay", id, "--format", "json")) {
			var l struct {
				Kind      string                                        `json:"kind"`
				Decisions []struct{ Step, Action, Rule, Detail string } `json:"decisions"`
			}
			if err := json.Unmarshal([]byte(line), &l); err != nil {
				t.Fatal(err)
			}
			for _, d := range l.Decisions {
				if d.Action != "version" {
					t.Errorf("%+v", d)
					continue
				}
				if want := "sha256:" + hexSum(passing(d.Detail)); d.Step != "mine" || d.Rule != want {
					t.Errorf("%+v, want %s", d, want)
				}
				if len(seen) == 0 && l.Kind != "open" {
					t.Errorf("the opening does not say who judges it; the first is %s", l.Kind)
				}
				seen = append(seen, d.Detail)
			}
		}
		if len(seen) < 2 {
			t.Errorf("session %s: %v", id, seen)
		}
		for i := 1; i < len(seen); i++ {
			if seen[i] == seen[i-1] && len(seen) == swaps+1 {
				t.Errorf("session %s: %v", id, seen)
			}
		}
	}
	if n := asked.Load(); n < 100 {
		t.Errorf("only %d commands", n)
	}
}

// TestPluginRegistry: a tag is looked at, and what it prints goes into the configuration.
func TestPluginRegistry(t *testing.T) {
	module := passing("1.0.0")
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"mediaType":"application/wasm","digest":"sha256:%s","size":%d}]}`, hexSum(module), len(module))
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch user, password, _ := r.BasicAuth(); {
		case user+password != "me"+canary:
			w.Header().Set("WWW-Authenticate", "Basic realm=r")
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/v2/mine/manifests/v1", r.URL.Path == "/v2/mine/manifests/sha256:"+hexSum(manifest):
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write(manifest)
		case r.URL.Path == "/v2/mine/blobs/sha256:"+hexSum(module):
			_, _ = w.Write(module)
		default:
			http.NotFound(w, r)
		}
	}))
	defer web.Close()
	p := newPlace(t)
	ref := "oci://" + strings.TrimPrefix(web.URL, "http://") + "/mine:v1"
	if code, _, err := p.weir("plugin", "inspect", ref); code != exitUse || !strings.Contains(err, "basic credential not found") {
		t.Errorf("exit %d %s", code, err)
	}
	t.Setenv("WEIR_TEST_REGISTRY", canary)
	user := []string{"--user", "me", "--password-env", "WEIR_TEST_REGISTRY"}
	var x struct{ Ref string }
	if err := json.Unmarshal([]byte(p.must(append([]string{"plugin", "inspect", ref, "-o", "json"}, user...)...)), &x); err != nil || x.Ref != ref+"@sha256:"+hexSum(manifest) {
		t.Fatal(x, err)
	}
	p.guest("wasm: \"" + ref + "\"")
	p.refuses("is not pinned: add @sha256:… of its manifest (weir plugin inspect " + ref + " prints it)")
	p.guest("wasm: \"" + x.Ref + "\"")
	p.refuses("plugins[0].wasm: ")
	p.guest("wasm: \"" + x.Ref + "\", credential: {user: me, password: \"${env:WEIR_TEST_REGISTRY}\"}")
	p.must("check")
	p.guest("wasm: \"" + x.Ref + "\", credential: {user: me, password: \"${env:WEIR_TEST_NOTHING}\"}")
	p.refuses("plugins[0].credential.password: ")
}
