package opa

// trusted are the built-in functions of OPA's runtime that are used, with the name that they have there: those that answer
// as topdown does, or NULL, for every operand. All others are called back to the host, which asks topdown's.
var trusted = map[string]string{
	"equal": "opa_cmp_eq", "neq": "opa_cmp_neq", "gt": "opa_cmp_gt", "gte": "opa_cmp_gte", "lt": "opa_cmp_lt", "lte": "opa_cmp_lte",
	"internal.member_2": "builtin_member", "internal.member_3": "builtin_member3",
	"object.get": "builtin_object_get", "count": "opa_agg_count",
	"startswith": "opa_strings_startswith", "endswith": "opa_strings_endswith", "contains": "opa_strings_contains",
	"trim_prefix": "opa_strings_trim_prefix", "trim_suffix": "opa_strings_trim_suffix", "split": "opa_strings_split",
	"lower": "opa_strings_lower", "upper": "opa_strings_upper",
	"array.concat": "opa_array_concat", "array.slice": "opa_array_slice", "and": "opa_set_intersection", "or": "opa_set_union",
	"is_number": "opa_types_is_number", "is_string": "opa_types_is_string", "is_boolean": "opa_types_is_boolean", "is_array": "opa_types_is_array",
	"is_set": "opa_types_is_set", "is_object": "opa_types_is_object", "is_null": "opa_types_is_null", "type_name": "opa_types_name",
}

// natives are the names of the trusted functions in the runtime.
var natives = func() map[string]bool {
	m := map[string]bool{}
	for _, n := range trusted {
		m[n] = true
	}
	return m
}()

// support are the functions of the runtime that compiled rules are made of. They cannot fail but by trapping.
var support = set(
	"opa_abort", "opa_runtime_error", "opa_null", "opa_boolean", "opa_number_int", "opa_number_ref", "opa_number_size",
	"opa_array_with_cap", "opa_array_append", "opa_object", "opa_object_insert", "opa_set", "opa_set_add", "opa_string_terminated",
	"opa_value_number_set_int", "opa_value_compare", "opa_value_get", "opa_value_iter", "opa_value_length", "opa_value_merge",
	"opa_value_shallow_copy", "opa_value_type", "opa_memoize_init", "opa_memoize_push", "opa_memoize_pop", "opa_memoize_insert",
	"opa_memoize_get", "opa_mapping_init", "opa_mapping_lookup", "opa_mpd_init", "opa_malloc_init",
	"opa_builtin0", "opa_builtin1", "opa_builtin2", "opa_builtin3", "opa_builtin4",
)

// called returns what to call in place of a function. policys is whether the caller is made of the policy, and makes
// whether it makes arrays.
func (g *guestCode) called(i uint32, policys, makes bool) uint32 {
	name := g.names[i]
	g.roots = append(g.roots, i)
	var body func(uint32) []byte
	switch {
	case !policys || g.policys(i):
		return i
	case name == "opa_value_get":
		body = g.getting
	case name == "opa_value_iter" && makes:
		body = g.ordered
	case support[name]:
		return i
	case name == trusted["lower"]:
		body = g.letters(lowerID)
	case name == trusted["upper"]:
		body = g.letters(upperID)
	case natives[name]:
		body = g.trapping
	default:
		fail("it calls %s, which is not known to answer as topdown does", name)
	}
	if !g.trap {
		return i
	}
	w, ok := g.wrappers[i]
	if !ok {
		w = g.imports + uint32(len(g.types)) + uint32(len(g.added))
		g.wrappers[i] = w
		g.added = append(g.added, added{i, body(i)})
	}
	return w
}

// makesArrays reports whether a function calls what adds to an array.
func (g *guestCode) makesArrays(i uint32) bool {
	r := g.code(i)
	for depth := 1; depth > 0; {
		switch op := r.byte(); op {
		case opBlock, opLoop, opIf:
			depth++
			r.skip(op)
		case opEnd:
			depth--
		case opCall:
			if g.names[r.u32()] == "opa_array_append" {
				return true
			}
		default:
			r.skip(op)
		}
	}
	return false
}

// The instructions that are added, those with an operand without it.
const (
	opUnreachable, opBlock, opLoop, opIf, opEnd, opBranch, opBranchIf, opReturn, opCall = 0x00, 0x02, 0x03, 0x04, 0x0b, 0x0c, 0x0d, 0x0f, 0x10
	opDrop, opLocalGet, opLocalSet, opLocalTee, opGlobalGet, opGlobalSet                = 0x1a, 0x20, 0x21, 0x22, 0x23, 0x24
	opLoad32, opLoad8, opConst, opEqz, opEq, opNe, opLess, opLessU, opNotLessU          = 0x28, 0x2d, 0x41, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4f
	opAdd, opSub, opAnd, opOr, noResult, typeI32                                        = 0x6a, 0x6b, 0x71, 0x72, 0x40, 0x7f
)

