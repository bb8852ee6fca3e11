package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core"
)

// approvalsWhat is what the commands about approvals share.
type approvalsWhat struct{ config, tokenFile string }

func (a *app) approvals() *cobra.Command {
	var w approvalsWhat
	long := "See and answer the queue of held commands. Who you are stands in a token: --token-file, $" + tokenEnv + " or weir login. You see what\n" +
		"you have asked for, and what you may answer: a rule names the groups or subjects that may, and nobody answers what is\n" +
		"asked in their own name."
	list := a.approvalsList(&w)
	c := &cobra.Command{
		Use: "approvals", Short: "The queue of held commands", Long: long,
		Example: "  weir approvals\n  weir approvals approve 7kq2-m9xd-c4ta --reason 'agreed in the change meeting'\n  weir approvals deny 7kq2-m9xd-c4ta --reason 'name the rows'",
		Args:    cobra.NoArgs, RunE: list.RunE, PreRunE: list.PreRunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, a.approvalsShow(&w), a.approvalsAnswer(&w, true), a.approvalsAnswer(&w, false))
	return c
}

func (w *approvalsWhat) flags(c *cobra.Command) {
	configFlag(c, &w.config)
	tokenFlag(c, &w.tokenFile)
}

func (a *app) approvalsList(w *approvalsWhat) *cobra.Command {
	var output string
	var all bool
	c := &cobra.Command{
		Use: "list", Short: "List what waits, and what is approved and not used yet",
		Example: "  weir approvals list\n  weir approvals list --all -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			every := []core.Approval{}
			if err := w.ask(cmd.Context(), http.MethodGet, "", nil, &every); err != nil {
				return err
			}
			list := []core.Approval{}
			for _, x := range every {
				if all || x.State == core.ApprovalWaiting || x.State == core.ApprovalApproved {
					list = append(list, x)
				}
			}
			if output == "json" {
				return a.printJSON(list)
			}
			rows := make([][]string, len(list))
			for i, x := range list {
				var rules, approvers []string
				for _, h := range x.Holds {
					rules = append(rules, h.Rule)
					if h.Approved == nil {
						approvers = append(approvers, strings.Join(h.Approvers, "|"))
					}
				}
				rows[i] = []string{
					x.ID, string(x.State), x.Expires.Local().Format(time.DateTime), x.Identity, x.Target, strings.Join(rules, ","),
					cmp.Or(strings.Join(approvers, ","), "-"), oneLine(x.Text, 80),
				}
			}
			return a.table([]string{"ID", "STATE", "UNTIL", "IDENTITY", "TARGET", "RULE", "APPROVERS", "STATEMENT"}, rows)
		},
	}
	w.flags(c)
	outputFlag(c, &output)
	c.Flags().BoolVar(&all, "all", false, "also what was denied, used or has expired")
	return c
}

func (a *app) approvalsShow(w *approvalsWhat) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "show ID", Short: "Show one request: who asks, and all that is to run",
		Example: "  weir approvals show 7kq2-m9xd-c4ta",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var x core.Approval
			if err := w.ask(cmd.Context(), http.MethodGet, args[0], nil, &x); err != nil {
				return err
			}
			if output == "json" {
				return a.printJSON(x)
			}
			a.printApproval(&x)
			return nil
		},
	}
	w.flags(c)
	outputFlag(c, &output)
	return c
}

func (a *app) approvalsAnswer(w *approvalsWhat, approve bool) *cobra.Command {
	var reason, output string
	word, done := "approve", "approved"
	if !approve {
		word, done = "deny", "denied"
	}
	c := &cobra.Command{
		Use: word + " ID", Args: cobra.ExactArgs(1),
		Short:   map[bool]string{true: "Let a held command run, once", false: "Refuse a held command, with a reason that its client sees"}[approve],
		Example: "  weir approvals " + word + " 7kq2-m9xd-c4ta --reason 'change 4711'",
		RunE: func(cmd *cobra.Command, args []string) error {
			var x core.Approval
			if err := w.ask(cmd.Context(), http.MethodPost, args[0]+"/"+word, map[string]string{"reason": reason}, &x); err != nil {
				return err
			}
			if output == "json" {
				return a.printJSON(x)
			}
			said := done
			if approve && x.State == core.ApprovalWaiting {
				said = "approved by you; it still needs others"
			}
			fmt.Fprintf(a.out, "%s: %s: %s at %s: %s\n", x.ID, said, printable(x.Identity), printable(x.Target), printable(oneLine(x.Text, 120)))
			return nil
		},
	}
	w.flags(c)
	outputFlag(c, &output)
	c.Flags().StringVar(&reason, "reason", "", "`why`; it is recorded, and the client sees it when it is refused")
	if !approve {
		_ = c.MarkFlagRequired("reason")
	}
	return c
}

// approvalID is what the id of a request looks like; none: the whole queue.
var approvalID = regexp.MustCompile(`^[0-9a-z-]{0,32}$`)

// ask asks the gateway that runs with this configuration.
func (w *approvalsWhat) ask(ctx context.Context, method, what string, body, into any) error {
	cfg, err := load(w.config)
	if err != nil {
		return err
	}
	token, err := tokenOf(ctx, w.tokenFile)
	if err != nil {
		return err
	}
	id, _, _ := strings.Cut(what, "/")
	if !approvalID.MatchString(id) {
		return use(fmt.Errorf("%q is no id of a request: weir approvals lists them", printable(id)))
	}
	return askGateway(ctx, cfg, token, method, "approvals/"+what, body, into)
}

// printApproval shows a request to a person.
func (a *app) printApproval(x *core.Approval) {
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(a.out, "%-10s %s\n", name, printable(value))
		}
	}
	when := func(t time.Time) string { return t.Local().Format(time.RFC3339) }
	field("approval", x.ID)
	field("state", string(x.State))
	field("asked", when(x.Created)+", until "+when(x.Expires))
	who := x.Identity + " (" + strings.TrimSpace(x.Kind+" of "+x.Issuer) + ")"
	if x.Run != "" {
		who += ", run " + x.Run
	}
	field("identity", who)
	field("target", x.Target+" ("+x.Protocol+")")
	field("session", x.Session)
	for _, h := range x.Holds {
		text := h.Rule
		if h.Reason != "" {
			text += ": " + h.Reason
		}
		field("rule", text)
		if h.Approved != nil {
			field("approved", h.Approved.String())
		} else {
			field("approvers", strings.Join(h.Approvers, " or "))
		}
	}
	if x.Denied != nil {
		field("denied", x.Denied.String())
	}
	if x.Used != nil {
		field("used", when(*x.Used))
	}
	var effects []string
	for _, e := range x.Effects {
		effects = append(effects, string(e))
	}
	field("effects", strings.Join(effects, ", "))
	field("resources", strings.Join(x.Resources, ", "))
	field("digest", x.Digest)
	fmt.Fprintln(a.out)
	for line := range strings.Lines(x.Text) {
		fmt.Fprintln(a.out, printable(strings.TrimRight(line, "\n")))
	}
	if len(x.Params) > 0 {
		fmt.Fprintln(a.out, "with "+printable(string(x.Params)))
	}
	if x.Cut {
		fmt.Fprintln(a.out, "(this is not all of it: it is too long to show)")
	}
}

// oneLine makes a text fit a line of a table.
func oneLine(s string, most int) string {
	r := []rune(strings.Join(strings.Fields(s), " "))
	if len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return string(r)
}
