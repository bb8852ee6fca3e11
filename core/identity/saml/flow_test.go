package saml

import (
	"encoding/xml"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/crewjam/saml"

	"github.com/weir-gateway/weir/core/identity"
)

// TestSignIn is the whole way with an honest provider: what it is asked, what the browser gets, and the token.
func TestSignIn(t *testing.T) {
	b := newBench(t)
	direct := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := direct.Get(b.server.URL + "/saml/sso/start?port=40000&challenge=" + challengeOf(verifier))
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	to, err := res.Location()
	if err != nil || to.Host != "idp.example" || res.StatusCode != http.StatusFound {
		t.Fatalf("%s to %v: %v", res.Status, to, err)
	}
	r, _ := http.NewRequest(http.MethodGet, to.String(), nil)
	asked, err := saml.NewIdpAuthnRequest(&saml.IdentityProvider{}, r)
	if err != nil {
		t.Fatal(err)
	}
	var ask saml.AuthnRequest
	if err := xml.Unmarshal(asked.RequestBuffer, &ask); err != nil {
		t.Fatal(err)
	}
	if ask.Issuer.Value != b.server.URL+"/saml/sso/metadata" || ask.AssertionConsumerServiceURL != b.server.URL+"/saml/sso/acs" || ask.Destination != "https://idp.example/sso" {
		t.Errorf("the provider is asked %s", asked.RequestBuffer)
	}
	p := b.provider()
	f := honest(b.key, p.acs.String(), p.EntityID, ask.ID)
	form := formOf(f.xml(t))
	form.Set("RelayState", "https://evil.example/") // is looked at by nobody
	status, _, page := b.post(form)
	i := strings.Index(page, `href="http://127.0.0.1:40000/?code=`)
	if status != http.StatusOK || i < 0 || strings.Contains(page, "evil") || strings.Contains(page, "eyJ") {
		t.Fatalf("%d %s", status, page)
	}
	code := page[i+len(`href="http://127.0.0.1:40000/?code=`):]
	code = code[:strings.IndexByte(code, '"')]
	status, got := b.fetch(code, verifier)
	if status != http.StatusOK || got.Subject != "ada@example.com" || got.Issuer != idpEntity || time.Until(got.Expires) > DefaultTTL || time.Until(got.Expires) < DefaultTTL-time.Minute {
		t.Fatalf("%d %+v", status, got)
	}
	if list, err := b.issuer.List(); err != nil || len(list) != 1 || list[0].Subject != "ada@example.com" || list[0].Kind != "human" {
		t.Errorf("the list of tokens: %v, %v", list, err)
	}
	if strings.Contains(b.log.String(), got.Token) || strings.Contains(b.log.String(), code) {
		t.Error("the log has the token, or the code")
	}

	res, err = http.Get(b.server.URL + "/saml/sso/metadata")
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(res.Body)
	_ = res.Body.Close()
	var own saml.EntityDescriptor
	if err := xml.Unmarshal(text, &own); err != nil || own.EntityID != p.EntityID || len(own.SPSSODescriptors) != 1 || !*own.SPSSODescriptors[0].WantAssertionsSigned || own.SPSSODescriptors[0].AssertionConsumerServices[0].Location != p.acs.String() {
		t.Errorf("the gateway describes itself as %s: %v", text, err)
	}
	for _, bad := range []string{"", "?challenge=x&port=0", "?port=0", "?challenge=" + challengeOf("x"), "?challenge=" + challengeOf("x") + "&port=80", "?challenge=" + challengeOf("x") + "&port=70000"} {
		res, err := direct.Get(b.server.URL + "/saml/sso/start" + bad)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("start%s: %s", bad, res.Status)
		}
	}
}

