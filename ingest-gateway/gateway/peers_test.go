package gateway

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/schemas/event"
)

// Forms that the suites of peers expect.
func TestPeerForms(t *testing.T) {
	const basic = "Authorization: Basic dGVzdC13cml0ZS1rZXk6"
	// LZString's compressToBase64 of an event of posthog-js, as in testdata of package posthog.
	const lz64 = "N4IghgDglg+g1gUwJ4gFwgC4IM4YLQDuATlFnoigDQgIBuCAdhmiAPIA2AJgAQCi9TENQhEA9hAREMUHGlCcouKAwDGGGFE4sArgEYh4FmGMnTZ8xcsWDCFgEvAvBuAAPYA/gInsQAX09A=="
	// {"token":"test-write-key","$distinct_id":"ü1","$anon_distinct_id":"界-1","$set":{"plan":"pro"}}
	const lzPerson = "N4IgLg9g1gpgdiAXAAnDAzmAtAdwE4CWYMWsAniADSoAkAJgZgXAMZgD6BdSqAPwIxVaAQzgQ47Bk1YcuPEIBlXLIOoga6GGB6gADgBtR8nXgggAvmaA"
	long := strings.Repeat("界", 250)
	for _, tc := range []struct {
		name, method, target, body, header string
		status                             int
		stored, answer                     string // parts of what is stored and answered
	}{
		{"lz64 on engage", "POST", "/engage?compression=lz64", lz64, "", 200, "track", `{"status":1}`},
		{"lz64 on track", "POST", "/track?compression=lz64", lz64, "", 200, "track", `{"status":1}`},
		{"lz64 as a field of the form", "POST", "/track", "data=" + url.QueryEscape(lz64) + "&compression=lz64", "", 200, "track", `{"status":1}`},
		{"lz64 as the first field of the form", "POST", "/engage", "compression=LZ64&data=" + url.QueryEscape(lz64), "", 200, "track", `{"status":1}`},
		{"lz64 of a person", "POST", "/engage/?compression=LZ64", "data=" + url.QueryEscape(lzPerson), "", 200, "identify $identify user=ü1 anonymous=界-1", `{"status":1}`},
		{"lz64 that is none", "POST", "/engage?compression=lz64", "data=!!", "", 400, "", "lz64"},
		{"keys of two projects", "POST", "/e", `[{"api_key":"test-write-key","event":"e","distinct_id":"u"},{"api_key":"other","event":"e","distinct_id":"u"}]`, "", 400, "", "several projects"},
		{"keys of two projects, in properties", "POST", "/e", `[{"event":"e","properties":{"token":"test-write-key","distinct_id":"u"}},{"event":"e","properties":{"token":"other","distinct_id":"u"}}]`, "", 400, "", "several projects"},
		{"one project twice", "POST", "/e", `[{"api_key":"test-write-key","event":"e","distinct_id":"u"},{"event":"e","properties":{"token":"test-write-key","distinct_id":"u"}}]`, "", 200, "track e user=u", ""},
		{"ids of 200 characters", "POST", "/e", `{"api_key":"test-write-key","event":"e","distinct_id":"` + long + `"}`, "", 200, "user=" + long[:600] + " ", ""},
		{"v1 results", "POST", "/i/v1/analytics/events", `{"batch":[{"event":"e","uuid":"i-1","distinct_id":"u"}]}`, "Authorization: Bearer test-write-key", 200, "track e user=u", `{"results":{"i-1":{"result":"ok"}}}`},
		{"merge of a visitor", "POST", "/v1/merge", `{"mergeProperties":[{"type":"anonymous_id","value":"a"},{"type":"user_id","value":"u"}]}`, basic, 200, "identify  user=u anonymous=a", ""},
		{"merge of two users", "POST", "/v1/merge", `{"mergeProperties":[{"type":"user_id","value":"u1"},{"type":"user_id","value":"u2"}]}`, basic, 200, "alias  user=u2 anonymous= previous=u1", ""},
		{"merge of no ids", "POST", "/v1/merge", `{"mergeProperties":[{"type":"email","value":"a"},{"type":"user_id","value":"u2"}]}`, basic, 200, "", "rejected"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := ingesttest.New(t, Protocols()...)
			var headers []string
			if tc.header != "" {
				headers = append(headers, tc.header)
			}
			res := g.Do(tc.method, tc.target, []byte(tc.body), headers...)
			var stored strings.Builder
			for _, e := range res.Events {
				fmt.Fprintf(&stored, "%s %s user=%s anonymous=%s previous=%s \n", e.Kind, e.Event, e.UserID, e.AnonymousID, e.PreviousID)
			}
			if res.Status != tc.status || !strings.Contains(stored.String(), tc.stored) || (tc.stored == "") != (stored.Len() == 0) || !strings.Contains(res.Body, tc.answer) {
				t.Errorf("got %d %s, stored\n%s", res.Status, res.Body, stored.String())
			}
		})
	}
	g := ingesttest.New(t, Protocols()...)
	key := "X-Moesif-Application-Id: test-write-key"
	config := g.Do("GET", "/moesif/v1/config", nil, key).Header.Get("X-Moesif-Config-ETag")
	if got := g.Do("POST", "/moesif/v1/actions", []byte(`{"action_name":"e","user_id":"u"}`), key).Header.Get("X-Moesif-Config-ETag"); got == "" || got != config {
		t.Errorf("the configuration is %q, after an action %q", config, got)
	}
}

