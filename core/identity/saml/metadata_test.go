package saml

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// lostJetStream cannot make a bucket.
type lostJetStream struct{ jetstream.JetStream }

func (lostJetStream) CreateOrUpdateKeyValue(context.Context, jetstream.KeyValueConfig) (jetstream.KeyValue, error) {
	return nil, errors.New("not there")
}

// server publishes metadata as a provider does.
type publisher struct {
	*httptest.Server
	mu     sync.Mutex
	text   string
	status int
	asked  atomic.Int64
}

func newPublisher(t *testing.T, text string) *publisher {
	p := &publisher{text: text, status: http.StatusOK}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.asked.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		w.WriteHeader(p.status)
		_, _ = w.Write([]byte(p.text))
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *publisher) set(status int, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.text = status, text
}

// TestRollover: a second key is accepted as soon as it is published, and the first one until it is taken away.
func TestRollover(t *testing.T) {
	b := newBench(t)
	next := newPair(t, 2048, time.Now().Add(time.Hour))
	by := func(k *pair) string {
		f := b.honest()
		f.sign.key = k
		return f.xml(t)
	}
	b.refuses("before it is published", formOf(by(next)), "saml-key")
	b.publish(metadataXML("https://idp.example/sso", time.Time{}, b.key, next))
	if b.accepts(by(next)) != ada || b.accepts(by(b.key)) != ada {
		t.Error("two keys")
	}
	noKeyInfo := b.honest()
	noKeyInfo.sign.key, noKeyInfo.sign.keyInfo = next, "-"
	if b.accepts(noKeyInfo.xml(t)) != ada {
		t.Error("the second key, not named")
	}
	b.publish(metadataXML("https://idp.example/sso", time.Time{}, next))
	b.refuses("after it was taken away", formOf(by(b.key)), "saml-key")
	if b.accepts(by(next)) != ada {
		t.Error("the new key alone")
	}
	b.publish("<broken")
	if b.accepts(by(next)) != ada {
		t.Error("what was known last does not count")
	}
}

// TestRefresh: metadata of a URL is fetched again in time, at once for an unknown key but not for each, and is believed for
// a day while the provider is down, or until its own end.
func TestRefresh(t *testing.T) {
	var ahead atomic.Int64
	forward := func(d time.Duration) { ahead.Add(int64(d)) }
	one, two := newPair(t, 2048, time.Now().Add(100*time.Hour)), newPair(t, 2048, time.Now().Add(100*time.Hour))
	where := newPublisher(t, metadataXML("https://idp.example/sso", time.Time{}, one))
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	b := newBench(t, func(c *Config, p *Provider) { p.Metadata, c.Now = where.URL, now })
	s := b.provider().source
	get := func() error { _, err := s.get(t.Context()); return err }
	by := func(k *pair) string {
		f := b.honest()
		f.sign.key = k
		return f.xml(t)
	}
	b.accepts(by(one))
	b.accepts(by(one))
	if n := where.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	where.set(http.StatusOK, metadataXML("https://idp.example/sso", time.Time{}, two))
	b.refuses("a new key within 30 s of the last question", formOf(by(two)), "saml-key")
	forward(fetchEvery + time.Second)
	if b.accepts(by(two)) != ada {
		t.Error("a new key is not found")
	}
	for range 5 {
		b.refuses("the old key", formOf(by(one)), "saml-key")
	}
	if n := where.asked.Load(); n != 2 {
		t.Errorf("unknown keys cause %d questions", n)
	}
	where.set(http.StatusInternalServerError, "")
	forward(freshFor)
	if err := get(); err != nil {
		t.Errorf("with the provider down: %v", err)
	}
	forward(staleUntil)
	if err := get(); err == nil {
		t.Error("believed for longer than a day")
	}
	where.set(http.StatusOK, metadataXML("https://idp.example/sso", now().Add(2*time.Hour), two))
	forward(fetchEvery + time.Second)
	if err := get(); err != nil {
		t.Errorf("with the provider back: %v", err)
	}
	where.set(http.StatusInternalServerError, "")
	forward(2 * time.Hour)
	if err := get(); err == nil || !strings.Contains(err.Error(), "validUntil") {
		t.Errorf("past validUntil: %v", err)
	}
}

// TestMetadata: what cannot be relied on is not used.
func TestMetadata(t *testing.T) {
	key := newPair(t, 2048, time.Now().Add(time.Hour))
	weak, old := newPair(t, 1024, time.Now().Add(time.Hour)), newPair(t, 2048, time.Now().Add(-time.Hour))
	good := metadataXML("https://idp.example/sso", time.Time{}, key)
	group := func(until string, list ...string) string {
		return `<md:EntitiesDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata"` + until + `>` + strings.Join(list, "") + `</md:EntitiesDescriptor>`
	}
	other := strings.ReplaceAll(good, idpEntity, "https://other.example")
	for _, c := range []struct {
		name, text, issuer string
		want               string // of the error; empty: good
	}{
		{"good", good, "", ""},
		{"a comment", "<!-- made by hand -->" + good, "", ""},
		{"named", good, idpEntity, ""},
		{"another name", good, "https://other.example", "does not describe"},
		{"one of two", group("", other, group("", good)), idpEntity, ""},
		{"either of two", group("", other, good), "", "several"},
		{"a group that is over", group(` validUntil="2001-01-01T00:00:00Z"`, good), "", "validUntil"},
		{"over", metadataXML("https://idp.example/sso", time.Now().Add(-time.Second), key), "", "validUntil"},
		{"not over", metadataXML("https://idp.example/sso", time.Now().Add(time.Hour), key), "", ""},
		{"no key", metadataXML("https://idp.example/sso", time.Time{}), "", "no key"},
		{"a weak key", metadataXML("https://idp.example/sso", time.Time{}, weak), "", "2048"},
		{"an old certificate", metadataXML("https://idp.example/sso", time.Time{}, old), "", "expired"},
		{"an old one beside a good one", metadataXML("https://idp.example/sso", time.Time{}, old, key), "", ""},
		{"a key for encryption", strings.ReplaceAll(good, `use="signing"`, `use="encryption"`), "", "no key"},
		{"a key for anything", strings.ReplaceAll(good, ` use="signing"`, ``), "", ""},
		{"signing in without TLS", metadataXML("http://idp.example/sso", time.Time{}, key), "", "https"},
		{"signing in at a script", metadataXML("javascript:alert(1)", time.Time{}, key), "", "no SAML"},
		{"no redirect binding", strings.ReplaceAll(good, "HTTP-Redirect", "HTTP-POST"), "", "HTTP-Redirect"},
		{"wants signed requests", strings.ReplaceAll(good, "<md:IDPSSODescriptor ", `<md:IDPSSODescriptor WantAuthnRequestsSigned="true" `), "", "signed requests"},
		{"a DTD", "<!DOCTYPE x>" + good, "", "DTD"},
		{"a page", "<html><body>not found</body></html>", "", "no SAML"},
		{"larger than 1 MiB", good + strings.Repeat(" ", maxMetadata), "", "larger"},
		{"no entity", strings.Replace(good, idpEntity, "", 1), "", "entityID"},
	} {
		_, err := parseMetadata([]byte(c.text), c.issuer, time.Now())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	s := &source{where: "http://idp.example/metadata", client: http.DefaultClient, now: time.Now}
	if _, _, err := s.load(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("metadata without TLS: %v", err)
	}
	large := newPublisher(t, strings.Repeat("x", maxMetadata+1))
	s.where = large.URL
	if _, _, err := s.load(t.Context(), time.Now()); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large answer: %v", err)
	}
}
