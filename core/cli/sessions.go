package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sort"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/gateway"
)

func (a *app) sessions() *cobra.Command {
	var path, output string
	var when span
	var q index.Query
	var live bool
	c := &cobra.Command{
		Use:   "sessions",
		Short: "List sessions: who, where, when, and how it ended",
		Long: "List sessions: who, where, when, and how it ended. --grep looks for the text in commands and in the names of what they\n" +
			"touch; and for its words in what was sent as parameters and what came back, where answers are recorded. Of each session\n" +
			"the first 4,000 different words of the first MiB can be found so.\n\n" +
			"What was done to the gateway itself is recorded, too, each act as a session of the protocol admin: tokens made and\n" +
			"revoked, approvals answered, sessions ended, reloads. They are listed with --protocol admin.",
		Example: `  weir sessions --since 1d --denied
  weir sessions --identity nightly-report --grep 'delete from' -o json
  weir sessions --resource public.orders --use write --since 7d
  weir sessions --live
  weir sessions --protocol admin --since 1d                 # who did what to the gateway`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := when.ask(&q); err != nil {
				return err
			}
			cfg, err := load(path)
			if err != nil {
				return err
			}
			if q.Protocol == "" {
				q.Except = gateway.AdminProtocol
			}
			var list []index.Session
			if live {
				list, err = listLive(cmd.Context(), cfg, q)
			} else {
				list, err = listSessions(cmd.Context(), cfg, q)
			}
			if err != nil {
				return coded(err)
			}
			if output == "json" {
				return a.printJSON(list)
			}
			return a.sessionTable(list)
		},
	}
	configFlag(c, &path)
	outputFlag(c, &output)
	f := c.Flags()
	f.StringVar(&q.Identity, "identity", "", "only of this `subject`")
	f.StringVar(&q.Target, "target", "", "only with this `target`")
	f.StringVar(&q.Protocol, "protocol", "", "only of this `protocol`")
	f.StringVar(&q.Run, "run", "", "only of this `run`")
	when.flags(c)
	f.StringVar(&q.Grep, "grep", "", "only with this `text` in a command, or with its words in what was sent or came back")
	touchFlags(c, &q)
	f.BoolVar(&q.Denied, "denied", false, "only with something refused")
	f.IntVar(&q.Limit, "limit", 1000, "the newest `n` at most")
	f.BoolVar(&live, "live", false, "only those that are open at the running gateway")
	c.AddCommand(a.sessionsEnd())
	return c
}

// span is when sessions began.
type span struct{ since, until string }

// touchFlags are those that name a resource.
func touchFlags(c *cobra.Command, q *index.Query) {
	c.Flags().StringVar(&q.Resource, "resource", "", "only where this `name` was touched: a table, say, with or without its schema")
	c.Flags().StringVar(&q.Use, "use", "", "only where something was touched in this `way`: read, write …")
}

func (w *span) flags(c *cobra.Command) {
	c.Flags().StringVar(&w.since, "since", "", "only sessions begun after: a `time` ago (1h, 7d), a date, or a time as in RFC 3339")
	c.Flags().StringVar(&w.until, "until", "", "only sessions begun before: as for --since")
}

// ask puts the span into a query.
func (w *span) ask(q *index.Query) (err error) {
	now := time.Now()
	if q.Since, err = moment("--since", w.since, now); err != nil {
		return err
	}
	q.Until, err = moment("--until", w.until, now)
	return err
}

// moment reads a point in time: so long ago, a date, or a time.
func moment(flag, s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := config.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, use(fmt.Errorf("%s: %q is not a time ago (7d), a date (2006-01-02) or a time (2006-01-02T15:04:05Z)", flag, s))
}

