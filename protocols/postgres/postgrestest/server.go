// Package postgrestest starts private PostgreSQL servers for tests, the demo and the benchmark. Each listens on a free
// port of 127.0.0.1 and on a Unix socket in a folder of its own, and goes away with Stop.
package postgrestest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Options are what a server is started with.
type Options struct {
	Auth     string            // pg_hba method for TCP: scram-sha-256 (default), md5, password, trust
	Settings map[string]string // server settings, such as log_statement
	NoTLS    bool
	Log      io.Writer // what the installation of the server prints, when it has to be installed
}

// Server is a running PostgreSQL.
type Server struct {
	Host     string
	Port     int
	User     string
	Password string
	Dir      string // holds data, socket, log, certificates
	CA       string // PEM file that server.crt is signed by
	Bin      string

	options Options
	cmd     *exec.Cmd
	done    chan error
}

// Addr returns host:port.
func (s *Server) Addr() string { return net.JoinHostPort(s.Host, strconv.Itoa(s.Port)) }

// URL returns a connection URL for a database; the server itself, not a gateway before it.
func (s *Server) URL(database string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/%s?sslmode=disable", s.User, s.Password, s.Addr(), database)
}

// Socket returns the path of the server's Unix socket.
func (s *Server) Socket() string { return filepath.Join(s.Dir, ".s.PGSQL."+strconv.Itoa(s.Port)) }

// LogFile returns the path of the server's log.
func (s *Server) LogFile() string { return filepath.Join(s.Dir, "server.log") }

// Program returns the path of one of PostgreSQL's programs, such as psql.
func (s *Server) Program(name string) string { return filepath.Join(s.Bin, name) }

// Find returns the folder of the newest installed PostgreSQL server, installing Debian's package when there is none
// and this process may.
func Find(ctx context.Context, log io.Writer) (string, error) {
	if dir := os.Getenv("PGBIN"); dir != "" {
		return dir, nil
	}
	if dir := installed(); dir != "" {
		return dir, nil
	}
	if os.Getuid() != 0 {
		return "", errors.New("postgrestest: no PostgreSQL server is installed: install the package postgresql, or set PGBIN to its bin folder")
	}
	if err := install(ctx, log, "postgresql", "postgresql-contrib"); err != nil {
		return "", fmt.Errorf("postgrestest: %w", err)
	}
	if dir := installed(); dir != "" {
		return dir, nil
	}
	return "", errors.New("postgrestest: the package postgresql is installed, but there is no server in /usr/lib/postgresql")
}

func installed() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	sort.Slice(found, func(i, j int) bool { return version(found[i]) < version(found[j]) })
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	if p, err := exec.LookPath("initdb"); err == nil {
		if p, err = filepath.EvalSymlinks(p); err == nil {
			return filepath.Dir(p)
		}
	}
	return ""
}

func version(path string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return n
}

// Start makes a server and waits until it takes connections.
func Start(ctx context.Context, o Options) (*Server, error) {
	bin, err := Find(ctx, o.Log)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "weir-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{Host: "127.0.0.1", User: "postgres", Password: password(), Dir: dir, Bin: bin, options: o, done: make(chan error, 1)}
	if err := s.start(ctx, o); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("postgrestest: %w", err)
	}
	return s, nil
}

func (s *Server) start(ctx context.Context, o Options) error {
	pw := filepath.Join(s.Dir, "pw")
	if err := os.WriteFile(pw, []byte(s.Password), 0o600); err != nil {
		return err
	}
	if !o.NoTLS {
		if err := s.certificate(); err != nil {
			return err
		}
	}
	if err := s.give(); err != nil {
		return err
	}
	auth := o.Auth
	if auth == "" {
		auth = "scram-sha-256"
	}
	data := filepath.Join(s.Dir, "data")
	init := s.command(ctx, "initdb", "-D", data, "-U", s.User, "--auth-local=trust", "--auth-host="+auth, "--pwfile="+pw,
		"--no-sync", "--encoding=UTF8", "--locale=C")
	if out, err := init.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, tail(string(out), 10))
	}
	var err error
	for range 5 { // another process may take the port between the look and the start
		var l net.Listener
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
		s.Port = l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if err = s.run(ctx, data, o); err == nil {
			return nil
		}
	}
	return err
}

