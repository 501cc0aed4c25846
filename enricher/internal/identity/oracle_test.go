package identity

import (
	stdcmp "cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

// oracle is the rules, said once more and one event at a time, for a world in
// which everything that was said is known everywhere before the next call: no
// partitions, no copies, no rows, no messages. It holds what each event counts
// for, and changes that when something is said.
type oracle struct {
	counts  map[string]*counted
	order   []*counted
	said    map[string][]claimed // of an anonymous id
	aliases map[string]map[string]*alias
	members map[string][]membership
	undone  map[[3]string]event.Micros // kind, id and user
}

type counted struct {
	row
	at event.Micros
}

// claimed is a call that named an anonymous id and a user.
type claimed struct {
	at     event.Micros
	user   string
	always bool // it counts at any time, and not only as the first of the pair
}

func newOracle() *oracle {
	return &oracle{
		counts: map[string]*counted{}, said: map[string][]claimed{}, aliases: map[string]map[string]*alias{},
		members: map[string][]membership{}, undone: map[[3]string]event.Micros{},
	}
}

// The order of what begins at the same instant is said here again, and so is the
// hour: an oracle that called the code it judges would follow any change of it.

// orderOfMembers is by time, and at the same instant by the bytes of account,
// role and the user that the call named.
func orderOfMembers(a, b membership) int {
	return stdcmp.Or(stdcmp.Compare(a.Since, b.Since), stdcmp.Compare(a.AccountID, b.AccountID), stdcmp.Compare(a.Role, b.Role), stdcmp.Compare(a.Via, b.Via))
}

// userOf is whom an anonymous id belongs to at an instant, of all that was said of
// it and not undone; empty: to nobody.
func userOf(said []claimed, undone func(claimed) bool, t event.Micros) string {
	first := map[string]event.Micros{}
	for _, c := range said {
		if f, ok := first[c.user]; !ok || c.at < f {
			first[c.user] = c.at
		}
	}
	var list []claimed
	for _, c := range said {
		if (c.always || c.at == first[c.user]) && !undone(c) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b claimed) int { return stdcmp.Or(stdcmp.Compare(a.at, b.at), stdcmp.Compare(a.user, b.user)) })
	user := ""
	for i, c := range list {
		if i == 0 || c.at <= t {
			user = c.user
		}
	}
	return user
}

func (o *oracle) userOf(a string, t event.Micros) string {
	return userOf(o.said[a], func(c claimed) bool {
		until, undone := o.undone[[3]string{event.ActorAnonymous, a, c.user}]
		return undone && c.at <= until
	}, t)
}

func hourOf(t event.Micros) event.Micros {
	const hour = 3600 * 1_000_000
	return t - ((t%hour)+hour)%hour
}

// target is the alias in force of a user: the one said last.
func (o *oracle) target(u string) (best alias) {
	for _, a := range o.aliases[u] {
		if best.UserID == "" || a.Last > best.Last || (a.Last == best.Last && a.UserID > best.UserID) {
			best = *a
		}
	}
	return best
}

// way is the users from u to its root.
func (o *oracle) way(u string) []string { return wayOf(u, o.target) }

// wayOf follows aliases from u to its root. In a cycle the alias that was first said
// last is not in force; of equal ones that of the greatest user.
func wayOf(u string, target func(string) alias) []string {
	var way []string
	for {
		if i := slices.Index(way, u); i >= 0 {
			last := i
			for j := i; j < len(way); j++ {
				a, b := target(way[j]).First, target(way[last]).First
				if a > b || (a == b && way[j] > way[last]) {
					last = j
				}
			}
			return way[:last+1]
		}
		way = append(way, u)
		next := target(u).UserID
		if next == "" {
			return way
		}
		u = next
	}
}

func (o *oracle) root(u string) string { w := o.way(u); return w[len(w)-1] }

// inForce returns the last of list that is not later than t, else the first.
func inForce(list []membership, t event.Micros) (m membership) {
	slices.SortFunc(list, orderOfMembers)
	for i, c := range list {
		if i > 0 && c.Since > t {
			break
		}
		m = c
	}
	return m
}

func (o *oracle) memberships(u string, keep func(membership) bool) []membership {
	var list []membership
	for _, v := range o.way(u) {
		for _, m := range o.members[v] {
			if keep(m) {
				list = append(list, m)
			}
		}
	}
	return list
}

func (o *oracle) account(u string, t event.Micros) string {
	return inForce(o.memberships(u, func(m membership) bool { return m.AccountID != "" }), t).AccountID
}

func (o *oracle) role(u, account string, t event.Micros) string {
	if account == "" {
		return ""
	}
	for _, a := range []string{account, ""} {
		if r := inForce(o.memberships(u, func(m membership) bool { return m.AccountID == a && m.Role != "" }), t).Role; r != "" {
			return r
		}
	}
	return ""
}

