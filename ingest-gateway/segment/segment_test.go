package segment

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/schemas/event"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var basic = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(ingesttest.Key+":"))

func micros(s string) event.Micros {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		panic(err)
	}
	return event.FromTime(t)
}

// want completes an event with what every event of the test gateway has.
func want(e event.RawEvent) event.RawEvent {
	e.AppID, e.Protocol, e.ReceivedAt = "test", "segment", event.FromTime(ingesttest.ReceivedAt)
	if e.Quantity == 0 {
		e.Quantity = 1
	}
	if e.IP == "" {
		e.IP = "203.0.113.77"
	}
	if e.UserAgent == "" {
		e.UserAgent = "ingesttest/1"
	}
	return e
}

func TestCallsBecomeEvents(t *testing.T) {
	for _, tc := range []struct {
		name, path, body string
		app              ingest.App
		want             event.RawEvent
	}{
		{
			name: "track", path: "/v1/track",
			body: `{"event":"Item Scanned","userId":"u1","anonymousId":"a1","messageId":"m1","timestamp":"2026-11-21T12:00:00+02:00","sentAt":"2026-11-21T10:00:01Z",
			 "properties": {"a.b":1.50, "x":[ 1 ]}, "context":{"groupId":"acc1","library":{"name":"lib","version":"1.2"},"userAgent":"Mozilla","ip":"2001:db8::1"},"integrations":{"All":true}}`,
			want: event.RawEvent{
				Kind: "track", Event: "Item Scanned", MessageID: "m1", UserID: "u1", AnonymousID: "a1", AccountID: "acc1",
				Timestamp: micros("2026-11-21T10:00:00Z"), SentAt: micros("2026-11-21T10:00:01Z"),
				Properties: []byte(`{"a.b":1.50, "x":[ 1 ]}`), Library: "lib/1.2", UserAgent: "Mozilla", IP: "2001:db8::1",
				Context: []byte(`{"groupId":"acc1","library":{"name":"lib","version":"1.2"},"userAgent":"Mozilla","ip":"2001:db8::1"}`),
			},
		},
		{
			name: "numbers as ids, escapes in names, nulls", path: "/v1/t",
			body: `{"event":"Caf\u00e9 \"x\"","userId":48213,"anonymousId":null,"messageId":"m1","properties":null,"context":null,"timestamp":null}`,
			want: event.RawEvent{Kind: "track", Event: `Café "x"`, MessageID: "m1", UserID: "48213"},
		},
		{
			name: "originalTimestamp goes before what a collector made of it", path: "/v1/track/",
			body: `{"event":"e","userId":"u","messageId":"m1","timestamp":"2026-01-01T00:00:00Z","originalTimestamp":"2025-12-31T23:59:59.5Z","receivedAt":"2026-01-01T00:00:01Z"}`,
			want: event.RawEvent{Kind: "track", Event: "e", MessageID: "m1", UserID: "u", Timestamp: micros("2025-12-31T23:59:59.5Z")},
		},
		{
			name: "the caller's timestamp goes before the SDK's originalTimestamp", path: "/v1/track/",
			body: `{"event":"e","userId":"u","messageId":"m1","timestamp":"2025-01-01T00:00:00Z","originalTimestamp":"2026-01-01T00:00:00Z"}`,
			want: event.RawEvent{Kind: "track", Event: "e", MessageID: "m1", UserID: "u", Timestamp: micros("2025-01-01T00:00:00Z")},
		},
		{
			name: "identify", path: "/segment/v1/identify",
			body: `{"userId":"u","messageId":"m1","traits":{"plan":"pro"},"event":"no event of an identify"}`,
			want: event.RawEvent{Kind: "identify", MessageID: "m1", UserID: "u", Traits: []byte(`{"plan":"pro"}`)},
		},
		{
			name: "identify with traits where RudderStack puts them", path: "/v1/i",
			body: `{"userId":"u","messageId":"m1","context":{"traits":{"plan":"pro"}}}`,
			want: event.RawEvent{Kind: "identify", MessageID: "m1", UserID: "u", Traits: []byte(`{"plan":"pro"}`), Context: []byte(`{"traits":{"plan":"pro"}}`)},
		},
		{
			name: "group", path: "/v1/group",
			body: `{"userId":"u","groupId":"acc1","messageId":"m1","traits":{"name":"A"},"context":{"groupId":"other"}}`,
			want: event.RawEvent{Kind: "group", MessageID: "m1", UserID: "u", AccountID: "acc1", Traits: []byte(`{"name":"A"}`), Context: []byte(`{"groupId":"other"}`)},
		},
		{
			name: "page of a server, with a category", path: "/v1/page",
			body: `{"userId":"u","name":"Pricing","category":"Docs","messageId":"m1","properties":{"path":"/p"}}`,
			want: event.RawEvent{Kind: "page", Event: "Pricing", MessageID: "m1", UserID: "u", Properties: []byte(`{"category":"Docs","path":"/p"}`)},
		},
		{
			name: "page of a browser, with a category", path: "/v1/p",
			body: `{"anonymousId":"a","name":"Pricing","category":"Docs","messageId":"m1","properties":{"category":"Docs","name":"Pricing"}}`,
			want: event.RawEvent{Kind: "page", Event: "Pricing", MessageID: "m1", AnonymousID: "a", Properties: []byte(`{"category":"Docs","name":"Pricing"}`)},
		},
		{
			name: "screen without a name", path: "/v1/screen",
			body: `{"anonymousId":"a","messageId":"m1"}`,
			want: event.RawEvent{Kind: "screen", MessageID: "m1", AnonymousID: "a"},
		},
		{
			name: "alias", path: "/v1/alias",
			body: `{"previousId":"a","userId":"u","messageId":"m1"}`,
			want: event.RawEvent{Kind: "alias", MessageID: "m1", UserID: "u", PreviousID: "a"},
		},
		{
			name: "metric of an account", path: "/v1/metric",
			body: `{"event":"Seats Used","groupId":"acme","messageId":"m1","properties":{"value":"10,000","period":"2026-11-20"}}`,
			want: event.RawEvent{Kind: "metric", Event: "Seats Used", MessageID: "m1", AccountID: "acme", Properties: []byte(`{"value":"10,000","period":"2026-11-20"}`)},
		},
		{
			name: "an account alone", path: "/v1/track",
			body: `{"event":"e","messageId":"m1","context":{"groupId":7}}`,
			want: event.RawEvent{Kind: "track", Event: "e", MessageID: "m1", AccountID: "7", Context: []byte(`{"groupId":7}`)},
		},
		{
			name: "account by a configured property", path: "/v1/track", app: ingest.App{AccountKeys: []string{"org", "company.id"}},
			body: `{"event":"e","userId":"u","messageId":"m1","properties":{"company":{"name":"x","id":"acc9"}}}`,
			want: event.RawEvent{Kind: "track", Event: "e", UserID: "u", MessageID: "m1", AccountID: "acc9", Properties: []byte(`{"company":{"name":"x","id":"acc9"}}`)},
		},
		{
			name: "account by a trait, first name first", path: "/v1/identify", app: ingest.App{AccountKeys: []string{"org", "company.id"}},
			body: `{"userId":"u","messageId":"m1","traits":{"company.id":"acc9","org":12}}`,
			want: event.RawEvent{Kind: "identify", UserID: "u", MessageID: "m1", AccountID: "12", Traits: []byte(`{"company.id":"acc9","org":12}`)},
		},
		{
			name: "a property called quantity counts items, not events", path: "/v1/track",
			body: `{"event":"e","userId":"u","messageId":"m1","properties":{"quantity":12}}`,
			want: event.RawEvent{Kind: "track", Event: "e", UserID: "u", MessageID: "m1", Properties: []byte(`{"quantity":12}`)},
		},
		{
			name: "quantity in context", path: "/v1/track",
			body: `{"event":"e","userId":"u","messageId":"m1","context":{"quantity":12}}`,
			want: event.RawEvent{Kind: "track", Event: "e", UserID: "u", MessageID: "m1", Quantity: 12, Context: []byte(`{"quantity":12}`)},
		},
		{
			name: "quantity in a configured property", path: "/v1/track", app: ingest.App{QuantityKey: "count"},
			body: `{"event":"e","userId":"u","messageId":"m1","properties":{"count":3}}`,
			want: event.RawEvent{Kind: "track", Event: "e", UserID: "u", MessageID: "m1", Quantity: 3, Properties: []byte(`{"count":3}`)},
		},
		{
			name: "address truncated everywhere", path: "/v1/track", app: ingest.App{IPMode: ingest.IPTruncated},
			body: `{"event":"e","userId":"u","messageId":"m1","context":{"ip":"198.51.100.23","x":1}}`,
			want: event.RawEvent{Kind: "track", Event: "e", UserID: "u", MessageID: "m1", IP: "198.51.100.0", Context: []byte(`{"ip":"198.51.100.0" ,"x":1}`)},
		},
		{
			name: "half a surrogate pair is kept", path: "/v1/track",
			body: `{"event":"e","userId":"u","messageId":"m1","properties":{"t":"\ud83d"}}`,
			want: event.RawEvent{Kind: "track", Event: "e", UserID: "u", MessageID: "m1", Properties: []byte(`{"t":"\ud83d"}`)},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := ingesttest.New(t, New())
			if tc.app.IPMode == ingest.IPNone {
				tc.app.IPMode = ingest.IPFull
			}
			tc.app.ID = "test"
			g.App = &tc.app
			res := g.Do("POST", tc.path, []byte(tc.body), basic)
			if res.Status != 200 || res.Body != `{"success":true}` || len(res.Events) != 1 {
				t.Fatalf("got %d %s, %d events", res.Status, res.Body, len(res.Events))
			}
			if got, want := res.Events[0], want(tc.want); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %s\nwant %s", show(got), show(want))
			}
		})
	}
}

