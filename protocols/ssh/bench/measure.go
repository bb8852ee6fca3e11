package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

func median[T int64 | float64 | time.Duration](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// copied is what one copy took.
type copied struct {
	rate float64 // MB a second
	cpu  float64 // seconds of the proxy, for a gigabyte
}

// copies measures scp, up and down.
func (b *bench) copies(ctx context.Context, report *strings.Builder) error {
	for _, up := range []bool{true, false} {
		what := map[bool]string{true: "up", false: "down"}[up]
		all := map[string][]copied{}
		for round := range b.rounds {
			for i := range b.ways {
				w := b.ways[(i+round)%len(b.ways)]
				fmt.Fprintf(os.Stderr, "bench: %s, round %d, %s\n", what, round+1, w.name)
				if b.profile != "" && w.name == "metadata" && up && round == 0 {
					go b.takeProfile(w)
				}
				c, err := b.copy(ctx, w, up)
				if err != nil {
					return fmt.Errorf("%s %s: %w", what, w.name, err)
				}
				all[w.name] = append(all[w.name], c)
			}
		}
		fmt.Fprintf(report, "\n## scp %s\n\n| way | MB/s | to direct | to leg | slowest to fastest round | the proxy's processor seconds a GB |\n|---|---|---|---|---|---|\n", what)
		ratio := func(w *way, to string) string { // of one round, then the median: what else the machine does changes between rounds
			var list []float64
			for i, c := range all[w.name] {
				list = append(list, c.rate/all[to][i].rate)
			}
			return fmt.Sprintf("%.2f", median(list))
		}
		for _, w := range b.ways {
			var rates, cpu []float64
			for _, c := range all[w.name] {
				rates, cpu = append(rates, c.rate), append(cpu, c.cpu)
			}
			fmt.Fprintf(report, "| %s | %.0f | %s | %s | %.0f to %.0f | %.2f |\n", w.name, median(rates), ratio(w, "direct"), ratio(w, "leg"), slices.Min(rates), slices.Max(rates), median(cpu))
		}
	}
	fmt.Fprint(report, "\n## Memory\n\nThe most that was resident of each proxy since it began, after all copies.\n\n| way | MB | of it its own (not files) now |\n|---|---|---|\n")
	for _, w := range b.ways[1:] {
		fmt.Fprintf(report, "| %s | %d | %d |\n", w.name, status(w, "VmHWM")>>10, status(w, "RssAnon")>>10)
	}
	return nil
}

// copy runs one scp and checks that all has arrived.
func (b *bench) copy(ctx context.Context, w *way, up bool) (c copied, err error) {
	host, port, _ := net.SplitHostPort(w.addr)
	args := []string{
		"-q", "-P", port, "-c", cipher, "-F", "/dev/null", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "LogLevel=ERROR", "-o", "Compression=no", "-o", "IdentityAgent=none", "-o", "ControlPath=none",
	}
	if w.password == "" {
		args = append(args, "-i", filepath.Join(b.server.Dir, "key"), "-o", "IdentitiesOnly=yes")
	} else {
		args = append(args, "-o", "PubkeyAuthentication=no")
	}
	near, far := filepath.Join(b.dir, "file"), w.user+"@"+host+":"+filepath.Join(b.dir, "copy")
	if !up {
		near, far = w.user+"@"+host+":"+filepath.Join(b.dir, "file"), filepath.Join(b.dir, "copy")
	}
	_ = os.Remove(filepath.Join(b.dir, "copy"))
	cmd := exec.CommandContext(ctx, "scp", append(args, near, far)...)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS="+filepath.Join(b.dir, "askpass"), "SSH_ASKPASS_REQUIRE=force", "BENCH_TOKEN="+w.password)
	before, start := processor(w), time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return c, fmt.Errorf("scp: %w\n%s", err, out)
	}
	took := time.Since(start)
	if info, err := os.Stat(filepath.Join(b.dir, "copy")); err != nil || info.Size() != b.megabytes<<20 {
		return c, errors.New("the copy is not whole")
	}
	return copied{float64(b.megabytes) / took.Seconds(), (processor(w) - before) * 1024 / float64(b.megabytes)}, nil
}

// processor is how many seconds of a processor the way's process has used.
func processor(w *way) float64 {
	if w.proc == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.proc.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(f[11], 64)
	system, _ := strconv.ParseFloat(f[12], 64)
	return (user + system) / 100
}

// status is a line of what the kernel says of the way's process, in KiB.
func status(w *way, name string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.proc.Process.Pid))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name+":" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n
		}
	}
	return 0
}

func (b *bench) takeProfile(w *way) {
	r, err := http.Get("http://" + w.pprof + "/debug/pprof/profile?seconds=3")
	if err != nil {
		return
	}
	defer r.Body.Close()
	f, err := os.Create(b.profile)
	if err != nil {
		return
	}
	_, _ = io.Copy(f, r.Body)
	_ = f.Close()
}

// keystrokes measures how long the echo of a key takes in a terminal.
func (b *bench) keystrokes(ctx context.Context, report *strings.Builder) error {
	type terminal struct {
		in  io.Writer
		out io.Reader
	}
	open := map[string]terminal{}
	for _, w := range b.ways {
		config := &ssh.ClientConfig{Config: ssh.Config{Ciphers: []string{cipher}}, User: w.user, HostKeyCallback: ssh.InsecureIgnoreHostKey()} // both ends are the bench's
		if w.password != "" {
			config.Auth = []ssh.AuthMethod{ssh.Password(w.password)}
		} else if key, err := ssh.ParsePrivateKey(b.server.Key); err == nil {
			config.Auth = []ssh.AuthMethod{ssh.PublicKeys(key)}
		}
		c, err := ssh.Dial("tcp", w.addr, config)
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		defer c.Close()
		s, err := c.NewSession()
		if err != nil {
			return err
		}
		if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
			return err
		}
		in, _ := s.StdinPipe()
		out, _ := s.StdoutPipe()
		if err := s.Start("stty raw -echo; printf R; exec cat"); err != nil {
			return err
		}
		if _, err := io.ReadFull(out, make([]byte, 1)); err != nil {
			return err
		}
		open[w.name] = terminal{in, out}
	}
	took := map[string][]time.Duration{}
	mid := map[string][]float64{}
	key := []byte("k")
	for round := range b.rounds {
		for i := range b.ways {
			w := b.ways[(i+round)%len(b.ways)]
			t := open[w.name]
			var list []time.Duration
			for range b.keys {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				start := time.Now()
				if _, err := t.in.Write(key); err != nil {
					return err
				}
				if _, err := io.ReadFull(t.out, key); err != nil {
					return err
				}
				list = append(list, time.Since(start))
				time.Sleep(2 * time.Millisecond) // a person's pause, so that nothing is warm from the last
			}
			took[w.name] = append(took[w.name], list...)
			mid[w.name] = append(mid[w.name], float64(median(list).Microseconds())/1000)
		}
	}
	fmt.Fprintf(report, "\n## A keystroke's echo in a terminal\n\n%d keystrokes of a round, one at a time.\n\n| way | median ms | 99th percentile | added to direct, median of the rounds |\n|---|---|---|---|\n", b.keys)
	for _, w := range b.ways {
		var added []float64
		for i, m := range mid[w.name] {
			added = append(added, m-mid["direct"][i])
		}
		all := slices.Sorted(slices.Values(took[w.name]))
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		fmt.Fprintf(report, "| %s | %.2f | %.2f | %.2f |\n", w.name, ms(median(all)), ms(all[len(all)*99/100]), median(added))
	}
	return nil
}
