package gateway

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// listener bounds the connections, in total and per address, and keeps the set of open
// ones, so that stopping can close those that do not end by themselves.
type listener struct {
	net.Listener
	gateway   *Gateway
	addresses shares
	refused   atomic.Int64
	warned    atomic.Int64 // Unix seconds of the last line in the log
	closed    sync.Once
	mu        sync.Mutex // covers open
	open      map[net.Conn]struct{}
}

func newListener(ln net.Listener, g *Gateway) *listener {
	return &listener{Listener: ln, gateway: g, addresses: newShares(g.cfg.connectionsOfAddress()), open: map[net.Conn]struct{}{}}
}

// Accept implements net.Listener. Connections above a bound are answered and closed.
func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tracked, setting := l.admit(c)
		if setting == "" {
			return tracked, nil
		}
		l.refuse(c, setting)
	}
}

// admit returns the connection, or the setting whose bound is reached.
func (l *listener) admit(c net.Conn) (tracked *conn, setting string) {
	cfg := &l.gateway.cfg
	tracked = &conn{Conn: c, listener: l, pace: pace{rate: cfg.MinRequestRate}}
	tracked.reads.set, tracked.writes.set = c.SetReadDeadline, c.SetWriteDeadline
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= cfg.MaxConnections {
		return nil, settingMaxConnections
	}
	peer, _ := netip.ParseAddrPort(c.RemoteAddr().String()) // unparsable addresses count as one client, the zero Addr
	addr := peer.Addr().Unmap().WithZone("")
	if !within(addr, l.gateway.proxies) { // a proxy's connections carry requests of many clients
		tracked.network, tracked.counted = networkOf(addr), true
		if !l.addresses.take(tracked.network, 1) {
			return nil, settingMaxAddressShare
		}
	}
	l.open[tracked] = struct{}{}
	return tracked, ""
}

// refuse answers a connection above a bound, as far as its empty send buffer accepts
// the answer at once, and closes it.
func (l *listener) refuse(c net.Conn, setting string) {
	fault := &ingest.Fault{Kind: ingest.Overloaded, Setting: setting, Detail: "too many connections"}
	if setting == settingMaxAddressShare {
		fault.Detail = "too many connections from this address"
	}
	l.refused.Add(1)
	m := l.gateway.metrics
	m.answered(m.protocol(noProtocol), http.StatusServiceUnavailable, fault)
	body := append(ingest.AppendQuoted([]byte(`{"success":false,"error":{"code":"overloaded","detail":`), fault.Error()), "}}"...)
	_ = c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	// The client may be gone; nobody else needs the error.
	_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_ = c.Close()
	if now, last := time.Now().Unix(), l.warned.Load(); now-last >= 60 && l.warned.CompareAndSwap(last, now) {
		l.gateway.log.Warn("connections are refused", "setting", setting, "refused", l.refused.Load())
	}
}

