// Package alert evaluates signals and delivers messages about them: the process
// `rollup-writer alerts`.
//
// The alerts log (topic.Alerts) records every outcome, and the state (topic.AlertState)
// is what evaluation and delivery continue from. A round reads the views in ClickHouse,
// decides on the state in the log, and writes outcomes and state in one Kafka
// transaction, under a transactional id shared by all evaluators: see topic/arbiter. So
// an alert is recorded once, whichever evaluators crash or are paused. Delivery starts
// from the log: a message is sent until a mark records that it was delivered or given
// up, so it may be sent twice, under the same id.
//
// Several processes may run: the one that is assigned the partition of the alerts log
// in a consumer group evaluates and delivers. Two of them at once do no harm.
package alert

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/deliver"
	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/kafka"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/svc/registry"
	"github.com/uptakehq/uptake/schemas/svc/setting"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

func transactionalID(names *topic.Names) string { return names.Alerts }

var errOvertaken = errors.New("another evaluator has changed the state")

// Config is the configuration of the process.
type Config struct {
	Kafka      kafka.Config
	Registry   registry.Config
	ClickHouse clickhouse.Config

	// Definitions are app=file: the insight file by which an app's signals are
	// evaluated, in place of what `insight apply` put in force.
	Definitions setting.Strings
	// Targets is the file of receivers; empty: nothing is delivered.
	Targets string
	// ConsoleURL is the address of the console, and FeedbackSecret signs the links to
	// its feedback page. Empty: messages have no link.
	ConsoleURL     string
	FeedbackSecret setting.Secret
	// ReportsURL is the console, which is asked for what is mailed on a schedule, with
	// ReportsToken. Empty: nothing is.
	ReportsURL   string
	ReportsToken setting.Secret
	// Interval is the pause between rounds.
	Interval time.Duration
	// Settle is how long after its end an hour or a day is evaluated.
	Settle time.Duration
	// Horizon is how far back corrections and late events change earlier outcomes.
	Horizon time.Duration
	// SessionTimeout is how long the group waits for a heartbeat of the evaluator
	// before another one takes over.
	SessionTimeout time.Duration
	// StallTimeout is how long work may wait without progress until the clients are
	// replaced.
	StallTimeout time.Duration
}

// DefaultConfig evaluates every minute.
func DefaultConfig() Config {
	return Config{
		Kafka: kafka.DefaultConfig("rollup-writer-alerts"), ClickHouse: clickhouse.DefaultConfig(),
		Interval: time.Minute, Settle: 10 * time.Minute, Horizon: 35 * day, SessionTimeout: 15 * time.Second, StallTimeout: 10 * time.Minute,
	}
}

// Flags defines the settings as flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	c.Kafka.Flags(set)
	c.Registry.Flags(set)
	c.ClickHouse.Flags(set)
	set.Var(&c.Definitions, "alerts-definitions", "comma-separated `app=file`: insight files to evaluate instead of the definitions that insight apply put in force; reloaded at each round")
	set.StringVar(&c.Targets, "alerts-targets", c.Targets, "YAML `file` of the receivers; empty delivers nothing")
	set.StringVar(&c.ConsoleURL, "alerts-console-url", c.ConsoleURL, "`URL` of the console, for the feedback link of each message; empty: no link")
	set.Var(&c.FeedbackSecret, "alerts-feedback-secret", "`secret` that signs feedback links, or file:PATH, the same as console-feedback-secret; at least 16 bytes")
	set.StringVar(&c.ReportsURL, "alerts-reports-url", c.ReportsURL, "`URL` of the console, which is asked for the questions and boards that are mailed on a schedule; empty: none are mailed")
	set.Var(&c.ReportsToken, "alerts-reports-token", "`token` for that, or file:PATH: that of the console's printed address, or one of an app (console-app-tokens)")
	set.DurationVar(&c.Interval, "alerts-interval", c.Interval, "pause between two evaluations")
	set.DurationVar(&c.Settle, "alerts-settle", c.Settle, "how long after its end an hour or a day is evaluated")
	set.DurationVar(&c.Horizon, "alerts-horizon", c.Horizon, "how far back late events and corrections change earlier outcomes")
	set.DurationVar(&c.SessionTimeout, "alerts-session-timeout", c.SessionTimeout, "after this long without a heartbeat another process takes over")
	set.DurationVar(&c.StallTimeout, "alerts-stall-timeout", c.StallTimeout, "how long a step of an evaluation or a delivery may take, or nobody may evaluate, until the clients are replaced; must be longer than ClickHouse takes to read everything for one app")
}

