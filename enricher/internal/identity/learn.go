package identity

import (
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// maxAliases bounds the number of users that one user was aliased to, one after the
// other.
const maxAliases = 16

// joins learns a membership or a role of a user whose home is here (rule 5).
func (tx *Tx) joins(userID, account, role string, at event.Micros) {
	if account == "" && role == "" {
		return
	}
	app := tx.src.app
	u, known := tx.user(app, userID)
	if !saysNews(u.Memberships, account, role, at) {
		return
	}
	if !tx.linkable(userID, account, role) || (!known && !tx.room()) {
		return
	}
	tx.addMemberships(userID, &u, []membership{{Since: at, AccountID: account, Role: role}})
}

// saysNews reports whether a membership differs from what is in force at its time from
// calls about the user itself: memberships from an alias may be undone later.
func saysNews(list []membership, account, role string, at event.Micros) bool {
	var inAccount, inRole string
	for _, m := range list {
		if m.Since > at {
			break
		}
		if m.Via != "" {
			continue
		}
		if m.AccountID != "" {
			inAccount = m.AccountID
		}
		if m.AccountID == account && m.Role != "" {
			inRole = m.Role
		}
	}
	return (account != "" && account != inAccount) || (role != "" && role != inRole)
}

// addMemberships adds the new entries of list to a user whose home is here, notifies
// all partitions and users that need them, and corrects what is counted here.
func (tx *Tx) addMemberships(userID string, u *user, list []membership) {
	app := tx.src.app
	before := u.Memberships
	all := slices.Clone(before)
	var added []membership
	for _, m := range list {
		if m.Via == userID {
			m.Via, m.By = "", ""
		}
		i, found := slices.BinarySearchFunc(all, m, membership.compare)
		if found {
			continue
		}
		all = slices.Insert(all, i, m)
		added = append(added, m)
	}
	for len(all) > tx.s.cfg.MaxMemberships {
		m := all[0]
		u.Forgotten = max(u.Forgotten, m.Since)
		all = all[1:]
		tx.limit(boundMemberships)
		if i := slices.Index(added, m); i >= 0 {
			added = slices.Delete(added, i, i+1)
		} else {
			tx.unwhy(relationMembership, userID, m.AccountID, m.Since)
		}
	}
	if len(added) == 0 {
		return
	}
	for _, m := range added {
		tx.why(relationMembership, userID, m.AccountID, m.Since)
	}
	u.Memberships = all
	tx.publish(userID, u, "")
	tx.passUp(userID, u, event.LinkMembership, added)
	if tx.root(app, userID) == userID {
		tx.fillUser(app, userID, before)
	}
}

// passUp sends memberships to the user that userID is aliased to. In a cycle of aliases
// a membership and its removal could follow each other forever: each is passed on a
// bounded number of times, the removal twice as often, so that it arrives last.
func (tx *Tx) passUp(userID string, u *user, kind string, list []membership) {
	if u.Alias == "" || len(list) == 0 {
		return
	}
	most := int64(tx.s.cfg.MaxAliasDepth)
	if kind == event.LinkRetract {
		most *= 2
	}
	if tx.hops >= most {
		tx.limit(boundAliasDepth)
		return
	}
	up := slices.Clone(list)
	for i := range up {
		if up[i].Via == "" {
			up[i].Via = userID
		}
	}
	tx.send(tx.s.home(tx.src.app, topic.KeyUser, u.Alias), event.Link{
		Kind: kind, ID: u.Alias, IDKind: event.ActorUser, UserID: userID,
		Version: tx.hops + 1, Profile: mustJSON(profile{Memberships: up}),
	})
}

// notice is a profile as it is sent: the present state of a user, and what was undone.
// It includes the profiles of the users that it is aliased to, so that the receiver can
// resolve the user from this record alone.
type notice struct {
	profile
	Undone   string    `json:"undone,omitempty"`   // the alias that an order just undid
	Unlinked []string  `json:"unlinked,omitempty"` // aliases that orders undid and no later call made again
	Above    []chained `json:"above,omitempty"`    // in the order of the aliases
}

type chained struct {
	UserID  string `json:"id"`
	Version int64  `json:"version"`
	profile
}

// notice returns the profile of a user whose home is here, in the form that is sent;
// nil when there is nothing to send.
func (tx *Tx) notice(userID string, u *user, undone string) []byte {
	if u.Version == 0 {
		return nil
	}
	n := notice{profile: u.profile, Undone: undone}
	for _, o := range u.Undone {
		if !slices.ContainsFunc(u.Aliases, func(a alias) bool { return a.UserID == o.UserID }) {
			n.Unlinked = append(n.Unlinked, o.UserID)
		}
	}
	seen := []string{userID}
	for next := u.Alias; next != "" && !slices.Contains(seen, next) && len(seen) <= tx.s.cfg.MaxAliasDepth; {
		a, known := tx.user(tx.src.app, next)
		if !known {
			break
		}
		n.Above = append(n.Above, chained{UserID: next, Version: a.Version, profile: a.profile})
		seen = append(seen, next)
		next = a.Alias
	}
	body := mustJSON(n)
	tx.charge(work{bytes: int64(len(body))})
	return body
}

// publish stores a changed profile of a user whose home is here, and sends it to
// its subscribers.
func (tx *Tx) publish(userID string, u *user, undone string) {
	u.Version++
	tx.putUser(tx.src.app, userID, u, true)
	if len(u.Subscribers) == 0 {
		return
	}
	body := tx.notice(userID, u, undone)
	for _, p := range u.Subscribers {
		tx.send(p, event.Link{
			Kind: event.LinkProfile, ID: userID, IDKind: event.ActorUser, Version: u.Version, Profile: body,
		})
	}
}

// subscribe makes a partition a subscriber of a user whose home is here, and reports
// whether it is a new one. A new subscriber must be sent the profile.
func (tx *Tx) subscribe(u *user, p int32) bool {
	if p == tx.s.partition {
		return false
	}
	i, found := slices.BinarySearch(u.Subscribers, p)
	if found {
		return false
	}
	u.Subscribers = slices.Insert(u.Subscribers, i, p)
	return true
}

// owns learns that an anonymous id belongs to a user whose home is here (rule 2). With
// always it notifies the id's home even if an earlier call named the pair.
func (tx *Tx) owns(userID, anonymousID string, at event.Micros, always bool) {
	app := tx.src.app
	p := tx.s.pair(app, userID, anonymousID)
	first, seen := tx.known.get(p)
	if !seen {
		first, seen = tx.s.known.get(p)
	}
	isNew, isFirst := !seen, !seen || at < first
	if !isFirst && !always {
		return
	}
	if !tx.linkable(userID, anonymousID) {
		return
	}
	l := event.Link{Kind: event.LinkClaim, ID: anonymousID, IDKind: event.ActorAnonymous, UserID: userID, Since: at}
	to := tx.s.home(app, topic.KeyAnonymous, anonymousID)
	u, _ := tx.user(app, userID)
	named, hears := always && !u.Identified, false
	u.Identified = u.Identified || always
	if isNew {
		if !tx.room() {
			return
		}
		if u.known >= tx.s.cfg.MaxAnonymous {
			tx.limit(boundAnonymous)
			return
		}
		u.known++
		hears = tx.subscribe(&u, to)
	}
	if isNew || named {
		tx.putUser(app, userID, &u, hears || named)
	}
	if hears {
		l.Version, l.Profile = u.Version, tx.notice(userID, &u, "")
	}
	if isFirst {
		old, held := tx.known.get(p)
		tx.undo.known = append(tx.undo.known, undoPair{p, old, held})
		tx.known.set(p, at)
		c := &tx.src.cause
		tx.change(knownKey(nil, app, userID, anonymousID), &event.IdentityState{
			Kind: event.StateKnown, AppID: app, ID: userID, Other: anonymousID, Since: at,
			Call: c.Call, MessageID: c.MessageID, RecordedAt: c.RecordedAt, RawPartition: c.RawPartition, RawOffset: c.RawOffset,
		})
	}
	tx.send(to, l)
}

// becomes learns an alias of previous, from a message to the home of userID, which is
// here (rule 4). Of a namesake (rule 4) the home of previous decides whether it is one.
func (tx *Tx) becomes(previous, userID string, at event.Micros, namesake bool) {
	if previous == "" || userID == "" {
		return
	}
	if previous == userID {
		tx.refuse("self")
		return
	}
	if !tx.linkable(previous, userID) {
		return
	}
	app := tx.src.app
	u, known := tx.user(app, userID)
	if !known && !tx.room() {
		return
	}
	to := tx.s.home(app, topic.KeyUser, previous)
	l := event.Link{Kind: event.LinkAlias, ID: previous, IDKind: event.ActorUser, UserID: userID, Since: at}
	if namesake {
		l.Kind = event.LinkNamesake
	}
	if tx.subscribe(&u, to) {
		tx.putUser(app, userID, &u, true)
		l.Version, l.Profile = u.Version, tx.notice(userID, &u, "")
	}
	tx.send(to, l)
	tx.owns(userID, previous, at, true)
}

// takeNamesake makes a user whose home is here the alias of another, unless it is an
// identified user or has become another one (rule 4). A refusal is reported like an
// order to undo the alias, so that views, which read the calls, do not list it.
func (tx *Tx) takeNamesake(l *event.Link) {
	u, _ := tx.user(l.AppID, l.ID)
	if !u.Identified && (u.Alias == "" || u.Alias == l.UserID) {
		tx.takeAlias(l)
		return
	}
	tx.refuse("identified")
	if !isUndone(u.Undone, l.UserID, l.Since) {
		u.Undone = addUndone(u.Undone, l.UserID, l.Since)
		tx.putUser(l.AppID, l.ID, &u, true)
		o := order{tx: tx, cause: causeUnlink, reason: reasonOf(l)}
		o.placeReason()
	}
}

// takeAlias makes a user whose home is here the alias of another (rule 4).
func (tx *Tx) takeAlias(l *event.Link) {
	app := l.AppID
	tx.learn(app, l.UserID, l.Version, l.Profile)
	u, known := tx.user(app, l.ID)
	if isUndone(u.Undone, l.UserID, l.Since) {
		tx.refuse("undone")
		return
	}
	if !known && !tx.room() {
		return
	}
	i := slices.IndexFunc(u.Aliases, func(a alias) bool { return a.UserID == l.UserID })
	switch {
	case i < 0 && len(u.Aliases) >= maxAliases:
		tx.limit(boundAliases)
		return
	case i < 0:
		u.Aliases = append(u.Aliases, alias{UserID: l.UserID, First: l.Since, Last: l.Since})
		slices.SortFunc(u.Aliases, func(a, b alias) int { return strings.Compare(a.UserID, b.UserID) })
		tx.why(relationAlias, l.ID, l.UserID, l.Since)
	case l.Since < u.Aliases[i].First:
		tx.unwhy(relationAlias, l.ID, l.UserID, u.Aliases[i].First)
		u.Aliases[i].First = l.Since
		tx.why(relationAlias, l.ID, l.UserID, l.Since)
	case l.Since > u.Aliases[i].Last:
		u.Aliases[i].Last = l.Since
	default:
		return
	}
	target, first := u.activeAlias()
	if target == u.Alias && first == u.AliasFirst {
		tx.putUser(app, l.ID, &u, true)
		return
	}
	moved := target != u.Alias
	tx.changeAlias(app, l.ID, func() {
		u.Alias, u.AliasFirst = target, first
		tx.publish(l.ID, &u, "")
	})
	if moved {
		tx.passUp(l.ID, &u, event.LinkMembership, u.Memberships)
	}
}

// changeAlias changes the alias of a user, at its home or in a copy, and moves what was
// counted for it if its root changes. Only the former root can lose its place: it is
// either id itself, or the source of an alias that a cycle through id kept out of
// force.
func (tx *Tx) changeAlias(app, id string, change func()) {
	before := tx.root(app, id)
	change()
	if tx.root(app, before) != before {
		tx.moveUser(app, before)
	}
}

// takeSubscribe makes the partition that sent l a subscriber.
func (tx *Tx) takeSubscribe(l *event.Link) {
	app := l.AppID
	p := int32(l.Partition)
	if l.Partition < 0 || l.Partition >= int64(tx.s.cfg.Partitions) {
		tx.count(tx.s.metrics.unknown)
		return
	}
	u, known := tx.user(app, l.ID)
	if !known && !tx.room() {
		return
	}
	if tx.subscribe(&u, p) {
		tx.putUser(app, l.ID, &u, true)
	}
	if u.Version > 0 {
		tx.send(p, event.Link{
			Kind: event.LinkProfile, ID: l.ID, IDKind: event.ActorUser, Version: u.Version,
			Profile: tx.notice(l.ID, &u, ""),
		})
	}
}

// takeMemberships adds the memberships of an aliased user to its alias, whose home is
// here, or removes them.
func (tx *Tx) takeMemberships(l *event.Link) {
	var p profile
	if !tx.parse(l.Profile, &p) {
		return
	}
	p.Memberships = slices.DeleteFunc(p.Memberships, func(m membership) bool { return tx.erased(l.AppID, topic.KeyUser, m.Via) })
	u, known := tx.user(l.AppID, l.ID)
	if !known && !tx.room() {
		return
	}
	if l.Kind == event.LinkRetract {
		tx.dropMemberships(l.ID, &u, slices.DeleteFunc(p.Memberships, func(m membership) bool {
			i, found := slices.BinarySearchFunc(u.Memberships, m, membership.compare)
			return !found || (u.Memberships[i].By != "" && u.Memberships[i].By != l.UserID)
		}))
		return
	}
	for i := range p.Memberships {
		p.Memberships[i].By = l.UserID
	}
	tx.addMemberships(l.ID, &u, p.Memberships)
}

// learn applies the profile of a user whose home is elsewhere, sent by its home.
func (tx *Tx) learn(app, userID string, version int64, body []byte) {
	if len(body) == 0 {
		return
	}
	var n notice
	if !tx.parse(body, &n) {
		return
	}
	// A profile of a user further up is new only if this partition does not get it from
	// that user's home: a home sends its profiles in order.
	for i := len(n.Above) - 1; i >= 0; i-- {
		a := &n.Above[i]
		if u, _ := tx.user(app, a.UserID); !u.Follows {
			tx.copy(app, a.UserID, a.Version, a.profile, notice{})
			tx.follow(app, a.UserID)
		}
	}
	if tx.s.home(app, topic.KeyUser, userID) != tx.s.partition {
		u, _ := tx.user(app, userID)
		if !u.Follows { // this home also sends what follows
			u.Follows = true
			tx.putUser(app, userID, &u, true)
		}
	}
	tx.copy(app, userID, version, n.profile, n)
}

// copy stores a profile as the copy of a user whose home is elsewhere, and corrects
// what is counted here. by is the notice that contained it.
func (tx *Tx) copy(app, userID string, version int64, p profile, by notice) {
	if tx.s.home(app, topic.KeyUser, userID) == tx.s.partition || tx.erased(app, topic.KeyUser, userID) {
		return
	}
	u, _ := tx.user(app, userID)
	if version <= u.Version {
		return
	}
	before := u.profile
	undone := by.Undone
	if before.Alias != p.Alias && slices.Contains(by.Unlinked, before.Alias) {
		undone = before.Alias
	}
	change := func() {
		u.profile, u.Version = p, version
		tx.putUser(app, userID, &u, true)
		tx.follow(app, p.Alias)
	}
	if undone != "" {
		tx.undoAlias(app, userID, undone, change)
	} else {
		tx.changeAlias(app, userID, change)
	}
	var gone []membership
	for _, m := range before.Memberships {
		if _, kept := slices.BinarySearchFunc(p.Memberships, m, membership.compare); !kept && m.Since > p.Forgotten {
			gone = append(gone, m)
		}
	}
	if len(gone) > 0 {
		tx.refill(app, userID, gone)
	}
	if tx.root(app, userID) == userID {
		tx.fillUser(app, userID, before.Memberships)
	}
}

// follow makes sure that this partition subscribes to a user that another is aliased
// to.
func (tx *Tx) follow(app, userID string) {
	if userID == "" {
		return
	}
	to := tx.s.home(app, topic.KeyUser, userID)
	if to == tx.s.partition || tx.erased(app, topic.KeyUser, userID) {
		return
	}
	u, _ := tx.user(app, userID)
	if u.Follows {
		return
	}
	u.Follows = true
	tx.putUser(app, userID, &u, true)
	tx.send(to, event.Link{Kind: event.LinkSubscribe, ID: userID, IDKind: event.ActorUser})
}

// parse reads JSON that another enricher wrote.
func (tx *Tx) parse(body []byte, into any) bool {
	if decodeBody(body, into) != nil {
		tx.count(tx.s.metrics.unknown)
		return false
	}
	return true
}
