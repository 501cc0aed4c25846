package enrich

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// watch detects records that wait without a commit of their partition. It asks the
// brokers with its own client and does not rely on the session, whose client may be
// what hangs.
//
// After waitingTime the service is not ready. After Config.StallTimeout its state is
// logged and the session ends, so that a new client starts.
type watch struct {
	svc *Service

	// Owned by run, created anew after an error.
	reader *reader.Reader
	cl     *kgo.Client

	assigned time.Time // last seen with partitions

	mu      sync.Mutex // covers all below
	waits   map[place]*wait
	session *session // nil: none runs
}

// waitingTime is how long records may wait without a commit before the service is not
// ready.
const waitingTime = time.Minute

// watchPause is the time between two checks.
const watchPause = 10 * time.Second

type place struct {
	topic     string
	partition int32
}

// wait is the state of one partition.
type wait struct {
	committed, stable, end int64  // offsets; stable: the last stable one
	restoring              string // progress of its restore, if it is being restored

	looked   int64     // stable offset up to which there are no records, only markers
	hasWork  bool      // records are waiting
	openWork bool      // records may be waiting once an open transaction ends
	since    time.Time // start of the wait without a commit; the present if nothing waits
	moved    time.Time // the last commit, progress of a restore, or replacement of the client
}

func (w *wait) waits() bool { return w.hasWork || w.openWork }

func (w *wait) text(p place, now time.Time) string {
	why := ""
	if w.openWork {
		why = ", a transaction is open"
	}
	return fmt.Sprintf("records of %s/%d have waited %s and nothing was committed: committed offset %d, last stable %d, end %d%s",
		p.topic, p.partition, now.Sub(w.since).Round(time.Second), w.committed, w.stable, w.end, why)
}

var errStalled = errors.New("records wait without progress")

// run checks at intervals until ctx ends.
func (w *watch) run(ctx context.Context) {
	defer w.close()
	pause := watchPause
	if w.svc.cfg.watchPause > 0 {
		pause = w.svc.cfg.watchPause
	}
	for {
		if backoff.Sleep(ctx, pause) != nil {
			return
		}
		lookCtx, cancel := context.WithTimeout(ctx, 3*pause)
		// Without an answer nothing is known; an unreachable cluster is reported
		// elsewhere.
		if err := w.look(lookCtx); err != nil {
			w.close()
			if ctx.Err() == nil {
				w.svc.log.Warn("checking progress failed", "error", err)
			}
		}
		cancel()
	}
}

func (w *watch) open() error {
	if w.cl != nil {
		return nil
	}
	opts, err := w.svc.clientOptions("watch", nil)
	if err != nil {
		return err
	}
	if w.reader, err = reader.New(opts...); err != nil {
		return err
	}
	if w.cl, err = kgo.NewClient(opts...); err != nil {
		w.close()
		return fmt.Errorf("kafka client: %w", err)
	}
	return nil
}

func (w *watch) close() {
	if w.reader != nil {
		w.reader.Close()
	}
	if w.cl != nil {
		w.cl.Close()
	}
	w.reader, w.cl = nil, nil
}

// look compares committed offsets with the ends of the topics.
func (w *watch) look(ctx context.Context) error {
	assigned, restoring := w.svc.health.serving()
	switch {
	case len(assigned) > 0:
		w.assigned = time.Now()
	case time.Since(w.assigned) > 2*waitingTime:
		w.settle(nil)
		return nil
	default: // between two sessions: the next one may fail as the last did
		return nil
	}
	if err := w.open(); err != nil {
		return err
	}
	adm := kadm.NewClient(w.cl)
	if w.madeAgain(ctx, adm) {
		return nil
	}
	committed, err := adm.FetchOffsets(ctx, w.svc.group())
	if err != nil {
		return fmt.Errorf("fetch offsets of group %s: %w", w.svc.group(), err)
	}
	var starts, stable, ends kadm.ListedOffsets
	for dst, list := range map[*kadm.ListedOffsets]func(context.Context, ...string) (kadm.ListedOffsets, error){
		&starts: adm.ListStartOffsets, &stable: adm.ListCommittedOffsets, &ends: adm.ListEndOffsets,
	} {
		if *dst, err = list(ctx, w.svc.names.Raw, w.svc.names.Links); err != nil {
			return fmt.Errorf("list offsets: %w", err)
		}
	}
	now := time.Now()
	seen := map[place]*wait{}
	for _, id := range assigned {
		for _, name := range []string{w.svc.names.Raw, w.svc.names.Links} {
			p := place{name, id}
			start, ok1 := starts.Lookup(name, id)
			s, ok2 := stable.Lookup(name, id)
			e, ok3 := ends.Lookup(name, id)
			if !ok1 || !ok2 || !ok3 || start.Err != nil || s.Err != nil || e.Err != nil {
				continue
			}
			next := &wait{committed: start.Offset, stable: s.Offset, end: max(e.Offset, s.Offset), restoring: restoring[id]}
			if at, ok := committed.Lookup(name, id); ok && at.Err == nil {
				next.committed = max(next.committed, at.At)
			}
			if err := w.judge(ctx, p, next, now); err != nil {
				return err
			}
			seen[p] = next
		}
	}
	w.settle(seen)
	return nil
}

