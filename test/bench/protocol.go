package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// What exactly-once costs: the same writer over the same log without tokens,
// windows and counts, with tokens and windows, and with the counts of the
// conservation audit too. Each has a server, a log and a writer of its own that
// run on through all rounds. A round stops the writer's process, fills its log,
// lets it go on, and measures until the last full block is written: no start is
// in it, and the log is full from the first instant to the last. Then it waits
// until the server merges no more, so that merges are in the figure of whom they
// belong to.

// blockShape is blocks of a size, and how much of them a round writes.
type blockShape struct {
	rows   int // offsets of a block
	each   int // blocks of each partition in a round
	counts int // offsets from one record of counts to the next
}

// The enrichers count in each transaction, which is every 100 ms: full blocks
// are those of 5 s, so 50 records of counts in each; small blocks are those that
// T of a second cuts at 10,000 events/s over four partitions.
var blockShapes = []blockShape{
	{rows: blockRows, each: 2, counts: blockRows / 50},
	{rows: 2_500, each: 10, counts: 250},
}

// Protocol variants, in the order of their cost.
var protocolVariants = []struct {
	name      string
	unguarded bool
	counted   bool
}{
	{"none of it", true, false},
	{"tokens and windows", false, false},
	{"tokens, windows, counts", false, true},
}

// ProtocolCost is what a row costs in one variant.
type ProtocolCost struct {
	BlockRows int
	Name      string
	Rounds    []ProtocolRound
}

// ProtocolRound is one round of a variant.
type ProtocolRound struct {
	Rows       int
	Wall       time.Duration // from a full log to the last full block
	Writer     time.Duration // CPU
	ClickHouse time.Duration // CPU, with the merges that these rows started
}

// AuditCost is what one audit of all rows of a variant took.
type AuditCost struct {
	Rows       int
	Wall       time.Duration
	Audit      time.Duration // CPU of the command
	ClickHouse time.Duration // CPU
}

// Protocol measures the variants in turns, first one way round and then the
// other. The first round of each is not counted.
func Protocol(ctx context.Context, cfg Config) (costs []ProtocolCost, audit AuditCost, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, audit, err
	}
	r := &runner{cfg: cfg}
	for _, shape := range blockShapes {
		got, a, err := r.protocol(ctx, shape)
		if err != nil {
			return costs, audit, fmt.Errorf("blocks of %d rows: %w", shape.rows, err)
		}
		costs = append(costs, got...)
		if shape.rows == blockRows {
			audit = a
		}
	}
	return costs, audit, nil
}

func (r *runner) protocol(ctx context.Context, shape blockShape) (costs []ProtocolCost, audit AuditCost, err error) {
	var c closers
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	var sides []*side
	for _, v := range protocolVariants {
		s, err := c.side(ctx, r, shape, v.unguarded, v.counted)
		if err != nil {
			return nil, audit, fmt.Errorf("%s: %w", v.name, err)
		}
		sides = append(sides, s)
		costs = append(costs, ProtocolCost{BlockRows: shape.rows, Name: v.name})
	}
	order := make([]int, len(sides))
	for i := range order {
		order[i] = i
	}
	for round := range r.cfg.Rounds + 1 {
		for _, i := range order {
			each := shape.each
			if round == 0 {
				each = 1 // nothing is warm yet, and it is not counted
			}
			got, err := sides[i].round(ctx, each)
			if err != nil {
				return nil, audit, fmt.Errorf("%s: %w", costs[i].Name, err)
			}
			fmt.Fprintf(r.cfg.Progress, "blocks of %5d  %-24s round %d  %7.0f rows/s  writer %5.2f  clickhouse %6.2f µs/row\n",
				shape.rows, costs[i].Name, round, got.rate(), got.micros(got.Writer), got.micros(got.ClickHouse))
			if round > 0 {
				costs[i].Rounds = append(costs[i].Rounds, got)
			}
		}
		slices.Reverse(order)
	}
	audit, err = sides[len(sides)-1].audit(ctx, r)
	return costs, audit, err
}

func (p ProtocolRound) rate() float64 { return float64(p.Rows) / p.Wall.Seconds() }

func (p ProtocolRound) micros(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(p.Rows)
}

// side is one variant under load.
type side struct {
	cfg     Config
	shape   blockShape
	counted bool
	dir     string
	log     *log
	rawID   string
	server  *embedded.Server
	writer  *process
	next    int64 // offset of each partition
	blocks  int   // of each partition that must have been written
	rows    int   // in them
}