func show(e event.RawEvent) string {
	return fmt.Sprintf("%+v props=%s traits=%s context=%s", e, e.Properties, e.Traits, e.Context)
}

func TestNoAddressIsKept(t *testing.T) {
	g := ingesttest.New(t, New())
	g.App.IPMode = ingest.IPNone
	res := g.Do("POST", "/v1/track", []byte(`{"event":"e","userId":"u","context":{"ip":"198.51.100.23"}}`), basic)
	if got := string(res.Events[0].Context); got != `{"ip":null           }` || res.Events[0].IP != "" {
		t.Errorf("got %s and %q", got, res.Events[0].IP)
	}
	res = g.Do("POST", "/v1/track", []byte(`{"event":5,"type":[],"userId":[],"context":{"ip":"198.51.100.23"}}`), basic)
	if len(res.Rejected) != 1 || strings.Contains(string(res.Rejected[0].Original), "198.51") {
		t.Errorf("got %s", res.Rejected[0].Original)
	}
}

// A batch's own fields hold for its messages wherever in the body they stand.
func TestBatchFieldsMerge(t *testing.T) {
	g := ingesttest.New(t, New())
	before := `"sentAt":"2026-03-04T05:06:07Z","context":{"library":{"name":"go","version":"3"},"groupId":"acc1","app":{"v":"1"}},"writeKey":"test-write-key","messageId":"of the batch"`
	batch := `"batch":[
	  {"type":"track","event":"a","userId":"u","messageId":"1"},
	  {"type":"track","event":"b","userId":"u","messageId":"2","context":{},"sentAt":"2001-01-01"},
	  {"type":"track","event":"c","userId":"u","messageId":"3","context":{"groupId":"acc2","app":null}}]`
	for _, body := range []string{"{" + before + "," + batch + "}", "{" + batch + "," + before + "}"} {
		res := g.Do("POST", "/v1/batch", []byte(body))
		if res.Status != 200 || len(res.Events) != 3 {
			t.Fatalf("got %d %s", res.Status, res.Body)
		}
		var got []string
		for _, e := range res.Events {
			if e.SentAt != micros("2026-03-04T05:06:07Z") || e.Library != "go/3" {
				t.Errorf("got sent at %d, library %q", e.SentAt, e.Library)
			}
			got = append(got, e.AccountID+" "+string(e.Context))
		}
		whole := `{"library":{"name":"go","version":"3"},"groupId":"acc1","app":{"v":"1"}}`
		want := []string{"acc1 " + whole, "acc1 " + whole, `acc2 {"groupId":"acc2","app":null,"library":{"name":"go","version":"3"}}`}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// What a batch shares is in each of its records: a small body must not become
// large ones.
// TestImportRoute tells live events on the route for imports, where Segment's SDKs for
// Java and Android send all, from history.
func TestImportRoute(t *testing.T) {
	const message = `{"type":"track","event":"e","userId":"u","messageId":"m","timestamp":"soon"}`
	for _, tc := range []struct {
		name, body, header string
		live               bool
	}{
		{"an SDK's batch", `{"batch":[` + message + `],"sentAt":"2026-03-04T05:06:07Z"}`, "X: y", true},
		{"an archive's messages", `{"batch":[` + strings.Replace(message, "soon", `soon","sentAt":"2020-01-01T00:00:00Z`, 1) + `]}`, "X: y", false},
		{"one that says that it is history", `{"batch":[` + message + `],"sentAt":"2026-03-04T05:06:07Z"}`, ingest.HistoryHeader + ": yes", false},
	} {
		res := ingesttest.New(t, New()).Do("POST", "/v1/import", []byte(tc.body), basic, tc.header)
		switch {
		case tc.live && (len(res.Events) != 1 || res.Events[0].IP == "" || res.Events[0].SentAt == 0 || len(res.Events[0].Unread) == 0):
			t.Errorf("%s: got %+v %+v, want a live event", tc.name, res.Events, res.Rejected)
		case !tc.live && (len(res.Rejected) != 1 || res.Rejected[0].Code != ingest.CodeBadTimestamp):
			t.Errorf("%s: got %+v %+v, want it rejected", tc.name, res.Events, res.Rejected)
		}
	}
}

// TestHistoryOfAnyAge holds that events of any age take a key that may send them.
func TestHistoryOfAnyAge(t *testing.T) {
	for _, may := range []bool{false, true} {
		g := ingesttest.New(t, New())
		g.App.Key.History = may
		for _, path := range []string{"/v1/track", "/v1/import"} {
			body := `{"type":"track","event":"e","userId":"u","timestamp":"1971-01-01T00:00:00Z"}`
			if path == "/v1/import" {
				body = `{"batch":[` + body + `]}`
			}
			res := g.Do("POST", path, []byte(body), basic, ingest.HistoryHeader+": "+ingest.HistoryAnyAge)
			switch {
			case may && (len(res.Events) != 1 || res.Events[0].TimeNotes != event.TimeAnyAge):
				t.Errorf("%s: got %d %s, %+v, want an event of any age", path, res.Status, res.Body, res.Events)
			case !may && (res.Status != 403 || len(res.Events) != 0):
				t.Errorf("%s: got %d %s with %d events, want 403", path, res.Status, res.Body, len(res.Events))
			}
			if res := g.Do("POST", path, []byte(body), basic, ingest.HistoryHeader+": yes"); len(res.Events) != 1 || res.Events[0].TimeNotes != 0 {
				t.Errorf("%s: history within the bound: got %d %s, %+v", path, res.Status, res.Body, res.Events)
			}
		}
	}
}

// TestEmptyMaps reads what PHP writes of an empty map, and "", as an object without
// fields, and other arrays and texts as faults.
func TestEmptyMaps(t *testing.T) {
	for _, field := range []string{"properties", "traits", "context"} {
		for value, taken := range map[string]bool{`[]`: true, `[ ]`: true, `""`: true, `null`: true, `{}`: true, `[1]`: false, `"a"`: false, `[{}]`: false, `0`: false} {
			body := fmt.Sprintf(`{"batch":[{"type":"identify","userId":"u",%q:%s}]}`, field, value)
			res := ingesttest.New(t, New()).Do("POST", "/v1/batch", []byte(body), basic)
			if got := len(res.Events) == 1 && len(res.Rejected) == 0; got != taken {
				t.Errorf("%s: got %d events, %d rejected", body, len(res.Events), len(res.Rejected))
			}
		}
	}
}

func TestSharedContextIsBounded(t *testing.T) {
	g := ingesttest.New(t, New())
	batch := func(context string, n int) ingesttest.Result {
		events := strings.Repeat(`{"type":"track","event":"e","userId":"u","context":{"own":1}},`, n)
		return g.Do("POST", "/v1/batch", []byte(`{"context":`+context+`,"batch":[`+strings.TrimSuffix(events, ",")+`]}`), basic)
	}
	big := `{"a\u0062":"` + strings.Repeat("x", 60<<10) + `"}`
	if res := batch(big, 3); res.Status != 200 || len(res.Events) != 3 || !strings.HasPrefix(string(res.Events[2].Context), `{"own":1,"ab":"xxx`) {
		t.Errorf("got %d %s", res.Status, res.Body)
	}
	if res := batch(big, 5000); res.Status != 413 || !strings.Contains(res.Body, ingest.SettingMaxBodyBytes) || len(res.Events) != 0 {
		t.Errorf("got %d %s", res.Status, res.Body)
	}
	if res := batch(`{"a":"`+strings.Repeat("x", 70<<10)+`"}`, 1); res.Status != 413 || !strings.Contains(res.Body, "context of the batch") {
		t.Errorf("got %d %s", res.Status, res.Body)
	}
}

// golden compares replies with a file; -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("reply differs from %s:\n%s", path, got)
	}
}

