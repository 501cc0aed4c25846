// Package timing decides when an event counts.
//
// It owns the rule that makes one instant of the three that an event has: when it happened by
// the client's clock, when the client sent it by that clock, and when the gateway received it.
// The original instants are never changed, and nothing that identifies an event may depend on
// the instant that is decided here. The gateway parses instants; analysts form days.
//
// # The rule
//
//  1. Without a timestamp an event counts when it was received
//     (time_from_received).
//  2. A timestamp is corrected by the offset between received_at and sent_at
//     (time_skew) when that offset is more than the threshold and the evidence
//     for a wrong clock is good:
//     - sent_at is there, and the timestamp is not after it: both are of one
//     clock, which ran on in between;
//     - and either sent_at is after received_at: no delay makes a request
//     arrive before it was sent, so the clock is ahead;
//     - or sent_at is before it and the library is known to set sent_at anew
//     with every attempt. Others freeze it at the first one, and the same
//     offset may then be hours of retries with a clock that is right.
//  3. An instant later than received_at by more than MaxFuture (time_future), or
//     earlier by more than MaxAge (time_too_old), says nothing about when the
//     event happened: it counts when it was received. MaxAge does not bound
//     history whose sender says that it may be of any age.
package timing

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Flags that record how a timestamp was changed.
const (
	FlagFromReceived = "time_from_received"
	FlagSkew         = "time_skew"
	FlagFuture       = "time_future"
	FlagTooOld       = "time_too_old"
)

// Config bounds the rule.
type Config struct {
	// SkewThreshold is the offset from which a clock is considered wrong. It must be
	// well above the duration of a request.
	SkewThreshold time.Duration
	// FreshLibraries are the libraries that set sent_at anew with every attempt: the
	// part of name/version before the slash.
	FreshLibraries []string
	MaxFuture      time.Duration
	MaxAge         time.Duration
}

// DefaultConfig returns the settings that fit most products.
func DefaultConfig() Config {
	return Config{
		SkewThreshold: time.Minute,
		// The evidence for each is in docs/metadata.md.
		FreshLibraries: []string{
			"@segment/analytics-node", "analytics-node", "analytics.js", "@segment/analytics-next", "analytics-python", "analytics-android", "analytics-ios",
			"RudderLabs JavaScript SDK", "com.rudderstack.android.sdk.core", "rudder-ios-library",
			"web", "posthog-ios", "posthog-android", "posthog-python",
			"amplitude-ts", "amplitude-node", "amplitude-node-ts",
		},
		MaxFuture: 10 * time.Minute,
		MaxAge:    5 * 365 * 24 * time.Hour,
	}
}

// Validate reports all faults.
func (c *Config) Validate() error {
	var errs []error
	within := func(name string, got, least, most time.Duration) {
		if got < least || got > most {
			errs = append(errs, fmt.Errorf("%s must be %s to %s (got %s)", name, least, most, got))
		}
	}
	within("time-skew-threshold", c.SkewThreshold, time.Second, 24*time.Hour)
	within("time-max-future", c.MaxFuture, 0, 365*24*time.Hour)
	within("time-max-age", c.MaxAge, time.Hour, 50*365*24*time.Hour)
	for _, l := range c.FreshLibraries {
		if l == "" {
			errs = append(errs, errors.New("time-fresh-libraries must not have an empty name"))
		}
	}
	return errors.Join(errs...)
}

// Rule decides. It is immutable, safe for concurrent use, and allocates nothing.
type Rule struct {
	threshold, future, age event.Micros
	fresh                  map[string]bool
}

// New returns the Rule of a config that is valid.
func New(c Config) *Rule {
	r := &Rule{threshold: c.SkewThreshold.Microseconds(), future: c.MaxFuture.Microseconds(), age: c.MaxAge.Microseconds(), fresh: map[string]bool{}}
	for _, l := range c.FreshLibraries {
		r.fresh[l] = true
	}
	return r
}

// Decide returns when an event counts, and the flags with the reasons, joined by
// commas, empty if it counts at its timestamp. timestamp and sentAt may be absent;
// receivedAt must not be. anyAge lifts MaxAge.
func (r *Rule) Decide(timestamp, sentAt, receivedAt event.Micros, library string, anyAge bool) (event.Micros, string) {
	if timestamp == 0 {
		return receivedAt, FlagFromReceived
	}
	at, skewed := timestamp, false
	if offset, ok := r.offset(timestamp, sentAt, receivedAt, library); ok {
		at, skewed = timestamp+offset, true
	}
	// Tables cannot hold instants before the epoch.
	switch {
	case at > receivedAt+r.future:
		return receivedAt, either(skewed, FlagSkew+","+FlagFuture, FlagFuture)
	case (at < receivedAt-r.age && !anyAge) || at <= 0:
		return receivedAt, either(skewed, FlagSkew+","+FlagTooOld, FlagTooOld)
	}
	return at, either(skewed, FlagSkew, "")
}

func either(skewed bool, yes, no string) string {
	if skewed {
		return yes
	}
	return no
}

// offset returns the correction of the client's clock, if the evidence is good.
func (r *Rule) offset(timestamp, sentAt, receivedAt event.Micros, library string) (event.Micros, bool) {
	if sentAt == 0 || timestamp > sentAt {
		return 0, false
	}
	// Instants of broken clocks may be so far apart that their difference overflows.
	const far = 1 << 61
	if sentAt < -far || sentAt > far || timestamp < -far {
		return 0, false
	}
	offset := receivedAt - sentAt
	switch {
	case offset < -r.threshold:
		return offset, true
	case offset > r.threshold:
		name := library
		if i := strings.LastIndexByte(library, '/'); i > 0 && (library[0] != '@' || strings.IndexByte(library, '/') < i) {
			name = library[:i] // the slash of a scope does not separate a version
		}
		return offset, r.fresh[name]
	}
	return 0, false
}
