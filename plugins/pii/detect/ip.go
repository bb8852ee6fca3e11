package detect

// maskIPv4 looks for four numbers up to 255 with points between, and leaves the first. Networks, loopback and what has more
// points (a version, an object identifier) are none.
func maskIPv4(b []byte, i int) int {
	if i > 0 && (class[b[i-1]]&(alnum|isBase64) != 0 || b[i-1] == '.') {
		return 0
	}
	var octets [4]int
	j, first := i, 0
	for k := range octets {
		start, v := j, 0
		for j < len(b) && j-start < 4 && class[b[j]]&isDigit != 0 {
			v = v*10 + int(b[j]-'0')
			j++
		}
		if n := j - start; n == 0 || n > 3 || v > 255 || n > 1 && b[start] == '0' {
			return 0
		}
		octets[k] = v
		if k == 0 {
			first = j
		}
		if k < 3 {
			if j == len(b) || b[j] != '.' {
				return 0
			}
			j++
		}
	}
	if j < len(b) && (class[b[j]]&(alnum|isBase64) != 0 || b[j] == '.' && j+1 < len(b) && class[b[j+1]]&isDigit != 0) {
		return 0
	}
	if octets[0] == 0 || octets[0] == 127 || octets[0] == 255 || octets[1]|octets[2]|octets[3] == 0 || octets[0] < 10 && octets[1] < 30 && octets[2] < 30 && octets[3] < 30 && !saysAddress(b[:i]) {
		return 0
	}
	hideDigits(b[first:j], j)
	return j
}

// saysAddress reports whether what stands shortly before speaks of an address: 1.2.3.4 is as often a version.
func saysAddress(before []byte) bool {
	if len(before) > 16 {
		before = before[len(before)-16:]
	}
	for i := range before {
		if i > 0 && class[before[i-1]]&isLetter != 0 {
			continue
		}
		for _, w := range [...]string{"ip", "addr", "host", "from", "client", "remote", "peer"} {
			if hasFold(before[i:], w) {
				return true
			}
		}
	}
	return false
}

// maskIPv6 looks for eight groups of hexadecimal digits, or fewer with one ::, and leaves the first. Addresses with fewer than
// three groups that are no prefix in use are none: a::b is code.
func maskIPv6(b []byte, i int) int {
	if i > 0 && (class[b[i-1]]&(alnum|isBase64) != 0 || b[i-1] == ':' || b[i-1] == '.') {
		return 0
	}
	j, groups, gap, digits, letters := i, 0, false, false, false
	first := 0
	for {
		start := j
		for j < len(b) && j-start < 5 && hexadecimal(b[j]) {
			digits = digits || class[b[j]]&isDigit != 0
			letters = letters || class[b[j]]&isLetter != 0
			j++
		}
		switch n := j - start; {
		case n > 4:
			return 0
		case n > 0:
			groups++
		}
		if groups == 1 && first == 0 {
			first = j
		}
		if j >= len(b) || b[j] != ':' || groups == 8 {
			break
		}
		if j+1 < len(b) && b[j+1] == ':' {
			if gap {
				return 0
			}
			gap = true
			j += 2
			if j >= len(b) || !hexadecimal(b[j]) {
				break
			}
			continue
		}
		if j+1 >= len(b) || !hexadecimal(b[j+1]) {
			break
		}
		j++
	}
	switch {
	case j < len(b) && (class[b[j]]&alnum != 0 || b[j] == ':' || b[j] == '_'), !digits:
		return 0
	case gap && (groups < 2 || groups > 7 || groups < 3 && (first-i != 4 || b[i] != '2' && b[i]|0x20 != 'f')), !gap && (groups != 8 || !letters && first-i < 3):
		return 0
	}
	for k := first; k < j; k++ {
		if b[k] != ':' {
			b[k] = '*'
		}
	}
	return j
}

func hexadecimal(c byte) bool { return class[c]&isDigit != 0 || c|0x20 >= 'a' && c|0x20 <= 'f' }
