package saml

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/url"
	"strings"
	"time"

	"github.com/crewjam/saml"
)

// request is a sign-in that was begun. Nothing is kept of it: it travels as the ID of the AuthnRequest, sealed, and comes
// back as InResponseTo inside the signature. So nobody can fill a store by beginning sign-ins, and any gateway behind the
// sign-in address can take the answer.
type request struct {
	challenge [sha256.Size]byte // of the verifier that only the program knows that began it
	port      uint16            // on the loopback of the browser's machine, where it waits for the code; 0: a person carries it
	expires   time.Time
}

const (
	nonceSize = 12
	macSize   = 16
	bodySize  = nonceSize + 4 + 2 + sha256.Size
)

func (p *provider) mac(body []byte) []byte {
	m := hmac.New(sha256.New, p.secret)
	m.Write([]byte("weir saml request\x00" + p.Name + "\x00" + p.EntityID + "\x00"))
	m.Write(body)
	return m.Sum(nil)[:macSize]
}

// seal makes the ID of a request.
func (p *provider) seal(r *request) string {
	b := make([]byte, nonceSize, bodySize+macSize)
	_, _ = rand.Read(b) // never fails
	b = binary.BigEndian.AppendUint32(b, uint32(r.expires.Unix()))
	b = binary.BigEndian.AppendUint16(b, r.port)
	b = append(b, r.challenge[:]...)
	return "_" + base64.RawURLEncoding.EncodeToString(append(b, p.mac(b)...))
}

// open reads what seal has made, and refuses anything else.
func (p *provider) open(id string) (*request, error) {
	text, ok := strings.CutPrefix(id, "_")
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if !ok || err != nil || len(b) != bodySize+macSize || !hmac.Equal(b[bodySize:], p.mac(b[:bodySize])) {
		return nil, refuse("request", "the response answers a sign-in that was not begun here")
	}
	body := bytes.NewReader(b[nonceSize:bodySize])
	var at uint32
	var r request
	_ = binary.Read(body, binary.BigEndian, &at)
	_ = binary.Read(body, binary.BigEndian, &r.port)
	_, _ = body.Read(r.challenge[:])
	if r.expires = time.Unix(int64(at), 0); !p.now().Before(r.expires) {
		return nil, refuse("request", "the sign-in was begun too long ago: begin it anew")
	}
	return &r, nil
}

// redirect is where the browser goes to sign in (HTTP-Redirect binding).
func (p *provider) redirect(idp *idp, r *request) (*url.URL, error) {
	sp := p.serviceProvider(idp)
	ask, err := sp.MakeAuthenticationRequest(idp.signOn, saml.HTTPRedirectBinding, saml.HTTPPostBinding)
	if err != nil {
		return nil, err
	}
	ask.ID, ask.IssueInstant = p.seal(r), p.now().UTC().Truncate(time.Second)
	ask.NameIDPolicy = nil // the provider knows best which name it has
	return ask.Redirect("", sp)
}

// digest names something in the store, where only few characters may be.
func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:])
}
