package cli

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/ledger"
)

func (a *app) hold() *cobra.Command {
	var path, output, by, why string
	c := &cobra.Command{
		Use:   "hold [ID...] [--reason TEXT]",
		Short: "Put sessions under legal hold: nothing removes them until they are released; without an ID, list those that are",
		Long: "Put sessions under legal hold: no retention and no purge removes them until they are released. Who held them, when and\n" +
			"why is a leaf of the signed log, and so is their release. Without an ID: list what is held now.",
		Example: "  weir hold 01jd2t0000000000000000000 --reason 'case 4711'\n  weir hold",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if len(ids) == 0 {
				return a.held(path, output)
			}
			return a.standing(cmd, path, "hold", by, why, ids)
		},
	}
	outputFlag(c, &output)
	standingFlags(c, &path, &by, &why)
	return c
}

func (a *app) releaseHold() *cobra.Command {
	var path, by, why string
	c := &cobra.Command{
		Use:     "release ID... [--reason TEXT]",
		Short:   "End the legal hold of sessions",
		Example: "  weir release 01jd2t0000000000000000000 --reason 'case 4711 is closed'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return a.standing(cmd, path, "release", by, why, ids)
		},
	}
	standingFlags(c, &path, &by, &why)
	return c
}

func standingFlags(c *cobra.Command, path, by, why *string) {
	configFlag(c, path)
	c.Flags().StringVar(by, "by", "", "`who` does it (default: the user of this machine)")
	c.Flags().StringVar(why, "reason", "", "the `reason`, for the log")
}

func (a *app) standing(cmd *cobra.Command, path, what, by, why string, ids []string) error {
	if why = strings.TrimSpace(why); why == "" && what == "hold" {
		fmt.Fprintln(a.err, "weir: no reason is given, and none will stand in the signed log: --reason TEXT")
	}
	cfg, err := load(path)
	if err != nil {
		return err
	}
	out, err := a.ask(cmd.Context(), cfg, deed{Do: what, Sessions: ids, By: cmp.Or(by, operator()), Why: why})
	if err != nil {
		return coded(err)
	}
	if out.Error != "" {
		return out.failed()
	}
	fmt.Fprintf(a.out, "%s: %s\n", map[string]string{"hold": "held", "release": "released"}[what], plural(len(ids), "session"))
	return nil
}

// failed is the error with its exit code.
func (d *done) failed() error {
	if d.No {
		return no(errors.New(d.Error))
	}
	return unreachable(errors.New(d.Error))
}

// operator is the user that this process runs as.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid " + strconv.Itoa(os.Getuid())
}

// heldSession is a line of the list.
type heldSession struct {
	Session string    `json:"session"`
	Since   time.Time `json:"since"`
	By      string    `json:"by"`
	Why     string    `json:"why"`
}

// held lists what is held now, with a gateway or without one.
func (a *app) held(path, output string) error {
	cfg, err := load(path)
	if err != nil {
		return err
	}
	list, err := heldNow(ledgerDir(cfg))
	if err != nil {
		return unreachable(err)
	}
	if output == "json" {
		return a.printJSON(list)
	}
	rows := make([][]string, len(list))
	for i, h := range list {
		rows[i] = []string{h.Session, h.Since.Local().Format(time.DateTime), h.By, h.Why}
	}
	return a.table([]string{"SESSION", "HELD SINCE", "BY", "REASON"}, rows)
}

// heldNow reads what is held from the ledger in a folder.
func heldNow(dir string) ([]heldSession, error) {
	now := map[string]heldSession{}
	err := ledger.Each(dir, func(l ledger.Leaf) error {
		switch l.Kind {
		case ledger.LeafHold:
			now[l.Session] = heldSession{l.Session, l.Time, l.By, l.Why}
		case ledger.LeafRelease:
			delete(now, l.Session)
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	list := make([]heldSession, 0, len(now))
	for _, h := range now {
		list = append(list, h)
	}
	slices.SortFunc(list, func(x, y heldSession) int { return x.Since.Compare(y.Since) })
	return list, nil
}
