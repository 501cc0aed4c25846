package rebuild

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
)

// aside is the table into which rows of another table are written before they are
// attached to it. It has no views.
func (s *Shard) aside(table string) string { return s.local(table + "_rebuild") }

// startAside creates it, empty.
func (s *Shard) startAside(ctx context.Context, table string) error {
	if err := s.dropAside(ctx, table); err != nil {
		return err
	}
	return s.exec(ctx, "create "+s.aside(table), "CREATE TABLE "+s.aside(table)+" AS "+s.local(table))
}

func (s *Shard) dropAside(ctx context.Context, table string) error {
	return s.exec(ctx, "drop "+s.aside(table), "DROP TABLE IF EXISTS "+s.aside(table)+" SYNC")
}

// attachAside attaches the rows to the table and drops the empty table. Parts are
// attached month by month; after a crash some of them are attached.
func (s *Shard) attachAside(ctx context.Context, table string) error {
	months, err := s.texts(ctx, "SELECT DISTINCT partition_id FROM system.parts WHERE "+s.schema.Where("database", "table", table+"_rebuild")+" AND active ORDER BY partition_id")
	if err != nil {
		return fmt.Errorf("list parts of %s: %w", s.aside(table), err)
	}
	for _, m := range months {
		err := s.exec(ctx, "attach rows to "+table, "ALTER TABLE "+s.local(table)+" ATTACH PARTITION ID '"+m+"' FROM "+s.aside(table))
		if err != nil {
			return err
		}
	}
	return s.dropAside(ctx, table)
}

// texts runs a query of one column of strings.
func (s *Shard) texts(ctx context.Context, query string) ([]string, error) {
	return tables.CollectColumn[string](with(ctx), s.conn, query)
}

// Offsets is a set of offsets of a partition.
type Offsets struct {
	first int64
	bits  []uint64
}

// Has tells whether offset is in the set.
func (o *Offsets) Has(offset int64) bool {
	i := offset - o.first
	return i >= 0 && i/64 < int64(len(o.bits)) && o.bits[i/64]&(1<<(i%64)) != 0
}

// Present reads which offsets from first on, before end, events has of the app.
func (s *Shard) Present(ctx context.Context, app, topicID string, partition int32, first, end int64) (*Offsets, error) {
	o := &Offsets{first: first, bits: make([]uint64, (max(end-first, 0)+63)/64)}
	err := tables.Each(with(ctx), s.conn, func(at *int64) []any { return []any{at} }, func(at *int64) { o.bits[(*at-first)/64] |= 1 << ((*at - first) % 64) },
		"SELECT source_offset FROM "+s.local("events")+fmt.Sprintf(
			" WHERE app_id = %s AND source_topic_id = '%s' AND source_partition = %d AND source_offset >= %d AND source_offset < %d", clickhouse.Quote(app), topicID, partition, first, end))
	if err != nil {
		return nil, fmt.Errorf("read offsets in events: %w", err)
	}
	return o, nil
}

// Bounds of one insert.
const (
	missingRows  = 50_000
	missingBytes = 32 << 20
)

// Missing inserts rows that events lacks.
type Missing struct {
	s     *Shard
	conn  *clickhouse.Conn
	rows  *columns.Events
	bytes int
	added int64
}

// StartMissing prepares the insertion of rows that events lacks. Close it.
func (s *Shard) StartMissing(ctx context.Context) (*Missing, error) {
	if err := s.startAside(ctx, "events"); err != nil {
		return nil, err
	}
	conn, err := clickhouse.NewConn(&s.ch, 0)
	if err != nil {
		return nil, err
	}
	return &Missing{s: s, conn: conn, rows: columns.NewEvents()}, nil
}

// Close closes its connection.
func (m *Missing) Close() { m.conn.Close() }

// Add takes a row. It keeps nothing of e.
func (m *Missing) Add(ctx context.Context, src columns.Source, offset int64, e *event.EnrichedEvent, size int) error {
	m.rows.Append(src, offset, e)
	if m.bytes += size; m.rows.Rows() >= missingRows || m.bytes >= missingBytes {
		return m.flush(ctx)
	}
	return nil
}

