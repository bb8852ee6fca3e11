package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

// cipher is the one that everybody uses, so that no way is quicker for its choice.
const cipher = "aes128-gcm@openssh.com"

// bench holds what is measured: one server, and the ways to reach it.
type bench struct {
	weir      string
	rounds    int
	megabytes int64
	keys      int
	profile   string
	gateways  bool // only they, nothing to hold them against

	dir, version string
	server       *sshtest.Server
	ways         []*way
	procs        []*exec.Cmd
}

// way is one way to the server.
type way struct {
	name, user string
	addr       string
	password   string    // empty: the server's own key
	proc       *exec.Cmd // the proxy's process; nil: none
	pprof      string
	data       string // where the gateway keeps its records
}

func (b *bench) start(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "weir-bench-ssh-"); err != nil {
		return err
	}
	if b.weir, err = filepath.Abs(b.weir); err != nil {
		return err
	}
	if b.server, err = sshtest.Start(ctx); err != nil {
		return err
	}
	said, _ := exec.CommandContext(ctx, "ssh", "-V").CombinedOutput()
	b.version, _, _ = strings.Cut(strings.TrimSpace(string(said)), ",")
	f, err := os.Create(filepath.Join(b.dir, "file"))
	if err != nil {
		return err
	}
	if _, err = io.CopyN(f, rand.Reader, b.megabytes<<20); errors.Join(err, f.Close()) != nil {
		return err
	}
	// Who asks for a password gets the way's token.
	if err := os.WriteFile(filepath.Join(b.dir, "askpass"), []byte("#!/bin/sh\nprintf '%s\\n' \"$BENCH_TOKEN\"\n"), 0o700); err != nil {
		return err
	}
	if !b.gateways {
		b.ways = []*way{{name: "direct", user: b.server.User, addr: b.server.Addr}}
		if err := b.leg(); err != nil {
			return fmt.Errorf("leg: %w", err)
		}
	}
	for _, record := range []string{"metadata", "full"} {
		if err := b.gateway(ctx, record); err != nil {
			return fmt.Errorf("weir %s: %w", record, err)
		}
	}
	return nil
}

// close ends what start has started.
func (b *bench) close() {
	for _, p := range b.procs {
		_ = p.Process.Signal(syscall.SIGTERM)
		over := time.AfterFunc(10*time.Second, func() { _ = p.Process.Kill() })
		_ = p.Wait()
		over.Stop()
	}
	if b.server != nil {
		_ = b.server.Stop()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

func (b *bench) leg() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "-leg", b.server.Addr)
	cmd.Env = append(os.Environ(), "BENCH_USER="+b.server.User, "BENCH_KEY="+string(b.server.Key))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	addr, err := bufio.NewReader(out).ReadString('\n')
	b.ways = append(b.ways, &way{name: "leg", user: "anybody", addr: strings.TrimSpace(addr), proc: cmd})
	return err
}

func (b *bench) gateway(ctx context.Context, record string) error {
	dir := filepath.Join(b.dir, record)
	w := &way{name: record, user: "web", data: filepath.Join(dir, "data")}
	var admin string
	for _, a := range []*string{&w.addr, &w.pprof, &admin} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		*a = l.Addr().String()
		_ = l.Close()
	}
	if err := os.MkdirAll(filepath.Join(dir, "policies"), 0o700); err != nil {
		return err
	}
	file := filepath.Join(dir, "weir.yaml")
	for name, text := range map[string]string{
		filepath.Join(dir, "policies", "access.rego"): "package weir.access\nimport rego.v1\nallow if true\n",
		filepath.Join(dir, "key"):                     string(b.server.Key),
		file: fmt.Sprintf(`data: data
listen: {admin: %q}
policies: [{name: access, path: policies}]
chain: [access]
targets:
  - name: web
    protocol: ssh
    listen: %q
    upstream: {address: %q}
    credential: {user: %s, password: "${file:key}"}
    record: %s
    ssh: {host_keys: [%q]}
`, admin, w.addr, b.server.Addr, b.server.User, record, b.server.HostKey),
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			return err
		}
	}
	cmd := exec.Command(b.weir, "serve", "-c", file, "--pprof", w.pprof, "--log-level", "warn")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.procs = append(b.procs, cmd)
	w.proc = cmd
	ready := make(chan string, 1)
	go func() {
		var said bytes.Buffer
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if lines.Text() == "weir: ready" {
				select {
				case ready <- "":
				default:
				}
			}
			if said.Len() < 64<<10 {
				fmt.Fprintln(&said, lines.Text())
			}
		}
		select {
		case ready <- said.String():
		default:
		}
	}()
	select {
	case said := <-ready:
		if said != "" {
			return errors.New(said)
		}
	case <-time.After(30 * time.Second):
		return errors.New("not ready after 30 s")
	}
	out, err := exec.CommandContext(ctx, b.weir, "token", "-c", file, "--subject", "bench", "--group", "bench", "--ttl", "12h").Output()
	if err != nil {
		return fmt.Errorf("weir token: %w", err)
	}
	w.password = strings.TrimSpace(string(out))
	b.ways = append(b.ways, w)
	return nil
}
