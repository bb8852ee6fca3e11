package config

import (
	"crypto/tls"
	"net"
	"slices"

	"github.com/weir-gateway/weir/core"
)

// Index says where the index is. Without it, it is the file index.db in Data.
type Index struct {
	Postgres PostgresIndex `yaml:"postgres"`
}

// PostgresIndex is a schema of a PostgreSQL database, which many gateways may share.
type PostgresIndex struct {
	Address    string       `yaml:"address"`
	Database   string       `yaml:"database"`
	Schema     string       `yaml:"schema"`         // default: weir_index
	User       string       `yaml:"user,reference"` // a name, or ${vault:PATH#KEY}
	Password   Secret       `yaml:"password"`
	TLS        core.TLSMode `yaml:"tls"`         // default: verify-full
	CA         string       `yaml:"ca"`          // PEM file; none: the system's roots
	ServerName string       `yaml:"server_name"` // default: the address's host
}

// On reports whether the index is in a database.
func (p *PostgresIndex) On() bool { return p.Address != "" }

func (p *PostgresIndex) upstream() *Upstream {
	return &Upstream{Address: p.Address, TLS: p.TLS, CA: p.CA, ServerName: p.ServerName}
}

// IndexTLS makes the client's side of the way to the index's database; nil: it is in clear.
func (c *Config) IndexTLS() (*tls.Config, error) {
	var problems Problems
	out := c.Index.Postgres.upstream().client(func(key, text string) { problems = append(problems, c.Problem("index.postgres."+key, text, "")) })
	if len(problems) > 0 {
		return nil, problems
	}
	return out, nil
}

func (k *checker) index() {
	if !k.set("index") {
		return
	}
	const at = "index.postgres"
	p := &k.Index.Postgres
	if p.Address == "" {
		k.problem("index", "postgres: {address: db.internal:5432, database: weir, user: weir, password: …}, or leave the key out for a file in data", "names no database")
		return
	}
	host, ok := k.address(at+".address", p.Address)
	if ok && host == "" {
		k.problem(at+".address", "", "%q has no host", p.Address)
	}
	if p.Database == "" {
		k.problem(at, "", "has no database")
	}
	if p.User == "" {
		k.problem(at, "", "has no user")
	}
	if p.Schema != "" && !nameShape.MatchString(p.Schema) || p.Schema == "public" {
		k.problem(at+".schema", "one that holds nothing else, such as weir_index: it is dropped when its tables change", "%q cannot be the index's schema", p.Schema)
	}
	if p.Password.Clear() {
		k.warn(at+".password", "use ${env:NAME}, ${file:PATH} or ${vault:PATH#KEY}", "holds a secret in clear")
	}
	words := []string{string(core.TLSDisable), string(core.TLSRequire), string(core.TLSVerifyCA), string(core.TLSVerifyFull)}
	switch h, _, _ := net.SplitHostPort(p.Address); {
	case !slices.Contains(words, string(p.TLS)):
		k.problem(at+".tls", hintNearest(string(p.TLS), words), "%q is not disable, require, verify-ca or verify-full", p.TLS)
	case p.TLS == core.TLSDisable && h != "" && !loopback(h):
		k.warn(at+".tls", "use verify-full", "the credential, and what the index takes in, go to %s in clear", p.Address)
	case p.TLS == core.TLSRequire:
		k.warn(at+".tls", "use verify-full", "require checks no certificate: anybody in between can read along")
	}
	if k.set(at+".ca") && (p.TLS == core.TLSDisable || p.TLS == core.TLSRequire) {
		k.problem(at+".ca", "use verify-ca or verify-full", "would do nothing: tls is %s", p.TLS)
	}
	if k.Encryption.On() {
		k.warn(at, "see to it that the database, and what is kept of it, is as well guarded as the recordings", "holds what commands and answers say, in clear, though recordings are encrypted")
	}
}
