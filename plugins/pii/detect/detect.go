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
//	TOKEN        ghp_****                 of GitHub, GitLab, Slack, Stripe, Google, npm and others: the prefix stays
//	PHONE        +** ** *****67           the last two digits stay
//	IP           192.***.*.**             the first number stays; IPv6 as well
//	NATIONAL_ID  ********* of Britain, Spain, Italy, France, Brazil, India, Germany: see national.go
//	CONNECTION   postgres://app:****@db   the password in a URL
//	CREDENTIAL   api_key=********         what stands behind the name of a secret
//
// Values in other encodings (UTF-16, base64, spelled out) are not found: for columns known to hold personal data use
// a mask by column.
package detect

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
	Phone
	IP
	NationalID
	Connection
	Credential

	All = Personal | Secret
	// Personal is what is about people, Secret what opens doors.
	Personal = Email | Card | IBAN | SSN | Phone | IP | NationalID
	Secret   = AWSKey | JWT | PrivateKey | Token | Connection | Credential
)

var names = [...]string{
	"EMAIL", "CARD", "IBAN", "SSN", "AWS_KEY", "JWT", "PRIVATE_KEY", "TOKEN", "PHONE", "IP", "NATIONAL_ID", "CONNECTION", "CREDENTIAL",
}

// Counts are how many of each entity were found, in the order of the bits of Set.
type Counts [len(names)]int

// Name returns the name of the entity at an index of Counts.
func Name(i int) string { return names[i] }

// Choose returns the set of all that are named, out of most; else the first name of something that is not in it.
func Choose(names []string, most Set) (set Set, unknown string) {
	for _, name := range names {
		s := Parse(name)
		if s == 0 || s&^most != 0 {
			return 0, name
		}
		set |= s
	}
	return set, ""
}

