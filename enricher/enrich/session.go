package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/svc/process"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// session is the life of one client: from joining the group to the first error in a
// transaction, or to the stop.
//
// Rebalances are blocked from a poll to the AllowRebalance that follows it, and every
// transaction begins and ends in between. So the group's callbacks never run while a
// transaction is open, and a worker is idle or restoring when they stop it.
type session struct {
	svc    *Service
	txnID  string
	log    *slog.Logger
	gts    *kgo.GroupTransactSession
	cl     *kgo.Client
	made   chan struct{} // closed when gts and cl are set: callbacks may be called earlier
	reader *reader.Reader

	ctx  context.Context // for restoring and polling; ends with the stop or with fail
	fail context.CancelCauseFunc

	mu      sync.Mutex // covers workers
	workers map[int32]*worker

	// rebalanced means that partitions were revoked since the last transaction: the
	// library would abort the next one, see cycle.
	rebalanced atomic.Bool

	commits atomic.Int64
	phase   atomic.Pointer[string] // current activity, for diagnostics
}

// at sets the session's current activity.
func (n *session) at(phase string) { n.phase.Store(&phase) }

// runSession serves with a new client. It returns how many transactions it
// committed, and nil when it ended because of the stop.
func (s *Service) runSession(sig process.Signals, txnID string) (commits int, err error) {
	ctx, fail := context.WithCancelCause(sig.Stop)
	defer fail(nil)
	n := &session{svc: s, txnID: txnID, log: s.log, ctx: ctx, fail: fail, made: make(chan struct{}), workers: map[int32]*worker{}}
	n.at("start")

	opts, err := s.clientOptions("replay", nil)
	if err != nil {
		return 0, err
	}
	if n.reader, err = reader.New(opts...); err != nil {
		return 0, err
	}
	defer n.reader.Close()

	if opts, err = n.options(); err != nil {
		return 0, err
	}
	if n.gts, err = kgo.NewGroupTransactSession(opts...); err != nil {
		return 0, fmt.Errorf("kafka client: %w", err)
	}
	n.cl = n.gts.Client()
	close(n.made)
	defer n.stopWorkers()
	defer n.close(sig.Kill)
	s.watch.serves(n)
	defer s.watch.serves(nil)

	err = n.fence(ctx)
	for err == nil && ctx.Err() == nil {
		err = n.cycle(sig.Kill)
	}
	if err == nil && sig.Stop.Err() == nil {
		err = context.Cause(ctx)
	}
	return int(n.commits.Load()), err
}

// close leaves the group and closes the client. Callbacks run during the call.
func (n *session) close(kill context.Context) {
	n.fail(nil) // restores end
	if kill.Err() == nil {
		n.gts.AllowRebalance()
		ctx, cancel := context.WithTimeout(kill, 5*time.Second)
		defer cancel()
		if err := n.cl.LeaveGroupContext(ctx); err != nil {
			n.log.Warn("leaving the group failed; its other members wait for the session timeout", "error", err)
		}
	}
	n.gts.CloseAllowingRebalance()
}

