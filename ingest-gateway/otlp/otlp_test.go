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
