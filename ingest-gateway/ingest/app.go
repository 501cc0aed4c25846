package ingest

import (
	"net/netip"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
)

// App is what a write key belongs to: one product in one environment. It is not
// changed once made; a reload of the key file makes new ones.
type App struct {
	ID string

	// AllowedOrigins are the values of Origin that browsers may send from;
	// empty allows all.
	AllowedOrigins []string

	// RatePerSecond bounds events per second in this process, with bursts of
	// Burst events; 0 is no bound.
	RatePerSecond float64
	Burst         int

	// DailyQuota bounds events per UTC day in this process; 0 is no bound.
	DailyQuota int64

	// AccountKeys are the names under which the app's events tell the account,
	// first found wins: a property or trait of the Segment API, a group type of
	// PostHog and Amplitude, a group key of Mixpanel, an attribute of OTLP.
	AccountKeys []string

	// QuantityKey is the property that says how many actions one event stands
	// for; empty is none. It has no default: a property called "quantity" means
	// items in a cart to most who send one.
	QuantityKey string

	// NoIDs are the texts that are no ids of the app's people and accounts; nil is
	// ids.Default.
	NoIDs *ids.List

	// IPMode is what of a client's address may be stored.
	IPMode IPMode

	// Key is what the write key of the request may do less than the app, and whether
	// it may send history. The zero value takes nothing away.
	Key Scope
}

// Scope says what one write key of an app may do.
type Scope struct {
	ID        string       // the first digits of the key's hash, for logs and replies
	Expires   event.Micros // from when on the key is not known any more; 0: never
	Protocols []string     // names of those that it may be used with; empty: all

	// Bounds of the key alone, beside the app's: as App has them.
	RatePerSecond float64
	Burst         int
	DailyQuota    int64

	// History lets the key send events that count however old they are
	// (HistoryAnyAge). A key that anybody can read must not: each hour of the past
	// is a row of every rollup and each month a partition.
	History bool
}

// Expired reports whether the key is not known any more at an instant.
func (s *Scope) Expired(at event.Micros) bool { return s.Expires != 0 && at >= s.Expires }

// AllowsOrigin reports whether a browser on a page of that origin may send.
func (a *App) AllowsOrigin(origin string) bool {
	if len(a.AllowedOrigins) == 0 {
		return true
	}
	for _, o := range a.AllowedOrigins {
		if o == origin || o == "*" {
			return true
		}
	}
	return false
}

// Authenticator knows write keys.
type Authenticator interface {
	// App returns the app that the key belongs to, or nil. key is not kept.
	App(key string) *App
}

// IPMode says what of an address is stored.
type IPMode uint8

// Values of IPMode. The zero value stores nothing.
const (
	IPNone      IPMode = iota
	IPTruncated        // the first 24 bits of IPv4, the first 48 of IPv6
	IPFull
)

// Apply returns what the mode lets through of addr, the zero Addr for nothing.
func (m IPMode) Apply(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	switch {
	case m == IPNone || !addr.IsValid():
		return netip.Addr{}
	case m == IPFull:
		return addr
	}
	bits := 48
	if addr.Is4() {
		bits = 24
	}
	p, _ := addr.Prefix(bits) // bits fit the family
	return p.Addr()
}
