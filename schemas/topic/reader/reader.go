// Package reader reads one partition from an offset to a mark, to rebuild state
// from what the log holds.
//
// It reads committed records alone and knows its exact position, also behind
// records that were aborted, compacted away or are no records at all. A mark is
// the high watermark of its moment: records before it may belong to
// transactions that are still open, and Read waits for their end. That closes
// the gap between the commit of a transaction and the arrival of its markers: a
// successor that read up to the last stable offset alone would miss what its
// predecessor had just committed.
//
// Errors: what a broker says will pass, and a broker that cannot be reached, is
// waited for until ctx ends, or until nothing answered for Silence. Everything
// else ends the reading: an unknown topic id, an offset out of range, a record
// that cannot be unpacked, and an error of the caller's function.
//
// A Reader made by New has a client of its own, whose fetches do not queue behind
// those of a consumer. It is safe for concurrent use.
package reader

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// Reader reads partitions.
type Reader struct {
	// Silence is how long brokers may answer nothing before a reading fails; 0:
	// until ctx ends. Set it before the first use.
	Silence time.Duration
	// FetchBytes is how many packed bytes one fetch asks for. What it unpacks to,
	// as records, is some twenty times as much, for each partition that is read at
	// the same time. A broker sends at least one batch, however large.
	FetchBytes int32

	cl  *kgo.Client
	adm *kadm.Client
	dec kgo.Decompressor
}

// On returns a Reader on a client that the caller closes.
func On(cl *kgo.Client) *Reader {
	return &Reader{FetchBytes: 1 << 20, cl: cl, adm: kadm.NewClient(cl), dec: kgo.DefaultDecompressor()}
}

// New returns a Reader on a client of its own, which Close closes. opts say how
// to reach the cluster; they must not name a group or a transactional id.
func New(opts ...kgo.Opt) (*Reader, error) {
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("client for reading partitions: %w", err)
	}
	return On(cl), nil
}

// Close closes the client.
func (r *Reader) Close() { r.cl.Close() }

// Bounds are the offset of the first record of a partition and its high
// watermark.
type Bounds struct{ Start, End int64 }

// unsettledTime is how long Bounds asks again while brokers elect a leader, as
// after a topic was made: the client itself repeats requests, and not what an
// answer says of one partition.
const unsettledTime = 10 * time.Second

// Bounds asks for a partition's bounds.
func (r *Reader) Bounds(ctx context.Context, topic string, partition int32) (b Bounds, err error) {
	pause := backoff.Backoff{Min: 50 * time.Millisecond, Max: time.Second}
	err = pause.Retry(ctx, unsettledTime, func() error {
		b, err = r.bounds(ctx, topic, partition)
		return err
	}, unsettled)
	return b, err
}

// unsettled tells an error that passes when brokers have agreed on a leader.
func unsettled(err error) bool {
	return kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition)
}

func (r *Reader) bounds(ctx context.Context, topic string, partition int32) (Bounds, error) {
	// The end first: a start that moves on in between is only less to read.
	end, err := r.adm.ListEndOffsets(ctx, topic)
	if err != nil {
		return Bounds{}, fmt.Errorf("end of %s/%d: %w", topic, partition, err)
	}
	start, err := r.adm.ListStartOffsets(ctx, topic)
	if err != nil {
		return Bounds{}, fmt.Errorf("start of %s/%d: %w", topic, partition, err)
	}
	var b Bounds
	for dst, offsets := range map[*int64]kadm.ListedOffsets{&b.Start: start, &b.End: end} {
		o, ok := offsets.Lookup(topic, partition)
		if !ok {
			return Bounds{}, fmt.Errorf("bounds of %s/%d: %w", topic, partition, kerr.UnknownTopicOrPartition)
		}
		if o.Err != nil {
			return Bounds{}, fmt.Errorf("bounds of %s/%d: %w", topic, partition, o.Err)
		}
		*dst = o.Offset
	}
	return b, nil
}

