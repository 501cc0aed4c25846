package rollup

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// A correction is carried out in two steps, each of blocks with tokens of their
// own.
//
// First it is planned: the rows that it will insert are found by reading this
// partition's rows of the base rollup, and written into correction_plans, chunk
// after chunk; last comes the row with chunk 0, which says how many chunks there
// are. Until that row is there nothing was corrected, so that whoever plans it
// again reads the same base rows and writes the same chunks.
//
// Then it is applied: the chunks are read back from the plan, and each is
// inserted into corrections as one block. From here on the base rollup is
// different, and nobody reads it for this record any more: a crash, a zombie or
// a repeat applies the plan that is there. What a zombie planned meanwhile from
// a base that had changed has the same tokens and is not taken; it reads the
// plan back as well, and applies that.
//
// Everything of the partition before the control record is in the tables when
// this begins, since a partition's items are carried out one by one.

// chunkRows bounds a chunk: it is what is in memory, and a block.
const chunkRows = 100_000

// correct carries out a control record.
func (p *partition) correct(it item) error {
	moves, err := event.ParseMoves(it.control.Payload)
	if err != nil {
		return fmt.Errorf("offset %d: %w: use a release of rollup-writer that reads it", it.block.Start, err)
	}
	reason, err := reasonText(moves.Reason)
	if err != nil {
		return fmt.Errorf("offset %d: %w", it.block.Start, err)
	}
	c := &correction{
		p: p, moves: moves,
		token: it.block.Token(p.s.cfg.Shape(), p.src.TopicID, p.number, p.generation),
		control: columns.Control{
			Source: p.src, AppID: it.control.AppID, Offset: it.block.Start, ID: it.control.ControlID, Kind: it.control.Kind, CorrectedAt: it.millis, Reason: reason,
		},
	}
	what := "correction " + c.token
	chunks := uint32(0)
	err = p.persist(what, func(ctx context.Context) error {
		if err := p.window.refresh(ctx, p.conn, markAge); err != nil {
			return err
		}
		p.window.begin(p, p.sent, p.before)
		if err := p.window.admit(p.gone, p); err != nil {
			return err
		}
		if err := p.readable(ctx, "correction_plans", "usage_hourly"); err != nil {
			return err
		}
		var planned bool
		if chunks, planned, err = c.planned(ctx); err != nil || planned {
			return err
		}
		if err := c.plan(ctx); err != nil {
			return err
		}
		// Another writer may have planned it at the same time. Its plan is the
		// one that was taken, or ours.
		if err := p.readable(ctx, "correction_plans"); err != nil {
			return err
		}
		if chunks, planned, err = c.planned(ctx); err == nil && !planned {
			err = fmt.Errorf("the plan of %s cannot be read back", c.token)
		}
		return err
	})
	if err != nil {
		return err
	}
	_ = failpoint.Hit("writer.correction-planned") // an error has no meaning here
	for n := uint32(1); n <= chunks; n++ {
		var b *columns.Corrections
		err := p.persist(what, func(ctx context.Context) (err error) {
			if err = p.readable(ctx, "correction_plans"); err == nil {
				b, err = c.chunk(ctx, n)
			}
			return err
		})
		if err != nil {
			return err
		}
		if err := p.insert(p.table("corrections"), b, c.token+"|"+strconv.Itoa(int(n))); err != nil {
			return err
		}
		p.s.metrics.correctedRows.Add(float64(b.Rows()))
	}
	_ = failpoint.Hit("writer.correction-applied") // an error has no meaning here
	p.s.metrics.corrections.Inc()
	p.s.stopped.corrections.Add(1)
	return nil
}

// readable fails while what is read of tables could be wrong: until the replica
// that p is connected to has what was written through any other, and while it has
// rows of this partition that an insert left behind which was repeated.
func (p *partition) readable(ctx context.Context, names ...string) error {
	if p.s.form.Cluster == "" {
		return nil
	}
	for _, n := range names {
		if err := p.conn.Exec(ctx, "SYSTEM SYNC REPLICA "+p.table(n)+" LIGHTWEIGHT"); err != nil {
			return fmt.Errorf("sync replica of %s: %w", n, err)
		}
		if err := p.conn.AllKnown(ctx, p.table(n), "source_partition = "+strconv.Itoa(int(p.number))); err != nil {
			return err
		}
	}
	return nil
}

