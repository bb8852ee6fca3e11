package wasm

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// The shipped guest, through the real host.

var piiModule = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "weir-pii")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "pii.wasm")
	cmd := exec.Command("go", "build", "-trimpath", "-buildmode=c-shared", "-ldflags=-s -w", "-o", file, "../../plugins/pii")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(file)
})

func pii(t testing.TB, c Config) *Plugin {
	t.Helper()
	m, err := piiModule()
	if err != nil {
		t.Fatal(err)
	}
	c.Name, c.Module = "pii", m
	return load(t, c)
}

func TestPII(t *testing.T) {
	columns := []core.Column{{Name: "id", Type: "int8"}, {Name: "note", Type: "text"}, {Name: "doc", Type: "jsonb"}, {Name: "amount", Type: "numeric"}, {Name: "mood", Type: "my_enum"}, {Name: "tags", Type: "_text"}}
	row := []string{"4111111111111111", "ada@example.com paid with 4111 1111 1111 1111", `{"ssn": "123-45-6789"}`, "4111111111111111", "b@c.org", "{DE89370400440532013000}"}
	masked := []string{"4111111111111111", "a**@example.com paid with **** **** **** 1111", `{"ssn": "***-**-****"}`, "4111111111111111", "*@c.org", "{DE********************}"}
	p := pii(t, Config{})
	b := batch(columns, row, []string{"1", null, "{}", "2", "", "{}"})
	v := ask(t, p, rowsEvent(b))
	if got := values(b); !slices.Equal(got[:6], masked) || got[7] != null || !v.Changed {
		t.Errorf("%q", got)
	}
	if s := fmt.Sprint(v.Decisions); s != "[{ finding EMAIL 2} { finding CARD 1} { finding IBAN 1} { finding SSN 1}]" {
		t.Errorf("findings %s", s)
	}
	if s := fmt.Sprintf("%+v", v); strings.Contains(s, "ada@") || strings.Contains(s, "4111") {
		t.Errorf("the verdict tells a value: %s", s)
	}
	if v := ask(t, p, rowsEvent(batch(columns, []string{"1", "clean", "{}", "2", "ok", "{}"}))); v.Changed || v.Decisions != nil {
		t.Errorf("%+v", v)
	}
	// Guard off: an entity that was not asked for stays.
	only := pii(t, Config{Config: map[string]any{"entities": []string{"SSN"}}})
	b = batch(columns, row)
	ask(t, only, rowsEvent(b))
	if got := values(b); got[1] != row[1] || got[2] != masked[2] {
		t.Errorf("only SSN: %q", got)
	}
	for _, bad := range []map[string]any{{"entities": []string{"NAME"}}, {"entities": "EMAIL"}, {"entities": []string{}}, {"entity": []string{"EMAIL"}}} {
		m, _ := piiModule()
		if _, err := newHost(t).Load(context.Background(), Config{Name: "pii", Module: m, Config: bad}); err == nil || !strings.Contains(err.Error(), "refuses its config") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func benchBatch(rows int) *core.Batch {
	columns := make([]core.Column, 8)
	for i := range columns {
		columns[i] = core.Column{Name: fmt.Sprint("c", i), Type: "text"}
	}
	var data [][]string
	for i := range rows {
		data = append(data, []string{fmt.Sprint(i), fmt.Sprintf("user%d@example.com", i), "Ada", "London", "2024-05-06", "123.45", "active", "a note"})
	}
	return batch(columns, data...)
}

// BenchmarkPII detects in short values, in text without much in it, and in one whose half is to be masked: as a guest without fuel and
// with it, and as a native step.
func BenchmarkPII(b *testing.B) {
	texts := map[string]string{
		"prose": strings.Repeat("The quick brown fox jumps over the lazy dog, and it was paid 12.50 on Monday; see order 8841 for more. ", 3),
		"dense": "ada.lovelace@example.com 4111111111111111 some ordinary text that has nothing in it 2024-05-06 10:11:12",
	}
	for _, way := range []struct {
		name   string
		plugin core.Plugin
	}{{"plain", pii(b, Config{noFuel: true})}, {"fuel", pii(b, Config{})}, {"native", nativePII(b, Config{})}} {
		for _, what := range []string{"short", "prose", "dense"} {
			b.Run(way.name+"/"+what, func(b *testing.B) {
				b.ReportAllocs()
				bt := benchBatch(1000)
				if text := texts[what]; text != "" {
					bt = batch([]core.Column{{Name: "note", Type: "text"}}, slices.Repeat([][]string{{text}}, 300)...)
				}
				data, size := bytes.Clone(bt.Data), int64(0)
				for _, c := range bt.Cells {
					size += int64(c.Len)
				}
				b.SetBytes(size)
				e := rowsEvent(bt)
				for b.Loop() {
					copy(bt.Data, data)
					if _, err := way.plugin.Inspect(context.Background(), e); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	m, err := piiModule()
	if err != nil {
		b.Fatal(err)
	}
	h := newHost(b)
	for b.Loop() {
		p, err := h.Load(context.Background(), Config{Name: "pii", Module: m})
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Close(context.Background())
	}
}

func BenchmarkInstrument(b *testing.B) {
	m, err := piiModule()
	if err != nil {
		b.Fatal(err)
	}
	var out []byte
	for b.Loop() {
		out, _, _ = instrument(m, true)
	}
	b.ReportMetric(100*float64(len(out))/float64(len(m))-100, "%larger")
}

// BenchmarkLoadCold compiles each time.
func BenchmarkLoadCold(b *testing.B) {
	m, err := piiModule()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		h, err := Open(context.Background(), HostConfig{CacheDir: b.TempDir() + "/cache"})
		if err != nil {
			b.Fatal(err)
		}
		p, err := h.Load(context.Background(), Config{Name: "pii", Module: m})
		if err != nil {
			b.Fatal(err)
		}
		_ = p.Close(context.Background())
		_ = h.Close(context.Background())
	}
}