// say takes in a call.
func (o *oracle) say(k call) {
	switch k.Kind {
	case event.KindGroup, event.KindIdentify:
		if k.UserID != "" {
			o.join(k.UserID, k.AccountID, roleOf(k), k.at)
		}
	case event.KindAlias:
		if k.PreviousID != k.UserID {
			o.alias(k.PreviousID, k.UserID, k.at)
			o.claim(k.PreviousID, k.UserID, k.at, true)
		}
	}
	if k.UserID != "" && k.AnonymousID != "" {
		o.claim(k.AnonymousID, k.UserID, k.at, k.Kind == event.KindIdentify)
	}
	if event.IsUsage(k.Kind) {
		o.count(k)
	}
}

func roleOf(k call) string {
	var traits struct{ Role string }
	_ = json.Unmarshal(k.Traits, &traits) // a call without traits has no role
	return traits.Role
}

func (o *oracle) count(k call) {
	c := &counted{at: k.at, row: row{
		Account: k.AccountID, Source: event.AccountFromEvent, UserID: k.UserID, Message: k.MessageID, Hour: hourOf(k.at), At: k.at,
	}}
	if k.AccountID == "" {
		c.Source = event.AccountNone
	}
	if k.UserID == "" {
		c.AnonID = k.AnonymousID
		c.UserID = o.userOf(k.AnonymousID, k.at)
	}
	switch {
	case c.UserID != "":
		c.Actor, c.ActorKind = o.root(c.UserID), event.ActorUser
		if c.Account == "" {
			if c.Account = o.account(c.UserID, k.at); c.Account != "" {
				c.Source = event.AccountFromMembership
			}
		}
		c.Role = o.role(c.UserID, c.Account, k.at)
	case c.AnonID != "":
		c.Actor, c.ActorKind = c.AnonID, event.ActorAnonymous
	default:
		c.ActorKind = event.ActorAccount
	}
	o.counts[k.MessageID] = c
	o.order = append(o.order, c)
}

// fill gives an event of user u what it lacks, by the start of its hour.
func (o *oracle) fill(c *counted, u string) { o.fillAt(c, u, c.Hour) }

func (o *oracle) fillAt(c *counted, u string, t event.Micros) {
	switch {
	case c.Source == event.AccountNone:
		if c.Account = o.account(u, t); c.Account != "" {
			c.Source = event.AccountFromMembership
			c.Role = o.role(u, c.Account, t)
		}
	case c.Role == "":
		c.Role = o.role(u, c.Account, t)
	}
}

func (o *oracle) claim(a, u string, t event.Micros, always bool) {
	was := map[*counted]string{}
	for _, c := range o.order {
		was[c] = o.userOf(a, c.at)
	}
	o.said[a] = append(o.said[a], claimed{t, u, always})
	// What an alias left behind when its user got another one stays (rule 4).
	o.relink(a, func(c *counted) bool {
		return c.UserID == "" || (c.Actor == o.root(c.UserID) && was[c] == c.UserID)
	})
}

// relink makes the events of an anonymous id count for whom it belongs to at
// their instants.
func (o *oracle) relink(a string, moved func(*counted) bool) {
	for _, c := range o.order {
		u := o.userOf(a, c.at)
		if c.AnonID != a || c.UserID == u || !moved(c) {
			continue
		}
		if c.UserID != "" { // decided anew but for an account that the event named
			if c.Source != event.AccountFromEvent {
				c.Account, c.Source = "", event.AccountNone
			}
			c.Role = ""
		}
		if c.UserID = u; u == "" {
			c.Actor, c.ActorKind = a, event.ActorAnonymous
			continue
		}
		c.Actor, c.ActorKind = o.root(u), event.ActorUser
		o.fillAt(c, u, c.at)
	}
}

func (o *oracle) join(u, account, role string, t event.Micros) {
	var wasIn, wasRole string
	slices.SortFunc(o.members[u], orderOfMembers)
	for _, m := range o.members[u] {
		if m.Via != u {
			continue
		}
		if m.Since <= t && m.AccountID != "" {
			wasIn = m.AccountID
		}
		if m.Since <= t && m.AccountID == account && m.Role != "" {
			wasRole = m.Role
		}
	}
	if (account == "" || account == wasIn) && (role == "" || role == wasRole) {
		return
	}
	o.give(u, []membership{{Since: t, AccountID: account, Role: role, Via: u}})
}

