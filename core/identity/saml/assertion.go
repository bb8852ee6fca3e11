package saml

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/beevik/etree"
)

const (
	bearer    = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
	success   = "urn:oasis:names:tc:SAML:2.0:status:Success"
	transient = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
)

// assertion is what the signed bytes say.
type assertion struct {
	id, issuer           string
	nameID, nameIDFormat string
	inResponseTo         string
	recipient            string
	notBefore, notAfter  time.Time // the narrowest of all that are there; notBefore may be zero
	audiences            [][]string
	sessionEnd           time.Time // zero: not said
	attributes           map[string][]string
}

// reader reads elements that must be there once, and remembers the first that is not.
type reader struct{ err error }

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = refuse("assertion", format, args...)
	}
}

func (r *reader) all(e *etree.Element, tag string) (out []*etree.Element) {
	if e == nil {
		return nil
	}
	for _, c := range e.ChildElements() {
		if is(c, nsAssertion, tag) {
			out = append(out, c)
		}
	}
	return out
}

func (r *reader) one(e *etree.Element, tag string) *etree.Element {
	if list := r.all(e, tag); len(list) == 1 {
		return list[0]
	}
	r.fail("the assertion does not have one %s", tag)
	return etree.NewElement(tag)
}

// text is all the text of an element, which may hold nothing else.
func (r *reader) text(e *etree.Element) string {
	var b strings.Builder
	for _, c := range e.Child {
		t, ok := c.(*etree.CharData)
		if !ok {
			r.fail("the assertion has markup where a text should be")
			return ""
		}
		b.WriteString(t.Data)
	}
	return b.String()
}

