package insight

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog"
	catalogsample "github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/insight/sample"
)

const signalsFile = `
insight: shop
segments:
  - id: paying
    version: 2
    description: Shops that pay.
    owner: sales
    where:
      - {trait: plan, in: [pro, team]}
      - {measure: {count: users, of: [scan, "module:till"], window: 4w}, at_least: 3 users}
  - id: cashiers
    description: Cashiers of shops that pay.
    owner: sales
    level: user
    where: [{role: cashier}, {segment: paying}, {trait: team, in: [qa], not: true}]
health:
  - id: h
    description: Health.
    owner: cs
    parts:
      - {id: depth, measure: {count: features, window: 28d}, yardstick: 4, weight: 2}
      - {id: worth, kind: revenue, trait: value, yardstick: 1000}
    bands: [{id: red, from: 0}, {id: green, from: 50}]
milestones:
  steps: [{id: tenth, description: Tenth scan., owner: cs, of: scan, times: 10}]
alerts:
  - id: halved
    description: Half the usage.
    owner: cs
    segment: paying
    measure: {count: events, window: 7d}
    fires: {below: 50%, of_previous: 4, baseline_at_least: 10}
    clears: {at_least: 75 %, of_previous: 4}
    for: 2d
    cooldown: 2w
    audience: [cs]
`

func TestSignals(t *testing.T) {
	d, err := Parse([]byte(signalsFile))
	if err != nil {
		t.Fatal(err)
	}
	const day = 24 * time.Hour
	three := Bound{Limit: 3}
	want := Signals{
		Segments: []Segment{
			{Meta{"paying", 2, "Shops that pay.", "sales", "account"}, []Condition{
				{Trait: "plan", Values: []string{"pro", "team"}},
				{Measure: &Measure{Count: "users", Of: []Reference{{"feature", "scan"}, {"module", "till"}}, Window: 28 * day}, Bound: &three},
			}},
			{Meta{"cashiers", 1, "Cashiers of shops that pay.", "sales", "user"}, []Condition{{Role: "cashier"}, {Segment: "paying"}, {Trait: "team", Values: []string{"qa"}, Not: true}}},
		},
		Health: []Health{{
			Meta: Meta{"h", 1, "Health.", "cs", "account"},
			Parts: []Part{
				{ID: "depth", Kind: "behaviour", Measure: &Measure{Count: "features", Window: 28 * day}, Yardstick: 4, Weight: 2},
				{ID: "worth", Kind: "revenue", Trait: "value", Yardstick: 1000, Weight: 1},
			},
			Bands: []Band{{"red", 0}, {"green", 50}},
		}},
		Milestones: []Milestone{{Meta{"tenth", 1, "Tenth scan.", "cs", "account"}, []Reference{{"feature", "scan"}}, 10}},
		Alerts: []Alert{{
			Meta: Meta{"halved", 1, "Half the usage.", "cs", "account"}, Segment: "paying",
			Measure: Measure{Count: "events", Window: 7 * day}, Every: day,
			Fires: Bound{Below: true, Limit: 0.5, Previous: 4, Baseline: 10}, Clears: &Bound{Limit: 0.75, Previous: 4},
			For: 2 * day, Cooldown: 14 * day, Severity: "warning", Audience: []string{"cs"},
		}},
	}
	if !reflect.DeepEqual(d.Signals, want) {
		t.Errorf("got  %+v\nwant %+v", d.Signals, want)
	}
	// The rows of a version are enough to evaluate by.
	again, err := SignalsOf(d.Rules)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(again.Segments, func(a, b Segment) int { return strings.Compare(b.ID, a.ID) })
	if !reflect.DeepEqual(again, want) {
		t.Errorf("from rules: got  %+v\nwant %+v", again, want)
	}
}

