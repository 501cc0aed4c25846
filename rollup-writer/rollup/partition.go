package rollup

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
	"github.com/uptakehq/uptake/schemas/event"
)

// partition is one partition while this writer has it. Two goroutines own it: build
// cuts records into blocks, insert inserts them, and a block passes from the first to
// the second, so that the next block is built while one is being inserted.
//
// It ends in one of two ways. Closing the intake lets insert finish the item in
// progress, commit it, and end. Revoking also forbids the commit and any further
// attempt: another writer has the partition, or is about to. What was sent is never
// cancelled; the attempt ends when the server answers.
type partition struct {
	s      *Service
	topic  string
	number int32
	name   string // topic/number
	log    *slog.Logger

	intake      context.Context
	closeIntake context.CancelFunc
	revoked     context.Context // implies a closed intake
	revoke      context.CancelFunc
	began       chan boundary.Start
	stuck       chan error    // an error found by poll that halts the partition
	ended       chan struct{} // both goroutines have ended

	queue  queue
	perRow perRow
	items  chan item
	spare  chan rows

	// Owned by build.
	cutter  *block.Cutter
	src     columns.Source
	open    rows
	openRow openBlock
	handed  int64 // boundary last passed to insert
	lastEnd int64 // offset after the last record
	asides  int   // records that were set aside
	tick    ticker

	// Set before the two goroutines start.
	replay replay

	// Owned by insert.
	conn   *clickhouse.Conn
	window *window
	before bool   // a predecessor may have sent the next block
	sentTo int64  // end of the log at the start, until the first block is done
	sent   uint64 // mark of the commit that the partition started at
	clean  bool   // the last commit is clean: nothing was sent from it on
	failed bool   // an item was not completed
	doubt  bool   // an attempt of the block failed, so that it has to be verified
	boots  uint64 // starts of the server when the last block was done
	// generation of the tokens; it is fixed while the writer has the partition.
	generation uint32

	// For the lag: the committed boundary, and the append time of the oldest row that
	// was read and not written, 0 for none.
	committed atomic.Int64
	started   atomic.Bool // committed was read; before that it is 0 and says nothing of the lag
	inHand    atomic.Int64
	building  atomic.Int64
	marked    atomic.Uint64 // mark of the last commit
	failing   atomic.Bool   // an attempt of the insert in progress failed
}

// openBlock is what build keeps about the open block besides its rows.
type openBlock struct {
	appendMillis int64     // of its first row
	since        time.Time // when that row was read
}

// item is a unit of work for insert: a block, or only a boundary.
type item struct {
	block  block.Block
	rows   rows  // nil: no block
	millis int64 // append time of its first record
}

func (s *Service) newPartition(topic string, number int32) *partition {
	p := &partition{
		s: s, topic: topic, number: number, name: topic + "/" + strconv.Itoa(int(number)),
		began: make(chan boundary.Start, 1), stuck: make(chan error, 1), ended: make(chan struct{}),
		items: make(chan item), spare: make(chan rows, 2),
	}
	p.log = s.log.With("topic", topic, "partition", number)
	p.perRow = s.metrics.perRow(topic)
	p.revoked, p.revoke = context.WithCancel(context.Background())
	p.intake, p.closeIntake = context.WithCancel(p.revoked)
	p.queue.init(s.cfg.QueueBytes, s.metrics)
	for range 2 {
		p.spare <- nil // allocated on first use
	}
	return p
}

// run is the life of the partition, from its assignment on.
func (p *partition) run() {
	defer close(p.ended)
	defer p.closeIntake()
	select {
	case <-p.intake.Done():
		return
	case st := <-p.began:
		if st.Refused != nil {
			p.halt(st.Refused)
			return
		}
		p.src = columns.Source{TopicID: st.TopicID, Partition: p.number}
		p.cutter = block.NewCutter(p.s.cfg.Shape(), st.Boundary)
		p.handed, p.lastEnd, p.before, p.sent = st.Boundary, st.Boundary, !st.Untouched && !st.Clean, st.Mark
		p.clean, p.generation = st.Clean, st.Generation
		if p.before {
			p.sentTo = st.End
		}
		p.committed.Store(st.Boundary)
		p.started.Store(true)
		p.marked.Store(st.Mark)
		if err := p.startReplay(st); err != nil {
			p.halt(err) // returns at once if the intake is closed
			return
		}
	}
	var err error
	if p.conn, err = p.connect(); err != nil {
		p.halt(err)
		return
	}
	defer p.conn.Close()
	p.window = p.s.windowOf(p)
	var wg sync.WaitGroup
	wg.Go(p.insertAll) // ends when build has closed items
	p.build()
	close(p.items)
	wg.Wait()
	p.window.end(p)
	p.s.health.clear(p.name)
}

