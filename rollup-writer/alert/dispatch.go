package alert

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/deliver"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
)

// attempt is the result of an attempt.
type attempt struct {
	deliver.Batch
	err error
}

// dispatcher delivers the messages in memory. It belongs to one goroutine; attempts run
// in goroutines of their own and send their results to it.
type dispatcher struct {
	s       *Service
	queues  map[string]*deliver.Queue
	results chan attempt
	running int
	erased  int64 // memory.erasedAt up to which messages were dropped
}

func newDispatcher(s *Service) *dispatcher {
	d := &dispatcher{s: s, queues: map[string]*deliver.Queue{}, results: make(chan attempt, len(s.targets.Targets))}
	for i := range s.targets.Targets {
		t := &s.targets.Targets[i]
		d.queues[t.Name] = deliver.NewQueue(t)
	}
	return d
}

// take adds new messages in memory to the queues of the targets that want them.
func (d *dispatcher) take(now time.Time) {
	m := d.s.memory
	if m.erasedAt != d.erased {
		d.erased = m.erasedAt
		for id, r := range m.records {
			if m.erased.Names(r) {
				for _, q := range d.queues {
					q.Drop(id)
				}
			}
		}
	}
	for _, id := range m.fresh {
		r := m.records[id]
		if r == nil || m.erased.Names(r) {
			continue // its record is older than the log, or about a person who was erased
		}
		for i := range d.s.targets.Targets {
			t := &d.s.targets.Targets[i]
			mark, marked := m.marks[signal.Key(signal.KeyDelivery, id, t.Name)]
			again := marked && mark.State == markAgain
			if (marked && !again) || (!again && now.Sub(r.Written) > t.GiveUp) || !wants(t, r) {
				continue
			}
			d.queues[t.Name].Put(d.s.message(r, t.Name), now)
		}
	}
	m.fresh = m.fresh[:0]
}

// message is a record as the target receives it. A link expires some time after its
// record was written, so that every attempt sends the same bytes.
func (s *Service) message(r *signal.Record, target string) signal.Message {
	m := r.Message
	if s.cfg.ConsoleURL != "" && r.Use == insight.UseAlert && r.State == signal.Firing {
		link := signal.Link{App: m.App, AlertID: m.AlertID, Recipient: target, Expires: r.Written.Add(signal.LinkFor)}
		m.FeedbackURL = strings.TrimSuffix(s.cfg.ConsoleURL, "/") + "/feedback?link=" + link.Sign(s.cfg.FeedbackSecret.Reveal())
	}
	return m
}

// wants reports whether a target wants a record: changes of a segment or of a health band
// go only to targets that name the segment, the score, or the score and the band.
func wants(t *deliver.Target, r *signal.Record) bool {
	if r.Use != insight.UseAlert {
		named := slices.Contains(t.Segments, r.Signal) || (r.Band != "" && slices.Contains(t.Segments, bandSignal(r.Signal, r.Band)))
		return named && t.Wants(&r.Message, []string{t.Name})
	}
	return t.Wants(&r.Message, r.Audience)
}

// start starts the attempts that are due. They end with ctx.
func (d *dispatcher) start(ctx context.Context, now time.Time) error {
	for _, q := range d.queues {
		b, ok := q.Next(now)
		if !ok {
			continue
		}
		if err := d.s.hit("alerts.before-send"); err != nil {
			return err
		}
		d.running++
		d.s.progress.began(b.Target, time.Now().Add(d.s.targets.Timeout(b.Target)))
		go func() { // ends with the attempt, for which drain waits
			err := d.s.targets.Send(ctx, b, now)
			if after := d.s.hit("alerts.after-send"); err == nil {
				err = after
			}
			d.results <- attempt{b, err}
		}()
	}
	return nil
}

// finish records the end of an attempt in the log. Until that is written, a message may
// be sent again, under its id.
func (d *dispatcher) finish(ctx context.Context, a attempt) error {
	d.running--
	d.s.progress.ended(a.Target)
	now := d.s.now()
	delivered, dead := d.queues[a.Target].Done(a.Batch, a.err, now)
	switch {
	case a.err != nil:
		d.s.metrics.attempts.WithLabelValues(a.Target, "failed").Inc()
		d.s.log.Warn("delivering alerts failed", "target", a.Target, "messages", len(a.Messages), "attempt", a.Attempt, "error", a.err)
	default:
		d.s.metrics.attempts.WithLabelValues(a.Target, "delivered").Inc()
	}
	var records []*kgo.Record
	for _, m := range delivered {
		records = append(records, stateRecord(d.s.names, signal.Key(signal.KeyDelivery, m.ID, a.Target), mark{State: markDelivered, At: now.UTC()}))
	}
	for _, m := range dead {
		d.s.metrics.dead.WithLabelValues(a.Target).Inc()
		d.s.log.Error("alert given up: see `rollup-writer alerts redeliver`", "target", a.Target, "message", m.ID, "error", a.err)
		records = append(records, stateRecord(d.s.names, signal.Key(signal.KeyDelivery, m.ID, a.Target), mark{State: markDead, At: now.UTC(), Error: fmt.Sprint(a.err)}))
	}
	if len(records) == 0 {
		return nil
	}
	if err := d.s.hit("alerts.before-mark"); err != nil {
		return err
	}
	if err := d.s.producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("write deliveries: %w", err)
	}
	return nil
}

// waiting is the number of messages that wait or are being sent.
func (d *dispatcher) waiting() (n int) {
	for _, q := range d.queues {
		n += q.Len()
	}
	return n
}

// drainWait is how long attempts may take to end when they are cancelled.
const drainWait = 10 * time.Second

// drain waits for the attempts in progress, which were cancelled. One that does not end is
// abandoned: its message has no mark and will be sent again.
func (d *dispatcher) drain(ctx context.Context) error {
	var first error
	d.s.progress.enter("wait for deliveries to end")
	ctx, cancel := context.WithTimeout(ctx, drainWait)
	defer cancel()
	for d.running > 0 {
		select {
		case a := <-d.results:
			if err := d.finish(ctx, a); err != nil && first == nil {
				first = err
			}
		case <-ctx.Done():
			return errors.Join(first, fmt.Errorf("%d attempts to deliver did not end when they were cancelled", d.running))
		}
	}
	return first
}
