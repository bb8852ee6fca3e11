package wasm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-gateway/weir/core"
)

// Manifest is what a guest says of itself, as weir_describe returns it.
type Manifest struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	ABI     int    `json:"abi"`
	// State is "stateless" (the default): instances are shared by all sessions; or "connection": one for each session.
	State string `json:"state,omitempty"`
	// Mutates says that the guest changes values; without it a change is an error.
	Mutates   bool            `json:"mutates"`
	OnError   string          `json:"on_error,omitempty"` // "deny" (default) or "pass"
	Subscribe []Subscribe     `json:"subscribe"`
	Needs     Needs           `json:"needs,omitzero"`
	Deadline  int             `json:"deadline_ms,omitempty"`  // of one batch of rows
	Memory    uint32          `json:"memory_pages,omitempty"` // of 64 KiB
	Schema    json.RawMessage `json:"config_schema,omitempty"`
	Metrics   []Metric        `json:"metrics,omitempty"`

	schema *jsonschema.Schema // compiled; nil: there is none
}

// Subscribe is a set of events that a guest wants.
type Subscribe struct {
	Protocols []string `json:"protocols,omitempty"` // none: all
	Kinds     []string `json:"kinds"`
	Columns   []string `json:"columns,omitempty"`
}

// ManifestSection is the custom section that a module may have its manifest in.
const ManifestSection = "weir:manifest"

const stateConnection = "connection"

// Needs are the capabilities that a guest asks for. Raw is reserved.
type Needs struct {
	Raw   bool `json:"raw,omitempty"`
	KV    bool `json:"kv,omitempty"`
	Clock bool `json:"clock,omitempty"`
}

// Words names them as grants do.
func (n Needs) Words() (words []string) {
	if n.Clock {
		words = append(words, "clock")
	}
	if n.KV {
		words = append(words, "kv")
	}
	return words
}

// Metric is one of the guest's own.
type Metric struct {
	ID   uint32 `json:"id"`
	Name string `json:"name"`
	Kind string `json:"kind"` // "counter" or "histogram"
}

var metricName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

// maxMetrics bounds what a guest may have exported.
const maxMetrics = 32

func parseManifest(b []byte) (*Manifest, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := &Manifest{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if d.More() {
		return nil, errors.New("manifest: there is more than one object")
	}
	var problems []error
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("manifest: "+format, args...))
	}
	if m.Name == "" {
		bad("name is empty")
	}
	if m.ABI != 1 {
		bad("abi is %d: this gateway speaks 1", m.ABI)
	}
	if m.State != "" && m.State != "stateless" && m.State != stateConnection {
		bad("state is %q: say stateless or connection", m.State)
	}
	if m.OnError != "" && m.OnError != "deny" && m.OnError != "pass" {
		bad("on_error is %q: say deny or pass", m.OnError)
	}
	if m.Needs.Raw {
		bad("it needs raw, which this gateway does not give")
	}
	if m.Deadline < 0 || m.Deadline > 10_000 {
		bad("deadline_ms is %d: at most 10000", m.Deadline)
	}
	if _, err := m.subscription(); err != nil {
		problems = append(problems, err)
	}
	if err := m.compileSchema(); err != nil {
		bad("config_schema: %w", err)
	}
	if len(m.Metrics) > maxMetrics {
		bad("%d metrics: at most %d", len(m.Metrics), maxMetrics)
	}
	for i, x := range m.Metrics {
		if !metricName.MatchString(x.Name) || x.Kind != "counter" && x.Kind != "histogram" {
			bad("metric %q: lower-case words with _, and kind counter or histogram", x.Name)
		}
		if slices.ContainsFunc(m.Metrics[:i], func(o Metric) bool { return o.ID == x.ID || o.Name == x.Name }) {
			bad("metric %q is there twice", x.Name)
		}
	}
	return m, errors.Join(problems...)
}

// subscription is the union of what the guest subscribes to.
func (m *Manifest) subscription() (core.Subscription, error) {
	var s core.Subscription
	if len(m.Subscribe) == 0 {
		return s, errors.New("manifest: it subscribes to nothing, so it would do nothing")
	}
	everywhere := false
	for _, x := range m.Subscribe {
		if len(x.Kinds) == 0 {
			return s, errors.New("manifest: subscribe: kinds are missing")
		}
		for _, k := range x.Kinds {
			kind := core.ParseKind(k)
			if frameKinds[kind] == 0 {
				return s, fmt.Errorf("manifest: subscribe: no kind %q: known are open, command, columns, rows, bytes, result, notice, close", k)
			}
			s.Kinds |= core.KindSet(kind)
		}
		everywhere = everywhere || len(x.Protocols) == 0
		s.Protocols = append(s.Protocols, x.Protocols...)
		s.Columns = append(s.Columns, x.Columns...)
	}
	if everywhere {
		s.Protocols = nil
	}
	if u := s.Unknown(); u != "" {
		return s, fmt.Errorf("manifest: subscribe: %s is no class of types", u)
	}
	if len(s.Columns) > 0 && !s.Kinds.Has(core.KindRows) {
		return s, errors.New("manifest: subscribe: columns without rows do nothing")
	}
	return s, nil
}

// sameJSON reports whether two texts are the same JSON, whatever their spaces and the order of their keys.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
