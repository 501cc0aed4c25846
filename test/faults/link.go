package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/uptakehq/uptake/test/harness/proxy"
)

// link is the network of one life of an instance: everything that it tells
// anyone goes through here, so that whoever severs it has killed the instance as
// far as anyone can see.
type link struct {
	kafka *proxy.Proxy
	own   []*proxy.Proxy // kafka, and what else ends with the life
	front *proxy.Proxy   // of a gateway: stays over its lives; or nil

	mu    sync.Mutex // covers the two below
	dead  bool
	armed []*crash
}

// crash severs a link when the instance has come to a step of the protocol.
type crash struct {
	key   kmsg.Key
	left  int  // requests of this key until then
	after bool // once the broker has answered; else before the request goes out
	fired chan struct{}
	once  sync.Once
}

func newLink(broker string) (*link, error) {
	p, err := proxy.Listen(broker)
	if err != nil {
		return nil, err
	}
	return &link{kafka: p, own: []*proxy.Proxy{p}}, nil
}

// dial is the instance's dialer of brokers. They all are behind one proxy.
func (l *link) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, network, l.kafka.Addr())
	if err != nil {
		return nil, err
	}
	return &linkConn{Conn: c, link: l}, nil
}

// sever ends every connection, and lets none come into being.
func (l *link) sever() {
	l.mu.Lock()
	was := l.dead
	l.dead = true
	l.mu.Unlock()
	if was {
		return // the front may be a successor's by now
	}
	for _, p := range l.paths() {
		p.Refuse(true)
		p.Hold(false)
	}
}

func (l *link) severed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dead
}

func (l *link) paths() []*proxy.Proxy {
	if l.front == nil {
		return l.own
	}
	return append([]*proxy.Proxy{l.front}, l.own...) // no ack after the end
}

// hold lets nothing pass while on.
func (l *link) hold(on bool) {
	for _, p := range l.paths() {
		p.Hold(on)
	}
}

func (l *link) close() {
	for _, p := range l.own {
		p.Close()
	}
}

// arm severs the link at the n-th request of a key from now on.
func (l *link) arm(key kmsg.Key, n int, after bool) *crash {
	c := &crash{key: key, left: n, after: after, fired: make(chan struct{})}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.armed = append(l.armed, c)
	return c
}

func (l *link) fire(c *crash) {
	l.sever()
	c.once.Do(func() { close(c.fired) })
}

// meet counts a request and returns the crash that it meets.
func (l *link) meet(request []byte) (*crash, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return nil, errSevered
	}
	if len(request) < 8 {
		return nil, nil
	}
	key := kmsg.Key(binary.BigEndian.Uint16(request[4:])) // after the length
	for i, c := range l.armed {
		if c.key != key {
			continue
		}
		if c.left--; c.left <= 0 {
			l.armed = append(l.armed[:i], l.armed[i+1:]...)
			return c, nil
		}
	}
	return nil, nil
}

var errSevered = fmt.Errorf("the instance was killed: %w", net.ErrClosed)

// linkConn is a connection to a broker. The client writes each request with one
// Write.
type linkConn struct {
	net.Conn
	link *link

	mu    sync.Mutex // covers reply
	reply *crash     // fires when the broker answers
}

func (c *linkConn) Write(p []byte) (int, error) {
	met, err := c.link.meet(p)
	if err != nil {
		return 0, err
	}
	switch {
	case met == nil:
	case met.after:
		c.mu.Lock()
		c.reply = met
		c.mu.Unlock()
	default:
		c.link.fire(met)
		return 0, errSevered
	}
	return c.Conn.Write(p)
}

func (c *linkConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	met := c.reply
	c.mu.Unlock()
	if n > 0 && met != nil {
		c.link.fire(met)
		return 0, errSevered
	}
	return n, err
}
