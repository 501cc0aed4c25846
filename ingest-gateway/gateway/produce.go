package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kslog"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/topic"
)

// producer writes the records of batches and keeps track of whether the cluster accepts
// them. It owns the Kafka client.
type producer struct {
	client   atomic.Pointer[kgo.Client]
	open     func(prometheus.Registerer) (*kgo.Client, error)
	names    *topic.Names
	reg      prometheus.Registerer
	stall    time.Duration   // stall-timeout
	ids      [2]kadm.TopicID // of raw and rejected, at the last check
	log      *slog.Logger
	metrics  *metrics
	now      func() time.Time
	linger   time.Duration
	inflight budget // of MaxInflightEvents: records not acked

	hurries sync.Mutex // covers rested
	rested  time.Time  // when hurry may run again

	partitions atomic.Pointer[partitions] // nil until the topics were checked
	trouble    atomic.Pointer[trouble]    // nil while the cluster accepts records

	acks  atomic.Int64            // since the start
	waits atomic.Pointer[trouble] // records have waited long without any ack; nil: they have not

	// Owned by watch: when acks was last seen to grow, or nothing waited.
	seen  int64
	moved time.Time
}

// partitions are the counts of the topics, which never change.
type partitions struct{ raw, rejected int32 }

// trouble is the reason why the gateway is not ready.
type trouble struct{ err error }

// batchOverhead is what a record batch may need beside one record's value.
const batchOverhead = 64 << 10

func newProducer(cfg Config, log *slog.Logger, reg prometheus.Registerer, m *metrics, now func() time.Time) (*producer, error) {
	p := &producer{names: cfg.Kafka.Names(), log: log, metrics: m, now: now, linger: cfg.Linger, stall: cfg.StallTimeout}
	p.inflight.limit = cfg.MaxInflightEvents
	p.trouble.Store(&trouble{errors.New("the topics have not been checked yet")})
	compression, err := codecOf(cfg.Compression)
	if err != nil {
		return nil, err
	}
	own := append([]kgo.Opt{
		kgo.WithLogger(quiet{kslog.New(log.With("component", "kafka"))}),
		kgo.RequiredAcks(kgo.AllISRAcks()), // with idempotence, the default: an ack is durable and a retry no duplicate
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(cfg.Linger),
		kgo.ProducerBatchCompression(compression),
		kgo.ProducerBatchMaxBytes(int32(max(1_000_012, cfg.Limits.MaxEventBytes+batchOverhead))),
		// A record that was never sent fails after this; one that may have been written
		// is kept until the brokers answer, and counts as in flight.
		kgo.RecordDeliveryTimeout(cfg.AckTimeout),
		// Higher than the gateway's own bound, so that Produce never blocks.
		kgo.MaxBufferedRecords(int(2 * cfg.MaxInflightEvents)),
	}, cfg.extra...)
	p.open = func(reg prometheus.Registerer) (*kgo.Client, error) {
		opts, err := cfg.Kafka.Options(log, reg)
		if err != nil {
			return nil, err
		}
		cl, err := kgo.NewClient(append(opts, own...)...)
		if err != nil {
			return nil, fmt.Errorf("kafka client: %w", err)
		}
		return cl, nil
	}
	p.reg = reg
	cl, err := p.open(reg)
	if err != nil {
		return nil, err
	}
	p.client.Store(cl)
	return p, nil
}

// ready is the readiness check.
func (p *producer) ready() error {
	if t := cmp.Or(p.trouble.Load(), p.waits.Load()); t != nil {
		return t.err
	}
	return nil
}

// checkEvery is the interval of checks while the cluster is in trouble.
const (
	checkEvery   = time.Second
	checkTimeout = 10 * time.Second
	logEvery     = 10 * time.Second
)

