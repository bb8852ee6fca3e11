package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-gateway/weir/core"
	"github.com/weir-gateway/weir/core/ledger"
)

// longestClear is for how long a file of the log is written to, where recordings are encrypted: it holds them in clear, and is
// removed when JetStream has them. It is less than a shredding waits.
const longestClear = time.Minute

// maxKeys bounds the recording keys that are remembered; those of subjects that come again later are made anew.
const maxKeys = 10_000

// keyTime bounds the making and the sending of one.
const keyTime = 10 * time.Second

// KeySubject returns the subject on which a recording key's record is published: on the shard of each session that it
// encrypts, before the session's first block. No session's id can be the same word.
func KeySubject(shard uint8, id ledger.KeyID) string {
	return fmt.Sprintf("%s%02d.=%s", SubjectPrefix, shard, id)
}

// owner is whom a recording key is for: a subject, or what is left of one session that an earlier process began.
type owner struct{ subject, issuer, session string }

// made is a recording key and where its record has been published.
type made struct {
	key    *ledger.RecordingKey
	record []byte
	at     time.Time
	shards [100]bool
}

// ownerOf reads from a session's first record whose it is.
func ownerOf(id string, pieces [][]byte) owner {
	var r core.Record
	var prior ledger.Prior
	var open struct {
		Identity core.Identity `json:"identity"`
	}
	if _, err := ledger.DecodeRecord(bytes.Join(pieces, nil), &r, &prior); err != nil || json.Unmarshal(r.Facts, &open) != nil {
		return owner{session: id}
	}
	return owner{subject: open.Identity.Subject, issuer: open.Identity.Issuer}
}

// unlock sees to the data key of a session that has something to encrypt. On failure it is to be called again.
func (p *packer) unlock(ctx context.Context, s *packed, now time.Time) error {
	if p.keys == nil || s.key != nil || len(s.chunks) == 0 {
		return nil
	}
	if s.owner == (owner{}) {
		s.owner = owner{session: s.id} // its first record is with an earlier process's blocks
	}
	m := p.made[s.owner]
	if m == nil || now.Sub(m.at) >= p.keyPeriod {
		key, record, err := p.keys(s.owner.subject, s.owner.issuer, s.owner.session)
		if err != nil {
			return err
		}
		if len(p.made) >= maxKeys {
			clear(p.made)
		}
		m = &made{key: key, record: record, at: now}
		p.made[s.owner] = m
	}
	if !m.shards[s.shard] {
		ctx, cancel := context.WithTimeout(ctx, keyTime)
		defer cancel()
		msg := nats.NewMsg(KeySubject(s.shard, m.key.ID))
		msg.Header[jetstream.MsgIDHeader] = []string{fmt.Sprintf("%s.%d", m.key.ID, s.shard)}
		msg.Data = m.record
		if _, err := p.js.PublishMsg(ctx, msg); err != nil {
			return fmt.Errorf("journal: a recording key: %w", err)
		}
		m.shards[s.shard] = true
	}
	s.key = m.key.Session(s.id)
	return nil
}
