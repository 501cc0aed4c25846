package rollup

import (
	"context"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/schemas/topic"
)

// What enrichers count is stored once, whatever becomes of the writers, and
// without cutting blocks; repeated in full it is the same.
func TestCountsAreStoredOnce(t *testing.T) {
	b := newBench(t)
	b.init()
	e := &writertest.Enricher{B: b.Bench}
	w := b.start()
	for i := range 12 {
		e.Transaction(events(uint64(i), i*7%40), i%3, i%2)
		switch i % 4 {
		case 1:
			w.Kill()
			<-w.Done
			w = b.start()
		case 3:
			w.End()
			w = b.start()
		}
	}
	b.Check()
	e.Conserved()
	w.End()

	b.Rewind()
	w = b.start()
	b.Check()
	e.Conserved()
	if got, want := w.Metric("uptake_writer_events_total", "dev", "stored"), float64(len(b.Sent)); got != want {
		t.Errorf("events stored: got %v, want %v", got, want)
	}
	if got := w.Metric("uptake_writer_records_total", "counts"); got == 0 {
		t.Error("no counts were read")
	}
	if got, want := w.Metric("uptake_writer_rows_read_total", topic.Unprefixed.Enriched), float64(len(b.Sent)); got != want {
		t.Errorf("rows read: got %v, want %v", got, want)
	}
	w.End()
}

// A writer that dies when ClickHouse has a block's rows and not its counts leaves
// both to its successor, which adds only what is missing.
func TestCountsFollowTheirRows(t *testing.T) {
	b := newBench(t)
	b.init()
	ctx := context.Background()
	if err := b.SQL.Exec(ctx, "CREATE MATERIALIZED VIEW refuse TO audit_blocks AS SELECT * FROM audit_blocks WHERE throwIf(accepted > 0, 'not now')"); err != nil {
		t.Fatal(err)
	}
	e := &writertest.Enricher{B: b.Bench}
	w := b.start()
	list := events(70, 50)
	e.Transaction(list, 3, 2)
	b.Await("rows that are there without their counts", func() bool {
		return b.Number("SELECT count() FROM events") == int64(len(list)) && w.Metric("uptake_writer_retries_total") >= 2*partitions
	})
	w.Kill()
	<-w.Done
	if err := b.SQL.Exec(ctx, "DROP VIEW refuse SYNC"); err != nil {
		t.Fatal(err)
	}
	w = b.start()
	b.Check()
	e.Conserved()
	w.End()
}
