package cli

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"filippo.io/age"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/archive"
	"github.com/weir-gateway/weir/core/archive/index"
	"github.com/weir-gateway/weir/core/config"
	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/keyring"
	"github.com/weir-gateway/weir/core/ledger"
	"github.com/weir-gateway/weir/core/ledger/witness"
)

// stopTime bounds how long the gateway takes to hand its records on when it stops. What is not archived by then is
// in the journal still, and is archived at the next start.
const stopTime = 20 * time.Second

// evidence is everything that keeps records.
type evidence struct {
	stores []archive.Named
	index  *index.Index
	ledger *ledger.Ledger
	keys   *keyring.Ring
	// recipients reads anew whom recording keys are wrapped for.
	recipients func() ([]age.Recipient, error)
	journal    *journal.Journal
	worker     *archive.Worker
	conn       *nats.Conn // of a process without a journal
	readers    func(protocol string) core.Reader
	upkeep     *upkeep
	witnesses  *witness.Sender
}

// openEvidence opens the archive first, since the journal asks it how far an earlier process got. A gateway whose archive
// another process keeps asks that process.
func openEvidence(ctx context.Context, c *config.Config, role, name, boot string, readers func(protocol string) core.Reader, log *slog.Logger) (*evidence, error) {
	e := &evidence{readers: readers}
	j := journal.Config{Dir: c.Data, Gateway: name, Boot: boot, Log: log, NATS: natsOf(c), AskArchive: role == roleGateway}
	err := e.open(ctx, c, role, j, log)
	if err != nil {
		return nil, errors.Join(err, e.close(log))
	}
	return e, nil
}

func (e *evidence) open(ctx context.Context, c *config.Config, role string, j journal.Config, log *slog.Logger) (err error) {
	if role != roleGateway {
		if err := e.openArchive(ctx, c); err != nil {
			return err
		}
		j.Archive = e.stores[0].Store
	}
	j.Keys, j.KeyPeriod = recordingKeys(c, j.Gateway, log), c.Encryption.Period
	if e.journal, err = journal.Open(ctx, j); err != nil || role == roleGateway {
		return err
	}
	return e.work(ctx, c, e.journal.JetStream(), log)
}

// openArchive opens what the archive's worker writes.
func (e *evidence) openArchive(ctx context.Context, c *config.Config) (err error) {
	if e.stores, err = openStores(ctx, c); err != nil {
		return err
	}
	if e.index, err = openIndex(ctx, c, false); err != nil {
		return err
	}
	e.index.Read(e.readers)
	rec, err := openRecordings(c, true, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	e.recipients = func() ([]age.Recipient, error) {
		r, err := openRecordings(c, true, slog.New(slog.DiscardHandler))
		if err != nil {
			return nil, err
		}
		return r.to, nil
	}
	if keys, ok := e.stores[0].Store.(keyring.Store); ok {
		e.keys = keyring.New(keys, rec.with...)
		e.keys.Reload = func() ([]age.Identity, error) {
			r, err := openRecordings(c, true, slog.New(slog.DiscardHandler))
			if err != nil {
				return nil, err
			}
			return r.with, nil
		}
	}
	keys := ledger.KeyConfig{Dir: keysDir(c)}
	keys.Name, _ = config.TransitKey(c.Ledger.Key)
	vault, err := vaultOf(c, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if vault != nil {
		keys.Remote = vault
	}
	if e.ledger, err = ledger.OpenWith(ledgerDir(c), keys); err != nil {
		return err
	}
	if e.keys != nil {
		e.keys.Gone = func(k ledger.KeyID) bool { _, ok := e.ledger.Destroyed(k); return ok }
	}
	return indexOf(ctx, c, e.index, e.ledger.PublicKey())
}

// work starts the archive's worker.
func (e *evidence) work(ctx context.Context, c *config.Config, js jetstream.JetStream, log *slog.Logger) (err error) {
	e.worker, err = archive.Start(ctx, js, archive.Config{
		Stores: e.stores, Index: e.index, Ledger: e.ledger, Keys: e.keys, Log: log,
		Cluster: c.Journal.NATS.URL != "", Replicas: c.Journal.NATS.Replicas,
	})
	if err != nil {
		return err
	}
	if e.witnesses, err = witnesses(c, e.ledger, e.worker.Checkpoint, log); err != nil {
		return err
	}
	return e.startUpkeep(c, log)
}

// witnesses begins to send the ledger's checkpoints to the witnesses of a configuration. Nil: there are none.
func witnesses(c *config.Config, l *ledger.Ledger, newest func() ([]byte, error), log *slog.Logger) (*witness.Sender, error) {
	if len(c.Ledger.Witnesses) == 0 {
		return nil, nil
	}
	wc := witness.Config{Ledger: l, Quorum: c.Ledger.Quorum, Newest: newest, Log: log}
	for _, w := range c.Ledger.Witnesses {
		key, err := ledger.ParseWitness(w.Key)
		if err != nil {
			return nil, err
		}
		wc.Witnesses = append(wc.Witnesses, witness.Witness{Name: w.Name, URL: w.URL, Key: key})
	}
	return witness.Start(wc), nil
}

func natsOf(c *config.Config) journal.NATS {
	return journal.NATS{URL: c.Journal.NATS.URL, Creds: c.Journal.NATS.Creds, Replicas: c.Journal.NATS.Replicas}
}

// close hands on what is left, front to back.
func (e *evidence) close(log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var errs []error
	e.upkeep.close()
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
	if e.conn != nil {
		e.conn.Close()
	}
	e.witnesses.Close() // before the ledger that it reads
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
