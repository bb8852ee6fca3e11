package core

import "time"

// Revocation says that one token, or everything that a subject can show, is good no longer.
type Revocation struct {
	Token   string    `json:"token,omitempty"`   // the id (jti) of one token; empty: all of a subject
	Subject string    `json:"subject,omitempty"` // of which all tokens are refused, those still to be made included
	Issuer  string    `json:"issuer,omitempty"`  // who vouches for it; empty: whoever does
	Until   time.Time `json:"until,omitzero"`    // when the token would be over anyway; zero: until it is lifted
	At      time.Time `json:"at"`
	By      string    `json:"by"`
	Reason  string    `json:"reason,omitempty"`
}

// Covers reports whether r is about the token that an identity was recognised by.
func (r *Revocation) Covers(id *Identity) bool {
	if r.Issuer != "" && r.Issuer != id.Issuer {
		return false
	}
	if r.Token != "" {
		return r.Token == id.Token || r.Token == id.Parent
	}
	return r.Subject != "" && r.Subject == id.Subject
}
