package repair_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
)

// rebuild runs one of app dev.
func (b *bench) rebuild(change ...func(*repair.RebuildConfig)) (*repair.RebuildReport, error) {
	what := repair.DefaultRebuildConfig()
	what.App = "dev"
	for _, c := range change {
		c(&what)
	}
	return repair.Rebuild(context.Background(), b.cfg.Config, what, b.Log)
}

func (b *bench) mustRebuild(change ...func(*repair.RebuildConfig)) *repair.RebuildReport {
	b.T.Helper()
	r, err := b.rebuild(change...)
	if err != nil {
		b.T.Fatal(err)
	}
	return r
}

func fromLog(c *repair.RebuildConfig) { c.FromLog = true }
func shrink(c *repair.RebuildConfig)  { c.Shrink = true }
func dry(c *repair.RebuildConfig)     { c.DryRun = true }

// deleteRows takes rows out of a table whose parts are kept as they are.
func (b *bench) deleteRows(table, where string) {
	b.T.Helper()
	b.Exec("SYSTEM START MERGES " + table)
	b.Exec("ALTER TABLE " + table + " DELETE WHERE " + where + " SETTINGS mutations_sync = 2")
	b.Exec("SYSTEM STOP MERGES " + table)
}

// dropPart takes a part that has rows out of a table, as a disk that lost it
// would.
func (b *bench) dropPart(table string, n int) {
	b.T.Helper()
	var part string
	err := b.SQL.QueryRow(context.Background(), "SELECT name FROM system.parts WHERE database = currentDatabase() AND table = ? AND active ORDER BY name LIMIT 1 OFFSET ?", table, n).Scan(&part)
	if err != nil {
		b.T.Fatalf("a part of %s: %v", table, err)
	}
	b.Exec("ALTER TABLE " + table + " DROP PART '" + part + "'")
}

var stored = []string{"events", "corrections", "usage_hourly", "account_feature_daily", "account_module_daily", "account_product_daily", "user_feature_daily"}

// written is a log with corrections that a writer has written and ended, of which
// every block is still a part of its own.
func written(b *bench) (correct func(*event.EnrichedEvent)) {
	b.T.Helper()
	b.init()
	for _, table := range stored {
		b.Exec("SYSTEM STOP MERGES " + table)
	}
	w := b.start()
	correct = b.Corrections()
	for i := range 2 {
		late := events(uint64(i+10), 60)
		for _, e := range late {
			e.MessageID = "late-" + e.MessageID
		}
		b.Send(late)
		b.AwaitSettled()
	}
	b.Check(correct)
	w.End()
	if equal, found := b.Audited(); !equal {
		b.T.Fatalf("before any damage:\n%s", found)
	}
	return correct
}

// goesOn lets a writer write more and compares everything.
func (b *bench) goesOn(seed uint64, correct func(*event.EnrichedEvent)) {
	b.T.Helper()
	w := b.start()
	late := events(seed, 60)
	for _, e := range late {
		e.MessageID = "late-" + e.MessageID
	}
	b.Send(late)
	b.Check(correct)
	w.End()
	if equal, found := b.Audited(); !equal {
		b.T.Errorf("after writing went on:\n%s", found)
	}
}

