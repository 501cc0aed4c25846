package machine

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// keeper keeps the embedded ClickHouse running: when its process dies it is
// started again, on its data and its ports. The writer retries in the meantime,
// as it does with any server.
type keeper struct {
	cfg    embedded.Config
	logger *slog.Logger
	cancel context.CancelFunc
	gone   chan struct{} // closed when watch has returned

	mu     sync.Mutex // covers server and why
	server *embedded.Server
	why    error // why it does not run
}

func startClickHouse(ctx context.Context, cfg embedded.Config, logger *slog.Logger) (*keeper, error) {
	s, err := embedded.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &keeper{cfg: cfg, logger: logger, cancel: cancel, gone: make(chan struct{}), server: s}
	go k.watch(watching) // ends with stop
	return k, nil
}

func (k *keeper) watch(ctx context.Context) {
	defer close(k.gone)
	server := k.current()
	for {
		select {
		case <-ctx.Done():
			return
		case <-server.Done():
		}
		if ctx.Err() != nil {
			return
		}
		k.logger.Error("clickhouse ended, starting it again", "pid", server.Pid(), "error", server.Err())
		k.set(nil, errors.New("it ended and is being started again"))
		for {
			next, err := embedded.Start(ctx, k.cfg)
			if err == nil {
				server = next
				k.set(next, nil)
				break
			}
			if ctx.Err() != nil {
				return
			}
			k.logger.Error("clickhouse cannot be started, trying again", "error", err)
			k.set(nil, err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(2 * time.Second):
			}
		}
	}
}

func (k *keeper) current() *embedded.Server {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.server
}

func (k *keeper) set(s *embedded.Server, why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.server, k.why = s, why
}

// ready says why it does not run, or nil.
func (k *keeper) ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.why
}

// stop ends the server in good order; when ctx ends first, at once.
func (k *keeper) stop(ctx context.Context) error {
	k.cancel()
	<-k.gone
	server := k.current()
	if server == nil {
		return nil
	}
	return server.Stop(ctx)
}
