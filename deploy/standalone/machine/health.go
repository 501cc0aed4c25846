package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/schemas/svc/ops"
)

// health serves the metrics and the readiness of all parts on one address.
type health struct {
	server *ops.Server
	checks ops.Health
}

const standalone = "standalone" // the part that is ready when all have been

func (m *Machine) serveHealth(services []*service) (*health, error) {
	h := &health{}
	gatherers := prometheus.Gatherers{ops.NewRegistry()}
	for _, s := range services {
		gatherers = append(gatherers, s)
	}
	h.checks.Register(standalone, func() error { return errors.New("starting") })
	var err error
	if h.server, err = ops.Listen(m.cfg.MetricsAddr, ops.Handler(gatherers, &h.checks), m.log); err != nil {
		return nil, fmt.Errorf("-metrics-addr: %w", err)
	}
	return h, nil
}

func (h *health) watch(name string, check ops.Check) { h.checks.Register(name, check) }

// await returns a channel that is closed once all services have been ready at
// the same time, and a function that ends the wait for that.
func (h *health) await(services []*service, logger *slog.Logger) (ready <-chan struct{}, stop func()) {
	for _, s := range services {
		h.watch(s.name, s.ready)
	}
	ctx, cancel := context.WithCancel(context.Background())
	all, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		tick, remind := time.NewTicker(50*time.Millisecond), time.NewTicker(15*time.Second)
		defer tick.Stop()
		defer remind.Stop()
		for {
			faults := h.checks.Ready()
			delete(faults, standalone)
			if len(faults) == 0 {
				h.watch(standalone, func() error { return nil })
				close(all)
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-remind.C:
				for part, why := range faults {
					logger.Warn("not ready yet", "part", part, "reason", why)
				}
			case <-tick.C:
			}
		}
	}()
	return all, func() { cancel(); <-done }
}

// close ends the server; only readers of metrics are cut off.
func (h *health) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := h.server.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("close metrics server: %w", err)
	}
	return nil
}