// Whatever is damaged is found by the audit and repaired, and writing goes on with
// the right totals. A dry run says what would change and changes nothing.
func TestRebuildRepairs(t *testing.T) {
	b := newBench(t)
	correct := written(b)
	facts := func() int64 { return b.Number("SELECT sum(cityHash64(*)) FROM (SELECT * FROM identity_facts FINAL)") }
	said := facts()
	for _, tc := range []struct {
		name   string
		damage func(*bench)
		with   []func(*repair.RebuildConfig)
		// refused: without these it would take counts out, and does not.
		refused bool
		long    bool // another case has a damage of this kind
	}{
		{name: "part of a rollup", damage: func(b *bench) { b.dropPart("account_module_daily", 1) }, long: true},
		{name: "part of the user rollup", damage: func(b *bench) { b.dropPart("user_feature_daily", 3) }, long: true},
		{name: "part of usage_hourly", damage: func(b *bench) { b.dropPart("usage_hourly", 2) }, long: true},
		{name: "correction in usage_hourly", damage: func(b *bench) {
			// The parts of a correction hold rows that are negative.
			var part string
			if err := b.SQL.QueryRow(context.Background(), "SELECT _part FROM "+b.Schema.Table("usage_hourly")+" WHERE events < 0 LIMIT 1").Scan(&part); err != nil {
				b.T.Fatal(err)
			}
			b.Exec("ALTER TABLE usage_hourly DROP PART '" + part + "'")
		}, long: true},
		{name: "part of corrections", damage: func(b *bench) { b.dropPart("corrections", 0) }},
		{name: "part of events", damage: func(b *bench) { b.dropPart("events", 1) }, with: []func(*repair.RebuildConfig){fromLog}, refused: true, long: true},
		{name: "month of events detached", damage: func(b *bench) {
			b.Exec("ALTER TABLE events DETACH PARTITION " + firstReceipt.Format("200601"))
			b.Exec("TRUNCATE TABLE identity_facts")
		}, with: []func(*repair.RebuildConfig){fromLog}, refused: true, long: true},
		{name: "events that no table holds", damage: func(b *bench) {
			b.deleteRows("events", "event = 'Event 3'")
			const mine = ", -events, -quantity FROM usage_hourly WHERE feature_id = 'f-3' SETTINGS insert_deduplicate = 0"
			b.Exec("INSERT INTO account_module_daily SELECT app_id, account_id, module_id, product_id, toDate(hour)" + mine)
			b.Exec("INSERT INTO account_product_daily SELECT app_id, account_id, product_id, toDate(hour)" + mine)
			for _, table := range []string{"usage_hourly", "account_feature_daily", "user_feature_daily"} {
				b.deleteRows(table, "feature_id = 'f-3'")
			}
		}, with: []func(*repair.RebuildConfig){fromLog}, long: true},
		{name: "rollup doubled", damage: func(b *bench) {
			b.Exec("INSERT INTO account_product_daily SELECT * FROM account_product_daily LIMIT 3 SETTINGS insert_deduplicate = 0")
		}, with: []func(*repair.RebuildConfig){shrink}, refused: true},
		{name: "block doubled everywhere", damage: func(b *bench) {
			b.Exec("INSERT INTO events SELECT * FROM events WHERE _part = (SELECT min(_part) FROM events) SETTINGS insert_deduplicate = 0, deduplicate_blocks_in_dependent_materialized_views = 0")
		}, with: []func(*repair.RebuildConfig){fromLog, shrink}, long: true},
		{name: "a part of each", damage: func(b *bench) {
			for i, table := range stored {
				b.dropPart(table, i%2)
			}
		}, with: []func(*repair.RebuildConfig){fromLog, shrink}},
	} {
		if tc.long && !longtest.Enabled() {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			b.T = t
			tc.damage(b)
			if equal, _ := b.Audited(); equal {
				t.Error("the audit does not see the damage")
			}
			before := b.parts()
			if _, err := b.rebuild(append(tc.with, dry)...); err != nil {
				t.Fatalf("dry run: %v", err)
			}
			if tc.refused {
				if _, err := b.rebuild(); !errors.Is(err, rebuild.ErrShrink) {
					t.Errorf("without being told to: got %v, want a refusal", err)
				}
			}
			if after := b.parts(); after != before {
				t.Errorf("the tables changed: got %s, want %s", after, before)
			}
			r := b.mustRebuild(tc.with...)
			var text strings.Builder
			if err := r.WriteText(&text); err != nil || !strings.Contains(text.String(), "repaired") || !strings.Contains(text.String(), "audit") {
				t.Errorf("report: %v\n%s", err, &text)
			}
			if equal, found := b.Audited(); !equal {
				t.Fatalf("after the rebuild\n%s\nthe audit says:\n%s", &text, found)
			}
			b.Check(correct)
			if got := facts(); got != said {
				t.Error("what was said of identity is not what it was")
			}
			r = b.mustRebuild(tc.with...)
			for _, c := range r.Changes {
				if c.Cells != 0 {
					t.Errorf("a second rebuild still found %+v", c)
				}
			}
			if t.Failed() {
				t.Log(text.String())
			}
		})
	}
	b.T = t
	b.goesOn(100, correct)
}

// parts names what the tables hold that are not merged.
func (b *bench) parts() string {
	b.T.Helper()
	var all string
	err := b.SQL.QueryRow(context.Background(), "SELECT arrayStringConcat(arraySort(groupArray(concat(table, '/', name))), ' ') FROM system.parts WHERE database = currentDatabase() AND has(?, table) AND active", stored).Scan(&all)
	if err != nil {
		b.T.Fatal(err)
	}
	return all
}

