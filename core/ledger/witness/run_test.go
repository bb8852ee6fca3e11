package witness

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/weir-gateway/weir/core/ledger/witness/witnesstest"
)

// kept is a log that tests read.
type kept struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (k *kept) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.b.Write(b)
}

func (k *kept) count(text string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Count(k.b.String(), text)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

func valueOf(t *testing.T, c prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// TestDownAndBack: one of two witnesses goes away. The log and the other one go on; what lacks is told, once, and comes when
// the witness is back.
func TestDownAndBack(t *testing.T) {
	l := openLog(t, t.TempDir(), t.TempDir())
	up, away := witnesstest.Start(t, "witness.example/up", l.PublicKey()), witnesstest.Start(t, "witness.example/away", l.PublicKey())
	var logged kept
	s := Start(Config{
		Ledger: l, Quorum: 2, Every: 5 * time.Millisecond, Most: 20 * time.Millisecond, Late: 50 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&logged, nil)),
		Witnesses: []Witness{{"up", up.URL, up.Parsed(t)}, {"away", away.URL, away.Parsed(t)}},
	})
	defer s.Close()
	has := func(f *witnesstest.Witness, size int64) func() bool {
		return func() bool { c, err := l.Cosigned(f.Parsed(t)); return err == nil && c.Size == size }
	}
	behind := func() float64 { return valueOf(t, behindSeconds) }
	// On a busy machine the quorum may lack for longer than Late at any time: each is told, and told to be over.
	tooFew, again := func() int { return logged.count("too few witnesses have cosigned") }, func() int { return logged.count("enough witnesses have cosigned the log again") }
	grow(t, l, "a", 3)
	eventually(t, "both", func() bool { return has(up, 3)() && has(away, 3)() && behind() == 0 && tooFew() == again() })
	before := tooFew()
	away.With(func(s *witnesstest.State) {
		s.Answer = func(w http.ResponseWriter, _ []byte) bool { w.WriteHeader(http.StatusBadGateway); return true }
	})
	grow(t, l, "b", 4)
	eventually(t, "the other goes on", has(up, 7))
	eventually(t, "it is told", func() bool { return tooFew() > before && tooFew() > again() })
	errs := func() float64 {
		return valueOf(t, errorsTotal.WithLabelValues("away", string(unreachable)).(prometheus.Metric))
	}
	eventually(t, "it is asked again and again", func() bool { return errs() > 5 })
	if n := logged.count("witness=away reason=unreachable"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	if behind() == 0 || valueOf(t, failing.WithLabelValues("away")) != 1 || valueOf(t, failing.WithLabelValues("up")) != 0 || !has(away, 3)() {
		t.Error("the metrics do not say it")
	}
	away.With(func(s *witnesstest.State) { s.Answer = nil })
	eventually(t, "it is back", func() bool {
		return has(away, 7)() && behind() == 0 && valueOf(t, failing.WithLabelValues("away")) == 0
	})
	eventually(t, "that is told", func() bool {
		return logged.count("cosigns again") > 0 && tooFew() == again()
	})
	if valueOf(t, cosignedSize.WithLabelValues("away")) != 7 || valueOf(t, configured) != 2 {
		t.Error("the metrics do not say it")
	}
}

// TestQuorum: with one of two asked for, one that is away is no matter.
func TestQuorum(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		quorum int
		done   []int64
		size   int64
		behind float64 // after a minute
	}{
		{1, []int64{0, 0}, 0, 0},
		{1, []int64{5, 0}, 5, 0},
		{2, []int64{5, 0}, 5, 60},
		{2, []int64{5, 4}, 5, 60},
		{2, []int64{5, 6}, 5, 0},
		{2, []int64{1, 5, 5}, 5, 0},
		{3, []int64{1, 5, 5}, 5, 60},
	} {
		s := &Sender{c: Config{Quorum: c.quorum, Late: time.Hour}}
		for _, n := range c.done {
			s.peers = append(s.peers, &peer{s: s, done: n})
		}
		s.reckon(c.size, now)
		s.reckon(c.size, now.Add(time.Minute))
		if got := valueOf(t, behindSeconds); got != c.behind {
			t.Errorf("%+v: behind for %v", c, got)
		}
	}
	// A log that grows all the time is behind by what was there when it was looked at last, and not for ever.
	s := &Sender{c: Config{Quorum: 1, Late: time.Hour}}
	p := &peer{s: s}
	s.peers = []*peer{p}
	for i := range int64(100) {
		p.done = i
		s.reckon(i+1, now.Add(time.Duration(i)*time.Minute))
	}
	if got := valueOf(t, behindSeconds); got != 0 {
		t.Errorf("behind for %v", got)
	}
}

// TestGone: a process that keeps the log no more sends nothing.
func TestGone(t *testing.T) {
	l := openLog(t, t.TempDir(), t.TempDir())
	f := witnesstest.Start(t, "witness.example/w", l.PublicKey())
	grow(t, l, "a", 3)
	p := peerOf(t, l, f)
	p.s.c.Newest = func() ([]byte, error) { return nil, http.ErrServerClosed }
	wantReason(t, p.send(t.Context()), local, "Server closed")
	if _, asked := f.Seen(); asked != 0 {
		t.Error("it was asked")
	}
	var none *Sender
	none.Close()
}
