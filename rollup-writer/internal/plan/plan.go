// Package plan follows rows through a block's orders: it finds which of the events that
// a partition has counted so far each control record moves, and to which attribution.
//
// It is pure. The caller supplies what is counted: the rows of the base rollup before
// the block, and the rows of the block itself, each with the offset from which it
// counts. Reading them, and writing the result, belong to package rollup.
//
// # Rows move independently
//
// A control record looks at each row by itself: it moves the row by the first of its
// moves that matches, and never by two. So the final attribution of a row is a function
// of its attribution, its hour and the control records after it, and of no other row.
// The package follows one row after the other through the block, in any order and in
// bounded memory. A row that no move matches in its present attribution is not moved at
// all: it need not be read.
//
// A move by instants (event.Move.ByInstant) may move a part of what a visitor did in an
// hour. Such a row is followed in parts, each between two instants at which a move of
// the block begins or ends (PartOf): all events of a part get the same attribution.
// Where the caller cannot tell the parts, the row is followed whole, and the start of
// its hour decides.
//
// The results are pairs: at this offset, so much of the old attribution became the new
// one. They add up to the net change of the base rollup, and in the order of the log
// they also tell for each event whom it counts for today.
package plan

import (
	"slices"

	"github.com/uptakehq/uptake/rollup-writer/internal/columns"
	"github.com/uptakehq/uptake/schemas/event"
)

// Order is a control record with moves.
type Order struct {
	AppID  string
	Offset int64
	ID     string // ControlID
	Reason string // JSON text for people; empty: none
	Moves  []event.Move
}

// Actor is an actor that a move names.
type Actor struct{ AppID, ActorID string }

// Base is the offset of rows that were counted before the block: every order of the
// block applies to them.
const Base int64 = -1

// Orders are the orders of one block, in the order of the log. The zero value is ready
// for use.
type Orders struct {
	list  []Order
	index map[name][]place // in the order of the log
	apps  map[string]bool  // whether any of the app's moves names no actor
	cuts  map[VisitorHour]*cuts
}

// VisitorHour is what a visitor did in an hour.
type VisitorHour struct {
	AppID, AnonymousID string
	Hour               uint32 // seconds since the epoch
}

// cuts are the instants within an hour at which moves of a visitor begin or end.
type cuts struct {
	order int     // the first order that names one
	at    []int64 // in order, microseconds since the epoch
}

// name is the value by which a move is indexed: the actor that it matches, else the
// feature, else none.
type name struct {
	app, value string
	kind       nameKind
}

type nameKind uint8

const (
	byActor nameKind = iota
	byFeature
	byNothing
	nameKinds
)

func nameOf(app string, m *event.Attribution) name {
	switch {
	case m.ActorID != nil:
		return name{app, *m.ActorID, byActor}
	case m.FeatureID != nil:
		return name{app, *m.FeatureID, byFeature}
	}
	return name{app, "", byNothing}
}

// place identifies a move: the index of its order, and its index in the order.
type place struct{ order, move int }

// Add takes the next order of the log. The strings of o are kept.
func (o *Orders) Add(order Order) {
	if o.index == nil {
		o.index, o.apps, o.cuts = map[name][]place{}, map[string]bool{}, map[VisitorHour]*cuts{}
	}
	n := len(o.list)
	o.list = append(o.list, order)
	for i := range order.Moves {
		k := nameOf(order.AppID, &order.Moves[i].Match)
		o.index[k] = append(o.index[k], place{n, i})
		if k.kind != byActor {
			o.apps[order.AppID] = true
		}
		if m := &order.Moves[i]; m.ByInstant() {
			o.cut(n, order.AppID, *m.Match.AnonymousID, m.From)
			o.cut(n, order.AppID, *m.Match.AnonymousID, m.To)
		}
	}
}

func (o *Orders) cut(order int, app, anonymous string, at int64) {
	hour := columns.HourOf(at)
	if at == 0 || at == int64(hour)*microsPerSecond {
		return
	}
	v := VisitorHour{app, anonymous, hour}
	c := o.cuts[v]
	if c == nil {
		c = &cuts{order: order}
		o.cuts[v] = c
	}
	if i, found := slices.BinarySearch(c.at, at); !found {
		c.at = slices.Insert(c.at, i, at)
	}
}

// PartOf is the part of the hour that an instant of it lies in.
func (o *Orders) PartOf(v VisitorHour, at int64) columns.Part {
	c := o.cuts[v]
	if v.AnonymousID == "" || c == nil {
		return columns.Part{}
	}
	start := int64(v.Hour) * microsPerSecond
	p := columns.Part{From: start, To: start + 3600*microsPerSecond}
	i, found := slices.BinarySearch(c.at, at)
	if found {
		i++ // a part begins there
	}
	if i > 0 {
		p.From = c.at[i-1]
	}
	if i < len(c.at) {
		p.To = c.at[i]
	}
	return p
}

// Reset forgets all orders.
func (o *Orders) Reset() {
	clear(o.list)
	o.list = o.list[:0]
	clear(o.index)
	clear(o.apps)
	clear(o.cuts)
}

// Len is how many orders there are.
func (o *Orders) Len() int { return len(o.list) }

// At returns an order by its number.
func (o *Orders) At(n int) *Order { return &o.list[n] }

