package event

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
)

// LinkErase is the Link.Kind of an order to forget a person: its Profile is an
// Erase. Every partition of links gets one.
const LinkErase = "erase"

// StateErased is the IdentityState.Kind of ids that are forgotten and must not
// be learnt again: its Body is an ErasedIDs.
const StateErased = "erased"

// ActorErased is the actor kind of what people did who were erased since. Their
// ids are empty, so that accounts keep their totals and nobody is named.
const ActorErased = "erased"

// MaxErase bounds the ids and pairs of one Erase; more than that is several.
const MaxErase = 500

// Erase names what is to be forgotten of one app.
type Erase struct {
	// Key of the hashes under which the ids are remembered as erased. One of an
	// app does for all its orders.
	Key []byte `json:"key"`
	// Users and Anonymous ids are the person's and nobody else's: what still
	// arrives of them is dropped.
	Users     []string `json:"users,omitempty"`
	Anonymous []string `json:"anonymous,omitempty"`
	// Known are anonymous ids that were seen with a user, also those that are
	// others' too.
	Known []KnownPair `json:"known,omitempty"`
	// Counted are rows of usage_hourly that name one of them besides those whose
	// actor is one. ActorID and ActorKind are never nil.
	Counted []Attribution `json:"counted,omitempty"`
}

// KnownPair is a user and an anonymous id that a call named together.
type KnownPair struct {
	UserID      string `json:"user_id"`
	AnonymousID string `json:"anonymous_id"`
}

// ErasedIDs is the body of a StateErased record: HMAC-SHA256 under Key of kind
// (topic.KeyUser or topic.KeyAnonymous) and id, its first 16 bytes each.
type ErasedIDs struct {
	Key    []byte   `json:"key"`
	Hashes [][]byte `json:"hashes"`
}

// EraseKeyBytes is the length of Erase.Key.
const EraseKeyBytes = 32

// ErasedHash stands for an id that was erased.
type ErasedHash [16]byte

// EraseHasher makes the hashes of ErasedIDs. It is for one goroutine.
type EraseHasher struct {
	mac hash.Hash
	buf []byte
}

// NewEraseHasher returns one for a key.
func NewEraseHasher(key []byte) *EraseHasher {
	return &EraseHasher{mac: hmac.New(sha256.New, key)}
}

// Hash returns the hash of an id of a kind, topic.KeyUser or topic.KeyAnonymous.
func (e *EraseHasher) Hash(kind byte, id string) (h ErasedHash) {
	e.mac.Reset()
	e.buf = append(append(e.buf[:0], kind), id...)
	e.mac.Write(e.buf)
	e.buf = e.mac.Sum(e.buf[:0])
	copy(h[:], e.buf)
	return h
}

// ParseErase reads the Profile of a LinkErase record.
func ParseErase(profile []byte) (Erase, error) {
	var e Erase
	if err := json.Unmarshal(profile, &e); err != nil {
		return Erase{}, fmt.Errorf("erase order: %w", err)
	}
	if len(e.Key) != EraseKeyBytes {
		return Erase{}, fmt.Errorf("erase order: key must have %d bytes (got %d)", EraseKeyBytes, len(e.Key))
	}
	if n := len(e.Users) + len(e.Anonymous) + len(e.Known) + len(e.Counted); n > MaxErase {
		return Erase{}, fmt.Errorf("erase order: names %d ids, at most %d", n, MaxErase)
	}
	for _, c := range e.Counted {
		if c.ActorID == nil || c.ActorKind == nil {
			return Erase{}, fmt.Errorf("erase order: counted names no actor")
		}
	}
	return e, nil
}
