package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/weir-gateway/weir/core"
)

// probe asks for nothing by a prepared statement, as a client that asks often does.
type probe struct{ conn *pgconn.PgConn }

const (
	probeText    = "select 1"
	probeTimeout = 10 * time.Second // to sign in
)

// ProbeTarget implements core.Prober.
func (*Protocol) ProbeTarget(ctx context.Context, t *core.Target, who core.Identity) (core.Probe, error) {
	c, err := plainConfig()
	if err != nil {
		return nil, err
	}
	login, err := t.Credential(ctx, who)
	if err != nil {
		return nil, err
	}
	// The dial finds and secures the way, as the gateway's does.
	c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	c.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, &t.Upstream) }
	c.Host, c.Port, c.Database, c.User, c.Password = t.Name, 1, t.Upstream.Database, login.User, login.Password
	if c.Database == "" {
		c.Database = t.Name
	}
	return prepare(ctx, c)
}

// ProbeGateway implements core.Prober.
func (*Protocol) ProbeGateway(ctx context.Context, _ core.WayIn, env map[string]string) (core.Probe, error) {
	c, err := plainConfig()
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(env["PGPORT"], 10, 16)
	if err != nil {
		return nil, fmt.Errorf("PGPORT is %q", env["PGPORT"])
	}
	c.Host, c.Port, c.Database, c.User, c.Password = env["PGHOST"], uint16(port), env["PGDATABASE"], env["PGUSER"], env["PGPASSWORD"]
	c.TLSConfig = &tls.Config{ServerName: c.Host, MinVersion: tls.VersionTLS12}
	if file := env["PGSSLROOTCERT"]; file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		c.TLSConfig.RootCAs = x509.NewCertPool()
		if !c.TLSConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", file)
		}
	}
	return prepare(ctx, c)
}

// plainConfig is a configuration that owes nothing to the environment of this process.
func plainConfig() (*pgconn.Config, error) {
	c, err := pgconn.ParseConfig("host=localhost user=none dbname=none sslmode=disable passfile=/dev/null servicefile=/dev/null")
	if err != nil {
		return nil, err
	}
	c.Fallbacks, c.RuntimeParams, c.ConnectTimeout = nil, map[string]string{"application_name": "weir bench"}, probeTimeout
	return c, nil
}

func prepare(ctx context.Context, c *pgconn.Config) (core.Probe, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	p := &probe{conn}
	if _, err := conn.Prepare(ctx, "probe", probeText, nil); err != nil {
		_ = p.Close()
		return nil, err
	}
	return p, nil
}

func (p *probe) Ask(ctx context.Context) error {
	return p.conn.ExecPrepared(ctx, "probe", nil, nil, nil).Read().Err
}

func (p *probe) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return p.conn.Close(ctx)
}

var _ core.Prober = (*Protocol)(nil)
