package writertest

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Entry is a record of a partition: an event, or an order of moves.
type Entry struct {
	Event *event.EnrichedEvent
	Moves event.Moves
	// Now is what the event counts for once all orders of the log are carried
	// out.
	Now columns.Attribution
}

// Mixed makes n entries of one partition, in which everything that moves events
// does so many times: visitors are linked, linked elsewhere and unlinked, users
// join accounts and leave no trace, features change their modules, persons are
// erased, orders find nothing, and orders undo each other. Every visitor and user
// belongs to the partition of that number.
func Mixed(r *rand.Rand, partition int32, prefix string, n int) []Entry {
	m := mixer{Rand: r, partition: partition, prefix: prefix}
	list := make([]Entry, n)
	for i := range list {
		if r.IntN(3) > 0 {
			list[i].Event = m.event(i)
		} else {
			list[i].Moves = m.moves()
		}
	}
	outcome(list)
	return list
}

type mixer struct {
	*rand.Rand
	partition int32
	prefix    string
}

// id is one of the few ids of a kind.
func (m mixer) id(kind string) string {
	few := 4
	if kind == "v" {
		few = 2 // so that links often cut what a device did in an hour
	}
	for k := m.IntN(few); ; k += few {
		if id := m.prefix + kind + strconv.Itoa(k); topic.Partition([]byte(id), Partitions) == m.partition%Partitions {
			return id
		}
	}
}

var mixedDay = time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)

func (m mixer) event(i int) *event.EnrichedEvent {
	after := time.Duration(m.IntN(4*3600)) * time.Second
	f := strconv.Itoa(m.IntN(3))
	e := &event.EnrichedEvent{
		AppID: "dev", Kind: event.KindTrack, Event: "Event " + f, MessageID: fmt.Sprintf("%s%d-m-%d", m.prefix, m.partition, i), FeatureID: "f-" + f, ModuleID: "m-" + f, ProductID: "p",
		AccountSource: event.AccountNone, EventTime: event.FromTime(mixedDay.Add(after)), ReceivedAt: event.FromTime(FirstReceipt.Add(after)),
		Quantity: int64(1 + m.IntN(3)), Properties: []byte(`{"sku":"x"}`),
	}
	switch m.IntN(5) {
	case 0:
		e.AnonymousID = m.id("v")
		e.ActorID, e.ActorKind = e.AnonymousID, event.ActorAnonymous
	case 1, 2:
		e.AnonymousID, e.LinkedUserID = m.id("v"), m.id("u")
		e.ActorID, e.ActorKind = e.LinkedUserID, event.ActorUser
	default:
		e.UserID = m.id("u")
		e.ActorID, e.ActorKind = e.UserID, event.ActorUser
	}
	if m.IntN(3) == 0 {
		e.AccountID, e.AccountSource, e.Role = "acct-"+strconv.Itoa(m.IntN(2)), event.AccountFromEvent, "cashier"
	}
	if m.IntN(8) == 0 {
		e.Kind = event.KindIdentify
	}
	return e
}

// instant is one at which events happen, or just beside.
func (m mixer) instant() event.Micros {
	return event.FromTime(mixedDay) + event.Micros(m.IntN(4*3600))*1_000_000 + event.Micros(m.IntN(3)-1)
}

