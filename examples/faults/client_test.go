//go:build linux

package faults_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// client speaks just enough of the protocol to write down every byte that it is given. It is made for one goroutine.
type client struct {
	net.Conn
	in    *bufio.Reader
	name  string // its application_name, by which its session is found
	limit time.Duration

	seen  hash.Hash // over everything after the greeting
	bytes int64
	notes []note
}

// note is what a client writes down after each answer: how many bytes it has seen so far, and their hash.
type note struct {
	n     int
	bytes int64
	sum   string
}

// answer is what came back for one request.
type answer struct {
	rows   [][]string
	count  int
	tag    string
	err    *serverError
	beside []string // notices, notifications, changed settings
	status byte     // of ReadyForQuery
}

// serverError is an ErrorResponse.
type serverError struct{ severity, code, message, detail, hint string }

func (e *serverError) Error() string {
	return fmt.Sprintf("%s %s: %s\nDETAIL: %s\nHINT: %s", e.severity, e.code, e.message, e.detail, e.hint)
}

// errFatal is the server's farewell: nothing comes after it.
type errFatal struct{ *serverError }

// dial signs in. The error is an errFatal when the gateway said why not.
func (g *gateway) dial(name, token string, params ...string) (*client, error) {
	c, err := g.connect()
	if err != nil {
		return nil, err
	}
	c.name = name
	if err := c.signIn(token, append([]string{"user", "agent", "database", "orders", "application_name", name}, params...)...); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// open is dial for a test that needs the session.
func (g *gateway) open(name string, groups ...string) *client {
	g.t.Helper()
	c, err := g.dial(name, g.token(name, groups...))
	if err != nil {
		g.t.Fatalf("%s cannot sign in: %v", name, err)
	}
	g.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (g *gateway) connect() (*client, error) {
	conn, err := net.DialTimeout("tcp", g.listen, 5*time.Second)
	if err != nil {
		return nil, err
	}
	return &client{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10), seen: sha256.New(), limit: 20 * time.Second}, nil
}

func (c *client) signIn(token string, params ...string) error {
	packet := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, 3<<16)
	for _, p := range params {
		packet = append(append(packet, p...), 0)
	}
	packet = append(packet, 0)
	binary.BigEndian.PutUint32(packet, uint32(len(packet)))
	if _, err := c.Write(packet); err != nil {
		return err
	}
	for {
		typ, body, err := c.read()
		if err != nil {
			return err
		}
		switch typ {
		case 'R':
			if binary.BigEndian.Uint32(body) == 3 {
				if _, err := c.Write(frame('p', append([]byte(token), 0))); err != nil {
					return err
				}
			}
		case 'E':
			return errFatal{parseError(body)}
		case 'Z':
			c.seen.Reset()
			c.bytes = 0
			return nil
		}
	}
}

func frame(typ byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))
	return append(b, body...)
}

// read reads one message, and takes note of its bytes, and of those of a message that was cut.
func (c *client) read() (typ byte, body []byte, err error) {
	_ = c.SetReadDeadline(time.Now().Add(c.limit))
	var head [5]byte
	n, err := io.ReadFull(c.in, head[:])
	c.saw(head[:n])
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, int(binary.BigEndian.Uint32(head[1:]))-4)
	n, err = io.ReadFull(c.in, body)
	c.saw(body[:n])
	return head[0], body, err
}

func (c *client) saw(b []byte) {
	c.seen.Write(b)
	c.bytes += int64(len(b))
}

// note writes down what has been seen so far.
func (c *client) note() {
	c.notes = append(c.notes, note{len(c.notes), c.bytes, hex.EncodeToString(c.seen.Sum(nil))})
}

// query asks by the simple protocol.
func (c *client) query(sql string) (answer, error) {
	if _, err := c.Write(frame('Q', append([]byte(sql), 0))); err != nil {
		return answer{}, err
	}
	return c.answer()
}

// extended asks by the extended protocol.
func (c *client) extended(sql string, params ...string) (answer, error) {
	bind := append([]byte("\x00\x00\x00\x00"), byte(len(params)>>8), byte(len(params)))
	for _, p := range params {
		bind = append(binary.BigEndian.AppendUint32(bind, uint32(len(p))), p...)
	}
	b := frame('P', []byte("\x00"+sql+"\x00\x00\x00"))
	b = append(b, frame('B', append(bind, 0, 0))...)
	b = append(b, frame('D', []byte("P\x00"))...)
	b = append(b, frame('E', []byte("\x00\x00\x00\x00\x00"))...)
	b = append(b, frame('S', nil)...)
	if _, err := c.Write(b); err != nil {
		return answer{}, err
	}
	return c.answer()
}

// answer reads up to ReadyForQuery. Only the first rows are kept.
func (c *client) answer() (a answer, err error) {
	defer c.note()
	for {
		typ, body, err := c.read()
		if err != nil {
			return a, err
		}
		switch typ {
		case 'D':
			a.count++
			if a.count <= 100 {
				a.rows = append(a.rows, cells(body))
			}
		case 'N', 'A', 'S':
			a.beside = append(a.beside, string(body))
		case 'C':
			a.tag = strings.TrimRight(string(body), "\x00")
		case 'E':
			a.err = parseError(body)
			if a.err.severity != "ERROR" {
				return a, errFatal{a.err}
			}
		case 'Z':
			a.status = body[0]
			return a, nil
		}
	}
}

// must is query for what has to succeed.
func (c *client) must(t testing.TB, sql string) answer {
	t.Helper()
	a, err := c.query(sql)
	if err != nil || a.err != nil {
		t.Fatalf("%s: %s: %v %v", c.name, sql, err, a.err)
	}
	return a
}

// bye ends the session as a client should.
func (c *client) bye() {
	_, _ = c.Write(frame('X', nil))
	_ = c.Close()
}

// gone waits until the gateway has closed the connection, and returns the farewell if there was one.
func (c *client) gone() *serverError {
	for {
		typ, body, err := c.read()
		if err != nil {
			return nil
		}
		if typ == 'E' {
			return parseError(body)
		}
	}
}

func cells(b []byte) []string {
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	row := make([]string, n)
	for i := range row {
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if size >= 0 {
			row[i] = string(b[:size])
			b = b[size:]
		}
	}
	return row
}

func parseError(b []byte) *serverError {
	e := &serverError{}
	for _, f := range strings.Split(string(b), "\x00") {
		if f == "" {
			continue
		}
		switch value := f[1:]; f[0] {
		case 'S':
			e.severity = value
		case 'C':
			e.code = value
		case 'M':
			e.message = value
		case 'D':
			e.detail = value
		case 'H':
			e.hint = value
		}
	}
	return e
}

// refused demands that err is a farewell with this code and these texts.
func refused(t testing.TB, err error, code string, want ...string) *serverError {
	t.Helper()
	var fatal errFatal
	if !errors.As(err, &fatal) {
		t.Fatalf("no farewell with %s, but: %v", code, err)
	}
	if fatal.code != code {
		t.Errorf("the farewell has the code %s, not %s: %v", fatal.code, code, fatal)
	}
	contains(t, "the farewell", fatal.Error(), want...)
	return fatal.serverError
}
