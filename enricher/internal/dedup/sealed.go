package dedup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"

	"github.com/cockroachdb/pebble/v2"
)

// sealed is an immutable table of the ids that went to disk some time ago. It
// takes 2.6 to 2.8 bytes an id, where the table in front of it (front) takes 13 to
// 19: of each id it has 12 bits of the hash and the number of a group of runs,
// which is where a hit is confirmed on disk. Of ids that are not in it about one
// in 170 is looked for on disk in vain.
//
// Entries lie in blocks by the upper bits of the hash, 16 to 32 in each, so that a
// look costs two places in memory. A table is made of the one before it and of
// what came since, by another goroutine; when blocks are full it is made anew from
// the ids on disk, with twice as many.
type sealed struct {
	ends   []uint32 // of each block; it begins where the one before it ends
	high   []byte   // of each entry: bits 4 to 11 of the hash
	low    []byte   // bits 0 to 3, of two entries in a byte
	group  []byte   // its group of runs
	groups [256][]runOf
}

// runOf is a run with its bucket: the number of a run is given again.
type runOf struct {
	run    uint16
	bucket uint32
}

const (
	// sealLeast ids are sealed at once, or a part of what is sealed already: what
	// is not sealed takes more memory, and each time all of the table is copied.
	sealLeast = 1 << 16
	sealShare = 64

	blockIDs   = 16 // in a block of a table that was made anew
	blockLimit = 32 // on average, until it is made anew

	bucketGroups = 8 // groups of the runs of one bucket
)

func (s *sealed) len() int {
	if s == nil {
		return 0
	}
	return len(s.group)
}

func (s *sealed) bytes() int {
	if s == nil {
		return 0
	}
	return 4*cap(s.ends) + cap(s.high) + cap(s.low) + cap(s.group)
}

// block returns the block of a hash.
func (s *sealed) block(h uint64) int {
	hi, _ := bits.Mul64(h, uint64(len(s.ends)))
	return int(hi)
}

// find calls fn with the runs in which an id of a hash may be, until it returns
// true.
func (s *sealed) find(h uint64, fn func([]runOf) (bool, error)) (bool, error) {
	if s == nil {
		return false, nil
	}
	h = occupied(h) // as the front table has it
	b := s.block(h)
	i, end := 0, int(s.ends[b])
	if b > 0 {
		i = int(s.ends[b-1])
	}
	for i < end {
		at := bytes.IndexByte(s.high[i:end], byte(h>>4))
		if at < 0 {
			return false, nil
		}
		i += at
		if s.nibble(i) == byte(h)&15 {
			if found, err := fn(s.groups[s.group[i]]); found || err != nil {
				return found, err
			}
		}
		i++
	}
	return false, nil
}

func (s *sealed) nibble(i int) byte { return s.low[i>>1] >> (i & 1 * 4) & 15 }

// put writes entry i, whose bits are still zero.
func (s *sealed) put(i int, high, low, group byte) {
	s.high[i], s.group[i] = high, group
	s.low[i>>1] |= low << (i & 1 * 4)
}

// seal returns a table of so many blocks with what is in old, which has as many
// or is nil, and in a list of hashes with their runs. buckets are those of runs;
// what lies in buckets before first has left.
func seal(old *sealed, hashes []uint64, runs []uint16, buckets []uint32, first uint32, blocks int) *sealed {
	s := &sealed{ends: make([]uint32, blocks)}
	var kept [256]bool
	all := true // groups of old are kept
	if old != nil {
		for g, list := range old.groups {
			s.groups[g] = slices.DeleteFunc(slices.Clone(list), func(r runOf) bool { return r.bucket < first })
			kept[g] = len(s.groups[g]) > 0
			all = all && (kept[g] || len(list) == 0)
		}
	}
	valid := func(i int) bool { return hashes[i] != 0 && buckets[runs[i]] != gone && buckets[runs[i]] >= first }
	groups := make([]int16, len(buckets)) // of runs, plus one
	n := 0
	for i := range hashes {
		if !valid(i) {
			continue
		}
		if groups[runs[i]] == 0 {
			groups[runs[i]] = 1 + int16(s.groupOf(runOf{runs[i], buckets[runs[i]]}))
		}
		s.ends[s.block(hashes[i])]++
		n++
	}
	// Until all is there the end of a block is where its next entry goes.
	each := func(b int, fn func(i int)) {
		i := 0
		if b > 0 {
			i = int(old.ends[b-1])
		}
		for ; i < int(old.ends[b]); i++ {
			if all || kept[old.group[i]] {
				fn(i)
			}
		}
	}
	total := n + old.len()
	if !all {
		total = n
		for b := range blocks {
			each(b, func(int) { total++ })
		}
	}
	s.high, s.group, s.low = make([]byte, total), make([]byte, total), make([]byte, (total+1)/2)
	at := 0
	for b := range blocks {
		more := int(s.ends[b])
		if old != nil {
			each(b, func(i int) {
				s.put(at, old.high[i], old.nibble(i), old.group[i])
				at++
			})
		}
		s.ends[b] = uint32(at)
		at += more
	}
	for i, h := range hashes {
		if valid(i) {
			b := s.block(h)
			s.put(int(s.ends[b]), byte(h>>4), byte(h)&15, byte(groups[runs[i]]-1))
			s.ends[b]++
		}
	}
	return s
}

