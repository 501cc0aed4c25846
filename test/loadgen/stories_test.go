package loadgen

import (
	"slices"
	"testing"
	"time"
)

// What the stories say of themselves is what is in the plan, and the sales are the same
// without them.
func TestStoriesArePlanted(t *testing.T) {
	c := testConfig()
	sales := newPlan(t, c)
	c.Stories = true
	p := newPlan(t, c)
	s := p.Stories
	if sales.Stories != nil || len(s.Personas) != crews*crewOf*len(Personas) || len(s.Crews) != crews {
		t.Fatalf("%d personas in %d crews, and %v without stories", len(s.Personas), len(s.Crews), sales.Stories)
	}
	if !slices.EqualFunc(sales.Events, p.Events[:len(sales.Events)], func(a, b Event) bool { return a.MessageID == b.MessageID && a.Time.Equal(b.Time) && a.Props == b.Props }) {
		t.Error("stories change the sales")
	}
	used := map[string]map[string]int{} // by persona and event
	last := map[string]time.Time{}      // use of the churned account, by user
	weeks := map[string]map[int]map[string]bool{}
	failures, tickets, seats := 0, 0, map[string]bool{}
	for i := range p.Events[len(sales.Events):] {
		e := &p.Events[len(sales.Events)+i]
		if e.Time.Before(s.From) || !e.Time.Before(c.Start.AddDate(0, 0, c.Days)) {
			t.Fatalf("%s happens at %v, outside the stories", e.MessageID, e.Time)
		}
		if e.Kind == kindGroup {
			seats[e.Account] = true
		}
		if e.Kind != kindTrack {
			continue
		}
		if persona := s.Personas[e.User]; persona != "" {
			if used[persona] == nil {
				used[persona] = map[string]int{}
			}
			used[persona][e.Name]++
		}
		if e.Account == s.Churned && e.Time.After(last[e.User]) {
			last[e.User] = e.Time
		}
		if weeks[e.Account] == nil {
			weeks[e.Account] = map[int]map[string]bool{}
		}
		week := int(e.Time.Sub(s.From) / (7 * 24 * time.Hour))
		if weeks[e.Account][week] == nil {
			weeks[e.Account][week] = map[string]bool{}
		}
		weeks[e.Account][week]["user "+e.User] = true
		weeks[e.Account][week][e.Name] = true
		switch e.Name {
		case PaymentFailed:
			failures++
		case TicketOpened:
			tickets++
		}
	}
	for _, persona := range Personas {
		n := 0
		for _, k := range used[persona.Name] {
			n += k
		}
		sum := 0
		for _, w := range persona.Mix {
			sum += w.Weight
		}
		for _, w := range persona.Mix {
			want, got := float64(w.Weight)/float64(sum), float64(used[persona.Name][w.Event])/float64(n)
			if got < want-0.06 || got > want+0.06 {
				t.Errorf("%s: %.2f of the events are %s, want %.2f", persona.Name, got, w.Event, want)
			}
		}
	}
	if len(seats) != crews+2 || len(s.Seats) != len(seats) {
		t.Errorf("%d accounts state seats, and the stories have %d", len(seats), len(s.Seats))
	}
	if failures != s.Failures || tickets != s.Tickets || failures == 0 || tickets != 4 {
		t.Errorf("%d failures and %d tickets, and the stories have %d and %d", failures, tickets, s.Failures, s.Tickets)
	}
	for user, at := range last {
		if at.After(s.Silent) || (user == s.Champion && at.After(s.ChampionLeft)) {
			t.Errorf("%s still came at %v", user, at)
		}
	}
	if len(last) != churnStaff || len(last) > churnSeats {
		t.Errorf("%d people of the account that leaves", len(last))
	}
	if full, shallow := len(weeks[s.Churned][3]), len(weeks[s.Churned][4]); full < shallow+5 {
		t.Errorf("people and features of the account that leaves: %d, then %d", full, shallow)
	}
	if first, last := len(weeks[s.Expanded][0]), len(weeks[s.Expanded][StoryWeeks]); first > 4 || last < s.ExpandedPeople || s.ExpandedPeople <= growSeats {
		t.Errorf("people and features of the account that grows: %d, then %d of %d people", first, last, s.ExpandedPeople)
	}
}
