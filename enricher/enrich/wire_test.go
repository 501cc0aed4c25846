package enrich

import (
	"context"
	"errors"
	"net"
	"sync"
)

// wire is the connections of one instance, which a test can cut.
type wire struct {
	mu    sync.Mutex // covers dead and conns
	dead  bool
	conns map[net.Conn]struct{}
}

func newWire() *wire { return &wire{conns: map[net.Conn]struct{}{}} }

func (w *wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	w.mu.Lock()
	dead := w.dead
	w.mu.Unlock()
	if dead {
		return nil, errors.New("the wire is cut")
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead {
		conn.Close()
		return nil, errors.New("the wire is cut")
	}
	w.conns[conn] = struct{}{}
	return conn, nil
}

// cut closes all connections and lets no new one through.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dead = true
	for c := range w.conns {
		c.Close()
	}
}
