package plan

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
)

// Pair is an amount that an order moved from one attribution to another.
type Pair struct {
	Order            int // number
	Hour             uint32
	Part             columns.Part
	Old, New         columns.Attribution
	Events, Quantity int64
}

// Pairs gathers pairs and adds up equal ones. Most rows of a block have equal pairs:
// everything that a visitor did in an hour moves at once. The zero value is ready for
// use.
type Pairs struct {
	list  []Pair
	index map[uint64]int // hash of order, hour, part and old
	key   []byte
}

// Follow adds the pairs of a row.
func (p *Pairs) Follow(o *Orders, r *Row) {
	last := -1 // the row's latest pair; its New is known only with the next one
	o.Follow(r, func(order int, old *columns.Attribution) {
		if last >= 0 {
			p.list[last].New = *old
		}
		last = p.at(order, r.Hour, r.Part, old)
		p.list[last].Events += r.Events
		p.list[last].Quantity += r.Quantity
	})
	if last >= 0 {
		p.list[last].New = r.Attribution
	}
}

var hashSeed = maphash.MakeSeed()

// at returns the index of a pair. The attribution that an order gives a row follows
// from the row, so New is not part of a pair's identity.
func (p *Pairs) at(order int, hour uint32, part columns.Part, old *columns.Attribution) int {
	p.key = binary.LittleEndian.AppendUint64(p.key[:0], uint64(order)<<32|uint64(hour))
	p.key = binary.LittleEndian.AppendUint64(p.key, uint64(part.From))
	p.key = binary.LittleEndian.AppendUint64(p.key, uint64(part.To))
	for i := range columns.AttributionColumns {
		v := *columns.AttributionColumns[i].Of(old)
		p.key = append(binary.AppendUvarint(p.key, uint64(len(v))), v...)
	}
	h := maphash.Bytes(hashSeed, p.key)
	n, ok := p.index[h]
	if ok && p.list[n].Order == order && p.list[n].Hour == hour && p.list[n].Part == part && p.list[n].Old == *old {
		return n
	}
	if p.index == nil {
		p.index = map[uint64]int{}
	}
	n = len(p.list)
	if !ok { // of two pairs with equal hashes the second is not added up
		p.index[h] = n
	}
	p.list = append(p.list, Pair{Order: order, Hour: hour, Part: part, Old: *old})
	return n
}

// List returns the gathered pairs in order. It is valid until Reset.
func (p *Pairs) List() []Pair { return p.list }

// Len is how many pairs there are.
func (p *Pairs) Len() int { return len(p.list) }

// Reset empties Pairs and keeps its memory.
func (p *Pairs) Reset() {
	clear(p.list)
	p.list = p.list[:0]
	clear(p.index)
}
