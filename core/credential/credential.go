// Package credential knows where upstream secrets come from. A secret is read when it is needed, so that a rotated
// one is used without a reload; it is held for the time of one sign-in, and nothing in this package can print it.
package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// maxSecret bounds a secret file, in bytes.
const maxSecret = 64 << 10

// Source is where one secret is. Its zero value is an empty secret.
type Source struct {
	kind  string                                // "", "env", "file", "vault" or "clear"
	name  string                                // the variable or the path
	clear func() string                         // of kind clear; a function, since no printing of a struct around it can look inside
	read  func(context.Context) (string, error) // of kind vault
}

// Parse reads a reference: ${env:NAME}, ${file:PATH} or the secret itself. A relative path is relative to dir.
// The errors never hold the secret.
func Parse(reference, dir string) (Source, error) {
	if reference == "" {
		return Source{}, nil
	}
	inner, ok := strings.CutPrefix(reference, "${")
	if !ok {
		return Source{kind: "clear", clear: func() string { return reference }}, nil
	}
	inner, ok = strings.CutSuffix(inner, "}")
	kind, name, colon := strings.Cut(inner, ":")
	if !ok || !colon || name == "" || strings.ContainsAny(inner, "{}") {
		return Source{}, errors.New("credential: a reference is ${env:NAME} or ${file:PATH}, and nothing around it")
	}
	switch kind {
	case "env":
		if strings.ContainsAny(name, "= \t\n\x00") {
			return Source{}, fmt.Errorf("credential: %q is not the name of an environment variable", name)
		}
	case "file":
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
	case "vault":
		return Source{}, errors.New("credential: there is no Vault here: say where it is under vault:, or use ${env:NAME} or ${file:PATH}")
	default:
		return Source{}, fmt.Errorf("credential: there is no source %q: use ${env:NAME} or ${file:PATH}", kind)
	}
	return Source{kind: kind, name: name}, nil
}

// Read returns the secret as it is now. One line end at the end of a file is not part of it. A secret that is not
// there, and an empty one, are errors: a sign-in without a password must not happen by mistake.
func (s Source) Read(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	switch s.kind {
	case "env":
		v, ok := os.LookupEnv(s.name)
		if !ok || v == "" {
			return "", fmt.Errorf("credential: the environment variable %s is not set", s.name)
		}
		return v, nil
	case "file":
		return s.readFile()
	case "vault":
		return s.read(ctx)
	case "clear":
		return s.clear(), nil
	}
	return "", nil
}

func (s Source) readFile() (string, error) {
	f, err := os.Open(s.name)
	if err != nil {
		return "", fmt.Errorf("credential: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("credential: %w", err)
	case len(b) > maxSecret:
		return "", fmt.Errorf("credential: %s is larger than %d KiB", s.name, maxSecret>>10)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) == 0 {
		return "", fmt.Errorf("credential: %s is empty", s.name)
	}
	return string(b), nil
}

// String says where the secret is, and never what it is.
func (s Source) String() string {
	switch s.kind {
	case "":
		return "none"
	case "clear":
		return "***"
	}
	return "${" + s.kind + ":" + s.name + "}"
}

// GoString is String.
func (s Source) GoString() string { return s.String() }

// MarshalText is String, also for JSON.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String.
func (s Source) LogValue() slog.Value { return slog.StringValue(s.String()) }
