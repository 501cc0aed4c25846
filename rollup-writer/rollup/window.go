package rollup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// errWindow is in the chain of the error that halts a partition whose open block may
// have left the dedup windows.
var errWindow = errors.New("the block may have left the dedup windows, so that repeating it could count it twice: " +
	"stop the writers, run `rollup-writer init -reset`, then `rollup-writer rebuild -from-log` of every app")

// window watches how far the dedup windows of one shard's tables have advanced since a
// block was first sent.
//
// Its clock is a mark: the number of the newest part, summed over tables of which every
// block reaches at least one. Each insert adds at least as much to the mark as to the
// window of any single table, so while the mark grew by less than the window, nothing
// has been pushed out of any window. Reading it queries system.parts, so it is read
// from time to time and before every repeat; in between it is too low, which makes a
// block look older than it is and never younger.
type window struct {
	query   string
	entries uint64 // the smallest window

	mu      sync.Mutex // covers the rest
	known   bool
	latest  uint64
	read    time.Time
	booted  time.Time             // when the server was started, by this machine's clock
	boots   uint64                // how often it was started since the first look, and 1
	open    map[*partition]uint64 // mark when the oldest open block was first sent
	changed chan struct{}         // closed and replaced when a block is done
}

// marked are the tables that are summed: any block reaches one of the first three, and
// usage_hourly has at least as many parts as the tables that its views fill.
var marked = map[string][]string{
	boundary.EventsTable:   {"events", "correction_plans", boundary.CountsTable, "corrections", "usage_hourly", boundary.RejectedTable},
	boundary.RejectedTable: {"rejected_events"},
}

func newWindow(schema tables.Schema, table string, sizes map[string]tables.Window) *window {
	w := &window{open: map[*partition]uint64{}, changed: make(chan struct{})}
	w.query = "SELECT sum(m) AS mark, toInt64(uptime()) AS up FROM (SELECT max(max_block_number) AS m FROM system.parts WHERE " +
		schema.Where("database", "table", marked[table]...) + " GROUP BY table, partition_id)"
	all := tables.EventTables
	if table == boundary.RejectedTable {
		all = tables.RejectedTables
	}
	for _, t := range all {
		if n := uint64(sizes[t].Entries); w.entries == 0 || n < w.entries {
			w.entries = n
		}
	}
	return w
}

// refresh reads the mark unless it is younger than age.
func (w *window) refresh(ctx context.Context, conn *clickhouse.Conn, age time.Duration) error {
	w.mu.Lock()
	fresh := w.known && time.Since(w.read) < age
	w.mu.Unlock()
	if fresh {
		return nil
	}
	start := time.Now()
	var mark, up proto.ColInt64
	err := conn.Select(ctx, w.query, proto.Results{{Name: "mark", Data: &mark}, {Name: "up", Data: &up}}, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		// Its uptime is in whole seconds, and the question took a while.
		if booted := start.Add(-time.Duration(up.Row(0)) * time.Second); w.boots == 0 || booted.Sub(w.booted) > 2*time.Second {
			w.booted = booted
			w.boots++
		}
		// A table without parts has an empty window.
		w.latest, w.known, w.read = uint64(max(mark.Row(0), 0)), true, start
		return nil
	})
	if err != nil {
		return fmt.Errorf("read the mark of the dedup windows: %w", err)
	}
	return nil
}

// markOr is the newest mark that was read, or before if none was.
func (w *window) markOr(before uint64) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.known {
		return before
	}
	return w.latest
}

// started says how often the server was started, as far as it was seen.
func (w *window) started() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.boots
}

// begin notes that p is about to send a block: for the first time, or, with before, a
// block that may have been sent already at the mark sent.
func (w *window) begin(p *partition, sent uint64, before bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.open[p]; ok {
		return
	}
	if !before || sent > w.latest { // a lower mark means that the tables are new or restored
		sent = w.latest
	}
	w.open[p] = sent
}

// end notes that p has no open block.
func (w *window) end(p *partition) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, p)
	close(w.changed)
	w.changed = make(chan struct{})
}

// age returns the age of p's open block and that of the oldest open block.
func (w *window) age(p *partition) (own, oldest uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for q, sent := range w.open {
		a := w.latest - min(sent, w.latest)
		oldest = max(oldest, a)
		if q == p {
			own = a
		}
	}
	return own, oldest
}

// admit waits until p may send its open block. It must not while the open block of
// another partition has an age of a quarter of the window or more, since whatever is
// sent makes that block older. admit returns errWindow when p's own block has an age of
// half the window.
func (w *window) admit(ctx context.Context, p *partition) error {
	for {
		own, oldest := w.age(p)
		if own > w.entries/2 {
			return fmt.Errorf("%w (%d parts since it was first sent, window %d)", errWindow, own, w.entries)
		}
		if oldest <= w.entries/4 || own == oldest {
			return nil
		}
		w.mu.Lock()
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// used is the age of the oldest open block as a fraction of the window.
func (w *window) used() float64 {
	_, oldest := w.age(nil)
	return float64(oldest) / float64(w.entries)
}
