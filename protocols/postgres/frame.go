package postgres

import (
	"encoding/binary"
	"fmt"
)

// A frame is one protocol message: a type byte, a length that counts itself, and a body
// (PostgreSQL manual, "Message Formats"). Only the startup packets lack the type byte.
const headerSize = 5

// smallFrame bounds the body of the messages that carry no user data. The server's own bound is 10,000 (PQ_SMALL_MESSAGE_LIMIT).
const smallFrame = 10_000

// A frameError is a malformed, unknown or oversize message. Its text is safe to show: it holds no bytes of the message.
type frameError struct {
	code string // SQLSTATE
	text string
}

func (e *frameError) Error() string { return e.text }

func malformed(format string, args ...any) error {
	return &frameError{code: codeProtocolViolation, text: fmt.Sprintf(format, args...)}
}

// side says whose messages a frame belongs to: the same type byte means different things from the two ends.
type side struct {
	name  string
	kinds [256]kind
}

// kind is what is known of a message type before its body is read. The zero kind is unknown, hence refused.
type kind struct {
	name  string
	large bool // may be as long as the target's max_frame
	check func(body []byte) error
}

// next returns the first frame of buf and how many bytes it takes. It returns 0 when the frame is not complete yet:
// need is then the whole frame's size, which is within limit, or 0 when not even the header is there.
// An error is final: the stream can no longer be followed.
func (s *side) next(buf []byte, limit int64) (size, need int, err error) {
	if len(buf) < headerSize {
		return 0, 0, nil
	}
	k := &s.kinds[buf[0]]
	if k.name == "" {
		return 0, 0, malformed("unknown message type 0x%02x from the %s", buf[0], s.name)
	}
	length := int64(int32(binary.BigEndian.Uint32(buf[1:])))
	if length < 4 {
		return 0, 0, malformed("invalid length %d of a %s message from the %s", length, k.name, s.name)
	}
	if !k.large {
		limit = min(limit, smallFrame)
	}
	if length-4 > limit {
		return 0, 0, &frameError{
			code: codeProgramLimitExceeded,
			text: fmt.Sprintf("message too large: a %s message from the %s announces %d bytes, max_frame allows %d", k.name, s.name, length-4, limit),
		}
	}
	total := int(length) + 1
	if len(buf) < total {
		return 0, total, nil
	}
	if err := k.check(buf[headerSize:total]); err != nil {
		return 0, 0, malformed("malformed %s message from the %s: %v", k.name, s.name, err)
	}
	return total, total, nil
}

// appendFrame appends a message of the given type and body.
func appendFrame(dst []byte, typ byte, body []byte) []byte {
	dst = append(dst, typ)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)+4))
	return append(dst, body...)
}

// beginFrame appends a header whose length endFrame fills in.
func beginFrame(dst []byte, typ byte) ([]byte, int) {
	dst = append(dst, typ, 0, 0, 0, 0)
	return dst, len(dst) - 4
}

func endFrame(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at))
	return dst
}
