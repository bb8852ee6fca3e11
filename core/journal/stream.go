package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Names on the bus.
const (
	StreamPrefix  = "WEIR_JOURNAL_"
	SubjectPrefix = "weir.v1.journal."
	embeddedMax   = 4 << 20 // bytes of one message to the embedded server
)

// Subject returns the subject of a session's blocks.
func Subject(shard uint8, session string) string {
	return fmt.Sprintf("%s%02d.%s", SubjectPrefix, shard, session)
}

func streamName(shard uint8) string { return fmt.Sprintf("%s%02d", StreamPrefix, shard) }

// connect starts the embedded server or dials the configured one, and makes the streams.
func (j *Journal) connect(ctx context.Context) error {
	opts := []nats.Option{
		nats.Name("weir " + j.c.Gateway),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			j.log.Warn("journal: connection to JetStream", "error", err)
		}),
	}
	url := j.c.NATS.URL
	if url == "" {
		if err := j.embed(); err != nil {
			return err
		}
		opts = append(opts, nats.InProcessServer(j.server))
	} else if j.c.NATS.Creds != "" {
		opts = append(opts, nats.UserCredentials(j.c.NATS.Creds))
	}
	conn, err := nats.Connect(url, opts...)
	if err != nil {
		return fmt.Errorf("journal: connecting to NATS: %w", err)
	}
	j.conn = conn
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096))
	if err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.js = js
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for i := range j.c.Shards {
		// Limits: a message stays until the archive's worker, which knows every store, purges what all of them have.
		// With interest a message sent before its consumer exists would be dropped at once, and a work queue has room
		// for one store only. A full stream refuses (DiscardNew): it never evicts.
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:        streamName(uint8(i)),
			Description: "Weir: blocks of recorded sessions",
			Subjects:    []string{fmt.Sprintf("%s%02d.*", SubjectPrefix, i)},
			Storage:     jetstream.FileStorage,
			Retention:   jetstream.LimitsPolicy,
			Discard:     jetstream.DiscardNew,
			MaxBytes:    j.c.StreamBytes,
			Replicas:    j.c.NATS.Replicas,
			Duplicates:  2 * time.Minute,
			DenyDelete:  true,
			AllowDirect: false, // the last message of a subject is asked of the leader, which knows
		})
		if err != nil {
			return fmt.Errorf("journal: stream %s: %w", streamName(uint8(i)), err)
		}
	}
	return nil
}

// embed starts a server in this process. It fsyncs every message, and listens on nothing.
func (j *Journal) embed() error {
	dir := filepath.Join(j.c.Dir, "jetstream")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	s, err := server.NewServer(&server.Options{
		ServerName:         "weir",
		DontListen:         true,
		JetStream:          true,
		StoreDir:           dir,
		SyncAlways:         true,
		JetStreamMaxStore:  int64(j.c.Shards)*j.c.StreamBytes + 256<<20,
		JetStreamMaxMemory: 64 << 20,
		MaxPayload:         embeddedMax,
		NoSigs:             true,
		NoLog:              true,
	})
	if err != nil {
		return fmt.Errorf("journal: embedded NATS: %w", err)
	}
	s.SetLoggerV2(serverLog{j.log}, false, false, false)
	j.server = s
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("journal: embedded NATS did not become ready within 10 s")
	}
	return nil
}

// serverLog passes the embedded server's words on to the gateway's log.
type serverLog struct{ log *slog.Logger }

func (l serverLog) say(level slog.Level, format string, v []any) {
	l.log.Log(context.Background(), level, "journal: nats: "+strings.TrimSpace(fmt.Sprintf(format, v...)))
}

func (l serverLog) Noticef(format string, v ...any) { l.say(slog.LevelDebug, format, v) }
func (l serverLog) Warnf(format string, v ...any)   { l.say(slog.LevelWarn, format, v) }
func (l serverLog) Fatalf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l serverLog) Errorf(format string, v ...any)  { l.say(slog.LevelError, format, v) }
func (l serverLog) Debugf(string, ...any)           {}
func (l serverLog) Tracef(string, ...any)           {}
