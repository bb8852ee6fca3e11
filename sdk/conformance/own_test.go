package conformance

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOwn runs the tests that the libraries have in their own languages. Go's are run by go test.
func TestOwn(t *testing.T) {
	run := func(t *testing.T, dir, name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", cmd, err, out)
		}
	}
	t.Run("rust", func(t *testing.T) {
		rustc, err := exec.LookPath("rustc")
		if err != nil {
			t.Skip("it needs rustc")
		}
		if exec.CommandContext(t.Context(), rustc, "--version").Run() != nil {
			t.Skip("rustc does not run")
		}
		file := filepath.Join(t.TempDir(), "own")
		run(t, "../rust", rustc, "--edition", "2021", "--test", "-o", file, "src/lib.rs")
		run(t, ".", file, "--quiet")
	})
	t.Run("assemblyscript", func(t *testing.T) {
		if _, err := os.Stat("../assemblyscript/node_modules/assemblyscript"); err != nil {
			t.Skip("in sdk/assemblyscript: npm ci")
		}
		run(t, "../assemblyscript", "npm", "test", "--silent")
	})
}