// Close implements net.Listener; closing again is no error.
func (l *listener) Close() (err error) {
	l.closed.Do(func() { err = l.Listener.Close() })
	return err
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

func (l *listener) closeAll() int {
	l.mu.Lock()
	open := make([]net.Conn, 0, len(l.open))
	for c := range l.open {
		open = append(open, c)
	}
	l.mu.Unlock()
	for _, c := range open {
		c.Close()
	}
	return len(open)
}

// conn is one connection. Its deadlines and its pace belong to the goroutine that reads
// and writes it.
type conn struct {
	net.Conn
	listener      *listener
	reads, writes deadline
	pace          pace
	network       network
	counted       bool // in listener.addresses
	closed        atomic.Bool
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.reads.want = t
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.writes.want = t
	return nil
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.reads.want, c.writes.want = t, t
	return nil
}

// Read implements net.Conn. A request that arrives more slowly than its pace ends with
// errSlow.
func (c *conn) Read(p []byte) (int, error) {
	due, slow := c.pace.due(c.reads.want)
	if err := c.reads.until(due); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.pace.read(n)
	if slow && errors.Is(err, os.ErrDeadlineExceeded) {
		err = errSlow
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.writes.until(c.writes.want); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.listener.mu.Lock()
		delete(c.listener.open, c)
		c.listener.mu.Unlock()
		if c.counted {
			c.listener.addresses.give(c.network, 1)
		}
	}
	return c.Conn.Close()
}

// pace enforces a minimum rate: from the first read of a request, a client has
// paceGrace plus n/rate for its first n bytes.
type pace struct {
	rate   int  // bytes per second; 0 for none
	active bool // a request is being read
	since  time.Time
	got    int
}

// paceGrace is how long a client may pause at any rate.
const paceGrace = 5 * time.Second

// paced marks the start and end of requests for a connection's pace.
func paced(c net.Conn, state fasthttp.ConnState) {
	if tracked, ok := c.(*conn); ok {
		tracked.pace = pace{rate: tracked.pace.rate, active: state == fasthttp.StateActive}
	}
}

// due returns the deadline of the next read, not later than want, and whether the pace
// is what makes it earlier.
func (p *pace) due(want time.Time) (due time.Time, slow bool) {
	if p.since.IsZero() || p.rate == 0 {
		return want, false
	}
	due = p.since.Add(paceGrace + time.Duration(float64(p.got)/float64(p.rate)*float64(time.Second)))
	if !want.IsZero() && want.Before(due) {
		return want, false
	}
	return due, true
}

func (p *pace) read(n int) {
	if !p.active || n <= 0 {
		return
	}
	if p.since.IsZero() {
		p.since = time.Now()
	}
	p.got += n
}

// errSlow ends a read of a request that arrives more slowly than min-request-rate.
var errSlow = fmt.Errorf("slower than %s: %w", settingMinRequestRate, os.ErrDeadlineExceeded)

// tooSlow returns the fault of a read that ended at a deadline, nil for any other
// error.
func tooSlow(err error, cfg *Config) *ingest.Fault {
	var timeout net.Error
	switch {
	case err == nil:
	case errors.Is(err, errSlow):
		return &ingest.Fault{Kind: ingest.TooSlow, Setting: settingMinRequestRate, Detail: fmt.Sprintf("the request comes slower than %d bytes a second", cfg.MinRequestRate)}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &ingest.Fault{Kind: ingest.TooSlow, Setting: settingReadTimeout, Detail: fmt.Sprintf("the request did not come within %s", cfg.ReadTimeout)}
	}
	return nil
}

// framing returns the fault of a header block that two readers could take for different
// requests (RFC 9112, sections 5.2 and 6.1), else nil: a Content-Length beside a
// Transfer-Encoding, a transfer coding other than chunked, and folded lines. chunked is
// how the server read it.
func framing(raw []byte, chunked bool) *ingest.Fault {
	length, coding := false, false
	for rest := ingest.String(raw); rest != ""; {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		if line == "" {
			continue
		}
		switch line[0] {
		case ' ', '\t':
			return &ingest.Fault{Kind: ingest.BadBody, Detail: "a folded header line"}
		case 'C', 'c':
			length = length || named(line, "Content-Length")
		case 'T', 't':
			coding = coding || named(line, "Transfer-Encoding")
		}
	}
	switch {
	case coding && length:
		return &ingest.Fault{Kind: ingest.BadBody, Detail: "both Content-Length and Transfer-Encoding"}
	case coding && !chunked:
		return &ingest.Fault{Kind: ingest.BadBody, Detail: "a Transfer-Encoding other than chunked"}
	}
	return nil
}

// named reports whether a header line is of the named field.
func named(line, field string) bool {
	name, _, _ := strings.Cut(line, ":")
	return len(name) >= len(field) && strings.EqualFold(strings.TrimRight(name, " \t"), field)
}
