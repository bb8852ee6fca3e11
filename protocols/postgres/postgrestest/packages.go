package postgrestest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// ErrPackages is wrapped when Debian packages are missing and this process may not, or cannot, install them.
var ErrPackages = errors.New("postgrestest: packages are missing")

// Packages makes sure that Debian packages are there, and installs what is not when this process may. A test that needs
// one skips with the error, which names what is missing.
func Packages(ctx context.Context, log io.Writer, names ...string) error {
	missing := absent(ctx, names)
	if len(missing) == 0 {
		return nil
	}
	words := strings.Join(missing, " ")
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: as root, apt-get install %s", ErrPackages, words)
	}
	if err := install(ctx, log, missing...); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrPackages, words, err)
	}
	if missing = absent(ctx, missing); len(missing) > 0 {
		return fmt.Errorf("%w: %s, although apt-get says it installed them", ErrPackages, strings.Join(missing, " "))
	}
	return nil
}

// absent returns the packages that are not installed.
func absent(ctx context.Context, names []string) (missing []string) {
	for _, n := range names {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${db:Status-Status}", n).Output()
		if err != nil || string(out) != "installed" {
			missing = append(missing, n)
		}
	}
	return missing
}

// install runs apt-get. Test binaries run beside each other: one at a time installs.
func install(ctx context.Context, log io.Writer, names ...string) error {
	unlock, err := lock(filepath.Join(os.TempDir(), "weir-apt-get.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if log == nil {
		log = io.Discard
	}
	for _, args := range [][]string{{"update", "-q"}, append([]string{"install", "-q", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"}, names...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = io.MultiWriter(log, &out), io.MultiWriter(log, &out)
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, tail(out.String(), 10))
		}
	}
	return nil
}

// lock takes a lock that other processes honour as well.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { _ = f.Close() }, nil
}
