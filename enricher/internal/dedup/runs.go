package dedup

import (
	"math"
	"slices"
)

// runs numbers the runs of a partition, each of one bucket of time. A number is reused
// once its bucket has left.
type runs struct {
	buckets []uint32 // by number; gone where it is free
	free    []uint16
	open    []openRun // the last one of each bucket
}

// openRun is a run that may be continued.
type openRun struct {
	bucket uint32
	run    uint16
	ids    int // in it
	all    int // in all runs of the bucket
}

const (
	gone = math.MaxUint32

	// Runs shorter than this are continued, and beyond a number of runs all of them
	// are, so that the numbers suffice: for half a thousand million ids of a partition
	// without continuing, and for any number with it.
	shortRun = 1 << 14
	manyRuns = 1 << 15
)

// take returns the run for ids more ids of a bucket.
func (r *runs) take(bucket uint32, ids int) uint16 {
	at := r.find(bucket)
	if at < 0 {
		at = len(r.open)
		r.open = append(r.open, openRun{bucket: bucket, run: r.number(bucket)})
	} else if r.open[at].ids >= shortRun && len(r.buckets)-len(r.free) < manyRuns {
		r.open[at] = openRun{bucket: bucket, run: r.number(bucket), all: r.open[at].all}
	}
	r.open[at].ids += ids
	r.open[at].all += ids
	return r.open[at].run
}

// oldest returns the first bucket that has a run, or gone.
func (r *runs) oldest() uint32 {
	first := uint32(gone)
	for i := range r.open {
		first = min(first, r.open[i].bucket)
	}
	return first
}

// total returns how many ids all buckets have.
func (r *runs) total() int {
	n := 0
	for i := range r.open {
		n += r.open[i].all
	}
	return n
}

// idsOf returns how many ids a bucket has.
func (r *runs) idsOf(bucket uint32) int {
	if at := r.find(bucket); at >= 0 {
		return r.open[at].all
	}
	return 0
}

// find returns the place of a bucket in open, or -1.
func (r *runs) find(bucket uint32) int {
	return slices.IndexFunc(r.open, func(o openRun) bool { return o.bucket == bucket })
}

// number assigns a number to a new run of a bucket. A free number exists: beyond
// manyRuns only a bucket's first run is new.
func (r *runs) number(bucket uint32) uint16 {
	if last := len(r.free) - 1; last >= 0 {
		run := r.free[last]
		r.free = r.free[:last]
		r.buckets[run] = bucket
		return run
	}
	r.buckets = append(r.buckets, bucket)
	return uint16(len(r.buckets) - 1)
}

// drop frees the runs of buckets before the given one.
func (r *runs) drop(before uint32) {
	for run, bucket := range r.buckets {
		if bucket < before {
			r.buckets[run] = gone
			r.free = append(r.free, uint16(run))
		}
	}
	r.open = slices.DeleteFunc(r.open, func(o openRun) bool { return o.bucket < before })
}

// found notes an entry of a run on disk, in the order of buckets and runs.
func (r *runs) found(run uint16, bucket uint32) {
	for len(r.buckets) <= int(run) {
		r.buckets = append(r.buckets, gone)
	}
	r.buckets[run] = bucket
	if last := len(r.open) - 1; last < 0 || r.open[last].bucket != bucket {
		r.open = append(r.open, openRun{bucket: bucket, run: run})
	} else if r.open[last].run != run {
		r.open[last] = openRun{bucket: bucket, run: run, all: r.open[last].all}
	}
}

// foundID notes an id of the entry that was found.
func (r *runs) foundID() {
	r.open[len(r.open)-1].ids++
	r.open[len(r.open)-1].all++
}

// allFound completes what found collected.
func (r *runs) allFound() {
	for run, bucket := range r.buckets {
		if bucket == gone {
			r.free = append(r.free, uint16(run))
		}
	}
}
