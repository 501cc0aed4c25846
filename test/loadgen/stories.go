package loadgen

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Event names of the stories that the sample catalog does not have: what a terminal
// reports, and what a help desk sends.
const (
	PaymentFailed = "Payment Failed"
	TicketOpened  = "Ticket Opened"
)

// StoryWeeks are the weeks before Config.Start in which the stories begin; they end with
// the plan's days.
const StoryWeeks = 8

// Persona is a way to use the product.
type Persona struct {
	Name   string
	Days   [7]float64 // how likely it works on a day, from Monday
	Events int        // on such a day, about
	Mix    []Weight   // of its events
	role   string
}

// Weight is how often, relative to others, an event occurs.
type Weight struct {
	Event  string
	Weight int
}

// Personas are those of the crews: each has a mixture of features that no other has.
var Personas = []Persona{
	{
		Name: "till", Days: [7]float64{0.8, 0.8, 0.8, 0.8, 0.9, 0.9, 0}, Events: 8, role: "cashier",
		Mix: []Weight{{ItemScanned, 38}, {ItemBagged, 16}, {ItemInvoiced, 13}, {InvoiceGenerated, 13}, {InvoicePrinted, 7}, {PaymentReceived, 13}},
	},
	{
		Name: "bookkeeper", Days: [7]float64{0.9, 0, 0, 0.9, 0, 0, 0}, Events: 9, role: "accountant",
		Mix: []Weight{{InvoiceGenerated, 45}, {InvoicePrinted, 45}, {PaymentReceived, 10}},
	},
	{
		Name: "packer", Days: [7]float64{0.3, 0.7, 0.7, 0.7, 0.7, 0.7, 0.3}, Events: 5, role: "cashier",
		Mix: []Weight{{ItemBagged, 85}, {ItemScanned, 15}},
	},
	{
		Name: "promoter", Days: [7]float64{0, 0, 0.6, 0, 0.8, 0.9, 0}, Events: 6, role: "manager",
		Mix: []Weight{{LoyaltyOptIn, 75}, {ItemScanned, 15}, {PaymentReceived, 10}},
	},
}

// Sizes of the stories.
const (
	crews      = 3 // accounts
	crewOf     = 4 // users of each persona in a crew
	churnStaff = 8
	churnSeats = 10
	growSeats  = 10
)

// Stories are what was planted.
type Stories struct {
	From time.Time // first instant: StoryWeeks before the plan's start

	// Personas are the users of the crews, with the name of each one's persona.
	Personas map[string]string
	Crews    []string // accounts with all personas, which neither shrink nor grow

	// Churned used everything with everybody until its champion left, Champion, at
	// ChampionLeft. Then depth and days declined, payments failed and its people opened
	// tickets, and since Silent nobody came. Its contract is to be renewed at Renewal.
	Churned      string
	Champion     string
	ChampionLeft time.Time
	Silent       time.Time
	Renewal      time.Time
	Failures     int // events PaymentFailed
	Tickets      int // events TicketOpened

	// Expanded began with three people who only scan, and has two more people and
	// soon another feature with every week, beyond its seats.
	Expanded       string
	ExpandedPeople int
	Seats          map[string]int // of each account of the stories
}

// storyteller plants stories into a generator's events.
type storyteller struct {
	*generator
	rng    *rand.Rand // of its own: the events of the sales are the same without stories
	told   *Stories
	source int // of the account's client
}

// stories makes the accounts of the stories and what their people did.
func (g *generator) stories() *Stories {
	s := &storyteller{
		generator: g, rng: rand.New(rand.NewPCG(g.cfg.Seed, 0x73746f72_696573)), source: len(g.accounts) - 1,
		told: &Stories{From: g.cfg.Start.AddDate(0, 0, -7*StoryWeeks), Personas: map[string]string{}, Seats: map[string]int{}},
	}
	s.crews()
	s.churn()
	s.expansion()
	return s.told
}

// open makes an account. Contracts are by the seat.
func (s *storyteller) open(name, plan string, seats int, renewal time.Time) string {
	s.source++
	id := s.cfg.IDPrefix + "story-" + name
	s.told.Seats[id] = seats
	at := s.told.From.Add(6 * time.Hour)
	s.add(s.source, Event{
		Kind: kindGroup, Account: id, Time: at,
		Props: fmt.Sprintf(`{"name":"Story %s","stores":1,"plan":"%s","seats":%d,"renewal_date":"%s","contract_value":%d}`, name, plan, seats, renewal.Format(time.DateOnly), seats*seatPrice),
	})
	return id
}

// seatPrice is what a seat costs in a year.
const seatPrice = 240

// user introduces a user of an account when it first comes.
func (s *storyteller) user(account string, n int, role string) string {
	id := fmt.Sprintf("%s-user-%03d", account, n)
	at := s.told.From.Add(6*time.Hour + time.Duration(n+1)*time.Second)
	s.add(s.source, Event{Kind: kindIdentify, User: id, Account: account, Role: role, Time: at, Props: fmt.Sprintf(`{"name":"Person %d","email":"%s@example.test"}`, n, id)})
	return id
}

// weeks are those of the stories, up to and including the plan's.
func (s *storyteller) weeks() int { return StoryWeeks + max(1, s.cfg.Days/7) }

func (s *storyteller) day(week, weekday int) time.Time {
	return s.told.From.AddDate(0, 0, 7*week+weekday)
}

// within reports whether a day is one of the plan's or before them.
func (s *storyteller) within(day time.Time) bool {
	return day.Before(s.cfg.Start.AddDate(0, 0, s.cfg.Days))
}

