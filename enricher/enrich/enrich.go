// Package enrich is the enricher: it reads raw and links, and writes enriched,
// rejected, links and enricher-state, in Kafka transactions.
//
// Outputs, state and offsets change together in a transaction or not at all; the log is
// the source of truth. The package owns the client and its transactions (session.go),
// one worker per assigned partition with the partition's state (worker.go), the path of
// a record through the stages (record.go), and the rebuilding of state from the log
// when a partition is assigned (restore.go). The stages themselves are packages below
// internal. The module's DESIGN.md describes the protocol and its reasons.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/dedup"
	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/enricher/internal/timing"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Dependencies of a Service. Logger must be set; the others may be nil.
type Dependencies struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
	Health  *ops.Health
	Now     func() time.Time
}

// Service is one instance of the enricher.
type Service struct {
	cfg     Config
	log     *slog.Logger
	reg     prometheus.Registerer
	metrics *metrics
	health  *health
	lag     *ops.Lag
	// verdicts has who looks at which app.
	verdicts *verdicts
	now      func() time.Time
	names    *topic.Names

	// Set by Run before any goroutine starts.
	codec     *event.Codec
	topics    map[string]topic.Info
	rejected  int32 // partitions of rejected
	store     *dedup.Store
	catalogs  *catalogs
	timing    *timing.Rule
	agreement *metadata.Agreement
	privacy   *privacy.File

	identityMetrics *identity.Metrics
	watch           *watch

	// Reported at the end; owned by the goroutine that runs sessions.
	flushed struct{ transactions, records int }

	// maxRecords is the number of records at which a transaction currently ends, see
	// pace. It is owned by the goroutine that runs sessions.
	maxRecords int

	mu     sync.Mutex // covers parked, and store against the health check
	parked map[int32]*partition
}

// ErrFenced is in the chain of Run's error when another process uses the same
// transactional id.
var ErrFenced = errors.New("another process uses the transactional id")

// New returns a service. cfg must be valid.
func New(cfg Config, deps Dependencies) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		cfg:    cfg,
		log:    deps.Logger,
		reg:    deps.Metrics,
		now:    deps.Now,
		names:  cfg.Kafka.Names(),
		parked: map[int32]*partition{},
	}
	if cfg.now != nil {
		s.now = cfg.now
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.verdicts = &verdicts{svc: s}
	s.health, s.watch, s.lag = newHealth(), &watch{svc: s}, ops.NewLag(deps.Logger, ops.LagFloor)
	s.health.also(s.watch.check)
	if deps.Health != nil {
		deps.Health.Register("enricher", s.health.check)
		deps.Health.Note("lag", s.lag.String)
	}
	s.metrics = newMetrics(deps.Metrics)
	s.setMaxRecords(cfg.MaxRecords)
	s.identityMetrics = identity.NewMetrics(deps.Metrics)
	return s, nil
}

// checked are the topics that must exist and have the right settings.
func (s *Service) checked() []string {
	return []string{s.names.Raw, s.names.Links, s.names.Enriched, s.names.Rejected, s.names.Catalog, s.names.Metadata, s.names.EnricherState, s.names.Verdicts, s.names.VerdictRequests}
}

// Run serves until sig.Stop ends. Then it finishes the open transaction, leaves the
// group and closes what it opened. When sig.Kill ends it abandons what is not
// committed; the next instance repeats it. Run returns an error if it cannot serve as
// configured. A fault that may pass by itself is retried forever and shown as not
// ready.
func (s *Service) Run(sig process.Signals) (err error) {
	if err := os.MkdirAll(s.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("data-dir: %w", err)
	}
	instance, err := s.instanceID()
	if err != nil {
		return err
	}
	s.store, err = dedup.Open(s.dedupConfig(), s.log)
	if err != nil {
		return err
	}
	s.health.also(func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.store.Err()
	})
	defer func() { err = errors.Join(err, s.closeState()) }()

	if s.codec, err = s.cfg.Registry.Codec(sig.Stop); err != nil {
		return err
	}
	if err := s.checkTopics(sig.Stop); err != nil {
		if sig.Stop.Err() != nil {
			return nil
		}
		return err
	}

	s.timing = timing.New(s.cfg.Timing)
	if s.privacy, err = privacy.Open(s.cfg.PrivacyFile); err != nil {
		return err
	}
	if s.cfg.PrivacyFile != "" {
		s.log.Warn("privacy rules are applied after raw: unless the gateways have the same file, the raw topic, and what gateways and enrichers reject, "+
			"in the rejected topic and in rejected_events, hold the original values", "file", s.cfg.PrivacyFile)
	}
	s.catalogs = newCatalogs(s)
	opts, err := s.clientOptions("metadata", nil)
	if err != nil {
		return err
	}
	s.agreement, err = metadata.NewAgreement(metadata.AgreementConfig{
		Options: opts, Names: s.names, Limits: s.cfg.Metadata, Logger: s.log, Metrics: s.reg, Now: s.now,
	})
	if err != nil {
		return err
	}
	defer s.agreement.Close()
	ctx, stop := context.WithCancel(sig.Stop)
	var followers sync.WaitGroup
	defer followers.Wait()
	defer stop()
	followers.Go(func() { s.follow(ctx, s.names.Catalog, s.catalogs.follow) })
	followers.Go(func() { s.follow(ctx, s.names.Metadata, s.agreement.Run) })
	followers.Go(func() { s.verdicts.run(ctx) })
	followers.Go(func() { s.watch.run(ctx) })
	followers.Go(func() { s.privacy.Follow(ctx, privacyPoll, s.privacyRead) })
	for _, ready := range []<-chan struct{}{s.catalogs.ready, s.agreement.Ready()} {
		select {
		case <-ready:
		case <-sig.Stop.Done():
			return nil
		}
	}
	s.health.failed(nil)
	return s.serve(sig, instance)
}

