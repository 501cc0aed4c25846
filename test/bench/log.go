package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/test/harness/kafka"
)

// log is an in-memory log with the topics, in this process, whose CPU time no
// figure holds.
type log struct {
	*kafka.Fake
	client     *kgo.Client
	admin      *kadm.Client
	partitions int32
}

func (r *runner) startLog(ctx context.Context) (*log, error) {
	fake, err := kafka.StartFake()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(fake.Addrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.SnappyCompression()), kgo.ProducerBatchMaxBytes(4<<20), kgo.MaxBufferedRecords(100_000),
	)
	if err != nil {
		return nil, errors.Join(err, fake.Close())
	}
	l := &log{fake, client, kadm.NewClient(client), int32(r.cfg.Partitions)}
	layout := topic.SingleLayout()
	layout.Partitions = l.partitions
	if err := topic.Unprefixed.Ensure(ctx, l.admin, layout); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *log) close() {
	l.client.Close()
	_ = l.Close() // in memory
}

func (l *log) brokers() string { return strings.Join(l.Addrs(), ",") }

// fill produces n records made by record.
func (l *log) fill(ctx context.Context, n int, record func(i int) *kgo.Record) error {
	var failed atomic.Pointer[error]
	for i := range n {
		l.client.Produce(ctx, record(i), func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
	}
	if err := l.client.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// forget deletes what enriched holds below an offset of each partition.
func (l *log) forget(ctx context.Context, below int64) error {
	offsets := kadm.Offsets{}
	for p := range l.partitions {
		offsets.AddOffset(topic.Unprefixed.Enriched, p, below, -1)
	}
	deleted, err := l.admin.DeleteRecords(ctx, offsets)
	return errors.Join(err, deleted.Error())
}

// committed is the sum of a topic's last stable offsets.
func (l *log) committed(ctx context.Context, name string) (int64, error) {
	offsets, err := l.admin.ListCommittedOffsets(ctx, name)
	if err != nil {
		return 0, err
	}
	var sum int64
	offsets.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum, offsets.Error()
}

// enriched reports whether the enricher has committed everything that is in raw
// and links now.
func (l *log) enriched(ctx context.Context) (bool, error) {
	ends, err := l.admin.ListCommittedOffsets(ctx, topic.Unprefixed.Raw, topic.Unprefixed.Links)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return false, fmt.Errorf("read the ends of raw and links: %w", err)
	}
	commits, err := l.admin.FetchOffsets(ctx, topic.Unprefixed.GroupEnricher)
	if err != nil {
		return false, err
	}
	behind := false
	ends.Each(func(end kadm.ListedOffset) {
		at := end.Offset
		if end.Topic == topic.Unprefixed.Links && at > 0 {
			at-- // the marker of the transaction that wrote the last link
		}
		c, ok := commits.Lookup(end.Topic, end.Partition)
		behind = behind || at > 0 && (!ok || c.At < at)
	})
	return !behind, nil
}
