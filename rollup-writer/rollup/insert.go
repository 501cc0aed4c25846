package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// errRevoked ends the work of a partition that was revoked.
var errRevoked = errors.New("partition was revoked")

// commitRefresh is how often insert checks whether the mark of its commit is still
// recent.
const commitRefresh = 10 * time.Second

// markAge is how old the mark may be from which a block's age is computed. An old mark
// makes blocks look older than they are.
const markAge = 5 * time.Second

// insertAll processes items in order until build ends or the partition is revoked. An
// item is done when its boundary is committed.
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
				if !errors.Is(err, errRevoked) && p.revoked.Err() == nil {
					p.halt(err)
				}
				p.closeIntake()
				continue // until build has closed items
			}
			if it.rows != nil {
				it.rows.Reset()
				p.spare <- it.rows // never blocks: it has room for all rows that exist
			}
		}
	}
}

func (p *partition) carryOut(it item) error {
	if p.revoked.Err() != nil {
		return errRevoked
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
	p.s.metrics.stored(boundary.Table(p.s.names, p.topic), it.rows)
	p.s.metrics.visible(p.topic, it.rows, p.s.now())
	p.s.metrics.rowsPending.WithLabelValues(p.topic).Sub(n)
	p.s.stopped.rows.Add(int64(n))
	p.s.stopped.blocks.Add(1)
	p.sentTo = 0
	if p.topic == p.s.names.Enriched {
		p.s.sayBlock(it.rows.Rows())
	}
	return nil
}

// insertBlock inserts a block: its moves are planned before any of its rows is sent
// (correction.go gives the reason), and its counts are inserted last, so that whoever
// finds the counts also finds the rows.
func (p *partition) insertBlock(it item) error {
	token := it.block.Token(p.s.cfg.Shape(), p.src.TopicID, p.number, p.generation)
	c, err := p.plan(it, token)
	if err != nil {
		return err
	}
	if it.rows.Rows() > 0 {
		if err := p.insert(p.table(boundary.Table(p.s.names, p.topic)), it.rows, token); err != nil {
			return err
		}
	}
	if c != nil {
		if err := c.apply(); err != nil {
			return err
		}
	}
	if asides := it.rows.asides(); asides != nil {
		if err := p.insert(p.table(boundary.RejectedTable), asides, token+"|aside"); err != nil {
			return err
		}
	}
	if counts := it.rows.counted(); counts != nil {
		if err := p.insert(p.table(boundary.CountsTable), counts, token+"|counts"); err != nil {
			return err
		}
	}
	return p.verify(it, token, c)
}

// sayOpen replaces a clean commit before anything is sent.
func (p *partition) sayOpen() error {
	if !p.clean {
		return nil
	}
	p.clean = false
	return p.commitState(p.committed.Load())
}

// sayClean marks the commit as clean: it tells the successor, and commands that repair
// tables, that nothing was sent from the boundary on. It is the last thing that a
// partition does in an orderly stop.
func (p *partition) sayClean() {
	if p.clean || p.failed || p.before || p.revoked.Err() != nil {
		return
	}
	p.clean = true
	if err := p.commitState(p.committed.Load()); err != nil {
		p.clean = false // revoked in the meantime; the successor finds the commit open
	}
}

func (p *partition) table(name string) string {
	return p.s.schema.Local(name)
}

// insert sends a block until the server answers OK. It returns an error only if the
// partition was revoked, or if the block may have left the dedup windows.
func (p *partition) insert(table string, b clickhouse.Block, token string) error {
	repaired := 0
	defer p.failing.Store(false)
	return p.persist("insert "+token+" into "+table, func(ctx context.Context) error {
		if unguarded {
			return p.conn.InsertUnguarded(ctx, table, b)
		}
		// The predecessor may have sent this block, so it is as old as the
		// predecessor's commit.
		if err := p.window.refresh(ctx, p.conn, markAge); err != nil {
			return err
		}
		p.window.begin(p, p.sent, p.before)
		if err := p.window.admit(p.revoked, p); err != nil {
			return err
		}
		select {
		case p.s.inserts <- struct{}{}:
			defer func() { <-p.s.inserts }()
		case <-p.revoked.Done():
			return errRevoked
		}
		if err := failpoint.Hit("writer.before-insert"); err != nil {
			return err
		}
		p.s.calm.RLock()
		defer p.s.calm.RUnlock()
		began := time.Now()
		if err := p.conn.Insert(ctx, table, b, token); err != nil {
			p.failing.Store(true)
			r, ok := b.(rows)
			if ok && clickhouse.Classify(err) == clickhouse.Data && repaired < 2 {
				repaired++
				n := r.repair(repaired == 2)
				p.s.metrics.repaired.Add(float64(n))
				p.log.Warn("clickhouse cannot parse some JSON texts of a block; they are stored as strings", "token", token, "texts", n, "error", err)
			}
			return err
		}
		p.s.metrics.insertSeconds.WithLabelValues(p.topic).Observe(time.Since(began).Seconds())
		return failpoint.Hit("writer.after-insert")
	})
}

// persist calls do until it succeeds or the partition is revoked: after an error of any
// class the same rows are sent again under the same token.
func (p *partition) persist(what string, do func(context.Context) error) error {
	began, logged := time.Time{}, time.Time{}
	retry, halted := p.backoff(), false
	defer func() {
		if halted {
			p.s.metrics.halted.WithLabelValues(p.topic).Dec()
		}
	}()
	for attempt := 1; ; attempt++ {
		err := do(p.s.killed)
		if err == nil {
			if attempt > 1 {
				p.log.Info("block inserted after retries", "what", what, "attempts", attempt, "after", time.Since(began).Round(time.Millisecond).String())
				p.s.health.clear(p.name)
			}
			return nil
		}
		p.doubt = true
		if p.revoked.Err() != nil || errors.Is(err, errRevoked) {
			return errRevoked
		}
		if errors.Is(err, errWindow) || errors.Is(err, errPlan) {
			return fmt.Errorf("%s: %w", what, err)
		}
		if began.IsZero() {
			began = time.Now()
		}
		class := clickhouse.Classify(err)
		p.s.metrics.retries.WithLabelValues(string(class)).Inc()
		pause := retry.Next()
		reason := fmt.Sprintf("%s: attempt %d since %s failed (%s): %v", what, attempt, began.UTC().Format(time.RFC3339), class, err)
		if class == clickhouse.Permanent {
			pause = p.s.cfg.HaltRetry
			reason = fmt.Sprintf("halted until the cause is fixed; retried every %s: %s", pause, reason)
			if !halted {
				halted = true
				p.s.metrics.halted.WithLabelValues(p.topic).Inc()
			}
		}
		p.s.health.set(p.name, reason)
		if time.Since(logged) > time.Minute {
			logged = time.Now()
			p.log.Error("insert failed; the block is sent again until it succeeds", "what", what, "class", string(class), "attempt", attempt, "error", err)
		}
		if backoff.Sleep(p.intake, pause) != nil {
			// A stopping writer does not wait for a block whose outcome is unknown: the
			// successor sends the same block.
			return errRevoked
		}
		// The block may be sent again only while its token is certain to be in the
		// window, so its age is checked first.
		_ = p.window.refresh(p.s.killed, p.conn, time.Second) // on an error the next attempt fails too
	}
}

// backoff grows from 50 ms to RetryMax, with jitter so that partitions do not retry all
// at once.
func (p *partition) backoff() backoff.Backoff {
	return backoff.Backoff{Min: 50 * time.Millisecond, Max: p.s.cfg.RetryMax, Spread: true}
}

// commitTimeout bounds one attempt of a commit.
const commitTimeout = 30 * time.Second

// commit commits the boundary after an item that is done.
func (p *partition) commit(boundary int64) error {
	if err := p.commitState(boundary); err != nil {
		return err
	}
	p.window.end(p)
	// Only the first block may have been sent before: a predecessor sends one block at
	// a time. A boundary that advanced without a block proves that only where the log
	// ended when this writer started.
	p.before = boundary < p.sentTo
	failpoint.Reach("writer.after-commit")
	return nil
}

// commitState commits a boundary until Kafka accepts it or the partition is revoked.
func (p *partition) commitState(boundary int64) error {
	retry := p.backoff()
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
		if p.revoked.Err() != nil || errors.Is(err, errRevoked) {
			return errRevoked
		}
		p.s.metrics.commits.WithLabelValues("failed").Inc()
		p.s.health.set(p.name, fmt.Sprintf("commit boundary %d: attempt %d: %v", boundary, attempt, err))
		if attempt == 1 {
			p.log.Warn("committing the boundary failed; retrying", "boundary", boundary, "error", err)
		}
		if backoff.Sleep(p.revoked, retry.Next()) != nil {
			return errRevoked
		}
	}
}

