package identity

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/event"
)

// In memory an id's record is a few varints and strings, which the common path reads in
// place. In the changelog it is JSON in an IdentityState.

// link: an anonymous id belongs to a user from since on. Implied: the claim comes from
// the earliest call that names both ids, which is neither an identify nor an alias
// call; an earlier call of the pair replaces it.
type link struct {
	Since   event.Micros `json:"since"`
	UserID  string       `json:"user_id"`
	Implied bool         `json:"implied,omitempty"`
}

func (l link) compare(o link) int {
	if l.Since != o.Since {
		return cmp(l.Since, o.Since)
	}
	return strings.Compare(l.UserID, o.UserID)
}

// undone: links of the id to a user up to until do not count.
type undone struct {
	UserID string       `json:"user_id"`
	Until  event.Micros `json:"until"`
}

// anonymous is the record of an anonymous id. links are in order, each of another
// user than the one before it.
type anonymous struct {
	Links     []link         `json:"links,omitempty"`
	Forgotten event.Micros   `json:"forgotten,omitempty"` // since of the newest link dropped for MaxLinks
	Undone    []undone       `json:"undone,omitempty"`
	Again     []event.Micros `json:"again,omitempty"`   // instants, in order, at which the link in force was said again
	Thinned   event.Micros   `json:"thinned,omitempty"` // newest instant dropped from Again
}

// membership: a user belongs to an account from since on. With an empty AccountID it
// only gives the user's role. Via is the user that the call named, if it is not the
// user of this record, and By the one through whose alias it came first: if a cycle
// gives several ways, only that one removes it. Two memberships that differ only in By
// are equal.
type membership struct {
	Since     event.Micros `json:"since"`
	AccountID string       `json:"account_id,omitempty"`
	Role      string       `json:"role,omitempty"`
	Via       string       `json:"via,omitempty"`
	By        string       `json:"by,omitempty"`
}

func (m membership) compare(o membership) int {
	if m.Since != o.Since {
		return cmp(m.Since, o.Since)
	}
	if c := strings.Compare(m.AccountID, o.AccountID); c != 0 {
		return c
	}
	if c := strings.Compare(m.Role, o.Role); c != 0 {
		return c
	}
	return strings.Compare(m.Via, o.Via)
}

// alias: a user became another user. First and Last are the earliest and the latest
// event time of the calls.
type alias struct {
	UserID string       `json:"user_id"`
	First  event.Micros `json:"first"`
	Last   event.Micros `json:"last,omitempty"`
}

// profile is the part of a user that every partition that counts for the user has.
// Memberships are in order.
type profile struct {
	Alias       string       `json:"alias,omitempty"` // the alias in force
	AliasFirst  event.Micros `json:"alias_first,omitempty"`
	Memberships []membership `json:"memberships,omitempty"`
	Forgotten   event.Micros `json:"forgotten,omitempty"` // since of the newest membership dropped because of MaxMemberships
}

// user is the record of a user: at its home, or a copy.
type user struct {
	profile
	Version int64 `json:"-"`
	known   int   // anonymous ids; counted from the known records

	// Of a copy: its home sends changes to this partition.
	Follows bool `json:"follows,omitempty"`

	// At home only. Identified: an identify or alias call named the user and another id
	// of theirs.
	Identified  bool     `json:"identified,omitempty"`
	Aliases     []alias  `json:"aliases,omitempty"`
	Subscribers []int32  `json:"subscribers,omitempty"`
	Undone      []undone `json:"undone,omitempty"`
}

func cmp(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func appendStr(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// cursor reads appended fields. The bytes were written by this package, so they are
// complete.
type cursor []byte

func (c *cursor) uint() uint64 {
	b := *c
	if b[0] < 0x80 {
		*c = b[1:]
		return uint64(b[0])
	}
	v, n := binary.Uvarint(b)
	*c = b[n:]
	return v
}

func (c *cursor) int() int64 {
	v, n := binary.Varint(*c)
	*c = (*c)[n:]
	return v
}

// str returns a string that points into the memory of a table, which never changes.
func (c *cursor) str() string {
	n := c.uint()
	s := (*c)[:n]
	*c = (*c)[n:]
	return unsafe.String(unsafe.SliceData(s), len(s))
}

func (a *anonymous) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(a.Links)))
	for _, l := range a.Links {
		b = binary.AppendVarint(b, l.Since)
		b = appendStr(b, l.UserID)
	}
	b = binary.AppendVarint(b, a.Forgotten)
	b = appendUndone(b, a.Undone)
	b = binary.AppendVarint(b, a.Thinned)
	b = binary.AppendUvarint(b, uint64(len(a.Again)))
	last := event.Micros(0)
	for _, at := range a.Again {
		b = binary.AppendVarint(b, at-last)
		last = at
	}
	for i, l := range a.Links {
		if l.Implied {
			b = binary.AppendUvarint(b, uint64(i))
		}
	}
	return b
}

