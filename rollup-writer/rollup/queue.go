package rollup

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// queue holds the records that were fetched for a partition and not yet cut. put never
// blocks: above the limit the partition's fetching is paused, until half of the limit
// is left. Records that the client has buffered when it pauses exceed the limit.
type queue struct {
	limit   int
	metrics *metrics
	ready   chan struct{} // has an element while records may be waiting

	mu      sync.Mutex // covers the rest
	records []*kgo.Record
	bytes   int
	paused  bool
	closed  bool
}

func (q *queue) init(limit int, m *metrics) {
	q.limit, q.metrics, q.ready = limit, m, make(chan struct{}, 1)
}

// put adds records and reports whether fetching must be paused.
func (q *queue) put(records []*kgo.Record) (pause bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	before := q.bytes
	for _, r := range records {
		q.bytes += len(r.Value) + recordOverhead
	}
	q.metrics.queueBytes.Add(float64(q.bytes - before))
	q.records = append(q.records, records...)
	select {
	case q.ready <- struct{}{}:
	default:
	}
	if q.bytes > q.limit && !q.paused {
		q.paused = true
		q.metrics.paused.Inc()
		return true
	}
	return false
}

// recordOverhead is roughly what a record occupies beside its value.
const recordOverhead = 200

// take removes and returns all records.
func (q *queue) take() []*kgo.Record {
	q.mu.Lock()
	defer q.mu.Unlock()
	records := q.records
	q.records = nil
	q.metrics.queueBytes.Sub(float64(q.bytes))
	q.bytes = 0
	return records
}

// drained reports, once, that a paused partition must be resumed.
func (q *queue) drained() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.paused || q.bytes > q.limit/2 {
		return false
	}
	q.paused = false
	q.metrics.paused.Dec()
	return true
}

func (q *queue) isPaused() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.paused
}

// close drops what is left.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.metrics.queueBytes.Sub(float64(q.bytes))
	q.records, q.bytes = nil, 0
	if q.paused {
		q.paused = false
		q.metrics.paused.Dec()
	}
}
