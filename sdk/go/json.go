package weir

// Value is one JSON value of the configuration. Its zero value is null.
type Value struct {
	kind   byte // 0 null, 'b' bool, 'n' number, 's' string, 'a' array, 'o' object
	text   string
	flag   bool
	items  []Value
	fields []namedValue
}

type namedValue struct {
	name  string
	value Value
}

// Get returns a field of an object; null when it is not there.
func (v Value) Get(name string) Value {
	for _, f := range v.fields {
		if f.name == name {
			return f.value
		}
	}
	return Value{}
}

// Names returns the fields' names of an object.
func (v Value) Names() []string {
	var out []string
	for _, f := range v.fields {
		out = append(out, f.name)
	}
	return out
}

// Object reports whether it is an object.
func (v Value) Object() bool { return v.kind == 'o' }

// Null reports whether there is no value.
func (v Value) Null() bool { return v.kind == 0 }

// Text returns a string, and false for anything else.
func (v Value) Text() (string, bool) { return v.text, v.kind == 's' }

// Flag returns a boolean, and false for anything else.
func (v Value) Flag() (value, ok bool) { return v.flag, v.kind == 'b' }

// Int returns a whole number, and false for anything else.
func (v Value) Int() (int64, bool) {
	if v.kind != 'n' {
		return 0, false
	}
	n, digits, negative := int64(0), 0, false
	for i := range len(v.text) {
		c := v.text[i]
		switch {
		case c == '-' && i == 0:
			negative = true
		case c >= '0' && c <= '9' && digits < 18:
			n = n*10 + int64(c-'0')
			digits++
		default:
			return 0, false
		}
	}
	if negative {
		n = -n
	}
	return n, digits > 0
}

// Items returns the elements of an array, and false for anything else.
func (v Value) Items() ([]Value, bool) { return v.items, v.kind == 'a' }

// Texts returns an array of strings, and false for anything else.
func (v Value) Texts() ([]string, bool) {
	if v.kind != 'a' {
		return nil, false
	}
	out := make([]string, 0, len(v.items))
	for _, x := range v.items {
		if x.kind != 's' {
			return nil, false
		}
		out = append(out, x.text)
	}
	return out, true
}

// Parse reads a JSON text. The gateway writes the configuration, so it reads what a JSON encoder writes; what is
// no JSON is an error.
func Parse(b []byte) (Value, error) {
	p := &parser{b: b}
	v := p.value(0)
	p.space()
	if p.bad || p.i != len(p.b) {
		return Value{}, Error("the configuration is no JSON")
	}
	return v, nil
}

type parser struct {
	b   []byte
	i   int
	bad bool
}

func (p *parser) space() {
	for p.i < len(p.b) && (p.b[p.i] == ' ' || p.b[p.i] == '\n' || p.b[p.i] == '\t' || p.b[p.i] == '\r') {
		p.i++
	}
}

func (p *parser) next() byte {
	p.space()
	if p.i >= len(p.b) {
		p.bad = true
		return 0
	}
	return p.b[p.i]
}

func (p *parser) word(w string, v Value) Value {
	if len(p.b)-p.i < len(w) || string(p.b[p.i:p.i+len(w)]) != w {
		p.bad = true
		return Value{}
	}
	p.i += len(w)
	return v
}

func (p *parser) value(depth int) Value {
	if depth > 64 {
		p.bad = true
	}
	if p.bad {
		return Value{}
	}
	switch c := p.next(); {
	case c == 'n':
		return p.word("null", Value{})
	case c == 't':
		return p.word("true", Value{kind: 'b', flag: true})
	case c == 'f':
		return p.word("false", Value{kind: 'b'})
	case c == '"':
		return Value{kind: 's', text: p.string()}
	case c == '-' || c >= '0' && c <= '9':
		start := p.i
		for p.i < len(p.b) {
			if c := p.b[p.i]; c != '-' && c != '+' && c != '.' && c != 'e' && c != 'E' && (c < '0' || c > '9') {
				break
			}
			p.i++
		}
		return Value{kind: 'n', text: string(p.b[start:p.i])}
	case c == '[':
		v := Value{kind: 'a'}
		p.i++
		for !p.bad && p.next() != ']' {
			if len(v.items) > 0 {
				p.comma()
			}
			v.items = append(v.items, p.value(depth+1))
		}
		p.i++
		return v
	case c == '{':
		v := Value{kind: 'o'}
		p.i++
		for !p.bad && p.next() != '}' {
			if len(v.fields) > 0 {
				p.comma()
			}
			if p.next() != '"' {
				p.bad = true
				break
			}
			f := namedValue{name: p.string()}
			if p.next() != ':' {
				p.bad = true
				break
			}
			p.i++
			f.value = p.value(depth + 1)
			v.fields = append(v.fields, f)
		}
		p.i++
		return v
	}
	p.bad = true
	return Value{}
}

func (p *parser) comma() {
	if p.next() != ',' {
		p.bad = true
		return
	}
	p.i++
}

func (p *parser) string() string {
	p.i++
	var out []byte
	for p.i < len(p.b) {
		c := p.b[p.i]
		p.i++
		switch {
		case c == '"':
			return string(out)
		case c < ' ':
			p.bad = true
			return ""
		case c != '\\':
			out = append(out, c)
		case p.i < len(p.b):
			c = p.b[p.i]
			p.i++
			switch c {
			case '"', '\\', '/':
				out = append(out, c)
			case 'n':
				out = append(out, '\n')
			case 't':
				out = append(out, '\t')
			case 'r':
				out = append(out, '\r')
			case 'b':
				out = append(out, '\b')
			case 'f':
				out = append(out, '\f')
			case 'u':
				r := p.hex()
				if r >= 0xd800 && r < 0xdc00 && p.i+1 < len(p.b) && p.b[p.i] == '\\' && p.b[p.i+1] == 'u' {
					p.i += 2
					r = (r-0xd800)<<10 + (p.hex() - 0xdc00) + 0x10000
				}
				out = append(out, string(r)...)
			default:
				p.bad = true
			}
		}
	}
	p.bad = true
	return ""
}

func (p *parser) hex() rune {
	if len(p.b)-p.i < 4 {
		p.bad = true
		return 0
	}
	var r rune
	for range 4 {
		c := p.b[p.i]
		p.i++
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			p.bad = true
		}
	}
	return r
}

const hexDigits = "0123456789abcdef"

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func appendNumber(b []byte, n uint64) []byte {
	var d [20]byte
	i := len(d)
	for {
		i--
		d[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, d[i:]...)
		}
	}
}
