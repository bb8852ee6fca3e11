package detect

// National numbers whose form is told apart by more than its digits: a check character, or a form of its own.
//
//	GB  QQ 12 34 56 C           National Insurance number
//	ES  12345678Z, X1234567L    DNI and NIE, with their letter
//	IT  RSSMRA85T10A562S        codice fiscale, with its check character
//	FR  1 85 05 78 006 084 91   NIR, with its key
//	BR  529.982.247-25          CPF, with its two check digits
//	IN  2341 2341 2346          Aadhaar, with Verhoeff's check digit
//	DE  36 574 261 809          tax number, with its check digit

// nationalWord looks at what begins with a letter.
func nationalWord(b []byte, i int) int {
	switch {
	case len(b)-i >= 9 && (b[i] == 'X' || b[i] == 'Y' || b[i] == 'Z') && class[b[i+1]]&isDigit != 0:
		return hideAll(b, i, spanish(b, i+1, int(b[i]-'X'), 7))
	case len(b)-i >= 16 && class[b[i+2]]&class[b[i+5]]&class[b[i+15]]&isLetter != 0 && class[b[i+14]]&alnum != 0:
		return hideAll(b, i, italian(b, i))
	case len(b)-i >= 9 && (class[b[i+2]]&isDigit != 0 || b[i+2] == ' ' && class[b[i+3]]&isDigit != 0):
		return hideAll(b, i, british(b, i))
	}
	return 0
}

// nationalNumber looks at what begins with a digit; run digits stand together.
func nationalNumber(b []byte, i, run int) int {
	if i > 0 && (class[b[i-1]]&(alnum|isBase64) != 0 || b[i-1] == '.') {
		return 0
	}
	switch {
	case run == 8:
		return hideAll(b, i, spanish(b, i, 0, 8))
	case run == 3:
		return hideAll(b, i, brazilian(b, i))
	case run == 4:
		return hideAll(b, i, indian(b, i))
	case run == 2:
		return hideAll(b, i, german(b, i))
	case run == 15, run == 13, run == 1:
		return hideAll(b, i, french(b, i))
	}
	return 0
}

// hideAll puts stars over all letters and digits from i up to end, unless end is 0.
func hideAll(b []byte, i, end int) int {
	for k := i; k < end; k++ {
		if class[b[k]]&alnum != 0 {
			b[k] = '*'
		}
	}
	return end
}

// ends reports whether a number may end before j.
func ends(b []byte, j int) bool {
	return j == len(b) || class[b[j]]&alnum == 0 && b[j] != '_' && (b[j] != '-' && b[j] != '.' || j+1 == len(b) || class[b[j+1]]&alnum == 0)
}

// spanish looks for n digits from i, perhaps a -, and the letter that says their remainder. lead stands before the digits.
func spanish(b []byte, i, lead, n int) int {
	if len(b)-i < n+1 {
		return 0
	}
	v, j := lead, i
	for ; j < i+n; j++ {
		if class[b[j]]&isDigit == 0 {
			return 0
		}
		v = v*10 + int(b[j]-'0')
	}
	if b[j] == '-' && j+1 < len(b) {
		j++
	}
	if b[j] != "TRWAGMYFPDXBNJZSQVHLCKE"[v%23] || !ends(b, j+1) {
		return 0
	}
	return j + 1
}

// british looks for two letters, six digits, and A to D. Some letters are never given.
func british(b []byte, i int) int {
	never := func(c byte, list string) bool {
		for k := range len(list) {
			if c == list[k] {
				return true
			}
		}
		return c < 'A' || c > 'Z'
	}
	if never(b[i], "DFIQUV") || never(b[i+1], "DFIOQUV") {
		return 0
	}
	switch string(b[i : i+2]) {
	case "BG", "GB", "NK", "KN", "TN", "NT", "ZZ":
		return 0
	}
	n, j := 0, i+2
	for j < len(b) && n < 6 {
		switch {
		case class[b[j]]&isDigit != 0:
			n++
		case b[j] != ' ' || n%2 != 0 || b[j-1] == ' ':
			return 0
		}
		j++
	}
	if j < len(b) && b[j] == ' ' {
		j++
	}
	if n < 6 || j >= len(b) || b[j] < 'A' || b[j] > 'D' || !ends(b, j+1) {
		return 0
	}
	return j + 1
}

// italian looks for the 16 characters of a codice fiscale, the last of which is computed from the others.
func italian(b []byte, i int) int {
	const odd = "BAKPLCQDREVOSFTGUHMINJWZYX" // what a character at an odd place counts is where it stands in here
	sum := 0
	for k := range 15 {
		c := b[i+k] &^ 0x20
		v := 0
		switch {
		case class[b[i+k]]&isLetter != 0:
			v = int(c - 'A')
		case class[b[i+k]]&isDigit != 0:
			v = int(b[i+k] - '0')
		default:
			return 0
		}
		// A digit may be written as a letter where two persons would have the same code; names and months never are digits.
		if digit := class[b[i+k]]&isDigit != 0; digit == (k < 6 || k == 8 || k == 11) {
			if digit || !letterForDigit(c) {
				return 0
			}
		}
		if k%2 == 0 {
			for w := range len(odd) {
				if int(odd[w]-'A') == v {
					v = w
					break
				}
			}
		}
		sum += v
	}
	if c := b[i+15] &^ 0x20; c != byte('A'+sum%26) || !ends(b, i+16) {
		return 0
	}
	return i + 16
}

