package catalog

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// flat wraps features in one module of one product.
func flat(features string) string {
	return "catalog: t\nproducts:\n- name: P\n  modules:\n  - name: M\n    features:\n" + features
}

func TestPrecedence(t *testing.T) {
	for _, tc := range []struct {
		name     string
		features string
		kind     string
		event    string
		props    string
		want     string
	}{
		{"priority before class", `
    - {name: A, events: [E]}
    - {name: B, events: [], rules: [{path: /x, priority: 1}]}`, "page", "E", `{"path":"/x"}`, "b"},
		{"priority below exact", `
    - {name: A, events: [], rules: [{event: E, where: [{property: k, equals: v}], priority: -1}]}
    - {name: B, events: [E]}`, "track", "E", `{"k":"v"}`, "b"},
		{"rule that names the event before exact name", `
    - {name: A, events: [E]}
    - {name: B, events: [], rules: [{event: E, where: [{property: k, equals: v}]}]}`, "track", "E", `{"k":"v"}`, "b"},
		{"exact name where that rule does not fit", `
    - {name: A, events: [E]}
    - {name: B, events: [], rules: [{event: E, where: [{property: k, equals: v}]}]}`, "track", "E", `{"k":"w"}`, "a"},
		{"exact name before path", `
    - {name: A, events: [], rules: [{path: /x}]}
    - {name: B, events: [E]}`, "page", "E", `{"path":"/x"}`, "b"},
		{"path before any other rule", `
    - {name: A, events: [], rules: [{kind: page, where: [{property: k, equals: v}, {property: l, exists: true}]}]}
    - {name: B, events: [], rules: [{path: /**}]}`, "page", "E", `{"path":"/x","k":"v","l":1}`, "b"},
		{"more literal segments", `
    - {name: A, events: [], rules: [{path: "/a/*/*"}]}
    - {name: B, events: [], rules: [{path: "/a/{id}/edit"}]}`, "page", "", `{"path":"/a/1/edit"}`, "b"},
		{"closed before open", `
    - {name: A, events: [], rules: [{path: /a/**}]}
    - {name: B, events: [], rules: [{path: /a/*}]}`, "page", "", `{"path":"/a/1"}`, "b"},
		{"more conditions", `
    - {name: A, events: [], rules: [{route: /a}]}
    - {name: B, events: [], rules: [{route: /a, method: post}]}`, "api_call", "", `{"route":"/a","method":"POST"}`, "b"},
		{"earlier in the catalog", `
    - {name: B, events: [], rules: [{where: [{property: k, exists: true}]}]}
    - {name: A, events: [], rules: [{where: [{property: l, exists: true}]}]}`, "track", "", `{"k":1,"l":1}`, "b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := Compile(mustParse(t, flat(tc.features)))
			if got, _ := m.Match(tc.kind, tc.event, []byte(tc.props), nil); got.FeatureID != tc.want {
				t.Errorf("got %q, want %q", got.FeatureID, tc.want)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	for _, tc := range []struct {
		rule, kind, event, props, context string
		want                              bool
	}{
		{`{path: "/items/*"}`, "page", "", `{"url":"https://shop.example/items/7/?q=1#top"}`, "", true},
		{`{path: "/items/*"}`, "page", "", `{"path":"\/items\/7"}`, "", true},
		{`{path: "/items/*"}`, "page", "", `{"path":"/items"}`, "", false},
		{`{path: "/items/**"}`, "page", "", `{"path":"/items"}`, "", true},
		{`{path: "/items/**"}`, "page", "", ``, `{"page":{"path":"/items/a/b/c"}}`, true},
		{`{path: /}`, "page", "", `{"url":"https://shop.example"}`, "", true},
		{`{path: "/**"}`, "page", "", `{}`, "", false},
		{`{path: /a}`, "track", "", `{"path":"/a"}`, "", false},
		{`{path: /a, kind: track}`, "track", "", `{"path":"/a"}`, "", true},
		{`{path: /go/to}`, "page", "", `{"path":"/go/to?u=https://x.example/y"}`, "", true},
		{`{method: get, route: "/v1/items/{id}"}`, "api_call", "GET /v1/items/9", ``, "", true},
		{`{method: get, route: "/v1/items/{id}"}`, "api_call", "POST /v1/items/9", ``, "", false},
		{`{method: get, route: "/v1/items/{id}"}`, "api_call", "", `{}`, `{"request":{"verb":"get","uri":"https://a.example/v1/items/9?x"}}`, true},
		{`{method: delete}`, "api_call", "", `{"method":"DELETE"}`, "", true},
		{`{event: E, path: /a}`, "page", "E", `{"path":"/a"}`, "", true},
		{`{event: E, path: /a}`, "page", "E", `{"path":"/a/b"}`, "", false},
		{`{event: E, path: /a}`, "page", "F", `{"path":"/a"}`, "", false},
		{`{kind: screen, event: E}`, "page", "E", ``, "", false},
		{`{where: [{property: n, equals: 12}]}`, "track", "", `{"n":12.0}`, "", true},
		{`{where: [{property: n, equals: 12.0}]}`, "track", "", `{"n":"12"}`, "", true},
		{`{where: [{property: n, equals: "12.0"}]}`, "track", "", `{"n":12}`, "", false},
		{`{where: [{property: n, equals: 0.5}]}`, "track", "", `{"n":5e-1}`, "", true},
		{`{where: [{property: n, equals: 9007199254740993}]}`, "track", "", `{"n":9007199254740992}`, "", false},
		{`{where: [{property: n, equals: 4.95}]}`, "track", "", `{"n":4.9500000000000002}`, "", true},
		{`{where: [{property: n, in: [9.9900000000000002]}]}`, "track", "", `{"n":9.99}`, "", true},
		{`{where: [{property: n, lte: 99.99, gte: 99.99}]}`, "track", "", `{"n":99.989999999999995}`, "", true},
		{`{where: [{property: b, equals: true}]}`, "track", "", `{"b":true}`, "", true},
		{`{where: [{property: s, equals: "ä\"b"}]}`, "track", "", `{"s":"\u00e4\"b"}`, "", true},
		{`{where: [{property: a.b.c, in: [x, y]}]}`, "track", "", `{"a":{"z":{"c":"x"},"b":{"c":"y"}}}`, "", true},
		{`{where: [{property: a.b.c, in: [x, y]}]}`, "track", "", `{"a":{"b":"y"}}`, "", false},
		{`{where: [{property: a, exists: true}]}`, "track", "", `{"a":{"b":1}}`, "", true},
		{`{where: [{property: a, exists: true}]}`, "track", "", `{"a":null}`, "", false},
		{`{where: [{property: a, exists: false}]}`, "track", "", `{"b":1}`, "", true},
		{`{where: [{property: a, not_equals: x}]}`, "track", "", `{"b":1}`, "", true},
		{`{where: [{property: a, not_in: [x, y]}]}`, "track", "", `{"a":"y"}`, "", false},
		{`{where: [{property: a, gte: 10, lt: 20}]}`, "track", "", `{"a":"10"}`, "", true},
		{`{where: [{property: a, gte: 10, lt: 20}]}`, "track", "", `{"a":20}`, "", false},
		{`{where: [{property: a, gt: 10}]}`, "track", "", `{"a":"many"}`, "", false},
		{`{where: [{property: a, lte: 10}]}`, "track", "", `{}`, "", false},
		{`{where: [{property: a, prefix: re, suffix: nd, contains: fu}]}`, "track", "", `{"a":"refund"}`, "", true},
		{`{where: [{property: a, prefix: re}]}`, "track", "", `{"a":"undo"}`, "", false},
		{`{where: [{context: library.name, equals: web}]}`, "track", "", `{"library":{"name":"web"}}`, `{"library":{"name":"ios"}}`, false},
		{`{where: [{context: library.name, equals: web}]}`, "track", "", ``, `{"library":{"name":"web"}}`, true},
		{`{where: [{property: a, equals: 1}, {property: b, equals: 2}]}`, "track", "", `{"a":1,"b":3}`, "", false},
		{`{where: [{property: a, equals: 1}]}`, "track", "", `{"a":1`, "", true},
		{`{where: [{property: n, equals: 12}]}`, "track", "", `{"n":1.2e1}`, "", true},
		{`{where: [{property: n, equals: 12}]}`, "track", "", `{"n":"12"}`, "", true},
		{`{where: [{property: n, in: ["12"]}]}`, "track", "", `{"n":12.0}`, "", true},
		{`{where: [{property: n, prefix: "12"}]}`, "track", "", `{"n":1.25e1}`, "", true},
		{`{where: [{property: a, contains: "\n"}]}`, "track", "", `{"a":"x\ny"}`, "", true},
		{`{where: [{property: a, contains: "\n"}]}`, "track", "", `{"a":"xy"}`, "", false},
		{`{where: [{property: a, suffix: "d\n"}]}`, "track", "", `{"a":"end"}`, "", false},
		{`{event: "E\n", where: [{property: a, exists: true}]}`, "track", "E\n", `{"a":1}`, "", true},
		// Keys as the sender wrote them: docs/metadata.md.
		{`{where: [{property: a_b, equals: 1}]}`, "track", "", `{"a.b":1}`, "", true},
		{`{where: [{property: a_b, equals: 1}]}`, "track", "", `{"a\u002eb":1}`, "", true},
		{`{where: [{property: a_b, equals: 1}]}`, "track", "", `{"a_b":1,"a.b":2}`, "", true},
		{`{where: [{property: a_b, equals: 1}]}`, "track", "", `{"a.b":2,"a_b":1}`, "", true},
		{`{where: [{property: a_b, equals: 1}]}`, "track", "", `{"a.b":2,"a.b":1}`, "", true},
		{`{where: [{property: a, equals: 1}]}`, "track", "", `{"a":2,"a":1}`, "", true},
		{`{where: [{property: a_b.c, exists: true}]}`, "track", "", `{"a.b":{"c":1},"a_b":{"d":1}}`, "", false},
		{`{where: [{property: a_b.c, exists: true}]}`, "track", "", `{"a_b":{"c":1},"a.b":{"d":1}}`, "", true},
		{`{where: [{property: a.b, exists: true}]}`, "track", "", `{"a":{"b":1},"a":2}`, "", false},
		{`{where: [{property: a.b_c, equals: 1}, {property: a.d, exists: false}]}`, "track", "", `{"a":{"b_c":0,"d":1},"a":{"b.c":1}}`, "", true},
		// What leaves no trace in columns is not there.
		{`{where: [{property: a, exists: true}]}`, "track", "", `{"a":{}}`, "", false},
		{`{where: [{property: a, exists: false}]}`, "track", "", `{"a": { "b" : { } , "c" : null } }`, "", true},
		{`{where: [{property: a, exists: true}]}`, "track", "", `{"a":{"b":{},"c":[]}}`, "", true},
		{`{where: [{property: a, exists: true}]}`, "track", "", `{"a":""}`, "", true},
		{`{where: [{property: b, equals: 1}]}`, "track", "", `{"a":1,,"b":1}`, "", false},
	} {
		c := mustParse(t, flat("    - {name: F, events: [], rules: ["+tc.rule+"]}"))
		_, got := Compile(c).Match(tc.kind, tc.event, []byte(tc.props), []byte(tc.context))
		if got != tc.want {
			t.Errorf("%s, %s %q %s %s: got %v, want %v", tc.rule, tc.kind, tc.event, tc.props, tc.context, got, tc.want)
		}
	}
}

// A text with one escape in it, such as every stack trace, is as long as it is.
func TestLongTextsWithEscapes(t *testing.T) {
	for _, size := range []int{10, 250, 255, 256, 257, 1530, 1538, 1600, 60_000} {
		body := strings.Repeat("x", size)
		props := []byte(`{"a":"` + "head\\n" + body + `tail","b":"\u00e4` + body + `"}`)
		for rule, want := range map[string]bool{
			`{property: a, prefix: "head\nx"}`:                               true,
			`{property: a, suffix: xtail}`:                                   true,
			`{property: a, contains: "d\nxx"}`:                               true,
			`{property: a, contains: "dxx"}`:                                 false,
			`{property: a, prefix: head, suffix: tail, not_equals: head}`:    true,
			`{property: a, gt: 1}`:                                           false,
			`{property: a, equals: head}`:                                    false,
			`{property: b, prefix: ä, suffix: x}`:                            true,
			`{property: a, contains: tail}, {property: b, prefix: äx}`:       true,
			`{property: a, contains: tail}, {property: b, contains: "tail"}`: false,
		} {
			m := Compile(mustParse(t, flat("    - {name: F, events: [], rules: [{where: ["+rule+"]}]}")))
			if _, got := m.Match("track", "E", props, nil); got != want {
				t.Errorf("%s, text of %d bytes: got %v, want %v", rule, size, got, want)
			}
		}
	}
}

// slow is what docs/catalog.md says, carried out word by word.
func slow(all []*candidate, mappings []Mapping, kind, event string, props map[string]any) Mapping {
	text := func(v any) (string, bool) {
		switch v := v.(type) {
		case string:
			return v, true
		case json.Number:
			if f, _ := v.Float64(); f == float64(int64(f)) {
				return strconv.FormatInt(int64(f), 10), true
			}
			return v.String(), true
		case bool:
			return strconv.FormatBool(v), true
		}
		return "", false
	}
	fits := func(r *Rule) bool {
		if (r.Kind != "" && r.Kind != kind) || (r.Event != "" && r.Event != event) {
			return false
		}
		if r.Method != "" {
			if s, _ := props["method"].(string); s != r.Method {
				return false
			}
		}
		if pattern := r.Path + r.Route; pattern != "" {
			raw, ok := props["path"].(string)
			if !ok {
				return false
			}
			u, err := url.Parse(raw)
			if err != nil {
				return false
			}
			got := strings.FieldsFunc(u.Path, func(c rune) bool { return c == '/' })
			want := strings.FieldsFunc(pattern, func(c rune) bool { return c == '/' })
			for i, w := range want {
				if w == "**" {
					got = got[:i]
					want = want[:i]
					break
				}
				if i >= len(got) || (w != "*" && w != got[i]) {
					return false
				}
			}
			if len(got) != len(want) {
				return false
			}
		}
		for _, p := range r.Where {
			var v any = props
			for _, part := range strings.Split(p.Property, ".") {
				o, _ := v.(map[string]any)
				v = o[part]
			}
			s, ok := text(v)
			if (p.Equals != nil && (!ok || s != *p.Equals)) || (len(p.In) > 0 && (!ok || !slices.Contains(p.In, s))) ||
				(p.Exists != nil && *p.Exists != (v != nil)) || !strings.HasPrefix(s, p.Prefix) {
				return false
			}
		}
		return true
	}
	for _, c := range all {
		if c.rule == nil && c.name == event || c.rule != nil && fits(c.rule) {
			return mappings[c.mapping]
		}
	}
	return Mapping{}
}

// TestAgainstSlowMatcher holds the indexed matcher against one that tries every
// name and rule in the order of the written rule.
func TestAgainstSlowMatcher(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, seed))
	pick := func(from ...string) string { return from[rnd.IntN(len(from))] }
	pattern := func() string {
		var s strings.Builder
		for range 1 + rnd.IntN(3) {
			s.WriteString("/" + pick("a", "b", "*"))
		}
		return s.String() + pick("", "", "/**")
	}
	ptr := func(s string) *string { return &s }
	matched := 0
	for round := range 60 {
		c := &Catalog{Name: "t", Products: []Product{{ID: "p", Name: "P", Status: StatusActive, Modules: []Module{{ID: "m", Name: "M", Status: StatusActive}}}}}
		m := &c.Products[0].Modules[0]
		for i := range 1 + rnd.IntN(40) {
			f := Feature{ID: fmt.Sprintf("f%d", i), Name: "F", Kind: KindCore, Status: StatusActive}
			if rnd.IntN(4) == 0 {
				f.Names = []string{fmt.Sprintf("e%d", i)}
			}
			for range 1 + rnd.IntN(2) {
				r := Rule{Priority: rnd.IntN(3) - 1}
				switch rnd.IntN(4) {
				case 0:
					r.Event = fmt.Sprintf("e%d", rnd.IntN(20))
				case 1:
					r.Kind, r.Path = "page", pattern()
				case 2:
					r.Kind, r.Route = "api_call", pattern()
					if rnd.IntN(2) == 0 {
						r.Method = pick("GET", "PUT")
					}
				}
				for range rnd.IntN(3) {
					p := Predicate{Property: pick("k", "l", "o.k", "o.o.l")}
					switch rnd.IntN(4) {
					case 0:
						p.Equals = ptr(pick("1", "x", "true"))
					case 1:
						p.In = []string{pick("1", "2"), pick("x", "y", "1")}
					case 2:
						yes := rnd.IntN(2) == 0
						p.Exists = &yes
					default:
						p.Prefix = "x"
					}
					r.Where = append(r.Where, p)
				}
				if r.Event == "" && r.Path == "" && r.Route == "" && r.Method == "" && len(r.Where) == 0 {
					r.Event = "e1"
				}
				f.Rules = append(f.Rules, r)
			}
			m.Features = append(m.Features, f)
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		fast := Compile(c)
		all, mappings := candidates(c)
		for range 200 {
			value := func() string { return pick("1", "1.0", "2", `"x"`, `"xy"`, `"1"`, "true", "null", `{"k":1}`) }
			doc := fmt.Sprintf(`{"k":%s,"path":"/%s/%s%s","method":"%s","o":{"k":%s,"o":{"l":%s}},"l":%s}`,
				value(), pick("a", "b", "c"), pick("a", "b"), pick("", "/a", "/b/a", "/"), pick("GET", "PUT"), value(), value(), value())
			kind, event := pick("track", "page", "screen", "api_call"), fmt.Sprintf("e%d", rnd.IntN(40))
			dec := json.NewDecoder(strings.NewReader(doc))
			dec.UseNumber()
			var props map[string]any
			if err := dec.Decode(&props); err != nil {
				t.Fatal(err)
			}
			want := slow(all, mappings, kind, event, props)
			got, ok := fast.Match(kind, event, []byte(doc), nil)
			if got != want || ok != (want != Mapping{}) {
				text, _ := json.Marshal(c)
				t.Fatalf("seed %d round %d: %s %q %s: got %v, want %v in %s", seed, round, kind, event, doc, got, want, text)
			}
			if ok {
				matched++
			}
		}
	}
	if matched < 3000 {
		t.Errorf("only %d of 12000 events matched: the test says little", matched)
	}
}

const benchProperties = `{"item_id":"4006381333931","button_id":"b17","total":129.5,"currency":"EUR","path":"/shop/s3/items/42/edit",` +
	`"cart":{"lines":3,"coupon":"SPRING"},"cashier":"c-12","register":"r-3","url":"https://pos.example/shop/s3/items/42/edit?tab=1","loyal":true}`

// benchContext is what an SDK in a browser says of the page.
const benchContext = `{"page":{"path":"/shop/s3/items/42/edit","referrer":"https://pos.example/shop/s3","search":"?tab=1","title":"Espresso beans","url":"https://pos.example/shop/s3/items/42/edit?tab=1"},` +
	`"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36","locale":"en-GB","library":{"name":"analytics.js","version":"next-1.70.0"},"timezone":"Europe/London"}`

// bigCatalog has so many rules, a third by path, a third by route, a third by
// property.
func bigCatalog(names, rules int) *Catalog {
	c := &Catalog{Name: "t", Products: []Product{{ID: "p", Name: "P", Status: StatusActive, Modules: []Module{{ID: "m", Name: "M", Status: StatusActive}}}}}
	m := &c.Products[0].Modules[0]
	for i := range names {
		m.Features = append(m.Features, Feature{ID: fmt.Sprintf("n%d", i), Name: "N", Kind: KindCore, Status: StatusActive, Names: []string{fmt.Sprintf("Event %d", i)}})
	}
	for i := range rules {
		r := Rule{}
		switch i % 3 {
		case 0:
			r.Kind, r.Path = "page", fmt.Sprintf("/shop/*/items/*/a%d", i)
		case 1:
			r.Kind, r.Method, r.Route = "api_call", "POST", fmt.Sprintf("/v1/r%d/{id}", i)
		default:
			id := fmt.Sprintf("b%d", i)
			r.Event, r.Where = "Button Clicked", []Predicate{{Property: "button_id", Equals: &id}}
		}
		m.Features = append(m.Features, Feature{ID: fmt.Sprintf("r%d", i), Name: "R", Kind: KindCore, Status: StatusActive, Rules: []Rule{r}})
	}
	// The one that the benchmark's page matches.
	m.Features = append(m.Features, Feature{ID: "edit", Name: "R", Kind: KindCore, Status: StatusActive, Rules: []Rule{{Kind: "page", Path: "/shop/{shop}/items/{id}/edit"}}})
	return c
}

func TestMatchDoesNotAllocate(t *testing.T) {
	m := Compile(bigCatalog(100, 300))
	props := []byte(benchProperties)
	for _, tc := range []struct{ kind, event, want string }{
		{"track", "Event 7", "n7"},
		{"page", "Items", "edit"},
		{"track", "Button Clicked", "r17"},
		{"api_call", "POST /v1/r1/9", ""}, // its properties name another path
		{"track", "Unknown", ""},
	} {
		var got Mapping
		allocs := testing.AllocsPerRun(100, func() { got, _ = m.Match(tc.kind, tc.event, props, nil) })
		if got.FeatureID != tc.want || allocs != 0 {
			t.Errorf("%s %q: got %q with %v allocations, want %q with 0", tc.kind, tc.event, got.FeatureID, allocs, tc.want)
		}
	}
}

// TestWorstPatterns holds the work of patterns that all fit one path to the
// bound that Matcher states: no more nodes than there are patterns per segment.
func TestWorstPatterns(t *testing.T) {
	c := bigCatalog(0, 0)
	m := &c.Products[0].Modules[0]
	m.Features = nil
	for i := range 1000 {
		var p strings.Builder
		for bit := range 10 {
			if i&(1<<bit) == 0 {
				p.WriteString("/*")
			} else {
				p.WriteString("/a")
			}
		}
		m.Features = append(m.Features, Feature{ID: fmt.Sprintf("f%d", i), Name: "F", Kind: KindCore, Status: StatusActive, Rules: []Rule{{Kind: "page", Path: p.String()}}})
	}
	if err := c.Check(); err != nil {
		t.Fatal(err)
	}
	got, _ := Compile(c).Match("page", "", []byte(`{"path":"/a/a/a/a/a/a/a/a/a/a"}`), nil)
	if want := "f511"; got.FeatureID != want { // nine literals, the first in the catalog with so many
		t.Errorf("got %q, want %q", got.FeatureID, want)
	}
}

func BenchmarkMatch(b *testing.B) {
	props, context := []byte(benchProperties), []byte(benchContext)
	for _, size := range []struct{ names, rules int }{{100, 10}, {100, 1000}, {10_000, 1000}} {
		m := Compile(bigCatalog(size.names, size.rules))
		for _, tc := range []struct{ name, kind, event string }{
			{"exact", "track", "Event 7"},
			{"path", "page", "Items"},
			{"property", "track", "Button Clicked"},
			{"unmapped", "track", "Unknown"},
		} {
			b.Run(fmt.Sprintf("names=%d/rules=%d/%s", size.names, size.rules, tc.name), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(props) + len(context)))
				for b.Loop() {
					m.Match(tc.kind, tc.event, props, context)
				}
			})
		}
	}
}

func FuzzMatch(f *testing.F) {
	m := Compile(bigCatalog(10, 30))
	f.Add("page", "Items", []byte(benchProperties), []byte(`{"page":{"url":"x://y/z"}}`))
	f.Add("api_call", "POST /v1/r1/9", []byte(`{"method":"\u0050OST"}`), []byte(`{"request":{"uri":"://"}}`))
	f.Fuzz(func(_ *testing.T, kind, event string, props, context []byte) {
		m.Match(kind, event, props, context) // must not panic
	})
}
