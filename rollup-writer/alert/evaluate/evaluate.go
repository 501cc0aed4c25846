// Package evaluate decides when a signal about one subject fires and ends, and what
// must be announced, retracted or changed when history is corrected.
//
// It is pure: time is a count of ticks, data are points, and nothing is read or
// written. Three rules hold:
//
//  1. The state at a tick is a function of the data as now known, of the rule in force
//     at that tick, and of the machine's state before it. So the episodes of a signal
//     (when it fired, when it ended) are a fold over ticks, and a correction repeats
//     the fold.
//  2. Announced episodes are reconciled with the computed ones, never replaced: an
//     announced episode keeps its id while it overlaps a computed one, one that is no
//     longer true is retracted, and one that was not announced yet is announced.
//  3. Ticks older than the horizon are settled: they are neither computed again nor
//     retracted.
//
// The caller stores the state and supplies the data.
package evaluate

import (
	"math"
	"slices"

	"github.com/uptakehq/uptake/schemas/signal"
)

// Tick is a number of steps, of an hour or a day, since 1970-01-01 UTC. A value at tick
// t applies to the window that ends with the end of t.
type Tick int32

// Open is the end of an episode that is still open.
const Open Tick = math.MaxInt32

// never marks a tick that is not set.
const never Tick = -1

// Value is a measure of one subject at a tick.
type Value func(Tick) float64

// Bound holds for values below the limit, or at or above it. With Previous it is
// relative: Limit is a share of the mean of the values of that many previous windows,
// which must be at least Baseline and more than 0.
type Bound struct {
	Below    bool
	Limit    float64
	Previous int
	Window   Tick // between the windows before; with Previous only
	Baseline float64
}

// Holds reports whether b holds for v at t, with the numbers. A relative bound without
// a baseline does not hold.
func (b Bound) Holds(v Value, t Tick) (bool, signal.Facts) {
	f := signal.Facts{Value: v(t), Limit: b.Limit}
	if b.Previous > 0 {
		f.Relative = true
		for i := 1; i <= b.Previous; i++ {
			f.Mean += v(t - Tick(i)*b.Window)
		}
		f.Mean /= float64(b.Previous)
		f.Limit = b.Limit * f.Mean
		if f.Mean <= 0 || f.Mean < b.Baseline {
			return false, f
		}
	}
	return (f.Value < f.Limit) == b.Below, f
}

// Need is a condition that must hold for a rule to fire and to go on firing: a
// measured condition of the rule's segment.
type Need struct {
	Value
	Bound
	Not bool
}

// Rule is one version of a signal, for one subject.
type Rule struct {
	Version uint32
	Needs   []Need
	// Value and Fires are the condition of the rule; with a nil Value it fires where
	// the needs hold.
	Value  Value
	Fires  Bound
	Clears *Bound // nil: whatever does not fire
	// For is how long Fires must hold, Cooldown how long after the end of an episode
	// the next one may begin.
	For, Cooldown Tick
}

// Needed reports whether all needs hold at t.
func (r *Rule) Needed(t Tick) bool {
	for _, n := range r.Needs {
		if ok, _ := n.Holds(n.Value, t); ok == n.Not {
			return false
		}
	}
	return true
}

func (r *Rule) fires(t Tick) bool {
	if r == nil || !r.Needed(t) {
		return false
	}
	if r.Value == nil {
		return true
	}
	ok, _ := r.Fires.Holds(r.Value, t)
	return ok
}

// goesOn reports whether an episode continues through t.
func (r *Rule) goesOn(t Tick) bool {
	if r == nil || !r.Needed(t) {
		return false
	}
	if r.Value == nil {
		return true
	}
	if r.Clears == nil {
		ok, _ := r.Fires.Holds(r.Value, t)
		return ok
	}
	ok, _ := r.Clears.Holds(r.Value, t)
	return !ok
}

// Facts are those of the value at t.
func (r *Rule) Facts(t Tick) signal.Facts {
	if r == nil || r.Value == nil {
		return signal.Facts{}
	}
	_, f := r.Fires.Holds(r.Value, t)
	return f
}

// Rules are the versions in force for a subject at each tick; nil: none, since the
// signal did not exist or the subject was not in its segment.
type Rules func(Tick) *Rule

// Machine is the state after a tick.
type Machine struct {
	At Tick `json:"at"`
	// Pending is the first tick of the run in which the rule's condition holds, Firing
	// the tick at which it fired; -1: none.
	Pending Tick `json:"pending"`
	Firing  Tick `json:"firing"`
	// Quiet is the first tick at which it may fire again.
	Quiet Tick `json:"quiet,omitempty"`
}

func (m Machine) idle() bool { return m.Pending == never && m.Firing == never && m.Quiet <= m.At+1 }