// reasonText is what the plan tells people.
func reasonText(r *event.Reason) (string, error) {
	if r == nil {
		return "", nil
	}
	b, err := json.Marshal(r)
	return string(b), err
}

// correction is one control record's.
type correction struct {
	p       *partition
	moves   event.Moves
	token   string
	control columns.Control
}

// where selects the control record's rows.
func (c *correction) where() string {
	return fmt.Sprintf("source_topic_id = %s AND source_partition = %d AND source_offset = %d",
		clickhouse.Quote(c.control.TopicID), c.control.Partition, c.control.Offset)
}

// planned reads how many chunks the plan has, if there is a plan.
func (c *correction) planned(ctx context.Context) (chunks uint32, ok bool, err error) {
	var last proto.ColUInt32
	query := "SELECT row FROM " + c.p.table("correction_plans") + " WHERE " + c.where() + " AND chunk = 0 LIMIT 1"
	err = c.p.conn.Select(ctx, query, proto.Results{{Name: "row", Data: &last}}, func() error {
		chunks, ok = last.Row(0), true
		return nil
	})
	if err != nil {
		return 0, false, fmt.Errorf("look for the plan of %s: %w", c.token, err)
	}
	return chunks, ok, nil
}

// attributionColumns are the columns of usage_hourly that a move may match and
// set, as SQL lists them.
var attributionColumns = strings.Join(tables.Attribution, ", ")

const microsPerSecond = 1_000_000

// matches reports whether a row is m's.
func matches(m *event.Move, s *columns.Signed) bool {
	at := int64(s.Hour) * microsPerSecond
	if (m.From != 0 && at < m.From) || (m.To != 0 && at >= m.To) {
		return false
	}
	for _, c := range columns.AttributionColumns {
		if want := c.Named(&m.Match); want != nil && *want != *c.Of(&s.Attribution) {
			return false
		}
	}
	return true
}

// moved returns the row's attribution after the first move that matches it, and
// whether that differs.
func moved(moves event.Moves, s *columns.Signed) (columns.Attribution, bool) {
	for i := range moves.Moves {
		m := &moves.Moves[i]
		if !matches(m, s) {
			continue
		}
		a := s.Attribution
		for _, c := range columns.AttributionColumns {
			if set := c.Named(&m.Set); set != nil {
				*c.Of(&a) = *set
			}
		}
		return a, a != s.Attribution
	}
	return columns.Attribution{}, false
}

