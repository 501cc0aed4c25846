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

// budget bounds something that is in flight.
type budget struct {
	used  atomic.Int64
	limit int64
}

// take takes n, or nothing and reports false.
func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= b.limit {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// meters hold what the gateway counts for each app. There are as many as apps
// were ever in the key file.
type meters struct {
	metrics *metrics
	apps    sync.Map // app id to *meter
}

func (m *meters) of(app *ingest.App) *meter {
	if v, ok := m.apps.Load(app.ID); ok {
		return v.(*meter)
	}
	v, _ := m.apps.LoadOrStore(app.ID, newMeter(m.metrics, app.ID))
	return v.(*meter)
}

// meter is one app's rate, quota and counters. Rate and quota are of this
// process: several gateways share nothing, and a restart begins anew.
type meter struct {
	events [ingest.Unstored + 1]prometheus.Counter
	codes  map[string]prometheus.Counter
	opted  prometheus.Counter

	mu     sync.Mutex // covers what follows
	full   bool       // tokens was set
	tokens float64    // events that may come now; negative after a batch larger than what was left
	at     time.Time  // when tokens was right
	day    int64      // days since the epoch, UTC, that used is of
	used   int64
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

// take asks for n events of the app. A batch passes when one event would, and
// what it takes beyond is owed, so that a batch larger than the burst is not
// refused for ever.
func (t *meter) take(app *ingest.App, n int, now time.Time) *ingest.Fault {
	if n == 0 || (app.RatePerSecond == 0 && app.DailyQuota == 0) {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if app.DailyQuota > 0 {
		const day = 24 * 60 * 60
		today := now.Unix() / day
		if today != t.day {
			t.day, t.used = today, 0
		}
		if t.used >= app.DailyQuota {
			return &ingest.Fault{
				Kind: ingest.OverQuota, Setting: settingQuota, RetryAfter: int((today+1)*day - now.Unix()),
				Detail: fmt.Sprintf("app %s sent its %d events of today", app.ID, app.DailyQuota),
			}
		}
	}
	if app.RatePerSecond > 0 {
		if burst := max(float64(app.Burst), 1); !t.full {
			t.full, t.tokens = true, burst
		} else if passed := now.Sub(t.at).Seconds(); passed > 0 {
			t.tokens = math.Min(burst, t.tokens+passed*app.RatePerSecond)
		}
		t.at = now
		if t.tokens < 1 {
			return &ingest.Fault{
				Kind: ingest.RateLimited, Setting: settingRate,
				RetryAfter: max(1, int(math.Ceil((1-t.tokens)/app.RatePerSecond))),
				Detail:     fmt.Sprintf("app %s sends more than %v events a second", app.ID, app.RatePerSecond),
			}
		}
		t.tokens -= float64(n)
	}
	t.used += int64(n)
	return nil
}

// give returns to the quota what was not stored after all.
func (t *meter) give(n int) {
	if n == 0 {
		return
	}
	t.mu.Lock()
	t.used -= int64(n)
	t.mu.Unlock()
}
