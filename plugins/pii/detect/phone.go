package detect

// maskPhone looks at a +, a ( or a digit for a telephone number:
//
//	+49 30 1234567      international, 8 to 15 digits behind a country code that there is
//	0049 30 1234567     the same, with a space, point or - in it
//	(202) 555-0143      of North America, with its groups apart; a 1 may stand before
//	tel. 030 1234567    any of 7 to 15 digits behind a word that says so
//
// The last two digits stay.
func maskPhone(b []byte, i int) int {
	if i > 0 {
		switch p := b[i-1]; {
		case class[p]&(alnum|isBase64) != 0, p == '.', p == '+', p == '/':
			return 0
		case p == ':' && i > 1 && class[b[i-2]]&isDigit != 0: // a time
			return 0
		}
	}
	var digits [15]byte
	var ends [len(digits)]int // where groups end, by how many digits came before
	n, groups, open, j := 0, 0, false, i
	if b[j] == '+' {
		j++
	}
	last := byte(0) // a digit, a parenthesis or a separator
scan:
	for ; j < len(b); j++ {
		c := b[j]
		switch {
		case class[c]&isDigit != 0:
			if n == len(digits) {
				break scan
			}
			if last != 'd' {
				groups++
			}
			digits[n], last = c-'0', 'd'
			if n++; j+1 == len(b) || class[b[j+1]]&alnum == 0 {
				ends[n-1] = j + 1
			}
		case c == '(' && !open && n <= 6 && last != '(':
			open, last = true, c
		case c == ')' && open && last == 'd':
			open, last = false, c
		case (c == ' ' || c == '-' || c == '.' || c == '/') && (last == 'd' || last == ')'):
			last = c
		default:
			break scan
		}
	}
	// What follows may be another number: of several ends, the last one that fits counts.
	context, asked := false, false
	for ; n >= 7; n-- {
		end := ends[n-1]
		if end == 0 || end+1 < len(b) && b[end] == ':' && class[b[end+1]]&isDigit != 0 {
			continue
		}
		d := digits[:n]
		switch {
		case b[i] == '+':
			if n < 8 || !countryCode(d) {
				continue
			}
		case n >= 10 && d[0] == 0 && d[1] == 0 && groups > 1 && countryCode(d[2:]):
		case northAmerican(b[i:end], d):
		default:
			if !asked {
				context, asked = saysPhone(b[:i]), true
			}
			if !context {
				continue
			}
		}
		hideDigits(b[i:end], n-2)
		return end
	}
	return 0
}

// hideDigits puts stars over the first n digits.
func hideDigits(b []byte, n int) {
	for i, c := range b {
		if n > 0 && class[c]&isDigit != 0 {
			b[i] = '*'
			n--
		}
	}
}

// countryCode reports whether a number begins with one that the ITU has given (E.164), of the length that such numbers have.
func countryCode(d []byte) bool {
	switch d[0] {
	case 1:
		return len(d) == 11 && d[1] >= 2 && d[4] >= 2
	case 7:
		return len(d) == 11
	case 0:
		return false
	}
	if three := int(d[0])*100 + int(d[1])*10 + int(d[2]); three == 210 || three == 214 || three == 215 || three == 217 || three == 219 ||
		three/10 == 28 || three/10 == 83 || three/10 == 89 || three == 259 || three == 424 || three == 699 || three == 804 {
		return false
	}
	return len(d) >= 8
}

// northAmerican looks for 3-3-4 digits in groups, with the digits that area and exchange can begin with.
func northAmerican(b, d []byte) bool {
	if len(d) == 11 && d[0] == 1 {
		if len(b) < 2 || class[b[1]]&isDigit != 0 {
			return false
		}
		d, b = d[1:], b[2:]
		for len(b) > 0 && (b[0] == ' ' || b[0] == '-' || b[0] == '.') {
			b = b[1:]
		}
	}
	if len(d) != 10 || d[0] < 2 || d[3] < 2 || d[1] == 9 {
		return false
	}
	shapes := [...]string{"ddd-ddd-dddd", "ddd.ddd.dddd", "ddd ddd dddd", "(ddd) ddd-dddd", "(ddd) ddd dddd", "(ddd)ddd-dddd", "ddd ddd-dddd"}
	for _, s := range shapes {
		if len(s) != len(b) {
			continue
		}
		fits := true
		for k := range b {
			fits = fits && (s[k] == 'd' && class[b[k]]&isDigit != 0 || s[k] == b[k])
		}
		if fits {
			return true
		}
	}
	return false
}

// saysPhone reports whether a word for a telephone stands shortly before.
func saysPhone(before []byte) bool {
	if len(before) > 20 {
		before = before[len(before)-20:]
	}
	behind := false // a letter
	for i, c := range before {
		if class[c]&isLetter == 0 {
			behind = false
			continue
		}
		if behind {
			continue
		}
		behind = true
		word, more := "", ""
		switch c | 0x20 {
		case 't':
			word = "tel"
		case 'p':
			word = "phone"
		case 'm':
			word = "mobile"
		case 'c':
			word, more = "cell", "call"
		case 'f':
			word = "fax"
		case 'w':
			word = "whatsapp"
		case 'h':
			word = "handy"
		default:
			continue
		}
		if hasFold(before[i:], word) || more != "" && hasFold(before[i:], more) {
			return true
		}
	}
	return false
}

// hasFold reports whether b begins with a lower-case word, in any case.
func hasFold(b []byte, word string) bool {
	if len(b) < len(word) {
		return false
	}
	for i := range len(word) {
		if b[i] != word[i] && b[i]|0x20 != word[i] {
			return false
		}
	}
	return true
}