// condition is what a row must be for any move to match it, in SQL.
func condition(moves event.Moves) string {
	var any []string
	for i := range moves.Moves {
		m := &moves.Moves[i]
		var all []string
		for _, c := range columns.AttributionColumns {
			if v := c.Named(&m.Match); v != nil {
				all = append(all, c.Name+" = "+clickhouse.Quote(*v))
			}
		}
		// In whole seconds, which is what hours are in.
		if m.From != 0 {
			all = append(all, fmt.Sprintf("toInt64(toUnixTimestamp(hour)) >= %d", ceilDiv(m.From, microsPerSecond)))
		}
		if m.To != 0 {
			all = append(all, fmt.Sprintf("toInt64(toUnixTimestamp(hour)) < %d", ceilDiv(m.To, microsPerSecond)))
		}
		any = append(any, "("+strings.Join(all, " AND ")+")")
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b > 0 {
		q++
	}
	return q
}

// plan writes the plan.
func (c *correction) plan(ctx context.Context) error {
	writer, err := clickhouse.NewConn(&c.p.s.cfg.ClickHouse, c.p.s.shard(c.p))
	if err != nil {
		return err
	}
	writer.Follow(c.p.conn) // one is reading while the other writes
	defer writer.Close()
	table := c.p.table("correction_plans")
	b := columns.NewPlan()
	chunks, row := uint32(0), uint32(0)
	flush := func() error {
		if b.Rows() == 0 {
			return nil
		}
		chunks++
		err := writer.Insert(ctx, table, b, c.token+"|plan|"+strconv.Itoa(int(chunks)))
		b.Reset()
		row = 0
		return err
	}
	add := func(s *columns.Signed) {
		row++
		b.Append(&c.control, s, chunks+1, row)
	}
	err = c.readBase(ctx, func(s *columns.Signed) error {
		to, ok := moved(c.moves, s)
		if !ok {
			return nil
		}
		minus, plus := *s, *s
		minus.Events, minus.Quantity = -s.Events, -s.Quantity
		plus.Attribution = to
		add(&minus)
		add(&plus)
		if b.Rows() >= chunkRows {
			return flush()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("plan %s: %w", c.token, err)
	}
	if err := flush(); err != nil {
		return fmt.Errorf("plan %s: %w", c.token, err)
	}
	if err := failpoint.Hit("writer.correction-read"); err != nil {
		return err
	}
	b.Append(&c.control, &columns.Signed{}, 0, chunks)
	if err := writer.Insert(ctx, table, b, c.token+"|plan"); err != nil {
		return fmt.Errorf("plan %s: %w", c.token, err)
	}
	return nil
}

// readBase calls each for every row of this partition's part of the base rollup
// that a move matches, summed, in a fixed order.
func (c *correction) readBase(ctx context.Context, each func(*columns.Signed) error) error {
	var r signedRows
	query := baseQuery(c.p.table("usage_hourly"), c.control.AppID, c.p.number, c.moves)
	return c.p.conn.Select(ctx, query, r.results("events_sum", "quantity_sum"), func() error {
		for i := range r.hour.Rows() {
			if err := each(r.row(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// baseQuery reads by the actors that the moves name, with which usage_hourly is
// sorted: what it costs does not grow with what others did.
func baseQuery(table, app string, partition int32, moves event.Moves) string {
	keys := "hour, " + attributionColumns
	return "SELECT " + keys + ", sum(events) AS events_sum, sum(quantity) AS quantity_sum FROM " + table +
		" WHERE app_id = " + clickhouse.Quote(app) + " AND source_partition = " + strconv.Itoa(int(partition)) + " AND " + condition(moves) +
		" GROUP BY " + keys + " HAVING events_sum != 0 OR quantity_sum != 0 ORDER BY " + keys
}

// chunk reads a chunk of the plan as the block that it is.
func (c *correction) chunk(ctx context.Context, n uint32) (*columns.Corrections, error) {
	b := columns.NewCorrections()
	var r signedRows
	query := "SELECT hour, " + attributionColumns + ", events, quantity FROM " + c.p.table("correction_plans") +
		" WHERE " + c.where() + " AND chunk = " + strconv.Itoa(int(n)) + " ORDER BY row"
	err := c.p.conn.Select(ctx, query, r.results("events", "quantity"), func() error {
		for i := range r.hour.Rows() {
			b.Append(&c.control, r.row(i), 0, 0)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read chunk %d of the plan of %s: %w", n, c.token, err)
	}
	return b, nil
}

// signedRows receives rows of usage_hourly or of a plan.
type signedRows struct {
	hour             proto.ColDateTime
	attribution      [11]proto.ColumnOf[string]
	events, quantity proto.ColInt64
	signed           columns.Signed
}

func (r *signedRows) results(events, quantity string) proto.Results {
	results := proto.Results{{Name: "hour", Data: &r.hour}}
	for i, c := range columns.AttributionColumns {
		r.attribution[i] = new(proto.ColStr)
		if c.LowCardinality {
			r.attribution[i] = new(proto.ColStr).LowCardinality()
		}
		results = append(results, proto.ResultColumn{Name: c.Name, Data: r.attribution[i]})
	}
	return append(results, proto.ResultColumn{Name: events, Data: &r.events}, proto.ResultColumn{Name: quantity, Data: &r.quantity})
}

// row returns a row of the received block. It is valid until the next call.
func (r *signedRows) row(i int) *columns.Signed {
	r.signed = columns.Signed{Hour: uint32(r.hour.Data[i]), Events: r.events.Row(i), Quantity: r.quantity.Row(i)}
	for k, c := range columns.AttributionColumns {
		*c.Of(&r.signed.Attribution) = r.attribution[k].Row(i)
	}
	return &r.signed
}
