package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// sample is what one run of one way gave.
type sample struct{ tps, p50, p99, cpu float64 } // 1/s, ms, ms, µs of the proxy a transaction

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	sort.Float64s(v)
	return v[len(v)/2]
}

// medianRatio is the median of round-by-round ratios: the machine's drift cancels.
func medianRatio(a, b []float64) float64 {
	r := make([]float64, min(len(a), len(b)))
	for i := range r {
		r[i] = a[i] / b[i]
	}
	return median(r)
}

func (b *bench) tps(ctx context.Context, out *strings.Builder) error {
	for _, mode := range b.modes {
		fmt.Fprintf(out, "\n## pgbench -S, %s protocol\n\n| clients | way | tps | of direct | of haproxy | of pgbouncer | p50 ms | p99 ms | proxy CPU µs/tx |\n|--:|---|--:|--:|--:|--:|--:|--:|--:|\n", mode)
		for _, clients := range b.clients {
			got := map[string][]sample{}
			for round := range b.rounds {
				for i := range b.ways {
					w := b.ways[(i+round)%len(b.ways)]
					if w.name == "metadata" { // as bounded: what a short answer costs is not its bytes
						continue
					}
					s, err := b.pgbench(ctx, w, mode, clients)
					if err != nil {
						return fmt.Errorf("%s, %s, %d clients: %w", w.name, mode, clients, err)
					}
					got[w.name] = append(got[w.name], s)
				}
			}
			column := func(name string, f func(sample) float64) (v []float64) {
				for _, s := range got[name] {
					v = append(v, f(s))
				}
				return v
			}
			tps := func(s sample) float64 { return s.tps }
			for _, w := range b.ways {
				if len(got[w.name]) == 0 {
					continue
				}
				mine := column(w.name, tps)
				fmt.Fprintf(out, "| %d | %s | %.0f | %.2f | %.2f | %.2f | %.3f | %.3f | %.0f |\n", clients, w.name,
					median(append([]float64(nil), mine...)), medianRatio(mine, column("direct", tps)), medianRatio(mine, column("haproxy", tps)), medianRatio(mine, column("pgbouncer", tps)),
					median(column(w.name, func(s sample) float64 { return s.p50 })), median(column(w.name, func(s sample) float64 { return s.p99 })),
					median(column(w.name, func(s sample) float64 { return s.cpu })))
			}
		}
	}
	return nil
}

var transactions = regexp.MustCompile(`number of transactions actually processed: (\d+)`)

func (b *bench) pgbench(ctx context.Context, w *way, mode string, clients int) (sample, error) {
	host, port, _ := net.SplitHostPort(w.addr)
	prefix := filepath.Join(b.dir, "pgbench_log")
	cmd := exec.CommandContext(ctx, b.server.Program("pgbench"), "-n", "-S", "-M", mode, "-c", strconv.Itoa(clients), "-j", "1",
		"-T", strconv.Itoa(max(1, int(b.seconds))), "-l", "--log-prefix="+prefix, "-h", host, "-p", port, "-U", w.user, w.database)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+w.password, "PGSSLMODE=disable")
	before := cpu(w)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("%w\n%s", err, output)
	}
	spent := cpu(w) - before
	m := transactions.FindSubmatch(output)
	if m == nil {
		return sample{}, fmt.Errorf("pgbench: %s", output)
	}
	n, _ := strconv.ParseFloat(string(m[1]), 64)
	files, _ := filepath.Glob(prefix + ".*")
	var latencies []float64
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return sample{}, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if fields := strings.Fields(lines.Text()); len(fields) > 2 {
				us, _ := strconv.ParseFloat(fields[2], 64)
				latencies = append(latencies, us/1000)
			}
		}
		_ = f.Close()
		_ = os.Remove(name)
	}
	sort.Float64s(latencies)
	s := sample{cpu: spent.Seconds() * 1e6 / n}
	for _, line := range strings.Split(string(output), "\n") {
		if v, ok := strings.CutPrefix(line, "tps = "); ok {
			s.tps, _ = strconv.ParseFloat(strings.Fields(v)[0], 64)
		}
	}
	if len(latencies) > 0 {
		s.p50, s.p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	}
	return s, nil
}

