package enrich

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// wire is the connections of one instance, which a test can cut, drop or stall.
type wire struct {
	mu    sync.Mutex // covers all below
	cond  *sync.Cond
	dead  bool
	stuck bool
	rate  int // bytes per second that a connection takes; 0: any number
	conns map[*wiredConn]struct{}
}

func newWire() *wire {
	w := &wire{conns: map[*wiredConn]struct{}{}}
	w.cond = sync.NewCond(&w.mu)
	return w
}

type wiredConn struct {
	net.Conn
	w      *wire
	closed bool // under w.mu
}

var errCut = errors.New("the wire is cut")

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		conn.Close()
		return nil, errCut
	}
	c := &wiredConn{Conn: conn, w: w}
	w.conns[c] = struct{}{}
	return c, nil
}

// pass waits while the wire is stalled.
func (c *wiredConn) pass() error {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	for c.w.stuck && !c.closed && !c.w.dead {
		c.w.cond.Wait()
	}
	if c.w.dead {
		return errCut
	}
	if c.closed {
		return net.ErrClosed
	}
	return nil
}

func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if perr := c.pass(); perr != nil {
		return 0, perr
	}
	return n, err
}

func (c *wiredConn) Write(b []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	c.w.mu.Lock()
	rate := c.w.rate
	c.w.mu.Unlock()
	if rate > 0 {
		time.Sleep(time.Duration(len(b)) * time.Second / time.Duration(rate))
	}
	return c.Conn.Write(b)
}

func (c *wiredConn) Close() error {
	c.w.mu.Lock()
	c.closed = true
	delete(c.w.conns, c)
	c.w.cond.Broadcast()
	c.w.mu.Unlock()
	return c.Conn.Close()
}

// cut closes all connections and lets no new one through.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	w.drop()
}

// reset closes all connections; new ones can be made.
func (w *wire) reset() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop()
}

func (w *wire) drop() {
	for c := range w.conns {
		c.closed = true
		c.Conn.Close()
	}
	clear(w.conns)
	w.cond.Broadcast()
}

// slow bounds the bytes per second that a connection takes.
func (w *wire) slow(rate int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rate = rate
}

// stall holds everything back until release: what was written meanwhile arrives
// then, late, as from a process that was stopped and goes on.
func (w *wire) stall() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = true
}

func (w *wire) release() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stuck = false
	w.cond.Broadcast()
}
