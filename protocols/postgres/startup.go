package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// Codes of the packets that open a connection (PostgreSQL manual, "Message Formats").
const (
	protocol30     = 3 << 16
	cancelRequest  = 1234<<16 | 5678
	sslRequest     = 1234<<16 | 5679
	gssEncRequest  = 1234<<16 | 5680
	maxStartup     = 10_000  // MAX_STARTUP_PACKET_LENGTH
	maxToken       = 65_535  // what a server reads of a password message
	maxSignInSteps = 256     // messages of an upstream before its session is open
	maxGreeting    = 1 << 16 // bytes of one of them
)

// startup is what a client asked for before it signed in.
type startup struct {
	params    []param // in the order in which they came
	cancel    []byte  // the key of a CancelRequest; nil otherwise
	minor     int     // of the protocol version 3.x asked for
	unknown   []string
	conn      net.Conn
	encrypted bool
}

type param struct{ key, value string }

func (s *startup) get(key string) string {
	for _, p := range s.params {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

var errGone = errors.New("the client went away")

// readStartup reads what a client sends before it signs in: at most one encryption request of each kind, then a
// startup or cancel packet. It answers the encryption requests itself. Errors of type *frameError are for the client.
func readStartup(ctx context.Context, conn net.Conn, config *tls.Config) (*startup, error) {
	s := &startup{conn: conn}
	var first [1]byte
	if _, err := io.ReadFull(conn, first[:]); err != nil {
		return s, errGone
	}
	if first[0] == 0x16 { // a TLS handshake record: direct TLS, which PostgreSQL 17 clients may use
		if config == nil {
			return s, malformed("this listener has no TLS")
		}
		direct := config.Clone()
		direct.NextProtos = []string{"postgresql"}
		if err := s.secure(ctx, &prefixed{Conn: conn, head: first[:]}, direct); err != nil {
			return s, err
		}
		if s.conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != "postgresql" {
			return s, malformed("direct TLS needs ALPN \"postgresql\"")
		}
		if _, err := io.ReadFull(s.conn, first[:]); err != nil {
			return s, errGone
		}
	}
	var askedSSL, askedGSS bool
	for head := first[:]; ; head = nil {
		packet, err := readPacket(s.conn, head)
		if err != nil {
			return s, err
		}
		switch code := int(binary.BigEndian.Uint32(packet)); {
		case code == sslRequest && len(packet) == 4:
			if askedSSL || s.encrypted {
				return s, malformed("a second SSLRequest")
			}
			askedSSL = true
			if config == nil {
				if _, err := s.conn.Write([]byte{'N'}); err != nil {
					return s, errGone
				}
				continue
			}
			if _, err := s.conn.Write([]byte{'S'}); err != nil {
				return s, errGone
			}
			if err := s.secure(ctx, s.conn, config); err != nil {
				return s, err
			}
		case code == gssEncRequest && len(packet) == 4:
			if askedGSS || s.encrypted {
				return s, malformed("a second GSSENCRequest")
			}
			askedGSS = true
			if _, err := s.conn.Write([]byte{'N'}); err != nil {
				return s, errGone
			}
		case code == cancelRequest:
			if len(packet) < 4+8 || len(packet) > 4+4+256 {
				return s, malformed("a CancelRequest of %d bytes", len(packet))
			}
			s.cancel = packet[4:]
			return s, nil
		case code>>16 == 3:
			s.minor = code & 0xffff
			return s, s.parse(packet[4:])
		default:
			return s, &frameError{codeFeatureNotSupported, fmt.Sprintf("unsupported frontend protocol %d.%d: Weir speaks 3.0", code>>16, code&0xffff)}
		}
	}
}

// secure runs the server's side of a TLS handshake. Whatever the client sent in clear after its request arrives in the
// handshake and fails it: nothing is read ahead of it (CVE-2021-23214).
func (s *startup) secure(ctx context.Context, conn net.Conn, config *tls.Config) error {
	t := tls.Server(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		var record tls.RecordHeaderError
		if errors.As(err, &record) {
			return malformed("received unencrypted data after SSL request")
		}
		return fmt.Errorf("TLS handshake: %w", err)
	}
	s.conn, s.encrypted = t, true
	return nil
}

// readPacket reads a packet without a type byte, of which head has been read, and returns its content.
func readPacket(r io.Reader, head []byte) ([]byte, error) {
	var size [4]byte
	n := copy(size[:], head)
	if _, err := io.ReadFull(r, size[n:]); err != nil {
		return nil, errGone
	}
	length := int64(int32(binary.BigEndian.Uint32(size[:])))
	if length < 8 || length > maxStartup {
		return nil, malformed("invalid length of startup packet")
	}
	packet := make([]byte, length-4)
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, errGone
	}
	return packet, nil
}

// parse reads the parameters of a startup packet.
func (s *startup) parse(b []byte) error {
	seen := map[string]bool{}
	for len(b) > 1 {
		var kv [2]string
		for i := range kv {
			end := bytes.IndexByte(b, 0)
			if end < 0 {
				return malformed("invalid startup packet layout: expected terminator as last byte")
			}
			kv[i], b = string(b[:end]), b[end+1:]
		}
		if kv[0] == "" || seen[kv[0]] {
			return malformed("invalid startup packet layout: an empty or repeated parameter name")
		}
		seen[kv[0]] = true
		if strings.HasPrefix(kv[0], "_pq_.") {
			s.unknown = append(s.unknown, kv[0])
			continue
		}
		s.params = append(s.params, param{kv[0], kv[1]})
	}
	if len(b) != 1 || b[0] != 0 {
		return malformed("invalid startup packet layout: expected terminator as last byte")
	}
	if s.get("user") == "" {
		return &frameError{codeInvalidAuthorization, "no PostgreSQL user name specified in startup packet"}
	}
	return nil
}

// negotiate appends what brings a client that asks for more than 3.0 down to it.
func (s *startup) negotiate(dst []byte) []byte {
	if s.minor == 0 && len(s.unknown) == 0 {
		return dst
	}
	dst, at := beginFrame(dst, 'v')
	dst = binary.BigEndian.AppendUint32(dst, protocol30)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(s.unknown)))
	for _, name := range s.unknown {
		dst = append(append(dst, name...), 0)
	}
	return endFrame(dst, at)
}

