package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/replay"
)

// usualPause is the longest pause of a replay that nobody has said another of.
const usualPause = 5 * time.Second

func (a *app) show() *cobra.Command {
	var path, output, dir string
	c := &cobra.Command{
		Use:     "show ID",
		Short:   "Show one session as a timeline: commands, verdicts, results",
		Example: "  weir show 01jd2t0000000000000000000\n  weir show 01jd2t0000000000000000000 -o json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.play(cmd.Context(), "show", path, dir, args[0], func(ctx context.Context, s core.Store, o replay.Options) error {
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
	gap := duration(usualPause)
	var channel int
	var s served
	c := &cobra.Command{
		Use:   "replay ID",
		Short: "Play one session, as the loop saw it; with --serve to a client, in the place of the target",
		Long: "Play one session, as the loop saw it. With --serve, sessions are played to clients: each connection gets the next of them, from its\n" +
			"beginning, and an unchanged client that asks what it asked gets byte for byte what it got, without a target. One that asks for\n" +
			"something else is told so in its protocol's own error, and both sides are printed. Nobody is asked who they are, so the\n" +
			"address is one of this machine only.",
		Example: `  weir replay 01jd2t0000000000000000000 --speed 2
  weir replay 01jd2t0000000000000000000 --format json | jq .kind
  weir replay 01jd2t0000000000000000000 --format asciicast > session.cast
  weir replay 01jd2t0000000000000000000 --serve 127.0.0.1:15433 --once`,
		Args: cobra.MinimumNArgs(1),
		PreRunE: func(cmd *cobra.Command, args []string) error {
			if o.Speed < 0 {
				return use(errors.New("--speed cannot be negative"))
			}
			for _, name := range []string{"match", "once"} {
				if s.address == "" && cmd.Flags().Changed(name) {
					return use(fmt.Errorf("--%s goes with --serve", name))
				}
			}
			for _, name := range []string{"speed", "max-pause", "follow", "format", "channel"} {
				if s.address != "" && cmd.Flags().Changed(name) {
					return use(fmt.Errorf("--%s does not go with --serve", name))
				}
			}
			if s.address == "" && len(args) > 1 {
				return use(errors.New("one session is played at a time; --serve takes several"))
			}
			return errors.Join(oneOf("--format", format, a.formats()...), oneOf("--match", s.match, string(core.MatchOrder), string(core.MatchText)))
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if s.address != "" {
				return a.rehearse(cmd.Context(), path, dir, args, s)
			}
			return a.play(cmd.Context(), "replay", path, dir, args[0], func(ctx context.Context, s core.Store, found replay.Options) error {
				o.Reader, o.Player, o.Color, o.MaxGap = found.Reader, found.Player, found.Color, time.Duration(gap)
				o.Playing = core.Playing{Format: format, Screen: a.terminal(), Channel: channel}
				if cmd.Flags().Changed("max-pause") {
					o.Playing.Pause = o.MaxGap
				}
				switch format {
				case "json":
					return replay.JSON(ctx, a.out, s, args[0], o)
				case "csv":
					return replay.CSV(ctx, a.out, s, args[0], o)
				}
				if format != "text" && (o.Player == nil || !slices.Contains(o.Player.Formats(), format)) {
					return use(fmt.Errorf("session %s cannot be shown as %s: it is of another protocol", printable(args[0]), format))
				}
				return replay.Text(ctx, a.out, s, args[0], o)
			})
		},
	}
	configFlag(c, &path)
	a.archiveFlag(c, &dir)
	f := c.Flags()
	f.Float64Var(&o.Speed, "speed", 0, "how many `times` faster than it happened (default: without pauses)")
	f.Var(&gap, "max-pause", "the longest pause, with --speed; 0 is as it was")
	f.IntVar(&channel, "channel", -1, "the `number` of the channel to show, where a connection has several at a time (default: the first with a program)")
	f.BoolVar(&o.Follow, "follow", false, "wait for more until the session is over")
	f.StringVar(&format, "format", "text", "`format` of the output: text, json, csv (the rows that came back); of a session with a terminal asciicast and raw (what came, with all\nthat drives a terminal), and files (those that were carried)")
	f.StringVar(&s.address, "serve", "", "play it to clients at this `host:port` of this machine")
	f.StringVar(&s.match, "match", string(core.MatchOrder), "with --serve, `how` requests are compared: order (the same ones, in order) or text (the same text gets the same answer, in any order)")
	f.BoolVar(&s.once, "once", false, "with --serve, end when each session has been played to a client; exit 1 when one of them asked for something else")
	return c
}

func (a *app) archiveFlag(c *cobra.Command, dir *string) {
	a.identityFlag(c)
	c.Flags().StringVar(dir, "archive", "", "archive `folder`, or s3://BUCKET/PREFIX with AWS_* in the environment (default: the configuration's)")
}

// play opens the archive and finds out who can read the session's bytes.
func (a *app) play(ctx context.Context, how, config, dir, id string, f func(context.Context, core.Store, replay.Options) error) error {
	store, err := a.openReading(ctx, config, dir, gateway.Reading{Sessions: []string{id}, How: how})
	if err != nil {
		return err
	}
	defer store.Close()
	o := replay.Options{Color: a.terminal() && os.Getenv("NO_COLOR") == ""}
	for r, err := range replay.Records(ctx, store, id) {
		if err != nil {
			return missing(err, id)
		}
		o.Reader, o.Player = a.readerOf(r), a.playerOf(r)
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
func (a *app) readerOf(r *core.Record) core.Reader { return a.reader(protocolOf(r)) }

// playerOf finds out who shows a session in a way of its own, from its first record.
func (a *app) playerOf(r *core.Record) core.Player {
	for _, p := range a.Protocols {
		if player, ok := p.(core.Player); ok && p.Name() == protocolOf(r) {
			return player
		}
	}
	return nil
}

// formats are all that --format knows.
func (a *app) formats() []string {
	list := []string{"text", "json", "csv"}
	for _, p := range a.Protocols {
		if player, ok := p.(core.Player); ok {
			list = append(list, player.Formats()...)
		}
	}
	return list
}

// protocolOf returns a session's protocol, from its first record.
func protocolOf(r *core.Record) string {
	var open struct {
		Protocol string `json:"protocol"`
	}
	_ = json.Unmarshal(r.Facts, &open) // else nobody can read it
	return open.Protocol
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