func (n *session) options() ([]kgo.Opt, error) {
	c := &n.svc.cfg
	opts, err := n.svc.clientOptions("main", n.svc.reg)
	if err != nil {
		return nil, err
	}
	codec, err := compression(c.Compression)
	if err != nil {
		return nil, err
	}
	opts = append(
		opts,
		kgo.ConsumerGroup(n.svc.group()),
		kgo.ConsumeTopics(n.svc.names.Raw, n.svc.names.Links),
		// The range balancer gives a member the same partitions of all topics, if all
		// members subscribe to the same topics and the partition counts are equal.
		// assigned checks it.
		kgo.Balancers(kgo.RangeBalancer()),
		kgo.BlockRebalanceOnPoll(),
		kgo.SessionTimeout(c.SessionTimeout),
		kgo.HeartbeatInterval(c.SessionTimeout/4),
		kgo.RebalanceTimeout(c.RebalanceTimeout),
		kgo.OnPartitionsAssigned(n.assigned),
		kgo.OnPartitionsRevoked(n.revoked),
		kgo.OnPartitionsLost(n.revoked),
		kgo.DisableAutoCommit(),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(int32(c.FetchBytes)),
		kgo.FetchMaxPartitionBytes(int32(max(c.FetchBytes/4, 64<<10))),
		// A resumed partition waits for the fetch in progress to end, so fetches are
		// short.
		kgo.FetchMaxWait(idleWait),

		kgo.TransactionalID(n.txnID),
		kgo.TransactionTimeout(c.TransactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(codec),
		kgo.ProducerBatchMaxBytes(int32(c.OutputBytes+batchOverhead)),
		// Records wait for the batch to fill: the flush at the end of the transaction
		// sends the rest.
		kgo.ProducerLinger(c.CommitInterval),
		kgo.MaxBufferedRecords(4*c.MaxRecords+1024),
		kgo.MaxBufferedBytes(maxBufferedBytes),
		kgo.RecordDeliveryTimeout(c.TransactionTimeout),
	)
	if failpoint.Enabled {
		opts = append(opts, kgo.WithHooks(beforeEndHook{}))
	}
	return opts, nil
}

const (
	batchOverhead    = 64 << 10
	maxBufferedBytes = 256 << 20
)

// fence requests the client's producer id now and not with the first record: that ends
// the transaction that a predecessor with this transactional id left open.
func (n *session) fence(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, n.svc.cfg.TransactionTimeout)
	defer cancel()
	if _, _, err := n.cl.ProducerID(ctx); err != nil {
		return fmt.Errorf("get producer id: %w", topic.Needs(err, topic.OperationWrite, topic.ResourceTransactionalID, n.txnID))
	}
	return nil
}

// assigned starts a worker per partition. The range balancer is eager: the call always
// has the whole assignment.
func (n *session) assigned(ctx context.Context, _ *kgo.Client, topics map[string][]int32) {
	select {
	case <-n.made:
	case <-ctx.Done():
		return
	}
	raw, links := slices.Clone(topics[n.svc.names.Raw]), slices.Clone(topics[n.svc.names.Links])
	slices.Sort(raw)
	slices.Sort(links)
	if !slices.Equal(raw, links) {
		n.fail(fmt.Errorf("%w: assigned partitions %v of %s and %v of %s: they must be the same; every member of group %s must run this version with the range balancer",
			errPermanent, raw, n.svc.names.Raw, links, n.svc.names.Links, n.svc.group()))
		return
	}
	if most := n.svc.topics[n.svc.names.Raw].Partitions; len(raw) > 0 && raw[len(raw)-1] >= most {
		n.fail(fmt.Errorf("%w: %w", errPermanent, topic.ErrRaised))
		return
	}
	n.stopWorkers() // the library omits the second of two revokes without a transaction in between
	n.svc.health.assign(raw)
	n.svc.metrics.assigned.Set(float64(len(raw)))
	n.svc.verdicts.assigned(len(raw), int(n.svc.topics[n.svc.names.Raw].Partitions))
	n.log.Info("partitions assigned", "topic", n.svc.names.Raw, "partitions", raw)

	n.mu.Lock()
	defer n.mu.Unlock()
	keep := map[int32]bool{}
	for _, id := range raw {
		keep[id] = true
		n.cl.PauseFetchPartitions(n.both(id))
		n.workers[id] = n.start(id)
	}
	n.svc.keepParked(keep)
}

// both returns the partition in the two topics that are read together.
func (n *session) both(id int32) map[string][]int32 {
	return map[string][]int32{n.svc.names.Raw: {id}, n.svc.names.Links: {id}}
}

// revoked stops all workers: the range balancer revokes everything.
func (n *session) revoked(context.Context, *kgo.Client, map[string][]int32) {
	n.rebalanced.Store(true)
	n.stopWorkers()
	n.svc.health.assign(nil)
	n.svc.metrics.assigned.Set(0)
	n.log.Info("partitions revoked")
}

