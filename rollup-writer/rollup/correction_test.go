package rollup

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

var long = longtest.Enabled()

// mixed are logs full of events and orders of every kind, one for each partition.
type mixed [partitions][]writertest.Entry

func newMixed(seed uint64, n int) (m mixed) {
	r := rand.New(rand.NewPCG(seed, 5))
	for p := range m {
		m[p] = writertest.Mixed(r, int32(p), fmt.Sprintf("s%d-", seed), n)
	}
	return m
}

// send produces the entries from first to before end.
func (m mixed) send(b *bench, first, end int) {
	for p := range m {
		b.SendMixed(int32(p), m[p][first:end])
	}
}

// correct makes of an event what it counts for once all is sent.
func (m mixed) correct(e *event.EnrichedEvent) {
	for _, list := range m {
		writertest.Correct(list, e)
	}
}

// All that moves events does so within blocks and over them, and the writer that
// begins anew at any block, with a few events in between, changes nothing.
func TestMixedBlocks(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	m := newMixed(1, 300)
	m.send(b, 0, 120)
	b.AwaitSettled()
	m.send(b, 120, 300)
	b.Check(m.correct)
	if blocks, controls := w.Metric("uptake_writer_blocks_total", topic.Unprefixed.Enriched), w.Metric("uptake_writer_corrections_total"); blocks > controls/4 {
		t.Errorf("%v control records stand in %v blocks: they cut blocks", controls, blocks)
	}
	if n := w.Metric("uptake_writer_whole_hours_total"); n > 0 {
		t.Errorf("%v rows of hours stayed whole, although events has all of them", n)
	}
	if n := b.Number("SELECT countIf(toUnixTimestamp64Micro(part_to) > 0) FROM " + b.Schema.Table("corrections")); n == 0 {
		t.Error("no part of an hour was moved")
	}
	w.End()
	if equal, found := b.Audited(); !equal {
		t.Errorf("the audit says:\n%s", found)
	}
	if got := b.Number("SELECT count() FROM identity_unlinks"); got == 0 {
		t.Error("no unlink is known")
	}
	b.Rewind()
	b.start()
	b.Check(m.correct)
}

// Of an hour that a link cuts only what lies in the link's part of it moves; where
// events has lost rows of the hour it stays with the earlier link, and people are
// told.
func TestHoursThatALinkCuts(t *testing.T) {
	b := newBench(t)
	b.init()
	w := b.start()
	minutes := func(n int) event.Micros {
		return event.FromTime(time.Date(2026, 11, 20, 9, n, 0, 0, time.UTC))
	}
	var list []writertest.Entry
	for i, at := range []int{10, 40, 70, 100} { // two in each of two hours
		list = append(list, writertest.Entry{Event: &event.EnrichedEvent{
			AppID: "dev", Kind: event.KindTrack, Event: "Scan", MessageID: fmt.Sprint("m", i), AccountSource: event.AccountNone, EventTime: minutes(at),
			ReceivedAt: event.FromTime(writertest.FirstReceipt), Quantity: 2, AnonymousID: "till", LinkedUserID: "b", ActorID: "b", ActorKind: event.ActorUser,
		}})
	}
	b.SendMixed(0, list)
	b.AwaitSettled()
	b.Exec("ALTER TABLE " + b.Schema.Table("events") + " DELETE WHERE message_id = 'm2' SETTINGS mutations_sync = 2")
	link := func(user, to string, from, until event.Micros) writertest.Entry {
		return writertest.Entry{Moves: event.Moves{Moves: []event.Move{{
			Match: event.Attribution{ActorID: &user, ActorKind: writertest.Ptr(event.ActorUser), AnonymousID: writertest.Ptr("till"), UserID: &user},
			Set:   event.Attribution{ActorID: &to, UserID: &to}, From: from, To: until,
		}}}}
	}
	b.SendMixed(0, []writertest.Entry{link("b", "c", minutes(30), 0), link("c", "d", minutes(35), minutes(40)), link("c", "d", minutes(90), 0)})
	b.AwaitSettled()
	got := b.Text("SELECT arrayStringConcat(arraySort(groupArray(x)), ' ') FROM (SELECT concat(formatDateTime(hour, '%H'), actor_id, toString(sum(events)), '/', toString(sum(quantity))) AS x FROM " +
		b.Schema.Table("usage_hourly") + " GROUP BY hour, actor_id HAVING sum(events) != 0)")
	// At nine b has the event of ten past, and c that of forty past, at which d's
	// span ends; of the second hour, which begins as c's, nothing goes to d.
	if want := "09b1/2 09c1/2 10c2/4"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := w.Metric("uptake_writer_whole_hours_total"); n != 1 {
		t.Errorf("%v rows of hours stayed whole, want 1", n)
	}
	if n := b.Number("SELECT count() FROM " + b.Schema.Table("correction_plans") + " WHERE JSONExtractString(reason, 'kind') = 'whole_hour' AND JSONExtractString(reason, 'id') = 'till'"); n != 1 {
		t.Errorf("%d plans say so, want 1", n)
	}
	if n := b.Number("SELECT count() FROM whole_hours WHERE anonymous_id = 'till' AND events = 2"); n != 1 {
		t.Errorf("the view has %d rows, want 1", n)
	}
}

