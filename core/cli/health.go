package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/weir-gateway/weir/core/config"
)

// health says whether anything is lost or behind. It is read from the metrics, so that `weir status` and an alert never
// disagree.
type health struct {
	Standby    bool           `json:"standby"` // an archive worker whose turn it is not; nothing else is known of it
	Recording  bool           `json:"recording"`
	JetStream  bool           `json:"jetstream"`
	Spool      int64          `json:"spool_bytes"` // of the log that JetStream has not acknowledged
	SpoolLimit int64          `json:"spool_limit_bytes"`
	Unsealed   int64          `json:"unsealed"`  // sessions that are over, and whose seal JetStream does not have
	Forks      int64          `json:"forks"`     // sessions given up, since the start
	Archive    *archiveHealth `json:"archive"`   // null: another process keeps the archive
	Witnesses  *witnessHealth `json:"witnesses"` // null: none are configured, or another process keeps the archive
	Verified   *verifiedState `json:"verified"`  // null: not since this archive began, as far as this process knows
	Hands      []string       `json:"attention"` // what needs a hand
}

type archiveHealth struct {
	Messages int64   `json:"lag_messages"`
	Seconds  float64 `json:"lag_seconds"`
	Refused  int64   `json:"refused"` // messages that are no blocks of ours, since the start
}

type witnessHealth struct {
	Configured int64   `json:"configured"`
	Failing    int64   `json:"failing"` // when they were last asked
	Forked     int64   `json:"forked"`  // that have cosigned another log than this
	Behind     float64 `json:"behind_seconds"`
}

type verifiedState struct {
	OK  bool    `json:"ok"`
	Age float64 `json:"age_seconds"`
}

// What is allowed before it needs a hand.
const (
	spoolFull  = 0.5 // of the bound
	archiveLag = 5 * time.Minute
	cosignLag  = 10 * time.Minute
	metricsMax = 8 << 20
)

// askHealth reads the metrics at the admin address of a gateway or of an archive worker.
func askHealth(ctx context.Context, c *config.Config) (*health, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.Listen.Admin+"/metrics", nil)
	if err != nil {
		return nil, use(err)
	}
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req) // no proxy: it is on this machine
	if err != nil {
		err = fmt.Errorf("nobody answers on %s: %w", c.Listen.Admin, err)
		if errors.Is(err, syscall.ECONNREFUSED) {
			err = fmt.Errorf("%w: is weir serve running with this configuration?", err)
		}
		return nil, unreachable(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, unreachable(fmt.Errorf("the metrics on %s: %s", c.Listen.Admin, res.Status))
	}
	m, err := readMetrics(io.LimitReader(res.Body, metricsMax))
	if err != nil {
		return nil, unreachable(fmt.Errorf("the metrics on %s: %w", c.Listen.Admin, err))
	}
	if _, ok := m["weir_journal_lost"]; !ok {
		return nil, unreachable(fmt.Errorf("what answers on %s is no Weir", c.Listen.Admin))
	}
	return healthOf(m), nil
}

// readMetrics reads the text format of Prometheus: each name with its values, of all labels, added up.
func readMetrics(r io.Reader) (map[string]float64, error) {
	m := map[string]float64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest := line, ""
		if i := strings.IndexAny(line, "{ "); i >= 0 {
			name, rest = line[:i], line[i:]
		}
		if i := strings.LastIndexByte(rest, '}'); i >= 0 {
			rest = rest[i+1:]
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			return nil, fmt.Errorf("%q has no value", printable(name))
		}
		v, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			return nil, fmt.Errorf("the value of %q: %w", printable(name), err)
		}
		m[name] += v
	}
	return m, lines.Err()
}

