package rawjson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

var seeds = []string{
	`{}`, `[]`, `{"a":1}`, `{"a": {"b": [1, -2.5e+3, null, true, "x\u00e9\ud83d\ude00"]}}`, `"\ud800"`, `"\ud800\u0041"`,
	`01`, `1.`, `-`, `1e`, `tru`, `{"a"}`, `{"a":}`, `{,}`, `[1,]`, `[1 2]`, `"\x"`, `"\u12g4"`, "\"a\nb\"", `{"a":1,"a":2}`,
	`nul`, `{"a":1}}`, ` 1`, `"`, `"\`, `"\u`, `{"k":"v`, strings.Repeat("[", 40) + strings.Repeat("]", 40),
}

// FuzzAgainstStandard holds every verdict and every string against encoding/json.
func FuzzAgainstStandard(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		i := Space(b, 0)
		end := EndValue(b, i, 100)
		valid := end != Bad && Space(b, end) == len(b)
		// The standard library bounds depth at 10,000, and so does this input's length.
		if want := json.Valid(b); valid != want && bytes.Count(b, []byte("["))+bytes.Count(b, []byte("{")) < 100 {
			t.Fatalf("EndValue(%q): got valid %v, want %v", b, valid, want)
		}
		if KindAt(b, i) == String {
			want := Bad // the end of a string of printable ASCII without escapes
			if n := bytes.IndexFunc(b[i+1:], func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r >= utf8.RuneSelf }); n >= 0 && b[i+1+n] == '"' {
				want = i + 1 + n + 1
			}
			if got := EndASCII(b, i); got != want {
				t.Fatalf("EndASCII(%q): got %d, want %d", b, got, want)
			}
		}
		if !valid || KindAt(b, i) != String {
			return
		}
		var want string
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		got := string(bytes.ToValidUTF8(AppendUnquoted(nil, b[i:end]), []byte("\uFFFD")))
		if want = strings.ToValidUTF8(want, "\uFFFD"); utf8.Valid(b) && got != want {
			t.Fatalf("AppendUnquoted(%q): got %q, want %q", b[i:end], got, want)
		}
		quoted := AppendQuoted(nil, got)
		var back string
		if err := json.Unmarshal(quoted, &back); err != nil || back != got {
			t.Fatalf("AppendQuoted(%q) = %s: got %q, %v", got, quoted, back, err)
		}
	})
}

func TestNumbers(t *testing.T) {
	for _, tc := range []struct {
		in      string
		end     int
		integer bool
	}{
		{"0", 1, true},
		{"-12,", 3, true},
		{"1.5 ", 3, false},
		{"1e9}", 3, false},
		{"-", Bad, false},
		{"1.", Bad, false},
		{"012", 1, true},
	} {
		end, integer := EndNumber([]byte(tc.in), 0)
		if end != tc.end || (end != Bad && integer != tc.integer) {
			t.Errorf("EndNumber(%q): got %d, %v, want %d, %v", tc.in, end, integer, tc.end, tc.integer)
		}
	}
}

func TestDepthIsBounded(t *testing.T) {
	deep := []byte(strings.Repeat("[", 11) + strings.Repeat("]", 11))
	if got := EndValue(deep, 0, 10); got != Bad {
		t.Errorf("depth 11 with a bound of 10: got %d, want Bad", got)
	}
	if got := EndValue(deep, 0, 11); got != len(deep) {
		t.Errorf("depth 11 with a bound of 11: got %d, want %d", got, len(deep))
	}
}