// work is what a person does on a day: about n events of a mixture, between 8 and 18
// o'clock, in runs of a few minutes.
func (s *storyteller) work(account, user string, day time.Time, n int, mix []Weight) {
	if !s.within(day) {
		return
	}
	sum := 0
	for _, w := range mix {
		sum += w.Weight
	}
	at := day.Add(8*time.Hour + time.Duration(s.rng.IntN(8*3600_000))*time.Millisecond)
	for range max(1, n/2+s.rng.IntN(n+1)) {
		at = at.Add(time.Duration(1_000+s.rng.IntN(40_000)) * time.Millisecond)
		k := s.rng.IntN(sum)
		i := slices.IndexFunc(mix, func(w Weight) bool { k -= w.Weight; return k < 0 })
		s.add(s.source, Event{Kind: kindTrack, Name: mix[i].Event, User: user, Account: account, Time: at, Props: props(mix[i].Event)})
	}
}

func props(event string) string {
	switch event {
	case PaymentReceived:
		return `{"method":"card","till":{"kind":"counter"}}`
	case PaymentFailed:
		return `{"method":"card","error":"terminal_offline"}`
	}
	return `{"till":{"kind":"counter"}}`
}

// crews have four people of each persona, who do what they do in every week.
func (s *storyteller) crews() {
	for c := range crews {
		seats := len(Personas)*crewOf + 4
		account := s.open(fmt.Sprintf("crew-%d", c), "team", seats, s.cfg.Start.AddDate(0, 2+c, 0))
		s.told.Crews = append(s.told.Crews, account)
		for n := range len(Personas) * crewOf {
			p := &Personas[n%len(Personas)]
			user := s.user(account, n, p.role)
			s.told.Personas[user] = p.Name
			for week := range s.weeks() {
				for weekday, likely := range p.Days {
					if s.rng.Float64() < likely {
						s.work(account, user, s.day(week, weekday), p.Events, p.Mix)
					}
				}
			}
		}
	}
}

// churn: four whole weeks; the champion leaves; a week of less depth; a week of failures;
// a week of tickets; silence.
func (s *storyteller) churn() {
	t := s.told
	t.Renewal = s.cfg.Start.AddDate(0, 0, 28)
	t.Churned = s.open("churned", "enterprise", churnSeats, t.Renewal)
	t.ChampionLeft, t.Silent = s.day(4, 0), s.day(7, 0)
	all := []Weight{{ItemScanned, 30}, {ItemBagged, 12}, {ItemInvoiced, 14}, {InvoiceGenerated, 14}, {InvoicePrinted, 8}, {PaymentReceived, 14}, {LoyaltyOptIn, 8}}
	shallow := []Weight{{ItemScanned, 70}, {PaymentReceived, 30}}
	failing := append(slices.Clone(shallow), Weight{PaymentFailed, 50})
	staff := make([]string, churnStaff)
	for n := range staff {
		role := "cashier"
		if n == 0 {
			role = "manager"
		}
		staff[n] = s.user(t.Churned, n, role)
	}
	t.Champion = staff[0]
	before := len(s.events)
	for n, user := range staff {
		for week := range 7 {
			mix, events, days := all, 8, 5
			if n == 0 {
				events = 20
			}
			switch {
			case week >= 4 && n == 0:
				continue
			case week == 4:
				mix, events, days = shallow, 5, 3
			case week == 5:
				mix, events, days = failing, 6, 2
			case week == 6 && n <= 4:
				s.ticket(t.Churned, user, s.day(week, n))
				mix, events, days = shallow, 3, 1
			case week == 6:
				continue
			}
			for weekday := range days {
				s.work(t.Churned, user, s.day(week, weekday), events, mix)
			}
		}
	}
	for i := range s.events[before:] {
		switch s.events[before+i].Name {
		case PaymentFailed:
			t.Failures++
		case TicketOpened:
			t.Tickets++
		}
	}
}

// ticket is what a help desk says of its customer's user.
func (s *storyteller) ticket(account, user string, day time.Time) {
	s.add(s.source, Event{
		Kind: kindTrack, Name: TicketOpened, User: user, Account: account, Time: day.Add(9*time.Hour + time.Duration(s.rng.IntN(3600_000))*time.Millisecond),
		Props: fmt.Sprintf(`{"source":"help_desk","ticket":"T-%05d","subject":"Payments fail","priority":"high"}`, s.rng.IntN(100_000)),
	})
}

// expansion: three people scan; each week two more come, and from the second on another
// feature, until everybody uses all.
func (s *storyteller) expansion() {
	t := s.told
	t.Expanded = s.open("expanded", "team", growSeats, s.cfg.Start.AddDate(0, 6, 0))
	mix := []Weight{{ItemScanned, 40}}
	more := []Weight{{PaymentReceived, 15}, {ItemInvoiced, 12}, {InvoiceGenerated, 12}, {ItemBagged, 10}, {InvoicePrinted, 8}, {LoyaltyOptIn, 6}}
	var staff []string
	for week := range s.weeks() {
		for len(staff) < 3+2*week {
			staff = append(staff, s.user(t.Expanded, len(staff), "cashier"))
		}
		if week > 0 && len(more) > 0 {
			mix, more = append(mix, more[0]), more[1:]
		}
		for _, user := range staff {
			for weekday := range 5 {
				if s.rng.Float64() < 0.7 {
					s.work(t.Expanded, user, s.day(week, weekday), 6, mix)
				}
			}
		}
	}
	t.ExpandedPeople = len(staff)
}
