package rollup

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/rebuild"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// A server without replication writes the record of a token before it renames the
// part. If it dies in between, the block's part of that table is lost, and the
// repeat, which every table judges for itself, is skipped there. So a block of
// which an attempt failed, or that a predecessor may have sent, or during which
// the server was started anew, is compared with the tables once all of it is
// acknowledged, and repaired before its boundary is committed. In the cluster
// form this is not needed: there record and part are one transaction.
//
// What a block adds to each table is known: its rows by their offsets, and of each
// table of sums the cells of these rows and of the plan's chunks. A part of a
// table is there or not, as a whole. So of a table of sums it is asked what its
// source says of these cells, and what it has (of usage_hourly the source is events
// and corrections, of the rollups usage_hourly). The difference must be the same
// multiple of what the block adds in all of the cells: 0 of a block that is there,
// 1 of one that is lost, -1 of one that is there twice. That multiple is added to
// the table, and nothing else ever is.
//
// The rollups' cells are shared with other partitions, whose blocks may be half
// inserted, lost or there twice as well. So rollups are compared while nobody
// inserts, and together with the open blocks of all partitions (verify_others.go): of
// what the cells lack, each verification repairs what is its own block's. A
// difference that these blocks do not explain is looked at again until the other
// writers must have repeated or repaired theirs (settled). What is left then are
// cells that were wrong before, or whose events have expired.
//
// # Rounds
//
// Repairs are inserts, and views carry them on: events and corrections into
// usage_hourly, and that into the rollups. They are done in rounds, and each round
// mends one level and no other: events and corrections, then usage_hourly, then
// the rollups. What the views add twice by that, the next round takes out.
//
// Several writers may verify one block at the same time, one of them a zombie that
// looked long ago. The inserts of round n have a token of their own, and before the
// first of them a row without sums takes that token in each table behind the level
// that is mended. A writer enters round n+1 when all its inserts of round n were
// acknowledged, and looks while the server works on no insert of this block. So
// what it finds changes by inserts of round n+1 alone, which are taken once; and
// a plan to insert that was made from an older look finds its token taken,
// whichever table it is for. If the server dies between record and rename of a
// repair, the next round finds that.

// Outcomes of a verification.
const (
	verifiedEqual    = "equal"
	verifiedRepaired = "repaired"
	verifiedUnknown  = "unknown"
)

const (
	// maxRounds bounds the rounds of a block: what is not right then is something
	// else than a lost part.
	maxRounds = 20
	// maxUnits bounds the parts of a block that are told apart.
	maxUnits = 9
	// maxDays bounds the days by which rows are selected one by one.
	maxDays = 400
)

// verifier compares what one block adds to the tables with what they have.
type verifier struct {
	p     *partition
	it    item
	token string
	c     *correction // nil: the block orders nothing
	where string      // selects the block's rows of events or rejected_events

	events [][]signed   // of usage, by the month of receipt: each is a part of events
	chunks [][]*planned // of the plan
	reach
	round int
	fault string // why the outcome is unknown
}

// reach is whose cells a comparison reads.
type reach struct {
	apps          []string // quoted
	days          map[int64]bool
	actors, accts map[string]bool
}

func newReach() reach {
	return reach{days: map[int64]bool{}, actors: map[string]bool{}, accts: map[string]bool{}}
}

func (r *reach) addApp(app string) {
	if q := clickhouse.Quote(app); !slices.Contains(r.apps, q) {
		r.apps = append(r.apps, q)
	}
}

func (r *reach) take(s *signed) {
	r.addApp(s.app)
	r.days[int64(s.Hour-s.Hour%86400)] = true
	r.actors[s.ActorID], r.accts[s.AccountID] = true, true
}

// with is r and what others reach.
func (r *reach) with(others []other) *reach {
	all := reach{slices.Clone(r.apps), maps.Clone(r.days), maps.Clone(r.actors), maps.Clone(r.accts)}
	for _, o := range others {
		for i := range o.rows {
			all.take(&o.rows[i])
		}
	}
	return &all
}

// ofApps is a condition on app_id.
func (r *reach) ofApps() string { return "app_id IN (" + strings.Join(r.apps, ", ") + ")" }

