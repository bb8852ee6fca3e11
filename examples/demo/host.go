package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

// host starts a private SSH server with a home of its own. Where there is none to be had the demo goes on without.
func (d *demo) host(ctx context.Context) error {
	if _, err := os.Stat("/run/systemd/system"); err == nil && !sshtest.Here() {
		// Debian's package starts a server for everybody on port 22, which is not for a demo to do
		fmt.Println("  left out: there is no sshd here; to see it, apt-get install openssh-server")
		return nil
	}
	s, err := sshtest.Start(ctx)
	if errors.Is(err, sshtest.ErrMissing) {
		said, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "sshtest: "), "\n")
		fmt.Printf("  left out: %s\n", said)
		return nil
	}
	if err != nil {
		return err
	}
	d.sshd = s
	if err := os.WriteFile(filepath.Join(s.Dir, "app.log"), []byte("started\nready\n"), 0o600); err != nil {
		return err
	}
	if d.web, err = freePort(); err != nil {
		return err
	}
	fmt.Printf("  sshd on %s\n", s.Addr)
	return nil
}

// webPolicy is what guards the host. A policy that guards nothing is refused by weir check.
func (d *demo) webPolicy() string {
	if d.sshd == nil {
		return ""
	}
	return "  - {name: shell, path: \"builtin:ssh\"}\n"
}

// webTarget is the host in the gateway's configuration.
func (d *demo) webTarget() string {
	if d.sshd == nil {
		return ""
	}
	return fmt.Sprintf(`  - name: web
    protocol: ssh
    listen: %q
    upstream: {address: %q}
    credential: {user: %s, password: "${file:%s}"}
    chain: [guardrails, shell]
    record: full
    ssh: {host_keys: [%q]}
`, d.web, d.sshd.Addr, d.sshd.User, filepath.Join(d.sshd.Dir, "key"), d.sshd.HostKey)
}

// commands is an agent that works on a host by ssh, and knows no more of Weir than the line that `weir certificate` prints.
func (d *demo) commands(ctx context.Context) error {
	if d.sshd == nil {
		fmt.Println("  left out: there is no host")
		return nil
	}
	key := filepath.Join(d.dir, "agent", "id_ed25519")
	if err := os.Mkdir(filepath.Dir(key), 0o700); err != nil {
		return err
	}
	cert := exec.CommandContext(ctx, filepath.Join(d.bin, "weir"), "certificate", "web", "--key", key, "-c", d.config)
	cert.Env = append(os.Environ(), "DEMO_PASSWORD="+d.upstream.password, "WEIR_TOKEN="+d.token)
	line, err := cert.Output()
	if err != nil {
		return fmt.Errorf("weir certificate: %w", err)
	}
	_, port, _ := net.SplitHostPort(d.web)
	for _, command := range []struct{ text, want string }{
		{"wc -l ~/app.log", d.sshd.Dir + "/app.log"}, // also that ~ is what the next command may be let loose on
		{"rm -rf ~", "refused by Weir"},
		{"tail -n 1 ~/app.log", "ready"},
	} {
		fmt.Printf("  agent> ssh -p %s web@127.0.0.1 '%s'\n", port, command.text)
		loop := exec.CommandContext(ctx, "sh", "-c", strings.TrimSpace(string(line))+` -F none -o BatchMode=yes "$1"`, "sh", command.text)
		var said bytes.Buffer
		out := io.MultiWriter(&said, &indent{w: os.Stdout, margin: "         "})
		loop.Stdout, loop.Stderr = out, out
		err := loop.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return err
		}
		if !strings.Contains(said.String(), command.want) {
			return fmt.Errorf("%s said %q", command.text, said.String())
		}
	}
	return nil
}

// lookAtHost shows what was kept of the command that was refused.
func (d *demo) lookAtHost(ctx context.Context) error {
	if d.sshd == nil {
		return nil
	}
	id, err := d.session(ctx, "--target", "web", "--denied")
	if err != nil {
		return err
	}
	return d.print(ctx, "replay", id)
}
