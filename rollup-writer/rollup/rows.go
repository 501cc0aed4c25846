package rollup

import (
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// rowType is the record that a topic's rows are.
func rowType(name string) event.Type {
	if name == topic.Rejected {
		return event.TypeRejected
	}
	return event.TypeEnriched
}

// rows is a block under construction, of either topic.
type rows interface {
	clickhouse.Block
	Reset()
	take(c *event.Codec, src columns.Source, offset int64, value []byte) error
	// count takes what an enricher counted of rows at lower offsets.
	count(src columns.Source, offset, millis int64, n *event.Counts)
	// counted are the rows of that, nil when there are none.
	counted() *columns.Counts
	// EachApp calls fn with every app that rows are of, and how many.
	EachApp(fn func(app string, rows int))
	// repair replaces what the server does not read; see columns.Events.Repair.
	repair(all bool) int
}

func newRows(name string) rows {
	if name == topic.Rejected {
		return &rejectedRows{Rejected: columns.NewRejected()}
	}
	return &eventRows{Events: columns.NewEvents()}
}

type eventRows struct {
	*columns.Events
	record event.EnrichedEvent
	counts counts
}

func (r *eventRows) Reset() {
	r.Events.Reset()
	r.counts.reset()
}

func (r *eventRows) count(src columns.Source, offset, millis int64, n *event.Counts) {
	r.counts.add(src, offset, millis, n)
}

func (r *eventRows) counted() *columns.Counts { return r.counts.rows() }

func (r *eventRows) take(c *event.Codec, src columns.Source, offset int64, value []byte) error {
	if err := c.DecodeEnriched(value, &r.record); err != nil {
		return err
	}
	r.Append(src, offset, &r.record)
	return nil
}

func (r *eventRows) repair(all bool) int { return r.Repair(all) }

type rejectedRows struct {
	*columns.Rejected
	record event.Rejected
}

func (r *rejectedRows) take(c *event.Codec, src columns.Source, offset int64, value []byte) error {
	if err := c.DecodeRejected(value, &r.record); err != nil {
		return err
	}
	r.Append(src, offset, &r.record)
	return nil
}

func (r *rejectedRows) repair(bool) int { return 0 }

// The enrichers count into enriched alone: classify refuses counts elsewhere.
func (r *rejectedRows) count(columns.Source, int64, int64, *event.Counts) {}
func (r *rejectedRows) counted() *columns.Counts                          { return nil }
