package credential

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

const canary = "c4n4ry-7f3a9d"

func TestSources(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("WEIR_TEST_SECRET", canary)
	t.Setenv("WEIR_TEST_EMPTY", "")
	for name, text := range map[string]string{"secret": canary + "\n", "dos": canary + "\r\n", "two": canary + "\n\n", "empty": "\n", "large": strings.Repeat("x", maxSecret+1)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct{ reference, want, fail string }{
		{"${env:WEIR_TEST_SECRET}", canary, ""},
		{"${file:secret}", canary, ""},
		{"${file:" + dir + "/secret}", canary, ""},
		{"${file:dos}", canary, ""},
		{"${file:two}", canary + "\n", ""},
		{canary, canary, ""},
		{"", "", ""},
		{"${env:WEIR_TEST_NONE}", "", "the environment variable WEIR_TEST_NONE is not set"},
		{"${env:WEIR_TEST_EMPTY}", "", "is not set"},
		{"${file:none}", "", "no such file"},
		{"${file:empty}", "", "is empty"},
		{"${file:large}", "", "larger than 64 KiB"},
		{"${vault:secret/db#password}", "", "there is no Vault here"},
		{"${aws:x}", "", `no source "aws"`},
		{"${env:}", "", "a reference is"},
		{"${env:A B}", "", "not the name"},
		{"${env:X", "", "a reference is"},
		{"${env:X}" + canary, "", "a reference is"},
		{"${env:X}${env:Y}", "", "a reference is"},
		{"${}", "", "a reference is"},
	} {
		t.Run(tc.reference, func(t *testing.T) {
			s, err := Parse(tc.reference, dir)
			var got core.Credential
			if err == nil {
				got, err = New("app", s).Resolve(t.Context(), core.Identity{})
			}
			if tc.fail != "" {
				if err == nil || !strings.Contains(err.Error(), tc.fail) || !strings.HasPrefix(err.Error(), "credential: ") {
					t.Fatalf("error = %v, want %q", err, tc.fail)
				}
				if strings.Contains(err.Error(), canary) {
					t.Fatalf("the error shows the secret: %v", err)
				}
				return
			}
			if err != nil || got.Password != tc.want || got.User != "app" {
				t.Fatalf("got %q, %v", got.Password, err)
			}
		})
	}
}

func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := Parse("${file:"+path+"}", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"one", "two"} {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Read(t.Context()); err != nil || got != want {
			t.Errorf("Read = %q, %v, want %q", got, err, want)
		}
	}
}

func TestNeverShown(t *testing.T) {
	s, err := Parse(canary, "")
	if err != nil {
		t.Fatal(err)
	}
	r := New("app", s)
	c, err := r.Resolve(t.Context(), core.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	log := slog.New(slog.NewJSONHandler(&logged, nil))
	log.Info("x", "source", s, "resolver", r, "credential", c.String())
	j, _ := json.Marshal(map[string]any{"source": s, "resolver": r})
	for _, shown := range []string{
		fmt.Sprint(s), fmt.Sprintf("%+v %#v %q %x", s, s, s, s), fmt.Sprintf("%v %+v %#v", *r, r, *r), fmt.Sprintf("%v %+v %#v", c, c, c), string(j), logged.String(),
	} {
		if strings.Contains(shown, canary) || strings.Contains(shown, fmt.Sprintf("%x", canary)) {
			t.Errorf("shown: %s", shown)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "${env:X}", "${file:a/b}", "${vault:a#b}", "${", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, reference string) {
		s, err := Parse(reference, "/d")
		if err == nil && len(reference) > 3 && !strings.HasPrefix(reference, "${") && strings.Contains(s.String(), reference) {
			t.Fatalf("shows %q", reference)
		}
	})
}
