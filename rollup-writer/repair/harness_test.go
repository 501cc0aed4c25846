package repair_test

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/rollup-writer/internal/writertest"
	"github.com/uptakehq/uptake/rollup-writer/repair"
	"github.com/uptakehq/uptake/rollup-writer/rollup"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/ops"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

const partitions = writertest.Partitions

var (
	events       = writertest.Events
	firstReceipt = writertest.FirstReceipt
)

// bench is a writer's log and tables, which tests damage.
type bench struct {
	*writertest.Bench
	cfg rollup.Config
}

func newBench(t testing.TB) *bench {
	t.Helper()
	addr, db := sqltest.Database(t)
	return newBenchAt(t, addr, db)
}

// newBenchAt is for a ClickHouse of the test's own.
func newBenchAt(t testing.TB, addr, db string) *bench {
	t.Helper()
	b := &bench{Bench: writertest.New(t), cfg: rollup.DefaultConfig()}
	b.cfg.Config = b.Config(addr, db)
	b.cfg.SessionTimeout = 6 * time.Second
	b.cfg.RetryMax = 200 * time.Millisecond
	b.cfg.HaltRetry = 200 * time.Millisecond
	b.Migrate(b.cfg.Config)
	return b
}

func (b *bench) init() {
	b.T.Helper()
	if err := repair.Init(context.Background(), b.cfg.Config, false, b.Log); err != nil {
		b.T.Fatal(err)
	}
}

// start runs a writer until the test ends, if it is not stopped before.
func (b *bench) start() *writertest.Writer {
	b.T.Helper()
	w, _ := writertest.Run(b.Bench, func(reg prometheus.Registerer, health *ops.Health) (*rollup.Service, error) {
		return rollup.New(b.cfg, rollup.Dependencies{Logger: b.Log, Metrics: reg, Health: health})
	})
	return w
}
