package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/weir-gateway/weir/core/wasm"
)

// vectors are frames that a plugin is asked, and what it must answer. The format is that of sdk/conformance.
type vectors struct {
	Comment        string `json:"comment"`
	Configurations []struct {
		Plugin   string `json:"plugin"` // none: the one that is tested
		Text     string `json:"text"`
		Accepted bool   `json:"accepted"`
	} `json:"configurations"`
	Vectors []vector `json:"vectors"`
}

type vector struct {
	Name       string          `json:"name"`
	Plugin     string          `json:"plugin"`
	Config     json.RawMessage `json:"config"`
	ConfigText string          `json:"config_text"`
	Frame      *vectorFrame    `json:"frame"`
	Hex        string          `json:"hex"` // the whole frame; none: it is made of the parts
	Expect     expected        `json:"expect"`
}

type vectorFrame struct {
	Kind       uint16 `json:"kind"`
	Editable   bool   `json:"editable"`
	Rows       uint32 `json:"rows"`
	Columns    uint16 `json:"columns"`
	Attributes []struct {
		ID   uint16 `json:"id"`
		Text string `json:"text"`
		Hex  string `json:"hex"`
	} `json:"attributes"`
	Cells []*vectorValue `json:"cells"`
	Room  int            `json:"room"`
	Spoil []struct {
		At     int    `json:"at"`
		Cell   *int   `json:"cell"`
		Hex    string `json:"hex"`
		Header int    `json:"header"`
	} `json:"spoil"`
}

type expected struct {
	Verdict  string               `json:"verdict"`
	Aux      *uint32              `json:"aux"`
	Cells    []*vectorValue       `json:"cells"`
	Patches  [][]any              `json:"patches"`
	Texts    []string             `json:"texts"`
	Findings [][]string           `json:"findings"`
	Counters map[string]float64   `json:"counters"`
	Observed map[string][]float64 `json:"observed"`
}

// vectorValue is a text, or bytes as {"hex": "…"}. NULL is a nil one.
type vectorValue struct{ b []byte }

// UnmarshalJSON implements json.Unmarshaler.
func (v *vectorValue) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		v.b = []byte(s)
		return nil
	}
	var h struct {
		Hex string `json:"hex"`
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return errors.New("a value is a text, {\"hex\": …} or null")
	}
	var err error
	v.b, err = hex.DecodeString(h.Hex)
	return err
}

const maxVectors = 64 << 20

func readVectors(path string) (*vectors, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxVectors {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxVectors>>20)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	v := &vectors{}
	if err := d.Decode(v); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for i := range v.Vectors {
		if x := &v.Vectors[i]; x.Name == "" || x.Frame == nil && x.Hex == "" || !knownVerdict(x.Expect.Verdict) {
			return nil, fmt.Errorf("%s: vector %d (%q) needs a name, a frame and a verdict that is one of pass, modified, patch, deny, hold, more room, failed", path, i+1, x.Name)
		}
	}
	return v, nil
}

var verdictNames = map[int32]string{0: "pass", 1: "modified", 2: "patch", 3: "deny", 4: "hold", -2: "more room"}

func knownVerdict(name string) bool {
	for _, n := range verdictNames {
		if n == name {
			return true
		}
	}
	return name == "failed"
}

func verdictName(code int32) string {
	if n, ok := verdictNames[code]; ok {
		return n
	}
	if code < 0 {
		return "failed"
	}
	return fmt.Sprint("verdict ", code)
}

// bytes is the frame as it goes to the guest.
func (x *vector) bytes() ([]byte, error) {
	if x.Hex != "" {
		return hex.DecodeString(x.Hex)
	}
	return x.Frame.build()
}

