// Package analytics holds views about usage against a brute-force computation.
//
// A [World] is seeded random history of an app: what was counted for whom on
// arrival, the moves that corrected it, and so whom each event counts for in the
// end. The functions of oracle.go answer the questions of the views from those
// events alone, one event at a time; they share nothing with the SQL.
package analytics

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Whom is what an event counts for.
type Whom struct {
	User, Account, AccountSource, Actor, ActorKind, Role, Feature, Module, Product string
}

// Event is one usage event.
type Event struct {
	Kind, Name      string
	Time            time.Time // whole microseconds, UTC
	Quantity        int64
	User, Anonymous string // as the call named them
	Linked          string // user that Anonymous was linked to on arrival
	Partition       int32
	Offset          int64
	Properties      string // JSON text
	Touch           Touch  // in its context
	Agent           string // user agent
	Arrival, Now    Whom
}

// Touch is the campaign and the referrer that an event names; empty: none.
type Touch struct{ Referrer, Source, Medium, Campaign string }

// Context is the context, JSON text, of an event with that touch.
func (t Touch) Context() string {
	return fmt.Sprintf(`{"campaign":{"source":%q,"medium":%q,"name":%q},"page":{"path":"/","referrer":%q}}`, t.Source, t.Medium, t.Campaign, t.Referrer)
}

// Move takes events from one attribution to another at an offset of a partition.
type Move struct {
	Partition        int32
	Offset           int64
	Hour             time.Time
	Part             [2]time.Time // of the hour; zero: all of it
	Event, Anonymous string
	Old, New         Whom
	Events, Quantity int64
}

// Definitions are what an app's insight file defines.
type Definitions struct {
	ActiveFeatures, ActiveModules                           []string
	ExcludedUsers, ExcludedAccounts, ExcludedRoles          []string
	ExcludedDomains, ExcludedAgents                         []string
	ExcludedTrait, ExcludedAccountTrait                     [2]string // key and value; empty: none
	SignupPage, Signup, Activation, Value, Subscribed, Paid string    // feature:<id> or event:<name>
	Friction                                                string
	SessionGap                                              time.Duration // 0: not defined
}

// Member is a user's membership in an account.
type Member struct {
	User, Account, Role string
	Since               time.Time
}

// World is the history of an app.
type World struct {
	App                       string
	Zone                      string
	From, To                  string // days of the zone, From inclusive, To exclusive
	Events                    []Event
	Moves                     []Move
	Members                   []Member
	UserTraits, AccountTraits map[string]map[string]string
	Definitions               Definitions
	Features                  []string // ids
	Accounts                  []string
	Users                     []string
}

// Zones that worlds are asked in: whole hours with and without daylight saving,
// half hours, quarters, and one whose summer is half an hour long.
var Zones = []string{
	"UTC", "Europe/Vienna", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Auckland", "America/Sao_Paulo", "Pacific/Kiritimati",
}

var places = map[string][2]string{
	"": {}, "scan": {"till", "sales"}, "bag": {"till", "sales"}, "invoice": {"office", "sales"}, "pay": {"money", "commerce"}, "fail": {"money", "commerce"},
}

// NewWorld makes the world of a seed.
func NewWorld(app string, seed uint64, people, events int) *World {
	r := rand.New(rand.NewPCG(seed, 0x616e616c))
	w := &World{
		App: app, Zone: Zones[int(seed)%len(Zones)],
		Features: []string{"scan", "bag", "invoice", "pay", "fail"}, UserTraits: map[string]map[string]string{}, AccountTraits: map[string]map[string]string{},
	}
	// Around the last Sunday of October and the first of November, or those of spring.
	start := time.Date(2026, 10, 5, 0, 0, 0, 0, time.UTC)
	if seed%2 == 0 {
		start = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	}
	days := 45
	w.From = start.AddDate(0, 0, 7+r.IntN(10)).Format(time.DateOnly)
	w.To = start.AddDate(0, 0, days-3-r.IntN(10)).Format(time.DateOnly)
	for i := range 5 {
		a := fmt.Sprintf("acct%d", i)
		w.Accounts = append(w.Accounts, a)
		w.AccountTraits[a] = map[string]string{"plan": pick(r, []string{"free", "pro"}), "seats": fmt.Sprint(r.IntN(6))}
	}
	w.people(r, people, events, start, days)
	w.correct(r)
	w.define(r)
	for i := range w.Events {
		if r.IntN(6) == 0 {
			w.Events[i].Touch = pick(r, []Touch{{Referrer: "https://search.test/q?x=1"}, {Source: "news", Medium: "mail", Campaign: "may"}, {Campaign: "spring"}, {Referrer: "http://blog.test:8080/", Source: "blog"}})
		}
	}
	w.agents(r, seed%3 != 0)
	return w
}

