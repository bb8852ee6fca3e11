package core

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"time"
)

// Protocol is one wire protocol. Its name is the folder's, the config's and the metrics' word.
// Optional abilities are the separate interfaces below, found by assertion.
type Protocol interface {
	Name() string
	// Handler returns what serves the targets of one listener. It checks the targets' settings and fails with every
	// problem it finds (errors.Join); nothing is started or dialled before Serve.
	Handler(targets []*Target) (Handler, error)
}

// Handler serves the clients of one listener.
type Handler interface {
	// Serve carries one client until it is gone. The connection belongs to Serve, which closes it. The context ends
	// when the session must end at once; context.Cause says why. Serve never panics the process: the gateway
	// recovers, and closes that client only.
	Serve(ctx context.Context, conn net.Conn, g Gate) error
}

// Warmer is a Protocol with something slow to prepare, such as a parser. Warm is called once, in the background,
// when the gateway starts.
type Warmer interface {
	Warm(ctx context.Context) error
}

// Reader is a Protocol that can show what it recorded to a person.
type Reader interface {
	// ReadRows decodes the wire bytes of a Rows record into texts, row by row; a nil text is NULL. It reports what
	// it cannot read as an error and never panics.
	ReadRows(columns []Column, wire []byte) ([][]*string, error)
	// ReadText renders the wire bytes of a Bytes, Result or Notice record for a terminal, with control characters
	// neutralised.
	ReadText(wire []byte) string
}

// Transactions is a Protocol that can tell from a recording when the client had a transaction open.
type Transactions interface {
	// InTransaction reports whether one is open after r. known is false where r does not say.
	InTransaction(r *Record) (open, known bool)
}

// Parser is a Protocol that can tell what a text asks for without a session: names stand as they were said, where only
// the target could tell what they mean.
type Parser interface {
	Parse(ctx context.Context, text string) ([]*Command, error)
}

// Connector is a Protocol that can tell a client how to reach a target: a line to copy, which holds no token, and the
// environment variables by which the protocol's usual clients find it, the contact's token among them. An empty value is a
// variable that must not be set.
type Connector interface {
	Connect(t *Target, c Contact) (line string, env map[string]string)
}

// Enroller is a Protocol whose usual clients can hold something better than a token to sign in with.
type Enroller interface {
	// Enroll shows the token once, at the way in, and keeps what it gets for it beside the private key in file, which it makes
	// where there is none. It returns the line to use from then on, and until when.
	Enroll(ctx context.Context, at WayIn, token, file string) (line string, until time.Time, err error)
}

// Keyed is a Connector whose listeners prove themselves to clients by a key of their own, and not by a certificate.
type Keyed interface {
	// HostKey returns the public key that clients of a target see, in the form in which they keep it; empty: it is not known.
	HostKey(t *Target, k Keyholder) string
}

// WayIn is how a client reaches a target, as the gateway says it.
type WayIn struct {
	Target  string // its name
	Address string // host:port
	HostKey string // what Keyed said; empty: nothing
	Connect string // the line of Connector
}

// Prober is a Protocol that can ask a target for next to nothing, again and again, so that what a way to it costs can be
// measured.
type Prober interface {
	// ProbeTarget signs in at the target itself, as the gateway does for who.
	ProbeTarget(ctx context.Context, t *Target, who Identity) (Probe, error)
	// ProbeGateway signs in at a gateway with the environment that Connect made.
	ProbeGateway(ctx context.Context, at WayIn, env map[string]string) (Probe, error)
}

// Probe is one signed-in client. Its calls come one at a time.
type Probe interface {
	Ask(ctx context.Context) error // asks, and waits for the answer
	Close() error
}

// Contact is how a client reaches a listener.
type Contact struct {
	Address string // host:port
	CA      string // file of the certificate authority that the listener's certificate is from; empty: one that clients know
	User    string // who the client is, for protocols that need a name as well
	Token   string // may be empty
	// Key is what the Gate of a client at the listener has; nil: nothing.
	Key Keyholder
}

// Gate is what a Handler asks of the gateway about one client.
type Gate interface {
	// TLS is the server side of the client leg; nil when the listener has none.
	TLS() *tls.Config
	// Target finds one of the listener's targets by name. The empty name finds the only one, if there is only one.
	Target(name string) (*Target, bool)
	// Open recognises the client, asks the chain whether it may open the target, and opens its record.
	// It fails with a *Denial, or with an error that wraps ErrUnauthenticated or ErrJournalLost; those texts are safe
	// to show. Whatever it returns was recorded. The session must be closed.
	Open(ctx context.Context, h Hello) (*Session, error)
}

// Mover is a Gate that wants to know when a Handler goes on with another value for the client's connection: it closes
// the connection of a Handler that does not heed its context.
type Mover interface {
	Moved(to net.Conn)
}