// Named lists the actors that moves name, in no particular order. The empty actor,
// which stands for everything that accounts did themselves and for erased persons, is
// not among them.
func (o *Orders) Named() []Actor {
	var list []Actor
	for k := range o.index {
		if k.kind == byActor && k.value != "" {
			list = append(list, Actor{k.app, k.value})
		}
	}
	return list
}

// Names reports whether a is one of Named.
func (o *Orders) Names(a Actor) bool {
	return a.ActorID != "" && len(o.index[name{a.AppID, a.ActorID, byActor}]) > 0
}

// Wide returns, by app, the moves that no actor of Named narrows down, in the order of
// the log. They may match any number of rows.
func (o *Orders) Wide() map[string][]*event.Move {
	wide := map[string][]*event.Move{}
	for i := range o.list {
		for k := range o.list[i].Moves {
			m := &o.list[i].Moves[k]
			if m.Match.ActorID == nil || *m.Match.ActorID == "" {
				wide[o.list[i].AppID] = append(wide[o.list[i].AppID], m)
			}
		}
	}
	return wide
}

// Moved reports whether any order may move a row of the app and actor; it is a quick
// check before Follow.
func (o *Orders) Moved(app, actor string) bool {
	return o.apps[app] || len(o.index[name{app, actor, byActor}]) > 0
}

// Row is what is counted under one key of the base rollup from an offset on, or a
// part of that.
type Row struct {
	AppID string
	From  int64 // offset, or Base
	columns.Signed
}

// Follow calls moved for each change of the row's attribution, in the order of the log,
// with the index of the order. r.Attribution ends as the last one.
func (o *Orders) Follow(r *Row, moved func(order int, old *columns.Attribution)) {
	for next := o.after(r.From); ; next++ { // next is the first order that may move the row
		// The moves that may match the row's present attribution.
		lists := [nameKinds][]place{
			o.index[name{r.AppID, r.ActorID, byActor}], o.index[name{r.AppID, r.FeatureID, byFeature}], o.index[name{r.AppID, "", byNothing}],
		}
		order := len(o.list)
		for i, list := range lists {
			if lists[i] = list[from(list, next):]; len(lists[i]) > 0 {
				order = min(order, lists[i][0].order)
			}
		}
		if order == len(o.list) {
			return
		}
		if m := o.first(order, lists, &r.Signed); m != nil {
			old := r.Attribution
			set(&r.Attribution, &m.Set)
			if r.Attribution != old {
				moved(order, &old)
			}
		}
		next = order
	}
}

// first returns the first move of an order that matches a row, nil if none does. The
// lists begin with moves of that order or of later ones.
func (o *Orders) first(order int, lists [nameKinds][]place, s *columns.Signed) *event.Move {
	for {
		least := -1
		for i, list := range lists {
			if len(list) > 0 && list[0].order == order && (least < 0 || list[0].move < lists[least][0].move) {
				least = i
			}
		}
		if least < 0 {
			return nil
		}
		m := &o.list[order].Moves[lists[least][0].move]
		if matches(m, s) {
			return m
		}
		lists[least] = lists[least][1:]
	}
}

// after returns the index of the first order after an offset.
func (o *Orders) after(offset int64) int {
	n, _ := slices.BinarySearchFunc(o.list, offset+1, func(a Order, at int64) int {
		switch {
		case a.Offset < at:
			return -1
		case a.Offset > at:
			return 1
		}
		return 0
	})
	return n
}

// Splits reports whether the parts of a row's hour do not all end where the row
// would end as a whole, and the number of the first order that cuts the hour.
func (o *Orders) Splits(r *Row) (order int, is bool) {
	v := VisitorHour{r.AppID, r.AnonymousID, r.Hour}
	c := o.cuts[v]
	if r.AnonymousID == "" || c == nil {
		return 0, false
	}
	end := func(p columns.Part) columns.Attribution {
		part := *r
		part.Part = p
		o.Follow(&part, func(int, *columns.Attribution) {})
		return part.Attribution
	}
	whole := end(columns.Part{})
	for i := range len(c.at) + 1 {
		at := int64(v.Hour) * microsPerSecond
		if i > 0 {
			at = c.at[i-1]
		}
		if end(o.PartOf(v, at)) != whole {
			return c.order, true
		}
	}
	return 0, false
}

// from is the index of the first of places whose order is not below n.
func from(places []place, n int) int {
	i, _ := slices.BinarySearchFunc(places, n, func(p place, n int) int {
		if p.order < n {
			return -1
		}
		return 1
	})
	return i
}

const microsPerSecond = 1_000_000

// matches reports whether a row matches m.
func matches(m *event.Move, s *columns.Signed) bool {
	at := int64(s.Hour) * microsPerSecond
	if m.ByInstant() && s.Part.To != 0 {
		at = s.Part.From
	}
	if (m.From != 0 && at < m.From) || (m.To != 0 && at >= m.To) {
		return false
	}
	for i := range columns.AttributionColumns {
		c := &columns.AttributionColumns[i]
		if want := c.Named(&m.Match); want != nil && *want != *c.Of(&s.Attribution) {
			return false
		}
	}
	return true
}

// set overwrites the fields that to names.
func set(a *columns.Attribution, to *event.Attribution) {
	for i := range columns.AttributionColumns {
		c := &columns.AttributionColumns[i]
		if v := c.Named(to); v != nil {
			*c.Of(a) = *v
		}
	}
}
