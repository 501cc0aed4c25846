package rollup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// enricher produces what an enricher would: events, rejects, and counts of them
// behind, with the raw offsets that they came from.
type enricher struct {
	b    *bench
	next [partitions]int64
}

func (e *enricher) transaction(list []*event.EnrichedEvent, duplicates, rejected int) {
	e.b.t.Helper()
	for p := range int32(partitions) {
		var values, rejects [][]byte
		c := event.Counts{RawTopicID: "raw-id", First: e.next[p]}
		cells := map[int64]*event.Cell{}
		cell := func(at event.Micros) *event.Cell {
			h := event.HourOf(at)
			if cells[h] == nil {
				cells[h] = &event.Cell{AppID: "dev", Hour: h}
			}
			cells[h].Accepted++
			return cells[h]
		}
		for _, ev := range list {
			if partitionOf(ev) != p {
				continue
			}
			ev.RawOffset = e.next[p]
			e.next[p]++
			cell(ev.ReceivedAt).Stored++
			values = append(values, e.b.codec.AppendEnriched(nil, ev))
			e.b.sent = append(e.b.sent, ev)
		}
		hour := time.Date(2026, 11, 21, 5, 30, 0, 0, time.UTC)
		for range duplicates {
			e.next[p]++
			cell(event.FromTime(hour)).Duplicates++
		}
		for range rejected {
			r := event.Rejected{
				AppID: "dev", Stage: event.StageEnricher, Code: "bad_event", MessageID: fmt.Sprint("r-", p, "-", e.next[p]),
				ReceivedAt: event.FromTime(hour), RejectedAt: event.FromTime(hour), SourcePartition: int64(p), SourceOffset: e.next[p],
			}
			e.next[p]++
			cell(r.ReceivedAt).Rejected++
			rejects = append(rejects, e.b.codec.AppendRejected(nil, &r))
		}
		for _, c1 := range cells {
			c.Cells = append(c.Cells, *c1)
		}
		if c.Next = e.next[p]; c.Next == c.First {
			continue
		}
		payload, err := c.Payload()
		if err != nil {
			e.b.t.Fatal(err)
		}
		e.b.produce(topic.Rejected, 0, rejects...)
		e.b.produce(topic.Enriched, p, append(values, e.b.codec.AppendControl(nil, &event.Control{Kind: event.ControlCounts, Payload: payload}))...)
	}
}

// conserved fails unless ClickHouse says that nothing is missing or too many of
// what was accepted.
func (e *enricher) conserved() {
	e.b.t.Helper()
	var accepted, want, wrong, ahead, hours int64
	for _, n := range e.next {
		want += n
	}
	err := e.b.sql.QueryRow(context.Background(), `SELECT sum(accepted), toInt64(countIf(difference != 0 OR stored_difference != 0 OR rejected_difference != 0)), sum(ahead), toInt64(count()) FROM audit_differences`).
		Scan(&accepted, &wrong, &ahead, &hours)
	if err != nil {
		e.b.t.Fatal(err)
	}
	if accepted != want || wrong != 0 || ahead != 0 || hours == 0 {
		e.b.t.Errorf("accepted %d, want %d; %d of %d hours differ, %d ahead", accepted, want, wrong, hours, ahead)
	}
	if got := e.b.number("SELECT sum(value) FROM audit_counts WHERE stage = 'enricher' AND counter = 'accepted'"); got != want {
		e.b.t.Errorf("audit_counts: accepted %d, want %d", got, want)
	}
	for _, counter := range []string{"stored", "rejected"} {
		of := func(stage string) int64 {
			return e.b.number("SELECT sum(value) FROM audit_counts WHERE stage = ? AND counter = ?", stage, counter)
		}
		if got, want := of("rollup-writer"), of("enricher"); got != want || want == 0 {
			e.b.t.Errorf("audit_counts: %s %d by the writer, %d by the enricher", counter, got, want)
		}
	}
	for p, next := range e.next {
		if got := e.b.number("SELECT sum(accepted) - max(raw_next) + min(raw_first) FROM audit_blocks FINAL WHERE source_partition = ?", p); got != 0 {
			e.b.t.Errorf("partition %d: %d more counted than its raw offsets up to %d", p, got, next)
		}
	}
}

// What enrichers count is stored once, whatever becomes of the writers, and
// without cutting blocks; repeated in full it is the same.
func TestCountsAreStoredOnce(t *testing.T) {
	b := newBench(t)
	b.init()
	e := &enricher{b: b}
	w := b.start()
	for i := range 12 {
		e.transaction(events(uint64(i), i*7%40), i%3, i%2)
		switch i % 4 {
		case 1:
			w.kill()
			<-w.done
			w = b.start()
		case 3:
			w.end()
			w = b.start()
		}
	}
	b.check()
	e.conserved()
	w.end()

	b.rewind()
	w = b.start()
	b.check()
	e.conserved()
	if got := w.metric("uptake_writer_records_total", "counts"); got == 0 {
		t.Error("no counts were read")
	}
	if got, want := w.metric("uptake_writer_rows_read_total", topic.Enriched), float64(len(b.sent)); got != want {
		t.Errorf("rows read: got %v, want %v", got, want)
	}
	w.end()
}
