package identity

import (
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
)

// Some server libraries make up an anonymous id for each message that names none
// (RudderStack's for Go since version 4). Taken as ids they would be a link for
// each message, kept forever: state would grow with messages and not with people.
// Of these libraries an anonymous id beside a user is believed when it comes a
// second time, or is known already: one that somebody chose comes again, one that
// was made up never does. What was seen once is remembered in memory only, and
// only so much: a restart makes a link come one message later.

// sightings remembers pairs of ids that were seen once.
type sightings struct{ young, old map[pair]struct{} }

// maxSightings bounds each of the two generations of sightings.
const maxSightings = 1 << 15

func (s *sightings) has(p pair) bool {
	_, young := s.young[p]
	_, old := s.old[p]
	return young || old
}

func (s *sightings) add(p pair) {
	if len(s.young) >= maxSightings {
		s.young, s.old = nil, s.young
	}
	if s.young == nil {
		s.young = map[pair]struct{}{}
	}
	s.young[p] = struct{}{}
}

// Invented reports whether the anonymous id of an event must be one that its
// library made up for this message: to be called once for an event, which then
// counts without the id.
func (tx *Tx) Invented(raw *event.RawEvent) bool {
	if raw.UserID == "" || raw.AnonymousID == "" || raw.AnonymousID == raw.UserID || !isUUID(raw.AnonymousID) ||
		!slices.ContainsFunc(tx.s.cfg.InventingLibraries, func(prefix string) bool { return strings.HasPrefix(raw.Library, prefix) }) {
		return false
	}
	p := tx.s.pair(raw.AppID, raw.UserID, raw.AnonymousID)
	if _, again := tx.sighted[p]; again || tx.s.known.has(p) || tx.known.has(p) || tx.s.sighted.has(p) {
		return false
	}
	if tx.sighted == nil {
		tx.sighted = map[pair]struct{}{}
	}
	tx.sighted[p] = struct{}{}
	return true
}

// isUUID reports whether an id has the form of a UUID.
func isUUID(id string) bool {
	if len(id) != 36 {
		return false
	}
	for i := range len(id) {
		switch c := id[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case '0' <= c && c <= '9', 'a' <= c|0x20 && c|0x20 <= 'f':
		default:
			return false
		}
	}
	return true
}
