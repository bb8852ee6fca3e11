package sql

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

// TestDeepTexts: a tree that is too deep for the parser's stack is refused before it hangs or spoils it; long texts that
// are not deep are read.
func TestDeepTexts(t *testing.T) {
	if err := reader.Warm(t.Context()); err != nil {
		t.Fatal(err)
	}
	wrap := func(text, before, after string) func(int) string {
		return func(n int) string { return "select " + strings.Repeat(before, n) + text + strings.Repeat(after, n) }
	}
	for name, deep := range map[string]func(int) string{
		"plus": wrap("1", "", "+1"), "signs": wrap("1", "", "+-"), "cast": wrap("1", "", "::int"), "minus": wrap("a", "- ", ""), "not": wrap("a", "not ", ""),
		"concat": wrap("'a'", "", "||'a'"), "case": wrap("1", "case when ", " then 1 end"), "sub": wrap("1", "(select ", ")"),
		"case and sub": wrap("1", "case when (select ", ") > 0 then (select 1) else 0 end"), "else": wrap("1", "case when a then b else ", " end"),
		"func": wrap("1", "f(", ")"), "array": wrap("1", "array[", "]"), "row": wrap("1", "row(", ")"),
		"from": wrap("1", "* from (select ", ") q"), "join": wrap("* from t", "", " join t using (a)"), "union": wrap("1", "", " union select 1, 2"),
		"and or": wrap("a", "(", " and b or c)"), "dotted": wrap("1", "", " + t.and + t.when + t./**/or"), "dotted case": wrap("1", "case when t.end > ", " then 1 end"),
		"operator": wrap("1", "", " operator(pg_catalog.+) 1"), "collate": wrap("a", "", ` collate "C"`), "at": wrap("a", "", " at time zone 'x'"),
		"in": wrap("a", "a in (", ")"), "with": wrap("1", "1 from (with q as (select ", ") select 1) q"), "comments": wrap("1", "", "+/* a */1 -- b\n"),
	} {
		for _, n := range []int{60, 100, 200, 400, 1000, 5000, 20_000} {
			text := deep(n)
			if len(text) > maxText {
				continue
			}
			start := time.Now()
			c := reader.Read(t.Context(), text).Command
			if took := time.Since(start); took > 20*time.Second {
				t.Fatalf("%s %d: %v", name, n, took)
			}
			if n >= 400 && c.Status != core.StatusIncomplete {
				t.Errorf("%s %d is read", name, n)
			}
			if strings.Contains(c.Reason, "parser failed") {
				t.Errorf("%s %d: %s", name, n, c.Reason)
			}
		}
	}
	list := func(n int, f string) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = strings.ReplaceAll(f, "%d", fmt.Sprint(i))
		}
		return strings.Join(parts, "")
	}
	for name, text := range map[string]string{
		"values": "insert into t values (1, 'a+b', 2*3)" + list(5000, ", (%d, 'a', -%d)"),
		"and":    "select 1 from t where a = 0" + list(3000, " and b%d = -%d"), "or": "select 1 from t where a = 0" + list(3000, " or b = %d"),
		"in": "select 1 from t where a in (0" + list(5000, ", %d") + ")", "columns": "select 0" + list(1500, ", a%d + b%d as c%d") + " from t",
		"when": "select case a when 0 then 'x'" + list(2000, " when a = %d then 'y%d'") + " end from t", "script": list(500, "select 1 + %d from t where a = %d; "),
		"case": "select 0" + list(200, ", case when a = %d then case when b then 1 end else 0 end") + " from t", "nested": "select " + strings.Repeat("coalesce(", 40) + "a" + strings.Repeat(", 0)", 40) + " from t",
	} {
		if c := reader.Read(t.Context(), text).Command; c.Status != core.StatusKnown {
			t.Errorf("%s is not read: %s", name, c.Reason)
		}
	}
}