// on selects the days by a date.
func (r *reach) on(date string) string { return strings.ReplaceAll(selectDays(r.days), "%[1]s", date) }

// signed is a row of the base rollup and its app.
type signed struct {
	app string
	columns.Signed
}

type planned struct {
	columns.Control
	signed
	row uint32
}

// verify makes sure that the tables have the block exactly once, if that is not
// known. All of the block was acknowledged.
func (p *partition) verify(it item, token string, c *correction) error {
	started := p.window.started()
	restarted := p.boots != 0 && started != p.boots
	if !p.s.single() || unguarded || !p.doubt && !p.before && !restarted {
		p.doubt, p.boots = false, started
		return nil
	}
	v := &verifier{p: p, it: it, token: token, c: c, reach: newReach()}
	if err := v.gather(); err != nil {
		return err
	}
	if err := v.run(); err != nil {
		return err
	}
	outcome := verifiedEqual
	switch {
	case v.fault != "":
		outcome = verifiedUnknown
		p.log.Error("a block of which an insert failed could not be verified; see `rollup-writer audit`", "token", token, "reason", v.fault)
	case v.round > 0:
		outcome = verifiedRepaired
		p.log.Warn("parts of a block were lost by ClickHouse and were written again", "token", token, "rounds", v.round)
	}
	p.s.metrics.verified.WithLabelValues(outcome).Inc()
	p.doubt, p.boots = false, p.window.started()
	return nil
}

func (v *verifier) run() error {
	levels := []func() (bool, error){v.facts}
	if len(v.events)+len(v.chunks) > maxUnits {
		v.fault = fmt.Sprintf("it has more than %d parts", maxUnits)
	} else if len(v.actors) > 0 {
		levels = append(levels, func() (bool, error) { return v.sums(tables.TableOf("usage_hourly")) }, func() (bool, error) { return v.sums(tables.Rollups()...) })
	}
	retry := v.p.backoff()
	clean := 0 // rounds whose inserts did not fail
	for {
		sent := false
		v.p.doubt = false
		for _, level := range levels {
			var err error
			if sent, err = level(); err != nil {
				return err
			}
			if sent {
				break
			}
		}
		if !sent {
			return v.feed()
		}
		if !v.p.doubt {
			clean++
		} else if err := v.p.pause(retry.Next()); err != nil {
			return err
		}
		if clean >= maxRounds {
			v.fault = fmt.Sprintf("it is not as it should be after %d repairs", v.round)
			return v.feed()
		}
	}
}

// pause waits for d, or until the partition is revoked.
func (p *partition) pause(d time.Duration) error {
	if err := backoff.Sleep(p.intake, d); err != nil {
		return errRevoked
	}
	return nil
}

// gather collects what the block adds.
func (v *verifier) gather() error {
	v.it.rows.EachApp(func(app string, _ int) { v.addApp(app) })
	if r, ok := v.it.rows.(*eventRows); ok {
		maps.Copy(v.days, r.Days())
		months := map[int64]string{}
		parts := map[string]int{}
		r.EachPlace(func(p columns.Place) { months[p.Offset] = time.UnixMicro(p.ReceivedAt).UTC().Format("200601") })
		r.EachCounted(func(app string, offset, _ int64, s *columns.Signed) {
			n, ok := parts[months[offset]]
			if !ok {
				n = len(v.events)
				parts[months[offset]] = n
				v.events = append(v.events, nil)
			}
			row := signed{app, *s}
			v.events[n] = append(v.events[n], row)
			v.take(&row)
		})
	}
	if v.c != nil && len(v.c.head.Chunks) <= maxUnits {
		for n := range v.c.head.Chunks {
			var rows []*planned
			err := v.p.persist("read the plan of "+v.token, func(ctx context.Context) error {
				rows = rows[:0]
				return v.c.eachPlanned(ctx, n, func(ctl *columns.Control, s *columns.Signed, row uint32) {
					rows = append(rows, &planned{*ctl, signed{ctl.AppID, *s}, row})
				})
			})
			if err != nil {
				return err
			}
			for _, r := range rows {
				v.take(&r.signed)
			}
			v.chunks = append(v.chunks, rows)
		}
	} else if v.c != nil {
		v.fault = fmt.Sprintf("its plan has %d chunks", len(v.c.head.Chunks))
	}
	v.where = fmt.Sprintf("source_topic_id = %s AND source_partition = %d AND source_offset >= %d AND source_offset < %d",
		clickhouse.Quote(v.p.src.TopicID), v.p.number, v.it.block.Start, v.it.block.End)
	if len(v.apps) > 0 {
		v.where = v.ofApps() + " AND " + v.where
	}
	if len(v.days) > 0 && v.p.topic == v.p.s.names.Enriched {
		v.where = v.on("toDate(event_time)") + " AND " + v.where
	}
	if oldest, newest := v.it.rows.Received(); newest != 0 {
		v.where += fmt.Sprintf(" AND received_at >= fromUnixTimestamp64Micro(%d, 'UTC') AND received_at <= fromUnixTimestamp64Micro(%d, 'UTC')", oldest, newest)
	}
	return nil
}

