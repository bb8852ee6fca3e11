package postgres

import (
	"context"
	"crypto/md5" //nolint:gosec // the server's choice of method, see signIn
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgproto3/v2"
	"github.com/xdg-go/scram"

	"github.com/weir-gateway/weir/core"
)

// upstream is a connection that is signed in.
type upstream struct {
	conn     net.Conn
	greeting []byte            // the ParameterStatus messages, for the client
	params   map[string]string // what they say
	key      []byte            // the server's cancel key: process id and secret; never shown
	early    []byte            // what was read after ReadyForQuery
}

// An upstreamError is what went wrong between Weir and a target. Its text is for the log; a client is told only its
// code and safe text.
type upstreamError struct {
	code string
	safe string
	err  error
}

func (e *upstreamError) Error() string { return e.safe + ": " + e.err.Error() }
func (e *upstreamError) Unwrap() error { return e.err }

// Is makes it a core.ErrUpstream: the operator's matter, except where the client's own parameters are to blame.
func (e *upstreamError) Is(target error) bool {
	return target == core.ErrUpstream && e.code != codeInvalidParameter && e.code != codeUndefinedObject
}

func unreachable(err error) error {
	return &upstreamError{codeCannotConnect, "the target cannot be reached", err}
}

// clients keeps SCRAM clients, whose key derivation costs milliseconds, by credential.
type clients struct {
	mu sync.Mutex
	m  map[core.Credential]*scram.Client
}

const maxClients = 64

func (c *clients) get(cred core.Credential) *scram.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.m[cred]; s != nil {
		return s
	}
	// The server takes the name from the startup packet and ignores SCRAM's (manual, "SASL Authentication").
	s, err := scram.SHA256.NewClient("", cred.Password, "")
	if err != nil { // the password is outside SASLprep: the server then uses its bytes as they are
		s, _ = scram.SHA256.NewClientUnprepped("", cred.Password, "")
	}
	if c.m == nil || len(c.m) >= maxClients {
		c.m = map[core.Credential]*scram.Client{}
	}
	c.m[cred] = s
	return s
}

// connect dials the target, secures the leg as configured, and signs in. Not a byte of the credential leaves before
// the leg is as secure as upstream.tls asks.
func connect(ctx context.Context, t *core.Target, cred core.Credential, params []param, cs *clients, allowClear bool) (*upstream, error) {
	conn, err := dial(ctx, &t.Upstream)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	u := &upstream{conn: conn, params: map[string]string{}}
	if err := u.signIn(cred, params, cs, allowClear); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if !stop() {
		_ = conn.Close()
		return nil, unreachable(context.Cause(ctx))
	}
	return u, nil
}