// Validate reports all faults.
func (c *Config) Validate() error {
	errs := []error{c.Kafka.Validate(), c.Registry.Validate(), c.ClickHouse.Validate()}
	seen := map[string]bool{}
	for _, d := range c.Definitions {
		app, file, _ := strings.Cut(d, "=")
		if app == "" || file == "" || seen[app] {
			errs = append(errs, fmt.Errorf("alerts-definitions must be app=file, each app once (got %q)", d))
		}
		seen[app] = true
	}
	if u, err := url.Parse(c.ConsoleURL); err != nil || (c.ConsoleURL != "" && (u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"))) {
		errs = append(errs, fmt.Errorf("alerts-console-url must be a URL such as https://uptake.example (got %q)", c.ConsoleURL))
	}
	if u, err := url.Parse(c.ReportsURL); err != nil || (c.ReportsURL != "" && (u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"))) {
		errs = append(errs, fmt.Errorf("alerts-reports-url must be a URL such as http://console:8088 (got %q)", c.ReportsURL))
	}
	if (c.ReportsURL == "") != (c.ReportsToken == "") {
		errs = append(errs, errors.New("alerts-reports-url and alerts-reports-token are given together or not at all"))
	}
	switch {
	case (c.ConsoleURL == "") != (c.FeedbackSecret == ""):
		errs = append(errs, errors.New("alerts-console-url and alerts-feedback-secret are given together or not at all"))
	case c.FeedbackSecret != "" && len(c.FeedbackSecret) < signal.MinLinkSecret:
		errs = append(errs, fmt.Errorf("alerts-feedback-secret must have at least %d bytes (got %d)", signal.MinLinkSecret, len(c.FeedbackSecret)))
	}
	if c.Interval < time.Second || c.Interval > time.Hour {
		errs = append(errs, fmt.Errorf("alerts-interval must be 1s to 1h (got %s)", c.Interval))
	}
	if c.Settle < 0 || c.Settle > 24*time.Hour {
		errs = append(errs, fmt.Errorf("alerts-settle must be 0 to 24h (got %s)", c.Settle))
	}
	if c.Horizon < 7*day || c.Horizon > 90*day || c.Horizon%day != 0 {
		errs = append(errs, fmt.Errorf("alerts-horizon must be 168h to 2160h in whole days (got %s)", c.Horizon))
	}
	if c.SessionTimeout < time.Second || c.SessionTimeout > 30*time.Minute {
		errs = append(errs, fmt.Errorf("alerts-session-timeout must be 1s to 30m (got %s)", c.SessionTimeout))
	}
	if c.StallTimeout < time.Second || c.StallTimeout > 24*time.Hour {
		errs = append(errs, fmt.Errorf("alerts-stall-timeout must be 1s to 24h (got %s)", c.StallTimeout))
	}
	return errors.Join(errs...)
}

// Dependencies of a Service.
type Dependencies struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Health  *ops.Health // nil: not reported
	Now     func() time.Time
	// Ready is called when the process has joined the group.
	Ready func()
}

// Service is one process.
type Service struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	ready   func()
	kafka   []kgo.Opt
	names   *topic.Names
	targets *deliver.Targets
	metrics metrics
	hit     func(step string) error // failpoint.Hit
	fault   atomic.Pointer[string]  // why it is not ready; nil: it is
	slow    atomic.Pointer[string]  // which work waits without progress; nil: none

	// Of the watch (watch.go).
	progress            *progress
	leading             atomic.Bool
	member              atomic.Value // string: of the group
	watchPause, endWait time.Duration

	// Owned by the goroutine of Run, while it evaluates.
	definitions map[string]*insight.Definitions
	applied     string // the rules that `insight apply` put in force
	store       store
	memory      *memory
	producer    *kgo.Client
	evaluated   string // what the last round went by
	base        *base  // nil: the next round evaluates all subjects
	codec       *event.Codec
}

