package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/chain"
	"github.com/weir-gateway/weir/protocols/postgres/sql"
)

// copyFuzzFormats are the formats that FuzzCopyOut chooses from.
var copyFuzzFormats = []sql.Copy{
	{Format: "text", Delimiter: '\t', Null: `\N`},
	{Format: "text", Delimiter: '|', Null: "x", Header: true},
	{Format: "csv", Delimiter: ',', Quote: '"', Escape: '"'},
	{Format: "csv", Delimiter: ';', Quote: '\'', Escape: '\\', Null: "n", Header: true, ForceQuote: []string{"a"}},
	{Format: "binary", Delimiter: '\t', Null: `\N`},
}

// taken is what a splitter made of some data.
type taken struct {
	out   []byte // messages
	batch core.Batch
	cp    copyOut
	err   error
}

func (k *taken) payload() (p []byte) {
	for b := k.out; len(b) >= headerSize; {
		n := 1 + int(binary.BigEndian.Uint32(b[1:]))
		p = append(p, b[headerSize:n]...)
		b = b[n:]
	}
	return append(p, k.cp.partial...)
}

func (k *taken) values() (v []string) {
	for _, c := range k.batch.Cells {
		if c.Null() {
			v = append(v, "NULL")
		} else {
			v = append(v, fmt.Sprintf("%q", k.cp.values[c.Off:][:c.Len]))
		}
	}
	return v
}

// takeAll splits data that comes in pieces that end at the places given.
func takeAll(t testing.TB, kind int, data []byte, cuts ...int) *taken {
	t.Helper()
	f := copyFuzzFormats[kind]
	columns := []core.Column{{Name: "a", Type: "text", Binary: f.Format == "binary"}, {Name: "b", Type: "text", Binary: f.Format == "binary"}, {Name: "c"}}
	k := &taken{batch: core.Batch{Columns: columns, Watch: []int{0, 1}}}
	ok := false
	if k.cp.format, k.cp.scan, ok = newCopyFormat(&f, f.Format == "binary", columns); !ok {
		t.Fatal("the format is not known")
	}
	from := 0
	for _, to := range append(cuts, len(data)) {
		if to < from || to > len(data) {
			continue
		}
		if k.out, k.err = k.cp.take(k.out, appendFrame(nil, 'd', data[from:to]), 0, &k.batch, 1<<16); k.err != nil {
			return k
		}
		from = to
	}
	k.batch.Data = k.cp.values
	return k
}

// FuzzCopyOut: wherever the data is cut, the splitter finds the same rows and cells; what is not changed comes out as it
// went in; and what is masked has the mask's value in each cell, and the same rows.
func FuzzCopyOut(f *testing.F) {
	f.Add([]byte("1\ta\\tb\\\\\tc\n\\N\t\\x41\\101\t\\\n\n"), byte(0), uint16(3), uint16(9))
	f.Add([]byte("a|b|c\nx|y\\||z\n"), byte(1), uint16(1), uint16(8))
	f.Add([]byte("1,\"a\"\"\n,b\",c\n,,\n\"\\.\",x\"y,z\"w,\n"), byte(2), uint16(5), uint16(6))
	f.Add([]byte("a;b;c\n'it\\'s';n;'\\\\'\n"), byte(3), uint16(10), uint16(12))
	f.Add([]byte(copyMagic+"\x00\x00\x00\x00\x00\x00\x00\x02ee\x00\x03\x00\x00\x00\x01x\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff"), byte(4), uint16(11), uint16(22))
	f.Fuzz(func(t *testing.T, data []byte, kind byte, i, j uint16) {
		k := int(kind) % len(copyFuzzFormats)
		whole := takeAll(t, k, data)
		for _, cuts := range [][]int{{int(i)}, {int(min(i, j)), int(max(i, j))}, {int(i), int(i) + 1, int(i) + 2}} {
			split := takeAll(t, k, data, cuts...)
			if (whole.err == nil) != (split.err == nil) {
				t.Fatalf("cut at %v: %v, and whole: %v", cuts, split.err, whole.err)
			}
			if whole.err != nil {
				continue
			}
			if !bytes.Equal(split.payload(), data) {
				t.Fatalf("cut at %v: %q came out", cuts, split.payload())
			}
			if fmt.Sprint(split.values()) != fmt.Sprint(whole.values()) || split.batch.Rows != whole.batch.Rows {
				t.Fatalf("cut at %v: %q and %q", cuts, split.values(), whole.values())
			}
		}
		if whole.err != nil {
			return
		}
		if same, _ := whole.cp.format.rebuild(nil, whole.out, &whole.batch, whole.cp.spans, nil); !bytes.Equal(same, whole.out) {
			t.Fatalf("nothing was changed, and %q became %q", whole.out, same)
		}
		for _, value := range []string{"M", "a\tb,c|d;e\"f'g\\h\ni\rj", `\.`, `\N`, "", "x", "n"} {
			masked := takeAll(t, k, data)
			for c := range masked.batch.Cells {
				if _, ok := masked.batch.Value(c); ok {
					masked.batch.Set(c, []byte(value))
				}
			}
			out, _ := masked.cp.format.rebuild(nil, masked.out, &masked.batch, masked.cp.spans, nil)
			masked.out = out
			masked.cp.partial = nil
			again := takeAll(t, k, masked.payload())
			if again.err != nil || again.batch.Rows != whole.batch.Rows || len(again.batch.Cells) != len(whole.batch.Cells) {
				t.Fatalf("%q became %q: %v", data, masked.payload(), again.err)
			}
			for c := range again.batch.Cells {
				was, wasText := whole.batch.Value(c)
				now, text := again.batch.Value(c)
				if wasText != text || text && string(now) != value {
					t.Fatalf("cell %d: %q %v became %q %v, want %q, in %q", c, was, wasText, now, text, value, masked.payload())
				}
			}
		}
	})
}

