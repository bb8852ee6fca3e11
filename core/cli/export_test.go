package cli

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// An exported session is proved with the public key alone; whatever is changed in it shows.
func TestExport(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	token := strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff"))
	conn, got := r.talk(t, token, "hello <script>alert(1)</script>", "drop it")
	id := strings.TrimPrefix(got[0], "ok ")
	_ = conn.Close()
	other, got := r.talk(t, token, "another session")
	second := strings.TrimPrefix(got[0], "ok ")
	_ = other.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(p.dir, "data")
	key := filepath.Join(data, "keys", "ledger.pub")
	file := filepath.Join(p.dir, "session.weir")
	if out := p.must("export", id, "-o", file); !strings.Contains(out, "sealed") {
		t.Error(out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	if code, _, text := p.weir("export", id, "-o", file); code != exitUse || !strings.Contains(text, "exists") {
		t.Errorf("over a file that is there: exit %d, %s", code, text)
	}
	if code, _, text := p.weir("export", "01aaaaaaaaaaaaaaaaaaaaaaaa", "-o", file+"x"); code != exitNo || !strings.Contains(text, "there is no session") {
		t.Errorf("an unknown session: exit %d, %s", code, text)
	}
	if _, err := os.Stat(file + "x"); err == nil {
		t.Error("a failed export has left a file")
	}

	// Elsewhere, with the key and nothing else.
	elsewhere := t.TempDir()
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(elsewhere, "x.weir")
	write := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(whole)
	t.Chdir(elsewhere)
	if out := p.must("verify", copied, "--key", key); !strings.HasPrefix(out, "verified: 1 session,") {
		t.Error(out)
	}
	if code, _, text := p.weir("verify", copied); code != 0 || !strings.Contains(text, "the key that the file brings") {
		t.Errorf("without a key: exit %d, %s", code, text)
	}

	// With another key since then: the old public key verifies what the new one has signed.
	old, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	before := filepath.Join(elsewhere, "before.pub")
	if err := os.WriteFile(before, old, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("WEIR_CONFIG", p.config)
	if out := p.must("keys", "rotate-ledger"); strings.TrimSpace(out) == strings.TrimSpace(string(old)) {
		t.Error(out)
	}
	turned := filepath.Join(elsewhere, "turned.weir")
	p.must("export", id, "-o", turned)
	for _, k := range []string{before, key} {
		p.must("verify", turned, "--key", k)
		p.must("verify", "--all", "--archive", filepath.Join(data, "archive"), "--key", k)
	}
	if code, _, _ := p.weir("verify", copied, "--key", key); code == 0 {
		t.Error("what the old key has signed is verified with the new one alone")
	}
	key = before

	// Somebody else's key, and another session's proof.
	q := newPlace(t)
	q.serve()
	if code, out, _ := p.weir("verify", copied, "--key", filepath.Join(q.dir, "data", "keys", "ledger.pub")); code != exitNo || !strings.Contains(out, "NOT verified") {
		t.Errorf("another key: exit %d, %s", code, out)
	}
	t.Setenv("WEIR_CONFIG", p.config)
	file2 := filepath.Join(p.dir, "second.weir")
	p.must("export", second, "-o", file2)
	parts, parts2 := unzip(t, file), unzip(t, file2)
	for name, change := range map[string]func(m map[string][]byte){
		"another session's proof":  func(m map[string][]byte) { m["proof.json"] = parts2["proof.json"] },
		"another session's blocks": func(m map[string][]byte) { m["00000001.weir"] = parts2["00000001.weir"] },
		"no blocks":                func(m map[string][]byte) { m["00000001.weir"] = m["00000001.weir"][:16] },
		"a block less":             func(m map[string][]byte) { b := m["00000001.weir"]; m["00000001.weir"] = b[:len(b)-40] },
		"both sessions": func(m map[string][]byte) {
			m["00000001.weir"] = append(bytes.Clone(m["00000001.weir"]), parts2["00000001.weir"][16:]...)
		},
		"no proof":       func(m map[string][]byte) { delete(m, "proof.json") },
		"an empty proof": func(m map[string][]byte) { m["proof.json"] = []byte("{}") },
		"another leaf": func(m map[string][]byte) {
			m["proof.json"] = bytes.Replace(m["proof.json"], []byte("weir1 seal "), []byte("weir1 head "), 1)
		},
	} {
		m := map[string][]byte{}
		for k, v := range parts {
			m[k] = v
		}
		change(m)
		write(zipped(t, m))
		if code, out, _ := p.weir("verify", copied, "--key", key); code == 0 {
			t.Errorf("%s: %s", name, out)
		}
	}
	write(zipped(t, parts)) // the control: packed anew, and otherwise as it was
	p.must("verify", copied, "--key", key)
	at := bytes.Index(whole, []byte("WEIRSEG\x01"))
	blocks := len(parts["00000001.weir"])
	for i := 0; i < blocks; i += 7 {
		b := bytes.Clone(whole)
		b[at+i] ^= 1 << (i % 8)
		write(b)
		if code, _, _ := p.weir("verify", copied, "--key", key); code == 0 {
			t.Fatalf("bit %d of byte %d of the blocks is changed, and it is verified", i%8, i)
		}
	}

	page := string(parts["timeline.html"])
	for _, want := range []string{"hello &lt;script&gt;", "DENIED", "no-ddl", "ada", "default-src &#39;none&#39;"} {
		if !strings.Contains(strings.ReplaceAll(page, "'none'", "&#39;none&#39;"), want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(page, "<script") || strings.Contains(page, "http://") || strings.Contains(page, "https://") {
		t.Error("the page runs or loads something")
	}
}

func unzip(t *testing.T, file string) map[string][]byte {
	t.Helper()
	z, err := zip.OpenReader(file)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	out := map[string][]byte{}
	for _, f := range z.File {
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if out[f.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func zipped(t *testing.T, m map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, content := range m {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = w.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
