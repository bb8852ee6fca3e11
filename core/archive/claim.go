package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// Names on the bus.
const (
	ledgerStream  = "WEIR_LEDGER"
	ledgerSubject = "weir.v1.ledger"
	ownerSubject  = "weir.v1.archive.owner" // who works answers
	ownerHeader   = "Weir-Owner"
	ownerWait     = 2 * time.Second
	// keptCheckpoints is how many checkpoints stay on the bus: for whoever wants to keep them elsewhere.
	keptCheckpoints = 10_000
	claimTimeout    = 10 * time.Second
	wrongLast       = jetstream.ErrorCode(10071) // an expected last sequence does not hold
)

// claim keeps the streams of a cluster to one ledger, and to one process at a time. Each checkpoint is published behind
// the one before, and before a batch is acknowledged the newest one must still be ours: whoever has another ledger, an
// older copy of this one, or a copy that has grown by itself is refused by the bus, and acknowledges nothing. A nil claim
// asks nothing.
type claim struct {
	js     jetstream.JetStream
	ledger *ledger.Ledger
	owner  string // of this run: the same ledger says the same again

	mu   sync.Mutex
	seq  uint64 // of the newest checkpoint on the bus
	told []byte // that checkpoint
	lost error  // final
}

// newClaim compares the ledger with the newest checkpoint on the bus, and takes the streams over. A process that works
// says so and is left alone; one that does not answer finds out that it was replaced before it acknowledges anything.
func newClaim(ctx context.Context, js jetstream.JetStream, l *ledger.Ledger, replicas int) (*claim, error) {
	ask, cancel := context.WithTimeout(ctx, ownerWait)
	_, err := js.Conn().RequestWithContext(ask, ownerSubject, nil)
	cancel()
	if err == nil {
		return nil, errors.New("archive: another archive worker keeps what is recorded here: run further gateways with --role gateway; " +
			"workers that stand by for each other share their data folder")
	}
	c := &claim{js: js, ledger: l, owner: core.NewID(time.Now())}
	var m *jetstream.RawStreamMsg
	err = persist(ctx, func(ctx context.Context) error {
		s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:        ledgerStream,
			Description: "Weir: the ledger's checkpoints",
			Subjects:    []string{ledgerSubject},
			Storage:     jetstream.FileStorage,
			MaxMsgs:     keptCheckpoints,
			Replicas:    max(replicas, 1),
			DenyDelete:  true,
			DenyPurge:   true,
		})
		if err != nil {
			return err
		}
		m, err = s.GetLastMsgForSubject(ctx, ledgerSubject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("archive: the newest checkpoint in stream %s: %w", ledgerStream, err)
	}
	if m != nil {
		if err := l.Holds(m.Data); err != nil {
			return nil, fmt.Errorf("archive: what is recorded goes into another ledger than this one: %w; one archive takes the journal of a cluster: "+
				"run further gateways with --role gateway, or restore the newest ledger; to begin a new archive on purpose, delete the stream %s", err, ledgerStream)
		}
		c.seq, c.told = m.Sequence, m.Data
	}
	if err := persist(ctx, c.publish); err != nil {
		return nil, err
	}
	return c, nil
}

// answer tells those who start that somebody works here.
func (c *claim) answer(ctx context.Context) error {
	sub, err := c.js.Conn().Subscribe(ownerSubject, func(m *nats.Msg) {
		if c.err() == nil {
			_ = m.Respond(nil) // who asked asks again
		}
	})
	if err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = sub.Unsubscribe() }) // the connection may be gone already
	return nil
}

// err says that another process has taken the streams over; nil: none has, as far as is known.
func (c *claim) err() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// taken returns the newest checkpoint that the bus has taken, unless the streams are another process's now.
func (c *claim) taken() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told, c.lost
}

// tell publishes the ledger's newest checkpoint where the bus does not have it, and else makes sure that the one that
// the bus has is ours still.
func (c *claim) tell(ctx context.Context) error {
	if c == nil {
		return nil
	}
	if err := c.err(); err != nil {
		return err
	}
	c.mu.Lock()
	same := bytes.Equal(c.ledger.Checkpoint(), c.told)
	c.mu.Unlock()
	if !same {
		return c.publish(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	m, err := c.newest(ctx)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Sequence > c.seq {
		return c.giveUp()
	}
	return nil
}

func (c *claim) giveUp() error {
	c.lost = fmt.Errorf("archive: another process archives the same journal now; this one stops, and what it has not acknowledged is the other's: %w", core.ErrFork)
	return c.lost
}

// newest is the newest checkpoint on the bus.
func (c *claim) newest(ctx context.Context) (*jetstream.RawStreamMsg, error) {
	s, err := c.js.Stream(ctx, ledgerStream)
	if err != nil {
		return nil, fmt.Errorf("archive: stream %s: %w", ledgerStream, err)
	}
	m, err := s.GetLastMsgForSubject(ctx, ledgerSubject)
	if err != nil {
		return nil, fmt.Errorf("archive: the newest checkpoint in %s: %w", ledgerStream, err)
	}
	return m, nil
}

// publish publishes the ledger's newest checkpoint behind the one that we know.
func (c *claim) publish(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.ledger.Checkpoint()
	ctx, cancel := context.WithTimeout(ctx, claimTimeout)
	defer cancel()
	out := nats.NewMsg(ledgerSubject)
	out.Header.Set(ownerHeader, c.owner)
	out.Data = now
	ack, err := c.js.PublishMsg(ctx, out, jetstream.WithExpectLastSequencePerSubject(c.seq))
	if err == nil {
		c.seq, c.told = ack.Sequence, now
		return nil
	}
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != wrongLast {
		return fmt.Errorf("archive: publishing the ledger's checkpoint: %w", err)
	}
	m, err := c.newest(ctx)
	if err != nil {
		return err
	}
	if m.Sequence == c.seq+1 && m.Header.Get(ownerHeader) == c.owner { // our own, whose answer was lost
		c.seq, c.told = m.Sequence, m.Data
		if bytes.Equal(now, m.Data) {
			return nil
		}
		return errors.New("archive: the ledger has grown while its checkpoint was on its way; it is published again")
	}
	return c.giveUp()
}

// owned is a store that answers for as long as the streams are ours.
type owned struct {
	core.Store
	claim *claim
}

// Last returns the last block of a session.
func (o owned) Last(ctx context.Context, id string) (last core.Block, err error) {
	if err := o.claim.err(); err != nil {
		return last, err
	}
	if l, ok := o.Store.(interface {
		Last(ctx context.Context, id string) (core.Block, error)
	}); ok {
		return l.Last(ctx, id)
	}
	err = o.Blocks(ctx, id, func(b core.Block) error {
		last = core.Block{Header: b.Header, Hash: b.Hash, Bytes: bytes.Clone(b.Bytes)}
		return nil
	})
	return last, err
}
