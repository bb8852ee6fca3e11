package opa

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestOutline: what may be masked and held is told without asking, each once, and what is worked out is told as such.
func TestOutline(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules.rego"), []byte(`package weir.guardrails

mask contains {"column": "email", "with": "partial"} if not "support" in input.identity.groups

mask contains {"column": "email", "with": "partial"} if input.identity.kind == "agent"

mask contains {"column": c, "with": "redact"} if some c in ["a", "b"]

hold contains {"rule": "big-delete", "reason": "r", "approvers": ["dba", "lead"]} if not input.event.command.where

deny contains {"rule": "no-ddl", "reason": "r", "hint": "h"} if "ddl" in input.event.command.effects
`), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := Load(context.Background(), Config{Name: "x", Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(p.Outline()); got != "[{mask  redact} {mask email partial} {hold big-delete dba or lead}]" {
		t.Error(got)
	}
	if err := os.WriteFile(filepath.Join(dir, "rules.rego"), []byte("package weir.access\n\nallow if true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = Load(context.Background(), Config{Name: "x", Path: dir}); err != nil || len(p.Outline()) != 0 {
		t.Error(p.Outline(), err)
	}
}
