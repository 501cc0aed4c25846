package rollup

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// enricher produces what an enricher would: events, rejects, and counts of them
// behind, with the raw offsets that they came from.
type enricher struct {
	b    *bench
	next [partitions]int64
}

// rawTopicID is of the raw topic, into which transaction puts a record for each
// offset that it counts.
func (e *enricher) rawTopicID() string {
	infos, err := topic.Check(context.Background(), e.b.admin, topic.Raw)
	if err != nil {
		e.b.t.Fatal(err)
	}
	return infos[topic.Raw].ID.String()
}

// raw puts a record into raw.
func (e *enricher) raw(p int32, at event.Micros) {
	e.b.t.Helper()
	e.b.produce(topic.Raw, p, e.b.codec.AppendRaw(nil, &event.RawEvent{AppID: "dev", MessageID: "any", ReceivedAt: at}))
}

func (e *enricher) transaction(list []*event.EnrichedEvent, duplicates, rejected int) {
	e.b.t.Helper()
	for p := range int32(partitions) {
		var values, rejects [][]byte
		c := event.Counts{RawTopicID: e.rawTopicID(), First: e.next[p]}
		cells := map[int64]*event.Cell{}
		cell := func(at event.Micros) *event.Cell {
			h := event.HourOf(at)
			if cells[h] == nil {
				cells[h] = &event.Cell{AppID: "dev", Hour: h}
			}
			cells[h].Accepted++
			e.raw(p, at)
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
		hour := firstReceipt.Add(29*time.Hour + 30*time.Minute)
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
	if got, want := w.metric("uptake_writer_events_total", "dev", "stored"), float64(len(b.sent)); got != want {
		t.Errorf("events stored: got %v, want %v", got, want)
	}
	if got := w.metric("uptake_writer_records_total", "counts"); got == 0 {
		t.Error("no counts were read")
	}
	if got, want := w.metric("uptake_writer_rows_read_total", topic.Enriched), float64(len(b.sent)); got != want {
		t.Errorf("rows read: got %v, want %v", got, want)
	}
	w.end()
}

// A writer that dies when ClickHouse has a block's rows and not its counts leaves
// both to its successor, which adds only what is missing.
func TestCountsFollowTheirRows(t *testing.T) {
	b := newBench(t)
	b.init()
	ctx := context.Background()
	if err := b.sql.Exec(ctx, "CREATE MATERIALIZED VIEW refuse TO audit_blocks AS SELECT * FROM audit_blocks WHERE throwIf(accepted > 0, 'not now')"); err != nil {
		t.Fatal(err)
	}
	e := &enricher{b: b}
	w := b.start()
	list := events(70, 50)
	e.transaction(list, 3, 2)
	b.await("rows that are there without their counts", func() bool {
		return b.number("SELECT count() FROM events") == int64(len(list)) && w.metric("uptake_writer_retries_total") >= 2*partitions
	})
	w.kill()
	<-w.done
	if err := b.sql.Exec(ctx, "DROP VIEW refuse SYNC"); err != nil {
		t.Fatal(err)
	}
	w = b.start()
	b.check()
	e.conserved()
	w.end()
}

// audit asks for the conservation, with little patience.
func (e *enricher) audit() *audit.Conservation {
	e.b.t.Helper()
	cfg := audit.DefaultConfig()
	cfg.Settle, cfg.SettleWait = 1, time.Millisecond
	c, err := audit.Conserve(context.Background(), e.b.sql, cfg, NewTail(e.b.cfg, e.b.log, 1000))
	if err != nil {
		e.b.t.Fatal(err)
	}
	if c.InFlight != "" {
		e.b.t.Fatalf("in flight: %s", c.InFlight)
	}
	return c
}

// One event removed, doubled or counted wrongly is seen, and what is only under
// way is not taken for lost.
func TestConservationAuditSees(t *testing.T) {
	b := newBench(t)
	b.init()
	e := &enricher{b: b}
	w := b.start()
	for i := range 4 {
		e.transaction(events(uint64(50+i), 20), 2, 2)
		b.check()
	}
	w.end()
	if c := e.audit(); !c.Balanced || len(c.Findings) > 0 || c.InFlight != "" {
		t.Fatalf("before anything is wrong: %+v", c)
	}
	tables := []string{"events", "rejected_events", "audit_blocks"}
	exec := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if err := b.sql.Exec(context.Background(), s); err != nil {
				t.Fatalf("%v in %s", err, s)
			}
		}
	}
	for _, name := range tables {
		exec("CREATE TABLE kept_"+name+" AS "+name, "INSERT INTO kept_"+name+" SELECT * FROM "+name)
	}
	restore := func() {
		t.Helper()
		for _, name := range tables {
			exec("TRUNCATE TABLE "+name, "INSERT INTO "+name+" SETTINGS insert_deduplicate = 0 SELECT * FROM kept_"+name)
		}
	}
	again := func(table, replace, where string) string {
		return "INSERT INTO " + table + " SETTINGS insert_deduplicate = 0 SELECT * " + replace + " FROM " + table + " WHERE " + where
	}
	const sync = " SETTINGS mutations_sync = 2"
	block := "source_partition = 0 AND (hour, source_offset) = (SELECT (hour, source_offset) FROM audit_blocks WHERE source_partition = 0 AND duplicates > 0 ORDER BY source_offset LIMIT 1)"
	for _, tc := range []struct {
		name, statement string
		finding         string
		difference      int64
	}{
		{"event removed", "ALTER TABLE events DELETE WHERE message_id = 'm-51-3'" + sync, "events lacks 1 of", 1},
		{"event doubled", again("events", "", "message_id = 'm-51-3'"), "events holds 1 rows more than", -1},
		{"reject removed", "ALTER TABLE rejected_events DELETE WHERE raw_partition = 0 AND raw_offset = (SELECT min(raw_offset) FROM rejected_events WHERE raw_partition = 0)" + sync, "rejected_events lacks 1 of", 1},
		{"reject doubled", again("rejected_events", "", "raw_partition = 0 ORDER BY raw_offset LIMIT 1"), "rejected_events holds 1 rows more than", -1},
		{"duplicate not counted", again("audit_blocks", "REPLACE(duplicates - 1 AS duplicates)", block), "do not add up: 1 are accepted", 1},
		{"stored counted wrongly", again("audit_blocks", "REPLACE(stored + 1 AS stored)", block), "events lacks 1 of", 0},
		{"duplicate invented", again("audit_blocks", "REPLACE(duplicates + 1 AS duplicates, accepted + 1 AS accepted)", block), "were counted twice", 0},
		{"counts of the first block lost", "ALTER TABLE audit_blocks DELETE WHERE source_partition = 0 AND source_offset = (SELECT min(source_offset) FROM kept_audit_blocks WHERE source_partition = 0)" + sync, "from 0 on, were counted by nobody", 0},
		{"counts of a block lost", "ALTER TABLE audit_blocks DELETE WHERE source_partition = 0 AND source_offset = (SELECT min(source_offset) FROM kept_audit_blocks WHERE source_partition = 0 AND source_offset > (SELECT min(source_offset) FROM kept_audit_blocks WHERE source_partition = 0))" + sync, "were counted by nobody", 0},
	} {
		exec(tc.statement)
		c := e.audit()
		found := false
		for _, f := range c.Findings {
			found = found || strings.Contains(f.What, tc.finding)
		}
		if c.Balanced || !found {
			t.Errorf("%s: balanced %t, findings %+v, want one with %q", tc.name, c.Balanced, c.Findings, tc.finding)
		}
		difference := int64(0)
		for _, h := range c.Hours {
			difference += h.Difference
			if got := h.Stored + h.Duplicates + h.Rejected + h.OptedOut + h.InFlight + h.Difference; got != h.Accepted {
				t.Errorf("%s: accepted %d is not the sum %d: %+v", tc.name, h.Accepted, got, h)
			}
		}
		if tc.difference != 0 && difference != tc.difference {
			t.Errorf("%s: difference %d, want %d", tc.name, difference, tc.difference)
		}
		restore()
		if c := e.audit(); !c.Balanced {
			t.Fatalf("%s, mended: %+v", tc.name, c.Findings)
		}
	}

	// What was lost of the counts is in the log.
	for range 2 {
		exec("ALTER TABLE audit_blocks DELETE WHERE (source_partition, source_offset) NOT IN (SELECT source_partition, max(source_offset) FROM kept_audit_blocks GROUP BY source_partition)" + sync)
		if c := e.audit(); c.Balanced {
			t.Error("lost counts are not seen")
		}
		for _, some := range []bool{true, false} {
			n, err := Recount(context.Background(), b.cfg, b.log)
			if err != nil || (n > 0) != some {
				t.Errorf("recount stored %d records, %v, want any: %t", n, err, some)
			}
		}
		if c := e.audit(); !c.Balanced {
			t.Errorf("recounted: %+v", c.Findings)
		}
	}
	restore()

	// Rejects that the writer has not committed are in flight, not lost; so is
	// what is in raw and not counted.
	b.rewind()
	exec("TRUNCATE TABLE rejected_events")
	at := event.FromTime(firstReceipt.Add(31*time.Hour + time.Minute))
	for range 3 {
		e.raw(1, at)
	}
	c := e.audit()
	got := map[int64]int64{}
	for _, h := range c.Hours {
		if h.InFlight != 0 {
			got[h.Hour.Unix()] = h.InFlight
		}
	}
	want := map[int64]int64{event.HourOf(at): 3, firstReceipt.Add(29 * time.Hour).Unix(): 4 * 2 * partitions}
	if !c.Balanced || !maps.Equal(got, want) {
		t.Errorf("in flight: balanced %t, got %v, want %v", c.Balanced, got, want)
	}
	// Without the log it is not known, and what is missing is told.
	cfg := audit.DefaultConfig()
	cfg.Settle = 0
	if c, err := audit.Conserve(context.Background(), b.sql, cfg, nil); err != nil || c.Balanced || c.InFlight == "" {
		t.Errorf("without the log: %+v, %v", c, err)
	}
	var text strings.Builder
	if err := c.WriteText(&text, 10); err != nil || !strings.Contains(text.String(), "IN FLIGHT") || !strings.Contains(text.String(), "balanced") {
		t.Errorf("text: %v\n%s", err, text.String())
	}
}