// Instants and ids of live events that people reported, in each protocol that can
// carry them. What is not an id is dropped and noted; the event stays.
func TestReportedEvents(t *testing.T) {
	const (
		basic  = "Authorization: Basic dGVzdC13cml0ZS1rZXk6"
		bearer = "Authorization: Bearer test-write-key"
		at     = " at=2026-11-20T09:00:27.029Z"
	)
	for _, tc := range []struct{ name, target, header, body, stored string }{
		// A colon before the Z.
		{"segment", "/v1/batch", basic, `{"batch":[{"type":"track","event":"e","userId":"u","timestamp":"2026-11-20T09:00:27.029:Z","sentAt":"2026-11-20T09:00:27.957:Z"}]}`, "track u/" + at},
		{"rudderstack", "/v1/batch", basic, `{"batch":[{"type":"track","event":"e","userId":"u","originalTimestamp":"2026-11-20T09:00:27.029:Z"}]}`, "track u/" + at},
		{"posthog", "/batch", "", `{"api_key":"test-write-key","batch":[{"event":"e","distinct_id":"u","timestamp":"2026-11-20T09:00:27.029:Z"}]}`, "track u/" + at},
		{"mixpanel", "/track", "", `[{"event":"e","properties":{"token":"test-write-key","distinct_id":"u","time":"2026-11-20T09:00:27.029:Z"}}]`, "track u/" + at},
		{"cloudevents", "/cloudevents", bearer, `{"specversion":"1.0","id":"1","source":"s","type":"e","userid":"u","time":"2026-11-20T09:00:27.029:Z"}`, "track u/" + at},
		{"amplitude", "/2/httpapi", "", `{"api_key":"test-write-key","events":[{"event_type":"e","user_id":"user","time":"20261120T090027.029Z"}]}`, "track user/" + at},
		// Texts that are no ids.
		{"segment, undefined", "/v1/batch", basic, `{"batch":[{"type":"identify","userId":"u","anonymousId":"undefined"},{"type":"track","event":"e","anonymousId":"[object Object]"},{"type":"group","userId":"u","groupId":"NULL"}]}`, `identify u/ {"anonymous_id":"undefined"} track / {"anonymous_id":"[object Object]"} group u/ {"account_id":"NULL"}`},
		{"posthog, undefined", "/batch", "", `{"api_key":"test-write-key","batch":[{"event":"$identify","distinct_id":"u","properties":{"$anon_distinct_id":"undefined"}},{"event":"e","distinct_id":"None"}]}`, `identify u/ {"anonymous_id":"undefined"} track / {"user_id":"None"}`},
		{"mixpanel, undefined", "/track", "", `[{"event":"e","properties":{"token":"test-write-key","distinct_id":"u","$device_id":"undefined","$user_id":"u"}},{"event":"e","properties":{"token":"test-write-key","distinct_id":"$device:null","$device_id":"null"}}]`, `track u/ {"anonymous_id":"undefined"} track / {"anonymous_id":"null"}`},
		{"amplitude, unknown", "/2/httpapi", "", `{"api_key":"test-write-key","events":[{"event_type":"e","user_id":"user-1","device_id":"unknown"},{"event_type":"e","user_id":" ","device_id":"00000000-0000-0000-0000-000000000000"}]}`, `track user-1/ {"anonymous_id":"unknown"} track / {"user_id":" ","anonymous_id":"00000000-0000-0000-0000-000000000000"}`},
		{"moesif, nil", "/moesif/v1/actions", "X-Moesif-Application-Id: test-write-key", `{"action_name":"e","user_id":"nil","company_id":"N/A","transaction_id":"t"}`, `track / {"user_id":"nil","account_id":"N/A"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := ingesttest.New(t, Protocols()...)
			var headers []string
			if tc.header != "" {
				headers = append(headers, tc.header)
			}
			if tc.name == "cloudevents" {
				headers = append(headers, "Content-Type: application/cloudevents+json")
			}
			res := g.Do("POST", tc.target, []byte(tc.body), headers...)
			var stored []string
			for _, e := range res.Events {
				line := fmt.Sprintf("%s %s/%s", e.Kind, e.UserID, e.AnonymousID)
				if e.Timestamp != 0 {
					line += " at=" + event.ToTime(e.Timestamp).Format(time.RFC3339Nano)
				}
				if len(e.Unread) > 0 {
					line += " " + string(e.Unread)
				}
				stored = append(stored, line)
			}
			if got := strings.Join(stored, " "); got != tc.stored {
				t.Errorf("got %d %s, stored\n%s\nwant\n%s", res.Status, res.Body, got, tc.stored)
			}
		})
	}
}
