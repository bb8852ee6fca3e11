package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/identity/signin"
)

// renewBefore is how much of its time a kept token must have left to be used without another question.
const renewBefore = time.Minute

var usualScopes = []string{"openid", "profile", "email", "offline_access"}

// loginPause is between questions to a provider that names no pause; 0: what the standard says.
var loginPause time.Duration

// login is what weir login keeps. All of it is for its owner's eyes only.
type login struct {
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Audience string    `json:"audience"`
	Scopes   []string  `json:"scopes"`
	Token    string    `json:"token"`
	Refresh  string    `json:"refresh,omitempty"`
	Expires  time.Time `json:"expires"`
}

func (l *login) client() *signin.Client {
	return &signin.Client{Issuer: l.Issuer, ClientID: l.ClientID, Scopes: l.Scopes, Pause: loginPause}
}

func (l *login) take(t signin.Tokens) (err error) {
	l.Token, l.Expires, err = t.For(l.Audience)
	l.Refresh = t.Refresh
	return err
}

// loginFile is where a sign-in is kept: in the user's own folder of configurations.
func loginFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", unreachable(err)
	}
	return filepath.Join(dir, "weir", "login.json"), nil
}

// withLogin calls f with what is kept, nil if there is none, while no other weir changes it: a refresh token is good once.
func withLogin(f func(path string, kept *login) error) error {
	path, err := loginFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return unreachable(err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return unreachable(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return unreachable(err)
	}
	kept, err := readLogin(path)
	if err != nil {
		return err
	}
	return f(path, kept)
}

func readLogin(path string) (*login, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, unreachable(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Mode().Perm()&0o077 != 0 {
		return nil, use(fmt.Errorf("%s can be read by others: weir logout, and sign in again", path))
	}
	var l login
	if err := json.NewDecoder(f).Decode(&l); err != nil {
		return nil, use(fmt.Errorf("%s cannot be read: weir logout, and sign in again", path))
	}
	return &l, nil
}

func (l *login) write(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".login-*") // mode 0600
	if err != nil {
		return unreachable(err)
	}
	defer os.Remove(f.Name())
	err = errors.Join(json.NewEncoder(f).Encode(l), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return unreachable(err)
	}
	return nil
}

// keptToken is what weir login keeps, renewed when that is due; empty: nobody has signed in.
func keptToken(ctx context.Context) (token string, err error) {
	if path, err := loginFile(); err != nil {
		return "", err
	} else if _, err := os.Stat(path); err != nil {
		return "", nil
	}
	err = withLogin(func(path string, kept *login) error {
		switch {
		case kept == nil:
			return nil
		case time.Until(kept.Expires) > renewBefore:
			token = kept.Token
			return nil
		case kept.Refresh == "":
			return use(errors.New("your sign-in is over: weir login"))
		}
		tokens, err := kept.client().Renew(ctx, kept.Refresh)
		if errors.Is(err, signin.ErrAgain) {
			return use(fmt.Errorf("%w: weir login", err))
		}
		if err != nil {
			return unreachable(err)
		}
		if tokens.ID == "" && tokens.Access == "" {
			return unreachable(errors.New("the provider renewed nothing"))
		}
		if err := kept.take(tokens); err != nil {
			return unreachable(err)
		}
		token = kept.Token
		return kept.write(path)
	})
	return token, err
}

func (a *app) login() *cobra.Command {
	var path string
	var l login
	var s samlLogin
	c := &cobra.Command{
		Use: "login", Short: "Sign in at your identity provider, in a browser on any device",
		Long: "Sign in at the identity provider of the configuration, or at --issuer. A page and a code are printed; open the page in\n" +
			"any browser, on any device. The token is kept for this user, readable by nobody else, and is renewed when it is used.\n" +
			"approvals, targets and run take it when they are given no other.\n\n" +
			"With --saml the page is the gateway's own, which sends you to the SAML provider; the browser has to be on this machine,\n" +
			"or shows a code to paste (--paste). Its token is not renewed: sign in again when it is over.",
		Example: "  weir login\n  weir login --issuer https://idp.example --client-id weir\n  weir login --saml\n  PGPASSWORD=$(weir whoami --token) psql -h localhost -p 15432 -d orders",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			demanded := cmd.Flags().Changed("config")
			if saml, err := s.wanted(path, demanded, l.Issuer); err != nil && saml {
				return use(err)
			} else if saml {
				kept, subject, err := a.loginSAML(cmd.Context(), &s, cmd.InOrStdin())
				if err != nil {
					return err
				}
				return a.keep(kept, subject)
			}
			if err := l.complete(path, demanded); err != nil {
				return use(err)
			}
			d, err := l.client().Begin(cmd.Context())
			if err != nil {
				return unreachable(err)
			}
			fmt.Fprintf(a.err, "weir: open %s\nweir: and enter the code %s\n", d.Where, d.User)
			if d.Shorter != "" {
				fmt.Fprintf(a.err, "weir: or open %s and compare the code\n", d.Shorter)
			}
			tokens, err := d.Wait(cmd.Context())
			if err != nil {
				return no(err)
			}
			if err := l.take(tokens); err != nil {
				return no(err)
			}
			claims, _ := signin.Claims(l.Token)
			subject, _ := claims["sub"].(string)
			return a.keep(&l, subject)
		},
	}
	configFlag(c, &path)
	s.flags(c)
	f := c.Flags()
	f.StringVar(&l.Issuer, "issuer", "", "the provider's `URL`, or its name in the configuration (default: the only one there)")
	f.StringVar(&l.ClientID, "client-id", "", "the `id` that weir has at the provider (default: identity.oidc.login.client_id, or the audience)")
	f.StringVar(&l.Audience, "audience", "", "for `whom` the token has to be (default: the audience in the configuration, or the client id)")
	f.StringArrayVar(&l.Scopes, "scope", nil, "`scope` to ask for; may be repeated (default "+strings.Join(usualScopes, " ")+")")
	return c
}

