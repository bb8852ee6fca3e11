//go:build linux

package main

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestCluster runs the example as make cluster does.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a dozen processes")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Second)
	defer cancel()
	var out strings.Builder
	err := run(ctx, &out, "", 8, false)
	t.Log(out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`archive-0 works, archive-1 stands by`,
		`its clients came to the other one, which has taken \d+ sessions since`,
		`nobody noticed`,
		`the one that stood by works`,
		`weir verify: \d+ sessions, \d+ blocks, \d+ records, all sealed, nothing changed, missing or cut`,
		`all \d+ answers that clients saw are in it, byte for byte`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("it does not say %q", want)
		}
	}
}
