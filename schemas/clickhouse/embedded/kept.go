package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// steady is how long a server has to live for its end not to be one in a row
// with that of the server before it.
const steady = time.Minute

// Kept is a server that is started again, on its data and addresses, when it
// ends by itself: the embedded ClickHouse does when the connection of a client
// that was killed is reset at a bad moment. Each start again is in the log. One
// that was told to end, by Kill or Stop, stays down until Start.
//
// After [Config].MaxRestarts ends in a row, less than a minute apart, it is given
// up.
type Kept struct {
	cfg Config // with the addresses of the first start

	turn    sync.Mutex     // one of Start, Stop, Kill and Close at a time; covers unwatch
	unwatch func() *Server // ends the watching and returns the last server, if there is one; nil when down

	mu     sync.Mutex // covers server, up and why
	server *Server    // the last one
	up     chan struct{}
	why    error // it does not run; nil: it does

	finish sync.Once // closes done
	done   chan struct{}
}

// Keep starts a server, as Start does, and keeps it running. Close it.
func Keep(ctx context.Context, cfg Config) (*Kept, error) {
	s, err := Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	k := &Kept{cfg: s.cfg, up: make(chan struct{}), done: make(chan struct{})}
	k.cfg.NativeAddr, k.cfg.HTTPAddr = s.nativeAddr, s.httpAddr
	k.watch(s)
	return k, nil
}

// NativeAddr is host:port of the native protocol; it stays over restarts.
func (k *Kept) NativeAddr() string { return k.cfg.NativeAddr }

// HTTPAddr is host:port of the HTTP interface; it stays over restarts.
func (k *Kept) HTTPAddr() string { return k.cfg.HTTPAddr }

// Query is [Server.Query].
func (k *Kept) Query(ctx context.Context, statement string) (string, error) {
	return query(ctx, k.cfg.HTTPAddr, k.cfg.Access, statement)
}

// Pid is the process id of the server that runs, or of the last one.
func (k *Kept) Pid() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.server.Pid()
}

// Signal sends a signal to the server that runs.
func (k *Kept) Signal(sig os.Signal) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.server.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal embedded ClickHouse: %w", err)
	}
	return nil
}

// Err says why the server does not run, or nil.
func (k *Kept) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// Await returns when the server runs, and an error when it is down for good.
func (k *Kept) Await(ctx context.Context) error {
	k.mu.Lock()
	up, why := k.up, k.why
	k.mu.Unlock()
	if why == nil {
		return nil
	}
	select {
	case <-up:
		return nil
	case <-k.done:
		return k.Err()
	case <-ctx.Done():
		return fmt.Errorf("wait for the embedded ClickHouse: %w (%w)", context.Cause(ctx), k.Err())
	}
}

// Done is closed when the server is down for good: by Close, or because it was
// given up. Err says why.
func (k *Kept) Done() <-chan struct{} { return k.done }

// Start starts a server that was told to end, on its data and addresses.
func (k *Kept) Start(ctx context.Context) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	select {
	case <-k.done:
		return fmt.Errorf("start embedded ClickHouse: it is down for good: %w", k.Err())
	default:
	}
	if k.unwatch != nil {
		return errors.New("start embedded ClickHouse: it runs")
	}
	s, err := Start(ctx, k.cfg)
	if err != nil {
		return err
	}
	k.watch(s)
	return nil
}

// Stop ends the server as [Server.Stop] does.
func (k *Kept) Stop(ctx context.Context) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	return k.stop(ctx)
}

// Kill ends the server with SIGKILL.
func (k *Kept) Kill() {
	k.turn.Lock()
	defer k.turn.Unlock()
	if s := k.down(errors.New("it was killed")); s != nil {
		s.Kill()
	}
}

// Close stops the server for good.
func (k *Kept) Close(ctx context.Context) error {
	k.turn.Lock()
	defer k.turn.Unlock()
	err := k.stop(ctx)
	k.finish.Do(func() { close(k.done) })
	return err
}

func (k *Kept) stop(ctx context.Context) error {
	if s := k.down(errors.New("it was stopped")); s != nil {
		return s.Stop(ctx)
	}
	return nil
}

// down ends the watching and returns the server, or nil if none is to be ended.
// The caller has the turn.
func (k *Kept) down(why error) *Server {
	if k.unwatch == nil {
		return nil
	}
	s := k.unwatch()
	k.unwatch = nil
	k.ended(why)
	if s == nil || s.ended() {
		return nil
	}
	return s
}

// watch takes a server that was started. The caller has the turn, or is the
// first.
func (k *Kept) watch(s *Server) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	k.runs(s)
	running.Go(func() { s = k.keep(ctx, s) }) // ends with ctx, and when it is given up
	k.unwatch = func() *Server {
		cancel()
		running.Wait()
		return s
	}
}

// keep starts the server again whenever it ends, until ctx ends. It returns the
// server of that moment, or nil.
func (k *Kept) keep(ctx context.Context, s *Server) *Server {
	log := k.cfg.Logger
	again := restarts{most: k.cfg.MaxRestarts, pause: backoff.Backoff{Min: 100 * time.Millisecond, Max: 10 * time.Second}}
	for {
		began := time.Now()
		select {
		case <-ctx.Done():
			return s
		case <-s.Done():
		}
		if ctx.Err() != nil {
			return s
		}
		why := fmt.Errorf("it ended by itself: %s", s.cmd.ProcessState)
		log.Error("embedded clickhouse ended, starting it again", "pid", s.Pid(), "error", why, "log", s.logTail())
		k.ended(why)
		lived := time.Since(began)
		for s = nil; s == nil; lived = 0 {
			pause, ok := again.next(lived)
			if !ok {
				k.ended(fmt.Errorf("given up after %d restarts in a row: %w", again.most, why))
				log.Error("embedded clickhouse is given up", "restarts", again.most, "error", why)
				k.finish.Do(func() { close(k.done) })
				return nil
			}
			if backoff.Sleep(ctx, pause) != nil {
				return nil
			}
			if s, why = Start(ctx, k.cfg); why == nil {
				break
			}
			if ctx.Err() != nil {
				return nil
			}
			log.Error("embedded clickhouse cannot be started, trying again", "error", why)
			k.ended(why)
		}
		k.runs(s)
	}
}

func (k *Kept) runs(s *Server) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.server, k.why = s, nil
	close(k.up)
}

// ended keeps why it does not run, or does not run any longer.
func (k *Kept) ended(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.why == nil {
		k.up = make(chan struct{})
	}
	k.why = why
}

// restarts decides whether there is another one, and when.
type restarts struct {
	most  int
	pause backoff.Backoff
	row   int
}

// next is told how long the server lived; 0: it did not start.
func (r *restarts) next(lived time.Duration) (pause time.Duration, ok bool) {
	if lived >= steady {
		r.row = 0
		r.pause.Reset()
	}
	if r.row++; r.row > r.most {
		return 0, false
	}
	if r.row > 1 {
		pause = r.pause.Next()
	}
	return pause, true
}
