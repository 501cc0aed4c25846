package scan

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// loneSurrogate finds escapes of surrogates, whose halves encoding/json reads as U+FFFD.
var loneSurrogate = regexp.MustCompile(`\\u[dD][89a-fA-F]`)

// samples are texts of every shape, right and wrong; also the seed of fuzzing.
var samples = []string{
	``, ` `, `{}`, `[]`, `null`, `true`, `false`, `0`, `-0`, `-0.5e+10`, `1E5`, `123456789012345678901234567890`,
	`""`, `"a"`, `"a\"b\\c\/\b\f\n\r\t"`, `"\u0041\u00e9\ud83d\ude00"`, `"\ud83d"`, `"\ude00\ud83d"`, `"\ud83d\ud83d\ude00"`,
	`"\uD83Dx"`, `"\ud83d\u0041"`, `"\ud83d\u"`, `"\ud83d\ux"`,
	`{"a":1,"b":[1,2,{"c":null}],"d":{"e":{}}}`, ` { "a" : [ ] , "b" : { } } `, "\n[\t1\r,\n2 ]\n",
	`[1,]`, `[,1]`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{a:1}`, `{"a":1 "b":2}`, `[1 2]`, `[1}`, `{"a":1]`, `{"a":1}}`, `[[]`, `]`, `}`,
	`01`, `-`, `+1`, `.5`, `1.`, `1e`, `1e+`, `1x`, `NaN`, `Infinity`, `tru`, `nulll`, `True`, `"`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`,
	"\"a\tb\"", "\"a\x00b\"", "\"\x7f\"", "\"\xff\"", "{\"\xc3\x28\":1}", "\"\xed\xa0\x80\"", "\"\xf0\x9f\x98\x80 ünïcödé\"", "\xef\xbb\xbf{}",
	`{"a":1,"a":2}`, `"12345678"`, `"1234567\""`, `"12345678\n12345678"`, strings.Repeat("[", 40) + strings.Repeat("]", 40),
	strings.Repeat(`{"a":`, 2000) + `1` + strings.Repeat(`}`, 2000), `{} {}`, `[1]x`, `{"a":"b"`, `{"k\u0065y":1,"\ud800":2}`,
}

// walk reads a text with Object, Array, Key and Value to the given depth and
// returns it as encoding/json would.
func walk(s *Scanner, depth int) any {
	if depth > 0 {
		switch {
		case s.Object():
			m := map[string]any{}
			for {
				k, ok := s.Key()
				if !ok {
					return m
				}
				name := string(k)
				m[name] = walk(s, depth-1)
			}
		case s.Array():
			a := []any{}
			for s.More() {
				a = append(a, walk(s, depth-1))
			}
			return a
		}
	}
	peek := s.Peek()
	v := s.Value()
	if s.Err() == nil && peek != v.Kind {
		return "peeked " + peek.String() + ", got " + v.Kind.String()
	}
	switch v.Kind {
	case True, False:
		return v.Kind == True
	case Number:
		return json.Number(v.Text())
	case String:
		return v.Text()
	case Object, Array:
		d := json.NewDecoder(bytes.NewReader(v.Raw))
		d.UseNumber()
		var out any
		if err := d.Decode(&out); err != nil {
			return err
		}
		return out
	}
	return nil
}

// check holds one text against encoding/json, which is lenient only where the
// scanner notes or repairs.
func check(t *testing.T, in []byte) {
	t.Helper()
	if bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) > 500 {
		return // depth bounds differ
	}
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	var want any
	valid := json.Valid(in)
	if valid {
		if err := d.Decode(&want); err != nil {
			valid = false
		}
	}
	for depth := range 4 {
		text := bytes.Clone(in)
		var s Scanner
		s.Reset(text, math.MaxInt)
		got := walk(&s, depth)
		if ok := s.End() && s.Err() == nil; ok != valid {
			t.Fatalf("%q at depth %d: got %v, encoding/json says %v", in, depth, s.Err(), valid)
		}
		if !valid {
			return
		}
		if clean := s.Noted()&BadUTF8 == 0; clean != utf8.Valid(in) {
			t.Fatalf("%q: noted %v, want %v", in, s.Noted(), !utf8.Valid(in))
		}
		if !utf8.Valid(in) {
			return
		}
		if !loneSurrogate.Match(in) && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q at depth %d: got %#v, want %#v", in, depth, got, want)
		}
		if !loneSurrogate.Match(in) {
			checkStrict(t, text)
		}
	}
}

