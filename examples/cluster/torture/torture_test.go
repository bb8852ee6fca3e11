//go:build linux

package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// TestTorture is the short form. It runs where TORTURE is set; continuous integration runs make torture instead, on its own.
func TestTorture(t *testing.T) {
	if os.Getenv("TORTURE") == "" {
		t.Skip("keeps a machine busy for a minute; set TORTURE=1")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	var out strings.Builder
	w := &torture{Kills: number("KILLS", 50), Clients: 12, Within: 3 * time.Minute, Seed: uint64(time.Now().UnixNano()), Out: &out}
	err := w.run(ctx)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	if w.total() < number("KILLS", 50) {
		t.Errorf("%d processes were killed in %v", w.total(), w.Within)
	}
}
