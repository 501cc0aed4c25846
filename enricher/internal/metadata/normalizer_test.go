package metadata

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// types returns a registry with keys of the app "a": "properties.k integer", or
// "properties.k integer pinned".
func types(entries ...string) *Registry {
	r := NewRegistry()
	for i, e := range entries {
		path, name, _ := strings.Cut(e, " ")
		name, pinned := strings.CutSuffix(name, " pinned")
		typ, err := ParseType(name)
		if err != nil {
			panic(err)
		}
		r.Apply(Change{Key: Key{"a", path}, Offset: int64(i), Entry: Entry{Type: typ, Pinned: pinned}})
	}
	return r
}

// next returns an offset behind all that were applied.
func (r *Registry) next() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	last := int64(-1)
	for _, o := range r.offsets {
		last = max(last, o)
	}
	return last + 1
}

// run normalizes properties; keys that are new are agreed on at once, as the
// first one proposes.
func run(t testing.TB, n *Normalizer, r *Registry, doc string) (out, conflicts string, err error) {
	t.Helper()
	for round := 0; ; round++ {
		n.Begin(r.View(), "a")
		b, err := n.Append([]byte("x"), Properties, []byte(doc))
		if err != nil {
			if string(b) != "x" {
				t.Fatalf("%q: an error left %q", doc, b)
			}
			return "", "", err
		}
		missing := n.Missing()
		if len(missing) == 0 {
			return string(b[1:]), string(n.AppendConflicts(nil)), nil
		}
		for i, p := range missing {
			if round > 0 || !r.View().takes(p) {
				t.Fatalf("%q: in round %d these keys are missing: %v", doc, round, missing)
			}
			r.Apply(Change{Key: p.Key, Offset: r.next() + int64(i), Entry: Entry{Type: p.Type}})
		}
	}
}

