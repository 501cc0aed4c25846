package stack

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// ClickHouse is an embedded server that can be killed, stopped and started
// again on its data and addresses. When it ends by itself it is started again.
type ClickHouse struct {
	cfg embedded.Config

	turn   sync.Mutex // one start or end at a time; covers wanted
	wanted bool
	keeper sync.WaitGroup

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
	c := &ClickHouse{cfg: cfg}
	c.turn.Lock()
	defer c.turn.Unlock()
	c.has(server)
	return c, nil
}

// start starts a server. The caller has the turn.
func (c *ClickHouse) start(ctx context.Context) error {
	server, err := embedded.Start(ctx, c.cfg)
	if err != nil {
		return err
	}
	c.has(server)
	return nil
}

// has takes a server that was started. The caller has the turn.
func (c *ClickHouse) has(server *embedded.Server) {
	c.mu.Lock()
	c.server = server
	c.mu.Unlock()
	c.wanted = true
	c.keeper.Go(func() { c.keep(server) }) // ends with the server
}

// keep starts the server again when it ends without being told to: the embedded
// ClickHouse does when a client's connection is reset at a bad moment, as those
// of killed clients are.
func (c *ClickHouse) keep(server *embedded.Server) {
	<-server.Done()
	for again := true; again; {
		again = c.startAgain(server)
	}
}

// startAgain starts a server in place of one that has ended by itself, and
// reports whether that is to be tried again.
func (c *ClickHouse) startAgain(ended *embedded.Server) bool {
	c.turn.Lock()
	defer c.turn.Unlock()
	if !c.wanted || c.current() != ended {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := c.start(ctx)
	if err != nil { // a full disk, as a rule
		fmt.Fprintf(os.Stderr, "ClickHouse had ended by itself: %v\n", err)
		time.Sleep(100 * time.Millisecond) // between two attempts of a process
	}
	return err != nil
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
func (c *ClickHouse) Kill() {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.wanted = false
	c.current().Kill()
}

// Stop ends the server in good order.
func (c *ClickHouse) Stop(ctx context.Context) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	c.wanted = false
	return c.current().Stop(ctx)
}

// Pause stops the server where it is (SIGSTOP).
func (c *ClickHouse) Pause() error { return syscall.Kill(c.current().Pid(), syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (c *ClickHouse) Resume() error { return syscall.Kill(c.current().Pid(), syscall.SIGCONT) }

// Start starts a server that has ended, on the same data and addresses.
func (c *ClickHouse) Start(ctx context.Context) error {
	c.turn.Lock()
	defer c.turn.Unlock()
	if !c.Ended() {
		return fmt.Errorf("start ClickHouse: it runs")
	}
	return c.start(ctx)
}

// Close stops the server, and kills it when it does not stop.
func (c *ClickHouse) Close() error {
	defer c.keeper.Wait()
	c.turn.Lock()
	defer c.turn.Unlock()
	c.wanted = false
	if c.Ended() {
		return nil
	}
	_ = c.Resume() // a paused server would never stop; fails when it has ended
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return c.current().Stop(ctx)
}