// dial connects and runs the SSLRequest exchange and the TLS handshake.
func dial(ctx context.Context, u *core.Upstream) (net.Conn, error) {
	conn, err := u.Dial(ctx)
	if err != nil {
		return nil, unreachable(err)
	}
	if u.TLS == nil {
		return conn, nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	t, err := secureUpstream(ctx, conn, u)
	if err != nil {
		_ = conn.Close()
		return nil, &upstreamError{codeCannotConnect, "the target cannot be reached securely", err}
	}
	_ = t.SetDeadline(time.Time{})
	return t, nil
}

func secureUpstream(ctx context.Context, conn net.Conn, u *core.Upstream) (net.Conn, error) {
	if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, fmt.Errorf("upstream.tls is %q, but the server has no TLS (it answered 0x%02x)", u.TLSMode, answer[0])
	}
	t := tls.Client(conn, u.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return t, nil
}

// signIn sends the startup packet and answers what the server asks until it is ready.
func (u *upstream) signIn(cred core.Credential, params []param, cs *clients, allowClear bool) error {
	packet := []byte{0, 0, 0, 0}
	packet = binary.BigEndian.AppendUint32(packet, protocol30)
	for _, p := range params {
		packet = append(append(packet, p.key...), 0)
		packet = append(append(packet, p.value...), 0)
	}
	packet = append(packet, 0)
	if len(packet) > maxStartup {
		return &upstreamError{codeProgramLimitExceeded, "the startup parameters are too long", errors.New("over 10,000 bytes")}
	}
	binary.BigEndian.PutUint32(packet, uint32(len(packet)))
	if _, err := u.conn.Write(packet); err != nil {
		return unreachable(err)
	}
	_, secure := u.conn.(*tls.Conn)
	a := authentication{cred: cred, clients: cs, clear: allowClear || secure || loopback(u.conn.RemoteAddr())}
	buf := make([]byte, 0, 4096)
	for range maxSignInSteps {
		frame, rest, err := u.read(buf)
		if err != nil {
			return err
		}
		body := frame[headerSize:]
		switch frame[0] {
		case 'R':
			reply, err := a.step(body)
			if err != nil {
				return &upstreamError{codeInvalidAuthorization, "Weir could not sign in at the target", err}
			}
			if reply != nil {
				if _, err := u.conn.Write(appendFrame(nil, 'p', reply)); err != nil {
					return unreachable(err)
				}
			}
		case 'E':
			return refusedSignIn(body)
		case 'S':
			if !a.done {
				return a.early(frame[0])
			}
			c := bodyOf(body)
			name, value := string(c.str()), string(c.str())
			u.params[name] = value
			u.greeting = append(u.greeting, frame...)
		case 'K':
			u.key = append([]byte(nil), body...)
		case 'Z':
			if !a.done {
				return a.early(frame[0])
			}
			u.early = append([]byte(nil), rest...)
			return u.checkParams()
		}
		buf = append(buf[:0], rest...)
	}
	return &upstreamError{codeProtocolViolation, "Weir could not sign in at the target", errors.New("the server does not come to an end of its greeting")}
}

func bodyOf(b []byte) *body { return &body{b: b} }

// checkParams refuses a server whose settings Weir does not read SQL by.
func (u *upstream) checkParams() error {
	for _, p := range pinned {
		if v, ok := u.params[p.key]; ok && settingRefused(p.key, v) != "" {
			return &upstreamError{codeCannotConnect, "the target does not take the settings that Weir needs", fmt.Errorf("%s is %q", p.key, v)}
		}
	}
	return nil
}

// read reads until buf holds one whole frame, and returns it and what follows it.
func (u *upstream) read(buf []byte) (frame, rest []byte, err error) {
	for {
		size, _, err := signIn.next(buf, maxGreeting)
		if err != nil {
			return nil, nil, &upstreamError{codeProtocolViolation, "the target does not speak the protocol", err}
		}
		if size > 0 {
			return buf[:size], buf[size:], nil
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := u.conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && n == 0 {
			return nil, nil, unreachable(err)
		}
	}
}

func refusedSignIn(b []byte) error {
	r := resultOf("error", b)
	err := fmt.Errorf("the server said %s: %s", r.Code, r.Message)
	switch {
	case strings.HasPrefix(r.Code, "28"): // the gateway's credential, not the client's
		return &upstreamError{codeInvalidAuthorization, "Weir could not sign in at the target; ask the operator to check its credential", err}
	case r.Code == codeUndefinedDatabase:
		return &upstreamError{r.Code, "the database does not exist at the target", err}
	case r.Code == codeTooManyConnections, r.Code == codeCannotConnectNow, r.Code == codeAdminShutdown:
		return &upstreamError{r.Code, "the target takes no connection now (" + r.Code + ")", err}
	case r.Code == codeInvalidParameter, r.Code == codeUndefinedObject: // that the client chose
		return &upstreamError{r.Code, "the target refuses the connection's parameters", err}
	}
	return &upstreamError{codeCannotConnect, "the target refuses the connection", err}
}

// authentication answers the server's requests. It never answers one kind after another, and accepts AuthenticationOk
// after SCRAM only when the server has proved itself.
type authentication struct {
	cred    core.Credential
	clients *clients
	clear   bool // the password may travel in clear
	method  string
	conv    *scram.ClientConversation
	done    bool
}

func (a *authentication) early(typ byte) error {
	return &upstreamError{codeProtocolViolation, "the target does not speak the protocol", fmt.Errorf("message %q before AuthenticationOk", typ)}
}

// step answers one Authentication message, whose body has at least four bytes. A nil reply means: nothing to send.
func (a *authentication) step(b []byte) (reply []byte, err error) {
	code, rest := binary.BigEndian.Uint32(b), b[4:]
	if a.done {
		return nil, errors.New("the server authenticates twice")
	}
	begin := func(method string) error {
		if a.method != "" {
			return fmt.Errorf("the server asks for %s after %s", method, a.method)
		}
		a.method = method
		return nil
	}
	switch code {
	case pgproto3.AuthTypeOk:
		if a.conv != nil && !(a.conv.Done() && a.conv.Valid()) {
			return nil, errors.New("the server did not prove that it knows the password")
		}
		a.done = true
		return nil, checkEmpty(rest)
	case pgproto3.AuthTypeCleartextPassword:
		if err := begin("cleartext"); err != nil {
			return nil, err
		}
		if !a.clear {
			return nil, errors.New("the server asks for the password in clear over a leg without TLS (postgres.allow_clear_password)")
		}
		return append([]byte(a.cred.Password), 0), nil
	case pgproto3.AuthTypeMD5Password:
		if len(rest) != 4 {
			return nil, errLength
		}
		if err := begin("md5"); err != nil {
			return nil, err
		}
		inner := md5Hex([]byte(a.cred.Password + a.cred.User))
		return append([]byte("md5"+md5Hex(append([]byte(inner), rest...))), 0), nil
	case pgproto3.AuthTypeSASL:
		if err := begin("SASL"); err != nil {
			return nil, err
		}
		c := bodyOf(rest)
		offered := false
		for {
			m := c.str()
			if c.err != nil {
				return nil, c.err
			}
			if len(m) == 0 {
				break
			}
			offered = offered || string(m) == "SCRAM-SHA-256"
		}
		if !offered {
			return nil, errors.New("the server offers no SCRAM-SHA-256")
		}
		a.conv = a.clients.get(a.cred).NewConversation()
		first, err := a.conv.Step("")
		if err != nil {
			return nil, err
		}
		reply = append([]byte("SCRAM-SHA-256"), 0)
		reply = binary.BigEndian.AppendUint32(reply, uint32(len(first)))
		return append(reply, first...), nil
	case pgproto3.AuthTypeSASLContinue, pgproto3.AuthTypeSASLFinal:
		if a.conv == nil || a.conv.Done() || len(rest) > 4096 {
			return nil, errors.New("an unexpected SASL message")
		}
		if iterations(string(rest)) > maxIterations {
			return nil, fmt.Errorf("the server asks for more than %d SCRAM iterations", maxIterations)
		}
		answer, err := a.conv.Step(string(rest))
		if err != nil {
			return nil, fmt.Errorf("SCRAM: %w", err)
		}
		if code == pgproto3.AuthTypeSASLFinal {
			return nil, nil
		}
		return []byte(answer), nil
	}
	return nil, fmt.Errorf("the server asks for authentication method %d, which Weir does not have", code)
}

// maxIterations bounds the work that a server can make Weir do to sign in: about half a second.
const maxIterations = 1_000_000

// iterations reads the iteration count of a server-first-message (RFC 5802 section 7); 0 when there is none.
func iterations(m string) int {
	for _, attr := range strings.Split(m, ",") {
		if n, ok := strings.CutPrefix(attr, "i="); ok {
			if i, err := strconv.Atoi(n); err == nil {
				return i
			}
			return maxIterations + 1
		}
	}
	return 0
}

func md5Hex(b []byte) string {
	sum := md5.Sum(b) //nolint:gosec // see above
	return hex.EncodeToString(sum[:])
}

// cancelUpstream asks the server to cancel what the connection with this key is doing.
func cancelUpstream(ctx context.Context, u *core.Upstream, key []byte) error {
	conn, err := dial(ctx, u)
	if err != nil {
		return err
	}
	defer conn.Close()
	packet := binary.BigEndian.AppendUint32(nil, uint32(8+len(key)))
	packet = binary.BigEndian.AppendUint32(packet, cancelRequest)
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(append(packet, key...)); err != nil {
		return err
	}
	_, _ = io.ReadAll(io.LimitReader(conn, 16)) // the server closes when it has acted
	return nil
}
