package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	schema "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// bench is a database with all tables.
type bench struct {
	t      *testing.T
	conn   driver.Conn
	schema schema.Schema
	offset int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	addr, db := sqltest.Database(t)
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.Database = addr, db
	return &bench{t: t, conn: sqltest.Open(t, &cfg), schema: cfg.Schema()}
}

func (b *bench) exec(query string) {
	b.t.Helper()
	if err := b.conn.Exec(context.Background(), query); err != nil {
		b.t.Fatalf("%v in %s", err, query)
	}
}

const eventColumns = `app_id, kind, event, message_id, user_id, anonymous_id, linked_user_id, actor_id, actor_kind, account_id, account_source,
	role, feature_id, module_id, product_id, event_time, received_at, quantity, source_topic_id, source_partition, source_offset`

// block inserts n events of app, from an hour of November 2026 on, some of every
// kind of actor and some that count nothing, as one block of a partition.
func (b *bench) block(app string, partition, day, n int) {
	b.t.Helper()
	b.exec(b.blockSQL(app, partition, day, n))
}

func (b *bench) blockSQL(app string, partition, day, n int) string {
	at := b.offset
	b.offset += n
	return fmt.Sprintf(`INSERT INTO events (%s) SELECT '%s', ['track', 'page', 'identify', 'api_call'][number %% 4 + 1], ['a', 'b "c"'][number %% 2 + 1], concat('m', toString(%d + number)),
	if(number %% 3 = 0, concat('u', toString(number %% 7)), ''), if(number %% 3 = 2, '', 'anon'), if(number %% 3 = 1, 'linked', ''),
	if(number %% 3 = 0, concat('u', toString(number %% 7)), if(number %% 3 = 1, 'linked', '')), if(number %% 3 = 2, 'account', 'user'), concat('acct', toString(number %% 5)), 'event',
	'clerk', concat('f', toString(number %% 3)), 'mod', 'prod', toDateTime64('2026-11-%02d 21:30:00', 6, 'UTC') + INTERVAL number MINUTE, toDateTime64('2026-11-30 00:00:00', 6, 'UTC'), 1 + number %% 4,
	'topic-1', %d, %d + number FROM numbers(%d)`, eventColumns, app, at, day, partition, at, n)
}

const signedColumns = `app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour,
	source_partition, events, quantity, source_topic_id, source_offset, control_id, control_kind, corrected_at, block, row`

// correct plans and carries out a correction: what linked did belongs to u9.
func (b *bench) correct(app string) {
	b.t.Helper()
	offset := b.offset
	b.offset++
	rows := func(row int, sign, actor string) string {
		return fmt.Sprintf(`SELECT *, %d + 2 * rowNumberInAllBlocks() AS row FROM (
			SELECT app_id, account_id, account_source, %s AS actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour,
			source_partition, %ssum(events) AS events, %ssum(quantity) AS quantity, 'topic-1' AS source_topic_id, %d AS source_offset, 'c1' AS control_id, 'move' AS control_kind, now64(3) AS corrected_at, %[5]d AS block
			FROM usage_hourly AS b WHERE app_id = '%s' AND b.actor_id = 'linked' AND source_partition = 0 GROUP BY ALL ORDER BY ALL)`, row, actor, sign, sign, offset, app)
	}
	b.exec("INSERT INTO correction_plans (" + signedColumns + ", chunk, plan) SELECT *, 1, 77 FROM (" + rows(1, "-", "b.actor_id") + " UNION ALL " + rows(2, "", "'u9'") + ")")
	b.exec(fmt.Sprintf(`INSERT INTO correction_plans (app_id, source_topic_id, source_partition, source_offset, block, block_end, corrected_at, plan, chunk_rows, chunk_events, chunk_quantity)
		SELECT '%s', 'topic-1', 0, %d, %[2]d, %[2]d + 1, now64(3), 77, [count()], [sumIf(events, row %% 2 = 0)], [sumIf(quantity, row %% 2 = 0)] FROM correction_plans WHERE source_offset = %[2]d`, app, offset))
	b.exec("INSERT INTO corrections (" + signedColumns + ") SELECT " + signedColumns + " FROM correction_plans WHERE chunk > 0 AND source_offset = " + fmt.Sprint(offset))
	if n := b.number("SELECT count() FROM corrections"); n == 0 {
		b.t.Fatal("the correction is empty")
	}
}