func (a *anonymous) read(c cursor) {
	for n := c.uint(); n > 0; n-- {
		a.Links = append(a.Links, link{Since: c.int(), UserID: c.str()})
	}
	a.Forgotten = c.int()
	a.Undone = readUndone(&c)
	a.Thinned = c.int()
	last := event.Micros(0)
	for n := c.uint(); n > 0; n-- {
		last += c.int()
		a.Again = append(a.Again, last)
	}
	for len(c) > 0 {
		a.Links[c.uint()].Implied = true
	}
}

func appendUndone(b []byte, list []undone) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, u := range list {
		b = appendStr(b, u.UserID)
		b = binary.AppendVarint(b, u.Until)
	}
	return b
}

func readUndone(c *cursor) (list []undone) {
	for n := c.uint(); n > 0; n-- {
		list = append(list, undone{c.str(), c.int()})
	}
	return list
}

// linkAt reads the link in force at t from an encoded anonymous record: the last one
// that is not later than t, else the first. forgotten reports that one before it was
// dropped.
func linkAt(b []byte, t event.Micros) (userID string, ok, forgotten bool) {
	c := cursor(b)
	n := c.uint()
	for i := range n {
		since, id := c.int(), c.str()
		if since > t && i > 0 {
			return userID, true, false
		}
		userID, ok, forgotten = id, true, since > t
		if since > t {
			for range n - 1 {
				c.int()
				c.str()
			}
			return userID, true, c.int() != 0
		}
	}
	return userID, ok, forgotten
}

// An encoded user record begins with the fields that resolving needs.
func (u *user) append(b []byte) []byte {
	b = appendStr(b, u.Alias)
	b = binary.AppendVarint(b, u.AliasFirst)
	b = binary.AppendUvarint(b, uint64(len(u.Memberships)))
	for _, m := range u.Memberships {
		b = binary.AppendVarint(b, m.Since)
		b = appendStr(b, m.AccountID)
		b = appendStr(b, m.Role)
		b = appendStr(b, m.Via)
		b = appendStr(b, m.By)
	}
	b = binary.AppendVarint(b, u.Forgotten)
	b = binary.AppendVarint(b, u.Version)
	b = binary.AppendUvarint(b, uint64(u.known))
	bits := byte(0)
	if u.Follows {
		bits |= 1
	}
	if u.Identified {
		bits |= 2
	}
	b = append(b, bits)
	b = binary.AppendUvarint(b, uint64(len(u.Aliases)))
	for _, a := range u.Aliases {
		b = appendStr(b, a.UserID)
		b = binary.AppendVarint(b, a.First)
		b = binary.AppendVarint(b, a.Last)
	}
	b = binary.AppendUvarint(b, uint64(len(u.Subscribers)))
	for _, p := range u.Subscribers {
		b = binary.AppendUvarint(b, uint64(p))
	}
	return appendUndone(b, u.Undone)
}

func (u *user) read(c cursor) {
	u.Alias, u.AliasFirst = c.str(), c.int()
	for n := c.uint(); n > 0; n-- {
		u.Memberships = append(u.Memberships, c.membership())
	}
	u.Forgotten = c.int()
	u.Version = c.int()
	u.known = int(c.uint())
	bits := c.uint()
	u.Follows, u.Identified = bits&1 != 0, bits&2 != 0
	for n := c.uint(); n > 0; n-- {
		u.Aliases = append(u.Aliases, alias{c.str(), c.int(), c.int()})
	}
	for n := c.uint(); n > 0; n-- {
		u.Subscribers = append(u.Subscribers, int32(c.uint()))
	}
	u.Undone = readUndone(&c)
}

func (c *cursor) membership() membership {
	return membership{c.int(), c.str(), c.str(), c.str(), c.str()}
}

// activeAlias returns the alias in force: that of the latest call.
func (u *user) activeAlias() (string, event.Micros) {
	var best alias
	for _, a := range u.Aliases {
		if best.UserID == "" || a.Last > best.Last || (a.Last == best.Last && a.UserID > best.UserID) {
			best = a
		}
	}
	return best.UserID, best.First
}

func isUndone(list []undone, userID string, since event.Micros) bool {
	for _, u := range list {
		if u.UserID == userID && since <= u.Until {
			return true
		}
	}
	return false
}

// maxUndone bounds the remembered orders of one id; the oldest is dropped.
const maxUndone = 32

func addUndone(list []undone, userID string, until event.Micros) []undone {
	list = slices.DeleteFunc(list, func(u undone) bool { return u.UserID == userID && u.Until <= until })
	for _, u := range list {
		if u.UserID == userID {
			return list
		}
	}
	if len(list) >= maxUndone {
		list = list[1:]
	}
	return append(list, undone{strings.Clone(userID), until})
}

func decodeBody(body []byte, into any) error {
	if len(body) == 0 {
		return nil
	}
	err := json.Unmarshal(body, into)
	if _, broken := errors.AsType[*json.SyntaxError](err); broken {
		return fmt.Errorf("body: %w: %w", event.ErrBody, err)
	}
	if err != nil { // a newer release may have other fields
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // cannot happen: only strings and numbers are encoded
	}
	return b
}
