package rebuild

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// table is a table of signed sums.
type table struct {
	name    string
	columns []string // of a cell, beside the app
	date    string   // the day of a row
	guard   string   // what must not shrink; see the package comment
	// want returns columns, events and quantity, with any number of rows per cell.
	want func(s *Shard, r Range) string
	// aside: rows are attached and do not pass through views.
	aside bool
}

var (
	attribution       = tables.TableOf("usage_hourly").Key
	correctionColumns = tables.TableOf("corrections").Key
)

// usageKinds are the kinds of events that count; the view usage_hourly_from_events has
// the same.
const usageKinds = "('track', 'page', 'screen', 'api_call')"

const byHour = "toDate(hour)"

// baseTable is the expected content of usage_hourly, from events and corrections.
var baseTable = table{
	name: "usage_hourly", columns: attribution, date: byHour, guard: "hour, source_partition, event", aside: true,
	want: func(s *Shard, r Range) string {
		return Counted(s.local("events"), s.local("corrections"), r.where("toDate(e.event_time)"), r.where(byHour))
	},
}

// Counted gives what usage_hourly counts of the events and the corrections that
// two conditions select: app_id, the columns of a cell, events and quantity, any
// number of rows for a cell. The table of events is called e.
func Counted(events, corrections, ofEvents, ofCorrections string) string {
	return `SELECT e.app_id AS app_id, e.account_id AS account_id, e.account_source AS account_source, e.actor_id AS actor_id, e.actor_kind AS actor_kind,
	if(e.user_id != '', e.user_id, e.linked_user_id) AS user_id, if(e.user_id = '', e.anonymous_id, '') AS anonymous_id,
	e.feature_id AS feature_id, e.module_id AS module_id, e.product_id AS product_id, e.role AS role, e.event AS event,
	toStartOfHour(e.event_time) AS hour, e.source_partition AS source_partition, toInt64(1) AS events, e.quantity AS quantity
FROM ` + events + ` AS e WHERE e.kind IN ` + usageKinds + ` AND ` + ofEvents + `
UNION ALL
SELECT app_id, ` + strings.Join(attribution, ", ") + `, events, quantity FROM ` + corrections + ` WHERE ` + ofCorrections
}

// rollups are the tables over usage_hourly.
var rollups = overBase()

func overBase() []table {
	var list []table
	for _, r := range tables.Rollups() {
		columns := strings.Join(r.Key[:len(r.Key)-1], ", ") // the last is the day
		list = append(list, table{
			name: r.Name, columns: r.Key, date: r.Day, guard: r.Day,
			want: func(s *Shard, of Range) string {
				return "SELECT " + columns + ", toDate(hour) AS day, events, quantity FROM " + s.local(r.From) + " WHERE " + of.where(byHour)
			},
		})
	}
	return list
}

// planned is t over the usage_hourly as it would be after the rebuild, for a dry run.
func (t table) planned() table {
	t.want = func(s *Shard, r Range) string {
		columns := strings.Join(t.columns[:len(t.columns)-1], ", ")
		return "SELECT " + columns + ", toDate(hour) AS day, events, quantity FROM (" + baseTable.want(s, r) + ")"
	}
	return t
}

// Boundaries are the offsets up to which the partitions of a topic are written.
type Boundaries struct {
	TopicID string
	At      map[int32]int64
}

// correctionTable is the expected content of corrections, from plans. Plans that are
// not yet to be applied do not count, nor do those that may have expired in part.
func correctionTable(b Boundaries) table {
	return table{
		name: "corrections", columns: correctionColumns, date: byHour, aside: true,
		// A correction takes and gives in the same hour, so a surplus is a second copy.
		guard: "",
		want: func(s *Shard, r Range) string {
			return "SELECT " + strings.Join(correctionColumns, ", ") + ", events, quantity FROM " + s.local("correction_plans") +
				" WHERE chunk > 0 AND " + r.where(byHour) + " AND " + b.plannedRows(s, "source_topic_id, source_partition, block, plan")
		},
	}
}

// plannedRows selects rows of corrections and, with the number of the plan among the
// columns, of plans. Plans that do not match their heads are left alone: what is
// missing there is unknown.
func (b Boundaries) plannedRows(s *Shard, columns string) string {
	w := "(" + columns + ") IN (SELECT " + columns + " FROM " + s.local("correction_plans") + " GROUP BY source_topic_id, source_partition, block, plan" + wholePlan + " AND min(corrected_at) > now() - INTERVAL 59 DAY)"
	for p, at := range b.At {
		w += fmt.Sprintf(" AND NOT (source_topic_id = '%s' AND source_partition = %d AND source_offset >= %d)", b.TopicID, p, at)
	}
	return w
}

