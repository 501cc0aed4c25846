package rollup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// errLetGo ends what a partition does when it was let go.
var errLetGo = errors.New("partition was revoked")

// commitRefresh is how often insert looks whether the mark of its commit is
// still young.
const commitRefresh = 10 * time.Second

// markAge is how old the mark may be that a block's age is reckoned from. An old
// mark makes blocks look older than they are.
const markAge = 5 * time.Second

// insertAll carries out items in order until build ends or the partition is let
// go. An item is done when its boundary is committed.
func (p *partition) insertAll() {
	refresh := time.NewTicker(commitRefresh)
	defer refresh.Stop()
	for {
		select {
		case <-refresh.C:
			p.refreshCommit()
			continue
		case it, ok := <-p.items:
			if !ok {
				p.sayClean()
				return
			}
			if err := p.carryOut(it); err != nil {
				p.failed = true
				p.release(it.rows)
				if !errors.Is(err, errLetGo) && p.gone.Err() == nil {
					p.halt(err)
				}
				p.closeIntake()
				continue // until build has closed items
			}
			if it.rows != nil {
				it.rows.Reset()
				p.spare <- it.rows // it has room for all there are
			}
		}
	}
}

func (p *partition) carryOut(it item) error {
	if p.gone.Err() != nil {
		return errLetGo
	}
	if it.rows != nil {
		if err := p.carryOutBlock(it); err != nil {
			return err
		}
	}
	return p.commit(it.block.Next)
}

func (p *partition) carryOutBlock(it item) error {
	p.inHand.Store(it.millis)
	defer p.inHand.Store(0)
	if err := p.sayOpen(); err != nil {
		return err
	}
	if err := p.insertBlock(it); err != nil {
		return err
	}
	n := float64(it.rows.Rows())
	p.s.metrics.blocks.WithLabelValues(p.topic).Inc()
	p.s.metrics.blockRows.WithLabelValues(p.topic).Observe(n)
	p.s.metrics.rowsWritten.WithLabelValues(p.topic).Add(n)
	p.s.metrics.stored(p.topic, it.rows)
	p.s.metrics.visible(p.topic, it.rows, p.s.now())
	p.s.metrics.rowsPending.WithLabelValues(p.topic).Sub(n)
	p.s.stopped.rows.Add(int64(n))
	p.s.stopped.blocks.Add(1)
	p.sentTo = 0
	return nil
}

// insertBlock carries out a block: what it orders is planned before any of its
// rows is sent (correction.go says why), and what was counted of the rows comes
// last: whoever finds the counts finds the rows.
func (p *partition) insertBlock(it item) error {
	token := it.block.Token(p.s.cfg.Shape(), p.src.TopicID, p.number, p.generation)
	c, err := p.plan(it, token)
	if err != nil {
		return err
	}
	if it.rows.Rows() > 0 {
		if err := p.insert(p.table(boundary.Table(p.topic)), it.rows, token); err != nil {
			return err
		}
	}
	if c != nil {
		if err := c.apply(); err != nil {
			return err
		}
	}
	if counts := it.rows.counted(); counts != nil {
		return p.insert(p.table(boundary.CountsTable), counts, token+"|counts")
	}
	return nil
}

// sayOpen takes back that nothing was sent, before anything is.
func (p *partition) sayOpen() error {
	if !p.clean {
		return nil
	}
	p.clean = false
	return p.commitState(p.committed.Load())
}

// sayClean tells the successor, and whoever repairs tables, that nothing was sent
// from the boundary on. It is the last thing that a partition does in good order.
func (p *partition) sayClean() {
	if p.clean || p.failed || p.before || p.gone.Err() != nil {
		return
	}
	p.clean = true
	if err := p.commitState(p.committed.Load()); err != nil {
		p.clean = false // it was let go meanwhile; the successor finds it open
	}
}

func (p *partition) table(name string) string {
	return p.s.schema.Local(name)
}

// insert sends a block until the server says OK. It returns an error only if the
// partition was let go, or if the block may have left the dedup windows.
func (p *partition) insert(table string, b clickhouse.Block, token string) error {
	repaired := 0
	return p.persist("insert "+token+" into "+table, func(ctx context.Context) error {
		if unguarded {
			return p.conn.InsertUnguarded(ctx, table, b)
		}
		// The predecessor may have sent this block: it is as old as its commit.
		if err := p.window.refresh(ctx, p.conn, markAge); err != nil {
			return err
		}
		p.window.begin(p, p.sent, p.before)
		if err := p.window.admit(p.gone, p); err != nil {
			return err
		}
		select {
		case p.s.inserts <- struct{}{}:
			defer func() { <-p.s.inserts }()
		case <-p.gone.Done():
			return errLetGo
		}
		if err := failpoint.Hit("writer.before-insert"); err != nil {
			return err
		}
		began := time.Now()
		if err := p.conn.Insert(ctx, table, b, token); err != nil {
			r, ok := b.(rows)
			if ok && clickhouse.Classify(err) == clickhouse.Data && repaired < 2 {
				repaired++
				n := r.repair(repaired == 2)
				p.s.metrics.repaired.Add(float64(n))
				p.log.Warn("clickhouse does not read some texts of a block; they are kept as strings", "token", token, "texts", n, "error", err)
			}
			return err
		}
		p.s.metrics.insertSeconds.WithLabelValues(p.topic).Observe(time.Since(began).Seconds())
		return failpoint.Hit("writer.after-insert")
	})
}

