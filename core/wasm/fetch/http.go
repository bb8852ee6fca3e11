package fetch

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/weir-gateway/weir/core/download"
)

// download gets a module by its URL, or from the cache.
func (f *Fetcher) download(ctx context.Context, s *Source, m *Module) (err error) {
	u, err := url.Parse(s.Ref)
	if err != nil {
		return fmt.Errorf("%q is no URL", s.Ref)
	}
	if err := safe(u); err != nil {
		return err
	}
	if s.SHA256 == "" && !f.Unpinned {
		return bad("wasm", "weir plugin inspect "+s.Ref+" prints it", "a module from the network needs its sha256")
	}
	if m.Bytes = f.cached(s.SHA256); m.Bytes != nil {
		return nil
	}
	if m.Bytes, err = get(ctx, u, s, maxModule); err != nil {
		return err
	}
	if s.SHA256 != "" && sumOf(m.Bytes) == s.SHA256 { // what is wrong is told by Get
		return f.keepNew(s.SHA256, m.Bytes)
	}
	return nil
}

// get fetches u, at most so many bytes of it.
func get(ctx context.Context, u *url.URL, s *Source, most int64) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "weir")
	if s.User != "" || s.Password != "" {
		r.SetBasicAuth(s.User, s.Password)
	}
	a, err := download.Client.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	if a.StatusCode != http.StatusOK {
		_, _ = io.CopyN(io.Discard, a.Body, 4<<10)
		return nil, fmt.Errorf("%s answers %s", u.Redacted(), a.Status)
	}
	if a.ContentLength > most {
		return nil, fmt.Errorf("%s is larger than %d KiB", u.Redacted(), most>>10)
	}
	return download.ReadAll(a.Body, u.Redacted(), most)
}
