package opa

import (
	"context"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

// TestResult is how one Rego unit test ended.
type TestResult struct {
	Package  string        `json:"package"`
	Name     string        `json:"name"`
	File     string        `json:"file"`
	Line     int           `json:"line"`
	Pass     bool          `json:"pass"`
	Skip     bool          `json:"skip,omitempty"` // its name begins with todo_
	Problem  string        `json:"problem,omitempty"`
	Output   string        `json:"output,omitempty"` // what print said
	Duration time.Duration `json:"duration"`
}

// Report is how all tests of a path ended.
type Report struct {
	Tests    []TestResult   `json:"tests"`
	Coverage []FileCoverage `json:"coverage"` // of the files that are no tests
	Pass     int            `json:"pass"`
	Fail     int            `json:"fail"`
	Skip     int            `json:"skip"`

	lines float64
}

// FileCoverage is how much of a file's rules the tests have evaluated.
type FileCoverage struct {
	File    string   `json:"file"`
	Percent float64  `json:"percent"`
	Missed  [][2]int `json:"missed"` // first and last line of what no test has evaluated
}

// Percent is the coverage of all files together.
func (r Report) Percent() float64 {
	if len(r.Coverage) == 0 {
		return 0
	}
	return r.lines
}

// OK reports whether there were tests and none failed.
func (r Report) OK() bool { return r.Fail == 0 && r.Pass > 0 }

// Test runs the test_ rules of the _test.rego files of a directory, a bundle, or c.FS, under the same restrictions
// as the policy itself. Its error says why they could not be run.
func Test(ctx context.Context, where string) (Report, error) { return TestFS(ctx, where, nil) }

// TestFS is Test over a file system; where only names it.
func TestFS(ctx context.Context, where string, fsys fs.FS) (Report, error) {
	var report Report
	src, err := read(ctx, where, fsys, nil, 0)
	if err != nil {
		return report, fmt.Errorf("opa: %w", err)
	}
	modules := maps.Clone(src.modules)
	maps.Copy(modules, src.tests)
	store := inmem.NewFromObject(src.data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return report, fmt.Errorf("opa: %w", err)
	}
	defer store.Abort(ctx, txn)
	runner := tester.NewRunner().SetCompiler(newCompiler().WithEnablePrintStatements(true)).SetStore(store).SetModules(modules).
		SetDefaultRegoVersion(ast.RegoV1).RaiseBuiltinErrors(true).CapturePrintOutput(true).SetTimeout(10 * time.Second)
	covered := cover.New()
	runner = runner.SetCoverageQueryTracer(covered)
	results, err := runner.RunTests(ctx, txn)
	if err != nil {
		return report, fmt.Errorf("opa: %w", explain(err))
	}
	for r := range results {
		t := TestResult{Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name, Pass: r.Pass(), Skip: r.Skip, Duration: r.Duration, Output: string(r.Output)}
		if r.Location != nil {
			t.File, t.Line = r.Location.File, r.Location.Row
		}
		switch {
		case r.Error != nil:
			t.Problem = r.Error.Error()
		case r.FailedAt != nil && r.FailedAt.Location != nil:
			t.Problem = fmt.Sprintf("line %d is not true: %s", r.FailedAt.Location.Row, r.FailedAt.Location.Text)
		}
		switch {
		case t.Skip:
			report.Skip++
		case t.Pass:
			report.Pass++
		default:
			report.Fail++
		}
		report.Tests = append(report.Tests, t)
	}
	all := covered.Report(src.modules)
	report.lines = all.Coverage
	for name, f := range all.Files {
		c := FileCoverage{File: name, Percent: f.Coverage, Missed: [][2]int{}}
		for _, m := range f.NotCovered {
			c.Missed = append(c.Missed, [2]int{m.Start.Row, m.End.Row})
		}
		report.Coverage = append(report.Coverage, c)
	}
	slices.SortFunc(report.Coverage, func(a, b FileCoverage) int { return strings.Compare(a.File, b.File) })
	return report, ctx.Err()
}
