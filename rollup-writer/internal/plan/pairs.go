package plan

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
)

// Pair says that an order moved so much from one attribution to another.
type Pair struct {
	Order            int // number
	Hour             uint32
	Old, New         columns.Attribution
	Events, Quantity int64
}

// Pairs gathers pairs and adds up those that are alike, which the rows of a block
// mostly are: all that a visitor did in an hour moves at once. The zero value is
// ready for use.
type Pairs struct {
	list  []Pair
	index map[uint64]int // hash of order, hour and old
	key   []byte
}

// Follow adds the pairs of a row.
func (p *Pairs) Follow(o *Orders, r *Row) {
	last := -1 // its latest pair, whose New is not known before the next one
	o.Follow(r, func(order int, old *columns.Attribution) {
		if last >= 0 {
			p.list[last].New = *old
		}
		last = p.at(order, r.Hour, old)
		p.list[last].Events += r.Events
		p.list[last].Quantity += r.Quantity
	})
	if last >= 0 {
		p.list[last].New = r.Attribution
	}
}

var hashSeed = maphash.MakeSeed()

// at is the index of a pair. What an order moves a row to follows from the row,
// so New is not part of what tells pairs apart.
func (p *Pairs) at(order int, hour uint32, old *columns.Attribution) int {
	p.key = binary.LittleEndian.AppendUint64(p.key[:0], uint64(order)<<32|uint64(hour))
	for i := range columns.AttributionColumns {
		v := *columns.AttributionColumns[i].Of(old)
		p.key = append(binary.AppendUvarint(p.key, uint64(len(v))), v...)
	}
	h := maphash.Bytes(hashSeed, p.key)
	n, ok := p.index[h]
	if ok && p.list[n].Order == order && p.list[n].Hour == hour && p.list[n].Old == *old {
		return n
	}
	if p.index == nil {
		p.index = map[uint64]int{}
	}
	n = len(p.list)
	if !ok { // of two that have one hash the second is not added up
		p.index[h] = n
	}
	p.list = append(p.list, Pair{Order: order, Hour: hour, Old: *old})
	return n
}

// List is what was gathered, in the order in which it came. It is valid until
// Reset.
func (p *Pairs) List() []Pair { return p.list }

// Len is how many pairs there are.
func (p *Pairs) Len() int { return len(p.list) }

// Reset forgets the pairs and keeps their memory.
func (p *Pairs) Reset() {
	clear(p.list)
	p.list = p.list[:0]
	clear(p.index)
}
