package replay

import (
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/event"
)

func TestPatch(t *testing.T) {
	for _, tc := range []struct {
		changes       []string
		before, after string
	}{
		{nil, `{"a":1.50,"b":"<x>"}`, `{"a":1.50,"b":"<x>"}`},
		{[]string{`a=2`, `c.d=text, not json`}, `{"a":1,"b":12345678901234567890}`, `{"a":2,"b":12345678901234567890,"c":{"d":"text, not json"}}`},
		{[]string{`{"a":null,"p":{"big":null}}`}, `{"a":1,"p":{"big":"x","small":1}}`, `{"p":{"small":1}}`},
		{[]string{`p.x=null`, `p.y=[1,null]`, `p.x="back"`}, `{"p":"no object"}`, `{"p":{"x":"back","y":[1,null]}}`},
		{[]string{`p=1`, `p.x=2`}, `{}`, `{"p":{"x":2}}`},
		{[]string{`p.x=2`, `p=null`}, `{"p":{"x":1}}`, `{}`},
	} {
		var p Patch
		for _, c := range tc.changes {
			if err := p.Set(c); err != nil {
				t.Fatalf("%s: %v", c, err)
			}
		}
		doc, err := decode([]byte(tc.before))
		if err != nil {
			t.Fatal(err)
		}
		got, err := encode(merge(doc, p.changes))
		if err != nil || string(got) != tc.after {
			t.Errorf("%q on %s: got %s, %v, want %s", tc.changes, tc.before, got, err, tc.after)
		}
		// What is noted of a patch is that patch.
		var again Patch
		if err := again.Set(p.String()); err != nil || again.String() != p.String() {
			t.Errorf("%q: %s reads as %s, %v", tc.changes, p.String(), again.String(), err)
		}
	}
	for _, bad := range []string{``, `a`, `=1`, `a..b=1`, `{"a":1} x`, `{`} {
		var p Patch
		if err := p.Set(bad); err == nil {
			t.Errorf("%q was taken as %s", bad, p.String())
		}
	}
}

