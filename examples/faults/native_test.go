//go:build linux

package faults_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"testing"
)

// binaryRows is extended with answers in binary.
func (c *client) binaryRows(sql string) (answer, error) {
	b := frame('P', []byte("\x00"+sql+"\x00\x00\x00"))
	b = append(b, frame('B', []byte("\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01"))...)
	b = append(b, frame('D', []byte("P\x00"))...)
	b = append(b, frame('E', binary.BigEndian.AppendUint32([]byte{0}, 0))...)
	if _, err := c.Write(append(b, frame('S', nil)...)); err != nil {
		return answer{}, err
	}
	return c.answer()
}

// TestNativePII: whether the guest masks or the native step, a client is given the same bytes in every form that it can ask for, and the
// record says the same of it. Without either, as the control, the values are given.
func TestNativePII(t *testing.T) {
	t.Parallel()
	secret := "canary" + random(6)
	table := "native" + random(4)
	_, err := upstream.Psql(context.Background(), "orders", fmt.Sprintf(`set log_statement = 'none'; set role app;
create type mood%[1]s as enum ('b@example.com');
create table %[1]s (id int primary key, mail text, note varchar(200), doc jsonb, tags text[], card text, raw bytea, mood mood%[1]s, amount numeric);
insert into %[1]s select g, '%[2]s' || g || '@example.com', 'rang from +49 30 1234567, key AKIAIOSFODNN7EXAMPLE', jsonb_build_object('ssn', '123-45-6789', 'n', g),
  array['DE89370400440532013000', null, 'x'], case when g %% 3 > 0 then '4111 1111 1111 1111' end, '%[2]s@example.com', 'b@example.com', 4111111111111111 from generate_series(1, 200) g;`, table, secret))
	must(t, err)
	with := func(plugin string) *gateway {
		s := setup{chain: "[guardrails, pii]", plugins: "plugins:\n  - {name: pii, " + plugin + "}\n"}
		if plugin == "" {
			s = setup{}
		}
		return start(t, s)
	}
	control := with("")
	ways := map[string][]*gateway{
		"all columns": {control, with(`wasm: "builtin:pii"`), with("native: pii")},
		"one column":  {control, with(`wasm: "builtin:pii", columns: [note]`), with("native: pii, columns: [note]")},
	}
	statements := []string{
		"select * from %s order by id limit 20",
		"select * from %s order by id",
		"select note as harmless, mail || '' as joined, upper(mail) from %s order by id limit 3",
		"select to_json(t), array_agg(mail) over (), row(mail, note) from %s t order by id limit 3",
		"copy %s to stdout",
		"copy (select id, note, mail from %s order by id limit 50) to stdout with (format csv, header, force_quote *)",
		"copy (select id, note, mail, doc, tags from %s order by id limit 50) to stdout with (format binary)",
		"select mail::int from %s",
	}
	for name, gateways := range ways {
		var said [3][]string
		var findings [3]map[string]int
		for i, g := range gateways {
			c := g.open("asker " + name)
			for _, statement := range statements {
				sql := fmt.Sprintf(statement, table)
				asks := []func(string) (answer, error){c.query}
				if !strings.HasPrefix(sql, "copy") {
					asks = append(asks, func(sql string) (answer, error) { return c.extended(sql) }, c.binaryRows)
				}
				for _, ask := range asks {
					c.seen.Reset()
					c.bytes = 0
					a, err := ask(sql)
					must(t, err)
					last := c.notes[len(c.notes)-1]
					said[i] = append(said[i], fmt.Sprintf("%s: %d bytes, %s; %d rows, the first %q; %v", sql, last.bytes, last.sum, a.count, a.rows[:min(1, len(a.rows))], a.err))
				}
			}
			c.bye()
			findings[i] = g.findings(g.sealed("asker " + name).ID)
		}
		for i, text := range said[2] {
			if said[1][i] != text {
				t.Errorf("%s: with the guest\n%s\nand natively\n%s", name, said[1][i], text)
			}
		}
		if !maps.Equal(findings[1], findings[2]) || findings[2]["pii AWS_KEY"] < 400 || len(findings[0]) > 0 {
			t.Errorf("%s: the record of the guest has the findings\n%v\nthe native one's\n%v", name, findings[1], findings[2])
		}
		first := said[2][0]
		contains(t, name, first, "rang from +** ** *****67, key AKIA****************")
		contains(t, "without it", said[0][0], "AKIAIOSFODNN7EXAMPLE", secret+"1@example.com", "4111 1111 1111 1111")
		if name == "all columns" {
			contains(t, name, first, "**** **** **** 1111", "***-**-****")
			if strings.Contains(first, secret+"1@") {
				t.Errorf("an address: %s", first)
			}
		} else {
			contains(t, name, first, secret+"1@example.com", "4111 1111 1111 1111") // the columns that it may not see
		}
	}
}

// findings are how many of each the record says that a step found. In which batches depends on how the upstream's bytes came in.
func (g *gateway) findings(id string) map[string]int {
	g.t.Helper()
	out, errs, code := g.run("replay", id, "--format", "json")
	if code != 0 {
		g.t.Fatalf("weir replay %s ended with %d: %s", id, code, errs)
	}
	all := map[string]int{}
	for line := range strings.Lines(out) {
		var rec struct {
			Decisions []struct{ Step, Action, Rule, Detail string }
		}
		must(g.t, json.Unmarshal([]byte(line), &rec))
		for _, d := range rec.Decisions {
			if d.Action == "finding" {
				n, err := strconv.Atoi(d.Detail)
				must(g.t, err)
				all[d.Step+" "+d.Rule] += n
			}
		}
	}
	return all
}
