package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestUnits: every unit is one that systemd reads without a complaint, and none lacks what makes a service hard to
// misuse.
func TestUnits(t *testing.T) {
	units, err := filepath.Glob("*.service")
	if err != nil || len(units) != 4 {
		t.Fatalf("%v %v", units, err)
	}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		text := string(b)
		for _, want := range []string{"NoNewPrivileges=yes", "CapabilityBoundingSet=\n", "ProtectSystem=strict", "PrivateDevices=yes", "SystemCallFilter=@system-service", "Restart=always", "User=", "LimitCORE=0", "UMask=0077"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %s", unit, strings.TrimSpace(want))
			}
		}
	}
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	// A copy, whose programs are there: systemd looks for them.
	dir := t.TempDir()
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		b = regexp.MustCompile(`/usr/local/bin/[a-z-]+`).ReplaceAll(b, []byte("/bin/true"))
		if err := os.WriteFile(filepath.Join(dir, unit), b, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program, "verify", filepath.Join(dir, unit)).CombinedOutput()
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, unit) { // what is wrong with other units of this machine is not ours
				t.Error(strings.TrimSpace(line))
			}
		}
		if err != nil && strings.Contains(string(out), unit) {
			t.Errorf("%s: %v", unit, err)
		}
	}
	// The control: a setting that does not exist is noticed.
	bad := filepath.Join(dir, "bad.service")
	if err := os.WriteFile(bad, []byte("[Service]\nExecStart=/bin/true\nProtectSistem=yes\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, _ := exec.Command(program, "verify", bad).CombinedOutput(); !strings.Contains(string(out), "ProtectSistem") { // its exit code differs between versions
		t.Skipf("this systemd-analyze verifies nothing: %s", out)
	}
}

// TestNATS: the server's settings are those that the journal's promise rests on.
func TestNATS(t *testing.T) {
	b, err := os.ReadFile("nats.conf")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^\s*sync_interval: always$`).Match(b) {
		t.Error("nats.conf does not flush every message")
	}
}
