package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/archive/bundle"
	"github.com/weir-gateway/weir/core/archive/s3"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
)

// worst is how many bad places are printed: the first ones say what happened.
const worst = 20

func (a *app) verify() *cobra.Command {
	var path, output, dir, log, key string
	var keys []string
	var enough int
	var all bool
	c := &cobra.Command{
		Use:   "verify [ID... | --all | FILE.weir]",
		Short: "Prove that nothing was changed, dropped, reordered or cut",
		Long: "Prove, without a gateway and with the public key alone, that the archive holds what was sealed. With --all also that no\n" +
			"sealed session is missing. A file that export wrote is proved the same way. With --witness also that the log goes on from what the\n" +
			"witness has cosigned, so that nobody has written it anew, not even with its own key. The exit code is 1, and the first bad places are printed, when something does not hold.",
		Example: `  weir verify --all
  weir verify 01jd2t0000000000000000000
  weir verify session.weir --key ledger.pub
  weir verify --all --archive /mnt/copy/archive --key ledger.pub
  weir verify --all --archive s3://evidence/weir/ --ledger ledger --key ledger.pub
  weir verify --all --witness witness.example+4a1c2f3b+BHfS9MwN91Ezue2AdWMHYWDpQK3h3NKjyID8OXWs3Jua`,
		RunE: func(cmd *cobra.Command, ids []string) error {
			witnesses, err := parseWitnesses(keys, enough, cmd.Flags().Changed("witnesses"))
			if err != nil {
				return use(err)
			}
			if len(ids) == 1 && !all && bundle.Is(ids[0]) {
				if len(witnesses) > 0 {
					return use(errors.New("--witness proves a whole log, and the file holds one session: verify the archive"))
				}
				return a.verifyBundle(cmd.Context(), ids[0], key, output)
			}
			if all == (len(ids) > 0) {
				return use(errors.New("verify needs session ids, or --all"))
			}
			began := clock()
			store, ring, err := a.places(cmd.Context(), path, dir, &log, &key)
			if err != nil {
				return err
			}
			defer store.Close()
			if all {
				ids = nil // which is how the ledger spells "every session"
			}
			public, err := os.ReadFile(key)
			if err != nil {
				return unreachable(fmt.Errorf("the public key: %w", err))
			}
			report, err := ledger.Verify(cmd.Context(), ledger.VerifyConfig{
				Store: store, LedgerDir: log, PublicKey: strings.TrimSpace(string(public)), Sessions: ids, Keys: ring,
				Witnesses: witnesses, Enough: enough,
			})
			if err != nil {
				return coded(err)
			}
			if all && dir == "" { // of a copy the gateway need not know
				if err := keepVerified(path, report, began); err != nil {
					fmt.Fprintf(a.err, "weir: that it was verified cannot be noted for the gateway's metrics: %v\n", err)
				}
			}
			return a.printReport(report, output)
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	a.archiveFlag(c, &dir)
	ledgerFlags(c, &log, &key)
	c.Flags().StringArrayVar(&keys, "witness", nil, "verifier `key` of a witness that must have cosigned the log; once for each")
	c.Flags().IntVar(&enough, "witnesses", 0, "how `many` of them must have (default: all)")
	c.Flags().BoolVar(&all, "all", false, "every session, and the log of seals as a whole")
	return c
}

// parseWitnesses reads the verifier keys of witnesses, and how many of them are enough.
func parseWitnesses(keys []string, enough int, counted bool) (all []*ledger.Witness, err error) {
	for _, k := range keys {
		w, err := ledger.ParseWitness(k)
		if err != nil {
			return nil, fmt.Errorf("--witness %s: %s", printable(k), strings.TrimPrefix(err.Error(), "ledger: "))
		}
		if slices.ContainsFunc(all, w.Same) {
			return nil, fmt.Errorf("--witness %s is given twice: a witness counts once", printable(k))
		}
		all = append(all, w)
	}
	if counted && (enough < 1 || enough > len(all)) {
		return nil, fmt.Errorf("--witnesses %d: how many of those given with --witness must have cosigned, from 1 to %d", enough, len(all))
	}
	return all, nil
}

// places opens the archive, and fills in where log and key are. Without an archive the configuration says it; with one no
// configuration is needed, so that a copy can be verified elsewhere.
func (a *app) places(ctx context.Context, config, where string, log, key *string) (stored, *keyring.Ring, error) {
	beside, public := filepath.Dir(where), filepath.Join("keys", "ledger.pub")
	if _, _, bucket := s3.Location(where); bucket {
		beside, public = ".", "ledger.pub"
	}
	var reader keyring.Reader
	var err error
	if where == "" {
		c, cerr := load(config)
		if cerr != nil {
			return nil, nil, cerr
		}
		beside = c.Data
		reader, err = a.openReadingOf(ctx, c)
	} else {
		reader, err = a.openCopy(ctx, where)
	}
	if err != nil {
		return nil, nil, err
	}
	if *log == "" {
		*log = filepath.Join(beside, "ledger")
	}
	if *key == "" {
		*key = filepath.Join(beside, public)
	}
	store := reader.Store.(stored)
	if where != "" { // a copy without recording keys is proved all the same
		err := store.Keys(ctx, func(string) error { return errEnough })
		if err == nil {
			return store, nil, nil
		}
		if !errors.Is(err, errEnough) {
			return nil, nil, errors.Join(coded(err), store.Close())
		}
	}
	return store, reader.Ring, nil
}

var errEnough = errors.New("enough")

func (a *app) printReport(r ledger.Report, output string) error {
	if output == "json" {
		r.Open, r.Problems, r.Removed = append([]string{}, r.Open...), append([]ledger.Problem{}, r.Problems...), append([]ledger.Removed{}, r.Removed...) // lists, never null
		r.Witnessed = append([]ledger.Witnessed{}, r.Witnessed...)
		r.Shredded = append([]ledger.Removed{}, r.Shredded...)
		err := a.printJSON(struct {
			OK bool `json:"ok"`
			ledger.Report
		}{r.OK(), r})
		if err == nil && !r.OK() {
			err = &exit{exitNo, nil}
		}
		return err
	}
	what := fmt.Sprintf("%s, %s, %s, %s", plural(r.Sessions, "session"), plural(r.Blocks, "block"), plural(r.Records, "record"), size(r.Bytes))
	if len(r.Open) > 0 {
		what += fmt.Sprintf("; %d still open", len(r.Open))
	}
	if r.Unread > 0 {
		what += fmt.Sprintf("; %d encrypted, and not opened", r.Unread)
	}
	if len(r.Shredded) > 0 {
		what += fmt.Sprintf("; %d shredded, with a signed leaf each", len(r.Shredded))
	}
	if len(r.Removed) > 0 {
		what += fmt.Sprintf("; %d removed, with a signed tombstone each", len(r.Removed))
	}
	cosigned := func() {
		for _, w := range r.Witnessed {
			fmt.Fprintf(a.out, "cosigned: %d of the log's %d leaves, by %s at %s\n", w.Leaves, r.Leaves, printable(w.Witness), w.Time.Format(time.RFC3339))
		}
	}
	if r.OK() {
		fmt.Fprintf(a.out, "verified: %s\n", what)
		cosigned()
		return nil
	}
	fmt.Fprintf(a.out, "NOT verified: %s in %s\n", plural(len(r.Problems), "bad place"), what)
	for i, p := range r.Problems {
		if i == worst {
			fmt.Fprintf(a.out, "  and %d more\n", len(r.Problems)-worst)
			break
		}
		fmt.Fprintf(a.out, "  %s\n", printable(p.String()))
	}
	cosigned()
	return &exit{exitNo, nil}
}

// size writes a number of bytes for people.
func size(n int64) string {
	const step = 1024
	if n < step {
		return plural(int(n), "byte")
	}
	f, unit := float64(n), 0
	for f >= step && unit < 4 {
		f, unit = f/step, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGT"[unit])
}
