package wiretest_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/uptakehq/uptake/ingest-gateway/amplitude"
	"github.com/uptakehq/uptake/ingest-gateway/cloudevents"
	"github.com/uptakehq/uptake/ingest-gateway/csb"
	"github.com/uptakehq/uptake/ingest-gateway/gainsightpx"
	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/ingest/ingesttest"
	"github.com/uptakehq/uptake/ingest-gateway/known"
	"github.com/uptakehq/uptake/ingest-gateway/mixpanel"
	"github.com/uptakehq/uptake/ingest-gateway/moesif"
	"github.com/uptakehq/uptake/ingest-gateway/otlp"
	"github.com/uptakehq/uptake/ingest-gateway/posthog"
	"github.com/uptakehq/uptake/ingest-gateway/segment"
)

// door is one way in: a route, how a caller shows its key, and what wraps events.
type door struct {
	protocol ingest.Protocol
	target   string
	header   string
	before   string // of the events
	after    string
	event    string
}

func doors() []door {
	const (
		bearer = "Authorization: Bearer " + ingesttest.Key
		key    = `"api_key":"` + ingesttest.Key + `"`
	)
	return []door{
		{segment.New(), "/v1/batch", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(ingesttest.Key+":")), `{"batch":[`, `]}`, `{"type":"track","event":"e","userId":"u","properties":P}`},
		{segment.New(), "/v1/track", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(ingesttest.Key+":")), ``, ``, `{"event":"e","userId":"u","properties":P}`},
		{posthog.Protocol{}, "/capture", "X: y", ``, ``, `{"api_key":"` + ingesttest.Key + `","event":"e","distinct_id":"u","properties":P}`},
		{mixpanel.Protocol{}, "/engage", "X: y", `[`, `]`, `{"$token":"` + ingesttest.Key + `","$distinct_id":"u","$set":P}`},
		{posthog.Protocol{}, "/batch", "X: y", `{` + key + `,"batch":[`, `]}`, `{"event":"e","distinct_id":"u","properties":P}`},
		{posthog.Protocol{}, "/i/v1/analytics/events", bearer, `{"batch":[`, `]}`, `{"event":"e","distinct_id":"u","properties":P}`},
		{mixpanel.Protocol{}, "/track", "X: y", `[`, `]`, `{"event":"e","properties":{"token":"` + ingesttest.Key + `","distinct_id":"u","p":P}}`},
		{mixpanel.Protocol{}, "/import", "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(ingesttest.Key+":")), `[`, `]`, `{"event":"e","properties":{"distinct_id":"u","p":P}}`},
		{amplitude.Protocol{}, "/2/httpapi", "X: y", `{` + key + `,"events":[`, `]}`, `{"event_type":"e","user_id":"u","event_properties":P}`},
		{moesif.Protocol{}, "/v1/actions/batch", "X-Moesif-Application-Id: " + ingesttest.Key, `[`, `]`, `{"action_name":"e","user_id":"u","metadata":P}`},
		{moesif.Protocol{}, "/v1/events/batch", "X-Moesif-Application-Id: " + ingesttest.Key, `[`, `]`, `{"request":{"uri":"/","verb":"GET"},"user_id":"u","metadata":P}`},
		{csb.Protocol{}, "/api/v1_1/feature", bearer, ``, ``, `{"account_id":"a","feature_id":"f","p":P}`},
		{gainsightpx.New(known.NewMemory(10)), "/v1/events/custom", "X-APTRINSIC-API-KEY: " + ingesttest.Key, ``, ``, `{"eventName":"e","identifyId":"u","attributes":P}`},
		{cloudevents.Protocol{}, "/", bearer, `[`, `]`, `{"specversion":"1.0","type":"e","subject":"a","data":P}`},
		{otlp.Protocol{}, "/v1/logs", bearer, `{"resourceLogs":[{"scopeLogs":[{"logRecords":[`, `]}]}]}`, `{"eventName":"e","attributes":[{"key":"user.id","value":{"stringValue":"u"}}],"p":P}`},
	}
}

