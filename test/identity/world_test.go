package identity

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// call is a raw event.
type call struct{ event.RawEvent }

// world is a few people who may turn out to be others, and what was said of
// them. Devices pass from user to user and back, each user becomes at most one
// other, and those who may be one person may be in one account, in one role.
type world struct {
	prefix string
	start  time.Time
	users  []string
	anons  []string
	n      int

	owners  map[string][]string // users that an anonymous id may belong to
	target  map[string]string
	account map[string]string
	role    map[string]string

	said    map[string][]said // of anonymous ids
	aliased map[string]int64  // when first, by event time
	joined  map[string]bool
	hasRole map[string]bool
	usage   []call

	aliasedAnons map[string]said // anonymous ids that an alias call named, with the last one
}

// said is a call that named an anonymous id and a user. always: it counts whenever
// it comes, and not only as the earliest that names both.
type said struct {
	at     int64
	user   string
	always bool
}

func newWorld(rnd *rand.Rand, prefix string, start time.Time) *world {
	w := &world{
		prefix: prefix, start: start, owners: map[string][]string{}, target: map[string]string{}, account: map[string]string{}, role: map[string]string{},
		said: map[string][]said{}, aliased: map[string]int64{}, joined: map[string]bool{}, hasRole: map[string]bool{}, aliasedAnons: map[string]said{},
	}
	for i := range 2 + rnd.IntN(4) {
		w.users = append(w.users, fmt.Sprintf("%su%d", prefix, i))
	}
	for i := range 1 + rnd.IntN(4) {
		w.anons = append(w.anons, fmt.Sprintf("%sa%d", prefix, i))
		w.owners[w.anons[i]] = []string{pick(rnd, w.users)}
		if rnd.IntN(2) == 0 {
			w.owners[w.anons[i]] = w.users
		}
	}
	for _, u := range w.users {
		if v := pick(rnd, w.users); v != u && rnd.IntN(2) == 0 {
			w.target[u] = v
		}
	}
	for i, u := range w.users {
		w.mark(u, fmt.Sprintf("%sacct%d", prefix, i), fmt.Sprintf("role%d", i))
	}
	return w
}

// mark gives u, and all who may be one person with it, their account and role.
func (w *world) mark(u, account, role string) {
	if w.account[u] != "" {
		return
	}
	w.account[u], w.role[u] = account, role
	for v, t := range w.target {
		if v == u {
			w.mark(t, account, role)
		}
		if t == u {
			w.mark(v, account, role)
		}
	}
}

func pick[T any](rnd *rand.Rand, from []T) T { return from[rnd.IntN(len(from))] }

// next says something.
func (w *world) next(rnd *rand.Rand) call {
	w.n++
	at := w.start.Add(time.Duration(rnd.IntN(360)) * time.Minute)
	k := call{event.RawEvent{
		AppID: stack.App, MessageID: fmt.Sprintf("%sm%d", w.prefix, w.n), Quantity: 1 + rnd.Int64N(3), Protocol: "segment",
		Timestamp: event.FromTime(at), ReceivedAt: event.FromTime(time.Now()),
	}}
	link := func(a string, always bool) {
		k.UserID = pick(rnd, w.owners[a])
		w.said[a] = append(w.said[a], said{k.Timestamp, k.UserID, always})
	}
	switch rnd.IntN(12) {
	case 0, 1:
		k.Kind, k.AnonymousID = event.KindIdentify, pick(rnd, w.anons)
		link(k.AnonymousID, true)
	case 2:
		u := pick(rnd, w.users)
		k.Kind, k.UserID, k.PreviousID = event.KindAlias, w.target[u], u
		if k.UserID == "" {
			k.PreviousID = pick(rnd, w.anons)
			link(k.PreviousID, true)
			if last, ok := w.aliasedAnons[k.PreviousID]; !ok || cmp.Or(cmp.Compare(k.Timestamp, last.at), cmp.Compare(k.UserID, last.user)) > 0 {
				w.aliasedAnons[k.PreviousID] = said{k.Timestamp, k.UserID, true}
			}
		} else if first, ok := w.aliased[u]; !ok || k.Timestamp < first {
			w.aliased[u] = k.Timestamp
		}
	case 3:
		k.Kind, k.UserID = event.KindGroup, pick(rnd, w.users)
		k.AccountID = w.account[k.UserID]
		w.joined[k.UserID] = true
		if rnd.IntN(2) == 0 {
			k.Traits = []byte(`{"role":"` + w.role[k.UserID] + `"}`)
			w.hasRole[k.UserID] = true
		}
	default:
		k.Kind, k.Event = event.KindTrack, pick(rnd, []string{loadgen.ItemScanned, loadgen.InvoiceGenerated, loadgen.PaymentReceived, "Something Else"})
		switch rnd.IntN(8) {
		case 0:
			k.AnonymousID = pick(rnd, w.anons)
			link(k.AnonymousID, false)
		case 1, 2, 3:
			k.UserID = pick(rnd, w.users)
		default:
			k.AnonymousID = pick(rnd, w.anons)
		}
		if rnd.IntN(4) == 0 {
			k.AccountID = w.prefix + pick(rnd, []string{"acct0", "acct1", "elsewhere"})
		}
		w.usage = append(w.usage, k)
	}
	return k
}

