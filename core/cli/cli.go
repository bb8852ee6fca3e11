// Package cli is the command weir: it reads the configuration, wires everything under core together, and runs it.
// Data goes to stdout, messages to stderr.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
)

// Exit codes.
const (
	exitDone        = 0
	exitNo          = 1 // the answer is no: verification failed, no such session
	exitUse         = 2 // wrong use or configuration
	exitUnreachable = 3 // the gateway or a store is unreachable
)

// Build is what this binary was built with.
type Build struct {
	Protocols []core.Protocol
	Natives   []*core.Native
	Plugins   fs.FS  // builtin:NAME of plugins reads NAME/NAME.wasm
	SDK       fs.FS  // weir plugin new begins with it
	Policies  fs.FS  // builtin:NAME of policies reads the folder NAME
	Version   string // empty: what the Go tool wrote into the binary
}

// Main runs the command that the process was started with and returns its exit code.
func Main(b Build) int {
	return run(context.Background(), b, os.Args[1:], os.Stdout, os.Stderr)
}

// app is one run of the command.
type app struct {
	Build
	out, err io.Writer
	identity string // --identity
}

func run(ctx context.Context, b Build, args []string, stdout, stderr io.Writer) int {
	a := &app{Build: b, out: stdout, err: stderr}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var x *exit
	if !errors.As(err, &x) {
		x = &exit{exitUse, err} // what cobra itself refuses
	}
	if x.err != nil {
		a.complain(x.err)
	}
	return x.code
}

// exit is an error with its exit code. A nil err was told already.
type exit struct {
	code int
	err  error
}

func (x *exit) Error() string {
	if x.err == nil {
		return fmt.Sprint("exit ", x.code)
	}
	return x.err.Error()
}

func (x *exit) Unwrap() error { return x.err }

// no, use and unreachable give an error its exit code.
func no(err error) error          { return &exit{exitNo, err} }
func use(err error) error         { return &exit{exitUse, err} }
func unreachable(err error) error { return &exit{exitUnreachable, err} }

// coded is unreachable, but for what has a code of its own.
func coded(err error) error {
	var x *exit
	var problems config.Problems
	switch {
	case err == nil || errors.As(err, &x):
		return err
	case errors.Is(err, core.ErrNoSession), errors.As(err, new(core.Refusal)):
		return no(err)
	case errors.As(err, &problems):
		return use(err)
	}
	return unreachable(err)
}

// complain says what went wrong: problems one a line, as compilers do, everything else after the command's name.
func (a *app) complain(err error) {
	var problems config.Problems
	if errors.As(err, &problems) {
		fmt.Fprintln(a.err, problems)
		fmt.Fprintf(a.err, "weir: %s\n", plural(len(problems), "problem"))
		return
	}
	fmt.Fprintf(a.err, "weir: %v\n", err)
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "weir",
		Short: "A guardrail gateway: it stands between loops and the systems they use, judges, masks and records",
		Example: `  weir check                                  # is the configuration good?
  weir serve                                  # run the gateway
  weir token --subject me                     # a token to sign in with
  weir sessions                               # who did what`,
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.AddCommand(a.serve(), a.check(), a.status(), a.reloadNow(), a.unlock(), a.token(), a.login(), a.logout(), a.whoami(), a.targets(), a.certificate(), a.run(), a.sessions(), a.find(), a.show(), a.replay(), a.verify(), a.export(), a.index(), a.hold(), a.releaseHold(), a.purge(), a.shred(), a.keys(), a.approvals(), a.policy(), a.plugin(), a.bench(), a.version())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Example = "  weir completion bash > /etc/bash_completion.d/weir"
		}
	}
	return root
}

// configFlag adds -c to a command.
func configFlag(c *cobra.Command, path *string) {
	c.Flags().StringVarP(path, "config", "c", "", "configuration `file` (default $WEIR_CONFIG, then ./weir.yaml)")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
}

// configPath is the file that -c, the environment or the habit names.
func configPath(flag string) string {
	if flag != "" {
		return flag
	}
	if env := os.Getenv("WEIR_CONFIG"); env != "" {
		return env
	}
	return "weir.yaml"
}

// load reads the configuration for a command that does not run it.
func load(flag string) (*config.Config, error) {
	c, err := config.Load(configPath(flag))
	if err != nil {
		return nil, use(err)
	}
	return c, nil
}

// outputFlag adds -o to a command: text for people, json for programs.
func outputFlag(c *cobra.Command, format *string) {
	c.Flags().StringVarP(format, "output", "o", "text", "`format` of the output: text or json")
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	c.PreRunE = func(*cobra.Command, []string) error { return oneOf("--output", *format, "text", "json") }
}

func oneOf(flag, value string, words ...string) error {
	for _, w := range words {
		if value == w {
			return nil
		}
	}
	return use(fmt.Errorf("%s is %s, not %q", flag, strings.Join(words, " or "), value))
}
