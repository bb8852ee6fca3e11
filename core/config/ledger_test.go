package config

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// witnessKey is a verifier key as a witness publishes it.
func witnessKey(t *testing.T, name string, kind byte, public ed25519.PublicKey) string {
	t.Helper()
	b := append([]byte{kind}, public...)
	h := sha256.Sum256(append([]byte(name+"\n"), b...))
	return fmt.Sprintf("%s+%x+%s", name, h[:4], base64.StdEncoding.EncodeToString(b))
}

func TestWitnesses(t *testing.T) {
	public := func() ed25519.PublicKey {
		k, _, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	one, two := public(), public()
	a, b := witnessKey(t, "witness.example/a", 4, one), witnessKey(t, "witness.example/b", 4, two)
	w := func(name, url, key string) string {
		return fmt.Sprintf("{name: %q, url: %q, key: %q}", name, url, key)
	}
	good := w("a", "https://witness.example", a)
	list := func(all ...string) string { return "witnesses: [" + strings.Join(all, ", ") + "]" }
	for text, problem := range map[string]string{
		list(good): "",
		list(good, w("b", "http://127.0.0.1:1/x/", b)) + ", quorum: 1": "",
		list(good, w("b", "https://b.example/w", b)) + ", quorum: 3":   "is 3, and there are 2 witnesses",
		list(good) + ", quorum: 0":                                     "is 0, and there are 1 witnesses",
		list(good) + ", quorum: -1":                                    "cannot be negative",
		list(good) + ", quorums: 1":                                    "unknown key",
		"quorum: 1":                                                    "does nothing without witnesses",
		list():                                                         "names nobody",
		list(w("b", "http://witness.example", a)):                      "is not https",
		list(w("b", "https://u:c4n4ry@witness.example", a)):            "holds a secret in clear",
		list(w("b", "https://witness.example/?q=1", a)):                "more than scheme, host, port and path",
		list(w("b", "witness.example", a)):                             "is no https:// URL",
		list(w("", "https://witness.example", a)):                      "has no name",
		list(good, w("a", "https://b.example", b)):                     `"a" stands twice`,
		list(good, w("b", "https://b.example", a)):                     "is that of a",
		list(good, w("b", "https://b.example", witnessKey(t, "other.example", 4, one))): "is that of a", // under another name
		list(w("a", "https://a.example", "")):                                           "has no key",
		list(w("a", "https://a.example", witnessKey(t, "log.example", 1, one))):         "it is the key of a log",
		list(w("a", "https://a.example", witnessKey(t, "log.example", 6, one))):         "a key of type 6 is not known",
		list(w("a", "https://a.example", a[:len(a)-4])):                                 "is not known",
		list(w("a", "https://a.example", "witness.example")):                            "it is no verifier key",
		list(w("a", "https://a.example", "witness example"+a[17:])):                     "it is no verifier key",
		list(w("a", "https://a.example", "x"+a)):                                        "it was not copied whole",
	} {
		c, err := Parse("dir/weir.yaml", []byte("ledger: {"+text+"}\ntargets:\n  - {name: a, protocol: p, listen: \"127.0.0.1:1\", upstream: {address: \"h:1\"}, credential: {user: u}}\n"))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if (problem == "") != (err == nil) || !strings.Contains(got, problem) || strings.Contains(got, "c4n4ry") || err != nil && !strings.Contains(got, "weir.yaml:1: ledger") {
			t.Errorf("%s:\n%s", text, got)
		}
		if err == nil && c.Ledger.Quorum != 1 {
			t.Errorf("%s: the quorum is %d", text, c.Ledger.Quorum)
		}
	}
}