// selectDays is a condition on a date, which stands for %[1]s.
func selectDays(days map[int64]bool) string {
	list := slices.Sorted(maps.Keys(days))
	if len(list) == 0 {
		return "1"
	}
	quoted := make([]string, len(list))
	for i, d := range list {
		quoted[i] = "'" + time.Unix(d, 0).UTC().Format(time.DateOnly) + "'"
	}
	if len(list) > maxDays {
		return "(%[1]s >= " + quoted[0] + " AND %[1]s <= " + quoted[len(quoted)-1] + ")"
	}
	return "%[1]s IN (" + strings.Join(quoted, ", ") + ")"
}

// facts compares the rows of events or rejected_events, of corrections and of the
// counts, and inserts what is missing.
func (v *verifier) facts() (sent bool, err error) {
	var fixes []fix
	err = v.p.persist("verify the rows of "+v.token, func(ctx context.Context) error {
		return v.p.whileQuiet(ctx, v.token, func(ctx context.Context) error {
			fixes = fixes[:0]
			for _, look := range []func(context.Context) (fix, error){v.rows, v.asides, v.corrections, v.counts} {
				f, err := look(ctx)
				if err != nil {
					return err
				}
				if f.block != nil {
					fixes = append(fixes, f)
				}
			}
			return nil
		})
	})
	if err != nil || len(fixes) == 0 {
		return false, err
	}
	v.round++
	if len(v.actors) > 0 {
		behind := append(tables.Rollups(), tables.TableOf("usage_hourly"))
		if err := v.takeTokens(behind); err != nil {
			return false, err
		}
	}
	return true, v.send(fixes)
}

// fix is what is inserted into a table in a round.
type fix struct {
	table string
	block clickhouse.Block // nil: nothing
}

func (v *verifier) roundToken() string { return v.token + "|repair|" + strconv.Itoa(v.round) }

func (v *verifier) send(fixes []fix) error {
	for _, f := range fixes {
		v.p.log.Warn("a part of a block is missing or there twice; it is repaired", "table", f.table, "token", v.roundToken(), "rows", f.block.Rows())
		if err := v.p.insert(v.p.table(f.table), f.block, v.roundToken()); err != nil {
			return err
		}
	}
	return nil
}

