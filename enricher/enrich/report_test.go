package enrich

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// What a metric event reports is read from what was sent: also where the column
// of the key has another type, and only what may be kept.
func TestMetricEvents(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	rules := filepath.Join(dir, "privacy.yaml")
	if err := os.WriteFile(rules, []byte(`
apps:
  dev:
    rules:
      - {path: properties.dimensions.name, action: drop}
      - {path: "properties.**", detect: [email], action: mask}
...
`), 0o600); err != nil {
		t.Fatal(err)
	}
	i := c.start(filepath.Join(dir, "a"), func(cfg *Config) { cfg.PrivacyFile = rules })
	at := event.FromTime(time.Now())
	send := func(kind, message, properties string) {
		c.send(c.raw(event.RawEvent{
			AppID: "dev", Kind: kind, Event: "Seats Used", MessageID: message, AccountID: "acme",
			Timestamp: at, ReceivedAt: at + 1, Quantity: 1, Properties: []byte(properties),
		}))
	}
	send(event.KindMetric, "first", `{"value":12,"period":"2026-11-20"}`)
	c.drained()
	send(event.KindMetric, "fraction", `{"value":12.5,"period":"2026-11-20"}`)
	send(event.KindMetric, "text", `{"value":"10,000"}`)
	send(event.KindMetric, "unread", `{"value":"1,5","period":"2026-11-20"}`)
	send(event.KindMetric, "private", `{"value":1,"dimensions":{"name":"Maria","mail":"m@shop.example"}}`)
	send(event.KindTrack, "track", `{"value":12}`)
	c.drained()

	got := c.find()
	const period = `,"period":[1795132800000000,1795219200000000]}`
	for id, want := range map[string][3]string{
		"first":    {`{"numbers":{"":12},"dimensions":"{}"` + period},
		"fraction": {`{"numbers":{"":12.5},"dimensions":"{}"` + period},
		"text":     {`{"numbers":{"":10000},"dimensions":"{}"}`, `{"properties.value":"10,000"}`},
		"unread":   {``, `{"properties.value":"1,5","metric.value":"1,5"}`, flagMetricUnread},
		"private":  {`{"numbers":{"":1},"dimensions":"{\"mail\":\"[email]\"}"}`},
		"track":    {},
	} {
		e := got[id]
		if have := [3]string{string(e.Metric), string(e.Conflicts), e.Flags}; have != want {
			t.Errorf("%s: got %q, want %q", id, have, want)
		}
	}
	if n := i.metric("uptake_enricher_metadata_conflicts_total", "metric"); n != 1 {
		t.Errorf("parts of reports that could not be read: got %v, want 1", n)
	}
	i.stopped()
}
