package loadgen

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

// Paths of the native API.
const (
	pathBatch = "/v1/batch"
	pathCall  = "/v1/" // + kind
)

// Kinds of calls.
const (
	kindTrack    = "track"
	kindIdentify = "identify"
	kindGroup    = "group"
	kindAlias    = "alias"
	kindPage     = "page"
	kindScreen   = "screen"
)

// account is a customer of MyPOS: a shop, or a chain of them.
type account struct {
	id     string
	zone   time.Duration // of its local time from UTC
	weight float64       // its share of the sales, cumulated over all before it
	staff  []person
}

type person struct{ id, role string }

type generator struct {
	cfg      Config
	rng      *rand.Rand
	accounts []account
	events   []Event
	sendAt   []time.Time // of each event: when its client gets to send it
	source   []int32     // of each event: the account whose client sends it
	good     int
	serial   int
	visitor  int
	hours    []float64 // cumulated intensity of each local hour of the days
}

func newGenerator(c Config) *generator {
	g := &generator{cfg: c, rng: rand.New(rand.NewPCG(c.Seed, 0x75707461_6b65))}
	sum := 0.0
	for h := range c.Days * 24 {
		day := c.Start.Add(time.Duration(h) * time.Hour).Weekday()
		sum += dayShape[day] * hourShape[h%24]
		g.hours = append(g.hours, sum)
	}
	return g
}

// How busy a shop is: by weekday from Sunday, and by local hour.
var (
	dayShape  = [7]float64{0.5, 0.8, 0.85, 0.9, 1.0, 1.3, 1.6}
	hourShape = [24]float64{
		0.02, 0.01, 0.01, 0.01, 0.02, 0.05, 0.2, 0.5, 0.9, 1.1, 1.3, 1.6,
		1.9, 1.5, 1.2, 1.2, 1.5, 2.0, 2.1, 1.5, 0.9, 0.5, 0.2, 0.05,
	}
)

var roles = []string{"cashier", "cashier", "cashier", "cashier", "manager", "accountant", "support"}

