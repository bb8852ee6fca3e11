package identity

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// TestListOfTokens: what was made is listed until it is over, without the token; makers do not get in each other's way.
func TestListOfTokens(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	i, err := OpenIssuer(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	tokens := make([]Issued, 20)
	for n := range tokens {
		wg.Go(func() {
			own, err := OpenIssuer(dir, 0)
			if err == nil {
				tokens[n], err = own.Issue(Grant{Subject: fmt.Sprint("s", n), Groups: []string{"g"}, Targets: []string{"orders"}})
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	path := filepath.Join(dir, listFile)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	for _, made := range tokens {
		signature := made.Token[strings.LastIndexByte(made.Token, '.')+1:]
		shown, _ := json.Marshal(made)
		for where, b := range map[string][]byte{"the list": text, "its JSON": shown, "its text": fmt.Appendf(nil, "%v %+v %#v", made, made, made)} {
			if bytes.Contains(b, []byte(signature)) {
				t.Errorf("the token is in %s", where)
			}
		}
	}
	// A line that a crash has cut short takes no other with it.
	if err := os.WriteFile(path, append(text, `{"id":"cut","subj`...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Issue(Grant{Subject: "after"}); err != nil {
		t.Fatal(err)
	}
	list, err := i.List()
	if err != nil || len(list) != 21 || list[20].Subject != "after" || list[0].Targets[0] != "orders" {
		t.Fatalf("%d listed, %v", len(list), err)
	}
	if list, over, _ := i.listed(time.Now().Add(2 * time.Hour)); len(list) != 0 || over != 22 {
		t.Errorf("%d listed after their end, %d over", len(list), over)
	}
	// What is over goes when there is much of it.
	var old strings.Builder
	for n := range compactAfter {
		fmt.Fprintf(&old, `{"id":"%d","expires":"2020-01-01T00:00:00Z"}`+"\n", n)
	}
	text, _ = os.ReadFile(path)
	if err := os.WriteFile(path, append([]byte(old.String()), text...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := i.Issue(Grant{Subject: "last"}); err != nil {
		t.Fatal(err)
	}
	text, _ = os.ReadFile(path)
	if n := bytes.Count(text, []byte("\n")); n != 22 {
		t.Errorf("%d lines after the rewrite, want 22", n)
	}
	// What cannot be listed is not given out.
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if made, err := i.Issue(Grant{Subject: "x"}); err == nil || made.Token != "" {
		t.Errorf("a token that is in no list: %v", err)
	}
}

// TestOperator: the admin address takes what only the key's holder can make, and nothing else; no target takes that.
func TestOperator(t *testing.T) {
	i, other := issuer(t, 0), issuer(t, 0)
	v, err := New(t.Context(), Config{Service: i, Operators: i})
	if err != nil {
		t.Fatal(err)
	}
	token, err := i.Operator("root@host")
	if err != nil {
		t.Fatal(err)
	}
	if id, err := v.VerifyOperator(t.Context(), token); err != nil || id.Subject != "root@host" {
		t.Fatalf("%+v, %v", id, err)
	}
	if _, err := v.Verify(t.Context(), token); err == nil {
		t.Error("an operator's token opens targets")
	}
	made, err := i.Issue(Grant{Subject: "root@host", Kind: "human", TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := other.Operator("root@host")
	now := time.Now().Unix()
	long, _ := i.sign(claimSet{Issuer: ServiceIssuer, Subject: "x", Audience: operatorAudience, Kind: "human", Issued: now, Expires: now + 3600, ID: "1"})
	past, _ := i.sign(claimSet{Issuer: ServiceIssuer, Subject: "x", Audience: operatorAudience, Kind: "human", Issued: now - 200, Expires: now - 140, ID: "1"})
	for name, bad := range map[string]string{"a client's": made.Token, "another key's": foreign, "long": long, "past": past, "garbage": "x", "none": ""} {
		if _, err := v.VerifyOperator(t.Context(), bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	off, _ := New(t.Context(), Config{Service: i})
	if _, err := off.VerifyOperator(t.Context(), token); err == nil {
		t.Error("taken without a key for it")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(v.KeySet(), &set); err != nil || len(set.Keys) != 1 || !set.Keys[0].IsPublic() {
		t.Fatalf("%s, %v", v.KeySet(), err)
	}
	jws, err := jose.ParseSignedCompact(made.Token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jws.Verify(set.Keys[0].Key); err != nil || set.Keys[0].KeyID != jws.Signatures[0].Header.KeyID {
		t.Errorf("the published key does not verify a token: %v", err)
	}
}
