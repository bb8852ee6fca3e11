package ssh

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

var _ core.Enroller = (*Protocol)(nil)

const (
	enrollTime         = 20 * time.Second
	maxCertificateText = 64 << 10 // bytes of a certificate in a file
)

// Enroll implements core.Enroller: it gets a certificate for the key in the file, which it makes where there is none. Where the gateway
// says no host key nobody is trusted, and the token not shown.
func (*Protocol) Enroll(ctx context.Context, at core.WayIn, token, file string) (line string, until time.Time, err error) {
	if at.HostKey == "" {
		return "", until, errors.New("ssh: the gateway does not say its host key: ask for host_key of the target, or sign in with the token")
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(at.HostKey))
	if err != nil {
		return "", until, fmt.Errorf("ssh: the gateway's host key: %w", err)
	}
	options, ok := strings.CutPrefix(at.Connect, "ssh ")
	if !ok {
		return "", until, errors.New("ssh: the gateway does not say how to connect")
	}
	public, err := publicKey(file)
	if err != nil {
		return "", until, err
	}
	text, err := fetchCertificate(ctx, at.Address, &ssh.ClientConfig{
		User: at.Target, Auth: []ssh.AuthMethod{ssh.Password(token)}, HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{host.Type()},
	}, ssh.MarshalAuthorizedKey(public))
	if err != nil {
		return "", until, err
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return "", until, fmt.Errorf("ssh: the gateway's answer is no certificate: %w", err)
	}
	c, ok := parsed.(*ssh.Certificate)
	if !ok || !bytes.Equal(c.Key.Marshal(), public.Marshal()) {
		return "", until, errors.New("ssh: the gateway's answer is no certificate for this key")
	}
	beside := file + "-cert.pub" // where ssh looks for it
	if old, err := os.ReadFile(beside); err == nil && !ours(old, c) {
		return "", until, fmt.Errorf("ssh: %s is of another authority: name another key by --key", beside)
	}
	if err := writePrivate(beside, text); err != nil {
		return "", until, err
	}
	return "ssh -i " + shellWord(file) + " " + options, time.Unix(int64(c.ValidBefore), 0), nil
}

// ours reports whether a file has a certificate of the same authority as c.
func ours(text []byte, c *ssh.Certificate) bool {
	key, _, _, _, err := ssh.ParseAuthorizedKey(text)
	old, ok := key.(*ssh.Certificate)
	return err == nil && ok && bytes.Equal(old.SignatureKey.Marshal(), c.SignatureKey.Marshal())
}

// fetchCertificate has the gateway make a certificate.
func fetchCertificate(ctx context.Context, addr string, config *ssh.ClientConfig, public []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, enrollTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ssh: the gateway cannot be reached: %w", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var banner string
	config.BannerCallback = func(text string) error {
		banner = line(text)
		return nil
	}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		if banner != "" {
			err = errors.New(banner)
		}
		return nil, fmt.Errorf("ssh: the gateway does not let you in: %w", err)
	}
	client := ssh.NewClient(c, channels, requests)
	s, err := client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	var out, said limited
	s.Stdin, s.Stdout, s.Stderr = bytes.NewReader(public), &out, &said
	if err := s.Run(certificateCommand); err != nil {
		return nil, fmt.Errorf("ssh: no certificate was made: %s (%w)", line(said.String()), err)
	}
	return out.Bytes(), nil
}

// limited is a buffer that takes no more than a certificate may have.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > maxCertificateText {
		return 0, errors.New("ssh: the gateway's answer is too long")
	}
	return l.Buffer.Write(p)
}

// publicKey reads the public half of a key, and makes both where there is no such file.
func publicKey(file string) (ssh.PublicKey, error) {
	_, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	b, err := os.ReadFile(file + ".pub")
	if err != nil {
		return nil, fmt.Errorf("ssh: the public half of the key (ssh-keygen -y -f %s > %s.pub writes it): %w", file, file, err)
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(b)
	if err != nil {
		return nil, fmt.Errorf("ssh: %s.pub: %w", file, err)
	}
	return key, nil
}

// makeKey makes a key, its public half first: who finds the private one finds both.
func makeKey(file string) (ssh.PublicKey, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "weir")
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("ssh: %w", err)
	}
	if err := writePrivate(file+".pub", ssh.MarshalAuthorizedKey(key)); err != nil {
		return nil, err
	}
	return key, writePrivate(file, pem.EncodeToMemory(block))
}

// writePrivate puts a file of its owner's in its place at once.
func writePrivate(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".weir-*") // mode 0600
	if err != nil {
		return fmt.Errorf("ssh: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("ssh: %w", err)
	}
	return nil
}
