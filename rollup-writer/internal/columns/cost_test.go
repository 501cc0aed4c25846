package columns_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
)

// costCase is one way to store a row, whose cost is held against the others'.
type costCase struct {
	name  string
	text  bool     // objects go as text
	seen  bool     // events name an anonymous id
	bare  bool     // nothing is known of events' clients
	setup []string // statements; the tables are in the internal database
}

// alter returns statements that set a setting of tables.
func alter(setting string, names ...string) (statements []string) {
	for _, n := range names {
		statements = append(statements, "ALTER TABLE "+n+" MODIFY SETTING "+setting)
	}
	return statements
}

var costTables = []string{"events", "usage_hourly", "account_feature_daily", "account_module_daily", "account_product_daily", "user_feature_daily", "identity_facts"}

var noViews = []string{
	"DROP VIEW usage_hourly_from_events SYNC", "DROP VIEW identity_facts_from_events SYNC", "DROP VIEW metric_values_from_events SYNC",
	"DROP VIEW user_agents_from_events SYNC",
}

// noVisitors takes away the index by which the hours that a link cuts are read.
var noVisitors = []string{"ALTER TABLE events DROP INDEX visitor"}

var costCases = []costCase{
	{name: "typed"},
	{name: "text", text: true},
	{name: "typed, no views", setup: noViews},
	{name: "text, no views", text: true, setup: noViews},
	{name: "typed, merge_selector_base 20", setup: alter("merge_selector_base = 20", costTables...)},
	{name: "typed, merge_selector_base 20 of events", setup: alter("merge_selector_base = 20", "events")},
	{name: "typed, merge_selector_base 20, strings in one", setup: alter("merge_selector_base = 20, string_serialization_version = 'single_stream'", costTables...)},
	{name: "typed, at least 16 parts at once of events", setup: alter("min_parts_to_merge_at_once = 16", "events")},
	{name: "typed, at least 16 parts at once", setup: alter("min_parts_to_merge_at_once = 16", costTables...)},
	{name: "typed, wide from 512 MiB", setup: alter("min_bytes_for_wide_part = 536870912", "events")},
	{name: "typed, wide rollups", setup: alter("min_bytes_for_wide_part = 0", costTables[1:]...)},
	{name: "typed, compact part in one stream", setup: alter("compress_per_column_in_compact_parts = 0", costTables...)},
	{name: "typed, strings with their sizes", setup: alter("string_serialization_version = 'single_stream'", costTables...)},
	{name: "typed, marks per column", setup: alter("write_marks_for_substreams_in_compact_parts = 0", costTables...)},
	{name: "typed, horizontal merges", setup: alter("enable_vertical_merge_algorithm = 0", costTables...)},
	{name: "typed, no sparse columns", setup: alter("ratio_of_defaults_for_sparse_serialization = 1", costTables...)},
	{name: "typed, merged parts with 32 paths", setup: alter("merge_max_dynamic_subcolumns_in_compact_part = 32, merge_max_dynamic_subcolumns_in_wide_part = 32", "events")},
	{name: "typed, shared data in buckets", setup: alter("object_shared_data_serialization_version = 'map_with_buckets'", "events")},
	{name: "typed, no heuristic of widths", setup: alter("merge_selector_enable_heuristic_to_lower_max_parts_to_merge_at_once = 0", costTables...)},
	{name: "no user agents", setup: []string{"DROP VIEW user_agents_from_events SYNC"}},
	{name: "no clients", bare: true},
	{name: "visitors", seen: true},
	{name: "visitors, no index of visitors", seen: true, setup: noVisitors},
	{name: "visitors, no views", seen: true, setup: noViews},
	{name: "visitors, no views, no index of visitors", seen: true, setup: slices.Concat(noViews, noVisitors)},
}

