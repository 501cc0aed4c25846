package posthog

import (
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping/wiretest"
)

func protocols() []ingest.Protocol { return []ingest.Protocol{Protocol{}} }

func TestWire(t *testing.T) { wiretest.Run(t, protocols) }

func FuzzDecode(f *testing.F) { wiretest.Fuzz(f, protocols) }

func FuzzUnpackLZ(f *testing.F) {
	f.Add("N4IghgDglg+g1gUwJ4gFwgC4IM4YLQDuATlFnoigDQgIBuCAdhmiAPIA2AJgAQCi9TENQhEA9hAREMUHGlCcouKAwDGGGFE4sArgEYh4FmGMnTZ8xcsWDCFgEvAvBuAAPYA/gInsQAX09A==")
	f.Fuzz(func(t *testing.T, in string) {
		const limit = 1 << 16
		if text, err := unpackLZ(in, limit); err == nil && len(text) > limit {
			t.Errorf("got %d bytes, bound %d", len(text), limit)
		}
	})
}

// TestLimits holds the bounds that a client could hide behind packing.
func TestLimits(t *testing.T) {
	g := ingesttest.New(t, Protocol{})
	g.Limits.MaxBodyBytes = 1 << 10
	lz := "N4IghgDglg+g1gUwJ4gFwgC4IM4YLQDuATlFnoigDQgIBuCAdhmiAPIA2AJgAQCi9TENQhEA9hAREMUHGlCcouKAwDGGGFE4sArgEYh4FmGMnTZ8xcsWDCFgEvAvBuAAPYA/gInsQAX09A=="
	if res := g.Do("POST", "/e/?compression=lz64", []byte(lz)); res.Status != 200 || len(res.Events) != 1 {
		t.Errorf("lz64: got %d %s", res.Status, res.Body)
	}
	g.Limits.MaxBodyBytes = 100
	if res := g.Do("POST", "/e/?compression=lz64", []byte(lz)); res.Status != 413 {
		t.Errorf("lz64 past the bound: got %d %s, want 413", res.Status, res.Body)
	}
	g.Limits = ingest.DefaultLimits()
	deep := `{"api_key":"test-write-key","batch":[{"event":"ok","distinct_id":"u"},{"event":"deep","distinct_id":"u","properties":` +
		strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40) + "}]}"
	res := g.Do("POST", "/batch", []byte(deep))
	if res.Status != 200 || len(res.Events) != 1 || len(res.Rejected) != 1 || res.Rejected[0].Code != ingest.CodeTooDeep {
		t.Errorf("deep JSON: got %d, %d events, rejected %+v", res.Status, len(res.Events), res.Rejected)
	}
}