// takeTokens uses up the tokens of the round in tables behind the level that it
// mends.
func (v *verifier) takeTokens(list []tables.Table) error {
	s := v.first()
	if s == nil {
		return nil
	}
	for _, t := range list {
		b := columns.NewCells(t.Key)
		b.Append(s.app, v.p.number, &s.Signed, 0, 0)
		if err := v.p.insert(v.p.table(t.Name), b, v.roundToken()); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) first() *signed {
	for _, u := range v.events {
		return &u[0]
	}
	for _, u := range v.chunks {
		return &u[0].signed
	}
	return nil
}

// rows compares the rows of the block by their offsets.
func (v *verifier) rows(ctx context.Context) (fix, error) {
	if v.it.rows.Rows() == 0 {
		return fix{}, nil
	}
	table := boundary.Table(v.p.s.names, v.p.topic)
	have := map[int64]uint64{}
	var offset proto.ColInt64
	var n proto.ColUInt64
	err := v.p.conn.Select(ctx, "SELECT source_offset, count() AS n FROM "+v.p.table(table)+" WHERE "+v.where+" GROUP BY source_offset",
		proto.Results{{Name: "source_offset", Data: &offset}, {Name: "n", Data: &n}}, func() error {
			for i := range offset.Rows() {
				have[offset.Row(i)] = n.Row(i)
			}
			return nil
		})
	if err != nil {
		return fix{}, fmt.Errorf("read the rows of the block in %s: %w", table, err)
	}
	var keep []bool
	missing, twice := 0, 0
	v.it.rows.EachPlace(func(p columns.Place) {
		n := have[p.Offset]
		keep = append(keep, n == 0)
		if n == 0 {
			missing++
		} else if n > 1 {
			twice++
		}
	})
	if twice > 0 {
		v.fault = fmt.Sprintf("%s has %d of its rows more than once: `rollup-writer rebuild -from-log` takes them out", table, twice)
	}
	if missing == 0 {
		return fix{}, nil
	}
	return fix{table, v.it.rows.pick(keep)}, nil
}

// asides looks for the records that were set aside.
func (v *verifier) asides(ctx context.Context) (fix, error) {
	block := v.it.rows.asides()
	if block == nil {
		return fix{}, nil
	}
	var offset proto.ColInt64
	have := map[int64]bool{}
	query := fmt.Sprintf("SELECT source_offset FROM %s WHERE app_id = '' AND source_topic_id = %s AND source_partition = %d AND source_offset >= %d AND source_offset < %d",
		v.p.table(boundary.RejectedTable), clickhouse.Quote(v.p.src.TopicID), v.p.number, v.it.block.Start, v.it.block.End)
	err := v.p.conn.Select(ctx, query, proto.Results{{Name: "source_offset", Data: &offset}}, func() error {
		for i := range offset.Rows() {
			have[offset.Row(i)] = true
		}
		return nil
	})
	if err != nil {
		return fix{}, fmt.Errorf("read the records of the block that were set aside: %w", err)
	}
	var keep []bool
	missing := false
	block.EachPlace(func(p columns.Place) {
		keep = append(keep, !have[p.Offset])
		missing = missing || !have[p.Offset]
	})
	if !missing {
		return fix{}, nil
	}
	return fix{boundary.RejectedTable, block.Pick(keep)}, nil
}

// corrections compares the rows of the plan's chunks.
func (v *verifier) corrections(ctx context.Context) (fix, error) {
	if len(v.chunks) == 0 {
		return fix{}, nil
	}
	have := map[uint32][2]int64{}
	var row proto.ColUInt32
	var events, quantity proto.ColInt64
	query := "SELECT row, sum(events) AS e, sum(quantity) AS q FROM " + v.p.table("corrections") + " WHERE " + v.ofApps() + " AND " + v.c.where() + " GROUP BY row"
	err := v.p.conn.Select(ctx, query, proto.Results{{Name: "row", Data: &row}, {Name: "e", Data: &events}, {Name: "q", Data: &quantity}}, func() error {
		for i := range row.Rows() {
			have[row.Row(i)] = [2]int64{events.Row(i), quantity.Row(i)}
		}
		return nil
	})
	if err != nil {
		return fix{}, fmt.Errorf("read the corrections of the block: %w", err)
	}
	b := columns.NewCorrections()
	for _, chunk := range v.chunks {
		for _, r := range chunk {
			lacks := [2]int64{r.Events - have[r.row][0], r.Quantity - have[r.row][1]}
			if lacks == [2]int64{} {
				continue
			}
			s := r.Signed
			s.Events, s.Quantity = lacks[0], lacks[1]
			b.Append(&r.Control, &s, r.row)
		}
	}
	if b.Rows() == 0 {
		return fix{}, nil
	}
	return fix{"corrections", b}, nil
}

// counts looks whether the block's counts are there. Inserted again they replace
// themselves.
func (v *verifier) counts(ctx context.Context) (fix, error) {
	counted := v.it.rows.counted()
	if counted == nil {
		return fix{}, nil
	}
	var n proto.ColUInt64
	have := uint64(0)
	query := fmt.Sprintf("SELECT uniqExact(app_id, hour, raw_topic_id, source_offset) AS n FROM %s WHERE source_topic_id = %s AND source_partition = %d AND source_offset >= %d AND source_offset < %d",
		v.p.table(boundary.CountsTable), clickhouse.Quote(v.p.src.TopicID), v.p.number, v.it.block.Start, v.it.block.End)
	err := v.p.conn.Select(ctx, query, proto.Results{{Name: "n", Data: &n}}, func() error { have = n.Row(0); return nil })
	if err != nil {
		return fix{}, fmt.Errorf("read the counts of the block: %w", err)
	}
	if have >= uint64(counted.Rows()) {
		return fix{}, nil
	}
	return fix{boundary.CountsTable, counted}, nil
}

// cell is what the block adds to a cell of a table, by unit.
type cell struct {
	of  *signed
	add [][2]int64
}

// sight is what one look at tables of sums found.
type sight struct {
	fixes     []fix
	unknown   string // the table that differs by something else than parts of this block
	explained bool   // every cell of every table lacks multiples of open blocks
	unread    bool   // cells lack something, and the other open blocks were not read
	unsure    bool   // it may be this block or another one that is lost
	yielded   bool   // and it is taken for the other one
	lacks     string // what the cells lack, to see whether it changes
	quiet     bool   // nothing was inserted meanwhile
	during    []string
}

// sums compares tables of sums of one level, and inserts what they lack.
func (v *verifier) sums(list ...tables.Table) (sent bool, err error) {
	alone := list[0].Kind == tables.Rollup // other partitions fill the same cells
	var got sight
	err = v.p.persist("verify the sums of "+v.token, func(ctx context.Context) (err error) {
		if alone {
			got, err = v.settled(ctx, list)
			return err
		}
		return v.p.whileQuiet(ctx, v.token, func(ctx context.Context) (err error) {
			got, err = v.compare(ctx, list, nil)
			return err
		})
	})
	if err != nil {
		return false, err
	}
	if got.unknown != "" && v.fault == "" {
		v.fault = got.unknown
	}
	if len(got.fixes) == 0 {
		return false, nil
	}
	v.round++
	if !alone {
		if err := v.takeTokens(tables.Rollups()); err != nil {
			return false, err
		}
	}
	return true, v.send(got.fixes)
}

// compare looks at tables of sums once. others are the open blocks of other partitions,
// of which rollups have cells in common with this one; nil if they were not read.
func (v *verifier) compare(ctx context.Context, list []tables.Table, others []other) (sight, error) {
	got := sight{explained: true}
	reach := v.with(others)
	for i := range list {
		t := &list[i]
		cells := v.cells(t)
		lacks, err := v.difference(ctx, t, reach)
		if err != nil {
			return got, fmt.Errorf("compare %s: %w", t.Name, err)
		}
		n, ok, err := v.explain(ctx, t, cells, lacks, others, &got)
		if err != nil {
			return got, err
		}
		got.lacks += fmt.Sprintln(t.Name, lacks)
		if !ok {
			got.unknown = t.Name + " differs by something else than parts of this block"
			continue
		}
		b := columns.NewCells(t.Key)
		for _, c := range cells {
			events, quantity := c.times(n)
			if events != 0 || quantity != 0 {
				b.Append(c.of.app, v.p.number, &c.of.Signed, events, quantity)
			}
		}
		if b.Rows() > 0 {
			got.fixes = append(got.fixes, fix{t.Name, b})
		}
	}
	return got, nil
}

// explain says how many times a table lacks each unit of the block, and takes out of
// lacks what no open block adds to.
func (v *verifier) explain(ctx context.Context, t *tables.Table, cells map[string]*cell, lacks map[string][2]int64, others []other, got *sight) (n []int64, ok bool, err error) {
	if t.Kind == tables.Rollup {
		return v.explainShared(t, cells, lacks, others, got)
	}
	units := len(v.events) + len(v.chunks)
	maps.DeleteFunc(lacks, func(key string, _ [2]int64) bool { return cells[key] == nil })
	n, ok = multiples(cells, lacks, units, false)
	if !ok {
		got.explained = false
		n, ok = multiples(cells, lacks, units, true)
	}
	if ok && slices.Min(n) < 0 {
		// The cells have too much if the block's events expired meanwhile.
		expired, err := v.rows(ctx)
		if err != nil {
			return nil, false, err
		}
		ok = expired.block == nil
	}
	return n, ok, nil
}

// steadyLooks is how many looks must agree if there is never an instant without an
// insert of another writer.
const steadyLooks = 4

// leastBound is the least time until a look that finds a difference is given up: on a
// loaded machine a look takes seconds, and so do the inserts that it waits for.
const leastBound = 2 * time.Minute

// settled looks at the rollups until what it finds is certain: explained by parts
// of this block while nothing is inserted, or unchanged for so long that whoever
// may have a block half inserted must have repeated it. All waits have a bound, and
// nobody is waited for who may be waiting here too:
//
//   - A partition of this process that has an insert of unknown outcome is waited
//     for. It has none while it verifies.
//   - Inserts of another process cannot be held up. If they never pause, a look
//     counts if others agree with it, and no insert was under way in two of them.
//   - Where it may be this block or another one that is lost, one of the two waits, and
//     the other one only until the difference stands still.
//   - After the last bound only what is equal is believed.
func (v *verifier) settled(ctx context.Context, list []tables.Table) (sight, error) {
	p := v.p
	patience := p.s.cfg.SessionTimeout + 2*p.s.cfg.RetryMax + time.Second
	retry := p.backoff()
	began := time.Now()
	changed, lacks, looks, during := began, "", 0, map[string]bool{}
	together := false // with the open blocks of other partitions
	defer p.waiting(began)()
	for {
		over := time.Since(began) > max(4*patience, leastBound)
		failing := p.s.othersFailing(p)
		if !failing || over {
			got, err := v.lookCalmly(ctx, list, together)
			if err != nil {
				return got, err
			}
			if got.unread {
				together = true
				continue
			}
			if got.lacks != lacks {
				changed, lacks, looks = time.Now(), got.lacks, 0
				clear(during)
			}
			if !slices.ContainsFunc(got.during, func(id string) bool { return during[id] }) {
				looks++
				for _, id := range got.during {
					during[id] = true
				}
			}
			waited := time.Since(changed) > patience
			switch {
			case failing, got.yielded:
			case got.quiet && (got.explained && !got.unsure || waited), got.explained && waited && looks >= steadyLooks:
				return got, nil
			}
			if over {
				if !got.explained || got.yielded || len(got.fixes) > 0 {
					got.fixes, got.unknown = nil, "other blocks were half inserted all the time while it was compared"
				}
				return got, nil
			}
		} else {
			changed = time.Now()
		}
		p.waiting(began)
		if err := p.pause(retry.Next()); err != nil {
			return sight{}, err
		}
	}
}

// cells are those of a table that the block adds to.
func (v *verifier) cells(t *tables.Table) map[string]*cell {
	cells := map[string]*cell{}
	units := len(v.events) + len(v.chunks)
	add := func(unit int, s *signed) {
		key := columns.CellKey(t.Key, s.app, v.p.number, &s.Signed)
		c := cells[key]
		if c == nil {
			c = &cell{of: s, add: make([][2]int64, units)}
			cells[key] = c
		}
		c.add[unit][0] += s.Events
		c.add[unit][1] += s.Quantity
	}
	for n, rows := range v.events {
		for i := range rows {
			add(n, &rows[i])
		}
	}
	for n, rows := range v.chunks {
		for _, r := range rows {
			add(len(v.events)+n, &r.signed)
		}
	}
	return cells
}

// times is the sum of the units' contributions, each as often as n says.
func (c *cell) times(n []int64) (events, quantity int64) {
	for u, a := range c.add {
		events += n[u] * a[0]
		quantity += n[u] * a[1]
	}
	return events, quantity
}

// multiples says how many times a table lacks each unit. All cells must agree on
// it; finally, when the others had their chance to repair theirs, most of them, or,
// of a block that is one part, all by what they lack at least.
func multiples(cells map[string]*cell, lacks map[string][2]int64, units int, final bool) (best []int64, ok bool) {
	best = make([]int64, units)
	explained := func(n []int64) (count int) {
		for key, c := range cells {
			events, quantity := c.times(n)
			if lacks[key] == [2]int64{events, quantity} {
				count++
			}
		}
		return count
	}
	most := explained(best)
	there := most > 0
	if most == len(cells) {
		return best, true
	}
	for _, n := range vectors(units) {
		if k := explained(n); k > most {
			best, most = n, k
		}
	}
	switch {
	case most == len(cells):
		return best, true
	case !final:
		return nil, false
	case units > 1:
		return best, 2*most > len(cells)
	case there: // a lost part would be missing in this cell too
		return []int64{0}, true
	case 2*most > len(cells):
		return best, true
	}
	for key, c := range cells { // other blocks are missing in the same cells
		if lacks[key][0] < c.add[0][0] || lacks[key][1] < c.add[0][1] {
			return nil, false
		}
	}
	return []int64{1}, true
}

// vectors are the multiples that are tried, those with the fewest units first: all
// of up to three units, and of more at most two that are not 0.
func vectors(units int) (list [][]int64) {
	values := []int64{1, -1, -2}
	for n := 1; n <= min(units, 3); n++ {
		if n == 3 && units > 3 {
			break
		}
		var choose func(from, left int, v []int64)
		choose = func(from, left int, v []int64) {
			if left == 0 {
				list = append(list, slices.Clone(v))
				return
			}
			for u := from; u < units; u++ {
				for _, x := range values {
					v[u] = x
					choose(u+1, left-1, v)
				}
				v[u] = 0
			}
		}
		choose(0, n, make([]int64, units))
	}
	return list
}

// amongTable is the table of the actors or accounts whose cells are compared.
const amongTable = "among_these"

// difference reads what cells of a table lack against their source, negative where
// they have too much: of those of the actors or accounts in reach.
func (v *verifier) difference(ctx context.Context, t *tables.Table, r *reach) (map[string][2]int64, error) {
	among, by := r.actors, "actor_id"
	if !t.Has("actor_id") {
		among, by = r.accts, "account_id"
	}
	var id proto.ColStr
	for a := range among {
		id.Append(a)
	}
	of := func(date string) string {
		return r.ofApps() + " AND " + by + " IN " + amongTable + " AND " + r.on(date)
	}
	have := of(t.Day)
	var want string
	if t.Kind == tables.Base {
		own := " AND source_partition = " + strconv.Itoa(int(v.p.number))
		have += own
		want = rebuild.Counted(v.p.table("events"), v.p.table("corrections"), of("toDate(e.event_time)")+own, of(t.Day)+own)
	} else {
		want = "SELECT app_id, " + strings.Join(t.Key[:len(t.Key)-1], ", ") + ", toDate(hour) AS day, events, quantity FROM " + v.p.table(t.From) + " WHERE " + of("toDate(hour)")
	}
	list := "app_id, " + t.Columns()
	query := "SELECT " + columns.CellKeyQuery(t.Key) + " AS cell, sum(e) AS de, sum(q) AS dq FROM (\n" +
		"SELECT " + list + ", events AS e, quantity AS q FROM (" + want + ")\nUNION ALL\n" +
		"SELECT " + list + ", -events AS e, -quantity AS q FROM " + v.p.table(t.Name) + " WHERE " + have + "\n) GROUP BY " + list + " HAVING de != 0 OR dq != 0"
	lacks := map[string][2]int64{}
	var key proto.ColStr
	var events, quantity proto.ColInt64
	q := clickhouse.Question{
		Query: query, Among: amongTable, AmongRows: proto.Input{{Name: "id", Data: &id}},
		Settings: map[string]string{"max_query_size": "10000000"},
	}
	_, err := v.p.conn.Ask(ctx, q, proto.Results{{Name: "cell", Data: &key}, {Name: "de", Data: &events}, {Name: "dq", Data: &quantity}}, func() error {
		for i := range key.Rows() {
			lacks[key.Row(i)] = [2]int64{events.Row(i), quantity.Row(i)}
		}
		return nil
	})
	return lacks, err
}

// feed sends the block's rows once more through the views into tables that repeats
// do not change: what those lost cannot be seen.
func (v *verifier) feed() error {
	if v.p.topic != v.p.s.names.Enriched {
		return nil
	}
	return v.p.persist("feed the views of "+v.token, func(ctx context.Context) error {
		for i := range tables.DerivedTables {
			t := &tables.DerivedTables[i]
			where := v.where
			if t.From == "correction_plans" {
				if v.c == nil {
					continue
				}
				where = v.c.where()
			}
			view, err := t.Select(v.p.s.schema, where, true)
			if err != nil {
				return err
			}
			if err := v.p.conn.Exec(ctx, "INSERT INTO "+v.p.table(t.Name)+" (app_id, "+t.Columns()+") SELECT app_id, "+t.Columns()+" FROM ("+view+")"); err != nil {
				return fmt.Errorf("feed %s: %w", t.Name, err)
			}
		}
		return nil
	})
}

// waiting reports a wait that began long ago, and returns what ends the report.
func (p *partition) waiting(began time.Time) (end func()) {
	if time.Since(began) > 10*time.Second {
		p.s.health.set(p.name, "a block is compared with the tables, which waits for inserts of other blocks")
	}
	return func() { p.s.health.clear(p.name) }
}

// writersInserts selects from system.processes.
const writersInserts = "query_kind = 'Insert' AND client_name LIKE '%uptake-rollup-writer%'"

// whileQuiet calls look while the server works on no insert whose token begins with
// token.
func (p *partition) whileQuiet(ctx context.Context, token string, look func(context.Context) error) error {
	query := "SELECT query_id FROM system.processes WHERE " + writersInserts + " AND startsWith(Settings['insert_deduplication_token'], " + clickhouse.Quote(token) + ")"
	retry := p.backoff()
	began := time.Now()
	defer p.waiting(began)()
	for {
		running, err := p.strings(ctx, query)
		if err != nil {
			return err
		}
		if len(running) == 0 {
			return look(ctx)
		}
		p.waiting(began)
		if err := p.pause(retry.Next()); err != nil {
			return err
		}
	}
}

// strings reads one column.
func (p *partition) strings(ctx context.Context, query string) (list []string, err error) {
	var col proto.ColStr
	err = p.conn.Select(ctx, query, proto.Results{{Name: "query_id", Data: &col}}, func() error {
		for i := range col.Rows() {
			list = append(list, strings.Clone(col.Row(i)))
		}
		return nil
	})
	return list, err
}

// othersFailing reports whether another partition has an insert of which an attempt
// failed and that was not acknowledged since: it may be in some tables only.
func (s *Service) othersFailing(p *partition) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, byNumber := range s.partitions {
		for _, q := range byNumber {
			if q != p && q.failing.Load() {
				return true
			}
		}
	}
	return false
}

