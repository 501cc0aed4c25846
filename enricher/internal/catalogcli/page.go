package catalogcli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/privacy"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// catalogPage documents what an app collects and stores, for interested people: from
// the catalog in force, the keys that were seen, and the privacy rules.
func (c *command) catalogPage(ctx context.Context, args []string) error {
	c.needsLog()
	rules := c.set.String("privacy-file", "", "rules `file` of the enricher; empty: there are none")
	out := c.set.String("o", "-", "`file` to write the Markdown to; - for standard output")
	if _, err := c.parse(args); err != nil {
		return err
	}
	file, err := privacy.Open(*rules)
	if err != nil {
		return process.UsageError(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := c.pick(ctx, 0)
	if err != nil {
		return err
	}
	a, err := c.agreement()
	if err != nil {
		return err
	}
	defer a.Close()
	if err := a.Load(ctx); err != nil {
		return err
	}
	types := map[string]string{}
	for path, e := range a.Entries(c.app) {
		types[path] = e.Type.String()
	}
	return c.write(*out, page(v, types, file.Policy().App(c.app)))
}

// page writes the page; types are the types of key paths.
func page(v *catalog.Version, types map[string]string, rules *privacy.Rules) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# What %s collects\n\n", v.App)
	if v.Catalog.Description != "" {
		fmt.Fprintf(&b, "%s\n\n", v.Catalog.Description)
	}
	fmt.Fprintf(&b, "From version %d of the catalog, applied %s, and the keys seen so far. Every use of a feature below is counted by hour, account and user.\n", v.Number, v.AppliedAt.Format("2006-01-02"))
	for _, p := range v.Catalog.Products {
		fmt.Fprintf(&b, "\n## %s\n", cell(p.Name))
		for _, m := range p.Modules {
			fmt.Fprintf(&b, "\n### %s\n\n| feature | kind | why it is counted | owner | seen as |\n|---|---|---|---|---|\n", cell(m.Name))
			for _, f := range m.Features {
				seen := make([]string, 0, len(f.Names)+len(f.Rules))
				for _, n := range f.Names {
					seen = append(seen, "`"+n+"`")
				}
				for i := range f.Rules {
					seen = append(seen, "rule "+f.Rules[i].String())
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", cell(f.Name), f.Kind, cell(cmp.Or(f.Purpose, "not said")),
					cell(cmp.Or(catalog.FeatureOwner(&p, &m, &f), "nobody")), cell(strings.Join(seen, ", ")))
			}
		}
	}
	if len(v.Catalog.Metrics) > 0 {
		b.WriteString("\n## Metrics\n\n| metric | semantics | unit | purpose |\n|---|---|---|---|\n")
		for _, m := range v.Catalog.Metrics {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", cell(m.Name), m.Semantics, cell(m.Unit), cell(m.Purpose))
		}
	}
	b.WriteString("\n## Keys that events bring\n\n| key | type | what is done to it |\n|---|---|---|\n")
	paths := make([]string, 0, len(types))
	for path := range types {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", strings.ReplaceAll(path, "|", "\\|"), types[path], cmp.Or(rules.Treatment(path), "kept"))
	}
	b.WriteString("\n## Devices\n\n")
	said := func(what, treatment string) {
		fmt.Fprintf(&b, "- %s: %s\n", what, cmp.Or(treatment, "kept"))
	}
	said("IP address", rules.IPTreatment())
	said("User agent", rules.Treatment(privacy.Context+".userAgent"))
	said("Other context that a library sends, such as the page or the device's system", rules.Treatment(privacy.Context+".other"))
	b.WriteString("\n## How long\n\n")
	if n := rules.RetentionDays(); n > 0 {
		fmt.Fprintf(&b, "Events are removed %d days after their receipt. What was counted of them stays.\n", n)
	} else {
		b.WriteString("Events are kept until somebody removes them.\n")
	}
	return b.Bytes()
}

// cell escapes text for a cell of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "\r", "").Replace(s)
}
