package identity

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/schemas/event"
	idtext "github.com/uptakehq/uptake/schemas/ids"
	"github.com/uptakehq/uptake/schemas/topic"
)

// Tx holds what a State learns within a Kafka transaction. It belongs to the State's
// goroutine.
type Tx struct {
	s     *State
	ids   table // changes over s.ids; an empty value: deleted
	known pairs // additions to s.known, and earlier times

	newlyErased erasures          // over s.erased
	unknown     []pair            // to remove from s.known
	sighted     map[pair]struct{} // over s.sighted

	counted []prometheus.Counter // incremented when the Tx is committed
	batches []*batch             // waiting orders, by app

	roleFrom []byte // see RoleFrom; of the next event

	// Fields of the current record.
	undo     undo
	orders   []placed // put into batches when the record is done
	work     work
	out      *Outputs
	src      source
	limited  bool
	forgot   bool
	hops     int64        // how often memberships in it were passed on
	controls int          // controls written for it
	local    []event.Link // links to this partition, not taken in yet

	// Scratch space.
	key, value []byte
	path       []node
}

// source is the record from which something is learnt.
type source struct {
	raw    bool
	offset int64
	cause  event.Link // Call, MessageID, RecordedAt, RawPartition and RawOffset alone
	app    string
}

// Begin starts a Tx. The previous one must have been committed or rolled back.
func (s *State) Begin() *Tx { return &s.tx }

// Flush writes the waiting corrections. It must be called before Commit, and may be
// called at any time: the later, the fewer records are written.
func (tx *Tx) Flush(out *Outputs) {
	tx.out = out
	for _, b := range tx.batches {
		tx.flush(b)
	}
}

// Commit applies what was learnt to the State.
func (tx *Tx) Commit() {
	s := tx.s
	for _, b := range tx.batches {
		if len(b.moves) > 0 {
			panic("identity: Commit without Flush would lose corrections")
		}
	}
	tx.ids.each(func(key, value []byte) bool {
		if len(value) == 0 {
			s.ids.remove(key)
		} else {
			s.ids.set(key, value)
		}
		return true
	})
	tx.known.each(s.known.set)
	for _, p := range tx.unknown {
		s.known.remove(p)
	}
	for p := range tx.sighted {
		s.sighted.add(p)
	}
	for app, sets := range tx.newlyErased {
		if s.erased == nil {
			s.erased = erasures{}
		}
		for _, set := range sets {
			maps.Copy(s.erased.of(app, set.key).hashes, set.hashes)
		}
	}
	for _, c := range tx.counted {
		c.Inc()
	}
	tx.Rollback()
}

// Rollback discards what was learnt.
func (tx *Tx) Rollback() {
	// Returned strings may point into the memory of the overlay, so it is left to the
	// garbage collector.
	if tx.ids.used > 0 {
		tx.ids = table{}
	}
	if tx.known.n > 0 || tx.known.zero != nil {
		tx.known = pairs{}
	}
	tx.newlyErased, tx.unknown, tx.sighted = nil, nil, nil
	clear(tx.counted)
	tx.counted = tx.counted[:0]
	tx.batches = nil
	tx.out = nil
	tx.src = source{}
}

// RoleFrom has the next call of Event read the role from these traits, those that privacy
// rules leave, and not from the record's. It must be called before each Event, with nil
// where there are no rules.
func (tx *Tx) RoleFrom(traits []byte) { tx.roleFrom = traits }

