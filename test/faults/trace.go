package faults

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// trace counts the messages of a prefix in enriched, as a reader of committed
// records sees them. When a round is wrong it tells on which side of enriched
// the fault lies.
func trace(ctx context.Context, addrs []string, prefix string) (map[string]int, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, topic.Unprefixed.Enriched)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	ends, err := adm.ListCommittedOffsets(ctx, topic.Unprefixed.Enriched)
	if err != nil {
		return nil, fmt.Errorf("trace: %w", err)
	}
	left := map[int32]int64{} // end by partition
	from := map[string]map[int32]kgo.Offset{topic.Unprefixed.Enriched: {}}
	ends.Each(func(o kadm.ListedOffset) {
		start, _ := starts.Lookup(topic.Unprefixed.Enriched, o.Partition)
		if o.Offset > start.Offset {
			left[o.Partition] = o.Offset
			from[topic.Unprefixed.Enriched][o.Partition] = kgo.NewOffset().At(start.Offset)
		}
	})
	cl.AddConsumePartitions(from)
	codec := event.NewCodec()
	counts := map[string]int{}
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("trace: %w", err)
		}
		var e event.EnrichedEvent
		for r := range fetches.RecordsAll() {
			// The last of a partition is often a transaction's marker.
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if !r.Attrs.IsControl() && codec.DecodeEnriched(r.Value, &e) == nil && strings.HasPrefix(e.MessageID, prefix) {
				counts[strings.Clone(e.MessageID)]++
			}
		}
	}
	return counts, nil
}

// traced says what trace found about the messages that had to be there.
func traced(counts map[string]int, want []string) string {
	var lost, doubled []string
	for _, id := range want {
		switch n := counts[id]; {
		case n == 0:
			lost = append(lost, id)
		case n > 1:
			doubled = append(doubled, fmt.Sprintf("%s %d times", id, n))
		}
	}
	slices.Sort(lost)
	slices.Sort(doubled)
	return fmt.Sprintf("enriched: %d of %d acked are missing %v, %d are there twice %v", len(lost), len(want), first(lost), len(doubled), first(doubled))
}

func first(list []string) []string { return list[:min(len(list), 5)] }