// Keyholder is a Gate that has secrets for a protocol which has to prove itself to clients by keys of its own.
type Keyholder interface {
	// Key returns 32 secret bytes for a purpose of the protocol: the same after each restart, on every gateway that shares
	// the key it is made from, and no help in guessing those for another purpose or protocol.
	Key(purpose string) ([]byte, error)
}

// Certifier is a Gate that may take a client's TLS certificate in the place of a token.
type Certifier interface {
	// Certified reports whether a client that has shown this chain of certificates, which may be none, is not to be asked for
	// a token at a target: Open says who it is by Hello.Peer, or refuses it.
	Certified(t *Target, peer []*x509.Certificate) bool
}

// Hello is what a client said of itself before its session is open.
type Hello struct {
	Target *Target
	Client net.Addr
	Token  string // what identity is asked about; never recorded or logged
	User   string // the protocol's own user name, as claimed
	TLS    bool   // the client leg is encrypted
	// Peer is the chain of certificates that the client has shown in the TLS handshake, its own first. Nobody has verified it.
	Peer []*x509.Certificate
	// Details are the protocol's own facts for the record and for policies, such as the application's name.
	Details map[string]string
}

// Identity is who a session belongs to.
type Identity struct {
	Subject string         `json:"subject"`
	Issuer  string         `json:"issuer"`
	Groups  []string       `json:"groups"`
	Kind    string         `json:"kind"` // "human", "service" or "agent"
	Claims  map[string]any `json:"claims,omitempty"`
	Run     string         `json:"run,omitempty"` // the run that the token was made for
	// Targets are the only targets that the token was made for; none: no such bound.
	Targets []string  `json:"targets,omitempty"`
	Token   string    `json:"token,omitempty"`  // the token's id (jti), by which it can be revoked; not the token
	Parent  string    `json:"parent,omitempty"` // the id of the token that this one was made out of, for a run
	Expires time.Time `json:"-"`                // zero: never
}

// Target is an upstream as configured. It is not changed after a Handler has been made for it.
type Target struct {
	Name     string
	Protocol string
	Labels   map[string]string
	Upstream Upstream
	// Credential returns what Weir signs in with at the upstream on behalf of id.
	// The result is a secret: never logged, never recorded.
	Credential func(ctx context.Context, id Identity) (Credential, error)
	Record     Level
	Promise    Promise
	Limits     Limits
	// AllowIncomplete lets commands pass whose facts are incomplete.
	AllowIncomplete bool
	Hold            Holding // what a client sees of a command that has to be approved
	OnExpiry        Expiry  // what becomes of an open session whose token expires
	// Decode decodes the target's protocol-specific settings strictly into v, with file and line in its errors.
	Decode func(v any) error
}

// Expiry says what becomes of an open session when its token expires, a minute's grace for the clocks included.
type Expiry string

// The ways. The empty one is ExpiryRefuse.
const (
	ExpiryRefuse Expiry = "refuse" // the connection stays, and every further command is refused
	ExpiryDrain  Expiry = "drain"  // it may finish its command and transaction within limits.drain, then it is closed
	ExpiryClose  Expiry = "close"  // it is closed at once
	ExpiryKeep   Expiry = "keep"   // it goes on: the token counts when it is shown
)

// Upstream is where a target is.
type Upstream struct {
	Address  string // host:port, or an absolute path of a Unix socket
	Database string
	TLSMode  TLSMode
	// TLS is nil when TLSMode is TLSDisable.
	TLS *tls.Config
}

// Dial connects to the upstream without TLS.
func (u *Upstream) Dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	network := "tcp"
	if len(u.Address) > 0 && u.Address[0] == '/' {
		network = "unix"
	}
	return d.DialContext(ctx, network, u.Address)
}

// TLSMode says how an upstream leg is protected, in libpq's words.
type TLSMode string

// The modes.
const (
	TLSDisable    TLSMode = "disable"
	TLSRequire    TLSMode = "require"
	TLSVerifyCA   TLSMode = "verify-ca"
	TLSVerifyFull TLSMode = "verify-full"
)

// Credential is an upstream secret. Its String hides it.
type Credential struct {
	User     string
	Password string
	Rotates  bool // it may be another one in a moment: worth asking again when it is refused
}

// String never shows the password.
func (c Credential) String() string { return c.User + ":***" }

// GoString never shows the password.
func (c Credential) GoString() string { return c.String() }

// Limits bound what one session may use. The gateway fills in the defaults.
type Limits struct {
	MaxFrame         int64         // bytes of one protocol frame
	StatementTimeout time.Duration // one command
	Idle             time.Duration // no byte from the client
	Rows             int64         // of one answer; 0: no bound
	Sessions         int           // open at a time on the target
	// PerIdentity and PerRun bound how many of those belong to one identity, and to one run; 0: no bound.
	PerIdentity, PerRun int
	SignIn              time.Duration // from accept to an open session
	Drain               time.Duration // how long a session may go on when the gateway stops
}