// give adds memberships to u and to whom it is aliased to, and fills what they
// count.
func (o *oracle) give(u string, list []membership) {
	before := map[string][]membership{}
	seen := map[string]bool{}
	for ; u != "" && !seen[u]; u = o.target(u).UserID {
		seen[u] = true
		before[u] = slices.Clone(o.members[u])
		for _, m := range list {
			if !slices.Contains(o.members[u], m) {
				o.members[u] = append(o.members[u], m)
			}
		}
	}
	for v, was := range before {
		if o.root(v) == v {
			o.filled(v, was)
		}
	}
}

// filled gives what a root counts what its memberships say and did not before.
func (o *oracle) filled(v string, was []membership) {
	had := func(account string) bool {
		return slices.ContainsFunc(was, func(m membership) bool { return m.AccountID == account && m.Role != "" })
	}
	hadAccount := slices.ContainsFunc(was, func(m membership) bool { return m.AccountID != "" })
	for _, c := range o.order {
		if c.Actor != v || c.ActorKind != event.ActorUser {
			continue
		}
		switch {
		case c.Source == event.AccountNone && !hadAccount:
			o.fill(c, v)
		case c.Source != event.AccountNone && c.Role == "" && !had("") && !had(c.Account):
			o.fill(c, v)
		}
	}
}

func (o *oracle) alias(x, y string, t event.Micros) {
	if until, ok := o.undone[[3]string{event.ActorUser, x, y}]; ok && t <= until {
		return
	}
	was := o.root(x)
	old := o.target(x).UserID
	if o.aliases[x] == nil {
		o.aliases[x] = map[string]*alias{}
	}
	if a := o.aliases[x][y]; a == nil {
		o.aliases[x][y] = &alias{UserID: y, First: t, Last: t}
	} else {
		a.First, a.Last = min(a.First, t), max(a.Last, t)
	}
	o.rerooted(was)
	if now := o.target(x).UserID; now != old {
		o.give(now, slices.Clone(o.members[x]))
	}
}

// rerooted moves what a user was counted for that was a root and is no more.
func (o *oracle) rerooted(was string) {
	now := o.root(was)
	if now == was {
		return
	}
	for _, c := range o.order {
		if c.Actor == was && c.ActorKind == event.ActorUser {
			c.Actor = now
			o.fill(c, was)
		}
	}
}

func (o *oracle) unlinkAnonymous(a, u string, until event.Micros) {
	o.undo(event.ActorAnonymous, a, u, until)
	o.relink(a, func(c *counted) bool { return c.UserID == u })
}

func (o *oracle) undo(kind, id, u string, until event.Micros) {
	key := [3]string{kind, id, u}
	if old, ok := o.undone[key]; !ok || until > old {
		o.undone[key] = until
	}
}

func (o *oracle) unlinkUser(x, y string, until event.Micros) {
	o.undo(event.ActorUser, x, y, until)
	a := o.aliases[x][y]
	if a == nil || a.First > until {
		return
	}
	if a.Last > until {
		was := o.root(x)
		a.First = a.Last // said again since
		o.rerooted(was)
		return
	}
	var below []string
	for u := range o.everyone() {
		seen := map[string]bool{}
		for v := u; v != "" && !seen[v]; v = o.target(v).UserID {
			seen[v] = true
			if v == x {
				below = append(below, u)
			}
		}
	}
	was, rootOfX, old := o.root(y), o.root(x), o.target(x).UserID
	delete(o.aliases[x], y)
	o.rerooted(rootOfX)
	for _, u := range below {
		now := o.root(u)
		if now == was {
			continue
		}
		accounts := o.memberships(u, func(m membership) bool { return m.AccountID != "" })
		for _, c := range o.order {
			if c.Actor != was || c.ActorKind != event.ActorUser || c.UserID != u {
				continue
			}
			c.Actor, c.Role = now, ""
			kept := slices.ContainsFunc(accounts, func(m membership) bool { return m.AccountID == c.Account })
			if c.Source == event.AccountFromMembership && !kept {
				c.Account, c.Source = "", event.AccountNone
			}
			o.fill(c, u)
		}
	}
	// What y has by x it has no more, unless they are one person all the same.
	gone := slices.Clone(o.members[x])
	if o.root(x) == o.root(y) {
		gone = nil
	}
	seen := map[string]bool{}
	for v := y; v != "" && !seen[v] && len(gone) > 0; v = o.target(v).UserID {
		seen[v] = true
		o.members[v] = slices.DeleteFunc(o.members[v], func(m membership) bool { return m.Via != v && slices.Contains(gone, m) })
		if o.root(v) == v {
			o.refill(v, gone)
		}
	}
	if now := o.target(x).UserID; now != old && now != "" {
		o.give(now, slices.Clone(o.members[x]))
	}
}

