package dedup

import "math/bits"

// front is an open-addressed table of hashes, each with its run: 10 bytes a slot,
// 13 to 19 a key. A slot's place is the hash, mixed and scaled to the
// table's size, so the table may have any size, and growing it visits both tables
// in order.
type front struct {
	hashes []uint64 // 0 is free
	runs   []uint16
	n      int
}

const (
	frontMin  = 1024
	frontFull = 0.8 // of the slots: linear probing visits 13 slots on average then, two cache lines
)

// occupied makes a hash one that is not free.
func occupied(h uint64) uint64 {
	if h == 0 {
		return 1
	}
	return h
}

// place returns where h belongs in a table of that size. Hashes come sorted, from
// disk and from the recent ids; the factor scatters them, since a table that is
// filled from one end to the other has no room left where it is being filled.
func place(h uint64, size int) int {
	hi, _ := bits.Mul64(h*0x9E3779B97F4A7C15, uint64(size))
	return int(hi)
}

// first returns the first slot that holds h, or -1.
func (f *front) first(h uint64) int {
	if len(f.hashes) == 0 {
		return -1
	}
	h = occupied(h)
	return f.find(h, place(h, len(f.hashes)))
}

// next returns the next slot behind i that holds h, or -1.
func (f *front) next(h uint64, i int) int {
	if i++; i == len(f.hashes) {
		i = 0
	}
	return f.find(occupied(h), i)
}

func (f *front) find(h uint64, i int) int {
	for {
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

// reserve makes an empty table that has room for n entries, and for some more.
func (f *front) reserve(n int) {
	f.rebuild(max(frontMin, int(1.2*float64(n)/frontFull)), func(uint16) bool { return false })
}

// insert adds an entry, also beside another of the same hash and run: then both
// stand for ids that disk tells apart.
func (f *front) insert(h uint64, run uint16) {
	if float64(f.n+1) > frontFull*float64(len(f.hashes)) {
		f.rebuild(max(frontMin, len(f.hashes)+len(f.hashes)/2), func(uint16) bool { return false })
	}
	f.put(occupied(h), run)
}

func (f *front) put(h uint64, run uint16) {
	i := place(h, len(f.hashes))
	for f.hashes[i] != 0 {
		if f.hashes[i] == h && f.runs[i] == run {
			return // one look at the disk answers for both
		}
		if i++; i == len(f.hashes) {
			i = 0
		}
	}
	f.hashes[i], f.runs[i] = h, run
	f.n++
}

// drop removes the entries of the runs that gone names.
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
	// A table half empty shrinks, so that a busy week does not cost memory for ever.
	size := len(f.hashes)
	if want := left * 2; want < size {
		size = max(frontMin, want)
	}
	f.rebuild(size, gone)
}

func (f *front) rebuild(size int, gone func(run uint16) bool) {
	old := *f
	*f = front{hashes: make([]uint64, size), runs: make([]uint16, size)}
	for i, h := range old.hashes {
		if h != 0 && !gone(old.runs[i]) {
			f.put(h, old.runs[i])
		}
	}
}

// index finds ids in memory by hash. It holds positions in a list, plus one; 0 is
// free. Its size is a power of two.
type index struct {
	slots []uint32
	n     int
}

const indexMin = 256

// first returns the first position that could have the hash, or -1, and next the
// one after it. Both also return positions with other hashes.
func (x *index) first(h uint64) (slot, at int) {
	if x.n == 0 {
		return 0, -1
	}
	slot = int(h) & (len(x.slots) - 1)
	return slot, int(x.slots[slot]) - 1
}

func (x *index) next(slot int) (next, at int) {
	slot = (slot + 1) & (len(x.slots) - 1)
	return slot, int(x.slots[slot]) - 1
}

// add adds a position. ids are those of all positions that were added.
func (x *index) add(h uint64, at uint32, ids []recentID) {
	if 2*(x.n+1) > len(x.slots) {
		old := x.slots
		x.slots = make([]uint32, max(indexMin, 2*len(old)))
		for _, s := range old {
			if s != 0 {
				x.put(ids[s-1].hash, s)
			}
		}
	}
	x.put(h, at+1)
	x.n++
}

func (x *index) put(h uint64, s uint32) {
	mask := len(x.slots) - 1
	i := int(h) & mask
	for x.slots[i] != 0 {
		i = (i + 1) & mask
	}
	x.slots[i] = s
}

// keepSlots is the most slots that an index keeps when it is cleared.
const keepSlots = 1 << 20

func (x *index) clear() {
	if len(x.slots) > keepSlots {
		x.slots = nil
	} else if x.n > 0 {
		clear(x.slots)
	}
	x.n = 0
}
