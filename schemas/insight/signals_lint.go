package insight

import (
	"fmt"
	"slices"

	"github.com/uptakehq/uptake/schemas/catalog"
)

// lintSignals reports what signals name and the catalog does not have, what is
// deprecated, and names of events that nearly coincide.
func (d *Definitions) lintSignals(c *catalog.Catalog) []Finding {
	status := map[string]map[string]string{MatchFeature: {}, MatchModule: {}, MatchProduct: {}, "metric": {}}
	sense := catalog.Senses(c)
	// senses is who has a name that says the same, by what it says.
	senses := map[string]string{}
	covered := map[string]string{}
	c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
		status[MatchProduct][p.ID], status[MatchModule][m.ID], status[MatchFeature][f.ID] = p.Status, m.Status, f.Status
		for _, name := range f.Names {
			covered[name] = f.ID
			senses[sense(name)] = fmt.Sprintf("%q of feature %s", name, f.ID)
		}
	})
	for _, m := range c.Metrics {
		status["metric"][m.ID] = catalog.StatusActive
	}
	var found []Finding
	for _, r := range d.names {
		add := func(format string, args ...any) {
			found = append(found, Finding{r.at.line, r.at.column, fmt.Sprintf(format, args...)})
		}
		if r.kind == MatchEvent {
			says := sense(r.value)
			if f, ok := covered[r.value]; ok {
				add("event %q is of feature %s: name the feature, so that its other names count too", r.value, f)
			} else if other, ok := senses[says]; ok && says != "" && other != fmt.Sprintf("event %q", r.value) {
				add("event %q says the same as %s: make it an alias in the catalog, or use one name", r.value, other)
			} else {
				senses[says] = fmt.Sprintf("event %q", r.value)
			}
			continue
		}
		things, ok := status[r.kind]
		if !ok {
			continue // traits and segments
		}
		switch s, has := things[r.value]; {
		case !has:
			add("the catalog has no %s %q", r.kind, r.value)
		case s == catalog.StatusDeprecated:
			add("%s %q is deprecated", r.kind, r.value)
		}
	}
	return found
}

// LintTraits reports traits that signals name and nobody has stated, by level.
func LintTraits(d *Definitions, stated map[string][]string) []Finding {
	var found []Finding
	for _, r := range d.names {
		if r.kind == "trait" && !slices.Contains(stated[r.level], r.value) {
			found = append(found, Finding{r.at.line, r.at.column, fmt.Sprintf("no %s has stated the trait %q", r.level, r.value)})
		}
	}
	return found
}
