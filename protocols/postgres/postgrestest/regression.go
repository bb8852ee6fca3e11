package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// Regression is PostgreSQL's own regression suite, fetched from Debian's sources and built for the installed server.
type Regression struct {
	Sources string // src/test/regress of the sources

	bin     string
	dir     string // of this run, readable by the server's user
	program string // pg_regress
}

// Suite fetches the suite into a folder, unless it is there, and builds what its tests load.
func Suite(ctx context.Context, work string, log io.Writer) (r *Regression, err error) {
	if log == nil {
		log = io.Discard
	}
	r = &Regression{}
	if r.bin, err = Find(ctx, log); err != nil {
		return nil, err
	}
	if r.Sources, err = sources(ctx, r.bin, work, log); err != nil {
		return nil, fmt.Errorf("postgrestest: %w", err)
	}
	if r.dir, err = os.MkdirTemp("", "weir-regression-"); err != nil {
		return nil, err
	}
	if err = os.Chmod(r.dir, 0o755); err == nil {
		err = r.build(ctx, r.bin, log)
	}
	if err != nil {
		_ = os.RemoveAll(r.dir)
		return nil, fmt.Errorf("postgrestest: %w", err)
	}
	return r, nil
}

// Release returns the version that the sources are of, such as postgresql-15.18.
func (r *Regression) Release() string {
	return filepath.Base(filepath.Dir(filepath.Dir(filepath.Dir(r.Sources))))
}

// Close removes what the runs left; the sources stay.
func (r *Regression) Close() error { return os.RemoveAll(r.dir) }

// sources fetches the server's own sources as Debian keeps them and returns their src/test/regress.
func sources(ctx context.Context, bin, work string, log io.Writer) (string, error) {
	major := filepath.Base(filepath.Dir(bin))
	found, _ := filepath.Glob(filepath.Join(work, "postgresql-"+major+".*", "src", "test", "regress"))
	if len(found) > 0 {
		return filepath.Abs(found[0])
	}
	fmt.Fprintln(log, "fetching the sources of PostgreSQL "+major)
	if err := os.MkdirAll(filepath.Join(work, "lists", "partial"), 0o755); err != nil {
		return "", err
	}
	abs, err := filepath.Abs(work)
	if err != nil {
		return "", err
	}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	codename := regexp.MustCompile(`VERSION_CODENAME=(\w+)`).FindSubmatch(release)
	if codename == nil {
		return "", errors.New("the sources come from Debian, and this is not one")
	}
	mirror := "http://deb.debian.org/debian"
	if all, err := exec.Command("sh", "-c", "cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null").Output(); err == nil {
		if m := regexp.MustCompile(`(?m)^(?:URIs:|deb(?: \[[^]]*\])?) +(\S+/debian/?)(?:\s|$)`).FindSubmatch(all); m != nil {
			mirror = string(m[1])
		}
	}
	list := filepath.Join(abs, "sources.list")
	line := fmt.Sprintf("deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, codename[1])
	if err := os.WriteFile(list, []byte(line), 0o644); err != nil {
		return "", err
	}
	options := []string{"-o", "Dir::Etc::SourceList=" + list, "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::State::lists=" + filepath.Join(abs, "lists")}
	for _, args := range [][]string{{"update"}, {"source", "--download-only", "postgresql-" + major}} {
		cmd := exec.CommandContext(ctx, "apt-get", append(append([]string(nil), options...), args...)...)
		cmd.Dir = abs
		if b, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get %s: %w\n%s", args[0], err, b)
		}
	}
	tars, _ := filepath.Glob(filepath.Join(abs, "postgresql-"+major+"_*.orig.tar.*"))
	if len(tars) == 0 {
		return "", errors.New("apt-get source brought no sources")
	}
	if b, err := exec.CommandContext(ctx, "tar", "-C", abs, "-xf", tars[0]).CombinedOutput(); err != nil {
		return "", fmt.Errorf("tar: %w\n%s", err, b)
	}
	found, _ = filepath.Glob(filepath.Join(work, "postgresql-"+major+".*", "src", "test", "regress"))
	if len(found) == 0 {
		return "", errors.New("the sources hold no src/test/regress")
	}
	return filepath.Abs(found[0])
}

