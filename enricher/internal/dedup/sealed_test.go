package dedup

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// A table has every id that it was given, in a group with its run, over any number
// of tables made of one another while buckets leave, and few others.
func TestSealedHasWhatItWasGiven(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	const buckets, perRun, runsOf = 20, 100, 12
	var bucketOf []uint32
	all := map[uint64]runOf{}
	var table *sealed
	for bucket := range uint32(buckets) {
		var f front
		for range runsOf {
			run := uint16(len(bucketOf))
			bucketOf = append(bucketOf, bucket)
			for range perRun {
				h := r.Uint64()
				f.insert(h, run)
				all[h] = runOf{run, bucket}
			}
		}
		first := max(bucket, 5) - 5
		for i := range bucketOf {
			if bucketOf[i] < first {
				bucketOf[i] = gone
			}
		}
		table = seal(table, f.hashes, f.runs, bucketOf, first, 400)
		for h, want := range all {
			found, err := table.find(h, func(runs []runOf) (bool, error) { return slices.Contains(runs, want), nil })
			if err != nil || found != (want.bucket >= first) {
				t.Fatalf("bucket %d, an id of bucket %d: found %t, %v", bucket, want.bucket, found, err)
			}
		}
		if want := min(int(bucket)+1, 6) * runsOf * perRun; table.len() != want {
			t.Fatalf("bucket %d: %d ids, want %d", bucket, table.len(), want)
		}
	}
	others, hits := 100_000, 0
	for range others {
		if hit, _ := table.find(r.Uint64(), func([]runOf) (bool, error) { return true, nil }); hit {
			hits++
		}
	}
	if hits > others/80 {
		t.Errorf("%d of %d other ids would be looked for on disk", hits, others)
	}
	if got := float64(table.bytes()) / float64(table.len()); got > 2.8 {
		t.Errorf("%.2f bytes an id", got)
	}
}

// While a table is made, whatever goes on, and after it, no id is forgotten that
// is within the window, and none is taken for another; a restart reads the same.
func TestSealingForgetsNothing(t *testing.T) {
	f := newFixture(t)
	f.seal = 300
	f.close()
	f.open()
	r := rand.New(rand.NewPCG(9, 10))
	hours := map[string]int64{}
	var list []string
	held, anew := 0, 0
	for txn := range int64(270) { // hours
		if txn%7 == 0 { // tables are not made for a while
			f.store.building <- struct{}{}
		}
		for range 60 {
			id := fmt.Sprintf("%016x", r.Uint64())
			if f.add("dev", id, at(txn)) {
				t.Fatalf("hour %d: a new id was seen", txn)
			}
			hours[id] = txn
			list = append(list, id)
		}
		f.commit(txn)
		if f.set.sealing != nil && txn%7 != 6 {
			held++
		}
		for range 60 {
			id := list[len(list)-1-r.IntN(min(len(list), 160*60))]
			if seen, err := f.set.Seen("dev", id); !seen || err != nil {
				t.Fatalf("hour %d: an id of hour %d was not seen: %v", txn, hours[id], err)
			}
		}
		if old := len(list) - 190*60; old > 0 {
			if seen, err := f.set.Seen("dev", list[r.IntN(old)]); seen || err != nil {
				t.Fatalf("hour %d: an id from before the window was seen: %v", txn, err)
			}
		}
		if txn%7 == 6 {
			before := f.set.sealed
			<-f.store.building
			f.store.builds.Wait()
			if before != nil && f.set.sealing != nil {
				b := <-f.set.built
				if b.table != nil && len(b.table.ends) > len(before.ends) {
					anew++
				}
				f.set.built <- b
			}
		}
		if txn%98 == 97 { // no table is held up
			f.close()
			f.open()
		}
	}
	if held == 0 || anew == 0 {
		t.Errorf("%d transactions while a table was made, %d tables of more blocks", held, anew)
	}
	if got, want := f.set.Len(), 168*60; got < want || got > want+12*60 {
		t.Errorf("%d ids, want %d and up to two buckets", got, want)
	}
}

// BenchmarkSealed is a look for a new id in a table of 25 million: a partition's
// part of 100 million.
func BenchmarkSealed(b *testing.B) {
	const n = 25_000_000
	hashes, runs, buckets := make([]uint64, n), make([]uint16, n), make([]uint32, 28*10)
	for i := range buckets {
		buckets[i] = uint32(i / 10)
	}
	for i := range hashes {
		hashes[i], runs[i] = rand.Uint64()|1, uint16(i*len(buckets)/n)
	}
	table := seal(nil, hashes, runs, buckets, 0, n/blockIDs)
	hits := 0
	report := cpu(b)
	for b.Loop() {
		if hit, _ := table.find(rand.Uint64(), func([]runOf) (bool, error) { return true, nil }); hit {
			hits++
		}
	}
	report()
	b.ReportMetric(float64(table.bytes())/n, "bytes/id")
	b.ReportMetric(float64(hits)/float64(b.N)*1000, "looks/1000")
}

// BenchmarkSeal adds what came since to a table of 25 million.
func BenchmarkSeal(b *testing.B) {
	const n, more = 25_000_000, 25_000_000 / sealShare
	hashes, runs := make([]uint64, n), make([]uint16, n)
	for i := range hashes {
		hashes[i] = rand.Uint64() | 1
	}
	table := seal(nil, hashes, runs, []uint32{1}, 0, n/blockIDs)
	report := cpu(b)
	for b.Loop() {
		seal(table, hashes[:more], runs[:more], []uint32{1}, 0, n/blockIDs)
	}
	report()
	b.ReportMetric(more, "ids/op")
}
