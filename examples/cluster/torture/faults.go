package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-gateway/weir/examples/cluster/loopback"
)

// diskSize holds the log at its bound, and what else a gateway keeps.
const diskSize = "1500m"

// smallDisk gives the first gateway a small disk, where this process may mount one.
func (t *torture) smallDisk(o *loopback.Options) (unmount func()) {
	dir := filepath.Join(t.Dir, "small")
	if os.Mkdir(dir, 0o700) != nil || unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+diskSize) != nil {
		fmt.Fprintln(t.Out, "no disk can be mounted here: none is filled")
		return func() {}
	}
	t.small = dir
	o.GatewayData = func(i int) string {
		if i == 0 {
			return filepath.Join(dir, "gateway-0")
		}
		return filepath.Join(t.Dir, fmt.Sprint("gateway-", i))
	}
	return func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }
}

// fill uses up the disk for a while.
func (t *torture) fill(*loopback.Process) {
	path := filepath.Join(t.small, "all.filler")
	f, err := os.Create(path)
	if err != nil {
		return // full already
	}
	b := make([]byte, 1<<20)
	for err == nil {
		_, err = f.Write(b)
	}
	_ = f.Close()
	time.Sleep(1500 * time.Millisecond)
	_ = os.Remove(path)
}

// failWrites lets the gateway's writes of its log fail, as a disk that dies would, and kills it after a while. Where no
// strace is, it is only killed.
func (t *torture) failWrites(p *loopback.Process) {
	defer p.Kill()
	path, err := exec.LookPath("strace")
	if err != nil {
		return
	}
	c := exec.Command(path, "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64,fsync,fdatasync", "-e", "inject=pwrite64,fsync,fdatasync:error=EIO:when=5+", "-p", fmt.Sprint(p.PID()))
	if c.Start() != nil {
		return
	}
	time.Sleep(time.Second)
	p.Kill()
	_ = c.Wait() // its tracee is gone
}

// flip kills a NATS server and changes one bit of one of its streams' files before it comes back.
func (t *torture) flip(p *loopback.Process) {
	p.Kill()
	files, err := filepath.Glob(filepath.Join(t.Dir, p.Name, "jetstream", "$G", "streams", "WEIR_JOURNAL_*", "msgs", "*.blk"))
	if err != nil || len(files) == 0 {
		return
	}
	t.mu.Lock()
	file, at, bit := files[t.rnd.IntN(len(files))], t.rnd.Int64(), t.rnd.IntN(8)
	t.mu.Unlock()
	b, err := os.ReadFile(file)
	if err != nil || len(b) == 0 {
		return
	}
	b[at%int64(len(b))] ^= 1 << bit
	_ = os.WriteFile(file, b, 0o600)
}
