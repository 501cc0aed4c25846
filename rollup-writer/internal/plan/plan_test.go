package plan

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
)

var (
	cases = flag.Int("plan.cases", 15_000, "cases of the property test")
	seed  = flag.Uint64("plan.seed", 1, "seed of the property test")
)

// thing is one event, or an order, of a random block.
type thing struct {
	at    int64
	app   string
	hour  uint32
	time  int64               // of the event, microseconds
	was   columns.Attribution // as it was stamped, or as the base has it
	is    columns.Attribution // as the orders leave it: the oracle's
	n     int64               // events under it: more than one only in the base
	order *Order
}

// world makes few values, so that moves meet.
type world struct{ *rand.Rand }

func (w world) of(values ...string) string { return values[w.IntN(len(values))] }

func (w world) attribution() columns.Attribution {
	return columns.Attribution{
		AccountID: w.of("", "x"), AccountSource: w.of("none", "membership"), ActorID: w.of("", "a", "b", "c"), ActorKind: w.of("user", "anonymous"),
		UserID: w.of("", "u"), AnonymousID: w.of("", "a"), FeatureID: w.of("f", "g"), ModuleID: w.of("m", "n"), Event: w.of("e", "d"),
	}
}

// some names a few of a's values.
func (w world) some(likely int) event.Attribution {
	var out event.Attribution
	a := w.attribution()
	for i, field := range fieldsOf(&out) {
		if w.IntN(10) < likely {
			v := *columns.AttributionColumns[i].Of(&a)
			*field = &v
		}
	}
	if w.IntN(10) < 7 { // most moves name an actor
		v := a.ActorID
		out.ActorID = &v
	}
	if out == (event.Attribution{}) {
		v := a.ActorKind
		out.ActorKind = &v
	}
	return out
}

func fieldsOf(a *event.Attribution) []**string {
	v := reflect.ValueOf(a).Elem()
	out := make([]**string, v.NumField())
	for i := range out {
		out[i] = v.Field(i).Addr().Interface().(**string)
	}
	return out
}

func (w world) order(at int64) *Order {
	o := &Order{AppID: w.of("dev", "prod"), Offset: at}
	for range 1 + w.IntN(3) {
		m := event.Move{Match: w.some(2), Set: w.some(3)}
		if m.Set.AnonymousID != nil {
			m.Set.AnonymousID = text("")
		}
		if w.IntN(4) == 0 {
			m.From = event.Micros(1+w.IntN(3*3600)) * 1_000_000
		}
		if w.IntN(4) == 0 {
			m.To = m.From + event.Micros(1+w.IntN(2*3600))*1_000_000 + event.Micros(w.IntN(2))
		}
		o.Moves = append(o.Moves, m)
	}
	return o
}

// block makes the base and the log behind it.
func (w world) block() (base, log []thing) {
	row := func(at int64) thing {
		a := w.attribution()
		time := int64(w.IntN(4*3600))*1_000_000 + int64(w.IntN(2))
		return thing{at: at, app: w.of("dev", "prod"), hour: uint32(time / 3_600_000_000 * 3600), time: time, was: a, is: a, n: 1}
	}
	seen := map[string]bool{}
	for range w.IntN(12) {
		t := row(Base)
		t.n = 1 + int64(w.IntN(5))
		if key := fmt.Sprint(t.app, t.time, t.was); !seen[key] {
			seen[key] = true
			base = append(base, t)
		}
	}
	at := int64(w.IntN(5))
	for range w.IntN(14) {
		if w.IntN(2) == 0 {
			log = append(log, row(at))
		} else {
			log = append(log, thing{at: at, order: w.order(at)})
		}
		at += int64(1 + w.IntN(2))
	}
	return base, log
}

// naive carries out the orders one after the other, each over everything that
// there is. It knows nothing of how the planner does it.
func naive(base, log []thing) {
	there := make([]*thing, 0, len(base)+len(log))
	for i := range base {
		there = append(there, &base[i])
	}
	for i := range log {
		if log[i].order == nil {
			there = append(there, &log[i])
			continue
		}
		o := log[i].order
		for _, t := range there {
			if t.app != o.AppID {
				continue
			}
			for m := range o.Moves {
				if naiveMatch(&o.Moves[m], t) {
					v := reflect.ValueOf(&t.is).Elem()
					to := reflect.ValueOf(o.Moves[m].Set)
					for f := range to.NumField() {
						if p := to.Field(f).Interface().(*string); p != nil {
							v.FieldByName(to.Type().Field(f).Name).SetString(*p)
						}
					}
					break
				}
			}
		}
	}
}

func naiveMatch(m *event.Move, t *thing) bool {
	start := int64(t.hour) * 1_000_000
	if m.Match.AnonymousID != nil && *m.Match.AnonymousID != "" {
		start = t.time
	}
	if m.From != 0 && start < m.From || m.To != 0 && start >= m.To {
		return false
	}
	match, have := reflect.ValueOf(m.Match), reflect.ValueOf(t.is)
	for f := range match.NumField() {
		if p := match.Field(f).Interface().(*string); p != nil && have.FieldByName(match.Type().Field(f).Name).String() != *p {
			return false
		}
	}
	return true
}

