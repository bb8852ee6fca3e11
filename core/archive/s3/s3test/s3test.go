// Package s3test starts a real S3 server for tests: versitygw, over a directory. It enforces object lock.
package s3test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

const (
	module  = "github.com/versity/versitygw/cmd/versitygw"
	version = "v1.8.0"
)

// Server is a running server. It ends with the test.
type Server struct {
	URL                  string
	AccessKey, SecretKey string
	Client               *minio.Client

	addr, dir string
	cmd       *exec.Cmd
}

// Start starts a server. The first call on a machine builds it, which takes minutes.
func Start(t testing.TB) *Server {
	t.Helper()
	binary, err := Install()
	if err != nil {
		t.Fatalf("s3test: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{AccessKey: "weir-test", SecretKey: "a secret of the test", addr: l.Addr().String(), dir: t.TempDir()}
	l.Close()
	s.URL = "http://" + s.addr
	for _, d := range []string{"data", "versions"} {
		if err := os.Mkdir(filepath.Join(s.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s.cmd = exec.Command(binary, Arguments(s.addr, s.dir)...)
	s.cmd.Env = append(os.Environ(), Environment(s.AccessKey, s.SecretKey)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var said strings.Builder
	s.cmd.Stdout, s.cmd.Stderr = io.Discard, &said
	runtime.LockOSThread() // the server dies with the thread that started it
	defer runtime.UnlockOSThread()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
	if s.Client, err = minio.New(s.addr, &minio.Options{Creds: credentials.NewStaticV4(s.AccessKey, s.SecretKey, ""), Region: "us-east-1"}); err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if res, err := http.Get(s.URL); err == nil {
			res.Body.Close()
			return s
		}
		if time.Since(begun) > 15*time.Second {
			t.Fatalf("s3test: the server does not answer: %s", said.String())
		}
	}
}

// Bucket makes a bucket; one that locks keeps versions, too.
func (s *Server) Bucket(t testing.TB, name string, locks bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Client.MakeBucket(ctx, name, minio.MakeBucketOptions{ObjectLocking: locks}); err != nil {
		t.Fatalf("s3test: bucket %s: %v", name, err)
	}
}

// Pause stops the server, each of its threads, and Resume lets it go on.
func (s *Server) Pause() {
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	_, _ = syscall.Wait4(s.cmd.Process.Pid, &status, syscall.WUNTRACED, nil) // returns when the whole process has stopped
}

// Resume lets a server that stands still go on.
func (s *Server) Resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

// Arguments are the server's: where it listens, and the folder of its data, in which there are data and versions.
func Arguments(address, dir string) []string {
	return []string{"--port", address, "--region", "us-east-1", "--quiet", "posix", "--versioning-dir", filepath.Join(dir, "versions"), filepath.Join(dir, "data")}
}

// Environment is the server's: who may ask it.
func Environment(accessKey, secretKey string) []string {
	return []string{"ROOT_ACCESS_KEY=" + accessKey, "ROOT_SECRET_KEY=" + secretKey}
}

// Install builds the server into the user's cache, once, and returns its file.
func Install() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "weir-tools", "versitygw-"+version)
	binary := filepath.Join(dir, "versitygw")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	cmd := exec.Command("go", "install", module+"@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=-mod=mod")
	cmd.Dir = dir // outside of any module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", module, err, out)
	}
	return binary, nil
}
