package clients

import (
	"bytes"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// running is a program under way, and what it has printed so far.
type running struct {
	t   *testing.T
	cmd *exec.Cmd
	mu  sync.Mutex
	b   bytes.Buffer
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.Write(p)
}

func (r *running) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.b.String()
}

func startProgram(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{t: t, cmd: cmd}
	cmd.Stdout, cmd.Stderr = r, r
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return r
}

// await waits until a text has been printed.
func (r *running) await(text string) {
	r.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !strings.Contains(r.text(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s did not print %q, but:\n%s", r.cmd.Path, text, r.text())
		}
	}
}

// finish waits for the end, demands an exit code, and returns all that was printed.
func (r *running) finish(code int) string {
	r.t.Helper()
	if err := r.cmd.Wait(); r.cmd.ProcessState.ExitCode() != code {
		r.t.Fatalf("%s: %v\n%s", r.cmd.Path, err, r.text())
	}
	return r.text()
}