type cell struct {
	app  string
	hour uint32
	columns.Attribution
}

// Net rows are what carrying out one order after the other gives, each event is
// led to its attribution of today by the pairs behind it, and no row moves that
// need not be read.
func TestPlanAgreesWithOneOrderAfterTheOther(t *testing.T) {
	n := *cases
	if testing.Short() {
		n /= 10
	}
	moved, chains, wide, parts := 0, 0, 0, 0
	for i := range n {
		w := world{rand.New(rand.NewPCG(*seed, uint64(i)))}
		base, log := w.block()
		fail := func(format string, args ...any) {
			t.Helper()
			t.Fatalf("-plan.seed=%d, case %d: %s\nbase %+v\nlog %+v", *seed, i, fmt.Sprintf(format, args...), base, log)
		}
		var orders Orders
		for _, l := range log {
			if l.order != nil {
				orders.Add(*l.order)
			}
		}
		naive(base, log)
		wide += len(orders.Wide())

		// The rows, in any order, gathered in portions of any size.
		rows := append(append([]thing(nil), base...), log...)
		w.Shuffle(len(rows), func(a, b int) { rows[a], rows[b] = rows[b], rows[a] })
		var gathered Pairs
		var pairs []Pair
		portion := 1 + w.IntN(10)
		got, want := map[cell]int64{}, map[cell]int64{}
		for _, l := range rows {
			if l.order != nil {
				continue
			}
			got[cell{l.app, l.hour, l.was}] += l.n
			want[cell{l.app, l.hour, l.is}] += l.n
			if !mustBeRead(&orders, &l) {
				if l.was != l.is {
					fail("row %+v moves and would not be read", l)
				}
				continue
			}
			r := Row{AppID: l.app, From: l.at, Signed: columns.Signed{Attribution: l.was, Hour: l.hour, Events: l.n, Quantity: 2 * l.n}}
			if order, splits := orders.Splits(&r); splits && orders.At(order).AppID != l.app {
				fail("order %d splits row %+v", order, l)
			} else if splits || w.IntN(2) == 0 { // a row that splits must be followed in parts
				r.Part = orders.PartOf(VisitorHour{l.app, l.was.AnonymousID, l.hour}, l.time)
				if !r.Part.Has(l.time) {
					fail("row %+v is not in its part %+v", l, r.Part)
				}
			}
			if r.Part.To != 0 {
				parts++
			}
			gathered.Follow(&orders, &r)
			if gathered.Len() >= portion {
				pairs = append(pairs, gathered.List()...)
				gathered.Reset()
			}
		}
		pairs = append(pairs, gathered.List()...)
		for _, p := range pairs {
			app := orders.At(p.Order).AppID
			if p.Old == p.New || p.Events <= 0 || p.Quantity != 2*p.Events {
				fail("pair %+v", p)
			}
			got[cell{app, p.Hour, p.Old}] -= p.Events
			got[cell{app, p.Hour, p.New}] += p.Events
		}
		for _, c := range []map[cell]int64{got, want} {
			for k, v := range c {
				if got[k] != want[k] {
					fail("cell %+v: got %d, want %d", k, v, want[k])
				}
			}
		}
		for _, l := range rows {
			if l.order != nil {
				continue
			}
			if now, steps := resolve(&orders, pairs, &l); now != l.is {
				fail("event %+v is resolved to %+v", l, now)
			} else if steps > 0 {
				moved++
				chains += steps - 1
			}
		}
	}
	if moved < n || chains < n/10 || wide < n/10 || parts < n/20 {
		t.Errorf("%d cases moved %d rows, %d of them on, with %d apps of wide moves and %d parts of hours: too few to tell anything", n, moved, chains, wide, parts)
	}
}

// mustBeRead says whether the writer reads a row: by its actor, or because a move
// that names none matches it.
func mustBeRead(o *Orders, l *thing) bool {
	if o.Names(Actor{l.app, l.was.ActorID}) {
		return o.Moved(l.app, l.was.ActorID)
	}
	was := *l
	was.is = l.was
	for _, m := range o.Wide()[l.app] {
		if naiveMatch(m, &was) {
			return true
		}
	}
	return false
}

// resolve gives an event the attribution that it counts for today, as readers of
// corrections do: it takes, in the order of the log, each move behind it that
// names the attribution that it has by then.
func resolve(o *Orders, pairs []Pair, l *thing) (columns.Attribution, int) {
	now, at, steps := l.was, l.at, 0
	for {
		next := -1
		for i, p := range pairs {
			if offset := o.At(p.Order).Offset; offset > at && p.Hour == l.hour && p.Part.Has(l.time) && p.Old == now && o.At(p.Order).AppID == l.app &&
				(next < 0 || offset < o.At(pairs[next].Order).Offset) {
				next = i
			}
		}
		if next < 0 {
			return now, steps
		}
		now, at = pairs[next].New, o.At(pairs[next].Order).Offset
		steps++
	}
}

