package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// torture is one run.
type torture struct {
	Kills, Records, Clients int
	Within                  time.Duration
	Seed                    uint64
	Flips                   bool
	Dir                     string
	Out                     io.Writer

	c       *loopback.Cluster
	load    *loopback.Load
	rnd     *rand.Rand
	mu      sync.Mutex
	counts  map[string]int
	order   []string
	busy    map[*loopback.Process]bool // being broken, or on its way back
	cutNow  map[*loopback.Link]bool
	failed  error
	wg      sync.WaitGroup
	quorum  time.Time // when a NATS server was broken last
	upAfter time.Duration
	slow    time.Duration // the longest time that a process took to be back
	small   string        // a small disk, where there is one
}

// limits of what may take long on a busy machine.
const (
	backWithin   = 60 * time.Second
	sealedWithin = 90 * time.Second
	s3Within     = 3 * time.Minute
	wipedWithin  = 90 * time.Second
	// electionsEvery is how long NATS servers are left in peace: an election alone takes them 4 to 9 seconds.
	electionsEvery = 10 * time.Second
)

func (t *torture) run(ctx context.Context) (err error) {
	began := time.Now()
	keep := t.Dir != ""
	if keep {
		err = os.Mkdir(t.Dir, 0o700)
	} else {
		t.Dir, err = os.MkdirTemp("", "weir-torture-")
	}
	if err != nil {
		return err
	}
	t.rnd, t.counts, t.busy = rand.New(rand.NewPCG(t.Seed, 1)), map[string]int{}, map[*loopback.Process]bool{}
	t.cutNow = map[*loopback.Link]bool{}
	o := loopback.Options{Dir: t.Dir, Log: t.Out, Links: true, Bounded: 4, Encrypted: keyPeriod, S3: true}
	if o.Weir, err = program(ctx, t.Dir); err != nil {
		return err
	}
	unmount := t.smallDisk(&o)
	if t.c, err = loopback.Start(ctx, o); err != nil {
		unmount()
		return err
	}
	defer func() {
		err = errors.Join(err, t.c.Close())
		unmount()
		if err == nil && !keep {
			err = os.RemoveAll(t.Dir)
		} else {
			fmt.Fprintf(t.Out, "everything is in %s\n", t.Dir)
		}
	}()
	fmt.Fprintf(t.Out, "seed %d; up in %.1f s\n", t.Seed, time.Since(began).Seconds())

	began = time.Now()
	load := t.c.Begin(t.Clients, fmt.Sprint("t", t.Seed%1000))
	t.load = load
	fates := t.begin(ctx, 4)
	told := began
	for t.total() < t.Kills || int(load.Answers.Load())*3 < t.Records || t.few(fates) { // an answer is three records and more
		if ctx.Err() != nil || t.failure() != nil || t.Within > 0 && time.Since(began) > t.Within {
			break
		}
		t.once()
		if time.Since(told) > time.Minute {
			told = time.Now()
			fmt.Fprintf(t.Out, "%.0f s: %s; %d sessions, %d answers\n", time.Since(began).Seconds(), t.tell(), load.Sessions.Load(), load.Answers.Load())
		}
		t.mu.Lock()
		wait := time.Duration(20+t.rnd.IntN(250)) * time.Millisecond
		t.mu.Unlock()
		time.Sleep(wait)
	}
	t.wg.Wait()
	took := time.Since(began)
	seen := load.End()
	if err := t.up(); err != nil {
		return errors.Join(t.failure(), err)
	}
	all := fates.end() // those that have begun go on to their end
	if err := t.failure(); err != nil {
		return err
	}
	fmt.Fprintf(t.Out, "%.0f s of it: %s\n%d sessions, %d answers, %d denied, %d times turned away; the slowest start took %.1f s\n",
		took.Seconds(), t.tell(), load.Sessions.Load(), load.Answers.Load(), load.Refused.Load(), load.Turned.Load(), t.slow.Seconds())
	if err := t.settle(ctx, seen, all, fates); err != nil {
		return err
	}
	return errors.Join(t.judgeFates(all, fates), t.judge(seen))
}

// few reports whether some fate has befallen less than two subjects.
func (t *torture) few(s *subjects) bool {
	_, least := s.each()
	return least < 2
}

// program is the weir that is broken: one that allows sessions to be kept for seconds.
func program(ctx context.Context, dir string) (string, error) {
	if given := os.Getenv("WEIR_BINARY"); given != "" {
		return filepath.Abs(given)
	}
	path := filepath.Join(dir, "weir")
	out, err := exec.CommandContext(ctx, "go", "build", "-ldflags", "-X github.com/weir-gateway/weir/core/config.leastKept=1s", "-o", path, "github.com/weir-gateway/weir").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building weir: %w\n%s", err, out)
	}
	return path, nil
}

