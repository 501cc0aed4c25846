package stack

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// ClickHouse is an embedded server that can be killed, stopped and started
// again on its data and addresses.
type ClickHouse struct {
	cfg embedded.Config

	mu     sync.Mutex // covers server
	server *embedded.Server
}

func (c *ClickHouse) current() *embedded.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server
}

// Ended reports whether the server has ended, for whatever reason.
func (c *ClickHouse) Ended() bool {
	select {
	case <-c.current().Done():
		return true
	default:
		return false
	}
}

// StartClickHouse starts a server. Close it.
func StartClickHouse(ctx context.Context, cfg embedded.Config) (*ClickHouse, error) {
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cfg.NativeAddr, cfg.HTTPAddr = server.NativeAddr(), server.HTTPAddr()
	return &ClickHouse{cfg: cfg, server: server}, nil
}

// NativeAddr is host:port of the native protocol; it stays over restarts.
func (c *ClickHouse) NativeAddr() string { return c.cfg.NativeAddr }

// HTTPAddr is host:port of the HTTP interface; it stays over restarts.
func (c *ClickHouse) HTTPAddr() string { return c.cfg.HTTPAddr }

// Query runs one statement over HTTP.
func (c *ClickHouse) Query(ctx context.Context, statement string) (string, error) {
	return c.current().Query(ctx, statement)
}

// Kill ends the server with SIGKILL.
func (c *ClickHouse) Kill() { c.current().Kill() }

// Stop ends the server in good order.
func (c *ClickHouse) Stop(ctx context.Context) error { return c.current().Stop(ctx) }

// Pause stops the server where it is (SIGSTOP).
func (c *ClickHouse) Pause() error { return syscall.Kill(c.current().Pid(), syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (c *ClickHouse) Resume() error { return syscall.Kill(c.current().Pid(), syscall.SIGCONT) }

// Start starts a server that has ended, on the same data and addresses.
func (c *ClickHouse) Start(ctx context.Context) error {
	if !c.Ended() {
		return fmt.Errorf("start ClickHouse: it runs")
	}
	server, err := embedded.Start(ctx, c.cfg)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = server
	return nil
}

// Close stops the server, and kills it when it does not stop.
func (c *ClickHouse) Close() error {
	if c.Ended() {
		return nil
	}
	_ = c.Resume() // a paused server would never stop; fails when it has ended
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.current().Stop(ctx)
}
