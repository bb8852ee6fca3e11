package cli

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/opa"
)

// policy is the group of commands for those who write policies.
func (a *app) policy() *cobra.Command {
	c := &cobra.Command{
		Use:     "policy",
		Short:   "Test and explain policies, and try them on what was recorded",
		Example: "  weir policy test policies/",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.policyTest(), a.policyExplain(), a.policyBacktest(), a.policyLint())
	return c
}

// policyAt finds a policy's files: builtin:NAME, or a path.
func (a *app) policyAt(where string) (string, fs.FS, error) {
	name, ok := strings.CutPrefix(where, config.Builtin)
	if !ok {
		if _, err := os.Stat(where); err != nil {
			return "", nil, use(err)
		}
		return where, nil, nil
	}
	sub, err := builtin(a.Policies, name)
	if err != nil {
		return "", nil, use(fmt.Errorf("there is no builtin policy %q: there are %s", name, strings.Join(folders(a.Policies), ", ")))
	}
	return where, sub, nil
}

func (a *app) policyTest() *cobra.Command {
	var output, junit string
	var least float64
	var verbose bool
	c := &cobra.Command{
		Use:   "test PATH…",
		Short: "Run the tests of policies: the rules that begin with test_ in files that end with _test.rego",
		Long: "Run the tests of policies: the rules that begin with test_ in files that end with _test.rego. PATH is a folder, a bundle,\n" +
			"or builtin:NAME. The exit code is 1 when a test fails, when there is none, and when less is covered than --min-coverage.",
		Example: "  weir policy test policies/\n  weir policy test builtin:strict --min-coverage 90 --junit report.xml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var all []opa.Report
			for _, arg := range args {
				where, files, err := a.policyAt(arg)
				if err != nil {
					return err
				}
				r, err := opa.TestFS(cmd.Context(), where, files)
				if err != nil {
					return use(err)
				}
				all = append(all, r)
			}
			if junit != "" {
				if err := writeJUnit(junit, args, all); err != nil {
					return use(err)
				}
			}
			if output == "json" {
				out := make([]testedPolicy, len(all))
				for i, r := range all {
					out[i] = testedPolicy{args[i], r.OK(), r.Percent(), r}
				}
				if err := a.printJSON(out); err != nil {
					return err
				}
			}
			var failed error
			for i, r := range all {
				if output != "json" {
					a.policyReport(args[i], r, verbose)
				}
				switch {
				case r.Fail > 0:
					failed = &exit{exitNo, nil}
				case r.Pass == 0:
					failed = no(fmt.Errorf("%s: no test: write rules that begin with test_ in a file that ends with _test.rego", args[i]))
				case r.Percent() < least:
					failed = no(fmt.Errorf("%s: %.1f %% is covered, less than --min-coverage %.1f", args[i], r.Percent(), least))
				}
			}
			return failed
		},
	}
	outputFlag(c, &output)
	f := c.Flags()
	f.StringVar(&junit, "junit", "", "also write the results to this `file`, as JUnit does")
	f.Float64Var(&least, "min-coverage", 0, "fail when less than this `percent` of the lines of rules is evaluated")
	f.BoolVarP(&verbose, "verbose", "v", false, "show every test, and what is not covered")
	return c
}

type testedPolicy struct {
	Path    string  `json:"path"`
	OK      bool    `json:"ok"`
	Percent float64 `json:"percent"`
	opa.Report
}

