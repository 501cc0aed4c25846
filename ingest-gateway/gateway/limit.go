package gateway

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
)

// budget bounds a quantity that is in flight.
type budget struct {
	used  atomic.Int64
	limit int64
}

// take reserves n; without room it reserves nothing and returns false.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// meters holds the counters of each app, and the buckets of write keys that have bounds
// of their own. Entries are never removed; there are as many as apps and keys that were
// ever in the key file.
type meters struct {
	metrics *metrics
	apps    sync.Map // app id to *meter
	keys    sync.Map // id of a key's scope to *bucket
}

func (m *meters) of(app *ingest.App) *meter {
	if v, ok := m.apps.Load(app.ID); ok {
		return v.(*meter)
	}
	v, _ := m.apps.LoadOrStore(app.ID, newMeter(m.metrics, app.ID))
	return v.(*meter)
}

// take reserves n events for the app and the request's key; both must have room.
func (m *meters) take(app *ingest.App, n int, now time.Time) *ingest.Fault {
	if n == 0 {
		return nil
	}
	key := allowance{what: "write key " + app.Key.ID, rate: app.Key.RatePerSecond, burst: app.Key.Burst, quota: app.Key.DailyQuota}
	if fault := m.key(app).take(key, n, now); fault != nil {
		return fault
	}
	fault := m.of(app).bucket.take(allowance{what: "app " + app.ID, rate: app.RatePerSecond, burst: app.Burst, quota: app.DailyQuota}, n, now)
	if fault != nil {
		m.key(app).give(n)
	}
	return fault
}

// give returns events to the quotas that were not stored after all.
func (m *meters) give(app *ingest.App, n int) {
	if n == 0 {
		return
	}
	m.key(app).give(n)
	m.of(app).bucket.give(n)
}

// key is the bucket of a key with bounds of its own, or nil.
func (m *meters) key(app *ingest.App) *bucket {
	if app.Key.RatePerSecond == 0 && app.Key.DailyQuota == 0 {
		return nil
	}
	if v, ok := m.keys.Load(app.Key.ID); ok {
		return v.(*bucket)
	}
	v, _ := m.keys.LoadOrStore(app.Key.ID, new(bucket))
	return v.(*bucket)
}

// meter is one app's bucket and counters.
type meter struct {
	events [ingest.Unstored + 1]prometheus.Counter
	codes  map[string]prometheus.Counter
	opted  prometheus.Counter
	bucket bucket
}

func newMeter(m *metrics, app string) *meter {
	t := &meter{codes: map[string]prometheus.Counter{}}
	for s := range t.events {
		t.events[s] = m.events.WithLabelValues(app, outcomes[s])
	}
	for _, code := range ingest.Codes {
		t.codes[code] = m.rejected.WithLabelValues(app, code)
	}
	t.opted = m.optedOut.WithLabelValues(app)
	return t
}

// bucket is what an app or a key has used of its rate and quota. Buckets are per
// process: gateways share nothing, and a restart resets them. A nil bucket has no
// bounds.
type bucket struct {
	mu     sync.Mutex // covers all
	full   bool       // tokens was set
	tokens float64    // events that may come now; negative after a batch larger than what was left
	at     time.Time  // the time for which tokens was computed
	day    int64      // the day that used counts, in days since the epoch, UTC
	used   int64
}

// allowance bounds a bucket; 0 is no bound.
type allowance struct {
	what  string // for the fault
	rate  float64
	burst int
	quota int64
}

// take reserves n events. A batch passes if one event would pass, and the excess is
// owed, so that a batch larger than the burst is not refused forever.
func (t *bucket) take(b allowance, n int, now time.Time) *ingest.Fault {
	if t == nil || (b.rate == 0 && b.quota == 0) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if b.quota > 0 {
		const day = 24 * 60 * 60
		today := now.Unix() / day
		if today != t.day {
			t.day, t.used = today, 0
		}
		if t.used >= b.quota {
			return &ingest.Fault{
				Kind: ingest.OverQuota, Setting: settingQuota, RetryAfter: int((today+1)*day - now.Unix()),
				Detail: fmt.Sprintf("%s has used its quota of %d events for today", b.what, b.quota),
			}
		}
	}
	if b.rate > 0 {
		if burst := max(float64(b.burst), 1); !t.full {
			t.full, t.tokens = true, burst
		} else if passed := now.Sub(t.at).Seconds(); passed > 0 {
			t.tokens = math.Min(burst, t.tokens+passed*b.rate)
		}
		t.at = now
		if t.tokens < 1 {
			return &ingest.Fault{
				Kind: ingest.RateLimited, Setting: settingRate,
				RetryAfter: max(1, int(math.Ceil((1-t.tokens)/b.rate))),
				Detail:     fmt.Sprintf("%s sends more than %v events a second", b.what, b.rate),
			}
		}
		t.tokens -= float64(n)
	}
	t.used += int64(n)
	return nil
}

// give returns events to the quota that were not stored after all.
func (t *bucket) give(n int) {
	if t == nil {
		return
	}
	t.mu.Lock()
	t.used -= int64(n)
	t.mu.Unlock()
}
