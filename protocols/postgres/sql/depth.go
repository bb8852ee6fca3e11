package sql

import "strings"

// The grammar's sandbox has a small stack and does not notice its end: a text whose tree is too deep makes it run for
// ever, or write over its own memory. So a text is measured before it is parsed. Each kind of nesting costs what it was
// found to take of the stack, in operators; the parser does 400 of them, and 1000 are too many.
const (
	maxNesting  = 300
	costBracket = 4
	costCase    = 2
)

// operands are the words that put an expression into another one, as an operator does.
var operands = map[string]bool{
	"not": true, "is": true, "like": true, "ilike": true, "similar": true, "between": true, "in": true, "collate": true,
	"at": true, "operator": true, "isnull": true, "notnull": true, "overlaps": true, "escape": true,
}

// nest is one open bracket or CASE.
type nest struct {
	isCase bool
	ops    int // since the last comma, AND or the like: each is a level more
	chain  int // of UNION and JOIN, which commas do not end
	inner  int // the deepest bracket since then
	most   int // of the parts before
}

func (n *nest) part() {
	n.most = max(n.most, n.ops+n.inner)
	n.ops, n.inner = 0, 0
}

func (n *nest) depth() int { return max(n.most, n.ops+n.inner) + n.chain }

// tooDeep reports whether the tree of a text may be deeper than the parser can bear.
func tooDeep(text string) bool {
	stack := make([]nest, 1, 16)
	open := 0 // what the open brackets cost
	push := func(isCase bool, cost int) bool {
		open += cost
		stack = append(stack, nest{isCase: isCase})
		return open > maxNesting
	}
	pop := func(cost int) bool {
		inner := stack[len(stack)-1].depth() + cost
		open -= cost
		stack = stack[:len(stack)-1]
		top := &stack[len(stack)-1]
		top.inner = max(top.inner, inner)
		return top.depth() > maxNesting
	}
	closeCases := func() bool { // that a bracket ends before their END
		for len(stack) > 1 && stack[len(stack)-1].isCase {
			if pop(costCase) {
				return true
			}
		}
		return false
	}
	dotted := false // a name after a dot may be any word
	for i := 0; i < len(text); {
		c := text[i]
		n := skip(text[i:])
		if n > 0 {
			word := text[i : i+n]
			i += n
			switch {
			case c == '-' || c == '/': // a comment
				continue
			case dotted || c == '\'' || c == '"' || c == '$' || n > 10:
				dotted = false
				continue
			}
			top := &stack[len(stack)-1]
			switch word = strings.ToLower(word); word {
			case "case":
				if push(true, costCase) {
					return true
				}
			case "end":
				if top.isCase && pop(costCase) {
					return true
				}
			case "and", "or", "when", "then", "else":
				top.part()
			case "union", "intersect", "except", "join":
				top.chain++
			default:
				if operands[word] {
					top.ops++
				}
			}
			if top = &stack[len(stack)-1]; top.depth() > maxNesting {
				return true
			}
			continue
		}
		i++
		top := &stack[len(stack)-1]
		switch c {
		case ' ', '\t', '\n', '\r', '\f', '\v':
			continue
		case '(', '[':
			if push(false, costBracket) {
				return true
			}
		case ')', ']':
			if closeCases() || len(stack) > 1 && pop(costBracket) {
				return true
			}
		case ',':
			top.part()
		case ';':
			top.part()
			top.most, top.chain = 0, 0
		case ':':
			if i < len(text) && text[i] == ':' {
				i++
				top.ops++
			}
		case '+', '-':
			top.ops++
		case '*', '/', '<', '>', '=', '~', '!', '@', '#', '%', '^', '&', '|', '`', '?':
			for i < len(text) && strings.IndexByte("*/<>=~!@#%^&|`?", text[i]) >= 0 && skip(text[i:]) == 0 {
				i++
			}
			top.ops++
		}
		dotted = c == '.'
		if top = &stack[len(stack)-1]; top.depth() > maxNesting {
			return true
		}
	}
	for len(stack) > 1 {
		cost := costBracket
		if stack[len(stack)-1].isCase {
			cost = costCase
		}
		if pop(cost) {
			return true
		}
	}
	return false
}
