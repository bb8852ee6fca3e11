package loopback

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is one of the cluster's processes: it can be killed, stopped and started again. Its output is in a file.
type Process struct {
	Name string

	program string
	args    []string
	env     []string
	log     string
	ready   func(p *Process) bool

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	from   int64 // where the log of this run begins
}

// Start starts the process. It does not wait until the process is ready.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	if p.from, err = out.Seek(0, 2); err != nil {
		return err
	}
	cmd := exec.Command(p.program, p.args...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	p.cmd, p.exited = cmd, done
	return nil
}

func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Running reports whether the process is there.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

// PID is the number of the process, which is there or was.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	return p.cmd.Process.Signal(s)
}

// Kill ends the process as a crash would, and returns when it is gone.
func (p *Process) Kill() {
	_ = p.Signal(syscall.SIGKILL) // gone already
	p.mu.Lock()
	exited := p.exited
	p.mu.Unlock()
	if exited != nil {
		<-exited
	}
}

// Stop ends the process politely and returns an error when it does not end, or not well.
func (p *Process) Stop(limit time.Duration) error {
	if !p.Running() {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.exited:
	case <-time.After(limit):
		p.Kill()
		return fmt.Errorf("%s did not end within %v; its log is %s", p.Name, limit, p.log)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with %d:\n%s", p.Name, code, tail(p.Log(), 10))
	}
	return nil
}

// Ready waits until the process says that it does its work.
func (p *Process) Ready(limit time.Duration) error {
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		if p.ready(p) {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("%s ended:\n%s", p.Name, tail(p.Log(), 10))
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready after %v:\n%s", p.Name, limit, tail(p.Log(), 10))
		}
	}
}

// Works waits until an archive worker that stood by does its work.
func (p *Process) Works(limit time.Duration) error {
	works := &Process{Name: p.Name, log: p.log, cmd: p.cmd, exited: p.exited, from: p.from, ready: says("weir: ready")}
	return works.Ready(limit)
}

// Log is what this run of the process has printed.
func (p *Process) Log() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(b[min(p.from, int64(len(b))):])
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// says is a way to be ready: a line in the log.
func says(line string) func(*Process) bool {
	return func(p *Process) bool { return strings.Contains(p.Log(), line) }
}

// answers is a way to be ready: a URL that answers 200.
func answers(url string) func(*Process) bool {
	client := &http.Client{Timeout: time.Second}
	return func(*Process) bool {
		r, err := client.Get(url)
		if err != nil {
			return false
		}
		_ = r.Body.Close()
		return r.StatusCode == http.StatusOK
	}
}

// output runs a program to its end.
func output(dir, program string, args ...string) ([]byte, error) {
	c := exec.Command(program, args...)
	c.Dir = dir
	var errs bytes.Buffer
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return out, fmt.Errorf("%s: %w\n%s", strings.Join(c.Args, " "), err, tail(errs.String(), 10))
	}
	return out, nil
}

// freePorts finds ports of 127.0.0.1 that nobody uses.
func freePorts(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // all at once: none is given twice
		all = append(all, l.Addr().String())
	}
	return all, nil
}
