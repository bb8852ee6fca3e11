package ssh

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// hostKeys says whether a key is an upstream's.
type hostKeys struct {
	own, authorities, revoked []ssh.PublicKey
	known                     ssh.HostKeyCallback // a known_hosts file
	first                     bool                // whatever comes first is the key
}

func newHostKeys(s *settings) (*hostKeys, error) {
	k := &hostKeys{first: s.TrustFirst}
	var err error
	if s.KnownHosts != "" {
		if k.known, err = knownhosts.New(s.KnownHosts); err != nil {
			return nil, fmt.Errorf("known_hosts: %w", err)
		}
	}
	for _, text := range s.HostKeys {
		to, rest := &k.own, strings.TrimSpace(text)
		if after, ok := strings.CutPrefix(rest, "@cert-authority "); ok {
			to, rest = &k.authorities, after
		} else if after, ok := strings.CutPrefix(rest, "@revoked "); ok {
			to, rest = &k.revoked, after
		}
		key, _, options, more, err := ssh.ParseAuthorizedKey([]byte(rest))
		if err != nil || len(options) > 0 || len(bytes.TrimSpace(more)) > 0 {
			return nil, fmt.Errorf("host_keys: %q is not a public key: write \"ssh-ed25519 AAAA…\", or @cert-authority or @revoked before it", text)
		}
		if _, is := key.(*ssh.Certificate); is || key.Type() == "ssh-dss" {
			return nil, fmt.Errorf("host_keys: a key of type %s is not taken", key.Type())
		}
		*to = append(*to, key)
	}
	if len(s.HostKeys) > 0 && len(k.own)+len(k.authorities) == 0 {
		return nil, errors.New("host_keys: names only what is revoked: no key would ever be good")
	}
	return k, nil
}

// algorithms are those by which an upstream may prove its key, the ones of the keys known first.
func (k *hostKeys) algorithms(address string) []string {
	var types []string
	for _, key := range k.own {
		types = append(types, key.Type())
	}
	if k.known != nil {
		var unknown *knownhosts.KeyError
		if err := k.known(address, &net.TCPAddr{IP: net.IPv4zero}, noKey{}); errors.As(err, &unknown) {
			for _, w := range unknown.Want {
				types = append(types, w.Key.Type())
			}
		}
	}
	all := ssh.SupportedAlgorithms().HostKeys
	rank := func(a string) int {
		switch {
		case strings.Contains(a, "-cert-"):
			if len(k.authorities) > 0 || k.known != nil && len(types) == 0 {
				return 0
			}
			return 3
		case slices.Contains(types, a), strings.HasPrefix(a, "rsa-sha2-") && slices.Contains(types, ssh.KeyAlgoRSA):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(all, func(a, b string) int { return rank(a) - rank(b) })
	return all
}

// noKey is nobody's.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return errors.New("no key") }

var errHostKey = errors.New("the key is not one that is configured")

// check fails unless a key is the upstream's. trusted is its fingerprint where it is only because it came first.
func (k *hostKeys) check(address string, remote net.Addr, key ssh.PublicKey, p *pins) (trusted string, err error) {
	if k.known != nil {
		return "", k.known(address, remote, key)
	}
	if k.first {
		return p.first(address, key)
	}
	is := func(list []ssh.PublicKey) func(ssh.PublicKey) bool {
		return func(key ssh.PublicKey) bool {
			return slices.ContainsFunc(list, func(o ssh.PublicKey) bool { return bytes.Equal(o.Marshal(), key.Marshal()) })
		}
	}
	checker := ssh.CertChecker{
		IsHostAuthority: func(a ssh.PublicKey, _ string) bool { return is(k.authorities)(a) && !is(k.revoked)(a) },
		IsRevoked:       func(c *ssh.Certificate) bool { return is(k.revoked)(c.Key) || len(c.ValidPrincipals) == 0 },
		HostKeyFallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if is(k.revoked)(key) || !is(k.own)(key) {
				return errHostKey
			}
			return nil
		},
	}
	return "", checker.CheckHostKey(address, remote, key)
}

// pins are the keys of upstreams that were trusted because they came first.
type pins struct {
	mu   sync.Mutex
	keys map[string][]byte // by address
}

// maxPins bounds the addresses: they come from the configuration, and reloads may bring others.
const maxPins = 10_000

func (p *pins) first(address string, key ssh.PublicKey) (trusted string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k, ok := key.(*ssh.Certificate); ok {
		key = k.Key
	}
	was, ok := p.keys[address]
	switch {
	case ok && bytes.Equal(was, key.Marshal()):
		return "", nil
	case ok:
		return "", errors.New("the key is not the one that was trusted at first")
	case len(p.keys) >= maxPins:
		return "", errors.New("too many keys were trusted at first sight")
	case p.keys == nil:
		p.keys = map[string][]byte{}
	}
	p.keys[address] = key.Marshal()
	return ssh.FingerprintSHA256(key), nil
}