func (c *closers) side(ctx context.Context, r *runner, shape blockShape, unguarded, counted bool) (*side, error) {
	s := &side{cfg: r.cfg, shape: shape, counted: counted}
	var err error
	if s.log, err = c.log(ctx, r); err != nil {
		return nil, err
	}
	topics, err := s.log.admin.ListTopics(ctx, topic.Unprefixed.Raw)
	if err != nil {
		return nil, err
	}
	s.rawID = topics[topic.Unprefixed.Raw].ID.String()
	if s.dir, err = r.dir("protocol"); err != nil {
		return nil, err
	}
	// Offsets alone cut blocks, so that they are the same in every round.
	if s.server, err = c.clickhouse(ctx, r, s.dir, s.log, "1h", "-block-records", fmt.Sprint(shape.rows)); err != nil {
		return nil, err
	}
	if s.writer, err = c.writerOf(ctx, stack.Build{Unguarded: unguarded}, s.dir, s.log, s.server, "1h", "-block-records", fmt.Sprint(shape.rows)); err != nil {
		return nil, err
	}
	// A block is closed by the record behind it.
	return s, s.fill(ctx, int64(shape.counts))
}

// fill appends n offsets to each partition. Every so many of them one is no
// event: what the enricher counted, or, where nothing is counted, a tick, which
// takes the same place and ends nothing.
func (s *side) fill(ctx context.Context, n int64) error {
	codec := event.NewCodec()
	now := time.Now()
	every, parts, begin := int64(s.shape.counts), int64(s.log.partitions), s.next
	s.next += n
	var payload []byte
	var failed error
	err := s.log.fill(ctx, int(n*parts), func(i int) *kgo.Record {
		run := int64(i) / every
		p, offset := run%parts, begin+run/parts*every+int64(i)%every
		rec := &kgo.Record{Topic: topic.Unprefixed.Enriched, Partition: int32(p)}
		if offset%every != every-1 {
			e := enrichedEvent(offset*parts+p, now, s.cfg)
			e.RawOffset = offset/every*(every-1) + offset%every // raw has no controls
			rec.Value = codec.AppendEnriched(nil, &e)
			return rec
		}
		control := event.Control{Kind: event.ControlTick, ControlID: fmt.Sprint(offset), CreatedAt: event.FromTime(now)}
		if s.counted {
			counts := event.Counts{RawTopicID: s.rawID, First: offset / every * (every - 1), Next: (offset/every + 1) * (every - 1), Cells: []event.Cell{
				{AppID: benchApp, Hour: event.HourOf(event.FromTime(now)), Accepted: every - 1, Stored: every - 1},
			}}
			var err error
			if payload, err = counts.Payload(); err != nil {
				failed = err
			}
			control.Kind, control.Payload = event.ControlCounts, payload
		}
		rec.Value = codec.AppendControl(nil, &control)
		return rec
	})
	return errors.Join(err, failed)
}

// round has the writer write the next blocks, so many of each partition.
func (s *side) round(ctx context.Context, each int) (got ProtocolRound, err error) {
	if err := merged(ctx, s.writer, s.server); err != nil {
		return got, err
	}
	if err := s.writer.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return got, err
	}
	err = s.fill(ctx, int64(s.shape.rows*each))
	blocks := each * int(s.log.partitions)
	got.Rows = blocks * (s.shape.rows - s.shape.rows/s.shape.counts)
	s.rows += got.Rows
	ch, err1 := startSpan(s.server.Pid())
	wr, err2 := s.writer.span()
	if err = errors.Join(err, err1, err2, s.writer.cmd.Process.Signal(syscall.SIGCONT)); err != nil {
		return got, err
	}
	s.blocks += each
	err = s.writer.await(ctx, "the commits", func() (bool, error) { return s.committed(ctx) })
	if err != nil {
		return got, err
	}
	wrote, err := wr.stop(got.Rows)
	if err != nil {
		return got, err
	}
	if err := merged(ctx, s.writer, s.server); err != nil {
		return got, err
	}
	took, err := ch.stop(got.Rows)
	got.Wall, got.Writer, got.ClickHouse = wrote.Wall, wrote.CPU, took.CPU
	return got, err
}

// committed asks the log whether the full blocks are written: asking the writer
// for its metrics would cost it as much as it does for a thousand rows.
func (s *side) committed(ctx context.Context) (bool, error) {
	commits, err := s.log.admin.FetchOffsets(ctx, topic.Unprefixed.GroupRollupWriter)
	if err != nil {
		return false, err
	}
	for p := range s.log.partitions {
		c, ok := commits.Lookup(topic.Unprefixed.Enriched, p)
		if !ok || c.At < int64(s.blocks*s.shape.rows) {
			return false, nil
		}
	}
	return true, nil
}

