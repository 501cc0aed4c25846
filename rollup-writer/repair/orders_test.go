package repair_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/event"
)

// netCorrections is what corrections moves, by control record.
const netCorrections = `SELECT sum(cityHash64(k, n)) FROM (SELECT (source_partition, source_offset, hour, account_id, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id) AS k,
	(sum(events), sum(quantity)) AS n FROM corrections GROUP BY k HAVING n != (0, 0))`

// Corrections that are lost with their plans come back from the control records: a
// rebuild without the log refuses, since it would take right corrections out.
func TestCorrectionsComeBackFromTheLog(t *testing.T) {
	b := newBench(t)
	correct := written(b)
	net := b.Number(netCorrections)
	if net == 0 {
		t.Fatal("the log corrects nothing")
	}
	b.empty("corrections", "correction_plans")
	equal, found := b.Audited()
	if equal || !strings.Contains(found, "corrections and their plans were lost") || !strings.Contains(found, "`rollup-writer rebuild -from-log`") {
		t.Errorf("equal %t:\n%s", equal, found)
	}
	if _, err := b.rebuild(); !errors.Is(err, rebuild.ErrShrink) || !strings.Contains(err.Error(), "use -from-log") {
		t.Errorf("without the log: %v", err)
	}
	repaired := func(what string, with ...func(*repair.RebuildConfig)) {
		t.Helper()
		b.mustRebuild(append(with, fromLog)...)
		if equal, found := b.Audited(); !equal {
			t.Errorf("%s: the audit says:\n%s", what, found)
		}
		b.Check(correct)
		if got := b.Number(netCorrections); got != net {
			t.Errorf("%s: corrections move something else than before", what)
		}
		for _, c := range b.mustRebuild(fromLog).Changes {
			if c.Cells != 0 {
				t.Errorf("%s: a second rebuild still found %+v", what, c)
			}
		}
	}
	repaired("corrections lost")

	b.empty(append(stored, "correction_plans")...)
	repaired("everything lost")
	b.goesOn(100, correct)
}

// So do the parts of hours that links cut: each event is moved by its own instant.
func TestPartsOfHoursComeBackFromTheLog(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	r := rand.New(rand.NewPCG(9, 5))
	var logs [][]writertest.Entry
	for p := range int32(writertest.Partitions) {
		logs = append(logs, writertest.Mixed(r, p, fmt.Sprintf("p%d-", p), 80))
		b.SendMixed(p, logs[p])
	}
	correct := func(e *event.EnrichedEvent) {
		for _, list := range logs {
			writertest.Correct(list, e)
		}
	}
	b.AwaitSettled()
	b.Check(correct)
	w.End()
	net := b.Number(netCorrections)
	if parts := b.Number("SELECT countIf(toUnixTimestamp64Micro(part_to) > 0) FROM corrections"); parts == 0 {
		t.Fatal("no part of an hour was moved")
	}
	b.empty("corrections", "correction_plans")
	b.mustRebuild(fromLog)
	if equal, found := b.Audited(); !equal {
		t.Errorf("the audit says:\n%s", found)
	}
	b.Check(correct)
	if got := b.Number(netCorrections); got != net {
		t.Error("corrections move something else than before")
	}
}
