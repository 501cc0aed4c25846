package rollup

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
	"github.com/uptakehq/uptake/schemas/svc/failpoint"
	"github.com/uptakehq/uptake/schemas/topic"
)

// fetchBytes bounds how much is fetched from a broker in one request, and how much the
// client buffers of it.
const fetchBytes = 16 << 20

// connect creates the client. It consumes nothing until topics are added.
func (s *Service) connect() error {
	opts, err := s.cfg.Kafka.Options(s.log, s.reg)
	if err != nil {
		return err
	}
	opts = append(
		opts,
		kgo.ConsumerGroup(s.names.GroupRollupWriter),
		kgo.SessionTimeout(s.cfg.SessionTimeout),
		kgo.RebalanceTimeout(s.cfg.RebalanceTimeout),
		kgo.HeartbeatInterval(min(3*time.Second, s.cfg.SessionTimeout/3)),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they advance the boundary of an idle partition
		kgo.DisableAutoCommit(),
		// A partition starts at its commit, never at a default offset.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.AdjustFetchOffsetsFn(s.begin),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.lost),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMaxPartitionBytes(int32(min(s.cfg.QueueBytes, fetchBytes))),
		// A tick goes to the partition whose block it closes.
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(boundary.AskTimeout),
		kgo.MaxBufferedRecords(1000),
	)
	if !mistakenPolls {
		opts = append(opts, kgo.BlockRebalanceOnPoll())
	}
	if s.client, err = kgo.NewClient(opts...); err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	s.admin = kadm.NewClient(s.client)
	return nil
}

// unanswered reports whether an error of a check of topics is about the request and not
// about a topic: Kafka is unreachable, or the context ended. Such an error passes by
// itself; a fault of a topic does not.
func unanswered(err error) bool {
	fault, ok := errors.AsType[*topic.FaultError](err)
	return !ok || fault.Passes()
}

// assigned is called while no poll is in progress, before the first fetch.
func (s *Service) assigned(_ context.Context, cl *kgo.Client, added map[string][]int32) {
	// The client keeps a pause after the partition was revoked: resume it.
	cl.ResumeFetchPartitions(added)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	for name, numbers := range added {
		if s.partitions[name] == nil {
			s.partitions[name] = map[int32]*partition{}
		}
		for _, n := range numbers {
			p := s.newPartition(name, n)
			s.partitions[name][n] = p
			s.wg.Go(p.run) // ends when the intake is closed and the attempt under way has its answer
		}
		s.metrics.partitions.WithLabelValues(name).Set(float64(len(s.partitions[name])))
		s.log.Info("partitions assigned", "topic", name, "partitions", numbers)
	}
}

// begin gives each assigned partition its start offset, or the reason why it must not
// start, and tells the client where to fetch from.
func (s *Service) begin(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var starts map[string]map[int32]boundary.Start
	for attempt := 1; ; attempt++ {
		var err error
		if starts, err = s.starts(ctx, offsets); err == nil {
			break
		}
		if attempt == 1 {
			s.log.Warn("reading the start offsets failed; retrying", "error", err)
		}
		if backoff.Sleep(ctx, checkRetry) != nil {
			return nil, ctx.Err()
		}
	}
	out := map[string]map[int32]kgo.Offset{}
	for name, numbers := range offsets {
		out[name] = map[int32]kgo.Offset{}
		for n := range numbers {
			st := s.mistakenStart(ctx, name, n, starts[name][n])
			out[name][n] = kgo.NewOffset().At(max(st.Boundary, 0)).WithEpoch(-1)
			p := s.partition(name, n)
			if p == nil {
				continue // revoked in the meantime
			}
			if st.Refused != nil {
				s.pause(p)
			}
			select {
			case p.began <- st:
			default: // it has started
			}
		}
	}
	return out, nil
}

// starts reads commits, topics and log starts, and decides for each partition whether
// it may start.
func (s *Service) starts(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]boundary.Start, error) {
	ctx, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
	defer cancel()
	var names []string
	for name := range offsets {
		names = append(names, name)
	}
	state, err := boundary.Read(ctx, s.admin, s.names, names)
	if err != nil {
		return nil, err
	}
	// The topic's timestamp type may have been changed since the last look.
	_, changed := s.names.Check(ctx, s.admin, boundary.Topics(s.names)...)
	if changed != nil && unanswered(changed) {
		return nil, changed
	}
	starts := map[string]map[int32]boundary.Start{}
	for name, numbers := range offsets {
		starts[name] = map[int32]boundary.Start{}
		for n := range numbers {
			st := state.Start(s.cfg.Shape(), name, n)
			if changed != nil {
				st.Refused = changed
			}
			if ahead := s.ahead[name][n]; st.Refused == nil && ahead != nil {
				st.Refused = fmt.Errorf("%w: %s", ahead, boundary.AheadRepair)
			}
			starts[name][n] = st
		}
	}
	return starts, nil
}