// audit runs the command over all that was written.
func (s *side) audit(ctx context.Context, r *runner) (a AuditCost, err error) {
	ch, err := startSpan(s.server.Pid())
	if err != nil {
		return a, err
	}
	// Without the log: what is in the open blocks is in flight, and not counted either.
	dir, err := r.dir("audit")
	if err != nil {
		return a, err
	}
	p, err := r.service(ctx, stack.Writer, dir, "audit", "-clickhouse-addr", s.server.NativeAddr(), "-clickhouse-database", database, "-in-flight-records", "0")
	if err != nil {
		return a, err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		return a, ctx.Err()
	}
	if p.err != nil {
		return a, fmt.Errorf("audit: %w; see %s", p.err, p.log)
	}
	took, err := ch.stop(s.rows)
	state := p.cmd.ProcessState
	return AuditCost{Rows: s.rows, Wall: took.Wall, Audit: state.UserTime() + state.SystemTime(), ClickHouse: took.CPU}, err
}

// median and the ends of a list.
func spreadOf(list []float64) (low, middle, high float64) {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[0], (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2, sorted[len(sorted)-1]
}

// over applies fn to every round.
func (c ProtocolCost) over(fn func(ProtocolRound) float64) (list []float64) {
	for _, p := range c.Rounds {
		list = append(list, fn(p))
	}
	return list
}

// Against compares c with the variant base, round by round, in percent: what it
// takes of the throughput, and what it adds to the CPU time of both processes.
func (c ProtocolCost) Against(base ProtocolCost) (slower, dearer []float64) {
	for i, p := range c.Rounds {
		q := base.Rounds[i]
		slower = append(slower, 100*(1-p.rate()/q.rate()))
		dearer = append(dearer, 100*(p.micros(p.Writer+p.ClickHouse)/q.micros(q.Writer+q.ClickHouse)-1))
	}
	return slower, dearer
}

// ProtocolTable returns costs as a Markdown table. The first variant of each
// size of blocks is the measure of the others.
func ProtocolTable(costs []ProtocolCost, audit AuditCost) string {
	var b strings.Builder
	b.WriteString("| blocks of | writer with | rows/s (low–high) | writer CPU µs/row | ClickHouse CPU µs/row | throughput lost, % (low–high) | CPU added, % (low–high) |\n|---|---|---|---|---|---|---|\n")
	var base ProtocolCost
	for _, c := range costs {
		low, rate, high := spreadOf(c.over(ProtocolRound.rate))
		_, writer, _ := spreadOf(c.over(func(p ProtocolRound) float64 { return p.micros(p.Writer) }))
		_, server, _ := spreadOf(c.over(func(p ProtocolRound) float64 { return p.micros(p.ClickHouse) }))
		lost, added := "", ""
		if c.BlockRows != base.BlockRows {
			base = c
		} else {
			slower, dearer := c.Against(base)
			lost, added = percent(slower), percent(dearer)
		}
		fmt.Fprintf(&b, "| %d | %s | %.0f (%.0f–%.0f) | %.2f | %.2f | %s | %s |\n", c.BlockRows, c.Name, rate, low, high, writer, server, lost, added)
	}
	n := float64(audit.Rows)
	fmt.Fprintf(&b, "\nOne audit of the %d rows of %d-row blocks, every rollup cell by cell and the account of events: %.1f s; %.2f µs/row of CPU in ClickHouse and %.2f in the command.\n",
		audit.Rows, blockRows, audit.Wall.Seconds(), audit.ClickHouse.Seconds()*1e6/n, audit.Audit.Seconds()*1e6/n)
	return b.String()
}

func percent(list []float64) string {
	low, middle, high := spreadOf(list)
	return fmt.Sprintf("%.1f (%.1f–%.1f)", middle, low, high)
}

// ProtocolValues are what docs/performance.json keeps: of the whole protocol,
// for each size of blocks.
func ProtocolValues(costs []ProtocolCost, audit AuditCost) map[string]any {
	values := map[string]any{"audit_us": round((audit.ClickHouse + audit.Audit).Seconds() * 1e6 / float64(audit.Rows))}
	var base ProtocolCost
	for _, c := range costs {
		if c.BlockRows != base.BlockRows {
			base = c
			continue
		}
		slower, dearer := c.Against(base)
		_, lost, _ := spreadOf(slower)
		_, added, _ := spreadOf(dearer)
		name := fmt.Sprintf("protocol_%d", c.BlockRows) // the last variant is the whole
		values[name+"_throughput_lost_percent"], values[name+"_cpu_added_percent"] = round(lost), round(added)
	}
	return values
}