// connect returns a connection of its own to the partition's shard.
func (p *partition) connect() (*clickhouse.Conn, error) {
	conn, err := clickhouse.NewConn(&p.s.cfg.ClickHouse, p.s.shard(p))
	if err == nil {
		conn.Count(p.s.metrics.statements.Inc)
	}
	return conn, err
}

// fail halts the partition from outside.
func (p *partition) fail(err error) {
	select {
	case p.stuck <- err:
	default: // already halted
	}
}

// halt reports why the partition is halted and waits until it is revoked.
func (p *partition) halt(err error) {
	p.log.Error("partition halted", "error", err)
	p.s.health.set(p.name, "halted: "+err.Error())
	p.s.metrics.halted.WithLabelValues(p.topic).Inc()
	p.s.pause(p)
	<-p.intake.Done()
	p.s.metrics.halted.WithLabelValues(p.topic).Dec()
	p.s.health.clear(p.name)
}

// build cuts what is fetched into blocks until the intake is closed.
func (p *partition) build() {
	defer p.dropOpen()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(p.untilIdle())
		select {
		case <-p.intake.Done():
			return
		case <-timer.C:
			p.idle()
		case err := <-p.stuck:
			p.halt(err)
			return
		case <-p.queue.ready:
			if err := p.takeAll(p.queue.take()); err != nil {
				if p.intake.Err() == nil {
					p.halt(err)
				}
				return
			}
			if p.queue.drained() {
				p.s.throttle(p)
			}
		}
	}
}

func (p *partition) takeAll(records []*kgo.Record) error {
	defer p.perRow.tell()
	for _, r := range records {
		if err := p.take(r); err != nil {
			return err
		}
	}
	return nil
}

// take cuts one record. It returns an error that halts the partition, or one that says
// that the intake is closed.
func (p *partition) take(r *kgo.Record) error {
	if r.Offset < p.lastEnd && !mistakenPolls {
		return fmt.Errorf("offset %d was fetched after %d: the log was truncated, or the client fetched again from an earlier offset", r.Offset, p.lastEnd-1)
	}
	p.lastEnd = r.Offset + 1
	rec, control, err := p.classify(r)
	var poison error
	if err != nil {
		if !event.Unwritten(err) {
			return err
		}
		rec.Kind, control, poison = block.Content, nil, err
	}
	if rec.Kind == block.Content && control == nil {
		p.perRow.newRecords++
	} else {
		p.s.metrics.records.WithLabelValues(p.topic, kindName(rec.Kind, control)).Inc()
	}
	ended, ok := p.cutter.Next(rec)
	if !ok {
		ended, ok = p.mistakenCut(rec)
	}
	if ok {
		full := p.open
		p.open = nil
		p.building.Store(0)
		if err := p.hand(item{block: ended, rows: full, millis: p.openRow.appendMillis}); err != nil {
			return err
		}
	}
	if rec.Kind == block.Content {
		return p.append(r, control, poison)
	}
	return nil
}

// kindName is the value of the metrics' label kind.
func kindName(k block.Kind, c *event.Control) string {
	switch {
	case k == block.Tick:
		return "tick"
	case k == block.Marker:
		return "marker"
	case c == nil:
		return "row"
	case c.Kind == event.ControlCounts:
		return "counts"
	}
	return "control"
}

// classify determines a record's kind, for the cutter, from its header.
func (p *partition) classify(r *kgo.Record) (block.Record, *event.Control, error) {
	rec := block.Record{Offset: r.Offset, AppendMillis: r.Timestamp.UnixMilli(), Bytes: len(r.Value)}
	if r.Attrs.IsControl() || p.s.skips[boundary.Place{Topic: p.topic, Partition: p.number, Offset: r.Offset}] {
		rec.Kind = block.Marker
		return rec, nil, nil
	}
	typ, err := p.s.codec.Type(r.Value)
	switch {
	case err != nil:
		return rec, nil, p.undecodable(r, err)
	case typ == rowType(p.s.names, p.topic):
		return rec, nil, nil
	case typ != event.TypeControl:
		return rec, nil, p.undecodable(r, fmt.Errorf("%w: a %s record has no place in this topic", event.ErrType, typ))
	}
	var c event.Control
	if err := p.s.codec.DecodeControl(r.Value, &c); err != nil {
		return rec, nil, p.undecodable(r, err)
	}
	switch c.Kind {
	case event.ControlTick:
		rec.Kind = block.Tick
		return rec, nil, nil
	case event.ControlMove, event.ControlCounts:
		if rowType(p.s.names, p.topic) == event.TypeEnriched {
			return rec, &c, nil // c points into the record
		}
	}
	return rec, nil, fmt.Errorf("offset %d: control record of unknown kind %q: use a release of rollup-writer that knows it", r.Offset, c.Kind)
}

func (p *partition) undecodable(r *kgo.Record, err error) error {
	return fmt.Errorf("offset %d: %w: if a newer release wrote it, use one; if nothing can read it, add %s@%d to -skip-records of all writers", r.Offset, err, p.name, r.Offset)
}

