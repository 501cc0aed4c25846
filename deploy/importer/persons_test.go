package importer

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

// messages returns what raw holds by what tells messages apart: usage as "key
// message", and what ties visitors to users as "visitor is user".
func (g *target) messages(t *testing.T) (usage, claims []string) {
	t.Helper()
	g.each(t, func(key []byte, e *event.RawEvent) {
		if event.IsUsage(e.Kind) {
			usage = append(usage, fmt.Sprintf("%q %q", key, e.Message().AppendTo(nil)))
		}
		if e.UserID != "" && e.AnonymousID != "" {
			claims = append(claims, e.AnonymousID+" is "+e.UserID)
		}
	})
	slices.Sort(usage)
	slices.Sort(claims)
	return usage, claims
}

// TestLiveAndExport: what came live and comes again from an export is the same
// message, also where the source gave it to another person since; and whose it was is
// known after it.
func TestLiveAndExport(t *testing.T) {
	for _, tc := range []struct {
		from, path, live, export string
		claims                   string // of the export
		unmatched                int64
	}{
		{
			from: "mixpanel", path: "/track",
			live: `[{"event":"e","properties":{"token":"KEY","distinct_id":"$device:d1","$device_id":"d1","time":1767323045678,"$insert_id":"i1"}},
{"event":"e","properties":{"token":"KEY","distinct_id":"ana","$user_id":"ana","$device_id":"d1","time":1767323046,"$insert_id":"i2"}},
{"event":"e","properties":{"token":"KEY","distinct_id":"d2","$device_id":"d2","time":1767323047,"$insert_id":"i3"}},
{"event":"e","properties":{"token":"KEY","distinct_id":"server-1","time":1767323048,"$insert_id":"i4"}}]`,
			export: `{"event":"e","properties":{"distinct_id":"ana","$distinct_id_before_identity":"$device:d1","$device_id":"d1","time":1767323045,"$insert_id":"i1"}}
{"event":"e","properties":{"distinct_id":"ana","$user_id":"ana","$device_id":"d1","time":1767323046,"$insert_id":"i2"}}
{"event":"e","properties":{"distinct_id":"ben","$distinct_id_before_identity":"d2","$device_id":"d2","time":1767323047,"$insert_id":"i3"}}
{"event":"e","properties":{"distinct_id":"eva","$distinct_id_before_identity":"server-1","time":1767323048,"$insert_id":"i4"}}`,
			claims: "d1 is ana, d2 is ben, server-1 is eva",
		},
		{
			from: "mixpanel", export: `{"event":"e","properties":{"distinct_id":"ana","$device_id":"d1","time":1767323045,"$insert_id":"i1"}}`, unmatched: 1,
		},
		{
			from: "amplitude", path: "/2/httpapi",
			live: `{"api_key":"KEY","events":[{"event_type":"e","device_id":"device-1","time":1767323045678,"insert_id":"i1"},
{"event_type":"e","device_id":"device-1","user_id":"anna1","time":1767323046000,"insert_id":"i2"},
{"event_type":"e","device_id":"device-2","time":1767323047000,"insert_id":"i3"},
{"event_type":"e","device_id":"device-3","time":1767323047000,"insert_id":"i4"}]}`,
			export: `{"event_type":"e","device_id":"device-1","user_id":null,"amplitude_id":7,"event_time":"2026-01-02 03:04:05.678000","$insert_id":"i1"}
{"event_type":"e","device_id":"device-1","user_id":"anna1","amplitude_id":7,"event_time":"2026-01-02 03:04:06.000000","$insert_id":"i2"}
{"event_type":"e","device_id":"device-2","amplitude_id":7,"event_time":"2026-01-02 03:04:07.000000","$insert_id":"i3"}
{"event_type":"e","device_id":"device-3","amplitude_id":8,"event_time":"2026-01-02 03:04:07.000000","$insert_id":"i4"}`,
			claims: "device-1 is anna1, device-2 is anna1",
		},
		{
			from: "posthog", path: "/batch",
			live: `{"api_key":"KEY","batch":[{"event":"e","uuid":"i1","distinct_id":"anon-1","timestamp":"2026-01-02T03:04:05.678Z","properties":{"$is_identified":false,"$device_id":"anon-1"}},
{"event":"e","uuid":"i2","distinct_id":"ana","timestamp":"2026-01-02T03:04:06Z","properties":{"$is_identified":true,"$device_id":"anon-1"}},
{"event":"e","uuid":"i3","distinct_id":"anon-2","timestamp":"2026-01-02T03:04:07Z","properties":{"$device_id":"anon-2"}},
{"event":"e","uuid":"i4","distinct_id":"anon-3","timestamp":"2026-01-02T03:04:07Z","properties":{"$device_id":"anon-3"}}]}`,
			export: `{"event":"e","uuid":"i1","distinct_id":"anon-1","person_id":"p1","timestamp":"2026-01-02 03:04:05.678000+00:00","properties":{"$is_identified":false,"$device_id":"anon-1"}}
{"event":"$identify","uuid":"i9","distinct_id":"ana","person_id":"p1","timestamp":"2026-01-02 03:04:05.900+00:00","properties":{"$anon_distinct_id":"anon-1"}}
{"event":"e","uuid":"i2","distinct_id":"ana","person_id":"p1","timestamp":"2026-01-02 03:04:06+00:00","properties":{"$is_identified":true,"$device_id":"anon-1"}}
{"event":"e","uuid":"i3","distinct_id":"anon-2","person_id":"p1","timestamp":"2026-01-02 03:04:07+00:00","properties":"{\"$device_id\":\"anon-2\"}"}
{"event":"e","uuid":"i4","distinct_id":"anon-3","person_id":"p3","timestamp":"2026-01-02 03:04:07+00:00","properties":"{\"$device_id\":\"anon-3\"}"}`,
			claims: "anon-1 is ana, anon-2 is ana",
		},
		{
			from: "posthog", export: `{"event":"e","uuid":"i1","person_id":"p1","timestamp":"2026-01-02 03:04:07+00:00","properties":{}}`, unmatched: 1,
		},
	} {
		g := newTarget(t)
		if tc.live != "" {
			for status := http.StatusServiceUnavailable; status != http.StatusOK; { // until its Kafka is reachable
				res, err := http.Post(g.url+"/"+tc.from+tc.path, "application/json", strings.NewReader(strings.ReplaceAll(tc.live, "KEY", testKey)))
				if err != nil {
					t.Fatal(err)
				}
				said, _ := io.ReadAll(res.Body)
				res.Body.Close()
				if status = res.StatusCode; status != http.StatusOK && status != http.StatusServiceUnavailable {
					t.Fatalf("%s: live: %d %s", tc.from, status, said)
				}
			}
		}
		live, _ := g.messages(t)
		result, err := Run(t.Context(), config(t, tc.from, g.url, tc.export), quiet())
		if err != nil || result.Unmatched != tc.unmatched || result.Sent != result.Lines {
			t.Errorf("%s: got %+v, %v, want %d unmatched", tc.from, result, err, tc.unmatched)
		}
		if tc.unmatched > 0 {
			continue
		}
		usage, claims := g.messages(t)
		if len(live) == 0 || len(usage) != 2*len(live) || !slices.Equal(slices.Compact(usage), live) {
			t.Errorf("%s: live\n%s\nwith the export\n%s", tc.from, strings.Join(live, "\n"), strings.Join(usage, "\n"))
		}
		if got := strings.Join(slices.Compact(claims), ", "); tc.claims != "" && !strings.Contains(got, tc.claims) {
			t.Errorf("%s: got the claims %s, want %s", tc.from, got, tc.claims)
		}
	}
}