// TestCode: a code is worth a token once, for a short time, to the program that began the sign-in.
func TestCode(t *testing.T) {
	var ahead atomic.Int64
	b := newBench(t, func(c *Config, _ *Provider) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	code := func() string {
		status, code, _ := b.post(formOf(b.honest().xml(t)))
		if status != http.StatusOK {
			t.Fatal(status)
		}
		return code
	}
	c := code()
	if status, got := b.fetch(c, "another"); status != http.StatusForbidden || got.Token != "" {
		t.Errorf("another program gets a token: %d", status)
	}
	if status, _ := b.fetch(c, verifier); status != http.StatusForbidden {
		t.Error("a code that somebody else has shown is good still")
	}
	c = code()
	if status, _ := b.fetch(c, verifier); status != http.StatusOK {
		t.Error("a good code is refused")
	}
	if status, _ := b.fetch(c, verifier); status != http.StatusForbidden {
		t.Error("a code is good twice")
	}
	c = code()
	ahead.Store(int64(codeTime + time.Second))
	if status, _ := b.fetch(c, verifier); status != http.StatusForbidden {
		t.Error("an old code is good")
	}
	if reason, _ := b.reason(); reason != "saml-code" {
		t.Errorf("reason %s", reason)
	}
}

// TestReplay: an assertion is good once, at whichever of the gateways that share a JetStream.
func TestReplay(t *testing.T) {
	b := newBench(t)
	one, two := b.service, b.gateway()
	f := b.honest()
	first := f.xml(t)
	if got := b.accepts(first); got != ada {
		t.Fatal(got)
	}
	b.refuses("again", formOf(first), "saml-replay")
	f.id = "_another"
	b.refuses("another assertion for the same request", formOf(f.xml(t)), "saml-replay")
	g := b.honest()
	g.id = strings.TrimPrefix(first[strings.Index(first, `<saml:Assertion xmlns:saml="`+nsAssertion+`" ID="`):], `<saml:Assertion xmlns:saml="`+nsAssertion+`" ID="`)
	g.id, _, _ = strings.Cut(g.id, `"`)
	b.refuses("the same assertion ID for another request", formOf(g.xml(t)), "saml-replay")
	b.service = two
	b.refuses("at the second gateway", formOf(first), "saml-replay")
	other := b.honest()
	if got := b.accepts(other.xml(t)); got != ada {
		t.Fatal(got)
	}
	b.service = one
	b.refuses("at the first gateway", formOf(other.xml(t)), "saml-replay")

	// The control: two gateways that share nothing.
	apart := newJetStream(t)
	x := b.honest().xml(t)
	b.accepts(x)
	b.service = b.gateway(func(c *Config, _ *Provider) { c.JetStream = apart })
	if got := b.accepts(x); got != ada {
		t.Error("the control is refused, so that the bucket is not what refuses")
	}
}

// TestStoreLost: without the store nobody is signed in, and nobody is told that the assertion was bad.
func TestStoreLost(t *testing.T) {
	b := newBench(t)
	b.accepts(b.honest().xml(t))
	b.service.once.kv = nil
	b.service.once.js = lostJetStream{b.js}
	status, code, _ := b.post(formOf(b.honest().xml(t)))
	if reason, _ := b.reason(); status != http.StatusServiceUnavailable || code != "" || reason != "error" {
		t.Errorf("%d %q %s", status, code, reason)
	}
}

// TestBucketDeleted: the first sign-in after that fails, and the next one finds a new bucket.
func TestBucketDeleted(t *testing.T) {
	b := newBench(t)
	b.accepts(b.honest().xml(t))
	if err := b.js.DeleteKeyValue(t.Context(), Bucket); err != nil {
		t.Fatal(err)
	}
	if status, code, _ := b.post(formOf(b.honest().xml(t))); status != http.StatusServiceUnavailable || code != "" {
		t.Errorf("%d %q", status, code)
	}
	b.accepts(b.honest().xml(t))
}

// TestSkew: the clocks of provider and gateway may differ by a minute, and not by more (TestForged has the other side).
func TestSkew(t *testing.T) {
	b := newBench(t)
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	for name, change := range map[string]func(*forge){
		"not valid for another 58 s":     func(f *forge) { f.notBefore = in(58 * time.Second) },
		"over for 58 s":                  func(f *forge) { f.notAfter = in(-58 * time.Second) },
		"its confirmation over for 58 s": func(f *forge) { f.confirmAfter = in(-58 * time.Second) },
		"no NotBefore":                   func(f *forge) { f.notBefore = time.Time{} },
		"no end of the session":          func(f *forge) { f.session = time.Time{} },
		"no KeyInfo":                     func(f *forge) { f.sign.keyInfo = "-" },
		"response signed as well":        func(f *forge) { f.signResponse = &signingWay{key: b.key} },
		"used once only":                 func(f *forge) { f.conditions = `<saml:OneTimeUse/>` },
		"no issuer of the response":      func(f *forge) { f.responseIssuer = "" },
	} {
		f := b.honest()
		change(f)
		if got := b.accepts(f.xml(t)); got != ada {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestMapping: who somebody is, what of their groups counts, and how long.
func TestMapping(t *testing.T) {
	for _, c := range []struct {
		name   string
		config func(*Config, *Provider)
		says   func(*forge)
		want   string // empty: refused
		ttl    time.Duration
	}{
		{"NameID and groups", nil, nil, ada, time.Hour},
		{"no groups attribute configured", func(_ *Config, p *Provider) { p.Groups = "" }, nil, "ada@example.com of " + idpEntity + " (human) in ", time.Hour},
		{"none sent", nil, func(f *forge) { f.attributes = "" }, "ada@example.com of " + idpEntity + " (human) in ", time.Hour},
		{"an attribute as subject", func(_ *Config, p *Provider) { p.Subject = "uid" }, func(f *forge) { f.attributes += attribute("uid", "ada"); f.format = transient }, "ada of " + idpEntity + " (human) in analysts,dba", time.Hour},
		{"that attribute is missing", func(_ *Config, p *Provider) { p.Subject = "uid" }, nil, "", 0},
		{"it has two values", func(_ *Config, p *Provider) { p.Subject = "uid" }, func(f *forge) { f.attributes += attribute("uid", "ada", "admin") }, "", 0},
		{"it is markup", func(_ *Config, p *Provider) { p.Subject = "uid" }, func(f *forge) { f.attributes += attribute("uid", "<x>ada</x>") }, "", 0},
		{"allowed groups only", func(_ *Config, p *Provider) { p.AllowedGroups = []string{"dba", "ops"} }, func(f *forge) { f.attributes = attribute("groups", "root", "dba", "dba", "dba ops") }, "ada@example.com of " + idpEntity + " (human) in dba", time.Hour},
		{"another kind", func(_ *Config, p *Provider) { p.Kind = "service" }, nil, "ada@example.com of " + idpEntity + " (service) in analysts,dba", time.Hour},
		{"a short time", func(_ *Config, p *Provider) { p.TTL = 5 * time.Minute }, nil, ada, 5 * time.Minute},
		{"not past the provider's session", func(_ *Config, p *Provider) { p.TTL = 12 * time.Hour }, func(f *forge) { f.session = time.Now().Add(20 * time.Minute) }, ada, 20 * time.Minute},
		{"an entity id of its own", func(_ *Config, p *Provider) { p.EntityID = "weir" }, nil, ada, time.Hour},
		{"800 groups", nil, func(f *forge) { f.attributes = attribute("groups", many(800)...) }, "ada@example.com of " + idpEntity + " (human) in " + strings.Join(many(800), ","), time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.config == nil {
				c.config = func(*Config, *Provider) {}
			}
			b := newBench(t, c.config)
			f := b.honest()
			if c.says != nil {
				c.says(f)
			}
			if c.want == "" {
				b.refuses(c.name, formOf(f.xml(t)), "saml-subject")
				return
			}
			if got := b.accepts(f.xml(t)); got != c.want {
				t.Errorf("%s, not %s", got, c.want)
			}
			list, _ := b.issuer.List()
			if got := list[0].Expires.Sub(list[0].Issued); got > c.ttl || got < c.ttl-3*time.Second {
				t.Errorf("good for %s, not %s", got, c.ttl)
			}
		})
	}
}

func TestNew(t *testing.T) {
	js := newJetStream(t)
	issuer, err := identity.OpenIssuer(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"":                     func(*Config) {},
		"http over a network":  func(c *Config) { c.URL = "http://weir.example" },
		"a path in the URL":    func(c *Config) { c.URL = "https://weir.example/x" },
		"no URL":               func(c *Config) { c.URL = "" },
		"a short secret":       func(c *Config) { c.Secret = []byte("x") },
		"no signer":            func(c *Config) { c.Signer = nil },
		"no store":             func(c *Config) { c.JetStream = nil },
		"no provider":          func(c *Config) { c.Providers = nil },
		"no metadata":          func(c *Config) { c.Providers[0].Metadata = "" },
		"two of one name":      func(c *Config) { c.Providers = append(c.Providers, c.Providers[0]) },
		"a name with a slash":  func(c *Config) { c.Providers[0].Name = "a/b" },
		"longer than 12 hours": func(c *Config) { c.Providers[0].TTL = 13 * time.Hour },
		"less than no time":    func(c *Config) { c.Providers[0].TTL = -time.Hour },
	} {
		c := Config{URL: "https://weir.example:8443/", Signer: issuer, Secret: issuer.Secret("saml"), JetStream: js, Providers: []Provider{{Name: "sso", Metadata: "x"}}}
		change(&c)
		if _, err := New(c); (err == nil) != (name == "") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestRequestIDs: only this gateway's own requests can be answered, whatever was changed in them.
func TestRequestIDs(t *testing.T) {
	b := newBench(t)
	p := b.provider()
	r := request{port: 40001, expires: time.Now().Add(time.Minute).Truncate(time.Second)}
	copy(r.challenge[:], "challenge")
	id := p.seal(&r)
	if got, err := p.open(id); err != nil || *got != r {
		t.Fatalf("%+v, %v", got, err)
	}
	for i := range len(id) {
		changed := []byte(id)
		if changed[i]++; changed[i] == 'Z'+1 || changed[i] == 'z'+1 || changed[i] == '9'+1 {
			changed[i] = 'A'
		}
		if _, err := p.open(string(changed)); err == nil {
			t.Errorf("changed at %d, and good", i)
		}
	}
	for _, x := range []string{"", "_", id[1:], id + "A", id + "=", id[:len(id)-1], strings.Repeat("_A", 10_000)} {
		if _, err := p.open(x); err == nil {
			t.Errorf("%.20q is good", x)
		}
	}
	foreign := *p
	foreign.secret = []byte("another secret of the same length")
	if _, err := p.open(foreign.seal(&r)); err == nil {
		t.Error("another gateway's request is good")
	}
}

// TestPages: names are text in a page, and pages cannot be framed or kept.
func TestPages(t *testing.T) {
	b := newBench(t)
	f := b.honest()
	f.nameID = "&lt;script&gt;alert(1)&lt;/script&gt;"
	status, _, page := b.post(formOf(f.xml(t)))
	if status != http.StatusOK || strings.Contains(page, "<script") || !strings.Contains(page, "&lt;script&gt;") {
		t.Errorf("%d %s", status, page)
	}
	w := httptest.NewRecorder()
	b.service.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/saml", nil))
	if w.Body.String() != `{"providers":["sso"]}`+"\n" || w.Header().Get("X-Frame-Options") != "DENY" || w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	res, err := http.PostForm(b.server.URL+"/saml/other/acs", url.Values{})
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown provider: %s", res.Status)
	}
}