func (n *session) stopWorkers() {
	n.mu.Lock()
	workers := slices.Collect(maps.Values(n.workers))
	clear(n.workers)
	n.mu.Unlock()
	for _, w := range workers {
		w.stop()
	}
}

func (n *session) worker(id int32) *worker {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.workers[id]
}

// ready resumes reading a partition whose worker has restored its state.
func (n *session) ready(id int32) {
	n.svc.health.restored(id)
	n.cl.ResumeFetchPartitions(n.both(id))
}

// idleWait bounds a poll that finds nothing, so that other due work is noticed.
const idleWait = 250 * time.Millisecond

// cycle runs at most one transaction, with rebalances allowed before it and blocked
// during it.
func (n *session) cycle(kill context.Context) error {
	n.at("allow rebalance")
	n.gts.AllowRebalance()
	n.at("poll")
	fetches, err := n.poll(idleWait, n.svc.maxRecords)
	if err != nil {
		return err
	}
	catalogs := n.svc.catalogs.current()
	stale := n.stale(catalogs)
	if fetches.NumRecords() == 0 && len(stale) == 0 {
		return nil
	}
	if n.rebalanced.Swap(false) {
		// The library aborts the first transaction after a revoke, even if it began
		// after the revoke. Ending an empty one clears its flag and rewinds to the
		// committed offsets; the polled records are fetched again.
		if _, err := n.gts.End(kill, kgo.TryAbort); err != nil {
			return fmt.Errorf("rewind after a rebalance: %w", err)
		}
		return nil
	}
	return n.transact(kill, fetches, catalogs, stale)
}

// stale returns the serving workers whose partitions have other catalog versions in
// force. They take part in the next transaction even without records: history also
// moves in idle partitions.
func (n *session) stale(catalogs *snapshot) []*worker {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*worker
	for _, w := range n.workers {
		if w.serving.Load() && w.inForce.Load() != catalogs {
			all = append(all, w)
		}
	}
	return all
}

// poll waits at most wait for records. Fetch errors that do not pass by themselves end
// the session.
func (n *session) poll(wait time.Duration, records int) (kgo.Fetches, error) {
	ctx, cancel := context.WithTimeout(n.ctx, wait)
	defer cancel()
	fetches := n.gts.PollRecords(ctx, records)
	var fault error
	fetches.EachError(func(t string, p int32, err error) {
		var session *kgo.ErrGroupSession
		var loss *kgo.ErrDataLoss
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case errors.As(err, &session):
			n.svc.metrics.fetchErrors.Inc()
			err = topic.Needs(err, topic.OperationRead, topic.ResourceGroup, n.svc.group())
			n.svc.health.failed(err)
			n.log.Warn("group session failed; the client rejoins", "error", err)
		case errors.As(err, &loss):
			n.svc.metrics.fetchErrors.Inc()
			n.log.Error("records were lost from the log", "error", err)
		default:
			n.svc.metrics.fetchErrors.Inc()
			fault = errors.Join(fault, fmt.Errorf("fetch %s/%d: %w", t, p, topic.Needs(err, topic.OperationRead, topic.ResourceTopic, t)))
		}
	})
	return fetches, fault
}

// txn is one transaction as seen by the workers.
type txn struct {
	ctx      context.Context // for producing
	catalogs *snapshot       // in force in it
	pending  sync.WaitGroup  // jobs that workers have not finished
	err      atomic.Pointer[error]
	records  int
	polled   map[int32]bool // partitions that have some of them
	touched  map[int32]*worker
	promise  func(*kgo.Record, error) // produced, of every record
}

func newTxn(ctx context.Context, catalogs *snapshot) *txn {
	t := &txn{ctx: ctx, catalogs: catalogs, polled: map[int32]bool{}, touched: map[int32]*worker{}}
	t.promise = t.produced
	return t
}

// abort keeps the first error; the transaction will not be committed.
func (t *txn) abort(err error) { t.err.CompareAndSwap(nil, &err) }