// Event decides whom an event counts for, and learns from it. offset is that of the raw
// record; at is the event time at which the event counts.
func (tx *Tx) Event(offset int64, raw *event.RawEvent, at event.Micros, out *Outputs) (Resolution, error) {
	tx.limited, tx.forgot = false, false
	var res Resolution
	selfAlias := false
	if raw.UserID != "" || raw.Kind == event.KindGroup {
		teaches := raw.AnonymousID != ""
		switch raw.Kind {
		case event.KindIdentify, event.KindGroup, event.KindAlias:
			teaches = true
		}
		if teaches {
			tx.begin(out, source{
				raw: true, offset: offset, app: raw.AppID,
				cause: event.Link{
					Call: raw.Kind, MessageID: raw.MessageID, RecordedAt: raw.ReceivedAt,
					RawPartition: int64(tx.s.partition), RawOffset: offset,
				},
			})
			err := tx.bounded(func() {
				switch raw.Kind {
				case event.KindIdentify, event.KindGroup:
					if raw.Kind == event.KindGroup && raw.AccountID != "" {
						res.ParentAccountID, _ = idtext.Default.Read(firstTrait(raw.Traits, tx.s.cfg.ParentTraits))
					}
					if raw.UserID != "" {
						role := raw.Traits
						if tx.roleFrom != nil {
							role = tx.roleFrom
						}
						tx.joins(raw.UserID, raw.AccountID, firstTrait(role, tx.s.cfg.RoleTraits), at)
					}
				case event.KindAlias:
					selfAlias = raw.PreviousID == raw.UserID
					if raw.PreviousID != "" {
						tx.becomes(raw.PreviousID, raw.UserID, at, raw.PreviousID == raw.AnonymousID)
					}
				}
				if raw.UserID != "" && raw.AnonymousID != "" {
					tx.owns(raw.UserID, raw.AnonymousID, at, raw.Kind == event.KindIdentify)
				}
				tx.deliver()
			})
			if err != nil {
				return Resolution{}, err
			}
		}
	}
	tx.resolveEvent(raw, at, &res)
	switch {
	case tx.limited || tx.forgot || selfAlias:
		res.Flags = flagWords(tx.limited, tx.forgot, selfAlias)
	}
	return res, nil
}

func flagWords(limited, forgot, selfAlias bool) string {
	var words []string
	if limited {
		words = append(words, FlagLimit)
	}
	if forgot {
		words = append(words, FlagForgotten)
	}
	if selfAlias {
		words = append(words, FlagSelfAlias)
	}
	return strings.Join(words, ",")
}

// resolveEvent applies rules 1, 3 and 6.
func (tx *Tx) resolveEvent(raw *event.RawEvent, at event.Micros, res *Resolution) {
	user := raw.UserID
	switch {
	case user != "":
	case raw.AnonymousID != "":
		if rec, ok := tx.get(raw.AppID, topic.KeyAnonymous, raw.AnonymousID); ok {
			var forgotten bool
			user, ok, forgotten = linkAt(rec, at)
			tx.forgot = tx.forgot || forgotten
			if ok {
				res.LinkedUserID = user
			}
		}
		if user == "" {
			res.ActorID, res.ActorKind = raw.AnonymousID, event.ActorAnonymous
		}
	case raw.AccountID != "":
		res.ActorKind = event.ActorAccount
	default: // without any id it counts only for the app
		res.ActorKind = event.ActorAnonymous
	}
	res.AccountID, res.AccountSource = raw.AccountID, event.AccountFromEvent
	if raw.AccountID == "" {
		res.AccountSource = event.AccountNone
	}
	if user == "" {
		return
	}
	path := tx.resolve(raw.AppID, user)
	res.ActorID, res.ActorKind = path[len(path)-1].id, event.ActorUser
	if len(path) == 1 && len(path[0].members) == 0 {
		return
	}
	if raw.AccountID == "" {
		account, ok, forgotten := accountAt(path, at)
		tx.forgot = tx.forgot || forgotten
		if !ok {
			return
		}
		res.AccountID, res.AccountSource = account, event.AccountFromMembership
	}
	res.Role = roleAt(path, res.AccountID, at)
}

// Link applies a link record of this partition. offset is its own.
func (tx *Tx) Link(offset int64, l *event.Link, out *Outputs) error {
	tx.limited, tx.forgot = false, false
	tx.begin(out, source{offset: offset, app: l.AppID, cause: *l})
	return tx.bounded(func() {
		tx.take(l)
		tx.deliver()
	})
}

