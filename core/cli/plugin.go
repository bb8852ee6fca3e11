package cli

import "github.com/spf13/cobra"

// plugin is the group of commands for those who write plugins, and for those who load them.
func (a *app) plugin() *cobra.Command {
	c := &cobra.Command{
		Use:     "plugin",
		Short:   "Write, test, look at and pin plugins",
		Example: "  weir plugin inspect builtin:pii",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.pluginNew(), a.pluginBuild(), a.pluginInspect(), a.pluginTest(), a.pluginBench(), a.pluginLock())
	return c
}