// Episode is a span in which a signal was true: from the tick at which it fired to the
// one at which it ended, exclusive.
type Episode struct {
	From, To Tick
	Version  uint32 // of the rule that fired
}

// step advances to the next tick, and adds to episodes, whose last one is open while
// the machine fires.
func (m *Machine) step(rules Rules, episodes []Episode) []Episode {
	m.At++
	r := rules(m.At)
	if m.Firing != never {
		if r.goesOn(m.At) {
			return episodes
		}
		episodes[len(episodes)-1].To = m.At
		m.Firing, m.Pending, m.Quiet = never, never, m.At
		if r != nil {
			m.Quiet += r.Cooldown
		}
		return episodes
	}
	if !r.fires(m.At) {
		m.Pending = never
		return episodes
	}
	if m.Pending == never {
		m.Pending = m.At
	}
	if m.At-m.Pending >= r.For && m.At >= m.Quiet {
		m.Firing = m.At
		episodes = append(episodes, Episode{From: m.At, To: Open, Version: r.Version})
	}
	return episodes
}

// fold steps m up to the tick to. Version is that of the episode that m is in.
func (m *Machine) fold(rules Rules, to Tick, version uint32) []Episode {
	var episodes []Episode
	if m.Firing != never {
		episodes = append(episodes, Episode{From: m.Firing, To: Open, Version: version})
	}
	for m.At < to {
		episodes = m.step(rules, episodes)
	}
	return episodes
}

// Said is an announced episode.
type Said struct {
	ID string `json:"id"`
	// Fired is the tick from which the id was made.
	Fired Tick `json:"fired"`
	// From and To are those of the episode as of the last evaluation.
	From    Tick   `json:"from"`
	To      Tick   `json:"to"`
	State   string `json:"state"`
	Version uint32 `json:"version"`
}

// Span is a range of ticks, without To.
type Span struct {
	From Tick `json:"from"`
	To   Tick `json:"to"`
}

// Subject is the stored state of a signal about one subject. The zero value is a
// subject that was not evaluated yet.
type Subject struct {
	// Settled is the machine at the horizon, Last at the last evaluated tick.
	Settled Machine `json:"settled"`
	Last    Machine `json:"last"`
	Said    []Said  `json:"said,omitempty"`
	// Off are the ticks in which the subject was not in the signal's segment because of
	// a trait or role. These have no history, so the state of a tick at its first
	// evaluation is kept.
	Off []Span `json:"off,omitempty"`

	known bool
}

// Equal reports whether both are stored alike.
func (s *Subject) Equal(o *Subject) bool {
	return s.Settled == o.Settled && s.Last == o.Last && slices.Equal(s.Said, o.Said) && slices.Equal(s.Off, o.Off)
}

// Forget reports that nothing of the subject needs to be stored: evaluation would give
// the same result without it, except that for a subject that enters the segment later,
// earlier ticks count as if it had been in the segment.
func (s *Subject) Forget() bool {
	return s.Settled.idle() && s.Last.idle() && len(s.Said) == 0
}

// Input is the data of the subject in a round.
type Input struct {
	Now Tick // the last tick that is over
	// Horizon is how many ticks before Now may still change.
	Horizon Tick
	Rules   Rules
	// LongestFor is at least For of every rule.
	LongestFor Tick
	// Changed: data of ticks that were evaluated before may have changed. If false,
	// only new ticks are evaluated.
	Changed bool
	// Inactive: because of a trait or role the subject is not in the segment now.
	Inactive bool
	// Excluded: the subject is now excluded from all usage, and so from its history.
	// When it no longer is, Changed must be set.
	Excluded bool
	// NewID returns the id of a new episode. n counts those made for the same tick
	// before.
	NewID func(from Tick, n int) string
}

// Outcome is something to announce.
type Outcome struct {
	State string // signal.Firing, Resolved or Retracted
	Said
	// At is the tick of Facts.
	At    Tick
	Facts signal.Facts
	// Late: the episode had begun and ended before it was noticed (Firing, followed by
	// Resolved), or an announced end has turned out to be wrong (Firing).
	Late bool
	// Left: it ended because the subject left the segment, or the signal is no
	// longer defined.
	Left bool
}