// groupOf returns the group of a run, which it joins if it is in none: a new one,
// or, where its bucket has several, the smallest of them.
func (s *sealed) groupOf(r runOf) int {
	free, least, ofBucket := -1, -1, 0
	for g, list := range s.groups {
		switch {
		case slices.Contains(list, r):
			return g
		case len(list) == 0:
			if free < 0 {
				free = g
			}
		case list[0].bucket == r.bucket:
			if ofBucket++; least < 0 || len(list) < len(s.groups[least]) {
				least = g
			}
		}
	}
	g := least
	if free >= 0 && ofBucket < bucketGroups {
		g = free
	}
	for i := range s.groups { // no group is free, and the bucket has none
		if g < 0 || least < 0 && free < 0 && len(s.groups[i]) < len(s.groups[g]) {
			g = i
		}
	}
	s.groups[g] = append(s.groups[g], r)
	return g
}

// builder makes a table of all ids on disk.
type builder struct {
	store  *Store
	table  *sealed
	blocks int
	rest   front // not in the table yet
	runs   runs
}

func (s *Store) newBuilder(ids int) *builder {
	return &builder{store: s, blocks: max(ids/blockIDs, 64)}
}

// read reads the ids of a partition. progress, if not nil, is called now and then
// with the ids read so far.
func (b *builder) read(ctx context.Context, it *pebble.Iterator, progress func(ids int)) error {
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		k := it.Key()
		if len(k) < keyHeader {
			continue
		}
		run := binary.BigEndian.Uint16(k[runAt:])
		b.runs.found(run, binary.BigEndian.Uint32(k[bucketAt:]))
		if len(k) == keyHeader { // a meta record
			continue
		}
		b.runs.foundID()
		b.rest.insert(b.store.hash(k[keyHeader:]), run)
		// The fewer the copies of the table, the better.
		if b.rest.n >= max(b.store.sealLeast, b.table.len()/8) {
			b.sealRest()
		}
		if n++; n%(1<<18) == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if progress != nil {
				progress(n)
			}
		}
	}
	b.runs.allFound()
	return it.Error()
}

func (b *builder) sealRest() {
	b.table = seal(b.table, b.rest.hashes, b.rest.runs, b.runs.buckets, 0, b.blocks)
	b.rest = front{}
}

// built is a table, or why it could not be made.
type built struct {
	table *sealed
	err   error
}

// seal begins to make a table with the ids of front, if they are many, and takes
// over one that was made.
func (t *Set) seal() error {
	if t.sealing != nil {
		select {
		case b := <-t.built:
			if b.err != nil {
				return t.store.unreadable(t.partition, b.err)
			}
			t.sealed, t.sealing = b.table, nil
		default:
			return nil
		}
	}
	if t.front.n < max(t.store.sealLeast, t.sealed.len()/sealShare) {
		return nil
	}
	f := t.front
	done := make(chan built, 1)
	var work func() (*sealed, error)
	drop := func() error { return nil }
	if t.sealed == nil || t.sealed.len()+f.n > blockLimit*len(t.sealed.ends) {
		it, err := t.iterate(t.store.ctx)
		if err != nil {
			return t.store.unreadable(t.partition, err)
		}
		work, drop = t.anew(it), it.Close
	} else {
		work = t.merge(f)
	}
	t.sealing, t.front, t.built = &f, front{}, done
	s := t.store
	s.builds.Go(func() { // ends with the table
		select {
		case s.building <- struct{}{}: // one at a time: while it is made there are two
			defer func() { <-s.building }()
			table, err := work()
			done <- built{table, errors.Join(err, drop())}
		case <-s.ctx.Done():
			_ = drop() // it was only read
		}
	})
	return nil
}

// merge returns what makes a table of the last one and of hashes.
func (t *Set) merge(f front) func() (*sealed, error) {
	old, buckets, first := t.sealed, slices.Clone(t.runs.buckets), t.runs.oldest()
	return func() (*sealed, error) {
		return seal(old, f.hashes, f.runs, buckets, first, len(old.ends)), nil
	}
}

// anew returns what makes a table of what is on disk.
func (t *Set) anew(it *pebble.Iterator) func() (*sealed, error) {
	b := t.store.newBuilder(t.runs.total())
	return func() (*sealed, error) {
		err := b.read(b.store.ctx, it, nil)
		b.sealRest()
		return b.table, err
	}
}

// iterate returns an iterator over all that is on disk of the partition.
func (t *Set) iterate(ctx context.Context) (*pebble.Iterator, error) {
	return t.store.db.NewIterWithContext(ctx, &pebble.IterOptions{
		LowerBound: append(partitionPrefix(nil, t.partition), kindID),
		UpperBound: append(partitionPrefix(nil, t.partition), kindID+1),
	})
}
