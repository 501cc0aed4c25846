// Package rollup is the rollup-writer: it reads enriched and rejected events and writes
// them into ClickHouse, each block of the log exactly once into events and into every
// rollup.
//
// It owns the consumer group (consumer.go), one pair of goroutines per assigned
// partition that cuts its log into blocks and inserts them in order (partition.go,
// insert.go), corrections (correction.go), and the watch over the dedup windows
// (window.go). Related packages: boundary decides where a partition starts, block how
// blocks are cut, columns how they are encoded, clickhouse what an error means, and
// repair does what needs stopped writers. DESIGN.md has the protocol and its reasons.
package rollup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// Dependencies of a Service. Logger must be set; the others may be nil.
type Dependencies struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Health  *ops.Health
	Now     func() time.Time
}

// Service is one writer.
type Service struct {
	cfg     Config
	names   *topic.Names
	log     *slog.Logger
	reg     prometheus.Registerer
	metrics *metrics
	health  *health
	lag     *ops.Lag
	now     func() time.Time
	skips   map[boundary.Place]bool
	schema  tables.Schema
	shards  int

	// Set by Run before any goroutine starts.
	codec   *event.Codec
	client  *kgo.Client
	admin   *kadm.Client
	sql     driver.Conn
	windows map[windowKey]*window
	ahead   map[string]map[int32]error // by topic and partition: commits of which ClickHouse lacks rows; see boundary.Ahead
	erased  erasedOnce
	inserts chan struct{}           // holds one element for each insert in progress
	calm    sync.RWMutex            // locked while rollups are compared: no insert is in progress
	killed  context.Context         // ends when inserts in progress are abandoned
	stall   context.CancelCauseFunc // ends serve with errStalled
	topics  map[string]topic.Info   // when the writer began to serve
	// commits reads the boundaries of the partitions of enriched that all writers
	// committed.
	commits func(context.Context) (map[int32]int64, error)
	wg      sync.WaitGroup // partitions
	small   smallBlocks

	mu         sync.Mutex // covers the two below
	partitions map[string]map[int32]*partition
	stopping   bool // no further partition is started

	// Reported at the end.
	stopped struct{ rows, blocks, corrections, left atomic.Int64 }
}

// windowKey identifies a window: the servers, and the tables that a block is inserted
// into.
type windowKey struct {
	shard int
	table string
}

// New returns a service. cfg must be valid.
func New(cfg Config, deps Dependencies) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	skips, err := cfg.Skips()
	if err != nil {
		return nil, err
	}
	names := cfg.Kafka.Names()
	s := &Service{
		cfg: cfg, names: names, log: deps.Logger, reg: deps.Metrics, now: deps.Now, skips: skips,
		schema: cfg.ClickHouse.Schema(), shards: len(cfg.ClickHouse.Shards()),
		health: newHealth(), metrics: newMetrics(deps.Metrics, names), lag: ops.NewLag(deps.Logger, ops.LagFloor),
		inserts:    make(chan struct{}, cfg.MaxInserts),
		windows:    map[windowKey]*window{},
		partitions: map[string]map[int32]*partition{},
	}
	s.commits = s.readCommits
	if s.now == nil {
		s.now = time.Now
	}
	if deps.Health != nil {
		deps.Health.Register("rollup-writer", s.health.check)
		deps.Health.Note("lag", s.lag.String)
	}
	return s, nil
}

// Run serves until sig.Stop ends. Then it finishes and commits the inserts in progress,
// leaves the group and closes what it opened. When sig.Kill ends, or after
// stop-timeout, it abandons the inserts in progress; the next writer repeats them. Run
// returns an error if it cannot serve as configured. A fault that may pass by itself is
// retried forever and shown as not ready.
//
// When records wait and nothing moves, it starts again with a new client (watch.go).
func (s *Service) Run(sig process.Signals) error {
	for {
		stop, stall := context.WithCancelCause(sig.Stop)
		s.stall = stall
		err := s.serve(process.Signals{Stop: stop, Kill: sig.Kill})
		stalled := errors.Is(context.Cause(stop), errStalled)
		stall(nil)
		if err != nil || !stalled || sig.Stop.Err() != nil {
			return err
		}
	}
}

