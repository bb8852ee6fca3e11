package opa

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core/download"
)

// Remote is a bundle that is kept at a URL, with the last good copy of it in a file.
type Remote struct {
	URL   string
	Token string // bearer token; empty: none
	// File is where the last good copy is; beside it stands the server's mark of it (.etag).
	File string
	// MaxBytes bounds what is read, as it comes. Default 64 MiB.
	MaxBytes int64
	// History is the file of what was used before: none of that comes back. Empty: nobody remembers.
	History string
	// Back is the revision that may come back nevertheless, or the first digits of its SHA-256.
	Back string
}

func (r *Remote) most() int64 {
	if r.MaxBytes > 0 {
		return r.MaxBytes
	}
	return maxFetched
}

// fetchTime bounds one try.
const fetchTime = 15 * time.Second

// CheckURL says why a bundle cannot be fetched from u.
func CheckURL(u string) error {
	p, err := url.Parse(u)
	switch {
	case err != nil || p.Host == "":
		return fmt.Errorf("%q is no URL", u)
	case p.User != nil:
		return errors.New("a URL holds no password: use token")
	}
	return download.Safe(p)
}

// IsURL reports whether a policy's path is a URL.
func IsURL(path string) bool { return strings.Contains(path, "://") }

// Fetch asks the server for a bundle other than the one that is kept. It returns the file of the one that came, which
// Keep keeps or the caller removes; "" when the server has no other. mark is the server's for it, and may be empty.
func (r *Remote) Fetch(ctx context.Context) (file, mark string, err error) {
	if err := CheckURL(r.URL); err != nil {
		return "", "", fmt.Errorf("opa: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return "", "", fmt.Errorf("opa: %w", err)
	}
	q.Header.Set("User-Agent", "weir")
	if r.Token != "" {
		q.Header.Set("Authorization", "Bearer "+r.Token)
	}
	if _, err := os.Stat(r.File); err == nil {
		if b, err := os.ReadFile(r.File + ".etag"); err == nil {
			q.Header.Set("If-None-Match", string(b))
		}
	}
	a, err := download.Client.Do(q)
	if err != nil {
		return "", "", fmt.Errorf("opa: %w", err)
	}
	defer a.Body.Close()
	switch {
	case a.StatusCode == http.StatusNotModified:
		return "", "", nil
	case a.StatusCode != http.StatusOK:
		_, _ = io.CopyN(io.Discard, a.Body, 4<<10)
		return "", "", fmt.Errorf("opa: %s answers %s", q.URL.Redacted(), a.Status)
	}
	b, err := download.ReadAll(a.Body, q.URL.Redacted(), r.most())
	if err != nil {
		return "", "", fmt.Errorf("opa: %w", err)
	}
	if old, err := os.ReadFile(r.File); err == nil && string(old) == string(b) { // a server without marks
		return "", "", nil
	}
	if err := os.MkdirAll(filepath.Dir(r.File), 0o700); err != nil {
		return "", "", fmt.Errorf("opa: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(r.File), ".fetched-*.tar.gz") // mode 0600
	if err != nil {
		return "", "", fmt.Errorf("opa: %w", err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", "", errors.Join(fmt.Errorf("opa: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), a.Header.Get("ETag"), nil
}

// Keep makes what Fetch returned the last good copy: p is what was loaded from it. It refuses what was used before the
// one that is in force, as a server would give it that was taken back to an older state.
func (r *Remote) Keep(file, mark string, p *Policy) error {
	if err := r.remember(p); err != nil { // first: what was used once is never forgotten
		return fmt.Errorf("opa: %w", err)
	}
	err := os.Remove(r.File + ".etag") // a mark never stands beside another bundle
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("opa: %w", err)
	}
	if err := os.Rename(file, r.File); err != nil {
		return fmt.Errorf("opa: %w", err)
	}
	if mark == "" {
		return nil
	}
	if err := os.WriteFile(r.File+".etag", []byte(mark), 0o600); err != nil {
		return fmt.Errorf("opa: %w", err)
	}
	return nil
}

// Age is how long ago the last good copy came; false when there is none.
func (r *Remote) Age() (time.Duration, bool) {
	info, err := os.Stat(r.File)
	if err != nil {
		return 0, false
	}
	return time.Since(info.ModTime()), true
}
