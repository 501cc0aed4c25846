package importer

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Exports that people reported, each with two of the same kind: what is sent, with the
// instants that it names.
func TestReportedExports(t *testing.T) {
	const one, two = `{"type":"track","event":"Open","userId":"u","messageId":"m-0","timestamp":"2026-11-20T09:00:00Z"}`,
		`{"type":"track","event":"Open","userId":"u","messageId":"m-1","timestamp":"2026-11-20T09:01:00Z"}`
	both := []string{"m-0 2026-11-20T09:00:00Z", "m-1 2026-11-20T09:01:00Z"}
	for _, tc := range []struct {
		name, from, zone, text string
		want                   []string // message id, instant, notes
	}{
		{
			"a colon before the Z", "segment", "",
			`{"type":"track","event":"Tap","userId":"u","messageId":"m","originalTimestamp":"2026-11-20T09:00:27.029:Z","sentAt":"2026-11-20T09:00:27.957:Z","timestamp":"2026-11-20T09:00:27.150Z"}`,
			[]string{"m 2026-11-20T09:00:27.15Z"},
		},
		{
			"the other field alone can be read", "segment", "",
			`{"type":"track","event":"Tap","userId":"u","messageId":"m","originalTimestamp":"2026-11-20T09:00:27.029Z","timestamp":"Invalid Date"}`,
			[]string{"m 2026-11-20T09:00:27.029Z"},
		},
		{
			"a colon before the Z, of PostHog", "posthog", "",
			`{"uuid":"m","event":"Tap","distinct_id":"u","timestamp":"2026-11-20T09:00:27.029:Z","properties":{}}`,
			[]string{"m 2026-11-20T09:00:27.029Z"},
		},
		{
			"local time", "mixpanel", "Europe/Vienna",
			`{"event":"Open","properties":{"distinct_id":"u","$insert_id":"m-0","time":1784545200}}` + "\n" + `{"event":"Open","properties":{"distinct_id":"u","$insert_id":"m-1","time":1795168800}}`,
			[]string{"m-0 2026-07-20T09:00:00Z", "m-1 2026-11-20T09:00:00Z"},
		},
		{
			"local time where clocks change at midnight", "amplitude", "America/Santiago",
			`{"$insert_id":"m-0","event_type":"Open","user_id":"user-1","event_time":"2026-09-05 23:59:59"}` + "\n" + `{"$insert_id":"m-1","event_type":"Open","user_id":"user-1","event_time":"2026-09-06 01:00:00"}` + "\n" +
				`{"$insert_id":"m-2","event_type":"Open","user_id":"user-1","event_time":"2026-04-04 23:30:00"}`,
			[]string{"m-0 2026-09-06T03:59:59Z", "m-1 2026-09-06T04:00:00Z", "m-2 2026-04-05T02:30:00Z notes=2"},
		},
		{
			"local time that changes by half an hour", "segment", "Australia/Lord_Howe",
			`{"type":"track","event":"Open","userId":"u","messageId":"m-0","timestamp":"2026-04-05 01:45"}` + "\n" + `{"type":"track","event":"Open","userId":"u","messageId":"m-1","timestamp":"2026-10-04T02:30:00"}`,
			[]string{"m-0 2026-04-04T14:45:00Z notes=2", "m-1 2026-10-03T15:30:00Z"},
		},
		{"byte order mark and CRLF", "segment", "", "\ufeff" + one + "\r\n" + two + "\r\n", both},
		{"byte order mark in gzip, empty lines, no end of the last line", "segment", "", gzipped(t, "\ufeff\r\n"+one+"\r\n\r\n \r\n"+two), both},
		{"byte order mark of UTF-16, big endian", "segment", "", bigEndian(utf16le(one + "\r\n" + two + "\r\n")), both},
		{"one array", "segment", "", "[" + one + ", " + two + "]", both},
		{"one array, indented, with a byte order mark", "segment", "", "\ufeff[\r\n\t" + strings.ReplaceAll(one, ",", ",\r\n\t\t") + "\r\n\t,\r\n\t" + two + "\r\n]\r\n\r\n", both},
		{"one array in gzip in zip", "segment", "", zipped(t, map[string]string{"1/a.json.gz": gzipped(t, "["+one+"]"), "1/b.json.gz": gzipped(t, "["+two+"]\n")}), both},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newTarget(t)
			cfg := config(t, tc.from, g.url, tc.text)
			cfg.Zone = tc.zone
			result, err := Run(t.Context(), cfg, quiet())
			if n := int64(len(tc.want)); err != nil || result.Sent != n || result.Skipped+result.Rejected != 0 {
				t.Errorf("got %+v, %v, want %d sent", result, err, n)
			}
			if got := instants(g.stored(t)); strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

// instants shortens lines of stored to message id, instant and notes.
func instants(lines []string) []string {
	got := make([]string, len(lines))
	for i, l := range lines {
		_, id, _ := strings.Cut(l, " id=")
		_, at, _ := strings.Cut(l, " at=")
		id, _, _ = strings.Cut(id, " ")
		at, _, _ = strings.Cut(at, " ")
		got[i] = id + " " + at
		if _, notes, ok := strings.Cut(l, " notes="); ok {
			got[i] += " notes=" + notes
		}
	}
	return got
}

func bigEndian(littleEndian string) string {
	b := []byte(littleEndian)
	for i := 0; i+1 < len(b); i += 2 {
		b[i], b[i+1] = b[i+1], b[i]
	}
	return string(b)
}

// A job that writes its export anew each night under one name: what the second night's
// file holds is imported whole, whatever its length.
func TestExportUnderTheSameName(t *testing.T) {
	night := func(day, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"type":"track","event":"Open","userId":"u","messageId":"d%d-%02d","timestamp":"2026-11-%dT09:00:00Z"}`+"\n", day, i, day)
		}
		return b.String()
	}
	for _, tc := range []struct {
		name          string
		first, second string
		sent          int64
		stored        int
	}{
		{"longer", night(18, 10), night(19, 15), 15, 25},
		{"as long", night(18, 10), night(19, 10), 10, 20},
		{"shorter", night(18, 10), night(19, 4), 4, 14},
		{"packed", gzipped(t, night(18, 10)), gzipped(t, night(19, 15)), 15, 25},
		{"the second night holds the first", night(18, 10), night(18, 10) + night(19, 15), 25, 25},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := newTarget(t)
			cfg := config(t, "segment", g.url, tc.first)
			if result, err := Run(t.Context(), cfg, quiet()); err != nil || result.Sent != 10 {
				t.Fatalf("the first night: got %+v, %v", result, err)
			}
			if err := os.WriteFile(cfg.File, []byte(tc.second), 0o600); err != nil {
				t.Fatal(err)
			}
			if result, err := Run(t.Context(), cfg, quiet()); err != nil || result.Sent != tc.sent {
				t.Errorf("the second night: got %+v, %v, want %d sent", result, err, tc.sent)
			}
			if got := ids(g.stored(t)); len(got) != tc.stored {
				t.Errorf("%d stored, want %d", len(got), tc.stored)
			}
		})
	}
}