func TestNormalize(t *testing.T) {
	small := Limits{Keys: 4, Depth: 2, KeyBytes: 8, ValueBytes: 10, AppKeys: 100}
	all := DefaultLimits()
	for _, tc := range []struct {
		name      string
		limits    Limits
		types     []string
		doc       string
		out       string
		conflicts string
	}{
		{
			"first types", all, nil, ` {"a":1, "b" : 1.5,"c":"x","d":true,"e":null,"f":{"g":[1,null,2]},"h":[{"i":1},{"i":2}],"j":[],"k":{}} `,
			`{"a":1,"b":1.5,"c":"x","d":true,"e":null,"f":{"g":[1,null,2]},"h":[{"i":1},{"i":2}],"j":[],"k":{}}`, ``,
		},
		{"nothing", all, nil, ``, ``, ``},
		{"empty", all, nil, `{}`, `{}`, ``},
		{"dots at every depth", all, nil, `{"a.b":1,"c":{"d.e.f":2},"g":[{"h.i":3}]}`, `{"a_b":1,"c":{"d_e_f":2},"g":[{"h_i":3}]}`, ``},
		{"escaped dot", all, nil, `{"a\u002eb":1}`, `{"a_b":1}`, ``},
		{"collision: the key without dots stays", all, nil, `{"a.b":1,"a_b":2}`, `{"a_b":2}`, `{"properties.a.b":1}`},
		{"collision: in the other order too", all, nil, `{"a_b":2,"a.b":1}`, `{"a_b":2}`, `{"properties.a.b":1}`},
		{"collision: of two with dots the last stays", all, nil, `{"a.b_c":1,"a_b.c":2}`, `{"a_b_c":2}`, `{"properties.a.b_c":1}`},
		{
			"collision: many keys", all, nil, `{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m.x":1,"m_x":2,"m.x":3}`,
			`{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m_x":2}`, `{"properties.m.x":1,"properties.m.x#2":3}`,
		},
		{"twice: the last stays", all, nil, `{"a":1,"a":2,"a":3}`, `{"a":3}`, `{"properties.a":1,"properties.a#2":2}`},
		{"twice, in another spelling", all, nil, `{"a":1,"\u0061":2}`, `{"a":2}`, `{"properties.a":1}`},
		{"to integer", all, []string{"properties.i integer"}, `{"i":"12"}`, `{"i":12}`, ``},
		{"12.0 is an integer", all, []string{"properties.i integer"}, `{"i":12.0}`, `{"i":12}`, ``},
		{"1.2e3 is an integer", all, []string{"properties.i integer"}, `{"i":-1.2e3}`, `{"i":-1200}`, ``},
		{"12.5 widens", all, []string{"properties.i integer"}, `{"i":12.5}`, `{"i":12.5}`, ``},
		{"12.5 is none where a person said integer", all, []string{"properties.i integer pinned"}, `{"i":12.5}`, `{}`, `{"properties.i":12.5}`},
		{"text does not widen", all, []string{"properties.i integer"}, `{"i":"12.5"}`, `{}`, `{"properties.i":"12.5"}`},
		{"17 digits widen", all, []string{"properties.i integer"}, `{"i":4.9500000000000002}`, `{"i":4.95}`, ``},
		{"what no double holds does not widen", all, []string{"properties.i integer"}, `{"i":1e-400}`, `{}`, `{"properties.i":1e-400}`},
		{"nor what no column holds", all, []string{"properties.i integer"}, `{"i":18446744073709551616}`, `{}`, `{"properties.i":{"$raw":"18446744073709551616"}}`},
		{"elements widen together", all, nil, `{"l":[1,2.5,3],"m":[{"n":1},{"n":0.5}]}`, `{"l":[1.0,2.5,3.0],"m":[{"n":1.0},{"n":0.5}]}`, ``},
		{"an integer in a widened key that no double holds", all, []string{"properties.i float"}, `{"i":9007199254740993}`, `{}`, `{"properties.i":9007199254740993}`},
		{"a separator is no guess", all, []string{"properties.i integer"}, `{"i":"10,000"}`, `{}`, `{"properties.i":"10,000"}`},
		{"nor are zeros in front", all, []string{"properties.i integer"}, `{"i":"007"}`, `{}`, `{"properties.i":"007"}`},
		{"nor white space", all, []string{"properties.i integer"}, `{"i":" 7"}`, `{}`, `{"properties.i":" 7"}`},
		{"nor an empty text", all, []string{"properties.i integer"}, `{"i":""}`, `{}`, `{"properties.i":""}`},
		{"nor a bool", all, []string{"properties.i integer"}, `{"i":true}`, `{}`, `{"properties.i":true}`},
		{"beyond 53 bits", all, []string{"properties.i integer"}, `{"i":9007199254740993}`, `{"i":9007199254740993}`, ``},
		{"beyond 64 bits", all, []string{"properties.i integer"}, `{"i":9223372036854775808}`, `{}`, `{"properties.i":9223372036854775808}`},
		{"beyond all bits", all, []string{"properties.i integer"}, `{"i":18446744073709551616}`, `{}`, `{"properties.i":{"$raw":"18446744073709551616"}}`},
		{"as text", all, []string{"properties.i integer"}, `{"i":"9223372036854775807"}`, `{"i":9223372036854775807}`, ``},
		{"minus zero", all, []string{"properties.i integer"}, `{"i":-0}`, `{"i":0}`, ``},
		{"to string", all, []string{"properties.s string", "properties.t string"}, `{"s":12.50,"t":false}`, `{"s":"12.50","t":"false"}`, ``},
		{"object is no string", all, []string{"properties.s string"}, `{"s":{"a":1}}`, `{}`, `{"properties.s":{"a":1}}`},
		{"to float", all, []string{"properties.f float", "properties.g float"}, `{"f":12,"g":"1e3"}`, `{"f":12.0,"g":1e3}`, ``},
		{"a double has 53 bits", all, []string{"properties.f float"}, `{"f":9007199254740993}`, `{}`, `{"properties.f":9007199254740993}`},
		{"the nearest double", all, []string{"properties.f float"}, `{"f":0.12345678901234567890}`, `{"f":0.12345678901234568}`, ``},
		{"17 digits, as iOS and PHP write them", all, nil, `{"a":4.9500000000000002,"b":-99.989999999999995,"c":"4.9500000000000002"}`, `{"a":4.95,"b":-99.99,"c":"4.9500000000000002"}`, ``},
		{"17 digits as text", all, []string{"properties.f float"}, `{"f":"9.9900000000000002"}`, `{"f":9.99}`, ``},
		{"digits without end", all, []string{"properties.f float"}, `{"f":2.` + strings.Repeat("0", 100) + `,"g":[1.` + strings.Repeat("9", 100) + `e-3]}`, `{"f":2.0,"g":[0.002]}`, ``},
		{"17 digits and an exponent", all, []string{"properties.f float"}, `{"f":1.2300000000000001E+25,"g":0.0000000000000000e5}`, `{"f":1.23e+25,"g":0.0}`, ``},
		{"a fraction beyond 53 bits is the nearest double", all, []string{"properties.f float"}, `{"f":9007199254740993.0}`, `{"f":9.007199254740992e+15}`, ``},
		{"of an integer key too", all, []string{"properties.i integer", "properties.j integer"}, `{"i":9007199254740993.0,"j":1.23456789012345e17}`, `{"i":9007199254740992,"j":123456789012345000}`, ``},
		{"shortest forms survive", all, []string{"properties.f float"}, `{"f":0.30000000000000004}`, `{"f":0.30000000000000004}`, ``},
		{"too large for a double", all, []string{"properties.f float"}, `{"f":1e400}`, `{}`, `{"properties.f":{"$raw":"1e400"}}`},
		{"too small for a double", all, []string{"properties.f float"}, `{"f":1e-400}`, `{}`, `{"properties.f":1e-400}`},
		{"to bool", all, []string{"properties.b bool", "properties.c bool"}, `{"b":"true","c":"True"}`, `{"b":true}`, `{"properties.c":"True"}`},
		{"1 is no bool", all, []string{"properties.b bool"}, `{"b":1}`, `{}`, `{"properties.b":1}`},
		{"scalar where there was an object", all, []string{"properties.o object"}, `{"o":1,"p":{"o":1}}`, `{"p":{"o":1}}`, `{"properties.o":1}`},
		{"object where there was a scalar", all, []string{"properties.o integer"}, `{"o":{"b":2}}`, `{}`, `{"properties.o":{"b":2}}`},
		{"array with an element of another type", all, nil, `{"l":[1,"x"],"m":["a",1]}`, `{"m":["a","1"]}`, `{"properties.l":[1,"x"]}`},
		{"array of arrays", all, nil, `{"l":[[1],["2"],[]]}`, `{"l":[[1],[2],[]]}`, ``},
		{"array of objects, one with a conflict", all, nil, `{"l":[{"a":1},{"a":"x","b":1}]}`, `{"l":[{"a":1},{"b":1}]}`, `{"properties.l[1].a":"x"}`},
		{"all of an array goes, with conflicts in it", all, nil, `{"l":[{"a":1},{"a":"x"},5]}`, `{}`, `{"properties.l":[{"a":1},{"a":"x"},5]}`},
		{
			"number that no column holds, new key", all, nil, `{"n":1e400,"m":123456789012345678901}`, `{}`,
			`{"properties.n":{"$raw":"1e400"},"properties.m":{"$raw":"123456789012345678901"}}`,
		},
		{
			"half a surrogate pair", all, nil, `{"s":"\ud800","t":"\ud83d\ude00","u":{"\udc00":1}}`, `{"t":"\ud83d\ude00","u":{}}`,
			`{"properties.s":{"$raw":"\"\\ud800\""},"properties.u.` + "\uFFFD" + `":{"$raw":"\"\\udc00\":1"}}`,
		},
		{"half a pair deep in a conflict", all, []string{"properties.s string"}, `{"s":["\ud800"]}`, `{}`, `{"properties.s":{"$raw":"[\"\\ud800\"]"}}`},
		{
			"no UTF-8", all, nil, "{\"s\":\"a\xff\",\"k\xff\":1}", `{}`,
			`{"properties.s":{"$base64":"ImH/Ig=="},"properties.k` + "\uFFFD" + `":{"$base64":"Imv/Ijox"}}`,
		},
		{"key that means elements", all, nil, `{"[]":1,"a[]":2}`, `{"a[]":2}`, `{"properties.[]":1}`},
		{"too many keys", small, nil, `{"a":1,"b":2,"c":3,"d":4,"e": 5,"f":{"g":6}}`, `{"a":1,"b":2,"c":3,"d":4}`, `{"properties.*":{"e": 5,"f":{"g":6}}}`},
		{"too many keys within", small, nil, `{"a":1,"b":{"c":1,"d":2,"e":3},"f":1}`, `{"a":1,"b":{"c":1},"f":1}`, `{"properties.b.*":{"d":2,"e":3}}`},
		{"too many objects in an array", small, nil, `{"a":[{},{},{},{}]}`, `{}`, `{"properties.a":[{},{},{},{}]}`},
		{"too deep", small, nil, `{"a":{"b":{"c":1}},"d":[[1]]}`, `{"a":{}}`, `{"properties.a.b":{"c":1},"properties.d":[[1]]}`},
		{"too long a key", small, nil, `{"abcdefgh":1,"abcdefghi":2}`, `{"abcdefgh":1}`, `{"properties.abcdefghi":2}`},
		{"too long a value", small, nil, `{"a":"0123456789","b":"0123456789a"}`, `{"a":"0123456789"}`, `{"properties.b":"0123456789a"}`},
		{"control characters", all, nil, `{"a\u0000b":"c\u0001\n"}`, `{"a\u0000b":"c\u0001\n"}`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			out, conflicts, err := run(t, New(tc.limits), types(tc.types...), tc.doc)
			if err != nil {
				t.Fatal(err)
			}
			if out != tc.out {
				t.Errorf("properties: got %s, want %s", out, tc.out)
			}
			if conflicts != tc.conflicts {
				t.Errorf("conflicts: got %s, want %s", conflicts, tc.conflicts)
			}
		})
	}
}

