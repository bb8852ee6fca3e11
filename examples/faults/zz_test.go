//go:build linux

package faults_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestZZ(t *testing.T) {
	g := start(t, setup{})
	stop := g.steady("steady")
	c := g.open("slow")
	c.must(t, "select 1")
	before := g.rss()
	grab := func() string {
		res, err := http.Get("http://" + g.admin + "/metrics")
		must(t, err)
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		out := ""
		for l := range strings.Lines(string(b)) {
			for _, k := range []string{"go_memstats_heap_inuse_bytes ", "go_memstats_heap_idle_bytes ", "go_memstats_heap_released_bytes ", "weir_journal_pending", "go_memstats_alloc_bytes ", "weir_journal_lag", "go_memstats_sys_bytes ","weir_archive_lag"} {
				if strings.HasPrefix(l, k) {
					out += strings.TrimSpace(strings.TrimPrefix(l,"go_memstats_")) + "; "
				}
			}
		}
		return out
	}
	t.Log(before>>20, grab())
	_, err := c.Write(frame('Q', []byte("select repeat(md5(g::text), 31) from generate_series(1, 220000) g\x00")))
	must(t, err)
	total := int64(0)
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	for total < 199<<20 {
		m, err := io.CopyN(io.Discard, c.in, 2<<20)
		must(t, err)
		total += m
		if total>>20 % 10 == 0 {
			t.Log(total>>20, (g.rss()-before)>>20, grab())
		}
		time.Sleep(80 * time.Millisecond)
	}
	stop()
	_ = c.Close()
	g.sealed("slow")
}