// trapping calls a function of the runtime, and traps when it answers NULL.
func (g *guestCode) trapping(native uint32) []byte {
	params := g.params[g.types[native-g.imports]]
	b := []byte{1, 1, typeI32} // a local
	for p := range params {
		b = appendU32(append(b, opLocalGet), p)
	}
	b = appendU32(append(b, opCall), native)
	b = appendU32(append(b, opLocalTee), params)
	b = append(b, opEqz, opIf, noResult, opUnreachable, opEnd)
	return append(appendU32(append(b, opLocalGet), params), opEnd)
}

// letters asks the host about a text that is not all ASCII.
func (g *guestCode) letters(id int32) func(uint32) []byte {
	return func(native uint32) []byte {
		b := []byte{1, 2, typeI32, opLocalGet, 0, opLoad8, 0, 0, opConst, guestString, opEq, opLocalGet, 0, opLoad8, 0, 0, opConst, guestStringInterned, opEq, opOr, opIf, noResult}
		b = append(b, opLocalGet, 0, opLoad32, 2, 8, opLocalTee, 1, opLocalGet, 0, opLoad32, 2, 4, opAdd, opLocalSet, 2) // from, to
		b = append(b, opBlock, noResult, opLoop, noResult, opLocalGet, 1, opLocalGet, 2, opNotLessU, opBranchIf, 1)
		b = append(b, opLocalGet, 1, opLoad8, 0, 0, opConst, 0x80, 1, opNotLessU, opIf, noResult, opConst, byte(id)&0x7f, opConst, 0, opLocalGet, 0)
		b = append(appendU32(append(b, opCall), g.index("opa_builtin1")), opReturn, opEnd)
		b = append(b, opLocalGet, 1, opConst, 1, opAdd, opLocalSet, 1, opBranch, 0, opEnd, opEnd, opEnd, opLocalGet, 0)
		b = appendU32(append(b, opCall), native)
		return append(b, opLocalTee, 1, opEqz, opIf, noResult, opUnreachable, opEnd, opLocalGet, 1, opEnd)
	}
}

// getting looks up a key, and traps where there is none and topdown could see it otherwise: in a document it finds "1" at 1,
// and the second place at "1", and a key that is no scalar is an error there.
func (g *guestCode) getting(native uint32) []byte {
	kind := func(local byte) []byte { return []byte{opLocalGet, local, opLoad8, 0, 0} }
	trap := []byte{opIf, noResult, opUnreachable, opEnd}
	b := []byte{1, 1, typeI32, opLocalGet, 0, opLocalGet, 1}
	b = appendU32(append(b, opCall), native)
	b = append(b, opLocalTee, 2, opEqz, opLocalGet, 0, opConst, 0, opNe, opAnd, opLocalGet, 1, opConst, 0, opNe, opAnd, opIf, noResult)
	// an array or an object, and a key that is an array, an object or a set
	b = append(append(append(b, kind(0)...), opConst, guestArray, opSub, opConst, 2, opLessU), kind(1)...)
	b = append(append(b, opConst, guestArray, opSub, opConst, 3, opLessU, opAnd), trap...)
	// an object, and a number
	b = append(append(append(b, kind(0)...), opConst, guestObject, opEq), kind(1)...)
	b = append(append(b, opConst, guestNumber, opEq, opAnd), trap...)
	// an array, and a text that may be a number
	b = append(append(append(b, kind(0)...), opConst, guestArray, opEq), kind(1)...)
	b = append(append(append(b, opConst, guestString, opEq), kind(1)...), opConst, guestStringInterned, opEq, opOr, opAnd, opIf, noResult)
	b = append(b, opLocalGet, 1, opLoad32, 2, 4, opIf, noResult, opLocalGet, 1, opLoad32, 2, 8, opLoad8, 0, 0, opConst, '9'+1, opLessU)
	b = append(append(b, trap...), opEnd, opEnd)
	return append(b, opEnd, opLocalGet, 2, opEnd)
}

// ordered goes through an array as the runtime does, and through what has an order of its own with the host's help.
func (g *guestCode) ordered(native uint32) []byte {
	b := []byte{0, opLocalGet, 0, opIf, noResult}
	for _, kind := range []byte{guestObject, guestSet} {
		b = append(b, opLocalGet, 0, opLoad8, 0, 0, opConst, kind, opEq, opIf, noResult)
		b = append(b, opConst, 1, opLocalGet, 0, opLoad32, 2, 12, opLessU, opIf, noResult) // it has more than one
		b = append(b, opConst, nextID&0x7f, opConst, 0, opLocalGet, 0, opLocalGet, 1)
		b = append(appendU32(append(b, opCall), g.index("opa_builtin2")), opReturn, opEnd, opEnd)
	}
	b = append(b, opEnd, opLocalGet, 0, opLocalGet, 1)
	return append(appendU32(append(b, opCall), native), opEnd)
}