func (m *Missing) flush(ctx context.Context) error {
	n := m.rows.Rows()
	if n == 0 {
		return nil
	}
	if m.s.cfg.Step != nil {
		if err := m.s.cfg.Step("write missing events"); err != nil {
			return err
		}
	}
	// Like the writer: texts that ClickHouse cannot parse are stored as strings.
	for attempt := 1; ; attempt++ {
		err := m.conn.Insert(ctx, m.s.aside("events"), m.rows, "rebuild|"+uuid.NewString())
		if err == nil {
			break
		}
		if attempt > 2 || clickhouse.Classify(err) != clickhouse.Data {
			return fmt.Errorf("write missing events: %w", err)
		}
		m.rows.Repair(attempt == 2)
	}
	m.added += int64(n)
	m.bytes = 0
	m.rows.Reset()
	return nil
}

// Attach adds the missing rows to events, and returns their number.
func (m *Missing) Attach(ctx context.Context) (Change, error) {
	if err := m.flush(ctx); err != nil {
		return Change{}, err
	}
	c := Change{Shard: m.s.Number, Table: "events", Cells: uint64(m.added), Added: m.added}
	return c, m.s.attachAside(ctx, "events")
}

const record = "(source_topic_id, source_partition, source_offset)"

// Doubles returns how many records events has more than once.
func (s *Shard) Doubles(ctx context.Context, r Range) (Change, error) {
	c := Change{Shard: s.Number, Table: "events"}
	err := s.conn.QueryRow(with(ctx), "SELECT count(), sum(toInt64(n) - 1) FROM (SELECT count() AS n FROM "+s.local("events")+
		" WHERE "+r.where("toDate(event_time)")+" GROUP BY "+record+" HAVING n > 1)").Scan(&c.Cells, &c.Removed)
	if err != nil {
		return c, fmt.Errorf("look for records that events holds twice: %w", err)
	}
	return c, nil
}

// RepairDoubles removes second copies from events, and returns how many rows it
// removed. The month of each is written again and replaced in one step.
func (s *Shard) RepairDoubles(ctx context.Context, r Range) (Change, error) {
	c, err := s.Doubles(ctx, r)
	if err != nil || c.Cells == 0 {
		return c, err
	}
	events, aside := s.local("events"), s.aside("events")
	twice := func(month string) string {
		return record + " IN (SELECT " + record + " FROM " + events + " WHERE " + month + r.where("toDate(event_time)") + " GROUP BY " + record + " HAVING count() > 1)"
	}
	months, err := s.texts(ctx, "SELECT DISTINCT _partition_id FROM "+events+" WHERE "+r.where("toDate(event_time)")+" AND "+twice(""))
	if err != nil {
		return c, fmt.Errorf("list months of events: %w", err)
	}
	for _, m := range months {
		if err := s.startAside(ctx, "events"); err != nil {
			return c, err
		}
		where := "_partition_id = '" + m + "' AND "
		for _, rows := range []string{"NOT " + twice(where), twice(where) + " LIMIT 1 BY source_topic_id, source_partition, source_offset"} {
			if err := s.exec(ctx, "copy a month of events", "INSERT INTO "+aside+" SELECT * FROM "+events+" WHERE "+where+rows); err != nil {
				return c, err
			}
		}
		var have, want int64
		err := s.conn.QueryRow(with(ctx), "SELECT toInt64((SELECT count() FROM "+aside+")), toInt64((SELECT count() FROM "+events+" WHERE _partition_id = '"+m+"') - "+
			"(SELECT sum(toInt64(n) - 1) FROM (SELECT count() AS n FROM "+events+" WHERE "+where+r.where("toDate(event_time)")+" GROUP BY "+record+")))").Scan(&have, &want)
		if err != nil {
			return c, fmt.Errorf("count the copy of a month of events: %w", err)
		}
		if have != want {
			return c, fmt.Errorf("the copy of month %s of events has %d rows and should have %d: is anything else writing into it?", m, have, want)
		}
		if err := s.exec(ctx, "replace a month of events", "ALTER TABLE "+events+" REPLACE PARTITION ID '"+m+"' FROM "+aside); err != nil {
			return c, err
		}
	}
	return c, s.dropAside(ctx, "events")
}
