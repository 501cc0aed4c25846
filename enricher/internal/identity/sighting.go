package identity

import (
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/event"
)

// Some server libraries generate an anonymous id for each message that names none
// (RudderStack's for Go since version 4). Used as ids they would create a link per
// message, kept forever, and state would grow with messages and not with people. For
// these libraries an anonymous id beside a user is used only when it occurs a second
// time, or is already known: an id chosen by a person occurs again, a generated one
// never does. Ids that were seen once are remembered only in memory, in bounded number:
// after a restart a link is made one message later.

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

// Invented reports whether the anonymous id of an event must be assumed to be generated
// by its library for this message. Call it once per event; if true, the event counts
// without the id.
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
