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
	"github.com/uptakehq/uptake/schemas/longtest"
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
// the form that is fast, and over the processes that ship. The first round has one of
// each hostile sender.
func TestFaults(t *testing.T) {
	faults := uint64(24)
	if longtest.Enabled() {
		faults = 220
	}
	n := int(number(t, "UPTAKE_FAULTS", faults))
	for name, c := range map[string]Config{
		"inside":    {Inside: true, Classic: true, Faults: n * 6 / 10, PerRound: 22, once: []string{"hostile"}},
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
			if c.once != nil {
				checkBeside(t, report)
			}
		})
	}
}

// Hostile senders cost honest ones time at most: every honest event is stored once,
// and so is what the hostile ones were answered. How much time is in the report.
func TestHostileSenders(t *testing.T) {
	longtest.Only(t) // TestFaults has one of each
	c := Config{Inside: true, Faults: 48, PerRound: 3, Kinds: []string{"hostile"}}
	report := inject(t, c)
	if !report.Clean() {
		t.Error("events were lost or doubled, or did not come")
	}
	if report.Faults != c.Faults {
		t.Errorf("%d of %d attacks took place", report.Faults, c.Faults)
	}
	checkBeside(t, report)
}

// checkBeside fails unless each hostile sender was there, and honest events were timed
// beside it and without.
func checkBeside(t *testing.T, report *Report) {
	t.Helper()
	if len(report.Beside) != 6 {
		t.Errorf("%d kinds of hostile senders were there, want 6", len(report.Beside))
	}
	for kind, x := range report.Beside {
		if len(x.Acks) == 0 || len(x.CalmAcks) == 0 || len(x.Shows) == 0 {
			t.Errorf("%s: %d requests were timed beside it, %d without, and %d events", kind, len(x.Acks), len(x.CalmAcks), len(x.Shows))
		}
	}
}

// A recount that did not see that an event of a hostile sender is missing or twice, or
// a time that counts on the wrong side, would prove nothing.
func TestBesideAndWithout(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(0, 0).Add(time.Duration(s * float64(time.Second))) }
	b := sides{
		spans: []span{{"a", at(10), at(20)}, {"b", at(18), at(30)}},
		acks:  []sample{{at(1), time.Second}, {at(9), 2 * time.Second}, {at(19), time.Millisecond}, {at(25), 3 * time.Second}, {at(31), 4 * time.Second}},
	}
	b.shown([]time.Time{at(1), at(2)}, 1, 5) // more than were acked
	by := map[string]*Beside{}
	b.sum(by)
	for kind, want := range map[string]string{"a": "[2s 1ms] [1s 4s]", "b": "[1ms 3s] [1s 4s]"} {
		if got := fmt.Sprint(by[kind].Acks, by[kind].CalmAcks); got != want {
			t.Errorf("beside %s, and without: got %s, want %s", kind, got, want)
		}
	}
	if n := len(by["a"].Shows) + len(by["a"].CalmShows); n != 1 {
		t.Errorf("%d events were timed, want the one that was acked", n)
	}
	if p := by["b"].P99(); p.Ack != 3000 || p.CalmAck != 4000 || ratio(p.Ack, p.CalmAck) != "0.8" || ratio(1, 0) != "" {
		t.Errorf("got %+v", p)
	}
}

// The same while one of three real brokers is killed, stopped or hangs.
func TestFaultsOfRealBrokers(t *testing.T) {
	longtest.Only(t)
	report := inject(t, Config{Faults: 6, PerRound: 3, Brokers: 3, Kinds: []string{"broker"}, MaxPause: 15 * time.Second})
	if !report.Clean() {
		t.Error("events were lost or doubled, or did not come")
	}
}

// A writer that finds two plans of one block halts and says so: that counts as
// having seen the mistake, and no other halt does.
func TestTwoHeadsAreSeen(t *testing.T) {
	for line, want := range map[string]bool{
		`level=ERROR msg="partition halted" topic=uptake.enriched.v1 partition=1 error="plan v2|x|1|5-9|100|50: look for the plan of v2|x|1|5-9|100|50: 2 heads: rows of the plan were lost or doubled in correction_plans, and"`: true,
		`level=ERROR msg="partition halted" topic=uptake.enriched.v1 partition=1 error="read chunk 1 of the plan of v2: its rows 1 to 2 are {}: rows of the plan were lost or doubled in correction_plans"`:                       false,
		`level=INFO msg="2 heads: rows of the plan were lost or doubled"`: false,
	} {
		if got := twoHeads(line); got != want {
			t.Errorf("%v for %s", got, line)
		}
	}
}

// Known mistakes in the writer have to be seen by the recount, and by the
// product's own audit: a harness that does not see them proves nothing. Without
// the mistake the same schedule does no harm, so that it is the mistake that is
// seen. What a writer merely left undone is no evidence.
func TestControls(t *testing.T) {
	longtest.Only(t)
	if testing.Short() {
		t.Skip("breaks an installation of its own; not under -short")
	}
	c := Config{
		Seed: number(t, "UPTAKE_FAULTS_SEED", 1), Faults: 1, Dir: t.TempDir(), Out: lines{t},
		MaxPause: 4 * time.Second, apps: Controls(),
	}
	if err := c.complete(); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	e, err := newEnv(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.close(); err != nil {
			t.Error(err)
		}
	}()
	seen := map[string]func(*Report) bool{
		"flush-anywhere":  func(r *Report) bool { return r.Doubled > 0 },
		"start-at-max":    func(r *Report) bool { return r.Lost > 0 },
		"unblocked-polls": func(r *Report) bool { return r.Lost+r.Doubled > 0 || r.Halted > 0 },
	}
	run := func(name string, mistaken bool, seed uint64) {
		with := "without"
		if mistaken {
			with = "with"
		}
		t.Run(fmt.Sprintf("%s/%s/%d", name, with, seed), func(t *testing.T) {
			e.cfg.Seed, e.cfg.Out = seed, lines{t}
			began := time.Now()
			report, err := e.controlled(ctx, name, mistaken)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s %s: %d faults in %d rounds, %s: %d lost, %d doubled, %d stalled", name, with, report.Faults, report.Rounds,
				time.Since(began).Round(100*time.Millisecond), report.Lost, report.Doubled, report.Stalled)
			switch {
			case report.Audits == 0 && report.Halted == 0 || len(report.Disagreed) > 0:
				t.Errorf("the audit did not find what the recount did: %v", report.Disagreed)
			case report.Faults == 0:
				t.Error("no fault met what it waited for")
			case mistaken && !seen[name](report):
				t.Errorf("%d faults with the mistake switched on, and it was not seen", report.Faults)
			case !mistaken && !report.Clean():
				t.Errorf("the mistake is not switched on, and events were lost or doubled, or did not come:\n%s", report.First)
			}
		})
	}
	// First without: what a mistake has done to an app stays wrong there.
	for _, mistaken := range []bool{false, true} {
		for n := range number(t, "UPTAKE_CONTROLS", 1) {
			for _, name := range Controls() {
				run(name, mistaken, c.Seed+n)
			}
		}
	}
}