// BenchmarkCost inserts blocks under each of costCases in turns, each in a
// database of its own, until nothing is left to merge, and reports CPU of the
// server for a row, and the parts that are left. COST_ROWS is rows of a block (50000), COST_KEYS different
// property keys (12), COST_BLOCKS blocks of a turn (4), COST_CASES names of cases
// separated by semicolons.
func BenchmarkCost(b *testing.B) {
	ctx := context.Background()
	number := func(name string, or int) int {
		if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
			return n
		}
		return or
	}
	rows, keys, blocks := number("COST_ROWS", 50_000), number("COST_KEYS", 12), number("COST_BLOCKS", 4)
	cases := costCases
	if only := os.Getenv("COST_CASES"); only != "" {
		cases = slices.DeleteFunc(slices.Clone(cases), func(c costCase) bool { return !slices.Contains(strings.Split(only, ";"), c.name) })
	}
	type lane struct {
		sql  driver.Conn
		conn writer
		cpu  time.Duration
		rows int
	}
	lanes := make([]lane, len(cases))
	for i, c := range cases {
		lanes[i].sql, lanes[i].conn = server(b)
		for _, s := range c.setup {
			if err := lanes[i].sql.Exec(ctx, s); err != nil {
				b.Fatalf("%s: %v", c.name, err)
			}
		}
	}
	pid := embedded.ForTest(b).Pid()
	block := columns.NewEvents()
	first := 0
	for round := range b.N {
		for i := range lanes {
			l := &lanes[(i+round)%len(lanes)]
			c := &cases[(i+round)%len(lanes)]
			text, seen := c.text, c.seen
			for n := range blocks {
				block.Reset()
				for r := range rows {
					e := costEvent(first+n*rows+r, keys)
					if c.bare {
						e.Client = event.Client{}
					}
					if seen {
						e.AnonymousID = "0b6c3a0e-" + e.UserID
					}
					block.Append(source, int64(first+n*rows+r), e)
				}
				if text {
					block.SendAsText()
				}
				before := cpuTime(b, pid)
				if err := l.conn.Insert(ctx, "events", block, fmt.Sprint(round, "|", n)); err != nil {
					b.Fatal(err)
				}
				l.cpu += cpuTime(b, pid) - before
				if block.SentTyped() == text {
					b.Fatal("sent in the wrong form")
				}
			}
			before := cpuTime(b, pid)
			for idle := 0; idle < 20; idle++ {
				var merges uint64
				if err := l.sql.QueryRow(ctx, "SELECT count() FROM system.merges").Scan(&merges); err != nil {
					b.Fatal(err)
				}
				if merges > 0 {
					idle = 0
				}
				time.Sleep(20 * time.Millisecond)
			}
			l.cpu += cpuTime(b, pid) - before
			l.rows += blocks * rows
		}
		first += blocks * rows
	}
	for i, l := range lanes {
		var disk, parts, most uint64
		if err := l.sql.QueryRow(ctx, "SELECT sum(bytes), sum(parts), max(parts) FROM (SELECT sum(bytes_on_disk) AS bytes, count() AS parts FROM system.parts WHERE active AND database IN (currentDatabase(), concat(currentDatabase(), '_internal')) GROUP BY database, table)").Scan(&disk, &parts, &most); err != nil {
			b.Fatal(err)
		}
		b.Logf("%-40s %6.2f µs/row  %5.1f bytes/row  %3d parts, %2d of one table", cases[i].name, float64(l.cpu.Microseconds())/float64(l.rows), float64(disk)/float64(l.rows), parts, most)
	}
}

