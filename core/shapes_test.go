package core

import (
	"encoding/json"
	"testing"
)

// TestShapes: what is kept of one answer is never told of another.
func TestShapes(t *testing.T) {
	base := Column{Name: "a", Type: "text", Origin: &Origin{"s.t", "a"}, Lineage: []Origin{{"s.u", "b"}}}
	with := func(change func(*Column)) []Column {
		c := base
		change(&c)
		return []Column{c}
	}
	answers := [][]Column{
		nil,
		{},
		{base},
		{base, base},
		with(func(c *Column) { c.Name = "b" }), with(func(c *Column) { c.Type = "int4" }), with(func(c *Column) { c.Binary = true }),
		with(func(c *Column) { c.Origin = nil }), with(func(c *Column) { c.Origin = &Origin{"s.t", "b"} }), with(func(c *Column) { c.Origin = &Origin{"s.t", "a"} }),
		with(func(c *Column) { c.Lineage = nil }), with(func(c *Column) { c.Lineage = []Origin{{"s.u", "c"}} }),
	}
	var s shapes
	for range 3 {
		for i := range answers {
			for j := range answers {
				for _, columns := range [][]Column{answers[i], answers[j], answers[i]} {
					want, err := json.Marshal(columns)
					if err != nil {
						t.Fatal(err)
					}
					if got := s.append([]byte("x"), columns); string(got) != "x"+string(want) {
						t.Fatalf("%s\nis not\n%s", got, want)
					}
				}
			}
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.append(make([]byte, 0, 512), answers[2]) }); n > 0 {
		t.Errorf("%v allocations for columns that were just told", n)
	}
}
