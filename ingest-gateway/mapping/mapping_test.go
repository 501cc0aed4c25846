package mapping

import (
	"strings"
	"testing"

	"github.com/uptakehq/uptake/ingest-gateway/ingest"
	"github.com/uptakehq/uptake/ingest-gateway/scan"
	"github.com/uptakehq/uptake/schemas/event"
)

func value(text string) scan.Value {
	var s scan.Scanner
	s.Reset([]byte(text), 100)
	return s.Value()
}

func TestErase(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{`{"token":"k","a":1}`, `{            "a":1}`},
		{`{ "token" : "k" , "a":1}`, `{                 "a":1}`},
		{`{"a":1,"token":"k"}`, `{"a":1            }`},
		{`{"a":1, "token":{"x":[1]} ,"b":2}`, `{"a":1                    ,"b":2}`},
		{`{"token":"k"}`, `{           }`},
		{`{"\u0074oken":"k","a":1}`, `{                 "a":1}`},
		{`{"a":{"token":"k"}}`, `{"a":{"token":"k"}}`},
		{`{}`, `{}`},
		{`[1]`, `[1]`},
	} {
		got := []byte(tc.in)
		Erase(got, "token")
		if string(got) != tc.want {
			t.Errorf("Erase(%s): got %s, want %s", tc.in, got, tc.want)
		}
		if !IsJSON(got) {
			t.Errorf("Erase(%s) leaves no JSON: %s", tc.in, got)
		}
	}
}

func TestInstant(t *testing.T) {
	at := func(us int64) event.Micros { return us }
	for _, tc := range []struct {
		in   string
		want event.Micros
		ok   bool
	}{
		{`null`, 0, true},
		{`""`, 0, true},
		{`"2026-03-04T05:06:07.5Z"`, at(1772600767_500000), true},
		{`1772600767`, at(1772600767_000000), true},
		{`1772600767.25`, at(1772600767_250000), true},
		{`1772600767500`, at(1772600767_500000), true},
		{`"1772600767500"`, at(1772600767_500000), true},
		{`1e40`, 0, false},
		{`"tomorrow"`, 0, false},
		{`true`, 0, false},
		{`{}`, 0, false},
	} {
		if got, ok := Instant(value(tc.in)); got != tc.want || ok != tc.ok {
			t.Errorf("Instant(%s): got %d %v, want %d %v", tc.in, got, ok, tc.want, tc.ok)
		}
	}
}

func TestQuantity(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{`null`, 1, true},
		{`0`, 0, true},
		{`12`, 12, true},
		{`"12"`, 12, true},
		{`3.0`, 3, true},
		{`1e3`, 1000, true},
		{`1.5`, 0, false},
		{`"many"`, 0, false},
		{`1e300`, 0, false},
		{`[1]`, 0, false},
	} {
		if got, ok := Quantity(value(tc.in)); got != tc.want || ok != tc.ok {
			t.Errorf("Quantity(%s): got %d %v, want %d %v", tc.in, got, ok, tc.want, tc.ok)
		}
	}
}

func TestRoute(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"/", "/"},
		{"/v1/orders/4711/items/7", "/v1/orders/{id}/items/7"},
		{"/2/httpapi", "/2/httpapi"},
		{"/users/550e8400-e29b-41d4-a716-446655440000", "/users/{id}"},
		{"/o/507f1f77bcf86cd799439011/x", "/o/{id}/x"},
		{"/feed/deadbeefdeadbeef", "/feed/deadbeefdeadbeef"},
		{"/v10/a1b2", "/v10/a1b2"},
	} {
		if got := Route(tc.in); got != tc.want {
			t.Errorf("Route(%s): got %s, want %s", tc.in, got, tc.want)
		}
	}
}

func TestFine(t *testing.T) {
	for in, want := range map[string]bool{
		"2026-01-02T03:04:05.123456Z": true, "2026-01-02T03:04:05.1234+02:00": true,
		"2026-01-02T03:04:05.123Z": false, "2026-01-02T03:04:05Z": false, "2026-01-02T03:04:05.12+02:00": false, "": false, "1.": false,
	} {
		if got := Fine(in); got != want {
			t.Errorf("Fine(%s): got %v, want %v", in, got, want)
		}
	}
}

// TestManyFields keeps objects of many names from costing the square of them.
func TestManyFields(t *testing.T) {
	var text strings.Builder
	text.WriteString("{")
	const n = 50_000
	for i := range n {
		if i > 0 {
			text.WriteString(",")
		}
		text.WriteString(`"k` + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + itoa(i) + `":1`)
	}
	text.WriteString("}")
	var o Object
	o.Parse([]byte(text.String()))
	var w Writer
	w.Merge(&o)
	if o.Len() != n || string(w.Object()) != text.String() {
		t.Errorf("got %d fields, want %d, and the same text", o.Len(), n)
	}
}

func itoa(i int) string {
	var w Writer
	w.Int("i", int64(i))
	return strings.TrimSuffix(strings.TrimPrefix(string(w.Object()), `{"i":`), "}")
}

// TestReadBounds: what is a fault of one event is not a fault of the request, and
// too many are one.
func TestReadBounds(t *testing.T) {
	limits := ingest.DefaultLimits()
	limits.MaxBatchEvents = 2
	if _, err := Read([]byte(`[1,2,3]`), limits, ""); ingest.AsFault(err).Kind != ingest.TooLarge {
		t.Errorf("three of two: got %v", err)
	}
	if _, err := Read([]byte(`{"batch":[1,2,3]}`), limits, "batch"); ingest.AsFault(err).Kind != ingest.TooLarge {
		t.Errorf("three of two in a list: got %v", err)
	}
	for _, text := range []string{``, `1`, `{"a":1}x`, `{"a":}`, `[`, `{"batch":[],"batch":[]}`, `{"a":1,"a":2,"batch":[]}`} {
		if _, err := Read([]byte(text), limits, "batch"); err == nil || ingest.AsFault(err).Kind != ingest.BadBody {
			t.Errorf("%s: got %v, want a bad body", text, err)
		}
	}
	e, err := Read([]byte("{\"a\":1}\n\n{\"a\":2}\n"), limits, "")
	if err != nil || len(e.Items) != 2 {
		t.Errorf("lines: got %+v, %v", e, err)
	}
}
