package faults

import (
	"cmp"
	"fmt"
	"maps"
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
	// Recoveries are the times from when a fault was repaired until all that was
	// acked by then showed in ClickHouse.
	Recoveries []time.Duration
}

// Recovery returns a quantile of the recoveries.
func (t *Tally) Recovery(q float64) time.Duration {
	if len(t.Recoveries) == 0 {
		return 0
	}
	slices.Sort(t.Recoveries)
	return t.Recoveries[int(q*float64(len(t.Recoveries)-1)+0.5)]
}

// Report is what a run did.
type Report struct {
	Config  Config
	Rounds  int
	Faults  int   // that were injected
	Events  int64 // distinct good events that were acked
	Lost    int64 // events, the most of any table, summed over the rounds
	Doubled int64
	Stalled int      // rounds that were not worked through in time
	Halted  int      // of these with a mistake on: a writer halted on a block with two plans
	Late    []string // what was found wrong at the end that was right in its round
	// Audits is how often the product's own audit was run, and Disagreed says
	// where it did not find what the recounts did.
	Audits    int
	Disagreed []string

	Tallies map[string]*Tally  // by kind
	Beside  map[string]*Beside // by kind of hostile sender: how long honest events took
	Wrong   map[string]bool    // prefixes of rounds that were wrong
	First   string             // the first wrong round
}

func newReport(c Config) *Report {
	return &Report{Config: c, Tallies: map[string]*Tally{}, Beside: map[string]*Beside{}, Wrong: map[string]bool{}}
}

func (r *Report) add(n *round) {
	r.Rounds++
	r.Events += int64(n.oracle.Acked())
	r.Lost += n.lost()
	r.Doubled += n.doubled()
	if n.stalled != "" {
		r.Stalled++
	}
	if n.halted {
		r.Halted++
	}
	if !n.diff.Equal() {
		r.Wrong[n.oracle.Prefix] = true
		if r.First == "" {
			r.First = fmt.Sprintf("round %d of seed %d (logs: %s)\n%s", n.number, r.Config.Seed, r.Config.logs(), n.details())
		}
	}
	if n.beside != nil {
		n.beside.sum(r.Beside)
	}
	for _, f := range n.faults {
		t := r.Tallies[f.kind.name]
		if t == nil {
			t = &Tally{Kind: f.kind.name}
			r.Tallies[f.kind.name] = t
		}
		if f.missed {
			t.Missed++
			continue
		}
		r.Faults++
		t.Injected++
		t.Lost += n.lost()
		t.Doubled += n.doubled()
		if f.repaired {
			t.Recoveries = append(t.Recoveries, f.recovery)
		}
	}
}

// Sum returns the report of several runs together.
func Sum(runs ...*Report) *Report {
	all := newReport(Config{})
	for n, r := range runs {
		all.Rounds += r.Rounds
		all.Faults += r.Faults
		all.Events += r.Events
		all.Lost += r.Lost
		all.Doubled += r.Doubled
		all.Stalled += r.Stalled
		all.Late = append(all.Late, r.Late...)
		all.Audits += r.Audits
		all.Disagreed = append(all.Disagreed, r.Disagreed...)
		for prefix := range r.Wrong {
			all.Wrong[fmt.Sprintf("%d/%s", n, prefix)] = true
		}
		all.First = cmp.Or(all.First, r.First)
		for kind, x := range r.Beside {
			sum := all.Beside[kind]
			if sum == nil {
				sum = &Beside{}
				all.Beside[kind] = sum
			}
			sum.Acks, sum.CalmAcks = append(sum.Acks, x.Acks...), append(sum.CalmAcks, x.CalmAcks...)
			sum.Shows, sum.CalmShows = append(sum.Shows, x.Shows...), append(sum.CalmShows, x.CalmShows...)
		}
		for _, t := range r.Kinds() {
			sum := all.Tallies[t.Kind]
			if sum == nil {
				sum = &Tally{Kind: t.Kind}
				all.Tallies[t.Kind] = sum
			}
			sum.Injected += t.Injected
			sum.Missed += t.Missed
			sum.Lost += t.Lost
			sum.Doubled += t.Doubled
			sum.Recoveries = append(sum.Recoveries, t.Recoveries...)
		}
	}
	return all
}

// Clean reports whether every recount was equal, and every audit agreed.
func (r *Report) Clean() bool {
	return len(r.Wrong) == 0 && len(r.Late) == 0 && len(r.Disagreed) == 0
}

// Kinds returns the tallies by name.
func (r *Report) Kinds() []*Tally {
	var out []*Tally
	for _, t := range r.Tallies {
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *Tally) int { return strings.Compare(a.Kind, b.Kind) })
	return out
}

// writeBeside writes how long honest events took beside hostile senders.
func (r *Report) writeBeside(b *strings.Builder) {
	if len(r.Beside) == 0 {
		return
	}
	fmt.Fprint(b, "\n99th percentiles of honest requests until their ack, and of honest events from their ack until they are in ClickHouse, beside each kind of hostile sender and beside none:\n")
	w := tabwriter.NewWriter(b, 2, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "hostile sender\trequests\tack p99\twithout\tratio\tevents\tshown p99\twithout\tratio\t")
	for _, kind := range slices.Sorted(maps.Keys(r.Beside)) {
		x := r.Beside[kind]
		p := x.P99()
		fmt.Fprintf(w, "%s\t%d\t%d ms\t%d ms\t%s\t%d\t%d ms\t%d ms\t%s\t\n", kind, len(x.Acks), p.Ack, p.CalmAck, ratio(p.Ack, p.CalmAck),
			len(x.Shows), p.Shown, p.CalmShown, ratio(p.Shown, p.CalmShown))
	}
	_ = w.Flush() // a strings.Builder takes everything
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
	fmt.Fprintf(&b, "\n%d faults in %d rounds%s over %d acked events: %d lost, %d doubled in the worst table of each round\n",
		r.Faults, r.Rounds, r.Config.seeded(), r.Events, r.Lost, r.Doubled)
	r.writeBeside(&b)
	if r.Stalled > 0 {
		fmt.Fprintf(&b, "%d rounds stalled: they were not worked through in time, and say nothing of what was lost\n", r.Stalled)
	}
	for _, l := range r.Late {
		fmt.Fprintln(&b, "wrong afterwards:", l)
	}
	fmt.Fprintf(&b, "%d audits by rollup-writer agreed with the recounts\n", r.Audits-len(r.Disagreed))
	for _, d := range r.Disagreed {
		fmt.Fprintln(&b, "AUDIT AND RECOUNT DISAGREE:", d)
	}
	if r.Clean() && r.Faults > 0 {
		// The rule of three: with none in n, 3/n bounds the rate at 95 %.
		fmt.Fprintf(&b, "None in %d faults bounds the chance that one does harm to %.2g, with 95 %% confidence.\n", r.Faults, 3/float64(r.Faults))
	}
	if r.First != "" {
		fmt.Fprintf(&b, "\nfirst wrong: %s", r.First)
	}
	return b.String()
}
