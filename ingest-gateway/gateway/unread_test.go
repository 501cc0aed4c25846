package gateway

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
)

const undefined, blanks = `"undefined"`, `" \t"`

// Whatever the protocol, a text that is no id is taken out before the record's key
// is made: the events are kept, flagged and spread over the partitions.
func TestTextsThatAreNoIDs(t *testing.T) {
	for _, tc := range []struct {
		name, target, header string
		body                 string // %[1]s is the id, %[2]d tells events apart
		fields               string
	}{
		{"segment", "/v1/track", "", `{"type":"track","event":"e","userId":%[1]s,"anonymousId":%[1]s,"messageId":"m%[2]d","context":{"groupId":%[1]s}}`, "user_id anonymous_id account_id"},
		{"segment identify", "/v1/identify", "", `{"userId":%[1]s,"messageId":"m%[2]d","traits":{"n":%[2]d}}`, "user_id"},
		{"segment group", "/v1/group", "", `{"userId":"u%[2]d","groupId":%[1]s,"messageId":"m%[2]d"}`, "account_id"},
		{"segment alias", "/v1/alias", "", `{"userId":"u%[2]d","previousId":%[1]s,"messageId":"m%[2]d"}`, "previous_id"},
		{"segment alias to none", "/v1/alias", "", `{"userId":%[1]s,"previousId":"a%[2]d","messageId":"m%[2]d"}`, "user_id"},
		{"posthog", "/capture", "", `{"api_key":"test-write-key","event":"e","distinct_id":%[1]s,"uuid":"m%[2]d","properties":{"$is_identified":false,"$groups":{"company":%[1]s}}}`, "anonymous_id account_id"},
		{"posthog identify", "/capture", "", `{"api_key":"test-write-key","event":"$identify","distinct_id":"u%[2]d","uuid":"m%[2]d","properties":{"$anon_distinct_id":%[1]s}}`, "anonymous_id"},
		{"mixpanel", "/track", "", `{"event":"e","properties":{"token":"test-write-key","distinct_id":%[1]s,"$insert_id":"m%[2]d"}}`, "user_id"},
		{"amplitude", "/2/httpapi", "", `{"api_key":"test-write-key","events":[{"event_type":"e","user_id":%[1]s,"device_id":%[1]s,"insert_id":"m%[2]d"}]}`, "user_id anonymous_id"},
		{"cloudevents", "/cloudevents", "Content-Type: application/cloudevents+json", `{"specversion":"1.0","type":"e","source":"/s","id":"m%[2]d","subject":%[1]s}`, "account_id"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := ingesttest.New(t, Protocols()...)
			g.App.AccountKeys = []string{"company"}
			keys := map[string]bool{}
			for i, id := range []string{undefined, blanks, `" NULL\n"`, `"[object Object]"`} {
				header := []string{"Authorization: Basic dGVzdC13cml0ZS1rZXk6"}
				if tc.header != "" {
					header = append(header, tc.header)
				}
				res := g.Do("POST", tc.target, fmt.Appendf(nil, tc.body, id, i), header...)
				if len(res.Events) == 0 || len(res.Rejected) > 0 || res.Status/100 != 2 {
					t.Fatalf("%s: got status %d, %d events, %+v", id, res.Status, len(res.Events), res.Verdicts)
				}
				var sent string
				if err := json.Unmarshal([]byte(id), &sent); err != nil {
					t.Fatal(err)
				}
				e := res.Events[0]
				var unread map[string]string
				if err := json.Unmarshal(e.Unread, &unread); err != nil {
					t.Fatalf("%s: unread %q: %v", id, e.Unread, err)
				}
				want := map[string]string{}
				for field := range strings.FieldsSeq(tc.fields) {
					want[field] = sent
				}
				if fmt.Sprint(unread) != fmt.Sprint(want) {
					t.Errorf("%s: got unread %q, want %q", id, unread, want)
				}
				for field, left := range map[string]string{ids.User: e.UserID, ids.Anonymous: e.AnonymousID, ids.Previous: e.PreviousID, ids.Account: e.AccountID} {
					if want[field] != "" && left != "" {
						t.Errorf("%s: got %s %q, want none", id, field, left)
					}
				}
				keys[res.Keys[0]] = true
			}
			if len(keys) != 4 {
				t.Errorf("got keys %v, want one for each event", keys)
			}
		})
	}
}