type metrics struct {
	evaluating prometheus.Gauge
	lag        prometheus.Gauge
	rounds     *prometheus.CounterVec
	evaluated  *prometheus.CounterVec
	attempts   *prometheus.CounterVec
	dead       *prometheus.CounterVec
	skipped    *prometheus.CounterVec
	last       prometheus.Gauge
	waiting    prometheus.Gauge
	stalls     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) metrics {
	f := promauto.With(reg)
	return metrics{
		evaluating: f.NewGauge(prometheus.GaugeOpts{Name: "uptake_alerts_evaluating", Help: "1 while this process evaluates and delivers."}),
		lag:        f.NewGauge(prometheus.GaugeOpts{Name: "uptake_alerts_writers_lag_seconds", Help: "Age of the oldest record that enrichers or writers have not processed."}),
		rounds:     f.NewCounterVec(prometheus.CounterOpts{Name: "uptake_alerts_rounds_total", Help: "Evaluations by result."}, []string{"result"}),
		evaluated:  f.NewCounterVec(prometheus.CounterOpts{Name: "uptake_alerts_evaluations_total", Help: "Evaluations of an app by the subjects that were evaluated, changed or all, and why all were."}, []string{"subjects", "reason"}),
		attempts:   f.NewCounterVec(prometheus.CounterOpts{Name: "uptake_alerts_attempts_total", Help: "Attempts of delivery by target and result."}, []string{"target", "result"}),
		dead:       f.NewCounterVec(prometheus.CounterOpts{Name: "uptake_alerts_dead_total", Help: "Messages that were given up."}, []string{"target"}),
		skipped:    f.NewCounterVec(prometheus.CounterOpts{Name: "uptake_alerts_skipped_records_total", Help: "Records that no release can have written, by topic."}, []string{"topic"}),
		last:       f.NewGauge(prometheus.GaugeOpts{Name: "uptake_alerts_last_round_seconds", Help: "Unix time of the last evaluation that succeeded."}),
		waiting:    f.NewGauge(prometheus.GaugeOpts{Name: "uptake_alerts_waiting_seconds", Help: "How long the present step, an attempt of delivery beyond its timeout, or an evaluator to appear has been waited for."}),
		stalls:     f.NewCounter(prometheus.CounterOpts{Name: "uptake_alerts_stalls_total", Help: "Times that clients were replaced since work waited without progress."}),
	}
}

func (s *Service) skipped(rec *kgo.Record, err error) {
	s.metrics.skipped.WithLabelValues(rec.Topic).Inc()
	s.log.Error("a record that no release can have written is skipped", "topic", rec.Topic, "offset", rec.Offset, "key", rec.Key, "error", err)
}

// New checks the files that cfg names.
func New(cfg Config, d Dependencies) (*Service, error) {
	s := &Service{cfg: cfg, names: cfg.Kafka.Names(), log: d.Logger, now: d.Now, ready: d.Ready, targets: &deliver.Targets{}, metrics: newMetrics(d.Metrics), hit: failpoint.Hit, progress: &progress{}, watchPause: min(5*time.Second, cfg.StallTimeout/4), endWait: endWait}
	var err error
	if s.kafka, err = cfg.Kafka.Options(d.Logger, nil); err != nil {
		return nil, err
	}
	if cfg.Targets != "" {
		if s.targets, err = deliver.LoadTargets(cfg.Targets); err != nil {
			return nil, err
		}
	}
	if s.definitions, err = cfg.files(); err != nil {
		return nil, err
	}
	starting := "not yet joined the group " + s.names.GroupAlerts
	s.fault.Store(&starting)
	if d.Health != nil {
		d.Health.Register("alerts", func() error {
			for _, why := range []*string{s.fault.Load(), s.slow.Load()} {
				if why != nil {
					return errors.New(*why)
				}
			}
			return nil
		})
	}
	return s, nil
}

// files reads the definitions of the apps that name a file.
func (c *Config) files() (map[string]*insight.Definitions, error) {
	all := map[string]*insight.Definitions{}
	for _, d := range c.Definitions {
		app, file, _ := strings.Cut(d, "=")
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		if all[app], err = insight.Parse(text); err != nil {
			return nil, fmt.Errorf("%s:\n%w", file, err)
		}
	}
	return all, nil
}

// Run evaluates and delivers while it is assigned the partition of the alerts log, and
// waits for it otherwise, until it is asked to stop. When work waits and nothing moves, it
// starts again with new clients (watch.go).
func (s *Service) Run(sig process.Signals) error {
	return s.session(sig.Stop, s.serve)
}

