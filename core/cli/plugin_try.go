package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/wasm"
	"github.com/weir-gateway/weir/core/wasm/fetch"
)

// tested is the outcome of one test of a plugin.
type tested struct {
	Name string   `json:"name"`
	OK   bool     `json:"ok"`
	Why  []string `json:"why,omitempty"`
}

func (a *app) pluginTest() *cobra.Command {
	var path, dir, output, file, session string
	var set []string
	c := &cobra.Command{
		Use:   "test FILE|REF",
		Short: "Ask a plugin what it must know the answer to, or what it would do to a recorded session",
		Long: "Without --session: ask the plugin every frame of the vectors and compare its answers. Without --vectors they are those of\n" +
			"tests.json beside FILE. The format is that of sdk/conformance.\n\n" +
			"With --session: pass the events of a recorded session through a chain of this plugin alone and show what would be denied\n" +
			"and changed. What was recorded is what the chain of then had left.",
		Example: "  weir plugin test mask.wasm\n  weir plugin test mask.wasm --vectors vectors.json\n  weir plugin test mask.wasm --set 'keep=2' --session 01jd2t0000000000000000000",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := settingsOf(set)
			if err != nil {
				return use(err)
			}
			g, err := a.open(cmd.Context(), fetch.Source{Ref: args[0]})
			if err != nil {
				return err
			}
			defer g.close()
			if session != "" {
				if file != "" {
					return use(errors.New("--vectors and --session are two tests: run one after the other"))
				}
				return a.testSession(cmd.Context(), g, config, trySession{config: path, archive: dir, id: session, json: output == "json"})
			}
			if g.native != nil {
				return use(errors.New("vectors are frames of the contract for guests, and a native plugin is none: try it with --session"))
			}
			if file == "" {
				file = filepath.Join(filepath.Dir(args[0]), "tests.json")
				if _, err := os.Stat(file); err != nil {
					return use(fmt.Errorf("there is no %s: name the vectors with --vectors, or a session with --session", file))
				}
			}
			v, err := readVectors(file)
			if err != nil {
				return use(err)
			}
			return a.report(v.run(cmd.Context(), g.plugin, config), output)
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	a.archiveFlag(c, &dir)
	f := c.Flags()
	f.StringVar(&file, "vectors", "", "`file` of frames and answers (default: tests.json beside FILE)")
	f.StringVar(&session, "session", "", "`ID` of a recorded session")
	f.StringArrayVar(&set, "set", nil, "a setting of the plugin's, as `KEY=VALUE`; VALUE is JSON, or a text")
	return c
}

// settingsOf reads KEY=VALUE. Nil when there are none.
func settingsOf(set []string) (map[string]any, error) {
	var config map[string]any
	for _, s := range set {
		key, text, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("--set is KEY=VALUE, not %q", s)
		}
		if config == nil {
			config = map[string]any{}
		}
		var value any
		if json.Unmarshal([]byte(text), &value) != nil {
			value = text
		}
		config[key] = value
	}
	return config, nil
}

// run asks everything that is meant for this plugin. config is for vectors that bring none.
func (v *vectors) run(ctx context.Context, p *wasm.Plugin, config map[string]any) (list []tested) {
	name := p.Manifest().Name
	mine := func(plugin string) bool { return plugin == "" || plugin == name }
	for _, c := range v.Configurations {
		if !mine(c.Plugin) {
			continue
		}
		t := tested{Name: "config " + c.Text, OK: true}
		trial, err := p.Try(ctx, []byte(c.Text))
		if err == nil {
			trial.Close()
		}
		switch {
		case c.Accepted && err != nil:
			t = tested{t.Name, false, []string{err.Error()}}
		case !c.Accepted && err == nil:
			t = tested{t.Name, false, []string{"it is accepted, and should be refused"}}
		}
		list = append(list, t)
	}
	given := []byte("{}")
	if config != nil {
		given, _ = json.Marshal(config) // it came from JSON or is a text
	}
	for i := range v.Vectors {
		if x := &v.Vectors[i]; mine(x.Plugin) {
			wrong := x.ask(ctx, p, given)
			list = append(list, tested{x.Name, len(wrong) == 0, wrong})
		}
	}
	return list
}

// ask asks twice, on one instance: a guest keeps nothing of the first time unless its state is the connection's.
func (x *vector) ask(ctx context.Context, p *wasm.Plugin, config []byte) []string {
	switch {
	case x.ConfigText != "":
		config = []byte(x.ConfigText)
	case x.Config != nil:
		config = x.Config
	}
	b, err := x.bytes()
	if err != nil {
		return []string{"frame: " + err.Error()}
	}
	trial, err := p.Try(ctx, config)
	if err != nil {
		return []string{err.Error()}
	}
	defer trial.Close()
	times := 2
	if m := p.Manifest(); m.State == "connection" || m.Needs.KV {
		times = 1
	}
	for n := range times {
		answer, err := trial.Ask(ctx, b)
		if err != nil {
			return []string{err.Error()}
		}
		if wrong := x.judge(b, answer); len(wrong) > 0 {
			if n > 0 {
				wrong = append([]string{"asked a second time:"}, wrong...)
			}
			return wrong
		}
	}
	return nil
}

// report tells what failed. The answer is no when anything did, or when nothing was asked.
func (a *app) report(list []tested, output string) error {
	failed := 0
	for _, t := range list {
		if !t.OK {
			failed++
		}
	}
	if output == "json" {
		if list == nil {
			list = []tested{}
		}
		if err := a.printJSON(list); err != nil {
			return err
		}
	} else {
		for _, t := range list {
			if !t.OK {
				fmt.Fprintf(a.out, "FAILED  %s\n", printable(t.Name))
				for _, w := range t.Why {
					fmt.Fprintf(a.out, "        %s\n", printable(w))
				}
			}
		}
		fmt.Fprintf(a.out, "%s, %d failed\n", plural(len(list), "test"), failed)
	}
	switch {
	case len(list) == 0:
		return no(errors.New("plugin test: no vector is for this plugin: its name is the manifest's"))
	case failed > 0:
		return &exit{exitNo, nil}
	}
	return nil
}
