package gateway

import (
	"bytes"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/topic"
)

// What an app's rules take out is in no record of the log: of no protocol, not in
// what was rejected, not in what says why.
func TestPrivateValuesNeverReachTheLog(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	rules := filepath.Join(dir, "privacy.yaml")
	if err := os.WriteFile(rules, []byte(`
hash_keys: [{id: k1, secret: 0123456789abcdef}]
apps:
  dev:
    ip: truncated
    user_agent: drop
    rules:
      - {path: properties.card_holder, action: drop}
      - {path: traits.phone, action: hash}
      - {path: properties.$set.phone, action: hash}
      - {path: "properties.**", detect: [email, card], action: mask}
      - {path: "traits.**", detect: [email], action: mask}
      - {path: "context.**", detect: [email], action: mask}
    opt_out: {users: [gone], accounts: [secret-corp]}
...
`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startGateway(t, c.ListenAddrs(), "", func(cfg *Config, _ *Dependencies) { cfg.PrivacyFile = rules })
	r.awaitReady()

	const private = `"card_holder":"MARIA-HOLDER","note":"to maria@private.example","n":1`
	secrets := []string{"MARIA-HOLDER", "maria@private.example", "+43123456789", "4111111111111111", "203.0.113.77", "Till/7.1", "secret-corp", "GONE-VALUE"}
	sent, now := 0, time.Now().UTC().Format(time.RFC3339)
	post := func(path, body string, header ...string) {
		t.Helper()
		sent++
		if got := r.post(path, body, append([]string{"Authorization", basicAuth(testKey), "User-Agent", "Till/7.1", "X-Forwarded-For", "203.0.113.77"}, header...)...); got.status < 200 || got.status > 204 {
			t.Errorf("%s: got %d %s", path, got.status, got.body)
		}
	}
	post("/v1/batch", batchOf(
		`{"type":"track","event":"Paid","userId":"u1","messageId":"kept","properties":{`+private+`,"deep":[{"to":"maria@private.example"}],"pan":"4111111111111111"},"context":{"ip":"203.0.113.77","userAgent":"Till/7.1","page":{"title":"maria@private.example"}}}`,
		`{"type":"identify","userId":"u1","messageId":"identified","traits":{"phone":"+43123456789","mail":"maria@private.example"}}`,
		`{"type":"track","event":"Paid","userId":"gone","messageId":"gone","properties":{"x":"GONE-VALUE"}}`,
		`{"type":"alias","userId":"u2","previousId":"gone","messageId":"gone-alias","context":{"x":"GONE-VALUE"}}`,
		`{"type":"track","event":"Paid","userId":"u1","messageId":"corp","context":{"groupId":"secret-corp"}}`,
		// Rejected, each for a reason that shows at another step.
		`{"type":"track","userId":"u1","messageId":"no-event","properties":{`+private+`}}`,
		`{"type":"jump","event":"e","userId":"u1","messageId":"unknown","properties":{`+private+`}}`,
		`{"type":"track","event":"e","userId":"u1","messageId":"late","timestamp":"maria@private.example","properties":{`+private+`}}`,
		`{"type":"track","event":"e","userId":"u1","userId":"u2","messageId":"twice","traits":{"phone":"+43123456789"}}`,
		`{"type":"track","userId":"gone","messageId":"gone-rejected","properties":{"x":"GONE-VALUE"}}`,
		`"MARIA-HOLDER maria@private.example"`,
	))
	post("/mixpanel/track?ip=1", `[{"event":"Paid","properties":{"token":"`+testKey+`","distinct_id":"u1","$insert_id":"mp",`+private+`}},{"properties":{"token":"`+testKey+`",`+private+`}}]`)
	post("/posthog/batch/", `{"api_key":"`+testKey+`","batch":[{"event":"Paid","distinct_id":"u1","uuid":"0197c2f0-0000-7000-8000-000000000001","properties":{`+private+`,"$set":{"phone":"+43123456789"}}}]}`)
	post("/amplitude/2/httpapi", `{"api_key":"`+testKey+`","events":[{"event_type":"Paid","user_id":"user-1","insert_id":"amp","event_properties":{`+private+`},"user_properties":{"phone":"+43123456789"},"ip":"203.0.113.77"}]}`)
	// Addresses and agents where each protocol, or a proxy before it, leaves them.
	const places = `"$ip":"203.0.113.77","ip":"203.0.113.77","x-forwarded-for":"203.0.113.77, 10.0.0.1","$raw_user_agent":"Till/7.1","user_agent":"Till/7.1"`
	post("/v1/track", `{"event":"Paid","userId":"u1","messageId":"places","properties":{`+places+`},"traits":{`+places+`},"context":{"device":{`+places+`}}}`)
	post("/mixpanel/track", `[{"event":"Paid","properties":{"token":"`+testKey+`","distinct_id":"u1","$insert_id":"mp-places",`+places+`}}]`)
	post("/posthog/batch/", `{"api_key":"`+testKey+`","batch":[{"event":"Paid","distinct_id":"u1","uuid":"0197c2f0-0000-7000-8000-000000000002","properties":{`+places+`,"$set":{"$initial_raw_user_agent":"Till/7.1",`+places+`}}}]}`)
	post("/amplitude/2/httpapi", `{"api_key":"`+testKey+`","events":[{"event_type":"Paid","user_id":"user-1","insert_id":"amp-places","event_properties":{`+places+`},"user_properties":{`+places+`},"ip":"203.0.113.77","user_agent":"Till/7.1"}]}`)
	post("/moesif/v1/events", `{"request":{"time":"`+now+`","uri":"https://api.example/x","verb":"GET","ip_address":"203.0.113.77","headers":{"User-Agent":"Till/7.1","X-Real-IP":"203.0.113.77","Forwarded":"for=203.0.113.77"}},"response":{"time":"`+now+`","status":200},"user_id":"u1","metadata":{`+places+`}}`, "X-Moesif-Application-Id", testKey)
	post("/otlp/v1/logs", `{"resourceLogs":[{"resource":{"attributes":[{"key":"user_agent.original","value":{"stringValue":"Till/7.1"}},{"key":"client.address","value":{"stringValue":"203.0.113.77"}}]},"scopeLogs":[{"logRecords":[{"eventName":"Paid","attributes":[{"key":"user.id","value":{"stringValue":"u1"}},{"key":"http.request.header.user-agent","value":{"arrayValue":{"values":[{"stringValue":"Till/7.1"}]}}},{"key":"network.peer.address","value":{"stringValue":"203.0.113.77"}},{"key":"http.user_agent","value":{"stringValue":"Till/7.1"}},{"key":"net.sock.peer.addr","value":{"stringValue":"203.0.113.77"}}]}]}]}]}`, "Content-Type", "application/json")
	post("/cloudevents", `{"specversion":"1.0","id":"ce-places","source":"/till","type":"Paid","subject":"u1","data":{`+places+`}}`, "Content-Type", "application/cloudevents+json")
	// What stands around a rejected log record is not kept: the rules do not know it.
	post("/otlp/v1/logs", `{"resourceLogs":[{"resource":{"attributes":[{"key":"x","value":{"stringValue":"MARIA-HOLDER"}}]},"scopeLogs":[{"logRecords":[{"eventName":"of nobody"}]}]}]}`)
	r.idle()

	log := readLog(t, c.ListenAddrs())
	for _, rec := range log.records {
		for _, s := range secrets {
			for _, form := range []string{s, base64.StdEncoding.EncodeToString([]byte(s))} {
				if bytes.Contains(rec.Value, []byte(form)) || bytes.Contains(rec.Key, []byte(form)) {
					t.Errorf("%s holds %s: %q", rec.Topic, s, rec.Value)
				}
			}
		}
	}
	var rejected []string
	for _, rej := range log.rejected {
		if len(rej.Original) > 0 {
			rejected = append(rejected, rej.MessageID)
		} else if !strings.Contains(rej.Detail, "are not kept") {
			t.Errorf("the original of %s is not there, and %q does not say why", rej.MessageID, rej.Detail)
		}
	}
	for _, id := range []string{"no-event", "unknown", "twice"} {
		if !slices.Contains(rejected, id) {
			t.Errorf("of rejected %s nothing is left: got originals of %q", id, rejected)
		}
	}
	ids := log.ids()
	for id, want := range map[string]int{"kept": 1, "identified": 1, "late": 1, "mp": 1, "amp": 1, "places": 1, "mp-places": 1, "amp-places": 1, "gone": 0, "gone-alias": 0, "corp": 0, "gone-rejected": 0} {
		if ids[id] != want {
			t.Errorf("events with id %s: got %d, want %d", id, ids[id], want)
		}
	}
	for _, e := range log.events {
		if e.MessageID == "kept" {
			if got, want := string(e.Properties), `{"note":"to [email]","n":1,"deep":[{"to":"[email]"}],"pan":"[card]"}`; got != want || e.IP != "127.0.0.0" && e.IP != "203.0.113.0" || e.UserAgent != "" {
				t.Errorf("got %s from %q by %q, want %s", got, e.IP, e.UserAgent, want)
			}
		}
	}
	if got := r.metric("uptake_gateway_opted_out_total", "app", "dev"); got != 4 {
		t.Errorf("opted out: got %v, want 4", got)
	}
	in := 0.0
	for _, outcome := range outcomes {
		in += r.metric("uptake_gateway_events_total", "app", "dev", "outcome", outcome)
	}
	if in != 23 {
		t.Errorf("accepted, rejected, ignored and unstored are %v, want the 23 that came in", in)
	}
	for _, rec := range log.records {
		if rec.Topic != topic.Unprefixed.Raw && rec.Topic != topic.Unprefixed.Rejected {
			t.Errorf("a record in %s", rec.Topic)
		}
	}
}
