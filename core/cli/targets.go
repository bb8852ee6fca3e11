package cli

import (
	"cmp"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/gateway"
)

func (a *app) targets() *cobra.Command {
	var path, tokenFile, output string
	c := &cobra.Command{
		Use: "targets", Short: "Show what you may reach, how, and what is masked or held there",
		Long: "Show what you may reach, with a line to copy for each target, and what its rules mask, hold or refuse as far as that\n" +
			"can be told beforehand: a rule may depend on who you are and on what you ask. The running gateway is asked, with\n" +
			"--token-file, $" + tokenEnv + " or what weir login keeps.",
		Example: "  weir targets\n  weir targets -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(path)
			if err != nil {
				return err
			}
			token, err := tokenOf(cmd.Context(), tokenFile)
			if err != nil {
				return err
			}
			list := []gateway.Reachable{}
			if err := askGateway(cmd.Context(), cfg, token, http.MethodGet, "targets", nil, &list); err != nil {
				return err
			}
			if output == "json" {
				return a.printJSON(list)
			}
			for i, t := range list {
				if i > 0 {
					fmt.Fprintln(a.out)
				}
				a.printTarget(&t)
			}
			return nil
		},
	}
	configFlag(c, &path)
	tokenFlag(c, &tokenFile)
	outputFlag(c, &output)
	return c
}

func (a *app) printTarget(t *gateway.Reachable) {
	fmt.Fprintf(a.out, "%s (%s)\n", printable(t.Name), printable(t.Protocol))
	say := func(what, text string) {
		if text != "" {
			fmt.Fprintf(a.out, "  %-8s %s\n", what, printable(text))
		}
	}
	why := strings.TrimSuffix(cmp.Or(t.Reason, t.Rule)+"; "+t.Hint, "; ")
	switch t.Access {
	case "denied":
		say("denied", why)
		return
	case "approval":
		say("approval", "needed to connect: "+why)
	}
	say("connect", t.Connect)
	for _, n := range t.Notes {
		text := n.What
		if n.Detail != "" {
			text += " (" + n.Detail + ")"
		}
		say(n.Does, text+", by "+n.Step)
	}
}