// lookCalmly compares the tables while no partition of this process inserts, and
// notes which inserts of other processes were under way.
func (v *verifier) lookCalmly(ctx context.Context, list []tables.Table, together bool) (got sight, err error) {
	p := v.p
	var commits map[int32]int64
	if together {
		if commits, err = p.s.commits(ctx); err != nil {
			return got, err
		}
	}
	p.s.calm.Lock()
	defer p.s.calm.Unlock()
	// state is which inserts are under way, and how many there were.
	state := func() (running []string, mark int64, err error) {
		if running, err = p.strings(ctx, "SELECT query_id FROM system.processes WHERE "+writersInserts); err != nil {
			return nil, 0, err
		}
		var m, up proto.ColInt64
		err = p.conn.Select(ctx, p.window.query, proto.Results{{Name: "mark", Data: &m}, {Name: "up", Data: &up}}, func() error { mark = m.Row(0); return nil })
		return running, mark, err
	}
	running, before, err := state()
	if err != nil {
		return got, err
	}
	var others []other
	if together {
		if others, err = v.readOthers(ctx, commits); err != nil {
			return got, err
		}
	}
	if got, err = v.compare(ctx, list, others); err != nil {
		return got, err
	}
	still, after, err := state()
	got.during = append(running, still...)
	got.quiet = len(got.during) == 0 && before == after
	return got, err
}
