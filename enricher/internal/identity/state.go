package identity

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Kinds of ids in keys of the changelog that are not kinds of record keys.
const (
	keyKnown  = 'k'
	keyWhy    = 'w'
	keyErased = 'e'
)

// State is the identity state of a partition as of the last Commit. It is used by one
// goroutine.
type State struct {
	cfg       Config
	partition int32
	codec     *event.Codec
	metrics   *Metrics

	ids     table           // records of anonymous ids and users, by the key that they have in the changelog
	known   pairs           // pairs of a user and an anonymous id that were seen together
	seeds   [2]maphash.Seed // of the hashes in known
	erased  erasures
	sighted sightings // pairs that were seen once, of InventingLibraries
	tx      Tx

	// Scratch space of Apply.
	key, value []byte
}

// New returns the empty state of a partition. cfg must be valid; metrics may be
// nil.
func New(cfg Config, partition int32, codec *event.Codec, metrics *Metrics) *State {
	s := &State{
		cfg: cfg, partition: partition, codec: codec, metrics: metrics,
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
	if s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	s.tx.s = s
	return s
}

// Stats describes the size of a State.
type Stats struct {
	IDs   int   // anonymous ids and users
	Known int   // pairs of a user and an anonymous id
	Bytes int64 // of memory
}

// Stats returns how much is held.
func (s *State) Stats() Stats {
	return Stats{IDs: s.ids.used, Known: s.known.n, Bytes: s.bytes()}
}

func (s *State) bytes() int64 { return s.ids.bytes() + s.known.bytes() + s.erased.bytes() }

// Apply applies a record of the changelog, in the order of its partition. The last
// record of each key counts, so a compacted log and a complete one give the same state.
// No Tx may be open. Both slices may be reused afterwards. A record that no release can
// have written changes nothing, and is an error of [event.Unwritten].
func (s *State) Apply(key, value []byte) error {
	if value == nil {
		return s.withdraw(key)
	}
	if len(key) > 0 && key[0] == 0 {
		return nil // no app: a record about the installation
	}
	var rec event.IdentityState
	if err := s.codec.DecodeIdentityState(value, &rec); err != nil {
		return fmt.Errorf("identity state of partition %d: %w", s.partition, err)
	}
	var err error
	switch rec.Kind {
	case event.StateAnonymous:
		var a anonymous
		if err = decodeBody(rec.Body, &a); err != nil {
			break
		}
		s.key = topic.Key(s.key[:0], rec.AppID, topic.KeyAnonymous, rec.ID)
		s.value = a.append(s.value[:0])
		s.ids.set(s.key, s.value)
	case event.StateUser:
		var u user
		if err = decodeBody(rec.Body, &u); err != nil {
			break
		}
		u.Version = rec.Version
		s.key = topic.Key(s.key[:0], rec.AppID, topic.KeyUser, rec.ID)
		if old, ok := s.ids.get(s.key); ok {
			var o user
			o.read(old)
			u.known = o.known
		}
		s.value = u.append(s.value[:0])
		s.ids.set(s.key, s.value)
	case event.StateKnown:
		p := s.pair(rec.AppID, rec.ID, rec.Other)
		again := s.known.has(p)
		s.known.set(p, rec.Since)
		if again {
			return nil
		}
		s.key = topic.Key(s.key[:0], rec.AppID, topic.KeyUser, rec.ID)
		var u user
		if old, ok := s.ids.get(s.key); ok {
			u.read(old)
		}
		u.known++
		s.value = u.append(s.value[:0])
		s.ids.set(s.key, s.value)
	case event.StateErased:
		err = s.applyErased(&rec)
	case event.StateWhy:
		// Only for display: the state does not need it.
	default:
		// Written by a later version of this program, and read after a roll-back.
		s.metrics.unknown.Inc()
	}
	if err != nil {
		return fmt.Errorf("identity state of partition %d, %s %q: %w", s.partition, rec.Kind, rec.ID, err)
	}
	return nil
}

// withdraw applies a tombstone.
func (s *State) withdraw(key []byte) error {
	app, rest, ok := bytes.Cut(key, []byte{0})
	if !ok || len(rest) == 0 {
		return fmt.Errorf("identity state of partition %d: %w: key %q names no kind", s.partition, event.ErrBody, key)
	}
	switch rest[0] {
	case topic.KeyAnonymous, topic.KeyUser:
		s.ids.remove(key)
	case keyKnown:
		n, w := binary.Uvarint(rest[1:])
		if w <= 0 || n > uint64(len(rest)-1-w) {
			return fmt.Errorf("identity state of partition %d: %w: key %q names no pair", s.partition, event.ErrBody, key)
		}
		ids := rest[1+w:]
		s.known.remove(s.pair(string(app), string(ids[:n]), string(ids[n:])))
	}
	return nil
}

// knownKey appends the changelog's key of a pair.
func knownKey(dst []byte, app, userID, anonymousID string) []byte {
	dst = append(dst, app...)
	dst = append(dst, 0, keyKnown)
	dst = binary.AppendUvarint(dst, uint64(len(userID)))
	dst = append(dst, userID...)
	return append(dst, anonymousID...)
}

// pair hashes a pair of ids.
func (s *State) pair(app, userID, anonymousID string) pair {
	var buf [256]byte
	b := knownKey(buf[:0], app, userID, anonymousID)
	return pair{maphash.Bytes(s.seeds[0], b), maphash.Bytes(s.seeds[1], b)}
}

// home returns the partition of an id.
func (s *State) home(app string, kind byte, id string) int32 {
	var buf [256]byte
	return topic.Partition(topic.Key(buf[:0], app, kind, id), s.cfg.Partitions)
}
