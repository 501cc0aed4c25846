package ingest_test

import (
	"encoding/json"
	"math"
	"net/netip"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
)

func TestParseTime(t *testing.T) {
	for in, want := range map[string]string{
		"2026-11-21T10:11:12Z":                  "2026-11-21T10:11:12Z",
		"2026-11-21T10:11:12.345Z":              "2026-11-21T10:11:12.345Z",
		"2026-11-21T10:11:12.345678901Z":        "2026-11-21T10:11:12.345678Z",
		"2026-11-21T10:11:12,5+02:00":           "2026-11-21T08:11:12.5Z",
		"2026-11-21t10:11:12z":                  "2026-11-21T10:11:12Z",
		"2026-11-21 10:11:12-0530":              "2026-11-21T15:41:12Z",
		"2026-11-21T10:11:12+14":                "2026-11-20T20:11:12Z",
		"2026-11-21T10:11":                      "2026-11-21T10:11:00Z",
		"2026-11-21T10:11Z":                     "2026-11-21T10:11:00Z",
		"2026-11-21":                            "2026-11-21T00:00:00Z",
		"2024-02-29T23:59:60Z":                  "2024-03-01T00:00:00Z",
		"0001-01-01T00:00:00Z":                  "0001-01-01T00:00:00Z",
		"1969-12-31T23:59:59.999999Z":           "1969-12-31T23:59:59.999999Z",
		"2000-02-29":                            "2000-02-29T00:00:00Z",
		"2026-03-29T02:30:00.000000000000+0100": "2026-03-29T01:30:00Z",
	} {
		w, err := time.Parse(time.RFC3339Nano, want)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := ingest.ParseTime(in)
		if !ok || got != w.UnixMicro() {
			t.Errorf("%s: got %s, %v, want %s", in, event.ToTime(got), ok, want)
		}
	}
	if got, ok := ingest.ParseTime("1970-01-01T00:00:00Z"); !ok || got != event.FromTime(time.Unix(0, 0)) {
		t.Errorf("the epoch: got %d, %v", got, ok)
	}
	for _, in := range []string{
		"", "2026", "yesterday", "2026-13-01", "2026-00-10", "2026-02-29", "1900-02-29", "2026-11-31", "2026-11-21T", "2026-11-21T24:00:00Z",
		"2026-11-21T10:60:00Z", "2026-11-21T10:11:61Z", "2026-11-21T10:11:12.Z", "2026-11-21T10:11:12+25:00", "2026-11-21T10:11:12+1",
		"2026-11-21T10:11:12+01:0", "2026-11-21T10:11:12+01:00:00", "2026-11-21T10:11:12ZZ", "2026-11-21T10:1", "2026/11/21", "+2026-11-21",
		"20261121T101112Z", "2026-11-21T10:11:12 Z", "2026-1१-21",
	} {
		if got, ok := ingest.ParseTime(in); ok {
			t.Errorf("%q gives %s", in, event.ToTime(got))
		}
	}
}

