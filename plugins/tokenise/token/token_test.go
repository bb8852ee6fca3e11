package token

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

var key = []byte("a key of at least sixteen bytes")

func token(key []byte, value string) string { return string(New(key).Token(nil, []byte(value))) }

func form(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= '0' && r <= '9':
			return '0'
		case r >= 'a' && r <= 'z':
			return 'a'
		case r >= 'A' && r <= 'Z':
			return 'A'
		}
		return r
	}, s)
}

func TestToken(t *testing.T) {
	for _, v := range []string{
		"4111 1111 1111 1111", "ada.lovelace@example.com", "DE89 3704 0044 0532 0130 00", "123-45-6789", "Ada Lovelace", "+49 (30) 1234567", "AB-123456-c",
		strings.Repeat("long text 42 ", 100), "2026-11-23", "000000",
	} {
		got := token(key, v)
		if form(got) != form(v) || got == v {
			t.Errorf("%q became %q", v, got)
		}
		if again := token(key, v); again != got {
			t.Errorf("%q became %q, and then %q", v, got, again)
		}
		if other := token([]byte("another key, as long as that"), v); other == got {
			t.Errorf("%q has the same token with another key", v)
		}
	}
	for v, want := range map[string]string{
		"": "", "12345": "******", "abcd": "******", "-": "******", "a-1": "******", strings.Repeat("x", MaxLength+1): "******",
	} {
		if got := token(key, v); got != want {
			t.Errorf("%.20q became %q, not %q", v, got, want)
		}
	}
	// The letters of other alphabets do not stay.
	for _, v := range []string{"Jürgen Groß", "Лев Толстой", "李小龍 1234567", "\xff\xfe bytes \x80"} {
		got := token(key, v)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool { return r >= utf8.RuneSelf }) || utf8.RuneCountInString(got) != utf8.RuneCountInString(v) {
			t.Errorf("%q became %q", v, got)
		}
	}
	if token(key, "Jürgen Müller") == token(key, "Jurgen Muller") {
		t.Error("an umlaut does not count")
	}
}

// TestNoTwoShareAToken goes through all values of a form that has a million of them.
func TestNoTwoShareAToken(t *testing.T) {
	const all = 1_000_000
	n := all
	if testing.Short() {
		n = 50_000
	}
	k := New(key)
	seen := make([]uint64, all/64+1)
	var b, out []byte
	var moved int
	for i := range n {
		b = fmt.Appendf(b[:0], "%06d", i)
		out = k.Token(out[:0], b)
		v := 0
		for _, c := range out {
			v = v*10 + int(c-'0')
		}
		if seen[v/64]&(1<<(v%64)) != 0 {
			t.Fatalf("%q has the token %q of another", b, out)
		}
		seen[v/64] |= 1 << (v % 64)
		if !bytes.Equal(b, out) {
			moved++
		}
	}
	if moved < n-20 {
		t.Errorf("%d of %d are their own tokens", n-moved, n)
	}
}

// TestEveryCharacterCounts: a change anywhere changes half of the token and more, and the digits of tokens are even.
func TestEveryCharacterCounts(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	k := New(key)
	same, total := 0, 0
	var digits [10]int
	for range 5_000 {
		a := make([]byte, 16)
		for i := range a {
			a[i] = '0' + byte(r.IntN(10))
		}
		b := bytes.Clone(a)
		i := r.IntN(len(b))
		b[i] = '0' + (b[i]-'0'+1+byte(r.IntN(9)))%10
		x, y := k.Token(nil, a), k.Token(nil, b)
		for i := range x {
			total++
			if x[i] == y[i] {
				same++
			}
			digits[x[i]-'0']++
		}
	}
	if share := float64(same) / float64(total); share < 0.09 || share > 0.11 {
		t.Errorf("%.3f of the characters are the same after a change: want a tenth", share)
	}
	for d, n := range digits {
		if share := float64(n) / float64(total); share < 0.095 || share > 0.105 {
			t.Errorf("%d is %.3f of the digits", d, share)
		}
	}
	// Behind the first block as well.
	a, b := strings.Repeat("a", 300), strings.Repeat("a", 299)+"b"
	c := "b" + strings.Repeat("a", 299)
	if x, y := token(key, a), token(key, c); x[200:] == y[200:] || x[:100] == y[:100] {
		t.Error("a change at the begin does not reach the end")
	}
	if token(key, a) == token(key, b) {
		t.Error("a change at the end does not count")
	}
}

func BenchmarkToken(b *testing.B) {
	k := New(key)
	v := []byte("4111 1111 1111 1111")
	var out []byte
	for b.Loop() {
		out = k.Token(out[:0], v)
	}
}
