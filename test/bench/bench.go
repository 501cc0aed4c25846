// Package bench measures what an event costs: each service as a process of its
// own, under load, beside the floor of what any program would pay for the same
// bytes.
//
// It owns the load, the floors and the figures. A figure is CPU time of one
// process (user and system, from the kernel's accounting) divided by the events
// that it handled, in microseconds: it does not depend on what else the machine
// does as a throughput would. A stage and its floor are made ready once, and
// their rounds alternate, so that a machine that gets slower makes both slower;
// the median of the rounds is reported, and the spread beside it.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// Config says how much is measured.
type Config struct {
	Dir    string // for data and logs; emptied by the caller
	Rounds int    // of each stage, interleaved with its floor

	Partitions     int
	SingleRequests int // requests of one event each, per round
	BatchRequests  int // requests of BatchEvents each, per round
	BatchEvents    int
	Connections    int
	GatewayArgs    []string // further arguments of the gateway, to vary a setting

	Apps int // that have a write key; requests are of one

	EnricherEvents  int // per round
	KnownIDs        int // message ids that the dedup store holds beforehand
	KnownIdentities int // users, each with an anonymous id, that are linked beforehand
	Features        int // of the catalog
	RuleFeatures    int // of these, found by a rule and not by name
	Properties      int // properties per event in the enricher's and writer's load
	Keys            int // different property keys over all events; up to Properties: the same in each
	Accounts        int // that events name

	WriterEvents int // per round

	PathRate    int // events per second through the whole path
	PathSeconds int // per round

	enricherEnv, enricherArgs []string // settings that are compared

	Stages     []string // names of the stages to run; empty: all
	ProfileDir string   // for a CPU profile of each stage; empty: none

	Progress io.Writer // one line per step
}

// DefaultConfig takes about four minutes on two cores.
func DefaultConfig() Config {
	return Config{
		Rounds: 3, Partitions: 4, SingleRequests: 40_000, BatchRequests: 5_000, BatchEvents: 100, Connections: 64, Apps: 1,
		EnricherEvents: 300_000, KnownIDs: 1_000_000, KnownIdentities: 100_000, Features: 100, RuleFeatures: 50, Properties: 12, Accounts: 5_000,
		WriterEvents: 400_000, PathRate: 20_000, PathSeconds: 10,
	}
}

// FullConfig is what docs/performance.md is made with, about six minutes.
func FullConfig() Config {
	c := DefaultConfig()
	c.KnownIDs, c.KnownIdentities = 9_000_000, 1_000_000
	return c
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	for _, s := range []struct {
		name string
		v    int
		min  int
	}{
		{"rounds", c.Rounds, 1},
		{"partitions", c.Partitions, 1},
		{"single-requests", c.SingleRequests, 1},
		{"batch-requests", c.BatchRequests, 1},
		{"batch-events", c.BatchEvents, 2},
		{"connections", c.Connections, 1},
		{"apps", c.Apps, 1},
		{"enricher-events", c.EnricherEvents, 1},
		{"known-ids", c.KnownIDs, 0},
		{"known-identities", c.KnownIdentities, 0},
		{"features", c.Features, 1},
		{"rule-features", c.RuleFeatures, 0},
		{"properties", c.Properties, 1},
		{"accounts", c.Accounts, 1},
		{"writer-events", c.WriterEvents, 1},
		{"path-rate", c.PathRate, c.BatchEvents},
		{"path-seconds", c.PathSeconds, 1},
	} {
		if s.v < s.min {
			errs = append(errs, fmt.Errorf("%s must be >= %d (got %d)", s.name, s.min, s.v))
		}
	}
	if c.RuleFeatures > c.Features {
		errs = append(errs, fmt.Errorf("rule-features must be <= features, which are %d (got %d)", c.Features, c.RuleFeatures))
	}
	for _, s := range c.Stages {
		if !slices.Contains(StageNames(), s) {
			errs = append(errs, fmt.Errorf("stages must be of %s (got %q)", strings.Join(StageNames(), ", "), s))
		}
	}
	return errors.Join(errs...)
}

// Sample is one round of a stage or of its floor.
type Sample struct {
	Events  int
	CPU     time.Duration // of the process that the stage is about
	Wall    time.Duration
	PeakRSS int64 // bytes, since the process began
	Latency []time.Duration
	Parts   []Part // further processes
	Blocks  Blocks // that the writer made; none of a stage without one
}

// Blocks are what the writer made of a round's events.
type Blocks struct {
	Blocks     int // of enriched
	Rows       int
	Statements int // sent to ClickHouse, also for rejected events
	Read       int // rows of the base rollup that were read to plan corrections
	Moved      int // signed rows that corrections inserted
}

// Part is one process of a stage that has several.
type Part struct {
	Name    string
	CPU     time.Duration
	PeakRSS int64
}

// Micros is CPU time per event in microseconds.
func (s Sample) Micros() float64 { return s.per(s.CPU) }

func (s Sample) per(d time.Duration) float64 {
	return float64(d.Nanoseconds()) / 1e3 / float64(s.Events)
}

