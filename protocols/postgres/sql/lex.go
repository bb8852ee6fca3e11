package sql

import "strings"

// parenthesised returns what stands between the first opening parenthesis of text and its partner, skipping quoted
// strings, quoted names and comments (manual, "Lexical Structure").
func parenthesised(text string) (string, bool) {
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
				return text[start:i], true
			}
			if depth < 0 {
				return "", false
			}
		}
		i++
	}
	return "", false
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
