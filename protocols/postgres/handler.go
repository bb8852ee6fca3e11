// Package postgres carries sessions of PostgreSQL's protocol 3.0: see README.md for what it does and how.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// Protocol is PostgreSQL. Make it with New.
type Protocol struct {
	reader *sql.Reader
	keys   *keyring // of all handlers: a reload makes new ones, and a client may cancel what an old one carries
	scram  *clients
}

var (
	_ core.Protocol = (*Protocol)(nil)
	_ core.Warmer   = (*Protocol)(nil)
	_ core.Reader   = (*Protocol)(nil)
)

// New returns the protocol with a statement cache of its own.
func New() *Protocol {
	return &Protocol{reader: sql.NewReader(), keys: newKeyring(), scram: &clients{}}
}

// Name returns "postgres".
func (*Protocol) Name() string { return "postgres" }

// Warm loads the SQL grammar.
func (p *Protocol) Warm(ctx context.Context) error { return p.reader.Warm(ctx) }

// settings are a target's own, under "postgres:".
type settings struct {
	// AllowClearPassword lets the upstream ask for the password in clear over a leg that is neither TLS nor local.
	AllowClearPassword bool `yaml:"allow_clear_password"`
}

// Handler returns what serves the listener of the targets given.
func (p *Protocol) Handler(targets []*core.Target) (core.Handler, error) {
	h := &handler{reader: p.reader, keys: p.keys, scram: p.scram, settings: map[*core.Target]settings{}}
	var errs []error
	for _, t := range targets {
		var s settings
		if t.Decode != nil {
			if err := t.Decode(&s); err != nil {
				errs = append(errs, err)
			}
		}
		h.settings[t] = s
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return h, nil
}

type handler struct {
	reader   *sql.Reader
	keys     *keyring
	scram    *clients
	catalogs catalogs
	settings map[*core.Target]settings
}

const (
	defaultMaxFrame = 64 << 20
	defaultSignIn   = 10 * time.Second
)

// Serve carries one client.
func (h *handler) Serve(ctx context.Context, conn net.Conn, g core.Gate) (err error) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var c *connection
	apart(func() { c, err = h.enter(ctx, conn, g, stop) })
	if c == nil {
		return err
	}
	defer c.close()
	end, reason := core.EndError, "internal error"
	defer func() { err = errors.Join(err, c.session.Close(end, reason)) }()
	end, reason, err = c.run(ctx)
	return err
}