// readToken asks for the client's token, which travels as a clear-text password, and returns it.
func (s *startup) readToken() (string, error) {
	if !s.encrypted && !loopback(s.conn.RemoteAddr()) {
		return "", &frameError{codeInvalidAuthorization, "Weir takes a token over TLS only: connect with sslmode=require or better"}
	}
	ask := s.negotiate(nil)
	ask = append(ask, 'R', 0, 0, 0, 8, 0, 0, 0, 3) // AuthenticationCleartextPassword
	if _, err := s.conn.Write(ask); err != nil {
		return "", errGone
	}
	var head [headerSize]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return "", fmt.Errorf("%w: %w", errGone, err)
	}
	length := int64(int32(binary.BigEndian.Uint32(head[1:])))
	if head[0] != 'p' || length < 5 {
		return "", malformed("expected a password message")
	}
	if length-4 > maxToken {
		return "", malformed("the token is longer than %d bytes", maxToken-1)
	}
	b := make([]byte, length-4)
	if _, err := io.ReadFull(s.conn, b); err != nil {
		return "", fmt.Errorf("%w: %w", errGone, err)
	}
	if bytes.IndexByte(b, 0) != len(b)-1 {
		return "", malformed("malformed password message")
	}
	return string(b[:len(b)-1]), nil
}

// noToken is readToken for a client whose certificate says who it is.
func (s *startup) noToken() error {
	if tell := s.negotiate(nil); len(tell) > 0 {
		if _, err := s.conn.Write(tell); err != nil {
			return errGone
		}
	}
	return nil
}

// peer is the chain of certificates that the client has shown.
func (s *startup) peer() []*x509.Certificate {
	if t, ok := s.conn.(*tls.Conn); ok {
		return t.ConnectionState().PeerCertificates
	}
	return nil
}