func letterForDigit(c byte) bool {
	switch c {
	case 'L', 'M', 'N', 'P', 'Q', 'R', 'S', 'T', 'U', 'V':
		return true
	}
	return false
}

// collect reads n digits that stand in groups, with one separator between groups, and returns where they end.
func collect(b []byte, i int, d []byte, groups []int, separators string) int {
	j, n := i, 0
	for k, size := range groups {
		if k > 0 {
			if j >= len(b) || b[j] != separators[min(k-1, len(separators)-1)] {
				return 0
			}
			j++
		}
		for range size {
			if j >= len(b) || class[b[j]]&isDigit == 0 {
				return 0
			}
			d[n] = b[j] - '0'
			n++
			j++
		}
	}
	if !ends(b, j) {
		return 0
	}
	return j
}

// french looks for sex, year, month, place and number, and the key: 97 less the remainder.
func french(b []byte, i int) int {
	var d [15]byte
	end := 0
	for _, groups := range [...][]int{{15}, {13, 2}, {1, 2, 2, 2, 3, 3, 2}} {
		if end = collect(b, i, d[:], groups, " "); end > 0 {
			break
		}
	}
	month := int(d[3])*10 + int(d[4])
	if end == 0 || d[0] != 1 && d[0] != 2 || month < 1 || month > 12 && month < 20 {
		return 0
	}
	n := 0
	for _, x := range d[:13] {
		n = (n*10 + int(x)) % 97
	}
	if 97-n != int(d[13])*10+int(d[14]) {
		return 0
	}
	return end
}

// brazilian looks for a CPF as it is written.
func brazilian(b []byte, i int) int {
	var d [11]byte
	end := collect(b, i, d[:], []int{3, 3, 3, 2}, "..-")
	if end == 0 {
		return 0
	}
	same := true
	for n := 9; n < 11; n++ {
		sum := 0
		for k := range n {
			sum += int(d[k]) * (n + 1 - k)
			same = same && d[k] == d[0]
		}
		if sum*10%11%10 != int(d[n]) {
			return 0
		}
	}
	if same {
		return 0
	}
	return end
}

// indian looks for three groups of four whose check digit is right.
func indian(b []byte, i int) int {
	var d [12]byte
	end := collect(b, i, d[:], []int{4, 4, 4}, " ")
	if end == 0 {
		end = collect(b, i, d[:], []int{4, 4, 4}, "-")
	}
	if end == 0 || d[0] < 2 || end+1 < len(b) && b[end] == ' ' && class[b[end+1]]&isDigit != 0 || i > 1 && b[i-1] == ' ' && class[b[i-2]]&isDigit != 0 {
		return 0
	}
	c := byte(0)
	for k := range d {
		c = verhoeffTimes[c][verhoeffTurn[k%8][d[11-k]]]
	}
	if c != 0 {
		return 0
	}
	return end
}

// verhoeffTimes is the multiplication of the dihedral group of ten elements, verhoeffTurn the permutation by place.
var verhoeffTimes, verhoeffTurn = func() (times, turn [10][10]byte) {
	for a := range 10 {
		for b := range 10 {
			switch {
			case a < 5 && b < 5:
				times[a][b] = byte((a + b) % 5)
			case a < 5:
				times[a][b] = byte(5 + (a+b-5)%5)
			case b < 5:
				times[a][b] = byte(5 + (a-5+5-b)%5)
			default:
				times[a][b] = byte((a - b + 5) % 5)
			}
		}
	}
	turn[0] = [10]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	turn[1] = [10]byte{1, 5, 7, 6, 2, 8, 3, 0, 9, 4}
	for k := 2; k < 10; k++ {
		for x := range 10 {
			turn[k][x] = turn[k-1][turn[1][x]]
		}
	}
	return times, turn
}()

// german looks for a tax number as it is written, in groups of 2, 3, 3 and 3.
func german(b []byte, i int) int {
	var d [11]byte
	end := collect(b, i, d[:], []int{2, 3, 3, 3}, " ")
	if end == 0 || d[0] == 0 {
		return 0
	}
	product := 10
	for _, x := range d[:10] {
		sum := (int(x) + product) % 10
		if sum == 0 {
			sum = 10
		}
		product = sum * 2 % 11
	}
	if (11-product)%10 != int(d[10]) {
		return 0
	}
	return end
}