// serve is Run until ctx ends.
func (s *Service) serve(ctx context.Context) error {
	s.progress.enter("start")
	conn, err := clickhouse.OpenViews(&s.cfg.ClickHouse)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // only reads were made
	s.store = store{conn}
	if s.codec, err = s.cfg.Registry.Codec(ctx); err != nil {
		return err
	}
	turns := make(chan bool, 1)
	var mine atomic.Bool
	turn := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, cl *kgo.Client, parts map[string][]int32) {
			if len(parts[s.names.Alerts]) == 0 {
				return
			}
			mine.Store(has)
			id, _ := cl.GroupMetadata()
			s.member.Store(id)
			select {
			case turns <- has:
			default: // there is a turn to be seen; it looks at mine
			}
		}
	}
	group, err := kgo.NewClient(append(
		append([]kgo.Opt{}, s.kafka...),
		kgo.ConsumerGroup(s.names.GroupAlerts), kgo.ConsumeTopics(s.names.Alerts), kgo.DisableAutoCommit(), kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.HeartbeatInterval(s.cfg.SessionTimeout/5), kgo.RebalanceTimeout(s.cfg.SessionTimeout),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()),
		kgo.OnPartitionsAssigned(turn(true)), kgo.OnPartitionsRevoked(turn(false)), kgo.OnPartitionsLost(turn(false)),
	)...)
	if err != nil {
		return fmt.Errorf("join group %s: %w", s.names.GroupAlerts, err)
	}
	if err := topic.CheckRights(ctx, kadm.NewClient(group), s.names.Rights(topic.UserAlerts, topic.BaseGroupEnricher)); err != nil {
		group.Close()
		return err
	}
	if _, err := s.names.Check(ctx, kadm.NewClient(group), s.names.Alerts, s.names.AlertState); err != nil {
		group.Close()
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer s.leave(group)
	wg.Go(func() { // ends with group
		for {
			// A group needs a member that fetches. The fetched records are ignored;
			// memory reads the log itself, up to its end.
			if fetches := group.PollFetches(ctx); fetches.IsClientClosed() || ctx.Err() != nil {
				return
			}
		}
	})
	s.progress.enter("")
	s.fault.Store(nil) // also while another process evaluates
	if s.ready != nil {
		s.ready()
	}
	pause := backoff.Backoff{Min: time.Second, Max: 30 * time.Second}
	for {
		if mine.Load() {
			err := s.lead(ctx, turns, &mine, &pause)
			if ctx.Err() != nil {
				return nil
			}
			if err != nil {
				s.metrics.rounds.WithLabelValues("failed").Inc()
				why := "evaluation failed: " + err.Error()
				s.fault.Store(&why)
				s.log.Error("evaluation failed; retrying", "error", err)
				if backoff.Sleep(ctx, pause.Next()) != nil {
					return nil
				}
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-turns:
		}
	}
}

// leave closes the client of the group. One that hangs is abandoned: the group forgets it
// after alerts-session-timeout.
func (s *Service) leave(group *kgo.Client) {
	closed := make(chan struct{})
	go func() { // ends when the client does, perhaps never if it hangs
		defer close(closed)
		group.Close()
	}()
	select {
	case <-closed:
	case <-time.After(askTimeout):
		s.log.Error("the client of the group does not close", "group", s.names.GroupAlerts)
	}
}

// lead evaluates and delivers until the partition is revoked, something fails or ctx
// ends. It starts from the state in the log.
func (s *Service) lead(ctx context.Context, turns <-chan bool, mine *atomic.Bool, pause *backoff.Backoff) (err error) {
	s.metrics.evaluating.Set(1)
	s.leading.Store(true)
	defer func() {
		s.metrics.evaluating.Set(0)
		s.leading.Store(false)
		s.progress.enter("")
	}()
	s.log.Info("evaluating")
	r, err := reader.New(s.kafka...)
	if err != nil {
		return err
	}
	defer r.Close()
	s.memory, s.evaluated, s.base = newMemory(r, s.names, s.skipped), "", nil
	if s.producer, err = kgo.NewClient(append(append([]kgo.Opt{}, s.kafka...), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()))...); err != nil {
		return err
	}
	defer s.producer.Close()
	d, reports := newDispatcher(s), newReporter(s)
	attempts, stop := context.WithCancel(ctx)
	defer func() {
		stop()
		err = errors.Join(err, d.drain(context.WithoutCancel(ctx)), reports.drain(context.WithoutCancel(ctx)))
	}()
	ticker := time.NewTicker(min(time.Second, s.cfg.Interval))
	defer ticker.Stop()
	var next time.Time
	for mine.Load() {
		now := s.now()
		if !now.Before(next) {
			s.progress.enter("read the definitions, and how far the writers have come")
			if err := s.again(ctx, now); err != nil {
				return err
			}
			next = now.Add(s.cfg.Interval)
			pause.Reset()
		}
		s.progress.enter("read the alerts log and the state")
		if err := s.memory.catchUp(ctx); err != nil {
			return err
		}
		d.take(now)
		if err := d.start(attempts, now); err != nil {
			return err
		}
		s.progress.enter("read the schedules of mails")
		if err := reports.start(attempts, now); err != nil {
			return err
		}
		s.progress.idle(fmt.Sprintf("read up to %v, %d subjects, %d messages to deliver, next round at %s", s.memory.next, len(s.memory.subjects), d.waiting(), next.UTC().Format(time.RFC3339)))
		select {
		case <-ctx.Done():
			return nil
		case <-turns:
		case <-ticker.C:
		case a := <-d.results:
			s.progress.enter("record deliveries")
			if err := d.finish(ctx, a); err != nil {
				return err
			}
		case r := <-reports.results:
			s.progress.enter("record mails")
			if err := reports.finish(ctx, r); err != nil {
				return err
			}
		}
	}
	s.log.Info("another process evaluates")
	return nil
}

