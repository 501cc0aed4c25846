package event

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode"

	hamba "github.com/hamba/avro/v2"

	"github.com/uptakehq/uptake/schemas/avro"
)

var update = flag.Bool("update", false, "rewrite golden files of records that have none")

func sampleRaw() *RawEvent {
	return &RawEvent{
		AppID: "dev", Kind: KindTrack, Event: "Item Scanned", MessageID: "m-1", UserID: "u-1",
		AnonymousID: "a-1", AccountID: "acct-1", Timestamp: 1_795_000_000_123_456, SentAt: 1_795_000_001_000_000,
		ReceivedAt: 1_795_000_001_500_000, Quantity: 3, Properties: []byte(`{"sku":"4006381333931","price":1.5}`),
		Context: []byte(`{"groupId":"acct-1"}`), Protocol: "segment", Library: "analytics-node/3.1.0",
		IP: "192.0.2.0", UserAgent: "test/1", Unread: []byte(`{"previous_id":"null"}`), IDRules: 1, TimeNotes: TimeAmbiguous, Country: "AT",
	}
}

func sampleEnriched() *EnrichedEvent {
	return &EnrichedEvent{
		AppID: "dev", Kind: KindTrack, Event: "Item Scanned", MessageID: "m-1", UserID: "u-1",
		ActorID: "u-1", ActorKind: ActorUser, AccountID: "acct-1", AccountSource: AccountFromEvent, Role: "cashier",
		FeatureID: "item_scanned", ModuleID: "billing", ProductID: "mypos_sales", CatalogVersion: 7,
		EventTime: 1_795_000_000_123_456, Timestamp: 1_795_000_000_123_456, ReceivedAt: 1_795_000_001_500_000,
		Quantity: 1, Properties: []byte(`{"sku":"4006381333931"}`), Conflicts: []byte(`{"price":"free"}`),
		Flags: "time_skew", RawOffset: 42, Protocol: "segment",
		LinkedUserID: "u-0", ParentAccountID: "acct-0", Metric: []byte(`{"numbers":{"":12.5}}`),
		Client: Client{Country: "AT", Browser: "Firefox", OS: "Linux", DeviceClass: "desktop", Referrer: "search.example", UTMSource: "news", UTMMedium: "mail", UTMCampaign: "may"},
	}
}

func sampleControl() *Control {
	return &Control{Kind: ControlTick, ControlID: "c-1", CreatedAt: 1_795_000_000_000_000, Payload: []byte(`{}`)}
}

func sampleRejected() *Rejected {
	return &Rejected{
		AppID: "dev", Stage: StageGateway, Code: "missing_event", Field: "event", Detail: "track needs an event",
		MessageID: "m-2", Protocol: "segment", ReceivedAt: 1_795_000_000_000_000, RejectedAt: 1_795_000_000_000_001,
		SourcePartition: -1, SourceOffset: -1, Original: []byte(`{"type":"track"}`), Route: "POST /v1/track", Envelope: []byte(`{}`),
	}
}

func sampleLink() *Link {
	return &Link{
		Kind: LinkClaim, AppID: "dev", ID: "a-1", IDKind: ActorAnonymous, UserID: "u-1", Since: 1_795_000_000_123_456,
		Call: KindIdentify, MessageID: "m-1", RecordedAt: 1_795_000_001_500_000, RawPartition: 3, RawOffset: 42,
		Partition: 3, Version: 2, Profile: []byte(`{"memberships":[{"since":1795000000000000,"account_id":"acct-1"}]}`),
	}
}

func sampleIdentityState() *IdentityState {
	return &IdentityState{
		Kind: StateAnonymous, AppID: "dev", ID: "a-1", RawPartition: -1, RawOffset: -1, Version: 1,
		Body: []byte(`{"links":[{"since":1795000000123456,"user_id":"u-1"}]}`),
	}
}

// record is what all record types are.
type record interface {
	appendTo([]byte) []byte
	readFrom(*reader)
}

// sample is a record with the codec's calls for it.
type sample struct {
	typ    Type
	value  record
	empty  func() record
	append func(*Codec, []byte, record) []byte
	decode func(*Codec, []byte, record) error
}

