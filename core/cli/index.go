package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/keyring"
)

func (a *app) index() *cobra.Command {
	c := &cobra.Command{
		Use:     "index",
		Short:   "The index that sessions and find search",
		Example: "  weir index rebuild",
	}
	var path string
	rebuild := &cobra.Command{
		Use:   "rebuild",
		Short: "Make the index anew from the archive",
		Long: "Make the index anew from the archive: after the file index.db in data was lost, or to be sure of it. It works beside a\n" +
			"running gateway, which goes on adding to the same file, and without one.",
		Example: "  weir index rebuild",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			store, err := a.openReadingOf(cmd.Context(), cfg)
			if err != nil {
				return coded(err)
			}
			defer store.Close()
			x, err := index.Open(indexPath(cfg), false)
			if err != nil {
				return unreachable(err)
			}
			x.Read(a.reader)
			n, at := 0, time.Now()
			store.Closed = true // what cannot be read is listed
			err = x.Rebuild(cmd.Context(), store, func(done int) { n = done })
			if err = errors.Join(err, x.Close()); err != nil {
				return coded(err)
			}
			fmt.Fprintf(a.out, "indexed: %s in %v\n", plural(n, "session"), time.Since(at).Round(time.Millisecond))
			return nil
		},
	}
	configFlag(rebuild, &path)
	a.identityFlag(rebuild)
	c.AddCommand(rebuild)
	return c
}

// reindex fills an index that is new, or of an earlier version, from what the archive holds.
func (e *evidence) reindex(ctx context.Context, log *slog.Logger) {
	was, stale, err := e.index.Stale(ctx)
	if err != nil || !stale {
		if err != nil {
			log.Error("cli: the index cannot be asked; run: weir index rebuild", "error", err)
		}
		return
	}
	if was > 0 {
		log.Warn("cli: the index was of an earlier version: it is made anew from the archive; until then older sessions are not listed", "version", was)
	}
	n, at := 0, time.Now()
	if err := e.index.Rebuild(ctx, keyring.Reader{Store: e.stores[0].Store, Ring: e.keys, Closed: true}, func(done int) { n = done }); err != nil {
		if ctx.Err() == nil {
			log.Error("cli: the index is not whole; run: weir index rebuild", "error", err)
		}
		return // stopped half-way: the next start begins anew
	}
	if n > 0 {
		log.Info("cli: the index is whole", "sessions", n, "took", time.Since(at).Round(time.Millisecond))
	}
}
