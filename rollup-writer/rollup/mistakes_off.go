//go:build !failpoints

package rollup

import (
	"context"

	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
)

func (p *partition) mistakenCut(block.Record) (block.Block, bool) { return block.Block{}, false }

func (s *Service) mistakenStart(_ context.Context, _ string, _ int32, st boundary.Start) boundary.Start {
	return st
}

const mistakenPolls = false
