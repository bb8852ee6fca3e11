package ssh

import (
	"encoding/binary"

	"golang.org/x/crypto/ssh"
)

// The wire bytes of a record are messages of the connection protocol (RFC 4254) as they are once decrypted, so that a record says
// by itself which channel it is about, and what is stderr. Channels have numbers of the session's own.
const (
	msgGlobalRequest  = 80
	msgChannelOpen    = 90
	msgData           = 94
	msgExtendedData   = 95
	msgChannelEOF     = 96
	msgChannelClose   = 97
	msgChannelRequest = 98

	stderrType = 1

	dataHead     = 1 + 4 + 4
	extendedHead = 1 + 4 + 4 + 4
)

// headSize is how many bytes stand before the data.
func headSize(extended bool) int {
	if extended {
		return extendedHead
	}
	return dataHead
}

// putHead writes what stands before n bytes of data.
func putHead(b []byte, number uint32, extended bool, n int) {
	b[0] = msgData
	binary.BigEndian.PutUint32(b[1:], number)
	at := 5
	if extended {
		b[0] = msgExtendedData
		binary.BigEndian.PutUint32(b[at:], stderrType)
		at += 4
	}
	binary.BigEndian.PutUint32(b[at:], uint32(n))
}

// dataMessage is a message with data.
func dataMessage(number uint32, extended bool, data []byte) []byte {
	h := headSize(extended)
	b := make([]byte, h+len(data))
	putHead(b, number, extended, len(data))
	copy(b[h:], data)
	return b
}

func requestMessage(number uint32, kind string, want bool, payload []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{msgChannelRequest}, number)
	return appendRequest(b, kind, want, payload)
}

func globalMessage(kind string, want bool, payload []byte) []byte {
	return appendRequest([]byte{msgGlobalRequest}, kind, want, payload)
}

func appendRequest(b []byte, kind string, want bool, payload []byte) []byte {
	b = appendString(b, kind)
	if want {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, payload...)
}

// openMessage is the opening of a channel. Windows are a leg's own affair, so they are 0.
func openMessage(number uint32, kind string, extra []byte) []byte {
	b := appendString([]byte{msgChannelOpen}, kind)
	b = binary.BigEndian.AppendUint32(b, number)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	return append(b, extra...)
}

func eofMessage(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{msgChannelEOF}, number)
}

func closeMessage(number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{msgChannelClose}, number)
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// cutString reads a string from the beginning of b.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

// The payloads of requests and openings (RFC 4254, 4.9, 6 and 7; OpenSSH's PROTOCOL, 2.4).
type (
	textPayload struct{ Text string }
	envPayload  struct{ Name, Value string }
	ptyPayload  struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}
	windowPayload struct{ Columns, Rows, Width, Height uint32 }
	exitPayload   struct{ Status uint32 }
	signalPayload struct {
		Signal   string
		Dumped   bool
		Message  string
		Language string
	}
	directPayload struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	socketPayload struct {
		Path     string
		Reserved string
		Rest     []byte `ssh:"rest"`
	}
	forwardPayload struct {
		Host string
		Port uint32
	}
)

// parse reads a payload that has to be whole.
func parse(payload []byte, into any) bool { return ssh.Unmarshal(payload, into) == nil }
