//go:build wasip1

// Secrets is a guest that finds what opens doors (keys, tokens, passwords in URLs) in the answers of a target, and in what
// clients send to it.
//
//	config:
//	  entities: [AWS_KEY, JWT, PRIVATE_KEY, TOKEN, CONNECTION, CREDENTIAL]   # default: all of them
//	  answers: mask      # or deny: refuse an answer that holds one
//	  commands: pass     # or deny: refuse a command that holds one; note: put it on the record
//
// What it looks for is in the package detect.
package main

import (
	"strconv"

	"github.com/weir-gateway/weir/plugins/pii/detect"
	weir "github.com/weir-gateway/weir/sdk/go"
)

const schema = `{"type":"object","additionalProperties":false,"properties":{"entities":{"type":"array","minItems":1,"items":{"enum":` +
	`["AWS_KEY","JWT","PRIVATE_KEY","TOKEN","CONNECTION","CREDENTIAL"]}},"answers":{"enum":["mask","deny"]},"commands":{"enum":["pass","note","deny"]}}}`

var (
	detector              = detect.New(detect.Secret)
	refuseAnswers         bool
	judgeCommands, refuse bool
)

func init() {
	weir.Register(weir.Plugin{
		Name: "secrets", Version: "1.0.0", Mutates: true, Schema: schema,
		Subscribe: []weir.Subscription{
			{Kinds: []weir.Kind{weir.RowData}, Columns: []string{"type:text"}},
			{Kinds: []weir.Kind{weir.Command, weir.Bytes, weir.Result, weir.Notice}},
		},
		Metrics:   []weir.Metric{{ID: 1, Name: "found"}},
		Configure: configure,
		OnCommand: command,
		OnRows:    func(r *weir.Rows) { answer(r.Event) },
		OnBytes:   answer,
		OnResult:  answer,
	})
}

func main() {}

func configure(c weir.Value) error {
	for _, name := range c.Names() {
		if name != "entities" && name != "answers" && name != "commands" {
			return weir.Error("unknown key " + name + ": known are entities, answers and commands")
		}
	}
	if list := c.Get("entities"); !list.Null() {
		names, ok := list.Texts()
		if !ok || len(names) == 0 {
			return weir.Error("entities is a list of names, and not empty")
		}
		set, unknown := detect.Choose(names, detect.Secret)
		if set == 0 {
			return weir.Error("no secret is called " + unknown + ": known are " + detect.Secret.String())
		}
		detector = detect.New(set)
	}
	answers, err := word(c, "answers", "mask", "deny")
	if err != nil {
		return err
	}
	commands, err := word(c, "commands", "pass", "note", "deny")
	if err != nil {
		return err
	}
	refuseAnswers, judgeCommands, refuse = answers == "deny", commands != "pass", commands == "deny"
	return nil
}

// word reads a setting that is one of some words; the first is the default.
func word(c weir.Value, key string, words ...string) (string, error) {
	v := c.Get(key)
	if v.Null() {
		return words[0], nil
	}
	s, _ := v.Text()
	list := ""
	for _, w := range words {
		if s == w {
			return w, nil
		}
		list += " " + w
	}
	return "", weir.Error(key + " is one of" + list)
}

// scratch is what a value is looked for in where it may not be changed.
var scratch []byte

func answer(e *weir.Event) {
	if e.Direction() == "client" { // a piece of what a client sends, such as a COPY: it has to arrive as it is
		look(e, judgeCommands, refuse, "what is sent")
		return
	}
	if refuseAnswers || !e.Editable() {
		look(e, true, refuseAnswers, "the answer")
		return
	}
	var counts detect.Counts
	for i := range e.Cells() {
		if v, ok := e.Value(i); ok && detector.Mask(v, &counts) {
			e.Touch(i)
		}
	}
	tell(&counts)
}

func command(e *weir.Event) { look(e, judgeCommands, refuse, "the command") }

// look finds, and changes nothing.
func look(e *weir.Event, wanted, deny bool, where string) {
	if !wanted {
		return
	}
	var counts detect.Counts
	for i := range e.Cells() {
		if v, ok := e.Value(i); ok {
			scratch = append(scratch[:0], v...)
			detector.Mask(scratch, &counts)
		}
	}
	clear(scratch)
	if name := tell(&counts); name != "" && deny {
		e.Deny("secret", where+" holds a secret: "+name, "take it out; secrets belong into a store of secrets")
	}
}

// tell puts what was found on the record, and returns the first name.
func tell(counts *detect.Counts) (first string) {
	total := 0
	for i, n := range counts {
		if n > 0 {
			if first == "" {
				first = detect.Name(i)
			}
			weir.Found(detect.Name(i), strconv.Itoa(n))
			total += n
		}
	}
	if total > 0 {
		weir.Count(1, int64(total))
	}
	return first
}
