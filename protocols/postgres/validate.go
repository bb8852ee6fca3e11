package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Every body is checked for structure before anything else reads it: lengths, counts, terminators, nothing left over.
// What passes here is safe to hand to pgproto3, whose decoders trust their input (SECURITY.md, "pgproto3").

var (
	errShort      = errors.New("the body is too short")
	errLeftOver   = errors.New("bytes are left over after the body")
	errUnended    = errors.New("a string has no end")
	errLength     = errors.New("a field has an impossible length")
	errCount      = errors.New("a count is out of range")
	errFormatCode = errors.New("a format code is neither text nor binary")
	errSubtype    = errors.New("it names neither a statement nor a portal")
)

// body is a cursor over a message body. The first error sticks.
type body struct {
	b   []byte
	err error
}

func (c *body) fail(err error) {
	if c.err == nil {
		c.err = err
	}
	c.b = nil
}

func (c *body) take(n int) []byte {
	if n < 0 || len(c.b) < n {
		c.fail(errShort)
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

func (c *body) u8() byte {
	if p := c.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (c *body) u16() int {
	if p := c.take(2); p != nil {
		return int(binary.BigEndian.Uint16(p))
	}
	return 0
}

func (c *body) i32() int32 {
	if p := c.take(4); p != nil {
		return int32(binary.BigEndian.Uint32(p))
	}
	return 0
}

func (c *body) str() []byte {
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		c.fail(errUnended)
		return nil
	}
	p := c.b[:i]
	c.b = c.b[i+1:]
	return p
}

// value reads a length and that many bytes; -1 is NULL.
func (c *body) value() (p []byte, null bool) {
	n := c.i32()
	if n == -1 {
		return nil, true
	}
	if n < 0 || int(n) > len(c.b) {
		c.fail(errLength)
		return nil, false
	}
	return c.take(int(n)), false
}

func (c *body) values(count int) {
	for i := 0; i < count && c.err == nil; i++ {
		c.value()
	}
}

func (c *body) formats(count int) {
	for i := 0; i < count && c.err == nil; i++ {
		if c.u16() > 1 {
			c.fail(errFormatCode)
		}
	}
}

func (c *body) end() error {
	if c.err == nil && len(c.b) > 0 {
		return errLeftOver
	}
	return c.err
}

func checkAny([]byte) error { return nil }

func checkEmpty(b []byte) error {
	if len(b) > 0 {
		return errLeftOver
	}
	return nil
}

func checkString(b []byte) error {
	c := body{b: b}
	c.str()
	return c.end()
}

func checkParse(b []byte) error {
	c := body{b: b}
	c.str()
	c.str()
	c.take(4 * c.u16())
	return c.end()
}

func checkBind(b []byte) error {
	c := body{b: b}
	c.str()
	c.str()
	c.formats(c.u16())
	c.values(c.u16())
	c.formats(c.u16())
	return c.end()
}

func checkTarget(b []byte) error { // Close, Describe
	c := body{b: b}
	if t := c.u8(); t != 'S' && t != 'P' && c.err == nil {
		return errSubtype
	}
	c.str()
	return c.end()
}

func checkExecute(b []byte) error {
	c := body{b: b}
	c.str()
	c.i32()
	return c.end()
}

func checkFunctionCall(b []byte) error {
	c := body{b: b}
	c.i32()
	c.formats(c.u16())
	c.values(c.u16())
	if c.u16() > 1 {
		c.fail(errFormatCode)
	}
	return c.end()
}

func checkBackendKeyData(b []byte) error {
	if len(b) < 8 || len(b) > 4+256 { // 3.2 allows keys of 4 to 256 bytes
		return errLength
	}
	return nil
}

func checkTwoStrings(b []byte) error {
	c := body{b: b}
	c.str()
	c.str()
	return c.end()
}

func checkReady(b []byte) error {
	if len(b) != 1 || (b[0] != 'I' && b[0] != 'T' && b[0] != 'E') {
		return errors.New("the transaction status is unknown")
	}
	return nil
}

func checkRowDescription(b []byte) error {
	c := body{b: b}
	n := c.u16()
	for i := 0; i < n && c.err == nil; i++ {
		c.str()
		c.take(16)
		c.formats(1)
	}
	return c.end()
}

func checkDataRow(b []byte) error {
	if len(b) < 2 {
		return errShort
	}
	n := int(binary.BigEndian.Uint16(b))
	p := 2
	for i := 0; i < n; i++ { // the hottest check: no cursor
		if len(b)-p < 4 {
			return errShort
		}
		l := int(int32(binary.BigEndian.Uint32(b[p:])))
		p += 4
		if l == -1 {
			continue
		}
		if l < 0 || l > len(b)-p {
			return errLength
		}
		p += l
	}
	if p != len(b) {
		return errLeftOver
	}
	return nil
}

func checkCopyResponse(b []byte) error {
	c := body{b: b}
	if c.u8() > 1 {
		c.fail(errFormatCode)
	}
	c.formats(c.u16())
	return c.end()
}

func checkParameterDescription(b []byte) error {
	c := body{b: b}
	c.take(4 * c.u16())
	return c.end()
}

func checkFields(b []byte) error { // ErrorResponse, NoticeResponse
	c := body{b: b}
	for c.err == nil {
		if t := c.u8(); t == 0 {
			break
		}
		c.str()
	}
	return c.end()
}

func checkNotification(b []byte) error {
	c := body{b: b}
	c.i32()
	c.str()
	c.str()
	return c.end()
}

func checkFunctionCallResponse(b []byte) error {
	c := body{b: b}
	c.value()
	return c.end()
}

func checkNegotiate(b []byte) error {
	c := body{b: b}
	c.i32()
	n := c.i32()
	if n < 0 || int(n) > len(c.b) {
		return errCount
	}
	for i := 0; i < int(n) && c.err == nil; i++ {
		c.str()
	}
	return c.end()
}

func checkAuthentication(b []byte) error {
	if len(b) < 4 {
		return errShort
	}
	return nil
}

// frontend is what a client may send once its session is open.
var frontend = side{name: "client", kinds: [256]kind{
	'Q': {"Query", true, checkString},
	'P': {"Parse", true, checkParse},
	'B': {"Bind", true, checkBind},
	'D': {"Describe", false, checkTarget},
	'E': {"Execute", false, checkExecute},
	'C': {"Close", false, checkTarget},
	'S': {"Sync", false, checkEmpty},
	'H': {"Flush", false, checkEmpty},
	'F': {"FunctionCall", true, checkFunctionCall},
	'd': {"CopyData", true, checkAny},
	'c': {"CopyDone", false, checkEmpty},
	'f': {"CopyFail", false, checkString},
	'X': {"Terminate", false, checkEmpty},
}}

// backend is what an upstream may send once its session is open.
var backend = side{name: "upstream", kinds: [256]kind{
	'1': {"ParseComplete", false, checkEmpty},
	'2': {"BindComplete", false, checkEmpty},
	'3': {"CloseComplete", false, checkEmpty},
	'A': {"NotificationResponse", true, checkNotification},
	'C': {"CommandComplete", false, checkString},
	'D': {"DataRow", true, checkDataRow},
	'E': {"ErrorResponse", true, checkFields},
	'G': {"CopyInResponse", true, checkCopyResponse},
	'H': {"CopyOutResponse", true, checkCopyResponse},
	'I': {"EmptyQueryResponse", false, checkEmpty},
	'N': {"NoticeResponse", true, checkFields},
	'S': {"ParameterStatus", true, checkTwoStrings},
	'T': {"RowDescription", true, checkRowDescription},
	'V': {"FunctionCallResponse", true, checkFunctionCallResponse},
	'W': {"CopyBothResponse", true, checkCopyResponse},
	'Z': {"ReadyForQuery", false, checkReady},
	'c': {"CopyDone", false, checkEmpty},
	'd': {"CopyData", true, checkAny},
	'n': {"NoData", false, checkEmpty},
	's': {"PortalSuspended", false, checkEmpty},
	't': {"ParameterDescription", true, checkParameterDescription},
}}

// signIn is what an upstream may send before its session is open.
var signIn = side{name: "upstream", kinds: [256]kind{
	'R': {"Authentication", false, checkAuthentication},
	'E': {"ErrorResponse", true, checkFields},
	'N': {"NoticeResponse", true, checkFields},
	'S': {"ParameterStatus", true, checkTwoStrings},
	'K': {"BackendKeyData", false, checkBackendKeyData},
	'Z': {"ReadyForQuery", false, checkReady},
	'v': {"NegotiateProtocolVersion", false, checkNegotiate},
}}
