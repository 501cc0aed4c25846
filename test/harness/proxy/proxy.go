// Package proxy puts a TCP proxy in front of a server and breaks the path on
// command: at an exact byte, in one direction, for a while or for good.
//
// It owns its listener and its connections; Close ends them. It knows nothing
// of the protocols: whatever a client or a server cannot stand at byte n, it
// will meet at byte n.
package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Direction is one of the two ways through a proxy.
type Direction int

// Directions.
const (
	ToServer Direction = iota
	ToClient
)

// String names the direction.
func (d Direction) String() string {
	if d == ToServer {
		return "to server"
	}
	return "to client"
}

// Action is what a fault does to the connection that it hits.
type Action int

// Actions.
const (
	// Cut resets both sides after exactly the fault's bytes.
	Cut Action = iota
	// Swallow keeps the rest of this direction from arriving while the other
	// flows on, and resets both sides when For is over: the work is done and
	// its answer never comes.
	Swallow
	// Delay holds this direction of the connection for For, then flows on.
	Delay
)

// String names the action.
func (a Action) String() string { return [...]string{"cut", "swallow", "delay"}[a] }

// Fault hits the connection that carries byte After+1 of a direction, counted
// over all connections from when the fault was armed.
type Fault struct {
	Direction Direction
	After     int64
	Action    Action
	For       time.Duration // of Swallow and Delay
}

// Armed is a fault that waits for its byte, or has met it.
type Armed struct {
	fault Fault
	left  int64
	fired chan struct{}
}

// Fired is closed when the fault has hit.
func (a *Armed) Fired() <-chan struct{} { return a.fired }

// Proxy is a running proxy.
type Proxy struct {
	ln     net.Listener
	target string
	wg     sync.WaitGroup

	mu     sync.Mutex // covers all below
	closed bool
	refuse bool
	gentle bool
	held   chan struct{} // not nil while nothing may pass; closed when it may again
	pairs  map[*pair]bool
	armed  []*Armed
}

// pair is one connection through the proxy.
type pair struct {
	client, server *net.TCPConn
	gentle         bool
	once           sync.Once
	done           chan struct{}
}

// reset ends both sides with RST, so that neither takes it for a good end.
func (c *pair) reset() { c.end(true) }

// end ends both sides. Without reset the bytes under way still arrive.
func (c *pair) end(reset bool) {
	c.once.Do(func() {
		close(c.done)
		sides := []*net.TCPConn{c.client, c.server}
		if reset && c.gentle {
			// A close with bytes unread would be a reset all the same.
			sides = sides[:1]
			_ = c.server.CloseWrite()
			_ = c.server.SetReadDeadline(time.Now().Add(drain))
			go func() { // ends with the server's end of it, or at the deadline
				_, _ = io.Copy(io.Discard, c.server)
				_ = c.server.Close()
			}()
		}
		for _, s := range sides {
			if reset {
				_ = s.SetLinger(0) // fails on a closed connection only
			}
			_ = s.Close()
		}
	})
}

// drain bounds how long a gentle end reads what a server still sends.
const drain = 5 * time.Second

// Listen starts a proxy to target on a free port of this machine.
func Listen(target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy to %s: %w", target, err)
	}
	p := &Proxy{ln: ln, target: target, pairs: map[*pair]bool{}}
	p.wg.Go(p.accept) // ends with Close
	return p, nil
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// SetTarget names another server for the connections to come.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// Target is the server that connections lead to.
func (p *Proxy) Target() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.target
}

// Close ends the proxy and its connections, and waits for them.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.ln.Close()
	p.Hold(false)
	p.CutAll()
	p.wg.Wait()
}

// Gentle has the server see an ordered end, and the client alone a reset, when
// connections are cut from now on: for a server that does not outlive a reset.
func (p *Proxy) Gentle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gentle = true
}

// CutAll resets every connection. It returns how many there were.
func (p *Proxy) CutAll() int {
	p.mu.Lock()
	pairs := make([]*pair, 0, len(p.pairs))
	for c := range p.pairs {
		pairs = append(pairs, c)
	}
	p.mu.Unlock()
	for _, c := range pairs {
		c.reset()
	}
	return len(pairs)
}

// Refuse resets new connections at once while on, and those there are when it
// is turned on.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	p.refuse = on
	p.mu.Unlock()
	if on {
		p.CutAll()
	}
}

