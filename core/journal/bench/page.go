package main

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// figure is one line of the page.
type figure struct {
	what, name, unit string
	target           float64
	most             bool // the target is the most that it may be
	over             string
}

var figures = []figure{
	{what: "one durable write of 4 KiB, by the disk alone, p50", name: "write", unit: "µs"},
	{what: "strict commits, 1 waits", name: "RecordSettleStrict/1 commits/s", unit: "/s"},
	{what: "the same, p50", name: "RecordSettleStrict/1 p50-µs", unit: "µs", over: "write"},
	{what: "strict commits, 8 wait", name: "RecordSettleStrict/8 commits/s", unit: "/s"},
	{what: "strict commits, 32 wait", name: "RecordSettleStrict/32 commits/s", unit: "/s", target: 20_000},
	{what: "the same, p50", name: "RecordSettleStrict/32 p50-µs", unit: "µs", target: 1000, most: true, over: "write"},
	{what: "the same, p99", name: "RecordSettleStrict/32 p99-µs", unit: "µs", over: "write"},
	{what: "strict commits, 128 wait", name: "RecordSettleStrict/128 commits/s", unit: "/s"},
	{what: "records into the archive, index and ledger included", name: "Archive MB/s", unit: "MB/s", target: 80},
	{what: "the same, processors used", name: "Archive cores", unit: "", target: 1.5, most: true},
	{what: "verification on one core, of records", name: "Verify MB/s", unit: "MB/s", target: 100},
	{what: "the slowest of 15 questions to the index, SQLite", name: "index sqlite", unit: "ms", target: 100, most: true},
	{what: "the same, PostgreSQL", name: "index postgres", unit: "ms", target: 100, most: true},
}

// page writes what was measured.
func (m measured) page(rounds, sessions int, loads []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# What recording costs\n\nWritten by `make bench-journal` on %s: %s, %d processors, %s/%s, %s, load %s at the beginning and %s at the end.\nMedians of %d rounds; the index was asked once about %d sessions, three times each question, and the best counts.\n\n",
		time.Now().Format(time.DateOnly), processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), loads[0], loads[1], rounds, sessions)
	b.WriteString("| | measured | beside the disk's own write | target | |\n|---|--:|--:|--:|---|\n")
	for _, f := range figures {
		v, ok := m.median(f.name)
		if !ok {
			fmt.Fprintf(&b, "| %s | not measured | | | |\n", f.what)
			continue
		}
		beside, target, holds := "", "", ""
		if base, ok := m.median(f.over); ok && base > 0 {
			beside = fmt.Sprintf("%.2f×", v/base)
		}
		if f.target > 0 {
			sign, good := "≥", v >= f.target
			if f.most {
				sign, good = "≤", v <= f.target
			}
			if target, holds = sign+" "+number(f.target)+" "+f.unit, "missed"; good {
				holds = "holds"
			}
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s |\n", f.what, number(v), f.unit, beside, strings.TrimSpace(target), holds)
	}
	b.WriteString("\nHow long a start takes after `kill -9`, and what 1,000 kills and 10,000 changed copies do, is in [TORTURE.md](TORTURE.md).\n")
	return b.String()
}

// number writes a value with as many digits as say something.
func number(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%d,%03d", int(v)/1000, int(v)%1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
}
