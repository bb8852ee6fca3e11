package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

// upstream is the leg to the target.
type upstream struct {
	conn     ssh.Conn
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
	trusted  string // the fingerprint of a host key that nobody has vouched for
}

func (u *upstream) close() { _ = u.conn.Close() }

// preGreeting bounds what an upstream may send before Weir has signed in: banners, and the key exchange.
const preGreeting = 1 << 20

var errRefusedCredential = errors.New("the credential was refused")

// dial connects to the target of a session and signs in there.
func (h *handler) dial(ctx context.Context, s *signIn) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, h.signIn)
	defer cancel()
	t := s.session.Target
	for again := true; ; again = false {
		cred, err := t.Credential(ctx, s.session.Identity)
		if err != nil {
			return nil, &upstreamError{"there is no credential for the target", err}
		}
		u, err := h.signInAt(ctx, t, s.login, cred)
		if errors.Is(err, errRefusedCredential) && cred.Rotates && again {
			continue // it may have changed since
		}
		return u, err
	}
}

func (h *handler) signInAt(ctx context.Context, t *core.Target, login string, cred core.Credential) (*upstream, error) {
	set := h.settings[t]
	user := cred.User
	if login != "" && login != user {
		if !slices.Contains(set.Logins, login) {
			return nil, helpError(fmt.Sprintf("the login %q cannot be chosen at target %s: leave it out, or ask for it to be among its logins", line(login), t.Name))
		}
		user = login
	}
	auth, err := methods(cred)
	if err != nil {
		return nil, &upstreamError{"the credential for the target cannot be used", err}
	}
	conn, err := t.Upstream.Dial(ctx)
	if err != nil {
		return nil, &upstreamError{"the target cannot be reached", err}
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	bounded := &boundedConn{Conn: conn}
	bounded.left.Store(preGreeting)
	address := t.Upstream.Address
	if strings.HasPrefix(address, "/") {
		address = "localhost:22"
	}
	u := &upstream{}
	var badKey error
	u.conn, u.channels, u.requests, err = ssh.NewClientConn(bounded, address, &ssh.ClientConfig{
		Config: strong, User: user, Auth: auth, ClientVersion: version,
		HostKeyAlgorithms: set.keys.algorithms(address),
		HostKeyCallback: func(address string, remote net.Addr, key ssh.PublicKey) (err error) {
			u.trusted, err = set.keys.check(address, remote, key, &h.protocol.pins)
			badKey = err
			return err
		},
		BannerCallback: func(string) error { return nil },
	})
	if err != nil {
		_ = conn.Close()
		stop()
		switch {
		case badKey != nil:
			return nil, &upstreamError{"the target's host key is not the one that is configured, so it got no credential", err}
		case ctx.Err() != nil:
			return nil, &upstreamError{"the target did not answer in time", err}
		case strings.Contains(err.Error(), "unable to authenticate"):
			return nil, &upstreamError{"the target refuses Weir's credential", errors.Join(errRefusedCredential, err)}
		}
		return nil, &upstreamError{"the target does not speak as Weir needs it", err}
	}
	if !stop() {
		u.close()
		return nil, &upstreamError{"the target did not answer in time", context.Cause(ctx)}
	}
	bounded.free()
	return u, nil
}

// methods are the ways to sign in with a credential: a private key in PEM, perhaps with its certificate in a line after it, or
// a password.
func methods(cred core.Credential) ([]ssh.AuthMethod, error) {
	secret := cred.Password
	at := strings.Index(secret, "-----BEGIN ")
	if at < 0 {
		return []ssh.AuthMethod{ssh.Password(secret), ssh.KeyboardInteractive(answer(secret))}, nil
	}
	key, err := ssh.ParsePrivateKey([]byte(secret[at:]))
	if err != nil {
		return nil, errors.New("its private key cannot be read: it has to be in PEM, without a passphrase") // the cause may show a part of it
	}
	if key, err = modern(key); err != nil {
		return nil, err
	}
	signers := []ssh.Signer{key}
	if end := strings.LastIndex(secret, "-----"); end+5 < len(secret) && strings.TrimSpace(secret[end+5:]) != "" {
		public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(secret[end+5:]))
		cert, ok := public.(*ssh.Certificate)
		if err != nil || !ok {
			return nil, errors.New("what follows its private key is not a certificate")
		}
		signer, err := ssh.NewCertSigner(cert, key)
		if err != nil {
			return nil, err
		}
		signers = []ssh.Signer{signer}
	}
	return []ssh.AuthMethod{ssh.PublicKeys(signers...)}, nil
}

// answer gives a password to whoever asks one question without an echo, once.
func answer(secret string) ssh.KeyboardInteractiveChallenge {
	given := false
	return func(_, _ string, questions []string, echos []bool) ([]string, error) {
		if len(questions) == 0 {
			return nil, nil
		}
		if given || len(questions) != 1 || echos[0] {
			return nil, errors.New("the target asks for more than a password")
		}
		given = true
		return []string{secret}, nil
	}
}
