package clients

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/weir-gateway/weir/protocols/postgres/postgrestest"
)

// testdata returns the absolute path of a file in testdata: the programs run in folders of their own.
func testdata(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// speak runs a driver's program and returns what it printed.
func speak(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, code := output(t, cmd)
	if code != 0 {
		t.Fatalf("%s ended with %d:\n%s", filepath.Base(cmd.Path), code, out)
	}
	return out
}

func TestPsycopg(t *testing.T) {
	t.Parallel()
	need(t, "python3-psycopg")
	const name = "psycopg"
	converse(t, name, speak(t, program(t, name, guarded, "/usr/bin/python3", testdata(t, "conversation.py"), name)))
}

func TestJDBC(t *testing.T) {
	t.Parallel()
	java, err := exec.LookPath("java")
	if err != nil {
		t.Skip("no java: install default-jdk-headless")
	}
	need(t, "libpostgresql-jdbc-java")
	const name = "jdbc"
	cmd := program(t, name, guarded, java, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/postgresql.jar", testdata(t, "Conversation.java"), name)
	out, code := output(t, cmd)
	if code != 0 && len(missing(out, "jdk.compiler not found", "Could not find or load main class")) < 2 {
		t.Skip("this java cannot compile: install default-jdk-headless")
	}
	if code != 0 {
		t.Fatalf("java ended with %d:\n%s", code, out)
	}
	converse(t, name, out)
}

// nodeModules returns the folder that node finds pg in: npm's, where there is npm, and otherwise Debian's.
var nodeModules = sync.OnceValues(func() (string, error) {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "/usr/share/nodejs", postgrestest.Packages(context.Background(), nil, "nodejs", "node-pg")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "weir-test", "node")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	wanted, err := os.ReadFile("testdata/node/package.json")
	if err != nil {
		return "", err
	}
	have, _ := os.ReadFile(filepath.Join(dir, "node_modules", "installed.json"))
	if string(have) == string(wanted) {
		return filepath.Join(dir, "node_modules"), nil
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), wanted, 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command(npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &os.PathError{Op: "npm install pg (" + string(out) + ")", Path: dir, Err: err}
	}
	return filepath.Join(dir, "node_modules"), os.WriteFile(filepath.Join(dir, "node_modules", "installed.json"), wanted, 0o644)
})

func TestNode(t *testing.T) {
	t.Parallel()
	wanted()
	modules, err := nodeModules()
	if err != nil {
		t.Skip("node's pg cannot be had: ", err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node: install nodejs")
	}
	const name = "node"
	cmd := program(t, name, guarded, node, testdata(t, "node/conversation.js"), name)
	cmd.Env = append(cmd.Env, "NODE_PATH="+modules)
	var cannot []string
	if _, err := os.Stat(filepath.Join(modules, "pg-copy-streams")); err != nil {
		cannot = []string{"copy out", "copy in", "copy refused"}
	}
	converse(t, name, speak(t, cmd), cannot...)
}
