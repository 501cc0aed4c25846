package catalog

import (
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/catalog/sample"
)

func TestSampleHasNoFindings(t *testing.T) {
	for _, f := range Lint(mustParse(t, string(sample.MyPOS))) {
		t.Error(f)
	}
}

func TestLintNamesInOtherCase(t *testing.T) {
	c := mustParse(t, `catalog: t
products:
- name: Shop
  owner: o
  modules:
  - {name: Till, features: [{name: Item Scanned, purpose: p}]}
  - {name: TILL, id: till2, features: [{name: Day Closed, purpose: p}]}
- name: Office
  owner: o
  modules:
  - {name: till, id: till3, features: [{name: Report Opened, purpose: p}]}
`)
	want := `line 7: duplicate: till2: module "TILL" has the name of module till`
	if got := Lint(c); len(got) != 1 || got[0].String() != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestLint(t *testing.T) {
	const text = `catalog: t
products:
- name: P
  modules:
  - name: Empty
  - name: Buttons
    owner: web team
    features:
    - {name: Clicked Button, purpose: p}
    - {name: Button Used, events: [button_click], purpose: p}
    - {name: Cta Gone, events: [ctaTapped], purpose: p}
    - {name: button pressed, purpose: p}
  - name: Typos
    features:
    - {name: Invoice Generated, owner: o, purpose: p}
    - {name: Invoice Genrated, owner: o, purpose: p}
    - {name: Step 1 Completed, owner: o, purpose: p}
    - {name: Step 2 Completed, owner: o, purpose: p}
    - {name: Export, events: [PDFExported], owner: o, purpose: p}
  - name: Rules
    owner: o
    features:
    - {name: Page Opened, purpose: p, events: [], rules: [{path: "/a/*/c"}]}
    - {name: Page Closed, purpose: p, events: [], rules: [{path: "/a/b/*"}]}
    - {name: Button Moved, purpose: p, events: [], rules: [{event: B, where: [{property: k, equals: 1}]}]}
    - {name: Button Sorted, purpose: p, events: [], rules: [{event: B, where: [{property: k, in: [2, 3]}]}]}
    - {name: Button Dragged, purpose: p, events: [], rules: [{event: B, where: [{property: l, equals: 2}]}]}
    - {name: All Taken, purpose: p, events: [], rules: [{route: "/v1/**", priority: 2}]}
    - {name: None Left, purpose: p, events: [], rules: [{route: "/v1/x", method: GET}]}
    - {name: Nobody Owned}
`
	var got strings.Builder
	for _, f := range Lint(mustParse(t, text)) {
		got.WriteString(f.String() + "\n")
	}
	const want = `line 5: empty: empty: module has no features
line 9: naming: clicked_button: name must be an object and what was done to it, such as Item Scanned (got "Clicked Button")
line 10: duplicate: button_used: "button_click" says the same as "Clicked Button" of feature clicked_button: make one an alias of the other, or merge them
line 11: duplicate: cta_gone: "ctaTapped" says the same as "Clicked Button" of feature clicked_button: make one an alias of the other, or merge them
line 12: duplicate: button_pressed: "button pressed" says the same as "Clicked Button" of feature clicked_button: make one an alias of the other, or merge them
line 12: naming: button_pressed: name must be in title case (got "button pressed")
line 16: duplicate: invoice_genrated: "Invoice Genrated" is one letter away from "Invoice Generated" of feature invoice_generated: make one an alias of the other, or merge them
line 19: naming: export: name must be an object and what was done to it, such as Item Scanned (got "Export")
line 24: conflict: page_closed: rule kind page, path /a/b/* and rule kind page, path /a/*/c of feature page_opened can fit the same event, and only their order in the catalog decides: give one a priority
line 27: conflict: button_dragged: rule event B, where l and rule event B, where k of feature button_moved can fit the same event, and only their order in the catalog decides: give one a priority
line 29: conflict: none_left: rule kind api_call, method GET, route /v1/x is never reached: rule kind api_call, route /v1/** of feature all_taken comes first and fits all its events
line 30: purpose: nobody_owned: feature has no purpose: what does a customer get done with it?
`
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
}

func TestLintIgnoreAndOwner(t *testing.T) {
	text := flat("    - {name: Wrong, purpose: p}")
	findings := Lint(mustParse(t, text))
	if len(findings) != 2 || findings[0].Check != CheckOwner || findings[1].Check != CheckNaming {
		t.Fatalf("got %v, want a finding on owner and one on naming", findings)
	}
	text += "\nlint: {convention: none, ignore: [{check: owner, id: wrong, reason: no team yet}]}"
	if findings := Lint(mustParse(t, text)); len(findings) != 0 {
		t.Errorf("ignored: got %v, want none", findings)
	}
}

func TestLintSizes(t *testing.T) {
	c := bigCatalog(manyFeatures, 0)
	for range manyModules {
		c.Products[0].Modules = append(c.Products[0].Modules, c.Products[0].Modules[0])
	}
	var sizes []string
	for _, f := range Lint(c) {
		if f.Check == CheckSize {
			sizes = append(sizes, f.Text)
		}
	}
	if want := "product has 21 modules; more than 20 nobody keeps in mind|product has 2121 features; more than 100 nobody keeps in mind"; strings.Join(sizes, "|") != want {
		t.Errorf("got %q, want %q", sizes, want)
	}
}

func TestLintUsage(t *testing.T) {
	c := mustParse(t, flat("    - {name: A, status: deprecated}\n    - {name: B, status: planned}\n    - {name: C, status: deprecated}"))
	got := LintUsage(c, map[string]uint64{"a": 5, "b": 1})
	if len(got) != 2 || got[0].Check != CheckDeprecated || got[1].Check != CheckPlanned || got[0].Line != 7 {
		t.Errorf("got %v, want a deprecated and a planned finding", got)
	}
}

func TestCasing(t *testing.T) {
	for _, tc := range []struct {
		name, casing string
		want         bool
	}{
		{"Item Scanned", "title", true},
		{"MyPOS Opened", "title", true},
		{"Item scanned", "title", false},
		{"ItemScanned", "title", false},
		{"item_scanned", "snake", true},
		{"item-scanned", "snake", false},
		{"item-scanned", "kebab", true},
		{"itemScanned", "camel", true},
		{"item_scanned", "camel", false},
		{"anything GOES", "any", true},
	} {
		if got := inCasing(tc.name, tc.casing); got != tc.want {
			t.Errorf("inCasing(%q, %s): got %v, want %v", tc.name, tc.casing, got, tc.want)
		}
	}
}

func BenchmarkLint(b *testing.B) {
	c := bigCatalog(5000, 1000)
	for b.Loop() {
		Lint(c)
	}
}