func (a *app) policyReport(where string, r opa.Report, verbose bool) {
	for _, t := range r.Tests {
		switch {
		case t.Skip:
			fmt.Fprintf(a.out, "todo  %s:%d %s.%s\n", t.File, t.Line, t.Package, t.Name)
		case !t.Pass:
			fmt.Fprintf(a.out, "FAIL  %s:%d %s.%s\n", t.File, t.Line, t.Package, t.Name)
			if t.Problem != "" {
				fmt.Fprintf(a.out, "      %s\n", printable(firstOf(t.Problem)))
			}
			if t.Output != "" {
				fmt.Fprintf(a.out, "      printed: %s\n", printable(strings.TrimSpace(t.Output)))
			}
		case verbose:
			fmt.Fprintf(a.out, "pass  %s:%d %s.%s\n", t.File, t.Line, t.Package, t.Name)
		}
	}
	if verbose {
		for _, c := range r.Coverage {
			for _, m := range c.Missed {
				fmt.Fprintf(a.out, "      %s:%d-%d: no test evaluates it\n", c.File, m[0], m[1])
			}
		}
	}
	fmt.Fprintf(a.out, "%s: %s passed, %d failed, %d to do; %.1f %% covered\n", where, plural(r.Pass, "test"), r.Fail, r.Skip, r.Percent())
}

func firstOf(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// The parts of a JUnit report that others read.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Class   string    `xml:"classname,attr"`
	Name    string    `xml:"name,attr"`
	File    string    `xml:"file,attr"`
	Line    int       `xml:"line,attr"`
	Seconds string    `xml:"time,attr"`
	Failure *junitSay `xml:"failure"`
	Skipped *junitSay `xml:"skipped"`
}

type junitSay struct {
	Message string `xml:"message,attr,omitempty"`
}

func writeJUnit(file string, names []string, all []opa.Report) error {
	suites := struct {
		XMLName xml.Name `xml:"testsuites"`
		Suites  []junitSuite
	}{}
	for i, r := range all {
		s := junitSuite{Name: names[i], Tests: len(r.Tests), Failures: r.Fail, Skipped: r.Skip}
		for _, t := range r.Tests {
			c := junitCase{Class: t.Package, Name: t.Name, File: t.File, Line: t.Line, Seconds: fmt.Sprintf("%.6f", t.Duration.Seconds())}
			switch {
			case t.Skip:
				c.Skipped = &junitSay{}
			case !t.Pass:
				c.Failure = &junitSay{t.Problem}
			}
			s.Cases = append(s.Cases, c)
		}
		suites.Suites = append(suites.Suites, s)
	}
	b, err := xml.MarshalIndent(suites, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte(xml.Header), append(b, '\n')...), 0o644)
}

func (a *app) policyLint() *cobra.Command {
	var output string
	c := &cobra.Command{
		Use:   "lint PATH…",
		Short: "Find rules that never fire, fields that do not exist, and conditions that hold when a fact is absent",
		Long: "Find what in a policy does nothing, or not what it seems to: fields of the input that do not exist, comparisons that never\n" +
			"hold, documents that are not there, and `not` over something that may be absent. The exit code is 1 when there is any.",
		Example: "  weir policy lint policies/\n  weir policy lint builtin:strict -o json",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			found := []opa.Finding{}
			for _, arg := range args {
				where, files, err := a.policyAt(arg)
				if err != nil {
					return err
				}
				list, err := opa.Lint(cmd.Context(), where, files, a.protocolNames())
				if err != nil {
					return use(err)
				}
				found = append(found, list...)
			}
			if output == "json" {
				if err := a.printJSON(found); err != nil {
					return err
				}
			} else {
				for _, f := range found {
					at := ""
					if f.File != "" {
						at = fmt.Sprintf("%s:%d: ", f.File, f.Line)
					}
					fmt.Fprintf(a.out, "%s%s (%s)\n", at, f.Text, f.Check)
				}
			}
			if len(found) > 0 {
				return &exit{exitNo, nil}
			}
			return nil
		},
	}
	outputFlag(c, &output)
	return c
}

func (a *app) protocolNames() (names []string) {
	for _, p := range a.Protocols {
		names = append(names, p.Name())
	}
	return names
}

// loadPolicy loads a policy as a gateway would.
func (a *app) loadPolicy(ctx context.Context, name, where string, packages []string) (*opa.Policy, error) {
	where, files, err := a.policyAt(where)
	if err != nil {
		return nil, err
	}
	p, err := opa.Load(ctx, opa.Config{Name: name, Path: where, FS: files, Packages: packages})
	if err != nil {
		return nil, use(errors.Join(err))
	}
	return p, nil
}
