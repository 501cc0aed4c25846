package gateway

import (
	"sync/atomic"
	"time"
)

// crowd counts the requests that wait for acks and reports when it is complete: when as
// many wait as the highest number that waited at once recently. Lingering then adds no
// records to a batch, only latency, since producers that send their next request after
// the reply to the last, over any number of connections, are all waiting.
type crowd struct {
	waiting atomic.Int64
	window  atomic.Int64 // number of the window that most belongs to
	most    atomic.Int64 // highest number of requests that waited at once
	before  atomic.Int64 // the same in the window before
}

// crowdWindow is the length of a window. A crowd that shrinks lingers in vain for at
// most two windows, and the size of one that comes and goes is remembered as long.
const crowdWindow = 100 * time.Millisecond

// join adds a request and reports whether the crowd is complete with it. Concurrent
// calls may count a window's maximum in the neighbouring window; the effect is one
// linger more or less.
func (c *crowd) join(now time.Time) bool {
	n := c.waiting.Add(1)
	w := now.UnixNano() / int64(crowdWindow)
	if old := c.window.Load(); old != w && c.window.CompareAndSwap(old, w) {
		last := c.most.Swap(n)
		if w != old+1 {
			last = 0
		}
		c.before.Store(last)
	}
	most := c.most.Load()
	for n > most && !c.most.CompareAndSwap(most, n) {
		most = c.most.Load()
	}
	return n >= max(most, c.before.Load())
}

// leave removes a request.
func (c *crowd) leave() { c.waiting.Add(-1) }
