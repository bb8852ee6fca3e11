package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/replay"
)

func (a *app) show() *cobra.Command {
	var path, output, dir string
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one session as a timeline: commands, verdicts, results",
		Example: "  weir show 01jd2t0000000000000000000\n  weir show 01jd2t0000000000000000000 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.play(cmd.Context(), path, dir, args[0], func(ctx context.Context, s core.Store, o replay.Options) error {
				if output == "json" {
					return replay.JSON(ctx, a.out, s, args[0], o)
				}
				return replay.Show(ctx, a.out, s, args[0], o)
			})
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	a.archiveFlag(c, &dir)
	return c
}

func (a *app) replay() *cobra.Command {
	var path, format, dir string
	var o replay.Options
	var gap duration
	c := &cobra.Command{
		Use:   "replay ID",
		Short: "Play one session, as the loop saw it",
		Example: `  weir replay 01jd2t0000000000000000000 --speed 2
  weir replay 01jd2t0000000000000000000 --format json | jq .kind`,
		Args: cobra.ExactArgs(1),
		PreRunE: func(*cobra.Command, []string) error {
			if o.Speed < 0 {
				return use(errors.New("--speed cannot be negative"))
			}
			return oneOf("--format", format, "text", "json")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.play(cmd.Context(), path, dir, args[0], func(ctx context.Context, s core.Store, found replay.Options) error {
				o.Reader, o.Color, o.MaxGap = found.Reader, found.Color, time.Duration(gap)
				if format == "json" {
					return replay.JSON(ctx, a.out, s, args[0], o)
				}
				return replay.Text(ctx, a.out, s, args[0], o)
			})
		},
	}
	configFlag(c, &path)
	a.archiveFlag(c, &dir)
	f := c.Flags()
	f.Float64Var(&o.Speed, "speed", 0, "how many `times` faster than it happened (default: without pauses)")
	f.Var(&gap, "max-pause", "the longest pause, with --speed")
	f.BoolVar(&o.Follow, "follow", false, "wait for more until the session is over")
	f.StringVar(&format, "format", "text", "`format` of the output: text or json")
	return c
}

func (a *app) archiveFlag(c *cobra.Command, dir *string) {
	a.identityFlag(c)
	c.Flags().StringVar(dir, "archive", "", "archive `folder`, or s3://BUCKET/PREFIX with AWS_* in the environment (default: the configuration's)")
}

// play opens the archive and finds out who can read the session's bytes.
func (a *app) play(ctx context.Context, config, dir, id string, f func(context.Context, core.Store, replay.Options) error) error {
	store, err := a.openReading(ctx, config, dir)
	if err != nil {
		return err
	}
	defer store.Close()
	o := replay.Options{Color: a.terminal() && os.Getenv("NO_COLOR") == ""}
	for r, err := range replay.Records(ctx, store, id) {
		if err != nil {
			return missing(err, id)
		}
		o.Reader = a.readerOf(r)
		break
	}
	return missing(f(ctx, store, o), id)
}

// missing says what an unknown session may mean.
func missing(err error, id string) error {
	if errors.Is(err, core.ErrNoSession) {
		return no(fmt.Errorf("there is no session %s in the archive; what a running gateway recorded is there after a moment", printable(id)))
	}
	return coded(err)
}

// readerOf finds out who can read a session's bytes, from its first record.
func (a *app) readerOf(r *core.Record) core.Reader {
	var open struct {
		Protocol string `json:"protocol"`
	}
	_ = json.Unmarshal(r.Facts, &open) // else nobody can
	return a.reader(open.Protocol)
}

func (a *app) reader(protocol string) core.Reader {
	for _, p := range a.Protocols {
		if p.Name() == protocol {
			r, _ := p.(core.Reader)
			return r
		}
	}
	return nil
}

// terminal reports whether a person reads the output.
func (a *app) terminal() bool {
	f, ok := a.out.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
