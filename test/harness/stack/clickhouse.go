package stack

import (
	"context"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// ClickHouse is an embedded server that can be killed, paused, stopped and
// started again on its data and addresses. When it ends by itself it is started
// again.
type ClickHouse struct{ *embedded.Kept }

// StartClickHouse starts a server. Close it.
func StartClickHouse(ctx context.Context, cfg embedded.Config) (*ClickHouse, error) {
	kept, err := embedded.Keep(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &ClickHouse{kept}, nil
}

// Pause stops the server where it is (SIGSTOP).
func (c *ClickHouse) Pause() error { return c.Signal(syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (c *ClickHouse) Resume() error { return c.Signal(syscall.SIGCONT) }

// Close stops the server, and kills it when it does not stop.
func (c *ClickHouse) Close() error {
	_ = c.Resume() // a paused server would never stop; fails when it has ended
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.Kept.Close(ctx)
}
