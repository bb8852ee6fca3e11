package retention

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

const childDir = "WEIR_RETENTION_CHILD"

// TestPurgeChild is the process that TestPurgeKilled kills.
func TestPurgeChild(t *testing.T) {
	dir := os.Getenv(childDir)
	if dir == "" {
		t.Skip("a part of TestPurgeKilled")
	}
	p := open(t, dir, nil)
	fmt.Println("purging")
	r, err := p.k.Purge(context.Background(), "child", now, false)
	fmt.Println("purged", len(r.Removed), err)
}

// A purge that is killed at any moment leaves an archive that verifies: what it had begun to remove has its tombstone, and
// what it had not is whole. The next one ends it.
func TestPurgeKilled(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir, nil)
	var ids []string
	for i := range 60 {
		ids = append(ids, fmt.Sprintf("s%02d-%s-%d", i, []string{"short", "orders", "forever"}[i%3], 31+i))
	}
	p.fill(ids...)
	if err := p.k.Hold(t.Context(), "counsel", "case", ids[3]); err != nil {
		t.Fatal(err)
	}
	p.close()
	killed, part := 0, 0
	for range 60 {
		c := exec.Command(os.Args[0], "-test.run", "^TestPurgeChild$")
		c.Env = append(os.Environ(), childDir+"="+dir)
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewScanner(out)
		done := false
		for in.Scan() {
			switch line := in.Text(); {
			case line == "purging":
				// Longer from time to time: a purge takes some 20 ms, and each one that is killed has less to do.
				time.AfterFunc(time.Duration(rand.IntN(1000+killed*1500))*time.Microsecond, func() { _ = c.Process.Kill() })
			case strings.HasPrefix(line, "purged"):
				done = true
			}
		}
		_ = c.Wait()
		v := p.verify()
		if !v.OK() || v.Sessions+len(v.Removed) < len(ids) {
			t.Fatalf("after %d kills: %+v", killed, v)
		}
		for _, r := range v.Removed {
			if !strings.Contains(r.Session, "-short-") || r.Session == ids[3] {
				t.Fatalf("removed: %+v", r)
			}
			if r.Left > 0 {
				part++
			}
		}
		if done {
			break
		}
		killed++
	}
	p = open(t, dir, nil)
	if _, err := p.k.Purge(t.Context(), "ops", now, false); err != nil {
		t.Fatal(err)
	}
	if v := p.verify(); !v.OK() || len(v.Removed) != 19 || v.Sessions != 41 || v.Removed[0].Left != 0 {
		t.Fatalf("in the end: %+v", v)
	}
	t.Logf("%d kills; %d times a removed session was still there in part", killed, part)
	if killed < 2 {
		t.Errorf("only %d purges were killed", killed)
	}
}
