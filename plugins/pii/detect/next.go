package detect

// What a scan costs is the bytes at which nothing begins. The functions here pass over them, and have few variables: a Go guest
// moves all that a function has at each turn of each of its loops.

// What stands before a byte, in the low half of a step, and what it is itself, in the high half.
const (
	behindOther uint8 = 1 << iota
	behindLetter
	behindDigit
	firstOfWord // behindOther only, and what it begins depends on the word

	behindAny = behindOther | behindLetter | behindDigit
)

// prepare computes the steps from the acts.
func (d *Detector) prepare() {
	for c := range d.step {
		is := behindOther
		switch {
		case class[c]&isLetter != 0:
			is = behindLetter
		case class[c]&isDigit != 0:
			is = behindDigit
		}
		from := uint8(0)
		switch a := d.act[c]; {
		case a&actWord != 0:
			from = behindOther | firstOfWord
		case a == actDigit:
			from = behindOther | behindLetter
		case a != 0:
			from = behindAny
		}
		d.step[c] = is<<4 | from
		if d.act[c]&actToken != 0 {
			d.pairs[c] |= tokensBegin[c]
		}
		if d.act[c]&actAWS != 0 {
			d.pairs[c] |= 1<<('K'&31) | 1<<('S'&31) | 1<<('R'&31) | 1<<('I'&31) | 1<<('G'&31) | 1<<('N'&31) | 1<<('B'&31) | 1<<('C'&31)
		}
		if d.act[c]&actJWT != 0 {
			d.pairs[c] |= 1 << ('y' & 31)
		}
	}
}

// leastDigits is how many a number has that is not an address.
const leastDigits = 7

// next returns where the next entity may begin, from i on: where a number begins that is long enough, or a word that may be more
// than that, or one of the signs stands; else how long b is.
//
//go:noinline
func (d *Detector) next(b []byte, i int) int {
	step, behind := &d.step, behindOther
	if i > 0 && i <= len(b) {
		behind = step[b[i-1]] >> 4
	}
	for i < len(b) {
		s := step[b[i]]
		if s&behind == 0 {
			behind = s >> 4
			i++
			continue
		}
		j, is := i+1, s>>4
		if s&firstOfWord == 0 && is != behindDigit {
			return i
		}
		for j < len(b) && step[b[j]]>>4 == is {
			j++
		}
		if is == behindDigit {
			if len(b)-i >= leastIP && (j-i <= 4 && colonSoon(b, i) || j-i <= 3 && b[j] == '.' && dotSoon(b, j+2) || reach(b, j, j-i) >= leastDigits) {
				return i
			}
		} else if j == len(b) {
			if j-i >= 16 || j-i >= 2 && len(b)-i >= 20 && d.pairs[b[i]]&(1<<(b[i+1]&31)) != 0 {
				return i
			}
		} else if next := b[j]; step[next]>>4 == behindDigit || // DE89…, AB123456C, X1234567L, RSSMRA85T…, fe80:: and tokens
			next == ' ' && j-i == 2 || // AB 12 34 56 C
			next == ':' && j-i <= 4 || // fe::
			j-i >= 16 || // a codice fiscale with letters for its digits
			j-i >= 2 && len(b)-i >= 20 && d.pairs[b[i]]&(1<<(b[i+1]&31)) != 0 {
			return i
		}
		i, behind = j, is
	}
	return i
}

// digits returns how many stand together from i on.
//
//go:noinline
func digits(b []byte, i int) int {
	n := 1
	for i+n < len(b) && class[b[i+n]]&isDigit != 0 {
		n++
	}
	return n
}

// reach adds to some digits those behind j, over the separators of all numbers that have any, and stops at 13 or more, the fewest of a
// card. Most numbers are of no more than six digits, and too short for everything but an address.
//
//go:noinline
func reach(b []byte, j, digits int) int {
	for ; j < len(b) && digits < 13; j++ {
		switch c := b[j]; {
		case class[c]&isDigit != 0:
			digits++
		case c != ' ' && c != '-' && c != '.' && c != '/' && c != '(' && c != ')':
			return digits
		}
	}
	return digits
}