// A writer that dies at any INSERT of blocks full of moves, before, within or
// after it, leaves what the next one completes.
func TestCorrectionsSurviveACrashAtEveryStep(t *testing.T) {
	if testing.Short() {
		t.Skip("each of its scenarios needs ClickHouse; not under -short")
	}
	faults := []fault{cutFirst, cutHalf, cutLast}
	step := 1
	if !long {
		step = 4
	}
	for n := 1; ; n += step {
		these := faults
		if !long {
			these = faults[n%len(faults):][:1]
		}
		done := false
		for _, f := range these {
			t.Run(fmt.Sprintf("%s insert %d", f, n), func(t *testing.T) {
				b := newBench(t)
				b.init()
				p := newProxy(t, b.cfg.ClickHouse.Addr, func(i int) fault {
					if i == n {
						return f
					}
					return pass
				})
				through := func(c *Config) { c.ClickHouse.Addr = p.addr() }
				m := newMixed(uint64(n), 120)
				m.send(b, 0, 60)
				w := b.start(through)
				m.send(b, 60, 120)
				settled := make(chan struct{})
				go func() { // ends with the log written, or with the patience for it
					defer close(settled)
					b.AwaitSettled()
				}()
				select {
				case <-p.hit:
					w.Kill()
					<-w.Done
					b.start(through)
				case <-settled:
					done = true // there is no such INSERT
				}
				<-settled
				b.Check(m.correct)
			})
		}
		if done || t.Failed() {
			break
		}
		if n > 60 {
			t.Fatal("a scenario of four messages takes more than 60 inserts")
		}
	}
}

// steps is a writer of a partition without a log, which is led through the steps
// of its blocks one by one: so two of them can stand anywhere beside each other.
type steps struct {
	*partition
	t      *testing.T
	log    [][]writertest.Entry // by block
	starts []int64

	block, step int
	item        item
	token       string
	c           *correction
	m           *planMaker
}

func newSteps(t *testing.T, s *Service, number int32, log [][]writertest.Entry) *steps {
	t.Helper()
	w := &steps{t: t, partition: s.newPartition(topic.Unprefixed.Enriched, number), log: log}
	w.src = columns.Source{TopicID: "topic", Partition: number}
	offset := int64(10)
	for _, l := range log {
		w.starts = append(w.starts, offset)
		offset += int64(len(l)) + 3
	}
	w.starts = append(w.starts, offset)
	var err error
	if w.conn, err = clickhouse.NewConn(&s.cfg.ClickHouse, 0); err != nil {
		t.Fatal(err)
	}
	w.window = s.windowOf(w.partition)
	t.Cleanup(func() { w.conn.Close(); w.revoke() })
	return w
}

