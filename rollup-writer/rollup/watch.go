package rollup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/topic"
)

// errStalled ends a session whose records wait while nothing moves.
var errStalled = errors.New("records wait without progress")

// waitingTime is how long records may wait without a commit, and without a reason that
// is known, before the writer is not ready.
const waitingTime = time.Minute

// movement is what was last seen of a partition to move.
type movement struct {
	committed int64
	since     time.Time // when committed was first seen, or nothing waited
}

// watch measures at intervals how far the writer is behind the log, notices when Kafka is
// unreachable, and detects records that wait while nothing moves. It asks with a client of
// its own: the service's may be what hangs. It ends with ctx.
//
// A partition with a reason of its own in /readyz is expected to wait, such as one that
// halted or whose block ClickHouse does not take; so is one with a block in hand while
// any partition has such a reason, since inserts wait for the blocks of others.
func (s *Service) watch(ctx context.Context) {
	var cl *kgo.Client
	defer func() {
		if cl != nil {
			cl.Close()
		}
	}()
	moved := map[*partition]movement{}
	defer s.health.clear("progress")
	for backoff.Sleep(ctx, s.cfg.watchPause) == nil {
		if cl == nil {
			opts, err := s.cfg.Kafka.Options(s.log, nil)
			if err == nil {
				cl, err = kgo.NewClient(opts...)
			}
			if err != nil {
				s.health.set("kafka", err.Error())
				continue
			}
		}
		ask, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
		adm := kadm.NewClient(cl)
		ends, err := adm.ListCommittedOffsets(ask, boundary.Topics(s.names)...)
		infos, unknown := s.names.Check(ask, adm, boundary.Topics(s.names)...)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err = errors.Join(err, ends.Error()); err != nil {
			s.health.set("kafka", fmt.Sprintf("list log ends: %v", err))
			continue
		}
		s.health.clear("kafka")
		if name := madeAgain(s.topics, infos); unknown == nil && name != "" {
			s.log.Error("the topic was deleted and created again; starting again with a new client", "topic", name)
			s.stall(errStalled)
			return
		}
		s.reportLag(ends)
		s.judge(moved, ends, s.now())
	}
}

// madeAgain returns the name of a topic that has another id than it had, or "". A client
// goes on with the id that it knows, and finds nothing there.
func madeAgain(before, now map[string]topic.Info) string {
	for name, info := range now {
		if info.ID != before[name].ID {
			return name
		}
	}
	return ""
}

// judge compares what is committed with the ends of the log and with what it was.
func (s *Service) judge(moved map[*partition]movement, ends kadm.ListedOffsets, now time.Time) {
	s.mu.Lock()
	list := map[*partition]int64{}
	for name, byNumber := range s.partitions {
		for n, p := range byNumber {
			if end, ok := ends.Lookup(name, n); ok {
				list[p] = end.Offset
			}
		}
	}
	s.mu.Unlock()
	for p := range moved {
		if _, ok := list[p]; !ok {
			delete(moved, p)
		}
	}
	reasons := s.health.parts("progress")
	waits, text := time.Duration(0), ""
	for p, end := range list {
		last, ok := moved[p]
		committed := p.committed.Load()
		excused := reasons[p.name] || len(reasons) > 0 && p.inHand.Load() != 0
		if !ok || committed != last.committed || committed >= end || excused {
			last = movement{committed, now}
		}
		moved[p] = last
		if wait := now.Sub(last.since); wait > waits {
			waits = wait
			text = fmt.Sprintf("records of %s have waited %s and nothing was committed: committed offset %d, end %d", p.name, wait.Round(time.Second), committed, end)
		}
	}
	s.metrics.waiting.Set(waits.Seconds())
	if waits < min(waitingTime, s.cfg.StallTimeout) {
		s.health.clear("progress")
		return
	}
	s.health.set("progress", text)
	if waits >= s.cfg.StallTimeout {
		s.metrics.stalls.Inc()
		s.dump(list, text)
		s.stall(errStalled)
	}
}

// dump logs what the service and its client know.
func (s *Service) dump(list map[*partition]int64, text string) {
	path := ops.Stacks("uptake-writer-stall-*.txt")
	s.log.Error("records wait without progress; replacing the client", "reason", text, "stacks", path)
	for p, end := range list {
		s.log.Error("partition", "topic", p.topic, "partition", p.number, "committed", p.committed.Load(), "end", end,
			"in_hand", p.inHand.Load() != 0, "building", p.building.Load() != 0, "paused", p.queue.isPaused(), "fault", s.health.parts("")[p.name])
	}
	told := make(chan struct{})
	go func() { // ends when the client answers, perhaps only once it is closed
		defer close(told)
		member, generation := s.client.GroupMetadata()
		s.log.Error("client", "member", member, "generation", generation, "paused", s.client.PauseFetchPartitions(nil),
			"fetched", s.client.BufferedFetchRecords(), "produced", s.client.BufferedProduceRecords())
	}()
	select {
	case <-told:
	case <-time.After(5 * time.Second):
		s.log.Error("the client does not answer")
	}
}
