package postgres

import "testing"

// TestPipelineAfterError: the server passes over what comes between an error and the next Sync, also what the client sends
// only after it has seen the error, as drivers do whose pipeline is longer than one write. What follows is as ever.
func TestPipelineAfterError(t *testing.T) {
	t.Parallel()
	bind, execute := message('B', "\x00\x00\x00\x00\x00\x00\x00\x00"), message('E', "\x00\x00\x00\x00\x00")
	sync, flush := message('S', ""), message('H', "")
	parse := func(name, sql string) []byte { return message('P', name+"\x00"+sql+"\x00\x00\x00") }
	guarded, open := startGate(t, withChain(guard{deny: noWrites, mask: map[string]string{"email": "x"}})), startGate(t)
	for _, c := range []struct {
		name    string
		failing []byte
		after   []byte
		want    string // the types of what comes then, and after it for another statement
	}{
		{"a statement", parse("", "select nothing"), frames(parse("", "select 4711"), bind, execute, sync), "Z"},
		{"a query", parse("", "select nothing"), frames(message('Q', "select 4711\x00"), sync), "Z"},
		{"a call", parse("", "select nothing"), frames(message('F', "\x00\x00\x03\xbd\x00\x00\x00\x01\x00\x00\x00\x040006\x00\x00"), sync), "Z"},
		{"closing and describing", parse("", "select nothing"), frames(message('C', "Sa\x00"), message('D', "Sa\x00"), sync), "Z"},
		{"two pipelines", parse("", "select nothing"), frames(execute, sync, parse("", "select 4711"), bind, execute, sync), "Z12DCZ"},
		{"two errors", parse("", "select nothing"), frames(parse("", "select nobody"), sync, parse("", "select nobody"), execute, sync), "ZEZ"},
		{"while it runs", frames(parse("", "select 1/0"), bind, execute), frames(bind, execute, flush, sync), "Z"},
		{"a refused statement", parse("", "select nothing"), frames(parse("", "drop table s.victim"), bind, execute, sync), "Z"},
		{"after a refused one", frames(parse("", "drop table s.nothing"), bind, execute), frames(parse("", "select 4711"), bind, execute, sync), "Z"},
	} {
		for name, g := range map[string]*testGate{"guarded": guarded, "open": open} {
			r := g.dial()
			r.signIn()
			r.send(frames(c.failing, flush))
			r.until('E')
			r.send(c.after)
			if name == "guarded" { // a name that was passed over is no name
				r.send(frames(parse("", "select 1 as email"), bind, execute, sync, message('X', "")))
			} else {
				r.send(frames(message('Q', "select 1 as email\x00"), message('X', "")))
			}
			want := c.want + map[string]string{"guarded": "12DCZ", "open": "TDCZ"}[name]
			if got := types(r.rest()); got != want {
				t.Errorf("%s, %s: %s, want %s", c.name, name, got, want)
			}
		}
	}
}
