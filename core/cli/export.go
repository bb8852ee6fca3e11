package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/archive/bundle"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
	"github.com/weir-gateway/weir/core/replay"
)

func (a *app) export() *cobra.Command {
	var path, dir, log, key, file string
	c := &cobra.Command{
		Use:   "export ID -o FILE.weir",
		Short: "Write one session into a file that an auditor can read and verify without a gateway",
		Long: "Write one session into a file: its blocks, the proof that the signed log has it, and a page for a browser that shows it.\n" +
			"The session is verified first. `weir verify FILE.weir` proves the file with the public key alone.",
		Example: `  weir export 01jd2t0000000000000000000 -o session.weir
  weir verify session.weir --key ledger.pub`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file == "" {
				return use(errors.New("say where to: -o FILE.weir"))
			}
			return a.exportTo(cmd.Context(), path, dir, log, key, args[0], file)
		},
	}
	configFlag(c, &path)
	a.archiveFlag(c, &dir)
	ledgerFlags(c, &log, &key)
	c.Flags().StringVarP(&file, "output", "o", "", "`file` to write; there must be none of the name")
	_ = c.MarkFlagFilename("output", "weir")
	return c
}

func (a *app) exportTo(ctx context.Context, path, dir, log, key, id, file string) (err error) {
	if dir == "" {
		c, err := load(path)
		if err == nil {
			err = a.reads(ctx, c, gateway.Reading{Sessions: []string{id}, How: "export"})
		}
		if err != nil {
			return err
		}
	}
	store, ring, err := a.places(ctx, path, dir, &log, &key)
	if err != nil {
		return err
	}
	defer store.Close()
	public, err := os.ReadFile(key)
	if err != nil {
		return unreachable(fmt.Errorf("the public key: %w", err))
	}
	o := replay.Options{}
	open := keyring.Reader{Store: store, Ring: ring}
	for r, err := range replay.Records(ctx, open, id) {
		if err != nil {
			return missing(err, id)
		}
		o.Reader = a.readerOf(r)
		break
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return use(err)
	}
	r, err := bundle.Write(ctx, out, bundle.Config{
		Store: store, Session: id, LedgerDir: log, PublicKey: strings.TrimSpace(string(public)) + "\n", Keys: ring,
		Page: func(w io.Writer) error { return replay.Page(ctx, w, open, id, o) },
	})
	if err == nil && r.OK() {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil || !r.OK() {
		_ = os.Remove(file) // half of one, and ours
	}
	if errors.Is(err, ledger.ErrNoLeaf) {
		return no(fmt.Errorf("session %s is not in the signed log yet: try again in a moment", printable(id)))
	}
	if err != nil {
		return missing(err, id)
	}
	if !r.OK() {
		return a.printReport(r, "")
	}
	state := "sealed"
	if len(r.Open) > 0 {
		state = "open: the file has what was recorded so far"
	}
	fmt.Fprintf(a.out, "%s: session %s, %s, %s (%s)\n", file, id, plural(r.Blocks, "block"), plural(r.Records, "record"), state)
	return nil
}

// verifyBundle proves an exported file.
func (a *app) verifyBundle(ctx context.Context, file, key, output string) error {
	b, err := bundle.Open(file)
	if err != nil {
		return use(err)
	}
	defer b.Close()
	public := b.PublicKey
	if key != "" {
		given, err := os.ReadFile(key)
		if err != nil {
			return unreachable(fmt.Errorf("the public key: %w", err))
		}
		public = string(given)
	}
	r, err := ledger.VerifyProof(ctx, b, b.Proof, public, b)
	if err != nil {
		return coded(err)
	}
	if err := a.printReport(r, output); err != nil {
		return err
	}
	name, err := ledger.KeyName(public)
	if err != nil {
		return coded(err)
	}
	if key == "" {
		fmt.Fprintf(a.err, "weir: with the key that the file brings, %s: compare it with one you trust, or give that with --key\n", printable(name))
	}
	return nil
}

// ledgerFlags are those of commands that need the log of seals.
func ledgerFlags(c *cobra.Command, log, key *string) {
	f := c.Flags()
	f.StringVar(log, "ledger", "", "`folder` of the log of seals (default: ledger in data, or beside --archive; with a bucket, here)")
	f.StringVar(key, "key", "", "public key `file` (default: keys/ledger.pub in data, or beside --archive; with a bucket, ledger.pub here)")
}