// A rebuild may be cut short before each of its statements, and the next one
// ends it. Writers do not begin in between.
func TestRebuildIsResumed(t *testing.T) {
	b := newBench(t)
	correct := written(b)
	damage := func() {
		for _, table := range stored {
			b.deleteRows(table, "cityHash64(account_id) % 3 = 0")
		}
	}
	cut := errors.New("cut short")
	run := func(at int) (steps []string, err error) {
		damage()
		_, err = b.rebuild(fromLog, shrink, func(c *repair.RebuildConfig) {
			c.SetStep(func(what string) error {
				if steps = append(steps, what); len(steps) == at {
					return cut
				}
				return nil
			})
		})
		return steps, err
	}
	steps, err := run(-1)
	if err != nil {
		t.Fatal(err)
	}
	cuts := map[string]int{} // the last of each kind
	for i, what := range steps {
		cuts[what] = i + 1
	}
	if len(cuts) < 10 {
		t.Errorf("a rebuild of everything has these steps only: %q", steps)
	}
	for i, what := range slices.Sorted(maps.Keys(cuts)) {
		at := cuts[what]
		if !longtest.Enabled() && what != "repair usage_hourly" && i != 5 {
			continue
		}
		if _, err := run(at); !errors.Is(err, cut) {
			t.Fatalf("cut short before %q: got %v", what, err)
		}
		if what == "repair usage_hourly" {
			w := b.start()
			b.Await("the partitions to be refused", func() bool { return w.Metric("uptake_writer_halted_partitions") == partitions })
			if why := w.Health.Ready()["rollup-writer"]; !strings.Contains(why, "run `rollup-writer rebuild` to its end") {
				t.Errorf("health: %q", why)
			}
			w.End()
		}
		b.mustRebuild(fromLog, shrink)
		if equal, found := b.Audited(); !equal {
			t.Fatalf("cut short before %q:\n%s", what, found)
		}
	}
	b.Check(correct)
	b.goesOn(100, correct)
}

// It does not run beside writers, nor over what may be half done.
func TestRebuildRefuses(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	b.Send(events(1, 80))
	b.Check()
	if _, err := b.rebuild(); err == nil || !strings.Contains(err.Error(), "running writers: stop them first") {
		t.Errorf("beside a writer: got %v", err)
	}
	if _, err := b.rebuild(dry); err != nil {
		t.Errorf("dry run beside a writer: %v", err)
	}
	w.End()
	b.Rewind()
	if _, err := b.rebuild(); err == nil || !strings.Contains(err.Error(), "did not end in good order") {
		t.Errorf("with open blocks: got %v", err)
	}
	if err := repair.Reset(context.Background(), b.cfg.Config, false, b.Log); err != nil {
		t.Fatal(err)
	}
	if r := b.mustRebuild(fromLog); !r.Done {
		t.Errorf("after a reset: got %+v", r)
	}
	b.goesOn(100, func(*event.EnrichedEvent) {})
}

// Only the days of the range are touched, widened to whole days; other apps not
// at all.
func TestRebuildKeepsToItsRange(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	mine, other := events(1, 300), events(2, 100)
	for _, e := range other {
		e.AppID = "other"
	}
	b.Send(append(mine, other...))
	b.Check()
	w.End()
	b.deleteRows("account_product_daily", "1")
	count := func(where string) int64 {
		return b.Number("SELECT sum(events) FROM account_product_daily WHERE " + where)
	}
	day := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	b.mustRebuild(func(c *repair.RebuildConfig) { c.From, c.To = day.Add(5*time.Hour), day.Add(7*time.Hour) })
	if in, out := count("app_id = 'dev' AND day = '2026-11-21'"), count("app_id != 'dev' OR day != '2026-11-21'"); in == 0 || out != 0 {
		t.Errorf("got %d events in the range and %d beyond it", in, out)
	}
	b.mustRebuild()
	if out := count("app_id != 'dev'"); out != 0 {
		t.Errorf("%d events of another app", out)
	}
	b.mustRebuild(func(c *repair.RebuildConfig) { c.App = "other" })
	if equal, found := b.Audited(); !equal {
		t.Error(found)
	}
	b.Check()
}

func TestRebuildConfigNamesEverySetting(t *testing.T) {
	c := repair.RebuildConfig{From: time.Unix(10, 0), To: time.Unix(5, 0)}
	err := c.Validate()
	for _, want := range []string{"app must be set", "from must be before to", "chunk-rows must be > 0"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}
