package repair_test

import (
	"context"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// filled is a log of an enricher's transactions that a writer has written.
func filled(b *bench) *writertest.Enricher {
	b.T.Helper()
	b.init()
	e := &writertest.Enricher{B: b.Bench}
	w := b.start()
	for i := range 3 {
		e.Transaction(events(uint64(50+i), 20), 2, 2)
		b.AwaitSettled()
	}
	e.Commit()
	w.End()
	return e
}

// empty takes all rows out of what the writer fills.
func (b *bench) empty(names ...string) {
	b.T.Helper()
	for _, name := range names {
		b.Exec("TRUNCATE TABLE " + b.Schema.Local(name))
	}
}

func blockTables() []string {
	return append(tables.Names(tables.Select(func(t *tables.Table) bool { return t.Blocks })), "identity_facts", "metric_values", "identity_unlinks")
}

// said is what an audit of conservation finds, in words.
func said(b *bench) (balanced bool, text string) {
	b.T.Helper()
	c := b.conserve()
	var out strings.Builder
	if err := c.WriteText(&out, 10); err != nil {
		b.T.Fatal(err)
	}
	return c.Balanced, out.String()
}

// A ClickHouse that was emptied, or is an older copy, is not written into from the
// commits on: the writer refuses and says what to do, the audit says it too, and
// doing it brings everything back that the log has.
func TestClickHouseBehindItsCommits(t *testing.T) {
	b := newBench(t)
	e := filled(b)
	if balanced, text := said(b); !balanced {
		t.Fatalf("before anything is lost:\n%s", text)
	}
	refused := func(what string) {
		t.Helper()
		if balanced, text := said(b); balanced || !strings.Contains(text, "emptied or is an older copy") || !strings.Contains(text, "to repair: stop all writers, run `rollup-writer init -reset`") {
			t.Errorf("%s: balanced %t:\n%s", what, balanced, text)
		}
		w := b.start()
		b.Await("partitions to be refused", func() bool { return w.Metric("uptake_writer_halted_partitions") > 0 })
		if why := w.Health.Ready()["rollup-writer"]; !strings.Contains(why, "emptied or is an older copy") || !strings.Contains(why, "init -reset") {
			t.Errorf("%s: health: %q", what, why)
		}
		w.End()
	}
	// An older copy: it has the first transaction alone.
	for _, name := range []string{"events", "audit_blocks"} {
		b.Exec("CREATE TABLE " + b.Schema.Table("kept_"+name) + " AS " + b.Schema.Table(name))
		b.Exec("INSERT INTO " + b.Schema.Table("kept_"+name) + " SELECT * FROM " + name)
	}
	b.Exec("ALTER TABLE events DELETE WHERE NOT startsWith(message_id, 'm-50-') SETTINGS mutations_sync = 2")
	b.Exec("ALTER TABLE audit_blocks DELETE WHERE (source_partition, source_offset) NOT IN (SELECT source_partition, min(source_offset) FROM " + b.Schema.Table("kept_audit_blocks") + " GROUP BY source_partition) SETTINGS mutations_sync = 2")
	refused("an older copy")

	b.empty(blockTables()...)
	refused("emptied")
	if err := repair.Reset(context.Background(), b.cfg.Config, false, b.Log); err != nil {
		t.Fatal(err)
	}
	w := b.start()
	b.Check()
	w.End()
	e.Conserved()
	if balanced, text := said(b); !balanced {
		t.Errorf("written again:\n%s", text)
	}
	if equal, found := b.Audited(); !equal {
		t.Errorf("written again:\n%s", found)
	}
}

// Counts that are committed are not in flight: all of audit_blocks lost is not
// balanced, and recount, which the audit advises, brings it back.
func TestAllCountsLost(t *testing.T) {
	b := newBench(t)
	e := filled(b)
	b.empty("audit_blocks")
	balanced, text := said(b)
	if balanced || !strings.Contains(text, "are committed and not in audit_blocks") || !strings.Contains(text, "`rollup-writer recount`") {
		t.Errorf("balanced %t:\n%s", balanced, text)
	}
	for _, h := range b.conserve().Hours {
		if h.InFlight != 0 {
			t.Errorf("in flight: %+v", h)
		}
	}
	// The counts alone are gone: writers go on.
	w := b.start()
	late := events(77, 20)
	e.Transaction(late, 0, 0)
	b.AwaitSettled()
	e.Commit()
	w.End()
	if balanced, text := said(b); balanced {
		t.Errorf("after more was written:\n%s", text)
	}
	if _, err := repair.Recount(context.Background(), b.cfg.Config, b.Log); err != nil {
		t.Fatal(err)
	}
	if balanced, text := said(b); !balanced {
		t.Errorf("recounted:\n%s", text)
	}
	e.Conserved()
}
