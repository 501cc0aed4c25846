package loadgen

import (
	"time"
)

// Row is what `events` has to hold of one message.
type Row struct {
	Kind, Event       string
	Actor, ActorKind  string
	Account           string
	Role              string
	Feature           string
	Module            string
	Product           string
	EventTime         int64 // microseconds
	Quantity          int64
	UserID, Anonymous string
}

// Kinds of actors.
const (
	actorUser      = "user"
	actorAnonymous = "anonymous"
	actorAccount   = "account"
)

// Whom is who an event counts for.
type Whom struct{ Actor, ActorKind, Account, Role string }

// Attribution says of each stored event whom it counts for in the end, when all
// of them have been worked through. It must not depend on their order: a plan
// holds nothing whose right answer does.
type Attribution func(stored []*Event) []Whom

// AsNamed attributes an event to the account that it names, and to its user,
// else its anonymous id.
func AsNamed(stored []*Event) []Whom {
	out := make([]Whom, len(stored))
	for i, e := range stored {
		switch {
		case e.User != "":
			out[i] = Whom{e.User, actorUser, e.Account, ""}
		case e.Anonymous != "":
			out[i] = Whom{e.Anonymous, actorAnonymous, e.Account, ""}
		default:
			out[i] = Whom{"", actorAccount, e.Account, ""}
		}
	}
	return out
}

// Count is how often something has to be there. Both are equal unless the fate
// of an attempt is unknown.
type Count struct{ Min, Max int }

// RejectedKey is what rejections are counted by: the reason, and the event's
// bytes as they were sent.
type RejectedKey struct{ Code, Original string }

// Oracle knows what has to be in ClickHouse for an app, from the plans that
// were sent and what was acked of them.
type Oracle struct {
	App         string
	Attribution Attribution
	// Prefix narrows the comparison to ids that start with it, as those of a
	// plan do: its events and cells all name an account. Empty: the whole app.
	Prefix string

	acked    map[string]*Event // by message id: must be there
	unknown  map[string]*Event // tried and never acked: may be there, once
	rejected map[RejectedKey]Count
}

// NewOracle returns an oracle that expects an empty app.
func NewOracle(app string, a Attribution) *Oracle {
	return &Oracle{
		App: app, Attribution: a,
		acked: map[string]*Event{}, unknown: map[string]*Event{}, rejected: map[RejectedKey]Count{},
	}
}

// Add tells the oracle what became of a plan. It keeps references into p. The
// plans of one oracle differ in their IDPrefix.
func (o *Oracle) Add(p *Plan, l *Ledger) {
	for n := range p.Requests {
		got := l.Outcome(n)
		if got.Attempts == 0 {
			continue
		}
		seen := map[int32]bool{}
		for _, i := range p.Requests[n].Events {
			e := &p.Events[i]
			if e.Bad != nil {
				key := RejectedKey{e.Bad.Code, string(p.AppendEvent(nil, i))}
				c := o.rejected[key]
				c.Max += got.Attempts
				if got.Acked {
					c.Min++
				}
				o.rejected[key] = c
				continue
			}
			if seen[i] {
				continue
			}
			seen[i] = true
			switch {
			case got.Acked:
				o.acked[e.MessageID] = e
				delete(o.unknown, e.MessageID)
			case o.acked[e.MessageID] == nil:
				o.unknown[e.MessageID] = e
			}
		}
	}
}

// AddRejected tells the oracle of something that has to be rejected, once.
func (o *Oracle) AddRejected(code, original string) {
	c := o.rejected[RejectedKey{code, original}]
	o.rejected[RejectedKey{code, original}] = Count{c.Min + 1, c.Max + 1}
}

// AddAcked tells the oracle of events that were acked outside a plan. It keeps
// references to them.
func (o *Oracle) AddAcked(events ...*Event) {
	for _, e := range events {
		o.acked[e.MessageID] = e
	}
}

// Usage returns how many of the acked events count in the rollups.
func (o *Oracle) Usage() int64 {
	var n int64
	for _, e := range o.acked {
		if (counted{Event: e}).usage() {
			n++
		}
	}
	return n
}

// Acked returns how many distinct good events were acked.
func (o *Oracle) Acked() int { return len(o.acked) }

// AckedIDs returns the message ids of those.
func (o *Oracle) AckedIDs() []string { return sortedKeys(o.acked) }

// Unknown returns how many were sent and never acked.
func (o *Oracle) Unknown() int { return len(o.unknown) }

// Rejected returns how many rejections of each code have to be there.
func (o *Oracle) Rejected() map[string]Count {
	out := map[string]Count{}
	for k, c := range o.rejected {
		sum := out[k.Code]
		sum.Min += c.Min
		sum.Max += c.Max
		out[k.Code] = sum
	}
	return out
}

// counted is one stored event and whom it counts for.
type counted struct {
	*Event
	Whom
	Place
}

// row returns what `events` has to hold.
func (c counted) row() Row {
	return Row{
		Kind: c.Kind, Event: c.Name, Actor: c.Actor, ActorKind: c.ActorKind, Account: c.Whom.Account, Role: c.Whom.Role,
		Feature: c.Feature, Module: c.Module, Product: c.Product,
		EventTime: c.Time.UnixMicro(), Quantity: c.quantity(), UserID: c.User, Anonymous: c.Anonymous,
	}
}

// asCounted returns a row of events with whom it counts for in the end, if the
// row has whom it counted for at first: later links, memberships and roles
// correct the rollups and leave the row as it was.
func (c counted) asCounted(r Row) Row {
	named := AsNamed([]*Event{c.Event})[0]
	if r.Actor == named.Actor && r.ActorKind == named.ActorKind {
		r.Actor, r.ActorKind = c.Actor, c.ActorKind
	}
	if r.Account == named.Account {
		r.Account = c.Whom.Account
	}
	if r.Role == named.Role {
		r.Role = c.Whom.Role
	}
	return r
}

// usage reports whether the event counts in the rollups.
func (c counted) usage() bool {
	return c.Kind == kindTrack || c.Kind == kindPage || c.Kind == kindScreen
}

func (c counted) quantity() int64 { return max(c.Quantity, 1) }

func (c counted) hour() time.Time { return c.Time.Truncate(time.Hour) }

func (c counted) day() time.Time { return c.Time.Truncate(24 * time.Hour) }

// stored returns the events that have to be there, given which of those with an
// unknown fate are.
func (o *Oracle) stored(present func(messageID string) bool) map[string]counted {
	events := make([]*Event, 0, len(o.acked))
	for _, e := range o.acked {
		events = append(events, e)
	}
	for id, e := range o.unknown {
		if present(id) {
			events = append(events, e)
		}
	}
	out := make(map[string]counted, len(events))
	for i, w := range o.Attribution(events) {
		c := counted{Event: events[i], Whom: w}
		if c.usage() {
			c.Place = PlaceOf(c.Name)
		}
		out[c.MessageID] = c
	}
	return out
}

// Counted returns what has to count of the acked events, in no order: whom and what each
// counts for once every link, membership and role is known.
func (o *Oracle) Counted() []Row {
	var rows []Row
	for _, c := range o.stored(func(string) bool { return false }) {
		if c.usage() {
			rows = append(rows, c.row())
		}
	}
	return rows
}
