package terminal

// line is the line that a cursor is on. One that the terminal has wrapped is still one line.
type line struct {
	cells   []rune
	at      int
	columns int  // of the terminal; 0: not known
	full    bool // a program has the whole screen
	jumped  bool // the cursor left the line by its own way
	ended   func(text []rune)
	screen  func(on bool)
	printed func(r rune)
}

func (l *line) print(r rune) {
	if l.printed != nil {
		l.printed(r)
	}
	if l.full || l.at >= MaxLine {
		return
	}
	l.reach(l.at + 1)
	l.cells[l.at] = r
	l.at++
}

// reach makes the line n characters long at least.
func (l *line) reach(n int) {
	for len(l.cells) < min(n, MaxLine) {
		l.cells = append(l.cells, ' ')
	}
}

func (l *line) control(b byte) {
	if l.full {
		return
	}
	switch b {
	case '\r':
		l.at = l.row()
	case '\n', '\v', '\f':
		l.end()
	case '\b':
		l.at = max(l.at-1, 0)
	case '\t':
		l.at = min((l.at/8+1)*8, MaxLine)
		l.reach(l.at)
	}
}

// row is where the present row of a wrapped line begins. At the margin the cursor is still in the row before.
func (l *line) row() int {
	if l.columns <= 0 || l.at == 0 {
		return 0
	}
	return (l.at - 1) / l.columns * l.columns
}

func (l *line) end() {
	if l.ended != nil {
		l.ended(l.cells)
	}
	l.cells, l.at = l.cells[:0], 0
}

func (l *line) single(final byte) {
	switch final {
	case 'c': // reset
		l.whole(false)
		l.jump()
	case 'E', 'D':
		l.control('\n')
	case 'M', '8':
		l.jump()
	}
}

// jump leaves the line for a place that is not known.
func (l *line) jump() {
	l.jumped = true
	if len(l.cells) > 0 {
		l.end()
	}
}

func (l *line) whole(on bool) {
	if on == l.full {
		return
	}
	if on && len(l.cells) > 0 {
		l.end()
	}
	l.full, l.cells, l.at = on, l.cells[:0], 0
	if l.screen != nil {
		l.screen(on)
	}
}

func (l *line) sequence(prefix, final byte, numbers []int) {
	if prefix == '?' && (final == 'h' || final == 'l') {
		for _, n := range numbers {
			if n == 1049 || n == 1047 || n == 47 {
				l.whole(final == 'h')
			}
		}
		return
	}
	if prefix != 0 || l.full {
		return
	}
	n := max(numbers[0], 1)
	switch final {
	case 'C', 'a':
		l.at = min(l.at+n, MaxLine)
	case 'D':
		l.at = max(l.at-n, 0)
	case 'G', '`':
		l.at = min(l.row()+n-1, MaxLine)
	case 'K':
		l.erase(numbers[0])
	case 'J':
		if numbers[0] == 0 { // from here to the end of the screen: of the line, as far as it is known
			l.erase(0)
		} else {
			l.jump()
		}
	case 'P': // take characters out
		if l.at < len(l.cells) {
			l.cells = append(l.cells[:l.at], l.cells[min(l.at+n, len(l.cells)):]...)
		}
	case '@': // make room
		n = min(n, MaxLine-len(l.cells))
		if l.at < len(l.cells) && n > 0 {
			tail := append([]rune(nil), l.cells[l.at:]...)
			l.cells = l.cells[:l.at]
			l.reach(l.at + n)
			l.cells = append(l.cells, tail...)
		}
	case 'X':
		for i := l.at; i < min(l.at+n, len(l.cells)); i++ {
			l.cells[i] = ' '
		}
	case 'A': // up within a wrapped line, or out of it
		if l.columns > 0 && l.at >= n*l.columns {
			l.at -= n * l.columns
		} else {
			l.jump()
		}
	case 'B', 'H', 'f', 'd', 'E', 'F', 'L', 'M', 'S', 'T', 'u':
		l.jump()
	}
}

func (l *line) erase(how int) {
	switch how {
	case 0:
		l.cells = l.cells[:min(l.at, len(l.cells))]
	case 1:
		for i := range min(l.at+1, len(l.cells)) {
			l.cells[i] = ' '
		}
	case 2:
		l.cells = l.cells[:0]
	}
}
