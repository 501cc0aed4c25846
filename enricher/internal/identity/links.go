package identity

import (
	"slices"

	"github.com/uptakehq/uptake/schemas/event"
)

// What an anonymous id was said to belong to is a set of claims: every instant at
// which an identify or alias call named a pair, and the earliest one at which any
// call did. The links in force follow from that set alone, so they do not depend
// on the order in which claims arrive. Of a claim that says what is in force at
// its time already only the instant is kept: it becomes a link of its own when a
// claim of another user turns up before it.

// claims returns all claims that are kept, in order.
func (a *anonymous) claims() []link {
	list := make([]link, 0, len(a.Links)+len(a.Again))
	n := 0 // links passed
	for _, at := range a.Again {
		// Of one instant the claim that changes nothing is the first.
		for n < len(a.Links) && a.Links[n].Since < at {
			list = append(list, a.Links[n])
			n++
		}
		list = append(list, link{Since: at, UserID: list[len(list)-1].UserID})
	}
	return append(list, a.Links[n:]...)
}

// setClaims makes the links follow from claims, which are in order.
func (a *anonymous) setClaims(claims []link) {
	a.Links, a.Again = make([]link, 0, len(claims)), nil
	for _, c := range claims {
		if n := len(a.Links); n > 0 && a.Links[n-1].UserID == c.UserID {
			a.Again = append(a.Again, c.Since)
		} else {
			a.Links = append(a.Links, c)
		}
	}
}

// withClaim adds a claim to claims in order. news is false when they imply it.
func withClaim(claims []link, in link) (list []link, news bool) {
	for _, c := range claims {
		if c.UserID == in.UserID && c.Since <= in.Since && (in.Implied || (c.Since == in.Since && !c.Implied)) {
			return claims, false
		}
	}
	list = slices.DeleteFunc(slices.Clone(claims), func(c link) bool {
		return c.Implied && c.UserID == in.UserID && c.Since >= in.Since
	})
	i, _ := slices.BinarySearchFunc(list, in, link.compare)
	return slices.Insert(list, i, in), true
}

// bound drops what exceeds the bounds of a: the oldest instants at which links
// were said again, and the oldest links with all that was said before the next
// one. It returns the links that were dropped.
func (a *anonymous) bound(most int) (dropped []link) {
	if n := len(a.Links) - most; n > 0 {
		dropped = a.Links[:n]
		a.Links = slices.Clone(a.Links[n:])
		a.Forgotten = max(a.Forgotten, dropped[n-1].Since)
		a.Again = slices.DeleteFunc(a.Again, func(at event.Micros) bool { return at < a.Links[0].Since })
	}
	if n := len(a.Again) - most; n > 0 {
		a.Thinned = max(a.Thinned, a.Again[n-1])
		a.Again = slices.Clone(a.Again[n:])
	}
	return dropped
}

// change says that events from an instant to an instant count for another user; 0
// is open, and no user is the anonymous id itself.
type change struct {
	from, to event.Micros
	was, now string
}

// changes lists what of the events' users differs between two lists of links, in
// the order of time.
func changes(before, after []link) []change {
	var bounds []event.Micros
	for _, list := range [][]link{before, after} {
		for _, l := range list {
			bounds = append(bounds, l.Since)
		}
	}
	slices.Sort(bounds)
	list := []change{{was: userAt(before, always), now: userAt(after, always)}}
	for _, b := range slices.Compact(bounds) {
		was, now := userAt(before, b), userAt(after, b)
		last := &list[len(list)-1]
		if was == last.was && now == last.now {
			continue
		}
		last.to = b
		list = append(list, change{from: b, was: was, now: now})
	}
	return slices.DeleteFunc(list, func(c change) bool { return c.was == c.now })
}

// userAt returns the user whose link is in force at t: the last that is not
// later, else the first.
func userAt(links []link, t event.Micros) string {
	id := ""
	for i, l := range links {
		if l.Since > t && i > 0 {
			break
		}
		id = l.UserID
	}
	return id
}

