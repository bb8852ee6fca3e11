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

// noPeers is the servers' code for too few of them, or too little room: those that come up may be seen in a moment.
const noPeers = jetstream.ErrorCode(10005)

// Names on the bus.
const (
	StreamPrefix  = "WEIR_JOURNAL_"
	SubjectPrefix = "weir.v1.journal."
	embeddedMax   = 4 << 20          // bytes of one message to the embedded server
	makeTimeout   = 20 * time.Second // for all streams; a cluster that elects leaders takes a while
	makeTry       = 3 * time.Second  // for one answer: what is asked while nobody leads is never answered
)

// Subject returns the subject of a session's blocks.
func Subject(shard uint8, session string) string {
	return fmt.Sprintf("%s%02d.%s", SubjectPrefix, shard, session)
}

func streamName(shard uint8) string { return fmt.Sprintf("%s%02d", StreamPrefix, shard) }

// The bounds of a connection. A node that is stopped, and not gone, keeps its sockets open: only unanswered pings tell.
const (
	pingEvery    = 1 * time.Second
	pingsMissed  = 3
	writeTimeout = 3 * time.Second
)

// connect starts the embedded server or dials the configured one, and makes the streams. A journal that has been at work
// before does not wait for a cluster that is away: the log takes what is recorded until it is back. A fresh one does:
// what it cannot reach may be a mistake.
func (j *Journal) connect(ctx context.Context, resumed bool) (err error) {
	var more []nats.Option
	if j.c.NATS.URL == "" {
		if err := j.embed(); err != nil {
			return err
		}
		more = append(more, nats.InProcessServer(j.server))
		resumed = false
	} else if resumed {
		more = append(more, nats.RetryOnFailedConnect(true))
	}
	if j.conn, j.js, err = dial(j.c, more...); err != nil {
		return err
	}
	patience := makeTimeout
	if resumed {
		patience = makeTry
	}
	err = makeStreams(ctx, j.js, j.c, patience)
	if err == nil || !resumed {
		return err
	}
	j.log.Warn("journal: the streams cannot be seen to now; the log holds what is recorded", "error", err)
	j.unmade = true
	return nil
}

// maker sees to the streams once the cluster is there.
func (j *Journal) maker(ctx context.Context) {
	for ctx.Err() == nil {
		if err := makeStreams(ctx, j.js, j.c, makeTimeout); err == nil {
			return
		} else if ctx.Err() == nil {
			j.log.Warn("journal: the streams cannot be seen to", "error", err)
		}
	}
}

// Dial connects to the JetStream that c names and makes the streams where they are missing, for a process that has no
// journal of its own. The connection is the caller's to close.
func Dial(ctx context.Context, c Config) (*nats.Conn, jetstream.JetStream, error) {
	if err := c.defaults(); err != nil {
		return nil, nil, err
	}
	conn, js, err := dial(c)
	if err != nil {
		return nil, nil, err
	}
	if err := makeStreams(ctx, js, c, makeTimeout); err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, js, nil
}

func dial(c Config, more ...nats.Option) (*nats.Conn, jetstream.JetStream, error) {
	opts := append([]nats.Option{
		nats.Name("weir " + c.Gateway),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 250*time.Millisecond),
		nats.ReconnectBufSize(-1), // the log is the buffer: what cannot be sent now fails now, and is sent again
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsMissed),
		nats.FlusherTimeout(writeTimeout),
		nats.ReconnectOnFlusherError(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.Log.Warn("journal: connection to JetStream", "error", err)
		}),
		nats.ConnectHandler(func(*nats.Conn) { jetStreamUp.Set(1) }),
		nats.ReconnectHandler(func(*nats.Conn) { jetStreamUp.Set(1) }),
		nats.DisconnectErrHandler(func(c *nats.Conn, _ error) {
			if !c.IsClosed() {
				jetStreamUp.Set(0)
			}
		}),
	}, more...)
	if c.NATS.Creds != "" && c.NATS.URL != "" {
		opts = append(opts, nats.UserCredentials(c.NATS.Creds))
	}
	conn, err := nats.Connect(c.NATS.URL, opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("journal: connecting to NATS: %w", err)
	}
	// Without a timeout of its own an answer that never comes keeps its place among those that are pending for good,
	// and a node that hung often enough would leave none.
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4096), jetstream.WithPublishAsyncTimeout(ackTimeout))
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("journal: %w", err)
	}
	return conn, js, nil
}

// makeStreams makes the streams where they are missing, and sets their bounds. It tries for as long as patience.
func makeStreams(ctx context.Context, js jetstream.JetStream, c Config, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for i := range c.Shards {
		name := streamName(uint8(i))
		for {
			err := makeStream(ctx, js, c, i)
			var api *jetstream.APIError
			if err == nil {
				break
			}
			if ctx.Err() != nil || errors.As(err, &api) && api.Code == 400 && api.ErrorCode != noPeers { // the servers do not want it so
				return fmt.Errorf("journal: stream %s: %w", name, err)
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("journal: stream %s: %w", name, err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return nil
}

func makeStream(ctx context.Context, js jetstream.JetStream, c Config, i int) error {
	ctx, cancel := context.WithTimeout(ctx, makeTry)
	defer cancel()
	// Limits: a message stays until the archive's worker, which knows every store, purges what all of them have. With
	// interest a message sent before its consumer exists would be dropped at once, and a work queue has room for one
	// store only. A full stream refuses (DiscardNew): it never evicts.
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name:               streamName(uint8(i)),
		Description:        "Weir: blocks of recorded sessions",
		Subjects:           []string{fmt.Sprintf("%s%02d.*", SubjectPrefix, i)},
		Storage:            jetstream.FileStorage,
		Retention:          jetstream.LimitsPolicy,
		Discard:            jetstream.DiscardNew,
		MaxBytes:           c.StreamBytes,
		Replicas:           c.NATS.Replicas,
		Duplicates:         2 * time.Minute,
		DenyDelete:         true,
		AllowAtomicPublish: true,
		AllowDirect:        false, // the last message of a subject is asked of the leader, which knows
	})
	return err
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
