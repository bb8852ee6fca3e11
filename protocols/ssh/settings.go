package ssh

import (
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// settings are a target's own, under "ssh:".
type settings struct {
	// HostKeys are the upstream's public keys, a line each as in authorized_keys; "@cert-authority KEY" is one whose
	// certificates are good, and "@revoked KEY" one that never is. KnownHosts is a known_hosts file in their place.
	HostKeys   []string `yaml:"host_keys"`
	KnownHosts string   `yaml:"known_hosts"`
	// TrustFirst takes whatever key the upstream shows first, and only that one until the gateway stops.
	TrustFirst bool `yaml:"trust_first_host_key"`
	// HostKey is a PEM file with the key that clients see; empty: one that the gateway has made.
	HostKey string `yaml:"host_key"`

	Mode       string   `yaml:"mode"`       // all (default), or exec-only: no shell and no terminal
	Logins     []string `yaml:"logins"`     // upstream users that a client may choose, beside the credential's
	Env        []string `yaml:"env"`        // names of variables that pass, with * at the end; default LANG and LC_*
	Subsystems []string `yaml:"subsystems"` // default sftp
	Forward    []string `yaml:"forward"`    // host:port and /socket that a client may reach through the target; * is any
	Listen     []string `yaml:"listen"`     // host:port and /socket that a client may have the target listen on
	Agent      bool     `yaml:"agent"`      // the client's agent may be forwarded
	X11        bool     `yaml:"x11"`        // and its display
	Channels   int      `yaml:"channels"`   // open at a time; default 128

	keys *hostKeys
}

const (
	modeAll         = "all"
	modeExecOnly    = "exec-only"
	defaultChannels = 128
	maxChannels     = 10_000
)

// settingsOf decodes and checks what a target says of itself.
func settingsOf(t *core.Target) (*settings, error) {
	s := &settings{}
	if t.Decode != nil {
		if err := t.Decode(s); err != nil {
			return nil, err
		}
	}
	var errs []error
	fail := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("ssh: target "+t.Name+": "+format, args...))
	}
	if s.Mode == "" {
		s.Mode = modeAll
	}
	if s.Mode != modeAll && s.Mode != modeExecOnly {
		fail("mode %q is not all or exec-only", s.Mode)
	}
	if s.Env == nil {
		s.Env = []string{"LANG", "LC_*"}
	}
	if s.Subsystems == nil {
		s.Subsystems = []string{"sftp"}
	}
	if s.Channels == 0 {
		s.Channels = defaultChannels
	}
	if s.Channels < 1 || s.Channels > maxChannels {
		fail("channels is not from 1 to %d", maxChannels)
	}
	for _, list := range [][]string{s.Forward, s.Listen} {
		for _, p := range list {
			if strings.HasPrefix(p, "/") {
				continue
			}
			if _, port, err := net.SplitHostPort(p); err != nil || port == "" {
				fail("%q is not host:port, nor the path of a socket", p)
			}
		}
	}
	for _, p := range s.Env {
		if strings.Contains(strings.TrimSuffix(p, "*"), "*") || p == "" {
			fail("env: %q is not a name, with * at its end or nowhere", p)
		}
	}
	ways := 0
	for _, is := range []bool{len(s.HostKeys) > 0, s.KnownHosts != "", s.TrustFirst} {
		if is {
			ways++
		}
	}
	var err error
	switch {
	case ways == 0:
		fail("says nothing of the target's host key, and without it Weir cannot tell who gets the credential: add ssh: {host_keys: [\"ssh-ed25519 …\"]} (ssh-keyscan prints it), or known_hosts")
	case ways > 1:
		fail("needs one of host_keys, known_hosts and trust_first_host_key")
	default:
		if s.keys, err = newHostKeys(s); err != nil {
			fail("%w", err)
		}
	}
	return s, errors.Join(errs...)
}

// passesEnv reports whether a client may set a variable.
func (s *settings) passesEnv(name string) bool {
	return slices.ContainsFunc(s.Env, func(p string) bool {
		if head, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(name, head)
		}
		return p == name
	})
}

// reaches reports whether one of the patterns means an address, which is host:port or the path of a socket.
func reaches(patterns []string, address string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if strings.HasPrefix(address, "/") || strings.HasPrefix(p, "/") {
			return strings.HasPrefix(address, "/") && (p == address || p == "/*") && path.Clean(address) == address
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return false
		}
		mayHost, mayPort, err := net.SplitHostPort(p)
		if err != nil || mayPort != "*" && mayPort != port {
			return false
		}
		host, mayHost = strings.ToLower(strings.TrimSuffix(host, ".")), strings.ToLower(mayHost)
		suffix, anyOf := strings.CutPrefix(mayHost, "*.")
		return mayHost == "*" || mayHost == host || anyOf && strings.HasSuffix(host, "."+suffix)
	})
}

// hostPort writes an address as settings and rules have it.
func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}