func (tx *Tx) begin(out *Outputs, src source) {
	tx.out, tx.src, tx.controls, tx.hops = out, src, 0, 0
}

// deliver applies the links that this partition sent to itself.
func (tx *Tx) deliver() {
	for i := 0; i < len(tx.local); i++ {
		l := tx.local[i]
		tx.take(&l)
	}
	clear(tx.local)
	tx.local = tx.local[:0]
}

func (tx *Tx) take(l *event.Link) {
	if l.Kind != event.LinkErase && tx.namesErased(l) {
		tx.refuse("erased")
		return
	}
	tx.hops = 0
	if l.Kind == event.LinkMembership || l.Kind == event.LinkRetract {
		tx.hops = l.Version
	}
	switch l.Kind {
	case event.LinkErase:
		tx.takeErase(l)
	case event.LinkClaim:
		tx.takeClaim(l)
	case event.LinkAlias:
		tx.takeAlias(l)
	case event.LinkNamesake:
		tx.takeNamesake(l)
	case event.LinkSubscribe:
		tx.takeSubscribe(l)
	case event.LinkProfile:
		tx.learn(l.AppID, l.ID, l.Version, l.Profile)
	case event.LinkMembership, event.LinkRetract:
		tx.takeMemberships(l)
	case event.LinkUnlink:
		tx.takeUnlink(l)
	default:
		tx.count(tx.s.metrics.unknown)
		return
	}
	tx.count(tx.s.metrics.links.WithLabelValues(l.Kind))
}

func (tx *Tx) count(c prometheus.Counter) { tx.counted = append(tx.counted, c) }

// limit notes that because of a bound something was not learnt.
func (tx *Tx) limit(bound string) {
	tx.limited = true
	tx.count(tx.s.metrics.limits.WithLabelValues(bound))
}

func (tx *Tx) refuse(reason string) {
	tx.count(tx.s.metrics.refused.WithLabelValues(reason))
}

// linkable reports whether an id can be linked: JSON must be able to represent it.
func (tx *Tx) linkable(ids ...string) bool {
	for _, id := range ids {
		if len(id) > tx.s.cfg.MaxIDBytes || !utf8.ValidString(id) {
			tx.limit(boundIDBytes)
			return false
		}
	}
	return true
}

// room reports whether something new can be learnt.
func (tx *Tx) room() bool {
	if tx.s.bytes()+tx.ids.size >= tx.s.cfg.MaxStateBytes {
		tx.limit(boundStateBytes)
		return false
	}
	return true
}

// get returns an encoded record.
func (tx *Tx) get(app string, kind byte, id string) ([]byte, bool) {
	tx.key = topic.Key(tx.key[:0], app, kind, id)
	if tx.ids.used > 0 {
		if v, ok := tx.ids.get(tx.key); ok {
			return v, len(v) > 0
		}
	}
	return tx.s.ids.get(tx.key)
}

func (tx *Tx) anonymous(app, id string) (a anonymous, ok bool) {
	b, ok := tx.get(app, topic.KeyAnonymous, id)
	tx.charge(work{bytes: int64(len(b))})
	if ok {
		a.read(b)
	}
	return a, ok
}

func (tx *Tx) user(app, id string) (u user, ok bool) {
	b, ok := tx.get(app, topic.KeyUser, id)
	tx.charge(work{bytes: int64(len(b))})
	if ok {
		u.read(b)
	}
	return u, ok
}

func (tx *Tx) putAnonymous(app, id string, a *anonymous) {
	tx.key = topic.Key(tx.key[:0], app, topic.KeyAnonymous, id)
	tx.value = a.append(tx.value[:0])
	tx.put(tx.key, tx.value)
	tx.change(tx.key, &event.IdentityState{
		Kind: event.StateAnonymous, AppID: app, ID: id, RawPartition: -1, RawOffset: -1, Body: mustJSON(a),
	})
}

