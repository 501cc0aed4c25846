package ingest

import (
	"net/netip"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
)

// App is one product in one environment; write keys belong to an app. It is immutable;
// a reload of the key file creates new ones.
type App struct {
	ID string

	// AllowedOrigins are the values of Origin that browsers may send from; empty allows
	// all.
	AllowedOrigins []string

	// RatePerSecond bounds events per second in this process, with bursts of
	// Burst events; 0 is no bound.
	RatePerSecond float64
	Burst         int

	// DailyQuota bounds events per UTC day in this process; 0 is no bound.
	DailyQuota int64

	// AccountKeys are the names under which the app's events carry the account, in
	// order of preference: a property or trait of the Segment API, a group type of
	// PostHog and Amplitude, a group key of Mixpanel, an attribute of OTLP.
	AccountKeys []string

	// QuantityKey is the property that holds the quantity of an event; empty is none.
	// It has no default: a property called "quantity" mostly means items in a cart.
	QuantityKey string

	// NoIDs are texts that are not ids of the app's people and accounts; nil selects
	// ids.Default.
	NoIDs *ids.List

	// IPMode is how much of a client's address may be stored.
	IPMode IPMode

	// Key restricts the write key of the request further than the app, and may allow
	// history. The zero value restricts nothing.
	Key Scope
}

// Scope holds the restrictions and rights of one write key of an app.
type Scope struct {
	ID        string       // the first digits of the key's hash, for logs and replies
	Expires   event.Micros // the key is unknown from this instant on; 0: never
	Protocols []string     // protocols that the key may be used with; empty: all

	// Bounds of the key alone, in addition to the app's; see App.
	RatePerSecond float64
	Burst         int
	DailyQuota    int64

	// History lets the key send events that count however old they are
	// (HistoryAnyAge). A key that anybody can read must not: each hour of the past
	// is a row of every rollup and each month a partition.
	History bool
}

// Expired reports whether the key has expired at an instant.
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

// Authenticator looks up write keys.
type Authenticator interface {
	// App returns the app that the key belongs to, or nil. key is not kept.
	App(key string) *App
}

// IPMode is how much of an address is stored.
type IPMode uint8

// Values of IPMode. The zero value stores nothing.
const (
	IPNone      IPMode = iota
	IPTruncated        // the first 24 bits of IPv4, the first 48 of IPv6
	IPFull
)

// Apply returns the part of addr that the mode stores, the zero Addr for nothing.
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

// IsID reports whether a text is an id of the app's people and accounts: something is
// left of it without blanks around it, and the app's list does not have it.
func (a *App) IsID(text string) bool {
	list := ids.Default
	if a != nil && a.NoIDs != nil {
		list = a.NoIDs
	}
	id, _ := list.Read(text)
	return id != ""
}
