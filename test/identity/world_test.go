package identity

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

// call is a raw event.
type call struct{ event.RawEvent }

// world is a few people who may turn out to be others, and what was said of
// them. Each anonymous id belongs to one user, each user becomes at most one
// other, and those who may be one person may be in one account, in one role.
type world struct {
	prefix string
	start  time.Time
	users  []string
	anons  []string
	n      int

	owner   map[string]string
	target  map[string]string
	account map[string]string
	role    map[string]string

	linked  map[string]bool
	aliased map[string]int64 // when first, by event time
	joined  map[string]bool
	hasRole map[string]bool
	usage   []call

	aliasedAnons []string // anonymous ids that an alias call named
}

func newWorld(rnd *rand.Rand, prefix string, start time.Time) *world {
	w := &world{
		prefix: prefix, start: start, owner: map[string]string{}, target: map[string]string{}, account: map[string]string{}, role: map[string]string{},
		linked: map[string]bool{}, aliased: map[string]int64{}, joined: map[string]bool{}, hasRole: map[string]bool{},
	}
	for i := range 2 + rnd.IntN(4) {
		w.users = append(w.users, fmt.Sprintf("%su%d", prefix, i))
	}
	for i := range 1 + rnd.IntN(4) {
		w.anons = append(w.anons, fmt.Sprintf("%sa%d", prefix, i))
		w.owner[w.anons[i]] = pick(rnd, w.users)
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
	switch rnd.IntN(12) {
	case 0, 1:
		k.Kind, k.AnonymousID = event.KindIdentify, pick(rnd, w.anons)
		k.UserID = w.owner[k.AnonymousID]
		w.linked[k.AnonymousID] = true
	case 2:
		u := pick(rnd, w.users)
		k.Kind, k.UserID, k.PreviousID = event.KindAlias, w.target[u], u
		if k.UserID == "" {
			k.PreviousID = pick(rnd, w.anons)
			k.UserID = w.owner[k.PreviousID]
			w.linked[k.PreviousID] = true
			w.aliasedAnons = append(w.aliasedAnons, k.PreviousID)
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
			k.UserID = w.owner[k.AnonymousID]
			w.linked[k.AnonymousID] = true
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

// whom returns whom a usage event counts for in the end.
func (w *world) whom(k *call) loadgen.Whom {
	user := k.UserID
	if user == "" && w.linked[k.AnonymousID] {
		user = w.owner[k.AnonymousID]
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
	for a := range w.linked {
		owners[a] = w.owner[a]
	}
	// alias says it of the previous id in either meaning.
	for u := range w.aliased {
		owners[u] = w.target[u]
	}
	for _, a := range w.aliasedAnons {
		roots[a] = w.root(w.owner[a])
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
