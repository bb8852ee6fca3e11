package archive

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core/journal"
	"github.com/weir-gateway/weir/core/ledger"
)

// EraseKeys takes the records of destroyed recording keys out of the streams, those that a store still waits for included. A
// stream's newest message stays, as it does in a purge; it goes with a later call. The servers write over a message when they
// next compact its file.
func (w *Worker) EraseKeys(ctx context.Context) error {
	for _, s := range w.streams {
		ctx, cancel := context.WithTimeout(ctx, startTime)
		err := w.eraseKeys(ctx, s)
		cancel()
		if err != nil {
			return fmt.Errorf("archive: erasing keys in %s: %w", s.CachedInfo().Config.Name, err)
		}
	}
	return nil
}

func (w *Worker) eraseKeys(ctx context.Context, s jetstream.Stream) error {
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(journal.SubjectPrefix+">"))
	if err != nil {
		return err
	}
	for subject := range info.State.Subjects {
		_, name, found := strings.Cut(subject, ".=")
		id, err := ledger.ParseKeyID(name)
		if !found || err != nil {
			continue
		}
		if _, is := w.c.Ledger.Destroyed(id); !is {
			continue
		}
		if err := s.Purge(ctx, jetstream.WithPurgeSubject(subject), jetstream.WithPurgeSequence(info.State.LastSeq)); err != nil {
			return err
		}
	}
	return nil
}