// takeClaim links an anonymous id whose home is here to a user (rule 3).
func (tx *Tx) takeClaim(l *event.Link) {
	app := l.AppID
	tx.learn(app, l.UserID, l.Version, l.Profile)
	a, known := tx.anonymous(app, l.ID)
	in := link{Since: l.Since, UserID: l.UserID, Implied: l.Call != event.KindIdentify && l.Call != event.KindAlias}
	claims, news := withClaim(a.claims(), in)
	if isUndone(a.Undone, l.UserID, l.Since) {
		// A later call that names both is no longer the earliest one: it does not
		// link again what an order undid.
		if i := slices.IndexFunc(a.Links, func(k link) bool { return k.Implied && k.UserID == in.UserID && k.Since > in.Since }); i < 0 {
			tx.refuse("undone")
			return
		}
		claims = slices.DeleteFunc(claims, func(c link) bool { return c == in })
	}
	if !news || (!known && !tx.room()) {
		return
	}
	if in.Since < a.Thinned {
		tx.limit(boundLinks) // what came next may have been dropped
	}
	before := a.Links
	a.setClaims(claims)
	moved := changes(before, a.Links)
	dropped := a.bound(tx.s.cfg.MaxLinks)
	if len(dropped) > 0 {
		tx.limit(boundLinks)
	}
	tx.unexplain(l.ID, before, a.Links)
	if slices.Contains(a.Links, in) { // of what was said without effect at first there is no note
		tx.why(relationClaim, l.ID, in.UserID, in.Since)
	}
	tx.putAnonymous(app, l.ID, &a)
	for _, c := range moved {
		if len(dropped) > 0 { // what was counted before the links that are kept stays
			if c.from = max(c.from, a.Links[0].Since); c.to != 0 && c.from >= c.to {
				continue
			}
		}
		tx.relink(app, l.ID, c)
	}
}

// unexplain withdraws the notes, for people, about links that an anonymous id has
// no more.
func (tx *Tx) unexplain(id string, before, after []link) {
	for _, l := range before {
		if !slices.ContainsFunc(after, func(k link) bool { return k.compare(l) == 0 }) {
			tx.unwhy(relationClaim, id, l.UserID, l.Since)
		}
	}
}

// relink moves what was counted for an anonymous id, or for a user through it, to
// whom it counts for now.
func (tx *Tx) relink(app, anonymousID string, c change) {
	o := order{tx: tx, cause: causeClaim}
	set, t := tx.countedFor(app, anonymousID, c.now)
	if c.was == "" {
		o.fill(event.Attribution{ActorID: text(anonymousID), ActorKind: kindAnonymous, AnonymousID: text(anonymousID), UserID: nothing}, set, &t)
	} else {
		match := event.Attribution{ActorID: text(tx.root(app, c.was)), ActorKind: kindUser, AnonymousID: text(anonymousID), UserID: text(c.was)}
		o.reassign(match, set, &t, c.from, c.to, false)
	}
	o.place()
}

// countedFor is what events of an anonymous id count for by a link to a user, or
// by none, and the user's memberships by instant.
func (tx *Tx) countedFor(app, anonymousID, userID string) (event.Attribution, timeline) {
	if userID == "" {
		return event.Attribution{ActorID: text(anonymousID), ActorKind: kindAnonymous, UserID: nothing}, timeline{tx: tx}
	}
	path := tx.resolve(app, userID)
	set := event.Attribution{ActorID: text(path[len(path)-1].id), ActorKind: kindUser, UserID: text(userID)}
	return set, tx.newTimeline(path, byInstant)
}

func (tx *Tx) unlinkAnonymous(l *event.Link) {
	app := l.AppID
	a, known := tx.anonymous(app, l.ID)
	if !known && !tx.room() {
		return
	}
	a.Undone = addUndone(a.Undone, l.UserID, l.Since)
	before := a.Links
	claims := a.claims()
	left := slices.DeleteFunc(slices.Clone(claims), func(k link) bool { return k.UserID == l.UserID && k.Since <= l.Since })
	a.setClaims(left)
	tx.unexplain(l.ID, before, a.Links)
	tx.putAnonymous(app, l.ID, &a)
	o := order{tx: tx, cause: causeUnlink, reason: reasonOf(l)}
	if len(left) < len(claims) {
		// All that counts through the link, whatever it was counted by: everything
		// of the user outside of the user's links that are left.
		match := event.Attribution{AnonymousID: text(l.ID), UserID: text(l.UserID)}
		for _, c := range changes([]link{{UserID: l.UserID}}, a.Links) {
			set, t := tx.countedFor(app, l.ID, c.now)
			o.reassign(match, set, &t, c.from, c.to, false)
		}
	}
	o.placeReason()
}
