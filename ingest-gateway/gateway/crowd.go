package gateway

import (
	"sync/atomic"
	"time"
)

// crowd counts the requests whose records are under way, and tells when it is
// complete: when as many wait for their acks as did at most lately. Then
// lingering brings no more records into a batch, only latency: producers that
// send their next request once they have the reply to the last, over any number
// of connections, are all waiting.
type crowd struct {
	waiting atomic.Int64
	window  atomic.Int64 // number of the window that most is of
	most    atomic.Int64 // that waited at a time
	before  atomic.Int64 // the same in the window before
}

// crowdWindow bounds how long a crowd that gets smaller lingers in vain, twice
// this at most, and what is remembered of one that comes and goes.
const crowdWindow = 100 * time.Millisecond

// join adds a request and reports whether the crowd is complete with it. Calls
// that come together may count a window's most in the other one, which is a
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

// leave takes a request off.
func (c *crowd) leave() { c.waiting.Add(-1) }
