package insight

import (
	"fmt"
	"slices"

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
