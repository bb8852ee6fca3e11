package cli

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/credential"
)

// openVault opens the Vault that the configuration names, if it does.
func (l *loader) openVault() {
	var err error
	if l.vault, err = vaultOf(l.c, l.log); err != nil {
		l.fail("vault", "", err)
	} else if l.vault != nil {
		l.closers = append(l.closers, l.vault.Close)
	}
}

// vaultOf opens the Vault that the configuration names; nil where it names none.
func vaultOf(c *config.Config, log *slog.Logger) (*credential.Vault, error) {
	if c.Vault.Address == "" {
		return nil, nil
	}
	token, err := credential.Parse(c.Vault.Token.Reference(), c.Dir)
	if err != nil {
		return nil, err
	}
	return credential.OpenVault(credential.VaultConfig{Address: c.Vault.Address, Token: token, Namespace: c.Vault.Namespace, CA: c.Vault.CA, Log: log})
}

// logins makes what signs in at a target. Every secret is read once, so that a missing one is found before the first client
// is.
func (l *loader) logins(ctx context.Context, t *config.Target) (*credential.Resolver, bool) {
	at := t.At("credential")
	ok := true
	login := func(path, user string, password config.Secret) (out credential.Login) {
		var err error
		if strings.HasPrefix(user, "${") {
			out.User, err = l.vault.Parse(user, l.c.Dir)
		} else {
			out.User = credential.Plain(user)
		}
		if err != nil {
			l.fail(path+".user", "", err)
			ok = false
		}
		if out.Password, err = l.vault.Parse(password.Reference(), l.c.Dir); err == nil {
			_, err = out.Password.Read(ctx)
		}
		if err == nil {
			if _, e := out.User.Read(ctx); e != nil {
				err, path = e, path+".user"
			}
		} else {
			path += ".password"
		}
		if err != nil {
			l.fail(path, "", err)
			ok = false
		}
		return out
	}
	otherwise := login(at, t.Credential.User, t.Credential.Password)
	var groups []credential.GroupLogin
	for i, g := range t.Credential.ByGroup {
		groups = append(groups, credential.GroupLogin{Group: g.Group, Login: login(fmt.Sprintf("%s.by_group[%d]", at, i), g.User, g.Password)})
	}
	return credential.ByGroup(otherwise, groups), ok
}
