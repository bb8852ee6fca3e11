package opa

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// refused are the built-in functions that a policy cannot call, with the reason: a verdict depends on the input and
// the data only, so that it can be cached, tested and explained later.
var refused = func() map[string]string {
	m := map[string]string{}
	for _, b := range ast.Builtins {
		if b.Nondeterministic {
			m[b.Name] = "its answer depends on more than the input, so that a verdict could not be cached or explained later"
		}
	}
	for _, n := range []string{"http.send", "net.lookup_ip_addr"} {
		m[n] = "a policy reaches no network: put what it needs into data.json"
	}
	m["opa.runtime"] = "a policy does not see the gateway's environment"
	m["time.now_ns"] = "the time of the event is input.time: use time.parse_rfc3339_ns(input.time)"
	return m
}()

// capabilities are what a policy may use.
var capabilities = func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool { return refused[b.Name] != "" })
	c.AllowNet = []string{} // no schema is fetched either
	return c
}()

func newCompiler() *ast.Compiler {
	return ast.NewCompiler().WithCapabilities(capabilities).WithDefaultRegoVersion(ast.RegoV1)
}

// compile compiles modules and checks that each package named answers something, in the right shape.
func compile(src *source, packages []string) (*ast.Compiler, error) {
	c := newCompiler().WithPathConflictsCheck(func(path []string) (bool, error) { return src.has(path), nil })
	if c.Compile(src.modules); c.Failed() {
		return nil, explain(c.Errors)
	}
	var problems []error
	for _, p := range packages {
		problems = append(problems, checkAnswers(c, p)...)
	}
	return c, errors.Join(problems...)
}

// explain turns OPA's errors into one error with a line each: file:line: what (hint).
func explain(err error) error {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return err
	}
	var all []error
	for _, e := range list {
		where := ""
		if e.Location != nil {
			where = fmt.Sprintf("%s:%d: ", e.Location.File, e.Location.Row)
		}
		hint := ""
		if h := hintFor(e); h != "" {
			hint = " (" + h + ")"
		}
		all = append(all, errors.New(where+e.Message+hint))
	}
	return errors.Join(all...)
}

func hintFor(e *ast.Error) string {
	for name, why := range refused {
		if e.Message == "undefined function "+name {
			return name + " cannot be used here: " + why
		}
	}
	switch {
	case strings.Contains(e.Message, "`if` keyword is required"), strings.Contains(e.Message, "`contains` keyword is required"):
		return "policies are Rego v1: write `deny contains x if { … }`"
	case e.Code == "rego_unsafe_var_error":
		return "give the variable a value in the same rule body"
	case strings.HasPrefix(e.Message, "undefined function"):
		return "define it, or see the list of built-in functions of OPA 1.22"
	case strings.Contains(e.Message, "conflicts with"), e.Code == "rego_type_error" && strings.Contains(e.Message, "multiple"):
		return "two files define the same rule in different ways: rename one"
	case e.Code == "rego_recursion_error":
		return "a rule cannot depend on itself"
	}
	return ""
}

// answers are the rules that are asked of a package, and the keys of what each of them holds.
type answer struct {
	set      bool // a set of objects: written with `contains`
	required []string
	optional []string
}

var answers = map[string]answer{
	"deny":  {set: true, required: []string{"rule"}, optional: []string{"reason", "hint"}},
	"mask":  {set: true, required: []string{"column", "with"}, optional: []string{"args", "rule"}},
	"hold":  {set: true, required: []string{"rule"}, optional: []string{"reason", "approvers"}},
	"limit": {set: true, optional: []string{"rows", "bytes", "time", "rule"}},
	// the others are single values
	"record": {},
	"allow":  {},
}

// asked are the rules a package is asked for, by when.
var (
	atOpen  = []string{"allow", "deny", "record"}
	atGuard = []string{"deny", "mask", "hold", "limit", "record"}
)

// nearly are names that look like an answer and are none.
var nearly = map[string]string{
	"denied": "deny", "denies": "deny", "denys": "deny", "block": "deny", "reject": "deny", "violation": "deny", "violations": "deny",
	"masks": "mask", "masked": "mask", "redact": "mask", "holds": "hold", "held": "hold", "approve": "hold", "approval": "hold",
	"limits": "limit", "records": "record", "recording": "record", "allowed": "allow", "allows": "allow", "permit": "allow",
}

// isAccess reports whether a package is asked at Open rather than at Command and Columns.
func isAccess(pkg string) bool {
	return pkg == "access" || strings.HasSuffix(pkg, ".access") || pkg == AdminPackage || pkg == ReplayPackage
}

func askedOf(pkg string) []string {
	if isAccess(pkg) {
		return atOpen
	}
	return atGuard
}