// persist calls do until it succeeds or the partition is let go: after an error
// of any class the same rows go again under the same token.
func (p *partition) persist(what string, do func(context.Context) error) error {
	began, logged := time.Time{}, time.Time{}
	halted := false
	defer func() {
		if halted {
			p.s.metrics.halted.WithLabelValues(p.topic).Dec()
		}
	}()
	for attempt := 1; ; attempt++ {
		err := do(p.s.killed)
		if err == nil {
			if attempt > 1 {
				p.log.Info("clickhouse took the block", "what", what, "attempts", attempt, "after", time.Since(began).Round(time.Millisecond).String())
				p.s.health.clear(p.name)
			}
			return nil
		}
		if p.gone.Err() != nil {
			return errLetGo
		}
		if errors.Is(err, errWindow) || errors.Is(err, errPlan) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if began.IsZero() {
			began = time.Now()
		}
		class := clickhouse.Classify(err)
		p.s.metrics.retries.WithLabelValues(string(class)).Inc()
		pause := p.backoff(attempt)
		reason := fmt.Sprintf("%s: attempt %d since %s failed (%s): %v", what, attempt, began.UTC().Format(time.RFC3339), class, err)
		if class == clickhouse.Permanent {
			pause = p.s.cfg.HaltRetry
			reason = fmt.Sprintf("halted until the cause is fixed; tried again every %s: %s", pause, reason)
			if !halted {
				halted = true
				p.s.metrics.halted.WithLabelValues(p.topic).Inc()
			}
		}
		p.s.health.set(p.name, reason)
		if time.Since(logged) > time.Minute {
			logged = time.Now()
			p.log.Error("clickhouse did not take the block; it is sent again until it does", "what", what, "class", string(class), "attempt", attempt, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-p.gone.Done():
			return errLetGo
		case <-p.intake.Done():
			// Nobody waits for a block whose outcome is unknown: the successor
			// sends the same one.
			return errLetGo
		}
		// How old the block has become decides whether it may go again.
		_ = p.window.refresh(p.s.killed, p.conn, time.Second) // or the next attempt fails too
	}
}

// backoff grows from 50 ms to RetryMax, with a spread so that partitions do not
// come back all at once.
func (p *partition) backoff(attempt int) time.Duration {
	d := min(50*time.Millisecond<<min(attempt-1, 16), p.s.cfg.RetryMax)
	return d/2 + rand.N(d/2+1)
}

// commitTimeout bounds one attempt of a commit.
const commitTimeout = 30 * time.Second

// commit commits the boundary behind something that is done.
func (p *partition) commit(boundary int64) error {
	if err := p.commitState(boundary); err != nil {
		return err
	}
	p.window.end(p)
	// Only the first block may have been sent before: a predecessor sends one
	// thing at a time. A boundary that moved over nothing proves it only where
	// the log ended when we began.
	p.before = boundary < p.sentTo
	_ = failpoint.Hit("writer.after-commit") // an error has no meaning here
	return nil
}

// commitState commits a boundary until Kafka takes it or the partition is let
// go.
func (p *partition) commitState(boundary int64) error {
	for attempt := 1; ; attempt++ {
		mark := p.window.markOr(p.sent)
		err := failpoint.Hit("writer.before-commit")
		if err == nil {
			err = p.commitOnce(boundary, mark)
		}
		if err == nil {
			p.s.metrics.commits.WithLabelValues("ok").Inc()
			p.committed.Store(boundary)
			p.marked.Store(mark)
			if attempt > 1 {
				p.s.health.clear(p.name)
			}
			return nil
		}
		if p.gone.Err() != nil || errors.Is(err, errLetGo) {
			return errLetGo
		}
		p.s.metrics.commits.WithLabelValues("failed").Inc()
		p.s.health.set(p.name, fmt.Sprintf("commit boundary %d: attempt %d: %v", boundary, attempt, err))
		if attempt == 1 {
			p.log.Warn("boundary was not committed; it is tried again", "boundary", boundary, "error", err)
		}
		select {
		case <-time.After(p.backoff(attempt)):
		case <-p.gone.Done():
			return errLetGo
		}
	}
}

func (p *partition) commitOnce(boundary int64, mark uint64) error {
	ctx, cancel := context.WithTimeout(p.gone, commitTimeout)
	defer cancel()
	metadata := block.Commit{Shape: p.s.cfg.Shape(), TopicID: p.src.TopicID, Mark: mark, Generation: p.generation, Clean: p.clean}.Metadata()
	// This runs when no rebalance can come in between. Without it a commit that
	// waited out a rebalance would be made in the name of a member that no
	// longer has the partition, and be taken.
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if p.gone.Err() != nil {
			return errLetGo
		}
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[j].Metadata = &metadata
			}
		}
		return nil
	})
	return p.s.commit(ctx, p.topic, p.number, boundary)
}

// refreshCommit commits the boundary again when the windows have moved on by a
// part since: the mark tells a successor that nothing was sent before it. It is
// called only while no block is open.
func (p *partition) refreshCommit() {
	_ = p.window.refresh(p.s.killed, p.conn, commitRefresh) // an old mark is only more careful
	mark, committed := p.window.markOr(p.sent), p.marked.Load()
	if p.before || mark < committed+p.window.entries/8 {
		return
	}
	_ = p.commitState(p.committed.Load()) // or let go
}
