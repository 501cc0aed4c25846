package erase

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/topic"
)

var errCut = errors.New("cut short")

// cutConn fails behind a number of statements, before or after the last one is
// carried out.
type cutConn struct {
	driver.Conn
	left  int
	after bool
	done  int
}

func (c *cutConn) Exec(ctx context.Context, query string, args ...any) error {
	if c.left == 0 {
		return errCut
	}
	c.left--
	if c.left == 0 && !c.after {
		return errCut
	}
	err := c.Conn.Exec(ctx, query, args...)
	if c.done++; err == nil && c.left == 0 {
		return errCut
	}
	return err
}

// newTables makes all tables in a database of the test's own.
func newTables(t *testing.T) (driver.Conn, tables.Schema) {
	t.Helper()
	addr, db := sqltest.Database(t)
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.Database = addr, db
	return sqltest.Open(t, &cfg), cfg.Schema()
}

// TestSweepIsFinishedByAnotherRun cuts the rewriting of tables short before and
// after each of its statements, one after the other on the same tables, until a
// run goes through.
func TestSweepIsFinishedByAnotherRun(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	conn, schema := newTables(t)
	exec := func(query string) {
		t.Helper()
		if err := conn.Exec(ctx, query); err != nil {
			t.Fatalf("%v in %s", err, query)
		}
	}
	// Jane, her device, and Joan on the device as well; what Jane did has been
	// moved to nobody by a correction, as writers do it.
	exec(`INSERT INTO events (app_id, kind, event, message_id, user_id, anonymous_id, actor_id, actor_kind, account_id, account_source, role, event_time, received_at, quantity,
			user_agent, country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign, properties, metric, source_topic_id, source_partition, source_offset)
		SELECT 'shop AND b', ['track', 'identify', 'metric'][number % 3 + 1] AS k, 'e', concat('m', toString(number)),
			['jane', '', 'joan'][intDiv(number, 3) % 3 + 1] AS u, if(number % 2 = 0, 'device', ''), if(u = '', 'device', u), if(u = '', 'anonymous', 'user'), 'acme', 'event', if(u = 'joan', 'nurse', 'nurse of jane'),
			'2026-11-20 10:00:00', '2026-11-20 10:00:00', 1, 'Googlebot', 'AT', 'Firefox', 'Linux', 'desktop', 'jane.example', 'jane', 'mail', 'to-jane', '{"name":"jane"}', if(k = 'metric', '{"numbers":{"":5}}', ''), 'topic', 0, number
		FROM numbers(90)`)
	// Roles that Jane and Jim stated by group calls, which are traits of the account too.
	exec(`INSERT INTO events (app_id, kind, event, message_id, user_id, actor_id, actor_kind, account_id, account_source, role, traits, event_time, received_at, quantity, source_topic_id, source_partition, source_offset)
		SELECT 'shop AND b', 'group', 'group', concat('g', toString(number)), ['jane', 'jim', 'jane', 'jim'][number + 1] AS u, u, 'user', 'acme', 'event', ['nurse of jane', 'clerk', 'clerk', 'clerk'][number + 1] AS r,
			concat('{"role":"', r, '","plan":"pro"}'), toDateTime64('2026-11-20 09:00:00', 6, 'UTC') + [3, 1, 2, 0][number + 1], '2026-11-20 10:00:00', 1, 'topic', 0, 200 + number
		FROM numbers(4)`)
	moved := func(sign, actor, kind, user, anonymous, role string) string {
		return fmt.Sprintf(`SELECT app_id, account_id, account_source, %s AS actor_id, %s AS actor_kind, %s AS user_id, %s AS anonymous_id, feature_id, module_id, product_id, %s AS role, event, hour,
			source_partition, %ssum(b.events) AS events, %ssum(b.quantity) AS quantity, 'topic' AS source_topic_id, toInt64(90) AS source_offset, 'c' AS control_id, 'move' AS control_kind, now64(3) AS corrected_at
			FROM usage_hourly AS b WHERE b.actor_id IN ('jane', 'device') GROUP BY ALL`, actor, kind, user, anonymous, role, sign, sign)
	}
	const signed = `app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition, events, quantity,
		source_topic_id, source_offset, control_id, control_kind, corrected_at`
	exec("INSERT INTO correction_plans (" + signed + ", chunk, row) SELECT *, 1, 0 FROM (" +
		moved("-", "b.actor_id", "b.actor_kind", "b.user_id", "b.anonymous_id", "b.role") + " UNION ALL " + moved("", "''", "'erased'", "''", "''", "''") + ")")
	exec("INSERT INTO correction_plans (app_id, source_topic_id, source_partition, source_offset, corrected_at, chunk, row) VALUES ('shop AND b', 'topic', 0, 90, now64(3), 0, 1)")
	exec("INSERT INTO corrections (" + signed + ") SELECT " + signed + " FROM correction_plans WHERE chunk > 0")
	exec(`INSERT INTO rejected_events (app_id, stage, received_at, original) VALUES ('shop AND b', 'gateway', now(), '{"userId":"jane"}'), ('shop AND b', 'gateway', now(), '{"userId":"janet"}')`)
	exec(`INSERT INTO rejected_events (app_id, stage, received_at, original, envelope) VALUES ('shop AND b', 'gateway', now(), '{}', '{"id":"jane"}')`)

	exec("INSERT INTO signal_log (app_id, alert_id, message_id, level, subject) VALUES ('shop AND b', 'al_1', 'm1', 'user', 'jane'), ('shop AND b', 'al_2', 'm2', 'account', 'jane')")

	exec("INSERT INTO looks (app_id, looked_at, viewer, person_id, log_offset) VALUES ('shop AND b', '2026-11-20 10:00:00', 'jane', 'jane', 1), ('shop AND b', '2026-11-20 10:00:00', 'jane', 'device', 2), ('shop AND b', '2026-11-20 10:00:00', 'jane', 'joan', 3)")
	exec("INSERT INTO behaviour_cluster_members (app_id, unit_kind, unit_id) VALUES ('shop AND b', 'user', 'jane'), ('shop AND b', 'user', 'joan'), ('shop AND b', 'account', 'jane')")

	number := func(query string) (n float64) {
		t.Helper()
		if err := conn.QueryRow(ctx, "SELECT toFloat64(("+query+"))").Scan(&n); err != nil {
			t.Fatalf("%v in %s", err, query)
		}
		return n
	}
	const totals = "SELECT sum(events) FROM account_feature_daily"
	const values = "SELECT sum(tupleElement(last, 'value')) FROM metric_values FINAL"
	events, reported := number(totals), number(values)
	if n := number("SELECT count() FROM user_agents FINAL"); n != 3 {
		t.Fatalf("user agents of %v ids, want those of jane, joan and the device", n)
	}
	if events != 30 || reported != 150 {
		t.Fatalf("%v events and %v reported, want 30 and 150", events, reported)
	}

	run := func(c *cutConn) ([]Rows, error) {
		e := &eraser{
			Dependencies: Dependencies{
				Names:  topic.Unprefixed,
				Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), SQL: c, Shards: []driver.Conn{c}, Schema: schema,
			},
			cfg: Config{App: "shop AND b", User: "jane"}, key: []byte(strings.Repeat("k", event.EraseKeyBytes)),
		}
		ctx := e.context(ctx)
		if err := e.openList(ctx); err != nil {
			return nil, err
		}
		if err := e.add(ctx, kindAnonymous, "device"); err != nil {
			return nil, err
		}
		if err := e.sweep(ctx); err != nil {
			return nil, err
		}
		return e.counts(ctx)
	}
	for n := 1; ; n++ {
		var left []Rows
		var err error
		for _, after := range []bool{false, true} {
			if !longtest.Enabled() && after != (n%2 == 0) {
				continue // cut before the odd statements, and after the even ones
			}
			c := &cutConn{Conn: conn, left: n, after: after}
			if left, err = run(c); err != nil && !errors.Is(err, errCut) {
				t.Fatal(err)
			}
		}
		if err != nil {
			continue
		}
		for _, r := range left {
			if r.Left != 0 {
				t.Errorf("%d rows are left in %s", r.Left, r.Table)
			}
		}
		t.Logf("went through with %d statements", n)
		break
	}
	if n := number(totals); n != events {
		t.Errorf("the account has %v events, want %v", n, events)
	}
	if n := number(values); n != reported {
		t.Errorf("the account reported %v, want %v", n, reported)
	}
	if n := number("SELECT countIf(user_id = 'joan' AND tupleElement(last, 'actor_id') = 'joan' AND anonymous_id = '') FROM metric_values FINAL"); n != 10 {
		t.Errorf("%v reports of somebody else are left, want 10", n)
	}
	// Exactly the rows of Joan have a client, and all of it.
	if n := number("SELECT count() FROM events WHERE message_id LIKE 'm%' AND user_id = 'joan' AND [country, browser, os, device_class, referrer, utm_source, utm_medium, utm_campaign] = ['AT', 'Firefox', 'Linux', 'desktop', 'jane.example', 'jane', 'mail', 'to-jane']"); n != 30 {
		t.Errorf("%v rows of somebody else have their client, want 30", n)
	}
	if n := number("SELECT countIf(country || browser || os || device_class || referrer || utm_source || utm_medium || utm_campaign != '') FROM events WHERE user_id != 'joan'"); n != 0 {
		t.Errorf("%v rows of the person keep something of their client", n)
	}
	if n := number("SELECT countIf(user_id = 'joan') FROM events"); n != 30 {
		t.Errorf("%v rows of somebody else are left", n)
	}
	if n := number("SELECT countIf(original || envelope != '') FROM rejected_events"); n != 1 {
		t.Errorf("%v rejected events have their bytes, want that of janet alone", n)
	}
	for _, table := range []string{"events", "usage_hourly", "corrections", "correction_plans", "user_feature_daily"} {
		if n := number("SELECT countIf(position(role, 'jane') > 0) FROM " + table); n != 0 {
			t.Errorf("%v rows of %s keep a role of the person", n, table)
		}
	}
	if n := number("SELECT countIf(user_id = 'joan' AND actor_id = 'joan') + 10 * countIf(user_id != 'joan') FROM user_agents FINAL"); n != 1 {
		t.Errorf("user agents of %v ids are left, want joan's alone", n)
	}
	if n := number("SELECT count() FROM signal_log"); n != 1 {
		t.Errorf("%v signals are left, want the account's alone", n)
	}
	if n := number("SELECT countIf(viewer = 'jane') * 10 + countIf(person_id = 'joan') FROM looks"); n != 31 {
		t.Errorf("got %v: want 3 looks, one of them at somebody else", n)
	}
	if n := number("SELECT countIf((unit_kind, unit_id) IN (('user', 'joan'), ('account', 'jane'))) + 10 * countIf(unit_kind = 'user' AND unit_id = 'jane') FROM " + schema.Table("behaviour_cluster_members")); n != 2 {
		t.Errorf("%v members of clusters are left, want joan and the account", n)
	}
	const said = "FROM identity_facts FINAL WHERE fact = 'account' AND subject = 'acme'"
	if n := number("SELECT countIf(position(tupleElement(last, 'value'), 'jane') > 0) " + said); n != 0 {
		t.Errorf("%v traits of the account keep a role of the person", n)
	}
	if n := number(`SELECT countIf(object = 'role' AND last = (toDateTime64('2026-11-20 09:00:01', 6, 'UTC'), '"clerk"')) ` + said); n != 1 {
		t.Errorf("%v traits say the role that somebody else stated, want 1", n)
	}
	if n := number(`SELECT countIf(object = 'plan' AND tupleElement(last, 'value') = '"pro"') ` + said); n != 1 {
		t.Errorf("the account has %v plans, want 1", n)
	}
	settings := audit.DefaultConfig()
	settings.Settle = 0
	report, err := audit.Run(ctx, conn, schema, settings)
	if err != nil {
		t.Fatal(err)
	}
	if !report.Equal {
		var text strings.Builder
		_ = report.WriteText(&text) // a builder takes all
		t.Errorf("audit: %s", text.String())
	}
}
