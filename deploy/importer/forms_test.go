package importer

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf16"
)

func utf16le(s string) string {
	out := []byte("\xff\xfe")
	for _, c := range utf16.Encode([]rune(s)) {
		out = append(out, byte(c), byte(c>>8))
	}
	return string(out)
}

func gzipped(t *testing.T, s string) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func zipped(t *testing.T, files map[string]string) string {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for name, text := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func TestCSV(t *testing.T) {
	for _, tc := range []struct {
		from, text string
		columns    map[string]string
		want       []string
	}{
		{
			"mixpanel", "\ufeffEvent Name,Time,Distinct ID,$insert_id,Price,Note,Zip\r\nPaid,1767323045,maria,i-1,1.50,\"a \"\"b\"\",\nc\",01234\r\nPaid,1767323046,maria,i-2,4.9500000000000002,12e4\r\n", nil,
			[]string{
				`track "Paid" id=i-1 user=maria anonymous= account= at=2026-01-02T03:04:05Z {"$insert_id":"i-1","Note":"a \"b\",\nc","Price":1.50,"Zip":"01234","distinct_id":"maria","time":"1767323045"} `,
				`track "Paid" id=i-2 user=maria anonymous= account= at=2026-01-02T03:04:06Z {"$insert_id":"i-2","Note":"12e4","Price":4.9500000000000002,"distinct_id":"maria","time":"1767323046"} `,
			},
		},
		{
			"posthog", "uuid;event;distinct_id;timestamp;properties.$is_identified;properties.plan\nu-1;Paid;anon;2026-01-02 03:04:05.678000+00:00;false;pro\n", nil,
			[]string{`track "Paid" id=u-1 user= anonymous=anon account= at=2026-01-02T03:04:05.678Z {"$is_identified":false,"plan":"pro"} `},
		},
		{
			"csv", "Action\tWho\tWhen\tShop\tKey\tPrice\nPaid\tmaria\t2026-01-02 03:04:05\tcorner-shop\tk-1\t4711\n",
			map[string]string{"event": "Action", "userId": "Who", "timestamp": "When", "groupId": "Shop", "messageId": "Key"},
			[]string{`track "Paid" id=k-1 user=maria anonymous= account=corner-shop at=2026-01-02T03:04:05Z {"Price":4711} `},
		},
	} {
		g := newTarget(t)
		cfg := config(t, tc.from, g.url, tc.text)
		cfg.Map = tc.columns
		result, err := Run(t.Context(), cfg, quiet())
		if err != nil || result.Sent != int64(len(tc.want)) {
			t.Errorf("%s: got %+v, %v", tc.from, result, err)
		}
		if got := g.stored(t); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.from, strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
		}
		for text, want := range map[string]string{"a,b,a\n": "twice", "a,b\n1,2,3\n": "1 of 1 lines were skipped, the first: line 1: CSV: 3 cells, the header has 2", "a,b\n\"1,2\n": "quote"} {
			cfg := config(t, tc.from, g.url, text)
			if cfg.Map = tc.columns; tc.from == "csv" {
				cfg.Map = map[string]string{"event": "a", "userId": "b"}
			}
			if _, err := Run(t.Context(), cfg, quiet()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %q: got %v, want %q", tc.from, text, err, want)
			}
		}
	}
	// A row that cannot be read is skipped, one that the gateway rejects is counted, and
	// the rows behind both are imported.
	g := newTarget(t)
	rows := config(t, "csv", g.url, "a,b,c\nPaid,maria,2026-01-02\nPaid,maria,2026-01-02,?\nPaid,\"maria\"x,2026-01-02\nPaid,maria,soon\nPaid,maria\n")
	rows.Map = map[string]string{"event": "a", "userId": "b", "timestamp": "c"}
	result, err := Run(t.Context(), rows, quiet())
	if want := (Result{Lines: 5, Sent: 3, Rejected: 1, Skipped: 2}); !unread(&result, err) || result != want || len(g.stored(t)) != 2 {
		t.Errorf("got %+v, %v, %d stored, want %+v", result, err, len(g.stored(t)), want)
	}
	if err == nil || !strings.Contains(err.Error(), "2 of 5 lines were skipped, the first: line 2: ") || !strings.Contains(err.Error(), "bad_timestamp timestamp: not an instant: soon") {
		t.Errorf("got %v", err)
	}
	cfg := config(t, "csv", "http://127.0.0.1:1", "a,b\n1,2\n")
	cfg.Map = map[string]string{"event": "a", "userId": "c"}
	if _, err := Run(t.Context(), cfg, quiet()); err == nil || !strings.Contains(err.Error(), `no column "c"`) {
		t.Errorf("a column that is missing: got %v", err)
	}
}

