package repair_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
)

// stating are events that say things of identity, and numbers.
func stating(seed uint64) []*event.EnrichedEvent {
	list := events(seed, 12)
	for i, e := range list {
		e.MessageID = "stating-" + e.MessageID
		if e.UserID == "" {
			continue
		}
		switch i % 3 {
		case 0:
			e.Kind, e.AnonymousID, e.Traits = event.KindIdentify, "a-"+e.UserID, fmt.Appendf(nil, `{"plan":"p%d","$add":{"visits":1}}`, i)
		case 1:
			e.Kind, e.Traits, e.ParentAccountID = event.KindGroup, []byte(`{"tier":"gold"}`), "holding"
		case 2:
			e.Kind, e.Event, e.Metric = event.KindMetric, "seats", fmt.Appendf(nil, `{"numbers":{"used":%d},"dimensions":"{}"}`, i)
		}
	}
	return list
}

// contents is a sum over the rows of the derived tables, whatever parts they are in.
func (b *bench) contents() string {
	b.T.Helper()
	var list []string
	for _, d := range tables.DerivedTables {
		n := b.Number("SELECT sum(cityHash64(*)) FROM (SELECT * FROM " + b.Schema.Table(d.Name) + " FINAL)")
		rows := b.Number("SELECT count() FROM " + b.Schema.Table(d.Name) + " FINAL")
		if rows == 0 {
			b.T.Fatalf("%s is empty", d.Name)
		}
		list = append(list, fmt.Sprint(d.Name, " ", rows, " ", n))
	}
	return strings.Join(list, ", ")
}

