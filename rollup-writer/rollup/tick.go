package rollup

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// ticker decides when an open block needs a tick: a record of a later interval, which
// ends the block. Any number of ticks is harmless, so it prefers too many; but it does
// not flood a partition that has an open transaction, where ticks are not readable
// until the transaction ends.
type ticker struct {
	sent    int       // ticks sent for this block
	next    time.Time // not before
	pending atomic.Bool
}

func (t *ticker) reset() { t.sent = 0 }

// tickSlack is how long after the end of the interval a tick is sent: the clocks of the
// broker and of this process agree only approximately.
const tickSlack = 15 * time.Millisecond

// due is how long until a tick for the block.
func (t *ticker) due(b openBlock, s block.Shape, now time.Time) time.Duration {
	at := t.next
	if t.sent == 0 {
		rest := s.EndOfInterval(b.appendMillis) - b.appendMillis
		at = b.since.Add(time.Duration(rest)*time.Millisecond + tickSlack)
	}
	return max(at.Sub(now), time.Millisecond)
}

// maxTickPause bounds the growing pause between the ticks of one block.
const maxTickPause = 30 * time.Second

// produceTick writes a tick to the partition itself. It does not wait for the ack:
// reading the tick ends the block.
func (p *partition) produceTick() {
	t := &p.tick
	t.sent++
	t.next = p.s.now().Add(min(p.s.cfg.BlockInterval<<min(t.sent, 10), maxTickPause))
	if t.pending.Swap(true) {
		return // the previous one is not yet acknowledged
	}
	if failpoint.Hit("writer.before-tick") != nil {
		t.pending.Store(false)
		return
	}
	id, err := uuid.NewV7()
	if err != nil { // the system's random source failed
		id = uuid.UUID{}
	}
	tick := event.Control{Kind: event.ControlTick, ControlID: id.String(), CreatedAt: event.FromTime(p.s.now())}
	rec := &kgo.Record{Topic: p.topic, Partition: p.number, Value: p.s.codec.AppendControl(nil, &tick)}
	p.s.client.TryProduce(context.WithoutCancel(p.revoked), rec, func(_ *kgo.Record, err error) {
		t.pending.Store(false)
		if err != nil {
			p.log.Debug("producing a tick failed", "error", err)
			return
		}
		p.s.metrics.ticks.WithLabelValues(p.topic).Inc()
	})
}
