package ssh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/core"
)

var (
	_ core.Reader = (*Protocol)(nil)
	_ core.Parser = (*Protocol)(nil)
)

// Parse reads the text of an exec request.
func (*Protocol) Parse(_ context.Context, text string) ([]*core.Command, error) {
	return []*core.Command{execCommand(text)}, nil
}

// ReadRows reads nothing: no answer of SSH is a table.
func (*Protocol) ReadRows([]core.Column, []byte) ([][]*string, error) {
	return nil, errors.New("ssh: there are no rows in its recordings")
}

// ReadText renders what was said on a channel: the bytes of data, and requests in words.
func (*Protocol) ReadText(wire []byte) string {
	if len(wire) == 0 {
		return ""
	}
	switch kind := wire[0]; kind {
	case msgData, msgExtendedData:
		h := headSize(kind == msgExtendedData)
		if len(wire) < h {
			break
		}
		if bytes.IndexByte(wire[h:], 0) >= 0 { // a file, or a protocol of the program's own
			return fmt.Sprintf("(%d bytes that are no text)\n", len(wire)-h)
		}
		return printable(wire[h:])
	case msgChannelRequest, msgGlobalRequest:
		rest := wire[1:]
		if kind == msgChannelRequest {
			if len(rest) < 4 {
				break
			}
			rest = rest[4:]
		}
		name, rest, ok := cutString(rest)
		if !ok || len(rest) < 1 {
			break
		}
		return requestText(string(name), rest[1:]) + "\n"
	case msgChannelOpen:
		if name, _, ok := cutString(wire[1:]); ok {
			return "open " + printable(name) + "\n"
		}
	case msgChannelEOF, msgChannelClose:
		if len(wire) == 5 {
			return fmt.Sprintf("channel %d %s\n", binary.BigEndian.Uint32(wire[1:]), map[byte]string{msgChannelEOF: "ends", msgChannelClose: "is closed"}[kind])
		}
	}
	return fmt.Sprintf("(%d bytes that cannot be read)\n", len(wire))
}

func requestText(name string, payload []byte) string {
	var text textPayload
	var env envPayload
	var window windowPayload
	var status exitPayload
	switch {
	case (name == "exec" || name == "subsystem" || name == "signal") && ssh.Unmarshal(payload, &text) == nil:
		return printable([]byte(name + " " + text.Text))
	case name == "env" && parse(payload, &env):
		return printable([]byte("env " + env.Name + "=" + env.Value))
	case name == "window-change" && parse(payload, &window):
		return fmt.Sprintf("window %dx%d", window.Columns, window.Rows)
	case name == "exit-status" && parse(payload, &status):
		return fmt.Sprintf("exit %d", status.Status)
	}
	return printable([]byte(name))
}

// printable neutralises control characters, so that a recording cannot drive the terminal that shows it.
func printable(b []byte) string {
	s := strings.ReplaceAll(string(b), "\r\n", "\n")
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}
