package audit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
)

// chunk is the subject of one query: hours and days of an app, or a share of its
// message ids.
type chunk struct {
	app        string
	first, end time.Time // days, end excluded
	from, to   time.Time // hours of them, to excluded
	share, of  int
	schema     tables.Schema
	window     time.Duration
}

func (c chunk) table(name string) string { return c.schema.Table(name) }

func (c chunk) where(column string) string {
	return fmt.Sprintf("app_id = %s AND %s", clickhouse.Quote(c.app), between(column, c.from, c.to))
}

// hours of the hourly tables.
func (c chunk) hours() string { return c.where("hour") }

// wholeDays selects whole days of usage_hourly, whatever hours were requested.
func (c chunk) wholeDays() string {
	return fmt.Sprintf("app_id = %s AND %s", clickhouse.Quote(c.app), between("hour", c.first, c.end))
}

func (c chunk) days() string {
	return fmt.Sprintf("app_id = %s AND day >= '%s' AND day < '%s'", clickhouse.Quote(c.app), c.first.Format(time.DateOnly), c.end.Format(time.DateOnly))
}

// events selects the events of the hours; days are in the sorting key of events.
func (c chunk) events() string {
	return fmt.Sprintf("%s AND toDate(event_time) >= '%s' AND toDate(event_time) < '%s'",
		c.where("toStartOfHour(event_time)"), c.first.Format(time.DateOnly), c.end.Format(time.DateOnly))
}

func (c chunk) messages() string {
	return fmt.Sprintf("%s AND message_id != '' AND cityHash64(message_id) %% %d = %d", c.where("event_time"), c.of, c.share)
}

// between is the condition from from until before to; a zero bound is none.
func between(column string, from, to time.Time) string {
	var terms []string
	if !from.IsZero() {
		terms = append(terms, fmt.Sprintf("%s >= toDateTime(%d, 'UTC')", column, from.Unix()))
	}
	if !to.IsZero() {
		terms = append(terms, fmt.Sprintf("%s < toDateTime(%d, 'UTC')", column, to.Unix()))
	}
	if len(terms) == 0 {
		return "1"
	}
	return strings.Join(terms, " AND ")
}

// check is one comparison.
type check struct {
	table, against string
	columns        []string
	// want and got are queries of columns, events and quantity, with any number of rows
	// per cell.
	want, got func(chunk) string
	// cells, if set, replaces want and got: columns and the four sums, a row for each
	// cell.
	cells func(chunk) string
	// total, if set, counts the cells that cells omits because they are equal.
	total  func(chunk) string
	shares bool // chunks are shares of message ids; see event.Message
}

var (
	baseColumns   = tables.TableOf("usage_hourly").Key
	recordColumns = []string{"source_topic_id", "source_partition", "source_offset"}
	base          = strings.Join(baseColumns, ", ")
	record        = strings.Join(recordColumns, ", ")
)

// planned selects, by the columns of a block, rows of blocks with a complete plan that
// does not expire during the comparison: of an expired one some parts may be deleted
// before others.
func (c chunk) planned(columns string) string {
	return "(" + columns + ") GLOBAL IN (SELECT " + columns + " FROM " + c.table("correction_plans") + " WHERE " + youngHeads + ")"
}

const (
	youngHeads  = "chunk = 0 AND block_end > 0 AND corrected_at > now() - INTERVAL 59 DAY"
	planColumns = "source_topic_id, source_partition, block, plan"
)

// heads of the app's plans: each belongs to the app of its block's first order.
func (c chunk) heads() string {
	return fmt.Sprintf("app_id = %s AND cityHash64(block) %% %d = %d AND %s", clickhouse.Quote(c.app), c.of, c.share, youngHeads)
}

