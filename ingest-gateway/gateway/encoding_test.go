package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
)

// Text that is no Unicode is treated alike by all protocols: half a surrogate pair
// stays as it was sent, ids that differ in it alone are two, and an event with bytes
// that are not UTF-8 is rejected. None of it becomes another text.
func TestBrokenText(t *testing.T) {
	const key = "Authorization: Basic dGVzdC13cml0ZS1rZXk6"
	for _, tc := range []struct {
		name, target, header, body string // %[1]s is an id within quotes, %[2]s a value
	}{
		{"segment", "/v1/track", "", `{"event":"e","userId":"%[1]s","properties":{"v":"%[2]s"}}`},
		{"segment batch", "/v1/batch", "", `{"batch":[{"type":"track","event":"e","anonymousId":"%[1]s","properties":{"v":"%[2]s"}}]}`},
		{"posthog", "/capture", "", `{"api_key":"test-write-key","event":"e","distinct_id":"%[1]s","properties":{"v":"%[2]s"}}`},
		{"mixpanel", "/track", "", `{"event":"e","properties":{"token":"test-write-key","distinct_id":"%[1]s","v":"%[2]s"}}`},
		{"amplitude", "/2/httpapi", "", `{"api_key":"test-write-key","events":[{"event_type":"e","user_id":"%[1]s","event_properties":{"v":"%[2]s"}}]}`},
		{"moesif", "/moesif/v1/actions", "X-Moesif-Application-Id: test-write-key", `{"action_name":"e","user_id":"%[1]s","metadata":{"v":"%[2]s"}}`},
		{"cloudevents", "/cloudevents", "Content-Type: application/cloudevents+json", `{"specversion":"1.0","type":"e","source":"/s","id":"i","subject":"%[1]s","data":{"v":"%[2]s"}}`},
		{"csb", "/csb/api/v1_1/feature", "", `{"account_id":"a","user_id":"%[1]s","feature_id":"e","type":"feature","note":"%[2]s"}`},
		{"gainsightpx", "/gainsightpx/v1/events/custom", "X-APTRINSIC-API-KEY: test-write-key", `{"eventName":"e","identifyId":"%[1]s","propertyKey":"p","userType":"USER","attributes":{"v":"%[2]s"}}`},
		{"otlp", "/v1/logs", "", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"e","attributes":[{"key":"user.id","value":{"stringValue":"%[1]s"}},{"key":"v","value":{"stringValue":"%[2]s"}}]}]}]}]}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := ingesttest.New(t, Protocols()...)
			headers := []string{key}
			if tc.header != "" {
				headers = append(headers, tc.header)
			}
			send := func(id, value string) ingesttest.Result {
				return g.Do("POST", tc.target, fmt.Appendf(nil, tc.body, id, value), headers...)
			}
			keys := map[string]bool{}
			for _, id := range []string{`a\ud83d`, `a\ud83e`, `a\uDE00`, `a\ufffd`, `a`} {
				res := send(id, `cut \ud83d`)
				if len(res.Events) != 1 {
					t.Fatalf("%s: got %d events, %+v", id, len(res.Events), res.Verdicts)
				}
				keys[res.Keys[0]] = true
				if e := res.Events[0]; !strings.Contains(string(e.Properties)+string(e.Context)+string(e.Traits), `cut \ud83d`) {
					t.Errorf("%s: the value is not as it was sent: %s %s %s", id, e.Properties, e.Traits, e.Context)
				}
			}
			if len(keys) != 5 {
				t.Errorf("5 ids have the keys %v", keys)
			}
			for _, bad := range [][2]string{{"a\xff", "v"}, {"a", "v\xc3"}} {
				res := send(bad[0], bad[1])
				if len(res.Events) != 0 || len(res.Rejected) != 1 || res.Rejected[0].Code != ingest.CodeBadEncoding {
					t.Errorf("%q: got %d events, %+v, want it rejected as %s", bad, len(res.Events), res.Verdicts, ingest.CodeBadEncoding)
				}
			}
		})
	}
	g := ingesttest.New(t, Protocols()...)
	for name, do := range map[string]func() ingesttest.Result{
		"cloudevents header": func() ingesttest.Result {
			return g.Do("POST", "/cloudevents", []byte(`{}`), key, "Content-Type: application/json", "ce-specversion: 1.0", "ce-type: e", "ce-source: /s", "ce-id: i", "ce-subject: a%FF")
		},
		"pixel": func() ingesttest.Result {
			return g.Do("GET", "/pixel/v1/track?writeKey=test-write-key&event=e&userId=a%FF", nil)
		},
		"otlp resource": func() ingesttest.Result {
			return g.Do("POST", "/v1/logs", []byte("{\"resourceLogs\":[{\"resource\":{\"attributes\":[{\"key\":\"user.id\",\"value\":{\"stringValue\":\"a\xff\"}}]},\"scopeLogs\":[{\"logRecords\":[{\"eventName\":\"e\"}]}]}]}"), key)
		},
	} {
		if res := do(); len(res.Events) != 0 || (name != "otlp resource") && res.Status/100 != 4 {
			t.Errorf("%s: got status %d and %+v", name, res.Status, res.Events)
		}
	}
}
