// Package known remembers which ids exist, for protocols whose clients branch on
// that: creating what exists is one answer, changing what does not is another.
//
// What is known is a compacted topic, topic.KnownIDs, that every gateway reads
// when it is asked for an id that it does not know: it asks the broker where the
// topic ends, reads up to there, and only then says no. So an id that one gateway
// has added is known to all from the moment on in which Add returned, over
// restarts and on new replicas, and nobody asks ClickHouse. A gateway that is
// never asked opens no connection.
//
// Ids are kept as hashes, in the topic too: it outlives the people. In memory
// there is a bounded number of them; what fell out is not known any more, and a
// protocol has to be right with that.
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

// Hash is what is kept of an id.
type Hash [16]byte

// HashOf returns the hash of an id of an app. kind tells ids of several things
// apart.
func HashOf(app string, kind byte, id string) Hash {
	sum := sha256.Sum256(topic.Key(nil, app, kind, id))
	return Hash(sum[:16])
}

// Config says how a Shared works.
type Config struct {
	Options []kgo.Opt     // how to reach the cluster
	Limit   int           // ids in memory
	Timeout time.Duration // of one question or addition
}

// Shared is the ids that all gateways know. It is safe for concurrent use. Close
// ends it.
type Shared struct {
	cfg    Config
	memory *Memory
	alive  context.Context // until Close
	end    context.CancelFunc

	turn   chan struct{} // held by whoever opens the client or reads; covers next
	next   int64         // offset behind what was read
	mu     sync.Mutex    // covers client
	client *kgo.Client   // nil until first needed
}

// NewShared returns a Shared that has read nothing and opened nothing yet.
func NewShared(cfg Config) *Shared {
	s := &Shared{cfg: cfg, memory: NewMemory(cfg.Limit), turn: make(chan struct{}, 1)}
	s.alive, s.end = context.WithCancel(context.Background())
	return s
}

// Close ends what is under way and closes the client.
func (s *Shared) Close() {
	s.end()
	s.turn <- struct{}{} // and never gives it back: nobody reads any more
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client != nil {
		s.client.Close()
	}
}

// Has reports whether an id is known to any gateway. The error says why that
// cannot be told.
func (s *Shared) Has(app string, kind byte, id string) (bool, error) {
	h := HashOf(app, kind, id)
	if s.memory.has(h) {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(s.alive, s.cfg.Timeout)
	defer cancel()
	if err := s.catchUp(ctx); err != nil {
		return false, fmt.Errorf("read %s: %w", topic.KnownIDs, err)
	}
	return s.memory.has(h), nil
}

// Add makes an id known to all gateways: when it returns without an error, every
// Has that begins then says so.
func (s *Shared) Add(app string, kind byte, id string) error {
	h := HashOf(app, kind, id)
	if s.memory.has(h) {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.alive, s.cfg.Timeout)
	defer cancel()
	client, err := s.open(ctx)
	if err != nil {
		return fmt.Errorf("write %s: %w", topic.KnownIDs, err)
	}
	// A value that is not empty: an empty one tells compaction to drop the key.
	record := &kgo.Record{Topic: topic.KnownIDs, Key: h[:], Value: []byte{1}}
	acked := make(chan error, 1)
	client.Produce(ctx, record, func(_ *kgo.Record, err error) { acked <- err })
	select {
	case err = <-acked:
	case <-ctx.Done():
		// The client keeps what may have been written until the brokers say so. If
		// it comes to be written the id is known, which is right: it is stored.
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", topic.KnownIDs, missing(err))
	}
	s.memory.add(h)
	return nil
}

// open returns the client, which the first call makes.
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
		kgo.ProducerLinger(0),                                      // somebody waits for each record
		kgo.RecordDeliveryTimeout(max(time.Second, s.cfg.Timeout)), // it takes no less
		kgo.UnknownTopicRetries(2),
	}, s.cfg.Options...)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("kafka client: %w", err)
	}
	s.client = client
	return client, nil
}

// catchUp reads the topic up to where it ends now.
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
	b, err := in.Bounds(ctx, topic.KnownIDs, 0)
	if err != nil {
		return missing(err)
	}
	s.next, err = in.Read(ctx, topic.KnownIDs, 0, max(s.next, b.Start), b.End, func(r *kgo.Record) error {
		if len(r.Key) == len(Hash{}) {
			s.memory.add(Hash(r.Key))
		}
		return nil
	}, nil)
	return err
}

// missing says what to do about a topic that is not there.
func missing(err error) error {
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("%w (%w)", topic.ErrMissing, err)
	}
	return err
}
