package archive

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive/file"
	"github.com/weir-gateway/weir/core/ledger"
)

// child is the process that is killed: it records several sessions at once, each record's wire naming the session and
// the number, and prints what was settled after it was.
func child(dir string) {
	p, err := start(dir)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	boot := core.NewID(time.Now())
	for i := range 4 {
		go func() {
			rnd := rand.New(rand.NewPCG(uint64(i), uint64(time.Now().UnixNano())))
			for n := 0; ; n++ {
				id := fmt.Sprintf("%s-%d-%d", boot, i, n)
				r, err := p.j.Open(session(id))
				if err != nil {
					fmt.Println("error", err)
					return
				}
				for seq := range rnd.IntN(60) + 1 {
					size := rnd.IntN(300)
					if rnd.IntN(40) == 0 {
						size = 400 << 10 // several entries, several segments
					}
					rec := &core.Record{Seq: uint64(seq), Time: time.Now(), Kind: core.KindBytes, Direction: core.FromClient, Facts: []byte(`{}`), Wire: wire(id, seq, size)}
					m, err := r.Record(context.Background(), rec)
					if err == nil {
						err = r.Settle(context.Background(), m)
					}
					if err != nil {
						fmt.Println("error", err)
						return
					}
					fmt.Println("settled", id, seq)
				}
				if err := r.Seal(core.EndClosed); err != nil {
					fmt.Println("error", err)
					return
				}
				if rnd.IntN(3) == 0 {
					time.Sleep(time.Duration(rnd.IntN(10)) * time.Millisecond)
				}
			}
		}()
	}
	select {}
}

func wire(id string, seq, size int) []byte {
	head := fmt.Sprintf("%s %d ", id, seq)
	return append([]byte(head), strings.Repeat("x", size)...)
}

// TestKill9 kills the whole of it at random moments, and then looks: every record that was settled is in the archive,
// once; numbering is dense; chains hold; every session is sealed.
func TestKill9(t *testing.T) {
	kills := 30
	if testing.Short() {
		kills = 6
	}
	dir := t.TempDir()
	settled := map[string]int{} // session -> how many records were settled
	for k := range kills {
		run(t, dir, settled, time.Duration(1+rand.IntN(120))*time.Millisecond, k)
	}
	start1 := time.Now()
	p := mustStart(t, dir)
	if took := time.Since(start1); took > 2*time.Second {
		t.Errorf("ready after %v", took)
	}
	p.close(t)
	rep := verify(t, dir)
	if !rep.OK() {
		t.Fatalf("%d problems, first: %v", len(rep.Problems), rep.Problems[0])
	}
	if len(rep.Open) > 0 {
		t.Fatalf("sessions without a seal: %v", rep.Open)
	}
	s, err := file.Open(filepath.Join(dir, "archive"), file.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ends := map[core.End]int{}
	total := 0
	for id, want := range settled {
		var dec ledger.Decoder
		n := 0
		err := s.Blocks(context.Background(), id, func(b core.Block) error {
			h, err := ledger.ParseBlock(b.Bytes)
			if err != nil {
				return err
			}
			return dec.Decode(&h, func(r *core.Record, _ time.Duration) error {
				if w := string(r.Wire); !strings.HasPrefix(w, fmt.Sprintf("%s %d ", id, n)) || int(r.Seq) != n || strings.Trim(w[strings.LastIndexByte(w, ' ')+1:], "x") != "" {
					return fmt.Errorf("record %d is %.60q", n, w)
				}
				n++
				return nil
			})
		})
		if err != nil {
			t.Fatalf("session %s: %v", id, err)
		}
		if n < want {
			t.Fatalf("session %s: %d records, %d were settled", id, n, want)
		}
		total += want
		ends[dec.Seal().End]++
	}
	t.Logf("%d kills, %d sessions, %d settled records, ends %v", kills, len(settled), total, ends)
	if total < kills*5 || ends[core.EndCrash] < kills/3 {
		t.Errorf("the test did not test: %d settled, ends %v", total, ends)
	}
}

// run starts a child, kills it after a while, and notes what it said was settled.
func run(t *testing.T, dir string, settled map[string]int, after time.Duration, round int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "WEIR_ARCHIVE_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() // killed: its error is no news
	defer cmd.Process.Kill()
	early := round%5 == 4 // some die before they are ready, in the middle of taking up what was left
	if early {
		go func() {
			time.Sleep(20*time.Millisecond + after)
			cmd.Process.Kill()
		}()
	}
	sc := bufio.NewScanner(out)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		switch {
		case f[0] == "ready" && !early:
			go func() {
				time.Sleep(after)
				cmd.Process.Kill()
			}()
		case f[0] == "settled" && len(f) == 3:
			var seq int
			if _, err := fmt.Sscan(f[2], &seq); err == nil {
				settled[f[1]] = max(settled[f[1]], seq+1)
			}
		case f[0] == "error":
			t.Fatalf("round %d: %s", round, sc.Text())
		}
	}
}
