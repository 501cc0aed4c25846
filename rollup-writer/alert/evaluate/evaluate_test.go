package evaluate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/uptakehq/uptake/schemas/signal"
)

const start Tick = 1000

// world is a random history of one subject, and what the oracle needs of it.
type world struct {
	r       *rand.Rand
	points  []Point
	rules   []dated
	off     []Span
	horizon Tick
}

type dated struct {
	from Tick
	spec *spec
}

// spec is a rule without its data.
type spec struct {
	version       uint32
	distinct      bool
	window        Tick
	fires         Bound
	clears        *Bound
	needWindow    Tick // 0: none
	needAtLeast   float64
	wait, cool    Tick
	onlySegmented bool // no value: the needs alone
}

func (w *world) newSpec(version uint32) *spec {
	r := w.r
	if r.IntN(12) == 0 {
		return nil
	}
	s := &spec{version: version, distinct: r.IntN(3) == 0, window: Tick(1 + r.IntN(4)), wait: Tick(r.IntN(3)), cool: Tick(r.IntN(4))}
	s.fires = Bound{Below: r.IntN(2) == 0, Limit: float64(1 + r.IntN(4))}
	if r.IntN(3) == 0 {
		s.fires.Previous, s.fires.Window, s.fires.Limit, s.fires.Baseline = 1+r.IntN(3), s.window, 0.25+float64(r.IntN(6))/4, float64(r.IntN(2))
	}
	if r.IntN(2) == 0 {
		c := s.fires
		c.Below = !c.Below
		if c.Below {
			c.Limit -= float64(r.IntN(3)) / 2
		} else {
			c.Limit += float64(r.IntN(3)) / 2
		}
		s.clears = &c
	}
	if r.IntN(3) == 0 {
		s.needWindow, s.needAtLeast = Tick(2+r.IntN(5)), float64(1+r.IntN(3))
		s.onlySegmented = r.IntN(3) == 0
	}
	return s
}

func (w *world) compiled() Rules {
	var rules []struct {
		from Tick
		rule *Rule
	}
	for _, d := range w.rules {
		var r *Rule
		if s := d.spec; s != nil {
			r = &Rule{Version: s.version, Fires: s.fires, Clears: s.clears, For: s.wait, Cooldown: s.cool}
			if s.distinct {
				r.Value = Distinct(w.points, s.window)
			} else {
				r.Value = Sum(w.points, s.window)
			}
			if s.needWindow > 0 {
				r.Needs = []Need{{Value: Sum(w.points, s.needWindow), Bound: Bound{Limit: s.needAtLeast}}}
			}
			if s.onlySegmented {
				r.Value = nil
			}
		}
		rules = append(rules, struct {
			from Tick
			rule *Rule
		}{d.from, r})
	}
	return func(t Tick) *Rule {
		for i := len(rules) - 1; i >= 0; i-- {
			if rules[i].from <= t {
				return rules[i].rule
			}
		}
		return nil
	}
}

// value is what the oracle computes of a tick, by looking at every point.
func (w *world) value(distinct bool, window, t Tick) float64 {
	sum, keys := 0.0, map[uint64]bool{}
	for _, p := range w.points {
		if p.Tick > t-window && p.Tick <= t {
			sum += p.Amount
			keys[p.Key] = true
		}
	}
	if distinct {
		return float64(len(keys))
	}
	return sum
}

func (w *world) holds(s *spec, b Bound, t Tick) bool {
	v, limit := w.value(s.distinct, s.window, t), b.Limit
	if b.Previous > 0 {
		mean := 0.0
		for i := range b.Previous {
			mean += w.value(s.distinct, s.window, t-Tick(i+1)*s.window)
		}
		mean /= float64(b.Previous)
		if mean <= 0 || mean < b.Baseline {
			return false
		}
		limit *= mean
	}
	if b.Below {
		return v < limit
	}
	return v >= limit
}

