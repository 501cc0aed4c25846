package stack

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// ClickHouse is an embedded server that can be killed, stopped and started
// again on its data and addresses.
type ClickHouse struct {
	cfg    embedded.Config
	server *embedded.Server
}

// StartClickHouse starts a server. Close it.
func StartClickHouse(ctx context.Context, cfg embedded.Config) (*ClickHouse, error) {
	server, err := embedded.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cfg.NativeAddr, cfg.HTTPAddr = server.NativeAddr(), server.HTTPAddr()
	return &ClickHouse{cfg, server}, nil
}

// NativeAddr is host:port of the native protocol; it stays over restarts.
func (c *ClickHouse) NativeAddr() string { return c.cfg.NativeAddr }

// HTTPAddr is host:port of the HTTP interface; it stays over restarts.
func (c *ClickHouse) HTTPAddr() string { return c.cfg.HTTPAddr }

// Query runs one statement over HTTP.
func (c *ClickHouse) Query(ctx context.Context, statement string) (string, error) {
	return c.server.Query(ctx, statement)
}

// Kill ends the server with SIGKILL.
func (c *ClickHouse) Kill() { c.server.Kill() }

// Stop ends the server in good order.
func (c *ClickHouse) Stop(ctx context.Context) error { return c.server.Stop(ctx) }

// Pause stops the server where it is (SIGSTOP).
func (c *ClickHouse) Pause() error { return syscall.Kill(c.server.Pid(), syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (c *ClickHouse) Resume() error { return syscall.Kill(c.server.Pid(), syscall.SIGCONT) }

// Start starts a server that has ended, on the same data and addresses.
func (c *ClickHouse) Start(ctx context.Context) error {
	select {
	case <-c.server.Done():
	default:
		return fmt.Errorf("start ClickHouse: it runs")
	}
	server, err := embedded.Start(ctx, c.cfg)
	if err != nil {
		return err
	}
	c.server = server
	return nil
}

// Close stops the server, and kills it when it does not stop.
func (c *ClickHouse) Close() error {
	select {
	case <-c.server.Done():
		return nil
	default:
	}
	_ = c.Resume() // a paused server would never stop; fails when it has ended
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.server.Stop(ctx)
}
