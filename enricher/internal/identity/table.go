package identity

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"

	"github.com/uptakehq/uptake/schemas/event"
)

// table maps keys to values, both bytes, in a few large chunks of memory without
// pointers: a million entries cost the garbage collector nothing. Entries are appended
// to chunks and never changed in place, so that what get returned stays unchanged for
// as long as somebody refers to it. Replaced and deleted entries stay in their chunk;
// when they are half of all, the rest is copied to new chunks.
//
// Senders choose the keys. Slots come from a hash with a secret seed, so that nobody
// outside can choose keys that collide. A key that would be more than maxProbes slots
// after its own slot makes the table choose a new seed.
type table struct {
	seed   maphash.Seed
	slots  []uint64 // 0: empty; else entry+1 in the low 40 bits, and 24 bits of the hash
	used   int      // slots that are not empty
	chunks [][]byte
	size   int64 // bytes in chunks
	dead   int64 // of these, bytes of replaced and deleted entries

	probes int64 // slots that calls looked at
	placed int64 // slots that growing looked at
	calm   int   // used up to which the seed is not replaced again
}

const (
	chunkBits  = 20
	chunkSize  = 1 << chunkBits
	entryBits  = 40 // of a slot: 2^40 bytes of entries
	entryMask  = 1<<entryBits - 1
	minSlots   = 64
	minCompact = 4 * chunkSize

	// maxProbes is far more than occurs by chance: at three quarters full, a run of
	// occupied slots is longer than n with a probability of about exp(-n/26).
	maxProbes = 4096
)

func (t *table) hash(key []byte) uint64 { return maphash.Bytes(t.seed, key) }

// get returns the value of key and whether it exists.
func (t *table) get(key []byte) ([]byte, bool) {
	if len(t.slots) == 0 {
		return nil, false
	}
	slot, found := t.find(t.hash(key), key)
	if !found {
		return nil, false
	}
	_, v, _ := t.entry(t.slots[slot]&entryMask - 1)
	return v, true
}

// entry returns key, value and size of the entry at pos.
func (t *table) entry(pos uint64) (key, value []byte, size int64) {
	b := t.chunks[pos>>chunkBits][pos&(chunkSize-1):]
	n, w := binary.Uvarint(b)
	key = b[w : w+int(n) : w+int(n)]
	at := w + int(n)
	n, w = binary.Uvarint(b[at:])
	at += w
	end := at + int(n)
	return key, b[at:end:end], int64(end)
}

// set sets the value of key. Both are copied.
func (t *table) set(key, value []byte) {
	if 4*(t.used+1) > 3*len(t.slots) {
		t.place(max(minSlots, 2*len(t.slots)))
	}
	h, before := t.hash(key), t.probes
	slot, found := t.find(h, key)
	if found {
		_, old, size := t.entry(t.slots[slot]&entryMask - 1)
		if string(old) == string(value) {
			return
		}
		t.dead += size
	} else {
		t.used++
	}
	t.slots[slot] = h>>entryBits<<entryBits | (t.append(key, value) + 1)
	if t.dead > t.size/2 && t.size > minCompact {
		t.compact()
	}
	if t.probes-before > maxProbes && t.used > t.calm {
		t.calm = t.used + t.used/8 // amortises the cost over that many entries
		t.seed = maphash.MakeSeed()
		t.place(len(t.slots))
	}
}

// find returns the slot of key, or the empty slot where it belongs.
func (t *table) find(h uint64, key []byte) (slot uint64, found bool) {
	mask := uint64(len(t.slots) - 1)
	i := h & mask
	for ; t.slots[i] != 0; i = (i + 1) & mask {
		t.probes++
		if t.slots[i]>>entryBits == h>>entryBits {
			k, _, _ := t.entry(t.slots[i]&entryMask - 1)
			if string(k) == string(key) {
				return i, true
			}
		}
	}
	t.probes++
	return i, false
}

