package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Tail reads what the log holds beyond what ClickHouse counts and holds, for the
// audit. It is no member of the group.
type Tail struct {
	cfg     boundary.Config
	log     *slog.Logger
	records int
}

// NewTail returns a Tail that reads up to so many records.
func NewTail(cfg boundary.Config, log *slog.Logger, records int) *Tail {
	return &Tail{cfg: cfg, log: log, records: records}
}

// span is a run of offsets of a partition.
type span struct{ next, end int64 }

// Tail implements audit.Log.
func (t *Tail) Tail(ctx context.Context, positions []audit.Position, present func(string, int32, int64) (map[int64]bool, error)) (*audit.Tail, error) {
	codec, err := t.cfg.Registry.Codec(ctx)
	if err != nil {
		return nil, err
	}
	opts, err := t.cfg.Kafka.Options(t.log, nil)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	defer client.Close()
	spans, have, err := t.spans(ctx, client, positions, present)
	if err != nil {
		return nil, err
	}
	counted := map[int32]int64{} // offset of raw up to which a partition is counted
	for _, p := range positions {
		counted[p.Partition] = max(counted[p.Partition], p.Next)
	}
	out := &audit.Tail{Raw: map[audit.HourKey]int64{}, Rejected: map[audit.HourKey]int64{}}
	var raw event.RawEvent
	var rejected event.Rejected
	take := func(r *kgo.Record) {
		switch {
		case r.Topic == topic.Raw:
			// As the enricher counts it.
			k := audit.HourKey{Hour: hourOf(event.FromTime(r.Timestamp))}
			if codec.DecodeRaw(r.Value, &raw) == nil {
				k.App = string(append([]byte(nil), raw.AppID...))
				if raw.ReceivedAt > 0 && raw.ReceivedAt < event.MaxReceived {
					k.Hour = hourOf(raw.ReceivedAt)
				}
			}
			out.Raw[k]++
		case have[r.Partition][r.Offset] || codec.DecodeRejected(r.Value, &rejected) != nil:
		case rejected.Stage == event.StageEnricher && rejected.Field != "links" && rejected.SourceOffset < counted[int32(rejected.SourcePartition)]:
			out.Rejected[audit.HourKey{App: string(append([]byte(nil), rejected.AppID...)), Hour: hourOf(rejected.ReceivedAt)}]++
		}
	}
	if err := t.read(ctx, client, spans, take); err != nil {
		return nil, err
	}
	for _, byNumber := range spans {
		for _, s := range byNumber {
			out.Unread += s.end - s.next
		}
	}
	return out, nil
}

func hourOf(us event.Micros) int64 {
	return event.HourOf(min(max(us, 0), event.MaxReceived-1))
}

// spans are what is to be read, and what rejected_events has of that already.
func (t *Tail) spans(ctx context.Context, client *kgo.Client, positions []audit.Position, present func(string, int32, int64) (map[int64]bool, error)) (map[string]map[int32]*span, map[int32]map[int64]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		return nil, nil, fmt.Errorf("reach kafka: %w", err)
	}
	admin := kadm.NewClient(client)
	names := []string{topic.Raw, topic.Rejected}
	infos, err := admin.ListTopics(ctx, names...)
	if err == nil {
		err = infos.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	first, err1 := admin.ListStartOffsets(ctx, names...)
	end, err2 := admin.ListCommittedOffsets(ctx, names...)
	commits, err3 := admin.FetchOffsets(ctx, topic.GroupRollupWriter)
	if errors.Is(err3, kerr.GroupIDNotFound) {
		err3 = nil
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, fmt.Errorf("list offsets: %w", err)
	}
	if err := errors.Join(first.Error(), end.Error()); err != nil {
		return nil, nil, fmt.Errorf("list offsets: %w", err)
	}
	spans := map[string]map[int32]*span{topic.Raw: {}, topic.Rejected: {}}
	have := map[int32]map[int64]bool{}
	id := infos[topic.Raw].ID.String()
	var fault error
	end.Each(func(o kadm.ListedOffset) {
		start, _ := first.Lookup(o.Topic, o.Partition)
		s := &span{next: start.Offset, end: o.Offset}
		switch o.Topic {
		case topic.Raw:
			for _, p := range positions {
				if p.RawTopicID == id && p.Partition == o.Partition {
					s.next = max(s.next, p.Next)
					if p.Next > o.Offset {
						fault = errors.Join(fault, fmt.Errorf("%s/%d ends at %d and is counted up to %d: it was truncated", o.Topic, o.Partition, o.Offset, p.Next))
					}
				}
			}
		case topic.Rejected:
			if c, ok := commits.Lookup(o.Topic, o.Partition); ok && c.Err == nil && c.At >= 0 {
				s.next = max(s.next, c.At)
			}
			set, err := present(infos[topic.Rejected].ID.String(), o.Partition, s.next)
			fault = errors.Join(fault, err)
			have[o.Partition] = set
		}
		if s.next < s.end {
			spans[o.Topic][o.Partition] = s
		}
	})
	return spans, have, fault
}

// errEnough ends a reading at the bound.
var errEnough = errors.New("enough records were read")

// read gives each committed record of the spans to take, up to the bound, and
// moves the spans on.
func (t *Tail) read(ctx context.Context, client *kgo.Client, spans map[string]map[int32]*span, take func(*kgo.Record)) error {
	in, n := partitions(client), 0
	for name, byNumber := range spans {
		for number, s := range byNumber {
			err := in.Span(ctx, name, number, s.next, s.end, func(r *kgo.Record) error {
				if n == t.records {
					return errEnough
				}
				take(r)
				n++
				s.next = r.Offset + 1
				return nil
			})
			if errors.Is(err, errEnough) {
				return nil
			}
			if err != nil {
				return err
			}
			s.next = s.end
		}
	}
	return nil
}
