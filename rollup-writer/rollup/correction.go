package rollup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// The moves of a block's control records are applied in two steps, one before the
// block's rows are inserted and one after.
//
// First they are planned. The rows of the base rollup that the moves name are read in
// one statement for the whole block, and the events of hours that a move cuts (parts.go).
// They and the block's own rows are followed through
// the block (package plan), and the result is written to correction_plans: pairs of
// rows, negative under the old attribution and positive under the new one, in chunks.
// The last chunk holds the head of the plan, which lists the chunks and what each
// contains. A plan that moves nothing has a head too. Then the head is read back.
//
// No row of the block is inserted before that. So while a block has no head, the base
// holds nothing of the block, whoever reads it and however often; and once it has one,
// nobody reads the base for this block again. Two writers may plan at the same time,
// one of them from a base that the other has already changed. All heads of a block have
// the same token, so ClickHouse keeps one of them, and the chunks of a plan carry the
// number of the attempt that made them, so that the head identifies its own chunks.
// Both writers then apply the plan of the head that was kept.
//
// Then the block's rows are inserted, and after them the plan's chunks into
// corrections, each as one block whose token is that of the plan with the chunk's
// number.

// chunkRows bounds a chunk, which is held in memory and inserted as one block.
const chunkRows = 100_000

// maxConditions bounds the conditions that select the rows of moves that name no actor;
// if there are more, all rows of the app are read.
const maxConditions = 200

// errPlan is in the chain of the error about a plan whose rows do not match its head.
var errPlan = errors.New("rows of the plan were lost or doubled in correction_plans, and the base can no longer tell what it would move: " +
	"see `rollup-writer audit`; if its rows cannot be brought back, stop the writers, run `rollup-writer init -reset`, then `rollup-writer rebuild -from-log` of every app")

// correction applies the moves of one block's control records.
type correction struct {
	p       *partition
	orders  *plan.Orders
	rows    *columns.Events
	end     int64 // of the block
	token   string
	control columns.Control // the fields that all rows have in common

	head  columns.Plan
	own   *columns.Corrections // chunk 1 of head, if this writer has made it
	again int                  // heads that ClickHouse took and does not have
}

// kindMove is the control kind of all corrections.
const kindMove = event.ControlMove

