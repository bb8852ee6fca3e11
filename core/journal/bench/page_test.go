package main

import (
	"strings"
	"testing"
)

// The page holds what was measured against the targets, and says what was not measured.
func TestPage(t *testing.T) {
	m := measured{
		"write": {240, 250, 260}, "RecordSettleStrict/32 commits/s": {19_999, 25_000, 31_000}, "RecordSettleStrict/32 p50-µs": {900, 1250, 1300},
		"Archive MB/s": {79}, "index sqlite": {12.5},
	}
	page := m.page(3, 1000, []string{"0.10", "2.00"})
	for _, want := range []string{
		"| one durable write of 4 KiB, by the disk alone, p50 | 250 µs |  |  |  |",
		"| strict commits, 32 wait | 25,000 /s |  | ≥ 20,000 /s | holds |",
		"| the same, p50 | 1250 µs | 5.00× | ≤ 1000 µs | missed |",
		"| records into the archive, index and ledger included | 79 MB/s |  | ≥ 80 MB/s | missed |",
		"| the slowest of 15 questions to the index, SQLite | 12.5 ms |  | ≤ 100 ms | holds |",
		"| the same, PostgreSQL | not measured | | | |",
		"Medians of 3 rounds", "load 0.10 at the beginning and 2.00 at the end",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not have %q:\n%s", want, page)
		}
	}
}

func TestResults(t *testing.T) {
	got := result.FindAllStringSubmatch("goos: linux\nBenchmarkRecordSettleStrict/32-2   \t 100\t  12 ns/op\t 81000 commits/s\t 3 p50-µs\nBenchmarkVerify 3 7 ns/op\nPASS\n", -1)
	if len(got) != 2 || got[0][1] != "RecordSettleStrict/32" || got[1][1] != "Verify" || !strings.Contains(got[0][2], "81000 commits/s") {
		t.Errorf("%q", got)
	}
}
