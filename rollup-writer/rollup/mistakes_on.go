//go:build failpoints

package rollup

import (
	"context"
	"math/rand/v2"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// Known mistakes, which a test of the test harness switches on: each loses or doubles
// events under faults, and a harness that does not detect it proves nothing.
const (
	// Blocks end anywhere, as if a flush timer ended them.
	mistakeFlush = "writer.mistake.flush-anywhere"
	// A partition starts after the newest offset in events instead of at the committed
	// boundary.
	mistakeStart = "writer.mistake.start-at-max"
	// Rebalances are not blocked while records are polled and handed out, and the check
	// for gaps in the log is off: it would halt the partition before the harm is done.
	mistakePoll = "writer.mistake.unblocked-polls"
)

func (p *partition) mistakenCut(r block.Record) (block.Block, bool) {
	if !failpoint.On(mistakeFlush) || rand.IntN(20) != 0 {
		return block.Block{}, false
	}
	return p.cutter.Force(r.Offset)
}

func (s *Service) mistakenStart(ctx context.Context, topic string, partition int32, st boundary.Start) boundary.Start {
	if !failpoint.On(mistakeStart) || st.Refused != nil {
		return st
	}
	var newest int64
	err := s.sql.QueryRow(ctx, "SELECT max(source_offset) FROM "+s.schema.Table(boundary.Table(s.names, topic))+" WHERE source_topic_id = ? AND source_partition = ?", st.TopicID, partition).Scan(&newest)
	if err == nil && newest > 0 {
		st.Boundary = newest + 1
	}
	return st
}

var mistakenPolls = failpoint.On(mistakePoll)
