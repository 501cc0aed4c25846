package mixpanel

import (
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping/wiretest"
	"github.com/uptakehq/uptake/ingest-gateway/posthog"
)

func protocols() []ingest.Protocol { return []ingest.Protocol{Protocol{}} }

func TestWire(t *testing.T) { wiretest.Run(t, protocols) }

func FuzzDecode(f *testing.F) { wiretest.Fuzz(f, protocols) }

// TestSharedPaths tells Mixpanel from PostHog's first API on one host.
func TestSharedPaths(t *testing.T) {
	g := ingesttest.New(t, posthog.Protocol{}, Protocol{})
	for _, tc := range []struct{ target, body, want string }{
		{"/track", `{"event":"a","properties":{"token":"test-write-key","distinct_id":"u"}}`, "mixpanel"},
		{"/track/", `[{"event":"a","properties":{"token":"test-write-key","distinct_id":"u"}}]`, "mixpanel"},
		{"/track/", `{"event":"a","api_key":"test-write-key","distinct_id":"u"}`, "posthog"},
		{"/track", `{"event":"a","properties":{"token":"phc_x","distinct_id":"u"}}`, "posthog"},
		{"/engage", `[{"$token":"test-write-key","$distinct_id":"u","$set":{}}]`, "mixpanel"},
		{"/engage/", `{"token":"phc_x","$distinct_id":"u","$set":{}}`, "posthog"},
		{"/posthog/engage/", `[{"$token":"x"}]`, "posthog"},
		{"/mixpanel/track", `{"api_key":"x"}`, "mixpanel"},
		{"/track", `rubbish`, "mixpanel"},
	} {
		if res := g.Do("POST", tc.target, []byte(tc.body)); res.Protocol != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.target, tc.body, res.Protocol, tc.want)
		}
	}
}
