package enrich

import (
	"fmt"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
)

// tally counts the fates of a partition's raw records in the open transaction, by app
// and hour of receipt. The counts are written to enriched in the transaction, as the
// partition's last record: they are committed together with the records that they count
// or not at all, nothing has to be remembered between transactions, and a reader of the
// counts has already read the records that they count.
type tally struct {
	first, next int64 // range of raw offsets that were consumed
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

// accept counts a record under its app and instant of receipt, and returns its cell, in
// which the caller counts the record's fate. The cell is valid until the next call.
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

// took notes that the record at an offset was consumed.
func (t *tally) took(offset int64) {
	if t.next == 0 {
		t.first = offset
	}
	t.next = offset + 1
}

// emitCounts emits the counts of the transaction.
func (w *worker) emitCounts() error {
	w.emitLeftOut()
	t := &w.tally
	for from := 0; from < len(t.cells); from += event.MaxCells {
		c := event.Counts{
			RawTopicID: w.n.svc.topics[w.n.svc.names.Raw].ID.String(),
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
		w.emit(w.n.svc.names.Enriched, w.id, nil, w.out.keep(w.out.codec.AppendControl(w.out.room(len(payload)+256), &control)))
	}
	t.reset()
	return nil
}
