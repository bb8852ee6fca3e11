package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/keyring"
)

// shredAfter is how old a recording key has to be: a gateway begins no session with an older one.
const shredAfter = journal.KeyPeriod + time.Minute

func (a *app) shred() *cobra.Command {
	var path, output, by, why string
	var d deed
	c := &cobra.Command{
		Use:   "shred --subject NAME",
		Short: "Destroy the keys of what somebody did: it stays provable, and nobody can read it",
		Long: "Destroy the recording keys of a subject, where recordings are encrypted. The blocks stay, and verify still holds; nobody can read\n" +
			"them, and the index forgets what they held. Each session gets a signed leaf that says who did it, and why. Sessions under legal hold\n" +
			"keep all of the subject's keys. A key that may be in use stays for now, and it is said until when. Copies of the keys elsewhere,\n" +
			"such as backups of the archive, are not reached.",
		Example: "  weir shred --subject alice@example.com --reason 'erasure request 17' --dry-run\n  weir shred --subject alice@example.com --reason 'erasure request 17'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			d.Do, d.By, d.Why = "shred", cmp.Or(by, operator()), strings.TrimSpace(why)
			if d.Why == "" && !d.DryRun {
				fmt.Fprintln(a.err, "weir: no reason is given, and none will stand in the signed log: --reason TEXT")
			}
			out, err := a.ask(cmd.Context(), cfg, d)
			if err != nil {
				return coded(err)
			}
			if out.Error != "" {
				return out.failed()
			}
			r := out.Shredded
			if output == "json" {
				return a.printJSON(r)
			}
			what := "shredded"
			if d.DryRun {
				what = "would be shredded"
			}
			fmt.Fprintf(a.out, "%s: %s, %s\n", what, plural(len(r.Sessions), "session"), plural(r.Keys, "key"))
			for _, w := range r.Waits {
				switch {
				case len(w.Open) > 0:
					fmt.Fprintf(a.out, "  key %s stays: %s open; end them (weir token revoke) and do it again\n", w.Key, plural(len(w.Open), "session"))
				default:
					fmt.Fprintf(a.out, "  key %s may be in use until %s: do it again then\n", w.Key, w.Until.Local().Format(time.DateTime))
				}
			}
			for _, l := range r.Locked {
				fmt.Fprintf(a.out, "  the store %s keeps %s that its bucket has locked: make a bucket that locks by itself nothing, or wait\n", l.Store, plural(l.Parts, "key"))
			}
			return nil
		},
	}
	outputFlag(c, &output)
	standingFlags(c, &path, &by, &why)
	f := c.Flags()
	f.StringVar(&d.Subject, "subject", "", "`whose` sessions, as weir sessions shows them")
	f.StringVar(&d.Issuer, "issuer", "", "only the subject that this `issuer` names so")
	f.BoolVar(&d.DryRun, "dry-run", false, "only say what would be shredded")
	_ = c.MarkFlagRequired("subject")
	return c
}

func (a *app) keys() *cobra.Command {
	c := &cobra.Command{
		Use:     "keys",
		Short:   "The keys that recordings are encrypted for",
		Example: "  weir keys rotate\n  weir keys rewrap",
	}
	var path string
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new local key; the old ones stay, to read",
		Long: "Make a new local key, before the old ones in keys/recordings.key in data. Gateways use it from their next start on. With `weir keys\n" +
			"rewrap` everything that was recorded is wrapped for it, and the old ones can be deleted from the file.",
		Example: "  weir keys rotate && weir keys rewrap",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			id, err := keyring.RotateLocal(keysDir(cfg))
			if err != nil {
				return unreachable(err)
			}
			fmt.Fprintf(a.out, "%s\n", id.Recipient())
			return nil
		},
	}
	rewrap := &cobra.Command{
		Use:   "rewrap",
		Short: "Wrap the key of every recording for those whom the configuration names now",
		Long: "Wrap every recording key anew, for encryption.recipients of the configuration: after somebody was added or taken away, or a key was\n" +
			"rotated. What was recorded is not touched. Keys that cannot be opened here stay as they are.",
		Example: "  weir keys rewrap",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			out, err := a.ask(cmd.Context(), cfg, deed{Do: "rewrap", By: operator()})
			if err != nil {
				return coded(err)
			}
			if out.Error != "" {
				return out.failed()
			}
			fmt.Fprintf(a.out, "wrapped anew: %s; left as they are: %d\n", plural(out.Rewrapped.Keys, "key"), out.Rewrapped.Locked)
			return nil
		},
	}
	configFlag(rotate, &path)
	configFlag(rewrap, &path)
	c.AddCommand(rotate, rewrap)
	return c
}