// Hold lets nothing pass either way while on; connections stay open, as when
// packets are lost.
func (p *Proxy) Hold(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case on && p.held == nil && !p.closed:
		p.held = make(chan struct{})
	case !on && p.held != nil:
		close(p.held)
		p.held = nil
	}
}

// Arm makes a fault wait for its byte.
func (p *Proxy) Arm(f Fault) *Armed {
	a := &Armed{fault: f, left: f.After, fired: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = append(p.armed, a)
	return a
}

// Disarm takes back every fault that has not fired.
func (p *Proxy) Disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed = nil
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return // closed
		}
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) }) // ends when either side does
	}
}

func (p *Proxy) serve(client *net.TCPConn) {
	p.mu.Lock()
	refuse, target, gentle := p.refuse || p.closed, p.target, p.gentle
	p.mu.Unlock()
	var server net.Conn
	var err error
	if !refuse {
		server, err = net.DialTimeout("tcp", target, 5*time.Second)
	}
	if refuse || err != nil {
		_ = client.SetLinger(0)
		_ = client.Close()
		return
	}
	c := &pair{client: client, server: server.(*net.TCPConn), gentle: gentle, done: make(chan struct{})}
	p.mu.Lock()
	refuse = p.refuse || p.closed // either may have come while it dialed
	if !refuse {
		p.pairs[c] = true
	}
	p.mu.Unlock()
	if refuse {
		c.reset()
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.copy(c, c.server, c.client, ToServer) })
	wg.Go(func() { p.copy(c, c.client, c.server, ToClient) })
	wg.Wait()
	c.end(false)
	p.mu.Lock()
	delete(p.pairs, c)
	p.mu.Unlock()
}

// copy moves one direction of a connection until it ends.
func (p *Proxy) copy(c *pair, dst, src *net.TCPConn, d Direction) {
	buf := make([]byte, 32<<10)
	swallow := false
	for {
		n, err := src.Read(buf)
		rest := buf[:n]
		for len(rest) > 0 {
			if !p.await(c) {
				return
			}
			k, hit := p.pass(d, int64(len(rest)))
			if !swallow {
				if _, err := dst.Write(rest[:k]); err != nil {
					c.reset()
					return
				}
			}
			rest = rest[k:]
			if hit == nil {
				continue
			}
			switch hit.fault.Action {
			case Cut:
				c.reset()
			case Swallow:
				swallow = true
				time.AfterFunc(hit.fault.For, c.reset)
			case Delay:
				t := time.NewTimer(hit.fault.For)
				select {
				case <-t.C:
				case <-c.done:
				}
				t.Stop()
			}
			close(hit.fired)
		}
		if err != nil {
			switch {
			case !errors.Is(err, io.EOF):
				c.reset()
			case !swallow:
				// The other direction may have bytes under way: pass on the end only.
				_ = dst.CloseWrite()
			}
			return
		}
	}
}

// await returns when bytes may pass, or false when the connection has ended.
func (p *Proxy) await(c *pair) bool {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held == nil {
		return true
	}
	select {
	case <-held:
		return true
	case <-c.done:
		return false
	}
}

// pass says how many of the next n bytes of a direction flow before a fault
// hits, and which.
func (p *Proxy) pass(d Direction, n int64) (int64, *Armed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := -1
	for i, a := range p.armed {
		if a.fault.Direction == d && a.left < n && (first < 0 || a.left < p.armed[first].left) {
			first = i
		}
	}
	var hit *Armed
	if first >= 0 {
		hit = p.armed[first]
		n = hit.left
		p.armed = append(p.armed[:first], p.armed[first+1:]...)
	}
	for _, a := range p.armed {
		if a.fault.Direction == d {
			a.left -= n
		}
	}
	return n, hit
}

// Front puts a proxy in front of a listener whose server tells its clients its
// own address, as a Kafka broker does: the returned listener accepts from ln and
// gives the proxy's address as its own.
func Front(ln net.Listener) (net.Listener, *Proxy, error) {
	p, err := Listen(ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	return fronted{ln, p}, p, nil
}

type fronted struct {
	net.Listener
	proxy *Proxy
}

// Addr is the proxy's address.
func (f fronted) Addr() net.Addr { return f.proxy.ln.Addr() }
