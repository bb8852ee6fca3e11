package sql

import (
	"context"
	"testing"
	"time"
)

// A second parser comes only for somebody who has waited, and never a third.
func TestParsersOnDemand(t *testing.T) {
	r := NewReader()
	ctx := context.Background()
	if err := r.Warm(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.borrow(ctx); err != nil {
		t.Fatal(err)
	}
	go func() {
		time.Sleep(parserPatience / 5)
		r.free <- struct{}{}
	}()
	if err := r.borrow(ctx); err != nil || r.parsers.Load() != 1 {
		t.Fatalf("%d parsers after a short wait, %v", r.parsers.Load(), err)
	}
	start := time.Now()
	if err := r.borrow(ctx); err != nil || r.parsers.Load() != 2 || time.Since(start) < parserPatience {
		t.Fatalf("%d parsers after %v, %v", r.parsers.Load(), time.Since(start), err)
	}
	short, cancel := context.WithTimeout(ctx, 3*parserPatience)
	defer cancel()
	if err := r.borrow(short); err == nil || r.parsers.Load() != 2 {
		t.Fatalf("a third parser: %d, %v", r.parsers.Load(), err)
	}
}

// Who waits while the grammar is being compiled does not have it compiled once more.
func TestParsersWhileCompiling(t *testing.T) {
	r := NewReader()
	if err := r.borrow(context.Background()); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 3*parserPatience)
	defer cancel()
	if err := r.borrow(short); err == nil || r.parsers.Load() != 1 {
		t.Fatalf("%d parsers, %v", r.parsers.Load(), err)
	}
}
