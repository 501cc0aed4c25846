package timing

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

func TestDecide(t *testing.T) {
	received := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) event.Micros { return event.FromTime(received.Add(d)) }
	const fresh, frozen = "@segment/analytics-node/3.1.0", "posthog-node/5.70.0"
	for _, tc := range []struct {
		name            string
		timestamp, sent event.Micros
		library         string
		want            event.Micros
		flags           string
	}{
		{"as sent", at(-time.Second), at(-time.Second / 2), fresh, at(-time.Second), ""},
		{"no timestamp", 0, at(-time.Hour), fresh, at(0), "time_from_received"},
		{"queued offline, clock right", at(-3 * time.Hour), at(-time.Second), fresh, at(-3 * time.Hour), ""},
		{"clock an hour ahead", at(59 * time.Minute), at(time.Hour), frozen, at(-time.Minute), "time_skew"},
		{"clock an hour ahead, no library", at(59 * time.Minute), at(time.Hour), "", at(-time.Minute), "time_skew"},
		{"clock an hour behind, sent_at anew with each attempt", at(-61 * time.Minute), at(-time.Hour), fresh, at(-time.Minute), "time_skew"},
		{"an hour of retries, sent_at frozen", at(-61 * time.Minute), at(-time.Hour), frozen, at(-61 * time.Minute), ""},
		{"library without scope", at(-61 * time.Minute), at(-time.Hour), "analytics.js/1.84.3", at(-time.Minute), "time_skew"},
		{"library without version", at(-61 * time.Minute), at(-time.Hour), "@segment/analytics-node", at(-time.Minute), "time_skew"},
		{"scope alone", at(-61 * time.Minute), at(-time.Hour), "@segment", at(-61 * time.Minute), ""},
		{"ahead, below the threshold", at(59 * time.Second), at(time.Minute), fresh, at(59 * time.Second), ""},
		{"behind, below the threshold", at(-2 * time.Minute), at(-time.Minute), fresh, at(-2 * time.Minute), ""},
		{"timestamp after sent_at: not of one clock", at(2 * time.Hour), at(time.Hour), fresh, at(0), "time_future"},
		{"clock of 2000, sent_at anew", event.FromTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), event.FromTime(time.Date(2000, 1, 1, 0, 1, 0, 0, time.UTC)), fresh, at(-time.Minute), "time_skew"},
		{"clock of 2000, no sent_at", event.FromTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)), 0, fresh, at(0), "time_too_old"},
		{"a little in the future, no sent_at", at(10 * time.Minute), 0, "", at(10 * time.Minute), ""},
		{"too far in the future", at(10*time.Minute + time.Microsecond), 0, "", at(0), "time_future"},
		{"old, within bounds", at(-4 * 365 * 24 * time.Hour), 0, "", at(-4 * 365 * 24 * time.Hour), ""},
		{"before the epoch", -1, 0, "", at(0), "time_too_old"},
		{"corrected and still too old", at(time.Hour - 6*365*24*time.Hour), at(time.Hour), "", at(0), "time_skew,time_too_old"},
		{"least instant", math.MinInt64, math.MinInt64, fresh, at(0), "time_too_old"},
		{"greatest instant", math.MaxInt64, math.MaxInt64, fresh, at(0), "time_future"},
		{"least timestamp, greatest sent_at", math.MinInt64, math.MaxInt64, fresh, at(0), "time_too_old"},
	} {
		got, flags := New(DefaultConfig()).Decide(tc.timestamp, tc.sent, at(0), tc.library, false)
		if tc.flags == "time_too_old" && tc.timestamp > 0 {
			if at, flags := New(DefaultConfig()).Decide(tc.timestamp, tc.sent, at(0), tc.library, true); at != tc.timestamp || flags != "" {
				t.Errorf("%s, of any age: got %s %q, want %s", tc.name, event.ToTime(at), flags, event.ToTime(tc.timestamp))
			}
		}
		if got != tc.want || flags != tc.flags {
			t.Errorf("%s: got %s %q, want %s %q", tc.name, event.ToTime(got), flags, event.ToTime(tc.want), tc.flags)
		}
	}
}

// FuzzDecide holds what the rule promises for any
// instants: the result is in bounds and never absent.
func FuzzDecide(f *testing.F) {
	f.Add(int64(1), int64(2), int64(1_700_000_000_000_000), "posthog-node/1")
	f.Add(int64(math.MinInt64), int64(math.MaxInt64), int64(1), "@segment/analytics-node/3")
	r := New(DefaultConfig())
	f.Fuzz(func(t *testing.T, timestamp, sent, received int64, library string) {
		if received <= 0 || received > 4_000_000_000_000_000 {
			return
		}
		got, flags := r.Decide(timestamp, sent, received, library, false)
		if got <= 0 || got > received+r.future || got < received-r.age {
			t.Errorf("got %d, received %d", got, received)
		}
		if flags == "" && got != timestamp {
			t.Errorf("got %d without a flag, timestamp is %d", got, timestamp)
		}
	})
}

func TestDecideDoesNotAllocate(t *testing.T) {
	r := New(DefaultConfig())
	now := event.FromTime(time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC))
	if got := testing.AllocsPerRun(100, func() { r.Decide(now-1, now-1_000_000_000, now, "@segment/analytics-node/3.1.0", false) }); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func TestValidate(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Errorf("default: %v", err)
	}
	bad := Config{SkewThreshold: time.Millisecond, MaxFuture: -1, MaxAge: time.Second, FreshLibraries: []string{""}}
	err := bad.Validate()
	for _, name := range []string{"time-skew-threshold", "time-max-future", "time-max-age", "time-fresh-libraries"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want a fault of %s", err, name)
		}
	}
}

// TestClocksBehind holds which SDKs' sent_at says that a clock is behind, as
// docs/metadata.md lists them.
func TestClocksBehind(t *testing.T) {
	config := DefaultConfig()
	rule := New(config)
	const hour = event.Micros(time.Hour / time.Microsecond)
	received := event.FromTime(time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC))
	for library, corrected := range map[string]bool{
		"analytics-python/2.4.0": true, "analytics-android/4.11.3": true, "analytics-ios/4.1.8": true, "analytics-swift/1.9.1": false, "analytics-kotlin/1.22.0": false,
		"analytics-java/3.5.4": false, "RudderLabs JavaScript SDK/3.20.0": true, "com.rudderstack.android.sdk.core/1.27.0": true, "rudder-ios-library/1.31.0": true,
		"web/1.449.2": true, "posthog-ios/3.35.0": true, "posthog-android/3.25.0": true, "posthog-python/7.91.1": true, "posthog-node/5.70.0": false, "": false,
	} {
		want, flag := received-hour-60_000_000, ""
		if corrected {
			want, flag = received-60_000_000, FlagSkew
		}
		if at, flags := rule.Decide(received-hour-60_000_000, received-hour, received, library, false); at != want || flags != flag {
			t.Errorf("%s: got %v %q, want %v %q", library, event.ToTime(at), flags, event.ToTime(want), flag)
		}
	}
}