// apart runs f in a goroutine of its own: signing in takes a deep stack, which would stay with a session that then waits
// for hours. A panic of f is the caller's.
func apart(f func()) {
	var panicked any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

// enter lets a client in. It returns no connection when there is none to carry: what the client is to know of that has
// been said. stop ends the watch over conn's deadlines.
func (h *handler) enter(ctx context.Context, conn net.Conn, g core.Gate, stop func() bool) (c *connection, err error) {
	if err := conn.SetDeadline(time.Now().Add(defaultSignIn)); err != nil {
		return nil, err
	}
	s, err := readStartup(ctx, conn, g.TLS())
	if s.conn != nil {
		conn = s.conn // TLS, perhaps
	}
	if err != nil {
		return nil, h.farewell(conn, err)
	}
	if s.cancel != nil {
		h.keys.cancel(ctx, s.cancel)
		return nil, nil // whether it did anything is not told, as the server does not
	}
	t, err := choose(g, s.get("database"))
	if err != nil {
		if refused := s.replicationRefused(); refused != nil { // pg_basebackup names no database of anybody's
			err = refused
		}
		return nil, h.farewell(conn, err)
	}
	if t.Limits.SignIn > 0 {
		_ = conn.SetDeadline(time.Now().Add(t.Limits.SignIn))
	}
	var token string
	if c, ok := g.(core.Certifier); ok && c.Certified(t, s.peer()) {
		err = s.noToken()
	} else {
		token, err = s.readToken()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		stop() // or it would take the farewell's time away
		reason := "no token came within limits.sign_in"
		if cause := context.Cause(ctx); cause != nil {
			reason = cause.Error()
		}
		err = &frameError{codeQueryCanceled, "canceling authentication: " + reason}
	}
	if err != nil {
		return nil, h.farewell(conn, err)
	}
	details := map[string]string{"database": s.get("database")}
	if app := s.get("application_name"); app != "" {
		details["application_name"] = app
	}
	session, err := g.Open(ctx, core.Hello{
		Target: t, Client: conn.RemoteAddr(), Token: token, User: s.get("user"), TLS: s.encrypted, Peer: s.peer(), Details: details,
	})
	if err != nil {
		return nil, h.farewell(conn, err)
	}
	reason := "internal error"
	defer func() {
		if c == nil {
			err = errors.Join(err, session.Close(core.EndError, reason))
		}
	}()
	if c, err = h.open(ctx, session, s, conn); err != nil {
		reason = safeText(err)
		return nil, h.farewell(conn, err)
	}
	if m, ok := g.(core.Mover); ok {
		c.moved = m.Moved
	}
	_ = conn.SetDeadline(time.Time{})
	return c, nil
}

// choose finds the target by the database name asked for.
func choose(g core.Gate, database string) (*core.Target, error) {
	if t, ok := g.Target(database); ok && database != "" {
		return t, nil
	}
	t, ok := g.Target("")
	if ok && (t.Upstream.Database == "" || database == "" || database == t.Upstream.Database || database == t.Name) {
		return t, nil
	}
	return nil, &frameError{codeUndefinedDatabase, fmt.Sprintf("no target for database %q here", clean(database))}
}

// open signs in at the upstream and greets the client.
func (h *handler) open(ctx context.Context, session *core.Session, s *startup, client net.Conn) (*connection, error) {
	t := session.Target
	signIn := t.Limits.SignIn
	if signIn <= 0 {
		signIn = defaultSignIn
	}
	dialing, cancel := context.WithTimeout(ctx, signIn)
	defer cancel()
	cred, params, u, err := h.signIn(ctx, dialing, session, s)
	if err != nil {
		return nil, err
	}
	c := newConnection(session, h.reader, client, u)
	c.key = h.keys.add(&t.Upstream, u.key)
	h.keys.watch(c.key, c.takeBack)
	c.keys = h.keys
	if session.Judges(core.KindColumns) {
		c.catalog = h.catalogs.get(t, value(params, "database"), cred, h.reader, h.scram, h.settings[t].AllowClearPassword)
	}
	if err := c.greet(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// judgeSettings asks the rules about the settings that a startup packet brings along, as if the session had said SET.
func (h *handler) judgeSettings(ctx context.Context, session *core.Session, params []param) error {
	var text strings.Builder
	set := func(p param) {
		for i, part := range strings.Split(strings.ToLower(p.key), ".") { // the parts of an extension's setting
			text.WriteString([]string{"set ", "."}[min(i, 1)] + `"` + strings.ReplaceAll(part, `"`, `""`) + `"`)
		}
		text.WriteString(" = " + literal(p.value) + ";\n")
	}
	for _, p := range params {
		switch key := strings.ToLower(p.key); {
		case key == "user", key == "database", key == "replication", slices.Contains(pinned, p):
		case key == "application_name": // a detail of the opening, and nothing that a rule could mind
		case key == "options":
			settings, err := parseOptions(p.value)
			if err != nil {
				return refusedParameter(key, err.Error())
			}
			for _, o := range settings {
				set(o)
			}
		default:
			set(p)
		}
	}
	if text.Len() == 0 || !session.Wants(core.KindCommand) && session.Target.AllowIncomplete {
		return nil
	}
	script := h.reader.Read(ctx, text.String())
	v := session.Check(ctx, &core.Event{
		Kind: core.KindCommand, Direction: core.FromClient, Stage: "startup", Exchange: &core.Exchange{Command: script.Command},
	})
	if v.Deny != nil {
		return v.Deny
	}
	return session.Settle(ctx, v.Mark)
}

func value(params []param, key string) string {
	for _, p := range params {
		if p.key == key {
			return p.value
		}
	}
	return ""
}

// farewell tells the client why there is no session, if it is still there, and returns err for the log.
func (h *handler) farewell(conn net.Conn, err error) error {
	if errors.Is(err, errGone) {
		return nil
	}
	code, text := codeProtocolViolation, safeText(err)
	var frame *frameError
	var denial *core.Denial
	var up *upstreamError
	var out []byte
	switch {
	case errors.As(err, &denial):
		out = appendRefusal(nil, "FATAL", denial)
	case errors.As(err, &up): // which may hold a frameError about the target
		code = up.code
	case errors.As(err, &frame):
		code = frame.code
	case errors.Is(err, core.ErrUnauthenticated):
		code = codeInvalidPassword
	case errors.Is(err, core.ErrJournalLost):
		code, text = codeIOError, "Weir cannot record now, so it opens no session; try again later"
	}
	if out == nil {
		out = appendError(nil, "FATAL", code, text, "", "")
	}
	_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
	_, _ = conn.Write(out)
	drainInput(conn)
	return err
}

// safeText is what a client may be told of an error.
func safeText(err error) string {
	var frame *frameError
	var denial *core.Denial
	var up *upstreamError
	switch {
	case errors.As(err, &denial):
		return denial.Error()
	case errors.As(err, &up):
		return up.safe
	case errors.As(err, &frame):
		return frame.text
	case errors.Is(err, core.ErrUnauthenticated):
		return "sign-in failed: " + strings.TrimPrefix(err.Error(), "identity: ")
	case errors.Is(err, core.ErrJournalLost):
		return core.ErrJournalLost.Error()
	}
	return "the connection cannot be opened"
}

// drainInput reads what the client has sent already, so that closing does not reset the connection before the client
// has read the farewell.
func drainInput(conn net.Conn) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	var b [512]byte
	for range 64 {
		if _, err := conn.Read(b[:]); err != nil {
			return
		}
	}
}
