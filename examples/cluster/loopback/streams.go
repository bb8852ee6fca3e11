package loopback

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Keys calls f with each record of a recording key that the journal's streams give to a reader, until f fails.
func (c *Cluster) Keys(f func(stream string, r KeyRecord) error) error {
	var urls []string
	for _, a := range c.clients {
		urls = append(urls, "nats://"+a)
	}
	conn, err := nats.Connect(strings.Join(urls, ","))
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 8 {
		name := fmt.Sprintf("WEIR_JOURNAL_%02d", i)
		s, err := js.Stream(ctx, name)
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return fmt.Errorf("stream %s: %w", name, err)
		}
		for subject := range info.State.Subjects {
			if !strings.Contains(subject, ".=") {
				continue
			}
			m, err := s.GetLastMsgForSubject(ctx, subject)
			if errors.Is(err, jetstream.ErrMsgNotFound) {
				continue
			}
			if err != nil {
				return fmt.Errorf("stream %s: %w", name, err)
			}
			KeyRecords(m.Data, func(r KeyRecord) {
				if err == nil && m.Sequence < info.State.LastSeq { // the newest stays until another comes
					err = f(name, r)
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}