func dump(res ingesttest.Result) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%d %s\n%s\n", res.Status, res.Header.Get("Content-Type"), res.Body)
	for _, e := range res.Events {
		fmt.Fprintf(&s, "event %s %q of %q\n", e.Kind, e.Event, e.UserID)
	}
	for _, r := range res.Rejected {
		fmt.Fprintf(&s, "rejected %s %q %q %s\n  %s\n", r.Code, r.Field, r.Detail, r.MessageID, ingest.Shorten(string(r.Original), 200))
	}
	return uuids.ReplaceAllString(s.String(), "(uuid)")
}

var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}`)

func TestGoldenReplies(t *testing.T) {
	bad := []string{
		`{"type":"track","event":"ok","userId":"u0","messageId":"m0"}`,
		`{"type":"track","userId":"u","messageId":"m1"}`,
		`{"type":"track","event":"no ids","messageId":"m2"}`,
		`{"type":"fly","userId":"u","messageId":"m3"}`,
		`{"userId":"u","messageId":"m4"}`,
		`"text"`,
		`{"type":"track","event":"e","userId":"u","userId":"v","messageId":"m6"}`,
		`{"type":"track","event":"e","userId":{"id":1},"messageId":"m7"}`,
		`{"type":"track","event":"e","userId":"u","timestamp":"yesterday","messageId":"m8"}`,
		`{"type":"track","event":"e","userId":"u","timestamp":1764000000,"messageId":"m9"}`,
		`{"type":"track","event":"e","userId":"u","properties":[1],"messageId":"m10"}`,
		`{"type":"track","event":"e","userId":"u","context":{"quantity":0},"messageId":"m11"}`,
		`{"type":"track","event":"e","userId":"u","context":{"quantity":"2"},"messageId":"m12"}`,
		`{"type":"group","userId":"u","messageId":"m13"}`,
		`{"type":"alias","userId":"u","messageId":"m14"}`,
		`{"type":"alias","userId":"u","previousId":"u","messageId":"m15"}`,
		`{"type":"track","event":"e","userId":"` + strings.Repeat("x", 300) + `","messageId":"m16"}`,
		"{\"type\":\"track\",\"event\":\"\xff\",\"userId\":\"u\",\"messageId\":\"m17\"}",
		`{"type":"track","event":"e","userId":"u","messageId":"m18","properties":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat(`}`, 40) + `}`,
		`{"type":"track","event":"e","userId":"u","messageId":"m19","properties":{"t":"` + strings.Repeat("x", 2000) + `"}}`,
		`{"type":"track","event":"E","userId":"u","messageId":"m20","UserId":"other case, other field"}`,
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprintf(z, `{"batch":[%s]}`, bad[0])
	z.Close()

	g := ingesttest.New(t, New())
	g.Limits.MaxEventBytes, g.Limits.MaxIDBytes = 1500, 256
	host := "Host: gw.example.com:8080"
	for _, tc := range []struct {
		name, method, target, body string
		header                     []string
	}{
		{"batch_mixed", "POST", "/v1/batch", `{"batch":[` + strings.Join(bad, ",") + `]}`, []string{basic}},
		{"single_bad", "POST", "/v1/track", `{"event":"","userId":"u","messageId":"m"}`, []string{basic}},
		{"batch_empty", "POST", "/v1/batch", `{"batch":[]}`, []string{basic}},
		{"key_in_query", "POST", "/beacon/v1/batch?writeKey=test%2Dwrite-key", `{"batch":[` + bad[0] + `]}`, nil},
		{"key_in_body", "POST", "/v1/import", `{"batch":[` + bad[0] + `],"writeKey":"test-write-key"}`, nil},
		{"gzip_as_form", "POST", "/v1/batch", zipped.String(), []string{basic, "Content-Type: application/x-www-form-urlencoded"}},
		{"no_key", "POST", "/v1/track", `{"event":"e","userId":"u"}`, nil},
		{"bad_key", "POST", "/v1/batch", `{"batch":[` + bad[0] + `],"writeKey":"other"}`, nil},
		{"cut_body", "POST", "/v1/batch", `{"batch":[` + bad[0], []string{basic}},
		{"empty_body", "POST", "/v1/batch", ``, []string{basic}},
		{"array_body", "POST", "/v1/track", `[` + bad[0] + `]`, []string{basic}},
		{"batch_no_array", "POST", "/v1/batch", `{"batch":{}}`, []string{basic}},
		{"batch_twice", "POST", "/v1/batch", `{"batch":[],"batch":[]}`, []string{basic}},
		{"batch_missing", "POST", "/v1/batch", `{"events":[]}`, []string{basic}},
		{"trailing", "POST", "/v1/track", `{"event":"e","userId":"u"} {}`, []string{basic}},
		{"bomb", "POST", "/v1/track", `{"a":` + strings.Repeat("[", 5000), []string{basic}},
		{"counters", "POST", "/v1/m", `{"series":[]}`, nil},
		{"settings", "GET", "/v1/projects/test-write-key/settings", ``, []string{host}},
		{"settings_prefixed", "GET", "/segment/v1/projects/test-write-key/settings/", ``, []string{host}},
		{"settings_bad_key", "GET", "/v1/projects/other/settings", ``, []string{host}},
		{"pixel", "GET", "/pixel/v1/page?writeKey=test-write-key&anonymousId=a+1&name=Home&context.page.path=%2Fx&properties.path=%2Fx", ``, nil},
		{"pixel_bad", "GET", "/pixel/v1/track?writeKey=test-write-key&a=1&a.b=2", ``, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res := g.Do(tc.method, tc.target, []byte(tc.body), tc.header...)
			golden(t, tc.name, dump(res))
			if res.Header.Get("Content-Type") == "" && !json.Valid([]byte(res.Body)) {
				t.Errorf("reply is no JSON: %s", res.Body)
			}
		})
	}
	for _, f := range []ingest.Fault{
		{Kind: ingest.Overloaded, Setting: "max-inflight-bytes", Detail: "too much in flight", RetryAfter: 1},
		{Kind: ingest.RateLimited, Setting: "apps.rate", Detail: "more than 5 events a second", RetryAfter: 2},
		{Kind: ingest.Unavailable, Detail: "the brokers did not ack", RetryAfter: 5},
	} {
		g.Fault = &f
		golden(t, "fault_"+f.Kind.String(), dump(g.Do("POST", "/v1/batch", []byte(`{"batch":[`+bad[0]+`]}`), basic)))
	}
	g.Fault, g.Unstored = nil, map[int]bool{1: true}
	golden(t, "partial", dump(g.Do("POST", "/v1/batch", []byte(`{"batch":[`+bad[0]+`,`+bad[20]+`,`+bad[3]+`]}`), basic)))
}