// checks repeats what the materialized views select and does not use the views: a
// changed or dropped view would make them wrong.
var checks = slices.Concat([]check{{
	table: "usage_hourly", against: "events + corrections", columns: baseColumns,
	want: func(c chunk) string {
		return `SELECT e.account_id AS account_id, e.account_source AS account_source, e.actor_id AS actor_id, e.actor_kind AS actor_kind,
	if(e.user_id != '', e.user_id, e.linked_user_id) AS user_id, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id,
	e.feature_id AS feature_id, e.module_id AS module_id, e.product_id AS product_id, e.role AS role, e.event AS event,
	toStartOfHour(e.event_time) AS hour, e.source_partition AS source_partition, toInt64(1) AS events, e.quantity AS quantity
FROM ` + c.table("events") + ` AS e WHERE kind IN ('track', 'page', 'screen', 'api_call') AND ` + c.events() + `
UNION ALL
SELECT ` + base + `, events, quantity FROM ` + c.table("corrections") + " WHERE " + c.hours()
	},
	got: func(c chunk) string {
		return "SELECT " + base + ", events, quantity FROM " + c.table("usage_hourly") + " WHERE " + c.hours()
	},
}}, overBase(), []check{{
	table: "corrections", against: "correction_plans", columns: slices.Concat(recordColumns[:1], recordColumns[2:], []string{"row", "part_from", "part_to"}, baseColumns),
	want: func(c chunk) string {
		return "SELECT source_topic_id, source_offset, row, part_from, part_to, " + base + ", events, quantity FROM " + c.table("correction_plans") + " WHERE chunk > 0 AND " + c.hours() +
			" AND " + c.planned(planColumns)
	},
	got: func(c chunk) string {
		return "SELECT source_topic_id, source_offset, row, part_from, part_to, " + base + ", events, quantity FROM " + c.table("corrections") + " WHERE " + c.hours() +
			" AND " + c.planned("source_topic_id, source_partition, block")
	},
}, {
	// As events they count rows.
	table: "correction_plans", against: "what their heads say", columns: []string{"source_topic_id", "source_partition", "block", "plan", "chunk"}, shares: true,
	want: func(c chunk) string {
		return "SELECT " + planColumns + ", n AS chunk, toInt64(r) AS events, e AS quantity FROM (SELECT " + planColumns + ", chunk_rows, chunk_events FROM " + c.table("correction_plans") + " WHERE " + c.heads() +
			") ARRAY JOIN chunk_rows AS r, chunk_events AS e, arrayEnumerate(chunk_rows) AS n"
	},
	got: func(c chunk) string {
		return "SELECT " + planColumns + ", p.chunk AS chunk, toInt64(1) AS events, if(p.row % 2 = 0, p.events, 0) AS quantity FROM " + c.table("correction_plans") + " AS p WHERE p.chunk > 0 AND (" +
			planColumns + ") GLOBAL IN (SELECT " + planColumns + " FROM " + c.table("correction_plans") + " WHERE " + c.heads() + ")"
	},
}, {
	table: "events", against: "one row per record", columns: recordColumns,
	cells: func(c chunk) string {
		return "SELECT " + record + `, toInt64(1) AS want_events, any(quantity) AS want_quantity, toInt64(count()) AS got_events, sum(quantity) AS got_quantity
FROM ` + c.table("events") + " WHERE " + c.events() + " GROUP BY " + record
	},
}, {
	table: "events", against: "one record per message", columns: []string{"message_id", "message_of"}, shares: true,
	total: func(c chunk) string { return "SELECT count() FROM " + c.table("events") + " WHERE " + c.messages() },
	// The previous check reports records that exist twice.
	cells: func(c chunk) string {
		const message = "message_id, " + event.MessageSQL + " AS message_of"
		return `SELECT message_id, message_of, toInt64(1) AS want_events, toInt64(0) AS want_quantity, toInt64(1 + repeats) AS got_events, toInt64(0) AS got_quantity
FROM (
	SELECT ` + message + `, arraySort(groupUniqArray(1000)((toUnixTimestamp64Micro(received_at), ` + record + `))) AS seen,
		arrayCount((a, b) -> b.1 - a.1 < ` + strconv.FormatInt(c.window.Microseconds(), 10) + `, arrayPopBack(seen), arrayPopFront(seen)) AS repeats
	FROM ` + c.table("events") + ` WHERE ` + c.messages() + ` AND (message_id, message_of) GLOBAL IN (
		SELECT ` + message + ` FROM ` + c.table("events") + ` WHERE ` + c.messages() + ` GROUP BY message_id, message_of HAVING min((` + record + `)) != max((` + record + `)))
	GROUP BY message_id, message_of)
WHERE repeats > 0`
	},
}})

// rollups are the tables over usage_hourly with stored rows.
var rollups = tables.Names(tables.Rollups())

// overBase are the checks of all rollups, including those that are views.
func overBase() []check {
	var list []check
	for _, r := range tables.Select(func(t *tables.Table) bool { return t.Kind == tables.Rollup }) {
		columns := strings.Join(r.Key[:len(r.Key)-1], ", ") // the last is the day
		list = append(list, check{
			table: r.Name, against: "usage_hourly", columns: r.Key,
			want: func(c chunk) string {
				return "SELECT " + columns + ", toDate(hour) AS day, events, quantity FROM " + c.table("usage_hourly") + " WHERE " + c.wholeDays()
			},
			got: func(c chunk) string {
				return "SELECT " + columns + ", day, events, quantity FROM " + c.table(r.Name) + " WHERE " + c.days()
			},
		})
	}
	return list
}

