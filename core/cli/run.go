package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/gateway"
)

// runEnv tells what runs which run it is.
const runEnv = "WEIR_RUN"

func (a *app) run() *cobra.Command {
	var path, tokenFile, run string
	var targets []string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "run [--target T]... -- COMMAND [ARGUMENT]...", Short: "Run a program that reaches targets through the gateway, without a change",
		Long: "Run a program with everything in its environment that clients of the targets look for (for PostgreSQL: PGHOST, PGPORT,\n" +
			"PGDATABASE, PGUSER, PGPASSWORD, PGSSLMODE, PGSSLROOTCERT). It gets a token of its own, as an agent in your name, for\n" +
			"these targets only, and all its sessions share one run id ($" + runEnv + "). Your own token is not passed on in the\n" +
			"environment; without --target the token is for all that you may open.",
		Example: "  weir run -- psql -c 'SELECT count(*) FROM orders'\n  weir run --target orders --ttl 30m -- python3 agent.py\n  weir sessions --run 01m83jjq6b8jy7qhpb1ejna3na",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			program, err := exec.LookPath(args[0])
			if err != nil {
				return use(err)
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			token, err := tokenOf(cmd.Context(), tokenFile)
			if err != nil {
				return err
			}
			ask := map[string]any{"targets": targets, "run": run}
			if ttl > 0 {
				ask["ttl"] = ttl.String()
			}
			var made gateway.NewRun
			if err := askGateway(cmd.Context(), cfg, token, http.MethodPost, "runs", ask, &made); err != nil {
				return err
			}
			env, err := environment(os.Environ(), &made)
			if err != nil {
				return use(err)
			}
			fmt.Fprintf(a.err, "weir: run %s, until %s\n", made.Run, made.Expires.Local().Format(time.RFC3339))
			return unreachable(fmt.Errorf("%s: %w", program, syscall.Exec(program, args, env)))
		},
	}
	configFlag(c, &path)
	tokenFlag(c, &tokenFile)
	f := c.Flags()
	f.SetInterspersed(false) // what follows the program is the program's
	f.StringArrayVar(&targets, "target", nil, "`target` that it may reach; may be repeated (default: all that you may)")
	f.StringVar(&run, "run", "", "`id` of the run (default: a new one)")
	f.Var((*duration)(&ttl), "ttl", "for how long its token is good (default: as long as yours)")
	return c
}

// environment is the environment of a run: what was there, less what is yours only, and what its targets' clients look for.
func environment(old []string, made *gateway.NewRun) ([]string, error) {
	set := map[string]string{runEnv: made.Run}
	by := map[string]string{}
	for _, t := range made.Targets {
		if len(t.Env) == 0 {
			return nil, fmt.Errorf("clients of %s (%s) find it by no environment variables", t.Name, t.Protocol)
		}
		for k, v := range t.Env {
			if was, ok := set[k]; ok && was != v && by[k] != t.Name {
				return nil, fmt.Errorf("%s and %s are found by the same variables (%s): name one by --target", by[k], t.Name, k)
			}
			set[k], by[k] = v, t.Name // an empty one is not passed on
		}
	}
	if len(by) == 0 {
		return nil, errors.New("there is nothing that it could reach")
	}
	env := slices.DeleteFunc(slices.Clone(old), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		_, ours := set[k]
		return ours || k == tokenEnv
	})
	for k, v := range set {
		if v != "" {
			env = append(env, k+"="+v)
		}
	}
	slices.Sort(env)
	return env, nil
}
