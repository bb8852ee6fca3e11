package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) purge() *cobra.Command {
	var path, output, by string
	var dry bool
	c := &cobra.Command{
		Use:   "purge [--dry-run]",
		Short: "Remove the sessions that are older than they are to be kept",
		Long: "Remove the sessions that are older than `retention` in the configuration says, now. A running gateway does so every hour.\n" +
			"Each removal leaves a signed tombstone in the log, so that verify still holds. What is under legal hold stays, and so\n" +
			"does what a bucket has locked, until its time.",
		Example: "  weir purge --dry-run\n  weir purge",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if by == "" {
				by = operator()
			}
			out, err := a.ask(cmd.Context(), cfg, deed{Do: "purge", By: by, DryRun: dry})
			if err != nil {
				return coded(err)
			}
			r := out.Report
			switch {
			case r == nil:
				return out.failed()
			case output == "json":
				err = a.printJSON(r)
			default:
				what := "removed"
				if dry {
					what = "would be removed"
					for _, s := range r.Removed {
						fmt.Fprintf(a.out, "%s  ended %s  target %s, class %s\n", s.ID, s.Sealed.Local().Format(time.DateTime), printable(s.Target), printable(s.Class))
					}
				}
				fmt.Fprintf(a.out, "%s: %s; kept under legal hold: %d\n", what, plural(len(r.Removed), "session"), len(r.Held))
				for _, l := range r.Locked {
					fmt.Fprintf(a.out, "  %s stay in the store %s, locked until %s at the latest; a later purge removes them\n", plural(l.Parts, "object"), l.Store, l.Until.Local().Format(time.DateTime))
				}
				if !cfg.Retention.Removes() {
					fmt.Fprintln(a.err, "weir: the configuration has no retention: sessions are kept for good")
				}
			}
			if err == nil && out.Error != "" {
				err = out.failed()
			}
			return err
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	c.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	c.Flags().StringVar(&by, "by", "", "`who` does it (default: the user of this machine)")
	return c
}
