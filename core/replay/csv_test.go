package replay

import (
	"bytes"
	"context"
	"encoding/csv"
	"strings"
	"testing"

	"github.com/weir-gateway/weir/core"
)

func TestCSV(t *testing.T) {
	s := &shelf{}
	pack(t, s, []core.Record{
		rec(core.KindOpen, core.FromClient, `{"protocol":"p"}`, ""),
		rec(core.KindColumns, core.FromUpstream, `{"columns":[{"name":"id"},{"name":"=name"}]}`, ""),
		rec(core.KindRows, core.FromUpstream, `{"rows":2}`, "1|ada, \"x\"\n-2|=1+1\n"),
		rec(core.KindRows, core.FromUpstream, `{"rows":1}`, "3|\n"),
		rec(core.KindRows, core.FromUpstream, `{"rows":1,"denied":{"rule":"r"}}`, ""),
		rec(core.KindResult, core.FromUpstream, `{"result":{"status":"ok"}}`, ""),
		rec(core.KindColumns, core.FromUpstream, `{"columns":[{"name":"n"}]}`, ""),
		rec(core.KindRows, core.FromUpstream, `{"rows":1}`, "@x\n"),
	}, core.EndClosed)
	var out bytes.Buffer
	if err := CSV(context.Background(), &out, s, "s1", Options{Reader: pipes{}}); err != nil {
		t.Fatal(err)
	}
	want := "id,'=name\n1,\"ada, \"\"x\"\"\"\n-2,'=1+1\n3,\n\nn\n'@x\n"
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for table := range strings.SplitSeq(out.String(), "\n\n") {
		if _, err := csv.NewReader(strings.NewReader(table)).ReadAll(); err != nil {
			t.Error(err)
		}
	}
	if err := CSV(context.Background(), &out, s, "s1", Options{}); err == nil || !strings.Contains(err.Error(), "record 2") {
		t.Errorf("without a reader: %v", err)
	}
}