func (r *reader) time(e *etree.Element, attr string, must bool) time.Time {
	v := e.SelectAttrValue(attr, "")
	if v == "" {
		if must {
			r.fail("the assertion has no %s in %s", attr, e.Tag)
		}
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil || t.IsZero() {
		r.fail("the assertion's %s is not a time", attr)
	}
	return t
}

// read takes an assertion apart. signed is made of the bytes that the signature covers, and of nothing else.
func read(signed *etree.Element) (*assertion, error) {
	var r reader
	a := &assertion{id: signed.SelectAttrValue("ID", ""), attributes: map[string][]string{}}
	if v := signed.SelectAttrValue("Version", ""); v != "2.0" {
		r.fail("the assertion is not of version 2.0")
	}
	a.issuer = r.text(r.one(signed, "Issuer"))
	subject := r.one(signed, "Subject")
	name := r.one(subject, "NameID")
	a.nameID, a.nameIDFormat = r.text(name), name.SelectAttrValue("Format", "")
	confirmation := r.one(subject, "SubjectConfirmation")
	if confirmation.SelectAttrValue("Method", "") != bearer {
		r.fail("the assertion's subject is not confirmed as bearer")
	}
	data := r.one(confirmation, "SubjectConfirmationData")
	a.inResponseTo, a.recipient = data.SelectAttrValue("InResponseTo", ""), data.SelectAttrValue("Recipient", "")
	a.notBefore, a.notAfter = r.time(data, "NotBefore", false), r.time(data, "NotOnOrAfter", true)
	conditions := r.one(signed, "Conditions")
	if t := r.time(conditions, "NotBefore", false); t.After(a.notBefore) {
		a.notBefore = t
	}
	if t := r.time(conditions, "NotOnOrAfter", true); t.Before(a.notAfter) {
		a.notAfter = t
	}
	for _, c := range conditions.ChildElements() {
		switch {
		case is(c, nsAssertion, "AudienceRestriction"):
			var list []string
			for _, x := range r.all(c, "Audience") {
				list = append(list, r.text(x))
			}
			a.audiences = append(a.audiences, list)
		case is(c, nsAssertion, "OneTimeUse"), is(c, nsAssertion, "ProxyRestriction"): // it is used once, and passed on to nobody
		default: // SAML core 2.5.1.1: what is not understood makes it indeterminate
			r.fail("the assertion has a condition that is not understood: %s", quote(c.Tag))
		}
	}
	a.sessionEnd = r.time(r.one(signed, "AuthnStatement"), "SessionNotOnOrAfter", false)
	for _, s := range r.all(signed, "AttributeStatement") {
		for _, x := range r.all(s, "Attribute") {
			n := x.SelectAttrValue("Name", "")
			if _, twice := a.attributes[n]; twice || n == "" {
				r.fail("the assertion has an attribute twice, or without a name: %s", quote(n))
			}
			values := []string{}
			for _, v := range r.all(x, "AttributeValue") {
				if len(v.ChildElements()) > 0 {
					values = append(values, "") // is no text, and no name
					continue
				}
				values = append(values, r.text(v))
			}
			a.attributes[n] = values
		}
	}
	return a, r.err
}

// hold puts the assertion, and the response around it, to what this gateway has asked for.
func (p *provider) hold(f *form, a *assertion, idp *idp) (*request, error) {
	now := p.now()
	var r reader
	switch status := f.response.FindElement("./Status/StatusCode"); {
	case f.response.SelectAttrValue("Version", "") != "2.0":
		return nil, refuse("shape", "the response is not of version 2.0")
	case status == nil || !is(status, nsProtocol, "StatusCode") || status.SelectAttrValue("Value", "") != success:
		return nil, refuse("status", "the provider has not signed anybody in")
	case f.response.SelectAttrValue("Destination", "") != p.acs.String():
		return nil, refuse("destination", "the response is for another address")
	case a.issuer != idp.entity:
		return nil, refuse("issuer", "the assertion is of %s, not of this provider", quote(a.issuer))
	}
	for _, i := range r.all(f.response, "Issuer") {
		if r.text(i) != idp.entity || r.err != nil {
			return nil, refuse("issuer", "the response is of another provider")
		}
	}
	switch {
	case a.inResponseTo == "" || f.response.SelectAttrValue("InResponseTo", "") == "":
		return nil, refuse("unasked", "the response answers no sign-in that was begun here; begin it with weir login")
	case f.response.SelectAttrValue("InResponseTo", "") != a.inResponseTo:
		return nil, refuse("request", "the response and its assertion answer different requests")
	}
	req, err := p.open(a.inResponseTo)
	if err != nil {
		return nil, err
	}
	switch {
	case a.recipient != p.acs.String():
		return nil, refuse("recipient", "the assertion is for another address")
	case len(a.audiences) == 0 || slices.ContainsFunc(a.audiences, func(list []string) bool { return !slices.Contains(list, p.EntityID) }):
		return nil, refuse("audience", "the assertion is for another audience than %s", quote(p.EntityID))
	case a.notBefore.After(now.Add(Skew)):
		return nil, refuse("time", "the assertion is not valid yet: compare the clocks")
	case !now.Before(a.notAfter.Add(Skew)):
		return nil, refuse("time", "the assertion is not valid any more: compare the clocks")
	case !a.sessionEnd.IsZero() && !now.Before(a.sessionEnd):
		return nil, refuse("time", "the session at the provider is over")
	}
	return req, nil
}

// person says who the assertion is about, in the words of this gateway.
func (p *provider) person(a *assertion) (person, error) {
	who := person{subject: a.nameID, until: a.sessionEnd, issuer: a.issuer, groups: []string{}}
	switch {
	case p.Subject != "":
		values := a.attributes[p.Subject]
		if len(values) != 1 {
			return person{}, refuse("subject", "the assertion does not have one value of the attribute %s", quote(p.Subject))
		}
		who.subject = values[0]
	case a.nameIDFormat == transient: // another name each time
		return person{}, refuse("subject", "the NameID is transient: have the provider send a lasting one, or name an attribute as subject")
	}
	if !usable(who.subject) {
		return person{}, refuse("subject", "the subject is not a name that can be used")
	}
	if p.Groups == "" {
		return who, nil
	}
	for _, g := range a.attributes[p.Groups] {
		switch {
		case !usable(g):
			return person{}, refuse("groups", "the assertion has a group that is not a name that can be used")
		case len(p.AllowedGroups) > 0 && !slices.Contains(p.AllowedGroups, g), slices.Contains(who.groups, g):
			continue
		}
		who.groups = append(who.groups, g)
	}
	return who, nil
}

// usable reports whether a text can be a name in a token, a log and a record: what would look like another one, or would
// end a line, cannot.
func usable(s string) bool {
	return s != "" && len(s) <= maxSubject && strings.TrimSpace(s) == s &&
		!strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' || r == unicode.ReplacementChar
		})
}