// root is whom a user is in the end. In a cycle the one who was said last to be
// another is nobody but itself.
func (w *world) root(u string) string {
	var path []string
	for {
		for i, v := range path {
			if v != u {
				continue
			}
			last := v
			for _, x := range path[i:] {
				if w.aliased[x] > w.aliased[last] || (w.aliased[x] == w.aliased[last] && x > last) {
					last = x
				}
			}
			return last
		}
		path = append(path, u)
		if _, ok := w.aliased[u]; !ok {
			return u
		}
		u = w.target[u]
	}
}

// userOf is the user of an anonymous id at an instant; empty: none.
func (w *world) userOf(a string, at int64) string {
	first := map[string]int64{}
	for _, s := range w.said[a] {
		if f, ok := first[s.user]; !ok || s.at < f {
			first[s.user] = s.at
		}
	}
	list := slices.DeleteFunc(slices.Clone(w.said[a]), func(s said) bool { return !s.always && s.at != first[s.user] })
	slices.SortFunc(list, func(a, b said) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.user, b.user)) })
	user := ""
	for i, s := range list {
		if i == 0 || s.at <= at {
			user = s.user
		}
	}
	return user
}

// lastOf is the user whom an anonymous id was last said to belong to.
func (w *world) lastOf(a string) string {
	return slices.MaxFunc(w.said[a], func(a, b said) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.user, b.user)) }).user
}

// whom returns whom a usage event counts for in the end.
func (w *world) whom(k *call) loadgen.Whom {
	user := k.UserID
	if user == "" {
		user = w.userOf(k.AnonymousID, k.Timestamp)
	}
	if user == "" {
		return loadgen.Whom{Actor: k.AnonymousID, ActorKind: event.ActorAnonymous, Account: k.AccountID}
	}
	who := loadgen.Whom{Actor: w.root(user), ActorKind: event.ActorUser, Account: k.AccountID}
	in := func(said map[string]bool) bool {
		for u := range said {
			if w.root(u) == who.Actor {
				return true
			}
		}
		return false
	}
	if who.Account == "" && in(w.joined) {
		who.Account = w.account[who.Actor]
	}
	if who.Account != "" && who.Account == w.account[who.Actor] && in(w.hasRole) {
		who.Role = w.role[who.Actor]
	}
	return who
}

// expect adds what the world's usage has to be in a rollup with these columns.
func (w *world) expect(columns []string, cells map[string]loadgen.Sums) {
	for i := range w.usage {
		k := &w.usage[i]
		who, place := w.whom(k), loadgen.PlaceOf(k.Event)
		at := event.ToTime(k.Timestamp)
		key := make([]string, len(columns))
		for i, c := range columns {
			key[i] = map[string]string{
				"account_id": who.Account, "actor_id": who.Actor, "actor_kind": who.ActorKind, "role": who.Role,
				"feature_id": place.Feature, "module_id": place.Module, "product_id": place.Product, "event": k.Event,
				"hour": at.Truncate(time.Hour).Format("2006-01-02 15:04:05"), "day": at.Format("2006-01-02"),
			}[c]
		}
		cell := cells[strings.Join(key, "|")]
		cell.Events++
		cell.Quantity += k.Quantity
		cells[strings.Join(key, "|")] = cell
	}
}

// whoIsWho adds what the views of links have to say: users to their roots, and
// anonymous ids to their users.
func (w *world) whoIsWho(roots, owners map[string]string) {
	for u := range w.aliased {
		roots[u] = w.root(u)
	}
	for a := range w.said {
		owners[a] = w.lastOf(a)
	}
	// alias says it of the previous id in either meaning.
	for u := range w.aliased {
		owners[u] = w.target[u]
	}
	for a, user := range w.aliasedAnons {
		roots[a] = w.root(user.user)
	}
}

// actors adds the users that usage counts for.
func (w *world) actors(all map[string]bool) {
	for i := range w.usage {
		if who := w.whom(&w.usage[i]); who.ActorKind == event.ActorUser {
			all[who.Actor] = true
		}
	}
}
