package identity

import (
	"math"
	"slices"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/topic"
)

// node is a user on the way from a user to its root.
type node struct {
	id      string
	first   event.Micros // of its alias
	members cursor       // encoded memberships, and how many; empty: none
	n       uint64
}

// node reads the fields of a user that resolving needs; next is its alias.
func (tx *Tx) node(app, id string) (n node, next string) {
	n.id = id
	b, ok := tx.get(app, topic.KeyUser, id)
	if !ok {
		return n, ""
	}
	c := cursor(b)
	next = c.str()
	n.first = c.int()
	if n.n = c.uint(); n.n > 0 {
		n.members = c
	}
	return n, next
}

// resolve returns the users from id to its root, both included (rule 4). It is
// valid until the next call.
func (tx *Tx) resolve(app, id string) []node {
	n, next := tx.node(app, id)
	tx.path = append(tx.path[:0], n)
	for next != "" {
		for i := range tx.path {
			if tx.path[i].id == next {
				return tx.path[:i+latestIn(tx.path[i:])+1]
			}
		}
		if len(tx.path) > tx.s.cfg.MaxAliasDepth {
			tx.limit(boundAliasDepth)
			break
		}
		n, next = tx.node(app, next)
		tx.path = append(tx.path, n)
	}
	return tx.path
}

// latestIn returns the user of a cycle whose alias is not in force.
func latestIn(cycle []node) int {
	best := 0
	for i, n := range cycle {
		b := cycle[best]
		if n.first > b.first || (n.first == b.first && n.id > b.id) {
			best = i
		}
	}
	return best
}

// root returns the root of id.
func (tx *Tx) root(app, id string) string {
	path := tx.resolve(app, id)
	return path[len(path)-1].id
}

// always is a time before every membership.
const always = math.MinInt64

// accountAt returns the account in force at t among the memberships of all users of
// path: the last one not later than t, else the first. forgotten reports that one
// before it was dropped.
func accountAt(path []node, t event.Micros) (account string, ok, forgotten bool) {
	var best membership
	found, inForce := false, false
	for i := range path {
		c := path[i].members
		for range path[i].n {
			m := c.membership()
			if m.AccountID == "" {
				continue
			}
			now := m.Since <= t
			switch {
			case !found, now && !inForce:
			case !now && inForce:
				continue
			case now && m.compare(best) <= 0, !now && m.compare(best) >= 0:
				continue
			}
			best, found, inForce = m, true, now
		}
		if path[i].n > 0 && c.int() != 0 && !inForce {
			forgotten = true
		}
	}
	return best.AccountID, found, forgotten && found && !inForce
}

// roleAt returns the role in account in force at t: of the memberships in it that have
// a role, the last one not later than t, else the first; else, in the same way, of
// those without an account.
func roleAt(path []node, account string, t event.Micros) string {
	if account == "" {
		return ""
	}
	if r := roleIn(path, account, t); r != "" {
		return r
	}
	return roleIn(path, "", t)
}

func roleIn(path []node, account string, t event.Micros) string {
	var best membership
	found, inForce := false, false
	for i := range path {
		c := path[i].members
		for range path[i].n {
			m := c.membership()
			if m.AccountID != account || m.Role == "" {
				continue
			}
			now := m.Since <= t
			switch {
			case !found, now && !inForce:
			case !now && inForce:
				continue
			case now && m.compare(best) <= 0, !now && m.compare(best) >= 0:
				continue
			}
			best, found, inForce = m, true, now
		}
	}
	return best.Role
}

// timeline holds the memberships of a user and of users aliased to it, in the form from
// which moves are made.
type timeline struct {
	path     []node
	accounts []string       // named, each once, in order
	bounds   []event.Micros // instants, or starts of hours, at which something may change
	tx       *Tx
	roles    bool // a role without account is known
}

// How a timeline's bounds are rounded (rule 7): an event of an anonymous id is moved
// by its instant, anything else by the start of its hour.
func byInstant(t event.Micros) event.Micros { return t }
func byHour(t event.Micros) event.Micros    { return ceilHour(t) }

func (tx *Tx) newTimeline(path []node, round func(event.Micros) event.Micros) timeline {
	t := timeline{path: slices.Clone(path), tx: tx}
	for _, n := range path {
		c := n.members
		for range n.n {
			m := c.membership()
			t.bounds = append(t.bounds, round(m.Since))
			if m.AccountID != "" {
				t.accounts = append(t.accounts, m.AccountID)
			} else if m.Role != "" {
				t.roles = true
			}
		}
	}
	slices.Sort(t.bounds)
	t.bounds = slices.Compact(t.bounds)
	slices.Sort(t.accounts)
	t.accounts = slices.Compact(t.accounts)
	return t
}

// span is an account and a role from one bound to another; 0 is unbounded.
type span struct {
	from, to event.Micros
	account  string
	role     string
}

// unnamed returns what events without an account count for (rules 6 and 7). It is empty
// when no account is known.
func (t *timeline) unnamed() []span {
	if len(t.accounts) == 0 {
		return nil
	}
	return t.spans(func(at event.Micros) (string, string) {
		account, _, _ := accountAt(t.path, at)
		return account, roleAt(t.path, account, at)
	})
}

// in returns the roles in account.
func (t *timeline) in(account string) []span {
	return t.spans(func(at event.Micros) (string, string) { return account, roleAt(t.path, account, at) })
}

// elsewhere returns the roles in accounts that the timeline does not name.
func (t *timeline) elsewhere() []span {
	return t.spans(func(at event.Micros) (string, string) { return "", roleIn(t.path, "", at) })
}

func (t *timeline) spans(at func(event.Micros) (account, role string)) []span {
	memberships := 1
	for i := range t.path {
		memberships += int(t.path[i].n)
	}
	t.tx.charge(work{steps: int64(memberships) * int64(len(t.bounds)+1)})
	account, role := at(always)
	list := []span{{account: account, role: role}}
	for _, b := range t.bounds {
		account, role := at(b)
		last := &list[len(list)-1]
		if account == last.account && role == last.role {
			continue
		}
		last.to = b
		list = append(list, span{from: b, account: account, role: role})
	}
	return list
}

func floorHour(t event.Micros) event.Micros {
	f := t - t%hour
	if f > t {
		f -= hour
	}
	return f
}

func ceilHour(t event.Micros) event.Micros {
	f := floorHour(t)
	if f < t {
		f += hour
	}
	return f
}
