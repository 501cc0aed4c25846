package repair_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

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
	at := func(minute int) event.Micros {
		return event.FromTime(time.Date(2026, 11, 20, 9, minute, 0, 0, time.UTC))
	}
	var list []writertest.Entry
	for i, minute := range []int{10, 40, 50} {
		list = append(list, writertest.Entry{Event: &event.EnrichedEvent{
			AppID: "dev", Kind: event.KindTrack, Event: "Scan", MessageID: fmt.Sprint("m", i), AccountSource: event.AccountNone, EventTime: at(minute),
			ReceivedAt: event.FromTime(writertest.FirstReceipt), Quantity: 2, AnonymousID: "till", LinkedUserID: "b", ActorID: "b", ActorKind: event.ActorUser,
		}})
	}
	list = append(list, writertest.Entry{Moves: event.Moves{Moves: []event.Move{{
		Match: event.Attribution{ActorID: writertest.Ptr("b"), ActorKind: writertest.Ptr(event.ActorUser), AnonymousID: writertest.Ptr("till"), UserID: writertest.Ptr("b")},
		Set:   event.Attribution{ActorID: writertest.Ptr("c"), UserID: writertest.Ptr("c")}, From: at(30), To: at(45),
	}}}})
	b.SendMixed(0, list)
	b.AwaitSettled()
	w.End()
	const moved = "SELECT arrayStringConcat(arraySort(groupArray(concat(actor_id, toString(events), '/', toString(quantity), formatDateTime(part_from, ' %i'), formatDateTime(part_to, '-%i')))), ', ') FROM corrections"
	const want = "b-1/-2 30-45, c1/2 30-45"
	if got := b.Text(moved); got != want {
		t.Fatalf("corrections are %q, want %q", got, want)
	}
	b.empty("corrections", "correction_plans")
	b.mustRebuild(fromLog)
	if got := b.Text(moved); got != want {
		t.Errorf("corrections come back as %q, want %q", got, want)
	}
	if equal, found := b.Audited(); !equal {
		t.Errorf("the audit says:\n%s", found)
	}
}
