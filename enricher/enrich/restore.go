package enrich

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/enricher/internal/dedup"
	"github.com/uptakehq/uptake/enricher/internal/identity"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// restoreSlack is added to the window when a set is rebuilt without local state: the
// clocks of the brokers, which stamp raw and enriched, and of the gateways may differ.
const restoreSlack = time.Hour

// restoreBatch is how many ids are added between two writes to disk.
const restoreBatch = 50_000

// restore brings the partition's state up to the log.
//
// The target is the high watermark of enriched now, after the group assigned the
// partition. Everything that a predecessor can still commit lies below it: its records
// were acked before it committed its offsets, and it can no longer commit offsets. The
// restore reads until no transaction is open below the target.
func (w *worker) restore(ctx context.Context) error {
	began := time.Now()
	records, err := w.restoreSeen(ctx)
	if err != nil {
		return err
	}
	changes, err := w.restoreState(ctx)
	if err != nil {
		return err
	}
	if err := w.checkLoss(ctx); err != nil {
		return err
	}
	w.settleCatalogs()
	w.n.svc.metrics.partition(w.part)
	w.n.svc.metrics.restoreSeconds.Observe(time.Since(began).Seconds())
	w.n.log.Info("partition restored", "partition", w.id, "records", records, "ids", w.part.seen.Len(),
		"changes", changes, "linked", w.part.identity.Stats().IDs, "took", time.Since(began).Round(time.Millisecond))
	return nil
}

// checkLoss detects that retention removed raw records before they were consumed. The
// client would silently start at the log's start.
func (w *worker) checkLoss(ctx context.Context) error {
	offsets, err := kadm.NewClient(w.n.cl).FetchOffsets(ctx, w.n.svc.group())
	if err != nil {
		return fmt.Errorf("fetch offsets of group %s: %w", w.n.svc.group(), err)
	}
	for _, name := range []string{w.n.svc.names.Raw, w.n.svc.names.Links} {
		at, ok := offsets.Lookup(name, w.id)
		if !ok || at.Err != nil || at.At < 0 {
			continue
		}
		b, err := w.n.reader.Bounds(ctx, name, w.id)
		if err != nil {
			return err
		}
		if lost := b.Start - at.At; lost > 0 {
			w.n.svc.metrics.lost.WithLabelValues(name).Add(float64(lost))
			w.n.log.Error("retention removed records before they were consumed", "topic", name, "partition", w.id, "records", lost, "from", at.At, "to", b.Start)
		}
	}
	return nil
}

// restoreSeen restores the message ids from disk and from enriched, and returns how
// many records it had to read.
func (w *worker) restoreSeen(ctx context.Context) (int64, error) {
	if w.part == nil {
		w.part = &partition{id: w.id}
	}
	p := w.part
	id := w.n.svc.enrichedID()
	if p.seen == nil {
		seen, err := w.n.svc.store.Set(ctx, w.id, id, func(ids int) {
			w.progress("reading ids from disk", int64(ids), 0, 0)
		})
		if err != nil {
			return 0, err
		}
		p.seen = seen
	}
	b, err := w.n.reader.Bounds(ctx, w.n.svc.names.Enriched, w.id)
	if err != nil {
		return 0, err
	}
	if p.seen.Next() > b.End {
		w.n.log.Warn("dedup set is ahead of its topic; rebuilding it", "partition", w.id, "next", p.seen.Next(), "end", b.End)
		if err := p.seen.Reset(id); err != nil {
			return 0, err
		}
	}
	from := p.seen.Next()
	if from == dedup.Unknown {
		// By the brokers' clock: this machine's may be wrong.
		newest, err := w.n.reader.NewestTime(ctx, w.n.svc.names.Enriched, w.id)
		if err != nil {
			return 0, err
		}
		since := newest.Add(-w.n.svc.cfg.DedupWindow - restoreSlack)
		if from, err = w.n.reader.OffsetAt(ctx, w.n.svc.names.Enriched, w.id, since); err != nil {
			return 0, err
		}
	}
	from = min(max(from, b.Start), b.End)
	if err := failpoint.Hit("enricher.restore"); err != nil {
		return 0, err
	}
	return b.End - from, w.readEnriched(ctx, from, b.End)
}

// staleAfter is how long parked state may be updated from the changelog. After the
// topic's delete.retention.ms, a day unless it was set otherwise, compaction removes
// the tombstones, and deletions would be missed.
const staleAfter = time.Hour