// agents gives events user agents: most people have one browser, some come once as a
// bot, and a bot comes with an id of its own.
func (w *World) agents(r *rand.Rand, excluded bool) {
	const browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
	bots := []string{"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "UPTIMEROBOT/2.0", "Mozilla/5.0 HeadlessChrome/126.0"}
	always := map[string]string{}
	for i := range w.Events {
		e := &w.Events[i]
		id := e.Anonymous + "\x00" + e.User
		if _, ok := always[id]; !ok {
			always[id] = pick(r, []string{browser, browser, browser, browser, browser, "", "", pick(r, bots)})
		}
		if e.Agent = always[id]; r.IntN(200) == 0 {
			e.Agent = pick(r, bots)
		}
	}
	if excluded {
		w.Definitions.ExcludedAgents = pick(r, [][]string{{"uptimerobot"}, {"googlebot", "headlesschrome"}, {"bot", "uptimerobot/"}})
	}
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// people makes the events of users, visitors and accounts as they are counted on
// arrival.
func (w *World) people(r *rand.Rand, people, events int, start time.Time, days int) {
	type person struct {
		user, anonymous, account, role string
		first, last                    int
	}
	var all []person
	for i := range people {
		p := person{account: pick(r, w.Accounts), role: pick(r, []string{"", "cashier", "manager"}), first: r.IntN(days - 5)}
		p.last = p.first + 1 + r.IntN(days-p.first-1)
		switch i % 4 {
		case 0: // a visitor whose arrival events a later link may give to a user
			p.anonymous = fmt.Sprintf("v%d", i)
			if r.IntN(2) == 0 {
				p.account = ""
			}
			p.role = ""
		default:
			p.user = fmt.Sprintf("u%d", i)
			w.Users = append(w.Users, p.user)
			w.UserTraits[p.user] = map[string]string{"email": p.user + pick(r, []string{"@shop.test", "@Example.test"}), "team": pick(r, []string{"red", "blue"})}
		}
		all = append(all, p)
	}
	// Few distinct instants, so that many events are at the same one.
	var clock time.Time
	offsets := map[int32]int64{}
	for range events {
		p := pick(r, all)
		if clock.IsZero() || r.IntN(3) > 0 {
			day := p.first + r.IntN(p.last-p.first)
			clock = start.AddDate(0, 0, day).Add(time.Duration(r.IntN(48)) * 30 * time.Minute)
		}
		e := Event{Kind: "track", Quantity: 1 + int64(r.IntN(5)/4), User: p.user, Anonymous: p.anonymous, Properties: fmt.Sprintf(`{"till":{"kind":"%s","floor":%d},"n":%d}`, pick(r, []string{"a", "b"}), r.IntN(3), r.IntN(4))}
		e.Time = clock.Add(time.Duration(r.IntN(4)) * pick(r, []time.Duration{0, time.Microsecond, time.Second, 5 * time.Minute, 40 * time.Minute}))
		feature := pick(r, append([]string{""}, w.Features...))
		e.Name = "Event " + feature
		if r.IntN(8) == 0 {
			e.Kind, e.Name, feature = "page", pick(r, []string{"Sign-up", "Home"}), ""
		}
		e.Arrival = Whom{User: p.user, Account: p.account, Actor: p.user, ActorKind: "user", Role: p.role, Feature: feature, Module: places[feature][0], Product: places[feature][1], AccountSource: "event"}
		if p.anonymous != "" {
			e.Arrival.Actor, e.Arrival.ActorKind = p.anonymous, "anonymous"
		}
		if p.account == "" {
			e.Arrival.AccountSource = "none"
		}
		if r.IntN(25) == 0 { // the account's own
			e.User, e.Anonymous = "", ""
			e.Arrival.User, e.Arrival.Actor, e.Arrival.ActorKind, e.Arrival.Role = "", "", "account", ""
		}
		e.Partition = int32(len(e.Arrival.Actor)+p.first) % 2
		offsets[e.Partition] += 1 + int64(r.IntN(3))
		e.Offset = offsets[e.Partition]
		e.Now = e.Arrival
		w.Events = append(w.Events, e)
	}
}

// correct makes moves, in the order of each partition's log, and carries them
// out: events before a move's offset that have the attribution it names get the
// new one.
func (w *World) correct(r *rand.Rand) {
	ends := map[int32]int64{}
	for _, e := range w.Events {
		ends[e.Partition] = max(ends[e.Partition], e.Offset)
	}
	type change func(Whom, *Event) (Whom, bool)
	var visitors []string
	for _, e := range w.Events {
		if e.Anonymous != "" && !slices.Contains(visitors, e.Anonymous) {
			visitors = append(visitors, e.Anonymous)
		}
	}
	for partition := range int32(2) {
		for offset := int64(10); offset < ends[partition]; offset += 1 + int64(r.IntN(int(ends[partition])/6+2)) {
			var c change
			var cut time.Time
			switch k := r.IntN(5); {
			case k == 4 && len(visitors) > 0: // a device changes hands within an hour
				v, u := pick(r, visitors), pick(r, w.Users)
				cut = pick(r, w.Events).Time.Add(pick(r, []time.Duration{0, time.Microsecond, 10 * time.Minute}))
				c = func(from Whom, e *Event) (Whom, bool) {
					from.User, from.Actor, from.ActorKind = u, u, "user"
					return from, e.Anonymous == v && !e.Time.Before(cut)
				}
			case k < 2 && len(visitors) > 0: // a visitor turns out to be a user, or another one
				v, u := pick(r, visitors), pick(r, w.Users)
				c = func(from Whom, e *Event) (Whom, bool) {
					from.User, from.Actor, from.ActorKind = u, u, "user"
					return from, e.Anonymous == v
				}
			case k == 2: // events without an account get one
				u, a := pick(r, w.Users), pick(r, w.Accounts)
				c = func(from Whom, _ *Event) (Whom, bool) {
					ok := from.Actor == u && from.Account == ""
					from.Account, from.AccountSource = a, "membership"
					return from, ok
				}
			default: // a name becomes another feature's
				old, new := pick(r, append([]string{""}, w.Features...)), pick(r, w.Features)
				c = func(from Whom, e *Event) (Whom, bool) {
					ok := from.Feature == old && e.Kind == "track"
					from.Feature, from.Module, from.Product = new, places[new][0], places[new][1]
					return from, ok
				}
			}
			w.carryOut(partition, offset, cut, c)
		}
	}
}

// carryOut moves what c says; in the hour of cut, that is only the part from there.
func (w *World) carryOut(partition int32, offset int64, cut time.Time, c func(Whom, *Event) (Whom, bool)) {
	type key struct {
		hour             time.Time
		part             [2]time.Time
		event, anonymous string
		old, new         Whom
	}
	sums := map[key][2]int64{}
	var order []key
	for i := range w.Events {
		e := &w.Events[i]
		if e.Partition != partition || e.Offset >= offset {
			continue
		}
		to, ok := c(e.Now, e)
		if !ok || to == e.Now {
			continue
		}
		k := key{hour: e.Time.Truncate(time.Hour), event: e.Name, anonymous: e.Anonymous, old: e.Now, new: to}
		if cut.Truncate(time.Hour).Equal(k.hour) {
			k.part = [2]time.Time{cut, k.hour.Add(time.Hour)}
		}
		if e.User != "" {
			k.anonymous = ""
		}
		s, had := sums[k]
		if !had {
			order = append(order, k)
		}
		sums[k] = [2]int64{s[0] + 1, s[1] + e.Quantity}
		e.Now = to
	}
	for _, k := range order {
		w.Moves = append(w.Moves, Move{partition, offset, k.hour, k.part, k.event, k.anonymous, k.old, k.new, sums[k][0], sums[k][1]})
	}
}

// define draws the app's definitions; every third app has none.
func (w *World) define(r *rand.Rand) {
	d := &w.Definitions
	d.SignupPage, d.Signup, d.Activation, d.Value, d.Subscribed, d.Paid = "event:Sign-up", "feature:scan", "feature:bag", "feature:invoice", "event:Event pay", "feature:pay"
	d.Friction = "feature:fail"
	if r.IntN(3) == 0 {
		return
	}
	if r.IntN(2) == 0 {
		d.ActiveFeatures = []string{"scan", "pay"}
		d.ActiveModules = []string{"office"}
	}
	d.SessionGap = pick(r, []time.Duration{0, 10 * time.Minute, 30 * time.Minute})
	for _, do := range []func(){
		func() { d.ExcludedUsers = []string{pick(r, w.Users)} },
		func() { d.ExcludedAccounts = []string{pick(r, w.Accounts)} },
		func() { d.ExcludedRoles = []string{"manager"} },
		func() { d.ExcludedDomains = []string{"example.test"} },
		func() { d.ExcludedTrait = [2]string{"team", "blue"} },
		func() { d.ExcludedAccountTrait = [2]string{"plan", "pro"} },
	} {
		if r.IntN(4) == 0 {
			do()
		}
	}
}
