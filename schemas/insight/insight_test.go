package insight

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog"
	catalogsample "github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/insight/sample"
)

func TestParse(t *testing.T) {
	d, err := Parse([]byte(`
insight: shop
activity: [scan, "module:till", "product: sales"]
exclude:
  users: [bot]
  mail_domains: [Shop.Example]
  user_agents: [GoogleBot, "Sogou web spider"]
  user_traits: [{trait: team, equals: qa}]
  accounts: [acme]
  account_traits: [{trait: plan, equals: internal}]
  roles: [support]
milestones:
  signup_page: ["event:Sign-up: Viewed"]
  signup: [join]
  value: [pay, scan]
friction: [fail, "event:Error"]
sessions: {gap: 45m}
seats: {trait: licences}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range d.Rules {
		got = append(got, r.String())
	}
	want := []string{
		"activity feature scan", "activity module till", "activity product sales",
		"exclude account acme", "exclude account_trait plan = internal", "exclude mail_domain shop.example", "exclude role support", "exclude trait team = qa", "exclude user bot", "exclude user_agent googlebot", "exclude user_agent sogou web spider",
		"friction event Error", "friction feature fail", "seats account_trait licences = ", "session_gap 2700",
		"signup feature join", "signup_page event Sign-up: Viewed", "value feature pay", "value feature scan",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if d.Gap() != 45*time.Minute {
		t.Errorf("gap: got %s", d.Gap())
	}
}

func TestFaultsNameLineAndColumn(t *testing.T) {
	for text, want := range map[string]string{
		"":                                  "line 1, column 1: is empty",
		"insight: a\n---\ninsight: b":       "line 2, column 1: must be one YAML document",
		"insight: [":                        "not YAML: did not find expected node content",
		"- a":                               "line 1, column 1: must be a mapping (got a list)",
		"activity: [a]":                     "insight: must name the definitions",
		"insight: a\nactvity: [b]":          `line 2, column 1: actvity: unknown field "actvity"; there are activity, alerts, description,`,
		"insight: a\nactivity: b":           `line 2, column 11: activity: must be a list (got "b")`,
		"insight: a\nactivity: [event:b]":   `line 2, column 12: activity[0]: must be a feature id or one of feature:, module:, product: and a name (got "event:b")`,
		"insight: a\nactivity: ['module:']": `line 2, column 12: activity[0]: must name something after "module:"`,
		"insight: a\nactivity: [b, b]":      "line 2, column 15: activity[1]: is given twice",
		"insight: a\nfriction: [~]":         "friction[0]: must not be empty",
		"insight: a\nexclude:\n  mail_domains: [a@b.example]":           `line 3, column 18: exclude.mail_domains[0]: must be a domain such as shop.example, without @ (got "a@b.example")`,
		"insight: a\nexclude:\n  user_agents: [GoogleBot, googlebot]":   `line 3, column 28: exclude.user_agents[1]: is given twice`,
		"insight: a\nexclude:\n  user_agents: [ok]":                     `line 3, column 17: exclude.user_agents[0]: must be a part of a user agent such as Googlebot, 3 to 200 characters of ASCII (got "ok")`,
		"insight: a\nexclude:\n  user_agents: ['böt']":                  `must be a part of a user agent such as Googlebot, 3 to 200 characters of ASCII (got "böt")`,
		"insight: a\nexclude:\n  user_agents: " + many(256):             `line 3, column 16: exclude.user_agents: must be at most 255 user agents (got 256)`,
		"insight: a\nexclude:\n  user_traits:\n    - {trait: x}":        "line 4, column 7: exclude.user_traits[0]: must have trait and equals",
		"insight: a\nexclude:\n  user_traits:\n    - {trait: x, is: y}": `exclude.user_traits[0].is: unknown field "is"`,
		"insight: a\nsessions: {gap: 10s}":                              `line 2, column 17: sessions.gap: must be a duration of 1m to 24h in whole seconds, such as 30m (got "10s")`,
		"insight: a\ninsight: b":                                        "line 2, column 1: insight: is given twice",
	} {
		_, err := Parse([]byte(text))
		var faults Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	_, err := Parse([]byte("insight: a\nactivity: b\nfriction: c"))
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("all faults at once: got %v", err)
	}
}

// many is a list of n user agents.
func many(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("bot-%d", i)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func TestLint(t *testing.T) {
	c, err := catalog.Parse(catalogsample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse([]byte("insight: a\nactivity: [item_scanned, nothing, 'module:billing']\nmilestones:\n  signup: ['event:barcode_scan', 'event:Home']\nexclude: {user_agents: [mozilla/5.0, UptimeRobot]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range Lint(d, c) {
		got = append(got, f.String())
	}
	want := []string{
		"milestones.value is not defined: fit and time_to_value have nothing to say of it",
		`line 2, column 12: feature "item_scanned" counts already by its module or product`,
		`line 2, column 26: the catalog has no feature "nothing"`,
		`line 4, column 12: event "barcode_scan" is of feature item_scanned: name the feature, so that its other names count too`,
		`line 5, column 25: user agents of people contain "mozilla/5.0", as "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0" does`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestSampleFitsTheSampleCatalog(t *testing.T) {
	c, err := catalog.Parse(catalogsample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Parse(sample.MyPOS)
	if err != nil {
		t.Fatal(err)
	}
	if found := Lint(d, c); len(found) > 0 {
		t.Error(found)
	}
}

func TestCompare(t *testing.T) {
	d, err := Parse([]byte("insight: a\nactivity: [b, c]"))
	if err != nil {
		t.Fatal(err)
	}
	inForce := []Rule{{UseVersion, "", "", "text"}, {UseActivity, MatchFeature, "", "c"}, {UseFriction, MatchFeature, "", "d"}}
	c := d.Compare(inForce)
	if !slices.Equal(c.Added, []Rule{{UseActivity, MatchFeature, "", "b"}}) || !slices.Equal(c.Removed, []Rule{{UseFriction, MatchFeature, "", "d"}}) {
		t.Errorf("got %+v", c)
	}
	if c.Empty() || !d.Compare(append(d.Rules, Rule{Use: UseVersion})).Empty() {
		t.Error("empty is wrong")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("insight: a\nactivity: [b]"))
	f.Add(sample.MyPOS)
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(text)
		if err == nil && (d.Name == "" || !slices.IsSortedFunc(d.Rules, compareRules)) {
			t.Errorf("%q: got %+v", text, d)
		}
	})
}
