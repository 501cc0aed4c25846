package rebuild

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Corrected is a row of corrections.
type Corrected struct {
	columns.Signed
	columns.Control
	Row uint32
}

// Spans are runs of offsets, ends excluded.
type Spans [][2]int64

// Has tells whether an offset lies in one of them.
func (s Spans) Has(offset int64) bool {
	for _, x := range s {
		if offset >= x[0] && offset < x[1] {
			return true
		}
	}
	return false
}

// Planned are the blocks of a partition that have a plan which is whole.
func (s *Shard) Planned(ctx context.Context, topicID string, partition int32) (Spans, error) {
	rows, err := s.conn.Query(with(ctx), "SELECT block, max(block_end) FROM "+s.local("correction_plans")+
		fmt.Sprintf(" WHERE source_topic_id = %s AND source_partition = %d", clickhouse.Quote(topicID), partition)+" GROUP BY block, plan"+wholePlan+" ORDER BY block")
	if err != nil {
		return nil, fmt.Errorf("read plans: %w", err)
	}
	defer rows.Close()
	var list Spans
	for rows.Next() {
		var x [2]int64
		if err := rows.Scan(&x[0], &x[1]); err != nil {
			return nil, fmt.Errorf("read plans: %w", err)
		}
		list = append(list, x)
	}
	return list, rows.Err()
}

// Base gives what a partition counted before an offset of a topic, by what events
// and corrections hold. The row is valid until fn returns.
func (s *Shard) Base(ctx context.Context, app, topicID string, partition int32, before int64, fn func(*columns.Signed)) error {
	attributes := strings.Join(tables.Attribution, ", ")
	where := fmt.Sprintf("source_partition = %d AND NOT (source_topic_id = %s AND source_offset >= %d)", partition, clickhouse.Quote(topicID), before)
	rows, err := s.conn.Query(with(ctx), "SELECT "+attributes+", toUInt32(hour), sum(events), sum(quantity) FROM ("+baseTable.want(s, Range{App: app}.among(where))+
		") GROUP BY "+attributes+", hour HAVING sum(events) != 0 OR sum(quantity) != 0")
	if err != nil {
		return fmt.Errorf("read what was counted before the log: %w", err)
	}
	defer rows.Close()
	var row columns.Signed
	var into []any
	for i := range columns.AttributionColumns {
		into = append(into, columns.AttributionColumns[i].Of(&row.Attribution))
	}
	into = append(into, &row.Hour, &row.Events, &row.Quantity)
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("read what was counted before the log: %w", err)
		}
		fn(&row)
	}
	return rows.Err()
}

// CorrectedOrders are the offsets of control records of which corrections holds
// anything in the range.
func (s *Shard) CorrectedOrders(ctx context.Context, r Range, topicID string, partition int32, first, end int64) (map[int64]bool, error) {
	rows, err := s.conn.Query(with(ctx), "SELECT DISTINCT source_offset FROM "+s.local("corrections")+" WHERE "+r.where(byHour)+
		fmt.Sprintf(" AND source_topic_id = %s AND source_partition = %d AND source_offset >= %d AND source_offset < %d", clickhouse.Quote(topicID), partition, first, end))
	if err != nil {
		return nil, fmt.Errorf("read corrections: %w", err)
	}
	defer rows.Close()
	held := map[int64]bool{}
	for rows.Next() {
		var at int64
		if err := rows.Scan(&at); err != nil {
			return nil, fmt.Errorf("read corrections: %w", err)
		}
		held[at] = true
	}
	return held, rows.Err()
}

// AddCorrections gives corrections the rows, past its views.
func (s *Shard) AddCorrections(ctx context.Context, app string, rows []Corrected) error {
	if err := s.startAside(ctx, "corrections"); err != nil {
		return err
	}
	conn, err := clickhouse.NewConn(&s.ch, 0)
	if err != nil {
		return err
	}
	defer conn.Close()
	b := columns.NewCorrections()
	for i := range rows {
		b.Append(&rows[i].Control, &rows[i].Signed, rows[i].Row)
		if b.Rows() < missingRows && i+1 < len(rows) {
			continue
		}
		if s.cfg.Step != nil {
			if err := s.cfg.Step("write missing corrections"); err != nil {
				return err
			}
		}
		if err := conn.Insert(ctx, s.aside("corrections"), b, "rebuild|"+uuid.NewString()); err != nil {
			return fmt.Errorf("write missing corrections of %s: %w", app, err)
		}
		b.Reset()
	}
	return s.attachAside(ctx, "corrections")
}

// among is r with a further condition.
func (r Range) among(condition string) Range {
	r.First, r.End, r.condition = time.Time{}, time.Time{}, condition
	return r
}
