package identity

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/longtest"
)

// A world in which order does not matter: anonymous ids go from user to user and
// back, each user is aliased to at most one other, and users who are one person
// are in at most one account, in one role. So whatever comes first, late, twice or
// on another partition, the end is a function of what was said, and the oracle is
// just that function.
type world struct {
	owners  map[string][]string     // anonymous id to users that it may be linked to
	target  map[string]string       // user to whom it may be aliased
	aliased map[string]event.Micros // user that was aliased, and when first
	said    map[string][]claimed    // of anonymous ids
	account map[string]string       // of a person, by any of its users: what it may join
	role    map[string]string
	joined  map[string]bool    // user named by a group call
	hasRole map[string]bool    // user named by a group call with role
	apart   map[string]bool    // users whose alias an operator undid, forever
	undone  map[[2]string]bool // anonymous ids and users whose links an operator undid, forever
	usage   []call
}

// root follows the aliases that were said; in a cycle the one first said last
// is not in force.
func (w *world) root(u string) string {
	seen := map[string]int{}
	var path []string
	for {
		if i, ok := seen[u]; ok {
			best := path[i]
			for _, v := range path[i:] {
				if w.aliased[v] > w.aliased[best] || (w.aliased[v] == w.aliased[best] && v > best) {
					best = v
				}
			}
			return best
		}
		seen[u] = len(path)
		path = append(path, u)
		if _, ok := w.aliased[u]; !ok || w.apart[u] {
			return u
		}
		u = w.target[u]
	}
}

func (w *world) want() map[string]row {
	joined, hasRole := map[string]bool{}, map[string]bool{} // by root
	for u := range w.joined {
		joined[w.root(u)] = true
	}
	for u := range w.hasRole {
		hasRole[w.root(u)] = true
	}
	want := map[string]row{}
	for _, k := range w.usage {
		r := row{Account: k.AccountID, Source: event.AccountFromEvent, Message: k.MessageID, Hour: hourOf(k.at), At: k.at, UserID: k.UserID}
		if k.AccountID == "" {
			r.Source = event.AccountNone
		}
		if k.UserID == "" {
			r.AnonID = k.AnonymousID
			r.UserID = userOf(w.said[k.AnonymousID], func(c claimed) bool { return w.undone[[2]string{k.AnonymousID, c.user}] }, k.at)
		}
		switch {
		case r.UserID != "":
			r.Actor, r.ActorKind = w.root(r.UserID), event.ActorUser
			if joined[r.Actor] && k.AccountID == "" {
				r.Account, r.Source = w.account[r.Actor], event.AccountFromMembership
			}
			if r.Account != "" && r.Account == w.account[r.Actor] && hasRole[r.Actor] {
				r.Role = w.role[r.Actor]
			}
		case k.AnonymousID != "":
			r.Actor, r.ActorKind = k.AnonymousID, event.ActorAnonymous
		default:
			r.ActorKind = event.ActorAccount
		}
		want[k.MessageID] = r
	}
	return want
}

// newWorld draws who may be whom; cycles are among it.
func newWorld(rnd *rand.Rand, users, anons []string) *world {
	w := &world{
		apart: map[string]bool{}, undone: map[[2]string]bool{},
		owners: map[string][]string{}, target: map[string]string{}, aliased: map[string]event.Micros{}, said: map[string][]claimed{},
		account: map[string]string{}, role: map[string]string{}, joined: map[string]bool{}, hasRole: map[string]bool{},
	}
	for _, a := range anons {
		w.owners[a] = []string{pick(rnd, users)}
		if rnd.IntN(3) > 0 { // a shared device
			w.owners[a] = users
		}
	}
	for _, u := range users {
		if v := pick(rnd, users); v != u && rnd.IntN(3) > 0 {
			w.target[u] = v
		}
	}
	// Who may become one person gets one account and one role.
	for i, u := range users {
		if _, ok := w.account[u]; ok {
			continue
		}
		account, role := fmt.Sprintf("acct%d", i), fmt.Sprintf("role%d", i)
		var mark func(string)
		mark = func(u string) {
			if _, ok := w.account[u]; ok {
				return
			}
			w.account[u], w.role[u] = account, role
			for v, t := range w.target {
				if t == u {
					mark(v)
				}
				if v == u {
					mark(t)
				}
			}
		}
		mark(u)
	}
	return w
}

