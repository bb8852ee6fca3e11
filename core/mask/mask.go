// Package mask holds the column transforms that a verdict can name.
//
// What a masked value looks like depends on the column's class (core.ClassOf), so that a driver which parses the
// value by its type still can:
//
//	            text, unknown        json              number             uuid        bool, time, bytes, array, other
//	redact      ****                 "****"            NULL               NULL        NULL
//	partial     a***@example.com     "****"            0042 (digits → 0)  NULL        NULL
//	hash        3f1c…                "3f1c…"           NULL               a UUID      NULL
//	tokenise    Xkq-492              "3f1c…"           digits, no larger  a UUID      NULL
//	fixed       the value given      as a JSON string  if it is a number  if a UUID   bool: if a bool, time: if a time, else NULL
//	null        NULL                 NULL              NULL               NULL        NULL
//
// A cell in a binary format gets a transform only where the binary form of its type is its text (text, varchar,
// json …); anything else becomes NULL. A NULL stays NULL.
package mask

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-gateway/weir/core"
)

// Func appends the masked form of value to dst and returns it, or false for NULL. It keeps neither and does not
// change value. It may be called by several goroutines at a time.
type Func func(dst, value []byte) ([]byte, bool)

// transform makes the Func of one mask for the text of a value; class tells what the result must look like.
type transform struct {
	args []string // the names it takes
	make func(a args, class core.Class, k *Key) (Func, error)
}

var transforms = map[string]transform{
	"redact":   {[]string{"text"}, makeRedact},
	"partial":  {[]string{"first", "last", "char"}, makePartial},
	"hash":     {[]string{"length"}, makeHash},
	"tokenise": {nil, makeTokenise},
	"fixed":    {[]string{"value"}, makeFixed},
	"null":     {nil, func(args, core.Class, *Key) (Func, error) { return toNull, nil }},
}

// other spellings of the same words
var spellings = map[string]string{"tokenize": "tokenise", "nullify": "null", "constant": "fixed"}

// Names lists the transforms.
func Names() []string {
	var names []string
	for n := range transforms {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Option changes how a mask is compiled.
type Option func(*settings)

type settings struct{ key *Key }

// WithKey sets the key of hash and tokenise. Without it a key is made for the life of the process, so that the
// same value has another hash after a restart.
func WithKey(k *Key) Option { return func(s *settings) { s.key = k } }

var processKey = func() *Key {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand crashes the process instead
	return NewKey(b)
}()

// Check reports what is wrong with m whatever column it will meet: an unknown transform or argument.
func Check(m core.Mask) error {
	_, err := Compile(m, core.Column{Type: "text"})
	return err
}

// Compile returns what hides the values of c as m says.
func Compile(m core.Mask, c core.Column, opts ...Option) (Func, error) {
	s := settings{key: processKey}
	for _, o := range opts {
		o(&s)
	}
	name := m.With
	if n, ok := spellings[name]; ok {
		name = n
	}
	t, ok := transforms[name]
	if !ok {
		return nil, fmt.Errorf("mask: no transform %q for column %q: use one of %s", m.With, m.Column, strings.Join(Names(), ", "))
	}
	for a := range m.Args {
		if !slices.Contains(t.args, a) {
			return nil, fmt.Errorf("mask: %s has no argument %q: it takes %s", name, a, orNone(t.args))
		}
	}
	class := core.ClassOf(c.Type)
	f, err := t.make(args(m.Args), class, s.key)
	if err != nil {
		return nil, fmt.Errorf("mask: %s: %w", name, err)
	}
	if c.Binary && !TextInBinary(c.Type) {
		return toNull, nil
	}
	return f, nil
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// TextInBinary reports whether the binary form of a type is its text, so that a cell in binary format can be
// given a text. Types that nobody here has heard of do not count.
func TextInBinary(typ string) bool {
	return core.ClassOf(typ) == core.ClassText || strings.EqualFold(typ, "json")
}

func toNull(dst, _ []byte) ([]byte, bool) { return dst, false }

// plain reports whether a class takes any text.
func plain(c core.Class) bool { return c == core.ClassText || c == core.ClassUnknown }

type args map[string]string

func (a args) number(name string, def, least, most int) (int, error) {
	v, ok := a[name]
	if !ok {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("argument %s is %q: give a number from %d to %d", name, v, least, most)
	}
	return n, nil
}

// limitConstant bounds what a policy can have written in place of every value.
const limitConstant = 256

func makeRedact(a args, class core.Class, _ *Key) (Func, error) {
	text := "****"
	if t, ok := a["text"]; ok {
		text = t
	}
	return constant(text, class, false)
}

func makeFixed(a args, class core.Class, _ *Key) (Func, error) {
	v, ok := a["value"]
	if !ok {
		return nil, fmt.Errorf("argument value is missing")
	}
	return constant(v, class, true)
}

// constant writes the same text for every value, where the class can hold it.
func constant(text string, class core.Class, parse bool) (Func, error) {
	if len(text) > limitConstant || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return nil, fmt.Errorf("the text must be UTF-8 without NUL of at most %d bytes", limitConstant)
	}
	ok := plain(class)
	switch {
	case class == core.ClassJSON:
		b, _ := json.Marshal(text)
		text, ok = string(b), true
	case !parse:
	case class == core.ClassNumber:
		_, err := strconv.ParseFloat(text, 64)
		ok = err == nil && strings.Trim(text, "+-0123456789.eE") == ""
	case class == core.ClassBool:
		ok = slices.Contains([]string{"t", "f", "true", "false", "0", "1"}, text)
	case class == core.ClassUUID:
		ok = isUUID(text)
	case class == core.ClassTime:
		ok = isTime(text)
	}
	if !ok {
		return toNull, nil
	}
	return func(dst, _ []byte) ([]byte, bool) { return append(dst, text...), true }, nil
}

func isTime(s string) bool {
	for _, layout := range []string{time.DateOnly, time.DateTime, time.TimeOnly, time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05-07"} {
		if _, err := time.Parse(layout, s); err == nil {
			return true
		}
	}
	return false
}

func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return false
			}
		} else if c|0x20 < 'a' && (c < '0' || c > '9') || c|0x20 > 'f' {
			return false
		}
	}
	return true
}