// An app may say itself what is no id, and blanks are trimmed of those that are.
func TestIDsOfAnApp(t *testing.T) {
	g := ingesttest.New(t, Protocols()...)
	g.App.NoIDs = ids.NewList([]string{"kiosk"})
	const body = `{"type":"track","event":"e","userId":%q,"messageId":"m"}`
	for sent, want := range map[string]string{"KIOSK": "", "undefined": "undefined", " jane\ufeff": "jane"} {
		res := g.Do("POST", "/v1/track", []byte(strings.Replace(fmt.Sprintf(body, sent), `\\`, `\`, 1)), "Authorization: Basic dGVzdC13cml0ZS1rZXk6")
		if len(res.Events) != 1 || res.Events[0].UserID != want || (len(res.Events[0].Unread) > 0) != (want == "") {
			t.Errorf("%s: got %+v, want %q", sent, res.Events, want)
		}
	}
	// No id at all is still a mistake of the sender.
	res := g.Do("POST", "/v1/track", []byte(`{"event":"e","userId":""}`), "Authorization: Basic dGVzdC13cml0ZS1rZXk6")
	if len(res.Rejected) != 1 || res.Rejected[0].Code != ingest.CodeMissingField {
		t.Errorf("no id: got %+v", res.Verdicts)
	}
}

// 4711, 4711.0 and "4711" are one user, in every protocol; the text "4711.0" is
// another.
func TestNumbersAsIDs(t *testing.T) {
	for name, tc := range map[string][2]string{
		"segment":   {"/v1/track", `{"event":"e","userId":%[1]s,"anonymousId":%[1]s,"context":{"groupId":%[1]s}}`},
		"posthog":   {"/capture", `{"api_key":"test-write-key","event":"e","distinct_id":%[1]s}`},
		"mixpanel":  {"/track", `{"event":"e","properties":{"token":"test-write-key","distinct_id":%[1]s}}`},
		"amplitude": {"/2/httpapi", `{"api_key":"test-write-key","events":[{"event_type":"e","user_id":%[1]s}]}`},
		"moesif":    {"/moesif/v1/actions", `{"action_name":"e","user_id":%[1]s}`},
		"csb":       {"/csb/api/v1_1/feature", `{"account_id":"a","user_id":%[1]s,"feature_id":"e"}`},
	} {
		g := ingesttest.New(t, Protocols()...)
		for sent, want := range map[string]string{
			`4711`: "4711", `"4711"`: "4711", `4711.0`: "4711", `"4711.0"`: "4711.0", `4.711e3`: "4711", `1e3`: "1000",
			`9007199254740993`: "9007199254740993", `"9007199254740993"`: "9007199254740993", `-0.0`: "", `true`: "",
		} {
			res := g.Do("POST", tc[0], fmt.Appendf(nil, tc[1], sent), "Authorization: Basic dGVzdC13cml0ZS1rZXk6", "X-Moesif-Application-Id: test-write-key")
			if len(res.Events) == 0 {
				t.Errorf("%s, %s: status %d, %+v", name, sent, res.Status, res.Verdicts)
				continue
			}
			if e := res.Events[0]; e.UserID != want || (name == "segment" && (e.AnonymousID != want || e.AccountID != want)) {
				t.Errorf("%s, %s: got user %q, anonymous %q, account %q, want %q", name, sent, e.UserID, e.AnonymousID, e.AccountID, want)
			}
		}
	}
}

// An instant that cannot be read costs a live event its time and not its place;
// history is rejected. Of two fields that say when, the one that can be read counts.
func TestUnreadableInstants(t *testing.T) {
	for _, tc := range []struct {
		name, target, body, header string
		at, unread                 string // of the event; at "rejected": put aside
	}{
		{"analytics-swift", "/v1/batch", `{"sentAt":"2026-11-20T09:00:27.957:Z","batch":[{"type":"track","userId":"u","event":"e","timestamp":"2026-11-20T09:00:27.029:Z"}]}`, "", "2026-11-20T09:00:27.029Z", ""},
		{"its archive", "/v1/import", `{"batch":[{"type":"track","userId":"u","event":"e","originalTimestamp":"2026-11-20T09:00:27.029:Z","receivedAt":"2026-11-20T09:00:28.078Z","timestamp":"2026-11-20T09:00:27.150Z"}]}`, "", "2026-11-20T09:00:27.15Z", ""},
		{"number", "/v1/track", `{"userId":"u","event":"e","timestamp":1795947072345}`, "", "2026-11-29T10:11:12.345Z", ""},
		{"other field", "/v1/track", `{"userId":"u","event":"e","timestamp":"soon","originalTimestamp":"20261129T101112Z"}`, "", "2026-11-29T10:11:12Z", `{"timestamp":"soon"}`},
		{"other field of history", "/v1/import", `{"batch":[{"type":"track","userId":"u","event":"e","timestamp":"2026-11-29","originalTimestamp":"?","receivedAt":"x"}]}`, "", "2026-11-29T00:00:00Z", ""},
		{"live", "/v1/track", `{"userId":"u","event":"e","timestamp":"soon","originalTimestamp":true}`, "", "", `{"timestamp":"soon"}`},
		{"history", "/v1/import", `{"batch":[{"type":"track","userId":"u","event":"e","timestamp":"soon"}]}`, "", "rejected", ""},
		{"history by header", "/v1/track", `{"userId":"u","event":"e","timestamp":"soon"}`, "X-Uptake-History: 1", "rejected", ""},
		{"posthog", "/batch", `{"api_key":"test-write-key","batch":[{"event":"e","distinct_id":"u","timestamp":"soon"}]}`, "", "", `{"timestamp":"soon"}`},
		{"posthog history", "/batch", `{"api_key":"test-write-key","historical_migration":true,"batch":[{"event":"e","distinct_id":"u","timestamp":"soon"}]}`, "", "rejected", ""},
		{"mixpanel microseconds", "/track", `{"event":"e","properties":{"token":"test-write-key","distinct_id":"u","time":"1795947072345678"}}`, "", "2026-11-29T10:11:12.345678Z", ""},
		{"mixpanel history", "/mixpanel/import", `[{"event":"e","properties":{"distinct_id":"u","time":"soon"}}]`, "", "rejected", ""},
		{"otlp observed", "/v1/logs", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"e","timeUnixNano":"soon","observedTimeUnixNano":"1795947072345678901","attributes":[{"key":"user.id","value":{"stringValue":"u"}}]}]}]}]}`, "Content-Type: application/json", "2026-11-29T10:11:12.345678Z", `{"timestamp":"soon"}`},
	} {
		g := ingesttest.New(t, Protocols()...)
		res := g.Do("POST", tc.target, []byte(tc.body), "Authorization: Basic dGVzdC13cml0ZS1rZXk6", tc.header)
		if tc.at == "rejected" {
			if len(res.Rejected) != 1 || res.Rejected[0].Code != ingest.CodeBadTimestamp || !strings.Contains(res.Rejected[0].Detail, "soon") {
				t.Errorf("%s: got %d events, rejected %+v", tc.name, len(res.Events), res.Rejected)
			}
			continue
		}
		if len(res.Events) != 1 {
			t.Errorf("%s: got status %d, %+v", tc.name, res.Status, res.Verdicts)
			continue
		}
		at := ""
		if ts := res.Events[0].Timestamp; ts != 0 {
			at = event.ToTime(ts).Format(time.RFC3339Nano)
		}
		if at != tc.at || string(res.Events[0].Unread) != tc.unread {
			t.Errorf("%s: got %s, unread %s, want %s, %s", tc.name, at, res.Events[0].Unread, tc.at, tc.unread)
		}
	}
}
