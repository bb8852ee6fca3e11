// Package config reads Weir's one configuration file: its shape, its strict decoding and its checks.
//
// Nothing is ignored: an unknown key, a value of the wrong kind, a name that nothing answers to and a control that
// would do nothing are problems, and every problem of the file is reported in one run with file and line.
package config

import (
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-gateway/weir/core"
)

// Config is one configuration file, checked. Paths in it are absolute, or relative to the working directory.
type Config struct {
	File string `yaml:"-"` // as given to Load
	Dir  string `yaml:"-"` // the file's folder: what relative paths are relative to

	Data       string     `yaml:"data"` // default: weir-data beside the file
	Listen     Listen     `yaml:"listen"`
	Admin      Admin      `yaml:"admin"`
	Identity   Identity   `yaml:"identity"`
	Vault      Vault      `yaml:"vault"`
	Journal    Journal    `yaml:"journal"`
	Archive    []Archive  `yaml:"archive"` // none: one of kind file in Data
	Index      Index      `yaml:"index"`   // none: a file in Data
	Retention  Retention  `yaml:"retention"`
	Ledger     Ledger     `yaml:"ledger"`
	Encryption Encryption `yaml:"encryption"` // of recordings
	Policies   []Policy   `yaml:"policies"`
	Plugins    []Plugin   `yaml:"plugins"`
	// PluginKeys are public keys: every plugin that is not builtin must be signed by one of them, unless it names its own.
	PluginKeys []string `yaml:"plugin_keys"`
	// PluginMemory bounds the memory of all guests together; default 1GiB.
	PluginMemory int64    `yaml:"plugin_memory,size"`
	Chain        []string `yaml:"chain"` // of the targets that name none
	Targets      []Target `yaml:"targets"`

	// Warnings are what deserves a look but stops nothing.
	Warnings []Problem `yaml:"-"`

	lines map[string]int
}

// Listen is where the gateway itself is found, and what all listeners share.
type Listen struct {
	Admin                string `yaml:"admin"` // host:port on loopback; default 127.0.0.1:8480
	TLS                  TLS    `yaml:"tls"`
	SignIn               SignIn `yaml:"sign_in"`
	Connections          int    `yaml:"connections"`            // open at a time on all listeners; 0: the gateway's default
	ListenerConnections  int    `yaml:"listener_connections"`   // open at a time on one listener; 0: the gateway's default
	UnsignedPerSourceMax int    `yaml:"unsigned_in_per_source"` // not yet signed in, from one address; 0: the gateway's default
	// Lock is for how long an address is locked out after ten failed sign-ins within a minute: default 15m; 0s: not at all.
	Lock                time.Duration `yaml:"lock"`
	SessionsPerIdentity int           `yaml:"sessions_per_identity"` // open at a time on all targets; 0: no bound
}

// TLS names the certificate of the client leg. When it is zero a local CA is made in Data.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Vault is where secrets named ${vault:PATH#KEY} are: a Vault or an OpenBao.
type Vault struct {
	Address   string `yaml:"address"`
	Token     Secret `yaml:"token"`
	Namespace string `yaml:"namespace"`
	CA        string `yaml:"ca"` // PEM file; none: the system's roots
}

// Identity says whose word about a client counts.
type Identity struct {
	OIDC          []OIDC         `yaml:"oidc"`
	SAML          []SAML         `yaml:"saml"`
	Certificates  []Certificates `yaml:"certificates"`
	ServiceTokens ServiceTokens  `yaml:"service_tokens"`
	Revocations   Revocations    `yaml:"revocations"`
}

// Revocations says for how long what was known last of revoked tokens counts while JetStream cannot be reached.
type Revocations struct {
	MaxAge time.Duration `yaml:"max_age"` // default: 5m
}

// OIDC is one OpenID Connect issuer.
type OIDC struct {
	Name        string   `yaml:"name"`
	Issuer      string   `yaml:"issuer"`
	Audience    string   `yaml:"audience"`
	GroupsClaim string   `yaml:"groups_claim"` // default: groups
	Algorithms  []string `yaml:"algorithms"`   // default: RS256, PS256, ES256, ES384, EdDSA
	// Clients are the parties (azp, client_id) beside the audience that tokens may have been issued to; none: any, where
	// the token is for the audience alone.
	Clients      []string          `yaml:"clients"`
	SubjectClaim string            `yaml:"subject_claim"` // default: sub
	Require      map[string]string `yaml:"require"`       // claims that a token must have, and their values
	Kinds        []KindRule        `yaml:"kinds"`         // the first that fits says what an identity is
	RunClaim     string            `yaml:"run_claim"`     // names the run; default: none does
	Login        Login             `yaml:"login"`
}

// KindRule says what an identity is by one of its claims.
type KindRule struct {
	Kind   string   `yaml:"kind"`   // human, service or agent
	Claim  string   `yaml:"claim"`  // a.b looks inside a
	Values []string `yaml:"values"` // one of which it must have, or hold; none: that it is there is enough
}