// OffsetAt returns the offset of the first record with a timestamp of at or
// later, or the end.
func (r *Reader) OffsetAt(ctx context.Context, topic string, partition int32, at time.Time) (int64, error) {
	offsets, err := r.adm.ListOffsetsAfterMilli(ctx, max(at.UnixMilli(), 0), topic)
	if err != nil {
		return 0, fmt.Errorf("offset of %s/%d at %s: %w", topic, partition, at.UTC().Format(time.RFC3339), err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return 0, fmt.Errorf("offset of %s/%d at %s: %w", topic, partition, at.UTC().Format(time.RFC3339), kerr.UnknownTopicOrPartition)
	}
	if o.Err != nil {
		return 0, fmt.Errorf("offset of %s/%d at %s: %w", topic, partition, at.UTC().Format(time.RFC3339), o.Err)
	}
	return o.Offset, nil
}

// NewestTime returns the latest timestamp of a partition's records, the epoch if there
// are none.
func (r *Reader) NewestTime(ctx context.Context, topic string, partition int32) (time.Time, error) {
	offsets, err := r.adm.ListMaxTimestampOffsets(ctx, topic)
	if err != nil {
		return time.Time{}, fmt.Errorf("newest record of %s/%d: %w", topic, partition, err)
	}
	o, ok := offsets.Lookup(topic, partition)
	if !ok {
		return time.Time{}, fmt.Errorf("newest record of %s/%d: %w", topic, partition, kerr.UnknownTopicOrPartition)
	}
	if o.Err != nil {
		return time.Time{}, fmt.Errorf("newest record of %s/%d: %w", topic, partition, o.Err)
	}
	return time.UnixMilli(max(o.Timestamp, 0)), nil
}

// Position is how far a Read has come.
type Position struct {
	Next   int64 // the next offset to read
	Stable int64 // the last stable offset: records from here on may belong to open transactions
}

const (
	maxWait      = 250 * time.Millisecond
	retryBackoff = 100 * time.Millisecond
)

// Read calls fn for each committed record from offset from on, until the
// partition is read up to the offset to and no transaction is open below it. It
// returns the offset behind what it read, which may lie beyond to. at, if not
// nil, is called after each fetch. Records live as long as anything refers to
// them.
func (r *Reader) Read(ctx context.Context, topic string, partition int32, from, to int64, fn func(*kgo.Record) error, at func(Position)) (int64, error) {
	f := fetcher{r: r, topic: topic, partition: partition, next: from, answered: time.Now()}
	for f.next < to {
		if err := f.step(ctx, fn, at); err != nil {
			return f.next, fmt.Errorf("read %s/%d at offset %d: %w", topic, partition, f.next, err)
		}
	}
	return f.next, nil
}

// Span calls fn for each committed record from offset from on and below to, which
// is at or below the high watermark, and for no other.
func (r *Reader) Span(ctx context.Context, topic string, partition int32, from, to int64, fn func(*kgo.Record) error) error {
	_, err := r.Read(ctx, topic, partition, from, to, func(rec *kgo.Record) error {
		if rec.Offset >= to {
			return nil
		}
		return fn(rec)
	}, nil)
	return err
}

// All calls fn for each committed record that the partition holds now.
func (r *Reader) All(ctx context.Context, topic string, partition int32, fn func(*kgo.Record) error) error {
	b, err := r.Bounds(ctx, topic, partition)
	if err != nil {
		return err
	}
	return r.Span(ctx, topic, partition, b.Start, b.End, fn)
}

// Newest returns the newest record of each key that the partition holds now, of
// the keys that keep is true of. A key whose newest record has no value is deleted,
// and left out.
func (r *Reader) Newest(ctx context.Context, topic string, partition int32, keep func(key []byte) bool) (map[string]*kgo.Record, error) {
	newest := map[string]*kgo.Record{}
	err := r.All(ctx, topic, partition, func(rec *kgo.Record) error {
		switch {
		case !keep(rec.Key):
		case len(rec.Value) == 0:
			delete(newest, string(rec.Key))
		default:
			newest[string(rec.Key)] = rec
		}
		return nil
	})
	return newest, err
}

// Follow calls fn for each committed record of the partition, from its start
// and forever, until ctx ends or fn fails. caughtUp is called once, when it has
// read what the partition held at the time of the call.
func (r *Reader) Follow(ctx context.Context, topic string, partition int32, fn func(*kgo.Record) error, caughtUp func()) error {
	var b Bounds
	for {
		var err error
		if b, err = r.Bounds(ctx, topic, partition); err == nil {
			break
		}
		if !kerr.IsRetriable(err) {
			return err
		}
		if err := backoff.Sleep(ctx, retryBackoff); err != nil {
			return err
		}
	}
	next, err := r.Read(ctx, topic, partition, b.Start, b.End, fn, nil)
	if err != nil {
		return err
	}
	caughtUp()
	f := fetcher{r: r, topic: topic, partition: partition, next: next, answered: time.Now()}
	for {
		if err := f.step(ctx, fn, nil); err != nil {
			return fmt.Errorf("read %s/%d at offset %d: %w", topic, partition, f.next, err)
		}
	}
}

// fetcher is one reading of one partition.
type fetcher struct {
	r         *Reader
	topic     string
	partition int32
	next      int64
	topicID   kadm.TopicID
	leader    int32
	known     bool // topicID and leader are
	answered  time.Time
}

// step does one fetch. What may pass by itself is waited for.
func (f *fetcher) step(ctx context.Context, fn func(*kgo.Record) error, at func(Position)) error {
	if !f.known {
		if err := f.find(ctx); err != nil {
			return f.wait(ctx, err)
		}
	}
	fp, next, err := f.fetch(ctx)
	if err != nil {
		f.known = false
		return f.wait(ctx, err)
	}
	f.answered = time.Now()
	for _, rec := range fp.Records {
		if err := fn(rec); err != nil {
			return err
		}
	}
	f.next = next
	if at != nil {
		at(Position{Next: next, Stable: fp.LastStableOffset})
	}
	return ctx.Err()
}

// wait returns err if it will not pass, else waits a moment.
func (f *fetcher) wait(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var ke *kerr.Error
	if errors.As(err, &ke) && !ke.Retriable {
		return err
	}
	if silence := time.Since(f.answered); f.r.Silence > 0 && silence > f.r.Silence {
		return fmt.Errorf("no fetch succeeded for %s: %w", silence.Round(time.Second), err)
	}
	return backoff.Sleep(ctx, retryBackoff)
}

func (f *fetcher) find(ctx context.Context) error {
	topics, err := f.r.adm.ListTopics(ctx, f.topic)
	if err != nil {
		return err
	}
	t, ok := topics[f.topic]
	if !ok {
		return kerr.UnknownTopicOrPartition
	}
	if t.Err != nil {
		return t.Err
	}
	p, ok := t.Partitions[f.partition]
	if !ok {
		return kerr.UnknownTopicOrPartition
	}
	if p.Leader < 0 {
		return kerr.LeaderNotAvailable
	}
	f.topicID, f.leader, f.known = t.ID, p.Leader, true
	return nil
}

func (f *fetcher) fetch(ctx context.Context) (kgo.FetchPartition, int64, error) {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition = f.partition
	p.FetchOffset = f.next
	p.PartitionMaxBytes = f.r.FetchBytes
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = f.topic, f.topicID
	t.Partitions = append(t.Partitions, p)
	req := kmsg.NewPtrFetchRequest()
	req.MaxWaitMillis = int32(maxWait.Milliseconds())
	req.MinBytes = 1
	req.MaxBytes = f.r.FetchBytes
	req.IsolationLevel = 1
	req.Topics = append(req.Topics, t)

	kresp, err := f.r.cl.Broker(int(f.leader)).RetriableRequest(ctx, req)
	if err != nil {
		return kgo.FetchPartition{}, 0, err
	}
	resp := kresp.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return kgo.FetchPartition{}, 0, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return kgo.FetchPartition{Err: nil, LastStableOffset: -1}, f.next, nil
	}
	fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{
		Offset:         f.next,
		IsolationLevel: kgo.ReadCommitted(),
		Topic:          f.topic,
		Partition:      f.partition,
	}, &resp.Topics[0].Partitions[0], f.r.dec, nil)
	return fp, next, fp.Err
}
