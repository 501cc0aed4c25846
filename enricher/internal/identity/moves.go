package identity

import (
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
)

// text returns a pointer to a copy of s, for the optional fields of a move: an order is
// kept longer than the record that s may point into.
func text(s string) *string {
	s = strings.Clone(s)
	return &s
}

var (
	fromNone       = text(event.AccountNone)
	fromEvent      = text(event.AccountFromEvent)
	fromMembership = text(event.AccountFromMembership)
	kindUser       = text(event.ActorUser)
	kindAnonymous  = text(event.ActorAnonymous)
	kindErased     = text(event.ActorErased)
	nothing        = text("")
)

// Causes of corrections.
const (
	causeClaim      = "claim"
	causeAlias      = "alias"
	causeMembership = "membership"
	causeUnlink     = "unlink"
	causeErase      = "erase"
)

// order is a set of moves with one cause. They are applied in order, a row by the first
// that matches it; if a control record cannot hold all of them, several do, applied in
// turn. So no moved row may match a later move: every match names a field that its set
// changes.
//
// Orders are gathered in a batch: one control record with many moves is shorter than
// many records. Waiting is safe, since no event that is stamped after an order matches
// it: what an order moves away from is an attribution that no longer occurs. Only an
// unlink makes such an attribution occur again, so it never waits. Orders may share a
// control record if what one moves to is not what another moves: a row is moved once
// per record.
type order struct {
	tx     *Tx
	cause  string
	moves  []event.Move
	reason *event.Reason // an order with a reason has a record of its own
}

// batch holds the waiting orders of an app.
type batch struct {
	app    string
	moves  []event.Move
	to     map[actor]bool // actors that the moves move to
	bytes  int64          // of the moves, at most
	reason *event.Reason
}

// add adds the moves of one order, which may be applied one after the other.
func (b *batch) add(tx *Tx, moves []event.Move) {
	for _, m := range moves {
		size := moveBytes(&m)
		if most := tx.s.cfg.MaxOutputBytes; len(b.moves) == event.MaxMoves || (most > 0 && b.bytes+size > most) {
			tx.flush(b)
		}
		b.moves = append(b.moves, m)
		b.bytes += size
	}
}

// moveBytes is an upper bound of a move's size as JSON, in bytes.
func moveBytes(m *event.Move) int64 {
	n := int64(512)
	for _, a := range []*event.Attribution{&m.Match, &m.Set} {
		for _, s := range []*string{a.ActorID, a.ActorKind, a.AnonymousID, a.UserID, a.AccountID, a.AccountSource, a.Role} {
			if s != nil {
				n += 32 + 6*int64(len(*s)) // a character may become six
			}
		}
	}
	return n
}

type actor struct{ id, kind string }

func (o *order) add(match, set event.Attribution, from, to event.Micros) {
	o.tx.charge(work{moves: 1})
	o.moves = append(o.moves, event.Move{Match: match, Set: set, From: from, To: to})
}

// placed is an order of the current record.
type placed struct {
	order
	now bool // written at once, not in a batch
}

// place puts the order into the batch of its app.
func (o *order) place() { o.tx.orders = append(o.tx.orders, placed{order: *o}) }

// placeNow writes an order of an unlink at once: later events may match it.
func (o *order) placeNow() { o.tx.orders = append(o.tx.orders, placed{order: *o, now: true}) }

// settle puts the record's orders into batches.
func (tx *Tx) settle() {
	for i := range tx.orders {
		o := &tx.orders[i]
		if o.now {
			tx.flush(tx.batch(tx.src.app))
		}
		o.settle()
		if o.now {
			tx.flush(tx.batch(tx.src.app))
		}
	}
	clear(tx.orders)
	tx.orders = tx.orders[:0]
}

func (o *order) settle() {
	if len(o.moves) == 0 {
		return
	}
	tx := o.tx
	tx.count(tx.s.metrics.orders.WithLabelValues(o.cause))
	b := tx.batch(tx.src.app)
	if o.reason != nil {
		tx.flush(b)
		b.reason = o.reason
		b.add(tx, o.moves)
		tx.flush(b)
		b.reason = nil
		return
	}
	for i := range o.moves {
		if m := &o.moves[i]; b.to[actor{*m.Match.ActorID, *m.Match.ActorKind}] {
			tx.flush(b)
			break
		}
	}
	b.add(tx, o.moves)
	for i := range o.moves {
		m := &o.moves[i]
		to := actor{*m.Match.ActorID, *m.Match.ActorKind}
		if m.Set.ActorID != nil {
			to.id = *m.Set.ActorID
		}
		if m.Set.ActorKind != nil {
			to.kind = *m.Set.ActorKind
		}
		b.to[to] = true
	}
}