// people makes the accounts with their staff, and the calls by which clients
// introduce them: a group call for each account, an identify call for each
// person.
func (g *generator) people() {
	sum := 0.0
	for i := range g.cfg.Accounts {
		staff, stores := 2+g.rng.IntN(3), 1
		switch p := g.rng.Float64(); {
		case p > 0.9: // a chain
			stores = 8 + g.rng.IntN(30)
			staff = stores * 2
		case p > 0.6:
			stores = 2 + g.rng.IntN(5)
			staff = stores * 3
		}
		seats := (staff + 4) / 5 * 5 // sold in packs
		sum += float64(stores) * math.Exp(0.5*g.rng.NormFloat64())
		a := account{
			id:     fmt.Sprintf("%sacct-%04d", g.cfg.IDPrefix, i),
			zone:   time.Duration(g.rng.IntN(18)-8) * time.Hour,
			weight: sum,
		}
		opened := g.cfg.Start.Add(time.Duration(g.rng.IntN(3600_000)) * time.Millisecond)
		for n := range staff {
			p := person{id: fmt.Sprintf("%s-user-%03d", a.id, n), role: roles[g.rng.IntN(len(roles))]}
			a.staff = append(a.staff, p)
		}
		g.accounts = append(g.accounts, a)
		for n, p := range a.staff {
			at := opened.Add(time.Duration(n) * time.Second)
			if g.rng.Float64() < 0.3 {
				g.add(i, Event{Kind: kindIdentify, User: p.id, Account: a.id, Role: p.role, Time: at, Props: fmt.Sprintf(`{"name":"Person %d","email":"%s@example.test"}`, n, p.id)})
			}
			if n == 0 || g.rng.Float64() < 0.2 {
				g.add(i, Event{Kind: kindGroup, User: p.id, Account: a.id, Role: p.role, Time: at.Add(500 * time.Millisecond), Props: fmt.Sprintf(`{"name":"Shop %d","stores":%d,"plan":"%s","seats":%d,"renewal_date":"%s","contract_value":%d}`,
					i, stores, pick(g.rng, []string{"free", "team", "enterprise"}), seats, g.cfg.Start.AddDate(0, 0, 7*(1+i%52)).Format(time.DateOnly), seats*seatPrice)})
			}
		}
	}
}

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// sale is one visit at a till: what is scanned, invoiced and paid, by one
// person of one account, within a few minutes.
func (g *generator) sale() {
	total := g.accounts[len(g.accounts)-1].weight
	at := g.rng.Float64() * total
	n := sort.Search(len(g.accounts), func(i int) bool { return g.accounts[i].weight >= at })
	a := &g.accounts[n]
	start := g.instant(a.zone)
	step := func() time.Time {
		start = start.Add(time.Duration(300+g.rng.IntN(9000)) * time.Millisecond)
		return start
	}
	actor := Event{Kind: kindTrack, User: pick(g.rng, a.staff).id, Account: a.id}
	track := func(name, props string) {
		e := actor
		e.Kind, e.Name, e.Time, e.Props = kindTrack, name, step(), props
		switch p := g.rng.Float64(); {
		case p < g.cfg.Alias:
			if other := aliases[name]; len(other) > 0 {
				e.Name = pick(g.rng, other)
			}
		case p < g.cfg.Alias+g.cfg.Unmapped:
			e.Name = pick(g.rng, unmapped)
		}
		g.add(n, e)
		if g.rng.Float64() < g.cfg.Bad {
			g.addBad(n, e)
		}
	}

	visitor := ""
	if g.rng.Float64() < g.cfg.Visitors {
		g.visitor++
		visitor = fmt.Sprintf("%svisitor-%06d", g.cfg.IDPrefix, g.visitor)
		actor.Anonymous, actor.User = visitor, ""
		kind, name := kindPage, "Self Checkout"
		if g.rng.IntN(3) == 0 {
			kind, name = kindScreen, "Kiosk"
		}
		e := actor
		e.Kind, e.Name, e.Time, e.Props = kind, name, step(), `{"path":"/checkout","kiosk":true}`
		g.add(n, e)
	}
	items := 1 + int(g.rng.ExpFloat64()*2.5)
	bill := 0
	for i := range items {
		cents := 50 + g.rng.IntN(9_950)
		bill += cents
		track(ItemScanned, fmt.Sprintf(`{"sku":"SKU-%05d","price":%d.%02d,"qty":%d,"store.name":"Store %d"}`, g.rng.IntN(20_000), cents/100, cents%100, 1+g.rng.IntN(3), g.rng.IntN(9)))
		if i%2 == 0 && g.rng.Float64() < 0.7 {
			// Some tills count bags and send one event for all of them.
			if g.rng.IntN(20) == 0 {
				actor.Quantity = 2 + g.rng.Int64N(9)
			}
			track(ItemBagged, `{"bag":"paper"}`)
			actor.Quantity = 0
		}
	}
	// Some of the visitors say who they are in the middle of their visit.
	if visitor != "" && g.rng.Float64() < 0.4 {
		user := fmt.Sprintf("%scustomer-%06d", g.cfg.IDPrefix, g.visitor)
		e := actor
		e.Kind, e.User, e.Time, e.Props = kindIdentify, user, step(), `{"source":"kiosk"}`
		if g.rng.IntN(3) == 0 {
			e.Kind, e.Previous, e.Anonymous, e.Props = kindAlias, visitor, "", ""
		}
		g.add(n, e)
		actor.User = user
		if g.rng.IntN(2) == 0 {
			actor.Anonymous = ""
		}
		track(LoyaltyOptIn, `{"program":"gold"}`)
	}
	invoice := g.rng.IntN(1_000_000)
	track(ItemInvoiced, fmt.Sprintf(`{"invoice":"INV-%06d","items":%d}`, invoice, items))
	track(InvoiceGenerated, fmt.Sprintf(`{"invoice":"INV-%06d","total":%d.%02d}`, invoice, bill/100, bill%100))
	if g.rng.Float64() < 0.6 {
		track(InvoicePrinted, fmt.Sprintf(`{"invoice":"INV-%06d","printer":%d}`, invoice, g.rng.IntN(4)))
	}
	track(PaymentReceived, fmt.Sprintf(`{"method":"%s","amount":%d.%02d}`, pick(g.rng, []string{"card", "cash", "wallet"}), bill/100, bill%100))
	if g.rng.Float64() < 0.04 {
		track(RefundProcessed, fmt.Sprintf(`{"invoice":"INV-%06d","reason":"return"}`, invoice))
	}
	if visitor == "" && g.rng.Float64() < 0.03 {
		track(LoyaltyOptIn, `{"program":"silver"}`)
	}
	if g.rng.Float64() < 0.02 {
		actor = Event{Account: a.id} // the account's own: its till closes by itself
		track(PaymentReceived, `{"method":"settlement"}`)
	}
}

