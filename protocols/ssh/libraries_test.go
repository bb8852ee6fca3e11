package ssh

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

// packages skips the test where Debian packages are missing, and says how to get them. Continuous integration installs them.
func packages(t *testing.T, names ...string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		if err := sshtest.Packages(t.Context(), names...); err != nil {
			t.Skip(err)
		}
		return
	}
	for _, n := range names {
		if out, err := exec.CommandContext(t.Context(), "dpkg-query", "-W", "-f", "${db:Status-Status}", n).Output(); err != nil || string(out) != "installed" {
			t.Skip("apt-get install " + strings.Join(names, " "))
		}
	}
}

// nodeModules is a folder in which node finds ssh2. Continuous integration has npm install it.
func nodeModules(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "weir-test", "node-ssh")
	wanted, err := os.ReadFile("testdata/package.json")
	if err != nil {
		t.Fatal(err)
	}
	marker := filepath.Join(dir, "node_modules", "installed.json")
	if have, _ := os.ReadFile(marker); string(have) == string(wanted) {
		return filepath.Join(dir, "node_modules")
	}
	npm, err := exec.LookPath("npm")
	if err != nil || os.Getenv("CI") == "" {
		t.Skip("apt-get install nodejs npm; CI=1 has this test install ssh2 by npm")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), wanted, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm install ssh2: %v\n%s", err, out)
	}
	if err := os.WriteFile(marker, wanted, 0o644); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "node_modules")
}

// TestLibraries: SH-16. The libraries that programs use: a command, a shell with a terminal, files.
func TestLibraries(t *testing.T) {
	for name, have := range map[string]func(t *testing.T) *exec.Cmd{
		"node": func(t *testing.T) *exec.Cmd {
			node, err := exec.LookPath("node")
			if err != nil {
				t.Skip("apt-get install nodejs npm")
			}
			cmd := exec.CommandContext(t.Context(), node, "testdata/conversation.js")
			cmd.Env = append(os.Environ(), "NODE_PATH="+nodeModules(t))
			return cmd
		},
		"paramiko": func(t *testing.T) *exec.Cmd {
			packages(t, "python3-paramiko")
			cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "testdata/conversation.py")
			cmd.Env = os.Environ()
			return cmd
		},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := have(t)
			g := startGate(t)
			host, port, _ := net.SplitHostPort(g.addr)
			cmd.Args = append(cmd.Args, host, port, ssh.FingerprintSHA256(g.hostKey()), t.TempDir())
			cmd.Env = append(cmd.Env, "TOKEN="+token)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if want := "exec: in err 5\nshell: true\nsftp: true b\nmissing: No such file"; !strings.HasPrefix(string(out), want) {
				t.Errorf("%s\nwant %s", out, want)
			}
			text := g.journal.text()
			for _, want := range []string{"exit 5", `"action":"shell"`, "subsystem sftp", "terminal vt100 91x31"} {
				if !strings.Contains(text, want) {
					t.Errorf("the record has no %s", want)
				}
			}
		})
	}
}
