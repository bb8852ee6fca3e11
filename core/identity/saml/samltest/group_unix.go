//go:build unix

package samltest

import (
	"os/exec"
	"syscall"
)

// group starts a command with a process group of its own, which kill ends: PHP's server has workers.
func group(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func kill(c *exec.Cmd) { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