// wholePlan selects plans, grouped, that hold what their heads say.
const wholePlan = ` HAVING countIf(chunk = 0 AND block_end > 0) = 1 AND countIf(chunk > 0) = sum(arraySum(chunk_rows)) AND uniqExactIf(row, chunk > 0) = countIf(chunk > 0)
	AND sumIf(events, chunk > 0 AND row % 2 = 0) = sum(arraySum(chunk_events)) AND sumIf(quantity, chunk > 0 AND row % 2 = 0) = sum(arraySum(chunk_quantity))`

// difference returns a row for every cell that differs: columns, and in de and dq what
// it lacks, negative for a surplus.
func (t table) difference(s *Shard, r Range, only string) string {
	columns := strings.Join(t.columns, ", ")
	return "SELECT " + columns + ", sum(e) AS de, sum(q) AS dq FROM (\n" +
		"SELECT " + columns + ", events AS e, quantity AS q FROM (" + t.want(s, r) + ")\n" +
		"UNION ALL\n" +
		"SELECT " + columns + ", -events AS e, -quantity AS q FROM " + s.local(t.name) + " WHERE " + r.where(t.date) + only + "\n" +
		") GROUP BY " + columns + " HAVING de != 0 OR dq != 0"
}

// only restricts the compared rows where not all have a counterpart.
func (t table) only(s *Shard, b Boundaries) string {
	if t.name != "corrections" {
		return ""
	}
	return " AND " + b.plannedRows(s, "source_topic_id, source_partition, block")
}

// look returns what a table lacks in a chunk, and which surplus must not be removed.
func (s *Shard) look(ctx context.Context, t table, r Range, b Boundaries) (c Change, shrinks uint64, err error) {
	guard, count := t.guard, "countIf(ne < 0 OR nq < 0)"
	if guard == "" {
		guard, count = t.date, "toUInt64(0)"
	}
	c = Change{Shard: s.Number, Table: t.name}
	query := "SELECT sum(n), sum(more), sum(less), " + count + " FROM (SELECT count() AS n, sum(greatest(de, 0)) AS more, sum(greatest(-de, 0)) AS less, sum(de) AS ne, sum(dq) AS nq FROM (" +
		t.difference(s, r, t.only(s, b)) + ") GROUP BY " + guard + ")"
	if err := s.conn.QueryRow(with(ctx), query).Scan(&c.Cells, &c.Added, &c.Removed, &shrinks); err != nil {
		return c, 0, fmt.Errorf("compare %s: %w", t.name, err)
	}
	return c, shrinks, nil
}

// add adds a chunk's differences to a table.
func (s *Shard) add(ctx context.Context, t table, r Range, b Boundaries) error {
	columns := strings.Join(t.columns, ", ")
	into := s.local(t.name)
	if t.aside {
		into = s.aside(t.name)
	}
	return s.exec(ctx, "repair "+t.name, "INSERT INTO "+into+" (app_id, "+columns+", events, quantity)\nSELECT "+clickhouse.Quote(r.App)+", "+columns+", de, dq FROM ("+
		t.difference(s, r, t.only(s, b))+")")
}

// chunks divides a range into runs of days that hold rows.
func (s *Shard) chunks(ctx context.Context, r Range) ([]Range, error) {
	var from []string
	for _, t := range tables.Select(func(t *tables.Table) bool { return t.Day != "" && !t.Plain }) {
		from = append(from, "SELECT "+t.Day+" AS date, count() AS n FROM "+s.local(t.Name)+" WHERE "+r.where(t.Day)+" GROUP BY date")
	}
	type days struct {
		on time.Time
		n  uint64
	}
	var list []Range
	var held uint64
	err := tables.Each(with(ctx), s.conn, func(d *days) []any { return []any{&d.on, &d.n} }, func(d *days) {
		if held += d.n; len(list) == 0 || held > uint64(s.cfg.ChunkRows) {
			list = append(list, Range{App: r.App, First: day(d.on)})
			held = d.n
		}
		list[len(list)-1].End = day(d.on).AddDate(0, 0, 1)
	}, "SELECT date, sum(n) FROM ("+strings.Join(from, " UNION ALL ")+") GROUP BY date ORDER BY date")
	if err != nil {
		return nil, fmt.Errorf("list days: %w", err)
	}
	return list, nil
}

