//go:build failpoints

package rollup

import (
	"context"
	"math/rand/v2"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
)

// Known mistakes, which a test of the tests switches on: each loses or doubles
// under faults, and a harness that does not see it proves nothing.
const (
	// Blocks end anywhere, as a flush timer would end them.
	mistakeFlush = "writer.mistake.flush-anywhere"
	// A partition begins behind the newest offset in events instead of at the
	// committed boundary.
	mistakeStart = "writer.mistake.start-at-max"
	// Rebalances are not held back while records are polled and handed out, and
	// nobody looks whether the log goes on where it should: that check would
	// halt the partition in place of the harm.
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
	err := s.sql.QueryRow(ctx, "SELECT max(source_offset) FROM "+s.schema.Table(boundary.Table(topic))+" WHERE source_topic_id = ? AND source_partition = ?", st.TopicID, partition).Scan(&newest)
	if err == nil && newest > 0 {
		st.Boundary = newest + 1
	}
	return st
}

var mistakenPolls = failpoint.On(mistakePoll)
