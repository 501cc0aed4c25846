package identity

import (
	"crypto/sha256"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// erasedSet holds the erased ids of an app whose hashes have the same key. There is one
// per app, unless two first orders were given at the same moment.
type erasedSet struct {
	*event.EraseHasher
	key    []byte
	hashes map[event.ErasedHash]struct{}
}

// erasures are the erased ids, by app.
type erasures map[string][]*erasedSet

func (e erasures) of(app string, key []byte) *erasedSet {
	for _, set := range e[app] {
		if string(set.key) == string(key) {
			return set
		}
	}
	set := &erasedSet{EraseHasher: event.NewEraseHasher(key), key: slices.Clone(key), hashes: map[event.ErasedHash]struct{}{}}
	app = strings.Clone(app)
	e[app] = append(e[app], set)
	return set
}

func (e erasures) has(app string, kind byte, id string) bool {
	if id == "" {
		return false
	}
	for _, set := range e[app] {
		if _, ok := set.hashes[set.Hash(kind, id)]; ok {
			return true
		}
	}
	return false
}

// add applies the body of a record of kind erased.
func (e erasures) add(app string, ids *event.ErasedIDs) {
	set := e.of(app, ids.Key)
	for _, h := range ids.Hashes {
		set.hashes[event.ErasedHash(h)] = struct{}{}
	}
}

// bytes is roughly the memory that they take.
func (e erasures) bytes() (n int64) {
	for _, sets := range e {
		for _, set := range sets {
			n += 40 * int64(len(set.hashes))
		}
	}
	return n
}

// erased reports whether an id was erased.
func (tx *Tx) erased(app string, kind byte, id string) bool {
	if len(tx.s.erased) == 0 && len(tx.newlyErased) == 0 {
		return false
	}
	return tx.s.erased.has(app, kind, id) || tx.newlyErased.has(app, kind, id)
}

// Erased reports whether an event must be dropped (rule 10): it belongs to a user or an
// anonymous id that was erased. From an event of another user on a device of an erased
// one it removes the anonymous id.
func (tx *Tx) Erased(raw *event.RawEvent) bool {
	if len(tx.s.erased) == 0 && len(tx.newlyErased) == 0 {
		return false
	}
	if tx.erased(raw.AppID, topic.KeyUser, raw.UserID) ||
		tx.erased(raw.AppID, topic.KeyUser, raw.PreviousID) || tx.erased(raw.AppID, topic.KeyAnonymous, raw.PreviousID) {
		return true
	}
	if !tx.erased(raw.AppID, topic.KeyAnonymous, raw.AnonymousID) {
		return false
	}
	if raw.UserID == "" {
		return true
	}
	raw.AnonymousID = ""
	return false
}

// namesErased reports whether a link is about an erased person: it was in transit
// during the erasure.
func (tx *Tx) namesErased(l *event.Link) bool {
	kind := byte(topic.KeyUser)
	if l.IDKind == event.ActorAnonymous {
		kind = topic.KeyAnonymous
	}
	return tx.erased(l.AppID, kind, l.ID) || tx.erased(l.AppID, topic.KeyUser, l.UserID)
}

// takeErase erases a person (rule 10).
func (tx *Tx) takeErase(l *event.Link) {
	app := l.AppID
	e, err := event.ParseErase(l.Profile)
	if err != nil {
		tx.count(tx.s.metrics.unknown)
		return
	}
	if len(e.Users) > 0 {
		tx.eraseNames(app, e.Users)
	}
	o := order{tx: tx, cause: causeErase}
	nobody := event.Attribution{ActorID: nothing, ActorKind: kindErased, UserID: nothing, AnonymousID: nothing, Role: nothing} // a role may be any text
	for _, u := range e.Users {
		tx.eraseUser(app, u)
		o.add(event.Attribution{ActorID: text(u), ActorKind: kindUser}, nobody, 0, 0)
	}
	for _, a := range e.Anonymous {
		if tx.s.home(app, topic.KeyAnonymous, a) == tx.s.partition { // everything that counts for it is here
			tx.eraseAnonymous(app, a)
			o.add(event.Attribution{ActorID: text(a), ActorKind: kindAnonymous}, nobody, 0, 0)
		}
	}
	for _, k := range e.Known {
		if tx.s.home(app, topic.KeyUser, k.UserID) == tx.s.partition {
			tx.out.Changes = append(tx.out.Changes, Change{Key: knownKey(nil, app, k.UserID, k.AnonymousID)})
			tx.unknown = append(tx.unknown, tx.s.pair(app, k.UserID, k.AnonymousID))
		}
	}
	for _, c := range e.Counted {
		o.add(c, nobody, 0, 0)
	}
	o.placeNow()
	tx.suppress(app, &e)
}

// suppress remembers, as hashes, that ids were erased.
func (tx *Tx) suppress(app string, e *event.Erase) {
	if len(e.Users)+len(e.Anonymous) == 0 {
		return
	}
	ids := event.ErasedIDs{Key: e.Key}
	hasher := event.NewEraseHasher(e.Key)
	for kind, list := range map[byte][]string{topic.KeyUser: e.Users, topic.KeyAnonymous: e.Anonymous} {
		for _, id := range list {
			h := hasher.Hash(kind, id)
			ids.Hashes = append(ids.Hashes, h[:])
		}
	}
	slices.SortFunc(ids.Hashes, slices.Compare)
	rec := event.IdentityState{Kind: event.StateErased, AppID: app, RawPartition: -1, RawOffset: -1, Body: mustJSON(ids)}
	sum := sha256.Sum256(rec.Body)
	tx.change(append(append([]byte(app), 0, keyErased), sum[:16]...), &rec)
	if tx.newlyErased == nil {
		tx.newlyErased = erasures{}
	}
	tx.newlyErased.add(app, &ids)
}

// eraseUser deletes the state of a user, whether its home is here or elsewhere.
func (tx *Tx) eraseUser(app, id string) {
	u, known := tx.user(app, id)
	if !known {
		return
	}
	for _, a := range u.Aliases {
		tx.unwhy(relationAlias, id, a.UserID, a.First)
	}
	if tx.s.home(app, topic.KeyUser, id) == tx.s.partition {
		for _, m := range u.Memberships {
			tx.unwhy(relationMembership, id, m.AccountID, m.Since)
		}
	}
	tx.eraseID(app, topic.KeyUser, id)
}

func (tx *Tx) eraseAnonymous(app, id string) {
	a, known := tx.anonymous(app, id)
	if !known {
		return
	}
	for _, l := range a.Links {
		tx.unwhy(relationClaim, id, l.UserID, l.Since)
	}
	tx.eraseID(app, topic.KeyAnonymous, id)
}

// eraseID deletes the record of an id.
func (tx *Tx) eraseID(app string, kind byte, id string) {
	tx.key = topic.Key(tx.key[:0], app, kind, id)
	tx.put(tx.key, nil)
	tx.out.Changes = append(tx.out.Changes, Change{Key: slices.Clone(tx.key)})
}

// eraseNames removes users from the records of others. It reads the whole state of the
// partition.
func (tx *Tx) eraseNames(app string, users []string) {
	gone := map[string]bool{}
	for _, u := range users {
		gone[u] = true
	}
	var named []string // keys of records that may name one of them
	collect := func(key, value []byte) {
		kind, ok := strings.CutPrefix(string(key), app+"\x00")
		if !ok || len(value) == 0 || (kind[0] != topic.KeyUser && kind[0] != topic.KeyAnonymous) || (kind[0] == topic.KeyUser && gone[kind[1:]]) {
			return
		}
		for u := range gone {
			if strings.Contains(string(value), u) {
				named = append(named, kind)
				return
			}
		}
	}
	tx.s.ids.each(func(key, value []byte) bool {
		if _, changed := tx.ids.get(key); !changed {
			collect(key, value)
		}
		return true
	})
	tx.ids.each(func(key, value []byte) bool {
		collect(key, value)
		return true
	})
	slices.Sort(named)
	for _, k := range named {
		if k[0] == topic.KeyAnonymous {
			tx.unnameAnonymous(app, k[1:], gone)
		} else if tx.s.home(app, topic.KeyUser, k[1:]) == tx.s.partition { // copies must be updated
			tx.unnameUser(app, k[1:], gone)
		}
	}
}

func (tx *Tx) unnameAnonymous(app, id string, gone map[string]bool) {
	a, known := tx.anonymous(app, id)
	if !known {
		return
	}
	links, orders := a.Links, len(a.Undone)
	a.setClaims(slices.DeleteFunc(a.claims(), func(l link) bool { return gone[l.UserID] }))
	tx.unexplain(id, links, a.Links)
	a.Undone = slices.DeleteFunc(a.Undone, func(u undone) bool { return gone[u.UserID] })
	switch {
	case slices.Equal(a.Links, links) && len(a.Undone) == orders:
	case len(a.Links) == 0 && len(a.Undone) == 0:
		tx.eraseID(app, topic.KeyAnonymous, id)
	default:
		tx.putAnonymous(app, id, &a)
	}
}

func (tx *Tx) unnameUser(app, id string, gone map[string]bool) {
	u, known := tx.user(app, id)
	if !known {
		return
	}
	aliases, orders, was := len(u.Aliases), len(u.Undone), u.Alias
	u.Aliases = slices.DeleteFunc(u.Aliases, func(a alias) bool {
		if gone[a.UserID] {
			tx.unwhy(relationAlias, id, a.UserID, a.First)
		}
		return gone[a.UserID]
	})
	u.Undone = slices.DeleteFunc(u.Undone, func(o undone) bool { return gone[o.UserID] })
	u.Alias, u.AliasFirst = u.activeAlias()
	switch {
	case u.Alias != was:
		tx.publish(id, &u, "")
	case len(u.Aliases) != aliases || len(u.Undone) != orders:
		tx.putUser(app, id, &u, true)
	}
	var by []membership
	for _, m := range u.Memberships {
		if gone[m.Via] {
			by = append(by, m)
		}
	}
	if len(by) > 0 {
		tx.dropMemberships(id, &u, by)
	}
}

// applyErased applies a record of kind erased.
func (s *State) applyErased(rec *event.IdentityState) error {
	var ids event.ErasedIDs
	if err := decodeBody(rec.Body, &ids); err != nil {
		return err
	}
	ids.Hashes = slices.DeleteFunc(ids.Hashes, func(h []byte) bool { return len(h) != len(event.ErasedHash{}) })
	if s.erased == nil {
		s.erased = erasures{}
	}
	s.erased.add(rec.AppID, &ids)
	return nil
}