func text(s string) *string { return &s }

// A link, an unlink and a remap of the same block, by hand.
func TestPlanByHand(t *testing.T) {
	var o Orders
	o.Add(Order{AppID: "dev", Offset: 5, Moves: []event.Move{{
		Match: event.Attribution{ActorID: text("visitor"), ActorKind: text("anonymous")}, Set: event.Attribution{ActorID: text("u"), ActorKind: text("user"), UserID: text("u")},
	}}})
	o.Add(Order{AppID: "dev", Offset: 7, Moves: []event.Move{{Match: event.Attribution{FeatureID: text("f")}, Set: event.Attribution{ModuleID: text("m2")}}}})
	o.Add(Order{AppID: "dev", Offset: 9, Moves: []event.Move{{
		Match: event.Attribution{ActorID: text("u"), UserID: text("u")}, Set: event.Attribution{ActorID: text("visitor"), ActorKind: text("anonymous"), UserID: text("")},
	}}})
	visitor := columns.Attribution{ActorID: "visitor", ActorKind: "anonymous", FeatureID: "f", ModuleID: "m1"}
	user := columns.Attribution{ActorID: "u", ActorKind: "user", UserID: "u", FeatureID: "f", ModuleID: "m1"}
	with := func(a columns.Attribution, module string) columns.Attribution { a.ModuleID = module; return a }
	var p Pairs
	for _, r := range []Row{
		{AppID: "dev", From: Base, Signed: columns.Signed{Attribution: visitor, Hour: 3600, Events: 4, Quantity: 8}},
		{AppID: "dev", From: 4, Signed: columns.Signed{Attribution: visitor, Hour: 3600, Events: 1, Quantity: 1}}, // before all of them
		{AppID: "dev", From: 6, Signed: columns.Signed{Attribution: visitor, Hour: 3600, Events: 1, Quantity: 1}}, // behind the link
		{AppID: "prod", From: Base, Signed: columns.Signed{Attribution: visitor, Hour: 3600, Events: 1, Quantity: 1}},
		{AppID: "dev", From: 8, Signed: columns.Signed{Attribution: user, Hour: 7200, Events: 1, Quantity: 1}},
		{AppID: "dev", From: 9, Signed: columns.Signed{Attribution: user, Hour: 7200, Events: 1, Quantity: 1}},
	} {
		p.Follow(&o, &r)
	}
	want := []Pair{
		{Order: 0, Hour: 3600, Old: visitor, New: user, Events: 5, Quantity: 9},
		{Order: 1, Hour: 3600, Old: user, New: with(user, "m2"), Events: 5, Quantity: 9},
		{Order: 2, Hour: 3600, Old: with(user, "m2"), New: with(visitor, "m2"), Events: 5, Quantity: 9},
		{Order: 1, Hour: 3600, Old: visitor, New: with(visitor, "m2"), Events: 1, Quantity: 1},
		{Order: 2, Hour: 7200, Old: user, New: visitor, Events: 1, Quantity: 1},
	}
	if !reflect.DeepEqual(p.List(), want) {
		t.Errorf("got\n%+v\nwant\n%+v", p.List(), want)
	}
	if got := o.Named(); len(got) != 2 || !o.Names(Actor{"dev", "visitor"}) || !o.Names(Actor{"dev", "u"}) || o.Names(Actor{"prod", "u"}) {
		t.Errorf("named: %v", got)
	}
	if got := o.Wide(); len(got) != 1 || len(got["dev"]) != 1 {
		t.Errorf("wide: %v", got)
	}
	o.Reset()
	if o.Len() != 0 || o.Moved("dev", "u") {
		t.Error("orders are left after Reset")
	}
}

// A block of many links, each of a visitor with some events of the block and
// some before it.
func BenchmarkFollow(b *testing.B) {
	const links = 1000
	var o Orders
	rows := make([]Row, 0, 20*links)
	for i := range links {
		id := fmt.Sprintf("visitor-%d", i)
		user := fmt.Sprintf("user-%d", i)
		o.Add(Order{AppID: "dev", Offset: int64(100 + 50*i), Moves: []event.Move{{
			Match: event.Attribution{ActorID: &id, ActorKind: text("anonymous"), AnonymousID: &id, UserID: text("")},
			Set:   event.Attribution{ActorID: &user, ActorKind: text("user"), UserID: &user},
		}}})
		for k := range 20 {
			a := columns.Attribution{ActorID: id, ActorKind: "anonymous", AnonymousID: id, FeatureID: fmt.Sprint(k % 5), Event: "e"}
			rows = append(rows, Row{AppID: "dev", From: int64(k) - 10, Signed: columns.Signed{Attribution: a, Hour: uint32(3600 * (k % 3)), Events: 1, Quantity: 1}})
		}
	}
	b.ReportAllocs()
	var p Pairs
	for range b.N {
		for i := range rows {
			r := rows[i]
			p.Follow(&o, &r)
		}
		p.Reset()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(rows)), "ns/row")
}
