package identity

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

// settled returns when the services have carried out all that raw holds now, and
// what came of it: links lead to links, so that it looks until nothing moves.
func settled(ctx context.Context, log kafka.Log) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(log.Addrs()...))
	if err != nil {
		return err
	}
	defer cl.Close()
	admin := kadm.NewClient(cl)
	behind := func(group string, names ...string) error {
		ends, err := admin.ListEndOffsets(ctx, names...)
		if err != nil {
			return err
		}
		offsets, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		var late error
		ends.Each(func(o kadm.ListedOffset) {
			at, ok := offsets.Lookup(o.Topic, o.Partition)
			if o.Offset > 0 && (!ok || at.At < o.Offset) && late == nil {
				late = fmt.Errorf("%s/%d: %d of %d is carried out", o.Topic, o.Partition, at.At, o.Offset)
			}
		})
		return late
	}
	calm := time.Time{}
	return stack.Await(ctx, "the services to carry out all there is", func() error {
		if err := behind(topic.Unprefixed.GroupEnricher, topic.Unprefixed.Raw); err != nil {
			calm = time.Time{}
			return err
		}
		if err := behind(topic.Unprefixed.GroupRollupWriter, topic.Unprefixed.Enriched, topic.Unprefixed.Rejected); err != nil {
			calm = time.Time{}
			return err
		}
		if calm.IsZero() {
			calm = time.Now()
		}
		if time.Since(calm) < time.Second {
			return fmt.Errorf("links may be on their way")
		}
		return nil
	})
}