func (tx *Tx) batch(app string) *batch {
	for i := range tx.batches {
		if tx.batches[i].app == app {
			return tx.batches[i]
		}
	}
	b := &batch{app: strings.Clone(app), to: map[actor]bool{}}
	tx.batches = append(tx.batches, b)
	return b
}

// flush writes the control record of a batch.
func (tx *Tx) flush(b *batch) {
	if len(b.moves) == 0 {
		return
	}
	tx.out.Controls = append(tx.out.Controls, event.Control{
		Kind: event.ControlMove, AppID: b.app, ControlID: tx.controlID(b.app),
		CreatedAt: tx.src.cause.RecordedAt, Payload: mustJSON(event.Moves{Moves: b.moves, Reason: b.reason}),
	})
	tx.count(tx.s.metrics.controls)
	clear(b.moves)
	b.moves, b.bytes = b.moves[:0], 0
	clear(b.to)
}

// fill gives accounts and roles to rows that have none (rule 6), and moves all of them
// as set says; set changes a field that match names.
func (o *order) fill(match, set event.Attribution, t *timeline) {
	for _, s := range t.unnamed() {
		m, n := match, set
		m.AccountSource = fromNone
		n.AccountID, n.AccountSource, n.Role = text(s.account), fromMembership, text(s.role)
		o.add(m, n, s.from, s.to)
	}
	o.giveRoles(match, set, t)
	o.add(match, set, 0, 0)
}

// giveRoles gives roles to rows with an account and without a role, and moves them as
// set says.
func (o *order) giveRoles(match, set event.Attribution, t *timeline) {
	for _, account := range t.accounts {
		o.giveRole(match, set, text(account), t.in(account))
	}
	if t.roles {
		o.giveRole(match, set, nil, t.elsewhere())
	}
}

func (o *order) giveRole(match, set event.Attribution, account *string, spans []span) {
	for _, s := range spans {
		if s.role == "" {
			continue
		}
		m, n := match, set
		m.AccountID, m.Role = account, nothing
		n.Role = text(s.role)
		if account != nil {
			o.add(m, n, s.from, s.to)
			continue
		}
		for _, source := range []*string{fromEvent, fromMembership} {
			m.AccountSource = source
			o.add(m, n, s.from, s.to)
		}
	}
}

// moveUser moves what was counted for a user that was a root to its new root.
func (tx *Tx) moveUser(app, from string) {
	path := tx.resolve(app, from)
	t := tx.newTimeline(path, byHour)
	o := order{tx: tx, cause: causeAlias}
	o.fill(
		event.Attribution{ActorID: text(from), ActorKind: kindUser},
		event.Attribution{ActorID: text(path[len(path)-1].id)},
		&t,
	)
	o.place()
}

// fillUser gives to what was counted for a root the accounts and roles of its new
// memberships. before are its earlier memberships.
func (tx *Tx) fillUser(app, id string, before []membership) {
	path := tx.resolve(app, id)
	t := tx.newTimeline(path, byHour)
	o := order{tx: tx, cause: causeMembership}
	match := event.Attribution{ActorID: text(id), ActorKind: kindUser}
	had := tx.newTimeline(membershipNodes(id, before), byHour)
	if len(had.accounts) == 0 {
		for _, s := range t.unnamed() {
			m := match
			m.AccountSource = fromNone
			o.add(m, event.Attribution{AccountID: text(s.account), AccountSource: fromMembership, Role: text(s.role)}, s.from, s.to)
		}
	}
	for _, account := range t.accounts {
		if roleAt(had.path, account, always) == "" {
			o.giveRole(match, event.Attribution{}, text(account), t.in(account))
		}
	}
	if t.roles && !had.roles {
		o.giveRole(match, event.Attribution{}, nil, t.elsewhere())
	}
	o.place()
}

// membershipNodes returns a path of one user with these memberships.
func membershipNodes(id string, list []membership) []node {
	u := user{profile: profile{Memberships: list}}
	c := cursor(u.append(nil))
	c.str()
	c.int()
	n := node{id: id}
	if n.n = c.uint(); n.n > 0 {
		n.members = c
	}
	return []node{n}
}