func TestScanAgainstEncodingJSON(t *testing.T) {
	for _, in := range samples {
		check(t, []byte(in))
	}
	// Every cut and every changed byte of a text with all there is.
	whole := []byte(`{"a\n":[1,-2.5e3,true,null,"é\ud83d\ude00"],"b":{"c":{}} , "d" : "12345678\\9"}`)
	for i := range whole {
		check(t, whole[:i])
		for _, c := range []byte("\"\\{}[],:0- \x01\x80x") {
			changed := bytes.Clone(whole)
			changed[i] = c
			check(t, changed)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, in := range samples {
		f.Add([]byte(in))
	}
	f.Fuzz(check)
}

func TestDepthIsNotedAndBounded(t *testing.T) {
	nest := func(n int) []byte { return []byte(strings.Repeat("[", n) + strings.Repeat("]", n)) }
	for _, tc := range []struct {
		n     int
		notes Notes
		err   string
	}{
		{3, 0, ""},
		{4, TooDeep, ""},
		{hardDepth, TooDeep, ""},
		{hardDepth + 1, TooDeep, "JSON: nested too deeply at byte 1024"},
	} {
		var s Scanner
		s.Reset(nest(tc.n), 3)
		v := s.Value()
		got := ""
		if s.Err() != nil {
			got = s.Err().Error()
		}
		if s.Noted() != tc.notes || got != tc.err || (tc.err == "" && len(v.Raw) != 2*tc.n) {
			t.Errorf("depth %d: got notes %v, error %q, want %v, %q", tc.n, s.Noted(), got, tc.notes, tc.err)
		}
	}
	// Depth counts from Mark, and containers that were entered count.
	var s Scanner
	s.Reset([]byte(`{"batch":[{"a":{}},{"a":{"b":[]}}]}`), 2)
	s.Object()
	s.Key()
	s.Array()
	for _, want := range []Notes{0, TooDeep} {
		s.More()
		s.Mark()
		s.Object()
		s.Key()
		s.Value()
		s.Key()
		if s.Noted() != want {
			t.Errorf("got %v, want %v", s.Noted(), want)
		}
	}
}

// Half a surrogate pair stays as it was sent, and stands for itself in a text.
func TestHalfSurrogates(t *testing.T) {
	for raw, text := range map[string]string{
		`"cut \ud83d"`: `cut \ud83d`, `"\uDE00 ok \ud83d\ude00\uD83D"`: "\\ude00 ok \U0001F600\\ud83d", `"\ud83d\u0041"`: `\ud83dA`, `"\ufffd"`: "\uFFFD",
	} {
		var s Scanner
		s.Reset([]byte(raw), 8)
		v := s.Value()
		if string(v.Raw) != raw || v.Text() != text || s.Noted() != 0 {
			t.Errorf("%s: got %s, %q, %v, want %q", raw, v.Raw, v.Text(), s.Noted(), text)
		}
	}
}

func TestNumbers(t *testing.T) {
	for _, tc := range []struct {
		in  string
		n   int64
		int bool
		f   float64
	}{
		{"0", 0, true, 0},
		{"-12", -12, true, -12},
		{"9223372036854775807", math.MaxInt64, true, math.MaxInt64},
		{"9223372036854775808", math.MaxInt64, false, math.MaxInt64 + 1},
		{"1.0", 0, false, 1},
		{"1e2", 0, false, 100},
	} {
		var s Scanner
		s.Reset([]byte(tc.in), 8)
		v := s.Value()
		n, ok := v.Int()
		f, _ := v.Float()
		if ok != tc.int || (ok && n != tc.n) || f != tc.f {
			t.Errorf("%s: got %d, %v, %v", tc.in, n, ok, f)
		}
	}
}

func BenchmarkValue(b *testing.B) {
	text := []byte(`{"type":"track","event":"Item Scanned","userId":"user-48213","messageId":"node-next-1764000000000-7f3b","timestamp":"2026-11-21T10:11:12.345Z","properties":{"sku":"4006381333931","price":12.5,"currency":"EUR","aisle":"B 12","loyal":true,"basket":{"id":"b-991","items":14}},"context":{"groupId":"acct-311","library":{"name":"@segment/analytics-node","version":"3.1.0"},"page":{"path":"/checkout","title":"Checkout – MyPOS"}}}`)
	var s Scanner
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		s.Reset(text, 32)
		if v := s.Value(); v.Kind != Object {
			b.Fatal(s.Err())
		}
	}
}