// next draws a call and tells the world.
func (w *world) next(rnd *rand.Rand, n int, users, anons []string) call {
	k := call{at: epoch + event.Micros(rnd.IntN(360))*minute}
	k.MessageID = fmt.Sprintf("m%d", n)
	link := func(a string, always bool) {
		k.UserID = pick(rnd, w.owners[a])
		w.said[a] = append(w.said[a], claimed{k.at, k.UserID, always})
	}
	switch rnd.IntN(12) {
	case 0, 1:
		k.Kind, k.AnonymousID = event.KindIdentify, pick(rnd, anons)
		link(k.AnonymousID, true)
	case 2, 3:
		u := pick(rnd, users)
		k.Kind, k.UserID, k.PreviousID = event.KindAlias, w.target[u], u
		if k.UserID == "" { // an anonymous id in its place
			k.PreviousID = pick(rnd, anons)
			link(k.PreviousID, true)
			break
		}
		if first, ok := w.aliased[u]; !ok || k.at < first {
			w.aliased[u] = k.at
		}
	case 4:
		k.Kind, k.UserID = event.KindGroup, pick(rnd, users)
		k.AccountID = w.account[k.UserID]
		w.joined[k.UserID] = true
		if rnd.IntN(2) == 0 {
			k.Traits = traits(w.role[k.UserID])
			w.hasRole[k.UserID] = true
		}
	default:
		k.Kind = pick(rnd, []string{event.KindTrack, event.KindPage, event.KindScreen, event.KindAPICall})
		switch rnd.IntN(10) {
		case 0:
			k.AccountID = pick(rnd, []string{"acct0", "elsewhere"})
		case 1, 2:
			k.AnonymousID = pick(rnd, anons)
			link(k.AnonymousID, false)
		case 3, 4, 5:
			k.UserID = pick(rnd, users)
		default:
			k.AnonymousID = pick(rnd, anons)
		}
		if k.AccountID == "" && rnd.IntN(4) == 0 {
			k.AccountID = pick(rnd, []string{"acct0", "acct1", "acct2", "elsewhere"})
		}
		w.usage = append(w.usage, k)
	}
	return k
}

// runs returns how many sequences a test tries, from which seed: n in make
// test-long, a quarter of them in make test.
func runs(n int) (from, to uint64) {
	if s, err := strconv.ParseUint(os.Getenv("IDENTITY_RUNS"), 10, 64); err == nil {
		return 100_000, 100_000 + s
	}
	if s, err := strconv.ParseUint(os.Getenv("IDENTITY_SEED"), 10, 64); err == nil {
		return s, s + 1
	}
	switch {
	case testing.Short():
		n /= 10
	case !longtest.Enabled():
		n /= 4
	}
	return 1, uint64(n) + 1
}

func TestEndIsWhatWasSaidInWhateverOrder(t *testing.T) {
	from, to := runs(3000)
	for seed := from; seed < to; seed++ {
		runWorld(t, seed, false)
	}
}

// What an operator undid is as if it had never been said, also what is still on
// its way.
func TestUndoneIsAsNeverSaid(t *testing.T) {
	from, to := runs(3000)
	for seed := from; seed < to; seed++ {
		runWorld(t, seed, true)
	}
}

func runWorld(t *testing.T, seed uint64, unlinks bool) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	users, anons := ids("u", 2+rnd.IntN(5)), ids("a", 1+rnd.IntN(5))
	w := newWorld(rnd, users, anons)
	c := newCluster(t, rnd, 1+rnd.Int32N(4))
	c.logf("IDENTITY_SEED=%d, %d partitions", seed, c.cfg.Partitions)
	for n := range 10 + rnd.IntN(50) {
		if unlinks && rnd.IntN(12) == 0 {
			a, u := pick(rnd, anons), pick(rnd, users)
			if rnd.IntN(2) == 0 || w.target[u] == "" {
				owner := pick(rnd, w.owners[a])
				c.logf("unlink   a=%s u=%s", a, owner)
				c.unlink(event.ActorAnonymous, a, owner, math.MaxInt64)
				w.undone[[2]string{a, owner}] = true
			} else {
				c.logf("unlink   x=%s u=%s", u, w.target[u])
				c.unlink(event.ActorUser, u, w.target[u], math.MaxInt64)
				w.apart[u] = true
			}
		}
		k := w.next(rnd, n, users, anons)
		c.logf("%s", k)
		c.send(k)
		for rnd.IntN(3) > 0 {
			if list := c.pending(); len(list) > 0 {
				c.step(pick(rnd, list))
			}
		}
	}
	c.drain()
	c.compare(fmt.Sprintf("seed %d", seed), w.want())
	// A record makes news of a user at most once, and of the users on its way to
	// the root that have their home here too.
	if most := len(users) * (int(c.cfg.Partitions) + 1); c.fanOut > most {
		c.fatalf("seed %d: one record led to %d links, expected %d at most", seed, c.fanOut, most)
	}
}
