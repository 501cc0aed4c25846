package amplitude

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

// TestSharedPath tells Amplitude's batches from PostHog's on one host.
func TestSharedPath(t *testing.T) {
	g := ingesttest.New(t, posthog.Protocol{}, Protocol{})
	for _, tc := range []struct{ target, body, want string }{
		{"/batch", `{"api_key":"test-write-key","events":[{"batch":1}],"batch":[]}`, "amplitude"},
		{"/batch/", `{"api_key":"test-write-key","batch":[{"events":1}]}`, "posthog"},
		{"/batch", `[{"event":"a"}]`, "posthog"},
		{"/batch", ``, "posthog"},
		{"/amplitude/batch", ``, "amplitude"},
	} {
		if res := g.Do("POST", tc.target, []byte(tc.body)); res.Protocol != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.target, tc.body, res.Protocol, tc.want)
		}
	}
}