// keep writes what a sign-in has brought, over what was there.
func (a *app) keep(l *login, subject string) error {
	if err := withLogin(func(path string, _ *login) error { return l.write(path) }); err != nil {
		var x *exit
		if file, e := loginFile(); e != nil || !errors.As(err, &x) || x.code != exitUse || os.Remove(file) != nil { // what was kept is unusable
			return err
		}
		if err := withLogin(func(path string, _ *login) error { return l.write(path) }); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.err, "weir: signed in as %s at %s\n", printable(subject), printable(l.Issuer))
	return nil
}

// complete fills in what the configuration says of the provider. Without one, the flags have to say it.
func (l *login) complete(path string, demanded bool) error {
	cfg, err := config.Load(configPath(path))
	if err != nil {
		if demanded || l.Issuer == "" || l.ClientID == "" {
			if l.Issuer != "" && !demanded {
				return errors.New("without a configuration --issuer needs --client-id")
			}
			return err
		}
		cfg = &config.Config{}
	}
	known := cfg.Identity.OIDC
	if l.Issuer != "" {
		n := slices.IndexFunc(known, func(o config.OIDC) bool { return l.Issuer == o.Issuer || l.Issuer == o.Name })
		if n < 0 && l.ClientID == "" {
			return fmt.Errorf("%s has no issuer %q: --client-id is needed", cfg.File, l.Issuer)
		}
		known = known[max(n, 0):max(n+1, 0)]
	}
	switch {
	case len(known) > 1:
		return fmt.Errorf("%s has several issuers: name one by --issuer", cfg.File)
	case len(known) == 1:
		o := known[0]
		l.Issuer = o.Issuer
		l.ClientID = cmp.Or(l.ClientID, o.Login.ClientID, o.Audience)
		l.Audience = cmp.Or(l.Audience, o.Audience)
		if len(l.Scopes) == 0 {
			l.Scopes = o.Login.Scopes
		}
	case l.Issuer == "":
		return fmt.Errorf("%s has no identity.oidc: name a provider by --issuer and --client-id", cfg.File)
	}
	l.Audience = cmp.Or(l.Audience, l.ClientID)
	if len(l.Scopes) == 0 {
		l.Scopes = usualScopes
	}
	return nil
}

func (a *app) logout() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget what weir login keeps, and tell the provider",
		Long: "Forget what weir login keeps, and tell the provider that it is not needed any more. A token that was used already stays\n" +
			"good until it expires: weir token revoke ends it and its sessions.",
		Example: "  weir logout",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := loginFile()
			if err != nil {
				return err
			}
			kept, _ := readLogin(path)
			if err := os.Remove(path); err != nil {
				if errors.Is(err, os.ErrNotExist) {
					fmt.Fprintln(a.err, "weir: nobody is signed in")
					return nil
				}
				return unreachable(err)
			}
			if kept != nil && kept.Refresh != "" {
				if err := kept.client().End(cmd.Context(), kept.Refresh); err != nil {
					return unreachable(fmt.Errorf("signed out here, but the provider could not be told: %w", err))
				}
			}
			fmt.Fprintln(a.err, "weir: signed out")
			return nil
		},
	}
}

func (a *app) whoami() *cobra.Command {
	var path, tokenFile, output string
	var show bool
	c := &cobra.Command{
		Use: "whoami", Short: "Show who you are to the gateway",
		Long:    "Show who the gateway takes you for, by --token-file, $" + tokenEnv + " or weir login. With --token the token is printed, and nothing else.",
		Example: "  weir whoami\n  PGPASSWORD=$(weir whoami --token) psql -h localhost -p 15432 -d orders",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := tokenOf(cmd.Context(), tokenFile)
			if err != nil {
				return err
			}
			if show {
				fmt.Fprintln(a.out, token)
				return nil
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			var who core.Identity
			if err := askGateway(cmd.Context(), cfg, token, http.MethodGet, "identity", nil, &who); err != nil {
				return err
			}
			if output == "json" {
				return a.printJSON(who)
			}
			for _, f := range [][2]string{
				{"subject", who.Subject}, {"issuer", who.Issuer}, {"kind", who.Kind}, {"groups", strings.Join(who.Groups, ", ")}, {"run", who.Run}, {"targets", cmp.Or(strings.Join(who.Targets, ", "), "all")},
			} {
				if f[1] != "" {
					fmt.Fprintf(a.out, "%-8s %s\n", f[0], printable(f[1]))
				}
			}
			return nil
		},
	}
	configFlag(c, &path)
	tokenFlag(c, &tokenFile)
	outputFlag(c, &output)
	c.Flags().BoolVar(&show, "token", false, "print the token, for $PGPASSWORD and the like")
	return c
}
