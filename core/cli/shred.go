package cli

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
)

// shredAfter is how old a recording key has to be: a gateway begins no session with an older one. What is on its way is given
// as long again, and a minute at most.
func shredAfter(c *config.Config) time.Duration {
	return c.Encryption.Period + min(c.Encryption.Period, time.Minute)
}

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
