package insight

import (
	"fmt"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/catalog"
)

// Finding is something that [Lint] found: definitions with findings work, but do
// not mean what their author wanted.
type Finding struct {
	Line, Column int
	Text         string
}

func (f Finding) String() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d, column %d: %s", f.Line, f.Column, f.Text)
	}
	return f.Text
}

// browsers are user agents of people, of each family of browsers and of apps.
var browsers = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 OPR/122.0.0.0",
	"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0.0.0 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (iPad; CPU OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/28.0 Chrome/130.0.0.0 Mobile Safari/537.36",
	"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:142.0) Gecko/20100101 Firefox/142.0",
	"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
	"Dalvik/2.1.0 (Linux; U; Android 15; Pixel 9 Build/AP4A.250105.002)",
	"okhttp/4.12.0",
	"Shop/5 CFNetwork/3826.500.131 Darwin/24.5.0",
	"analytics-node/2.3.0", "analytics-python/2.3.3", "posthog-node/4.11.1", "posthog-python/6.0.0", // of servers that send for people
}

// Lint reports what d names and the catalog does not have, and what d lacks.
func Lint(d *Definitions, c *catalog.Catalog) []Finding {
	known := map[string]map[string]string{MatchFeature: {}, MatchModule: {}, MatchProduct: {}}
	c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
		known[MatchProduct][p.ID], known[MatchModule][m.ID], known[MatchFeature][f.ID] = p.Status, m.Status, f.Status
	})
	var found []Finding
	add := func(r Rule, format string, args ...any) {
		at := d.lines[r]
		found = append(found, Finding{at.line, at.column, fmt.Sprintf(format, args...)})
	}
	uses := map[string]bool{}
	for _, r := range d.Rules {
		uses[r.Use] = true
		things, ok := known[r.Match]
		switch status, has := things[r.Value]; {
		case !ok: // of users and accounts, which no catalog has, and of events, see lintSignals
		case !has:
			add(r, "the catalog has no %s %q", r.Match, r.Value)
		case status == catalog.StatusDeprecated:
			add(r, "%s %q is deprecated", r.Match, r.Value)
		}
		if r.Match == MatchUserAgent {
			if i := slices.IndexFunc(browsers, func(b string) bool { return strings.Contains(strings.ToLower(b), r.Value) }); i >= 0 {
				add(r, "user agents of people contain %q, as %q does", r.Value, browsers[i])
			}
		}
		if r.Use == UseActivity && r.Match == MatchFeature {
			c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
				if f.ID == r.Value && (slices.Contains(d.Rules, Rule{Use: UseActivity, Match: MatchModule, Value: m.ID}) || slices.Contains(d.Rules, Rule{Use: UseActivity, Match: MatchProduct, Value: p.ID})) {
					add(r, "feature %q counts already by its module or product", r.Value)
				}
			})
		}
	}
	for _, need := range []string{"signup", "value"} {
		if !uses[need] {
			found = append(found, Finding{Text: "milestones." + need + " is not defined: fit and time_to_value have nothing to say of it"})
		}
	}
	found = append(found, d.lintSignals(c)...)
	slices.SortStableFunc(found, func(a, b Finding) int { return a.Line - b.Line })
	return found
}