// restoreState restores identity and catalog versions from enricher-state, and
// returns how many records it read.
func (w *worker) restoreState(ctx context.Context) (int64, error) {
	p := w.part
	b, err := w.n.reader.Bounds(ctx, w.n.svc.names.EnricherState, w.id)
	if err != nil {
		return 0, err
	}
	if p.identity == nil || p.stateNext > b.End || w.n.svc.now().Sub(p.parkedAt) > staleAfter {
		p.identity = identity.New(w.n.svc.identityConfig(), w.id, w.n.svc.codec, w.n.svc.identityMetrics)
		p.catalogs = map[string]int64{}
		p.stateNext = b.Start
	}
	from := p.stateNext
	if err := failpoint.Hit("enricher.restore-state"); err != nil {
		return 0, err
	}
	next, err := w.n.reader.Read(ctx, w.n.svc.names.EnricherState, w.id, from, b.End, func(r *kgo.Record) error {
		app, ok := catalogStateApp(r.Key)
		if ok {
			err = w.applyCatalogState(app, r.Value)
		} else {
			err = p.identity.Apply(r.Key, r.Value)
		}
		return w.unreadable(r, err)
	}, w.stepper("reading identity state", from, b.End))
	if err != nil {
		p.identity = nil // the records were applied in part
		return 0, err
	}
	p.stateNext = next
	return next - from, nil
}

// readEnriched adds the ids in enriched from one offset to another.
func (w *worker) readEnriched(ctx context.Context, from, to int64) error {
	set := w.part.seen
	progress := w.stepper("reading enriched", from, to)
	next, err := w.n.reader.Read(ctx, w.n.svc.names.Enriched, w.id, from, to, func(r *kgo.Record) error {
		if err := w.remember(set, r); err != nil {
			return err
		}
		if set.Pending() >= restoreBatch {
			return set.Commit(r.Offset + 1)
		}
		return nil
	}, progress)
	if err != nil {
		set.Rollback()
		return err
	}
	return set.Commit(next)
}

// remember adds the id of one enriched record.
func (w *worker) remember(set *dedup.Set, r *kgo.Record) error {
	typ, err := w.n.svc.codec.Type(r.Value)
	if err == nil && typ == event.TypeControl {
		return nil
	}
	if err == nil {
		err = w.n.svc.codec.DecodeEnriched(r.Value, &w.enr)
	}
	if err != nil { // not written by a release: it holds no id that could occur again
		return w.unreadable(r, err)
	}
	w.message = w.enr.Message().AppendTo(w.message[:0])
	seen, err := set.Seen(w.enr.AppID, view(w.message))
	if err == nil && !seen {
		set.Add(w.enr.ReceivedAt, r.Timestamp)
	}
	return err
}

// unreadable decides about a record of enriched or enricher-state that cannot be read. One
// that no release can have written is skipped: for its key the record before it stays.
// One of a newer release may be a part of a user's history, or hold an id; continuing
// without it would give wrong attributions and doubled events, so it is an error.
func (w *worker) unreadable(r *kgo.Record, err error) error {
	if err == nil {
		return nil
	}
	if !event.Unwritten(err) {
		return fmt.Errorf("%w: record at offset %d of %s/%d: %w: if a newer release wrote it, use one", errPermanent, r.Offset, r.Topic, r.Partition, err)
	}
	w.n.svc.metrics.restoreSkipped.Inc()
	if w.skipped++; w.skipped == 1 || w.skipped%1000 == 0 {
		w.n.log.Error("a record that no release can have written is skipped", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "key", r.Key, "so_far", w.skipped, "error", err)
	}
	return nil
}

// logEvery is how often a long restore logs its progress.
const logEvery = 5 * time.Second

// stepper returns a progress function for a read from one offset to another.
func (w *worker) stepper(what string, from, to int64) func(reader.Position) {
	began, told := time.Now(), time.Now()
	return func(p reader.Position) {
		now := time.Now()
		var eta time.Duration
		if done := p.Next - from; done > 0 && p.Next < to {
			eta = time.Duration(float64(now.Sub(began)) * float64(to-p.Next) / float64(done)).Round(time.Second)
		}
		what := what
		if p.Next < to && p.Stable >= 0 && p.Next >= p.Stable {
			what = "waiting for a transaction that another instance left open"
		}
		w.progress(what, p.Next-from, to-from, eta)
		if now.Sub(told) >= logEvery {
			told = now
			w.n.log.Info("restoring partition", "partition", w.id, "step", what, "records", p.Next-from, "of", to-from, "eta", eta)
		}
	}
}

func (w *worker) progress(what string, done, of int64, eta time.Duration) {
	text := fmt.Sprintf("%s (%d)", what, done)
	if of > 0 {
		text = fmt.Sprintf("%s (%d of %d, %d%%, %s left)", what, done, of, 100*done/of, eta)
	}
	w.n.svc.health.restoring(w.id, text)
	w.n.svc.metrics.restore(w.id, done, of)
}