// begin goes back to a block, as a writer that begins there does.
func (w *steps) begin(b int) {
	w.block, w.step, w.c, w.m = b, 0, nil, nil
	if b == len(w.log) {
		return
	}
	r := newRows(topic.Unprefixed, topic.Unprefixed.Enriched).(*eventRows)
	for i, e := range w.log[b] {
		at := w.starts[b] + int64(i)
		if e.Event != nil {
			r.Append(w.src, at, e.Event)
			continue
		}
		reason, err := reasonText(e.Moves.Reason)
		if err != nil {
			w.t.Fatal(err)
		}
		r.order(plan.Order{AppID: "dev", Offset: at, ID: fmt.Sprint(at), Reason: reason, Moves: e.Moves.Moves})
	}
	w.item = item{block: block.Block{Start: w.starts[b], End: w.starts[b+1]}, rows: r, millis: 1_795_000_000_000}
	w.token = w.item.block.Token(block.Shape{Records: 1000, Interval: 1_000_000_000}, "topic", w.number, 0)
}

// next carries out the next step, and reports whether it was the last of a block.
func (w *steps) next() (done bool) {
	ctx := context.Background()
	must := func(err error) {
		if err != nil {
			w.t.Fatalf("block %d, step %d: %v", w.block, w.step, err)
		}
	}
	w.step++
	switch w.step {
	case 1: // look
		orders, rows := w.item.rows.ordered()
		if orders.Len() == 0 {
			w.step = 4
			return false
		}
		w.c = &correction{
			p: w.partition, orders: orders, rows: rows, end: w.item.block.End, token: w.token,
			control: columns.Control{Source: w.src, Block: w.item.block.Start, CorrectedAt: w.item.millis},
		}
		has, err := w.c.readHead(ctx)
		must(err)
		if has {
			w.step = 4
		}
	case 2: // read
		var err error
		w.m, err = w.c.gather(ctx)
		must(err)
	case 3: // plan
		must(w.m.finish(ctx))
	case 4: // read back
		has, err := w.c.readHead(ctx)
		must(err)
		if !has {
			w.t.Fatal("no head after the plan")
		}
		if w.c.head.ID == w.m.head.ID {
			w.c.own = w.m.only
		}
	case 5: // rows
		if w.item.rows.Rows() > 0 {
			must(w.insert(w.table("events"), w.item.rows, w.token))
		}
	case 6: // corrections
		if w.c != nil {
			must(w.c.apply())
		}
	default:
		return true
	}
	return false
}

// Two writers of one partition stand anywhere beside each other, and each begins
// anew at any time at the boundary that was committed, or goes on as a zombie.
func TestZombiesAmongMixedBlocks(t *testing.T) {
	b := newBench(t)
	s, err := New(b.cfg, Dependencies{Logger: b.Log})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s.killed = process.Signals{Kill: ctx}.Kill
	s.windows[windowKey{0, boundary.EventsTable}] = &window{
		query: "SELECT toInt64(1) AS mark, toInt64(1) AS up", entries: 1_000_000, open: map[*partition]uint64{}, changed: make(chan struct{}),
	}
	schedules := 3
	if long {
		schedules = 40
	}
	for n := range schedules {
		r := rand.New(rand.NewPCG(uint64(n), 9))
		number := int32(100 + n)
		all := writertest.Mixed(r, number, fmt.Sprintf("z%d-", n), 40+r.IntN(40))
		var log [][]writertest.Entry
		for rest := all; len(rest) > 0; {
			k := min(len(rest), 1+r.IntN(30))
			log = append(log, rest[:k])
			rest = rest[k:]
		}
		writers := []*steps{newSteps(t, s, number, log), newSteps(t, s, number, log)}
		committed := 0
		for _, w := range writers {
			w.begin(0)
		}
		for committed < len(log) || r.IntN(4) > 0 {
			w := writers[r.IntN(2)]
			switch {
			case w.block == len(log) || r.IntN(12) == 0: // crashes, or another begins in its place
				w.begin(committed)
			case w.next():
				committed = max(committed, w.block+1)
				w.begin(w.block + 1)
			}
		}
		for _, w := range writers { // what a zombie still has in hand
			for w.block < len(log) && !w.next() {
			}
		}
		b.checkPartition(number, all)
		if t.Failed() {
			t.Fatalf("schedule %d of %d blocks", n, len(log))
		}
	}
}