// loopback reports whether both ends are on this machine.
func loopback(a net.Addr) bool {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// prefixed is a connection whose first bytes have been read already.
type prefixed struct {
	net.Conn
	head []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// NetConn returns the connection itself, as that of a tls.Conn does.
func (p *prefixed) NetConn() net.Conn { return p.Conn }

// pinned are the settings that the reading of SQL depends on: Weir sets them for every session, and a client may not
// choose them otherwise.
var pinned = []param{
	{"standard_conforming_strings", "on"},
	{"client_encoding", "UTF8"},
}

// forbidden are the startup parameters that would take a session out of what its identity was allowed.
var forbidden = map[string]string{
	"role":                  "the session's role is the gateway's choice",
	"session_authorization": "the session's user is the gateway's choice",
}

func refusedParameter(key, why string) error {
	return &frameError{codeInsufficientPrivilege, fmt.Sprintf("startup parameter %q is refused by Weir: %s", clean(key), why)}
}

// replicationRefused is the error for a client that wants a replication connection, and nil for any other.
func (s *startup) replicationRefused() error {
	for _, p := range s.params {
		if strings.EqualFold(p.key, "replication") {
			switch strings.ToLower(p.value) {
			case "false", "off", "no", "0":
			default:
				return refusedParameter("replication", "a replication connection would carry the whole database past every rule")
			}
		}
	}
	return nil
}

// upstreamParams checks what the client asked for and returns what Weir asks the upstream for.
func (s *startup) upstreamParams(t *core.Target, user string) ([]param, error) {
	database := t.Upstream.Database
	if database == "" {
		database = s.get("database")
		if database == "" {
			database = s.get("user")
		}
	}
	out := []param{{"user", user}, {"database", database}}
	for _, p := range s.params {
		key := strings.ToLower(p.key)
		switch key {
		case "user", "database":
			continue
		case "replication":
			if err := s.replicationRefused(); err != nil {
				return nil, err
			}
		case "options":
			settings, err := parseOptions(p.value)
			if err != nil {
				return nil, refusedParameter(key, err.Error())
			}
			for _, o := range settings {
				if why := settingRefused(o.key, o.value); why != "" {
					return nil, refusedParameter("options: "+o.key, why)
				}
			}
			if len(settings) > 0 {
				out = append(out, param{p.key, p.value})
			}
			continue
		}
		if why := settingRefused(key, p.value); why != "" {
			return nil, refusedParameter(key, why)
		}
		if key == "client_encoding" {
			continue // pinned; what the client asked for is the same
		}
		out = append(out, p)
	}
	return append(out, pinned...), nil
}

// settingRefused says why a session may not choose this setting, or nothing.
func settingRefused(key, value string) string {
	key, value = strings.ToLower(key), strings.ToLower(strings.Trim(value, `'" `))
	if why := forbidden[key]; why != "" {
		return why
	}
	switch key {
	case "standard_conforming_strings":
		switch value {
		case "on", "true", "yes", "1", "t", "tr", "tru", "y", "ye", "default":
			return ""
		}
		return "Weir reads SQL with standard_conforming_strings on"
	case "client_encoding", "names":
		switch strings.NewReplacer("-", "", "_", "").Replace(value) {
		case "utf8", "unicode", "default", "auto", "":
			return ""
		}
		return "Weir reads SQL as UTF-8; set the client's encoding to UTF8"
	}
	return ""
}

// parseOptions splits the startup parameter "options" as the server does (pg_split_opts) and reads its settings.
// Anything but -c name=value and --name=value is refused: the other switches are for the server's own use.
func parseOptions(s string) (settings []param, err error) {
	var words []string
	var word strings.Builder
	in, escaped := false, false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\':
			in, escaped = true, true
		case strings.ContainsRune(" \t\n\v\f\r", r):
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			in = true
			word.WriteRune(r)
		}
	}
	if in {
		words = append(words, word.String())
	}
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		default:
			return nil, errors.New("only -c name=value is taken")
		}
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return nil, errors.New("only -c name=value is taken")
		}
		settings = append(settings, param{strings.ReplaceAll(key, "-", "_"), value})
	}
	return settings, nil
}
