package machine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/uptakehq/uptake/schemas/svc/ops"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// service is one of the three, inside this process, with a logger, metrics and
// health of its own.
type service struct {
	name     string
	logger   *slog.Logger
	registry *prometheus.Registry
	health   *ops.Health

	halt context.CancelFunc // the first signal, as the service sees it
	done chan struct{}      // closed when its Run has returned
	err  error              // of Run; valid after done
}

func newService(name string, logger *slog.Logger) *service {
	return &service{
		name: name, logger: slog.New(quietKafka{Handler: logger.Handler()}).With("service", name), registry: prometheus.NewRegistry(),
		health: &ops.Health{}, done: make(chan struct{}),
	}
}

// start runs the service until stop, or until kill ends.
func (s *service) start(kill context.Context, run func(process.Signals) error, ended chan<- *service) {
	stop, halt := context.WithCancel(kill)
	s.halt = halt
	go func() { // ends with the service; stop waits for it
		s.err = run(process.Signals{Stop: stop, Kill: kill})
		close(s.done)
		ended <- s
	}()
}

// stop lets the service finish what it has begun and waits for it.
func (s *service) stop() error {
	if s.halt == nil { // never started
		return nil
	}
	begin := time.Now()
	s.halt()
	<-s.done
	if s.err != nil {
		return fmt.Errorf("%s: %w", s.name, s.err)
	}
	s.logger.Info("service stopped", "took", time.Since(begin).Round(time.Millisecond))
	return nil
}

// Gather implements prometheus.Gatherer: the service's metrics, each with the
// label service, as Prometheus would add it to three processes.
func (s *service) Gather() ([]*dto.MetricFamily, error) {
	families, err := s.registry.Gather()
	for _, f := range families {
		for _, m := range f.Metric {
			m.Label = append(m.Label, &dto.LabelPair{Name: proto.String("service"), Value: proto.String(s.name)})
			sort.Slice(m.Label, func(i, j int) bool { return m.Label[i].GetName() < m.Label[j].GetName() })
		}
	}
	return families, err
}

// ready says why the service is not ready, or nil.
func (s *service) ready() error {
	faults := s.health.Ready()
	if len(faults) == 0 {
		return nil
	}
	parts := make([]string, 0, len(faults))
	for name, why := range faults {
		parts = append(parts, name+": "+why)
	}
	sort.Strings(parts)
	return errors.New(strings.Join(parts, "; "))
}