// watch checks the topics until they are correct, and again whenever records failed,
// until ctx ends. Nothing else logs the state of the cluster.
func (p *producer) watch(ctx context.Context) {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	var logged time.Time
	for {
		if t := p.trouble.Load(); t != nil {
			err := p.check(ctx)
			if ctx.Err() != nil {
				return
			}
			n := p.partitions.Load()
			now := p.now()
			quiet := now.Sub(logged) < logEvery
			switch {
			case err != nil:
				p.trouble.Store(&trouble{err})
				if !quiet {
					p.log.Warn("kafka is not usable; events are refused until it is", "error", err)
					logged = now
				}
			case p.trouble.CompareAndSwap(t, nil) && !quiet:
				// The cluster answers; the earlier failure was partial or has passed.
				p.log.Info("kafka reachable", "raw", p.names.Raw, "raw_partitions", n.raw, "rejected_partitions", n.rejected, "before", t.err)
				logged = now
			}
		}
		p.progress(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// waitingTime is how long records may be in flight without any ack before the gateway is
// not ready.
const waitingTime = time.Minute

// progress detects records that are in flight while none is acked. After waitingTime the
// gateway is not ready; after stall-timeout, if another client reaches the cluster, the
// client is replaced. The records that it held fail; their requests were answered 503
// long ago, so their senders send them again.
func (p *producer) progress(ctx context.Context) {
	now := p.now()
	if acks := p.acks.Load(); acks != p.seen || p.unacked() == 0 && p.trouble.Load() == nil || p.moved.IsZero() {
		p.seen, p.moved = acks, now
	}
	wait := now.Sub(p.moved)
	if wait < min(waitingTime, p.stall) || p.unacked() == 0 {
		p.waits.Store(nil)
		return
	}
	p.waits.Store(&trouble{fmt.Errorf("%d records are in flight and none was acked for %s", p.unacked(), wait.Round(time.Second))})
	if wait < p.stall {
		return
	}
	p.moved = now
	probe, err := p.open(nil)
	if err != nil {
		return
	}
	defer probe.Close()
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if _, err := p.names.Check(ctx, kadm.NewClient(probe), p.names.Raw, p.names.Rejected); err != nil {
		return // the cluster is what does not answer
	}
	p.replace(wait)
}

// replace logs what the client knows, closes it and opens another one.
func (p *producer) replace(wait time.Duration) {
	path := ops.Stacks("uptake-gateway-stall-*.txt")
	p.log.Error("records are in flight and none is acked; replacing the kafka client", "in_flight", p.unacked(), "for", wait.Round(time.Second), "stacks", path)
	p.metrics.stalls.Inc()
	p.reopen()
}

// reopen closes the client and opens another one. Records that the old one held fail.
func (p *producer) reopen() {
	old := p.client.Load()
	closed := make(chan struct{})
	reg := p.reg
	go func() { // ends when the client does, perhaps never if it hangs
		defer close(closed)
		p.log.Error("client", "produced", old.BufferedProduceRecords(), "produced_bytes", old.BufferedProduceBytes())
		old.Close()
	}()
	select {
	case <-closed:
	case <-time.After(checkTimeout):
		p.log.Error("the client does not close; the new one has no metrics")
		reg = nil
	}
	cl, err := p.open(reg)
	if err != nil { // opened once, so its options are right
		p.log.Error("opening another client failed", "error", err)
		return
	}
	p.client.Store(cl)
}

func (p *producer) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := topic.CheckRights(ctx, kadm.NewClient(p.client.Load()), p.names.Rights(topic.UserGateway, topic.BaseGroupEnricher)); err != nil {
		return err
	}
	infos, err := p.names.Check(ctx, kadm.NewClient(p.client.Load()), p.names.Raw, p.names.Rejected)
	if err != nil {
		return err
	}
	n := partitions{raw: infos[p.names.Raw].Partitions, rejected: infos[p.names.Rejected].Partitions}
	if old := p.partitions.Load(); old != nil && *old != n {
		return fmt.Errorf("partition counts changed from %+v to %+v: keys would go to other partitions; create topics of a new major version", *old, n)
	}
	p.partitions.Store(&n)
	ids := [...]kadm.TopicID{infos[p.names.Raw].ID, infos[p.names.Rejected].ID}
	if p.ids != ids && p.ids != [len(ids)]kadm.TopicID{} {
		// A producer of franz-go goes on with the id that a topic had, which no broker knows.
		p.log.Warn("topics were deleted and created again; replacing the kafka client", "topics", []string{p.names.Raw, p.names.Rejected})
		p.reopen()
	}
	p.ids = ids
	return nil
}

// flight is the records of one request in flight. It belongs to an exchange, whose slab
// its records point into: neither may be reused before refs is 0.
type flight struct {
	exchange *exchange
	records  []produced
	refs     atomic.Int64 // records without a result, plus one while the request is being answered
	failures atomic.Int64
	failure  atomic.Pointer[error] // the first
	done     chan struct{}         // gets a value when every record has its result
	started  time.Time
	promise  func(*kgo.Record, error)
	answered atomic.Bool // the request was answered: later results are late
}

// produced is a record with its result. The record is the first field, so that a
// promise finds the rest by its address.
type produced struct {
	kgo.Record
	item     int32
	rejected bool
	result   atomic.Int32
}

// Values of produced.result.
const (
	resultPending = iota
	resultAcked
	resultFailed
)

func newFlight(x *exchange) *flight {
	f := &flight{exchange: x, done: make(chan struct{}, 1)}
	f.promise = f.finished
	return f
}

// start hands the batch's records to the client. The caller holds a reference
// until release.
func (p *producer) start(f *flight, b *ingest.Batch, n int, received time.Time) {
	counts, cl := p.partitions.Load(), p.client.Load()
	if cap(f.records) < n {
		f.records = make([]produced, n)
	}
	f.records = f.records[:n]
	f.refs.Store(int64(n) + 1)
	f.failures.Store(0)
	f.failure.Store(nil)
	f.answered.Store(false)
	f.started = p.now()
	for i := range f.records {
		r := b.Record(i)
		rec := &f.records[i]
		rec.item, rec.rejected = int32(r.Item), r.Rejected
		rec.result.Store(resultPending)
		rec.Record = kgo.Record{Key: r.Key, Value: r.Value, Timestamp: received, Topic: p.names.Raw, Partition: topic.Partition(r.Key, counts.raw)}
		if r.Rejected {
			rec.Topic, rec.Partition = p.names.Rejected, topic.Partition(r.Key, counts.rejected)
		}
		cl.Produce(context.Background(), &rec.Record, f.promise)
	}
}

// hurry sends lingering records without waiting: a Flush whose context is already
// cancelled is the client's only way to end all lingers. It looks at every partition,
// so it then rests for a multiple of the time it took, or for a linger: with thousands
// of partitions it would cost more than it saves.
func (p *producer) hurry() {
	if p.linger == 0 || !p.hurries.TryLock() {
		return
	}
	defer p.hurries.Unlock()
	began := p.now()
	if began.Before(p.rested) {
		return
	}
	_ = p.client.Load().Flush(over) // returns the cancelled context's error at once
	p.rested = began.Add(min(restFactor*p.now().Sub(began), p.linger))
}

// restFactor bounds hurry to a tenth of a core.
const restFactor = 10

var over = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// quiet is the client's logger without its lines about each Flush.
type quiet struct{ kgo.Logger }

// Log implements kgo.Logger.
func (q quiet) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	if msg != "flushing" && msg != "flushed" {
		q.Logger.Log(level, msg, keyvals...)
	}
}

// finished is the promise of every record. The client calls it from one goroutine, so
// it only counts.
func (f *flight) finished(r *kgo.Record, err error) {
	rec := (*produced)(unsafe.Pointer(r))
	m := f.exchange.gateway.metrics
	topicIndex := 0
	if rec.rejected {
		topicIndex = 1
	}
	late := f.answered.Load()
	if err != nil {
		rec.result.Store(resultFailed)
		if f.failures.Add(1) == 1 {
			first := err // a copy, or every err would be on the heap
			f.failure.Store(&first)
		}
		m.failed[topicIndex].Inc()
		if late {
			m.lateFails.Inc()
		}
	} else {
		rec.result.Store(resultAcked)
		f.exchange.gateway.producer.acks.Add(1)
		m.acked[topicIndex].Inc()
		if late {
			m.lateStored.Inc()
		}
	}
	f.exchange.gateway.producer.inflight.give(1)
	switch f.refs.Add(-1) {
	case 1:
		f.done <- struct{}{}
	case 0:
		f.exchange.recycle()
	}
}

// settle marks the items of the batch that are not known to be stored, and returns how
// many records were refused and how many have no result yet.
func (f *flight) settle(b *ingest.Batch) (failed, pending int) {
	for i := range f.records {
		rec := &f.records[i]
		switch rec.result.Load() {
		case resultAcked:
			continue
		case resultFailed:
			failed++
		default:
			pending++
		}
		b.Fail(int(rec.item))
	}
	return failed, pending
}

// suspect notes that records were not acked; watch checks the cluster.
func (p *producer) suspect(err error) { p.trouble.CompareAndSwap(nil, &trouble{err}) }

// reason words an error of the client for replies: brokers' errors by name, without
// host names.
func reason(err error) string {
	var ke *kerr.Error
	switch {
	case errors.As(err, &ke):
		return ke.Message
	case errors.Is(err, kgo.ErrRecordTimeout):
		return "timed out"
	case errors.Is(err, kgo.ErrClientClosed):
		return "the gateway is stopping"
	}
	return "the brokers cannot be reached"
}

func (p *producer) unacked() int64 { return p.inflight.used.Load() }

// close waits, up to the deadline, for the records that the client holds, and closes
// it. It returns how many of the records in flight were acked and how many were not; no
// request with one of the latter was answered with success.
func (p *producer) close(deadline context.Context) (flushed, lost int64) {
	before := p.unacked()
	cl := p.client.Load()
	if err := cl.Flush(deadline); err != nil && p.unacked() > 0 {
		p.log.Warn("flush was cut short", "error", err)
	}
	lost = p.unacked()
	cl.Close() // fails the remaining records; all promises have run when it returns
	return before - lost, lost
}
