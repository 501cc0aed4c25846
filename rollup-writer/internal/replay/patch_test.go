package replay

import (
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
