// Package sshtest starts an OpenSSH server for tests: the real one, on a free port, with keys of its own.
package sshtest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

// Server is a running sshd.
type Server struct {
	Dir     string // of the test's own; a home for nobody
	Addr    string // host:port
	User    string // who can sign in
	Key     []byte // with this private key, in PEM
	HostKey string // the public key, as in authorized_keys

	command *exec.Cmd
	log     said
}

type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

// Log is what the server has printed so far.
func (s *Server) Log() string {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return s.log.b.String()
}

// ErrMissing is wrapped when there is no sshd, and none can be installed.
var ErrMissing = errors.New("sshtest: there is no sshd here")

// Here reports whether OpenSSH's server and client are installed.
func Here() bool {
	_, client := exec.LookPath("ssh")
	_, server := exec.LookPath(sshd)
	return client == nil && server == nil
}

const sshd = "/usr/sbin/sshd" // it wants to be called by its whole path

// Start runs a server in a new folder. Root is needed for nothing but installing Debian's package where there is none.
func Start(ctx context.Context, settings ...string) (*Server, error) {
	if !Here() {
		if err := Packages(ctx, "openssh-server", "openssh-client"); err != nil {
			return nil, err
		}
		if !Here() {
			return nil, fmt.Errorf("%w: it takes %s, and ssh in $PATH", ErrMissing, sshd)
		}
	}
	who, err := user.Current()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "weir-sshd-")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, User: who.Username}
	if err := s.start(ctx, settings); err != nil {
		_ = s.Stop()
		return nil, fmt.Errorf("%w\n%s", err, s.Log())
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, settings []string) error {
	if os.Getuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil { // where it separates privileges
			return err
		}
	}
	host, public, err := NewKey()
	if err != nil {
		return err
	}
	s.HostKey = public
	var own string
	if s.Key, own, err = NewKey(); err != nil {
		return err
	}
	for name, content := range map[string][]byte{"host": host, "authorized": []byte(own + "\n"), "key": s.Key} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), content, 0o600); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Addr = l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(s.Addr)
	lines := append([]string{ // the first of each counts
		"Port " + port, "ListenAddress 127.0.0.1", "HostKey " + s.Dir + "/host", "PidFile none", "UsePAM no", "StrictModes no",
		"AuthorizedKeysFile " + s.Dir + "/authorized", "PermitRootLogin yes", "PasswordAuthentication no", "KbdInteractiveAuthentication no",
		"Subsystem sftp internal-sftp", "AcceptEnv *", "X11Forwarding yes", "X11UseLocalhost yes", "PrintMotd no", "UseDNS no", "SetEnv HOME=" + s.Dir, "LogLevel VERBOSE",
	}, settings...)
	lines = append(lines, "MaxSessions 500", "MaxStartups 500", "AllowTcpForwarding yes", "AllowStreamLocalForwarding yes", "AllowAgentForwarding yes")
	config := filepath.Join(s.Dir, "sshd_config")
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	s.command = exec.Command(sshd, "-D", "-e", "-f", config)
	s.command.Stdout, s.command.Stderr = &s.log, &s.log
	s.command.WaitDelay = 100 * time.Millisecond // sessions that are open have the same stderr
	s.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.command.Start(); err != nil {
		return err
	}
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialTimeout("tcp", s.Addr, time.Second)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(until) || ctx.Err() != nil {
			return fmt.Errorf("sshtest: sshd does not listen: %w", err)
		}
	}
}

// Stop ends the server and removes its folder. What runs in sessions that are open ends by itself.
func (s *Server) Stop() error {
	if s.command != nil && s.command.Process != nil {
		_ = syscall.Kill(-s.command.Process.Pid, syscall.SIGKILL)
		_ = s.command.Wait()
	}
	return os.RemoveAll(s.Dir)
}

// NewKey makes a key: the private one in PEM, and the public one as a line.
func NewKey() (private []byte, public string, err error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		return nil, "", err
	}
	k, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, "", err
	}
	return pem.EncodeToMemory(block), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))), nil
}

// Packages makes sure that Debian packages are there, and installs what is not when this process may.
func Packages(ctx context.Context, names ...string) error {
	var missing []string
	for _, n := range names {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", n).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: as root, apt-get install %s", ErrMissing, strings.Join(missing, " "))
	}
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.MultiWriter(os.Stderr, &out), &out
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: apt-get %s: %w\n%s", ErrMissing, strings.Join(args, " "), err, out.String())
		}
	}
	return nil
}
