package download

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestSafe(t *testing.T) {
	for u, ok := range map[string]bool{
		"https://plugins.example/p.wasm": true, "http://127.0.0.1:8000/p": true, "http://[::1]/p": true, "http://localhost/p": true,
		"http://plugins.example/p": false, "http://127.0.0.1.example/p": false, "ftp://127.0.0.1/p": false, "file:///etc/passwd": false, "http://10.0.0.1/": false,
	} {
		p, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		if err := Safe(p); (err == nil) != ok {
			t.Errorf("%s: %v", u, err)
		}
	}
	p, err := url.Parse("http://me:c4n4ry@plugins.example/")
	if err != nil {
		t.Fatal(err)
	}
	if err := Safe(p); err == nil || strings.Contains(err.Error(), "c4n4ry") {
		t.Error(err)
	}
}

// TestClient: a redirect leads only where a reference could, and not for ever.
func TestClient(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "http://plugins.example/", http.StatusFound)
		case "/round":
			http.Redirect(w, r, "/round", http.StatusFound)
		}
	}))
	defer s.Close()
	for path, want := range map[string]string{"/": "", "/away": "is not https", "/round": "more than five redirects"} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		a, err := Client.Do(r)
		if err == nil {
			_ = a.Body.Close()
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestReadAll(t *testing.T) {
	if b, err := ReadAll(strings.NewReader("1234"), "it", 4); err != nil || string(b) != "1234" {
		t.Error(b, err)
	}
	if _, err := ReadAll(strings.NewReader("12345"), "it", 4); err == nil {
		t.Error("more than it may be")
	}
}