// The verdict of a generated id can be found again: it is in the reply.
func TestMessageIDOfRejected(t *testing.T) {
	g := ingesttest.New(t, New())
	res := g.Do("POST", "/v1/track", []byte(`{"event":"","userId":"u"}`), basic)
	if len(res.Rejected) != 1 || len(res.Rejected[0].MessageID) != 36 || !strings.Contains(res.Body, res.Rejected[0].MessageID) {
		t.Errorf("got %s and %+v", res.Body, res.Rejected)
	}
}

// FuzzBatch holds the decoder against encoding/json: what it takes as an event is
// one there too, and a body is unreadable exactly when it is none there.
func FuzzBatch(f *testing.F) {
	f.Add([]byte(`{"batch":[{"type":"track","event":"e","userId":"u","timestamp":"2026-01-01T00:00:00Z","properties":{"a":1}}],"context":{"x":1}}`))
	f.Add([]byte(`{"batch":[{"type":"page","name":"e","userId":1,"category":"c","context":{"ip":"1.2.3.4","library":{"name":"n"},"traits":{}}}],"context":{"ip":"::1","y":[]},"sentAt":"2026"}`))
	f.Add([]byte(`{"batch":[1,{},{"type":"alias","userId":"a","previousId":"a"},{"type":"group","groupId":"g","userId":"\ud83d"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		g := ingesttest.New(t, New())
		g.App = &ingest.App{ID: "test", IPMode: ingest.IPTruncated, AccountKeys: []string{"a.b"}, QuantityKey: "q"}
		valid := json.Valid(body)
		res := g.Do("POST", "/v1/batch", body, basic)
		switch res.Status {
		case http.StatusOK:
			// What does not start as JSON may be form data or base64 around it.
			if text := bytes.TrimSpace(body); !valid && text[0] == '{' {
				t.Fatalf("took %q", body)
			}
			if len(res.Events)+len(res.Rejected) > len(res.Verdicts) {
				t.Fatalf("%d events and %d rejected of %d", len(res.Events), len(res.Rejected), len(res.Verdicts))
			}
		case http.StatusBadRequest:
		default:
			t.Fatalf("got %d %s", res.Status, res.Body)
		}
		if !json.Valid([]byte(res.Body)) {
			t.Fatalf("reply is no JSON: %s", res.Body)
		}
	})
}

// sample is an event as a Node SDK sends it, 617 bytes.
const sample = `{"type":"track","event":"Item Scanned","userId":"user-48213","anonymousId":"6f1c2a3b-9d4e-4c56-8f70-1a2b3c4d5e6f","messageId":"node-next-1764000000000-7f3b2c1d-0a9b-4c8d-b7e6-f5a4b3c2d1e0","timestamp":"2026-11-21T10:11:12.345Z","properties":{"sku":"4006381333931","price":12.5,"currency":"EUR","aisle":"B 12","loyal":true,"basket":{"id":"b-991","items":14},"note":"weighed at till"},"context":{"groupId":"acct-311","library":{"name":"@segment/analytics-node","version":"3.1.0"},"page":{"path":"/checkout","title":"Checkout - MyPOS"},"locale":"de-DE"},"integrations":{},"_metadata":{"nodeVersion":"24.1.0","jsRuntime":"node"}}`

func benchmarkDecode(b *testing.B, n int) {
	body := []byte(sample)
	path := "/v1/track"
	if n > 1 {
		body = []byte(`{"batch":[` + strings.Repeat(sample+",", n-1) + sample + `],"sentAt":"2026-11-21T10:11:13.000Z"}`)
		path = "/v1/batch"
	}
	router, err := ingest.NewRouter(New())
	if err != nil {
		b.Fatal(err)
	}
	app := &ingest.App{ID: "test", IPMode: ingest.IPFull}
	batch := ingest.NewBatch(event.NewCodec(), authFunc(func(string) *ingest.App { return app }), ingest.DefaultLimits())
	var r ingest.Request
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	start := cpuTime()
	for b.Loop() {
		r.Reset()
		r.Method, r.Path, r.Query, r.Body, r.ReceivedAt = "POST", path, "writeKey=k", body, 1
		bound := router.Find(r.Method, r.Path, nil).Select(&r)
		batch.Begin(&r, &bound)
		if err := bound.Route.Decode(&r, batch); err != nil || batch.Count(ingest.Accepted) != n {
			b.Fatal(err, batch.Len())
		}
	}
	b.ReportMetric(float64(cpuTime()-start)/float64(b.N*n), "cpu-ns/event")
}

// cpuTime is what the process has used, which other processes of a busy machine
// do not inflate.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type authFunc func(string) *ingest.App

func (f authFunc) App(key string) *ingest.App { return f(key) }

func BenchmarkDecode1(b *testing.B)   { benchmarkDecode(b, 1) }
func BenchmarkDecode100(b *testing.B) { benchmarkDecode(b, 100) }