// total is how many processes have been killed.
func (t *torture) total() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for what, k := range t.counts {
		if strings.HasPrefix(what, "kill") {
			n += k
		}
	}
	return n
}

func (t *torture) tell() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []string
	for _, what := range t.order {
		all = append(all, fmt.Sprintf("%d × %s", t.counts[what], what))
	}
	return strings.Join(all, ", ")
}

func (t *torture) count(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts[what] == 0 {
		t.order = append(t.order, what)
		slices.Sort(t.order)
	}
	t.counts[what]++
}

func (t *torture) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = err
	}
}

func (t *torture) failure() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// take picks a process of a group that nobody is breaking just now.
func (t *torture) take(group []*loopback.Process) *loopback.Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range t.rnd.Perm(len(group)) {
		if p := group[i]; !t.busy[p] {
			t.busy[p] = true
			return p
		}
	}
	return nil
}

// breakOne does something to a process of a group, and brings it back while the next fault comes.
func (t *torture) breakOne(what string, group []*loopback.Process, do func(*loopback.Process)) {
	p := t.take(group)
	if p == nil {
		return
	}
	t.count(what)
	t.wg.Go(func() {
		do(p)
		began := time.Now()
		err := p.Start()
		if err == nil {
			err = t.back(p)
		}
		if err != nil {
			t.fail(fmt.Errorf("after %s: %w", what, err))
		}
		slow := time.Since(began)
		t.peace(p)
		t.mu.Lock()
		t.slow = max(t.slow, slow)
		delete(t.busy, p)
		t.mu.Unlock()
	})
}

