package identity

import (
	"github.com/uptakehq/uptake/schemas/event"
)

// text returns a pointer to s, for the optional fields of a move.
func text(s string) *string { return &s }

var (
	fromNone       = text(event.AccountNone)
	fromEvent      = text(event.AccountFromEvent)
	fromMembership = text(event.AccountFromMembership)
	kindUser       = text(event.ActorUser)
	kindAnonymous  = text(event.ActorAnonymous)
	nothing        = text("")
)

// Causes of corrections.
const (
	causeClaim      = "claim"
	causeAlias      = "alias"
	causeMembership = "membership"
	causeUnlink     = "unlink"
)

// order is the moves that something leads to. They are carried out one by one,
// a row by the first that matches it; more than a control record takes become
// several, which are carried out in turn. So no row that was moved may match a
// later one: every match names something that its set changes.
type order struct {
	tx    *Tx
	cause string
	moves []event.Move
}

func (o *order) add(match, set event.Attribution, from, to event.Micros) {
	o.moves = append(o.moves, event.Move{Match: match, Set: set, From: from, To: to})
	if len(o.moves) == event.MaxMoves {
		o.flush()
	}
}

// flush writes the control record.
func (o *order) flush() {
	if len(o.moves) == 0 {
		return
	}
	tx := o.tx
	tx.out.Controls = append(tx.out.Controls, event.Control{
		Kind: event.ControlMove, AppID: tx.src.app, ControlID: tx.controlID(),
		CreatedAt: tx.src.cause.RecordedAt, Payload: mustJSON(event.Moves{Moves: o.moves}),
	})
	tx.count(tx.s.metrics.controls.WithLabelValues(o.cause))
	o.moves = o.moves[:0]
}

// fill gives accounts and roles to rows that have none (rule 6), and moves all
// of them as set says, which changes something that match names.
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

// giveRoles gives roles to rows that have an account and no role, and moves them
// as set says.
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

// moveAnonymous moves what was counted for an anonymous id to a user.
func (tx *Tx) moveAnonymous(app, anonymousID, userID string) {
	path := tx.resolve(app, userID)
	t := newTimeline(path)
	o := order{tx: tx, cause: causeClaim}
	o.fill(
		event.Attribution{ActorID: text(anonymousID), ActorKind: kindAnonymous, AnonymousID: text(anonymousID), UserID: nothing},
		event.Attribution{ActorID: text(path[len(path)-1].id), ActorKind: kindUser, UserID: text(userID)},
		&t,
	)
	o.flush()
}

// moveUser moves what was counted for a user that was a root to its new root.
func (tx *Tx) moveUser(app, from string) {
	path := tx.resolve(app, from)
	t := newTimeline(path)
	o := order{tx: tx, cause: causeAlias}
	o.fill(
		event.Attribution{ActorID: text(from), ActorKind: kindUser},
		event.Attribution{ActorID: text(path[len(path)-1].id)},
		&t,
	)
	o.flush()
}

// fillUser gives what was counted for a root the accounts and roles that became
// known with its new memberships. before are those it had.
func (tx *Tx) fillUser(app, id string, before []membership) {
	path := tx.resolve(app, id)
	t := newTimeline(path)
	o := order{tx: tx, cause: causeMembership}
	match := event.Attribution{ActorID: text(id), ActorKind: kindUser}
	had := newTimeline(membershipNodes(id, before))
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
	o.flush()
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