// oracle says what episodes there are, written from the words of the definition: of
// each tick it asks whether the last For+1 ticks held, and not by a state.
func (w *world) oracle(now Tick) []Episode {
	specAt := func(t Tick) *spec {
		for _, o := range w.off {
			if o.From <= t && t < o.To {
				return nil
			}
		}
		var s *spec
		for _, d := range w.rules {
			if d.from <= t {
				s = d.spec
			}
		}
		return s
	}
	in := func(t Tick) bool { // of the segment
		s := specAt(t)
		return s != nil && (s.needWindow == 0 || w.value(false, s.needWindow, t) >= s.needAtLeast)
	}
	fires := func(t Tick) bool {
		s := specAt(t)
		return in(t) && (s.onlySegmented || w.holds(s, s.fires, t))
	}
	var all []Episode
	quiet, after := start, start // the earliest tick of the next episode, and of its run
	for t := start; t <= now; t++ {
		s := specAt(t)
		if n := len(all); n > 0 && all[n-1].To == Open {
			ends := !in(t)
			if !ends && !s.onlySegmented {
				if s.clears != nil {
					ends = w.holds(s, *s.clears, t)
				} else {
					ends = !fires(t)
				}
			}
			if ends {
				all[n-1].To = t
				quiet, after = t, t+1
				if s != nil {
					quiet += s.cool
				}
			}
			continue
		}
		if s == nil || t < quiet {
			continue
		}
		held := t-s.wait >= after
		for u := t - s.wait; u <= t && held; u++ {
			held = fires(u)
		}
		if held {
			all = append(all, Episode{t, Open, s.version})
		}
	}
	return all
}

// log checks what was said, as a receiver of it would.
type log struct {
	t      *testing.T
	states map[string]string
}

func (l *log) take(outcomes []Outcome) {
	for _, o := range outcomes {
		before, had := l.states[o.ID]
		legal := map[string]bool{signal.Firing: !had || before == signal.Resolved, signal.Resolved: before == signal.Firing, signal.Retracted: before == signal.Firing || before == signal.Resolved}
		if !legal[o.State] {
			l.t.Fatalf("%s was said of %s, which is %q", o.State, o.ID, before)
		}
		l.states[o.ID] = o.State
	}
}

// TestIncrementalEqualsFromScratch has points arrive in time, late, and be taken
// away, while definitions change and the subject leaves and enters the segment, and
// compares all that was said and not retracted with what the oracle makes of the end.
func TestIncrementalEqualsFromScratch(t *testing.T) {
	histories := 150
	switch {
	case testing.Short():
		histories = 40
	case os.Getenv("UPTAKE_LONG") == "1":
		histories = 10_000
	}
	retracted, resolved, reopened, left := 0, 0, 0, 0
	for seed := range histories {
		w := &world{r: rand.New(rand.NewPCG(uint64(seed), 17)), horizon: Tick(4 + seed%20)}
		w.rules = []dated{{start, w.newSpec(1)}}
		var s Subject
		l := log{t: t, states: map[string]string{}}
		ended := map[string]Episode{} // by id, also those that are settled
		inactive := false
		now := start - 1
		for range 30 + w.r.IntN(30) {
			// What happened since the last round, in ticks that may still change.
			changed := false
			for range w.r.IntN(3) {
				back := Tick(0)
				if w.r.IntN(4) == 0 {
					back = Tick(w.r.IntN(int(w.horizon)))
				}
				at := max(start, now+1-back)
				changed = changed || back > 0
				w.points = append(w.points, Point{at, uint64(w.r.IntN(4)), float64(1 + w.r.IntN(2))})
			}
			if w.r.IntN(6) == 0 && len(w.points) > 0 { // a correction moves it to somebody else
				if i := w.r.IntN(len(w.points)); w.points[i].Tick > now+1-w.horizon {
					w.points = slices.Delete(w.points, i, i+1)
					changed = true
				}
			}
			if w.r.IntN(15) == 0 {
				w.rules = append(w.rules, dated{now + 1, w.newSpec(uint32(len(w.rules) + 1))})
			}
			if forgets := seed%2 == 1; !forgets && w.r.IntN(15) == 0 {
				inactive = !inactive
				if inactive {
					w.off = append(w.off, Span{now + 1, Open})
				} else {
					w.off[len(w.off)-1].To = now + 1
				}
			}
			now++
			if w.r.IntN(5) == 0 { // the state is read again by another process
				text, err := json.Marshal(s)
				if err != nil {
					t.Fatal(err)
				}
				s = Subject{}
				if err := json.Unmarshal(text, &s); err != nil {
					t.Fatal(err)
				}
			}
			if seed%2 == 1 && s.Forget() && s.Last.At > 0 { // see Forget of what that costs
				s = Subject{}
			}
			outcomes := s.Advance(Input{
				Now: now, Horizon: w.horizon, Rules: w.compiled(), LongestFor: 3, Changed: changed, Inactive: inactive,
				NewID: func(from Tick, n int) string { return fmt.Sprintf("%d.%d", from, n) },
			})
			l.take(outcomes)
			for _, o := range outcomes {
				switch {
				case o.State == signal.Retracted:
					retracted++
				case o.State == signal.Firing && ended[o.ID] != Episode{}:
					reopened++
				case o.Left:
					left++
				case o.State == signal.Resolved:
					resolved++
				}
				ended[o.ID] = Episode{o.From, o.To, o.Version}
			}
			for _, said := range s.Said { // spans move without anything to say
				ended[said.ID] = Episode{said.From, said.To, said.Version}
			}
			if again := s.Advance(Input{Now: now, Horizon: w.horizon, Rules: w.compiled(), LongestFor: 3, Changed: true, Inactive: inactive, NewID: func(Tick, int) string { return "none" }}); len(again) > 0 {
				t.Fatalf("seed %d, tick %d: a second evaluation says %+v", seed, now, again)
			}
		}
		var got []Episode
		for id, e := range ended {
			if l.states[id] != signal.Retracted {
				e.Version = 0
				got = append(got, e)
			}
		}
		slices.SortFunc(got, func(a, b Episode) int { return int(a.From) - int(b.From) })
		want := w.oracle(now)
		for i := range want {
			want[i].Version = 0
		}
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: got %v, want %v\nrules %+v\noff %v\nsaid %+v", seed, got, want, w.rules, w.off, s.Said)
		}
	}
	// The histories had what they are about.
	for name, n := range map[string]int{"retracted": retracted, "resolved": resolved, "reopened": reopened, "left": left} {
		if n < histories/20 {
			t.Errorf("%s: %d in %d histories", name, n, histories)
		}
	}
}