// cpu returns the processor time that a way's proxy has used.
func cpu(w *way) time.Duration {
	if w.proc == nil {
		return 0
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.proc.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// rss returns the resident memory of a way's proxy in bytes.
func rss(w *way) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", w.proc.Process.Pid))
	if fields := strings.Fields(string(b)); len(fields) > 1 {
		pages, _ := strconv.Atoi(fields[1])
		return pages * os.Getpagesize()
	}
	return 0
}

// dial connects a client, with TLS from the first byte on if encrypted.
func (w *way) dial(ctx context.Context, encrypted bool) (*pgconn.PgConn, error) {
	addr, mode := w.addr, "sslmode=disable"
	if encrypted {
		addr, mode = w.tls, "sslmode=require sslnegotiation=direct"
	}
	host, port, _ := net.SplitHostPort(addr)
	c, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%s dbname=%s user=%s %s", host, port, w.database, w.user, mode))
	if err != nil {
		return nil, err
	}
	c.Password = w.password
	return pgconn.ConnectConfig(ctx, c)
}

// stream runs one query over a bare connection and counts the bytes that come back.
func (w *way) stream(ctx context.Context, sql string) (bytes int64, took time.Duration, err error) {
	c, err := w.dial(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	h, err := c.Hijack()
	if err != nil {
		return 0, 0, err
	}
	defer h.Conn.Close()
	_ = h.Conn.SetDeadline(time.Now().Add(2 * time.Minute))
	msg := append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(len(sql)+5)), sql+"\x00"...)
	start := time.Now()
	if _, err := h.Conn.Write(msg); err != nil {
		return 0, 0, err
	}
	buf := make([]byte, 256<<10)
	var tail []byte
	for {
		n, err := h.Conn.Read(buf)
		if err != nil {
			return bytes, 0, err
		}
		bytes += int64(n)
		tail = append(tail, buf[max(0, n-6):n]...)
		tail = tail[max(0, len(tail)-6):]
		if len(tail) == 6 && tail[0] == 'Z' && tail[4] == 5 && tail[5] == 'I' {
			return bytes, time.Since(start), nil
		}
	}
}

// load copies rows into a table that is empty and not logged by the server.
func (b *bench) load(ctx context.Context, w *way) (int64, time.Duration, error) {
	if b.rows == nil {
		for i := range 200_000 {
			b.rows = fmt.Appendf(b.rows, "%d\tcustomer %d\tuser%d@example.com\t%d.5\t%032x\n", i, i, i, i, i*7919)
		}
		if _, err := b.server.Psql(ctx, database, "create unlogged table loaded (id int, name text, email text, total numeric, digest text)"); err != nil {
			return 0, 0, err
		}
	}
	if _, err := b.server.Psql(ctx, database, "truncate loaded"); err != nil {
		return 0, 0, err
	}
	c, err := w.dial(ctx, false)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close(ctx)
	start := time.Now()
	_, err = c.CopyFrom(ctx, bytes.NewReader(b.rows), "copy loaded from stdin")
	return int64(len(b.rows)), time.Since(start), err
}

func (b *bench) bulk(ctx context.Context, out *strings.Builder) error {
	for _, q := range []struct{ title, sql string }{
		{"SELECT of 1,000,000 rows, two columns masked", bulkQueries["select"]},
		{"COPY TO of 1,000,000 rows", bulkQueries["copy"]},
		{"COPY FROM of 200,000 rows", ""},
	} {
		fmt.Fprintf(out, "\n## %s\n\n| way | MB/s | of direct | of haproxy | proxy CPU s |\n|---|--:|--:|--:|--:|\n", q.title)
		speed, used := map[string][]float64{}, map[string][]float64{}
		for round := range b.rounds {
			for i := range b.ways {
				w := b.ways[(i+round)%len(b.ways)]
				before := cpu(w)
				var n int64
				var took time.Duration
				var err error
				if q.sql != "" {
					n, took, err = w.stream(ctx, q.sql)
				} else {
					n, took, err = b.load(ctx, w)
				}
				if err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				speed[w.name] = append(speed[w.name], float64(n)/1e6/took.Seconds())
				used[w.name] = append(used[w.name], (cpu(w) - before).Seconds())
			}
		}
		for _, w := range b.ways {
			mine := speed[w.name]
			fmt.Fprintf(out, "| %s | %.0f | %.2f | %.2f | %.2f |\n", w.name, median(append([]float64(nil), mine...)),
				medianRatio(mine, speed["direct"]), medianRatio(mine, speed["haproxy"]), median(used[w.name]))
		}
	}
	return nil
}

