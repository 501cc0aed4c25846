package metric

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

func TestNumbers(t *testing.T) {
	for text, want := range map[string]string{
		`12`: "12", `12.5`: "12.5", `-0.25`: "-0.25", `1e3`: "1000", `0`: "0",
		`"12"`: "12", `"12.5"`: "12.5", `" 12 "`: "12", `4.9500000000000002`: "4.95", `"99.989999999999995"`: "99.99", `0.12345678901234567890`: "0.12345678901234568", `"+12"`: "12", `"-12.50"`: "-12.5", `"1e3"`: "1000", `"0.125"`: "0.125", `"1234.567"`: "1234.567",
		`"10,000"`: "10000", `"1,234,567.89"`: "1.23456789e+06", `"-1,000"`: "-1000", `"999,999"`: "999999",
		`"10 000"`: "10000", `"10\u00a0000"`: "10000", `"10\u202f000,5"`: "none", `"10'000.5"`: "10000.5", `"10\u2019000"`: "10000", `"10_000"`: "10000",
		`"1.234.567"`: "1.234567e+06", `"9007199254740992"`: "9.007199254740992e+15",
		// Each of these is two numbers to two people, or none.
		`"10.000"`: "none", `"1.234"`: "none", `"1,5"`: "none", `"10,00"`: "none", `"10,0000"`: "none", `"1,234,56"`: "none", `"1.234,56"`: "none", `"0,125"`: "none",
		`",000"`: "none", `"1,,000"`: "none", `"1,000 000"`: "none", `"01,000"`: "none", `"10,000e3"`: "none", `"10,000."`: "none", `"1.23.456"`: "none",
		`""`: "none", `" "`: "none", `"NaN"`: "none", `"Infinity"`: "none", `"-"`: "none", `"--5"`: "none", `"0x10"`: "none", `"12 EUR"`: "none", `"007"`: "none", `"1 2"`: "none",
		`9007199254740993`: "none", `1e400`: "none", `1e-400`: "none", `"18,446,744,073,709,551,617"`: "none",
		`true`: "none", `[1]`: "none", `{"a":1}`: "none", "\"\xff\"": "none", `"\ud800"`: "none",
	} {
		got := "none"
		if n, ok := number([]byte(text)); ok {
			got = fmt.Sprint(n)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestRead(t *testing.T) {
	at := func(s string) event.Micros {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return event.FromTime(v)
	}
	span := func(from, to string) string { return fmt.Sprintf(`,"period":[%d,%d]}`, at(from), at(to)) }
	day := span("2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z")
	const plain = `{"numbers":{"":7},"dimensions":"{}"`
	for _, tc := range []struct{ name, doc, report, unread string }{
		{"one number", `{"value":7,"other":"x"}`, plain + "}", ""},
		{"many", `{"values":{"seats":"10,000","used":2.5}}`, `{"numbers":{"seats":10000,"used":2.5},"dimensions":"{}"}`, ""},
		{"both", `{"value":1,"values":{"a":2}}`, `{"numbers":{"":1,"a":2},"dimensions":"{}"}`, ""},
		{"one of many", `{"values":{"seats":"1,5","used":2,"free":null}}`, `{"numbers":{"used":2},"dimensions":"{}"}`, `{"metric.values.seats":"1,5"}`},
		{"none", `{"count":7}`, ``, `{"metric.value":null}`},
		{"empty", ``, ``, `{"metric.value":null}`},
		{"values is a list", `{"values":[1]}`, ``, `{"metric.values":[1]}`},
		{"the last of a key counts", `{"value":1,"value":7}`, plain + "}", ""},
		{"the last of a name counts", `{"values":{"a":1,"\u0061":7}}`, `{"numbers":{"a":7},"dimensions":"{}"}`, ""},
		{"dimensions in any order", `{"value":7,"dimensions":{"plan":"pro \"x\"","a":2.0,"b":"2","c":true,"d":null,"e":-0.0}}`, `{"numbers":{"":7},"dimensions":"{\"a\":\"2\",\"b\":\"2\",\"c\":\"true\",\"e\":\"0\",\"plan\":\"pro \\\"x\\\"\"}"}`, ""},
		{"dimensions of 17 digits", `{"value":7,"dimensions":{"rate":4.9500000000000002,"id":9007199254740993,"max":1e400}}`, `{"numbers":{"":7},"dimensions":"{\"id\":\"9007199254740993\",\"max\":\"1e400\",\"rate\":\"4.95\"}"}`, ""},
		{"a dimension that is none", `{"value":7,"dimensions":{"plan":["pro"]}}`, ``, `{"metric.dimensions.plan":["pro"]}`},
		{"dimensions that are none", `{"value":7,"dimensions":"pro"}`, ``, `{"metric.dimensions":"pro"}`},
		{"half a character", `{"value":7,"dimensions":{"plan":"\ud800"}}`, ``, `{"metric.dimensions.plan":{"$raw":"\"\\ud800\""}}`},
		{"a day", `{"value":7,"period":"2026-11-20"}`, plain + day, ""},
		{"start and end", `{"value":7,"period":{"start":"2026-11-20","end":"2026-11-21T01:00:00+01:00"}}`, plain + day, ""},
		{"two keys", `{"value":7,"period_start":1795132800,"periodEnd":1795219200000}`, plain + day, ""},
		{"two with a slash", `{"value":7,"period":"2026-11-20/2026-11-21"}`, plain + day, ""},
		{"a month", `{"value":7,"period":"2026-11"}`, plain + span("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z"), ""},
		{"a year", `{"value":7,"period":"2026"}`, plain + span("2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"), ""},
		{"an hour", `{"value":7,"period":"2026-11-20 23"}`, plain + span("2026-11-20T23:00:00Z", "2026-11-21T00:00:00Z"), ""},
		{"an instant", `{"value":7,"period_end":"2026-11-20T23:15:00.5Z"}`, plain + span("2026-11-20T23:15:00.5Z", "2026-11-20T23:15:00.5Z"), ""},
		{"no time", `{"value":7,"period":"soon"}`, ``, `{"metric.period":"soon"}`},
		{"an object without ends", `{"value":7,"period":{"from":1}}`, ``, `{"metric.period":{"from":1}}`},
		{"ends before it starts", `{"value":7,"period":{"start":"2026-11-20","end":"2026-11-19"}}`, ``, `{"metric.period.end":"2026-11-19"}`},
		{"a time that no column holds", `{"value":7,"period":"0001"}`, ``, `{"metric.period":"0001"}`},
		{"a number of days", `{"value":7,"period":30}`, ``, `{"metric.period":30}`},
	} {
		var r Reader
		r.Read([]byte(`{"value":1,"dimensions":{"left":"over"},"period":"2026"}`)) // nothing stays
		got := r.Read([]byte(tc.doc))
		if report := string(got.Append(nil)); report != tc.report {
			t.Errorf("%s: got %s, want %s", tc.name, report, tc.report)
		}
		if unread := string(got.AppendConflicts(nil)); unread != tc.unread {
			t.Errorf("%s: got unread %s, want %s", tc.name, unread, tc.unread)
		}
	}
	var r Reader
	if got, want := string(r.Read(nil).AppendConflicts([]byte(`{"properties.a":1}`))), `{"properties.a":1,"metric.value":null}`; got != want {
		t.Errorf("with other conflicts: got %s, want %s", got, want)
	}
}

func TestBounds(t *testing.T) {
	object := func(n int, format string) string {
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf(format, i))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	var r Reader
	if got := r.Read([]byte(`{"values":` + object(maxNumbers+3, `"n%d":1`) + `}`)); len(got.Numbers) != maxNumbers || len(got.Unread) != 3 {
		t.Errorf("got %d numbers and %d unread, want %d and 3", len(got.Numbers), len(got.Unread), maxNumbers)
	}
	if got := r.Read([]byte(`{"value":1,"dimensions":` + object(maxDimensions+1, `"d%d":"x"`) + `}`)); len(got.Numbers) != 0 || len(got.Unread) != 1 {
		t.Errorf("too many dimensions: got %+v", got)
	}
	if got := r.Read([]byte(`{"value":1,"dimensions":{"d":"` + strings.Repeat("x", maxTextBytes+1) + `"}}`)); len(got.Numbers) != 0 || len(got.Unread) != 1 {
		t.Errorf("a long dimension: got %+v", got)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range []string{
		`{"value":"10,000","period":"2026-11-20","dimensions":{"a":1}}`, `{"values":{"a":1,"b":"x"},"period":{"start":1,"end":2}}`, "{\"values\":{\"\xff\":1}}", `{"value":1e999}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if !json.Valid(doc) {
			return
		}
		var r Reader
		got := r.Read(doc)
		if len(got.Numbers) == 0 && len(got.Unread) == 0 {
			t.Fatalf("%q: neither a number nor why there is none", doc)
		}
		for _, text := range [][]byte{got.Append(nil), got.AppendConflicts(nil)} {
			if len(text) > 0 && !json.Valid(text) {
				t.Fatalf("%q: got %q", doc, text)
			}
		}
	})
}

func BenchmarkRead(b *testing.B) {
	doc := []byte(`{"values":{"seats":"10,000","used":2.5},"dimensions":{"plan":"pro","region":"eu"},"period":"2026-11-20"}`)
	var r Reader
	var buf []byte
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		buf = r.Read(doc).Append(buf[:0])
	}
}