// madeAgain ends the session, and the service, when a topic was deleted and created again:
// a client goes on with the id that the topic had, and finds nothing there. A start looks
// at what is left.
func (w *watch) madeAgain(ctx context.Context, adm *kadm.Client) bool {
	infos, err := w.svc.names.Check(ctx, adm, w.svc.checked()...)
	if err != nil {
		return false // reported where the topics are used
	}
	for name, info := range infos {
		if info.ID == w.svc.topics[name].ID {
			continue
		}
		w.mu.Lock()
		n := w.session
		w.mu.Unlock()
		if n != nil {
			n.fail(fmt.Errorf("%w: topic %s was deleted and created again: see docs/recovery.md, \"A topic is lost\"", errPermanent, name))
		}
		return true
	}
	return false
}

// judge decides whether records wait in a partition, and since when.
func (w *watch) judge(ctx context.Context, p place, next *wait, now time.Time) error {
	w.mu.Lock()
	last := w.waits[p]
	w.mu.Unlock()
	moved := last == nil || last.committed != next.committed
	if moved {
		last = &wait{since: now, moved: now}
	}
	next.looked, next.hasWork, next.since, next.moved = last.looked, last.hasWork, last.since, last.moved
	if last.restoring != next.restoring {
		next.moved = now
	}
	perhaps := next.stable > max(next.committed, next.looked)
	switch {
	case p.topic == w.svc.names.Raw: // gateways use no transactions
		next.hasWork = perhaps
	case perhaps && !moved && !next.hasWork:
		// The records there may be only transaction markers.
		found := errors.New("found")
		_, err := w.reader.Read(ctx, p.topic, p.partition, max(next.committed, next.looked), next.stable, func(*kgo.Record) error { return found }, nil)
		if err != nil && !errors.Is(err, found) {
			return err
		}
		next.hasWork = err != nil
		if err == nil {
			next.looked, perhaps = next.stable, false
		}
	}
	next.openWork = next.end > next.stable && !next.hasWork
	if !next.waits() && !perhaps {
		next.since, next.moved = now, now
	}
	return nil
}

// settle stores the result of a check and acts on it.
func (w *watch) settle(found map[place]*wait) {
	now := time.Now()
	w.mu.Lock()
	w.waits = found
	longest, stalled := time.Duration(0), false
	for _, x := range found {
		if !x.waits() {
			continue
		}
		longest = max(longest, now.Sub(x.since))
		stalled = stalled || now.Sub(x.moved) >= w.svc.cfg.StallTimeout
	}
	n := w.session
	if stalled {
		for _, x := range found {
			x.moved = now
		}
	}
	w.mu.Unlock()
	w.svc.metrics.waiting.Set(longest.Seconds())
	if stalled && n != nil {
		w.svc.metrics.stalls.Inc()
		w.dump(n, found)
		n.fail(errStalled)
	}
}

// serves sets the running session, nil when it has ended.
func (w *watch) serves(n *session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.session = n
}

// check returns an error about partitions that have waited for too long, or nil.
func (w *watch) check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	limit := min(waitingTime, w.svc.cfg.StallTimeout)
	for _, p := range slices.SortedFunc(maps.Keys(w.waits), func(a, b place) int { return int(a.partition - b.partition) }) {
		if x := w.waits[p]; x.waits() && now.Sub(x.since) >= limit {
			return errors.New(x.text(p, now))
		}
	}
	return nil
}

// dump logs the state of a session that makes no progress.
func (w *watch) dump(n *session, found map[place]*wait) {
	now := time.Now()
	// The stacks of all goroutines show what the client waits for.
	stacks := make([]byte, 4<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	path := filepath.Join(n.svc.cfg.DataDir, "stall.txt")
	if err := os.WriteFile(path, stacks, 0o600); err != nil {
		path = err.Error()
	}
	n.log.Error("records wait without progress; replacing the client", "phase", *n.phase.Load(),
		"assigned", n.svc.health.assigned(), "commits", n.commits.Load(), "stacks", path)
	for p, x := range found {
		state := "not assigned"
		if worker := n.worker(p.partition); worker != nil {
			state = fmt.Sprintf("serving %v, %d jobs wait", worker.serving.Load(), len(worker.jobs))
		}
		n.log.Error("partition", "topic", p.topic, "partition", p.partition, "waits", x.waits(), "since", now.Sub(x.since).Round(time.Second),
			"committed", x.committed, "last_stable", x.stable, "end", x.end, "worker", state, "restoring", x.restoring)
	}
	told := make(chan struct{})
	go func() { // ends when the client answers, perhaps only once it is closed
		defer close(told)
		n.log.Error("client", "paused", n.cl.PauseFetchPartitions(nil), "fetched", n.cl.BufferedFetchRecords(),
			"produced", n.cl.BufferedProduceRecords(), "produced_bytes", n.cl.BufferedProduceBytes(), "positions", n.cl.UncommittedOffsets())
	}()
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		n.log.Error("the client does not answer")
	}
}
