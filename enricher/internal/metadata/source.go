package metadata

import (
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"
)

// The source of a new key is the network of the address from which its event was
// received. The sender chooses everything else in an event. Otherwise anyone with a
// public browser key could use up all keys of an app in a few requests, and no other
// sender's new key would ever get a column.
//
// A source may create at most Limits.SourceKeys new keys in sourceWindow, and no more
// than a quarter of those that the app has left. So it can reduce the room, but not use
// it up, and there is time to act: values without a key are counted, the log names the
// source, and metadata reset removes its keys.

// sourceWindow is the period over which a source's new keys are counted.
const sourceWindow = time.Hour

// leastSourceKeys are granted to a source however few keys the app has left.
const leastSourceKeys = 16

// Source names the source of events of an app from an address: four hexadecimal digits,
// or "none" if the app stores no address. That is too short to reveal the address, and
// long enough to distinguish senders.
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

// made counts the new keys of an origin since an instant, and drops older ones. The
// caller has r.mu.
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

// Room returns how many new keys a source of an app may create at present.
func (r *Registry) Room(app, source string, limits Limits, now time.Time) int {
	left := limits.AppKeys - r.View().Count(app)
	r.mu.Lock()
	defer r.mu.Unlock()
	made := r.made(origin{app, source}, now.Add(-sourceWindow))
	share := max((max(left, 0)+made)/4, leastSourceKeys)
	return min(left, min(limits.SourceKeys, share)-made)
}

// Rooms returns how many new keys a source of an app may create at present.
type Rooms interface{ Room(app, source string) int }

// SentFrom sets the address from which the current event was received, which bounds the
// keys that it may create. Without it, only Limits.AppKeys applies.
func (n *Normalizer) SentFrom(address string, rooms Rooms) {
	n.address, n.rooms = address, rooms
}

// admit uses one of the keys that the event's source may create. The source is looked
// up once per event, with its first new key.
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
