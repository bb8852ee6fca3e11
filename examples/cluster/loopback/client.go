package loopback

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
	"time"
)

func joined(all []error) error { return errors.Join(all...) }

// Client speaks just enough of the protocol to keep an account of every byte that it is given. It is made for one
// goroutine.
type Client struct {
	net.Conn
	in    *bufio.Reader
	limit time.Duration
	seen  hash.Hash
	Seen
}

// Seen is a client's account of its session: how many answers it had, how many bytes came after the greeting, and their
// SHA-256.
type Seen struct {
	Name    string // its application_name, by which its session is found
	Answers int
	Bytes   int64
	Sum     string
	Denied  []string // the marks of what a policy refused
	// Window is what a session may lack at its end whose promise is bounded; nil: nothing.
	Window *Window
}

// Refusal is an error of the server's or the gateway's.
type Refusal struct{ Severity, Code, Message string }

func (e *Refusal) Error() string { return e.Severity + " " + e.Code + ": " + e.Message }

// Dial signs in. A client of a target whose promise is bounded says so.
func Dial(address, token, name string, bounded bool) (*Client, error) {
	conn, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		return nil, err
	}
	c := &Client{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10), seen: sha256.New(), limit: 20 * time.Second, Seen: Seen{Name: name}}
	if bounded {
		c.Window = &Window{}
	}
	if err := c.signIn(token); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return c, nil
}

func (c *Client) signIn(token string) error {
	packet := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 0}, 3<<16)
	for _, p := range []string{"user", "agent", "database", "orders", "application_name", c.Name} {
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
			return refusal(body)
		case 'Z':
			c.seen.Reset()
			c.Bytes = 0
			if c.Window != nil {
				c.Window = &Window{}
				c.Window.saw(0, c.seen)
			}
			c.note()
			return nil
		}
	}
}

func frame(typ byte, body []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{typ}, uint32(len(body)+4))
	return append(b, body...)
}

// read reads one message, and takes note of its bytes, and of those of a message that was cut. It passes over the farewell
// of a gateway that cannot record any more: that is the one thing that is in no record.
func (c *Client) read() (typ byte, body []byte, err error) {
	_ = c.SetReadDeadline(time.Now().Add(c.limit)) // the read says so
	var head [5]byte
	n, err := io.ReadFull(c.in, head[:])
	if err != nil {
		c.saw(head[:n])
		return 0, nil, err
	}
	size := int(binary.BigEndian.Uint32(head[1:])) - 4
	if size < 0 || size > 64<<20 {
		return 0, nil, fmt.Errorf("a message of %d bytes", size)
	}
	body = make([]byte, size)
	n, err = io.ReadFull(c.in, body)
	if err == nil && head[0] == 'E' {
		if e := refusal(body); e.Severity == "FATAL" && e.Code == cannotRecord {
			return head[0], body, nil
		}
	}
	c.saw(head[:])
	c.saw(body[:n])
	if c.Window != nil {
		c.Window.saw(c.Bytes, c.seen)
	}
	return head[0], body, err
}

// cannotRecord is io_error: nothing can be recorded, so nothing may pass.
const cannotRecord = "58030"

func (c *Client) saw(b []byte) {
	c.seen.Write(b)
	c.Bytes += int64(len(b))
}

func (c *Client) note() { c.Sum = hex.EncodeToString(c.seen.Sum(nil)) }

// Query asks by the simple protocol.
func (c *Client) Query(sql string) (*Refusal, error) {
	if _, err := c.Write(frame('Q', append([]byte(sql), 0))); err != nil {
		return nil, err
	}
	return c.answer()
}

// Extended asks by the extended protocol.
func (c *Client) Extended(sql string, params ...string) (*Refusal, error) {
	if _, err := c.Write(extended(nil, sql, params...)); err != nil {
		return nil, err
	}
	return c.answer()
}

func extended(b []byte, sql string, params ...string) []byte {
	bind := append([]byte("\x00\x00\x00\x00"), byte(len(params)>>8), byte(len(params)))
	for _, p := range params {
		bind = append(binary.BigEndian.AppendUint32(bind, uint32(len(p))), p...)
	}
	b = append(b, frame('P', []byte("\x00"+sql+"\x00\x00\x00"))...)
	b = append(b, frame('B', append(bind, 0, 0))...)
	b = append(b, frame('D', []byte("P\x00"))...)
	b = append(b, frame('E', []byte("\x00\x00\x00\x00\x00"))...)
	return append(b, frame('S', nil)...)
}

// Pipeline asks for everything at once, and reads the answers, which come in order.
func (c *Client) Pipeline(sql ...string) (refused []*Refusal, err error) {
	var b []byte
	for _, q := range sql {
		b = extended(b, q)
	}
	if _, err := c.Write(b); err != nil {
		return nil, err
	}
	for range sql {
		r, err := c.answer()
		if err != nil {
			return refused, err
		}
		refused = append(refused, r)
	}
	return refused, nil
}

// answer reads up to ReadyForQuery.
func (c *Client) answer() (refused *Refusal, err error) {
	defer c.note()
	for {
		typ, body, err := c.read()
		if err != nil {
			return refused, err
		}
		switch typ {
		case 'E':
			if refused = refusal(body); refused.Severity != "ERROR" {
				return refused, refused
			}
		case 'Z':
			c.Answers++
			return refused, nil
		}
	}
}

// Bye ends the session as a client should.
func (c *Client) Bye() {
	_, _ = c.Write(frame('X', nil)) // it is over either way
	_ = c.Close()
}

func refusal(b []byte) *Refusal {
	e := &Refusal{}
	for _, f := range strings.Split(string(b), "\x00") {
		if f == "" {
			continue
		}
		switch f[0] {
		case 'S':
			e.Severity = f[1:]
		case 'C':
			e.Code = f[1:]
		case 'M':
			e.Message = f[1:]
		}
	}
	return e
}
