package replay

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/weir-gateway/weir/core"
)

// facts are the fields of a record's facts, of every kind; the shapes are those that core.Session writes.
type facts struct {
	// open
	Session  string            `json:"session"`
	Run      string            `json:"run"`
	Identity core.Identity     `json:"identity"`
	Target   string            `json:"target"`
	Protocol string            `json:"protocol"`
	Client   string            `json:"client"`
	User     string            `json:"user"`
	TLS      bool              `json:"tls"`
	Details  map[string]string `json:"details"`
	Gateway  string            `json:"gateway"`
	Record   string            `json:"record"`
	Promise  core.Promise      `json:"promise"`
	// command
	Command *commandFacts     `json:"command"`
	Stage   string            `json:"stage"`
	Params  []json.RawMessage `json:"params"`
	// answers
	Columns []core.Column `json:"columns"`
	Rows    int64         `json:"rows"`
	Bytes   int64         `json:"bytes"`
	Result  *core.Result  `json:"result"`
	// close, opaque
	End    string       `json:"end"`
	Reason string       `json:"reason"`
	Totals *core.Totals `json:"totals"`

	Denied *core.Denial `json:"denied"`
}

type commandFacts struct {
	Action    string          `json:"action"`
	Text      string          `json:"text"`
	Effects   []core.Effect   `json:"effects"`
	Resources []core.Resource `json:"resources"`
	Status    core.Status     `json:"status"`
	Reason    string          `json:"reason"`
}

func parse(r *core.Record) facts {
	var f facts
	if err := json.Unmarshal(r.Facts, &f); err != nil {
		f.Reason = "the record's facts cannot be read: " + err.Error()
	}
	return f
}

// said is the command in one piece: its text, or its action where it has none.
func (c *commandFacts) said() string {
	if strings.TrimSpace(c.Text) != "" {
		return c.Text
	}
	return c.Action
}

func (c *commandFacts) effects() string {
	if len(c.Effects) == 0 {
		return ""
	}
	words := make([]string, len(c.Effects))
	for i, e := range c.Effects {
		words[i] = string(e)
	}
	return "[" + strings.Join(words, ",") + "] "
}

// denial says who refused, and why.
func denial(d *core.Denial) string {
	s := "rule " + d.Rule
	if d.Step != "" {
		s += " (" + d.Step + ")"
	}
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	if d.Hint != "" {
		s += "; hint: " + d.Hint
	}
	return s
}

// verdicts lists what the steps decided beside a denial: masks, limits, errors.
func verdicts(list []core.Decision, denied *core.Denial) string {
	var out []string
	for _, d := range list {
		if d.Action == "deny" && denied != nil {
			continue
		}
		s := d.Action
		if d.Detail != "" {
			s += " " + d.Detail
		}
		switch {
		case d.Rule != "" && d.Step != "":
			s += " (" + d.Step + ": " + d.Rule + ")"
		case d.Step != "":
			s += " (" + d.Step + ")"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// ended is a result in words.
func ended(r *core.Result) string {
	s := r.Tag
	if s == "" || r.Status == "error" {
		s = r.Status
	}
	if r.Code != "" {
		s += " " + r.Code
	}
	if r.Message != "" {
		s += ": " + r.Message
	}
	return s
}

func count(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