func (p *partition) commitOnce(boundary int64, mark uint64) error {
	ctx, cancel := context.WithTimeout(p.revoked, commitTimeout)
	defer cancel()
	metadata := block.Commit{Shape: p.s.cfg.Shape(), TopicID: p.src.TopicID, Mark: mark, Generation: p.generation, Clean: p.clean, Replay: p.replay.after(boundary)}.Metadata()
	// This runs when no rebalance can come in between. Otherwise: a commit waits out a
	// rebalance, the partition goes to another writer, and the commit is then sent with
	// the new generation by a member that no longer has the partition, and Kafka
	// accepts it.
	ctx = kgo.PreCommitFnContext(ctx, func(req *kmsg.OffsetCommitRequest) error {
		if p.revoked.Err() != nil {
			return errRevoked
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

// refreshCommit commits the boundary again when the windows have moved on considerably
// since the last commit: the mark tells a successor that nothing was sent before it. It
// is called only while no block is open.
func (p *partition) refreshCommit() {
	_ = p.window.refresh(p.s.killed, p.conn, commitRefresh) // an old mark is safe: it only overstates the age
	mark, committed := p.window.markOr(p.sent), p.marked.Load()
	if p.before || mark < committed+p.window.entries/8 {
		return
	}
	_ = p.commitState(p.committed.Load()) // fails only when the partition was revoked
}