// Rate is events per second of wall time.
func (s Sample) Rate() float64 { return float64(s.Events) / s.Wall.Seconds() }

// Figure is a stage with its floor over all rounds.
type Figure struct {
	Stage  string
	Rounds []Sample
	Floor  []Sample // none where a stage has no floor
}

// stage is one thing that is measured.
type stage struct {
	name  string
	open  func(context.Context, *runner) (*load, error)
	floor func(context.Context, *runner) (*load, error) // nil: none
}

// load is a stage or a floor made ready: any number of rounds can be run on it,
// one at a time.
type load struct {
	round  func(context.Context) (Sample, error)
	close  func(context.Context) error
	pprofs map[string]string // process to host:port of /debug/pprof
	server *embedded.Server  // ClickHouse, of the writer
}

func stages() []stage {
	return []stage{
		{stageGateway, gatewaySingle, gatewaySingleFloor},
		{"gateway_batch", gatewayBatch, gatewayBatchFloor},
		{stageEnricher, enricher, enricherFloor},
		{stageWriter, writer, writerFloor},
		{"path", path, nil},
		{"whole_1", wholeOf(onePercent), wholeOf(noLinks)},
		{"whole_10", wholeOf(tenPercent), wholeOf(noLinks)},
		{"whole_keys", wholeOf(manyKeys), wholeOf(noLinks)},
		{"whole_mixture", wholeOf(mixture), nil},
	}
}

// StageNames lists the stages in the order in which they are measured.
func StageNames() []string {
	var names []string
	for _, s := range stages() {
		names = append(names, s.name)
	}
	return names
}

// Run measures. The program must have called embedded.ChildMain and FloorMain.
func Run(ctx context.Context, cfg Config) ([]Figure, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r := &runner{cfg: cfg}
	var figures []Figure
	for _, st := range stages() {
		if len(cfg.Stages) > 0 && !slices.Contains(cfg.Stages, st.name) {
			continue
		}
		f, err := r.measure(ctx, st)
		if err != nil {
			return figures, fmt.Errorf("measure %s: %w", st.name, err)
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// measure runs the rounds of a stage and of its floor in turns.
func (r *runner) measure(ctx context.Context, st stage) (f Figure, err error) {
	f.Stage = st.name
	began := time.Now()
	main, err := st.open(ctx, r)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, main.close(ctx)) }()
	var floor *load
	if st.floor != nil {
		if floor, err = st.floor(ctx, r); err != nil {
			return f, fmt.Errorf("floor: %w", err)
		}
		defer func() { err = errors.Join(err, floor.close(ctx)) }()
	}
	fmt.Fprintf(r.cfg.Progress, "%-22s ready after %.1f s\n", st.name, time.Since(began).Seconds())
	for round := range r.cfg.Rounds {
		s, err := r.profiled(ctx, main, round == r.cfg.Rounds-1) // of a process that is warm
		if err != nil {
			return f, err
		}
		r.tell(st.name, round, s)
		f.Rounds = append(f.Rounds, s)
		if floor == nil {
			continue
		}
		if s, err = floor.round(ctx); err != nil {
			return f, fmt.Errorf("floor: %w", err)
		}
		r.tell(st.name+" floor", round, s)
		f.Floor = append(f.Floor, s)
	}
	return f, nil
}

func (r *runner) tell(name string, round int, s Sample) {
	fmt.Fprintf(r.cfg.Progress, "%-22s round %d  %8.2f µs/event  %9.0f events/s", name, round+1, s.Micros(), s.Rate())
	for _, p := range s.Parts {
		fmt.Fprintf(r.cfg.Progress, "  %s %.2f", p.Name, s.per(p.CPU))
	}
	if b := s.Blocks; b.Blocks > 0 {
		fmt.Fprintf(r.cfg.Progress, "  %s", b.text(s.Events))
	}
	if len(s.Latency) > 0 {
		fmt.Fprintf(r.cfg.Progress, "  p50 %s p99 %s", Percentile(s.Latency, 0.5).Round(10*time.Microsecond), Percentile(s.Latency, 0.99).Round(10*time.Microsecond))
	}
	fmt.Fprintln(r.cfg.Progress)
}

// Median is the median of samples by CPU per event.
func Median(samples []Sample) Sample {
	sorted := slices.Clone(samples)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Micros() < sorted[j].Micros() })
	return sorted[len(sorted)/2]
}

// Spread is the lowest and the highest of samples, in microseconds per event.
func Spread(samples []Sample) (low, high float64) {
	for i, s := range samples {
		if us := s.Micros(); i == 0 {
			low, high = us, us
		} else {
			low, high = min(low, us), max(high, us)
		}
	}
	return low, high
}

// Percentile of sorted or unsorted latencies; p in [0, 1].
func Percentile(latencies []time.Duration, p float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	sorted := slices.Clone(latencies)
	slices.Sort(sorted)
	return sorted[min(int(p*float64(len(sorted))), len(sorted)-1)]
}

// Machine describes where the figures come from.
func Machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for _, line := range strings.Split(string(text), "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, %s", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
