package sql

import (
	"strings"

	"github.com/weir-gateway/weir/core"
)

// parenthesised returns from where to where stands what is between the first opening parenthesis of text and its partner,
// skipping quoted strings, quoted names and comments (manual, "Lexical Structure").
func parenthesised(text string) (from, to int, ok bool) {
	start, depth := -1, 0
	for i := 0; i < len(text); {
		switch n := skip(text[i:]); {
		case n > 0:
			i += n
			continue
		case text[i] == '(':
			if depth == 0 {
				start = i + 1
			}
			depth++
		case text[i] == ')':
			depth--
			if depth == 0 {
				return start, i, true
			}
			if depth < 0 {
				return 0, 0, false
			}
		}
		i++
	}
	return 0, 0, false
}

// skip returns the length of the quoted string, quoted name or comment that s begins with, or 0. What has no end goes
// to the end.
func skip(s string) int {
	switch {
	case strings.HasPrefix(s, "--"):
		if i := strings.IndexByte(s, '\n'); i >= 0 {
			return i
		}
		return len(s)
	case strings.HasPrefix(s, "/*"):
		depth := 1
		for i := 2; i < len(s); {
			switch {
			case strings.HasPrefix(s[i:], "/*"):
				depth++
				i += 2
			case strings.HasPrefix(s[i:], "*/"):
				depth--
				i += 2
				if depth == 0 {
					return i
				}
			default:
				i++
			}
		}
		return len(s)
	case s[0] == '\'':
		return quoted(s, '\'', false)
	case s[0] == '"':
		return quoted(s, '"', false)
	case (s[0] == 'e' || s[0] == 'E') && len(s) > 1 && s[1] == '\'':
		return 1 + quoted(s[1:], '\'', true)
	case s[0] == '$':
		end := 1
		for end < len(s) && (s[end] == '_' || s[end] >= 0x80 || isLetter(s[end]) || end > 1 && s[end] >= '0' && s[end] <= '9') {
			end++
		}
		if end == len(s) || s[end] != '$' {
			return 0
		}
		tag := s[:end+1]
		if i := strings.Index(s[len(tag):], tag); i >= 0 {
			return i + 2*len(tag)
		}
		return len(s)
	case isLetter(s[0]) || s[0] == '_' || s[0] >= 0x80: // a word, so that the E of a name is not the E of a string
		n := 1
		for n < len(s) && (isLetter(s[n]) || s[n] == '_' || s[n] == '$' || s[n] >= 0x80 || s[n] >= '0' && s[n] <= '9') {
			n++
		}
		return n
	}
	return 0
}

func quoted(s string, quote byte, backslash bool) int {
	for i := 1; i < len(s); i++ {
		switch {
		case backslash && s[i] == '\\':
			i++
		case s[i] == quote:
			if i+1 < len(s) && s[i+1] == quote {
				i++
				continue
			}
			return i + 1
		}
	}
	return len(s)
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }

// normalise appends text with its literals replaced, so that texts which differ in literals only become the same. ok
// is false where the text holds anything whose reading is not plain: comments, dollar quotes, prefixed or continued
// strings, backslashes, anything but ASCII. Two texts that become the same have the same tokens but for the values of
// constants: that is what makes it safe to share facts between them.
func normalise(dst []byte, text string) (_ []byte, ok bool) {
	if len(text) > cacheText {
		return dst, false
	}
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c >= 0x80 || c == '\\' || c < ' ' && c != '\n' && c != '\t' && c != '\r',
			c == '-' && strings.HasPrefix(text[i:], "--"), c == '/' && strings.HasPrefix(text[i:], "/*"):
			return dst, false
		case c == '$':
			n := 1
			for i+n < len(text) && text[i+n] >= '0' && text[i+n] <= '9' {
				n++
			}
			if n == 1 || i+n < len(text) && wordByte(text[i+n]) {
				return dst, false
			}
			dst = append(dst, text[i:i+n]...)
			i += n
		case c == '"':
			n := quoted(text[i:], '"', false)
			if strings.IndexByte(text[i:i+n], '\\') >= 0 {
				return dst, false
			}
			dst = append(dst, text[i:i+n]...)
			i += n
		case c == '\'':
			n := strings.IndexByte(text[i+1:], '\'')
			if n < 0 || i > 0 && (wordByte(text[i-1]) || text[i-1] == '&' || text[i-1] == '\'') {
				return dst, false
			}
			value := text[i+1 : i+1+n]
			end := i + n + 2
			if strings.IndexByte(value, '\\') >= 0 || end < len(text) && (text[end] == '\'' || wordByte(text[end])) || !plain7(value) {
				return dst, false
			}
			dst = append(dst, "''"...)
			i = end
		case wordByte(c):
			n := 1
			digits := c >= '0' && c <= '9'
			for i+n < len(text) && wordByte(text[i+n]) {
				digits = digits && text[i+n] >= '0' && text[i+n] <= '9'
				n++
			}
			alone := (i == 0 || text[i-1] != '.') && (i+n == len(text) || text[i+n] != '.')
			if digits && alone {
				dst = append(dst, '0')
			} else {
				dst = append(dst, text[i:i+n]...)
			}
			i += n
		default:
			dst = append(dst, c)
			i++
		}
	}
	return dst, true
}

func wordByte(c byte) bool { return isLetter(c) || c == '_' || c == '$' || c >= '0' && c <= '9' }

// plain7 reports whether s is printable ASCII, so that no encoding can make anything else of it.
func plain7(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// shaped reports whether a statement's facts cannot depend on the values of its literals: the walker looks at literals
// only in settings, options and names of files, and in set_config.
func shaped(c *core.Command) bool {
	if c.Status != core.StatusKnown || c.Secret {
		return false
	}
	switch c.Action {
	case "select", "insert", "update", "delete":
	default:
		return false
	}
	for _, r := range c.Resources {
		if r.Kind == "function" && strings.HasSuffix(r.Name, "set_config") {
			return false
		}
	}
	return true
}
