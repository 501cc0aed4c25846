package rollup

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/erase"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// replay masks what a partition reads for another time (block.Commit.Replay): persons may
// have been erased since it was read first. The list of the erased is read once, when
// the partition starts. A successor may have a longer list and repeat a block with other
// ids in it; then some tables keep the former ids, and the erasure that made the list
// longer, whose last step waits for this block, changes them.
//
// Without a replay nothing is masked: an erasure ends only when every event from before it
// was written.
type replay struct {
	end    int64 // 0: there is none
	erased *erase.Erasures
}

// startReplay reads who was erased. It returns an error if that cannot be known, or if the
// intake was closed.
func (p *partition) startReplay(st boundary.Start) error {
	if st.Replay <= st.Boundary {
		return nil
	}
	pause := backoff.Every(checkRetry)
	for {
		erased, err := p.s.erased.read(p.intake, p.s)
		if err == nil {
			p.replay = replay{st.Replay, erased.Copy()}
			p.log.Info("the log is read again; events of erased persons are written without their data", "from", st.Boundary, "to", st.Replay, "apps_with_erasures", len(erased.Apps()))
			return nil
		}
		if errors.Is(err, erase.ErrUnknown) || p.intake.Err() != nil {
			return fmt.Errorf("the log is read again from offset %d on: %w", st.Boundary, err)
		}
		p.log.Warn("reading who was erased failed; retrying", "error", err)
		if backoff.Sleep(p.intake, pause.Next()) != nil {
			return context.Cause(p.intake)
		}
	}
}

// maskAt returns the list by which the record at an offset is masked; nil: it is not.
func (r *replay) maskAt(offset int64) *erase.Erasures {
	if offset >= r.end {
		return nil
	}
	return r.erased
}

// after is what a commit says of the replay.
func (r *replay) after(boundary int64) int64 {
	if boundary >= r.end {
		return 0
	}
	return r.end
}

// erasedOnce is the list of the erased that the partitions of a writer share.
type erasedOnce struct {
	mu   sync.Mutex // covers list, and lets one partition read it
	list *erase.Erasures
}

func (o *erasedOnce) read(ctx context.Context, s *Service) (*erase.Erasures, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.list == nil {
		list, err := erase.ReadErasures(ctx, s.client, s.names, s.codec)
		if err != nil {
			return nil, err
		}
		o.list = list
	}
	return o.list, nil
}
