package gainsightpx

import (
	"errors"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/known"
	"github.com/uptakehq/uptake/ingest-gateway/mapping/wiretest"
	"github.com/uptakehq/uptake/ingest-gateway/moesif"
)

func protocols() []ingest.Protocol { return []ingest.Protocol{New(known.NewMemory(100))} }

func TestWire(t *testing.T) { wiretest.Run(t, protocols) }

func FuzzDecode(f *testing.F) { wiretest.Fuzz(f, protocols) }

// TestSharedPath tells PX from Moesif on one host.
func TestSharedPath(t *testing.T) {
	g := ingesttest.New(t, moesif.Protocol{}, New(known.NewMemory(10)))
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
	g := ingesttest.New(t, New(known.NewMemory(10)))
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

// broken is a memory that nobody can reach.
type broken struct{ has, add error }

func (b broken) Has(string, byte, string) (bool, error) { return false, b.has }
func (b broken) Add(string, byte, string) error         { return b.add }

// TestNobodyGuesses: where it cannot be told whether an id exists the answer is
// neither yes nor no, and an event is stored all the same.
func TestNobodyGuesses(t *testing.T) {
	away := errors.New("brokers are away")
	for _, tc := range []struct {
		memory               broken
		method, target, body string
		status, stored       int
	}{
		{broken{has: away}, "GET", "/v1/users/maria", "", 503, 0},
		{broken{has: away}, "POST", "/v1/users", `{"identifyId":"maria"}`, 503, 0},
		{broken{has: away}, "PUT", "/v1/users/maria", `{"title":"Owner"}`, 503, 0},
		{broken{add: away}, "POST", "/v1/accounts", `{"id":"corner-shop"}`, 503, 1},
		{broken{has: away, add: away}, "POST", "/v1/events/custom", `{"eventName":"e","identifyId":"maria","userType":"USER"}`, 201, 1},
	} {
		g := ingesttest.New(t, New(tc.memory))
		res := g.Do(tc.method, tc.target, []byte(tc.body), "X-APTRINSIC-API-KEY: test-write-key")
		if res.Status != tc.status || len(res.Events) != tc.stored || len(res.Rejected) != 0 {
			t.Errorf("%s %s: got %d, %d events, %d rejected, want %d and %d", tc.method, tc.target, res.Status, len(res.Events), len(res.Rejected), tc.status, tc.stored)
		}
		if tc.status == 503 && res.Header.Get("Retry-After") == "" {
			t.Errorf("%s %s: no Retry-After", tc.method, tc.target)
		}
	}
}
