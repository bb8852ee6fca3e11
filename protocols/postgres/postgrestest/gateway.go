package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Gateway is a running weir, the real binary, in a folder of its own.
type Gateway struct {
	Dir    string
	Config string
	Admin  string

	binary  string
	env     []string
	command *exec.Cmd
	exited  chan struct{}
	loaded  bool // what loading the grammar took has been given back
	log     said
}

// said is what a process has printed so far.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// Binary builds weir from the module around the working folder, or returns what WEIR_BINARY names. All who ask share
// one file: a build that is up to date takes a moment.
func Binary(ctx context.Context) (string, error) {
	if given := os.Getenv("WEIR_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "go.mod")); err == nil {
			break
		}
		if root == filepath.Dir(root) {
			return "", errors.New("postgrestest: no go.mod at or above the working folder: set WEIR_BINARY")
		}
		root = filepath.Dir(root)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	name := fnv.New32a()
	_, _ = name.Write([]byte(root))
	dir := filepath.Join(cache, "weir-test", fmt.Sprintf("%08x", name.Sum32()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(filepath.Join(root, "plugins/pii/pii.wasm")); err != nil {
		if out, err := exec.CommandContext(ctx, "make", "-C", root, "plugins").CombinedOutput(); err != nil {
			return "", fmt.Errorf("postgrestest: make plugins: %w\n%s", err, tail(string(out), 10))
		}
	}
	program := filepath.Join(dir, "weir")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("postgrestest: go build: %w\n%s", err, tail(string(out), 10))
	}
	return program, nil
}

// GatewayOptions are what a gateway is started with.
type GatewayOptions struct {
	Binary string            // default: what Binary makes
	Config string            // weir.yaml, but for the folder and the admin address
	Files  map[string]string // written beside it
	Env    []string          // added to the environment
}

// StartGateway runs weir serve in a folder of its own and waits until it is ready.
func StartGateway(ctx context.Context, o GatewayOptions) (*Gateway, error) {
	var err error
	if o.Binary == "" {
		o.Binary, err = Binary(ctx)
	} else {
		o.Binary, err = filepath.Abs(o.Binary)
	}
	if err != nil {
		return nil, err
	}
	g := &Gateway{binary: o.Binary, env: append(append(os.Environ(), "NO_COLOR=1"), o.Env...), Admin: FreePort(), exited: make(chan struct{})}
	if g.Dir, err = os.MkdirTemp("", "weir-gateway-"); err != nil {
		return nil, err
	}
	g.Config = filepath.Join(g.Dir, "weir.yaml")
	if err := g.serve(ctx, o.Config, o.Files); err != nil {
		_ = g.Stop()
		return nil, fmt.Errorf("postgrestest: weir serve: %w", err)
	}
	return g, nil
}

func (g *Gateway) serve(ctx context.Context, config string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(g.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	config = fmt.Sprintf("data: %q\nlisten: {admin: %q}\n", filepath.Join(g.Dir, "data"), g.Admin) + config
	if err := os.WriteFile(g.Config, []byte(config), 0o600); err != nil {
		return err
	}
	g.command = g.weir(context.WithoutCancel(ctx), "serve")
	g.command.Stdout, g.command.Stderr = &g.log, &g.log
	if err := g.command.Start(); err != nil {
		g.command = nil
		return err
	}
	go func() { _ = g.command.Wait(); close(g.exited) }()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(g.log.String(), "weir: ready"); {
		select {
		case <-g.exited:
			return errors.New(tail(g.log.String(), 10))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return errors.New("it is not ready after a minute\n" + tail(g.log.String(), 10))
		}
	}
	return nil
}

func (g *Gateway) weir(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, g.binary, append(args, "-c", g.Config)...)
	cmd.Env = g.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Run runs another command of weir with the gateway's configuration, and returns what it prints.
func (g *Gateway) Run(ctx context.Context, args ...string) (string, error) {
	cmd := g.weir(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("postgrestest: weir %s: %w\n%s", strings.Join(args, " "), err, tail(errs.String(), 10))
	}
	return out.String(), nil
}

// Token makes a token for a subject of some groups.
func (g *Gateway) Token(ctx context.Context, subject string, groups ...string) (string, error) {
	args := []string{"token", "--subject", subject, "--ttl", "12h"}
	for _, group := range groups {
		args = append(args, "--group", group)
	}
	out, err := g.Run(ctx, args...)
	return strings.TrimSpace(out), err
}

// Log returns what the gateway has printed.
func (g *Gateway) Log() string { return g.log.String() }

// Running reports whether the process lives.
func (g *Gateway) Running() bool {
	select {
	case <-g.exited:
		return false
	default:
		return g.command != nil
	}
}

// RSS returns the process's resident memory in bytes, as Linux tells it.
func (g *Gateway) RSS() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.command.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("postgrestest: %w", err)
	}
	_, rest, _ := strings.Cut(string(b), "VmRSS:")
	if fields := strings.Fields(rest); len(fields) > 0 {
		n, err := strconv.ParseInt(fields[0], 10, 64)
		return n << 10, err
	}
	return 0, errors.New("postgrestest: /proc tells no VmRSS")
}

// Steady waits until the memory in use changes no more, and returns it: what loading the grammar took is given back to
// the system only after a while, and growth would hide in it.
func (g *Gateway) Steady(limit time.Duration) (int64, error) {
	last, quiet := int64(0), 0
	for deadline := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		now, err := g.RSS()
		if err != nil {
			return 0, err
		}
		g.loaded = g.loaded || now < 250<<20
		if quiet++; !g.loaded || max(now, last)-min(now, last) > 1<<20 {
			quiet = 0
		}
		if last = now; quiet >= 8 {
			return now, nil
		}
		if time.Now().After(deadline) {
			return now, fmt.Errorf("postgrestest: the gateway's memory is not steady after %v: %d MiB", limit, now>>20)
		}
	}
}

// Stop ends the process as its operator would, and removes its files. Only the process that was started is signalled.
func (g *Gateway) Stop() error {
	if g.command != nil {
		_ = g.command.Process.Signal(syscall.SIGTERM)
		select {
		case <-g.exited:
		case <-time.After(40 * time.Second):
			_ = g.command.Process.Kill()
			<-g.exited
		}
	}
	return os.RemoveAll(g.Dir)
}

// FreePort returns an address of 127.0.0.1 that nothing listens on.
func FreePort() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err) // no loopback
	}
	defer l.Close()
	return l.Addr().String()
}