var rfc3339 = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`)

// Every text that time.Parse reads as RFC 3339 is read alike.
func FuzzParseTime(f *testing.F) {
	f.Add("2026-11-21T10:11:12.345+02:00")
	f.Add("2026-11-21 10:11:12Z")
	f.Fuzz(func(t *testing.T, in string) {
		got, ok := ingest.ParseTime(in)
		want, err := time.Parse(time.RFC3339Nano, in)
		if err != nil {
			return
		}
		// time.Parse takes more than RFC 3339 has: hours of one digit, minutes of
		// an offset up to 60.
		if !ok && rfc3339.MatchString(in) {
			t.Fatalf("%q is not read, time.Parse says %s", in, want)
		}
		if w := want.Truncate(time.Microsecond).UnixMicro(); ok && got != w && w != 0 {
			t.Fatalf("%q: got %s, want %s", in, event.ToTime(got), want)
		}
	})
}

func TestEpochNumbers(t *testing.T) {
	want := time.Date(2026, 11, 21, 10, 11, 12, 345_000_000, time.UTC)
	if got, ok := ingest.FromMillis(float64(want.UnixMilli())); !ok || got != want.UnixMicro() {
		t.Errorf("got %d, %v", got, ok)
	}
	if got, ok := ingest.FromSeconds(float64(want.UnixMilli()) / 1000); !ok || got != want.UnixMicro() {
		t.Errorf("got %d, %v", got, ok)
	}
	for _, ms := range []float64{math.NaN(), math.Inf(1), math.Inf(-1), 1e18, -1e18} {
		if got, ok := ingest.FromMillis(ms); ok {
			t.Errorf("%v gives %d", ms, got)
		}
	}
}

func TestNewID(t *testing.T) {
	b := ingest.NewBatch(event.NewCodec(), nil, ingest.DefaultLimits())
	r := ingest.Request{ReceivedAt: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC).UnixMicro()}
	b.Begin(&r, "p", ingest.Fields{})
	seen := map[string]bool{}
	for range 1000 {
		id := b.NewID()
		u, err := uuid.Parse(id)
		if err != nil || u.Version() != 7 || u.Variant() != uuid.RFC4122 || seen[id] {
			t.Fatalf("%s: %v, version %d", id, err, u.Version())
		}
		if sec, _ := u.Time().UnixTime(); sec != r.ReceivedAt/1e6 {
			t.Fatalf("%s is of %d, want %d", id, sec, r.ReceivedAt/1e6)
		}
		seen[id] = true
	}
	for id := range seen { // made before the arena grew
		if _, err := uuid.Parse(id); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIPModes(t *testing.T) {
	for _, tc := range []struct{ in, full, truncated string }{
		{"203.0.113.77", "203.0.113.77", "203.0.113.0"},
		{"::ffff:203.0.113.77", "203.0.113.77", "203.0.113.0"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "2001:db8:1::"},
		{"fe80::1%eth0", "fe80::1", "fe80::"},
		{"[2001:db8::1]:443", "2001:db8::1", "2001:db8::"},
		{" 203.0.113.77:8080 ", "203.0.113.77", "203.0.113.0"},
	} {
		addr, ok := ingest.ParseIP(tc.in)
		if !ok {
			t.Errorf("%s is not read", tc.in)
			continue
		}
		for mode, want := range map[ingest.IPMode]string{ingest.IPFull: tc.full, ingest.IPTruncated: tc.truncated} {
			if got := mode.Apply(addr); got.String() != want {
				t.Errorf("%s: got %s, want %s", tc.in, got, want)
			}
		}
		if got := ingest.IPNone.Apply(addr); got != (netip.Addr{}) {
			t.Errorf("%s: none gives %s", tc.in, got)
		}
	}
	for _, in := range []string{"", "unknown", "1.2.3", "1.2.3.4.5", strings.Repeat("1", 100)} {
		if got, ok := ingest.ParseIP(in); ok {
			t.Errorf("%q gives %s", in, got)
		}
	}
}

func FuzzQuotedAndShorten(f *testing.F) {
	f.Add("plain \" \\ \n \x00 \u2028 \xff é", 5)
	f.Add("ЏޕЬ̑滟˞Ϙឋˠ", 19) // amid a character, behind another of two bytes
	f.Fuzz(func(t *testing.T, s string, n int) {
		var back string
		if err := json.Unmarshal(ingest.AppendQuoted(nil, s), &back); err != nil || back != strings.ToValidUTF8(s, "\uFFFD") && utf8.ValidString(s) {
			t.Fatalf("%q became %q, %v", s, back, err)
		}
		if n < 0 || n > 1000 {
			return
		}
		if got := ingest.Shorten(s, n); !utf8.ValidString(got) || (utf8.ValidString(s) && (len(got) > n || !strings.HasPrefix(s, got) || len(s) > n && len(got) < n-3)) {
			t.Fatalf("%q cut to %d is %q", s, n, got)
		}
	})
}

func TestRouterRefusesBadRoutes(t *testing.T) {
	ok := ingest.Route{Method: "POST", Path: "/x", Decode: func(*ingest.Request, *ingest.Batch) error { return nil }, Answer: func(*ingest.Request, *ingest.Batch, *ingest.Fault, *ingest.Reply) {}}
	change := func(f func(*ingest.Route)) routes { r := ok; f(&r); return routes{r} }
	for want, p := range map[string]routes{
		"":                   {ok},
		"upper case":         change(func(r *ingest.Route) { r.Method = "post" }),
		"start with a slash": change(func(r *ingest.Route) { r.Path = "x" }),
		"not end with one":   change(func(r *ingest.Route) { r.Path = "/x/" }),
		"Decode and Answer":  change(func(r *ingest.Route) { r.Decode = nil }),
		"in braces":          change(func(r *ingest.Route) { r.Path = "/{a}/{b}/{c}/{d}/{e}" }),
	} {
		_, err := ingest.NewRouter(p)
		if (err == nil) != (want == "") || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := ingest.NewRouter(routes{ok}, routes{ok}); err == nil {
		t.Error("two protocols of one name are no error")
	}
}

type routes []ingest.Route

func (routes) Name() string             { return "routes" }
func (routes) Fields() ingest.Fields    { return ingest.Fields{} }
func (r routes) Routes() []ingest.Route { return r }

func TestLimitsValidate(t *testing.T) {
	if err := ingest.DefaultLimits().Validate(); err != nil {
		t.Error(err)
	}
	err := ingest.Limits{}.Validate()
	for _, name := range []string{
		ingest.SettingMaxCompressedBytes, ingest.SettingMaxBodyBytes, ingest.SettingMaxImportBytes, ingest.SettingMaxBatchEvents, ingest.SettingMaxEventBytes,
		ingest.SettingMaxIDBytes, ingest.SettingMaxNameBytes, ingest.SettingMaxDepth, ingest.SettingMaxQuantity,
	} {
		if err == nil || !strings.Contains(err.Error(), name+" must be") {
			t.Errorf("%s is not named in %v", name, err)
		}
	}
}
