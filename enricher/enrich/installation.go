package enrich

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// An installation writes a mark to every partition of enricher-state before it
// processes the first record. So an empty state means that the state was lost, and an
// empty partition that it was added later. Neither is silently treated as a new
// installation: events would count twice, or for other people.
//
// The mark is an IdentityState of kind stateMark, whose Version is the number of
// partitions at the time of the installation.
const stateMark = "installation"

var markKey = []byte{0, 'i'}

// holdings are what the topics and the group contain, by partition.
type holdings struct {
	partitions int32
	rawStart   []int64
	rawEnd     []int64
	state      []int64 // end offset of enricher-state
	committed  []bool  // the group has an offset of raw
	enriched   []bool  // a transaction wrote to it
}

// checkInstallation refuses to start without the state or offsets of an earlier
// installation unless Config.NewInstallation is set, and marks a new installation.
func (s *Service) checkInstallation(ctx context.Context, adm *kadm.Client) error {
	opts, err := s.clientOptions("installation", nil)
	if err != nil {
		return err
	}
	in, err := reader.New(opts...)
	if err != nil {
		return err
	}
	defer in.Close()
	h, err := s.holdings(ctx, adm, in)
	if err != nil {
		return err
	}
	marked := slices.DeleteFunc(slices.Clone(h.state), func(end int64) bool { return end == 0 })
	if len(marked) > 0 && len(marked) < len(h.state) {
		if made, err := s.madeWith(ctx, in, h); err != nil || (made != 0 && made != h.partitions) {
			return errors.Join(err, fmt.Errorf("%w: %w", errPermanent, topic.ErrRaised))
		}
	}
	if !s.cfg.NewInstallation {
		if err := h.refuse(s.names, s.group(), len(marked) == 0); err != nil {
			return fmt.Errorf("%w: %w", errPermanent, err)
		}
	}
	if len(marked) == len(h.state) {
		return nil
	}
	return s.mark(ctx, h, opts)
}

// refuse returns an error that names what was lost, or nil.
func (h *holdings) refuse(names *topic.Names, group string, noState bool) error {
	var began, forgotten []int32
	for p := range h.partitions {
		if h.committed[p] || h.enriched[p] {
			began = append(began, p)
		}
		// Without records nothing can be processed twice.
		if !h.committed[p] && h.rawEnd[p] > h.rawStart[p] && (h.enriched[p] || h.rawStart[p] > 0) {
			forgotten = append(forgotten, p)
		}
	}
	switch {
	case noState && len(began) > 0:
		return fmt.Errorf("%s is empty although partitions %v of %s were enriched before: identities would be lost, and events would count for others. "+
			"Restore the topic, or give one start -new-installation to begin without it: docs/operations.md, \"Lost offsets and lost state\"", names.EnricherState, began, names.Raw)
	case len(forgotten) > 0:
		return fmt.Errorf("group %s has no offsets for partitions %v of %s, which were read before (Kafka forgets the offsets of a group after 7 days without members): "+
			"rejected events and counts of what is there would double. Set the offsets with kafka-consumer-groups, or give one start -new-installation to read all that is there again: "+
			"docs/operations.md, \"Lost offsets and lost state\"", group, forgotten, names.Raw)
	}
	return nil
}