func (d door) body(properties string) []byte {
	return []byte(d.before + strings.ReplaceAll(d.event, "P", properties) + d.after)
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestAbuse throws at every protocol what no SDK sends: each ends in a bounded,
// clear answer, and an event that is bad takes no other with it.
func TestAbuse(t *testing.T) {
	zeros := bytes.Repeat([]byte(" "), 64<<20)
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	zstdBomb, gzipBomb := enc.EncodeAll(zeros, nil), gzipped(t, zeros)
	for _, d := range doors() {
		t.Run(d.protocol.Name()+d.target, func(t *testing.T) {
			g := ingesttest.New(t, d.protocol)
			do := func(body []byte, more ...string) ingesttest.Result {
				t.Helper()
				return g.Do("POST", d.target, body, append([]string{d.header}, more...)...)
			}
			if res := do(d.body("{}")); res.Status >= 300 || len(res.Events) != 1 {
				t.Fatalf("a good event: got %d %s, %d events", res.Status, res.Body, len(res.Events))
			}
			for name, body := range map[string][]byte{
				"a zstd bomb": zstdBomb, "a gzip bomb": gzipBomb, "a body above the bound": zeros[:17<<20],
			} {
				res := do(body)
				if res.Status != 413 || res.Fault == nil || res.Fault.Setting != ingest.SettingMaxBodyBytes && res.Fault.Setting != ingest.SettingMaxImportBytes {
					t.Errorf("%s: got %d %s (%v), want 413 and the setting", name, res.Status, res.Body, res.Fault)
				}
			}
			for name, body := range map[string][]byte{
				"nothing": nil, "white space": []byte("  \n"), "rubbish": []byte("\x00\x01\x02rubbish"), "half a JSON": d.body("{}")[:len(d.body("{}"))-1],
				"wrong base64": []byte("data=@@@@"), "base64 of nothing": []byte("data="), "gzip of rubbish": gzipped(t, []byte("rubbish")),
				"a gzip that breaks off": gzipBomb[:100], "two bodies of another kind": []byte(`{"a":1}{"b":2}]`),
				"nested past all reason": []byte(strings.Repeat("[", 1<<20)),
			} {
				res := do(body)
				// No body at all may be an empty request to a protocol.
				if res.Status < 400 && len(body) > 0 || res.Status >= 500 || len(res.Events) > 0 {
					t.Errorf("%s: got %d %s, %d events, want 4xx and none", name, res.Status, res.Body, len(res.Events))
				}
			}
			// A bomb in base64 in form data, which only some protocols unwrap.
			wrapped := []byte("data=" + base64.StdEncoding.EncodeToString(gzipBomb))
			if res := do(wrapped); res.Status != 413 && res.Status != 400 && res.Status != 401 {
				t.Errorf("a bomb in a form: got %d %s", res.Status, res.Body)
			}
			// One event too deep, its neighbours not.
			deep := strings.Repeat(`{"a":`, 60) + "1" + strings.Repeat("}", 60)
			if d.before != "" {
				// With an insert id, without which Amplitude's good one waits for the next request.
				good := strings.Replace(strings.ReplaceAll(d.event, "P", "{}"), `{"event_type"`, `{"insert_id":"i","event_type"`, 1)
				two := []byte(d.before + strings.ReplaceAll(d.event, "P", deep) + "," + good + d.after)
				if res := do(two); len(res.Events) != 1 || len(res.Rejected) != 1 || res.Rejected[0].Code != ingest.CodeTooDeep {
					t.Errorf("a deep event and a good one: got %d %s, %d events, rejected %+v", res.Status, res.Body, len(res.Events), res.Rejected)
				}
				many := []byte(d.before + strings.Repeat("1,", g.Limits.MaxBatchEvents) + "1" + d.after)
				if res := do(many); res.Status != 413 || !strings.Contains(res.Body, ingest.SettingMaxBatchEvents) && len(res.Body) > 1 {
					t.Errorf("too many events: got %d %s", res.Status, res.Body)
				}
			}
		})
	}
}

// TestMixedEncodings wraps events in more and in other ways than any SDK: each
// ends in the event or in a clear 4xx, with nothing stored, and in bounded memory.
func TestMixedEncodings(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) }
	form := func(b []byte) []byte { return []byte("data=" + url.QueryEscape(string(b))) }
	utf16 := func(b []byte) []byte {
		wide := []byte{0xff, 0xfe}
		for _, c := range b {
			wide = append(wide, c, 0)
		}
		return wide
	}
	for _, d := range doors() {
		t.Run(d.protocol.Name()+d.target, func(t *testing.T) {
			plain := d.body("{}")
			g := ingesttest.New(t, d.protocol)
			for name, tc := range map[string]struct {
				body   []byte
				header string
			}{
				"gzip in gzip":                  {gzipped(t, gzipped(t, plain)), "X: y"},
				"zstd in gzip":                  {gzipped(t, enc.EncodeAll(plain, nil)), "X: y"},
				"gzip in base64":                {b64(gzipped(t, plain)), "X: y"},
				"base64 in base64":              {b64(b64(plain)), "X: y"},
				"gzip in base64 in a form":      {form(b64(gzipped(t, plain))), "X: y"},
				"a form in a form":              {form(form(plain)), "X: y"},
				"a form in gzip":                {gzipped(t, form(plain)), "X: y"},
				"plain that says gzip":          {plain, "Content-Encoding: gzip"},
				"gzip that says br":             {gzipped(t, plain), "Content-Encoding: br"},
				"plain that says br":            {plain, "Content-Encoding: br"},
				"plain that says many":          {plain, "Content-Encoding: gzip, gzip, gzip"},
				"UTF-16":                        {utf16(plain), "X: y"},
				"a mark of UTF-8":               {append([]byte("\xef\xbb\xbf"), plain...), "X: y"},
				"Latin-1 in a name":             {bytes.Replace(plain, []byte(`"e"`), []byte("\"\xe9\""), 1), "X: y"},
				"a form of half escapes":        {[]byte("data=%7B%2"), "X: y"},
				"a form of many fields":         {[]byte(strings.Repeat("a=b&", 1<<20)), "X: y"},
				"a form of one huge field":      {append([]byte("data="), bytes.Repeat([]byte("%20"), 2<<20)...), "X: y"},
				"a form of many datas":          {[]byte(strings.Repeat("data=e30&", 1<<18)), "X: y"},
				"base64 of the other alphabet":  {[]byte("data=" + base64.RawURLEncoding.EncodeToString(append([]byte{0xfb, 0xff}, plain...))), "X: y"},
				"base64 with spaces for pluses": {[]byte("data=" + strings.ReplaceAll(string(b64(append([]byte{0xfb, 0xef, 0xbe}, plain...))), "+", " ")), "X: y"},
			} {
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				res := g.Do("POST", d.target, tc.body, d.header, tc.header)
				runtime.ReadMemStats(&after)
				switch stored := len(res.Events); {
				case res.Status >= 500:
					t.Errorf("%s: got %d %s", name, res.Status, res.Body)
				case res.Status < 300 && stored+len(res.Rejected) != 1:
					t.Errorf("%s: got %d %s, %d events and %d rejected", name, res.Status, res.Body, stored, len(res.Rejected))
				// CloudEvents answers 400 where it put the one event aside.
				case res.Status >= 300 && (stored > 0 || res.Fault == nil && len(res.Rejected) != 1):
					t.Errorf("%s: got %d %s, %d events", name, res.Status, res.Body, stored)
				}
				if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
					t.Errorf("%s: %d MiB for a body of %d bytes", name, used>>20, len(tc.body))
				}
			}
		})
	}
}

// TestManyNames bounds what an object of very many names costs: not the square of
// them.
func TestManyNames(t *testing.T) {
	var names strings.Builder
	names.WriteString("{")
	for i := range 40_000 {
		if i > 0 {
			names.WriteString(",")
		}
		fmt.Fprintf(&names, `"k%d":1`, i)
	}
	names.WriteString("}")
	for _, d := range doors() {
		g := ingesttest.New(t, d.protocol)
		body := d.body(names.String())
		if !json.Valid(body) {
			t.Fatal("the test's own JSON is wrong")
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		res := g.Do("POST", d.target, body, d.header)
		runtime.ReadMemStats(&after)
		if res.Status >= 300 || len(res.Events) != 1 {
			t.Errorf("%s: got %d %s, %d events", d.target, res.Status, res.Body, len(res.Events))
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 100*uint64(len(body)) {
			t.Errorf("%s: %d bytes for a body of %d", d.target, used, len(body))
		}
	}
}
