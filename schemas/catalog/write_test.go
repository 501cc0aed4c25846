package catalog

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/catalog/sample"
)

const everyField = `catalog: all
description: "has: everything"
products:
- name: P
  id: other_p
  owner: o
  purpose: "  spaces  and\nlines"
  status: planned
  modules:
  - name: M
    status: deprecated
    features:
    - name: "true"
      id: f1
      kind: friction
      status: deprecated
      events: ["12", "yes", " blank "]
      aliases: ["~"]
      replaces: [old_one, old-2]
      rules:
      - {event: E, path: "/a/{b}/:c/**", kind: screen, priority: -3}
      - {method: get, route: /}
      - where:
        - {property: a.b, equals: 12.50, not_equals: "012", prefix: "#\n", exists: true}
        - {context: os, in: [1, yes, x], not_in: [true], gt: 1e400, contains: c, suffix: "'"}
        - {context: os, gte: -1.5, lt: 7, lte: 1e21, gt: 0}
    - {name: F2, events: [], status: planned}
metrics:
- {name: Seats Used, semantics: gauge, unit: seats, owner: o, purpose: p, aliases: [seats]}
history: {default: keep, unmapped: keep, features: {f1: move}}
lint:
  convention: none
  casing: any
  synonyms: [[a, b]]
  ignore: [{check: owner, id: f1, reason: r}]
`

func TestYAMLRoundTrip(t *testing.T) {
	for _, text := range []string{string(sample.MyPOS), strings.Replace(everyField, "gt: 1e400, ", "", 1)} {
		c := mustParse(t, text)
		out, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		got, _ := json.Marshal(back)
		want, _ := json.Marshal(c)
		if string(got) != string(want) {
			t.Errorf("got  %s\nwant %s\nin\n%s", got, want, out)
		}
	}
	if _, err := Parse(complete(everyField)); err == nil || !strings.Contains(err.Error(), "where[1].gt: must be a finite number") {
		t.Errorf("gt 1e400: got %v, want a fault", err)
	}
}

// TestSchemaMatchesParser asks the parser for its fields by giving one that it
// does not know.
func TestSchemaMatchesParser(t *testing.T) {
	var schema struct {
		Defs map[string]struct {
			Properties map[string]struct{ Enum []string }
		} `json:"$defs"`
	}
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	for def, text := range map[string]string{
		"catalog":   "zzz: 1",
		"product":   "products: [{zzz: 1}]",
		"module":    "products: [{modules: [{zzz: 1}]}]",
		"feature":   "products: [{modules: [{features: [{zzz: 1}]}]}]",
		"rule":      "products: [{modules: [{features: [{rules: [{zzz: 1}]}]}]}]",
		"predicate": "products: [{modules: [{features: [{rules: [{where: [{zzz: 1}]}]}]}]}]",
		"metric":    "metrics: [{zzz: 1}]",
		"history":   "history: {zzz: 1}",
		"lint":      "lint: {zzz: 1}",
		"ignore":    "lint: {ignore: [{zzz: 1}]}",
	} {
		var faults Faults
		if _, err := Parse(complete(text)); !errors.As(err, &faults) {
			t.Fatalf("%s: got %v, want Faults", def, err)
		}
		fields := ""
		for _, f := range faults {
			if _, list, ok := strings.Cut(f.Text, `unknown field "zzz"; there are `); ok {
				fields = list
			}
		}
		want := strings.Join(slices.Sorted(maps.Keys(schema.Defs[def].Properties)), ", ")
		if fields != want {
			t.Errorf("%s: the parser knows %q, the schema %q", def, fields, want)
		}
	}
	for _, tc := range []struct {
		def, field string
		want       []string
	}{
		{"feature", "kind", Kinds()},
		{"feature", "status", Statuses()},
		{"metric", "semantics", Semantics()},
		{"lint", "convention", conventions()},
		{"lint", "casing", casings()},
		{"ignore", "check", lintChecks()},
	} {
		if got := schema.Defs[tc.def].Properties[tc.field].Enum; !slices.Equal(got, tc.want) {
			t.Errorf("schema %s.%s: got %v, want %v", tc.def, tc.field, got, tc.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample.MyPOS)
	f.Add(complete(everyField))
	f.Add(complete("products: [{modules: [{features: [{name: [], rules: {}}]}]}]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		Compile(c).Match("page", "x", []byte(`{"path":"/a/b"}`), nil)
		Lint(c)
		out, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse(out)
		if err != nil {
			t.Fatalf("%v in\n%s", err, out)
		}
		got, _ := json.Marshal(back)
		want, _ := json.Marshal(c)
		if string(got) != string(want) {
			t.Errorf("got  %s\nwant %s\nin\n%s", got, want, out)
		}
	})
}