// instant draws when a sale begins: by the daily and weekly rhythm of a shop in
// its own time zone, folded into the days of the plan.
func (g *generator) instant(zone time.Duration) time.Time {
	at := g.rng.Float64() * g.hours[len(g.hours)-1]
	h := sort.Search(len(g.hours), func(i int) bool { return g.hours[i] >= at })
	span := time.Duration(g.cfg.Days) * 24 * time.Hour
	d := time.Duration(h)*time.Hour + time.Duration(g.rng.IntN(3600_000))*time.Millisecond - zone
	// Ten minutes are left for the sale itself, so that it ends within the days.
	return g.cfg.Start.Add((((d%span + span) % span) * 99 / 100).Truncate(time.Millisecond))
}

func (g *generator) messageID() string {
	g.serial++
	return fmt.Sprintf("%smsg-%08x-%016x", g.cfg.IDPrefix, g.serial, g.rng.Uint64())
}

func (g *generator) add(source int, e Event) {
	e.MessageID = g.messageID()
	sendAt := e.Time
	if g.rng.Float64() < g.cfg.Late {
		sendAt = sendAt.Add(time.Duration(1+g.rng.IntN(30)) * time.Hour)
	}
	if e.Bad == nil {
		g.good++
	}
	g.events = append(g.events, e)
	g.sendAt = append(g.sendAt, sendAt)
	g.source = append(g.source, int32(source))
}

func (g *generator) addBad(source int, like Event) {
	b := &badKinds[g.rng.IntN(len(badKinds))]
	e := like
	e.Bad, e.Quantity = b, 0
	g.add(source, e)
}

// pack puts the events into requests: each account's client gathers a batch and
// sends it when it is full or two hours old; some calls go alone. Then come
// what goes wrong between client and gateway: repeats, resends, other orders.
func (g *generator) pack() []Request {
	order := make([]int32, len(g.events))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return g.sendAt[a].Compare(g.sendAt[b]) })

	type timed struct {
		at  time.Time
		seq int
		Request
	}
	var out []timed
	send := func(at time.Time, r Request) { out = append(out, timed{at, len(out), r}) }
	type open struct {
		events []int32
		since  time.Time
		size   int
	}
	clients := make([]open, slices.Max(g.source)+1)
	flush := func(c *open, at time.Time) {
		if len(c.events) > 0 {
			send(at, Request{Path: pathBatch, Events: c.events})
		}
		*c = open{}
	}
	var recent []int32
	for _, i := range order {
		e, at := &g.events[i], g.sendAt[i]
		if e.Bad == nil && g.rng.Float64() < g.cfg.Single {
			send(at, Request{Path: pathCall + e.Kind, Events: []int32{i}})
			continue
		}
		c := &clients[g.source[i]]
		if len(c.events) > 0 && at.Sub(c.since) > 2*time.Hour {
			flush(c, at)
		}
		if len(c.events) == 0 {
			c.since, c.size = at, 1+g.rng.IntN(g.cfg.BatchMax)
		}
		c.events = append(c.events, i)
		recent = append(recent, i)
		// The same message again, later and in other company. A bad one is
		// not repeated: what is rejected is rejected each time it comes.
		if g.rng.Float64() < g.cfg.Repeat {
			again := recent[max(0, len(recent)-200):]
			j := pick(g.rng, again)
			if g.events[j].Bad == nil {
				c := &clients[g.source[j]]
				if len(c.events) == 0 {
					c.since, c.size = at, 1+g.rng.IntN(g.cfg.BatchMax)
				}
				c.events = append(c.events, j)
			}
		}
		if len(c.events) >= c.size {
			flush(c, at)
		}
	}
	end := g.cfg.Start.AddDate(0, 0, g.cfg.Days)
	for n := range clients {
		flush(&clients[n], end.Add(time.Duration(n)*time.Second))
	}
	for n := range out { // out grows; the resent ones are not looked at again
		r := out[n]
		if g.rng.Float64() < g.cfg.Reordered {
			out[n].at = r.at.Add(time.Duration(g.rng.IntN(7200)) * time.Second)
		}
		if g.rng.Float64() < g.cfg.Resend {
			send(r.at.Add(time.Duration(g.rng.IntN(600))*time.Second), r.Request)
		}
	}
	slices.SortFunc(out, func(a, b timed) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return cmp.Compare(a.seq, b.seq)
	})
	requests := make([]Request, len(out))
	for n := range out {
		requests[n] = out[n].Request
	}
	return requests
}
