package gainsightpx

import (
	"fmt"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping/wiretest"
	"github.com/uptakehq/uptake/ingest-gateway/moesif"
)

func protocols() []ingest.Protocol { return []ingest.Protocol{New(100)} }

func TestWire(t *testing.T) { wiretest.Run(t, protocols) }

func FuzzDecode(f *testing.F) { wiretest.Fuzz(f, protocols) }

// TestSharedPath tells PX from Moesif on one host.
func TestSharedPath(t *testing.T) {
	g := ingesttest.New(t, moesif.Protocol{}, New(10))
	for _, tc := range []struct{ header, want string }{
		{"X-APTRINSIC-API-KEY: test-write-key", "gainsightpx"},
		{"X-Moesif-Application-Id: test-write-key", "moesif"},
		{"X: y", "moesif"},
	} {
		res := g.Do("POST", "/v1/users", []byte(`{"identifyId":"u","user_id":"u"}`), tc.header)
		if res.Protocol != tc.want {
			t.Errorf("%s: got %s, want %s", tc.header, res.Protocol, tc.want)
		}
	}
}

// TestNothingIsKnownThatWasNotStored: an id is remembered when the brokers have
// it, not before.
func TestNothingIsKnownThatWasNotStored(t *testing.T) {
	g := ingesttest.New(t, New(10))
	post := func() int {
		return g.Do("POST", "/v1/accounts", []byte(`{"id":"a"}`), "X-APTRINSIC-API-KEY: test-write-key").Status
	}
	g.Fault = &ingest.Fault{Kind: ingest.Unavailable}
	if got := post(); got != 503 {
		t.Errorf("brokers away: got %d, want 503", got)
	}
	g.Fault = nil
	if got := post(); got != 201 {
		t.Errorf("first time stored: got %d, want 201", got)
	}
	if got := post(); got != 400 {
		t.Errorf("second time: got %d, want 400", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	k := newKnown(10)
	for i := range 1000 {
		k.add("app", 'u', fmt.Sprint(i))
		if n := len(k.young) + len(k.old); n > 10 {
			t.Fatalf("%d ids remembered, bound 10", n)
		}
		for back := range 5 {
			if i >= back && !k.has("app", 'u', fmt.Sprint(i-back)) {
				t.Fatalf("id %d of %d was forgotten", i-back, i)
			}
		}
	}
	if k.has("app", 'a', "999") || k.has("other", 'u', "999") {
		t.Error("an id of another kind or app is known")
	}
}