// putUser sets the record of a user; with say the changelog gets it too, which is not
// needed for the count of anonymous ids.
func (tx *Tx) putUser(app, id string, u *user, say bool) {
	tx.key = topic.Key(tx.key[:0], app, topic.KeyUser, id)
	tx.value = u.append(tx.value[:0])
	tx.put(tx.key, tx.value)
	if say {
		tx.change(tx.key, &event.IdentityState{
			Kind: event.StateUser, AppID: app, ID: id, RawPartition: -1, RawOffset: -1, Version: u.Version, Body: mustJSON(u),
		})
	}
}

func (tx *Tx) change(key []byte, rec *event.IdentityState) {
	value := tx.s.codec.AppendIdentityState(nil, rec)
	size := int64(len(key) + len(value))
	tx.charge(work{bytes: size, output: size})
	tx.out.Changes = append(tx.out.Changes, Change{Key: slices.Clone(key), Value: value})
}

// Relations of an IdentityState of kind why.
const (
	relationClaim      = "claim"
	relationAlias      = "alias"
	relationMembership = "membership"
)

func whyKey(dst []byte, app, relation, id, other string, since event.Micros) []byte {
	dst = append(dst, app...)
	dst = append(dst, 0, keyWhy)
	for _, s := range []string{relation, id, other} {
		dst = appendStr(dst, s)
	}
	return binary.AppendVarint(dst, since)
}

// why records, for display, which record claimed that id belongs to other.
func (tx *Tx) why(relation, id, other string, since event.Micros) {
	c := &tx.src.cause
	tx.key = whyKey(tx.key[:0], tx.src.app, relation, id, other, since)
	tx.change(tx.key, &event.IdentityState{
		Kind: event.StateWhy, AppID: tx.src.app, ID: id, Other: other, Relation: relation, Since: since,
		Call: c.Call, MessageID: c.MessageID, RecordedAt: c.RecordedAt, RawPartition: c.RawPartition, RawOffset: c.RawOffset,
	})
}

// unwhy withdraws such a record about a dropped fact.
func (tx *Tx) unwhy(relation, id, other string, since event.Micros) {
	key := whyKey(nil, tx.src.app, relation, id, other, since)
	tx.out.Changes = append(tx.out.Changes, Change{Key: key})
}

// send sends a link to a partition. The link names its cause.
func (tx *Tx) send(to int32, l event.Link) {
	size := int64(len(l.ID) + len(l.UserID) + len(l.Profile))
	tx.charge(work{bytes: size, output: size})
	c := &tx.src.cause
	l.AppID = tx.src.app
	l.Call, l.MessageID, l.RecordedAt = c.Call, c.MessageID, c.RecordedAt
	l.RawPartition, l.RawOffset = c.RawPartition, c.RawOffset
	l.Partition = int64(tx.s.partition)
	if to == tx.s.partition {
		tx.local = append(tx.local, l)
		return
	}
	kind := byte(topic.KeyUser)
	if l.IDKind == event.ActorAnonymous {
		kind = topic.KeyAnonymous
	}
	tx.out.Links = append(tx.out.Links, Link{Partition: to, Key: topic.Key(nil, l.AppID, kind, l.ID), Record: l})
}

// controlID names the next control record after the record at which it was written: no
// other record ever gives the same ids, not even after the topics were created again.
func (tx *Tx) controlID(app string) string {
	h := sha256.New()
	var b []byte
	kind := byte('l')
	if tx.src.raw {
		kind = 'r'
	}
	b = append(b, kind)
	for _, v := range []int64{int64(tx.s.partition), tx.src.offset, tx.src.cause.RecordedAt, tx.src.cause.RawPartition, tx.src.cause.RawOffset, int64(tx.controls)} {
		b = binary.AppendVarint(b, v)
	}
	b = appendStr(b, app)
	h.Write(b)
	tx.controls++
	return hex.EncodeToString(h.Sum(nil)[:16])
}