func (b *bench) number(query string) int64 {
	b.t.Helper()
	var n int64
	if err := b.conn.QueryRow(context.Background(), "SELECT toInt64(("+query+"))").Scan(&n); err != nil {
		b.t.Fatalf("%v in %s", err, query)
	}
	return n
}

// fill is the common content: two apps, blocks of two partitions over two
// months of events, and a correction.
func (b *bench) fill() {
	b.t.Helper()
	b.block("shop", 0, 10, 200)
	b.block("shop", 1, 12, 300)
	b.block("shop", 0, 20, 100)
	b.block("till", 0, 10, 50)
	b.correct("shop")
}

// audit looks twice again, without a pause; between, if it is not nil, happens in
// the place of the pause.
func (b *bench) audit(between func(), change ...func(*Config)) *Report {
	b.t.Helper()
	cfg := DefaultConfig()
	cfg.Settle = 2
	for _, c := range change {
		c(&cfg)
	}
	if err := cfg.Validate(); err != nil {
		b.t.Fatal(err)
	}
	a := &auditor{conn: b.conn, schema: b.schema, cfg: cfg, wait: func(context.Context, time.Duration) error {
		if between != nil {
			between()
		}
		return nil
	}}
	report, err := a.run(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return report
}

// different lists the checks that differ, "app table: missing/surplus", and the
// findings.
func different(r *Report) (checks, findings []string) {
	for _, a := range r.Apps {
		for _, c := range a.Checks {
			if c.Different > 0 {
				checks = append(checks, fmt.Sprintf("%s %s %d/%d", a.ID, c.Table, c.Missing.Events, c.Surplus.Events))
			}
		}
		for _, f := range a.Findings {
			findings = append(findings, a.ID+" "+f.What)
		}
	}
	return checks, findings
}

func TestEqualTablesAreEqual(t *testing.T) {
	b := newBench(t)
	b.fill()
	for i, form := range []string{"as written", "merged"} {
		r := b.audit(func() { t.Error("looked twice") }, func(c *Config) {
			if i == 0 { // a few days at a time
				c.ChunkRows = 250
			}
		})
		if checks, findings := different(r); !r.Equal || checks != nil || findings != nil {
			t.Errorf("%s: got %v %v, %v", form, r.Equal, checks, findings)
		}
		if len(r.Apps) != 2 || len(r.Apps[0].Checks) != 11 {
			t.Fatalf("%s: got %+v", form, r.Apps)
		}
		counted := b.number("SELECT count() FROM events WHERE app_id = 'shop' AND kind != 'identify'")
		for _, c := range r.Apps[0].Checks {
			if c.Cells == 0 {
				t.Errorf("%s: %s against %s compared no cells", form, c.Table, c.Against)
			}
			want := counted
			switch c.Table {
			case "events":
				want = 600
			case "corrections":
				want = 0
			case "correction_plans": // rows of chunks
				want = b.number("SELECT count() FROM correction_plans WHERE chunk > 0")
			}
			if c.Want.Events != want || c.Got != c.Want {
				t.Errorf("%s: %s: got %+v, want %d events on both sides", form, c.Table, c, want)
			}
		}
		for _, table := range []string{"events", "corrections", "usage_hourly", "user_feature_daily", "account_feature_daily"} {
			b.exec("OPTIMIZE TABLE " + table + " FINAL")
		}
	}
}

// No table of sums is left out, declared or not: one row too many in each is
// found in each.
func TestEverySumIsAudited(t *testing.T) {
	b := newBench(t)
	rows, err := b.conn.Query(context.Background(), "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'SummingMergeTree'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	wrong := map[string]bool{}
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		wrong[name] = true
	}
	if err := rows.Err(); err != nil || len(wrong) < 5 {
		t.Fatalf("tables: %v, %v", wrong, err)
	}
	for name := range wrong {
		b.exec("INSERT INTO " + name + " (app_id, events, quantity) VALUES ('shop', 1, 1)")
	}
	for _, c := range b.audit(nil).Apps[0].Checks {
		if c.Different > 0 {
			delete(wrong, c.Table)
		}
	}
	if len(wrong) > 0 {
		t.Errorf("the audit is silent about %v", wrong)
	}
}

// Each way in which a table can be wrong is found, in the right app, and named.
func TestDamageIsFoundAndNamed(t *testing.T) {
	const mutate = " SETTINGS mutations_sync = 2"
	tests := []struct {
		name    string
		damage  func(b *bench)
		checks  []string // of shop; nil: whatever they are
		finding []string // what each begins with
	}{
		{
			"row deleted from a rollup",
			func(b *bench) {
				b.exec("ALTER TABLE account_module_daily DELETE WHERE app_id = 'shop' AND day = '2026-11-20' AND account_id = 'acct1'" + mutate)
			},
			[]string{"shop account_module_daily 15/0"},
			[]string{"shop account_module_daily lacks 15 events that usage_hourly holds: a part of account_module_daily was lost"},
		},
		{
			"row twice in a rollup",
			func(b *bench) {
				b.exec("INSERT INTO account_product_daily SELECT app_id, account_id, product_id, day, 1, 0 FROM account_product_daily WHERE app_id = 'shop' ORDER BY ALL LIMIT 1")
			},
			[]string{"shop account_product_daily 0/1"},
			[]string{"shop account_product_daily is doubled: it counts 1 events"},
		},
		{
			"part of the user rollup deleted",
			func(b *bench) {
				b.exec("ALTER TABLE user_feature_daily DELETE WHERE app_id = 'shop' AND day = '2026-11-20'" + mutate)
			},
			[]string{"shop user_feature_daily 75/0", "shop user_module_daily 75/0", "shop user_product_daily 75/0"},
			[]string{"shop user_feature_daily lacks 75 events"},
		},
		{
			"part of usage_hourly lost",
			func(b *bench) {
				b.exec("ALTER TABLE usage_hourly DELETE WHERE app_id = 'shop' AND source_partition = 1" + mutate)
			},
			nil,
			[]string{"shop usage_hourly lacks 225 events that events and the rollups over it hold: a part of usage_hourly was lost"},
		},
		{
			"block twice in usage_hourly alone",
			func(b *bench) {
				b.exec("CREATE TABLE hourly_copy AS " + b.schema.Table("usage_hourly"))
				b.exec("INSERT INTO hourly_copy SELECT * FROM " + b.schema.Table("usage_hourly") + " WHERE app_id = 'shop' AND source_partition = 1")
				b.exec("ALTER TABLE usage_hourly ATTACH PARTITION tuple() FROM hourly_copy") // past the views
			},
			nil,
			[]string{"shop usage_hourly is doubled: it counts 225 events"},
		},
		{
			"block did not reach the rollups",
			func(b *bench) {
				b.exec("DETACH TABLE usage_hourly_from_events")
				b.block("shop", 1, 22, 40)
				b.exec("ATTACH TABLE usage_hourly_from_events")
			},
			[]string{"shop usage_hourly 30/0"},
			[]string{"shop usage_hourly lacks 30 events that events holds"},
		},
		{
			"part of events lost",
			func(b *bench) {
				var part string
				err := b.conn.QueryRow(context.Background(), "SELECT DISTINCT _part FROM events WHERE app_id = 'shop' AND source_partition = 1").Scan(&part)
				if err != nil {
					b.t.Fatal(err)
				}
				b.exec("ALTER TABLE events DETACH PART '" + part + "'")
			},
			[]string{"shop usage_hourly 0/225"},
			[]string{"shop events lacks rows of 225 events that usage_hourly counted, and the rollups over it agree: a part of events was lost"},
		},
		{
			"rows of events deleted",
			func(b *bench) {
				b.exec("ALTER TABLE events DELETE WHERE app_id = 'shop' AND source_offset < 10" + mutate)
			},
			[]string{"shop usage_hourly 0/8"},
			[]string{"shop events lacks rows of 8 events"},
		},
		{
			"block twice in events and everywhere",
			func(b *bench) {
				b.offset = 0
				b.exec(b.blockSQL("shop", 0, 10, 20) + " SETTINGS insert_deduplicate = 0")
			},
			[]string{"shop events 0/20"},
			[]string{"shop events is doubled: it holds 20 records of the log more than once, 20 rows too many"},
		},
		{
			"block twice in events alone",
			func(b *bench) {
				b.exec("DETACH TABLE usage_hourly_from_events")
				b.offset = 0
				b.exec(b.blockSQL("shop", 0, 10, 20) + " SETTINGS insert_deduplicate = 0")
				b.exec("ATTACH TABLE usage_hourly_from_events")
			},
			[]string{"shop usage_hourly 15/0", "shop events 0/20"},
			[]string{"shop events is doubled", "shop usage_hourly counts once what is doubled in events (15 events): it is right"},
		},
		{
			"message in two records",
			func(b *bench) {
				row := "INSERT INTO events (app_id, kind, message_id, anonymous_id, account_id, event_time, received_at, quantity, source_partition, source_offset) VALUES "
				b.exec(row + "('shop', 'track', 'm1', 'anon', 'acct1', '2026-11-10 10:00:00', '2026-11-29 00:00:00', 1, 0, 100000)") // a day before
				b.exec(row + "('shop', 'track', 'm2', '', 'acct2', '2026-11-10 10:00:00', '2026-11-01 00:00:00', 1, 0, 100001)")     // 29 days before
				b.exec(row + "('shop', 'track', 'z', '', '', '2026-11-10 10:00:00', '2026-11-01 00:00:00', 1, 0, 100002)")           // alone
				b.exec(row + "('till', 'track', 'm1', 'anon', 'acct1', '2026-11-10 10:00:00', '2026-11-29 00:00:00', 1, 0, 100003)") // another app
				b.exec(row + "('shop', 'identify', 'm3', '', 'acct3', '2026-10-01 10:00:00', '2026-11-29 00:00:00', 1, 0, 100004)")  // another event time
				b.exec(row + "('shop', 'identify', 'm3', '', 'acct3', '2026-09-01 10:00:00', '2026-11-28 00:00:00', 1, 0, 100005)")  // and again
				b.exec(row + "('shop', 'identify', '', '', '', '2026-09-01 10:00:00', '2026-11-28 00:00:00', 1, 0, 100006)")         // no id
				b.exec(row + "('shop', 'identify', '', '', '', '2026-09-01 10:00:00', '2026-11-28 00:00:00', 1, 0, 100007)")         // no id
				b.exec(row + "('shop', 'track', 'm4', 'someone', '', '2026-11-10 10:00:00', '2026-11-29 00:00:00', 1, 0, 100008)")   // the id of another's message
			},
			[]string{"shop events 0/2"},
			[]string{"shop events is doubled: 2 messages came in two records of the log or more within 168h0m0s"},
		},
		{
			"part of corrections lost",
			func(b *bench) { b.exec("ALTER TABLE corrections DELETE WHERE 1" + mutate) },
			nil,
			[]string{"shop corrections lacks rows...a part of corrections was lost"},
		},
		{
			"correction not done",
			func(b *bench) {
				const columns = "INSERT INTO correction_plans (app_id, actor_id, hour, events, quantity, source_topic_id, source_offset, block, corrected_at, chunk, row, block_end, chunk_rows, chunk_events) VALUES "
				b.exec(columns + "('shop', 'x', '2026-11-10 10:00:00', -1, -1, 't', 7, 7, now64(3), 1, 1, 0, [], []), ('shop', 'y', '2026-11-10 10:00:00', 1, 1, 't', 7, 7, now64(3), 1, 2, 0, [], []), " +
					"('shop', '', '1970-01-01 00:00:00', 0, 0, 't', 7, 7, now64(3), 0, 0, 8, [2], [1])")
				// Of this one the plan is not whole yet: it does not count.
				b.exec(columns + "('shop', 'x', '2026-11-10 10:00:00', -1, -1, 't', 8, 8, now64(3), 1, 1, 0, [], [])")
			},
			[]string{"shop corrections 1/1"},
			[]string{"shop corrections lacks rows of 2 cells that its plans hold, and usage_hourly lacks them too"},
		},
		{
			"part of a plan lost",
			func(b *bench) { b.exec("ALTER TABLE correction_plans DELETE WHERE chunk > 0 AND row = 1" + mutate) },
			nil,
			[]string{"shop correction_plans holds in 1 chunks other rows than their heads say: a part of correction_plans was lost"},
		},
		{
			"part of a plan doubled",
			func(b *bench) {
				b.exec("INSERT INTO correction_plans SELECT * FROM correction_plans WHERE chunk > 0 SETTINGS insert_deduplicate = 0, insert_deduplication_token = 'again'")
			},
			nil,
			[]string{"shop correction_plans holds in 1 chunks other rows than their heads say"},
		},
		{
			"correction twice",
			func(b *bench) {
				b.exec("INSERT INTO corrections SELECT * FROM corrections SETTINGS insert_deduplicate = 0, insert_deduplication_token = 'again'")
			},
			nil,
			[]string{"shop corrections is doubled"},
		},
		{
			"correction lost from usage_hourly",
			func(b *bench) {
				b.exec("CREATE TABLE hourly_copy AS " + b.schema.Table("usage_hourly"))
				b.exec("INSERT INTO hourly_copy (app_id, actor_id, hour, source_partition, events, quantity) VALUES ('shop', 'x', '2026-11-10 21:00:00', 0, 3, 3), ('shop', 'y', '2026-11-10 21:00:00', 0, -3, -3)")
				b.exec("ALTER TABLE usage_hourly ATTACH PARTITION tuple() FROM hourly_copy") // past the views
			},
			nil,
			[]string{"shop usage_hourly lacks 3 events in some cells and has as many too many in others"},
		},
		{
			"corrections lost with their plans",
			func(b *bench) {
				b.exec("TRUNCATE TABLE corrections")
				b.exec("TRUNCATE TABLE correction_plans")
			},
			nil,
			[]string{"shop usage_hourly has moved what no row of corrections says, and every rollup agrees with it: corrections and their plans were lost"},
		},
	}
	for i, tt := range tests {
		if !longtest.Enabled() && i%4 != 0 {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.fill()
			tt.damage(b)
			r := b.audit(nil)
			checks, findings := different(r)
			if r.Equal || (tt.checks != nil && fmt.Sprint(checks) != fmt.Sprint(tt.checks)) {
				t.Errorf("checks: got %q, want %q", checks, tt.checks)
			}
			if len(findings) != len(tt.finding) {
				t.Fatalf("findings: got %q, want %q; checks %q", findings, tt.finding, checks)
			}
			for i, want := range tt.finding {
				begin, rest, _ := strings.Cut(want, "...")
				if !strings.HasPrefix(findings[i], begin) || !strings.Contains(findings[i], rest) {
					t.Errorf("finding: got %q, want %q", findings[i], want)
				}
			}
			for _, c := range checks {
				if !strings.HasPrefix(c, "shop ") {
					t.Errorf("till is not damaged: %s", c)
				}
			}
		})
	}
}

