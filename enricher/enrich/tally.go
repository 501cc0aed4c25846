package enrich

import (
	"fmt"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// tally counts what became of a partition's raw records in the open transaction,
// by app and hour of receipt. It goes into enriched with the transaction, as the
// last record of the partition: so it is committed with what it counts or not at
// all, nothing of it needs to be remembered, and whoever has read it has read
// what it counts.
type tally struct {
	first, next int64 // offsets of raw that were taken
	cells       []event.Cell
	index       map[cellKey]int
	last        int // cell of the last event
}

type cellKey struct {
	app  string
	hour int64
}

func (t *tally) reset() {
	t.first, t.next, t.last = 0, 0, 0
	t.cells = t.cells[:0]
	clear(t.index)
}

// accept counts a record under its app and instant of receipt, and returns the
// cell, where the caller counts what became of it. It is valid until the next
// call.
func (t *tally) accept(app string, received event.Micros) *event.Cell {
	hour := event.HourOf(received)
	if t.last < len(t.cells) {
		if c := &t.cells[t.last]; c.Hour == hour && c.AppID == app {
			c.Accepted++
			return c
		}
	}
	i, ok := t.index[cellKey{app, hour}]
	if !ok {
		if t.index == nil {
			t.index = map[cellKey]int{}
		}
		own := strings.Clone(app)
		i = len(t.cells)
		t.cells = append(t.cells, event.Cell{AppID: own, Hour: hour})
		t.index[cellKey{own, hour}] = i
	}
	t.last = i
	t.cells[i].Accepted++
	return &t.cells[i]
}

// took notes that the record at an offset was taken.
func (t *tally) took(offset int64) {
	if t.next == 0 {
		t.first = offset
	}
	t.next = offset + 1
}

// emitCounts emits what the transaction counted.
func (w *worker) emitCounts() error {
	t := &w.tally
	for from := 0; from < len(t.cells); from += event.MaxCells {
		c := event.Counts{
			RawTopicID: w.n.svc.topics[topic.Raw].ID.String(),
			First:      t.first, Next: t.next,
			Cells: t.cells[from:min(from+event.MaxCells, len(t.cells))],
		}
		if from > 0 {
			c.First = t.next
		}
		payload, err := c.Payload()
		if err != nil {
			return err
		}
		control := event.Control{
			Kind:      event.ControlCounts,
			ControlID: fmt.Sprintf("counts-%d-%d-%d", w.id, t.first, from),
			CreatedAt: event.FromTime(w.n.svc.now()),
			Payload:   payload,
		}
		w.emit(topic.Enriched, w.id, nil, w.out.keep(w.out.codec.AppendControl(w.out.room(len(payload)+256), &control)))
	}
	t.reset()
	return nil
}
