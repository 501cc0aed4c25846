package rollup

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"time"
)

// fault is what a proxy does to a request.
type fault int

const (
	pass     fault = iota
	cutFirst       // cut before the server has seen it
	cutHalf        // cut within the rows of the block
	cutLast        // cut after the server took it, so that its OK is lost
)

func (f fault) String() string {
	return [...]string{"pass", "before", "within", "after"}[f]
}

// proxy stands before ClickHouse and cuts connections at INSERT statements.
type proxy struct {
	t      testing.TB
	ln     net.Listener
	server string
	wg     sync.WaitGroup

	mu      sync.Mutex // covers the rest
	conns   map[net.Conn]bool
	inserts int
	// decide is asked for every INSERT, which is counted from 1.
	decide func(n int) fault
	hit    chan int // gets the number of each INSERT that was cut
	closed bool
}

func newProxy(t testing.TB, server string, decide func(n int) fault) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, ln: ln, server: server, decide: decide, conns: map[net.Conn]bool{}, hit: make(chan int, 10_000)}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) addr() string { return p.ln.Addr().String() }

func (p *proxy) close() {
	p.ln.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *proxy) track(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.Close()
		return
	}
	p.conns[c] = true
}

func (p *proxy) accept() {
	for {
		c, err := p.ln.Accept()
		if err != nil {
			return
		}
		s, err := net.Dial("tcp", p.server)
		if err != nil {
			c.Close()
			continue
		}
		p.track(c)
		p.track(s)
		swallow := make(chan struct{})
		p.wg.Go(func() { p.toServer(c, s, swallow) })
		p.wg.Go(func() { p.toClient(c, s, swallow) })
	}
}

// taken is how long a proxy lets the server work on a block before it cuts.
const taken = 300 * time.Millisecond

func (p *proxy) toServer(client, server net.Conn, swallow chan struct{}) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<16)
	after := -1 // bytes of rows to let through
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if i := bytes.Index(buf[:n], []byte("INSERT INTO")); i >= 0 {
			p.mu.Lock()
			p.inserts++
			number, f := p.inserts, p.decide(p.inserts)
			p.mu.Unlock()
			switch f {
			case cutFirst:
				p.hit <- number
				return
			case cutHalf:
				after = n + 400
			case cutLast:
				close(swallow)
				p.wg.Go(func() {
					time.Sleep(taken)
					p.hit <- number
					client.Close()
					server.Close()
				})
			}
			if after >= 0 {
				p.hit <- number
			}
		}
		if after >= 0 {
			n = min(n, after)
			after -= n
		}
		if _, err := server.Write(buf[:n]); err != nil || after == 0 {
			return
		}
	}
}

func (p *proxy) toClient(client, server net.Conn, swallow chan struct{}) {
	defer client.Close()
	defer server.Close()
	buf := make([]byte, 1<<16)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		select {
		case <-swallow:
			continue
		default:
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}
