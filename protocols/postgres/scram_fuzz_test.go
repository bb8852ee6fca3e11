package postgres

import (
	"bytes"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// FuzzSCRAM plays a server that answers with the client's own nonce, and so gets further than FuzzSASL can: whatever it
// says, it does not know the password, so it is never believed, and the password never leaves.
func FuzzSCRAM(f *testing.F) {
	f.Add("server", "QQ==", "4096", "", []byte("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="))
	f.Add("", "QQ==", "4096", "", []byte("v=AAAA"))
	f.Add("s", "", "1", ",x=y", []byte("e=other-error"))
	f.Add("s,m=ext", "QQ==", "-1", "", []byte(""))
	f.Add("s", "not base64", "4096", ",i=1", []byte("v="))
	f.Add("s", "QQ==", "99999999999999999999", "", []byte("v=\x00"))
	f.Add("s", "QQ==", "1e3", ",i=4096", []byte("r=again,s=QQ==,i=4096"))
	f.Fuzz(func(t *testing.T, nonce, salt, rounds, more string, final []byte) {
		const password = "the password of the fuzz target"
		a := authentication{cred: core.Credential{User: "u", Password: password}, clients: &clients{}}
		hello, err := a.step([]byte("\x00\x00\x00\x0aSCRAM-SHA-256\x00\x00"))
		if err != nil {
			t.Fatal(err)
		}
		_, own, ok := bytes.Cut(hello, []byte("r="))
		if !ok {
			t.Fatalf("no nonce in %q", hello)
		}
		first := "r=" + string(own) + nonce + ",s=" + salt + ",i=" + rounds + more
		if n := iterations(first); n > 20_000 && n <= maxIterations { // allowed, and too slow for a fuzz target
			return
		}
		answer, err := a.step(append([]byte{0, 0, 0, 11}, first...))
		if bytes.Contains(answer, []byte(password)) {
			t.Fatal("the password is in the answer")
		}
		if err == nil {
			_, _ = a.step(append([]byte{0, 0, 0, 12}, final...))
		}
		if _, err := a.step([]byte{0, 0, 0, 0}); err == nil || a.done {
			t.Fatal("a server that does not know the password was believed")
		}
		if reply, err := a.step([]byte{0, 0, 0, 3}); err == nil || reply != nil {
			t.Fatal("the password is sent in clear after SCRAM has begun")
		}
	})
}