// Look reports what a rebuild would change, besides what the log holds, and changes
// nothing. With ErrShrink in the chain of the error the changes are complete.
func (s *Shard) Look(ctx context.Context, r Range, b Boundaries) ([]Change, error) {
	list := []table{correctionTable(b), baseTable}
	for _, t := range rollups {
		list = append(list, t.planned())
	}
	chunks, err := s.chunks(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []Change
	var shrunk error
	for _, t := range list {
		sum, shrinks, err := s.lookAt(ctx, t, chunks, b)
		if err != nil {
			return nil, err
		}
		if shrinks > 0 && shrunk == nil {
			shrunk = t.shrink(sum, shrinks)
		}
		// What corrections lacks of its plans would be restored before that.
		if shrunk == nil && t.name == baseTable.name && all[0].Cells == 0 {
			if shrunk = s.correctionsLost(ctx, t, sum, chunks, b); shrunk != nil && !errors.Is(shrunk, ErrShrink) {
				return nil, shrunk
			}
		}
		all = append(all, sum)
	}
	if s.cfg.Shrink {
		shrunk = nil
	}
	return all, shrunk
}

func (s *Shard) lookAt(ctx context.Context, t table, chunks []Range, b Boundaries) (sum Change, shrinks uint64, err error) {
	sum = Change{Shard: s.Number, Table: t.name}
	for _, c := range chunks {
		one, n, err := s.look(ctx, t, c, b)
		if err != nil {
			return sum, 0, err
		}
		sum.Cells, sum.Added, sum.Removed = sum.Cells+one.Cells, sum.Added+one.Added, sum.Removed+one.Removed
		shrinks += n
	}
	return sum, shrinks, nil
}

func (t table) shrink(sum Change, groups uint64) error {
	return fmt.Errorf("%w: %s would lose %d events (and gain %d), and in %d groups of %s it would lose more than it gains: "+
		"if events has lost them and the log still holds them, use -from-log; if they were counted twice, or shall not count any more, use -shrink",
		ErrShrink, t.name, sum.Removed, sum.Added, groups, t.guard)
}

// correctionsLost fails where usage_hourly has moved what corrections does not say,
// and every rollup agrees with it: then corrections and their plans were lost, and to
// make usage_hourly what is left of them would take right corrections out.
func (s *Shard) correctionsLost(ctx context.Context, t table, sum Change, chunks []Range, b Boundaries) error {
	if t.name != baseTable.name || sum.Removed == 0 || s.cfg.Shrink || s.cfg.FromLog {
		return nil
	}
	for _, r := range rollups {
		is, _, err := s.lookAt(ctx, r, chunks, b)
		if err != nil {
			return err
		}
		if is.Cells > 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: %s has moved %d events as no row of corrections says, and the rollups agree with it: corrections and their plans were lost: use -from-log, which makes them again from the control records; "+
		"if %s is wrong in the same way as the rollups, use -shrink", ErrShrink, t.name, sum.Removed, t.name)
}

// Repair repairs the tables, and returns what it added and removed. It may be run again
// after an interruption.
func (s *Shard) Repair(ctx context.Context, r Range, b Boundaries) ([]Change, error) {
	chunks, err := s.chunks(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []Change
	for _, t := range append([]table{correctionTable(b), baseTable}, rollups...) {
		sum, shrinks, err := s.lookAt(ctx, t, chunks, b)
		if err != nil {
			return all, err
		}
		all = append(all, sum)
		if shrinks > 0 && !s.cfg.Shrink {
			return all, t.shrink(sum, shrinks)
		}
		if sum.Cells == 0 {
			continue
		}
		if err := s.correctionsLost(ctx, t, sum, chunks, b); err != nil {
			return all, err
		}
		if t.aside {
			if err := s.startAside(ctx, t.name); err != nil {
				return all, err
			}
		}
		for _, c := range chunks {
			one, _, err := s.look(ctx, t, c, b)
			if err != nil {
				return all, err
			}
			if one.Cells == 0 {
				continue
			}
			if err := s.add(ctx, t, c, b); err != nil {
				return all, err
			}
		}
		if t.aside {
			if err := s.attachAside(ctx, t.name); err != nil {
				return all, err
			}
		}
		left, _, err := s.lookAt(ctx, t, chunks, b)
		if err != nil {
			return all, err
		}
		if left.Cells > 0 {
			return all, fmt.Errorf("%s still differs in %d cells after it was repaired: is anything else writing into it?", t.name, left.Cells)
		}
	}
	return all, nil
}