// listSessions asks the index, and the gateway for what is open and not in it yet. The oldest comes first.
func listSessions(ctx context.Context, c *config.Config, q index.Query) ([]index.Session, error) {
	list := []index.Session{}
	x, err := openIndex(ctx, c, true)
	switch {
	case err == nil:
		defer x.Close()
		if list, err = x.Sessions(ctx, q); err != nil {
			return nil, err
		}
	case errors.Is(err, os.ErrNotExist): // nothing was recorded here yet
	default:
		return nil, err
	}
	open, err := liveSessions(ctx, c)
	if err != nil && len(list) == 0 && x == nil {
		return nil, fmt.Errorf("there is no index in %s, and no gateway answers on %s", c.Data, c.Listen.Admin)
	}
	at := make(map[string]int, len(list))
	for i := range list {
		at[list[i].ID] = i
	}
	for _, l := range open {
		if i, ok := at[l.ID]; ok { // the gateway knows better
			if s := &list[i]; s.Ended == nil {
				s.Commands, s.Rows, s.Denied = l.Commands, l.Rows, l.Denied
			}
			continue
		}
		if wanted(l, q) {
			list = append(list, indexed(l))
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Started.Before(list[j].Started) })
	return list, nil
}

// wanted is the query for a session that is not in the index. Its texts are not known yet.
func wanted(l gateway.Live, q index.Query) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	return is(q.Identity, l.Identity) && is(q.Target, l.Target) && is(q.Protocol, l.Protocol) && is(q.Run, l.Run) && q.Grep == "" && q.Resource == "" && q.Use == "" &&
		(!q.Denied || l.Denied > 0) && (q.Since.IsZero() || !l.Started.Before(q.Since)) && (q.Until.IsZero() || l.Started.Before(q.Until))
}

// indexed is an open session as the index would list it.
func indexed(l gateway.Live) index.Session {
	return index.Session{
		ID: l.ID, Identity: l.Identity, Target: l.Target, Protocol: l.Protocol, Run: l.Run, Started: l.Started,
		Commands: l.Commands, Rows: l.Rows, Denied: l.Denied,
	}
}

// listLive asks the gateway only.
func listLive(ctx context.Context, c *config.Config, q index.Query) ([]index.Session, error) {
	if q.Grep != "" || q.Resource != "" || q.Use != "" {
		return nil, use(errors.New("--live knows no texts yet: leave out --grep, --resource and --use"))
	}
	open, err := liveSessions(ctx, c)
	if err != nil {
		return nil, err
	}
	list := []index.Session{}
	for _, l := range open {
		if wanted(l, q) {
			list = append(list, indexed(l))
		}
	}
	if q.Limit > 0 && len(list) > q.Limit {
		list = list[len(list)-q.Limit:]
	}
	return list, nil
}

// liveSessions asks the gateway that runs on this machine, if it does: without saying who asks, as long as nobody has to.
func liveSessions(ctx context.Context, c *config.Config) ([]gateway.Live, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	list := []gateway.Live{}
	err := askGateway(ctx, c, "", http.MethodGet, "sessions", nil, &list)
	var x *exit
	if errors.As(err, &x) && x.code == exitNo { // there is a policy for it
		token, err := adminToken(ctx, c, "")
		if err != nil {
			return nil, err
		}
		return list, askGateway(ctx, c, token, http.MethodGet, "sessions", nil, &list)
	}
	return list, err
}

func (a *app) sessionTable(list []index.Session) error {
	rows := make([][]string, len(list))
	for i, s := range list {
		took, end := "", s.End
		if s.Ended != nil {
			took = s.Ended.Sub(s.Started).Round(time.Millisecond).String()
		} else {
			end = "open"
		}
		n := func(n int64) string { return strconv.FormatInt(n, 10) }
		rows[i] = []string{s.ID, s.Started.Local().Format("2006-01-02 15:04:05"), took, s.Identity, s.Target, n(s.Commands), n(s.Rows), n(s.Denied), end}
	}
	return a.table([]string{"SESSION", "STARTED", "TOOK", "IDENTITY", "TARGET", "COMMANDS", "ROWS", "DENIED", "END"}, rows)
}
