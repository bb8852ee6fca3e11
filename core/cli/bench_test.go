package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// TestBenchRefuses: what cannot be measured is refused, and says what to do. README.md measures a database.
func TestBenchRefuses(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(p.must("token", "--subject", "ada", "--group", "staff")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUse, "accepts 1 arg"},
		{[]string{"nowhere"}, exitUse, `has no target "nowhere"`},
		{[]string{"one", "--clients", "0"}, exitUse, "--clients: 0 is not from 1 to 256"},
		{[]string{"one", "--rounds", "0"}, exitUse, "--rounds: 0 is not"},
		{[]string{"one", "--time", "1h"}, exitUse, "--time: 1h0m0s is not"},
		{[]string{"one"}, exitUse, "echo cannot be measured"},
	} {
		if code, _, text := p.weir(append(append([]string{"bench"}, tt.args...), "--token-file", token)...); code != tt.code || !strings.Contains(text, tt.want) {
			t.Errorf("%q: exit %d, %s", tt.args, code, text)
		}
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
}

// dummy is a way whose answers take a known time.
type dummy struct {
	takes  time.Duration
	fails  error
	closed *int
}

func (d dummy) Ask(context.Context) error { time.Sleep(d.takes); return d.fails }
func (d dummy) Close() error              { *d.closed++; return nil }

// TestMeasureWays: the figures are those of the ways, and every client is closed, whatever happens.
func TestMeasureWays(t *testing.T) {
	closed := 0
	open := func(takes time.Duration, fails error) func(context.Context) (core.Probe, error) {
		return func(context.Context) (core.Probe, error) { return dummy{takes, fails, &closed}, nil }
	}
	got, err := measureWays(t.Context(), []way{{"direct", open(5*time.Millisecond, nil)}, {"weir", open(20*time.Millisecond, nil)}}, 3, 3, 50*time.Millisecond)
	if err != nil || len(got) != 2 || closed != 6 {
		t.Fatal(got, err, closed)
	}
	if d, w := got[0], got[1]; d.OfDirect != 1 || w.OfDirect > 0.9 || d.P50 < 5 || w.P50 < 20 || w.Added != w.P50-d.P50 || w.P99 < w.P50 || d.Rate < w.Rate {
		t.Errorf("%+v", got)
	}
	gone := errors.New("gone")
	if _, err := measureWays(t.Context(), []way{{"direct", open(0, nil)}, {"weir", open(0, gone)}}, 2, 1, time.Millisecond); !errors.Is(err, gone) || !strings.HasPrefix(err.Error(), "weir: ") {
		t.Error(err)
	}
	if closed != 10 {
		t.Errorf("%d are closed", closed)
	}
}