func TestExpressions(t *testing.T) {
	const doc = `{"a":" Mixed ","when":"23.11.2026 10:00","iso":"2026-11-23 10:00","n":1795168800,"p":{"deep":"X"},"empty":"","list":[1]}`
	for change, want := range map[string]string{
		`t=parse(when, "02.01.2006 15:04")`:                `"2026-11-23T10:00:00Z"`,
		`t=parse(when, "%d.%m.%Y %H:%M", "Europe/Vienna")`: `"2026-11-23T09:00:00Z"`,
		`t=parse(iso)`:                    `"2026-11-23T10:00:00Z"`,
		`t=parse(n)`:                      `"2026-11-20T10:00:00Z"`,
		`t=trim(a)`:                       `"Mixed"`,
		`t=lower(trim(a))`:                `"mixed"`,
		`t=first(nothing, empty, p.deep)`: `"X"`,
		`t=first( nothing , "a \"text\", (in brackets)" )`:   `"a \"text\", (in brackets)"`,
		`t=parse(first(nothing, when), "02.01.2006 15:04")`:  `"2026-11-23T10:00:00Z"`,
		`{"t":{"$expr":"lower(p.deep)"}}`:                    `"x"`,
		`t="lower(a)"`:                                       `"lower(a)"`,
		`t=Checkout (new)`:                                   `"Checkout (new)"`,
		`t=parse(when, "2006-01-02")`:                        "not of that layout",
		`t=parse(a)`:                                         "not an instant",
		`t=parse(iso, "2006-01-02 15:04", "Europe/Nowhere")`: "no such time zone",
		`t=trim(nothing)`:                                    "no such field",
		`t=lower(list)`:                                      "no text",
		`t=first(nothing, empty)`:                            "none of the fields",
	} {
		var p Patch
		if err := p.Set(change); err != nil {
			t.Errorf("%s: %v", change, err)
			continue
		}
		before, err := decode([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		object := before.(map[string]any)
		changes, err := evaluated(p.changes, object)
		if err != nil {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", change, err, want)
			}
			if after, err := encode(object); err != nil || !strings.Contains(string(after), `" Mixed "`) || object["t"] != nil {
				t.Errorf("%s: the event became %s", change, after)
			}
			continue
		}
		got, err := encode(merge(object, changes).(map[string]any)["t"])
		if err != nil || string(got) != want {
			t.Errorf("%s: got %s, %v, want %s", change, got, err, want)
		}
		var again Patch
		if err := again.Set(p.String()); err != nil || again.String() != p.String() {
			t.Errorf("%s: %s reads as %s, %v", change, p.String(), again.String(), err)
		}
	}
	for _, bad := range []string{
		`t=upper(a)`, `t=lower(a, b)`, `t=lower()`, `t=lower(a..b)`, `t=parse(a, "x)`, `t=parse(trim(a)`, `t=lower(a) b)`, `{"t":{"$expr":"a"}}`, `{"$expr":"lower(a)"}`,
		`app_id=other`, `protocol=segment`, `writeKey=k`, `{"api_key":"k"}`, `token=k`,
	} {
		var p Patch
		if err := p.Set(bad); err == nil {
			t.Errorf("%q was taken as %s", bad, p.String())
		}
	}
	if err := fixedIn(map[string]any{"properties": map[string]any{"token": "k"}}, "mixpanel"); err == nil {
		t.Error("a patch set the token of Mixpanel")
	}
}

func TestApply(t *testing.T) {
	e := event.RawEvent{
		AppID: "a", Kind: "dance", MessageID: "m", Timestamp: -1, Quantity: -3,
		Properties: []byte(`{ "keep":1.0, "drop":2 }`), Traits: []byte(`not json`), Context: []byte(`{ "untouched" : 1 }`),
	}
	var p Patch
	for _, s := range []string{`kind=track`, `timestamp=2026-11-21T10:00:00.5Z`, `quantity=2`, `properties.drop=null`, `traits={"t":1}`, `user_id=u`} {
		if err := p.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if err := apply(&e, p.changes); err != nil {
		t.Fatal(err)
	}
	got, err := encode(document(&e))
	const want = `{"app_id":"a","context":{"untouched":1},"kind":"track","message_id":"m","properties":{"keep":1.0},"quantity":2,` +
		`"timestamp":"2026-11-21T10:00:00.5Z","traits":{"t":1},"user_id":"u"}`
	if err != nil || string(got) != want || string(e.Context) != `{ "untouched" : 1 }` {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	for _, bad := range []string{`quantity=1.5`, `quantity=null`, `kind=1`, `timestamp=soon`, `properties=[1]`, `props.x=1`} {
		var p Patch
		if err := p.Set(bad); err != nil {
			t.Fatal(err)
		}
		if err := apply(&e, p.changes); err == nil {
			t.Errorf("%s was applied", bad)
		}
	}
}

// A patch of calls repairs each event from its own fields; one that fails leaves the
// event out, with a reason that names no values.
func TestRepairDocument(t *testing.T) {
	var r run
	r.cfg.DryRun = true
	if err := r.cfg.Patch.Set(`timestamp=parse(properties.when, "%d.%m.%Y %H:%M")`); err != nil {
		t.Fatal(err)
	}
	x := &row{app: "dev", stage: "gateway", protocol: "segment", messageID: "m", original: `{"type":"track","event":"e","userId":"u","timestamp":"23.11.","properties":{"when":"23.11.2026 10:00"}}`}
	m, why := r.repairDocument(x)
	if why != "" {
		t.Fatal(why)
	}
	if got := m.doc["timestamp"]; got != "2026-11-23T10:00:00Z" {
		t.Errorf("got timestamp %v", got)
	}
	x.original = `{"type":"track","event":"e","userId":"u","timestamp":"23.11.","properties":{"when":"secret"}}`
	if m, why := r.repairDocument(x); m != nil || !strings.Contains(why, "the patch fails") || strings.Contains(why, "secret") {
		t.Errorf("a patch that fails: got %v, %q", m, why)
	}
}
