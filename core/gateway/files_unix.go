//go:build unix

package gateway

import (
	"math"
	"syscall"
)

// maxFiles is how many files the process may have open. The Go runtime has raised it as far as it may.
func maxFiles() (int, bool) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, false
	}
	return int(min(uint64(r.Cur), math.MaxInt32)), true
}