func TestNotAnObject(t *testing.T) {
	n, r := New(DefaultLimits()), NewRegistry()
	for _, doc := range []string{
		`[]`, `1`, `null`, `{`, `{"a"}`, `{"a":1,}`, `{"a":01}`, `{"a":NaN}`, `{"a":1}x`, `{"a":1}{}`, `{"a":{"b":tru}}`, "{\"a\":\"\n\"}",
		`{"a":` + strings.Repeat("[", maxNesting+1) + strings.Repeat("]", maxNesting+1) + `}`,
	} {
		if out, _, err := run(t, n, r, doc); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.60q: got %s, %v, want ErrInvalid", doc, out, err)
		}
	}
}

func TestAppIsFull(t *testing.T) {
	limits := DefaultLimits()
	limits.AppKeys = 3
	r := types("properties.a integer", "properties.b integer")
	out, conflicts, err := run(t, New(limits), r, `{"a":1,"c":2,"d":3,"b":4}`)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":1,"c":2,"b":4}`; out != want {
		t.Errorf("got %s, want %s", out, want)
	}
	if want := `{"properties.d":3}`; conflicts != want {
		t.Errorf("conflicts: got %s, want %s", conflicts, want)
	}
	if got := r.View().Count("a"); got != 3 {
		t.Errorf("keys: got %d, want 3", got)
	}
}