// Restart ends the server as its operator would (fast shutdown), and starts it again on the same port.
func (s *Server) Restart(ctx context.Context) error {
	s.end()
	if err := s.run(ctx, filepath.Join(s.Dir, "data"), s.options); err != nil {
		return fmt.Errorf("postgrestest: %w", err)
	}
	return nil
}

func (s *Server) run(ctx context.Context, data string, o Options) error {
	args := []string{
		"-D", data, "-p", strconv.Itoa(s.Port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + s.Dir,
		"-c", "fsync=off", "-c", "max_connections=400", "-c", "logging_collector=off", "-c", "log_destination=stderr",
	}
	if !o.NoTLS {
		args = append(args, "-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(s.Dir, "server.crt"), "-c", "ssl_key_file="+filepath.Join(s.Dir, "server.key"))
	}
	for k, v := range o.Settings {
		args = append(args, "-c", k+"="+v)
	}
	log, err := os.OpenFile(s.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = s.command(context.WithoutCancel(ctx), "postgres", args...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(s.cmd, s.done)
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		select {
		case err := <-s.done:
			b, _ := os.ReadFile(s.LogFile())
			return fmt.Errorf("the server ended: %w\n%s", err, tail(string(b), 10))
		case <-ctx.Done():
			_ = s.cmd.Process.Kill()
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		ready := s.command(ctx, "pg_isready", "-q", "-h", s.Dir, "-p", strconv.Itoa(s.Port))
		if ready.Run() == nil {
			return s.setPassword(ctx, o)
		}
	}
	_ = s.cmd.Process.Kill()
	return errors.New("the server is not ready after 30 s")
}

// setPassword stores the password in the form that the method needs, where initdb could not be told.
func (s *Server) setPassword(ctx context.Context, o Options) error {
	if o.Auth != "md5" {
		return nil
	}
	_, err := s.Psql(ctx, "postgres", "set password_encryption='md5'; alter user "+s.User+" password '"+s.Password+"'")
	return err
}

// Psql runs SQL over the server's socket, past any gateway, and returns what psql prints, without decoration.
func (s *Server) Psql(ctx context.Context, database, sql string) (string, error) {
	cmd := s.command(ctx, "psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", s.Dir, "-p", strconv.Itoa(s.Port), "-U", s.User, "-d", database, "-f", "-")
	cmd.Stdin = strings.NewReader(sql)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("psql: %w\n%s", err, tail(string(out), 10))
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

// Stop ends the server and removes its files. Only the process that Start made is signalled.
func (s *Server) Stop() error {
	s.end()
	return os.RemoveAll(s.Dir)
}

func (s *Server) end() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Signal(syscall.SIGINT) // fast shutdown
	select {
	case <-s.done:
	case <-time.After(10 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
}

// Process returns the server's process, for tests that stop or kill it.
func (s *Server) Process() *os.Process { return s.cmd.Process }

// command makes a command that runs as a user who may run a server: root may not.
func (s *Server) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.Program(name), args...)
	cmd.Dir = s.Dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if uid, gid, ok := serverUser(); ok {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}, Setpgid: true}
	}
	return cmd
}

// serverUser returns whom to run a server as, when this process is root.
func serverUser() (uid, gid uint32, ok bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ := strconv.ParseUint(u.Uid, 10, 32)
			gid, _ := strconv.ParseUint(u.Gid, 10, 32)
			return uint32(uid), uint32(gid), true
		}
	}
	return 0, 0, false
}

func (s *Server) give() error {
	uid, gid, ok := serverUser()
	if !ok {
		return nil
	}
	return filepath.Walk(s.Dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(uid), int(gid))
	})
}

// certificate makes a CA and a certificate for 127.0.0.1 and localhost.
func (s *Server) certificate() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "postgrestest CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	s.CA = filepath.Join(s.Dir, "ca.crt")
	for name, block := range map[string]*pem.Block{
		"ca.crt": {Type: "CERTIFICATE", Bytes: caDER}, "server.crt": {Type: "CERTIFICATE", Bytes: der},
		"server.key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(s.Dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return os.Chmod(s.CA, 0o644)
}

func password() string {
	var b [12]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("pw%x", b)
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
