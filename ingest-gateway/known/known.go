// Package known remembers which ids exist, for protocols whose clients depend on it:
// creating an id that exists has one answer, changing one that does not exist has
// another.
//
// Known ids are in a compacted topic, topic.KnownIDs. A gateway that is asked for an id
// that it does not know asks the broker where the topic ends, reads up to there, and
// only then answers no. So an id that one gateway has added is known to all from the
// moment Add returned, across restarts and on new replicas, without a query to
// ClickHouse. A gateway that is never asked opens no connection.
//
// Ids are kept as hashes, in the topic too, since the topic outlives the people's data.
// Memory holds a bounded number of them; an id that was evicted is no longer known, and
// protocols must remain correct in that case.
package known

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/schemas/topic"
	"github.com/uptakehq/uptake/schemas/topic/reader"
)

// DefaultLimit is how many ids a gateway keeps in memory.
const DefaultLimit = 1 << 20

// Hash is the stored form of an id.
type Hash [16]byte

// HashOf returns the hash of an id of an app. kind separates the ids of different
// things.
func HashOf(app string, kind byte, id string) Hash {
	sum := sha256.Sum256(topic.Key(nil, app, kind, id))
	return Hash(sum[:16])
}

// Config configures a Shared.
type Config struct {
	Options []kgo.Opt // how to reach the cluster
	Names   *topic.Names
	Limit   int           // ids in memory
	Timeout time.Duration // of one question or addition
}

// Shared is the set of ids known to all gateways. It is safe for concurrent use. Close
// it after use.
type Shared struct {
	cfg    Config
	memory *Memory
	alive  context.Context // until Close
	end    context.CancelFunc

	turn   chan struct{} // held while opening the client or reading; covers next
	next   int64         // offset after the last record read
	mu     sync.Mutex    // covers client
	client *kgo.Client   // nil until first needed
}

// NewShared returns a Shared that has not read or opened anything yet.
func NewShared(cfg Config) *Shared {
	s := &Shared{cfg: cfg, memory: NewMemory(cfg.Limit), turn: make(chan struct{}, 1)}
	s.alive, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends operations in progress and closes the client.
func (s *Shared) Close() {
	s.end()
	s.turn <- struct{}{} // never returned: no further reads
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.Close()
	}
}

// Has reports whether an id is known to any gateway. It returns an error when that
// cannot be determined.
func (s *Shared) Has(app string, kind byte, id string) (bool, error) {
	h := HashOf(app, kind, id)
	if s.memory.has(h) {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(s.alive, s.cfg.Timeout)
	defer cancel()
	if err := s.catchUp(ctx); err != nil {
		return false, fmt.Errorf("read %s: %w", s.cfg.Names.KnownIDs, err)
	}
	return s.memory.has(h), nil
}

// Add makes an id known to all gateways: once it has returned without an error, every
// later Has reports it.
func (s *Shared) Add(app string, kind byte, id string) error {
	h := HashOf(app, kind, id)
	if s.memory.has(h) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.alive, s.cfg.Timeout)
	defer cancel()
	client, err := s.open(ctx)
	if err != nil {
		return fmt.Errorf("write %s: %w", s.cfg.Names.KnownIDs, err)
	}
	// The value must not be empty: an empty value is a tombstone.
	record := &kgo.Record{Topic: s.cfg.Names.KnownIDs, Key: h[:], Value: []byte{1}}
	acked := make(chan error, 1)
	client.Produce(ctx, record, func(_ *kgo.Record, err error) { acked <- err })
	select {
	case err = <-acked:
	case <-ctx.Done():
		// On a timeout the client keeps a record that may have been written until the
		// brokers answer. If it is written after all, the id is known, which is
		// correct: it is stored.
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.cfg.Names.KnownIDs, missing(err))
	}
	s.memory.add(h)
	return nil
}

// open returns the client, which the first call creates.
func (s *Shared) open(ctx context.Context) (*kgo.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		return s.client, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	opts := append([]kgo.Opt{
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),                                      // a client waits for each record
		kgo.RecordDeliveryTimeout(max(time.Second, s.cfg.Timeout)), // the client's minimum
		kgo.UnknownTopicRetries(2),
	}, s.cfg.Options...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	s.client = client
	return client, nil
}

// catchUp reads the topic up to its present end.
func (s *Shared) catchUp(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	client, err := s.open(ctx)
	if err != nil {
		return err
	}
	in := reader.On(client)
	b, err := in.Bounds(ctx, s.cfg.Names.KnownIDs, 0)
	if err != nil {
		return missing(err)
	}
	s.next, err = in.Read(ctx, s.cfg.Names.KnownIDs, 0, max(s.next, b.Start), b.End, func(r *kgo.Record) error {
		if len(r.Key) == len(Hash{}) {
			s.memory.add(Hash(r.Key))
		}
		return nil
	}, nil)
	return err
}

// missing explains what to do about a missing topic.
func missing(err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("%w (%w)", topic.ErrMissing, err)
	}
	return err
}