// revoked is called while no poll is in progress: as soon as it returns, the partitions
// belong to another writer.
func (s *Service) revoked(_ context.Context, _ *kgo.Client, removed map[string][]int32) {
	parts := s.remove(removed)
	for _, p := range parts {
		p.closeIntake()
	}
	timeout := time.NewTimer(s.cfg.RevokeWait)
	defer timeout.Stop()
	for _, p := range parts {
		select {
		case <-p.ended:
		case <-timeout.C:
			timeout.Reset(0)
		}
		p.revoke()
	}
	s.log.Info("partitions revoked", "partitions", removed)
}

// lost is called when the group has already given the partitions to others.
func (s *Service) lost(_ context.Context, _ *kgo.Client, removed map[string][]int32) {
	for _, p := range s.remove(removed) {
		p.revoke()
	}
	s.log.Warn("partitions lost", "partitions", removed)
}

// remove takes partitions out of the service and returns them.
func (s *Service) remove(removed map[string][]int32) []*partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []*partition
	for name, numbers := range removed {
		for _, n := range numbers {
			if p := s.partitions[name][n]; p != nil {
				parts = append(parts, p)
				delete(s.partitions[name], n)
				s.metrics.drop(name, n)
				s.lag.Forget(p.name)
			}
		}
		s.metrics.partitions.WithLabelValues(name).Set(float64(len(s.partitions[name])))
	}
	return parts
}

func (s *Service) partition(name string, number int32) *partition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.partitions[name][number]
}

func (s *Service) pause(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partitions[p.topic][p.number] == p {
		s.client.PauseFetchPartitions(map[string][]int32{p.topic: {p.number}})
	}
}

// throttle pauses or resumes fetching according to the queue's present state. poll
// calls it when the queue became full, build when the queue was drained. Both calls may
// be late, so neither acts on what its caller saw: a late pause after the resume would
// stop the partition forever.
func (s *Service) throttle(p *partition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.partitions[p.topic][p.number] != p {
		return
	}
	at := map[string][]int32{p.topic: {p.number}}
	if p.queue.isPaused() {
		s.client.PauseFetchPartitions(at)
	} else {
		s.client.ResumeFetchPartitions(at)
	}
}

// pollRecords bounds the records handed out between two opportunities to rebalance.
const pollRecords = 20_000

// poll hands out fetched records until ctx ends.
func (s *Service) poll(ctx context.Context) {
	for {
		fetches := s.client.PollRecords(ctx, pollRecords)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			s.client.AllowRebalance()
			return
		}
		failpoint.Reach("writer.after-poll")
		fetches.EachPartition(func(f kgo.FetchTopicPartition) {
			p := s.partition(f.Topic, f.Partition)
			if f.Err != nil {
				s.fetchFailed(p, f)
				return
			}
			if p == nil || len(f.Records) == 0 {
				return
			}
			if p.queue.put(f.Records) {
				s.throttle(p)
			}
		})
		failpoint.Reach("writer.after-fetch")
		s.client.AllowRebalance()
	}
}

func (s *Service) fetchFailed(p *partition, f kgo.FetchTopicPartition) {
	var lost *kgo.ErrDataLoss
	switch {
	case p != nil && (errors.Is(f.Err, kerr.OffsetOutOfRange) || errors.As(f.Err, &lost)):
		p.fail(fmt.Errorf("fetch: %w: the log was truncated or retention has overtaken the writer; run `rollup-writer audit`, then set new start offsets with `rollup-writer init -reset`", f.Err))
	case errors.Is(f.Err, context.Canceled):
	default:
		s.log.Warn("fetch failed", "topic", f.Topic, "partition", f.Partition, "error", f.Err)
	}
}

// commit commits one boundary in the name of the group's current member.
func (s *Service) commit(ctx context.Context, name string, number int32, boundary int64) error {
	offsets := map[string]map[int32]kgo.EpochOffset{name: {number: {Epoch: -1, Offset: boundary}}}
	var result error
	s.client.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err != nil {
			result = err
			return
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				result = errors.Join(result, kerr.ErrorForCode(p.ErrorCode))
			}
		}
	})
	return result
}

func (s *Service) reportLag(ends kadm.ListedOffsets) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	for name, byNumber := range s.partitions {
		for n, p := range byNumber {
			label := strconv.Itoa(int(n))
			if end, ok := ends.Lookup(name, n); ok && p.started.Load() {
				behind := max(end.Offset-p.committed.Load(), 0)
				s.metrics.lagRecords.WithLabelValues(name, label).Set(float64(behind))
				s.lag.Set(p.name, behind)
			}
			age := 0.0
			if ms := p.oldest(); ms != 0 {
				age = max(float64(now-ms)/1000, 0)
			}
			s.metrics.lagSeconds.WithLabelValues(name, label).Set(age)
		}
	}
	for key, w := range s.windows {
		if key.shard == 0 || w.used() > 0 {
			s.metrics.windowUsed.WithLabelValues(s.topicOf(key.table)).Set(w.used())
		}
	}
}

func (s *Service) topicOf(table string) string {
	if table == boundary.RejectedTable {
		return s.names.Rejected
	}
	return s.names.Enriched
}
