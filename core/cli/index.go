package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
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
		Long: "Make the index anew from the archive: after the file index.db in data, or the schema in PostgreSQL, was lost, or to be sure\n" +
			"of it. It works beside a running gateway, which goes on adding to the same index, and without one.",
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
			x, err := openIndex(cmd.Context(), cfg, false)
			if err != nil {
				return unreachable(err)
			}
			key, err := os.ReadFile(filepath.Join(keysDir(cfg), "ledger.pub"))
			if err == nil {
				err = indexOf(cmd.Context(), cfg, x, string(key))
			}
			if err != nil {
				return unreachable(errors.Join(err, x.Close()))
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

// openIndex opens the index of a configuration. Read-only, one that was never made is an error that wraps os.ErrNotExist.
func openIndex(ctx context.Context, c *config.Config, readOnly bool) (*index.Index, error) {
	if !c.Index.Postgres.On() {
		return index.Open(indexPath(c), readOnly)
	}
	o, err := postgresIndex(ctx, c)
	if err != nil {
		return nil, err
	}
	return index.OpenPostgres(ctx, o, readOnly)
}

// indexOf sees that an index which others could write as well is that of the archive whose log has this key.
func indexOf(ctx context.Context, c *config.Config, x *index.Index, publicKey string) error {
	if !c.Index.Postgres.On() {
		return nil
	}
	key, err := ledger.KeyName(publicKey)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(key, "+") // which stays when the key changes
	return x.Belongs(ctx, name)
}

// postgresIndex reads what signs in at the index's database.
func postgresIndex(ctx context.Context, c *config.Config) (o index.Postgres, err error) {
	p := &c.Index.Postgres
	o = index.Postgres{Address: p.Address, Database: p.Database, Schema: p.Schema, User: p.User}
	vault, err := vaultOf(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return o, err
	}
	if vault != nil {
		defer vault.Close(ctx)
	}
	read := func(key, reference string, to *string) {
		if reference == "" || err != nil {
			return
		}
		source, perr := vault.Parse(reference, c.Dir)
		if perr == nil {
			*to, perr = source.Read(ctx)
		}
		if perr != nil {
			err = config.Problems{c.Problem("index.postgres."+key, perr.Error(), "")}
		}
	}
	read("password", p.Password.Reference(), &o.Password)
	if strings.HasPrefix(p.User, "${") {
		read("user", p.User, &o.User)
	}
	if err == nil {
		o.TLS, err = c.IndexTLS()
	}
	return o, err
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
