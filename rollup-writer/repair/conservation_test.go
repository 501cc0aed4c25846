package repair_test

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/event"
)

// audit asks for the conservation, with little patience.
func (b *bench) conserve() *audit.Conservation {
	b.T.Helper()
	cfg := audit.DefaultConfig()
	cfg.Settle, cfg.SettleWait = 1, time.Millisecond
	c, err := audit.Conserve(context.Background(), b.SQL, b.Schema, cfg, repair.NewTail(b.cfg.Config, b.Log, 1000))
	if err != nil {
		b.T.Fatal(err)
	}
	if c.InFlight != "" {
		b.T.Fatalf("in flight: %s", c.InFlight)
	}
	return c
}

// One event removed, doubled or counted wrongly is seen, and what is only under
// way is not taken for lost.
func TestConservationAuditSees(t *testing.T) {
	b := newBench(t)
	b.init()
	e := &writertest.Enricher{B: b.Bench}
	w := b.start()
	for i := range 4 {
		e.Transaction(events(uint64(50+i), 20), 2, 2)
		b.Check()
	}
	w.End()
	if c := b.conserve(); !c.Balanced || len(c.Findings) > 0 || c.InFlight != "" {
		t.Fatalf("before anything is wrong: %+v", c)
	}
	tables := []string{"events", "rejected_events", "audit_blocks"}
	exec := func(statements ...string) {
		t.Helper()
		for _, s := range statements {
			if err := b.SQL.Exec(context.Background(), s); err != nil {
				t.Fatalf("%v in %s", err, s)
			}
		}
	}
	for _, name := range tables {
		exec("CREATE TABLE "+b.Schema.Table("kept_"+name)+" AS "+b.Schema.Table(name), "INSERT INTO "+b.Schema.Table("kept_"+name)+" SELECT * FROM "+name)
	}
	restore := func() {
		t.Helper()
		for _, name := range tables {
			exec("TRUNCATE TABLE "+name, "INSERT INTO "+name+" SETTINGS insert_deduplicate = 0 SELECT * FROM "+b.Schema.Table("kept_"+name))
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
		{"counts of the first block lost", "ALTER TABLE audit_blocks DELETE WHERE source_partition = 0 AND source_offset = (SELECT min(source_offset) FROM " + b.Schema.Table("kept_audit_blocks") + " WHERE source_partition = 0)" + sync, "from 0 on, were counted by nobody", 0},
		{"counts of a block lost", "ALTER TABLE audit_blocks DELETE WHERE source_partition = 0 AND source_offset = (SELECT min(source_offset) FROM " + b.Schema.Table("kept_audit_blocks") + " WHERE source_partition = 0 AND source_offset > (SELECT min(source_offset) FROM " + b.Schema.Table("kept_audit_blocks") + " WHERE source_partition = 0))" + sync, "were counted by nobody", 0},
	} {
		exec(tc.statement)
		c := b.conserve()
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
		if c := b.conserve(); !c.Balanced {
			t.Fatalf("%s, repaired: %+v", tc.name, c.Findings)
		}
	}

	// What was lost of the counts is in the log.
	for range 2 {
		exec("ALTER TABLE audit_blocks DELETE WHERE (source_partition, source_offset) NOT IN (SELECT source_partition, max(source_offset) FROM " + b.Schema.Table("kept_audit_blocks") + " GROUP BY source_partition)" + sync)
		if c := b.conserve(); c.Balanced {
			t.Error("lost counts are not seen")
		}
		for _, some := range []bool{true, false} {
			n, err := repair.Recount(context.Background(), b.cfg.Config, b.Log)
			if err != nil || (n > 0) != some {
				t.Errorf("recount stored %d records, %v, want any: %t", n, err, some)
			}
		}
		if c := b.conserve(); !c.Balanced {
			t.Errorf("recounted: %+v", c.Findings)
		}
	}
	restore()

	// Rejects that the writer has not committed are in flight, not lost; so is
	// what is in raw and not counted.
	b.Rewind()
	exec("TRUNCATE TABLE rejected_events")
	at := event.FromTime(firstReceipt.Add(31*time.Hour + time.Minute))
	for range 3 {
		e.Raw(1, at)
	}
	c := b.conserve()
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
	if c, err := audit.Conserve(context.Background(), b.SQL, b.Schema, cfg, nil); err != nil || c.Balanced || c.InFlight == "" {
		t.Errorf("without the log: %+v, %v", c, err)
	}
	var text strings.Builder
	if err := c.WriteText(&text, 10); err != nil || !strings.Contains(text.String(), "IN FLIGHT") || !strings.Contains(text.String(), "balanced") {
		t.Errorf("text: %v\n%s", err, text.String())
	}
}
