// Package witness sends a log's checkpoints to witnesses (C2SP tlog-witness) and keeps their cosignatures. A witness signs
// that a checkpoint goes on from every one that it has signed before, so that whoever has the log's key cannot write another
// history of it and show that to some.
//
// It works beside the log and is waited for by nobody: a witness that is away is told of, and stops nothing.
package witness

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/weir-gateway/weir/core/ledger"
)

// Witness is one that checkpoints are sent to.
type Witness struct {
	Name string // in logs and metrics
	URL  string // what /add-checkpoint is put behind
	Key  *ledger.Witness
}

// Config of a Sender.
type Config struct {
	Ledger    *ledger.Ledger
	Witnesses []Witness
	Quorum    int // how many have to cosign
	// Newest returns the checkpoint to send; an error says that this process does not keep the log any more. Nil: the ledger's.
	Newest func() ([]byte, error)
	Log    *slog.Logger
	// Every is how often a witness is asked at most, Most how long one that fails is left alone at most, Timeout bounds a
	// request, Late is how long the quorum may lack before that is told. Defaults: 10 s, 5 min, 10 s, 10 min.
	Every, Most, Timeout, Late time.Duration
}

// Sender sends them.
type Sender struct {
	c      Config
	client *http.Client
	peers  []*peer
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	behind int64     // leaves of the first checkpoint that the quorum lacks
	since  time.Time // when there was one; zero: the quorum has everything
	told   time.Time // when that was last logged
}

// peer is one witness. Its fields but done are its goroutine's.
type peer struct {
	Witness
	s      *Sender
	old    int64 // leaves that the witness knows, as far as is known
	done   int64 // leaves that it has cosigned; under the sender's mu
	fails  int   // in a row
	reason reason
	told   time.Time // when its failure was last logged
	stuck  error     // what it has cosigned is not of this log: final, until somebody looks
}

// repeat is how often the log says the same again.
const repeat = 10 * time.Minute

// Start begins to send. Quorum is from 1 to the number of witnesses.
func Start(c Config) *Sender {
	s := prepare(c)
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, p := range s.peers {
		s.wg.Go(func() { p.run(ctx) })
	}
	s.wg.Go(func() { s.watch(ctx) })
	return s
}

// prepare finds out how far each witness is.
func prepare(c Config) *Sender {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Newest == nil {
		c.Newest = func() ([]byte, error) { return c.Ledger.Checkpoint(), nil }
	}
	for of, is := range map[*time.Duration]time.Duration{&c.Every: 10 * time.Second, &c.Most: 5 * time.Minute, &c.Timeout: 10 * time.Second, &c.Late: 10 * time.Minute} {
		if *of == 0 {
			*of = is
		}
	}
	s := &Sender{c: c, client: newClient(nil)}
	for _, w := range c.Witnesses {
		p := &peer{Witness: w, s: s}
		p.begin()
		s.peers = append(s.peers, p)
	}
	configured.Set(float64(len(s.peers)))
	return s
}

// Close stops. What is not sent is sent after the next start. A nil Sender has nothing to stop.
func (s *Sender) Close() {
	if s == nil {
		return
	}
	s.stop()
	s.wg.Wait()
	s.client.CloseIdleConnections()
	for _, p := range s.peers {
		forget(p.Name)
	}
	configured.Set(0)
	behindSeconds.Set(0)
}

// begin goes on from what the witness had cosigned when the process last ran.
func (p *peer) begin() {
	announce(p.Name)
	c, err := p.s.c.Ledger.Cosigned(p.Key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil: // it says nothing that can be trusted, and is written anew
		p.s.c.Log.Warn("ledger: what a witness had cosigned cannot be read, and is asked for again", "witness", p.Name, "error", err)
	default:
		if err := p.s.c.Ledger.Holds(c.Signed); err != nil {
			p.stuck = &failure{forked, fmt.Errorf("the witness cosigned %d leaves at %s that are not this log's first ones; it was written anew, or is an old copy: restore the ledger: %w", c.Size, c.Time.Format(time.RFC3339), err)}
			return
		}
		p.cosigned(c)
	}
}

func (p *peer) cosigned(c ledger.Cosigned) {
	p.s.mu.Lock()
	p.done = c.Size
	p.s.mu.Unlock()
	p.old = c.Size
	cosignedSize.WithLabelValues(p.Name).Set(float64(c.Size))
	cosignedTime.WithLabelValues(p.Name).Set(float64(c.Time.Unix()))
}

// run asks the witness whenever there is something new, one request at a time.
func (p *peer) run(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		err := p.send(ctx)
		if ctx.Err() != nil {
			return
		}
		p.tell(err, time.Now())
		wait := p.s.c.Every
		for i := 0; i < p.fails && wait < p.s.c.Most; i++ {
			wait *= 2
		}
		t.Reset(min(wait, max(p.s.c.Most, p.s.c.Every)))
	}
}

// tell counts and logs: the first time, when the reason becomes another, and now and then.
func (p *peer) tell(err error, now time.Time) {
	if err == nil {
		if p.fails > 0 {
			p.s.c.Log.Info("ledger: the witness cosigns again", "witness", p.Name, "failed", p.fails)
		}
		p.fails, p.reason = 0, ""
		failing.WithLabelValues(p.Name).Set(0)
		forkedGauge.WithLabelValues(p.Name).Set(0)
		return
	}
	why := reasonOf(err)
	errorsTotal.WithLabelValues(p.Name, string(why)).Inc()
	failing.WithLabelValues(p.Name).Set(1)
	is := 0.0
	if why == forked {
		is = 1
	}
	forkedGauge.WithLabelValues(p.Name).Set(is)
	p.fails++
	if why == p.reason && now.Sub(p.told) < repeat {
		return
	}
	p.reason, p.told = why, now
	level := slog.LevelWarn
	if why == forked {
		level = slog.LevelError
	}
	p.s.c.Log.Log(context.Background(), level, "ledger: a witness has not cosigned the checkpoint", "witness", p.Name, "reason", string(why), "error", err)
}

// watch tells when the quorum lacks.
func (s *Sender) watch(ctx context.Context) {
	t := time.NewTicker(s.c.Every)
	defer t.Stop()
	for {
		if signed, err := s.c.Newest(); err == nil {
			if c, err := s.c.Ledger.OpenOwn(signed); err == nil {
				s.reckon(c.Size, time.Now())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// reckon notes for how long the quorum has lacked something.
func (s *Sender) reckon(size int64, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var sizes []int64
	for _, p := range s.peers {
		sizes = append(sizes, p.done)
	}
	slices.Sort(sizes)
	covered := sizes[len(sizes)-s.c.Quorum] // that many have cosigned this, or more
	switch {
	case covered >= size:
		if !s.told.IsZero() {
			s.c.Log.Info("ledger: enough witnesses have cosigned the log again", "quorum", s.c.Quorum)
		}
		s.since, s.told = time.Time{}, time.Time{}
		behindSeconds.Set(0)
		return
	case s.since.IsZero() || covered >= s.behind:
		s.behind, s.since = size, now
	}
	late := now.Sub(s.since)
	behindSeconds.Set(late.Seconds())
	if late >= s.c.Late && (s.told.IsZero() || now.Sub(s.told) >= repeat) {
		s.told = now
		s.c.Log.Warn("ledger: too few witnesses have cosigned the log", "quorum", s.c.Quorum, "of", len(s.peers), "cosigned", covered, "leaves", size, "for", late.Round(time.Second))
	}
}
