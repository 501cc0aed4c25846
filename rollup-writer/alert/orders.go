package alert

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/arbiter"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// order writes the records that decide derives from the two topics, between rounds of
// evaluators.
func order(ctx context.Context, opts []kgo.Opt, names *topic.Names, decide func(*memory) (*kgo.Record, error)) error {
	r, err := reader.New(opts...)
	if err != nil {
		return err
	}
	defer r.Close()
	m := newMemory(r, names, nil)
	_, err = arbiter.Write(ctx, arbiter.Config{Options: opts, TransactionalID: transactionalID(names)}, func(ctx context.Context) ([]*kgo.Record, error) {
		if err := m.catchUp(ctx); err != nil {
			return nil, err
		}
		rec, err := decide(m)
		if err != nil {
			return nil, err
		}
		return []*kgo.Record{rec}, nil
	})
	return err
}

// Acknowledger returns a function that records an acknowledgement in the alerts log.
func Acknowledger(opts []kgo.Opt, names *topic.Names) func(context.Context, signal.Acknowledgement) error {
	return func(ctx context.Context, a signal.Acknowledgement) error {
		return acknowledge(ctx, opts, names, a, time.Now())
	}
}

func acknowledge(ctx context.Context, opts []kgo.Opt, names *topic.Names, a signal.Acknowledgement, now time.Time) error {
	return order(ctx, opts, names, func(m *memory) (*kgo.Record, error) {
		last := m.alerts[a.AlertID]
		if last == nil {
			return nil, fmt.Errorf("no alert %s in the log", a.AlertID)
		}
		if m.erased.Names(last) {
			return nil, fmt.Errorf("alert %s is about a user who was erased", a.AlertID)
		}
		r := *last
		r.ID = "msg_" + uuid.Must(uuid.NewV7()).String()
		r.State, r.Silent, r.Written, r.By, r.Feedback, r.Note = signal.Acknowledged, true, now.UTC(), a.By, a.Feedback, a.Note
		r.Reason = "acknowledged by " + a.By
		return alertRecord(names, &r), nil
	})
}

// Redeliver makes a message be sent to a target again.
func Redeliver(ctx context.Context, opts []kgo.Opt, names *topic.Names, id, target string, now time.Time) error {
	return order(ctx, opts, names, func(m *memory) (*kgo.Record, error) {
		if m.records[id] == nil {
			return nil, fmt.Errorf("no message %s in the log", id)
		}
		if m.erased.Names(m.records[id]) {
			return nil, fmt.Errorf("message %s is about a user who was erased", id)
		}
		return stateRecord(names, signal.Key(signal.KeyDelivery, id, target), mark{State: markAgain, At: now.UTC()}), nil
	})
}
