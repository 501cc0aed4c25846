package faults

import (
	"strings"
	"testing"

	"github.com/uptakehq/uptake/test/loadgen"
)

func TestAuditIsHeldAgainstTheRecount(t *testing.T) {
	right := account{Accepted: 10, Stored: 6, Duplicates: 2, Rejected: 1, OptedOut: 1, Refused: 2}
	with := func(change func(*account)) account {
		a := right
		change(&a)
		return a
	}
	x := expected{stored: bounds{5, 6}, rejected: bounds{3, 3}}
	wrong := expected{wrong: true}
	mistaken := expected{mistaken: true, stored: x.stored, rejected: x.rejected}
	for name, c := range map[string]struct {
		x    expected
		a    audited
		want string // in what is told; empty: they agree
	}{
		"right":                           {x, audited{equal: true, sum: right}, ""},
		"seen by both":                    {wrong, audited{sum: right}, ""},
		"not seen":                        {wrong, audited{equal: true, sum: right}, "and the audit finds everything equal"},
		"seen by it alone":                {x, audited{sum: right, findings: []string{"events is doubled"}}, "events is doubled"},
		"not known":                       {x, audited{equal: true, sum: right, unknown: "no broker"}, "no broker"},
		"in flight":                       {x, audited{equal: true, sum: with(func(a *account) { a.InFlight, a.Duplicates = 1, 1 })}, "in flight"},
		"not balanced":                    {x, audited{equal: true, sum: with(func(a *account) { a.Accepted++ })}, "does not balance"},
		"a mistake's, with right rows":    {mistaken, audited{equal: true, sum: with(func(a *account) { a.InFlight, a.Duplicates = 1, 1 })}, ""},
		"a mistake's, seen by it alone":   {mistaken, audited{sum: right, findings: []string{"a block is counted twice"}}, ""},
		"a mistake's, and nobody can say": {mistaken, audited{equal: true, sum: right, unknown: "no broker"}, "no broker"},
		"too few stored":                  {x, audited{equal: true, sum: with(func(a *account) { a.Stored, a.Duplicates = 4, 4 })}, "4 events stored"},
		"too many refused":                {x, audited{equal: true, sum: with(func(a *account) { a.Refused++ })}, "4 events rejected and refused"},
	} {
		got := c.x.disagrees(c.a)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q in it", name, got, c.want)
		}
	}
}

func TestStalledRoundProvesNothingToTheAudit(t *testing.T) {
	missing := loadgen.Diff{Tables: []loadgen.TableDiff{{Table: "events", Wrong: 1, Lost: 1}}}
	var x expected
	x.add(&round{oracle: loadgen.NewOracle("dev", loadgen.Resolved), diff: missing, stalled: "a group is behind"})
	if x.wrong || !x.open {
		t.Errorf("after a stalled round: %+v", x)
	}
	x.add(&round{oracle: loadgen.NewOracle("dev", loadgen.Resolved), diff: missing})
	if !x.wrong {
		t.Errorf("after a wrong round: %+v", x)
	}
}

// A control runs one kind of fault, over processes: those have the failpoints.
func TestControlsHaveTheirKind(t *testing.T) {
	for name, c := range controls {
		if fits := fitting(Config{Kinds: []string{c.kind}}); len(fits) != 1 || fits[0].name != c.kind {
			t.Errorf("%s: %d kinds begin with %q", name, len(fits), c.kind)
		}
	}
}
