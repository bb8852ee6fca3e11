package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/keyring"
)

func (a *app) keys() *cobra.Command {
	c := &cobra.Command{
		Use:     "keys",
		Short:   "The keys that recordings are encrypted for, and that their log is signed with",
		Example: "  weir keys rotate\n  weir keys rewrap\n  weir keys rotate-ledger",
	}
	var path string
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Make a new local key; the old ones stay, to read",
		Long: "Make a new local key, before the old ones in keys/recordings.key in data. It counts at once, where this data folder is. With `weir keys\n" +
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
	turn := &cobra.Command{
		Use:   "rotate-ledger",
		Short: "Have the log of seals signed with another key from now on",
		Long: "Make another key, or take the newest version of the one in Vault that ledger.key of the configuration names, and sign the log of\n" +
			"seals with it from now on. The old key signs that it is followed by the new one, in the log, so verify holds with either public key.\n" +
			"The old public key stays as keys/ledger-HASH.pub in data; give auditors the new one.",
		Example: "  weir keys rotate-ledger",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			out, err := a.ask(cmd.Context(), cfg, deed{Do: "rotate-ledger", By: operator()})
			if err != nil {
				return coded(err)
			}
			if out.Error != "" {
				return out.failed()
			}
			fmt.Fprintln(a.out, out.PublicKey)
			return nil
		},
	}
	for _, sub := range []*cobra.Command{rotate, rewrap, turn} {
		configFlag(sub, &path)
		c.AddCommand(sub)
	}
	return c
}
