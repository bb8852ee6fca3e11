// Package detect finds personal data and secrets in bytes and masks them in place. It scans each value once, byte by
// byte, without regular expressions, and checks what a form alone does not prove: check digits of cards and IBANs,
// the ranges of social security numbers.
//
//	EMAIL        a**@example.com          the first letter and the domain stay
//	CARD         **** **** **** 1111      the last four digits stay
//	IBAN         DE** **** ****           the country stays
//	SSN          ***-**-****
//	AWS_KEY      AKIA****************
//	JWT          ***.***.***              the dots stay
//	PRIVATE_KEY  -----BEGIN … KEY-----*   everything behind the header
//	TOKEN        ghp_****                 of GitHub, GitLab, Slack, Stripe, Google, npm: the prefix stays
//
// Values in other encodings (UTF-16, base64, spelled out) are not found: for columns known to hold personal data use
// a mask by column.
package detect

import "bytes"

// Set is a set of entities.
type Set uint16

// The entities.
const (
	Email Set = 1 << iota
	Card
	IBAN
	SSN
	AWSKey
	JWT
	PrivateKey
	Token

	All    = Email | Card | IBAN | SSN | Secret
	Secret = AWSKey | JWT | PrivateKey | Token
)

var names = [...]string{"EMAIL", "CARD", "IBAN", "SSN", "AWS_KEY", "JWT", "PRIVATE_KEY", "TOKEN"}

// Counts are how many of each entity were found, in the order of the bits of Set.
type Counts [len(names)]int

// Name returns the name of the entity at an index of Counts.
func Name(i int) string { return names[i] }

// Parse returns the entity of a name, or 0. SECRET is all secrets.
func Parse(name string) Set {
	if name == "SECRET" {
		return Secret
	}
	for i, n := range names {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// String lists the names.
func (s Set) String() string {
	out := ""
	for i, n := range names {
		if s&(1<<i) != 0 {
			if out != "" {
				out += ", "
			}
			out += n
		}
	}
	return out
}

// Detector masks the entities of a set.
type Detector struct {
	set Set
	// act says what may begin with a byte, or have it in its middle (an e-mail address has its @).
	act [256]byte
}

const (
	actDigit byte = 1 << iota
	actAt
	actDash
	actIBAN
	actAWS
	actJWT
	actToken

	actWord = actIBAN | actAWS | actJWT | actToken
)

// The fewest bytes that an entity has: a@b.cc, 123-45-6789. Most cells of most tables are shorter.
const (
	leastEmail = 6
	leastOther = 11
)

// New returns a Detector.
func New(set Set) *Detector {
	d := &Detector{set: set}
	if set&(Card|SSN) != 0 {
		for c := '0'; c <= '9'; c++ {
			d.act[c] = actDigit
		}
	}
	if set&Email != 0 {
		d.act['@'] = actAt
	}
	if set&PrivateKey != 0 {
		d.act['-'] = actDash
	}
	if set&IBAN != 0 {
		for country := range ibanLengths {
			d.act[country[0]] |= actIBAN
			d.act[country[0]|0x20] |= actIBAN
		}
	}
	if set&AWSKey != 0 {
		d.act['A'] |= actAWS
	}
	if set&JWT != 0 {
		d.act['e'] |= actJWT
	}
	if set&Token != 0 {
		for _, t := range tokens {
			d.act[t.prefix[0]] |= actToken
		}
	}
	return d
}

// The classes of bytes.
const (
	isDigit byte = 1 << iota
	isLetter
	isLocal  // of the local part of an e-mail address
	isDomain // of a domain, dots included
	isBase64 // of base64url
)

var class = func() (t [256]byte) {
	for c := range t {
		switch {
		case c >= '0' && c <= '9':
			t[c] = isDigit | isLocal | isDomain | isBase64
		case c|0x20 >= 'a' && c|0x20 <= 'z':
			t[c] = isLetter | isLocal | isDomain | isBase64
		case c >= 0x80:
			t[c] = isLocal | isDomain
		}
	}
	for _, c := range "!#$%&'*+/=?^_`{|}~.-" {
		t[c] |= isLocal
	}
	t['-'] |= isDomain | isBase64
	t['.'] |= isDomain
	t['_'] |= isBase64
	return t
}()

const alnum = isDigit | isLetter

// Mask hides what it finds in b, in place, and counts it. It reports whether b changed, or what was found needed no
// change.
func (d *Detector) Mask(b []byte, counts *Counts) (found bool) {
	switch {
	case len(b) < leastEmail:
		return false
	case len(b) < leastOther:
		if d.set&Email == 0 || bytes.IndexByte(b, '@') < 0 {
			return false
		}
	}
	return d.scan(b, counts)
}

func (d *Detector) scan(b []byte, counts *Counts) (found bool) {
	act := &d.act
	for i := 0; i < len(b); {
		a := act[b[i]]
		if a == 0 {
			i++
			continue
		}
		end, which := 0, 0
		switch {
		case a&actWord != 0:
			if i == 0 || class[b[i-1]]&alnum == 0 {
				end, which = d.word(b, i, a)
			}
		case a == actDigit:
			// One that stands behind a digit begins nothing.
			if len(b)-i >= leastOther && (i == 0 || class[b[i-1]]&isDigit == 0) {
				end, which = d.number(b, i)
			}
			if end == 0 {
				for i++; i < len(b) && class[b[i]]&isDigit != 0; {
					i++
				}
				continue
			}
		case a == actAt:
			end = maskEmail(b, i)
		default:
			end, which = maskPrivateKey(b, i), 6
		}
		if end == 0 {
			i++
			continue
		}
		counts[which]++
		found = true
		i = end
	}
	return found
}

// number masks what begins with a digit.
func (d *Detector) number(b []byte, i int) (end, which int) {
	if d.set&SSN != 0 && (b[i+3] == '-' || b[i+3] == ' ') && maskSSN(b, i) {
		return i + 11, 3
	}
	if d.set&Card != 0 && len(b)-i >= 13 {
		return maskCard(b, i), 1
	}
	return 0, 0
}

// word masks what begins with a letter.
func (d *Detector) word(b []byte, i int, a byte) (end, which int) {
	if a&actIBAN != 0 && len(b)-i >= 15 && class[b[i+2]]&class[b[i+3]]&isDigit != 0 {
		if end := maskIBAN(b, i); end > 0 {
			return end, 2
		}
	}
	if len(b)-i < 20 {
		return 0, 0
	}
	if a&actAWS != 0 {
		if end := maskAWS(b, i); end > 0 {
			return end, 4
		}
	}
	if a&actJWT != 0 && b[i+1] == 'y' {
		if end := maskJWT(b, i); end > 0 {
			return end, 5
		}
	}
	if a&actToken != 0 {
		if end := maskToken(b, i); end > 0 {
			return end, 7
		}
	}
	return 0, 0
}
