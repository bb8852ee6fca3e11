package cli

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/weir-gateway/weir/core/archive"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/ledger"
)

// stopTime bounds how long the gateway takes to hand its records on when it stops. What is not archived by then is
// in the journal still, and is archived at the next start.
const stopTime = 20 * time.Second

// evidence is everything that keeps records.
type evidence struct {
	stores  []archive.Named
	index   *index.Index
	ledger  *ledger.Ledger
	journal *journal.Journal
	worker  *archive.Worker
}

// openEvidence opens the archive first, since the journal asks it how far an earlier process got.
func openEvidence(ctx context.Context, c *config.Config, name, boot string, log *slog.Logger) (*evidence, error) {
	e := &evidence{}
	err := e.open(ctx, c, name, boot, log)
	if err != nil {
		return nil, errors.Join(err, e.close(log))
	}
	return e, nil
}

func (e *evidence) open(ctx context.Context, c *config.Config, name, boot string, log *slog.Logger) (err error) {
	if e.stores, err = openStores(ctx, c); err != nil {
		return err
	}
	if e.index, err = index.Open(indexPath(c), false); err != nil {
		return err
	}
	if e.ledger, err = ledger.Open(ledgerDir(c), keysDir(c)); err != nil {
		return err
	}
	e.journal, err = journal.Open(ctx, journal.Config{
		Dir: c.Data, Gateway: name, Boot: boot, Log: log, Archive: e.stores[0].Store,
		NATS: journal.NATS{URL: c.Journal.NATS.URL, Creds: c.Journal.NATS.Creds, Replicas: c.Journal.NATS.Replicas},
	})
	if err != nil {
		return err
	}
	e.worker, err = archive.Start(ctx, e.journal.JetStream(), archive.Config{
		Stores: e.stores, Index: e.index, Ledger: e.ledger, Log: log,
	})
	return err
}

// close hands on what is left, front to back.
func (e *evidence) close(log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var errs []error
	if e.journal != nil {
		_ = e.journal.Flush(ctx) // what is left then, Close tells
	}
	if e.worker != nil {
		if err := e.worker.Close(ctx); err != nil {
			log.Warn("cli: not everything is archived yet; the next start goes on", "error", err)
		}
	}
	if e.journal != nil {
		errs = append(errs, e.journal.Close(ctx))
	}
	if e.ledger != nil {
		errs = append(errs, e.ledger.Close())
	}
	if e.index != nil {
		errs = append(errs, e.index.Close())
	}
	for _, s := range e.stores {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