// follow runs a follower of a topic until ctx ends.
func (s *Service) follow(ctx context.Context, name string, run func(context.Context) error) {
	pause := backoff.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	for {
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		err = fmt.Errorf("topic %s cannot be followed: %w", name, err)
		s.health.failed(err)
		s.log.Warn("topic cannot be followed", "topic", name, "error", err)
		if backoff.Sleep(ctx, pause.Next()) != nil {
			return
		}
	}
}

// serve runs one session after the other. A session ends with its client: after any
// error in a transaction the client is discarded.
func (s *Service) serve(sig process.Signals, instance string) error {
	txnID := s.group() + "-" + instance
	var fenced []time.Time
	pause := backoff.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}
	for {
		commits, err := s.runSession(sig, txnID)
		switch {
		case err == nil:
			s.log.Info("stopped", "transactions_committed", s.flushed.transactions, "records_committed", s.flushed.records)
			return nil
		case sig.Kill.Err() != nil:
			return context.Cause(sig.Kill)
		case errors.Is(err, errPermanent):
			return err
		}
		if commits > 0 {
			pause.Reset()
		}
		if isFenced(err) {
			// A transaction of this instance that the coordinator timed out looks the
			// same, but that does not happen this often.
			now := s.now()
			fenced = append(slices.DeleteFunc(fenced, func(at time.Time) bool { return now.Sub(at) > fenceWindow }), now)
			if len(fenced) >= maxFences {
				return fmt.Errorf("%w %q: give each instance its own instance-id: %w", ErrFenced, txnID, err)
			}
		}
		s.metrics.sessions.WithLabelValues(reasonOf(err)).Inc()
		s.health.failed(err)
		if err := s.renewStore(); err != nil {
			return err
		}
		wait := pause.Next()
		s.log.Warn("session ended; starting a new client", "error", err, "commits", commits, "wait", wait)
		if backoff.Sleep(sig.Stop, wait) != nil {
			return nil
		}
	}
}

// pace adapts maxRecords to the duration of a transaction. One that took half of its
// timeout without being committed is split: the next ones have half as many records,
// down to one. Quick transactions double the number again.
func (s *Service) pace(records int, committed bool, took time.Duration) {
	switch {
	case !committed && took >= s.cfg.TransactionTimeout/2:
		s.setMaxRecords(max(1, min(records, s.maxRecords)/2))
		s.log.Warn("transaction took too long; the next ones have fewer records", "records", records, "took", took, "max_records", s.maxRecords)
	case committed && s.maxRecords < s.cfg.MaxRecords && took < s.cfg.TransactionTimeout/8:
		s.setMaxRecords(min(s.cfg.MaxRecords, 2*s.maxRecords))
	}
}

func (s *Service) setMaxRecords(n int) {
	s.maxRecords = n
	s.metrics.maxRecords.Set(float64(n))
}

// An instance that is fenced this often shares its transactional id with another
// process: each fences the other.
const (
	fenceWindow = time.Minute
	maxFences   = 30
)

// renewStore replaces a dedup store that is broken on disk. It is called while no
// worker runs.
func (s *Service) renewStore() error {
	if !s.store.Broken() {
		return nil
	}
	s.log.Warn("rebuilding the dedup store from the log")
	s.keepParked(nil)
	if err := s.store.Close(); err != nil {
		s.log.Warn("broken dedup store could not be closed", "error", err)
	}
	cfg := s.dedupConfig()
	if err := os.RemoveAll(cfg.Dir); err != nil {
		return fmt.Errorf("remove broken dedup store: %w", err)
	}
	store, err := dedup.Open(cfg, s.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = store
	return nil
}

// errPermanent is in the chain of errors that a retry cannot fix.
var errPermanent = errors.New("cannot serve")

func isFenced(err error) bool {
	return errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerEpoch) ||
		errors.Is(err, kerr.FencedInstanceID) || errors.Is(err, kerr.InvalidProducerIDMapping)
}