// codeUndecodable is the reason code of what is set aside.
const codeUndecodable = "undecodable"

// setAside takes a record that no release can have written into the block, as a
// rejected event with its bytes: it is inserted with the block, once, and holds
// nothing up.
func (p *partition) setAside(r *kgo.Record, reason error) {
	at := r.Timestamp.UnixMicro()
	p.open.aside(p.src, r.Offset, &event.Rejected{
		Stage: event.StageWriter, Code: codeUndecodable, Detail: reason.Error(),
		ReceivedAt: at, RejectedAt: at, SourcePartition: -1, SourceOffset: -1, Original: r.Value,
	})
	p.s.metrics.setAside.WithLabelValues(p.topic).Inc()
	if p.asides++; p.asides == 1 || p.asides%1000 == 0 {
		p.log.Error("a record that no release can have written is set aside in rejected_events, stage writer", "offset", r.Offset, "bytes", len(r.Value), "so_far", p.asides, "reason", reason)
	}
}

// append adds a row, or the counts or moves of a control record, to the open block,
// or sets the record aside if poison says that it cannot be read.
func (p *partition) append(r *kgo.Record, control *event.Control, poison error) error {
	if p.open == nil {
		select {
		case p.open = <-p.spare:
		case <-p.intake.Done():
			return p.intake.Err()
		}
		if p.open == nil {
			p.open = newRows(p.s.names, p.topic)
		}
		p.openRow = openBlock{appendMillis: r.Timestamp.UnixMilli(), since: p.s.now()}
		p.building.Store(p.openRow.appendMillis)
		p.tick.reset()
	}
	if control != nil {
		return p.appendControl(r, control)
	}
	if poison == nil {
		poison = p.open.take(p.s.codec, p.src, r.Offset, r.Value, p.replay.maskAt(r.Offset))
	}
	switch {
	case poison == nil:
		p.perRow.newRows++
	case event.Unwritten(poison):
		p.setAside(r, poison)
	default:
		return p.undecodable(r, poison)
	}
	return nil
}

func (p *partition) appendControl(r *kgo.Record, control *event.Control) error {
	if control.Kind == event.ControlCounts {
		n, err := event.ParseCounts(control.Payload)
		if err != nil {
			return p.undecodable(r, err)
		}
		p.open.count(p.src, r.Offset, r.Timestamp.UnixMilli(), &n)
		return nil
	}
	moves, err := event.ParseMoves(control.Payload)
	if err != nil {
		return fmt.Errorf("offset %d: %w: use a release of rollup-writer that reads it", r.Offset, err)
	}
	if erased := p.replay.maskAt(r.Offset); erased != nil {
		erased.Moves(control.AppID, &moves)
	}
	reason, err := reasonText(moves.Reason)
	if err != nil {
		return fmt.Errorf("offset %d: %w", r.Offset, err)
	}
	p.open.order(plan.Order{
		AppID: strings.Clone(control.AppID), Offset: r.Offset, ID: strings.Clone(control.ControlID), Reason: reason, Moves: moves.Moves,
	})
	return nil
}

// hand passes an item to insert, after the one in progress.
func (p *partition) hand(it item) error {
	p.perRow.tell()
	select {
	case p.items <- it:
		p.handed = it.block.Next
		return nil
	case <-p.intake.Done():
		p.release(it.rows)
		return p.intake.Err()
	}
}

// release counts rows that were read and will not be written by this writer.
func (p *partition) release(r rows) {
	if r == nil {
		return
	}
	n := float64(r.Rows())
	p.s.metrics.rowsReleased.WithLabelValues(p.topic).Add(n)
	p.s.metrics.rowsPending.WithLabelValues(p.topic).Sub(n)
	p.s.stopped.left.Add(int64(n))
}

func (p *partition) dropOpen() {
	p.release(p.open)
	p.open = nil
	p.building.Store(0)
	p.queue.close()
}

// untilIdle is how long build waits for records before it calls idle.
func (p *partition) untilIdle() time.Duration {
	now := p.s.now()
	switch {
	case p.open != nil:
		return p.tick.due(p.openRow, p.s.cfg.Shape(), now)
	case p.cutter.Boundary() > p.handed:
		return p.s.cfg.BlockInterval
	}
	return time.Hour
}

// idle runs when no record arrived for untilIdle: it has a tick produced to close the
// open block, or, if none is open, passes on the boundary that advanced over records
// without rows.
func (p *partition) idle() {
	if p.open != nil {
		p.produceTick()
		return
	}
	if b := p.cutter.Boundary(); b > p.handed {
		_ = p.hand(item{block: block.Block{Start: b, End: b, Next: b}}) // fails only when the intake is closed
	}
}

// oldest is the append time of the oldest row that was read and not written.
func (p *partition) oldest() int64 {
	if ms := p.inHand.Load(); ms != 0 {
		return ms
	}
	return p.building.Load()
}
