package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// A gateway that took a crash has to know how far the archive has a session: the streams may have been purged of it. Where
// another process keeps the archive, it is asked on the bus for the session's last block. The answer is the block as it
// is stored, or a header that says that there is none, or why that cannot be said.
const (
	lastPrefix = "weir.v1.archive.last."
	lastHeader = "Weir-Last"
	lastNone   = "none"
	lastFailed = "failed"
	askTimeout = 5 * time.Second
)

// AnswerLast answers gateways that ask how far a store has a session, until the context ends. The store must have
// everything that was purged from the streams.
func AnswerLast(ctx context.Context, conn *nats.Conn, s core.Store, log *slog.Logger) error {
	sub, err := conn.Subscribe(lastPrefix+"*", func(m *nats.Msg) {
		if err := m.RespondMsg(answerLast(ctx, s, strings.TrimPrefix(m.Subject, lastPrefix), log)); err != nil && ctx.Err() == nil {
			log.Warn("journal: a gateway that asked for a session's last block was not answered; it asks again", "error", err)
		}
	})
	if err != nil {
		return fmt.Errorf("journal: answering gateways: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // the connection may be gone already
	return nil
}

func answerLast(ctx context.Context, s core.Store, id string, log *slog.Logger) *nats.Msg {
	m := nats.NewMsg("")
	b, err := lastBlockOf(ctx, s, id)
	switch {
	case errors.Is(err, core.ErrNoSession):
		m.Header.Set(lastHeader, lastNone)
	case err != nil:
		log.Error("journal: the last block of a session cannot be read for a gateway that asks", "session", id, "error", err)
		m.Header.Set(lastHeader, lastFailed)
	default:
		m.Data = b.Bytes
	}
	return m
}

// askLast asks the process that keeps the archive. No answer is an error: then nobody knows.
func askLast(ctx context.Context, conn *nats.Conn, id string) (head, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	m, err := conn.RequestWithContext(ctx, lastPrefix+id, nil)
	if errors.Is(err, nats.ErrNoResponders) {
		return head{}, errors.New("no archive worker is running (weir serve --role archive); it has to say how far it has the session")
	}
	if err != nil {
		return head{}, fmt.Errorf("asking the archive worker: %w", err)
	}
	switch m.Header.Get(lastHeader) {
	case lastNone:
		return head{}, nil
	case "":
	default:
		return head{}, errors.New("the archive worker cannot read the session's last block; its log says why")
	}
	b, err := ledger.DecodeBlock(m.Data)
	if err != nil {
		return head{}, fmt.Errorf("the archive worker's answer: %w", err)
	}
	if b.Header.Session != id {
		return head{}, fmt.Errorf("the archive worker's answer is of session %s", b.Header.Session)
	}
	return headOf(b)
}
