package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

const (
	// maxTokens is how many tokens a connection may show. Keys that Weir cannot take cost a client nothing but maxTries:
	// an agent offers all that it has before anybody types a token.
	maxTokens = 3
	maxTries  = 12
	maxToken  = 64 << 10
)

// helpError is a text for the client that says what to do.
type helpError string

func (e helpError) Error() string { return string(e) }

// signIn finds out who a client is, and opens its session.
type signIn struct {
	handler *handler
	gate    core.Gate
	own     *ownKeys
	conn    net.Conn
	gone    <-chan struct{} // closed when the client is
	shown   int             // tokens

	session *core.Session
	token   string
	login   string // the upstream user that the client asks for; empty: the credential's
}

// strong are the algorithms of both legs: none with SHA-1 or CBC. ChaCha20-Poly1305 is not among them: with a peer that does not speak
// strict key exchange, somebody in between could cut off the first messages (CVE-2023-48795), and x/crypto would not mind.
var strong = func() ssh.Config {
	all := ssh.SupportedAlgorithms()
	macs := slices.DeleteFunc(all.MACs, func(a string) bool { return a == ssh.HMACSHA1 })
	ciphers := slices.DeleteFunc(all.Ciphers, func(a string) bool { return a == ssh.CipherChaCha20Poly1305 })
	return ssh.Config{KeyExchanges: all.KeyExchanges, Ciphers: ciphers, MACs: macs}
}()

// modern leaves a key the signature algorithms that do not use SHA-1.
func modern(k ssh.Signer) (ssh.Signer, error) {
	a, ok := k.(ssh.AlgorithmSigner)
	if !ok || k.PublicKey().Type() != ssh.KeyAlgoRSA {
		return k, nil
	}
	return ssh.NewSignerWithAlgorithms(a, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
}

func (s *signIn) config(ctx context.Context) *ssh.ServerConfig {
	c := &ssh.ServerConfig{
		Config:                  strong,
		PublicKeyAuthAlgorithms: ssh.SupportedAlgorithms().PublicKeyAuths,
		MaxAuthTries:            maxTries,
		ServerVersion:           version,
		PasswordCallback: func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			return nil, s.enter(ctx, m, string(password), map[string]string{"method": "password"})
		},
		KeyboardInteractiveCallback: func(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			prompt := "Token: "
			inviter, _ := s.gate.(core.Inviter)
			if inviter != nil && inviter.Invites() {
				prompt = "Token (or Enter, to sign in with a browser): "
			}
			answer, err := askFor(ask, "", prompt)
			if err != nil {
				return nil, err
			}
			if answer == "" && inviter != nil && inviter.Invites() {
				return nil, s.invite(ctx, m, inviter, ask)
			}
			return nil, s.enter(ctx, m, answer, map[string]string{"method": "keyboard-interactive"})
		},
		PublicKeyCallback: s.offered,
		VerifiedPublicKeyCallback: func(m ssh.ConnMetadata, k ssh.PublicKey, p *ssh.Permissions, _ string) (*ssh.Permissions, error) {
			return s.verified(ctx, m, k, p)
		},
	}
	c.AddHostKey(s.own.host)
	return c
}

type tokenOfKey struct{}

// offered looks at a key that a client has, and may not hold: only a certificate of Weir's own may stand in the place of a token.
func (s *signIn) offered(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	token, options, err := s.own.open(key)
	if err != nil {
		return nil, err
	}
	return &ssh.Permissions{CriticalOptions: options, ExtraData: map[any]any{tokenOfKey{}: token}}, nil
}

// verified lets the holder of a certificate in. Who it is comes with the key that has signed, and from nowhere else
// (CVE-2024-45337).
func (s *signIn) verified(ctx context.Context, m ssh.ConnMetadata, key ssh.PublicKey, p *ssh.Permissions) (*ssh.Permissions, error) {
	cert, ok := key.(*ssh.Certificate)
	token, is := p.ExtraData[tokenOfKey{}].(string)
	if !ok || !is {
		return nil, errors.New("ssh: a key without a token")
	}
	return &ssh.Permissions{CriticalOptions: p.CriticalOptions}, s.enter(ctx, m, token, map[string]string{
		"method": "certificate", "key": ssh.FingerprintSHA256(cert.Key), "certificate": fmt.Sprint(cert.Serial),
	})
}

// enter opens a session for a token. The client is told why there is none.
func (s *signIn) enter(ctx context.Context, m ssh.ConnMetadata, token string, details map[string]string) error {
	if s.shown++; s.shown > maxTokens {
		_ = s.conn.Close()
		return errors.New("ssh: too many tokens")
	}
	err := s.open(ctx, m, token, details)
	if err == nil {
		return nil
	}
	return s.failed(err)
}

// failed tells the client why it is not let in.
func (*signIn) failed(err error) error {
	return &ssh.BannerError{Err: err, Message: "weir: " + line(safeText(err)) + "\r\n"}
}

func (s *signIn) open(ctx context.Context, m ssh.ConnMetadata, token string, details map[string]string) error {
	if s.session != nil {
		return errors.New("ssh: a second sign-in")
	}
	if len(token) > maxToken {
		return helpError(fmt.Sprintf("the token is longer than %d bytes", maxToken))
	}
	t, login, err := choose(s.gate, m.User())
	if err != nil {
		return err
	}
	details["client_version"] = line(string(m.ClientVersion()))
	if a, ok := m.(ssh.AlgorithmsConnMetadata); ok {
		n := a.Algorithms()
		details["algorithms"] = strings.Join([]string{n.KeyExchange, n.HostKey, n.Read.Cipher, n.Write.Cipher}, " ")
	}
	if login != "" {
		details["login"] = login
	}
	session, err := s.gate.Open(ctx, core.Hello{
		Target: t, Client: m.RemoteAddr(), Token: token, User: m.User(), TLS: true, Details: details,
	})
	if err != nil {
		return err
	}
	s.session, s.token, s.login = session, token, login
	return nil
}

// choose finds the target by the user name: TARGET, or LOGIN@TARGET where the target has logins to choose from.
func choose(g core.Gate, user string) (t *core.Target, login string, err error) {
	name := user
	if i := strings.LastIndexByte(user, '@'); i >= 0 {
		login, name = user[:i], user[i+1:]
	}
	if t, ok := g.Target(name); ok && name != "" {
		return t, login, nil
	}
	return nil, "", helpError(fmt.Sprintf("no target %q here: the user name says which one, as in ssh TARGET@gateway or ssh LOGIN@TARGET@gateway", line(name)))
}

// refused is a denial in words for a person.
func refused(d *core.Denial) string {
	text := "refused by Weir"
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	text += " (rule " + d.Rule + ")"
	if d.Hint != "" {
		text += "; hint: " + d.Hint
	}
	return line(text)
}

// trimmed is an error's text without the name of the package that it is from.
func trimmed(err error) string {
	return line(strings.TrimPrefix(strings.TrimPrefix(err.Error(), "identity: "), "gateway: "))
}

// line makes a text one line that no terminal obeys.
func line(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