func TestFaultsOfSignals(t *testing.T) {
	for edit, want := range map[[2]string]string{
		{"window: 7d", "window: 7q"}:                          `line 31, column 38: alerts[0].measure.window: unknown unit "q"; there are h, d and w`,
		{"3 users", "3 apples"}:                               `segments[0].where[1].at_least: unknown unit "apples"; there are users and %`,
		{"75 %", "40 %"}:                                      "alerts[0].clears: must lie on the other side of fires",
		{"for: 2d", "for: 3h"}:                                "must be a multiple of every, 1d (got 3h)",
		{"segment: paying\n", "segment: nobody\n"}:            `line 30, column 14: unknown segment "nobody"; there are [cashiers paying]`,
		{"{segment: paying}", "{segment: cashiers}"}:          `segment "cashiers" depends on itself`,
		{"segment: paying\n", "segment: cashiers\n"}:          `segment "cashiers" is of users, and must be of accounts here`,
		{"    owner: sales\n    where", "    where"}:          "line 4, column 5: segments[0]: must have owner",
		{"id: cashiers", "id: paying"}:                        `is the second segment with id "paying"`,
		{"level: user", "level: shop"}:                        `level must be account or user (got "shop")`,
		{"version: 2", "version: 0"}:                          "must be a whole number from 1 on",
		{"{role: cashier}", "{role: a, segment: paying}"}:     "must have one of trait, role, segment and measure",
		{"{count: events, window: 7d}", "{count: events}"}:    "must have window, such as 7d",
		{"{count: events, window: 7d}", "{count: e}"}:         "must be one of events, quantity, users,",
		{"{id: red, from: 0}", "{id: red, from: 1}"}:          "must have bands, the first from 0",
		{", of_previous: 4, baseline_at_least: 10", ""}:       "must have of_previous beside it",
		{"below: 50%", "under: 50%"}:                          `unknown field "under"; there are at_least, baseline_at_least, below, of_previous`,
		{"kind: revenue, trait: value", "kind: revenue"}:      "must have one of measure and trait",
		{"times: 10", "times: ten"}:                           "must be a whole number of 1 to 1000000",
		{"{trait: plan, in: [pro, team]}", "{trait: plan}"}:   "must have in, below or at_least for a trait",
		{"count: events, window: 7d", "count: e, window: ~"}:  "must not be empty",
		{"audience: [cs]", "audience: cs"}:                    "alerts[0].audience: must be a list",
		{"- id: halved", "- id: Halved"}:                      "must be at most 64 lower-case letters",
		{"{count: events, window: 7d}", "{metric: m, of: a}"}: "must have window",
	} {
		text := strings.Replace(signalsFile, edit[0], edit[1], 1)
		if text == signalsFile {
			t.Fatalf("%q is not in the file", edit[0])
		}
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", edit[1], err, want)
		}
	}
}

func TestLintOfSignals(t *testing.T) {
	c, err := catalog.Parse(catalogsample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	c.Products[0].Modules[0].Features[2].Status = catalog.StatusDeprecated
	d, err := Parse([]byte(`
insight: a
milestones:
  signup: ["event:Clicked Button"]
  value: [payment_received]
segments:
  - id: s
    description: D.
    owner: o
    where:
      - measure: {count: events, of: ["event:button_click", item_bagged, "module:none"], window: 1d}
        at_least: 1
      - {trait: plan, in: [pro]}
      - measure: {metric: none, window: 1d}
        at_least: 1
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range append(Lint(d, c), LintTraits(d, map[string][]string{LevelAccount: {"tier"}, LevelUser: {"plan"}})...) {
		got = append(got, f.String())
	}
	want := []string{
		`line 11, column 39: event "button_click" says the same as event "Clicked Button": make it an alias in the catalog, or use one name`,
		`line 11, column 61: feature "item_bagged" is deprecated`,
		`line 11, column 74: the catalog has no module "none"`,
		`line 14, column 27: the catalog has no metric "none"`,
		`line 13, column 17: no account has stated the trait "plan"`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestChangedSignalsNeedANewVersion(t *testing.T) {
	old, err := Parse(sample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	for edit, want := range map[[2]string]int{
		{"fires: {at_least: 10}", "fires: {at_least: 11}"}:                      1,
		{"every: 1h", "every: 1h\n    version: 2"}:                              0, // and nothing but the version
		{"fires: {at_least: 10}", "fires: {at_least: 11}\n    version: 2"}:      0,
		{"id: refund_spike", "id: refunds"}:                                     0,
		{"description: Many refunds in a shop", "description: Very many refun"}: 1,
	} {
		d, err := Parse([]byte(strings.Replace(string(sample.MyPOS), edit[0], edit[1], 1)))
		if err != nil {
			t.Fatal(err)
		}
		if c := d.Compare(old.Rules); c.Empty() || len(c.Unversioned()) != want {
			t.Errorf("%q: got %v of %+v, want %d", edit[1], c.Unversioned(), c, want)
		}
	}
}
