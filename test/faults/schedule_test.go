package faults

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/test/loadgen"
)

func written(c Config) string {
	var b strings.Builder
	for n, round := range schedule(c) {
		for _, f := range round {
			fmt.Fprintln(&b, n, f.at, f.kind.name, f.rng.Uint64())
		}
	}
	return b.String()
}

func TestScheduleIsAFunctionOfItsSeed(t *testing.T) {
	c := Config{Seed: 7, Faults: 200, PerRound: 6}
	if once, again := written(c), written(c); once != again {
		t.Error("two schedules of one seed differ")
	}
	other := c
	other.Seed++
	if written(c) == written(other) {
		t.Error("another seed gives the same schedule")
	}
	if got := strings.Count(written(c), "\n"); got != 200 {
		t.Errorf("%d faults, want 200", got)
	}
	// Each kind has its turn before any has its second.
	seen := map[string]int{}
	for _, round := range schedule(c) {
		for _, f := range round {
			seen[f.kind.name]++
		}
	}
	fits := fitting(c)
	for _, k := range fits {
		if n := seen[k.name]; n < 200/len(fits) || n > 200/len(fits)+1 {
			t.Errorf("%s: %d times in 200 over %d kinds", k.name, n, len(fits))
		}
	}
}

func TestKindsAreChosenByLogAndName(t *testing.T) {
	names := map[string]bool{}
	for _, n := range Names() {
		if names[n] {
			t.Errorf("two kinds are named %q", n)
		}
		names[n] = true
	}
	for _, k := range fitting(Config{Kinds: []string{"kill rollup-writer", "broker"}}) {
		if k.name != "kill rollup-writer" {
			t.Errorf("%q was chosen over kfake", k.name)
		}
	}
	if got := len(fitting(Config{Brokers: 3, Kinds: []string{"broker"}})); got != 3 {
		t.Errorf("%d kinds of broker faults, want 3", got)
	}
}

func TestReportSaysWhatEachKindDid(t *testing.T) {
	r := newReport(Config{Seed: 3, Dir: "d"})
	k := &kind{name: "kill x"}
	oracle := func(prefix string) *loadgen.Oracle {
		o := loadgen.NewOracle("dev", loadgen.Resolved)
		o.Prefix = prefix
		return o
	}
	r.add(&round{number: 1, oracle: oracle("a-"), faults: []*fault{
		{kind: k, repaired: true, recovery: time.Second},
		{kind: k, repaired: true, recovery: 3 * time.Second},
		{kind: &kind{name: "zombie"}, missed: true},
	}})
	if s := r.String(); !r.Clean() || !strings.Contains(s, "2 faults in 1 rounds") || !strings.Contains(s, "None in 2 faults") {
		t.Errorf("clean %v:\n%s", r.Clean(), s)
	}
	r.add(&round{number: 2, oracle: oracle("b-"), faults: []*fault{{kind: k, note: "at noon"}}, diff: loadgen.Diff{Tables: []loadgen.TableDiff{
		{Table: "events", Wrong: 1, Lost: 5, First: []loadgen.CellDiff{{Key: "m1", Got: "no row", Want: "a row"}}},
	}}})
	s := r.String()
	for _, want := range []string{"round 2 of seed 3", "at noon", "m1", "5 events lost"} {
		if r.Clean() || !strings.Contains(s, want) {
			t.Errorf("%q is not in the report (clean %v):\n%s", want, r.Clean(), s)
		}
	}
	// What a stalled round misses, or has too often in a rollup, is not final.
	r.add(&round{number: 3, oracle: oracle("c-"), stalled: "a group is behind", diff: loadgen.Diff{Tables: []loadgen.TableDiff{
		{Table: "events", Wrong: 8, Lost: 7, Doubled: 1}, {Table: "usage_hourly", Wrong: 9, Lost: 9, Doubled: 2},
	}}})
	if r.Lost != 5 || r.Doubled != 1 || r.Stalled != 1 || !strings.Contains(r.String(), "1 rounds stalled") {
		t.Errorf("with a stalled round: %d lost, %d doubled, %d stalled", r.Lost, r.Doubled, r.Stalled)
	}
	sum := Sum(r, r)
	if sum.Faults != 2*r.Faults || sum.Lost != 2*r.Lost || sum.Rounds != 2*r.Rounds || sum.Clean() || len(sum.Kinds()) != len(r.Kinds()) {
		t.Errorf("the sum of two: %+v", sum)
	}
	tally := r.Kinds()[0]
	if tally.Injected != 3 || tally.Lost != 5 || tally.Recovery(0.99) != 3*time.Second {
		t.Errorf("tally: %+v", tally)
	}
}
