package detect

// Each function looks at b from i, masks what it recognises, and returns the index behind it, or 0.

// maskEmail looks at an @ from the middle: back over the local part, forth over the domain, which has a dot and ends
// with a label of at least two letters.
func maskEmail(b []byte, at int) int {
	start := at
	for start > 0 && at-start < 64 && class[b[start-1]]&isLocal != 0 {
		start--
	}
	for start < at && (b[start] == '.' || b[start] == '\'') {
		start++
	}
	if start == at || b[at-1] == '.' {
		return 0
	}
	end, dot := at+1, -1
	for end < len(b) && end-at <= 255 && class[b[end]]&isDomain != 0 {
		if b[end] == '.' {
			if b[end-1] == '.' || b[end-1] == '@' {
				break
			}
			dot = end
		}
		end++
	}
	for end > at+1 && (b[end-1] == '.' || b[end-1] == '-') {
		end--
		if end == dot { // a full stop, not a label
			dot = -1
			for j := end - 1; j > at; j-- {
				if b[j] == '.' {
					dot = j
					break
				}
			}
		}
	}
	if dot < 0 || end-dot < 3 || class[b[dot+1]]&isDigit != 0 {
		return 0
	}
	keep := start
	if at-start > 1 {
		keep++
		for keep < at && b[keep]&0xc0 == 0x80 { // the whole first character
			keep++
		}
	}
	for j := keep; j < at; j++ {
		b[j] = '*'
	}
	return end
}

// maskSSN looks for 123-45-6789, with - or spaces, and none of the numbers that are never given.
func maskSSN(b []byte, i int) bool {
	if len(b)-i < 11 || b[i+3] != b[i+6] || b[i+3] != '-' && b[i+3] != ' ' {
		return false
	}
	for j := range 11 {
		if j != 3 && j != 6 && class[b[i+j]]&isDigit == 0 {
			return false
		}
	}
	if len(b)-i > 11 && class[b[i+11]]&isDigit != 0 || i > 0 && b[i-1] == '-' || len(b)-i > 12 && b[i+11] == '-' && class[b[i+12]]&isDigit != 0 {
		return false
	}
	n := func(from, to int) (v int) {
		for _, c := range b[i+from : i+to] {
			v = v*10 + int(c-'0')
		}
		return v
	}
	if area := n(0, 3); area == 0 || area == 666 || area >= 900 || n(4, 6) == 0 || n(7, 11) == 0 {
		return false
	}
	for j := range 11 {
		if j != 3 && j != 6 {
			b[i+j] = '*'
		}
	}
	return true
}

// maskCard looks for 13 to 19 digits, in one piece or in groups with a space or a - between, with the prefix and
// length of a card network and a right check digit. Of several ends, the last one that fits counts.
func maskCard(b []byte, i int) int {
	var digits [19]byte
	var ends [19]int // of each length at which a group ends
	n, j := 0, i
	for j < len(b) {
		switch {
		case class[b[j]]&isDigit != 0:
			if n == len(digits) {
				n++ // too long, unless a group ended before
				goto judge
			}
			digits[n] = b[j] - '0'
			n++
			if j+1 == len(b) || class[b[j+1]]&isDigit == 0 {
				ends[n-1] = j + 1
			}
			j++
		case (b[j] == ' ' || b[j] == '-') && j+1 < len(b) && class[b[j+1]]&isDigit != 0:
			j++
		default:
			goto judge
		}
	}
judge:
	for n = min(n, len(digits)); n >= 13; n-- {
		if ends[n-1] > 0 && !inHex(b, i, ends[n-1]) && network(digits[:n]) && luhn(digits[:n]) {
			left := n
			for k := i; k < ends[n-1]; k++ {
				if class[b[k]]&isDigit == 0 {
					continue
				}
				if left > 4 {
					b[k] = '*'
				}
				left--
			}
			return ends[n-1]
		}
	}
	return 0
}

// inHex reports whether digits stand within a longer hexadecimal number: those of a hash are no card.
func inHex(b []byte, i, end int) bool {
	return end < len(b) && class[b[end]]&isLetter != 0 || i > 1 && class[b[i-1]]&isLetter != 0 && hexadecimal(b[i-1]) && hexadecimal(b[i-2])
}

