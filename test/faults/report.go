package faults

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Tally is what one kind of fault did.
type Tally struct {
	Kind     string
	Injected int
	Missed   int   // times it never met what it waited for
	Lost     int64 // events, of the rounds that it was part of
	Doubled  int64
	recovery []time.Duration
}

// Recovery returns a quantile of the time from when the fault was mended until
// everything acked by then showed in ClickHouse.
func (t *Tally) Recovery(q float64) time.Duration {
	if len(t.recovery) == 0 {
		return 0
	}
	slices.Sort(t.recovery)
	return t.recovery[int(q*float64(len(t.recovery)-1)+0.5)]
}

// Report is what a run did.
type Report struct {
	Config  Config
	Rounds  int
	Faults  int   // that were injected
	Events  int64 // distinct good events that were acked
	Lost    int64 // events, the most of any table, summed over the rounds
	Doubled int64
	Late    []string // what was found wrong at the end that was right in its round

	kinds map[string]*Tally
	wrong map[string]bool // prefixes of rounds that were wrong
	first string          // the first wrong round
}

func newReport(c Config) *Report {
	return &Report{Config: c, kinds: map[string]*Tally{}, wrong: map[string]bool{}}
}

func (r *Report) add(n *round) {
	r.Rounds++
	r.Events += int64(n.oracle.Acked())
	r.Lost += n.diff.Lost()
	r.Doubled += n.diff.Doubled()
	if !n.diff.Equal() {
		r.wrong[n.oracle.Prefix] = true
		if r.first == "" {
			r.first = fmt.Sprintf("round %d of seed %d (logs: %s)\n%s", n.number, r.Config.Seed, r.Config.logs(), n.details())
		}
	}
	for _, f := range n.faults {
		t := r.kinds[f.kind.name]
		if t == nil {
			t = &Tally{Kind: f.kind.name}
			r.kinds[f.kind.name] = t
		}
		if f.missed {
			t.Missed++
			continue
		}
		r.Faults++
		t.Injected++
		t.Lost += n.diff.Lost()
		t.Doubled += n.diff.Doubled()
		if f.mended {
			t.recovery = append(t.recovery, f.recovery)
		}
	}
}

// Clean reports whether every recount was equal.
func (r *Report) Clean() bool { return len(r.wrong) == 0 && len(r.Late) == 0 }

// Kinds returns the tallies by name.
func (r *Report) Kinds() []*Tally {
	var out []*Tally
	for _, t := range r.kinds {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *Tally) int { return strings.Compare(a.Kind, b.Kind) })
	return out
}

// String is the table for people.
func (r *Report) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fault\tinjected\tmissed\tlost\tdoubled\trecovery p50\tp99\t")
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.2fs", d.Seconds()) }
	for _, t := range r.Kinds() {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t\n", t.Kind, t.Injected, t.Missed, t.Lost, t.Doubled, seconds(t.Recovery(0.5)), seconds(t.Recovery(0.99)))
	}
	_ = w.Flush() // a strings.Builder takes everything
	fmt.Fprintf(&b, "\n%d faults in %d rounds of seed %d over %d acked events: %d lost, %d doubled in the worst table of each round\n",
		r.Faults, r.Rounds, r.Config.Seed, r.Events, r.Lost, r.Doubled)
	for _, l := range r.Late {
		fmt.Fprintln(&b, "wrong afterwards:", l)
	}
	if r.Clean() && r.Faults > 0 {
		// The rule of three: with none in n, 3/n bounds the rate at 95 %.
		fmt.Fprintf(&b, "None in %d faults bounds the chance that one does harm to %.2g, with 95 %% confidence.\n", r.Faults, 3/float64(r.Faults))
	}
	if r.first != "" {
		fmt.Fprintf(&b, "\nfirst wrong: %s", r.first)
	}
	return b.String()
}
