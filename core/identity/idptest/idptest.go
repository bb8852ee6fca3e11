// Package idptest runs a real OpenID Connect provider for tests: oidc-provider, from npm. It knows every person by any
// password, a public client "weir" for device sign-in, and a client "loop" with credentials of its own.
package idptest

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

//go:embed package.json
var wanted []byte

//go:embed package-lock.json
var locked []byte

//go:embed idp.mjs
var script []byte

// ErrNone is wrapped where the provider cannot be had: without Node.js, or without npm's registry.
var ErrNone = errors.New("idptest: oidc-provider cannot be had here")

// IDP is a running provider.
type IDP struct {
	URL   string
	cmd   *exec.Cmd
	stdin io.Closer
}

// Start runs a provider whose tokens live for ttl.
func Start(ctx context.Context, ttl time.Duration) (*IDP, error) {
	dir, err := install(ctx)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("node", "idp.mjs")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), fmt.Sprintf("IDP_TTL=%d", int(ttl.Seconds())))
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line := make(chan string, 1)
	go func() { s, _ := bufio.NewReader(out).ReadString('\n'); line <- strings.TrimSpace(s) }()
	p := &IDP{cmd: cmd, stdin: in}
	select {
	case p.URL = <-line:
	case <-time.After(30 * time.Second):
	}
	if p.URL == "" {
		p.Close()
		return nil, fmt.Errorf("idptest: it does not start:\n%s", said.String())
	}
	return p, nil
}

// Close stops the provider.
func (p *IDP) Close() {
	_ = p.stdin.Close()
	over := time.AfterFunc(5*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	over.Stop()
}

// install fills a folder of the user's cache with what package-lock.json names. Test binaries run beside each other: one
// at a time installs.
func install(ctx context.Context) (string, error) {
	npm, err := exec.LookPath("npm")
	if err == nil {
		_, err = exec.LookPath("node")
	}
	if err != nil {
		return "", fmt.Errorf("%w: apt-get install nodejs npm", ErrNone)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "weir-test", "idp")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	for name, text := range map[string][]byte{"package.json": wanted, "package-lock.json": locked, "idp.mjs": script} {
		if have, err := os.ReadFile(filepath.Join(dir, name)); err == nil && bytes.Equal(have, text) {
			continue
		}
		if name != "idp.mjs" {
			_ = os.Remove(filepath.Join(dir, "node_modules", "installed"))
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return "", err
		}
	}
	installed := filepath.Join(dir, "node_modules", "installed")
	if _, err := os.Stat(installed); err == nil {
		return dir, nil
	}
	cmd := exec.CommandContext(ctx, npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: npm ci: %w\n%s", ErrNone, err, out)
	}
	return dir, os.WriteFile(installed, nil, 0o644)
}

// Rotate has a new key sign; drop takes the old ones away.
func (p *IDP) Rotate(drop bool) error {
	if drop {
		return p.control("rotate?drop")
	}
	return p.control("rotate")
}

// Down has the provider answer nothing but errors, until Up.
func (p *IDP) Down() error { return p.control("down") }

// Up ends Down.
func (p *IDP) Up() error { return p.control("up") }

func (p *IDP) control(what string) error {
	_, err := p.get(http.DefaultClient, p.URL+"/test/"+what)
	return err
}

func (*IDP) get(c *http.Client, at string) (string, error) {
	res, err := c.Get(at)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("idptest: %s answered %s: %.300s", at, res.Status, b)
	}
	return string(b), err
}

// ClientToken is what the client "loop" gets for its own credentials: an access token for an audience.
func (p *IDP) ClientToken(audience string) (string, error) {
	req, err := http.NewRequest(http.MethodPost, p.URL+"/token", strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "resource": {"urn:" + audience}}.Encode()))
	if err != nil {
		return "", err
	}
	req.SetBasicAuth("loop", "the-secret-of-loop")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
		Error string `json:"error_description"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		return "", fmt.Errorf("idptest: no token: %s %w", answer.Error, errors.Join(err))
	}
	return answer.Token, nil
}

var (
	form   = regexp.MustCompile(`(?s)<form[^>]*action="([^"]*)"[^>]*>(.*?)</form>`)
	hidden = regexp.MustCompile(`<input[^>]*type="hidden"[^>]*name="([^"]*)"[^>]*value="([^"]*)"`)
)

// Approve does at the page of a device sign-in what a person's browser does: it signs in by name, and agrees.
func (p *IDP) Approve(page, name string) error { return p.answer(page, name, true) }

// Refuse says no there.
func (p *IDP) Refuse(page, name string) error { return p.answer(page, name, false) }

func (p *IDP) answer(page, name string, agree bool) error {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	c := &http.Client{Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}}
	at, err := url.Parse(page)
	if err != nil {
		return err
	}
	text, err := p.get(c, page)
	for range 8 {
		if err != nil {
			return err
		}
		m := form.FindStringSubmatch(text)
		if m == nil {
			if strings.Contains(text, "Success") {
				return nil
			}
			return fmt.Errorf("idptest: a page without a form: %.500s", text)
		}
		values := url.Values{}
		for _, h := range hidden.FindAllStringSubmatch(m[2], -1) {
			values.Set(h[1], h[2])
		}
		switch {
		case strings.Contains(m[2], `name="login"`):
			values.Set("login", name)
			values.Set("password", "any")
		case values.Get("user_code") != "" && !agree:
			values.Set("abort", "yes")
		case values.Get("user_code") != "":
			values.Set("confirm", "yes")
		}
		to, e := at.Parse(strings.ReplaceAll(m[1], "&amp;", "&"))
		if e != nil {
			return e
		}
		var res *http.Response
		if res, err = c.PostForm(to.String(), values); err != nil {
			return err
		}
		b, e := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if !agree && values.Has("abort") {
			return e // the page asks for another code now
		}
		at, text, err = res.Request.URL, string(b), e
	}
	return errors.New("idptest: the sign-in does not come to an end")
}