const differs = "(want_events != got_events OR want_quantity != got_quantity)"

func (k *check) hash() string { return "cityHash64(" + strings.Join(k.columns, ", ") + ")" }

// query returns the cells of a chunk with expected and actual sums: all, or those with
// one of the kept hashes.
func (k *check) query(c chunk, held []uint64) string {
	only := ""
	if held != nil {
		list := make([]string, len(held))
		for i, h := range held {
			list[i] = strconv.FormatUint(h, 10)
		}
		only = " WHERE " + k.hash() + " IN (" + strings.Join(list, ",") + ")"
	}
	if k.cells != nil {
		return "SELECT * FROM (" + k.cells(c) + ")" + only
	}
	list := strings.Join(k.columns, ", ")
	return `SELECT ` + list + `, sum(we) AS want_events, sum(wq) AS want_quantity, sum(ge) AS got_events, sum(gq) AS got_quantity
FROM (
	SELECT ` + list + `, sum(events) AS we, sum(quantity) AS wq, toInt64(0) AS ge, toInt64(0) AS gq FROM (` + k.want(c) + `) GROUP BY ` + list + `
	UNION ALL
	SELECT ` + list + `, toInt64(0) AS we, toInt64(0) AS wq, sum(events) AS ge, sum(quantity) AS gq FROM (` + k.got(c) + `) GROUP BY ` + list + `
)` + only + ` GROUP BY ` + list + `
HAVING want_events != 0 OR want_quantity != 0 OR got_events != 0 OR got_quantity != 0`
}

// summary is the result of a look at a chunk.
type summary struct {
	cells, different       uint64
	want, missing, surplus Sums
	hashes                 []uint64 // of up to maxHeld cells that differ
}

func (a *auditor) look(ctx context.Context, k *check, c chunk, held []uint64) (summary, error) {
	var s summary
	q := fmt.Sprintf(`SELECT count(), countIf(%s), sum(want_events), sum(want_quantity),
	sum(greatest(want_events - got_events, 0)), sum(greatest(want_quantity - got_quantity, 0)),
	sum(greatest(got_events - want_events, 0)), sum(greatest(got_quantity - want_quantity, 0)),
	groupArrayIf(%d)(%s, %s)
FROM (%s)`, differs, maxHeld, k.hash(), differs, k.query(c, held))
	err := a.conn.QueryRow(ctx, q).Scan(&s.cells, &s.different, &s.want.Events, &s.want.Quantity,
		&s.missing.Events, &s.missing.Quantity, &s.surplus.Events, &s.surplus.Quantity, &s.hashes)
	if err == nil && k.total != nil && held == nil {
		err = a.conn.QueryRow(ctx, k.total(c)).Scan(&s.cells)
		s.want = Sums{Events: int64(s.cells)}
	}
	if err != nil {
		return s, fmt.Errorf("compare %s with %s: %w", k.table, k.against, err)
	}
	return s, nil
}

// list returns the first n cells that differ.
func (a *auditor) list(ctx context.Context, k *check, c chunk, held []uint64, n int) ([]Cell, error) {
	texts := make([]string, len(k.columns))
	for i, name := range k.columns {
		texts[i] = "toString(" + name + ")"
	}
	q := fmt.Sprintf("SELECT [%s] AS cell, want_events, want_quantity, got_events, got_quantity FROM (%s) WHERE %s ORDER BY %s LIMIT %d",
		strings.Join(texts, ", "), k.query(c, held), differs, strings.Join(k.columns, ", "), n)
	type row struct {
		values []string
		Cell
	}
	var cells []Cell
	err := tables.Each(ctx, a.conn, func(r *row) []any {
		return []any{&r.values, &r.Want.Events, &r.Want.Quantity, &r.Got.Events, &r.Got.Quantity}
	}, func(r *row) {
		for i, v := range r.values {
			r.Key = append(r.Key, Column{k.columns[i], v})
		}
		cells = append(cells, r.Cell)
	}, q)
	if err != nil {
		return nil, fmt.Errorf("list cells of %s: %w", k.table, err)
	}
	return cells, nil
}