// TestZone: local times of an export are instants, over both changes of daylight
// saving time; the hour that was shown twice is flagged, and times that name a zone,
// or count from the epoch where the source does, stay as they are.
func TestZone(t *testing.T) {
	at := func(lines []string) string {
		var got []string
		for _, l := range lines {
			_, l, _ := strings.Cut(l, " at=")
			instant, _, _ := strings.Cut(l, " ")
			if _, note, ok := strings.Cut(l, " notes="); ok {
				instant += " notes=" + note
			}
			got = append(got, instant)
		}
		slices.Sort(got)
		return strings.Join(got, "\n")
	}
	for _, tc := range []struct{ from, zone, text, want string }{
		{
			"mixpanel", "Europe/Vienna", // 2026: 29 March and 25 October
			`{"event":"e","properties":{"distinct_id":"u","time":1784545200}}
{"event":"e","properties":{"distinct_id":"u","time":1795168800.5}}
{"event":"e","properties":{"distinct_id":"u","time":1774747800}}
{"event":"e","properties":{"distinct_id":"u","time":"1774755000000"}}
{"event":"e","properties":{"distinct_id":"u","time":1792895400}}
{"event":"e","properties":{"distinct_id":"u","time":1792899000}}`,
			"2026-03-29T00:30:00Z\n2026-03-29T01:30:00Z\n2026-07-20T09:00:00Z\n2026-10-25T00:30:00Z notes=2\n2026-10-25T02:30:00Z\n2026-11-20T09:00:00.5Z",
		},
		{
			"segment", "America/New_York", // 2026: 8 March and 1 November
			`{"type":"track","event":"e","userId":"u","timestamp":"2026-11-01 01:30:00"}
{"type":"track","event":"e","userId":"u","timestamp":"2026-11-01 02:30:00","originalTimestamp":"2026-11-01 01:30:00"}
{"type":"track","event":"e","userId":"u","timestamp":"2026-03-08 03:30"}
{"type":"track","event":"e","userId":"u","timestamp":"2026-07-01T12:00:00Z"}
{"type":"track","event":"e","userId":"u","timestamp":1784545200}`,
			"2026-03-08T07:30:00Z\n2026-07-01T12:00:00Z\n2026-07-20T11:00:00Z\n2026-11-01T05:30:00Z notes=2\n2026-11-01T07:30:00Z",
		},
		{"posthog", "Asia/Kolkata", `{"event":"e","distinct_id":"u","timestamp":"2026-07-01 12:00:00"}`, "2026-07-01T06:30:00Z"},
		{"amplitude", "Europe/Vienna", `{"event_type":"e","user_id":"user1","event_time":"2026-07-20 11:00:00.25"}
{"event_type":"e","user_id":"user1","event_time":"2026-10-25 02:10:00"}`, "2026-07-20T09:00:00.25Z\n2026-10-25T00:10:00Z notes=2"},
	} {
		g := newTarget(t)
		cfg := config(t, tc.from, g.url, tc.text)
		cfg.Zone = tc.zone
		result, err := Run(t.Context(), cfg, quiet())
		if want := int64(strings.Count(tc.want, "notes=2")); err != nil || result.Ambiguous != want {
			t.Errorf("%s: got %+v, %v, want %d that are ambiguous", tc.from, result, err, want)
		}
		if got := at(g.stored(t)); got != tc.want {
			t.Errorf("%s: got\n%s\nwant\n%s", tc.from, got, tc.want)
		}
		for _, l := range g.stored(t) {
			if strings.Contains(l, "ambiguous") {
				t.Errorf("%s: the mark is stored: %s", tc.from, l)
			}
		}
	}
}

// TestTooOld: an export with events that would count today is refused as a whole, or
// taken as history.
func TestTooOld(t *testing.T) {
	g := newTarget(t)
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	deps := quiet()
	deps.Now = func() time.Time { return now }
	cfg := config(t, "segment", g.url, scans(3)+`{"type":"track","event":"Old","userId":"u","timestamp":"2021-05-01T00:00:00Z"}`+"\n"+scans(1))
	cfg.BatchEvents = 1
	_, err := Run(t.Context(), cfg, deps)
	if !errors.Is(err, ErrTooOld) || len(g.stored(t)) != 0 {
		t.Fatalf("got %v with %d events stored", err, len(g.stored(t)))
	}
	for _, want := range []string{"line 4", "2021-05-01", "time-max-age", "-history", "nothing was sent"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	cfg.History = true
	if _, err := Run(t.Context(), cfg, deps); err != nil {
		t.Fatal(err)
	}
	if got := g.stored(t); len(got) != 5 || !strings.Contains(strings.Join(got, "\n"), "at=2021-05-01T00:00:00Z   notes=1") {
		t.Errorf("got %q", got)
	}
	cfg = config(t, "segment", g.url, `{"type":"track","event":"Old","userId":"u","timestamp":"2021-05-01T00:00:00Z"}`)
	cfg.MaxAge = 10 * 365 * 24 * time.Hour
	if result, err := Run(t.Context(), cfg, deps); err != nil || result.Sent != 1 {
		t.Errorf("a bound that was raised: got %+v, %v", result, err)
	}
}