func TestStats(t *testing.T) {
	limits := DefaultLimits()
	limits.Keys = 6
	n := New(limits)
	_, _, err := run(t, n, types("properties.i integer"), `{"i":"1","s":"x","s":"y","bad":1e999,"o":{"i":1},"x":1,"y":2}`)
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{Keys: 8, Converted: 1}
	want.Conflicts[ReasonDuplicate], want.Conflicts[ReasonText], want.Conflicts[ReasonLimit] = 1, 1, 2
	if got := n.Stats(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

var jsonNumber = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$`)

// canonical says what a scalar says, whatever type it is written in.
func canonical(v string) string {
	// A number with a fraction or an exponent is the nearest double.
	if jsonNumber.MatchString(v) && strings.ContainsAny(v, ".eE") {
		if f, err := strconv.ParseFloat(v, 64); err == nil && f != 0 {
			v = strconv.FormatFloat(f, 'e', -1, 64)
		}
	}
	if len(v) < 200 && jsonNumber.MatchString(v) {
		if mantissa, exp, ok := strings.Cut(strings.ToLower(v), "e"); ok && len(strings.TrimLeft(exp, "+-0")) > 3 {
			if strings.Trim(mantissa, "-0.") == "" {
				return "0"
			}
			return v // big.Rat would write it out
		}
		if r, ok := new(big.Rat).SetString(v); ok {
			return r.RatString()
		}
	}
	return v
}

// leaves lists what is in a document: scalars and empty objects and arrays, with
// the keys that lead to them. Members of one key twice are listed twice.
func leaves(t testing.TB, text string) []string {
	t.Helper()
	var out []string
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var value func()
	value = func() {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		switch v := tok.(type) {
		case json.Delim:
			empty := true
			for dec.More() {
				empty = false
				if v == '{' {
					key, err := dec.Token()
					if err != nil {
						t.Fatalf("%v in %q", err, text)
					}
					out = append(out, "key "+strings.ReplaceAll(key.(string), ".", "_"))
				}
				value()
			}
			if _, err := dec.Token(); err != nil {
				t.Fatalf("%v in %q", err, text)
			}
			if empty {
				out = append(out, fmt.Sprintf("%v", v))
			}
		case nil:
			out = append(out, "null")
		default:
			out = append(out, canonical(fmt.Sprint(v)))
		}
	}
	value()
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than a value: %q", text)
	}
	return out
}

// twice returns a key that an object of the text has twice, down to a depth:
// what is kept under conflicts may have one twice.
func twice(t testing.TB, text string, depth int) string {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	found := ""
	var value func(depth int)
	value = func(depth int) {
		tok, err := dec.Token()
		if err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		d, ok := tok.(json.Delim)
		if !ok {
			return
		}
		seen := map[string]bool{}
		for dec.More() {
			if d == '{' {
				key, _ := dec.Token()
				if seen[key.(string)] && depth > 0 {
					found = key.(string)
				}
				seen[key.(string)] = true
			}
			value(depth - 1)
		}
		_, _ = dec.Token()
	}
	value(depth)
	return found
}

// conserve holds that what went in is in the columns or in conflicts.
func conserve(t testing.TB, doc, out, conflicts string) {
	t.Helper()
	if !utf8.ValidString(out) || !utf8.ValidString(conflicts) {
		t.Fatalf("%q: got no UTF-8: %q, %q", doc, out, conflicts)
	}
	if k := twice(t, out, maxNesting); k != "" {
		t.Fatalf("%q: key %q is twice in %s", doc, k, out)
	}
	got := leaves(t, out)
	// Objects and arrays that were emptied because all in them went to
	// conflicts are empty now, and were not.
	lost := func(list []string) []string {
		return slices.DeleteFunc(list, func(s string) bool { return s == "{" || s == "[" })
	}
	if conflicts != "" {
		if k := twice(t, conflicts, 1); k != "" {
			t.Fatalf("%q: key %q is twice in conflicts %s", doc, k, conflicts)
		}
		var kept map[string]json.RawMessage
		if err := json.Unmarshal([]byte(conflicts), &kept); err != nil {
			t.Fatalf("%q: conflicts %s: %v", doc, conflicts, err)
		}
		for _, raw := range kept {
			var special map[string]string
			if json.Unmarshal(raw, &special) == nil && len(special) == 1 {
				text, isRaw := special["$raw"]
				if b64, ok := special["$base64"]; ok {
					b, err := base64.StdEncoding.DecodeString(b64)
					if err != nil {
						t.Fatal(err)
					}
					text, isRaw = string(b), true
				}
				if isRaw {
					if json.Valid([]byte(text)) {
						got = append(got, leaves(t, text)...)
						raw = nil
					} else if json.Valid([]byte("{" + text + "}")) { // a member whose key is no text
						got = append(got, leaves(t, "{"+text+"}")...)
						continue
					} else {
						t.Fatalf("%q: kept %q is no JSON", doc, text)
					}
				}
			}
			if raw != nil {
				got = append(got, leaves(t, string(raw))...)
			}
		}
	}
	// Keys: each one of the document is in the columns, in a kept value, or
	// the last part of a path in conflicts; values say more, so those are held
	// exactly.
	onlyValues := func(list []string) []string {
		return slices.DeleteFunc(lost(list), func(s string) bool { return strings.HasPrefix(s, "key ") })
	}
	want := onlyValues(leaves(t, doc))
	got = onlyValues(got)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Fatalf("%q: got %q and conflicts %q\nvalues got  %q\nvalues want %q", doc, out, conflicts, got, want)
	}
}

func FuzzNothingIsLost(f *testing.F) {
	for _, s := range []string{
		`{"a":1,"b":{"c":[1,2,{"d":"x"}]},"a.b":2,"a_b":3}`, `{"i":"12","s":12,"f":1,"b":"true","o":1,"l":{}}`,
		`{"i":1e2,"f":"1.5e300","s":[1,[2,"3"]],"o":{"x.y":1,"x_y":2,"x.y":3}}`, `{"i":9007199254740993,"f":9007199254740993,"z":1e999}`,
		"{\"a\":\"\xff\",\"\xfe\":\"\\ud800\"}", `{"a":{"a":{"a":{"a":{"a":1}}}}}`, `{"l":[1,2,"x"],"m":[{"a":1},{"a":[]}]}`,
		`{"k":1,"k":2,"k#2":3,"\u006b":4}`, `{"a":-0,"b":-0.0,"c":0e5,"i":"-0"}`, strings.Repeat(`{"a":[`, 30) + strings.Repeat(`]}`, 30),
		"{\"a\":[1,\"\xff\"],\"\xc3\":{\"b\":1},\"a\":\"\xfe\"}", `{"i":12.5,"l":[1,2.5],"f":"NaN"}`,
		`{"":{"":0,"":0}}`,
		`{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1,"10":1,"11":1,"12":1,"13":1,"13":2,"1.3":4,"1_3":4}`,
	} {
		f.Add([]byte(s))
	}
	narrow := Limits{Keys: 14, Depth: 3, KeyBytes: 6, ValueBytes: 8, AppKeys: 12}
	known := []string{"properties.i integer", "properties.f float", "properties.s string", "properties.b bool", "properties.o object", "properties.l array", "properties.l.[] integer"}
	wide, tight := New(DefaultLimits()), New(narrow)
	f.Fuzz(func(t *testing.T, doc []byte) {
		valid := bytes.HasPrefix(bytes.TrimLeft(doc, " \t\r\n"), []byte("{")) && json.Valid(doc) && nesting(doc) <= maxNesting
		for _, n := range []*Normalizer{wide, tight} {
			r := types(known...)
			out, conflicts, err := run(t, n, r, string(doc))
			bothWays(t, n, r.View(), "a", string(doc))
			if len(bytes.TrimLeft(doc, " \t\r\n")) == 0 {
				continue
			}
			if (err == nil) != valid {
				t.Fatalf("%q: got %v, valid is %v", doc, err, valid)
			}
			if err != nil {
				continue
			}
			if nesting([]byte(out)) > n.limits.Depth {
				t.Fatalf("%q: %s is deeper than %d", doc, out, n.limits.Depth)
			}
			if utf8.Valid(doc) && !loneInside(doc) {
				conserve(t, string(doc), out, conflicts)
			} else if keepsBytes(t, doc, conflicts); !json.Valid([]byte(out)) || (conflicts != "" && !json.Valid([]byte(conflicts))) || !utf8.ValidString(out+conflicts) {
				t.Fatalf("%q: got %q, %q", doc, out, conflicts)
			}
		}
	})
}

// keepsBytes holds that of an object whose text no column takes every member of
// its own that is no UTF-8 is in conflicts, to the byte. Objects go there by their
// own members, also those in arrays.
func keepsBytes(t testing.TB, doc []byte, conflicts string) {
	t.Helper()
	i := rawjson.Space(doc, rawjson.Space(doc, 0)+1)
	for keys := 0; i < len(doc) && doc[i] == '"'; keys++ {
		if keys >= 14 { // more than the narrower limit: they stand there together
			return
		}
		keyEnd, _ := rawjson.EndString(doc, i)
		v := rawjson.Colon(doc, keyEnd)
		end := rawjson.EndValue(doc, v, maxNesting)
		want := doc[v:end]
		if !utf8.Valid(doc[i:keyEnd]) {
			want = doc[i:end]
		} else if bytes.IndexByte(want, '{') >= 0 {
			want = nil
		}
		if !utf8.Valid(want) && !strings.Contains(conflicts, `"$base64":"`+base64.StdEncoding.EncodeToString(want)+`"`) {
			t.Fatalf("%q: %q is not in conflicts %s", doc, want, conflicts)
		}
		next, more := rawjson.Next(doc, end, '}')
		if !more {
			return
		}
		i = next
	}
}

// TestNothingIsLostOfExtremes puts in what fuzzing would take long to come to.
func TestNothingIsLostOfExtremes(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	nest := func(depth int, open, inner, end string) string {
		return strings.Repeat(open, depth) + inner + strings.Repeat(end, depth)
	}
	var wide, same strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&wide, `"k%d":%d,`, i, i)
		fmt.Fprintf(&same, `"a.b":%d,"a_b":"%d",`, i, i)
	}
	for name, doc := range map[string]string{
		"wide":               "{" + wide.String() + `"last":1}`,
		"wide below":         `{"o":{` + wide.String() + `"last":1},"after":true}`,
		"one key over":       "{" + same.String() + `"a.b":null}`,
		"deep objects":       nest(maxNesting, `{"a":`, "1", "}"),
		"deep arrays":        `{"l":` + nest(maxNesting-1, "[", "1", "]") + "}",
		"huge text":          `{"t":"` + long + `","n":1}`,
		"huge key":           `{"` + long + `":1}`,
		"huge number":        `{"n":` + strings.Repeat("9", 1<<16) + `,"i":-` + strings.Repeat("9", 1<<16) + `,"f":0.` + strings.Repeat("3", 1<<16) + `,"z":1e-999999999999}`,
		"around 2^53":        `{"a":9007199254740991,"b":9007199254740992,"i":9007199254740993,"f":9007199254740993,"s":9007199254740993,"c":9007199254740993.5}`,
		"around 2^63":        `{"a":9223372036854775807,"b":9223372036854775808,"c":-9223372036854775808,"d":-9223372036854775809,"e":18446744073709551616}`,
		"texts of no number": `{"i":"NaN","f":"Infinity","a":"-nan","b":{"f":"NaN"}}`,
		"long array":         `{"l":[` + strings.TrimSuffix(strings.Repeat("1,", 100_000), ",") + `]}`,
		"long mixed array":   `{"l":[` + strings.Repeat("1,", 100_000) + `"x"]}`,
	} {
		for _, limits := range []Limits{DefaultLimits(), {Keys: 14, Depth: 3, KeyBytes: 6, ValueBytes: 8, AppKeys: 12}} {
			out, conflicts, err := run(t, New(limits), types("properties.i integer", "properties.f float", "properties.s string"), doc)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			conserve(t, doc, out, conflicts)
		}
	}
	// What is no JSON is an error, upon which the event is rejected with its bytes.
	for _, doc := range []string{`{"a":NaN}`, `{"a":-Infinity}`, `{"a":0x10}`, `{"a":01}`, nest(maxNesting+1, `{"a":`, "1", "}"), "{\"a\":\"x\ny\"}"} {
		if _, _, err := run(t, New(DefaultLimits()), NewRegistry(), doc); !errors.Is(err, ErrInvalid) {
			t.Errorf("%.40q: got %v, want ErrInvalid", doc, err)
		}
	}
	bad := "{\"a\":\"\xff\xfe\",\"\xc3\":1,\"l\":[1,\"\x80\"],\"o\":{\"p\":\"\xed\xa0\x80\"}}"
	_, conflicts, err := run(t, New(DefaultLimits()), NewRegistry(), bad)
	if err != nil {
		t.Fatal(err)
	}
	keepsBytes(t, []byte(bad), conflicts)
	if want := base64.StdEncoding.EncodeToString([]byte("\"\xed\xa0\x80\"")); !strings.Contains(conflicts, want) {
		t.Errorf("a value below: got conflicts %s, want %s in it", conflicts, want)
	}
}

var escapes = regexp.MustCompile(`\\(?:u[0-9a-fA-F]{4}|.)`)

// loneInside says that a valid document has half a surrogate pair, which the reader
// of leaves would replace.
func loneInside(doc []byte) bool {
	high := -1 // the end of the first half of a pair
	for _, at := range escapes.FindAllIndex(doc, -1) {
		r := rune(0)
		if doc[at[0]+1] == 'u' {
			n, _ := strconv.ParseUint(string(doc[at[0]+2:at[1]]), 16, 32)
			r = rune(n)
		}
		low := r >= 0xDC00 && r <= 0xDFFF
		if low != (high >= 0) || (low && high != at[0]) {
			return true
		}
		high = -1
		if r >= 0xD800 && r <= 0xDBFF {
			high = at[1]
		}
	}
	return high >= 0
}

func nesting(doc []byte) int {
	most, now := 0, 0
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '"':
			end, _ := rawjson.EndString(doc, i)
			if end == rawjson.Bad {
				return most
			}
			i = end - 1
		case '{', '[':
			now++
			most = max(most, now)
		case '}', ']':
			now--
		}
	}
	return most
}

func TestLoneSurrogate(t *testing.T) {
	for s, want := range map[string]bool{
		`"\ud800"`: true, `"\udfff"`: true, `"\uDBFF\uDC00"`: false, `"\ud83d\ude00"`: false, `"\ud83dx"`: true, `"\\ud800"`: false,
		`"\ud83d\ud83d\ude00"`: true, `"\u0d80\ue000"`: false, `"\ud7ff"`: false, `"\n\ud800"`: true,
	} {
		if got := loneSurrogate([]byte(s)); got != want {
			t.Errorf("loneSurrogate(%s): got %v, want %v", s, got, want)
		}
	}
}

// wideDoc has so many properties of the usual kinds.
func wideDoc(keys int) string {
	var b strings.Builder
	b.WriteString(`{"order.id":"o-48213"`)
	for i := 1; i < keys; i++ {
		switch i % 5 {
		case 0:
			fmt.Fprintf(&b, `,"amount_%d":%d.5`, i, i)
		case 1:
			fmt.Fprintf(&b, `,"count_%d":%d`, i, i)
		case 2:
			fmt.Fprintf(&b, `,"flag_%d":true`, i)
		default:
			fmt.Fprintf(&b, `,"label_%d":"some text of the usual length %d"`, i, i)
		}
	}
	return b.String() + "}"
}

func TestNormalizerDoesNotAllocate(t *testing.T) {
	n, r := New(DefaultLimits()), NewRegistry()
	doc := []byte(wideDoc(200))
	if _, _, err := run(t, n, r, string(doc)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, 2*len(doc))
	view := r.View()
	if got := testing.AllocsPerRun(100, func() {
		n.Begin(view, "a")
		if _, err := n.Append(buf, Properties, doc); err != nil {
			t.Fatal(err)
		}
	}); got != 0 {
		t.Errorf("got %v allocations, want 0", got)
	}
}

func BenchmarkNormalize(b *testing.B) {
	for _, tc := range []struct{ name, doc string }{
		{"keys=10", wideDoc(10)},
		{"keys=200", wideDoc(200)},
		{"keys=10/conflicts=3", strings.Replace(wideDoc(10), `{`, `{"n":"x","m":"10,000","o":[1],`, 1)},
		{"keys=10/last=conflict", strings.TrimSuffix(wideDoc(10), "}") + `,"n":"x"}`},
		{"nested", `{"cart":{"id":"c-1","lines":[{"sku":"4006381333931","n":2,"price":1.5},{"sku":"4006381333948","n":1,"price":20.25}]},"shop":{"id":"s1","city":"Graz"}}`},
	} {
		b.Run(tc.name, func(b *testing.B) {
			n, r := New(DefaultLimits()), types("properties.n integer", "properties.m integer", "properties.o integer")
			if _, _, err := run(b, n, r, tc.doc); err != nil {
				b.Fatal(err)
			}
			view, doc, buf := r.View(), []byte(tc.doc), make([]byte, 0, 2*len(tc.doc))
			b.SetBytes(int64(len(doc)))
			b.ReportAllocs()
			for b.Loop() {
				n.Begin(view, "a")
				if _, err := n.Append(buf, Properties, doc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
