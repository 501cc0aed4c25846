package identity

import (
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// takeUnlink undoes the links of an id whose home is here to a user (rule 8).
func (tx *Tx) takeUnlink(l *event.Link) {
	if l.IDKind == event.ActorAnonymous {
		tx.unlinkAnonymous(l)
		return
	}
	tx.unlinkUser(l)
}

// reasonOf returns the reason of an order for display; the order may move nothing that
// is known here.
func reasonOf(l *event.Link) *event.Reason {
	return &event.Reason{
		Kind: event.ReasonUnlink, IDKind: strings.Clone(l.IDKind), ID: strings.Clone(l.ID), UserID: strings.Clone(l.UserID), Until: l.Since,
	}
}

// placeReason places an order with a reason, even if it moves nothing: then its move
// matches no row.
func (o *order) placeReason() {
	if len(o.moves) == 0 {
		o.add(event.Attribution{ActorID: nothing, ActorKind: kindUser, UserID: nothing}, event.Attribution{UserID: nothing}, 0, 0)
	}
	o.place()
}

// reassign moves what was counted in [from, to) as set says, and decides again the
// accounts that it has by membership, and all roles. With keep, rows keep an account
// that the timeline contains too.
func (o *order) reassign(match, set event.Attribution, t *timeline, from, to event.Micros, keep bool) {
	if keep {
		for _, account := range t.accounts {
			m := match
			m.AccountSource, m.AccountID = fromMembership, text(account)
			o.spans(m, set, t.in(account), from, to, func(s span, a *event.Attribution) { a.Role = text(s.role) })
		}
	}
	unnamed := t.unnamed()
	source := fromMembership
	if unnamed == nil {
		unnamed, source = []span{{}}, fromNone
	}
	for _, was := range []*string{fromNone, fromMembership} {
		m := match
		m.AccountSource = was
		o.spans(m, set, unnamed, from, to, func(s span, a *event.Attribution) {
			a.AccountID, a.AccountSource, a.Role = text(s.account), source, text(s.role)
		})
	}
	for _, account := range t.accounts {
		m := match
		m.AccountSource, m.AccountID = fromEvent, text(account)
		o.spans(m, set, t.in(account), from, to, func(s span, a *event.Attribution) { a.Role = text(s.role) })
	}
	m := match
	m.AccountSource = fromEvent
	o.spans(m, set, t.elsewhere(), from, to, func(s span, a *event.Attribution) { a.Role = text(s.role) })
}

// spans adds a move for each span within [from, to).
func (o *order) spans(match, set event.Attribution, spans []span, from, to event.Micros, with func(span, *event.Attribution)) {
	for _, s := range spans {
		a, b := max(s.from, from), s.to
		if b == 0 || (to != 0 && to < b) {
			b = to
		}
		if b != 0 && a >= b {
			continue
		}
		n := set
		with(s, &n)
		o.add(match, n, a, b)
	}
}

// unlinkUser undoes an alias of a user whose home is here.
func (tx *Tx) unlinkUser(l *event.Link) {
	app := l.AppID
	u, known := tx.user(app, l.ID)
	if !known && !tx.room() {
		return
	}
	u.Undone = addUndone(u.Undone, l.UserID, l.Since)
	i := slices.IndexFunc(u.Aliases, func(a alias) bool { return a.UserID == l.UserID })
	// The order is reported here, at the user's home; other partitions only move.
	o := order{tx: tx, cause: causeUnlink, reason: reasonOf(l)}
	o.placeReason()
	if i < 0 || u.Aliases[i].First > l.Since {
		tx.putUser(app, l.ID, &u, true)
		return
	}
	was := u.Alias
	if a := &u.Aliases[i]; a.Last > l.Since { // a later call than the order's time made it again
		tx.unwhy(relationAlias, l.ID, l.UserID, a.First)
		a.First = a.Last
		u.Alias, u.AliasFirst = u.activeAlias()
		tx.changeAlias(app, l.ID, func() { tx.publish(l.ID, &u, "") })
		return
	}
	tx.unwhy(relationAlias, l.ID, l.UserID, u.Aliases[i].First)
	u.Aliases = slices.Delete(u.Aliases, i, i+1)
	u.Alias, u.AliasFirst = u.activeAlias()
	tx.undoAlias(app, l.ID, l.UserID, func() { tx.publish(l.ID, &u, l.UserID) })
	// Users that are still one person, by an alias in the opposite direction, share
	// their memberships as before.
	if tx.root(app, l.ID) != tx.root(app, l.UserID) {
		tx.takeBack(app, l.ID, l.UserID)
	}
	if u.Alias != was {
		u, _ = tx.user(app, l.ID)
		tx.passUp(l.ID, &u, event.LinkMembership, u.Memberships)
	}
}

// undoAlias undoes the alias id → target, at its home or in a copy, and moves back what
// was counted for id, and for the users aliased to it, as target.
func (tx *Tx) undoAlias(app, id, target string, change func()) {
	below := tx.downstream(app, id)
	was := tx.root(app, target)
	joined := tx.stillJoined(app)
	tx.changeAlias(app, id, change)
	for _, p := range joined {
		if tx.root(app, p[0]) != tx.root(app, p[1]) {
			tx.takeBack(app, p[0], p[1])
		}
	}
	o := order{tx: tx, cause: causeUnlink}
	for _, w := range below {
		path := tx.resolve(app, w)
		now := path[len(path)-1].id
		if now == was {
			continue
		}
		t := tx.newTimeline(path, byHour)
		match := event.Attribution{ActorID: text(was), ActorKind: kindUser, UserID: text(w)}
		o.reassign(match, event.Attribution{ActorID: text(now)}, &t, 0, 0, true)
	}
	o.placeNow()
	// Memberships of users further down that came from the others round a cycle.
	others := tx.root(app, target)
	for _, w := range below {
		if tx.s.home(app, topic.KeyUser, w) != tx.s.partition || tx.root(app, w) == others {
			continue
		}
		u, _ := tx.user(app, w)
		theirs := slices.DeleteFunc(slices.Clone(u.Memberships), func(m membership) bool { return m.Via == "" || tx.root(app, m.Via) != others })
		tx.dropMemberships(w, &u, theirs)
	}
}

// takeBack removes from a user the memberships that came through the alias of source,
// whose home is here, but not those that came through others.
func (tx *Tx) takeBack(app, id, from string) {
	u, _ := tx.user(app, id)
	others := tx.root(app, from)
	list := slices.Clone(u.Memberships)
	list = slices.DeleteFunc(list, func(m membership) bool { return m.Via != "" && tx.root(app, m.Via) == others })
	u.Alias = from
	tx.passUp(id, &u, event.LinkRetract, list)
}

// stillJoined returns the aliases of users whose home is here that were undone while
// aliases in the opposite direction still made source and target one person: they share
// what they had until those are undone too.
func (tx *Tx) stillJoined(app string) (list [][2]string) {
	prefix := string(topic.Key(nil, app, topic.KeyUser, ""))
	visit := func(key, value []byte) {
		id, ok := strings.CutPrefix(string(key), prefix)
		if !ok || len(value) == 0 || tx.s.home(app, topic.KeyUser, id) != tx.s.partition {
			return
		}
		var u user
		u.read(value)
		for _, o := range u.Undone {
			if !slices.ContainsFunc(u.Aliases, func(a alias) bool { return a.UserID == o.UserID }) && tx.root(app, id) == tx.root(app, o.UserID) {
				list = append(list, [2]string{id, strings.Clone(o.UserID)})
			}
		}
	}
	tx.s.ids.each(func(key, value []byte) bool {
		if _, changed := tx.ids.get(key); !changed {
			visit(key, value)
		}
		return true
	})
	tx.ids.each(func(key, value []byte) bool {
		visit(key, value)
		return true
	})
	slices.SortFunc(list, func(a, b [2]string) int { return slices.Compare(a[:], b[:]) })
	return list
}

// downstream returns id and the users known here whose aliases lead to it. It reads the
// whole state of the partition, which is acceptable for an operator's order.
func (tx *Tx) downstream(app, id string) []string {
	prefix := string(topic.Key(nil, app, topic.KeyUser, ""))
	list := []string{id}
	visit := func(key, _ []byte) bool {
		w, ok := strings.CutPrefix(string(key), prefix)
		if !ok || w == id {
			return true
		}
		next := w
		for range tx.s.cfg.MaxAliasDepth {
			if _, next = tx.node(app, next); next == "" {
				break
			}
			if next == id {
				list = append(list, w)
				break
			}
		}
		return true
	}
	tx.s.ids.each(visit)
	tx.ids.each(func(key, value []byte) bool {
		if _, ok := tx.s.ids.get(key); ok {
			return true
		}
		return visit(key, value)
	})
	slices.Sort(list)
	return slices.Compact(list)
}

// dropMemberships removes memberships that a user whose home is here had through a user
// that is no longer aliased to it.
func (tx *Tx) dropMemberships(userID string, u *user, list []membership) {
	var dropped []membership
	for _, m := range list {
		if i, found := slices.BinarySearchFunc(u.Memberships, m, membership.compare); found {
			u.Memberships = slices.Delete(u.Memberships, i, i+1)
			dropped = append(dropped, m)
			tx.unwhy(relationMembership, userID, m.AccountID, m.Since)
		}
	}
	if len(dropped) == 0 {
		return
	}
	tx.publish(userID, u, "")
	tx.passUp(userID, u, event.LinkRetract, dropped)
	tx.refill(tx.src.app, userID, dropped)
}

// refill decides again the accounts of what was counted for a root in accounts in which
// it no longer has a membership.
func (tx *Tx) refill(app, userID string, dropped []membership) {
	path := tx.resolve(app, userID)
	if path[len(path)-1].id != userID {
		return
	}
	t := tx.newTimeline(path, byHour)
	o := order{tx: tx, cause: causeUnlink}
	match := event.Attribution{ActorID: text(userID), ActorKind: kindUser}
	unnamed := t.unnamed()
	source := fromMembership
	if unnamed == nil {
		unnamed, source = []span{{}}, fromNone
	}
	seen := map[string]bool{}
	for _, d := range dropped {
		if d.AccountID == "" {
			continue
		}
		m := match
		m.AccountID = text(d.AccountID)
		if !seen[d.AccountID] && !slices.Contains(t.accounts, d.AccountID) {
			m.AccountSource = fromMembership
			o.spans(m, event.Attribution{}, unnamed, 0, 0, func(s span, a *event.Attribution) {
				a.AccountID, a.AccountSource, a.Role = text(s.account), source, text(s.role)
			})
		}
		seen[d.AccountID] = true
		if d.Role == "" {
			continue
		}
		m.AccountSource, m.Role = nil, text(d.Role)
		for _, s := range t.in(d.AccountID) {
			if s.role != d.Role {
				o.add(m, event.Attribution{Role: text(s.role)}, s.from, s.to)
			}
		}
	}
	o.placeNow()
}