func TestExclusionRetracts(t *testing.T) {
	points := []Point{{start + 1, 1, 5}}
	rules := func(Tick) *Rule {
		return &Rule{Version: 1, Value: Sum(points, 1), Fires: Bound{Limit: 5}}
	}
	var s Subject
	in := Input{Now: start + 1, Horizon: 10, Rules: rules, Changed: true, NewID: func(from Tick, n int) string { return fmt.Sprint(from, n) }}
	var got []string
	round := func(edit func()) {
		edit()
		for _, o := range s.Advance(in) {
			got = append(got, fmt.Sprint(o.ID, " ", o.State, " ", o.Facts.Value))
		}
	}
	round(func() {})
	round(func() { in.Now, in.Excluded = start+2, true })
	round(func() {})
	round(func() { in.Now, in.Excluded = start+3, false })
	want := []string{"1001 0 firing 5", "1001 0 retracted 0", "1001 1 firing 5", "1001 1 resolved 0"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFacts(t *testing.T) {
	v := Sum([]Point{{start, 1, 8}, {start + 1, 1, 4}, {start + 2, 1, 3}}, 1)
	ok, f := Bound{Below: true, Limit: 0.5, Previous: 2, Window: 1, Baseline: 6}.Holds(v, start+2)
	if want := (signal.Facts{Value: 3, Limit: 3, Mean: 6, Relative: true}); ok || f != want {
		t.Errorf("got %v, %+v, want %+v, which is not below", ok, f, want)
	}
}

func TestSumsOfFractionsDoNotDrift(t *testing.T) {
	points := []Point{{start, 1, 0.1}, {start + 1, 1, 0.2}, {start + 2, 1, 0.3}}
	v := Sum(points, 1)
	for i, p := range points {
		if got := v(start + Tick(i)); got != p.Amount {
			t.Errorf("got %v, want %v", got, p.Amount)
		}
	}
}

func BenchmarkAdvance(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	var points []Point
	for range 30 {
		points = append(points, Point{start + Tick(r.IntN(30)), uint64(r.IntN(10)), 1})
	}
	b.ReportAllocs()
	for b.Loop() {
		rule := &Rule{Version: 1, Value: Sum(points, 7), Fires: Bound{Below: true, Limit: 0.5, Previous: 4, Window: 7}}
		var s Subject
		s.Advance(Input{Now: start + 35, Horizon: 35, Rules: func(Tick) *Rule { return rule }, Changed: true, NewID: func(Tick, int) string { return "x" }})
	}
}