// remove deletes key, moving back the entries that follow it in its run of slots.
func (t *table) remove(key []byte) {
	if len(t.slots) == 0 {
		return
	}
	slot, found := t.find(t.hash(key), key)
	if !found {
		return
	}
	_, _, size := t.entry(t.slots[slot]&entryMask - 1)
	t.dead += size
	t.used--
	mask := uint64(len(t.slots) - 1)
	hole := slot
	for i := (slot + 1) & mask; t.slots[i] != 0; i = (i + 1) & mask {
		t.probes++
		k, _, _ := t.entry(t.slots[i]&entryMask - 1)
		want := t.hash(k) & mask
		// The entry may move to the hole if that lies between the entry's own slot and
		// its present one.
		if (i-want)&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = 0
}

func (t *table) append(key, value []byte) uint64 {
	need := len(key) + len(value) + 2*binary.MaxVarintLen32
	last := len(t.chunks) - 1
	if last < 0 || len(t.chunks[last])+need > chunkSize {
		// The first chunk of a small table grows; a large table allocates whole chunks.
		t.chunks = append(t.chunks, make([]byte, 0, max(need, min(chunkSize, 4096<<(2*len(t.chunks))))))
		last++
	}
	b := t.chunks[last]
	at := len(b)
	if cap(b)-at < need {
		b = append(make([]byte, 0, min(chunkSize, 2*cap(b)+need)), b...)
	}
	b = binary.AppendUvarint(b, uint64(len(key)))
	b = append(b, key...)
	b = binary.AppendUvarint(b, uint64(len(value)))
	b = append(b, value...)
	t.chunks[last] = b
	t.size += int64(len(b) - at)
	return uint64(last)<<chunkBits | uint64(at)
}

// place puts all entries into that many slots, by the present seed.
func (t *table) place(slots int) {
	if t.seed == (maphash.Seed{}) {
		t.seed = maphash.MakeSeed()
	}
	old := t.slots
	t.slots = make([]uint64, slots)
	mask := uint64(slots - 1)
	for _, s := range old {
		if s == 0 {
			continue
		}
		k, _, _ := t.entry(s&entryMask - 1)
		h := t.hash(k)
		i := h & mask
		for t.slots[i] != 0 {
			i = (i + 1) & mask
			t.placed++
		}
		t.placed++
		t.slots[i] = h>>entryBits<<entryBits | s&entryMask
	}
}

// compact copies the live entries to new chunks.
func (t *table) compact() {
	old := table{chunks: t.chunks}
	t.chunks, t.size, t.dead = nil, 0, 0
	for i, s := range t.slots {
		if s == 0 {
			continue
		}
		k, v, _ := old.entry(s&entryMask - 1)
		t.slots[i] = s>>entryBits<<entryBits | (t.append(k, v) + 1)
	}
}

// each calls f with every entry, in no order, until f returns false. The table
// must not change meanwhile.
func (t *table) each(f func(key, value []byte) bool) {
	for _, s := range t.slots {
		if s == 0 {
			continue
		}
		if k, v, _ := t.entry(s&entryMask - 1); !f(k, v) {
			return
		}
	}
}

// bytes is the memory that the table takes.
func (t *table) bytes() int64 { return t.size + 8*int64(len(t.slots)) }

// pairs maps pairs of ids to the earliest event time at which a call named both. Each
// pair is stored as a 128-bit hash of both ids with secret seeds. Two of the 10^9 pairs
// that a partition could have share a hash with a probability of 10^-20, and nobody
// outside can choose two that do.
type pairs struct {
	slots []pair
	first []event.Micros // of the slot
	n     int
	zero  *event.Micros // of the pair that hashes to zero; nil: it is not in
	salt  uint64

	probes int64 // slots that calls looked at
	placed int64 // slots that growing looked at
	calm   int   // n up to which the salt is not replaced again
}

type pair [2]uint64

// home is the slot where a pair belongs.
func (p *pairs) home(k pair) uint64 { return (k[0] ^ k[1]*p.salt) & uint64(len(p.slots)-1) }

// find returns the slot of k, or the empty one where it belongs.
func (p *pairs) find(k pair) (slot uint64, found bool) {
	mask := uint64(len(p.slots) - 1)
	for i := p.home(k); ; i = (i + 1) & mask {
		p.probes++
		switch p.slots[i] {
		case k:
			return i, true
		case pair{}:
			return i, false
		}
	}
}

func (p *pairs) has(k pair) bool {
	_, found := p.get(k)
	return found
}

func (p *pairs) get(k pair) (first event.Micros, found bool) {
	if k == (pair{}) {
		if p.zero == nil {
			return 0, false
		}
		return *p.zero, true
	}
	if len(p.slots) == 0 {
		return 0, false
	}
	i, found := p.find(k)
	return p.first[i], found
}

func (p *pairs) set(k pair, first event.Micros) {
	if k == (pair{}) {
		p.zero = &first
		return
	}
	if 4*(p.n+1) > 3*len(p.slots) {
		p.place(max(minSlots, 2*len(p.slots)))
	}
	before := p.probes
	i, found := p.find(k)
	p.slots[i], p.first[i] = k, first
	if found {
		return
	}
	p.n++
	if p.probes-before > maxProbes && p.n > p.calm {
		p.calm = p.n + p.n/8
		p.salt = bits.RotateLeft64(k[0]*k[1], 32) | 1 // as secret as the hashes
		p.place(len(p.slots))
	}
}

// place puts all pairs into that many slots.
func (p *pairs) place(slots int) {
	old, first, before := p.slots, p.first, p.probes
	p.slots, p.first = make([]pair, slots), make([]event.Micros, slots)
	for j, k := range old {
		if k != (pair{}) {
			i, _ := p.find(k)
			p.slots[i], p.first[i] = k, first[j]
		}
	}
	p.placed += p.probes - before
	p.probes = before
}

func (p *pairs) bytes() int64 { return 24 * int64(len(p.slots)) }

// each calls f with every pair, in no order.
func (p *pairs) each(f func(k pair, first event.Micros)) {
	for i, k := range p.slots {
		if k != (pair{}) {
			f(k, p.first[i])
		}
	}
	if p.zero != nil {
		f(pair{}, *p.zero)
	}
}

func (p *pairs) remove(k pair) {
	if k == (pair{}) {
		p.zero = nil
		return
	}
	if len(p.slots) == 0 {
		return
	}
	hole, found := p.find(k)
	if !found {
		return
	}
	p.n--
	mask := uint64(len(p.slots) - 1)
	for i := (hole + 1) & mask; p.slots[i] != (pair{}); i = (i + 1) & mask {
		p.probes++
		if (i-p.home(p.slots[i]))&mask >= (i-hole)&mask {
			p.slots[hole], p.first[hole] = p.slots[i], p.first[i]
			hole = i
		}
	}
	p.slots[hole] = pair{}
}