// copyBench is a message of each kind, as PostgreSQL sends them: a row a message.
func copyBench(kind int) []byte {
	switch copyFuzzFormats[kind].Format {
	case "binary":
		return []byte("\x00\x03\x00\x00\x00\x04\x00\x00\x00\x01\x00\x00\x00\x0fada@example.com\x00\x00\x00\x02xx")
	case "csv":
		return []byte("12345,ada@example.com,\"a note, with a comma\"\n")
	}
	return []byte("12345\tada@example.com\ta note, with a\\ttab\n")
}

func benchCopy(t testing.TB, kind int) (row func()) {
	k := takeAll(t, kind, nil)
	k.cp.scan.phase = copyAtRow
	frame := appendFrame(nil, 'd', copyBench(kind))
	value := []byte("a***@example.com")
	var scratch []byte
	return func() {
		k.out, k.cp.values, k.cp.spans = k.out[:0], k.cp.values[:0], k.cp.spans[:0]
		k.batch = core.Batch{Columns: k.batch.Columns, Watch: k.batch.Watch, Cells: k.batch.Cells[:0], Patches: k.batch.Patches[:0]}
		for range 100 {
			var err error
			if k.out, err = k.cp.take(k.out, frame, 0, &k.batch, 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		k.batch.Data = k.cp.values
		for c := 1; c < len(k.batch.Cells); c += 2 {
			k.batch.Set(c, value)
		}
		scratch, k.cp.room = k.cp.format.rebuild(scratch[:0], k.out, &k.batch, k.cp.spans, k.cp.room)
	}
}

// TestCopyAllocs: once its buffers have grown, the splitter allocates nothing.
func TestCopyAllocs(t *testing.T) {
	for _, kind := range []int{0, 2, 4} {
		if n := testing.AllocsPerRun(50, benchCopy(t, kind)); n != 0 {
			t.Errorf("%s: %v allocations for 100 rows", copyFuzzFormats[kind].Format, n)
		}
	}
}

// BenchmarkCopyOut is 100 rows that are taken apart, masked in one column and put together again.
func BenchmarkCopyOut(b *testing.B) {
	for _, kind := range []int{0, 2, 4} {
		b.Run(copyFuzzFormats[kind].Format, func(b *testing.B) {
			row := benchCopy(b, kind)
			b.SetBytes(int64(100 * len(copyBench(kind))))
			b.ReportAllocs()
			for b.Loop() {
				row()
			}
		})
	}
}

// TestCopyIsReadable: a recorded COPY is shown as rows, whatever its format.
func TestCopyIsReadable(t *testing.T) {
	columns := []core.Column{{Name: "a", Type: "int4"}, {Name: "b", Type: "text"}, {Name: "c", Type: "text"}}
	for _, c := range []struct {
		wire   string
		binary bool
		want   string
	}{
		{"1\tx\\ty\t\\N\n2\t\tz\n", false, "1,x\ty,NULL;2,,z;"},
		{"1,\"x,\"\"y\",\n", false, "1,x,\"y,NULL;"},
		{"a|b|c\n", false, "a,b,c;"},
		{"what is this\n", false, "what is this;"},
		{copyMagic + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x07\x00\x00\x00\x01x\xff\xff\xff\xff", true, "7,x,NULL;"},
		{"\x00\x03\x00\x00\x00\x04\x00\x00\x00\x07\x00\x00\x00\x01x\xff\xff\xff\xff\xff\xff", true, "7,x,NULL;"},
		{"\x00\x03\x00\x00", true, ""},
	} {
		for i := range columns {
			columns[i].Binary = c.binary
		}
		rows, err := protocol.ReadRows(columns, message('d', c.wire))
		got := ""
		for _, r := range rows {
			for i, v := range r {
				if i > 0 {
					got += ","
				}
				if v == nil {
					got += "NULL"
				} else {
					got += *v
				}
			}
			got += ";"
		}
		if err != nil || got != c.want {
			t.Errorf("%q is shown as %q, want %q: %v", c.wire, got, c.want, err)
		}
	}
}

// FuzzCopyAsked: whatever a server says to Weir's own question for the columns of a COPY, and to the COPY behind it, the
// client gets what is in the record, and one end a command.
func FuzzCopyAsked(f *testing.F) {
	described := func() []byte {
		row := "\x00\x02id\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x17\xff\xff\xff\xff\xff\xff\x00\x00" + "email\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\xff\x00\x00"
		return frames(message('1', ""), message('t', "\x00\x00"), message('T', row), message('3', ""))
	}()
	failed := message('E', "SERROR\x00C42703\x00Mcolumn \"x\" does not exist\x00P8\x00Hno\x00\x00")
	ready := message('Z', "I")
	f.Add(frames(described, copyStream(false, 2, []byte("1\tcanary\n")), ready))
	f.Add(frames(failed, ready, ready))
	f.Add(frames(message('1', ""), failed, ready))
	f.Add(frames(described, failed, ready, ready))
	f.Add(frames(message('N', "SNOTICE\x00C42622\x00Mlong\x00\x00"), described, message('N', "SNOTICE\x00Mlong\x00\x00"), copyStream(false, 3, []byte("1\tcanary\t\n")), ready))
	f.Fuzz(copyAsked)
}

// copyAsked plays two COPY against a server that has said b.
func copyAsked(t *testing.T, b []byte) {
	plugin, err := chain.New(chain.Step{Name: "m", Plugin: masking{{Column: "email", With: "redact", Args: map[string]string{"text": "X"}}}})
	if err != nil {
		t.Fatal(err)
	}
	journal := &memory{}
	s := &core.Session{Protocol: "postgres", Target: &core.Target{Record: core.LevelFull}}
	s.Begin(core.SessionConfig{Chain: plugin, Recorder: &memoryRecorder{m: journal}})
	ask := frames(message('Q', "copy t to stdout\x00"), message('Q', "copy (select 1) to stdout\x00"))
	client, up := &scriptConn{in: bytes.NewReader(ask)}, &scriptConn{in: bytes.NewReader(b)}
	c := newConnection(s, protocol.reader, client, &upstream{conn: up})
	c.cut = func() {}
	if err := c.client.fill(0); err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		defer func() {
			if e := recover(); e != nil {
				asked <- fmt.Errorf("panic: %v\n%s", e, debug.Stack())
			}
		}()
		asked <- errors.Join(c.handle(context.Background()), c.ask(context.Background()))
	}()
	for end := false; !end; {
		for c.queue.empty() && len(asked) == 0 { // the next question is on its way
			runtime.Gosched()
		}
		end = c.server.fill(c.answer.need) != nil || c.deliver(context.Background()) != nil || c.forward(context.Background()) != nil
	}
	c.stop(core.EndClosed, "the script is over", nil)
	if err := <-asked; err != nil && !errors.Is(err, errGone) {
		t.Fatal(err)
	}
	out := client.out.Bytes()
	if !bytes.HasPrefix(journal.clientBytes(), out) {
		t.Fatalf("the client was sent what is not in the record:\n%q\n%q", out, journal.clientBytes())
	}
	if owed := strings.Count(types(string(out)), "Z"); owed > 2 {
		t.Fatalf("%d ends of two commands", owed)
	}
}