// Login is how weir login signs people in at an issuer.
type Login struct {
	ClientID string   `yaml:"client_id"` // default: the audience
	Scopes   []string `yaml:"scopes"`    // default: openid, profile, email, offline_access
	// Invite shows the provider's page and a code to clients that have no token, where their protocol can ask (ssh). One issuer has it.
	Invite bool `yaml:"invite"`
}

// ServiceTokens is the gateway's own issuer.
type ServiceTokens struct {
	Enabled *bool         `yaml:"enabled"` // default: true
	MaxTTL  time.Duration `yaml:"max_ttl"` // default: 24h
	// RunTTL is for how long the token of weir run may be good although the one that it was made out of is over; default: it
	// is not.
	RunTTL time.Duration `yaml:"run_ttl"`
}

// On reports whether the gateway's own issuer is to be used.
func (s ServiceTokens) On() bool { return s.Enabled == nil || *s.Enabled }

// Journal says where records go first, and what is promised about them.
type Journal struct {
	NATS    NATS         `yaml:"nats"`
	Promise core.Promise `yaml:"promise"` // default: strict
}

// NATS is where JetStream is. An empty URL is the embedded server.
type NATS struct {
	URL      string `yaml:"url"`
	Creds    string `yaml:"creds"` // a credentials file
	Replicas int    `yaml:"replicas"`
}

// The kinds of archive stores.
const (
	ArchiveFile = "file"
	ArchiveS3   = "s3"
)

// Archive is one store of finished blocks.
type Archive struct {
	Kind string `yaml:"kind"`
	Path string `yaml:"path"` // of kind file
	// What follows is of kind s3. Without keys the environment's are used, and else those of the machine's role.
	Endpoint   string               `yaml:"endpoint"`
	Bucket     string               `yaml:"bucket"`
	Prefix     string               `yaml:"prefix"`
	Region     string               `yaml:"region"`
	AccessKey  Secret               `yaml:"access_key"`
	SecretKey  Secret               `yaml:"secret_key"`
	ObjectLock time.Duration        `yaml:"object_lock"` // for how long nobody can delete what was stored
	Rest       map[string]yaml.Node `yaml:",rest"`
}

// Policy is one set of Rego modules, a step of chains.
type Policy struct {
	Name     string        `yaml:"name"`
	Path     string        `yaml:"path"`     // a directory, a bundle .tar.gz, the https:// URL of one, or builtin:NAME
	Packages []string      `yaml:"packages"` // to ask; none: every one under weir that the step has
	Timeout  time.Duration `yaml:"timeout"`  // of one question; 0: the step's default
	OnError  string        `yaml:"on_error"` // deny (default) or pass
	Engine   string        `yaml:"engine"`   // auto (default), topdown or wasm
	// Key is the file of the public key that a bundle has to be signed with; Algorithm is ES256, RS256 …
	Key       string        `yaml:"key"`
	Algorithm string        `yaml:"algorithm"`
	Poll      time.Duration `yaml:"poll"`  // how often a URL is asked for another bundle; default 60s
	Token     Secret        `yaml:"token"` // bearer token for the URL
	// MaxSize bounds its files together, those of a bundle unpacked; 0: the step's default.
	MaxSize int64 `yaml:"max_size,size"`
	// Rollback is a revision that may come back from the URL although a later one was used.
	Rollback string `yaml:"rollback"`
}

// Plugin is one step of chains that looks at events: a guest, or a plugin that is part of the program.
type Plugin struct {
	Name    string `yaml:"name"`
	WASM    string `yaml:"wasm"`   // a file, builtin:NAME, https://…, or oci://HOST/REPO[:TAG]@sha256:…
	Native  string `yaml:"native"` // in the place of WASM: one that runs without a guest; of the rest it has Config and Columns only
	Written string `yaml:"-"`      // WASM as it stands in the file
	SHA256  string `yaml:"sha256"`
	// Signature is the file or URL of the signature; none: beside the module. It is asked for when there are keys.
	Signature  string     `yaml:"signature"`
	PublicKeys []string   `yaml:"public_keys"` // Ed25519, in base64 or PEM files: one of them must have signed; none: PluginKeys
	Credential Credential `yaml:"credential"`  // for the server that the module is on
	// Grants are the capabilities that the guest may have of those it needs: clock, kv. A builtin one without the key
	// has what it needs.
	Grants  []string       `yaml:"grants"`
	Config  map[string]any `yaml:"config"` // the guest's own
	OnError string         `yaml:"on_error"`
	// AllowUnmasked lets on_error be pass for a guest that changes values: when it fails, they pass unchanged.
	AllowUnmasked bool `yaml:"allow_unmasked"`
	// Columns are the only ones that it may see: named like a mask's column. None: all that it subscribes to.
	Columns []string     `yaml:"columns"`
	Limits  PluginLimits `yaml:"limits"`
}

