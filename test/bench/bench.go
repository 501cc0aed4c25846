// Package bench measures what an event costs: each service as a process of its
// own, under load, beside the floor of what any program would pay for the same
// bytes.
//
// It owns the load, the floors and the figures. A figure is CPU time of one
// process (user and system, from the kernel's accounting) divided by the events
// that it handled, in microseconds: it does not depend on what else the machine
// does as a throughput would. Rounds of stage and floor alternate, so that a
// machine that gets slower makes both slower; the median of the rounds is
// reported, and the spread beside it.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/uptakehq/uptake/test/harness/stack"
)

// Config says how much is measured.
type Config struct {
	Dir    string // for data and logs; emptied by the caller
	Rounds int    // of each stage, interleaved with its floor

	SingleRequests int // requests of one event each, per round
	BatchRequests  int // requests of BatchEvents each, per round
	BatchEvents    int
	Connections    int

	EnricherEvents int // per round
	KnownIDs       int // message ids that the dedup store holds beforehand
	Properties     int // properties per event in the enricher's and writer's load

	WriterEvents int // per round

	Stages   []string  // names of the stages to run; empty: all
	Progress io.Writer // one line per step
}

// DefaultConfig takes about five minutes on two cores.
func DefaultConfig() Config {
	return Config{
		Rounds: 3, SingleRequests: 40_000, BatchRequests: 4_000, BatchEvents: 100, Connections: 64,
		EnricherEvents: 300_000, KnownIDs: 1_000_000, Properties: 12, WriterEvents: 400_000,
	}
}

// Validate reports all faults.
func (c Config) Validate() error {
	var errs []error
	for name, v := range map[string]int{
		"rounds": c.Rounds, "single-requests": c.SingleRequests, "batch-requests": c.BatchRequests,
		"batch-events": c.BatchEvents, "connections": c.Connections, "enricher-events": c.EnricherEvents,
		"writer-events": c.WriterEvents, "properties": c.Properties,
	} {
		if v < 1 {
			errs = append(errs, fmt.Errorf("%s must be > 0 (got %d)", name, v))
		}
	}
	if c.KnownIDs < 0 {
		errs = append(errs, fmt.Errorf("known-ids must be >= 0 (got %d)", c.KnownIDs))
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
	CPU     time.Duration
	Wall    time.Duration
	PeakRSS int64 // bytes
	Latency []time.Duration
}

// Micros is CPU time per event in microseconds.
func (s Sample) Micros() float64 { return float64(s.CPU.Nanoseconds()) / 1e3 / float64(s.Events) }

// Rate is events per second of wall time.
func (s Sample) Rate() float64 { return float64(s.Events) / s.Wall.Seconds() }

// Figure is a stage with its floor over all rounds.
type Figure struct {
	Stage  string
	Rounds []Sample
	Floor  []Sample
}

// stage is one thing that is measured.
type stage struct {
	name  string
	run   func(context.Context, *runner) (Sample, error)
	floor func(context.Context, *runner) (Sample, error)
}

func stages() []stage {
	return []stage{
		{"gateway_single", gatewaySingle, gatewaySingleFloor},
		{"gateway_batch", gatewayBatch, gatewayBatchFloor},
		{"enricher", enricher, enricherFloor},
		{"writer", writer, writerFloor},
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
		f := Figure{Stage: st.name}
		for round := range cfg.Rounds {
			for _, part := range []struct {
				name string
				fn   func(context.Context, *runner) (Sample, error)
				to   *[]Sample
			}{{st.name, st.run, &f.Rounds}, {st.name + " floor", st.floor, &f.Floor}} {
				s, err := part.fn(ctx, r)
				if err != nil {
					return figures, fmt.Errorf("measure %s: %w", part.name, err)
				}
				fmt.Fprintf(cfg.Progress, "%-22s round %d  %8.2f µs/event  %9.0f events/s\n", part.name, round+1, s.Micros(), s.Rate())
				*part.to = append(*part.to, s)
			}
		}
		figures = append(figures, f)
	}
	return figures, nil
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

// runner starts the processes of a run.
type runner struct {
	cfg  Config
	next int
}

// dir makes a fresh folder.
func (r *runner) dir(name string) (string, error) {
	r.next++
	dir := filepath.Join(r.cfg.Dir, fmt.Sprintf("%03d-%s", r.next, name))
	return dir, os.MkdirAll(dir, 0o755)
}

// process is a child whose CPU time is read.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error // valid after done
}

// service starts a service's binary.
func (r *runner) service(ctx context.Context, name, dir string, args ...string) (*process, error) {
	binary, err := stack.Binary(ctx, name, stack.Build{})
	if err != nil {
		return nil, err
	}
	return startProcess(name, dir, nil, binary, args...)
}

func startProcess(name, dir string, env []string, binary string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd = exec.Command(binary, args...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.Env = append(os.Environ(), env...)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // ends with the process, which stop or kill ends
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the process in good order, or with SIGKILL when that takes too long.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(os.Interrupt) // fails only when it has ended
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end; see %s", p.name, p.log)
	}
	if p.err != nil {
		return fmt.Errorf("%s: %w; see %s", p.name, p.err, p.log)
	}
	return nil
}

// kill ends the process if it still runs.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// alive returns an error when the process has ended.
func (p *process) alive() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w; see %s", p.name, p.err, p.log)
	default:
		return nil
	}
}

// await polls cond until it holds.
func (p *process) await(ctx context.Context, what string, cond func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := p.alive(); err != nil {
			return err
		}
		ok, err := cond()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
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
