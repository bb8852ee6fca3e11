//go:build linux

package faults_test

import (
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestZZ(t *testing.T) {
	mount := filepath.Join(t.TempDir(), "small")
	must(t, os.Mkdir(mount, 0o700))
	must(t, syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=120m"))
	t.Cleanup(func() { must(t, syscall.Unmount(mount, syscall.MNT_DETACH)) })
	g := start(t, setup{data: filepath.Join(mount, "data")})
	clients := []*client{g.open("reader"), g.open("other")}
	idle := g.open("idle")
	for _, c := range append(clients, idle) {
		c.must(t, "select 'before'")
	}
	fill(t, mount)
	exhausted(t, g, clients, idle)
	must(t, syscall.Mount("tmpfs", mount, "tmpfs", syscall.MS_REMOUNT, "size=2g"))
	begin := time.Now()
	for time.Since(begin) < 10*time.Second {
		res, err := http.Get("http://" + g.admin + "/readyz")
		must(t, err)
		_ = res.Body.Close()
		if res.StatusCode == 200 { break }
		time.Sleep(50 * time.Millisecond)
	}
	t.Log("ready after", time.Since(begin))
	c := g.open("revived")
	for i := range 10 {
		_, err := c.query(big)
		if err != nil { t.Log(i, err); break }
	}
	c.bye()
	time.Sleep(15*time.Second)
	for _, s := range g.sessions() { t.Log(s) }
	begin = time.Now()
	g.signal(syscall.SIGTERM)
	t.Log("exit", g.wait(60*time.Second), time.Since(begin))
	t.Log(tail(g.process.out.String(), 12))
	g.serve()
	g.stop()
}
