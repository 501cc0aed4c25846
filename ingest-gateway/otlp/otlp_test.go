package otlp

import (
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/mapping/wiretest"
)

func protocols() []ingest.Protocol { return []ingest.Protocol{Protocol{}} }

func TestWire(t *testing.T) { wiretest.Run(t, protocols) }

func FuzzDecode(f *testing.F) { wiretest.Fuzz(f, protocols) }

// TestProtobufIsBounded: a few bytes of protobuf must not become any amount of
// JSON, nor any depth of calls.
func TestProtobufIsBounded(t *testing.T) {
	var attributes []byte
	for range 5000 {
		attributes = append(attributes, 6<<3|wireBytes, 0) // an attribute without key and value
	}
	body := appendText(nil, 1, string(appendText(nil, 2, string(appendText(nil, 2, string(attributes))))))
	g := ingesttest.New(t, Protocol{})
	g.Limits.MaxBodyBytes = len(body) / 4
	if _, err := toJSON(body, len(body)/2); err == nil {
		t.Error("protobuf that grows past the bound: got no error")
	}
	deep := []byte{}
	for range 500 {
		deep = appendText(nil, 5, string(appendText(nil, 1, string(deep)))) // an array in an array
	}
	record := appendText(nil, 5, string(deep))
	body = appendText(nil, 1, string(appendText(nil, 2, string(appendText(nil, 2, string(record))))))
	g.Limits = ingest.DefaultLimits()
	if res := g.Do("POST", "/v1/logs", body, "Authorization: Bearer "+ingesttest.Key); res.Status != 400 {
		t.Errorf("deep protobuf: got %d, want 400", res.Status)
	}
}

// What is rejected keeps its route and what stood around it, in JSON and in
// protobuf.
func TestRejectedKeepsWhatStoodAround(t *testing.T) {
	const body = `{"resourceLogs":[
		{"resource":{"attributes":[{"key":"x","value":{"stringValue":"y"}}]},
		 "scopeLogs":[{"scope":{"name":"lib"},"logRecords":[{"eventName":"good","attributes":[{"key":"user.id","value":{"stringValue":"u1"}}]},{"eventName":"of nobody"}]},{"logRecords":[{"eventName":"of nobody"}]}]},
		{"scopeLogs":[{"logRecords":[{"eventName":"of nobody"}]}]}]}`
	g := ingesttest.New(t, Protocol{})
	res := g.Do("POST", "/otlp/v1/logs", []byte(body), "Authorization: Bearer "+ingesttest.Key)
	want := []string{
		`{"resource":{"attributes":[{"key":"x","value":{"stringValue":"y"}}]},"scope":{"name":"lib"}}`,
		`{"resource":{"attributes":[{"key":"x","value":{"stringValue":"y"}}]}}`,
		`{}`,
	}
	if len(res.Events) != 1 || len(res.Rejected) != len(want) {
		t.Fatalf("got %d %s: %d events, %d rejected", res.Status, res.Body, len(res.Events), len(res.Rejected))
	}
	for i, r := range res.Rejected {
		if r.Route != "POST /v1/logs" || string(r.Envelope) != want[i] {
			t.Errorf("%d: got route %q, envelope %s, want %s", i, r.Route, r.Envelope, want[i])
		}
	}
	scope := appendText(nil, 1, "lib")
	attribute := appendText(appendText(nil, 1, "x"), 2, string(appendText(nil, 1, "y")))
	record := appendText(nil, 12, "of nobody")
	logs := appendText(nil, 1, string(appendText(nil, 1, string(attribute))))
	logs = appendText(logs, 2, string(appendText(appendText(nil, 1, string(scope)), 2, string(record))))
	res = g.Do("POST", "/v1/logs", appendText(nil, 1, string(logs)), "Authorization: Bearer "+ingesttest.Key)
	if len(res.Rejected) != 1 || string(res.Rejected[0].Envelope) != want[0] {
		t.Errorf("protobuf: got %d %q, rejected %+v", res.Status, res.Body, res.Rejected)
	}
}