func TestDifferentCellsAreListed(t *testing.T) {
	b := newBench(t)
	b.fill()
	b.exec("ALTER TABLE usage_hourly DELETE WHERE app_id = 'shop' AND source_partition = 1 SETTINGS mutations_sync = 2")
	r := b.audit(nil, func(c *Config) { c.Cells, c.ChunkRows = 3, 250 })
	hourly := r.Apps[0].Checks[0]
	if len(hourly.First) != 3 || hourly.Different < 100 || hourly.Missing.Events != 225 || hourly.Got.Events != hourly.Want.Events-225 {
		t.Fatalf("got %+v", hourly)
	}
	first := hourly.First[0]
	if first.Got != (Sums{}) || first.Want.Events < 1 || first.Key[0] != (Column{"account_id", "acct0"}) {
		t.Errorf("got %+v", first)
	}
	day := func(d, h int) time.Time { return time.Date(2026, 11, d, h, 0, 0, 0, time.UTC) }
	want := Partition{Number: 1, Missing: 225, FirstHour: day(12, 21), LastHour: day(13, 2), Topics: []TopicRows{{"topic-1", 300, 200, 499}}}
	if fmt.Sprint(hourly.Partitions) != fmt.Sprint([]Partition{want}) {
		t.Errorf("partitions: got %+v, want %+v", hourly.Partitions, want)
	}

	key := Key{{"account_id", "a"}, {"role", ""}, {"event", `b "c"`}, {"actor_id", "d\n"}}
	if got, want := key.String(), `account_id=a event="b \"c\"" actor_id="d\n"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}

	var text, script bytes.Buffer
	if err := errors.Join(r.WriteText(&text), r.WriteJSON(&script)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"shop: usage_hourly lacks 225 events", "  to repair: ", "cells differ, first 3:\n", `account_id=acct0`,
		"  partition 1, hours 2026-11-12T21:00:00Z to 2026-11-13T02:00:00Z: 225 events too few, 0 too many\n    events holds 300 rows of topic id topic-1 there, offsets 200 to 499\n",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in:\n%s", want, text.String())
		}
	}
	var parsed struct {
		Equal bool
		Apps  []struct {
			Checks []struct {
				Different uint64
				First     []struct{ Key map[string]string }
			}
		}
	}
	if err := json.Unmarshal(script.Bytes(), &parsed); err != nil {
		t.Fatal(err)
	}
	if c := parsed.Apps[0].Checks[0]; parsed.Equal || c.Different != hourly.Different || c.First[0].Key["account_id"] != "acct0" {
		t.Errorf("got %+v", c)
	}
}

// A block that is in events and not yet in its rollups when it is looked at, and
// is a moment later, is no difference; one that stays is.
func TestBlocksUnderWayAreNoDifference(t *testing.T) {
	b := newBench(t)
	b.fill()
	b.exec("ALTER TABLE account_module_daily DELETE WHERE app_id = 'shop' AND day = '2026-11-20' AND account_id = 'acct1' SETTINGS mutations_sync = 2")
	b.exec("DETACH TABLE usage_hourly_from_events")
	late := b.blockSQL("shop", 1, 12, 60)
	b.exec(late + " SETTINGS insert_deduplication_token = 't', deduplicate_blocks_in_dependent_materialized_views = 1")
	b.exec("ATTACH TABLE usage_hourly_from_events")
	looks := 0
	r := b.audit(func() {
		if looks++; looks == 1 {
			b.exec(late + " SETTINGS insert_deduplication_token = 't', deduplicate_blocks_in_dependent_materialized_views = 1")
			return
		}
		b.block("shop", 1, 12, 60) // what comes meanwhile does not matter
	})
	checks, _ := different(r)
	if want := []string{"shop account_module_daily 15/0"}; fmt.Sprint(checks) != fmt.Sprint(want) || looks != 2 {
		t.Errorf("got %q after %d looks, want %q", checks, looks, want)
	}
}

// While blocks go in all the time, an audit finds nothing.
func TestRunningWriterIsEqual(t *testing.T) {
	b := newBench(t)
	b.fill()
	stop, stopped := make(chan struct{}), make(chan error, 1)
	w := &bench{t: t, conn: b.conn, offset: 10_000}
	go func() { // ends when stop is closed
		for range 300 { // inserts; the audit is done before
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := b.conn.Exec(context.Background(), w.blockSQL("shop", 1, 12, 100)); err != nil {
				stopped <- err
				return
			}
		}
		stopped <- nil
	}()
	r := b.audit(nil, func(c *Config) { c.Settle, c.ChunkRows = 20, 100_000 })
	if checks, findings := different(r); !r.Equal {
		t.Errorf("got %q %q", checks, findings)
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if n := b.number("SELECT count() FROM events"); n <= 650 {
		t.Errorf("nothing was written meanwhile: %d rows", n)
	}
}

func TestRangeAndApp(t *testing.T) {
	b := newBench(t)
	b.fill()
	b.exec("ALTER TABLE usage_hourly DELETE WHERE app_id = 'shop' AND hour = '2026-11-12 22:00:00' SETTINGS mutations_sync = 2")
	at := func(h int) time.Time { return time.Date(2026, 11, 12, h, 0, 0, 0, time.UTC) }
	for _, tt := range []struct {
		change func(*Config)
		want   bool
	}{
		{func(c *Config) { c.App = "till" }, true},
		{func(c *Config) { c.App = "shop" }, false},
		{func(c *Config) { c.From = at(22); c.To = at(23) }, false},
		{func(c *Config) { c.From = at(24) }, true},
		{func(c *Config) { c.To = at(0) }, true},
		{func(c *Config) { c.From, c.To = at(0), at(24) }, false},
	} {
		if r := b.audit(nil, tt.change); r.Equal != tt.want {
			checks, _ := different(r)
			t.Errorf("%v to %v: got %v %q", r.From, r.To, r.Equal, checks)
		}
	}
	// The hours around it: the hourly tables are equal there, the days are not.
	r := b.audit(nil, func(c *Config) { c.From = at(23) })
	if c := r.Apps[0].Checks; c[0].Different != 0 || c[0].Cells == 0 || c[1].Different == 0 {
		t.Errorf("got %+v, %+v", c[0], c[1])
	}
}

func TestAuditCannotWrite(t *testing.T) {
	b := newBench(t)
	ctx := clickhousego.Context(context.Background(), clickhousego.WithSettings(settings))
	if err := b.conn.Exec(ctx, "CREATE TABLE x (a Int8) ENGINE = MergeTree ORDER BY a"); err == nil || !strings.Contains(err.Error(), "readonly") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestConfig(t *testing.T) {
	cfg := DefaultConfig()
	set := flag.NewFlagSet("x", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	cfg.Flags(set)
	if err := set.Parse([]string{"-from", "2026-11-21", "-to", "2026-11-22T01:00:00+01:00"}); err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC); !cfg.To.Equal(want) || cfg.Validate() != nil {
		t.Errorf("got %v, %v", cfg.To, cfg.Validate())
	}
	if err := set.Parse([]string{"-from", "yesterday"}); err == nil {
		t.Error("yesterday was taken")
	}
	bad := Config{From: time.Unix(7200, 0), To: time.Unix(60, 0), Cells: -1, Settle: -1, SettleWait: -1}
	err := bad.Validate()
	for _, name := range []string{"to must be a whole hour", "from must be before to", "cells must", "settle must", "settle-wait must", "chunk-rows must", "dedup-window must"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to say %q", err, name)
		}
	}
}

// What the enrichers drop as sent again is what the audit counts as one message.
func TestMessagesAsTheEnricherTellsThem(t *testing.T) {
	b := newBench(t)
	const second = 1_000_000
	messages := []event.Message{
		{Protocol: "segment", MessageID: "m", UserID: "u1", AnonymousID: "a1", AccountID: "g1", Event: "e1", Timestamp: 5 * second},
		{Protocol: "segment", MessageID: "m", UserID: "u1", AnonymousID: "a2", AccountID: "g2", Event: "e2", Timestamp: 9 * second}, // sent again
		{Protocol: "segment", MessageID: "m", UserID: "u2", Event: "e1"},
		{Protocol: "segment", MessageID: "m", AnonymousID: "u1", Event: "e1"},
		{Protocol: "segment", MessageID: "m", AnonymousID: "u1", AccountID: "g1"}, // sent again
		{Protocol: "segment", MessageID: "m", AccountID: "u1"},
		{Protocol: "segment", MessageID: "m"},
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e1", Timestamp: 5*second + 1},
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e1", Timestamp: 5*second + 999_999}, // the second of an export
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e1", Timestamp: 6 * second},
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e2", Timestamp: 5 * second},
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e2"},
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e2", Timestamp: -1},
		{Protocol: "mixpanel", MessageID: "m", UserID: "u1", Event: "e2", Timestamp: -1 * second},
	}
	for i, m := range messages {
		at := "NULL"
		if m.Timestamp != 0 {
			at = fmt.Sprintf("fromUnixTimestamp64Micro(%d, 'UTC')", m.Timestamp)
		}
		b.exec(fmt.Sprintf("INSERT INTO events (app_id, kind, protocol, message_id, user_id, anonymous_id, account_id, event, timestamp, source_offset) VALUES ('told', 'track', '%s', '%s', '%s', '%s', '%s', '%s', %s, %d)",
			m.Protocol, m.MessageID, m.UserID, m.AnonymousID, m.AccountID, m.Event, at, i))
	}
	rows, err := b.conn.Query(context.Background(), "SELECT "+event.MessageSQL+" FROM events WHERE app_id = 'told' ORDER BY source_offset")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var sql []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		sql = append(sql, s)
	}
	if err := rows.Err(); err != nil || len(sql) != len(messages) {
		t.Fatalf("%d rows, %v", len(sql), err)
	}
	different := map[string]bool{}
	for i, m := range messages {
		different[sql[i]] = true
		for j, o := range messages[:i] {
			if said, counted := string(m.AppendTo(nil)) == string(o.AppendTo(nil)), sql[i] == sql[j]; said != counted {
				t.Errorf("%+v and %+v: the enricher says one message: %v, the audit: %v (%q, %q)", m, o, said, counted, sql[i], sql[j])
			}
		}
	}
	if len(different) != 10 {
		t.Errorf("%d messages, want 10", len(different))
	}
}