// serve is Run until the writer stops or stalls.
func (s *Service) serve(sig process.Signals) (err error) {
	s.mu.Lock()
	s.stopping = false
	s.mu.Unlock()
	s.health.set("start", "not yet serving")
	killed, kill := context.WithCancel(sig.Kill)
	defer kill()
	s.killed = killed

	if s.codec, err = s.cfg.Registry.Codec(sig.Stop); err != nil {
		return err
	}
	if s.sql, err = clickhouse.OpenSQL(&s.cfg.ClickHouse); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.sql.Close()) }()
	if err := s.connect(); err != nil {
		return err
	}
	defer s.leave()

	for _, check := range []struct {
		part string
		run  func(context.Context) error
	}{{"kafka", s.checkTopics}, {"clickhouse", s.checkTables}, {"commits", s.checkCommits}} {
		if err := s.untilChecked(sig.Stop, check.part, check.run); err != nil {
			if sig.Stop.Err() != nil {
				return nil
			}
			return err
		}
	}
	s.health.clear("start")
	s.log.Info("serving", "block_records", s.cfg.BlockRecords, "block_interval", s.cfg.BlockInterval.String(), "tables", s.schema.Form.String())

	s.client.AddConsumeTopics(boundary.Topics(s.names)...)
	var beside sync.WaitGroup
	beside.Go(func() { s.watch(sig.Stop) }) // ends with sig.Stop
	var catalogErr error
	beside.Go(func() { catalogErr = s.followCatalog(sig.Stop) }) // ends with sig.Stop
	var signalsErr error
	beside.Go(func() { signalsErr = s.followSignals(sig.Stop) }) // ends with sig.Stop
	var notesErr error
	beside.Go(func() { notesErr = s.followNotes(sig.Stop) }) // ends with sig.Stop
	var looksErr error
	beside.Go(func() { looksErr = s.followLooks(sig.Stop) }) // ends with sig.Stop
	s.poll(sig.Stop)
	s.stop(kill)
	beside.Wait()
	return errors.Join(catalogErr, signalsErr, notesErr, looksErr)
}

// errRefused marks an error that waiting does not change.
var errRefused = errors.New("refused")

// checkRetry is the pause between two attempts of a check at start-up.
const checkRetry = time.Second

// untilChecked repeats a check until it passes, ctx ends, or it returns errRefused.
func (s *Service) untilChecked(ctx context.Context, part string, check func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		err := check(ctx)
		if err == nil {
			s.health.clear(part)
			return nil
		}
		if errors.Is(err, errRefused) || ctx.Err() != nil {
			return err
		}
		s.health.set(part, err.Error())
		if attempt%60 == 0 {
			s.log.Warn("not ready to serve; retrying", "part", part, "error", err)
		}
		if backoff.Sleep(ctx, checkRetry) != nil {
			return ctx.Err()
		}
	}
}

func refuse(err error) error { return fmt.Errorf("%w: %w", errRefused, err) }

// checkTopics makes sure that both topics have the settings that blocks need.
func (s *Service) checkTopics(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
	defer cancel()
	if err := s.client.Ping(ctx); err != nil {
		return fmt.Errorf("reach kafka: %w", err)
	}
	var infos map[string]topic.Info
	err := topic.CheckRights(ctx, s.admin, s.names.Rights(topic.UserWriter, topic.BaseGroupEnricher))
	if err == nil {
		infos, err = s.names.Check(ctx, s.admin, boundary.Topics(s.names)...)
	}
	if err != nil {
		if unanswered(err) {
			return err
		}
		return refuse(err)
	}
	s.topics = infos
	return nil
}

// checkTables makes sure that the schema is this release's, that every table has a
// dedup window, and that the server's version is supported.
func (s *Service) checkTables(ctx context.Context) error {
	ctx, cancel := boundary.Uncut(ctx)
	defer cancel()
	has, err := clickhouse.HasDatabase(ctx, &s.cfg.ClickHouse)
	if err != nil {
		return clickhouseFault("ask clickhouse", err)
	}
	if !has {
		return refuse(fmt.Errorf("database %s: %w", s.cfg.ClickHouse.Database, tables.ErrNoSchema))
	}
	var version string
	if err := s.sql.QueryRow(ctx, "SELECT version()").Scan(&version); err != nil {
		return clickhouseFault("ask clickhouse for its version", err)
	}
	notice, err := clickhouse.CheckVersion(version, s.schema.Form.Cluster != "")
	if err != nil {
		return refuse(err)
	}
	if notice != "" {
		s.log.Info("clickhouse version", "notice", notice)
	}
	if err := s.schema.Check(ctx, s.sql); err != nil {
		if errors.Is(err, tables.ErrSchema) || errors.Is(err, tables.ErrNoSchema) {
			return refuse(err)
		}
		return clickhouseFault("check the schema", err)
	}
	sizes, err := s.schema.Windows(ctx, s.sql)
	if err != nil {
		if sizes != nil {
			return refuse(err)
		}
		return clickhouseFault("check the dedup windows", err)
	}
	for shard := range s.shards {
		for _, table := range []string{boundary.EventsTable, boundary.RejectedTable} {
			s.windows[windowKey{shard, table}] = newWindow(s.schema, table, sizes)
		}
	}
	return nil
}