func luhn(d []byte) bool {
	sum := 0
	for i, c := range d {
		x := int(c)
		if (len(d)-i)%2 == 0 {
			if x *= 2; x > 9 {
				x -= 9
			}
		}
		sum += x
	}
	return sum%10 == 0
}

// network reports whether a number begins as those of a card network do, and has a length of theirs (ISO/IEC 7812).
func network(d []byte) bool {
	n := len(d)
	four := int(d[0])*1000 + int(d[1])*100 + int(d[2])*10 + int(d[3])
	two := four / 100
	switch {
	case d[0] == 4: // Visa
		return n == 13 || n == 16 || n == 19
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720: // Mastercard
		return n == 16
	case two == 34, two == 37: // American Express
		return n == 15
	case four >= 3528 && four <= 3589: // JCB
		return n >= 16
	case two == 36, two == 38, two == 39, four/10 >= 300 && four/10 <= 305: // Diners
		return n >= 14
	case four == 6011, two == 65, four/10 >= 644 && four/10 <= 649, two == 62, two == 81: // Discover, UnionPay
		return n >= 16
	case two == 50, two >= 56 && two <= 69: // Maestro
		return n >= 13
	case four >= 2200 && four <= 2204: // Mir
		return n >= 16
	case two == 97: // Troy
		return n == 16
	}
	return false
}

// ibanLengths are the lengths by country, from the registry of ISO 13616.
var ibanLengths = func() map[[2]byte]int {
	m := map[[2]byte]int{}
	const table = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30"
	for i := 0; i < len(table); i += 4 {
		m[[2]byte{table[i], table[i+1]}] = int(table[i+2]-'0')*10 + int(table[i+3]-'0')
	}
	return m
}()

// maskIBAN looks for two letters, two digits and the rest of a country's length, with spaces between groups or not,
// whose remainder modulo 97 is 1.
func maskIBAN(b []byte, i int) int {
	if class[b[i+1]]&isLetter == 0 || class[b[i+2]]&isDigit == 0 || class[b[i+3]]&isDigit == 0 {
		return 0
	}
	length := ibanLengths[[2]byte{b[i] &^ 0x20, b[i+1] &^ 0x20}]
	if length == 0 {
		return 0
	}
	var at [34]int
	n, j := 0, i
	for ; j < len(b) && n < length; j++ {
		switch {
		case class[b[j]]&alnum != 0:
			at[n] = j
			n++
		case b[j] == ' ' && n >= 4 && b[j-1] != ' ':
		default:
			return 0
		}
	}
	if n < length || j < len(b) && class[b[j]]&alnum != 0 {
		return 0
	}
	remainder := 0
	for k := range length {
		c := b[at[(k+4)%length]]
		if class[c]&isDigit != 0 {
			remainder = (remainder*10 + int(c-'0')) % 97
		} else {
			remainder = (remainder*100 + int(c&^0x20-'A') + 10) % 97
		}
	}
	if remainder != 1 {
		return 0
	}
	for _, k := range at[2:length] {
		b[k] = '*'
	}
	return j
}

// maskAWS looks for an access key id: a prefix of four letters and 16 more.
func maskAWS(b []byte, i int) int {
	switch string(b[i : i+4]) {
	case "AKIA", "ASIA", "AROA", "AIDA", "AGPA", "ANPA", "ABIA", "ACCA":
	default:
		return 0
	}
	for _, c := range b[i+4 : i+20] {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return 0
		}
	}
	if len(b)-i > 20 && class[b[i+20]]&alnum != 0 {
		return 0
	}
	stars(b[i+4 : i+20])
	return i + 20
}