func (t *txn) failed() error {
	if err := t.err.Load(); err != nil {
		return *err
	}
	return nil
}

// produced is the promise of every record.
func (t *txn) produced(r *kgo.Record, err error) {
	if err != nil {
		t.abort(fmt.Errorf("produce to %s/%d: %w", r.Topic, r.Partition, err))
	}
}

// transact begins a transaction with the polled records, gathers more until the commit
// interval or the record limit, and ends it.
func (n *session) transact(kill context.Context, fetches kgo.Fetches, catalogs *snapshot, stale []*worker) error {
	c := &n.svc.cfg
	began := time.Now()
	ctx, cancel := context.WithTimeout(kill, c.TransactionTimeout)
	defer cancel()
	t := newTxn(ctx, catalogs)
	err := n.through(ctx, kill, t, fetches, stale, began)
	n.svc.pace(t.records, err == nil, time.Since(began))
	return err
}

// through runs a transaction from begin to end.
func (n *session) through(ctx, kill context.Context, t *txn, fetches kgo.Fetches, stale []*worker, began time.Time) error {
	if err := failpoint.Hit("enricher.after-poll"); err != nil {
		return err
	}
	if err := n.gts.Begin(); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	n.at("work")
	for _, w := range stale {
		n.give(t, w, nil)
	}
	var err error
	if fetches.NumRecords() > 0 {
		err = n.gather(t, fetches, began)
	}
	t.pending.Wait()
	if err == nil {
		err = t.failed()
	}
	if err == nil {
		for _, w := range t.touched {
			t.pending.Add(1)
			w.jobs <- job{txn: t, count: true}
		}
		t.pending.Wait()
		err = t.failed()
	}
	if err == nil {
		err = failpoint.Hit("enricher.after-produce")
	}
	if err == nil {
		n.at("flush")
		err = n.cl.Flush(ctx)
	}
	if err == nil {
		err = t.failed()
	}
	if err != nil {
		return n.giveUp(kill, fmt.Errorf("transaction of %d records: %w", t.records, err))
	}
	flushed := time.Now()
	n.at("end")
	if err := n.end(ctx, t); err != nil {
		n.svc.metrics.transactions.WithLabelValues("failed").Inc()
		return err
	}
	for _, w := range t.touched {
		w.jobs <- job{txn: t, merge: true} // workers merge while the next records are polled
	}
	n.commits.Add(1)
	n.svc.flushed.transactions++
	n.svc.flushed.records += t.records
	n.svc.health.committed()
	m := n.svc.metrics
	m.transactions.WithLabelValues("committed").Inc()
	m.transactionRecords.Observe(float64(t.records))
	m.transactionSeconds.Observe(time.Since(began).Seconds())
	m.endSeconds.Observe(time.Since(flushed).Seconds())
	return nil
}

func (n *session) gather(t *txn, fetches kgo.Fetches, began time.Time) error {
	c := &n.svc.cfg
	for {
		n.dispatch(t, fetches)
		left := c.CommitInterval - time.Since(began)
		if t.records >= n.svc.maxRecords || left <= 0 || n.ctx.Err() != nil || t.failed() != nil {
			return nil
		}
		var err error
		if fetches, err = n.poll(left, n.svc.maxRecords-t.records); err != nil {
			return err
		}
	}
}

func lagName(topic string, partition int32) string { return topic + "/" + label(partition) }

// dispatch hands records to the workers of their partitions.
func (n *session) dispatch(t *txn, fetches kgo.Fetches) {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		w := n.worker(p.Partition)
		if w == nil { // cannot happen: rebalances are blocked
			t.abort(fmt.Errorf("records of %s/%d, which is not assigned", p.Topic, p.Partition))
			return
		}
		t.records += len(p.Records)
		last := p.Records[len(p.Records)-1]
		lag := p.HighWatermark - last.Offset - 1
		n.svc.metrics.lag(p.Topic, p.Partition, lag)
		n.svc.lag.Set(lagName(p.Topic, p.Partition), lag)
		t.polled[p.Partition] = true
		n.give(t, w, p.Records)
	})
}

