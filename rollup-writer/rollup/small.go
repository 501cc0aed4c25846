package rollup

import (
	"sync"
	"time"
)

// Blocks are small when a row of them costs ClickHouse about three times as much as in
// blocks of 50,000 (docs/performance.md), at a rate at which that matters.
const (
	smallRows    = 2500   // rows per block, the mean of smallWindow
	smallRate    = 1000.0 // rows a second of this process
	smallWindow  = 5 * time.Minute
	smallSilence = time.Hour // between two warnings
)

// smallBlocks notices when the blocks of enriched events are small. The zero value is
// ready.
type smallBlocks struct {
	mu           sync.Mutex // covers the rest
	since        time.Time  // begin of the window; zero: none has begun
	warned       time.Time
	blocks, rows int
}

// add counts a block that was inserted. At the end of each window it returns rows per
// block and rows a second, and whether the log is to warn of them.
func (b *smallBlocks) add(rows int, now time.Time) (perBlock, perSecond float64, warn bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since.IsZero() {
		b.since = now
		return 0, 0, false
	}
	b.blocks++
	b.rows += rows
	passed := now.Sub(b.since)
	if passed < smallWindow {
		return 0, 0, false
	}
	perBlock, perSecond = float64(b.rows)/float64(b.blocks), float64(b.rows)/passed.Seconds()
	b.since, b.blocks, b.rows = now, 0, 0
	if perBlock >= smallRows || perSecond < smallRate || !b.warned.IsZero() && now.Sub(b.warned) < smallSilence {
		return perBlock, perSecond, false
	}
	b.warned = now
	return perBlock, perSecond, true
}

// sayBlock counts a block of enriched events, and warns when blocks are small.
func (s *Service) sayBlock(rows int) {
	perBlock, perSecond, warn := s.small.add(rows, s.now())
	if !warn {
		return
	}
	s.log.Warn("blocks are small, so that a row costs ClickHouse several times as much as in full ones; a new installation would take a longer block-interval or fewer partitions",
		"rows_per_block", int(perBlock), "rows_per_second", int(perSecond), "block-interval", s.cfg.BlockInterval)
}
