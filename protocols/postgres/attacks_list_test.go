package postgres

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// attackRows are the attacks that are known, by ID, with the least number of cases that each must have here.
var attackRows = map[string]int{
	"PG-01": 5, "PG-02": 5, "PG-03": 4, "PG-04": 3, "PG-06": 14, "PG-07": 4, "PG-08": 7, "PG-09": 5, "PG-10": 6, "PG-11": 9, "PG-12": 5,
	"PG-14": 5, "PG-15": 9, "PG-16": 3, "PG-18": 5, "PG-19": 6, "PG-20": 1, "PG-21": 3, "PG-23": 1, "PG-24": 3, "PG-25": 13, "PG-26": 20,
	"PG-28": 6, "PG-30": 5, "PG-32": 4, "PG-33": 3, "PG-34": 13, "PG-35": 17, "PG-37": 14, "PG-38": 13, "PG-39": 6, "PG-40": 7, "PG-42": 35,
	"PG-44": 6, "PG-46": 5, "PG-47": 17, "PG-48": 2,
	"PG-50": 19, "PG-51": 7, "PG-53": 32, "PG-54": 12, "PG-55": 3, "PG-56": 10, "PG-59": 9, "PG-60": 20, "PG-61": 9, "PG-62": 14, "PG-63": 16,
	"PG-67": 6, "PG-68": 2, "PG-70": 10, "PG-71": 7, "PG-72": 6, "PG-73": 10,
	"PG-80": 1, "PG-81": 5, "PG-82": 1, "PG-83": 17, "PG-84": 4, "PG-85": 2, "PG-86": 3, "PG-87": 3, "PG-88": 2, "PG-89": 3, "PG-90": 3,
	"PG-93": 3, "PG-94": 3, "PG-95": 30, "PG-96": 9, "PG-98": 1, "PG-99": 10, "PG-101": 1,
}

// whole are the cases that are a test function of their own, by the function's name.
var whole = map[string][]string{
	"PG-40": {"TestNamesAreResolved"}, "PG-68": {"TestMaskFollowsTheCatalog"}, "PG-70": {"TestAttackSplit"}, "PG-73": {"TestMasksLeaveOthersAlone"},
	"PG-82": {"TestCredentialStays"}, "PG-87": {"TestPipelineMixes"}, "PG-93": {"TestCancel"}, "PG-101": {"TestSplitAnywhere"},
	"PG-84": {"FuzzFrontend"}, "PG-95": {"FuzzBackend", "TestPgproto3Hazards"}, "PG-10": {"TestStartupParameters"}, "PG-09": {"TestStrangeSettings"},
}

var attackID = regexp.MustCompile(`^PG-[0-9]+\b`)

// TestEveryAttackRowHasCases counts the cases of each ID: those of the tables that this package makes, and the names that
// stand in the sources of the tests.
func TestEveryAttackRowHasCases(t *testing.T) {
	cases := map[string]int{}
	for _, list := range [][]attack{statementAttacks(), codeAttacks(), serverAttacks(""), inferenceAttacks()} {
		for _, a := range list {
			cases[a.id]++
		}
	}
	for _, r := range readings() {
		cases[r.id]++
	}
	cases["PG-42"] = 5 * len(deliveries)
	made := []string{"attacks_blocking_test.go", "attacks_masking_test.go", "attacks_list_test.go"} // counted above
	functions := map[string]bool{}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		tree, err := parser.ParseFile(gotoken.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]int{}
		ast.Inspect(tree, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				functions[n.Name.Name] = true
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == gotoken.STRING && !strings.Contains(s, ": ") {
					if id := attackID.FindString(s); id != "" {
						ids[id]++
						if rest := strings.TrimPrefix(s, id); rest == "/" || rest == " " { // t.Run(id + "/" + …) over a table without IDs
							ids[id] += rowsOver(tree, n) - 1
						}
					}
				}
			}
			return true
		})
		if slices.Contains(made, f.Name()) {
			continue
		}
		for id, n := range ids {
			cases[id] += n
		}
	}
	total := 0
	for id, least := range attackRows {
		for _, name := range whole[id] {
			if !functions[name] {
				t.Errorf("%s: there is no %s", id, name)
			}
			cases[id]++
		}
		if cases[id] < least {
			t.Errorf("%s has %d cases, not %d", id, cases[id], least)
		}
		total += cases[id]
	}
	for id := range cases {
		if attackRows[id] == 0 && id != "PG-00" {
			t.Errorf("%s is in no list of attacks", id)
		}
	}
	t.Logf("%d attacks, %d cases, and %d ordinary statements that pass", len(attackRows), total, cases["PG-00"])
	if total < 430 {
		t.Errorf("%d cases are fewer than 430", total)
	}
}

// rowsOver counts the rows of the table that a t.Run over at stands in: the composite literals of the innermost loop
// around it.
func rowsOver(tree *ast.File, at ast.Node) (rows int) {
	rows = 1
	ast.Inspect(tree, func(n ast.Node) bool {
		loop, ok := n.(*ast.RangeStmt)
		if !ok || at.Pos() < loop.Pos() || at.End() > loop.End() {
			return true
		}
		x := loop.X
		if id, ok := x.(*ast.Ident); ok && id.Obj != nil {
			if assign, ok := id.Obj.Decl.(*ast.AssignStmt); ok && len(assign.Rhs) == 1 {
				x = assign.Rhs[0]
			}
		}
		if lit, ok := x.(*ast.CompositeLit); ok {
			rows = max(rows, len(lit.Elts))
		}
		return true
	})
	return rows
}
