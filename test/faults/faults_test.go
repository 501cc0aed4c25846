package faults

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/test/harness/kafka"
	"github.com/uptakehq/uptake/test/harness/stack"
)

func TestMain(m *testing.M) {
	embedded.ChildMain()
	code := m.Run()
	if err := stack.Cleanup(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// lines writes to the test's log.
type lines struct{ t *testing.T }

func (l lines) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

func inject(t *testing.T, c Config) *Report {
	t.Helper()
	if testing.Short() {
		t.Skip("breaks an installation of its own; not under -short")
	}
	c.Dir, c.Out, c.Seed = t.TempDir(), lines{t}, number(t, "UPTAKE_FAULTS_SEED", 1)
	report, err := Run(context.Background(), c)
	if errors.Is(err, kafka.ErrMissing) && os.Getenv(kafka.RequireEnv) != "1" {
		t.Skipf("SKIPPED, not run on Apache Kafka: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", report)
	return report
}

// Whatever dies, every acked event is in events and in every rollup once: over
// the form that is fast, and over the processes that ship.
func TestFaults(t *testing.T) {
	n := int(number(t, "UPTAKE_FAULTS", 220))
	for name, c := range map[string]Config{
		"inside":    {Inside: true, Classic: true, Faults: n * 6 / 10, PerRound: 22},
		"processes": {Faults: n * 4 / 10, PerRound: 22},
	} {
		t.Run(name, func(t *testing.T) {
			c.MaxPause = 5 * time.Second
			report := inject(t, c)
			if !report.Clean() {
				t.Error("events were lost or doubled, or did not come")
			}
			if report.Faults < c.Faults*3/4 {
				t.Errorf("%d of %d faults met what they waited for", report.Faults, c.Faults)
			}
		})
	}
}

// The same while one of three real brokers is killed, stopped or hangs.
func TestFaultsOfRealBrokers(t *testing.T) {
	report := inject(t, Config{Faults: 6, PerRound: 3, Brokers: 3, Kinds: []string{"broker"}, MaxPause: 15 * time.Second})
	if !report.Clean() {
		t.Error("events were lost or doubled, or did not come")
	}
}

// Known mistakes in the writer have to be seen by the recount: a harness that
// does not see them proves nothing. What a writer merely left undone is no
// evidence. How many faults that takes is chance for two of them, so they run
// with UPTAKE_LONG=1 only (make controls).
func TestControls(t *testing.T) {
	for control, c := range map[string]struct {
		kinds []string
		seen  func(*Report) bool
	}{
		"flush-anywhere": {
			[]string{"kill at writer.after-insert", "zombie at writer.after-insert", "kill rollup-writer", "clickhouse swallow to client", "terminate rollup-writer"},
			func(r *Report) bool { return r.Doubled > 0 },
		},
		"start-at-max": {
			[]string{"view throws", "kill rollup-writer", "terminate rollup-writer"},
			func(r *Report) bool { return r.Lost > 0 },
		},
		"unblocked-polls": {
			[]string{"rebalance rollup-writer", "pause rollup-writer", "zombie at writer.after-fetch", "terminate rollup-writer"},
			func(r *Report) bool { return r.Lost+r.Doubled > 0 },
		},
	} {
		t.Run(control, func(t *testing.T) {
			if control != "flush-anywhere" && os.Getenv("UPTAKE_LONG") != "1" {
				t.Skip("SKIPPED, not run: it can take many minutes; UPTAKE_LONG=1 runs it")
			}
			report := inject(t, Config{Faults: 120, PerRound: 12, Control: control, Kinds: c.kinds, MaxPause: 4 * time.Second, Settle: 30 * time.Second})
			if !c.seen(report) {
				t.Errorf("%d faults with the mistake %q switched on, and it was not seen", report.Faults, control)
			}
		})
	}
}
