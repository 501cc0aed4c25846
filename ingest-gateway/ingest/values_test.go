package ingest_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/schemas/event"
)

func TestNewID(t *testing.T) {
	b := ingest.NewBatch(event.NewCodec(), nil, ingest.DefaultLimits())
	r := ingest.Request{ReceivedAt: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC).UnixMicro()}
	b.Begin(&r, &ingest.Bound{Protocol: "p"})
	seen := map[string]bool{}
	last := ""
	for range 10_000 {
		id := b.NewID()
		if id <= last { // changes of a trait rely on it
			t.Fatalf("%s comes after %s", id, last)
		}
		last = strings.Clone(id)
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