// checkCommits looks for partitions whose commits are ahead of the tables. They are
// refused when they are assigned, and the others go on.
func (s *Service) checkCommits(ctx context.Context) error {
	st, err := boundary.Read(ctx, s.admin, s.names, boundary.Topics(s.names))
	if err != nil {
		return err
	}
	in := reader.On(s.client)
	in.Silence = boundary.AskTimeout
	a := boundary.Ahead{SQL: s.sql, Schema: s.schema, Names: s.names, Log: in, Codec: s.codec, Skips: s.skips}
	s.ahead = map[string]map[int32]error{}
	for _, name := range boundary.Topics(s.names) {
		if s.ahead[name], err = a.Of(ctx, st, name); err != nil {
			return clickhouseFault("compare commits with the tables", err)
		}
	}
	return nil
}

// clickhouseFault marks err as errRefused unless it may pass by itself.
func clickhouseFault(what string, err error) error {
	err = fmt.Errorf("%s: %w", what, err)
	if clickhouse.Classify(err) == clickhouse.Permanent {
		return refuse(err)
	}
	return err
}

// single reports whether the tables are those of one server without replication.
func (s *Service) single() bool { return s.schema.Form.Cluster == "" }

// shard is the number of the shard that a partition belongs to.
func (s *Service) shard(p *partition) int { return int(p.number) % s.shards }

func (s *Service) windowOf(p *partition) *window {
	return s.windows[windowKey{s.shard(p), boundary.Table(s.names, p.topic)}]
}

// stop ends the partitions in order: no further partition starts, inserts in progress
// are finished and committed, and what is not done in time is abandoned.
func (s *Service) stop(kill context.CancelFunc) {
	all := s.removeAll()
	s.log.Info("stopping", "partitions", len(all))
	for _, p := range all {
		p.closeIntake()
	}
	ended := make(chan struct{})
	go func() { // ends when the partitions have, which kill makes them
		s.wg.Wait()
		close(ended)
	}()
	timeout := time.NewTimer(s.cfg.StopTimeout)
	defer timeout.Stop()
	select {
	case <-ended:
	case <-timeout.C:
		s.log.Warn("inserts in progress are abandoned; the next writer sends them again", "after", s.cfg.StopTimeout.String())
	case <-s.killed.Done():
	}
	for _, p := range all {
		p.revoke()
	}
	kill()
	<-ended
	s.log.Info("stopped", "rows_written", s.stopped.rows.Load(), "blocks_written", s.stopped.blocks.Load(),
		"corrections", s.stopped.corrections.Load(), "rows_left_in_log", s.stopped.left.Load())
}

// removeAll takes out all partitions and returns them. From then on none is started:
// the client stays in the group until it leaves, and nobody would end a partition that
// a rebalance assigned in between.
func (s *Service) removeAll() []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopping = true
	var all []*partition
	for name, byNumber := range s.partitions {
		for n, p := range byNumber {
			all = append(all, p)
			s.metrics.drop(name, n)
		}
		s.metrics.partitions.WithLabelValues(name).Set(0)
	}
	clear(s.partitions)
	return all
}

// leaveTimeout bounds how long a stopping writer waits to leave the group.
const leaveTimeout = 5 * time.Second

// leave leaves the group and closes the client. Without a deadline the client would
// wait for the answer to a join in progress, which brokers may withhold for the whole
// rebalance timeout.
func (s *Service) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	s.client.AllowRebalance()
	if err := s.client.LeaveGroupContext(ctx); err != nil {
		s.log.Warn("leaving the group failed; its other members wait for the session timeout", "error", err)
	}
	s.client.CloseAllowingRebalance()
}