// Each damage of a table that is made from events or plans is named by the audit,
// and the command that it advises, and no other, repairs it.
func TestDerivedTablesAreAuditedAndMadeAgain(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	counted := events(1, 30)
	for _, e := range counted {
		e.UserAgent = "agent/1"
	}
	b.Send(counted)
	b.Send(stating(2))
	unlink := event.Moves{
		Moves:  []event.Move{{Match: event.Attribution{ActorID: writertest.Ptr("u-1"), ActorKind: writertest.Ptr(event.ActorUser), AnonymousID: writertest.Ptr("x")}, Set: event.Attribution{ActorID: writertest.Ptr("x")}}},
		Reason: &event.Reason{Kind: event.ReasonUnlink, IDKind: event.ActorAnonymous, ID: "a-1", UserID: "u-1", Until: 7},
	}
	payload, err := unlink.Payload()
	if err != nil {
		t.Fatal(err)
	}
	b.Produce(topic.Unprefixed.Enriched, 0, b.Codec.AppendControl(nil, &event.Control{Kind: event.ControlMove, AppID: "dev", ControlID: "c", CreatedAt: 1, Payload: payload}))
	b.AwaitSettled()
	w.End()
	if equal, found := b.Audited(); !equal {
		t.Fatalf("before any damage:\n%s", found)
	}
	whole := b.contents()
	again := func(table, replace string) string {
		return "INSERT INTO " + table + " SELECT * REPLACE(" + replace + ") FROM " + b.Schema.Table(table) + " FINAL ORDER BY ALL LIMIT 1 SETTINGS insert_deduplicate = 0"
	}
	const sync = " SETTINGS mutations_sync = 2"
	for i, tc := range []struct {
		name, statement, says string
		advice                string
		with                  []func(*repair.RebuildConfig)
		refused               bool
	}{
		{"facts deleted", "ALTER TABLE identity_facts DELETE WHERE fact = 'membership'" + sync, "identity_facts lacks", "`rollup-writer rebuild` of this app", nil, false},
		{"all facts lost", "TRUNCATE TABLE identity_facts", "identity_facts lacks", "`rollup-writer rebuild` of this app", nil, false},
		{"a fact says less", "ALTER TABLE identity_facts UPDATE first = first + INTERVAL 1 DAY WHERE fact = 'membership'" + sync, "identity_facts lacks", "`rollup-writer rebuild` of this app", nil, false},
		{"a fact invented", again("identity_facts", "'nobody' AS subject"), "identity_facts holds 1 rows that say what events does not", "`rollup-writer rebuild -from-log -shrink`", []func(*repair.RebuildConfig){fromLog, shrink}, true},
		{"a fact changed", again("identity_facts", "(toDateTime64('2030-01-01 00:00:00', 6, 'UTC'), 'wrong') AS last"), "identity_facts holds 1 rows that say what events does not", "`rollup-writer rebuild -from-log -shrink`", []func(*repair.RebuildConfig){fromLog, shrink}, true},
		{"numbers deleted", "ALTER TABLE metric_values DELETE WHERE cityHash64(message_id) % 2 = 0 OR 1" + sync, "metric_values lacks", "`rollup-writer rebuild` of this app", nil, false},
		{"a number changed", again("metric_values", "(toDateTime64('2030-01-01 00:00:00', 6, 'UTC'), last.2, last.3, 77., last.5, last.6, last.7) AS last"), "metric_values holds 1 rows that say what events does not", "`rollup-writer rebuild -from-log -shrink`", []func(*repair.RebuildConfig){fromLog, shrink}, true},
		{"unlinks lost", "TRUNCATE TABLE identity_unlinks", "identity_unlinks lacks 1 rows that correction_plans has", "`rollup-writer rebuild` of this app", nil, false},
		{"user agents lost", "TRUNCATE TABLE user_agents", "user_agents lacks", "`rollup-writer rebuild` of this app", nil, false},
		{"a user agent invented", again("user_agents", "'nobody' AS user_id"), "user_agents holds 1 rows that say what events does not", "`rollup-writer rebuild -from-log -shrink`", []func(*repair.RebuildConfig){fromLog, shrink}, true},
		{"events that count nothing deleted", "ALTER TABLE events DELETE WHERE kind IN ('metric', 'group')" + sync, "rows that say what events does not: events lost rows that count nothing", "`rollup-writer rebuild -from-log -shrink`", []func(*repair.RebuildConfig){fromLog, shrink}, true},
	} {
		if !longtest.Enabled() && i != 1 && i != 4 {
			continue
		}
		t.Run(tc.name, func(t *testing.T) {
			b.T = t
			b.Exec(tc.statement)
			equal, found := b.Audited()
			if equal || !strings.Contains(found, tc.says) || !strings.Contains(found, tc.advice) {
				t.Errorf("equal %t, want %q and %q in it:\n%s", equal, tc.says, tc.advice, found)
			}
			if tc.refused {
				if _, err := b.rebuild(); !errors.Is(err, rebuild.ErrShrink) {
					t.Errorf("a rebuild without -shrink: %v", err)
				}
			}
			b.mustRebuild(tc.with...)
			if equal, found := b.Audited(); !equal {
				t.Errorf("after the rebuild:\n%s", found)
			}
			if got := b.contents(); got != whole {
				t.Errorf("got %s, want %s", got, whole)
			}
		})
	}
}

// Every table of the installation is looked at by the audit and made again by a
// rebuild or a command that the audit names, or it is an exception with a reason.
func TestEveryTableIsAuditedOrExcepted(t *testing.T) {
	b := newBench(t)
	rows, err := b.SQL.Query(context.Background(), "SELECT DISTINCT name FROM system.tables WHERE database IN (?, ?) AND engine LIKE '%MergeTree'", b.Schema.Database, tables.Internal(b.Schema.Database))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := 0
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		seen++
		compared, excepted := slices.Contains(audit.Compared(), name), audit.Exceptions[name] != ""
		if compared == excepted {
			t.Errorf("%s: compared %t, an exception %t", name, compared, excepted)
		}
	}
	if err := rows.Err(); err != nil || seen < 15 {
		t.Fatalf("%d tables, %v", seen, err)
	}
	for name := range audit.Exceptions {
		tables.TableOf(name)
	}
}