// build compiles regress.so and finds pg_regress, installing the server's headers when they are not there.
func (r *Regression) build(ctx context.Context, bin string, log io.Writer) error {
	major := filepath.Base(filepath.Dir(bin))
	include := filepath.Join("/usr/include/postgresql", major, "server")
	r.program = filepath.Join(filepath.Dir(bin), "lib", "pgxs", "src", "test", "regress", "pg_regress")
	if _, err := os.Stat(filepath.Join(include, "postgres.h")); err != nil {
		if err := install(ctx, log, "postgresql-server-dev-"+major, "gcc", "libc6-dev"); err != nil {
			return err
		}
	}
	lib := filepath.Join(r.dir, "lib")
	if err := os.MkdirAll(lib, 0o755); err != nil {
		return err
	}
	gcc := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-O1", "-w", "-I"+include, "-o", filepath.Join(lib, "regress.so"), filepath.Join(r.Sources, "regress.c"))
	if b, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("gcc regress.c: %w\n%s", err, b)
	}
	for _, so := range []string{"refint.so", "autoinc.so"} { // they come with the server
		b, err := os.ReadFile(filepath.Join(filepath.Dir(bin), "lib", so))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(lib, so), b, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Play runs the suite, or some of its tests, against an address, and returns the folder of the results. Options of
// pg_regress may stand among the tests.
func (r *Regression) Play(ctx context.Context, name, address, password string, tests ...string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	out := filepath.Join(r.dir, name)
	for _, d := range []string{out, filepath.Join(out, "results"), filepath.Join(out, "testtablespace"), filepath.Join(out, "sql"), filepath.Join(out, "expected")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return "", err
		}
		_ = os.Chmod(d, 0o777)
	}
	input := filepath.Join(r.dir, "input")
	if _, err := os.Stat(input); err != nil { // where the server's user can read it
		if b, err := exec.CommandContext(ctx, "cp", "-r", r.Sources, input).CombinedOutput(); err != nil {
			return "", fmt.Errorf("cp: %w\n%s", err, b)
		}
		if b, err := exec.CommandContext(ctx, "chmod", "-R", "a+rX", input).CombinedOutput(); err != nil {
			return "", fmt.Errorf("chmod: %w\n%s", err, b)
		}
	}
	// The results hold paths where a test prints one: both runs see the same.
	same := filepath.Join(r.dir, "now")
	_ = os.Remove(same)
	if err := os.Symlink(out, same); err != nil {
		return "", err
	}
	args := []string{
		"--inputdir=" + input, "--outputdir=" + same, "--bindir=" + r.bin, "--dlpath=" + filepath.Join(r.dir, "lib"),
		"--host=" + host, "--port=" + port, "--user=postgres", "--max-concurrent-tests=20",
	}
	all := true
	for _, t := range tests {
		all = all && strings.HasPrefix(t, "-")
	}
	if args = append(args, tests...); all {
		args = append(args, "--schedule="+filepath.Join(input, "parallel_schedule"))
	}
	cmd := exec.CommandContext(ctx, r.program, args...)
	cmd.Dir = out
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGSSLMODE=disable", "LC_ALL=C")
	if uid, gid, ok := serverUser(); ok {
		if b, err := exec.CommandContext(ctx, "chown", "-R", fmt.Sprintf("%d:%d", uid, gid), out).CombinedOutput(); err != nil {
			return "", fmt.Errorf("chown: %w\n%s", err, b)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	}
	b, err := cmd.CombinedOutput() // tests fail: what they print here is compared by the caller, with nothing expected
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	results := filepath.Join(out, "results")
	if n, _ := filepath.Glob(filepath.Join(results, "*.out")); len(n) == 0 {
		return "", fmt.Errorf("no results:\n%s", b)
	}
	return results, nil
}
