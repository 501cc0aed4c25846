package event

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	hamba "github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"

	"github.com/uptakehq/uptake/schemas/avro"
)

func registryClient(t *testing.T) *sr.Client {
	t.Helper()
	r := srfake.New()
	t.Cleanup(r.Close)
	cl, err := sr.NewClient(sr.URLs(r.URL()))
	if err != nil {
		t.Fatal(err)
	}
	return cl
}

func TestRegistryCodecReadsBothFormats(t *testing.T) {
	ctx, cl := context.Background(), registryClient(t)
	plain := NewCodec()
	a, err := NewRegistryCodec(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	b, err := NewRegistryCodec(ctx, cl) // registering again gives the same ids
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range samples() {
		wire := s.append(a, nil, s.value)
		if wire[0] != 0 || len(wire) != len(s.append(plain, nil, s.value))-singleObjectHeader+registryHeader {
			t.Errorf("%s is not in the registry's wire format: % x", s.typ, wire[:8])
		}
		for name, value := range map[string][]byte{"registry": wire, "single object": s.append(plain, nil, s.value)} {
			got := s.empty()
			if err := s.decode(b, value, got); err != nil || !reflect.DeepEqual(got, s.value) {
				t.Errorf("%s of %s: %+v, %v", name, s.typ, got, err)
			}
		}
	}
}

// A version that only the registry knows, written by a newer release, is
// fetched by its id and resolved.
func TestRegistryCodecFetchesUnknownVersions(t *testing.T) {
	ctx, cl := context.Background(), registryClient(t)
	c, err := NewRegistryCodec(ctx, cl)
	if err != nil {
		t.Fatal(err)
	}
	text, err := avro.Files.ReadFile(currentFile(TypeControl))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	schema["fields"] = append(schema["fields"].([]any), map[string]any{"name": "epoch", "type": "long", "default": 0})
	newer, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	ss, err := cl.CreateSchema(ctx, "uptake.v1.Control", sr.Schema{Schema: string(newer), Type: sr.TypeAvro})
	if err != nil {
		t.Fatal(err)
	}
	s, err := hamba.ParseWithCache(string(newer), "", &hamba.SchemaCache{})
	if err != nil {
		t.Fatal(err)
	}
	m := asMap(t, schemaOf(t, TypeControl), sampleControl())
	m["epoch"] = int64(5)
	body, err := hamba.Marshal(s, m)
	if err != nil {
		t.Fatal(err)
	}
	value := append([]byte{0, 0, 0, 0, byte(ss.ID)}, body...)
	var got Control
	if err := c.DecodeControl(value, &got); err != nil || !reflect.DeepEqual(&got, sampleControl()) {
		t.Errorf("got %+v, %v", got, err)
	}

	// An id that nobody registered is an error that names it, and is not asked
	// for with every record.
	for range 2 {
		err := c.DecodeControl([]byte{0, 0, 0, 3, 1, 0}, &got)
		if !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "769") {
			t.Errorf("unknown id: %v", err)
		}
	}
}