func (o *oracle) refill(v string, gone []membership) {
	accounts := o.memberships(v, func(m membership) bool { return m.AccountID != "" })
	for _, c := range o.order {
		if c.Actor != v || c.ActorKind != event.ActorUser {
			continue
		}
		var lost, lostRole bool
		for _, m := range gone {
			if m.AccountID != "" && m.AccountID == c.Account {
				lost = true
				lostRole = lostRole || (m.Role != "" && m.Role == c.Role)
			}
		}
		kept := slices.ContainsFunc(accounts, func(m membership) bool { return m.AccountID == c.Account })
		switch {
		case c.Source == event.AccountFromMembership && lost && !kept:
			c.Account, c.Source, c.Role = "", event.AccountNone, ""
			o.fill(c, v)
		case lostRole:
			c.Role = o.role(v, c.Account, c.Hour)
		}
	}
}

func (o *oracle) everyone() map[string]bool {
	all := map[string]bool{}
	for u := range o.aliases {
		all[u] = true
	}
	for _, c := range o.order {
		all[c.UserID] = true
	}
	delete(all, "")
	return all
}

func (o *oracle) want() map[string]row {
	want := map[string]row{}
	for m, c := range o.counts {
		want[m] = c.row
	}
	return want
}

// TestRulesOneAfterTheOther says anything at all, also what depends on order:
// devices that change hands, users of several accounts and roles, users who are
// aliased to several others, orders that undo links. Every call has arrived
// everywhere before the next one.
func TestRulesOneAfterTheOther(t *testing.T) {
	from, to := runs(3000)
	for seed := from; seed < to; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 11))
		users, anons := ids("u", 2+rnd.IntN(4)), ids("a", 1+rnd.IntN(4))
		accounts, roles := ids("acct", 1+rnd.IntN(3)), []string{"", "admin", "clerk"}
		o := newOracle()
		c := newCluster(t, rnd, 1+rnd.Int32N(4))
		c.logf("IDENTITY_SEED=%d, %d partitions", seed, c.cfg.Partitions)
		unlinks, aliases := rnd.IntN(2) == 0, rnd.IntN(4) > 0
		for n := range 10 + rnd.IntN(40) {
			k := call{at: epoch + event.Micros(rnd.IntN(360))*minute}
			k.MessageID = fmt.Sprintf("m%d", n)
			switch d := rnd.IntN(20); {
			case d < 3:
				k.Kind, k.UserID, k.AnonymousID = event.KindIdentify, pick(rnd, users), pick(rnd, anons)
				if rnd.IntN(4) == 0 {
					k.AccountID = pick(rnd, accounts)
				}
				if rnd.IntN(4) == 0 {
					k.Traits = traits(pick(rnd, roles))
				}
			case d < 5 && aliases:
				k.Kind, k.UserID, k.PreviousID = event.KindAlias, pick(rnd, users), pick(rnd, append(anons, users...))
			case d < 7:
				k.Kind, k.UserID, k.AccountID = event.KindGroup, pick(rnd, users), pick(rnd, accounts)
				k.Traits = traits(pick(rnd, roles))
			case d < 8 && unlinks:
				until := k.at
				if rnd.IntN(2) == 0 {
					until = math.MaxInt64
				}
				if rnd.IntN(2) == 0 {
					a, u := pick(rnd, anons), pick(rnd, users)
					c.logf("unlink   a=%s u=%s until=%d", a, u, (until-epoch)/minute)
					c.unlink(event.ActorAnonymous, a, u, until)
					o.unlinkAnonymous(a, u, until)
				} else {
					x, u := pick(rnd, users), pick(rnd, users)
					c.logf("unlink   x=%s u=%s until=%d", x, u, (until-epoch)/minute)
					c.unlink(event.ActorUser, x, u, until)
					o.unlinkUser(x, u, until)
				}
				c.drain()
				c.compare(fmt.Sprintf("seed %d after an unlink", seed), o.want())
				continue
			default:
				k.Kind = event.KindTrack
				switch rnd.IntN(8) {
				case 0:
					k.AccountID = pick(rnd, accounts)
				case 1:
					k.UserID, k.AnonymousID = pick(rnd, users), pick(rnd, anons)
				case 2, 3, 4:
					k.UserID = pick(rnd, users)
				default:
					k.AnonymousID = pick(rnd, anons)
				}
				if rnd.IntN(3) == 0 {
					k.AccountID = pick(rnd, append(accounts, "elsewhere"))
				}
			}
			c.logf("%s", k)
			c.send(k)
			c.drain()
			o.say(k)
			if n%4 == 0 {
				c.compare(fmt.Sprintf("seed %d after %s", seed, k.MessageID), o.want())
			}
		}
		c.compare(fmt.Sprintf("seed %d", seed), o.want())
	}
}
