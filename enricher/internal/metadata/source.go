package metadata

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"
)

// A source is where new keys come from: the network of the address that an event
// was received from. Everything else in an event, the sender chooses. Whoever has
// no more than a public browser key could otherwise use up all keys of an app in
// a few requests, and no other sender's new key would ever get a column again.
//
// A source takes at most Limits.SourceKeys new keys in sourceWindow, and no more
// than a quarter of those that the app had left. So it can make the room smaller,
// but not use it up, and there is time to act: values without a key are counted,
// the log says the source, and metadata reset takes its keys away.

// sourceWindow is the time in which a source's new keys are counted.
const sourceWindow = time.Hour

// leastSourceKeys are granted to a source whatever little the app has left.
const leastSourceKeys = 16

// Source names the source of an app's events that come from an address: four
// hexadecimal digits, or "none" where the app keeps no address. They are so few
// that they tell nobody the address, and enough to tell one sender from others.
func Source(app, address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return "none"
	}
	bits := 24
	if ip = ip.Unmap(); ip.Is6() {
		bits = 48
	}
	network, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return "none"
	}
	sum := sha256.Sum256([]byte(app + "\x00" + network.String()))
	return fmt.Sprintf("%x", sum[:2])
}

// origin is an app and a source of it.
type origin struct{ app, source string }

// made counts the new keys of an origin since an instant, and forgets those
// before it. The caller has r.mu.
func (r *Registry) made(o origin, since time.Time) int {
	kept := r.times[o][:0]
	for _, at := range r.times[o] {
		if at.After(since) {
			kept = append(kept, at)
		}
	}
	if len(kept) == 0 {
		delete(r.times, o)
		return 0
	}
	r.times[o] = kept
	return len(kept)
}

// Room returns how many new keys a source of an app may make now.
func (r *Registry) Room(app, source string, limits Limits, now time.Time) int {
	left := limits.AppKeys - r.View().Count(app)
	r.mu.Lock()
	defer r.mu.Unlock()
	made := r.made(origin{app, source}, now.Add(-sourceWindow))
	share := max((max(left, 0)+made)/4, leastSourceKeys)
	return min(left, min(limits.SourceKeys, share)-made)
}

// Rooms says how many new keys a source of an app may make now.
type Rooms interface{ Room(app, source string) int }

// SentFrom says from which address the event at hand was received: that bounds
// how many keys it may make. Without it, only Limits.AppKeys does.
func (n *Normalizer) SentFrom(address string, rooms Rooms) {
	n.address, n.rooms = address, rooms
}

// admit takes one of the keys that the event's source may make. The event is
// looked up once, with its first key that is new.
func (n *Normalizer) admit() bool {
	if n.rooms == nil {
		return true
	}
	if n.source == "" {
		n.source = Source(n.at.name, n.address)
		n.room = n.rooms.Room(n.at.name, n.source)
	}
	n.room--
	return n.room >= 0
}