// peace lets a process do some work before it is broken again. Some gateways get none: they are broken while sessions
// open.
func (t *torture) peace(p *loopback.Process) {
	i := slices.Index(t.c.Gateways, p)
	if slices.Contains(t.c.Workers, p) { // sometimes long enough for a shredding, a removal, and a write to S3
		t.mu.Lock()
		some := time.Duration(500+t.rnd.IntN(5500)) * time.Millisecond
		t.mu.Unlock()
		time.Sleep(some)
		return
	}
	if i < 0 {
		time.Sleep(time.Second)
		return
	}
	t.mu.Lock()
	none := t.rnd.IntN(4) == 0
	t.mu.Unlock()
	from := t.load.AnswersBy(i)
	for end := time.Now().Add(10 * time.Second); !none && t.load.AnswersBy(i) < from+60 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

// back waits until a process is ready. One that ends because the cluster was not there is started again, as a
// supervisor would.
func (t *torture) back(p *loopback.Process) error {
	var err error
	for end := time.Now().Add(backWithin); time.Now().Before(end); {
		if err = p.Ready(time.Until(end)); err == nil {
			return nil
		}
		if p.Running() {
			return err
		}
		time.Sleep(200 * time.Millisecond)
		if err := p.Start(); err != nil {
			return err
		}
	}
	return err
}

func kill(p *loopback.Process) { p.Kill() }

// once does one thing.
func (t *torture) once() {
	t.mu.Lock()
	pause, nats, other := time.Duration(t.rnd.IntN(2000))*time.Millisecond, t.rnd.IntN(14), t.rnd.IntN(112)
	t.mu.Unlock()
	hang := func(p *loopback.Process) {
		_ = p.Signal(syscall.SIGSTOP) // gone already
		time.Sleep(pause)
		_ = p.Signal(syscall.SIGCONT)
	}
	hangAndKill := func(p *loopback.Process) {
		hang(p)
		p.Kill()
	}
	if time.Since(t.quorum) > electionsEvery {
		t.quorum = time.Now()
		switch n := nats; {
		case n < 5:
			t.breakOne("kill NATS server", t.c.Nodes, kill)
		case n < 6 && t.Flips:
			t.breakOne("kill NATS server and flip a bit of its files", t.c.Nodes, t.flip)
		case n < 6: // the quorum is gone for a while
			t.breakOne("kill NATS server", t.c.Nodes, func(p *loopback.Process) { p.Kill(); time.Sleep(pause) })
			t.breakOne("kill NATS server", t.c.Nodes, func(p *loopback.Process) { p.Kill(); time.Sleep(pause) })
		case n < 8:
			t.breakOne("hang NATS server", t.c.Nodes, hang)
		case n < 10:
			t.breakOne("kill NATS server that hangs", t.c.Nodes, hangAndKill)
		default:
			t.partNodes(n < 12)
		}
		return
	}
	switch n := other; {
	case n < 50:
		t.breakOne("kill gateway", t.c.Gateways, kill)
	case n < 75:
		t.breakOne("kill archive worker", t.c.Workers, kill)
	case n < 82:
		t.breakOne("hang gateway", t.c.Gateways, hang)
	case n < 88:
		t.breakOne("hang archive worker", t.c.Workers, hang)
	case n < 92:
		t.breakOne("kill gateway whose writes fail (EIO)", t.c.Gateways, t.failWrites)
	case n < 95 && t.small != "":
		t.breakOne("fill disk of a gateway", t.c.Gateways[:1], t.fill)
	case n < 100:
		t.breakOne("kill gateway that hangs", t.c.Gateways, hangAndKill)
	case n < 104:
		t.partClient("gateway", t.c.Gateways, n < 102)
	case n < 106:
		t.partClient("archive worker", t.c.Workers, n < 105)
	case n < 109:
		t.breakOne("kill S3 server", t.s3(), func(p *loopback.Process) { p.Kill(); time.Sleep(pause) })
	case n < 110:
		t.breakOne("kill S3 server that hangs", t.s3(), hangAndKill)
	default:
		t.breakOne("hang S3 server", t.s3(), hang)
	}
}

// up brings everything up again.
func (t *torture) up() error {
	began := time.Now()
	defer func() { t.upAfter = time.Since(began) }()
	for _, group := range [][]*loopback.Process{t.s3(), t.c.Nodes, t.c.Workers, t.c.Gateways} {
		for _, p := range group {
			if err := p.Start(); err != nil {
				return err
			}
			if err := t.back(p); err != nil {
				return err
			}
		}
	}
	return nil
}

// s3 is the archive's second store, where there is one.
func (t *torture) s3() []*loopback.Process {
	if t.c.Bucket == nil {
		return nil
	}
	return []*loopback.Process{t.c.Bucket.Process}
}

// settle ends the load's aftermath: everything is up, and what was recorded gets into the archive. Within the time every
// session has its seal, those of killed gateways included (I7).
func (t *torture) settle(ctx context.Context, seen []loopback.Seen, all []*subject, s *subjects) error {
	up := time.Now()
	var f *loopback.Finding
	for {
		if err := t.learn(all); err != nil {
			return err
		}
		var err error
		if f, err = t.c.Check(seen); err != nil && time.Since(up) > sealedWithin {
			return err
		}
		if err == nil && len(f.Problems) == 0 {
			break
		}
		if time.Since(up) > sealedWithin {
			return fmt.Errorf("%v after everything is up, %d problems and perhaps more:\n%s", sealedWithin, len(f.Problems), strings.Join(f.Problems, "\n"))
		}
		time.Sleep(500 * time.Millisecond)
	}
	sealed := time.Since(up)
	if err := t.shredLate(ctx, all, s); err != nil {
		return err
	}
	for { // S3 is given what a killed worker had in its hands half a minute later
		err := t.compareStores(all)
		if err == nil {
			break
		}
		if time.Since(up) > sealedWithin+s3Within {
			return err
		}
		time.Sleep(2 * time.Second)
	}
	last, err := t.c.Verify()
	if err != nil || !last.OK || len(last.Open) > 0 {
		return fmt.Errorf("weir verify: %+v %w", last, err)
	}
	fmt.Fprintf(t.Out, "everything was up %.1f s after the last fault, and all sealed and archived %.1f s later; weir verify: %d sessions, %d blocks, %d records\n",
		t.upAfter.Seconds(), sealed.Seconds(), last.Sessions, last.Blocks, last.Records)
	fmt.Fprintf(t.Out, "I1–I5, I7 and I11 hold: %d answers to %d clients' sessions are in %d sessions and %d records byte for byte; %d statements ran, %d were recorded, %d denied; %d sessions were cut by a crash\n",
		f.Answers, len(seen), f.Sessions, f.Records, f.Ran, f.Recorded, f.Denied, f.Crashed)
	fmt.Fprintf(t.Out, "bounded: of %d sessions %d lack something at their end, at most %d bytes that came within %.0f ms, and %d have no record at all; %d statements ran without one\n",
		f.Bounded.Sessions, f.Bounded.Short, f.Bounded.Bytes, float64(f.Bounded.Time.Microseconds())/1000, f.Bounded.Gone, f.Bounded.Statements)
	if f.Ran == 0 || f.Denied == 0 || f.Answers == 0 {
		return errors.New("too little happened for this to say anything")
	}
	return nil
}
