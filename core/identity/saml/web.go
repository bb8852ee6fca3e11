package saml

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"html/template"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/crewjam/saml"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/identity"
)

// maxForm bounds a form with a response in base64, each sign of which may take three bytes.
const maxForm = maxResponse*4/3*3 + 4<<10

func (s *Service) routes() {
	s.mux = http.NewServeMux()
	s.mux.HandleFunc("GET /saml", func(w http.ResponseWriter, _ *http.Request) { answer(w, map[string]any{"providers": s.names}) })
	s.mux.HandleFunc("GET /saml/{provider}/metadata", s.at(s.metadata))
	s.mux.HandleFunc("GET /saml/{provider}/start", s.at(s.start))
	s.mux.HandleFunc("POST /saml/{provider}/acs", s.at(s.consume))
	s.mux.HandleFunc("POST /saml/{provider}/token", s.at(s.token))
}

// ServeHTTP implements http.Handler.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
	s.mux.ServeHTTP(w, r)
}

func (s *Service) at(f func(*provider, http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		p := s.providers[r.PathValue("provider")]
		if p == nil {
			http.NotFound(w, r)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), 20*time.Second)
		defer cancel()
		if err := f(p, w, r.WithContext(ctx)); err != nil {
			s.Refused(r, err)
			status := http.StatusForbidden
			if !errors.As(err, new(*Refusal)) {
				status = http.StatusServiceUnavailable
			}
			if r.PathValue("provider") != "" && isToken(r) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				_ = json.NewEncoder(w).Encode(map[string]string{"error": "the sign-in was refused; the gateway's log says why"})
				return
			}
			page(w, status, view{Title: "Not signed in", Text: "The sign-in was refused. Whoever runs the gateway finds the reason in its log."})
		}
	}
}

func isToken(r *http.Request) bool { return r.Pattern == "POST /saml/{provider}/token" }

// metadata describes this gateway to a provider.
func (s *Service) metadata(p *provider, w http.ResponseWriter, _ *http.Request) error {
	signed, no := true, false
	b, err := xml.MarshalIndent(&saml.EntityDescriptor{
		EntityID: p.EntityID, ValidUntil: p.now().Add(7 * 24 * time.Hour).UTC().Truncate(time.Second),
		SPSSODescriptors: []saml.SPSSODescriptor{{
			SSODescriptor:       saml.SSODescriptor{RoleDescriptor: saml.RoleDescriptor{ProtocolSupportEnumeration: nsProtocol}},
			AuthnRequestsSigned: &no, WantAssertionsSigned: &signed,
			AssertionConsumerServices: []saml.IndexedEndpoint{{Binding: saml.HTTPPostBinding, Location: p.acs.String(), Index: 1}},
		}},
	}, "", "  ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/samlmetadata+xml")
	_, _ = w.Write(append([]byte(xml.Header), b...))
	return nil
}

// start sends the browser to the provider.
func (s *Service) start(p *provider, w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(q.Get("challenge"))
	port, e := strconv.ParseUint(q.Get("port"), 10, 16)
	if err != nil || e != nil || len(challenge) != sha256.Size || (port > 0 && port < 1024) {
		return refuse("start", "the sign-in was not begun by weir login")
	}
	idp, err := p.source.get(r.Context())
	if err != nil {
		return err
	}
	to, err := p.redirect(idp, &request{challenge: [sha256.Size]byte(challenge), port: uint16(port), expires: p.now().Add(signInTime)})
	if err != nil {
		return err
	}
	http.Redirect(w, r, to.String(), http.StatusFound)
	return nil
}

