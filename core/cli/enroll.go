package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/gateway"
)

// certificate gets what a target's usual clients can sign in with in the place of a token.
func (a *app) certificate() *cobra.Command {
	var path, tokenFile, key string
	c := &cobra.Command{
		Use: "certificate TARGET", Short: "Get a certificate to reach a target with, in the place of a token",
		Long: "Get a certificate for a key of yours, and the line to use it with. It is good as long as the token that it is made with,\n" +
			"at most 12 hours, and for the same targets; it ends when that token is revoked. The key is made where there is none;\n" +
			"both files are readable by nobody else. The running gateway is asked, with --token-file, $" + tokenEnv + " or what weir\n" +
			"login keeps.",
		Example: "  weir certificate web\n  weir certificate web --key ~/.ssh/id_ed25519",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			token, err := tokenOf(cmd.Context(), tokenFile)
			if err != nil {
				return err
			}
			if key == "" {
				dir, err := os.UserConfigDir()
				if err != nil {
					return unreachable(err)
				}
				key = filepath.Join(dir, "weir", "id_ed25519")
			}
			list := []gateway.Reachable{}
			if err := askGateway(cmd.Context(), cfg, token, http.MethodGet, "targets", nil, &list); err != nil {
				return err
			}
			i := slices.IndexFunc(list, func(t gateway.Reachable) bool { return t.Name == args[0] })
			if i < 0 {
				return use(fmt.Errorf("you have no target %q: weir targets lists yours", args[0]))
			}
			t := list[i]
			if t.Access == "denied" {
				return no(errors.New(printable(cmp.Or(t.Reason, t.Rule, "you may not open this target"))))
			}
			var e core.Enroller
			for _, p := range a.Protocols {
				if p.Name() == t.Protocol {
					e, _ = p.(core.Enroller)
				}
			}
			if e == nil {
				return use(fmt.Errorf("%s has no certificates: use the token, as weir targets shows", printable(t.Protocol)))
			}
			line, until, err := e.Enroll(cmd.Context(), core.WayIn{Target: t.Name, Address: t.Address, HostKey: t.HostKey, Connect: t.Connect}, token, key)
			if err != nil {
				return unreachable(err)
			}
			fmt.Fprintf(a.err, "weir: the certificate of %s is good until %s\n", key, until.UTC().Format(time.RFC3339))
			fmt.Fprintln(a.out, printable(line))
			return nil
		},
	}
	configFlag(c, &path)
	tokenFlag(c, &tokenFile)
	c.Flags().StringVar(&key, "key", "", "private key in `FILE`, with its public half in FILE.pub (default: one of Weir's own, beside what weir login keeps)")
	return c
}
