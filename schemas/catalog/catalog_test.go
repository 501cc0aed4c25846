package catalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/svc/wholefile"
)

// complete returns a catalog's text with the line behind it that says it is all.
func complete(text string) []byte {
	return []byte(strings.TrimSuffix(strings.TrimRight(text, "\n"), "\n...") + "\n" + wholefile.Mark)
}

// mustParse parses a catalog.
func mustParse(t testing.TB, text string) *Catalog {
	t.Helper()
	c, err := Parse(complete(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSlug(t *testing.T) {
	for name, want := range map[string]string{
		"Item Scanned":           "item_scanned",
		"Loyalty program opt-in": "loyalty_program_opt_in",
		"  --MyPOS Sales!  ":     "mypos_sales",
		"Überblick 2.0":          "überblick_2_0",
		"---":                    "",
	} {
		if got := Slug(name); got != want {
			t.Errorf("Slug(%q): got %q, want %q", name, got, want)
		}
	}
}

func TestSample(t *testing.T) {
	c := mustParse(t, string(sample.MyPOS))
	m := Compile(c)
	want := map[string]Mapping{
		"Item Scanned":           {"item_scanned", "billing", "mypos_sales"},
		"itemScanned":            {"item_scanned", "billing", "mypos_sales"},
		"Item Invoiced":          {"item_invoiced", "billing", "mypos_sales"},
		"Item Bagged":            {"item_bagged", "billing", "mypos_sales"},
		"Invoice Generated":      {"invoice_generated", "invoicing", "mypos_sales"},
		"Invoice Printed":        {"invoice_printed", "invoicing", "mypos_sales"},
		"Payment Received":       {"payment_received", "payments", "mypos_commerce"},
		"Refund Processed":       {"refund_processed", "payments", "mypos_commerce"},
		"Loyalty program opt-in": {"loyalty_program_opt_in", "loyalty", "mypos_engage"},
	}
	for name, w := range want {
		if got, ok := m.Match("track", name, nil, nil); !ok || got != w {
			t.Errorf("track %q: got %+v, %v, want %+v", name, got, ok, w)
		}
	}
	if got, ok := m.Match("identify", "Item Scanned", nil, nil); ok {
		t.Errorf("identify: got %+v, want no match", got)
	}
	if got, ok := m.Match("track", "Item Lost", nil, nil); ok {
		t.Errorf("unknown name: got %+v, want no match", got)
	}
	got, ok := m.Match("api_call", "", []byte(`{"method":"post","path":"/v1/payments/p-1/refunds/"}`), nil)
	if w := want["Refund Processed"]; !ok || got != w {
		t.Errorf("refund over the API: got %+v, %v, want %+v", got, ok, w)
	}
}

func TestParseReportsAllFaultsWithLines(t *testing.T) {
	const text = `catalog: Shop
colour: red
products:
  - name: Sales
    status: live
    modules:
      - name: Billing
        features:
          - name: Item Scanned
            kind: cor
            aliases: [scan, scan]
          - name: item scanned
            events: [scan]
          - purpose: nothing else
          - name: Pages
            events: []
            rules:
              - path: items/*
              - {method: POST, path: /v1/x}
              - where: [{property: a, context: b, equals: 1}, {property: a..b, exists: yes please}, {property: c}]
              - {kind: click}
          - name: Old
            replaces: [item_scanned]
            rules: all
history:
  default: perhaps
  features: {nobody: move}
lint:
  ignore: [{check: spelling, id: x}]
`
	_, err := Parse(complete(text))
	var faults Faults
	if !errors.As(err, &faults) {
		t.Fatalf("got %v, want Faults", err)
	}
	var got strings.Builder
	for _, f := range faults {
		fmt.Fprintln(&got, f)
	}
	const want = `line 1: catalog: must be lower-case letters, digits, _ - and . only (got "Shop")
line 2: colour: unknown field "colour"; there are catalog, description, history, lint, metrics, products
line 5: products[0].status: must be one of planned, active, deprecated (got "live")
line 10: products[0].modules[0].features[0].kind: must be one of core, onboarding, upsell, risk, friction (got "cor")
line 11: products[0].modules[0].features[0].aliases[1]: event name "scan" is given twice
line 12: products[0].modules[0].features[1].id: feature id "item_scanned" is taken (products[0].modules[0].features[0], line 9): give one of them another id
line 13: products[0].modules[0].features[1].events[0]: event name "scan" belongs to another feature (products[0].modules[0].features[0].aliases[0], line 11)
line 14: products[0].modules[0].features[2].name: must not be empty
line 14: products[0].modules[0].features[2]: feature "" matches no event: give it events or rules, or the status planned
line 18: products[0].modules[0].features[3].rules[0].path: must start with / (got "items/*")
line 19: products[0].modules[0].features[3].rules[1]: path is for pages, method and route are for API calls: give one or the other
line 19: products[0].modules[0].features[3].rules[1].path: is for pages, screens and tracks; of an API call give route (got kind "api_call")
line 20: products[0].modules[0].features[3].rules[2].where[1].exists: must be true or false (got "yes please")
line 20: products[0].modules[0].features[3].rules[2].where[0]: must name either a property or a context key
line 20: products[0].modules[0].features[3].rules[2].where[1].property: must be up to 16 keys joined by dots (got "a..b")
line 20: products[0].modules[0].features[3].rules[2].where[1]: must have a condition: equals, not_equals, in, not_in, exists, prefix, suffix, contains, gt, gte, lt or lte
line 20: products[0].modules[0].features[3].rules[2].where[2]: must have a condition: equals, not_equals, in, not_in, exists, prefix, suffix, contains, gt, gte, lt or lte
line 21: products[0].modules[0].features[3].rules[3].kind: must be one of track, page, screen, api_call (got "click")
line 21: products[0].modules[0].features[3].rules[3]: must have a condition besides kind: event, path, method, route or where
line 23: products[0].modules[0].features[4].replaces[0]: "item_scanned" is a feature of this catalog (products[0].modules[0].features[0], line 9): a replaced feature must be gone
line 24: products[0].modules[0].features[4].rules: must be a list (got "all")
line 26: history.default: must be one of move, keep (got "perhaps")
line 27: history.features.nobody: there is no feature "nobody" in this catalog
line 29: lint.ignore[0].check: must be one of duplicate, naming, owner, purpose, empty, size, conflict, deprecated, planned (got "spelling")
line 29: lint.ignore[0].id: there is no feature, module, product or metric "x"
line 29: lint.ignore[0].reason: must say why
`
	if got.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
	}
}

func TestParseRefusesWhatIsNoCatalog(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "line 1: catalog is empty",
		"a: [":                               "line 1: not YAML: did not find expected node content",
		"a: b":                               "line 1: the file does not end with the line `...`",
		"- a\n...\n":                         "line 1: must be a mapping (got a list)",
		"catalog: a\n...\ncatalog: b":        "line 2: not YAML: did not find expected <document start>",
		"catalog: a\n---\ncatalog: b":        "line 2: must be one YAML document",
		"catalog: &x a\nproducts: *x\n...\n": "line 2: products: must be a list (got an alias; write the value out)",
		strings.Repeat("#", MaxBytes+1):      "catalog must be at most 4194304 bytes (got 4194305)",
	} {
		_, err := Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%.40q): got %v, want %q", text, err, want)
		}
	}
}

// No beginning of a good catalog is a good catalog: it would be one with fewer
// features.
func TestCutOffFiles(t *testing.T) {
	for i := range sample.MyPOS {
		if _, err := Parse(sample.MyPOS[:i]); err == nil {
			t.Errorf("the first %d bytes of %d pass", i, len(sample.MyPOS))
		}
	}
}

func TestVersionSurvivesTheTopic(t *testing.T) {
	c := mustParse(t, string(sample.MyPOS))
	v := &Version{
		App: "dev", Number: 3, Author: "billing team", Reason: "first", AppliedAt: time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC), Catalog: c,
	}
	value, err := v.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := Decode(value)
	if err != nil {
		t.Fatal(err)
	}
	again, err := back.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(value) {
		t.Errorf("encoded again: got %s, want %s", again, value)
	}
	app, n, err := ParseKey(v.Key())
	if err != nil || app != "dev" || n != 3 {
		t.Errorf("ParseKey: got %q, %d, %v, want dev, 3", app, n, err)
	}
	for _, bad := range []string{`{}`, `{"format":1,"app":"a","number":1}`, `{"format":2,"app":"a","number":1,"catalog":{}}`, `x`} {
		if _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("Decode(%s): got no error", bad)
		}
	}
}
