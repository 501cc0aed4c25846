package repair

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/audit"
	"github.com/uptakehq/uptake/rollup-writer/internal/block"
	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Tail reads, for the audit, what the log holds beyond what ClickHouse counts and
// holds. It is not a member of the group.
type Tail struct {
	cfg     boundary.Config
	log     *slog.Logger
	records int
	names   *topic.Names
}

// NewTail returns a Tail that reads up to so many records.
func NewTail(cfg boundary.Config, log *slog.Logger, records int) *Tail {
	return &Tail{cfg: cfg, log: log, records: records, names: cfg.Kafka.Names()}
}

// span is a run of offsets of a partition.
type span struct{ next, end int64 }

// connect makes a client, which the caller closes.
func (t *Tail) connect(ctx context.Context) (*kgo.Client, *event.Codec, error) {
	codec, err := t.cfg.Registry.Codec(ctx)
	if err != nil {
		return nil, nil, err
	}
	opts, err := t.cfg.Kafka.Options(t.log, nil)
	if err != nil {
		return nil, nil, err
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, nil, fmt.Errorf("kafka client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
	defer cancel()
	if err := client.Ping(ctx); err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("reach kafka: %w", err)
	}
	return client, codec, nil
}

// Due implements audit.Log. An enricher commits its offset of raw in the
// transaction that has the counts up to there, and a writer its offset of enriched
// after it has stored the counts before that. So raw must be counted up to the
// first counts behind the writer's commit, or, where there are none, up to the
// enricher's commit. The order of the questions is what makes that hold while both
// go on: an enricher's commit that is read first is in enriched by the time its end
// is read.
func (t *Tail) Due(ctx context.Context) (*audit.Due, error) {
	client, codec, err := t.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	taken, err := admin.FetchOffsets(ctx, t.names.GroupEnricher)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("fetch commits of group %s: %w", t.names.GroupEnricher, err)
	}
	st, err := boundary.Read(ctx, admin, t.names, append([]string{t.names.Raw}, boundary.Topics(t.names)...))
	if err != nil {
		return nil, err
	}
	ends, err := admin.ListCommittedOffsets(ctx, t.names.Enriched)
	if err = errors.Join(err, ends.Error()); err != nil {
		return nil, fmt.Errorf("list log ends: %w", err)
	}
	due := &audit.Due{}
	id, rawID := st.Topics[t.names.Enriched].ID.String(), st.Topics[t.names.Raw].ID.String()
	for _, n := range st.Topics[t.names.Enriched].Partitions.Numbers() {
		c, ok := st.Commits.Lookup(t.names.Enriched, n)
		first, ok1 := st.First.Lookup(t.names.Enriched, n)
		end, ok2 := ends.Lookup(t.names.Enriched, n)
		if ok && c.Err != nil {
			return nil, fmt.Errorf("commit of group %s for %s/%d: %w", t.names.GroupRollupWriter, t.names.Enriched, n, c.Err)
		}
		if !ok || !ok1 || !ok2 || c.At < 0 {
			continue // a writer says what is wrong
		}
		if commit, err := block.ParseCommit(c.Metadata); err != nil || commit.TopicID != id {
			continue // the same
		}
		next, err := t.firstCounted(ctx, client, codec, rawID, n, max(c.At, first.Offset), end.Offset)
		if err != nil {
			return nil, err
		}
		if next < 0 {
			o, ok := taken.Lookup(t.names.Raw, n)
			if ok && o.Err != nil {
				return nil, fmt.Errorf("commit of group %s for %s/%d: %w", t.names.GroupEnricher, t.names.Raw, n, o.Err)
			}
			if !ok || o.At < 0 {
				continue
			}
			next = o.At
		}
		due.Counted = append(due.Counted, audit.Position{RawTopicID: rawID, Partition: n, Next: next})
	}
	due.Ahead, err = t.ahead(ctx, client, codec, st)
	return due, err
}

