package gainsightpx

import (
	"sync"

	"github.com/cespare/xxhash/v2"
)

// known remembers ids as hashes in two generations: when the young one is full it
// becomes the old one, and what was in that is forgotten. So at least limit/2 and
// at most limit of the ids seen last are known.
type known struct {
	mu         sync.Mutex // covers all below
	limit      int
	young, old map[uint64]struct{}
}

func newKnown(limit int) *known {
	return &known{limit: max(limit, 2), young: map[uint64]struct{}{}}
}

func hash(app string, kind byte, id string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.WriteString(app) // a Digest's writes do not fail
	_, _ = d.Write([]byte{0, kind})
	_, _ = d.WriteString(id)
	return d.Sum64()
}

func (k *known) has(app string, kind byte, id string) bool {
	h := hash(app, kind, id)
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.young[h]; ok {
		return true
	}
	if _, ok := k.old[h]; !ok {
		return false
	}
	k.put(h) // what is asked for stays
	return true
}

func (k *known) add(app string, kind byte, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.put(hash(app, kind, id))
}

func (k *known) put(h uint64) {
	if len(k.young) >= k.limit/2 {
		k.old, k.young = k.young, map[uint64]struct{}{}
	}
	k.young[h] = struct{}{}
}