// plan makes sure that the block has a complete plan, and returns the correction that
// applies it; nil if the block has no moves.
func (p *partition) plan(it item, token string) (*correction, error) {
	orders, counted := it.rows.ordered()
	if orders == nil || orders.Len() == 0 {
		return nil, nil
	}
	c := &correction{
		p: p, orders: orders, rows: counted, end: it.block.End, token: token,
		control: columns.Control{Source: p.src, Block: it.block.Start, CorrectedAt: it.millis},
	}
	attempts := 0
	err := p.persist("plan "+token, func(ctx context.Context) error {
		attempts++
		if err := p.window.refresh(ctx, p.conn, markAge); err != nil {
			return err
		}
		p.window.begin(p, p.sent, p.before)
		if err := p.window.admit(p.revoked, p); err != nil {
			return err
		}
		if err := p.readable(ctx, "correction_plans", "usage_hourly"); err != nil {
			return err
		}
		// A block that cannot have been sent before has no plan. Reading the head would
		// find that too; this saves the query.
		if p.before || attempts > 1 {
			if has, err := c.readHead(ctx); err != nil || has {
				return err
			}
		}
		m, err := c.gather(ctx)
		if err != nil {
			return err
		}
		if err := failpoint.Hit("writer.correction-read"); err != nil {
			return err
		}
		if err := m.finish(ctx); err != nil {
			return err
		}
		if err := p.readable(ctx, "correction_plans"); err != nil {
			return err
		}
		has, err := c.readHead(ctx)
		if err == nil && !has {
			err = c.headLost(ctx)
		}
		if err == nil && c.head.ID == m.head.ID {
			c.own = m.only
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	failpoint.Reach("writer.correction-planned")
	return c, nil
}

// headLost is called when ClickHouse took a head and does not have it. A server
// without replication that dies between the record of the token and the rename of
// the part leaves that behind: the head is written under the next token then,
// which whoever plans this block comes to in the same way. Nothing of the block
// was inserted, so the base may be read again.
func (c *correction) headLost(ctx context.Context) error {
	if !c.p.s.single() {
		return fmt.Errorf("the plan of %s cannot be read back", c.token)
	}
	return c.p.whileQuiet(ctx, c.token, func(ctx context.Context) error {
		if has, err := c.readHead(ctx); err != nil || has {
			return err
		}
		c.again++
		return fmt.Errorf("the plan of %s is not in correction_plans although ClickHouse took it; it is planned again", c.token)
	})
}

// apply inserts the plan's chunks into corrections.
func (c *correction) apply() error {
	p := c.p
	table := p.table("corrections")
	for n := range c.head.Chunks {
		b := c.own
		if n > 0 || b == nil {
			err := p.persist("read the plan of "+c.token, func(ctx context.Context) (err error) {
				if err = p.readable(ctx, "correction_plans"); err == nil {
					b, err = c.chunk(ctx, n)
				}
				return err
			})
			if err != nil {
				return err
			}
		}
		if err := p.insert(table, b, c.token+"|plan|"+strconv.Itoa(n+1)); err != nil {
			return err
		}
		p.s.metrics.correctedRows.Add(float64(b.Rows()))
	}
	failpoint.Reach("writer.correction-applied")
	p.s.metrics.corrections.Add(float64(c.orders.Len()))
	p.s.stopped.corrections.Add(int64(c.orders.Len()))
	return nil
}

// readable returns an error while the tables could give wrong results: until the
// replica that p is connected to has everything written through other replicas, and
// while it has parts with rows of this partition that an insert left behind and that
// were inserted again.
func (p *partition) readable(ctx context.Context, names ...string) error {
	if p.s.single() {
		return nil
	}
	for _, n := range names {
		if err := p.conn.Exec(ctx, "SYSTEM SYNC REPLICA "+p.table(n)+" LIGHTWEIGHT"); err != nil {
			return fmt.Errorf("sync replica of %s: %w", n, err)
		}
		if err := p.conn.AllKnown(ctx, n, "source_partition = "+strconv.Itoa(int(p.number))); err != nil {
			return err
		}
	}
	return nil
}

// reasonText is the reason of a plan as people read it.
func reasonText(r *event.Reason) (string, error) {
	if r == nil {
		return "", nil
	}
	b, err := json.Marshal(r)
	return string(b), err
}

// where selects the rows of the block's plans: each row has the offset of its control
// record, the head that of the block.
func (c *correction) where() string {
	return fmt.Sprintf("source_topic_id = %s AND source_partition = %d AND source_offset >= %d AND source_offset < %d AND block = %[3]d",
		clickhouse.Quote(c.control.TopicID), c.control.Partition, c.control.Block, c.end)
}

// readHead reads the head of the block's plan, if there is one.
func (c *correction) readHead(ctx context.Context) (has bool, err error) {
	var id proto.ColUInt64
	rows, events, quantity := proto.NewArrUInt32(), proto.NewArrInt64(), proto.NewArrInt64()
	query := "SELECT plan, chunk_rows, chunk_events, chunk_quantity FROM " + c.p.table("correction_plans") + " WHERE " + c.where() + " AND chunk = 0 AND block_end > 0"
	result := proto.Results{{Name: "plan", Data: &id}, {Name: "chunk_rows", Data: rows}, {Name: "chunk_events", Data: events}, {Name: "chunk_quantity", Data: quantity}}
	heads := 0
	err = c.p.conn.Select(ctx, query, result, func() error {
		heads += id.Rows()
		c.head = columns.Plan{ID: id.Row(0), End: c.end}
		n, e, q := rows.Row(0), events.Row(0), quantity.Row(0)
		for i := range n {
			c.head.Chunks = append(c.head.Chunks, columns.Chunk{Rows: n[i], Events: e[i], Quantity: q[i]})
		}
		return nil
	})
	if err == nil && heads > 1 {
		err = fmt.Errorf("%d heads: %w", heads, errPlan)
	}
	if err != nil {
		return false, fmt.Errorf("look for the plan of %s: %w", c.token, err)
	}
	return heads == 1, nil
}

// gather reads what the block moves and writes all chunks of the plan except the last.
func (c *correction) gather(ctx context.Context) (m *planMaker, err error) {
	m = &planMaker{correction: c, head: columns.Plan{ID: rand.Uint64(), End: c.end}, planned: columns.NewPlan()}
	defer m.close()
	defer func() {
		if err != nil {
			err = fmt.Errorf("plan %s: %w", c.token, err)
		}
	}()
	if err := m.readNamed(ctx); err != nil {
		return nil, err
	}
	if err := m.readWide(ctx); err != nil {
		return nil, err
	}
	if err := m.followHeld(ctx); err != nil {
		return nil, err
	}
	c.rows.EachCounted(func(app string, offset, at int64, s *columns.Signed) {
		if err == nil && c.orders.Moved(app, s.ActorID) {
			r := plan.Row{AppID: app, From: offset, Signed: *s}
			r.Part = c.orders.PartOf(plan.VisitorHour{AppID: app, AnonymousID: s.AnonymousID, Hour: s.Hour}, at)
			err = m.follow(ctx, &r)
		}
	})
	return m, err
}

// planMaker makes one plan, one chunk after the other.
type planMaker struct {
	*correction
	head    columns.Plan
	pairs   plan.Pairs
	planned *columns.Corrections // chunk under construction, in the form of correction_plans
	only    *columns.Corrections // chunk 1, in the form of corrections
	row     uint32
	writer  *clickhouse.Conn // a second connection: the first one is reading

	held     held
	heldRows int
	wholes   []reason // of hours that are followed whole although they are cut
}

func (m *planMaker) close() {
	if m.writer != nil {
		m.writer.Close()
	}
}

// follow adds a row of the base or of the block.
func (m *planMaker) follow(ctx context.Context, r *plan.Row) error {
	m.pairs.Follow(m.orders, r)
	if m.pairs.Len() < chunkRows/2 {
		return nil
	}
	m.take()
	m.only = nil
	if m.writer == nil {
		writer, err := m.p.connect()
		if err != nil {
			return err
		}
		writer.Follow(m.p.conn)
		m.writer = writer
	}
	err := m.write(ctx, m.writer, "|"+strconv.FormatUint(m.head.ID, 16)+"|"+strconv.Itoa(len(m.head.Chunks)))
	m.planned.Reset()
	return err
}

// take makes the next chunk from the gathered pairs.
func (m *planMaker) take() {
	list := m.pairs.List()
	if len(list) == 0 {
		return
	}
	m.only = nil
	if len(m.head.Chunks) == 0 {
		m.only = columns.NewCorrections()
	}
	n := uint32(len(m.head.Chunks) + 1)
	sum := columns.Chunk{Rows: uint32(2 * len(list))}
	add := func(ctl *columns.Control, s *columns.Signed) {
		m.row++
		m.planned.AppendPlanned(ctl, s, m.head.ID, n, m.row)
		if m.only != nil {
			m.only.Append(ctl, s, m.row)
		}
	}
	for i := range list {
		p := &list[i]
		ctl := m.of(m.orders.At(p.Order))
		add(&ctl, &columns.Signed{Attribution: p.Old, Hour: p.Hour, Part: p.Part, Events: -p.Events, Quantity: -p.Quantity})
		add(&ctl, &columns.Signed{Attribution: p.New, Hour: p.Hour, Part: p.Part, Events: p.Events, Quantity: p.Quantity})
		sum.Events += p.Events
		sum.Quantity += p.Quantity
	}
	m.head.Chunks = append(m.head.Chunks, sum)
	m.pairs.Reset()
}

// of returns the fields that rows carry of an order.
func (c *correction) of(o *plan.Order) columns.Control {
	ctl := c.control
	ctl.AppID, ctl.Offset, ctl.ID, ctl.Kind = o.AppID, o.Offset, o.ID, kindMove
	return ctl
}

// finish writes the last chunk with the head and the reasons.
func (m *planMaker) finish(ctx context.Context) error {
	m.take()
	for n := range m.orders.Len() {
		if o := m.orders.At(n); o.Reason != "" {
			ctl := m.of(o)
			m.planned.AppendReason(&ctl, m.head.ID, o.Reason)
		}
	}
	for _, w := range m.wholes {
		ctl := m.of(m.orders.At(w.order))
		m.planned.AppendReason(&ctl, m.head.ID, w.text)
	}
	if n := len(m.wholes); n > 0 {
		m.p.s.metrics.wholeHours.Add(float64(n))
		m.p.s.log.Warn("events of hours in which a link begins or ends have expired or are too many: what is counted in these hours stays with the earlier link",
			"partition", m.p.name, "block", m.control.Block, "rows", n, "first", m.wholes[0].text)
	}
	head := m.control
	head.Offset, head.AppID = head.Block, m.orders.At(0).AppID
	m.planned.AppendHead(&head, &m.head)
	suffix := ""
	if m.again > 0 {
		suffix = "|again|" + strconv.Itoa(m.again)
	}
	if err := m.write(ctx, m.p.conn, suffix); err != nil {
		return fmt.Errorf("plan %s: %w", m.token, err)
	}
	return nil
}

func (m *planMaker) write(ctx context.Context, conn *clickhouse.Conn, suffix string) error {
	m.p.s.calm.RLock()
	defer m.p.s.calm.RUnlock()
	return conn.Insert(ctx, m.p.table("correction_plans"), m.planned, m.token+"|plan"+suffix)
}

// attributionColumns are those that a move may match and set, as SQL lists them.
var attributionColumns = strings.Join(tables.Attribution, ", ")

// baseKeys are the columns of usage_hourly's sorting key without the partition: grouped
// in this order, rows are aggregated in the order in which they are stored.
const baseKeys = "app_id, actor_id, actor_kind, account_id, feature_id, hour, module_id, product_id, role, event, account_source, user_id, anonymous_id"

// baseQuery sums the rows of a partition that a condition selects.
func baseQuery(table string, partition int32, condition string) string {
	return "SELECT " + baseKeys + ", sum(events) AS events_sum, sum(quantity) AS quantity_sum FROM " + table +
		" WHERE source_partition = " + strconv.Itoa(int(partition)) + " AND " + condition +
		" GROUP BY " + baseKeys + " HAVING events_sum != 0 OR quantity_sum != 0"
}

// namedTable is the name of the external table of the actors that a block's moves name.
const namedTable = "named_actors"

// namedQuestion reads everything counted for the named actors. The ids travel as an
// external table, since a block may name any number of them. usage_hourly is sorted by
// app and actor, so the cost does not grow with other actors' usage. An actor of one
// app is looked for in all of them: comparing pairs of app and actor takes twice the
// time.
func namedQuestion(table string, partition int32, actors []plan.Actor) clickhouse.Question {
	apps, seen := map[string]bool{}, map[string]bool{}
	var id proto.ColStr
	for _, a := range actors {
		apps[clickhouse.Quote(a.AppID)] = true
		if !seen[a.ActorID] {
			seen[a.ActorID] = true
			id.Append(a.ActorID)
		}
	}
	list := strings.Join(slices.Sorted(maps.Keys(apps)), ", ")
	return clickhouse.Question{
		Query: baseQuery(table, partition, "app_id IN ("+list+") AND actor_id IN "+namedTable),
		Among: namedTable, AmongRows: proto.Input{{Name: "actor_id", Data: &id}},
		Settings: map[string]string{"max_threads": "1"},
	}
}

// readNamed follows what is counted for the actors that the moves name.
func (m *planMaker) readNamed(ctx context.Context) error {
	actors := m.orders.Named()
	if len(actors) == 0 {
		return nil
	}
	return m.read(ctx, namedQuestion(m.p.table("usage_hourly"), m.p.number, actors), true)
}

// readWide follows the rows that match moves without an actor. There may be any number
// of them, so they are streamed and not kept.
func (m *planMaker) readWide(ctx context.Context) error {
	wide := m.orders.Wide()
	if len(wide) == 0 {
		return nil
	}
	q := clickhouse.Question{
		Query:    baseQuery(m.p.table("usage_hourly"), m.p.number, wideCondition(wide)),
		Settings: map[string]string{"optimize_aggregation_in_order": "1", "max_threads": "1", "max_query_size": "10000000"},
	}
	return m.read(ctx, q, false)
}

// read follows the rows of a query: those of actors that moves name, or those of all
// others, so that no row is moved twice.
func (m *planMaker) read(ctx context.Context, q clickhouse.Question, named bool) error {
	var r signedRows
	read, err := m.p.conn.Ask(ctx, q, r.base(), func() error {
		for i := range r.hour.Rows() {
			row := plan.Row{AppID: r.app.Row(i), From: plan.Base, Signed: r.row(i)}
			if m.orders.Names(plan.Actor{AppID: row.AppID, ActorID: row.ActorID}) != named {
				continue
			}
			if m.hold(&row) {
				continue
			}
			if err := m.follow(ctx, &row); err != nil {
				return err
			}
		}
		return nil
	})
	m.p.s.metrics.correctionRead.Add(float64(read))
	return err
}

// wideCondition is the SQL condition under which a row matches one of the moves.
func wideCondition(wide map[string][]*event.Move) string {
	var apps []string
	for _, app := range slices.Sorted(maps.Keys(wide)) {
		seen := map[string]bool{}
		var any []string
		for _, m := range wide[app] {
			if c := moveCondition(m); !seen[c] {
				seen[c] = true
				any = append(any, c)
			}
		}
		condition := "app_id = " + clickhouse.Quote(app)
		if len(any) <= maxConditions {
			condition += " AND (" + strings.Join(any, " OR ") + ")"
		}
		apps = append(apps, "("+condition+")")
	}
	return "(" + strings.Join(apps, " OR ") + ")"
}

const microsPerSecond = 1_000_000

func moveCondition(m *event.Move) string {
	var all []string
	for _, c := range columns.AttributionColumns {
		if v := c.Named(&m.Match); v != nil {
			all = append(all, c.Name+" = "+clickhouse.Quote(*v))
		}
	}
	// In whole seconds, the resolution of hours. A move by instants may begin
	// within an hour.
	if from := m.From; from != 0 {
		if m.ByInstant() {
			from -= 3600*microsPerSecond - 1
		}
		all = append(all, fmt.Sprintf("toInt64(toUnixTimestamp(hour)) >= %d", ceilDiv(from, microsPerSecond)))
	}
	if m.To != 0 {
		all = append(all, fmt.Sprintf("toInt64(toUnixTimestamp(hour)) < %d", ceilDiv(m.To, microsPerSecond)))
	}
	return "(" + strings.Join(all, " AND ") + ")"
}

func ceilDiv(a, b int64) int64 {
	q := a / b
	if a%b > 0 {
		q++
	}
	return q
}

// chunk reads chunk n of the plan, counted from 0, as the block to insert.
func (c *correction) chunk(ctx context.Context, n int) (*columns.Corrections, error) {
	b := columns.NewCorrections()
	return b, c.eachPlanned(ctx, n, b.Append)
}

// eachPlanned calls fn for each row of chunk n of the plan, from 0, in order.
func (c *correction) eachPlanned(ctx context.Context, n int, fn func(ctl *columns.Control, s *columns.Signed, row uint32)) error {
	var r signedRows
	query := fmt.Sprintf("SELECT %s FROM %s WHERE %s AND plan = %d AND chunk = %d ORDER BY row",
		plannedColumns, c.p.table("correction_plans"), c.where(), c.head.ID, n+1)
	var got columns.Chunk
	first, last := uint32(0), uint32(0)
	err := c.p.conn.Select(ctx, query, r.planned(), func() error {
		for i := range r.hour.Rows() {
			ctl, s := c.control, r.row(i)
			ctl.AppID, ctl.Offset, ctl.ID, ctl.Kind = r.app.Row(i), r.offset.Row(i), r.control.Row(i), kindMove
			fn(&ctl, &s, r.number.Row(i))
			if last = r.number.Row(i); got.Rows == 0 {
				first = last
			}
			got.Rows++
			if last%2 == 0 {
				got.Events += s.Events
				got.Quantity += s.Quantity
			}
		}
		return nil
	})
	if want := c.head.Chunks[n]; err == nil && (got != want || last-first+1 != want.Rows) {
		err = fmt.Errorf("rows %d to %d are %+v, want %+v from the head: %w", first, last, got, want, errPlan)
	}
	if err != nil {
		return fmt.Errorf("read chunk %d of the plan of %s: %w", n+1, c.token, err)
	}
	return nil
}

// plannedColumns are those of a plan's rows that corrections has as well.
var plannedColumns = "row, app_id, source_offset, control_id, hour, part_from, part_to, " + attributionColumns + ", events, quantity"

// signedRows receives rows of usage_hourly or of a plan.
type signedRows struct {
	app              proto.ColLowCardinality[string]
	hour             proto.ColDateTime
	attribution      []proto.ColumnOf[string] // as columns.AttributionColumns
	events, quantity proto.ColInt64
	number           proto.ColUInt32
	offset           proto.ColInt64
	control          proto.ColStr
	from, to         proto.ColDateTime64 // of a plan's rows
}

func (r *signedRows) init(events, quantity string) proto.Results {
	r.app = *new(proto.ColStr).LowCardinality()
	results := proto.Results{
		{Name: "app_id", Data: &r.app},
		{Name: "hour", Data: &r.hour},
		{Name: events, Data: &r.events},
		{Name: quantity, Data: &r.quantity},
	}
	for _, c := range columns.AttributionColumns {
		var column proto.ColumnOf[string] = new(proto.ColStr)
		if c.LowCardinality {
			column = new(proto.ColStr).LowCardinality()
		}
		r.attribution = append(r.attribution, column)
		results = append(results, proto.ResultColumn{Name: c.Name, Data: column})
	}
	return results
}

// base receives what baseQuery selects.
func (r *signedRows) base() proto.Results {
	return inOrder(baseKeys+", events_sum, quantity_sum", r.init("events_sum", "quantity_sum"))
}

// planned receives rows of a plan.
func (r *signedRows) planned() proto.Results {
	results := append(r.init("events", "quantity"),
		proto.ResultColumn{Name: "row", Data: &r.number}, proto.ResultColumn{Name: "source_offset", Data: &r.offset}, proto.ResultColumn{Name: "control_id", Data: &r.control})
	r.from.WithPrecision(proto.PrecisionMicro).WithLocation(time.UTC)
	r.to.WithPrecision(proto.PrecisionMicro).WithLocation(time.UTC)
	results = append(results, proto.ResultColumn{Name: "part_from", Data: &r.from}, proto.ResultColumn{Name: "part_to", Data: &r.to})
	return inOrder(plannedColumns, results)
}

// inOrder sorts results into the order of a list of names.
func inOrder(names string, results proto.Results) proto.Results {
	var list proto.Results
	for name := range strings.SplitSeq(names, ", ") {
		i := slices.IndexFunc(results, func(c proto.ResultColumn) bool { return c.Name == name })
		list = append(list, results[i])
	}
	return list
}

// row returns a row of the received block.
func (r *signedRows) row(i int) columns.Signed {
	s := columns.Signed{Hour: uint32(r.hour.Data[i]), Events: r.events.Row(i), Quantity: r.quantity.Row(i)}
	for k, c := range columns.AttributionColumns {
		*c.Of(&s.Attribution) = r.attribution[k].Row(i)
	}
	if len(r.to.Data) > i {
		s.Part = columns.Part{From: int64(r.from.Data[i]), To: int64(r.to.Data[i])}
	}
	return s
}
