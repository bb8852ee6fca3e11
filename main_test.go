package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weir-gateway/weir/core/opa"
	"github.com/weir-gateway/weir/plugins"
	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
	"github.com/weir-gateway/weir/protocols/ssh/sshtest"
)

// TestMain puts a command weir on the PATH of all tests. It is this very binary, which calls main.
func TestMain(m *testing.M) {
	testscript.Main(withPlugins{m}, map[string]func(){"weir": main})
}

// withPlugins runs the tests with a weir that carries its plugins. They are embedded at build time: where they had
// not been made before this test was built, they are made now, and so is a weir that has them.
type withPlugins struct{ m *testing.M }

func (w withPlugins) Run() int {
	if _, err := fs.Stat(plugins.FS, "pii/pii.wasm"); err == nil {
		return w.m.Run()
	}
	log.Print("the plugins were not built (make plugins): building them and a weir that has them")
	dir, err := os.MkdirTemp("", "weir-test-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, args := range [][]string{{"make", "plugins"}, {"go", "build", "-o", filepath.Join(dir, "weir"), "."}} {
		cmd := exec.Command(args[0], args[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			log.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	if err := os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH")); err != nil {
		log.Fatal(err)
	}
	return w.m.Run()
}

// TestExamples runs the test.txtar of each example, in a copy of the example's folder.
func TestExamples(t *testing.T) {
	scripts, err := filepath.Glob("examples/*/test.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatal("no examples/*/test.txtar here: ", err)
	}
	for _, script := range scripts {
		folder := filepath.Dir(script)
		t.Run(filepath.Base(folder), func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Setup: func(env *testscript.Env) error {
					env.Values["gateway"] = &gatewayOf{}
					env.Vars = append(env.Vars, toolsEnv(t)...)
					return os.CopyFS(env.WorkDir, without{os.DirFS(folder), "test.txtar"})
				},
				Cmds:      commands,
				Condition: condition,
			})
		})
	}
}

// toolsEnv is what a test.txtar that builds a plugin needs: where the SDKs are, and Go's caches.
func toolsEnv(t *testing.T) []string {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"SDK=" + filepath.Join(here, "sdk")}
	for _, key := range []string{"GOCACHE", "GOPATH", "GOMODCACHE", "GOTOOLCHAIN"} {
		out, err := exec.Command("go", "env", key).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, key+"="+strings.TrimSpace(string(out)))
	}
	return env
}

// condition answers [tools:LANGUAGE]: whether the tools for plugins in a language are here.
func condition(cond string) (bool, error) {
	language, ok := strings.CutPrefix(cond, "tools:")
	if !ok {
		return false, fmt.Errorf("no condition %q", cond)
	}
	var found bool
	switch language {
	case "go":
		found = true
	case "c":
		for _, version := range []string{"", "-19", "-18", "-17", "-16", "-15", "-14"} {
			_, compiler := exec.LookPath("clang" + version)
			_, linker := exec.LookPath("wasm-ld" + version)
			found = found || compiler == nil && linker == nil
		}
	case "rust":
		for _, rustc := range []string{"rustc", "/usr/bin/rustc"} {
			out, err := exec.Command(rustc, "--print", "sysroot").Output()
			if err == nil {
				_, err = os.Stat(filepath.Join(strings.TrimSpace(string(out)), "lib/rustlib/wasm32-unknown-unknown/lib"))
			}
			found = found || err == nil
		}
	case "assemblyscript":
		_, err := os.Stat("sdk/assemblyscript/node_modules/assemblyscript")
		found = err == nil
	}
	return found, nil
}

// commands are what a test.txtar can say beside testscript's own words.
var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	// postgres [FILE.sql] starts a private server and runs the file as its superuser. PGTEST_HOST, PGTEST_PORT,
	// PGTEST_USER and PGTEST_PASSWORD tell where it is; psql is on the PATH.
	"postgres": func(ts *testscript.TestScript, _ bool, args []string) {
		s, err := postgrestest.Start(context.Background(), postgrestest.Options{Log: os.Stderr})
		ts.Check(err)
		ts.Defer(func() { _ = s.Stop() })
		for key, value := range addressOf(s) {
			ts.Setenv(key, value)
		}
		ts.Setenv("PATH", s.Bin+string(os.PathListSeparator)+ts.Getenv("PATH"))
		for _, file := range args {
			_, err := s.Psql(context.Background(), "postgres", ts.ReadFile(file))
			ts.Check(err)
		}
	},
	// sshd starts a private OpenSSH server. SSHTEST_ADDR, SSHTEST_USER, SSHTEST_KEY (a file) and SSHTEST_HOSTKEY (a line) tell
	// how to reach it.
	"sshd": func(ts *testscript.TestScript, _ bool, _ []string) {
		s, err := sshtest.Start(context.Background())
		ts.Check(err)
		ts.Defer(func() { _ = s.Stop() })
		ts.Setenv("SSHTEST_ADDR", s.Addr)
		ts.Setenv("SSHTEST_USER", s.User)
		ts.Setenv("SSHTEST_KEY", filepath.Join(s.Dir, "key"))
		ts.Setenv("SSHTEST_HOSTKEY", s.HostKey)
	},
	// freeport NAME… sets each variable to a port of 127.0.0.1 that nothing listens on.
	"freeport": func(ts *testscript.TestScript, _ bool, args []string) {
		for _, name := range args {
			port, err := freePort()
			ts.Check(err)
			ts.Setenv(name, port)
		}
	},
	// replace FILE OLD NEW replaces a text of a file, which must be there.
	"replace": func(ts *testscript.TestScript, _ bool, args []string) {
		if len(args) != 3 {
			ts.Fatalf("usage: replace FILE OLD NEW")
		}
		ts.Check(replaceIn(ts.MkAbs(args[0]), args[1], args[2]))
	},
	// rego DIR runs the Rego tests of a folder.
	"rego": func(ts *testscript.TestScript, _ bool, args []string) {
		for _, dir := range args {
			report, err := opa.Test(context.Background(), ts.MkAbs(dir))
			ts.Check(err)
			if !report.OK() {
				ts.Fatalf("%s: %+v", dir, report)
			}
		}
	},
	// token NAME ARGS… sets a variable to what weir token prints.
	"token": func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Check(ts.Exec("weir", append([]string{"token"}, args[1:]...)...))
		ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
	},
	// session NAME ARGS… waits for the newest session that weir sessions ARGS lists to be over and archived, and sets
	// a variable to its id.
	"session": func(ts *testscript.TestScript, _ bool, args []string) {
		for range 200 {
			ts.Check(ts.Exec("weir", append([]string{"sessions", "-o", "json"}, args[1:]...)...))
			var list []struct{ ID, End string }
			ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &list))
			if n := len(list); n > 0 && list[n-1].End != "" {
				ts.Setenv(args[0], list[n-1].ID)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		ts.Fatalf("no such session is over: weir sessions %s", strings.Join(args[1:], " "))
	},
	// held waits for a command that waits for an approval, and sets HELD to its id.
	"held": func(ts *testscript.TestScript, _ bool, _ []string) {
		for range 200 {
			ts.Check(ts.Exec("weir", "approvals", "-o", "json"))
			var list []struct{ ID string }
			ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &list))
			if len(list) > 0 {
				ts.Setenv("HELD", list[0].ID)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		ts.Fatalf("no command waits for an approval")
	},
	// absent DIR TEXT… looks for texts in all files of a folder: none may be there, or with ! each has to be.
	"absent": func(ts *testscript.TestScript, neg bool, args []string) {
		found := map[string]string{}
		ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			for _, text := range args[1:] {
				if bytes.Contains(b, []byte(text)) {
					found[text] = path
				}
			}
			return err
		}))
		for _, text := range args[1:] {
			if path, is := found[text]; is != neg {
				ts.Fatalf("%q: in a file: %v %s", text, is, path)
			}
		}
	},
	// flip FILE changes one bit in the middle of a file.
	"flip": func(ts *testscript.TestScript, _ bool, args []string) {
		path := ts.MkAbs(args[0])
		b, err := os.ReadFile(path)
		ts.Check(err)
		b[len(b)/2] ^= 1
		ts.Check(os.WriteFile(path, b, 0o600))
	},
	// serve ARGS… runs weir serve and waits until it is ready. The environment has what the script's does where the
	// configuration, weir.yaml, asks for it.
	"serve": func(ts *testscript.TestScript, _ bool, args []string) {
		var env []string
		for _, m := range envReference.FindAllStringSubmatch(ts.ReadFile("weir.yaml"), -1) {
			env = append(env, m[1]+"="+ts.Getenv(m[1]))
		}
		g := ts.Value("gateway").(*gatewayOf)
		if g.running != nil {
			ts.Fatalf("a gateway is running")
		}
		ts.Defer(func() {
			if g.running != nil {
				if err := g.stop(syscall.SIGTERM); err != nil || testing.Verbose() {
					ts.Logf("weir serve: %v\n%s", err, g.log())
				}
			}
		})
		ts.Check(g.start(ts.MkAbs("."), env, args...))
	},
	// stop ends the gateway, which must end well; kill9 gives it no chance to.
	"stop": func(ts *testscript.TestScript, _ bool, _ []string) {
		ts.Check(ts.Value("gateway").(*gatewayOf).stop(syscall.SIGTERM))
	},
	"kill9": func(ts *testscript.TestScript, _ bool, _ []string) {
		if err := ts.Value("gateway").(*gatewayOf).stop(syscall.SIGKILL); err == nil {
			ts.Fatalf("the gateway ended by itself")
		}
	},
}

var envReference = regexp.MustCompile(`\$\{env:(\w+)\}`)

// gatewayOf is the gateway of a test: a process of its own.
type gatewayOf struct {
	running *exec.Cmd
	exited  chan error
	mu      sync.Mutex
	lines   bytes.Buffer
}

// start runs weir serve in a folder and returns when it is ready.
func (g *gatewayOf) start(dir string, env []string, args ...string) error {
	cmd := exec.Command("weir", append([]string{"serve"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), env...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	g.running, g.exited = cmd, make(chan error, 1)
	ready := make(chan struct{})
	go func() {
		seen := false
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			g.mu.Lock()
			fmt.Fprintln(&g.lines, lines.Text())
			g.mu.Unlock()
			if !seen && lines.Text() == "weir: ready" {
				seen = true
				close(ready)
			}
		}
		g.exited <- cmd.Wait()
	}()
	select {
	case <-ready:
		return nil
	case err := <-g.exited:
		g.running = nil
		return fmt.Errorf("weir serve ended: %w\n%s", err, g.log())
	case <-time.After(60 * time.Second):
		_ = g.stop(syscall.SIGKILL)
		return fmt.Errorf("weir serve is not ready after a minute\n%s", g.log())
	}
}

// stop sends a signal and waits for the end.
func (g *gatewayOf) stop(s syscall.Signal) error {
	if g.running == nil {
		return errors.New("no gateway is running")
	}
	_ = g.running.Process.Signal(s)
	select {
	case err := <-g.exited:
		g.running = nil
		return err
	case <-time.After(60 * time.Second):
		_ = g.running.Process.Kill()
		<-g.exited
		g.running = nil
		return fmt.Errorf("weir serve does not stop\n%s", g.log())
	}
}

func (g *gatewayOf) log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lines.String()
}

// without hides one file of a folder.
type without struct {
	fs.FS
	name string
}

func (w without) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(w.FS, name)
	var left []fs.DirEntry
	for _, e := range entries {
		if e.Name() != w.name {
			left = append(left, e)
		}
	}
	return left, err
}

func addressOf(s *postgrestest.Server) map[string]string {
	return map[string]string{
		"PGTEST_HOST": s.Host, "PGTEST_PORT": fmt.Sprint(s.Port), "PGTEST_USER": s.User, "PGTEST_PASSWORD": s.Password,
	}
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func replaceIn(path, old, fresh string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte(old)) {
		return fmt.Errorf("%s does not hold %q", path, old)
	}
	return os.WriteFile(path, bytes.ReplaceAll(b, []byte(old), []byte(fresh)), 0o600)
}
