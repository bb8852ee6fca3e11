package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestRolesRefused(t *testing.T) {
	for _, tc := range []struct{ role, want string }{
		{"gateway", "weir.yaml:1: journal.nats.url: is not set, and the role gateway takes a JetStream that other processes reach"},
		{"archive", "weir.yaml:1: journal.nats.url: is not set, and the role archive takes"},
		{"archives", `--role is all, gateway or archive, not "archives"`},
	} {
		p := newPlace(t)
		code, _, err := p.weir("serve", "--role", tc.role)
		if code != exitUse || !strings.Contains(err, tc.want) {
			t.Errorf("exit %d\n%s\nwant %s", code, err, tc.want)
		}
		if _, e := os.Stat(filepath.Join(p.dir, "data")); e == nil {
			t.Error("something was made all the same")
		}
	}
}

// TestRoles: a gateway without an archive, and an archive worker, each with its own data, beside a JetStream of its own. What
// the one records the other keeps. A second archive is refused, whatever its role; a second worker with the same data stands
// by, and takes over.
func TestRoles(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(10 * time.Second) {
		t.Fatal("the server is not ready")
	}
	in := func() *place {
		p := newPlace(t)
		p.replace("policies:", "journal: {nats: {url: \""+s.ClientURL()+"\"}}\npolicies:")
		return p
	}
	keeper, gate, other := in(), in(), in()
	worker := keeper.serveAs(roleArchive)
	if got := get(t, keeper, "/readyz"); got != "ready\n" {
		t.Errorf("readyz says %q", got)
	}
	standby := in()
	standby.replace("./data", filepath.Join(keeper.dir, "data"))
	second := make(chan *running)
	go func() { second <- standby.serveAs(roleArchive) }() // ready when its turn has come

	g := gate.serveAs(roleGateway)
	_, code, _ := gate.weir("token", "--subject", "ann", "--group", "staff")
	if code == "" {
		t.Fatal("no token")
	}
	conn, answers := g.talk(t, strings.TrimSpace(code), "hello")
	if len(answers) != 2 || answers[1] != "hello" {
		t.Fatalf("%q", answers)
	}
	conn.Close()
	for _, none := range []string{"ledger", "archive", "index.db"} {
		if _, err := os.Stat(filepath.Join(gate.dir, "data", none)); err == nil {
			t.Errorf("a gateway without an archive has made %s", none)
		}
	}
	eventually(t, "the session is in the archive", func() bool {
		_, out, _ := keeper.weir("sessions", "--identity", "ann", "-o", "json")
		return strings.Contains(out, `"end": "closed"`) || strings.Contains(out, `"end":"closed"`)
	})
	for _, role := range []string{roleAll, roleArchive} {
		if code, _, err := other.weir("serve", "--role", role); code != exitUnreachable || !strings.Contains(err, "another archive worker keeps what is recorded") {
			t.Errorf("a second archive as %s: exit %d\n%s", role, code, err)
		}
	}
	eventually(t, "the second worker stands by", func() bool { return strings.Contains(get(t, standby, "/readyz"), "standing by") })
	if err := worker.stop(); err != nil {
		t.Error(err)
	}
	last := <-second
	if got := get(t, standby, "/readyz"); got != "ready\n" {
		t.Errorf("the second worker says %q", got)
	}
	if err := g.stop(); err != nil {
		t.Error(err)
	}
	if err := last.stop(); err != nil {
		t.Error(err)
	}
	if code, _, err := other.weir("serve", "--role", "archive"); code != exitUnreachable || !strings.Contains(err, "goes into another ledger") {
		t.Errorf("a second archive when none works: exit %d\n%s", code, err)
	}
	if code, out, err := keeper.weir("verify", "--all"); code != exitDone {
		t.Errorf("verify: exit %d\n%s%s", code, out, err)
	}
}

func get(t *testing.T, p *place, path string) string {
	t.Helper()
	_, rest, _ := strings.Cut(p.text(), `admin: "`)
	address, _, _ := strings.Cut(rest, `"`)
	r, err := http.Get("http://" + address + path)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b := make([]byte, 4096)
	n, _ := r.Body.Read(b)
	return string(b[:n])
}
