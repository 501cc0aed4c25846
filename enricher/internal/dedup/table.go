package dedup

import (
	"math/bits"
	"math/rand/v2"
)

// front is an open-addressed table of hashes, each with its run: 10 bytes per slot, 13
// to 19 per key. The slot of a hash is the hash, mixed and scaled to the table's size,
// so the table may have any size, and growing it visits both tables in order.
type front struct {
	hashes []uint64 // 0 is free
	runs   []uint16
	n      int
	factor uint64 // mixes hashes

	probes int64 // slots that calls looked at
	placed int64 // slots that growing looked at
	calm   int   // n up to which the factor is not replaced again
}

// maxProbes is far more than occurs by chance: at frontFull a run of occupied slots is
// longer than n with a probability of about exp(-n/43). An entry that needs more probes
// makes the table choose another factor.
const maxProbes = 4096

const (
	frontMin  = 1024
	frontFull = 0.8 // of the slots: linear probing visits 13 slots on average then, two cache lines
)

// occupied maps a hash to a value that is not 0.
func occupied(h uint64) uint64 {
	if h == 0 {
		return 1
	}
	return h
}

// place returns the slot where h belongs. Hashes may be added in order; the factor
// scatters them, since a table filled from one end to the other would have no free
// slots where it is being filled.
func (f *front) place(h uint64) int {
	hi, _ := bits.Mul64(h*f.factor, uint64(len(f.hashes)))
	return int(hi)
}

// first returns the first slot that holds h, or -1.
func (f *front) first(h uint64) int {
	if len(f.hashes) == 0 {
		return -1
	}
	h = occupied(h)
	return f.find(h, f.place(h))
}

// next returns the next slot after i that holds h, or -1.
func (f *front) next(h uint64, i int) int {
	if i++; i == len(f.hashes) {
		i = 0
	}
	return f.find(occupied(h), i)
}

func (f *front) find(h uint64, i int) int {
	for {
		f.probes++
		switch f.hashes[i] {
		case 0:
			return -1
		case h:
			return i
		}
		if i++; i == len(f.hashes) {
			i = 0
		}
	}
}

// reserve creates an empty table with capacity for n entries, and some more.
func (f *front) reserve(n int) {
	f.rebuild(max(frontMin, int(1.2*float64(n)/frontFull)), func(uint16) bool { return false })
}

// insert adds an entry, even if one with the same hash and run exists: then both stand
// for ids that only the disk distinguishes.
func (f *front) insert(h uint64, run uint16) {
	if float64(f.n+1) > frontFull*float64(len(f.hashes)) {
		f.rebuild(max(frontMin, len(f.hashes)+len(f.hashes)/2), func(uint16) bool { return false })
	}
	before := f.probes
	f.put(occupied(h), run)
	if f.probes-before > maxProbes && f.n > f.calm {
		f.calm = f.n + f.n/8 // amortises the cost over that many entries
		f.factor = rand.Uint64() | 1
		f.rebuild(len(f.hashes), func(uint16) bool { return false })
	}
}

func (f *front) put(h uint64, run uint16) {
	i := f.place(h)
	f.probes++
	for ; f.hashes[i] != 0; f.probes++ {
		if f.hashes[i] == h && f.runs[i] == run {
			return // one look-up on disk serves both
		}
		if i++; i == len(f.hashes) {
			i = 0
		}
	}
	f.hashes[i], f.runs[i] = h, run
	f.n++
}

// drop removes the entries of the runs in gone.
func (f *front) drop(gone func(run uint16) bool) {
	left := 0
	for i, h := range f.hashes {
		if h != 0 && !gone(f.runs[i]) {
			left++
		}
	}
	if left == f.n {
		return
	}
	// A table less than half full shrinks, so that a busy week does not cost memory
	// forever.
	size := len(f.hashes)
	if want := left * 2; want < size {
		size = max(frontMin, want)
	}
	f.rebuild(size, gone)
}

func (f *front) rebuild(size int, gone func(run uint16) bool) {
	old := *f
	f.hashes, f.runs, f.n = make([]uint64, size), make([]uint16, size), 0
	if f.factor == 0 {
		f.factor = rand.Uint64() | 1
	}
	for i, h := range old.hashes {
		if h != 0 && !gone(old.runs[i]) {
			f.put(h, old.runs[i])
		}
	}
	f.placed += f.probes - old.probes
	f.probes = old.probes
}

// index finds ids in memory by hash. It holds positions in a list, plus one; 0 is
// free. Its size is a power of two.
type index struct {
	slots []uint32
	n     int
	salt  uint64 // mixes hashes

	probes int64 // slots that calls looked at
	placed int64 // slots that growing looked at
	calm   int   // n up to which the salt is not replaced again
}

const indexMin = 256

// first returns the first position that may have the hash, or -1, and next the
// following one. Both may also return positions with other hashes.
func (x *index) first(h uint64) (slot, at int) {
	if x.n == 0 {
		return 0, -1
	}
	slot = x.place(h)
	x.probes++
	return slot, int(x.slots[slot]) - 1
}

func (x *index) next(slot int) (next, at int) {
	slot = (slot + 1) & (len(x.slots) - 1)
	x.probes++
	return slot, int(x.slots[slot]) - 1
}

// place returns where h belongs.
func (x *index) place(h uint64) int {
	return int(bits.RotateLeft64(h*(x.salt|1), 32)) & (len(x.slots) - 1)
}

// add adds a position. ids are the ids of all positions added so far.
func (x *index) add(h uint64, at uint32, ids []recentID) {
	if 2*(x.n+1) > len(x.slots) {
		x.rebuild(max(indexMin, 2*len(x.slots)), ids)
	}
	before := x.probes
	x.put(h, at+1)
	x.n++
	if x.probes-before > maxProbes && x.n > x.calm {
		x.calm = x.n + x.n/8
		x.salt = rand.Uint64()
		x.rebuild(len(x.slots), ids)
	}
}

func (x *index) rebuild(size int, ids []recentID) {
	old, before := x.slots, x.probes
	x.slots = make([]uint32, size)
	for _, s := range old {
		if s != 0 {
			x.put(ids[s-1].hash, s)
		}
	}
	x.placed += x.probes - before
	x.probes = before
}

func (x *index) put(h uint64, s uint32) {
	mask := len(x.slots) - 1
	i := x.place(h)
	x.probes++
	for ; x.slots[i] != 0; x.probes++ {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// keepSlots is the largest number of slots that an index keeps when it is cleared.
const keepSlots = 1 << 20

func (x *index) clear() {
	if len(x.slots) > keepSlots {
		x.slots = nil
	} else if x.n > 0 {
		clear(x.slots)
	}
	x.n, x.calm = 0, 0
}