// load reads the definitions of every app: those of files, and of all other apps what
// `insight apply` put in force.
func (s *Service) load(ctx context.Context) (map[string]*insight.Definitions, error) {
	all, err := s.store.applied(ctx)
	if err != nil {
		return nil, err
	}
	files, err := s.cfg.files()
	if err != nil {
		return nil, err
	}
	s.applied = rulesText(all) // with the exclusions, also of an app that has a file
	maps.Copy(all, files)
	return all, nil
}

// again runs one round with the present definitions. A file that is no longer valid is
// reported, and the previous definitions stay in force.
func (s *Service) again(ctx context.Context, now time.Time) error {
	if loaded, err := s.load(ctx); err != nil {
		s.log.Error("reading the definitions failed; the previous ones stay in force", "error", err)
	} else {
		s.definitions = loaded
	}
	err := s.round(ctx, now)
	if errors.Is(err, errOvertaken) {
		return nil
	}
	if err == nil {
		s.metrics.rounds.WithLabelValues("ok").Inc()
		s.fault.Store(nil)
		s.metrics.last.Set(float64(s.now().Unix()))
	}
	return err
}

// lag is the age of the oldest event that enrichers or writers have not processed, and
// how far they have come.
func (s *Service) lag(ctx context.Context, now time.Time) (oldest time.Duration, at position, err error) {
	adm := kadm.NewClient(s.producer)
	at = position{next: map[int32]int64{}, log: map[int32]reader.Bounds{}}
	for group, name := range map[string]string{s.names.GroupEnricher: s.names.Raw, s.names.GroupRollupWriter: s.names.Enriched} {
		committed, err := adm.FetchOffsets(ctx, group)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // nobody of it has run yet
			return 0, at, fmt.Errorf("offsets of group %s: %w", group, err)
		}
		ends, err := adm.ListEndOffsets(ctx, name)
		if err != nil {
			return 0, at, fmt.Errorf("end of %s: %w", name, err)
		}
		starts, err := adm.ListStartOffsets(ctx, name)
		if err != nil {
			return 0, at, fmt.Errorf("start of %s: %w", name, err)
		}
		var fault error
		for _, end := range ends.Offsets().Sorted() {
			bounds := reader.Bounds{End: end.At}
			if start, ok := starts.Lookup(name, end.Partition); ok {
				bounds.Start = start.Offset
			}
			from := bounds.Start
			o, ok := committed.Lookup(name, end.Partition)
			if ok && o.At > from {
				from = o.At
			}
			at.sum += from
			if name == s.names.Enriched {
				at.next[end.Partition], at.log[end.Partition] = from, bounds
				at.tables += tablesOf(o.Metadata, from)
			}
			if from >= end.At || fault != nil {
				continue
			}
			received, err := s.firstEvent(ctx, name, end.Partition, from, end.At)
			if err != nil {
				fault = err
			} else if !received.IsZero() {
				oldest = max(oldest, now.Sub(received))
			}
		}
		if fault != nil {
			return 0, at, fault
		}
	}
	return oldest, at, nil
}

// tablesOf is what a writer's commit says of the tables: it is another text when they
// were rebuilt, restored or filled from another topic. While writers read the log for
// another time, which replaces the ids of erased persons, no two texts are equal.
func tablesOf(metadata string, next int64) string {
	c, err := block.ParseCommit(metadata)
	if err != nil {
		return "|" // no writer has committed
	}
	text := fmt.Sprintf("%s %d %t|", c.TopicID, c.Generation, c.Rebuild)
	if c.Replay > 0 {
		text += fmt.Sprint(next)
	}
	return text
}

// errFound ends reading.
var errFound = errors.New("found")

// firstEvent returns the time of the first record in a range that is not a tick; zero
// if there is none.
func (s *Service) firstEvent(ctx context.Context, name string, partition int32, from, to int64) (at time.Time, err error) {
	err = s.memory.read.Span(ctx, name, partition, from, to, func(rec *kgo.Record) error {
		if kind, err := s.codec.Type(rec.Value); err == nil && kind == event.TypeControl {
			return nil // ticks, and moves that stand behind the events that they are about
		}
		at = rec.Timestamp
		return errFound
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return at, err
}
