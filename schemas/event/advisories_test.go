package event

import (
	"encoding/binary"
	"math"
	"strings"
	"testing"

	hamba "github.com/hamba/avro/v2"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/uptakehq/uptake/schemas/avro"
)

func readSchema(t *testing.T, typ Type) []byte {
	t.Helper()
	text, err := avro.Files.ReadFile(currentFile(typ))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// hostileLengths are what the advisories of the Avro library feed its decoders
// where a length or the count of a block is read (GO-2026-5046, -5047, -5048:
// counts that overflow, negative counts, blocks without end), and what does not
// end.
func hostileLengths() map[string][]byte {
	out := map[string][]byte{
		"a varint without end": []byte(strings.Repeat("\xff", 64)),
		"11 bytes of a varint": append([]byte(strings.Repeat("\x80", 10)), 0x01),
		"nothing":              nil,
	}
	for name, n := range map[string]int64{
		"-1": -1, "-2": -2, "least": math.MinInt64, "least+1": math.MinInt64 + 1, "most": math.MaxInt64, "most-1": math.MaxInt64 - 1,
		"-2^31": math.MinInt32, "2^31": math.MaxInt32 + 1, "2^32": 1 << 32, "2^33+1": 1<<33 + 1, "16 MiB": MaxValueBytes, "1 GiB": 1 << 30,
	} {
		out["length "+name] = binary.AppendVarint(nil, n)
	}
	return out
}

// In the current version and in another one, which is resolved: every place of a
// value where a length stands.
func TestHostileLengths(t *testing.T) {
	c := NewCodec()
	if err := c.versions.load(); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(readSchema(t, TypeRaw)), `"fields": [`, `"fields": [{"name": "shard_hint", "type": "string", "default": ""},`, 1)
	fp, err := c.versions.add(text)
	if err != nil {
		t.Fatal(err)
	}
	whole := sampleRaw()
	current := c.AppendRaw(nil, whole)
	other := append(binary.LittleEndian.AppendUint64([]byte{0xC3, 0x01}, fp), 0) // an empty shard_hint
	other = append(other, current[singleObjectHeader:]...)
	var e RawEvent
	if err := c.DecodeRaw(other, &e); err != nil {
		t.Fatalf("the other version as it is: %v", err)
	}
	for what, length := range hostileLengths() {
		for name, value := range map[string][]byte{"current": current, "other": other} {
			for _, tail := range [][]byte{nil, make([]byte, 4096)} { // too many for the fields: bytes are left over
				bad := append(append([]byte{}, value[:singleObjectHeader]...), length...)
				bad = append(bad, tail...)
				if err := c.DecodeRaw(bad, &e); err == nil {
					t.Errorf("%s version, %s, %d bytes behind it: it was decoded", name, what, len(tail))
				}
			}
		}
		// At every byte: what is decoded, or not, must end, and never panic.
		for at := singleObjectHeader; at < len(other); at++ {
			bad := append(append([]byte{}, other[:at]...), length...)
			_ = c.DecodeRaw(bad, &e) // lengths that happen to fit are right
		}
	}
}

// A registry cannot bring the decoders into use that have the advisories.
func TestRegistryCannotBringOtherTypes(t *testing.T) {
	cl := registryClient(t)
	c, err := NewRegistryCodec(t.Context(), cl)
	if err != nil {
		t.Fatal(err)
	}
	var e RawEvent
	for name, typ := range map[string]string{
		"array":     `{"type": "array", "items": "long"}`,
		"map":       `{"type": "map", "values": "bytes"}`,
		"recursion": `["null", "RawEvent"]`,
		"record":    `{"type": "record", "name": "Inner", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]}`,
		"fixed":     `{"type": "fixed", "name": "F", "size": 2147483647}`,
		"enum":      `{"type": "enum", "name": "E", "symbols": ["A"]}`,
		"decimal":   `{"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}`,
		"double":    `"double"`,
	} {
		text := strings.Replace(string(readSchema(t, TypeRaw)), `"fields": [`, `"fields": [{"name": "more", "type": `+typ+`},`, 1)
		if _, err := hamba.ParseWithCache(text, "", &hamba.SchemaCache{}); err != nil {
			t.Fatalf("%s: the library must take it for this test: %v", name, err)
		}
		ss, err := cl.CreateSchema(t.Context(), "uptake.v1.RawEvent", sr.Schema{Schema: text, Type: sr.TypeAvro})
		if err != nil {
			t.Fatal(err)
		}
		for what, length := range hostileLengths() {
			value := append(binary.BigEndian.AppendUint32([]byte{0x00}, uint32(ss.ID)), length...)
			err := c.DecodeRaw(append(value, make([]byte, 64)...), &e)
			if err == nil || !strings.Contains(err.Error(), "only string, bytes and long are read") && !strings.Contains(err.Error(), "not known to the registry") {
				t.Errorf("%s, %s: got %v, want a refusal of the schema", name, what, err)
			}
		}
	}
}