// maskJWT looks for three parts of base64url, of which the first two begin as JSON objects do. Where there are none it returns where
// its first part ends, too: nothing that begins before that is one, and to look at each would take the square of its length.
func maskJWT(b []byte, i int) (end, none int) {
	j := i
	for part := range 3 {
		start := j
		if part < 2 && (len(b)-j < 8 || string(b[j:j+3]) != "eyJ") {
			return 0, none
		}
		for j < len(b) && class[b[j]]&isBase64 != 0 {
			j++
		}
		if part == 0 {
			none = j
		}
		if part < 2 {
			if j-start < 8 || j == len(b) || b[j] != '.' {
				return 0, none
			}
			j++
		}
	}
	for k := i; k < j; k++ {
		if b[k] != '.' {
			b[k] = '*'
		}
	}
	return j, 0
}

// maskPrivateKey looks for -----BEGIN … PRIVATE KEY----- and hides what follows, to -----END, a quotation mark (the
// key stands in JSON) or the end. Line ends stay.
func maskPrivateKey(b []byte, i int) int {
	const begin, end = "-----BEGIN ", "-----END"
	if len(b)-i < len(begin) || string(b[i:i+len(begin)]) != begin {
		return 0
	}
	j, header := i+len(begin), -1
	for k := j; k+5 <= len(b) && k-j < 64; k++ {
		if string(b[k:k+5]) == "-----" {
			header = k
			break
		}
	}
	const word = "PRIVATE KEY"
	if header < 0 {
		return 0
	}
	kind := string(b[j:header])
	has := false
	for k := 0; k+len(word) <= len(kind); k++ {
		has = has || kind[k:k+len(word)] == word
	}
	if !has {
		return 0
	}
	for j = header + 5; j < len(b); j++ {
		if b[j] == '"' || b[j] == '-' && len(b)-j >= len(end) && string(b[j:j+len(end)]) == end {
			break
		}
		if b[j] != '\n' && b[j] != '\r' && (b[j] != '\\' || j+1 == len(b) || b[j+1] != 'n') {
			if b[j] == 'n' && b[j-1] == '\\' { // \n as JSON writes it
				continue
			}
			b[j] = '*'
		}
	}
	return j
}

// tokens are the prefixes of well-known access tokens, with how many characters follow at least.
var tokens = [...]struct {
	prefix string
	least  int
}{
	{"ghp_", 36},
	{"gho_", 36},
	{"ghu_", 36},
	{"ghs_", 36},
	{"ghr_", 36},
	{"github_pat_", 50},
	{"glpat-", 20},
	{"xoxb-", 20},
	{"xoxp-", 20},
	{"xoxa-", 20},
	{"xoxs-", 20},
	{"xoxr-", 20},
	{"sk_live_", 20},
	{"rk_live_", 20},
	{"AIza", 35},
	{"npm_", 36},
	{"sk_test_", 20},
	{"whsec_", 32},
	{"sk-ant-", 40},
	{"sk-proj-", 40},
	{"hf_", 34},
	{"dop_v1_", 64},
	{"SG.", 60},
	{"shpat_", 32},
	{"hvs.", 24},
	{"AGE-SECRET-KEY-", 58},
	{"pypi-", 80},
	{"xapp-", 20},
	{"glrt-", 20},
	{"ya29.", 30},
	{"dckr_pat_", 27},
}

// tokensBegin has, for the first byte of a prefix, what the second may be: a bit for its lower five bits.
var tokensBegin = func() (t [256]uint32) {
	for _, x := range tokens {
		t[x.prefix[0]] |= 1 << (x.prefix[1] & 31)
	}
	return t
}()

func maskToken(b []byte, i int) int {
	if tokensBegin[b[i]]&(1<<(b[i+1]&31)) == 0 { // most words end here
		return 0
	}
	for k := range tokens {
		t := &tokens[k]
		if b[i] != t.prefix[0] || len(b)-i < len(t.prefix)+t.least || string(b[i:i+len(t.prefix)]) != t.prefix {
			continue
		}
		j := i + len(t.prefix)
		for j < len(b) && (class[b[j]]&isBase64 != 0 || b[j] == '.' && b[j-1] != '.' && t.prefix[len(t.prefix)-1] == '.') {
			j++
		}
		if j-i-len(t.prefix) < t.least {
			continue
		}
		stars(b[i+len(t.prefix) : j])
		return j
	}
	return 0
}

func stars(b []byte) {
	for i := range b {
		b[i] = '*'
	}
}