// partitions returns the partitions of the log from which the differing cells of
// usage_hourly came, and the rows of events of these partitions in their hours.
func (a *auditor) partitions(ctx context.Context, app string, o *open) ([]Partition, error) {
	list, err := tables.Collect(ctx, a.conn, func(p *Partition) []any { return []any{&p.Number, &p.Missing, &p.Surplus, &p.FirstHour, &p.LastHour} },
		`SELECT source_partition, sum(greatest(want_events - got_events, 0)), sum(greatest(got_events - want_events, 0)), min(hour), max(hour)
FROM (`+o.check.query(o.chunk, o.held)+") WHERE "+differs+" GROUP BY source_partition ORDER BY source_partition")
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	for i := range list {
		if list[i].Topics, err = a.topics(ctx, app, list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (a *auditor) topics(ctx context.Context, app string, p Partition) ([]TopicRows, error) {
	c := chunk{schema: a.schema, app: app, from: p.FirstHour, to: p.LastHour.Add(time.Hour)}
	c.first, c.end = day(c.from), day(c.to.Add(24*time.Hour-1))
	list, err := tables.Collect(ctx, a.conn, func(t *TopicRows) []any { return []any{&t.ID, &t.Rows, &t.FirstOffset, &t.LastOffset} },
		"SELECT source_topic_id, count(), min(source_offset), max(source_offset) FROM "+c.table("events")+" WHERE "+c.events()+
			fmt.Sprintf(" AND source_partition = %d GROUP BY source_topic_id ORDER BY source_topic_id", p.Number))
	if err != nil {
		return nil, fmt.Errorf("look for rows of partition %d: %w", p.Number, err)
	}
	return list, nil
}

// audited are the tables with rows of apps and days.
var audited = tables.Select(func(t *tables.Table) bool { return t.Day != "" && !t.Plain && t.Name != "correction_plans" })

func (a *auditor) apps(ctx context.Context) ([]string, error) {
	if a.cfg.App != "" {
		return []string{a.cfg.App}, nil
	}
	var from []string
	for _, t := range audited {
		from = append(from, "SELECT toString(app_id) AS app FROM "+a.schema.Table(t.Name)+" GROUP BY app")
	}
	list, err := tables.CollectColumn[string](ctx, a.conn, "SELECT DISTINCT app FROM ("+strings.Join(from, " UNION ALL ")+") ORDER BY app")
	if err != nil {
		return nil, fmt.Errorf("list apps: %w", err)
	}
	return list, nil
}

func day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// chunks returns the days that have rows of the app in any table, combined up to
// ChunkRows; rows is their number of events.
func (a *auditor) chunks(ctx context.Context, app string) (list []chunk, events uint64, err error) {
	var from []string
	for _, t := range audited {
		from = append(from, fmt.Sprintf("SELECT %s AS date, count() AS n, %t AS event FROM %s WHERE app_id = %s GROUP BY date", t.Day, t.Name == "events", a.schema.Table(t.Name), clickhouse.Quote(app)))
	}
	where := "1"
	if !a.cfg.From.IsZero() {
		where += " AND date >= '" + day(a.cfg.From).Format(time.DateOnly) + "'"
	}
	if !a.cfg.To.IsZero() {
		where += " AND date <= '" + day(a.cfg.To.Add(-1)).Format(time.DateOnly) + "'"
	}
	type days struct {
		on        time.Time
		n, events uint64
	}
	var inChunk uint64
	err = tables.Each(ctx, a.conn, func(d *days) []any { return []any{&d.on, &d.n, &d.events} }, func(d *days) {
		events += d.events
		if inChunk += d.n; len(list) == 0 || inChunk > uint64(a.cfg.ChunkRows) {
			list = append(list, chunk{schema: a.schema, app: app, first: day(d.on)})
			inChunk = d.n
		}
		list[len(list)-1].end = day(d.on).AddDate(0, 0, 1)
	}, "SELECT date, sum(n), sumIf(n, event) FROM ("+strings.Join(from, " UNION ALL ")+") WHERE "+where+" GROUP BY date ORDER BY date")
	if err != nil {
		return nil, 0, fmt.Errorf("list days: %w", err)
	}
	for i := range list {
		c := &list[i]
		c.from, c.to = c.first, c.end
		if c.from.Before(a.cfg.From) {
			c.from = a.cfg.From
		}
		if !a.cfg.To.IsZero() && c.to.After(a.cfg.To) {
			c.to = a.cfg.To
		}
	}
	return list, events, nil
}

// shares divides the message ids of an app's events.
func (a *auditor) shares(app string, events uint64) []chunk {
	cfg := a.cfg
	n := max(1, (int(events)+cfg.ChunkRows-1)/cfg.ChunkRows)
	list := make([]chunk, n)
	for i := range list {
		list[i] = chunk{schema: a.schema, app: app, from: cfg.From, to: cfg.To, share: i, of: n, window: cfg.DedupWindow}
	}
	return list
}
