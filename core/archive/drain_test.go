package archive

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// What the journal has handed over is stored when Drain returns, however soon it is asked after that: JetStream tells a
// publisher that it has a message before its consumers count it.
func TestDrainSeesWhatWasJustPublished(t *testing.T) {
	p := mustStart(t, t.TempDir())
	defer p.close(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 300 {
		id := fmt.Sprintf("s%d", i)
		say(t, p.j, id, "alice", "select 1")
		if err := p.j.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		if err := p.w.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		sealed := false
		if err := p.store.Blocks(ctx, id, func(b core.Block) error { sealed = b.Header.Seal; return nil }); err != nil || !sealed {
			t.Fatalf("session %d: sealed in the store: %v, %v", i, sealed, err)
		}
	}
}