// PluginLimits bound one guest. Zero values take the host's defaults.
type PluginLimits struct {
	Memory    int64         `yaml:"memory,size"` // of one instance
	Command   time.Duration `yaml:"command"`     // one call for anything but rows
	Rows      time.Duration `yaml:"rows"`        // one call for a batch of rows
	Start     time.Duration `yaml:"start"`       // making and configuring an instance
	Instances int           `yaml:"instances"`   // at a time
	Value     int           `yaml:"value,size"`  // the largest row, text or piece that is passed in
}

// Target is one upstream.
type Target struct {
	Name     string `yaml:"name"`
	Protocol string `yaml:"protocol"`
	Listen   string `yaml:"listen"` // none: reached by name on the other listeners of its protocol
	// ProxyProtocol are the addresses (10.0.0.0/8, 192.0.2.7) of the proxies that hand connections on to Listen: they have to
	// say for whom, by the PROXY protocol, and nobody else may.
	ProxyProtocol []string          `yaml:"proxy_protocol"`
	Labels        map[string]string `yaml:"labels"`
	Upstream      Upstream          `yaml:"upstream"`
	Credential    Credential        `yaml:"credential"`
	Record        string            `yaml:"record"` // full (default), metadata or off
	Promise       core.Promise      `yaml:"promise"`
	Chain         *[]string         `yaml:"chain"` // nil: the file's
	Limits        Limits            `yaml:"limits"`
	Hold          Hold              `yaml:"hold"`
	Retention     string            `yaml:"retention"` // a class of retention.classes; none: the default
	// ClientCert is accept, where a client's certificate may stand in the place of a token, or require; none: it says nothing.
	ClientCert string `yaml:"client_cert"`
	// OnExpiry is what becomes of an open session whose token expires: refuse (default), drain, close or keep.
	OnExpiry core.Expiry `yaml:"on_expiry"`
	// AllowIncomplete lets commands pass whose facts are incomplete.
	AllowIncomplete bool `yaml:"allow_incomplete"`
	// Rest holds the protocol's own settings, under the protocol's own name.
	Rest map[string]yaml.Node `yaml:",rest"`

	index int
	from  *Config
}

// Upstream is where a target is.
type Upstream struct {
	Address    string       `yaml:"address"`
	Database   string       `yaml:"database"`
	TLS        core.TLSMode `yaml:"tls"`         // default: verify-full, and disable for a Unix socket
	CA         string       `yaml:"ca"`          // PEM file; none: the system's roots
	ServerName string       `yaml:"server_name"` // default: the address's host
	Cert       string       `yaml:"cert"`        // client certificate, PEM file
	Key        string       `yaml:"key"`
}

// Credential is what Weir signs in with at the upstream.
type Credential struct {
	User     string `yaml:"user,reference"` // a name, or ${vault:PATH#KEY}
	Password Secret `yaml:"password"`
	// ByGroup are the logins of those who are in a group, in the place of User and Password: the first that fits counts.
	ByGroup []GroupCredential `yaml:"by_group"`
}

// GroupCredential is what Weir signs in with for the members of a group.
type GroupCredential struct {
	Group    string `yaml:"group"`
	User     string `yaml:"user,reference"` // a name, or ${vault:PATH#KEY}
	Password Secret `yaml:"password"`
}

// Limits bound the sessions of one target. Zero values take the gateway's defaults.
type Limits struct {
	MaxFrame         int64         `yaml:"max_frame,size"`
	StatementTimeout time.Duration `yaml:"statement_timeout"`
	Idle             time.Duration `yaml:"idle"`
	Rows             int64         `yaml:"rows"`
	Sessions         int           `yaml:"sessions"`
	PerIdentity      int           `yaml:"sessions_per_identity"` // 0: no bound
	PerRun           int           `yaml:"sessions_per_run"`      // 0: no bound
	SignIn           time.Duration `yaml:"sign_in"`
	Drain            time.Duration `yaml:"drain"`
}

// Hold says what a client sees of a command that a rule holds until somebody approves it. Zero values take the defaults.
type Hold struct {
	Mode  core.HoldMode `yaml:"mode"`  // refuse (default): an error with the approval's id; wait: the answer comes late
	Wait  time.Duration `yaml:"wait"`  // how long a request waits for its answer; default: 1h, or 5m in mode wait
	Valid time.Duration `yaml:"valid"` // how long an approval can be used, in mode refuse; default: 15m
}

// Line is the line of the file where path ("targets[0].listen") was set, or the nearest line above it in the tree.
func (c *Config) Line(path string) int { return lineOf(c.lines, path) }

// Problem makes a problem of this file out of a text about path, for checks that are made elsewhere.
func (c *Config) Problem(path, text, hint string) Problem {
	return Problem{File: c.File, Line: c.Line(path), Path: path, Text: text, Hint: hint}
}