// BenchmarkCutHour reads the events of one visitor in one hour, as package rollup does
// for an hour that a link cuts, out of COST_ROWS events of one day (1000000), with the
// index of visitors and without, and reports CPU of the server for a question.
func BenchmarkCutHour(b *testing.B) {
	ctx := context.Background()
	rows := 1_000_000
	if n, err := strconv.Atoi(os.Getenv("COST_ROWS")); err == nil {
		rows = n
	}
	for _, c := range []costCase{{name: "index", setup: noViews}, {name: "no index", setup: slices.Concat(noViews, noVisitors)}} {
		b.Run(c.name, func(b *testing.B) {
			sql, conn := server(b)
			for _, s := range c.setup {
				if err := sql.Exec(ctx, s); err != nil {
					b.Fatal(err)
				}
			}
			block := columns.NewEvents()
			for first := 0; first < rows; first += 50_000 {
				block.Reset()
				for i := first; i < min(first+50_000, rows); i++ {
					e := costEvent(i, 12)
					e.UserID, e.AnonymousID = "", e.UserID
					e.EventTime = event.FromTime(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)) + int64(i)*24*3600*1_000_000/int64(rows)
					block.Append(source, int64(i), e)
				}
				if err := conn.Insert(ctx, "events", block, fmt.Sprint(first)); err != nil {
					b.Fatal(err)
				}
			}
			visitor := costEvent(rows/2, 12).UserID
			query := "SELECT count() FROM events WHERE app_id IN ('dev') AND anonymous_id IN ('" + visitor + "') AND kind IN ('track', 'page', 'screen', 'api_call') AND user_id = '' AND toDate(event_time) IN ('2026-11-21')" +
				" AND event_time >= '2026-11-21 12:00:00' AND event_time < '2026-11-21 13:00:00' SETTINGS max_threads = 1"
			pid, found := embedded.ForTest(b).Pid(), uint64(0)
			before := cpuTime(b, pid)
			b.ResetTimer()
			for range b.N {
				if err := sql.QueryRow(ctx, query).Scan(&found); err != nil || found == 0 {
					b.Fatalf("%d events, %v", found, err)
				}
			}
			b.ReportMetric(float64((cpuTime(b, pid)-before).Microseconds())/float64(b.N), "server-µs/op")
			b.ReportMetric(float64(found), "events")
		})
	}
}

// costEvent is the i-th event of people who come in sessions of twenty events.
func costEvent(i, keys int) *event.EnrichedEvent {
	at := event.FromTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)) + int64(i)*50
	u, f := i/40_000*2000+i*7919%2000, i*31%100
	e := &event.EnrichedEvent{
		AppID: "dev", Kind: event.KindTrack, Event: "Item Event " + strconv.Itoa(f), MessageID: "bench-" + strconv.Itoa(1_000_000_000+i),
		UserID: "user-" + strconv.Itoa(10_000_000+u), ActorKind: event.ActorUser, AccountID: "account-" + strconv.Itoa(u%5000), AccountSource: event.AccountFromEvent,
		FeatureID: "feature_" + strconv.Itoa(f), ModuleID: "module_" + strconv.Itoa(f%20), ProductID: "product_" + strconv.Itoa(f%4), CatalogVersion: 1,
		EventTime: at, Timestamp: at, SentAt: at + 5000, ReceivedAt: at + 9000, Quantity: 1,
		Context:  []byte(`{"groupId":"a","library":{"name":"@segment/analytics-node","version":"3.1.0"},"locale":"en-GB"}`),
		Protocol: "segment", Library: "@segment/analytics-node/3.1.0", IP: "192.0.2.0", UserAgent: "bench/1.0", RawOffset: int64(i),
	}
	e.ActorID = e.UserID
	e.Client = event.Client{
		Country: []string{"AT", "DE", "CH", "US", "GB", "FR"}[u%6], Browser: []string{"Chrome", "Safari", "Firefox", "Edge"}[u/2%4], OS: []string{"Windows", "macOS", "iOS", "Android"}[u/3%4], DeviceClass: []string{"desktop", "mobile"}[u%2],
	}
	if i%10 == 0 {
		e.Referrer, e.UTMSource, e.UTMMedium, e.UTMCampaign = "site-"+strconv.Itoa(u%200)+".example", "source-"+strconv.Itoa(u%20), "mail", "campaign-"+strconv.Itoa(u%100)
	}
	p := []byte{'{'}
	for n := range 12 {
		k := n
		if keys > 12 {
			k = (i*12 + n) % keys
		}
		switch k % 4 {
		case 0:
			p = fmt.Appendf(p, `"label %d":"value-%d",`, k, i%1000)
		case 1:
			p = fmt.Appendf(p, `"count_%d":%d,`, k, i%50)
		case 2:
			p = fmt.Appendf(p, `"price_%d":%d.95,`, k, i%100)
		default:
			p = fmt.Appendf(p, `"flag_%d":%t,`, k, i%2 == 0)
		}
	}
	p[len(p)-1] = '}'
	e.Properties = p
	return e
}
