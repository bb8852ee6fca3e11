package replay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// own is a protocol that shows results in a way of its own, and leaves everything else.
type own struct {
	fails error
	how   core.Playing
}

func (*own) Formats() []string { return []string{"results"} }

func (o *own) Play(out io.Writer, how core.Playing) core.Playback {
	o.how = how
	return &ownPlayback{o, out}
}

type ownPlayback struct {
	*own
	out io.Writer
}

func (p *ownPlayback) Show(r *core.Record) (bool, error) {
	if r.Kind == core.KindResult {
		_, err := fmt.Fprintf(p.out, "own result %d\n", r.Seq)
		return true, err
	}
	return p.how.Format == "results", nil
}

func (p *ownPlayback) Close() error {
	_, _ = io.WriteString(p.out, "own end\n")
	return p.fails
}

// TestPlayer: what a protocol shows by itself stands among what all share, in its place and in its time.
func TestPlayer(t *testing.T) {
	s := &shelf{}
	pack(t, s, conversation(), core.EndClosed)
	var shared, mixed, alone bytes.Buffer
	o := &own{}
	for out, opts := range map[*bytes.Buffer]Options{
		&shared: {}, &mixed: {Player: o, Playing: core.Playing{Format: "text"}}, &alone: {Player: &own{}, Playing: core.Playing{Format: "results"}},
	} {
		if err := Text(context.Background(), out, s, "s1", opts); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(shared.String(), "own") || !strings.HasPrefix(mixed.String(), "-- ") || !strings.Contains(mixed.String(), "> ") || !strings.Contains(mixed.String(), "\nown result ") || !strings.HasSuffix(mixed.String(), "own end\n") {
		t.Errorf("%s\n%s", shared.String(), mixed.String())
	}
	if strings.Contains(alone.String(), "> ") || !strings.Contains(alone.String(), "own result ") {
		t.Error(alone.String())
	}
	failing := errors.New("nothing to show")
	if err := Text(context.Background(), io.Discard, s, "s1", Options{Player: &own{fails: failing}}); !errors.Is(err, failing) {
		t.Errorf("a playback that has nothing: %v", err)
	}
	began := time.Now()
	if err := Text(context.Background(), io.Discard, s, "s1", Options{Player: o, Speed: 1}); err != nil || time.Since(began) < 85*time.Millisecond { // 90 ms
		t.Errorf("its time: %v, %v", time.Since(began), err)
	}
}