func healthOf(m map[string]float64) *health {
	h := &health{
		Recording: m["weir_journal_lost"] == 0, JetStream: m["weir_journal_jetstream_up"] == 1,
		Spool: int64(m["weir_journal_spool_bytes"]), SpoolLimit: int64(m["weir_journal_spool_limit_bytes"]),
		Unsealed: max(0, int64(m["weir_journal_unsealed_sessions"]-m["weir_gateway_sessions"])), Forks: int64(m["weir_journal_forks_total"]),
		Hands: []string{},
	}
	if m["weir_archive_worker"] == 1 {
		h.Archive = &archiveHealth{Messages: int64(m["weir_archive_lag_messages"]), Seconds: m["weir_archive_lag_seconds"], Refused: int64(m["weir_archive_refused_total"])}
	}
	if n := m["weir_ledger_witness_configured"]; n > 0 {
		h.Witnesses = &witnessHealth{
			Configured: int64(n), Failing: int64(m["weir_ledger_witness_failing"]), Forked: int64(m["weir_ledger_witness_forked"]),
			Behind: m["weir_ledger_witness_behind_seconds"],
		}
	}
	if ok, known := m["weir_verify_ok"]; known {
		h.Verified = &verifiedState{OK: ok == 1, Age: m["weir_verify_age_seconds"]}
	}
	if h.Standby = h.SpoolLimit == 0 && h.Archive == nil; h.Standby {
		return h
	}
	hand := func(format string, v ...any) { h.Hands = append(h.Hands, fmt.Sprintf(format, v...)) }
	if !h.Recording {
		hand("nothing can be recorded, so nothing passes; what was recorded is not lost")
	}
	if !h.JetStream {
		hand("JetStream does not answer: what is recorded stays in the log, until that is full")
	}
	if h.SpoolLimit > 0 && float64(h.Spool) > spoolFull*float64(h.SpoolLimit) {
		hand("the log is more than half full: when it is full, commands are refused")
	}
	if h.Forks > 0 {
		hand("%s given up, because JetStream holds another history of them: the gateway's log names them", plural(int(h.Forks), "session"))
	}
	if a := h.Archive; a != nil {
		if a.Seconds > archiveLag.Seconds() {
			hand("the archive is behind by %s: the gateway's log says what its store answers", ago(a.Seconds))
		}
		if a.Refused > 0 {
			hand("%s refused by the archive: somebody else writes to the journal's streams", plural(int(a.Refused), "message"))
		}
	}
	if w := h.Witnesses; w != nil {
		if w.Forked > 0 {
			hand("%d of %d witnesses have cosigned another log than this: it is an old copy, or was written anew; keep it as it is, the gateway's log says more", w.Forked, w.Configured)
		}
		if w.Behind > cosignLag.Seconds() {
			hand("too few witnesses have cosigned the log for %s: the gateway's log says what they answer", ago(w.Behind))
		}
	}
	if v := h.Verified; v != nil && !v.OK {
		hand("the last weir verify --all found something that does not hold: run it again, and keep the archive as it is")
	}
	return h
}

// lines says it in plain words.
func (h *health) lines(field func(name, text string)) {
	if h.Standby {
		field("archive", "stands by for another worker")
		return
	}
	if h.SpoolLimit > 0 { // a journal is here
		recording := "yes"
		if !h.Recording {
			recording = "NO: nothing passes"
		}
		field("recording", recording)
		field("log", fmt.Sprintf("%s not yet in JetStream, of %s at most", size(h.Spool), size(h.SpoolLimit)))
		field("unsealed", plural(int(h.Unsealed), "session")+" that ended, not sealed yet")
	}
	jetStream := "reachable"
	if !h.JetStream {
		jetStream = "NOT reachable"
	}
	field("JetStream", jetStream)
	switch a := h.Archive; {
	case a == nil:
		field("archive", "kept by another process")
		return // and it is there that it is known to be verified
	case a.Messages == 0:
		field("archive", "has everything")
	default:
		field("archive", fmt.Sprintf("lacks %s, the oldest %s old", plural(int(a.Messages), "message"), ago(a.Seconds)))
	}
	if w := h.Witnesses; w != nil {
		text := "by enough witnesses"
		if w.Behind > 0 {
			text = "by too few witnesses for " + ago(w.Behind)
		}
		if w.Failing > 0 {
			text += fmt.Sprintf("; %d of %d FAIL", w.Failing, w.Configured)
		}
		field("cosigned", text)
	}
	switch v := h.Verified; {
	case v == nil:
		field("verified", "never: weir verify --all")
	case v.OK:
		field("verified", "yes, "+ago(v.Age)+" ago")
	default:
		field("verified", "NO, "+ago(v.Age)+" ago: weir verify --all")
	}
}

// ago writes a time that has passed for people.
func ago(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}