// firstCounted is the offset of raw from which on the first counts of a span of
// enriched count, or -1.
func (t *Tail) firstCounted(ctx context.Context, client *kgo.Client, codec *event.Codec, rawID string, number int32, from, to int64) (next int64, err error) {
	next = -1
	if from >= to {
		return next, nil
	}
	err = partitions(client).Span(ctx, t.names.Enriched, number, from, to, func(r *kgo.Record) error {
		if typ, err := codec.Type(r.Value); err != nil || typ != event.TypeControl {
			return nil //nolint:nilerr // for writers to say
		}
		var c event.Control
		if codec.DecodeControl(r.Value, &c) != nil || c.Kind != event.ControlCounts {
			return nil
		}
		if n, err := event.ParseCounts(c.Payload); err == nil && n.RawTopicID == rawID {
			next = n.First
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return next, err
}

// ahead says of which partitions ClickHouse lacks what writers committed.
func (t *Tail) ahead(ctx context.Context, client *kgo.Client, codec *event.Codec, st boundary.State) (list []string, err error) {
	skips, err := t.cfg.Skips()
	if err != nil {
		return nil, err
	}
	conn, err := clickhouse.OpenSQL(&t.cfg.ClickHouse)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	a := boundary.Ahead{SQL: conn, Schema: t.cfg.ClickHouse.Schema(), Names: t.names, Log: partitions(client), Codec: codec, Skips: skips}
	for _, name := range boundary.Topics(t.names) {
		found, err := a.Of(ctx, st, name)
		if err != nil {
			return nil, err
		}
		for _, n := range slices.Sorted(maps.Keys(found)) {
			list = append(list, found[n].Error())
		}
	}
	return list, nil
}

// Tail implements audit.Log.
func (t *Tail) Tail(ctx context.Context, positions []audit.Position, due *audit.Due, present func(string, int32, int64) (map[int64]bool, error)) (*audit.Tail, error) {
	client, codec, err := t.connect(ctx)
	if err != nil {
		return nil, err
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
	must := map[int32]int64{} // offset of raw up to which a partition must be counted
	for _, p := range due.Counted {
		must[p.Partition] = p.Next
	}
	out := &audit.Tail{Raw: map[audit.HourKey]int64{}, Rejected: map[audit.HourKey]int64{}, Lost: map[audit.HourKey]int64{}}
	var raw event.RawEvent
	var rejected event.Rejected
	take := func(r *kgo.Record) {
		switch {
		case r.Topic == t.names.Raw:
			// Counted as the enricher does.
			k := audit.HourKey{Hour: hourOf(event.FromTime(r.Timestamp))}
			if codec.DecodeRaw(r.Value, &raw) == nil {
				k.App = string(append([]byte(nil), raw.AppID...))
				if raw.ReceivedAt > 0 && raw.ReceivedAt < event.MaxReceived {
					k.Hour = hourOf(raw.ReceivedAt)
				}
			}
			if r.Offset < must[r.Partition] {
				out.Lost[k]++
			} else {
				out.Raw[k]++
			}
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

// spans returns the offsets to read, and what rejected_events already has of them.
func (t *Tail) spans(ctx context.Context, client *kgo.Client, positions []audit.Position, present func(string, int32, int64) (map[int64]bool, error)) (map[string]map[int32]*span, map[int32]map[int64]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, boundary.AskTimeout)
	defer cancel()
	admin := kadm.NewClient(client)
	names := []string{t.names.Raw, t.names.Rejected}
	infos, err := admin.ListTopics(ctx, names...)
	if err == nil {
		err = infos.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list topics: %w", err)
	}
	first, err1 := admin.ListStartOffsets(ctx, names...)
	end, err2 := admin.ListCommittedOffsets(ctx, names...)
	commits, err3 := admin.FetchOffsets(ctx, t.names.GroupRollupWriter)
	if errors.Is(err3, kerr.GroupIDNotFound) {
		err3 = nil
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, nil, fmt.Errorf("list offsets: %w", err)
	}
	if err := errors.Join(first.Error(), end.Error()); err != nil {
		return nil, nil, fmt.Errorf("list offsets: %w", err)
	}
	spans := map[string]map[int32]*span{t.names.Raw: {}, t.names.Rejected: {}}
	have := map[int32]map[int64]bool{}
	id := infos[t.names.Raw].ID.String()
	var fault error
	end.Each(func(o kadm.ListedOffset) {
		start, _ := first.Lookup(o.Topic, o.Partition)
		s := &span{next: start.Offset, end: o.Offset}
		switch o.Topic {
		case t.names.Raw:
			for _, p := range positions {
				if p.RawTopicID == id && p.Partition == o.Partition {
					s.next = max(s.next, p.Next)
					if p.Next > o.Offset {
						fault = errors.Join(fault, fmt.Errorf("%s/%d ends at %d and is counted up to %d: it was truncated", o.Topic, o.Partition, o.Offset, p.Next))
					}
				}
			}
		case t.names.Rejected:
			if c, ok := commits.Lookup(o.Topic, o.Partition); ok && c.Err == nil && c.At >= 0 {
				s.next = max(s.next, c.At)
			}
			set, err := present(infos[t.names.Rejected].ID.String(), o.Partition, s.next)
			fault = errors.Join(fault, err)
			have[o.Partition] = set
		}
		if s.next < s.end {
			spans[o.Topic][o.Partition] = s
		}
	})
	return spans, have, fault
}

// errEnough ends reading at the bound.
var errEnough = errors.New("enough records were read")

// read passes each committed record of the spans to take, up to the bound, and advances
// the spans.
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
