package replay

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-gateway/weir/core"
)

func TestRerun(t *testing.T) {
	records := []core.Record{
		rec(core.KindOpen, core.FromClient, `{"session":"s1","run":"r","identity":{"subject":"ada","groups":["g"],"kind":"agent"},"target":"orders","protocol":"pipes","user":"u"}`, ""),
		rec(core.KindCommand, core.FromClient, `{"command":{"action":"select","text":"select $1","fingerprint":"f","effects":["read"],"resources":[{"kind":"table","name":"t","use":["read"]}],"where":true,"status":"known"},"stage":"execute","params":["a",null,{"hex":"ff00"}]}`, ""),
		rec(core.KindColumns, core.FromUpstream, `{"columns":[{"name":"email","type":"text","origin":{"table":"t","column":"email"}}]}`, "",
			core.Decision{Step: "g", Action: "mask", Rule: "r", Detail: "email"}),
		rec(core.KindRows, core.FromUpstream, `{"rows":12}`, "x"),
		rec(core.KindRows, core.FromUpstream, `{"rows":3,"denied":{"rule":"limit-rows"}}`, ""),
		rec(core.KindResult, core.FromUpstream, `{"result":{"status":"ok","tag":"SELECT 12"}}`, ""),
		rec(core.KindCommand, core.FromClient, `{"command":{"action":"drop","text":"drop","effects":["ddl"],"status":"known"},"denied":{"rule":"no-ddl"}}`, ""),
		rec(core.KindOpaque, core.FromClient, `{"reason":"?"}`, ""),
		rec(core.KindClose, core.FromGateway, `{"end":"closed","reason":"bye"}`, ""),
	}
	r := Rerun{Target: func(name string) *core.Target {
		return &core.Target{Name: name, Labels: map[string]string{"risk": "low"}}
	}}
	var events []*core.Event
	var pasts []Past
	for i := range records {
		records[i].Seq, records[i].Time = uint64(i), time.Unix(int64(i), 0)
		e, p, err := r.Event(&records[i])
		if err != nil {
			t.Fatal(i, err)
		}
		events, pasts = append(events, e), append(pasts, p)
	}
	if s := r.Session(); s.ID != "s1" || s.Identity.Subject != "ada" || s.Target.Labels["risk"] != "low" || s.Protocol != "pipes" || s.Hello.User != "u" {
		t.Errorf("%+v", s)
	}
	c := events[1]
	if c.Stage != "execute" || c.Command().Fingerprint != "f" || !c.Command().HasEffect(core.EffectRead) || len(c.Params) != 3 ||
		string(c.Params[0].Value) != "a" || c.Params[1].Value != nil || string(c.Params[2].Value) != "\xff\x00" || !c.Params[2].Binary {
		t.Errorf("%+v", c)
	}
	if events[2].Exchange != c.Exchange || events[2].Columns[0].Origin.Table != "t" || pasts[2].Decisions[0].Detail != "email" {
		t.Errorf("%+v", events[2])
	}
	if events[3].Rows.Rows != 12 || pasts[4].Rows != 3 || pasts[4].Denied == nil || events[5].Result.Tag != "SELECT 12" {
		t.Error("rows or result")
	}
	if pasts[6].Denied.Rule != "no-ddl" || events[6].Exchange == c.Exchange || events[7] != nil || events[8].Reason != "bye" {
		t.Error("what came last")
	}
	for _, bad := range []core.Record{
		rec(core.KindCommand, core.FromClient, `{}`, ""), rec(core.KindCommand, core.FromClient, `{"command":`, ""), rec(core.KindRows, core.FromUpstream, `[]`, ""),
	} {
		if _, _, err := r.Event(&bad); err == nil {
			t.Errorf("%s is taken", bad.Facts)
		}
	}
	var fresh Rerun
	if _, _, err := fresh.Event(&records[1]); err == nil {
		t.Error("a command before the session's opening is taken")
	}
}

func TestPlainRows(t *testing.T) {
	for facts, want := range map[string]int64{`{"rows":0}`: 0, `{"rows":120}`: 120, `{"rows":}`: -1, `{"rows":1,"x":2}`: -1, `{"rows":-1}`: -1, `{"rows":99999999999999999}`: -1, `{}`: -1} {
		n, ok := plainRows([]byte(facts))
		if ok != (want >= 0) || ok && n != want {
			t.Errorf("%s: %d %v", facts, n, ok)
		}
	}
}

// TestRerunCounts: the facts that policies read of the conversation are at each record what they were then.
func TestRerunCounts(t *testing.T) {
	command := func(use, more string) string {
		return `{"command":{"action":"x","text":"x","effects":["read"],"resources":[{"kind":"table","name":"t_` + use + `","use":["` + use + `"]}],"status":"known"}` + more + `}`
	}
	var r Rerun
	for i, c := range []struct {
		rec  core.Record
		want string
	}{
		{rec(core.KindOpen, core.FromClient, `{"session":"s1","run":"r","identity":{"subject":"ada"},"target":"orders","protocol":"pipes"}`, "hello"), "0 0 0 0 5 [] [] true"},
		{rec(core.KindCommand, core.FromClient, command("read", ""), "12"), "1 0 0 0 7 [{orders t_read}] [] true"},
		{rec(core.KindRows, core.FromUpstream, `{"rows":12}`, "123"), "1 12 0 3 7 [{orders t_read}] [] true"},
		{rec(core.KindCommand, core.FromClient, command("drop", `,"denied":{"rule":"no"}`), ""), "2 12 1 3 7 [{orders t_read}] [] true"},
		{rec(core.KindCommand, core.FromClient, command("write", `,"stage":"prepare"`), ""), "3 12 1 3 7 [{orders t_read}] [] true"},
		{rec(core.KindCommand, core.FromClient, command("write", `,"stage":"execute"`), ""), "4 12 1 3 7 [{orders t_read}] [{orders t_write}] true"},
		{rec(core.KindCommand, core.FromClient, `{"command":{"status":"incomplete"}}`, ""), "5 12 1 3 7 [{orders t_read}] [{orders t_write}] false"},
	} {
		e, _, err := r.Event(&c.rec)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind == core.KindOpen {
			r.Begin(core.SessionConfig{Tables: true})
		}
		r.Pass(t.Context(), e)
		s := r.Session()
		n, tables := s.Totals(), s.Tables()
		if got := fmt.Sprint(n.Commands, n.Rows, n.Denied, n.Bytes, n.Received, tables.Read, tables.Written, tables.Complete); got != c.want {
			t.Errorf("record %d: %s, not %s", i, got, c.want)
		}
	}
}
