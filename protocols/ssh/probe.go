package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

var _ core.Prober = (*Protocol)(nil)

// probe runs a command that does nothing, each in a channel of its own.
type probe struct{ client *ssh.Client }

const (
	probeCommand = "true"
	probeTimeout = 20 * time.Second // to sign in
)

// ProbeTarget implements core.Prober.
func (p *Protocol) ProbeTarget(ctx context.Context, t *core.Target, who core.Identity) (core.Probe, error) {
	made, err := p.Handler([]*core.Target{t})
	if err != nil {
		return nil, err
	}
	cred, err := t.Credential(ctx, who)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	u, err := made.(*handler).signInAt(ctx, t, "", cred)
	if err != nil {
		return nil, err
	}
	return &probe{ssh.NewClient(u.conn, u.channels, u.requests)}, nil
}

// ProbeGateway implements core.Prober. The token is shown to nobody but the gateway whose key the way in names.
func (*Protocol) ProbeGateway(ctx context.Context, at core.WayIn, env map[string]string) (core.Probe, error) {
	if at.HostKey == "" {
		return nil, errors.New("ssh: the gateway does not say its host key")
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(at.HostKey))
	if err != nil {
		return nil, fmt.Errorf("ssh: the gateway's host key: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", at.Address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c, channels, requests, err := ssh.NewClientConn(conn, at.Address, &ssh.ClientConfig{
		Config: strong, User: at.Target, Auth: []ssh.AuthMethod{ssh.Password(env["SSHPASS"])},
		HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{host.Type()},
	})
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &probe{ssh.NewClient(c, channels, requests)}, nil
}

// Ask implements core.Probe.
func (p *probe) Ask(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.client.Close() })
	defer stop()
	s, err := p.client.NewSession()
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Run(probeCommand)
}

// Close implements core.Probe.
func (p *probe) Close() error { return p.client.Close() }
