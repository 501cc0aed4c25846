package gateway

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/geo/geotest"
	"github.com/uptakehq/uptake/ingest-gateway/keys"
	"github.com/uptakehq/uptake/schemas/svc/setting"
)

// The country is that of the whole address: two halves of a /24, which is all that is
// stored, are in two countries. It is that of the address that the event counts with,
// and there is none where nothing of the address may be stored.
func TestCountryIsFoundBeforeTheAddressIsCut(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	db, rules := filepath.Join(dir, "c.mmdb"), filepath.Join(dir, "privacy.yaml")
	built := time.Date(2026, 11, 3, 0, 0, 0, 0, time.UTC)
	for path, text := range map[string][]byte{
		db:    geotest.Database(built.Unix(), map[string]string{"203.0.113.0/25": "AT", "203.0.113.128/25": "DE", "2001:db8::/32": "CH"}),
		rules: []byte("apps:\n  dev: {ip: truncated}\n  strict: {ip: none}\n...\n"),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := startGateway(t, c.ListenAddrs(), "", func(cfg *Config, _ *Dependencies) {
		cfg.GeoFile, cfg.PrivacyFile, cfg.TrustedProxies = db, rules, setting.Strings{"127.0.0.0/8"}
		keyed := "apps:\n"
		for app, ip := range map[string]string{"dev": "truncated", "strict": "full", "none": "none"} {
			keyed += fmt.Sprintf("  - {id: %s, keys: ['%s'], ip: %s}\n", app, keys.HashOf("key-"+app), ip)
		}
		if err := os.WriteFile(cfg.Keys, []byte(keyed+"...\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	})
	r.awaitReady()
	want := map[string]string{}
	n := 0
	send := func(app, address, country, path, body string, header ...string) {
		t.Helper()
		n++
		id := fmt.Sprintf("0197c2f0-0000-7000-8000-%012d", n)
		body = strings.NewReplacer("<key>", "key-"+app, "<id>", id, "<now>", time.Now().UTC().Format(time.RFC3339)).Replace(body)
		got := r.post(path, body, append([]string{"Authorization", basicAuth("key-" + app), "X-Forwarded-For", address}, header...)...)
		if got.status < 200 || got.status > 204 {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
		want[id] = country
	}
	const segment = `{"event":"Paid","userId":"u1","messageId":"<id>"}`
	send("dev", "203.0.113.77", "AT 203.0.113.0", "/v1/track", segment)
	send("dev", "203.0.113.177", "DE 203.0.113.0", "/v1/track", segment)
	send("dev", "2001:db8:1::5", "CH 2001:db8:1::", "/v1/track", segment)
	send("dev", "192.0.2.1", " 192.0.2.0", "/v1/track", segment)
	send("strict", "203.0.113.77", " ", "/v1/track", segment)
	send("none", "203.0.113.77", " ", "/v1/track", segment)
	// The address that an event names replaces that of the request, and its country with it.
	of := `"203.0.113.177"`
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/v1/track", `{"event":"Paid","userId":"u1","messageId":"<id>","context":{"ip":`+of+`}}`)
	send("dev", "203.0.113.77", " 192.0.2.0", "/v1/track", `{"event":"Paid","userId":"u1","messageId":"<id>","context":{"ip":"192.0.2.9"}}`)
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/v1/batch", `{"context":{"ip":`+of+`},"batch":[{"type":"track","event":"Paid","userId":"u1","messageId":"<id>"}]}`)
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/posthog/batch/", `{"api_key":"<key>","batch":[{"event":"Paid","distinct_id":"u1","uuid":"<id>","properties":{"$ip":`+of+`}}]}`)
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/amplitude/2/httpapi", `{"api_key":"<key>","events":[{"event_type":"Paid","user_id":"user-1","insert_id":"<id>","ip":`+of+`}]}`)
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/mixpanel/track?ip=1", `[{"event":"Paid","properties":{"token":"<key>","distinct_id":"u1","$insert_id":"<id>","ip":`+of+`}}]`)
	send("dev", "203.0.113.77", " ", "/mixpanel/track?ip=0", `[{"event":"Paid","properties":{"token":"<key>","distinct_id":"u1","$insert_id":"<id>"}}]`)
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/moesif/v1/actions", `{"action_name":"Paid","user_id":"u1","transaction_id":"<id>","request":{"time":"<now>","ip_address":`+of+`}}`, "X-Moesif-Application-Id", "key-dev")
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/otlp/v1/logs", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"Paid","attributes":[{"key":"user.id","value":{"stringValue":"u1"}},{"key":"log.record.uid","value":{"stringValue":"<id>"}},{"key":"client.address","value":{"stringValue":"203.0.113.177"}}]}]}]}]}`, "Content-Type", "application/json")
	// The importing machine's address is nobody's, an imported event's own is.
	send("dev", "203.0.113.77", " ", "/v1/import", `{"batch":[{"type":"track","event":"Paid","userId":"u1","messageId":"<id>"}]}`)
	send("dev", "203.0.113.77", "DE 203.0.113.0", "/v1/import", `{"batch":[{"type":"track","event":"Paid","userId":"u1","messageId":"<id>","context":{"ip":`+of+`}}]}`)
	r.idle()
	got := map[string]string{}
	for _, e := range readLog(t, c.ListenAddrs()).events {
		got[e.MessageID] = e.Country + " " + e.IP
	}
	for id, w := range want {
		if g, ok := got[id]; !ok || g != w {
			t.Errorf("%s: got %q (stored: %v), want %q", id, g, ok, w)
		}
	}
	if v := r.metric("uptake_gateway_geo_database_timestamp_seconds"); v != float64(built.Unix()) {
		t.Errorf("database of %v, want %d", v, built.Unix())
	}
}