func (b *bench) connects(ctx context.Context, out *strings.Builder) error {
	for _, encrypted := range []bool{false, true} {
		title, reference := "off", "direct"
		if encrypted {
			title, reference = "on, from the first byte", "haproxy" // this server does not take such
		}
		fmt.Fprintf(out, "\n## Connections a second, 8 at a time, TLS %s\n\n| way | connections/s | of %s | of haproxy |\n|---|--:|--:|--:|\n", title, reference)
		rate := map[string][]float64{}
		for round := range b.rounds {
			for i := range b.ways {
				w := b.ways[(i+round)%len(b.ways)]
				if encrypted && w.tls == "" {
					continue
				}
				n, err := b.connect(ctx, w, encrypted)
				if err != nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				rate[w.name] = append(rate[w.name], n)
			}
		}
		for _, w := range b.ways {
			if mine := rate[w.name]; len(mine) > 0 {
				fmt.Fprintf(out, "| %s | %.0f | %.2f | %.2f |\n", w.name, median(append([]float64(nil), mine...)), medianRatio(mine, rate[reference]), medianRatio(mine, rate["haproxy"]))
			}
		}
	}
	return nil
}

// connect opens and closes connections, eight at a time, and returns how many in a second.
func (b *bench) connect(ctx context.Context, w *way, encrypted bool) (float64, error) {
	start := time.Now()
	var n int
	var mu sync.Mutex
	var wg sync.WaitGroup
	var failed error
	for range 8 {
		wg.Go(func() {
			for time.Since(start).Seconds() < b.seconds {
				c, err := w.dial(ctx, encrypted)
				mu.Lock()
				if err != nil {
					failed = err
					mu.Unlock()
					return
				}
				n++
				mu.Unlock()
				_ = c.Close(ctx)
			}
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds(), failed
}

// disk says what the promise "strict" is measured against: one small write that is on the disk.
func (b *bench) disk(_ context.Context, out *strings.Builder) error {
	f, err := os.Create(filepath.Join(b.dir, "disk"))
	if err != nil {
		return err
	}
	defer f.Close()
	page := make([]byte, 4096)
	for i := range 512 { // so that no later write changes the file's size
		if _, err := f.WriteAt(page, int64(i)*4096); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	var took []float64
	for i := range 512 {
		start := time.Now()
		if _, err := f.WriteAt(page, int64(i)*4096); err != nil {
			return err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return err
		}
		took = append(took, time.Since(start).Seconds()*1000)
	}
	fmt.Fprintf(out, "\n## The disk\n\nOne write of 4 KiB and fdatasync: p50 %.3f ms, p99 %.3f ms.\n", median(took), took[len(took)*99/100])
	return nil
}

func (b *bench) idle(ctx context.Context, out *strings.Builder) error {
	const sessions = 1000
	fmt.Fprintf(out, "\n## Memory of %d idle sessions\n\n| way | KiB a session |\n|---|--:|\n", sessions)
	for _, w := range b.ways {
		if w.proc == nil || w.name == "pgbouncer" { // its pool takes 400
			continue
		}
		before := rss(w)
		for range 30 { // what starting took is given back to the system little by little
			time.Sleep(2 * time.Second)
			was := before
			if before = rss(w); before > was-1<<20 {
				break
			}
		}
		var open []*pgconn.PgConn
		for range sessions {
			c, err := w.dial(ctx, false)
			if err != nil {
				return fmt.Errorf("%s, session %d: %w", w.name, len(open), err)
			}
			open = append(open, c)
		}
		time.Sleep(3 * time.Second)
		fmt.Fprintf(out, "| %s | %.1f |\n", w.name, float64(rss(w)-before)/1024/sessions)
		for _, c := range open {
			_ = c.Close(ctx)
		}
	}
	return nil
}

// profile keeps a CPU profile of the guarded gateway under load.
func (b *bench) profile(ctx context.Context, file string) error {
	for _, w := range b.ways {
		if w.name != b.profiled {
			continue
		}
		if err := b.work(ctx, w); err != nil { // what happens once is not of interest
			return err
		}
		done := make(chan error, 1)
		go func() { done <- b.work(ctx, w) }()
		resp, err := http.Get("http://" + w.pprof + "/debug/pprof/profile?seconds=" + strconv.Itoa(max(1, int(b.seconds)-1)))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("the gateway gives no profile: %s", resp.Status)
		}
		f, err := os.Create(file)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := io.Copy(f, resp.Body); err != nil {
			return err
		}
		return <-done
	}
	return nil
}

// work is what a profile is taken of.
func (b *bench) work(ctx context.Context, w *way) error {
	sql, bulk := bulkQueries[b.profiledWork]
	if !bulk {
		_, err := b.pgbench(ctx, w, "prepared", 8)
		return err
	}
	for start := time.Now(); time.Since(start).Seconds() < b.seconds; {
		if _, _, err := w.stream(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

var bulkQueries = map[string]string{
	"select": "select * from wide",
	"copy":   "copy wide (id, name, total, digest, created, kind) to stdout",
}
