package rollup

import (
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// rowType is the type of record in a topic.
func rowType(names *topic.Names, name string) event.Type {
	if name == names.Rejected {
		return event.TypeRejected
	}
	return event.TypeEnriched
}

// rows is a block under construction, of either topic.
type rows interface {
	clickhouse.Block
	Reset()
	// take adds a row; erased, if it is not nil, masks it.
	take(c *event.Codec, src columns.Source, offset int64, value []byte, erased *erase.Erasures) error
	// count adds an enricher's counts of rows at lower offsets.
	count(src columns.Source, offset, millis int64, n *event.Counts)
	// counted returns the rows of the counts, nil when there are none.
	counted() *columns.Counts
	// order adds the moves of a control record, which apply to the rows before it.
	order(o plan.Order)
	// ordered returns these orders and the rows that they may move, nil when there are
	// none. They are valid until Reset.
	ordered() (*plan.Orders, *columns.Events)
	// aside takes a record that nothing can read.
	aside(src columns.Source, offset int64, e *event.Rejected)
	// asides are those beside the rows, nil when there are none.
	asides() *columns.Rejected
	// EachApp calls fn with every app that has rows, and their number.
	EachApp(fn func(app string, rows int))
	// Received returns when the oldest and the newest row were received, in
	// microseconds since the epoch; 0 without rows.
	Received() (oldest, newest int64)
	// EachPlace calls fn for every row, in order.
	EachPlace(fn func(columns.Place))
	// pick returns a block of the rows that keep says, by their number.
	pick(keep []bool) clickhouse.Block
	// repair replaces texts that the server cannot parse; see columns.Events.Repair.
	repair(all bool) int
}

func newRows(names *topic.Names, name string) rows {
	if name == names.Rejected {
		return &rejectedRows{Rejected: columns.NewRejected()}
	}
	return &eventRows{Events: columns.NewEvents()}
}

type eventRows struct {
	*columns.Events
	record event.EnrichedEvent
	counts counts
	orders plan.Orders
	poison *columns.Rejected // made when it is needed
}

func (r *eventRows) Reset() {
	r.Events.Reset()
	r.counts.reset()
	r.orders.Reset()
	r.poison = nil
}

func (r *eventRows) aside(src columns.Source, offset int64, e *event.Rejected) {
	if r.poison == nil {
		r.poison = columns.NewRejected()
	}
	r.poison.Append(src, offset, e)
}

func (r *eventRows) asides() *columns.Rejected { return r.poison }

func (r *eventRows) order(o plan.Order)                       { r.orders.Add(o) }
func (r *eventRows) ordered() (*plan.Orders, *columns.Events) { return &r.orders, r.Events }

func (r *eventRows) count(src columns.Source, offset, millis int64, n *event.Counts) {
	r.counts.add(src, offset, millis, n)
}

func (r *eventRows) counted() *columns.Counts { return r.counts.rows() }

func (r *eventRows) take(c *event.Codec, src columns.Source, offset int64, value []byte, erased *erase.Erasures) error {
	if err := c.DecodeEnriched(value, &r.record); err != nil {
		return err
	}
	if erased != nil {
		erased.Event(&r.record)
	}
	r.Append(src, offset, &r.record)
	return nil
}

func (r *eventRows) pick(keep []bool) clickhouse.Block { return r.Pick(keep) }

func (r *eventRows) repair(all bool) int { return r.Repair(all) }

type rejectedRows struct {
	*columns.Rejected
	record event.Rejected
}

func (r *rejectedRows) take(c *event.Codec, src columns.Source, offset int64, value []byte, erased *erase.Erasures) error {
	if err := c.DecodeRejected(value, &r.record); err != nil {
		return err
	}
	if erased != nil {
		erased.Rejected(c, &r.record)
	}
	r.Append(src, offset, &r.record)
	return nil
}

// In rejected they are rows as any other.
func (r *rejectedRows) aside(src columns.Source, offset int64, e *event.Rejected) {
	r.Append(src, offset, e)
}
func (r *rejectedRows) asides() *columns.Rejected { return nil }

func (r *rejectedRows) pick(keep []bool) clickhouse.Block { return r.Pick(keep) }

func (r *rejectedRows) repair(bool) int { return 0 }

// Enrichers write counts and orders to enriched only: classify refuses them in other
// topics.
func (r *rejectedRows) count(columns.Source, int64, int64, *event.Counts) {}
func (r *rejectedRows) counted() *columns.Counts                          { return nil }
func (r *rejectedRows) order(plan.Order)                                  {}
func (r *rejectedRows) ordered() (orders *plan.Orders, _ *columns.Events) { return nil, nil }
