package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/gateway"
	"github.com/weir-gateway/weir/core/ledger"
)

// status is what `weir status` tells.
type status struct {
	*gateway.Status         // of an archive worker there is none
	Evidence        *health `json:"evidence"`
}

func (a *app) status() *cobra.Command {
	var w adminWhat
	var output string
	c := &cobra.Command{
		Use: "status", Short: "Show whether anything is lost or behind, and the listeners, sessions and lock-outs of the running gateway",
		Long: "Show whether anything is lost or behind, and the listeners, sessions and lock-outs of the running gateway, or how the\n" +
			"archive worker is. The exit code is 1 when something needs a hand; what does is said at the end.",
		Example: "  weir status\n  weir status -o json | jq .evidence",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(w.config)
			if err != nil {
				return err
			}
			s := status{Status: &gateway.Status{}}
			if err := w.ask(cmd.Context(), http.MethodGet, "status", nil, s.Status); errors.Is(err, errNotOurs) {
				s.Status = nil
				if s.Evidence, _ = askHealth(cmd.Context(), cfg); s.Evidence == nil || s.Evidence.SpoolLimit > 0 {
					return err
				}
			} else if err != nil {
				return err
			} else if s.Evidence, err = askHealth(cmd.Context(), cfg); err != nil {
				return err
			}
			if s.Status != nil && !s.Ready {
				s.Evidence.Hands = append([]string{"the gateway takes no clients: " + strings.Join(s.Why, "; ")}, s.Evidence.Hands...)
			}
			if output == "json" {
				err = a.printJSON(s)
			} else {
				a.printStatus(s)
			}
			if err == nil && len(s.Evidence.Hands) > 0 {
				err = &exit{exitNo, nil}
			}
			return err
		},
	}
	w.flags(c)
	outputFlag(c, &output)
	return c
}

func (a *app) printStatus(s status) {
	field := func(name, text string) { fmt.Fprintf(a.out, "%-12s %s\n", name, printable(text)) }
	if g := s.Status; g != nil {
		field("gateway", strings.TrimSpace(g.Gateway+" "+g.Version))
		field("started", g.Started.Local().Format(time.DateTime))
		ready := "yes"
		if !g.Ready {
			ready = "no: " + strings.Join(g.Why, "; ")
		}
		field("ready", ready)
	}
	s.Evidence.lines(field)
	if g := s.Status; g != nil {
		field("connections", fmt.Sprint(g.Connections))
		field("sessions", fmt.Sprint(g.Sessions))
		for _, l := range g.Listeners {
			field("listener", l.Address+" "+l.Protocol+": "+strings.Join(l.Targets, ", "))
		}
		for _, l := range g.Locked {
			field("locked out", l.Source+" until "+l.Until.Local().Format(time.DateTime)+" (weir unlock "+l.Source+")")
		}
	}
	for _, hand := range s.Evidence.Hands {
		field("attention", hand)
	}
}

func (a *app) reloadNow() *cobra.Command {
	var w adminWhat
	c := &cobra.Command{
		Use: "reload", Short: "Have the running gateway read its configuration again",
		Long: "Have the running gateway read its configuration again, as SIGHUP does. When anything is wrong nothing changes, and this\n" +
			"command says what.",
		Example: "  weir check && weir reload",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var done gateway.Done
			if err := w.ask(cmd.Context(), http.MethodPost, "reload", nil, &done); err != nil {
				return err
			}
			fmt.Fprintln(a.out, "reloaded")
			return nil
		},
	}
	w.flags(c)
	return c
}

func (a *app) unlock() *cobra.Command {
	var w adminWhat
	c := &cobra.Command{
		Use: "unlock ADDRESS", Short: "Let an address sign in again that is locked out: weir status lists them",
		Example: "  weir unlock 203.0.113.7\n  weir unlock 2001:db8:1:2::/64",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var done gateway.Done
			if err := w.ask(cmd.Context(), http.MethodPost, "locks/release", map[string]string{"source": args[0]}, &done); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "unlocked: %s\n", printable(args[0]))
			return nil
		},
	}
	w.flags(c)
	return c
}

func (a *app) sessionsEnd() *cobra.Command {
	var w adminWhat
	var why string
	c := &cobra.Command{
		Use: "end ID...", Short: "End open sessions at once; their clients are told, with the reason",
		Long: "End open sessions of the running gateway at once. The client is told in its protocol's own words, with the reason. The\n" +
			"session is sealed as killed, and who ended it is recorded: weir sessions --protocol admin.",
		Example: "  weir sessions end 01jd2t0000000000000000000 --reason 'it runs in circles'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			for _, id := range ids {
				if !ledger.ValidSession(id) {
					return use(fmt.Errorf("%q is no id of a session: weir sessions --live lists them", printable(id)))
				}
			}
			var errs []error
			for _, id := range ids {
				var s gateway.Live
				if err := w.ask(cmd.Context(), http.MethodPost, "sessions/"+id+"/end", map[string]string{"reason": why}, &s); err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", id, err))
					continue
				}
				fmt.Fprintf(a.out, "ended: %s of %s at %s\n", s.ID, printable(s.Identity), printable(s.Target))
			}
			return errors.Join(errs...)
		},
	}
	w.flags(c)
	c.Flags().StringVar(&why, "reason", "", "`why`; the client sees it, and it is recorded")
	return c
}
