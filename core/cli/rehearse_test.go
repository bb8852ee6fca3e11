package cli

import (
	"strings"
	"testing"
)

// What cannot be played to clients is refused before anybody is let in. The demo plays a session to its client.
func TestServeRefuses(t *testing.T) {
	p := newPlace(t)
	r := p.serve()
	conn, got := r.talk(t, strings.TrimSpace(p.must("token", "--subject", "ada", "--group", "staff")), "hello")
	id := strings.TrimPrefix(got[0], "ok ")
	_ = conn.Close()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{id, "--serve", "0.0.0.0:0"}, exitUse, "of this machine"},
		{[]string{id, "--serve", "example.com:80"}, exitUse, "of this machine"},
		{[]string{id, "--serve", "127.0.0.1"}, exitUse, "of this machine"},
		{[]string{id, "--serve", "127.0.0.1:0"}, exitNo, "protocol echo, which this build cannot play"},
		{[]string{"01aaaaaaaaaaaaaaaaaaaaaaaa", "--serve", "127.0.0.1:0"}, exitNo, "there is no session"},
		{[]string{id, "--serve", "127.0.0.1:0", "--match", "loosely"}, exitUse, "--match"},
		{[]string{id, "--serve", "127.0.0.1:0", "--speed", "2"}, exitUse, "--speed does not go with --serve"},
		{[]string{id, "--once"}, exitUse, "--once goes with --serve"},
		{[]string{id, "--match", "text"}, exitUse, "--match goes with --serve"},
		{[]string{id, id}, exitUse, "one session"},
	} {
		if code, _, text := p.weir(append([]string{"replay"}, tt.args...)...); code != tt.code || !strings.Contains(text, tt.want) {
			t.Errorf("%q: exit %d, %s", tt.args, code, text)
		}
	}
}