// Advance evaluates up to in.Now, and returns the outcomes. It does nothing if the
// subject was already evaluated up to a later tick.
func (s *Subject) Advance(in Input) []Outcome {
	if s.Last.At == 0 && s.Settled.At == 0 && !s.known {
		s.begin(in)
	}
	if s.Last.At > in.Now {
		return nil
	}
	s.switchOff(in)
	rules := func(t Tick) *Rule {
		if slices.ContainsFunc(s.Off, func(o Span) bool { return o.From <= t && t < o.To }) {
			return nil
		}
		return in.Rules(t)
	}
	var episodes []Episode
	switch {
	case in.Excluded:
		s.Settled = Machine{At: max(s.Settled.At, in.Now-in.Horizon), Pending: never, Firing: never}
		s.Last = Machine{At: in.Now, Pending: never, Firing: never}
	case in.Changed:
		s.Last = s.Settled
		episodes = s.Last.fold(rules, in.Now, s.version(s.Settled.Firing))
	default:
		for _, said := range s.Said {
			if said.State == signal.Resolved && said.To > s.Settled.At {
				episodes = append(episodes, Episode{said.From, said.To, said.Version})
			}
		}
		episodes = append(episodes, s.Last.fold(rules, in.Now, s.version(s.Last.Firing))...)
	}
	outcomes := s.reconcile(in, rules, episodes)
	s.settle(in, rules)
	return outcomes
}

// begin places a new subject before the horizon. Of earlier ticks only a run in which
// the condition held matters, as long as the rule's For.
func (s *Subject) begin(in Input) {
	at := in.Now - in.Horizon
	s.Settled = Machine{At: at, Pending: never, Firing: never}
	for t := at; t > at-in.LongestFor-1 && in.Rules(t).fires(t); t-- {
		s.Settled.Pending = t
	}
	s.Last, s.known = s.Settled, true
}

// switchOff notes whether the subject is in the segment in the ticks since the last
// round.
func (s *Subject) switchOff(in Input) {
	open := len(s.Off) > 0 && s.Off[len(s.Off)-1].To == Open
	switch {
	case in.Inactive && !open:
		s.Off = append(s.Off, Span{s.Last.At + 1, Open})
	case !in.Inactive && open:
		s.Off[len(s.Off)-1].To = s.Last.At + 1
	}
}

// version of the episode that fired at a tick.
func (s *Subject) version(from Tick) uint32 {
	for _, said := range s.Said {
		if said.From == from && said.State != signal.Retracted {
			return said.Version
		}
	}
	return 0
}

// reconcile compares announced episodes with the computed ones.
func (s *Subject) reconcile(in Input, rules Rules, episodes []Episode) []Outcome {
	var outcomes []Outcome
	say := func(state string, said Said, at Tick, late bool) {
		r := rules(at)
		outcomes = append(outcomes, Outcome{State: state, Said: said, At: at, Facts: in.Rules(at).Facts(at), Late: late, Left: state == signal.Resolved && (r == nil || !r.Needed(at))})
	}
	taken := make([]bool, len(episodes))
	for i := range s.Said {
		said := &s.Said[i]
		if said.State == signal.Retracted || said.To <= s.Settled.At { // kept for its id alone
			continue
		}
		// The first that overlaps: if an announced episode has turned out to be two,
		// the first of them is the announced one.
		best := slices.IndexFunc(episodes, func(e Episode) bool { return e.From < said.To && said.From < e.To })
		for best >= 0 && taken[best] {
			if best++; best == len(episodes) || episodes[best].From >= said.To {
				best = -1
			}
		}
		if best < 0 {
			said.State = signal.Retracted
			say(signal.Retracted, *said, in.Now, false)
			continue
		}
		taken[best] = true
		before := said.State
		said.From, said.To = episodes[best].From, episodes[best].To
		switch {
		case before == signal.Firing && said.To != Open:
			said.State = signal.Resolved
			say(signal.Resolved, *said, said.To, false)
		case before == signal.Resolved && said.To == Open:
			said.State = signal.Firing
			say(signal.Firing, *said, in.Now, true)
		}
	}
	for j, e := range episodes {
		if taken[j] {
			continue
		}
		n := 0
		for _, said := range s.Said {
			if said.Fired == e.From {
				n++
			}
		}
		said := Said{in.NewID(e.From, n), e.From, e.From, e.To, signal.Firing, e.Version}
		say(signal.Firing, said, e.From, e.To != Open)
		if e.To != Open {
			said.State = signal.Resolved
			say(signal.Resolved, said, e.To, true)
		}
		s.Said = append(s.Said, said)
	}
	slices.SortStableFunc(s.Said, func(a, b Said) int { return int(a.From) - int(b.From) })
	return outcomes
}

// settle advances the horizon, and drops what lies before it.
func (s *Subject) settle(in Input, rules Rules) {
	s.Settled.fold(rules, in.Now-in.Horizon, 0)
	s.Said = slices.DeleteFunc(s.Said, func(said Said) bool {
		end := said.To
		if said.State == signal.Retracted {
			end = said.From
		}
		return max(end, said.Fired) <= s.Settled.At
	})
	s.Off = slices.DeleteFunc(s.Off, func(o Span) bool { return o.To <= s.Settled.At+1 || o.To <= o.From })
}