func reasonOf(err error) string {
	var ke *kerr.Error
	switch {
	case isFenced(err):
		return "fenced"
	case errors.As(err, &ke):
		return strings.ToLower(ke.Message)
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, errStalled):
		return "stalled"
	}
	return "other"
}

// checkTopics waits until the cluster answers and checks the topics that the service
// relies on.
func (s *Service) checkTopics(ctx context.Context) error {
	opts, err := s.clientOptions("check", nil)
	if err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	pause := backoff.Backoff{Min: 100 * time.Millisecond, Max: 5 * time.Second}
	for {
		askCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := cl.Ping(askCtx)
		if err == nil {
			err = topic.CheckRights(askCtx, kadm.NewClient(cl), s.names.Rights(topic.UserEnricher, s.cfg.Group))
		}
		if err == nil {
			s.topics, err = s.names.Check(askCtx, kadm.NewClient(cl), s.checked()...)
			if err == nil {
				cancel()
				s.rejected = s.topics[s.names.Rejected].Partitions
				if err := s.checkWindow(); err != nil {
					return err
				}
				if err = s.checkInstallation(ctx, kadm.NewClient(cl)); err == nil {
					return nil
				}
			}
		}
		cancel()
		if wrong, ok := errors.AsType[*topic.FaultError](err); ok && !wrong.Passes() || errors.Is(err, errPermanent) {
			return err
		}
		s.health.failed(fmt.Errorf("topics cannot be checked: %w", err))
		s.log.Warn("topics cannot be checked", "brokers", s.cfg.Kafka.Brokers.String(), "error", err)
		if err := backoff.Sleep(ctx, pause.Next()); err != nil {
			return err
		}
	}
}

// checkWindow refuses a window of message ids that could not be rebuilt: without its
// disk an enricher would take a repeat of what enriched has lost for a new event.
func (s *Service) checkWindow() error {
	if kept := s.topics[s.names.Enriched].Retention; kept > 0 && s.cfg.DedupWindow > kept {
		return fmt.Errorf("%w: dedup-window must be at most %s, the retention.ms of topic %s, from which the ids are rebuilt (got %s)",
			errPermanent, kept, s.names.Enriched, s.cfg.DedupWindow)
	}
	return nil
}

// clientOptions returns the connection options of a client, by role.
func (s *Service) clientOptions(role string, reg prometheus.Registerer) ([]kgo.Opt, error) {
	k := s.cfg.Kafka
	k.ClientID += "-" + role
	opts, err := k.Options(slog.New(quiet{s.log.Handler()}), reg)
	if err != nil {
		return nil, err
	}
	return append(opts, s.cfg.extra...), nil
}

// quiet drops the client library's log lines below warnings unless debug is on: at info
// it logs every step of every transaction.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return (l >= slog.LevelWarn || q.Handler.Enabled(ctx, slog.LevelDebug)) && q.Handler.Enabled(ctx, l)
}

func (q quiet) WithAttrs(a []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(a)} }

func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

// instanceID returns the name of this instance, which is stable across restarts: a
// successor with the same transactional id ends the transaction that its predecessor
// left open.
func (s *Service) instanceID() (string, error) {
	if s.cfg.InstanceID != "" {
		return s.cfg.InstanceID, nil
	}
	path := filepath.Join(s.cfg.DataDir, "instance-id")
	b, err := os.ReadFile(path)
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("instance-id: %w", err)
	}
	id := uuid.NewString()
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("instance-id: %w", err)
	}
	return id, nil
}

func (s *Service) dedupConfig() dedup.Config {
	c := dedup.DefaultConfig(filepath.Join(s.cfg.DataDir, "dedup"))
	c.Window = s.cfg.DedupWindow
	c.CacheSize = s.cfg.DedupCacheBytes
	c.Recent = s.cfg.DedupRecentBytes
	c.MaxIDs = s.cfg.DedupMaxIDs
	return c
}

// group is the instances' consumer group.
func (s *Service) group() string { return s.names.Prefix + s.cfg.Group }

func (s *Service) enrichedID() [16]byte { return s.topics[s.names.Enriched].ID }

func (s *Service) identityConfig() identity.Config {
	c := s.cfg.Identity
	c.Partitions = s.topics[s.names.Raw].Partitions
	c.MaxOutputBytes = int64(s.cfg.OutputBytes)
	return c
}

// closeState closes the state of parked partitions, and the store.
func (s *Service) closeState() error {
	s.keepParked(nil)
	return s.store.Close()
}

// take returns the state of a partition that an earlier session parked, or nil.
func (s *Service) take(id int32) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parked[id]
	delete(s.parked, id)
	return p
}

// park keeps the state of a partition for the next assignment.
func (s *Service) park(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.parked[p.id] = p
}

// keepParked drops the parked state of all partitions but those named.
func (s *Service) keepParked(assigned map[int32]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.parked {
		if !assigned[id] {
			delete(s.parked, id)
			if err := p.close(); err != nil {
				s.log.Warn("partition state could not be closed", "partition", id, "error", err)
			}
		}
	}
}
