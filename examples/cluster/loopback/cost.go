package loopback

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Cost is the processor time that the cluster's processes have taken.
type Cost struct{ Gateways, Nodes, Workers time.Duration }

// Processor adds it up.
func (c *Cluster) Processor() (k Cost) {
	for _, g := range []struct {
		of []*Process
		to *time.Duration
	}{{c.Gateways, &k.Gateways}, {c.Nodes, &k.Nodes}, {c.Workers, &k.Workers}} {
		for _, p := range g.of {
			if p.Running() {
				*g.to += processor(p.PID())
			}
		}
	}
	return k
}

// processor reads utime and stime, which /proc counts in hundredths of a second.
func processor(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	total := 0
	for _, i := range []int{11, 12} {
		n, err := strconv.Atoi(f[i])
		if err != nil {
			return 0
		}
		total += n
	}
	return time.Duration(total) * 10 * time.Millisecond
}