func samples() []sample {
	return []sample{
		{
			TypeRaw, sampleRaw(), func() record { return &RawEvent{} },
			func(c *Codec, b []byte, r record) []byte { return c.AppendRaw(b, r.(*RawEvent)) },
			func(c *Codec, b []byte, r record) error { return c.DecodeRaw(b, r.(*RawEvent)) },
		},
		{
			TypeEnriched, sampleEnriched(), func() record { return &EnrichedEvent{} },
			func(c *Codec, b []byte, r record) []byte { return c.AppendEnriched(b, r.(*EnrichedEvent)) },
			func(c *Codec, b []byte, r record) error { return c.DecodeEnriched(b, r.(*EnrichedEvent)) },
		},
		{
			TypeControl, sampleControl(), func() record { return &Control{} },
			func(c *Codec, b []byte, r record) []byte { return c.AppendControl(b, r.(*Control)) },
			func(c *Codec, b []byte, r record) error { return c.DecodeControl(b, r.(*Control)) },
		},
		{
			TypeRejected, sampleRejected(), func() record { return &Rejected{} },
			func(c *Codec, b []byte, r record) []byte { return c.AppendRejected(b, r.(*Rejected)) },
			func(c *Codec, b []byte, r record) error { return c.DecodeRejected(b, r.(*Rejected)) },
		},
		{
			TypeLink, sampleLink(), func() record { return &Link{} },
			func(c *Codec, b []byte, r record) []byte { return c.AppendLink(b, r.(*Link)) },
			func(c *Codec, b []byte, r record) error { return c.DecodeLink(b, r.(*Link)) },
		},
		{
			TypeIdentityState, sampleIdentityState(), func() record { return &IdentityState{} },
			func(c *Codec, b []byte, r record) []byte { return c.AppendIdentityState(b, r.(*IdentityState)) },
			func(c *Codec, b []byte, r record) error { return c.DecodeIdentityState(b, r.(*IdentityState)) },
		},
	}
}

// schemaOf parses the current schema file of t.
func schemaOf(tb testing.TB, t Type) hamba.Schema {
	tb.Helper()
	text, err := avro.Files.ReadFile(currentFile(t))
	if err != nil {
		tb.Fatal(err)
	}
	s, err := hamba.ParseWithCache(string(text), "", &hamba.SchemaCache{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// asMap turns a record into what hamba's generic encoder takes, by the field
// names of the schema.
func asMap(tb testing.TB, s hamba.Schema, r record) map[string]any {
	tb.Helper()
	byName := map[string]reflect.Value{}
	for name, v := range fieldsOf(r) {
		byName[strings.ToLower(name)] = v
	}
	m := map[string]any{}
	for _, f := range s.(*hamba.RecordSchema).Fields() {
		fv, ok := byName[strings.ReplaceAll(f.Name(), "_", "")]
		if !ok {
			tb.Fatalf("schema field %s has no Go field", f.Name())
		}
		m[f.Name()] = fv.Interface()
		if b, ok := fv.Interface().([]byte); ok && b == nil {
			m[f.Name()] = []byte{}
		}
	}
	if len(m) != len(byName) {
		tb.Fatalf("%T has %d fields, its schema %d", r, len(byName), len(m))
	}
	return m
}

// fieldsOf returns the fields of a record by name, those of embedded structs too.
func fieldsOf(r record) map[string]reflect.Value {
	v := reflect.ValueOf(r).Elem()
	fields := map[string]reflect.Value{}
	for _, f := range reflect.VisibleFields(v.Type()) {
		if !f.Anonymous {
			fields[f.Name] = v.FieldByIndex(f.Index)
		}
	}
	return fields
}

// randomize fills every field of r.
func randomize(rnd *rand.Rand, r record) {
	fields := fieldsOf(r)
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		f := fields[name]
		n := rnd.IntN(40)
		if rnd.IntN(20) == 0 {
			n = rnd.IntN(3000)
		}
		buf := make([]byte, n)
		for j := range buf {
			buf[j] = byte(' ' + rnd.IntN(unicode.MaxASCII-' '))
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString(string(buf))
		case reflect.Int64:
			f.SetInt(int64(rnd.Uint64()) >> rnd.IntN(64))
		case reflect.Slice:
			if n > 0 {
				f.SetBytes(buf)
			} else {
				f.SetZero()
			}
		}
	}
}

func TestFingerprintsMatchSchemaFiles(t *testing.T) {
	for typ := TypeRaw; typ < numTypes; typ++ {
		b, err := schemaOf(t, typ).FingerprintUsing(hamba.CRC64Avro)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fingerprints[typ], binary.BigEndian.Uint64(b); got != want {
			t.Errorf("%s: fingerprint constant is 0x%016X, its schema's is 0x%016X", typ, got, want)
		}
	}
}

// Array and map decoders of the Avro library have open advisories, so no schema
// may use them.
func TestSchemasUseNoArrayAndNoMap(t *testing.T) {
	names, err := fs.Glob(avro.Files, "*.avsc")
	if err != nil || len(names) == 0 {
		t.Fatalf("schema files: %v, %v", names, err)
	}
	for _, name := range names {
		text, err := avro.Files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Fields []struct {
				Name string
				Type any
			}
		}
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, f := range s.Fields {
			switch f.Type {
			case "string", "bytes", "long":
			default:
				t.Errorf("%s: field %s has type %v; only string, bytes and long are decoded by hand", name, f.Name, f.Type)
			}
		}
	}
}

func TestEncodesAsHamba(t *testing.T) {
	c := NewCodec()
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, s := range samples() {
		t.Run(s.typ.String(), func(t *testing.T) {
			schema := schemaOf(t, s.typ)
			rec := s.value
			for range 2000 {
				got := s.append(c, nil, rec)
				want, err := hamba.Marshal(schema, asMap(t, schema, rec))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got[singleObjectHeader:], want) {
					t.Fatalf("body differs from hamba's\ngot  %x\nwant %x", got[singleObjectHeader:], want)
				}
				back := s.empty()
				if err := s.decode(c, got, back); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(back, rec) {
					t.Fatalf("round trip\ngot  %+v\nwant %+v", back, rec)
				}
				rec = s.empty()
				randomize(rnd, rec)
			}
		})
	}
}

