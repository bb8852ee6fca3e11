package gateway

import (
	"bytes"
	"errors"
	"testing"

	"github.com/weir-gateway/weir/core"
)

func TestKeys(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	g := &Gateway{Config: Config{Secret: func() ([]byte, error) { return secret, nil }}}
	key := func(k core.Keyholder, purpose string) string {
		t.Helper()
		b, err := k.Key(purpose)
		if err != nil || len(b) != 32 || bytes.Equal(b, secret) {
			t.Fatalf("%x %v", b, err)
		}
		return string(b)
	}
	one := keyholder{g, "one"}
	if key(one, "a") != key(&client{g: g, served: &served{protocol: "one"}}, "a") {
		t.Error("a client's Gate has another key")
	}
	seen := map[string]bool{key(one, "a"): true, key(one, "b"): true, key(keyholder{g, "other"}, "a"): true, key(keyholder{g, "onea"}, ""): true}
	if len(seen) != 4 {
		t.Error("two purposes have one key")
	}
	for name, read := range map[string]func() ([]byte, error){
		"none": nil, "short": func() ([]byte, error) { return secret[:31], nil }, "unreadable": func() ([]byte, error) { return nil, errors.New("no") },
	} {
		if b, err := (keyholder{&Gateway{Config: Config{Secret: read}}, "one"}).Key("a"); err == nil || b != nil {
			t.Errorf("%s: %x", name, b)
		}
	}
}