// checkPartition compares the base rollup of a partition with what each event
// counts for, and leads each event there by the corrections.
func (b *bench) checkPartition(number int32, log []writertest.Entry) {
	b.T.Helper()
	type cell struct {
		hour int64
		columns.Attribution
	}
	got, want := map[cell][2]int64{}, map[cell][2]int64{}
	offsets := map[string]int64{}
	query := func(text string, scan func(hour, offset, row, events, quantity int64, a columns.Attribution)) {
		b.T.Helper()
		rows, err := b.SQL.Query(context.Background(), text, number)
		if err != nil {
			b.T.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var hour, offset, row, events, quantity int64
			var a columns.Attribution
			into := []any{&hour, &offset, &row, &events, &quantity}
			for _, c := range columns.AttributionColumns {
				into = append(into, c.Of(&a))
			}
			if err := rows.Scan(into...); err != nil {
				b.T.Fatal(err)
			}
			scan(hour, offset, row, events, quantity, a)
		}
		if err := rows.Err(); err != nil {
			b.T.Fatal(err)
		}
	}
	attribution := attributionColumns
	query("SELECT toInt64(toUnixTimestamp(hour)), toInt64(0), toInt64(0), sum(events) AS e, sum(quantity) AS q, "+attribution+
		" FROM usage_hourly WHERE source_partition = ? GROUP BY hour, "+attribution+" HAVING e != 0 OR q != 0", func(hour, _, _, events, quantity int64, a columns.Attribution) {
		got[cell{hour, a}] = [2]int64{events, quantity}
	})
	rows, err := b.SQL.Query(context.Background(), "SELECT message_id, source_offset FROM events WHERE source_partition = ?", number)
	if err != nil {
		b.T.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var offset int64
		if err := rows.Scan(&id, &offset); err != nil {
			b.T.Fatal(err)
		}
		if _, twice := offsets[id]; twice {
			b.T.Errorf("events has %s twice", id)
		}
		offsets[id] = offset
	}
	// Moves in the order of the log: an event takes each one behind it that names
	// the attribution it has by then.
	type move struct {
		hour, offset int64
		old, new     columns.Attribution
	}
	var moves []move
	query("SELECT toInt64(toUnixTimestamp(hour)), source_offset, toInt64(row), events, quantity, "+attribution+
		" FROM corrections WHERE source_partition = ? ORDER BY source_offset, row", func(hour, offset, row, events, _ int64, a columns.Attribution) {
		if row%2 == 1 {
			moves = append(moves, move{hour: hour, offset: offset, old: a})
			return
		}
		if m := &moves[len(moves)-1]; m.offset != offset || m.hour != hour || events <= 0 {
			b.T.Errorf("row %d at %d is no half of a pair", row, offset)
		} else {
			m.new = a
		}
	})
	events := 0
	for _, l := range log {
		if l.Event == nil {
			continue
		}
		events++
		at, ok := offsets[l.Event.MessageID]
		if !ok {
			b.T.Errorf("events lacks %s", l.Event.MessageID)
		}
		if !event.IsUsage(l.Event.Kind) {
			continue
		}
		hour := writertest.HourOf(l.Event)
		k := cell{hour, l.Now}
		want[k] = [2]int64{want[k][0] + 1, want[k][1] + l.Event.Quantity}
		now := writertest.StampedOf(l.Event)
		for _, m := range moves {
			if m.offset > at && m.hour == hour && m.old == now {
				now, at = m.new, m.offset
			}
		}
		if now != l.Now {
			b.T.Errorf("%s is led to %+v, want %+v", l.Event.MessageID, now, l.Now)
		}
	}
	if len(offsets) != events {
		b.T.Errorf("events has %d rows, want %d", len(offsets), events)
	}
	if !reflect.DeepEqual(got, want) {
		b.T.Errorf("usage_hourly differs:\ngot  %v\nwant %v", got, want)
	}
}
