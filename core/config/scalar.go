package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Secret is the text of a secret as it stands in the file: a reference such as ${env:NAME}, or the secret itself.
// No way of printing it shows it; Reference gives it to whoever resolves it.
type Secret struct{ text string }

const hidden = "***"

// Reference returns the text as written. It may be the secret itself: hand it to the resolver, nowhere else.
func (s Secret) Reference() string { return s.text }

// IsZero reports whether nothing was given.
func (s Secret) IsZero() bool { return s.text == "" }

// Clear reports whether the secret itself stands in the file.
func (s Secret) Clear() bool { return s.text != "" && !strings.HasPrefix(s.text, "${") }

// String hides the secret.
func (s Secret) String() string { return hidden }

// GoString hides the secret.
func (s Secret) GoString() string { return hidden }

// MarshalText hides the secret, also in JSON and YAML.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the secret.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// ParseDuration reads a duration as time.ParseDuration does, and also days (d) and weeks (w): "90s", "1h30m", "400d".
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return 0, fmt.Errorf("%q has no unit; write %ss, %sm or %sh", s, s, s, s)
	}
	rest, total := s, time.Duration(0)
	for _, u := range []struct {
		suffix string
		unit   time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		head, tail, ok := strings.Cut(rest, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(head, 10, 64)
		if err != nil || n < 0 || n > int64(math.MaxInt64/u.unit) {
			return 0, notDuration(s)
		}
		if total += time.Duration(n) * u.unit; total < 0 {
			return 0, notDuration(s)
		}
		rest = tail
	}
	if rest == "" && rest != s {
		return total, nil
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || total+d < 0 {
		return 0, notDuration(s)
	}
	return total + d, nil
}

func notDuration(s string) error {
	return fmt.Errorf("%q is not a duration such as 90s, 1h30m or 400d", s)
}

var units = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"B", 1},
}

// ParseSize reads a number of bytes: "64MiB", "10MB", "512".
func ParseSize(s string) (int64, error) {
	number, scale := s, int64(1)
	for _, u := range units {
		if head, ok := strings.CutSuffix(s, u.suffix); ok {
			number, scale = strings.TrimSpace(head), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is not a size such as 64MiB, 10MB or 512", s)
	case n < 0:
		return 0, errors.New("a size cannot be negative")
	case n > math.MaxInt64/scale:
		return 0, fmt.Errorf("%q is more than can be counted", s)
	}
	return n * scale, nil
}
