package core

import (
	"slices"
	"strings"
)

// Class is what a column's type means to a step: whether its text can be scanned, and what a masked value has to
// look like so that a driver can still read it.
type Class uint8

// The classes. ClassUnknown is a type that nobody here has heard of: an enum, a domain, a type of an extension.
const (
	ClassUnknown Class = iota
	ClassText
	ClassJSON
	ClassNumber
	ClassBool
	ClassTime
	ClassUUID
	ClassBytes
	ClassArray
	ClassOther // known, and read by drivers in a form of its own: addresses, intervals, geometry …
)

var classNames = [...]string{"unknown", "text", "json", "number", "bool", "time", "uuid", "bytes", "array", "other"}

// String returns the word used after "type:" in subscriptions.
func (c Class) String() string { return name(classNames[:], int(c)) }

var classes = func() map[string]Class {
	m := map[string]Class{}
	for class, names := range map[Class]string{
		ClassText: "text varchar bpchar char character name citext xml string tinytext mediumtext longtext " +
			"nchar nvarchar ntext clob character_varying national_character_varying \"char\" set enum varstring var_string",
		ClassJSON: "json jsonb",
		ClassNumber: "int2 int4 int8 smallint integer int bigint tinyint mediumint year serial bigserial smallserial float float4 " +
			"float8 real double double_precision numeric decimal newdecimal number oid xid cid int32 int64 long short tiny longlong int24",
		ClassBool: "bool boolean",
		ClassTime: "date time timetz timestamp timestamptz datetime datetime2 smalldatetime datetimeoffset " +
			"timestamp_without_time_zone timestamp_with_time_zone time_without_time_zone time_with_time_zone",
		ClassUUID:  "uuid uniqueidentifier",
		ClassBytes: "bytea blob tinyblob mediumblob longblob binary varbinary image bindata",
		ClassOther: "inet cidr macaddr macaddr8 interval money point line lseg box path polygon circle geometry geography " +
			"bit varbit int4range int8range numrange daterange tsrange tstzrange void xid8 pg_lsn objectid",
	} {
		for _, n := range strings.Fields(names) {
			m[n] = class
		}
	}
	return m
}()

// ClassOf returns the class of a type by the target's own name of it: letter case, a length or precision in
// brackets and "unsigned" do not matter.
func ClassOf(typ string) Class {
	c, _ := classOf(typ)
	return c
}

// classOf returns the class of a type, and that of its elements when it is an array.
func classOf(typ string) (class, element Class) {
	if c, ok := classes[typ]; ok { // as most targets write it
		return c, c
	}
	t := strings.ToLower(strings.TrimSpace(typ))
	if i := strings.IndexByte(t, '('); i >= 0 {
		rest := ""
		if j := strings.IndexByte(t[i:], ')'); j >= 0 {
			rest = t[i+j+1:]
		}
		t = strings.TrimSpace(t[:i]) + rest
	}
	if e, ok := strings.CutSuffix(t, "[]"); ok {
		_, element = classOf(e)
		return ClassArray, element
	}
	if e, ok := strings.CutPrefix(t, "_"); ok && e != "" {
		_, element = classOf(e)
		return ClassArray, element
	}
	t = strings.TrimSuffix(strings.TrimPrefix(t, "pg_catalog."), " unsigned")
	c := classes[strings.Join(strings.Fields(t), "_")]
	return c, c
}

// Scannable reports whether values of the column may hold free text. A type nobody knows counts: not to look at it
// would be the unsafe choice.
func (c *Column) Scannable() bool {
	_, element := classOf(c.Type)
	return element == ClassText || element == ClassJSON || element == ClassUnknown
}

// WantsColumn reports whether the subscription asks to see the cells of c.
func (s *Subscription) WantsColumn(c *Column) bool {
	if len(s.Only) > 0 && !slices.ContainsFunc(s.Only, c.Matches) {
		return false
	}
	for _, p := range s.Columns {
		if p == "*" {
			return true
		}
		if t, ok := strings.CutPrefix(p, "type:"); ok {
			if t == "text" && c.Scannable() || t == ClassOf(c.Type).String() {
				return true
			}
			continue
		}
		if glob(strings.ToLower(p), strings.ToLower(c.Name)) {
			return true
		}
	}
	return false
}

// WantsProtocol reports whether the subscription covers a protocol.
func (s *Subscription) WantsProtocol(protocol string) bool {
	for _, p := range s.Protocols {
		if p == protocol {
			return true
		}
	}
	return len(s.Protocols) == 0
}

// Unknown returns the first column pattern that can never match because it names no class, or "".
func (s *Subscription) Unknown() string {
	for _, p := range s.Columns {
		if t, ok := strings.CutPrefix(p, "type:"); ok && index(classNames[:], t) == 0 && t != classNames[0] {
			return p
		}
		if p == "" {
			return `""`
		}
	}
	return ""
}

// glob matches s with a pattern in which * stands for any run of characters and ? for one byte.
func glob(pattern, s string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

// Matches reports whether a pattern, such as a mask's column, means this column: "*", the column's own name, or table.column and
// schema.table.column of where its values come from. Letter case does not matter: to hide too much is the safe
// mistake.
func (c *Column) Matches(pattern string) bool {
	if pattern == "*" || strings.EqualFold(pattern, c.Name) {
		return true
	}
	if c.Origin != nil && comesFrom(pattern, c.Origin) {
		return true
	}
	for i := range c.Lineage {
		if comesFrom(pattern, &c.Lineage[i]) {
			return true
		}
	}
	return false
}

// comesFrom reports whether pattern names o: the column, with as much of its table before it as pattern says.
func comesFrom(pattern string, o *Origin) bool {
	if strings.EqualFold(pattern, o.Column) || o.Table == "*" {
		return true
	}
	if o.Column == "*" { // any column of the table
		i := strings.LastIndexByte(pattern, '.')
		return i < 0 || comesFrom(pattern[:i]+".*x", &Origin{Table: o.Table, Column: "*x"})
	}
	n := len(pattern) - len(o.Column)
	if n < 2 || pattern[n-1] != '.' || !strings.EqualFold(pattern[n:], o.Column) {
		return false
	}
	table := pattern[:n-1]
	if strings.EqualFold(table, o.Table) {
		return true
	}
	// "table" and "schema.table" also name "database.schema.table", and where the target told less than the mask
	// says, what it told decides.
	return endsWith(o.Table, table) || endsWith(table, o.Table)
}

// endsWith reports whether part is the last of the dotted parts of name.
func endsWith(name, part string) bool {
	rest := len(name) - len(part)
	return part != "" && rest > 1 && name[rest-1] == '.' && strings.EqualFold(name[rest:], part)
}
