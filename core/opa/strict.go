package opa

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// indexedCalls are the built-in functions that OPA's rule index answers for: where their operand is of another type,
// the index passes the rule over, and the call that would have failed is never made. A rule that denies must not stop
// firing because a fact is not what it is taken for.
var indexedCalls = map[string]bool{
	ast.StartsWith.Name: true, ast.EndsWith.Name: true, ast.GlobMatch.Name: true, ast.AnyPrefixMatch.Name: true, ast.AnySuffixMatch.Name: true,
}

// called has such calls made: f(x) is written as true = f(x), which the index does not answer for.
func called(m *ast.Module) {
	ast.WalkExprs(m, func(e *ast.Expr) bool {
		terms, ok := e.Terms.([]*ast.Term)
		if !ok || e.Negated || len(e.With) > 0 || !indexedCalls[e.Operator().String()] || len(e.Operands()) != len(ast.BuiltinMap[e.Operator().String()].Decl.FuncArgs().Args) {
			return false
		}
		call := ast.CallTerm(terms...).SetLocation(e.Location)
		e.Terms = []*ast.Term{ast.NewTerm(ast.Equality.Ref()).SetLocation(e.Location), ast.BooleanTerm(true).SetLocation(e.Location), call}
		return false
	})
}