// packageRef returns data.a.b for "a.b".
func packageRef(pkg string) ast.Ref {
	r := ast.Ref{ast.DefaultRootDocument}
	for part := range strings.SplitSeq(pkg, ".") {
		r = append(r, ast.StringTerm(part))
	}
	return r
}

// rulesOf returns the rules defined in a package, by the first word of their name.
func rulesOf(c *ast.Compiler, pkg string) map[string][]*ast.Rule {
	ref := packageRef(pkg)
	out := map[string][]*ast.Rule{}
	for _, m := range c.Modules {
		if !m.Package.Path.Equal(ref) {
			continue
		}
		for _, r := range m.Rules {
			name := strings.Trim(r.Head.Ref()[0].String(), `"`)
			out[name] = append(out[name], r)
		}
	}
	return out
}

// checkAnswers reports what a package would answer wrongly, or not at all.
func checkAnswers(c *ast.Compiler, pkg string) (problems []error) {
	rules := rulesOf(c, pkg)
	asked := askedOf(pkg)
	useful := false
	for name, list := range rules {
		at := fmt.Sprintf("%s:%d", list[0].Location.File, list[0].Location.Row)
		if want, ok := nearly[name]; ok && slices.Contains(asked, want) {
			problems = append(problems, fmt.Errorf("%s: package %s defines %q, which is never asked for (did you mean %q? otherwise give it another name)", at, pkg, name, want))
			continue
		}
		a, known := answers[name]
		if !known {
			continue
		}
		if !slices.Contains(asked, name) {
			problems = append(problems, fmt.Errorf("%s: package %s defines %q, which is not asked there (%s)", at, pkg, name, elsewhere(name)))
			continue
		}
		useful = true
		for _, r := range list {
			at := fmt.Sprintf("%s:%d", r.Location.File, r.Location.Row)
			set := r.Head.RuleKind() == ast.MultiValue
			switch {
			case len(r.Head.Ref()) > 1 || len(r.Head.Args) > 0:
				problems = append(problems, fmt.Errorf("%s: %s cannot be an object or a function (write %s)", at, name, example(name)))
			case a.set && !set, !a.set && set:
				problems = append(problems, fmt.Errorf("%s: %s has the wrong form (write %s)", at, name, example(name)))
			}
		}
		if a.set {
			if t, ok := c.TypeEnv.GetByRef(append(packageRef(pkg), ast.StringTerm(name))).(*types.Set); ok {
				for _, p := range checkType(t.Of(), a) {
					problems = append(problems, fmt.Errorf("%s: %s: %s (write %s)", at, name, p, example(name)))
				}
			}
		}
	}
	if !useful && len(problems) == 0 {
		what := "has no rule named " + strings.Join(asked, ", ")
		if len(rules) == 0 {
			what = "is not in these files"
		}
		problems = append(problems, fmt.Errorf("package %s %s: it would do nothing (check the package line, or name the packages to ask with `packages:`)", pkg, what))
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return problems
}

func elsewhere(name string) string {
	if name == "allow" {
		return "allow is asked in a package called access, such as weir.access"
	}
	return name + " is asked in weir.guardrails"
}

func example(name string) string {
	switch name {
	case "deny":
		return "`deny contains {\"rule\": \"no-ddl\", \"reason\": …, \"hint\": …} if …`"
	case "mask":
		return "`mask contains {\"column\": \"email\", \"with\": \"partial\"} if …`"
	case "hold":
		return "`hold contains {\"rule\": \"big-delete\", \"approvers\": [\"dba\"]} if …`"
	case "limit":
		return "`limit contains {\"rows\": 1000} if …`"
	case "record":
		return "`record := \"metadata\" if …`"
	}
	return "`allow if …`"
}

// checkType compares what the compiler knows of a set's elements with what is understood.
func checkType(t types.Type, a answer) (problems []string) {
	switch t := t.(type) {
	case types.Any:
		for _, x := range t {
			problems = append(problems, checkType(x, a)...)
		}
	case *types.Object:
		if t.DynamicProperties() != nil {
			return nil // only known when it is evaluated
		}
		var have []string
		for _, p := range t.StaticProperties() {
			k, ok := p.Key.(string)
			if !ok || !slices.Contains(a.required, k) && !slices.Contains(a.optional, k) {
				problems = append(problems, fmt.Sprintf("unknown key %q", fmt.Sprint(p.Key)))
			}
			have = append(have, k)
		}
		for _, k := range a.required {
			if !slices.Contains(have, k) {
				problems = append(problems, fmt.Sprintf("key %q is missing", k))
			}
		}
	case types.String, *types.String, types.Number, *types.Number, types.Boolean, *types.Boolean, *types.Array:
		problems = append(problems, "its elements are objects")
	}
	return problems
}
