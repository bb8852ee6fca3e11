package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/wasm/fetch"
)

func (a *app) pluginLock() *cobra.Command {
	var path, output string
	c := &cobra.Command{
		Use:   "lock",
		Short: "Write down which modules the configuration's plugins are",
		Long: "Fetch every plugin that the configuration names, check its digest and signature, and write name, reference, digest and size\n" +
			"to the lock file beside the configuration (weir.lock beside weir.yaml). Where there is one, serve and check refuse a plugin\n" +
			"that is not in it or differs from it. Builtin plugins and native plugins are part of the program and not in it.",
		Example: "  weir plugin lock\n  weir plugin lock -c /etc/weir/weir.yaml -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			lock, err := a.lock(cmd.Context(), cfg)
			if err != nil {
				return use(err)
			}
			file := fetch.LockFile(cfg.File)
			if err := lock.Write(file); err != nil {
				return unreachable(err)
			}
			fmt.Fprintf(a.err, "weir: %s has %s\n", file, plural(len(lock.Plugins), "plugin"))
			if output == "json" {
				return a.printJSON(lock.Plugins)
			}
			rows := make([][]string, len(lock.Plugins))
			for i, p := range lock.Plugins {
				rows[i] = []string{p.Name, p.SHA256, size(p.Size), p.Ref}
			}
			return a.table([]string{"NAME", "SHA256", "SIZE", "REF"}, rows)
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	return c
}

// lock gets every module that is not part of the program. All that is wrong is told in one run.
func (a *app) lock(ctx context.Context, c *config.Config) (*fetch.Lock, error) {
	l := &loader{wiring: &wiring{Build: a.Build, dry: true, log: slog.New(slog.NewTextHandler(io.Discard, nil))}, c: c}
	lock := &fetch.Lock{Version: 1, Plugins: []fetch.Locked{}}
	for i := range c.Plugins {
		p := &c.Plugins[i]
		if p.Native != "" || strings.HasPrefix(p.WASM, fetch.Builtin) {
			continue
		}
		m, err := l.module(ctx, i)
		if err != nil {
			l.failModule(fmt.Sprintf("plugins[%d]", i), err)
			continue
		}
		lock.Plugins = append(lock.Plugins, m.Lock(p.Name, p.Written))
	}
	if len(l.problems) > 0 {
		return nil, l.problems
	}
	return lock, nil
}
