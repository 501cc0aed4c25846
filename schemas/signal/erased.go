package signal

import (
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// ErasedUsers are the users of whom nothing may be said any more, by hashes, as records of
// topic.AlertState name them. Their events lose their names, so that without this list
// evaluation would say, with the name, that what was said before is not true any more. The
// zero value has nobody. It is for one goroutine.
type ErasedUsers struct {
	apps map[string]map[string]*erasedUsers // by key of the hashes
}

type erasedUsers struct {
	hasher *event.EraseHasher
	hashes map[event.ErasedHash]bool
}

// erasedValue is the value of a record.
type erasedValue struct {
	Key []byte `json:"key"`
}

// ErasedUser returns the key and the value of the record that adds a user. key is that of
// the app's hashes.
func ErasedUser(app string, key []byte, user string) (recordKey string, value []byte) {
	h := event.NewEraseHasher(key).Hash(topic.KeyUser, user)
	value, err := json.Marshal(erasedValue{key})
	if err != nil {
		panic(err) // cannot happen: bytes
	}
	return Key(KeyErased, app, hex.EncodeToString(h[:])), value
}

// Take adds the user of a record of topic.AlertState, and reports whether it is one of
// these records.
func (e *ErasedUsers) Take(recordKey string, value []byte) (bool, error) {
	parts := Parts(recordKey)
	if parts[0] != KeyErased || len(parts) != 3 || len(value) == 0 {
		return false, nil
	}
	var v erasedValue
	if err := json.Unmarshal(value, &v); err != nil {
		return true, err
	}
	hash, err := hex.DecodeString(parts[2])
	if err != nil || len(hash) != len(event.ErasedHash{}) || len(v.Key) != event.EraseKeyBytes {
		return true, fmt.Errorf("a user who was erased: hash %q with a key of %d bytes", parts[2], len(v.Key))
	}
	if e.apps == nil {
		e.apps = map[string]map[string]*erasedUsers{}
	}
	if e.apps[parts[1]] == nil {
		e.apps[parts[1]] = map[string]*erasedUsers{}
	}
	set := e.apps[parts[1]][string(v.Key)]
	if set == nil {
		set = &erasedUsers{event.NewEraseHasher(v.Key), map[event.ErasedHash]bool{}}
		e.apps[parts[1]][string(v.Key)] = set
	}
	set.hashes[event.ErasedHash(hash)] = true
	return true, nil
}

// Has reports whether a user of an app was erased.
func (e *ErasedUsers) Has(app, user string) bool {
	for _, set := range e.apps[app] {
		if set.hashes[set.hasher.Hash(topic.KeyUser, user)] {
			return true
		}
	}
	return false
}

// Names reports whether a record is about a user who was erased.
func (e *ErasedUsers) Names(r *Record) bool { return r.Level == levelUser && e.Has(r.App, r.Subject) }

// levelUser is the level of records about users; the subject of others is an account.
const levelUser = "user"