func (n *session) give(t *txn, w *worker, records []*kgo.Record) {
	t.touched[w.id] = w
	t.pending.Add(1)
	w.jobs <- job{txn: t, records: records}
}

// end commits. Only a definite success counts as a commit: after any error the outcome
// is unknown (a broker may have committed and its answer may be lost), and the session
// ends, so that state is restored from the log.
func (n *session) end(ctx context.Context, t *txn) error {
	if err := failpoint.Hit("enricher.before-offsets"); err != nil {
		return n.giveUp(ctx, err)
	}
	endCtx, err := n.withOffsets(ctx, t)
	if err != nil {
		return n.giveUp(ctx, err)
	}
	committed, err := n.gts.End(endCtx, kgo.TryCommit)
	if err != nil {
		return fmt.Errorf("end transaction of %d records: %w", t.records, err)
	}
	if !committed {
		return fmt.Errorf("end transaction of %d records: %w", t.records, errNotCommitted)
	}
	return failpoint.Hit("enricher.after-end")
}

var errNotCommitted = errors.New("not committed")

// withOffsets makes sure that every partition that a transaction writes for has offsets in
// it: one without records, which a new catalog version moved, those that are already
// committed. The group coordinator checks offsets against the member's generation: without
// any, an instance that lost its partitions could still commit. And a partition that was
// written for without an offset could not be told from one whose offset was lost.
func (n *session) withOffsets(ctx context.Context, t *txn) (context.Context, error) {
	var idle []int32
	for id := range t.touched {
		if !t.polled[id] {
			idle = append(idle, id)
		}
	}
	if len(idle) == 0 {
		return ctx, nil
	}
	// The client's record of committed offsets does not suffice: it may not have
	// fetched those of a partition yet.
	committed, err := kadm.NewClient(n.cl).FetchOffsets(kadm.RequireStable(ctx), n.svc.group())
	if err != nil {
		return nil, fmt.Errorf("fetch offsets of group %s: %w", n.svc.group(), err)
	}
	var topics []kmsg.TxnOffsetCommitRequestTopic
	for _, name := range []string{n.svc.names.Raw, n.svc.names.Links} {
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = name, n.svc.topics[name].ID
		for _, id := range idle {
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Partition = id
			switch at, ok := committed.Lookup(name, id); {
			case ok && at.Err != nil:
				return nil, fmt.Errorf("offset of %s/%d: %w", name, id, at.Err)
			case ok && at.At >= 0:
				rp.Offset, rp.LeaderEpoch = at.At, at.LeaderEpoch
			default:
				b, err := n.reader.Bounds(ctx, name, id)
				if err != nil {
					return nil, err
				}
				rp.Offset = b.Start // where the client starts without an offset
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		topics = append(topics, rt)
	}
	return kgo.PreTxnCommitFnContext(ctx, func(req *kmsg.TxnOffsetCommitRequest) error {
		for _, rt := range topics {
			if i := slices.IndexFunc(req.Topics, func(t kmsg.TxnOffsetCommitRequestTopic) bool { return t.Topic == rt.Topic }); i >= 0 {
				req.Topics[i].Partitions = append(req.Topics[i].Partitions, rt.Partitions...)
			} else {
				req.Topics = append(req.Topics, rt)
			}
		}
		return nil
	}), nil
}

// giveUp aborts a transaction whose outputs are not complete and returns the reason.
// The abort only spares readers the wait for the timeout: the session ends either way.
func (n *session) giveUp(kill context.Context, why error) error {
	n.svc.metrics.transactions.WithLabelValues("aborted").Inc()
	if isFenced(why) {
		return why // a zombie stops at once
	}
	ctx, cancel := context.WithTimeout(kill, 5*time.Second)
	defer cancel()
	if _, err := n.gts.End(ctx, kgo.TryAbort); err != nil {
		return errors.Join(why, fmt.Errorf("abort: %w", err))
	}
	return why
}
