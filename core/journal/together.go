package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// What many sessions have to say goes to a stream as one atomic batch (ADR-50 of NATS): each block stays a message of its own, on
// its session's subject and behind the one before it, and all of them cost one fsync, or one round of a cluster, in place
// of one each. A batch is stored as a whole or not at all; where it is not, its blocks are sent one by one.

// Bounds of a batch. The servers' own is 1,000 messages.
const (
	togetherLeast = 4         // blocks that are worth it
	togetherMost  = 256       // blocks
	togetherBytes = 4 << 20   // of all of its blocks
	togetherBlock = 128 << 10 // bytes of one block: a larger one is worth a message of its own
)

// headers of a batch.
const (
	batchID       = "Nats-Batch-Id"
	batchSequence = "Nats-Batch-Sequence"
	batchCommit   = "Nats-Batch-Commit"
)

// batch is blocks that go together.
type batch struct {
	list []*packed
	size int
	last uint64 // the sequence of the last of its messages; 0: it was not stored
	err  error
}

// batches groups sessions whose blocks are small, by their streams. The others are returned.
func (p *packer) batches(due []*packed) (groups []*batch, rest []*packed) {
	if !p.together {
		return nil, due
	}
	open := map[uint8]*batch{}
	for _, s := range due {
		n := len(s.flight.block.Bytes)
		if n > togetherBlock {
			rest = append(rest, s)
			continue
		}
		b := open[s.shard]
		if b == nil || len(b.list) == togetherMost || b.size+n > togetherBytes {
			b = &batch{}
			open[s.shard] = b
			groups = append(groups, b)
		}
		b.list, b.size = append(b.list, s), b.size+n
	}
	kept := groups[:0]
	for _, b := range groups {
		if len(b.list) < togetherLeast {
			rest = append(rest, b.list...)
			continue
		}
		kept = append(kept, b)
	}
	return kept, rest
}

// sendTogether sends batches, those of different streams side by side, and returns the sessions whose blocks are to be sent
// one by one.
func (p *packer) sendTogether(ctx context.Context, groups []*batch) (rest []*packed) {
	var wg sync.WaitGroup
	byShard := map[uint8][]*batch{}
	for _, b := range groups {
		byShard[b.list[0].shard] = append(byShard[b.list[0].shard], b)
	}
	for _, list := range byShard {
		wg.Go(func() {
			for _, b := range list {
				b.last, b.err = p.commit(ctx, b.list)
			}
		})
	}
	wg.Wait()
	for _, b := range groups {
		if b.err != nil {
			batchErrors.Inc()
			if p.together && noBatches(b.err) {
				p.together = false
				p.log.Warn("journal: JetStream takes no batches, so each block costs it a write of its own; nats-server 2.12 does", "error", b.err)
			}
			p.log.Debug("journal: a batch of blocks was not stored; they are sent one by one", "blocks", len(b.list), "error", b.err)
			rest = append(rest, b.list...)
			continue
		}
		batchesTotal.Inc()
		first := b.last - uint64(len(b.list)) + 1
		for i, s := range b.list {
			p.acknowledged(s, first+uint64(i))
		}
	}
	return rest
}

// commit sends one batch, and returns the sequence of its last message.
func (p *packer) commit(ctx context.Context, list []*packed) (last uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	conn, id := p.js.Conn(), nuid.Next()
	for i, s := range list {
		m := p.message(s)
		m.Header[batchID] = []string{id}
		m.Header[batchSequence] = []string{strconv.Itoa(i + 1)}
		if i < len(list)-1 {
			if err := conn.PublishMsg(m); err != nil {
				return 0, err
			}
			continue
		}
		m.Header[batchCommit] = []string{"1"}
		answer, err := conn.RequestMsgWithContext(ctx, m)
		if err != nil {
			return 0, err
		}
		var ack struct {
			Error    *jetstream.APIError `json:"error"`
			Sequence uint64              `json:"seq"`
			Batch    string              `json:"batch"`
			Count    int                 `json:"count"`
		}
		if err := json.Unmarshal(answer.Data, &ack); err != nil {
			return 0, fmt.Errorf("the answer to a batch: %w", err)
		}
		switch {
		case ack.Error != nil:
			return 0, ack.Error
		case ack.Batch != id || ack.Count != len(list) || ack.Sequence < uint64(len(list)):
			return 0, errNoBatches
		}
		return ack.Sequence, nil
	}
	return 0, errors.New("an empty batch")
}

// errNoBatches says that the stream takes none: its servers are older, or somebody has turned it off.
var errNoBatches = errors.New("the servers do not know batches")

// batchesOff is the servers' code for a stream that takes none.
const batchesOff = jetstream.ErrorCode(10174)

func noBatches(err error) bool {
	var api *jetstream.APIError
	return errors.Is(err, errNoBatches) || errors.As(err, &api) && api.ErrorCode == batchesOff
}

// message is the session's block, expecting that nothing came between it and the one before.
func (p *packer) message(s *packed) *nats.Msg {
	m := nats.NewMsg(Subject(s.shard, s.id))
	m.Header[jetstream.MsgIDHeader] = []string{fmt.Sprintf("%s.%d", s.id, s.flight.block.Header.Number)}
	m.Header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(s.acked.subject, 10)}
	m.Data = s.flight.block.Bytes
	return m
}