// Parse returns the entity of a name, or 0. PERSONAL and SECRET are all of a sort.
func Parse(name string) Set {
	switch name {
	case "PERSONAL":
		return Personal
	case "SECRET":
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
	act [256]uint16
	// step says of each byte behind what it may begin something, and in its high half what it is itself.
	step [256]uint8
	// pairs has, for the first letter of a word, which second ones begin what has no digit behind its letters: a bit for the lower
	// five bits.
	pairs [256]uint32
	// least are the fewest bytes that anything but an e-mail address has.
	least int
}

const (
	actDigit uint16 = 1 << iota
	actAt
	actDash
	actPhone  // + and (
	actAssign // = and :
	actIBAN
	actAWS
	actJWT
	actToken
	actNational
	actIPv6

	actWord = actIBAN | actAWS | actJWT | actToken | actNational | actIPv6
)

// The fewest bytes that an entity has: a@b.cc, 1.2.3.4, 12345678Z, 123-45-6789. Most cells of most tables are shorter.
const (
	leastEmail    = 6
	leastIP       = 7
	leastNational = 9
	leastOther    = 11
)

// New returns a Detector.
func New(set Set) *Detector {
	d := &Detector{set: set, least: leastOther}
	if set&NationalID != 0 {
		d.least = leastNational
	}
	if set&IP != 0 {
		d.least = leastIP
	}
	mark := func(wanted Set, what uint16, bytes string) {
		if set&wanted != 0 {
			for i := range len(bytes) {
				d.act[bytes[i]] |= what
			}
		}
	}
	mark(Card|SSN|Phone|IP|NationalID, actDigit, "0123456789")
	mark(Email|Connection, actAt, "@")
	mark(PrivateKey, actDash, "-")
	mark(Phone, actPhone, "+(")
	mark(Credential, actAssign, "=:")
	mark(AWSKey, actAWS, "A")
	mark(JWT, actJWT, "e")
	mark(NationalID, actNational, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	mark(IP, actIPv6, "abcdefABCDEF")
	for _, t := range tokens {
		mark(Token, actToken, t.prefix[:1])
	}
	for country := range ibanLengths {
		mark(IBAN, actIBAN, string(country[:1])+string(country[0]|0x20))
	}
	d.prepare()
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
	return len(b) >= leastEmail && d.mask(b, counts)
}

func (d *Detector) mask(b []byte, counts *Counts) bool {
	if len(b) < d.least {
		if d.set&Email == 0 {
			return false
		}
		i := 1
		for b[i] != '@' { // it has one letter before it and four behind it
			if i++; i > len(b)-(leastEmail-1) {
				return false
			}
		}
	}
	return d.scan(b, counts)
}

func (d *Detector) scan(b []byte, counts *Counts) (found bool) {
	noJWT, bare := 0, -1 // no JWT begins before noJWT; bare is as maskConnection has it
	for i := 0; ; {
		if i = d.next(b, i); i >= len(b) {
			return found
		}
		end, which := 0, 0
		switch a := d.act[b[i]]; {
		case a&actWord != 0:
			if a&actJWT != 0 && i >= noJWT && len(b)-i >= 20 && b[i+1] == 'y' {
				none := 0
				if end, none = maskJWT(b, i); end > 0 {
					which = 5
					break
				}
				noJWT = max(noJWT, none)
			}
			end, which = d.word(b, i, a)
		case a == actDigit:
			end, which = d.number(b, i, digits(b, i))
		case a == actAt:
			if d.set&Connection != 0 {
				if end, bare = maskConnection(b, i, bare); end > 0 {
					which = 11
					break
				}
			}
			if d.set&Email != 0 {
				end, which = maskEmail(b, i), 0
			}
		case a == actPhone:
			end, which = maskPhone(b, i), 8
		case a == actAssign:
			end, which = maskCredential(b, i), 12
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
}

// number masks what begins with a digit, of which run stand together.
func (d *Detector) number(b []byte, i, run int) (end, which int) {
	left, next := len(b)-i, byte(0)
	if run < left {
		next = b[i+run]
	}
	if d.set&IP != 0 && left >= leastIP {
		if run <= 3 && next == '.' && dotSoon(b, i+run+2) {
			if end := maskIPv4(b, i); end > 0 {
				return end, 9
			}
		}
		if run <= 4 && colonSoon(b, i) {
			if end := maskIPv6(b, i); end > 0 {
				return end, 9
			}
		}
	}
	all := run
	if all < 13 {
		all = reach(b, i+run, run)
	}
	if all < leastDigits {
		return 0, 0
	}
	if d.set&SSN != 0 && run == 3 && (next == '-' || next == ' ') && all >= 9 && maskSSN(b, i) {
		return i + 11, 3
	}
	if d.set&Card != 0 && run >= 4 && all >= 13 {
		if end := maskCard(b, i); end > 0 {
			return end, 1
		}
	}
	if d.set&NationalID != 0 && (run == 8 || all >= 11) && left >= 9 && run <= 15 && (next == ' ' || next == '-' || next == '.' || run == 8 || run >= 13) {
		if end := nationalNumber(b, i, run); end > 0 {
			return end, 10
		}
	}
	if d.set&Phone != 0 && (run == 3 || run == 1 || b[i] == '0' && b[i+1] == '0' || i >= 4 && saysPhone(b[:i])) {
		return maskPhone(b, i), 8
	}
	return 0, 0
}

// dotSoon reports whether the second number of an IPv4 address, whose first digit is before j, may end here.
func dotSoon(b []byte, j int) bool {
	return b[j] == '.' || b[j+1] == '.' || j+2 < len(b) && b[j+2] == '.'
}

// colonSoon reports whether the first group of an IPv6 address may end here.
func colonSoon(b []byte, i int) bool {
	return b[i+4] == ':' || b[i+3] == ':' || b[i+2] == ':' || b[i+1] == ':'
}

// word masks what begins with a letter.
func (d *Detector) word(b []byte, i int, a uint16) (end, which int) {
	left := len(b) - i
	if a&actIBAN != 0 && left >= 15 && class[b[i+2]]&class[b[i+3]]&isDigit != 0 {
		if end := maskIBAN(b, i); end > 0 {
			return end, 2
		}
	}
	if a&actIPv6 != 0 && left >= 7 && colonSoon(b, i) {
		if end := maskIPv6(b, i); end > 0 {
			return end, 9
		}
	}
	if a&actNational != 0 && left >= 9 {
		if end := nationalWord(b, i); end > 0 {
			return end, 10
		}
	}
	if left < 20 {
		return 0, 0
	}
	if a&actAWS != 0 {
		if end := maskAWS(b, i); end > 0 {
			return end, 4
		}
	}
	if a&actToken != 0 {
		if end := maskToken(b, i); end > 0 {
			return end, 7
		}
	}
	return 0, 0
}
