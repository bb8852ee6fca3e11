package opa

import (
	"net"
	"testing"

	"github.com/weir-gateway/weir/core"
)

// TestClient: a policy sees where a client comes from, and what it said of one address is not kept for another.
func TestClient(t *testing.T) {
	p := mustLoad(t, Config{Name: "p", FS: files("a.rego", `package weir.access
allow if net.cidr_contains("203.0.113.0/24", input.session.client)
`)})
	for _, c := range []struct {
		from  net.Addr
		allow bool
	}{
		{&net.TCPAddr{IP: net.IPv4(203, 0, 113, 7), Port: 1}, true},
		{&net.TCPAddr{IP: net.IPv4(203, 0, 114, 7), Port: 1}, false},
		{&net.TCPAddr{IP: net.ParseIP("::ffff:203.0.113.9"), Port: 2}, true},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 2}, false},
	} {
		s := &core.Session{ID: "s", Protocol: "x", Identity: core.Identity{Subject: "ada", Groups: []string{}}, Target: &core.Target{Name: "t"}, Hello: core.Hello{Client: c.from}}
		v, err := p.Inspect(t.Context(), &core.Event{Kind: core.KindOpen, Direction: core.FromClient, Session: s})
		if err != nil || (v.Deny == nil) != c.allow {
			t.Errorf("%v: %v %+v", c.from, err, v.Deny)
		}
	}
}

// TestAdminPackage: weir.admin is asked as an access package is, about the act; what does not say yes, or is about something
// that is not there, is a no. It is chosen where there is no package for sessions, and is told from those that are for them.
func TestAdminPackage(t *testing.T) {
	p := mustLoad(t, Config{Name: "p", FS: files("a.rego", `package weir.admin
allow if input.event.admin.action == "status.show"
deny contains {"rule": "not-at-night"} if input.event.admin.detail.reason == "night"
`)})
	if p.Judges() != AdminPackage {
		t.Error("it is not known as one about the gateway")
	}
	for _, c := range []struct {
		detail map[string]any
		rule   string
	}{
		{map[string]any{"action": "status.show"}, ""},
		{map[string]any{"action": "reload"}, "access"},
		{map[string]any{}, "access"},
		{nil, "access"},
		{map[string]any{"action": "status.show", "detail": map[string]any{"reason": "night"}}, "not-at-night"},
	} {
		s := &core.Session{ID: "s", Protocol: "admin", Identity: core.Identity{Subject: "ada", Groups: []string{}}, Target: &core.Target{Name: "admin"}}
		v, err := p.Inspect(t.Context(), &core.Event{Kind: core.KindOpen, Direction: core.FromClient, Session: s, Detail: c.detail})
		switch {
		case err != nil || (v.Deny == nil) != (c.rule == ""):
			t.Errorf("%v: %v %+v", c.detail, err, v.Deny)
		case c.rule != "" && v.Deny.Rule != c.rule:
			t.Errorf("%v: %+v", c.detail, v.Deny)
		case c.rule == "access" && v.Deny.Reason != "no policy lets this identity do this":
			t.Errorf("%v: %s", c.detail, v.Deny.Reason)
		}
	}
	if other := mustLoad(t, Config{Name: "p", FS: files("a.rego", "package weir.access\nallow := true")}); other.Judges() != "" {
		t.Error("one about sessions is taken for one about the gateway")
	}
	if other := mustLoad(t, Config{Name: "p", FS: files("a.rego", "package weir.replay\nallow := true")}); other.Judges() != ReplayPackage {
		t.Error("one about recordings is not known")
	}
	if _, err := Load(t.Context(), Config{Name: "p", FS: files("a.rego", "package weir.replay\nallow := true", "b.rego", "package weir.admin\nallow := true")}); err == nil {
		t.Error("one of two packages would be asked by nobody")
	}
	if _, err := Load(t.Context(), Config{Name: "p", FS: files("a.rego", "package weir.access\nallow := true", "b.rego", "package weir.admin\nallow := true")}); err == nil {
		t.Error("rules about the gateway that nobody asks are not told of")
	}
}
