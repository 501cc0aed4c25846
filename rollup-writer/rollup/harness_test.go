package rollup

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/ops"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

const partitions = writertest.Partitions

var (
	events      = writertest.Events
	partitionOf = writertest.PartitionOf
)

// bench is what a writer works with, and its settings.
type bench struct {
	*writertest.Bench
	cfg Config
}

func newBench(t testing.TB, change ...func(*Config)) *bench {
	t.Helper()
	addr, db := sqltest.Database(t, func(cfg *clickhouse.Config) {
		all := DefaultConfig()
		all.ClickHouse = *cfg
		for _, c := range change {
			c(&all)
		}
		*cfg = all.ClickHouse
	})
	return newBenchAt(t, addr, db, change...)
}

// newBenchAt is for a ClickHouse of the test's own.
func newBenchAt(t testing.TB, addr, db string, change ...func(*Config)) *bench {
	t.Helper()
	b := &bench{Bench: writertest.New(t), cfg: DefaultConfig()}
	b.cfg.Config = b.Config(addr, db)
	b.cfg.SessionTimeout = 6 * time.Second
	b.cfg.RetryMax = 200 * time.Millisecond
	b.cfg.HaltRetry = 200 * time.Millisecond
	for _, c := range change {
		c(&b.cfg)
	}
	b.Migrate(b.cfg.Config)
	return b
}

func (b *bench) init() {
	b.T.Helper()
	if err := repair.Init(context.Background(), b.cfg.Config, false, b.Log); err != nil {
		b.T.Fatal(err)
	}
}

// writer is a running writer.
type writer struct {
	*writertest.Writer
	service *Service
}

// start runs a writer until the test ends, if it is not stopped before.
func (b *bench) start(change ...func(*Config)) *writer {
	b.T.Helper()
	cfg := b.cfg
	for _, c := range change {
		c(&cfg)
	}
	w, service := writertest.Run(b.Bench, func(reg prometheus.Registerer, health *ops.Health) (*Service, error) {
		return New(cfg, Dependencies{Logger: b.Log, Metrics: reg, Health: health})
	})
	return &writer{w, service}
}