// consume takes the provider's answer (HTTP-POST binding). RelayState is not looked at: where the browser goes next stands
// in the sealed request.
func (s *Service) consume(p *provider, w http.ResponseWriter, r *http.Request) error {
	select {
	case s.busy <- struct{}{}:
		defer func() { <-s.busy }()
	case <-r.Context().Done():
		return errors.New("saml: too many sign-ins at a time")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		return refuse("form", "the response did not come as a form")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return refuse("size", "the form is larger than %d KiB", maxForm>>10)
		}
		return refuse("form", "the form cannot be read")
	}
	values := r.PostForm["SAMLResponse"]
	if len(values) != 1 {
		return refuse("form", "the form does not have one SAMLResponse")
	}
	if base64.StdEncoding.DecodedLen(len(values[0])) > maxResponse+3 {
		return refuse("size", "the response is larger than %d KiB", maxResponse>>10)
	}
	raw, err := base64.StdEncoding.DecodeString(values[0])
	if err != nil {
		return refuse("form", "the response is not base64")
	}
	a, err := p.accept(r.Context(), raw)
	if err != nil {
		return err
	}
	if err := s.once.use(r.Context(), a.once...); err != nil {
		return err
	}
	code, err := s.once.put(r.Context(), &waiting{
		Provider: p.Name, Issuer: a.issuer, Challenge: a.request.challenge[:], Until: a.until, Expires: p.now().Add(codeTime),
		Grant: identity.Grant{Subject: a.subject, Groups: a.groups, Kind: p.Kind, TTL: p.TTL},
	})
	if err != nil {
		return err
	}
	v := view{Title: "Signed in", Subject: a.subject, Text: "Go back to your terminal."}
	if a.request.port != 0 {
		v.Next = fmt.Sprintf("http://127.0.0.1:%d/?%s", a.request.port, url.Values{"code": {code}}.Encode())
	} else {
		v.Code = code
	}
	page(w, http.StatusOK, v)
	return nil
}

// Fetched is what a program gets for its code.
type Fetched struct {
	Token   string    `json:"token"`
	Subject string    `json:"subject"`
	Issuer  string    `json:"issuer"`
	Expires time.Time `json:"expires"`
}

// token exchanges a code for its token, once, for whoever knows the verifier (as RFC 7636 does).
func (s *Service) token(p *provider, w http.ResponseWriter, r *http.Request) error {
	var body struct{ Code, Verifier string }
	b, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	if err != nil || json.Unmarshal(b, &body) != nil || body.Code == "" || body.Verifier == "" {
		return refuse("form", "the request for a token cannot be read")
	}
	x, err := s.once.take(r.Context(), body.Code)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(body.Verifier))
	if subtle.ConstantTimeCompare(sum[:], x.Challenge) != 1 || x.Provider != p.Name {
		return refuse("verifier", "the code was shown by another program than the one that began the sign-in")
	}
	if left := x.Until.Sub(p.now()); !x.Until.IsZero() && left < x.Grant.TTL {
		x.Grant.TTL = left.Truncate(time.Second)
	}
	if x.Grant.TTL < time.Second {
		return refuse("time", "the session at the provider is over")
	}
	var t identity.Issued
	who := core.Identity{Subject: x.Grant.Subject, Issuer: x.Issuer, Groups: x.Grant.Groups, Kind: x.Grant.Kind}
	err = s.Issue(r, who, func() (note string, err error) {
		if t, err = s.Signer.SignedIn(x.Grant, x.Issuer); err != nil {
			return "", err
		}
		return "token " + t.ID + ", until " + t.Expires.UTC().Format(time.RFC3339), nil
	})
	if err != nil {
		return err
	}
	s.Log.Info("saml: signed in", "provider", p.Name, "identity", t.Subject, "issuer", x.Issuer, "token", t.ID, "until", t.Expires)
	answer(w, Fetched{Token: t.Token, Subject: t.Subject, Issuer: x.Issuer, Expires: t.Expires})
	return nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

type view struct{ Title, Text, Subject, Code, Next string }

var pages = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Weir: {{.Title}}</title>
{{- if .Next}}<meta http-equiv="refresh" content="0; url={{.Next}}">{{end}}
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:34em;margin:4em auto;padding:0 1em}code{word-break:break-all}</style></head>
<body><h1>{{.Title}}</h1>
{{- if .Subject}}<p>You are {{.Subject}}.</p>{{end}}
{{- if .Code}}<p>Copy this code into the terminal where you began. Give it to nobody else, whoever asks for it:</p><p><code id="code">{{.Code}}</code></p>{{else}}<p>{{.Text}}</p>{{end}}
{{- if .Next}}<p><a id="next" href="{{.Next}}">Go on</a> if nothing happens.</p>{{end}}
</body></html>
`))

func page(w http.ResponseWriter, status int, v view) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = pages.Execute(w, v)
}