func (m mixer) moves() event.Moves {
	user, anonymous, nothing := Ptr(event.ActorUser), Ptr(event.ActorAnonymous), Ptr("")
	one := func(match, set event.Attribution) event.Moves {
		return event.Moves{Moves: []event.Move{{Match: match, Set: set}}}
	}
	switch m.IntN(13) {
	case 10, 11: // a device changes hands within an hour, and back within another
		v, u, w := Ptr(m.id("v")), Ptr(m.id("u")), Ptr(m.id("u"))
		from := m.instant()
		to := from + event.Micros(m.IntN(7200))*1_000_000
		match := event.Attribution{ActorID: u, ActorKind: user, AnonymousID: v, UserID: u}
		set := event.Attribution{ActorID: w, UserID: w}
		first, to1 := match, set
		first.AccountSource = Ptr(event.AccountNone)
		to1.AccountID, to1.AccountSource = Ptr("acct-8"), Ptr(event.AccountFromMembership)
		if to == from {
			to = 0
		}
		return event.Moves{Moves: []event.Move{{Match: first, Set: to1, From: from, To: to}, {Match: match, Set: set, From: from, To: to}}}
	case 12: // what somebody did through a device from an instant on goes back
		v, u := Ptr(m.id("v")), Ptr(m.id("u"))
		return event.Moves{Moves: []event.Move{{
			Match: event.Attribution{AnonymousID: v, UserID: u}, Set: event.Attribution{ActorID: v, ActorKind: anonymous, UserID: nothing}, From: m.instant(),
		}}}
	case 0, 1, 2: // a visitor turns out to be a user; without account they get one
		v, u := Ptr(m.id("v")), Ptr(m.id("u"))
		match := event.Attribution{ActorID: v, ActorKind: anonymous, AnonymousID: v, UserID: nothing}
		set := event.Attribution{ActorID: u, ActorKind: user, UserID: u}
		first, to := match, set
		first.AccountSource = Ptr(event.AccountNone)
		to.AccountID, to.AccountSource, to.Role = Ptr("acct-9"), Ptr(event.AccountFromMembership), Ptr("owner")
		return event.Moves{Moves: []event.Move{{Match: first, Set: to, From: event.FromTime(mixedDay.Add(time.Duration(m.IntN(3)) * time.Hour))}, {Match: match, Set: set}}}
	case 3: // and does not, after all
		v, u := Ptr(m.id("v")), Ptr(m.id("u"))
		o := one(event.Attribution{ActorID: u, ActorKind: user, AnonymousID: v, UserID: u}, event.Attribution{ActorID: v, ActorKind: anonymous, UserID: nothing})
		o.Reason = &event.Reason{Kind: event.ReasonUnlink, IDKind: event.ActorAnonymous, ID: *v, UserID: *u, Until: 7}
		return o
	case 4: // an account becomes known for some hours
		return event.Moves{Moves: []event.Move{{
			Match: event.Attribution{ActorID: Ptr(m.id("u")), ActorKind: user, AccountSource: Ptr(event.AccountNone)},
			From:  event.FromTime(mixedDay.Add(time.Hour)), To: event.FromTime(mixedDay.Add(3 * time.Hour)),
			Set: event.Attribution{AccountID: Ptr("acct-7"), AccountSource: Ptr(event.AccountFromMembership), Role: Ptr("it's \\ a role")},
		}}}
	case 5: // a user is another one
		return one(event.Attribution{ActorID: Ptr(m.id("u")), ActorKind: user}, event.Attribution{ActorID: Ptr(m.id("u"))})
	case 6: // a feature goes to another module, or back
		f := Ptr("f-" + strconv.Itoa(m.IntN(3)))
		return event.Moves{Moves: []event.Move{
			{Match: event.Attribution{FeatureID: f, ModuleID: Ptr("m-new")}, Set: event.Attribution{ModuleID: Ptr("m-old")}},
			{Match: event.Attribution{FeatureID: f}, Set: event.Attribution{ModuleID: Ptr("m-new")}},
		}}
	case 7: // a person is erased, and then all that accounts did gets a role
		u := Ptr(m.id("u"))
		return event.Moves{Moves: []event.Move{
			{Match: event.Attribution{ActorID: u, ActorKind: user}, Set: event.Attribution{ActorID: nothing, ActorKind: Ptr(event.ActorErased), UserID: nothing, AnonymousID: nothing}},
			{Match: event.Attribution{ActorID: nothing, ActorKind: Ptr(event.ActorErased), Role: nothing}, Set: event.Attribution{Role: Ptr("none")}},
		}}
	case 8: // there and back within one order, which moves every row once
		u, v := Ptr(m.id("u")), Ptr(m.id("u"))
		return event.Moves{Moves: []event.Move{
			{Match: event.Attribution{ActorID: u, ActorKind: user}, Set: event.Attribution{ActorID: v}},
			{Match: event.Attribution{ActorID: v, ActorKind: user}, Set: event.Attribution{ActorID: u}},
		}}
	}
	return one(event.Attribution{ActorID: Ptr(m.id("w")), ActorKind: anonymous}, event.Attribution{AccountID: Ptr("nowhere")})
}