// build lays the parts out as sdk/ABI.md tells it, and spoils what is to be spoilt.
func (f *vectorFrame) build() ([]byte, error) {
	le := binary.LittleEndian
	b := make([]byte, 72)
	for _, s := range f.Spoil {
		if s.Header > 1<<16 || s.At < 0 {
			return nil, errors.New("spoil: outside of the frame")
		}
		if s.Header > len(b) {
			b = make([]byte, s.Header)
		}
	}
	header := len(b)
	part := func(field int) {
		for len(b)%8 != 0 {
			b = append(b, 0)
		}
		le.PutUint32(b[field:], uint32(len(b)))
	}
	part(40)
	for _, a := range f.Attributes {
		value := []byte(a.Text)
		if a.Hex != "" {
			var err error
			if value, err = hex.DecodeString(a.Hex); err != nil {
				return nil, err
			}
		}
		b = append(le.AppendUint16(le.AppendUint16(b, a.ID), uint16(len(value))), value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	part(44)
	cells := len(b)
	var data []byte
	for _, c := range f.Cells {
		n := uint32(0xffffffff)
		if c != nil {
			n = uint32(len(c.b))
		}
		b = le.AppendUint32(le.AppendUint32(b, uint32(len(data))), n)
		if c != nil {
			data = append(data, c.b...)
		}
	}
	part(52)
	b = append(b, data...)
	part(60)
	if f.Room < 0 || f.Room > maxVectors {
		return nil, fmt.Errorf("a room of %d bytes", f.Room)
	}
	b = append(b, make([]byte, f.Room)...)
	le.PutUint32(b, 0x31494557)
	le.PutUint16(b[4:], uint16(header))
	le.PutUint16(b[6:], f.Kind)
	le.PutUint32(b[8:], uint32(len(b)))
	if f.Editable {
		b[12] = 1
	}
	le.PutUint64(b[16:], 1<<40|7)
	le.PutUint64(b[24:], 1)
	le.PutUint32(b[32:], f.Rows)
	le.PutUint16(b[36:], f.Columns)
	le.PutUint16(b[38:], uint16(len(f.Attributes)))
	le.PutUint32(b[48:], uint32(len(f.Cells)))
	le.PutUint32(b[56:], uint32(len(data)))
	le.PutUint32(b[64:], uint32(f.Room))
	for _, s := range f.Spoil {
		bad, err := hex.DecodeString(s.Hex)
		if err != nil {
			return nil, err
		}
		at := s.At
		if s.Cell != nil {
			at = cells + 8**s.Cell
		}
		if at < 0 || at > len(b) {
			return nil, errors.New("spoil: outside of the frame")
		}
		copy(b[at:], bad)
	}
	return b, nil
}

// judge compares an answer with what is expected, and returns what is wrong.
func (x *vector) judge(before []byte, a *wasm.Answer) (wrong []string) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	e, le := &x.Expect, binary.LittleEndian
	if e.Verdict == "failed" {
		if a.Verdict >= 0 || a.Verdict == -2 || a.Error == "" {
			bad("it answered %s, and should fail and log why", verdictName(a.Verdict))
		}
		return wrong
	}
	if name := verdictName(a.Verdict); name != e.Verdict {
		bad("it answered %s %s, not %s", name, a.Error, e.Verdict)
		return wrong
	}
	if e.Aux != nil && a.Aux != *e.Aux {
		bad("aux is %d, not %d", a.Aux, *e.Aux)
	}
	if len(before) < 72 {
		return wrong
	}
	at := func(field int) int { return int(le.Uint32(before[field:])) }
	table, data, out, room := at(44), at(52), at(60), at(64)
	if data > len(before) || out > len(before) || out < data || room > len(before)-out {
		return wrong // a frame that no host sends: the verdict is all
	}
	if !bytes.Equal(before[:data], a.Frame[:data]) {
		bad("it wrote into the head, the attributes or the cells")
	}
	if before[12]&1 == 0 && !bytes.Equal(before[data:out], a.Frame[data:out]) {
		bad("it changed values that it may not change")
	}
	for i, c := range e.Cells {
		if table+8*i+8 > len(before) {
			bad("there is no cell %d", i)
			break
		}
		off, n := data+int(le.Uint32(before[table+8*i:])), le.Uint32(before[table+8*i+4:])
		switch {
		case n == 0xffffffff && c != nil:
			bad("cell %d is NULL, not %q", i, c.b)
		case n == 0xffffffff:
		case off+int(n) > len(a.Frame):
		case c == nil:
			bad("cell %d is %q, not NULL", i, a.Frame[off:off+int(n)])
		case !bytes.Equal(a.Frame[off:off+int(n)], c.b):
			bad("cell %d is %q, not %q", i, a.Frame[off:off+int(n)], c.b)
		}
	}
	answer := a.Frame[out : out+room]
	if a.Verdict > 1 {
		if int64(a.Aux) > int64(room) {
			bad("its answer has %d bytes in a room of %d", a.Aux, room)
			return wrong
		}
		answer = answer[:a.Aux]
	}
	if e.Texts != nil {
		got := []string{}
		for _, t := range bytes.SplitN(answer, []byte{0}, 3) {
			got = append(got, string(t))
		}
		if !sameJSON(got, e.Texts) {
			bad("it says %q, not %q", got, e.Texts)
		}
	}
	if e.Patches != nil {
		got := [][]any{}
		for len(answer) >= 8 {
			cell, n := le.Uint32(answer), le.Uint32(answer[4:])
			answer = answer[8:]
			if n == 0xffffffff {
				got = append(got, []any{cell, nil})
				continue
			}
			padded := (int64(n) + 3) &^ 3
			if padded > int64(len(answer)) {
				bad("a patch is longer than the answer")
				break
			}
			got = append(got, []any{cell, string(answer[:n])})
			answer = answer[padded:]
		}
		if !sameJSON(got, e.Patches) || len(answer) > 0 {
			bad("it patches %s, not %s", asJSON(got), asJSON(e.Patches))
		}
	}
	findings := [][]string{}
	for _, f := range a.Findings {
		findings = append(findings, []string{f.Rule, f.Detail})
	}
	if e.Findings != nil && !sameJSON(findings, e.Findings) {
		bad("it finds %s, not %s", asJSON(findings), asJSON(e.Findings))
	}
	if e.Counters != nil && !sameJSON(a.Counters, e.Counters) {
		bad("it counts %s, not %s", asJSON(a.Counters), asJSON(e.Counters))
	}
	if e.Observed != nil && !sameJSON(a.Observed, e.Observed) {
		bad("it observes %s, not %s", asJSON(a.Observed), asJSON(e.Observed))
	}
	return wrong
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// sameJSON reports whether two values are written alike: a missing word and an empty one are not told apart.
func sameJSON(a, b any) bool { return asJSON(a) == asJSON(b) }
