package enrich

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/client"
	"github.com/uptakehq/uptake/enricher/internal/dedup"
	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/enricher/internal/metric"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// partition is the state of one partition as of its last committed transaction. One
// goroutine owns it at a time: a worker, or none while it is parked.
type partition struct {
	id       int32
	seen     *dedup.Set
	identity *identity.State
	// catalogs are the versions in force here, by app: see catalogs.go.
	catalogs map[string]int64
	// stateNext is the offset in enricher-state up to which identity and catalogs are
	// applied.
	stateNext int64
	parkedAt  time.Time
}

func (p *partition) close() error {
	if p.seen == nil {
		return nil
	}
	return p.seen.Close()
}

// worker owns a partition from its assignment to its revocation: it restores the state,
// then runs the jobs of the session's transactions in order.
type worker struct {
	n      *session
	id     int32
	part   *partition // nil until the restore created or took it
	cancel context.CancelFunc
	jobs   chan job
	done   chan struct{}

	produce func(context.Context, *kgo.Record, func(*kgo.Record, error))

	broken  error // why the state can no longer be used
	skipped int   // records that no release can have written, met by the restore

	// inForce is the snapshot of the catalogs in force in this partition; the session
	// compares it with the newest.
	inForce atomic.Pointer[snapshot]
	serving atomic.Bool // the state is restored

	// Fields of the open transaction.
	txn      *txn
	identity *identity.Tx
	catalogs *snapshot
	swapped  map[string]int64 // versions that came in force in it
	out      output
	counts   counts
	tally    tally
	judging  judging

	// Fields of the current record.
	raw  event.RawEvent
	enr  event.EnrichedEvent
	link event.Link

	message []byte // its message id, as the dedup set knows it
	learnt  identity.Outputs
	flags   flags

	norm    *metadata.Normalizer
	objects normalized
	reports metric.Reader
	client  client.Reader
	ahead   event.RawEvent // scratch of gatherMissing
	unread  []byte         // RawEvent.Unread of a record that had none
}

// job is a number of records of one topic of the partition; or the order to emit the
// transaction's counts, after its last records; or, after the commit, to merge its
// changes into the state.
type job struct {
	txn     *txn
	records []*kgo.Record
	count   bool
	merge   bool
}

// jobsAhead is how many jobs a worker may lag behind the polls of a transaction; then
// the session waits.
const jobsAhead = 8

// start starts the worker of a partition. stop ends it.
func (n *session) start(id int32) *worker {
	ctx, cancel := context.WithCancel(n.ctx)
	w := &worker{
		n:      n,
		id:     id,
		part:   n.svc.take(id),
		cancel: cancel,
		jobs:   make(chan job, jobsAhead),
		done:   make(chan struct{}),

		produce: n.cl.Produce,
		swapped: map[string]int64{},
		norm:    metadata.New(n.svc.cfg.Metadata),
	}
	w.out.init(n.svc.codec)
	go w.run(ctx) // ends with stop
	return w
}

// stop ends the worker, waits for it and keeps its state for the next assignment.
// Uncommitted changes of a transaction are dropped.
func (w *worker) stop() {
	w.cancel()
	close(w.jobs)
	<-w.done
	w.n.svc.metrics.drop(w.id)
	w.n.svc.lag.Forget(lagName(w.n.svc.names.Raw, w.id), lagName(w.n.svc.names.Links, w.id))
	if w.part == nil {
		return
	}
	if w.broken != nil {
		if err := w.part.close(); err != nil { // it can be rebuilt from the log
			w.n.log.Warn("partition state could not be closed", "partition", w.id, "error", err)
		}
		return
	}
	w.rollback()
	w.part.parkedAt = w.n.svc.now()
	w.n.svc.park(w.part)
}

func (w *worker) run(ctx context.Context) {
	defer close(w.done)
	err := w.restore(ctx)
	switch {
	case err == nil:
		w.serving.Store(true)
		w.n.ready(w.id)
	case ctx.Err() != nil:
		return // stopped: the partition was revoked
	default:
		w.broken = fmt.Errorf("restore partition %d: %w", w.id, err)
		w.n.fail(w.broken)
	}
	for j := range w.jobs {
		w.do(j)
	}
}

func (w *worker) do(j job) {
	if j.merge {
		if err := w.merge(); err != nil {
			w.broken = err
			w.n.fail(err)
		}
		return
	}
	defer j.txn.pending.Done()
	if w.broken != nil {
		j.txn.abort(w.broken)
		return
	}
	var err error
	if w.txn != j.txn {
		err = w.begin(j.txn)
	}
	switch {
	case err != nil:
	case j.count:
		err = w.emitCounts()
	default:
		err = w.process(j.records)
	}
	if err != nil {
		err = fmt.Errorf("partition %d: %w", w.id, err)
		if errors.Is(err, dedup.ErrUnreadable) {
			w.broken = err
		}
		j.txn.abort(err)
	}
}

// begin opens the overlay of a transaction. Buffers of the previous one are free again:
// the session flushed it.
func (w *worker) begin(t *txn) error {
	w.txn = t
	w.out.reset()
	w.tally.reset()
	w.judging.looked = w.n.svc.verdicts.looked.Load()
	clear(w.judging.leftOut)
	w.identity = w.part.identity.Begin()
	w.catalogs = t.catalogs
	return w.swapCatalogs()
}

func (w *worker) process(records []*kgo.Record) error {
	if err := failpoint.Hit("enricher.before-produce"); err != nil {
		return err
	}
	for i, r := range records {
		if i%32 == 0 { // stop early when the transaction is aborted
			if err := errors.Join(w.txn.failed(), w.txn.ctx.Err()); err != nil {
				return err
			}
		}
		if err := w.handle(r, records[i+1:]); err != nil {
			return err
		}
	}
	// Corrections are gathered and emitted at the end of the job, in few records.
	w.learnt.Reset()
	w.identity.Flush(&w.learnt)
	w.emitLearnt()
	return nil
}

// merge makes the transaction's changes part of the state.
func (w *worker) merge() error {
	if err := failpoint.Hit("enricher.before-merge"); err != nil {
		return err
	}
	if err := w.part.seen.Commit(next(w.out.enriched)); err != nil {
		return err
	}
	w.identity.Commit()
	maps.Copy(w.part.catalogs, w.swapped)
	clear(w.swapped)
	if n := next(w.out.state); n != unknown {
		w.part.stateNext = n
	}
	w.inForce.Store(w.catalogs)
	w.counts.flush(w.n.svc.metrics)
	w.txn = nil
	w.n.svc.metrics.partition(w.part)
	return failpoint.Hit("enricher.after-merge")
}

func (w *worker) rollback() {
	if w.part.seen != nil {
		w.part.seen.Rollback()
	}
	if w.txn != nil {
		w.identity.Rollback()
	}
	clear(w.swapped)
	w.counts.drop()
	w.txn = nil
}
