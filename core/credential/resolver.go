package credential

import (
	"context"
	"slices"

	"github.com/weir-gateway/weir/core"
)

// Login is a user of an upstream, and where its password is. The user may be a secret's value too, as that of a dynamic
// secret is.
type Login struct {
	User, Password Source
}

// GroupLogin is the login of those who are in a group.
type GroupLogin struct {
	Group string
	Login
}

// Resolver answers what to sign in with at one upstream.
type Resolver struct {
	login  Login
	groups []GroupLogin
}

// New returns the resolver of a user and a password's source.
func New(user string, password Source) *Resolver {
	return &Resolver{login: Login{Plain(user), password}}
}

// Plain is the source of a text that is written down where it is used.
func Plain(text string) Source { return Source{kind: "clear", clear: func() string { return text }} }

// ByGroup returns a resolver by which an identity signs in with the login of the first group of the list that it is in, and
// with the other one when it is in none.
func ByGroup(otherwise Login, groups []GroupLogin) *Resolver { return &Resolver{otherwise, groups} }

func (r *Resolver) loginOf(id core.Identity) Login {
	for _, g := range r.groups {
		if slices.Contains(id.Groups, g.Group) {
			return g.Login
		}
	}
	return r.login
}

// Resolve returns the credential as it is now. It has the shape of core.Target.Credential.
func (r *Resolver) Resolve(ctx context.Context, id core.Identity) (core.Credential, error) {
	l := r.loginOf(id)
	user, err := l.User.Read(ctx)
	if err != nil {
		return core.Credential{}, err
	}
	password, err := l.Password.Read(ctx)
	if err != nil {
		return core.Credential{}, err
	}
	return core.Credential{User: user, Password: password, Rotates: l.Password.kind == "vault" || l.Password.kind == "file"}, nil
}

// User is the name that an identity signs in by, where that is not the same for all; else it is empty.
func (r *Resolver) User(ctx context.Context, id core.Identity) string {
	if len(r.groups) == 0 && r.login.User.kind == "clear" {
		return ""
	}
	user, err := r.loginOf(id).User.Read(ctx)
	if err != nil {
		return ""
	}
	return user
}