// StampedOf is the attribution under which the base rollup counts an event first.
func StampedOf(e *event.EnrichedEvent) columns.Attribution {
	a := columns.Attribution{
		AccountID: e.AccountID, AccountSource: e.AccountSource, ActorID: e.ActorID, ActorKind: e.ActorKind,
		UserID: e.UserID, FeatureID: e.FeatureID, ModuleID: e.ModuleID, ProductID: e.ProductID, Role: e.Role, Event: e.Event,
	}
	if e.UserID == "" {
		a.UserID, a.AnonymousID = e.LinkedUserID, e.AnonymousID
	}
	return a
}

// HourOf is the hour that an event counts in, in seconds.
func HourOf(e *event.EnrichedEvent) int64 {
	return event.ToTime(e.EventTime).Truncate(time.Hour).Unix()
}

// outcome carries out one order after the other, each over all events before it.
// It shares nothing with the planner.
func outcome(list []Entry) {
	for i := range list {
		if list[i].Event != nil {
			list[i].Now = StampedOf(list[i].Event)
			continue
		}
		for k := range i {
			if list[k].Event != nil {
				list[k].Carry(list[i].Moves.Moves)
			}
		}
	}
}

// carryOut moves an event by the first of moves that matches it.
func carryOut(moves []event.Move, now *columns.Attribution, start, instant int64) {
	is := reflect.ValueOf(now).Elem()
	for _, m := range moves {
		at := start
		if m.Match.AnonymousID != nil && *m.Match.AnonymousID != "" {
			at = instant
		}
		ok := (m.From == 0 || at >= m.From) && (m.To == 0 || at < m.To)
		match, set := reflect.ValueOf(m.Match), reflect.ValueOf(m.Set)
		for f := range match.NumField() {
			if want, _ := match.Field(f).Interface().(*string); want != nil && is.FieldByName(match.Type().Field(f).Name).String() != *want {
				ok = false
			}
		}
		if !ok {
			continue
		}
		for f := range set.NumField() {
			if to, _ := set.Field(f).Interface().(*string); to != nil {
				is.FieldByName(set.Type().Field(f).Name).SetString(*to)
			}
		}
		return
	}
}

// Carry moves the entry's event by the first of moves that matches what it counts for now.
func (e *Entry) Carry(moves []event.Move) {
	carryOut(moves, &e.Now, HourOf(e.Event)*1_000_000, e.Event.EventTime)
}

// SendMixed produces entries into a partition, and remembers the events for Check.
func (b *Bench) SendMixed(partition int32, list []Entry) {
	b.T.Helper()
	var values [][]byte
	for i := range list {
		if e := list[i].Event; e != nil {
			values = append(values, b.Codec.AppendEnriched(nil, e))
			b.Sent = append(b.Sent, e)
			continue
		}
		payload, err := list[i].Moves.Payload()
		if err != nil {
			b.T.Fatal(err)
		}
		values = append(values, b.Codec.AppendControl(nil, &event.Control{Kind: event.ControlMove, AppID: "dev", ControlID: fmt.Sprint("mixed-", i), CreatedAt: 1, Payload: payload}))
	}
	b.Produce(topic.Unprefixed.Enriched, partition, values...)
}

// Correct makes of an event of the list what it counts for.
func Correct(list []Entry, e *event.EnrichedEvent) {
	for i := range list {
		if list[i].Event == nil || list[i].Event.MessageID != e.MessageID {
			continue
		}
		a := &list[i].Now
		e.AccountID, e.AccountSource, e.ActorID, e.ActorKind, e.Role, e.Event = a.AccountID, a.AccountSource, a.ActorID, a.ActorKind, a.Role, a.Event
		e.FeatureID, e.ModuleID, e.ProductID = a.FeatureID, a.ModuleID, a.ProductID
	}
}
