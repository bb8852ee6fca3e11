// Command bench measures what recording costs, and writes the page that says so. `make bench-journal` runs it: the benchmarks of
// the journal, the archive and the index, in rounds, beside what the disk itself takes for a durable write.
package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 5, "how often each benchmark is run; medians are told")
	each := flag.String("time", "3s", "for how long each is run")
	sessions := flag.Int("sessions", 100_000, "how many sessions the index is asked about")
	to := flag.String("o", "", "write the page to this `file`")
	flag.Parse()
	page, err := run(*rounds, *each, *sessions)
	if err == nil && *to != "" {
		err = os.WriteFile(*to, []byte(page), 0o644)
	}
	if fmt.Print(page); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measured are the values of a figure, one a round.
type measured map[string][]float64

// median is a figure's; ok: it was measured.
func (m measured) median(name string) (v float64, ok bool) {
	all := slices.Sorted(slices.Values(m[name]))
	if len(all) == 0 {
		return 0, false
	}
	return all[len(all)/2], true
}

func run(rounds int, each string, sessions int) (string, error) {
	m := measured{}
	loads := []string{load()}
	for range rounds { // round by round, so that what else the machine does falls on all of them
		took, err := durableWrite()
		if err != nil {
			return "", err
		}
		m["write"] = append(m["write"], took.Seconds()*1e6)
		for _, b := range []struct{ pkg, bench string }{{"./core/journal", "RecordSettleStrict"}, {"./core/archive", "^Benchmark(Archive|Verify)$"}} {
			if err := m.benchmark(b.pkg, b.bench, each); err != nil {
				return "", err
			}
		}
	}
	if err := m.index(sessions); err != nil {
		return "", err
	}
	return m.page(rounds, sessions, append(loads, load())), nil
}

var result = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// benchmark runs one package's benchmarks once.
func (m measured) benchmark(pkg, name, each string) error {
	out, err := exec.Command("go", "test", "-run", "^$", "-bench", name, "-benchtime", each, pkg).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", pkg, err, out)
	}
	found := result.FindAllStringSubmatch(string(out), -1)
	if len(found) == 0 {
		return fmt.Errorf("%s: no benchmark has run:\n%s", pkg, out)
	}
	for _, line := range found {
		f := strings.Fields(line[2])
		for i := 0; i+1 < len(f); i += 2 {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return fmt.Errorf("%s: %q: %w", pkg, line[0], err)
			}
			m[line[1]+" "+f[i+1]] = append(m[line[1]+" "+f[i+1]], v)
		}
	}
	return nil
}

var asked = regexp.MustCompile(`(?m)^\s+index_test\.go:\d+:\s+([0-9.]+) ms\s`)

// index asks an index of many sessions; the slowest answer counts.
func (m measured) index(sessions int) error {
	for _, kind := range []string{"sqlite", "postgres"} {
		out, err := exec.Command("go", "test", "-count", "1", "-v", "-timeout", "60m", "-run", "^TestQuick$/^"+kind+"$", "./core/archive/index", "-sessions", strconv.Itoa(sessions)).CombinedOutput()
		found := asked.FindAllSubmatch(out, -1)
		if len(found) == 0 { // it fails when an answer takes longer than the target; then the page says so
			return errors.Join(fmt.Errorf("the index: %s", bytes.TrimSpace(out)), err)
		}
		slowest := 0.0
		for _, f := range found {
			v, err := strconv.ParseFloat(string(f[1]), 64)
			if err != nil {
				return err
			}
			slowest = max(slowest, v)
		}
		m["index "+kind] = []float64{slowest}
	}
	return nil
}

// durableWrite is the median of what the disk takes for a page that is written durably, alone.
func durableWrite() (time.Duration, error) {
	dir, err := os.MkdirTemp("", "weir-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "pages")
	const pages = 400
	if err := os.WriteFile(path, make([]byte, pages*4096), 0o600); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_DSYNC, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return 0, err
	}
	took := make([]time.Duration, pages)
	page := bytes.Repeat([]byte{1}, 4096)
	for i := range took {
		began := time.Now()
		if _, err := f.WriteAt(page, int64(i)*4096); err != nil {
			return 0, err
		}
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	return took[pages/2], nil
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

func processor() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.HasPrefix(name, "model name") {
				return strings.TrimSpace(value)
			}
		}
	}
	return runtime.GOARCH
}