func TestGoldenBytes(t *testing.T) {
	c := NewCodec()
	for _, s := range samples() {
		file := filepath.Join("testdata", strings.TrimSuffix(currentFile(s.typ), ".avsc")+".hex")
		got := s.append(c, nil, s.value)
		want, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if hex.EncodeToString(got) != strings.TrimSpace(string(want)) {
			t.Errorf("%s: got  %x\nwant %s", file, got, want)
		}
	}
}

// Every golden file, of whatever version, stays readable.
func TestGoldenFilesStayReadable(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.hex"))
	if err != nil || len(files) < int(numTypes)-1 {
		t.Fatalf("golden files: %v, %v", files, err)
	}
	c := NewCodec()
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		value, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range samples() {
			if strings.HasPrefix(filepath.Base(f), strings.Split(currentFile(s.typ), ".")[0]+".") {
				if err := s.decode(c, value, s.empty()); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
		}
	}
}

// A writer of another version, with a field less and a field more, is resolved
// to the current one.
func TestReadsOtherVersions(t *testing.T) {
	text, err := avro.Files.ReadFile(currentFile(TypeRaw))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	fields := schema["fields"].([]any)
	other := []any{map[string]any{"name": "shard_hint", "type": "long", "default": 0}}
	for _, f := range fields {
		if f.(map[string]any)["name"] != "quantity" {
			other = append(other, f)
		}
	}
	schema["fields"] = other
	otherText, err := json.Marshal(schema)
	if err != nil {
		t.Fatal(err)
	}
	s, err := hamba.ParseWithCache(string(otherText), "", &hamba.SchemaCache{})
	if err != nil {
		t.Fatal(err)
	}
	m := asMap(t, schemaOf(t, TypeRaw), sampleRaw())
	delete(m, "quantity")
	m["shard_hint"] = int64(9)
	body, err := hamba.Marshal(s, m)
	if err != nil {
		t.Fatal(err)
	}

	c := NewCodec()
	if err := c.versions.load(); err != nil {
		t.Fatal(err)
	}
	fp, err := c.versions.add(string(otherText))
	if err != nil {
		t.Fatal(err)
	}
	value := append(binary.LittleEndian.AppendUint64([]byte{0xC3, 0x01}, fp), body...)
	if typ, err := c.Type(value); typ != TypeRaw || err != nil {
		t.Errorf("Type = %v, %v", typ, err)
	}
	var got RawEvent
	if err := c.DecodeRaw(value, &got); err != nil {
		t.Fatal(err)
	}
	want := sampleRaw()
	want.Quantity = 1 // the schema's default
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeErrors(t *testing.T) {
	c := NewCodec()
	raw := c.AppendRaw(nil, sampleRaw())
	flipped := bytes.Clone(raw)
	flipped[5] ^= 0xFF
	negative := append(bytes.Clone(c.header[TypeRaw]), 0x01)
	endless := append(bytes.Clone(c.header[TypeRaw]), bytes.Repeat([]byte{0xFF}, 11)...)
	huge := append(bytes.Clone(c.header[TypeRaw]), binary.AppendVarint(nil, math.MaxInt64)...)
	for _, tc := range []struct {
		name  string
		value []byte
		want  error
	}{
		{"empty", nil, ErrHeader},
		{"short header", raw[:9], ErrHeader},
		{"json", []byte(`{"type":"track"}`), ErrHeader},
		{"unknown fingerprint", flipped, ErrSchema},
		{"registry id without registry", []byte{0, 0, 0, 0, 7, 1}, ErrSchema},
		{"other type", c.AppendControl(nil, sampleControl()), ErrType},
		{"truncated", raw[:len(raw)-1], errTruncated},
		{"trailing", append(bytes.Clone(raw), 0), errTrailing},
		{"negative length", negative, errLength},
		{"endless varint", endless, errVarint},
		{"length beyond the value", huge, errTruncated},
		{"too large", make([]byte, MaxValueBytes+1), ErrSize},
	} {
		var e RawEvent
		if err := c.DecodeRaw(tc.value, &e); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, err, tc.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	c := NewCodec()
	for _, s := range samples() {
		f.Add(s.append(c, nil, s.value))
	}
	schemas := map[Type]hamba.Schema{}
	for _, s := range samples() {
		schemas[s.typ] = schemaOf(f, s.typ)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, s := range samples() {
			rec := s.empty()
			if err := s.decode(c, value, rec); err != nil {
				continue
			}
			// What we read, hamba reads the same. Bodies of older versions went
			// through hamba already, and their header is another schema's.
			if w, _, err := c.writer(value); err != nil || !w.current {
				continue
			}
			var got map[string]any
			if err := hamba.Unmarshal(schemas[s.typ], value[singleObjectHeader:], &got); err != nil {
				t.Fatalf("hamba refuses what we read: %v", err)
			}
			if want := asMap(t, schemas[s.typ], rec); !reflect.DeepEqual(got, want) {
				t.Fatalf("hamba reads another record\ngot  %+v\nwant %+v", got, want)
			}
		}
	})
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	c := NewCodec()
	raw, enriched := c.AppendRaw(nil, sampleRaw()), c.AppendEnriched(nil, sampleEnriched())
	var r RawEvent
	var e EnrichedEvent
	allocs := testing.AllocsPerRun(100, func() {
		if err := errors.Join(c.DecodeRaw(raw, &r), c.DecodeEnriched(enriched, &e)); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("got %v allocations, want 0", allocs)
	}
}

func BenchmarkAppendRaw(b *testing.B) {
	c, e := NewCodec(), sampleRaw()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = c.AppendRaw(buf[:0], e)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkAppendEnriched(b *testing.B) {
	c, e := NewCodec(), sampleEnriched()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = c.AppendEnriched(buf[:0], e)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkDecodeRaw(b *testing.B) {
	c := NewCodec()
	value := c.AppendRaw(nil, sampleRaw())
	var e RawEvent
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		if err := c.DecodeRaw(value, &e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeEnriched(b *testing.B) {
	c := NewCodec()
	value := c.AppendEnriched(nil, sampleEnriched())
	var e EnrichedEvent
	b.ReportAllocs()
	b.SetBytes(int64(len(value)))
	for b.Loop() {
		if err := c.DecodeEnriched(value, &e); err != nil {
			b.Fatal(err)
		}
	}
}
