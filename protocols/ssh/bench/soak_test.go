package main

import (
	"flag"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

var megabytes = flag.Int64("megabytes", 16, "that TestMemory copies each way")

// TestMemory: what passes leaves a real gateway's memory as it is. What is resident counts, as an operator sees it.
// With record: metadata that is the sessions'. With full the journal has its share, which is one for all sessions: its queues, what it
// uses again, and what the embedded JetStream keeps of files that the archive has not taken yet; and the collector lets all of it double.
func TestMemory(t *testing.T) {
	if _, err := exec.LookPath("scp"); err != nil {
		t.Skip("apt-get install openssh-client")
	}
	weir := filepath.Join(t.TempDir(), "weir")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", weir, "../../..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b := &bench{weir: weir, megabytes: *megabytes, gateways: true}
	t.Cleanup(b.close)
	if err := b.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	most := map[string]int64{"metadata": 64, "full": 512}
	for _, w := range b.ways {
		before := status(w, "RssAnon") >> 10
		top := before
		stop, watched := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(watched)
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					top = max(top, status(w, "RssAnon")>>10)
				}
			}
		}()
		for _, up := range []bool{true, false} {
			if _, err := b.copy(t.Context(), w, up); err != nil {
				t.Error(w.name, err)
			}
		}
		close(stop)
		<-watched
		t.Logf("record: %s: %d MB there and back; %d MB of memory at rest, %d at most", w.name, *megabytes, before, top)
		if before == 0 || top-before > most[w.name] {
			t.Errorf("record: %s: %d MB more, of %d", w.name, top-before, most[w.name])
		}
	}
}