func (s *Service) holdings(ctx context.Context, adm *kadm.Client, in *reader.Reader) (*holdings, error) {
	n := s.topics[s.names.Raw].Partitions
	h := &holdings{
		partitions: n, rawStart: make([]int64, n), rawEnd: make([]int64, n), state: make([]int64, n),
		committed: make([]bool, n), enriched: make([]bool, n),
	}
	starts, err := adm.ListStartOffsets(ctx, s.names.Raw, s.names.Enriched)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("starts of topics: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, s.names.Raw, s.names.EnricherState)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("ends of topics: %w", err)
	}
	// The last stable offsets: records after them may belong to a transaction that a
	// process left open, which must not be waited for here.
	stable, err := adm.ListCommittedOffsets(ctx, s.names.Enriched)
	if err == nil {
		err = stable.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("last stable offsets: %w", err)
	}
	committed, err := adm.FetchOffsets(ctx, s.group())
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // that has no offsets
		return nil, fmt.Errorf("fetch offsets of group %s: %w", s.group(), err)
	}
	at := func(l kadm.ListedOffsets, name string, p int32) int64 {
		o, _ := l.Lookup(name, p)
		return o.Offset
	}
	for p := range n {
		h.rawStart[p], h.rawEnd[p] = at(starts, s.names.Raw, p), at(ends, s.names.Raw, p)
		h.state[p] = at(ends, s.names.EnricherState, p)
		// A partition may have had claims of other partitions before its first event.
		for _, name := range []string{s.names.Raw, s.names.Links} {
			o, ok := committed.Lookup(name, p)
			if ok && o.Err != nil {
				return nil, fmt.Errorf("offset of %s/%d: %w", name, p, o.Err)
			}
			h.committed[p] = h.committed[p] || ok && o.At >= 0
		}
		if h.enriched[p] = h.committed[p]; !h.enriched[p] {
			// An aborted transaction leaves offsets, and nothing else.
			from, to := at(starts, s.names.Enriched, p), at(stable, s.names.Enriched, p)
			if h.enriched[p], err = holds(ctx, in, s.names.Enriched, p, from, to, func(r *kgo.Record) bool {
				typ, err := s.codec.Type(r.Value)
				if typ == event.TypeEnriched {
					err = s.codec.DecodeEnriched(r.Value, &event.EnrichedEvent{})
				}
				return !event.Unwritten(err)
			}); err != nil {
				return nil, err
			}
		}
	}
	return h, nil
}

var errFound = errors.New("found")

// holds reports whether a partition has a committed record for which right is true.
func holds(ctx context.Context, in *reader.Reader, name string, partition int32, from, to int64, right func(*kgo.Record) bool) (bool, error) {
	_, err := in.Read(ctx, name, partition, from, to, func(r *kgo.Record) error {
		if right(r) {
			return errFound
		}
		return nil
	}, nil)
	if err != nil && !errors.Is(err, errFound) {
		return false, err
	}
	return err != nil, nil
}

// madeWith returns the number of partitions at the time of the installation, 0 if it is
// older than marks.
func (s *Service) madeWith(ctx context.Context, in *reader.Reader, h *holdings) (made int32, err error) {
	for p := range h.partitions {
		b, err := in.Bounds(ctx, s.names.EnricherState, p)
		if err != nil {
			return 0, err
		}
		_, err = holds(ctx, in, s.names.EnricherState, p, b.Start, b.End, func(r *kgo.Record) bool {
			var rec event.IdentityState
			if string(r.Key) != string(markKey) || s.codec.DecodeIdentityState(r.Value, &rec) != nil {
				return false
			}
			made = int32(rec.Version)
			return true
		})
		if err != nil || made != 0 {
			return made, err
		}
	}
	return 0, nil
}

// mark writes the missing marks.
func (s *Service) mark(ctx context.Context, h *holdings, opts []kgo.Opt) error {
	cl, err := kgo.NewClient(append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()))...)
	if err != nil {
		return fmt.Errorf("kafka client: %w", err)
	}
	defer cl.Close()
	value := s.codec.AppendIdentityState(nil, &event.IdentityState{
		Kind: stateMark, RawPartition: -1, RawOffset: -1, Version: int64(h.partitions), RecordedAt: event.FromTime(s.now()),
	})
	var records []*kgo.Record
	for p, end := range h.state {
		if end == 0 {
			records = append(records, &kgo.Record{Topic: s.names.EnricherState, Partition: int32(p), Key: markKey, Value: value})
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("mark the installation in %s: %w", s.names.EnricherState, err)
	}
	s.log.Info("new installation", "partitions", h.partitions)
	return nil
}
