package catalogcli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/catalog"
	"github.com/uptakehq/uptake/schemas/catalog/sample"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

func (c *command) catalogInit(_ context.Context, args []string) error {
	out := c.set.String("o", "catalog.yaml", "`file` to write the catalog to; - for standard output")
	schema := c.set.String("schema", "", "`file` to write the JSON Schema for editors to")
	if _, err := c.parse(args); err != nil {
		return err
	}
	text := sample.MyPOS
	if *schema != "" {
		if err := c.write(*schema, catalog.Schema); err != nil {
			return err
		}
		text = append([]byte("# yaml-language-server: $schema="+*schema+"\n"), text...)
	}
	return c.write(*out, text)
}

func (c *command) catalogLint(ctx context.Context, args []string) error {
	var ch clickHouse
	ch.flags(c.set, 7)
	c.set.StringVar(&c.app, "app", "", "`app` whose events show what is in use")
	rest, err := c.parse(args, "FILE")
	if err != nil {
		return err
	}
	cat, err := load(rest[0])
	if err != nil {
		return err
	}
	findings := catalog.Lint(cat)
	if ch.url != "" {
		if c.app == "" {
			return process.UsageError(errors.New("app must be named"))
		}
		used, err := ch.features(ctx, c.app)
		if err != nil {
			return err
		}
		findings = append(findings, catalog.LintUsage(cat, used)...)
	}
	for _, f := range findings {
		fmt.Fprintln(c.stdout, f)
	}
	if len(findings) > 0 {
		return fmt.Errorf("%s: %w (%d); fix them, or name them under lint.ignore with a reason", rest[0], ErrFindings, len(findings))
	}
	return nil
}

// timeout bounds a command that talks to the cluster.
const timeout = time.Minute

func (c *command) catalogPlan(ctx context.Context, args []string) error {
	var ch clickHouse
	ch.flags(c.set, 7)
	c.needsLog()
	asJSON := c.set.Bool("json", false, "print the changes as JSON")
	rest, err := c.parse(args, "FILE")
	if err != nil {
		return err
	}
	cat, err := load(rest[0])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	vs, err := c.versions()
	if err != nil {
		return err
	}
	defer vs.close()
	all, err := vs.all(ctx)
	if err != nil {
		return err
	}
	var before *catalog.Catalog
	live := last(all)
	if live != nil {
		before = live.Catalog
	}
	changes := catalog.Compare(all, cat)
	if *asJSON {
		enc := json.NewEncoder(c.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(changes)
	}
	if err := c.printChanges(live, changes); err != nil {
		return err
	}
	if ch.url == "" {
		return nil
	}
	flows, err := ch.flows(ctx, c.app, before, cat)
	if err != nil {
		return err
	}
	return c.printFlows(flows, ch.days)
}

func (c *command) catalogApply(ctx context.Context, args []string) error {
	c.needsLog()
	author := c.set.String("author", "", "`author` of the version: a person or a role")
	reason := c.set.String("reason", "", "`why`")
	expect := c.set.Int64("expect", -1, "refuse unless this `version` is in force; 0: none")
	history := c.set.String("history", "", "move or keep: what happens to the history of features that move, if the file does not say")
	rest, err := c.parse(args, "FILE")
	if err != nil {
		return err
	}
	var errs []error
	if *author == "" {
		errs = append(errs, errors.New("author must be named"))
	}
	if *reason == "" {
		errs = append(errs, errors.New("reason must be given"))
	}
	if *history != "" && *history != catalog.HistoryMove && *history != catalog.HistoryKeep {
		errs = append(errs, fmt.Errorf("history must be move or keep (got %q)", *history))
	}
	opts, err := c.options()
	if err := errors.Join(append(errs, err)...); err != nil {
		if errors.Is(err, process.ErrUsage) {
			return err
		}
		return process.UsageError(err)
	}
	cat, err := load(rest[0])
	if err != nil {
		return err
	}
	if *history != "" {
		cat.History.Default = cmp.Or(cat.History.Default, *history)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	vs, err := openVersions(c.app, c.kafka.Names(), opts)
	if err != nil {
		return err
	}
	defer vs.close()
	all, err := vs.all(ctx)
	if err != nil {
		return err
	}
	inForce := int64(0)
	live := last(all)
	if live != nil {
		inForce = live.Number
		if same, err := sameCatalog(live.Catalog, cat); err != nil {
			return err
		} else if same {
			fmt.Fprintf(c.stdout, "version %d of %s is equal; nothing to apply\n", live.Number, c.app)
			return nil
		}
	}
	if *expect >= 0 && *expect != inForce {
		return fmt.Errorf("version %d of %s is in force, expected %d: %w", inForce, c.app, *expect, errBeaten)
	}
	next, changes, err := catalog.NewVersion(all, c.app, cat, *author, *reason, c.now())
	if err != nil {
		if changes != nil && len(changes.Undecided) > 0 {
			return fmt.Errorf("apply %s: %w; say so in its history, or with -history", rest[0], err)
		}
		return fmt.Errorf("apply %s: %w", rest[0], err)
	}
	if err := vs.apply(ctx, next); err != nil {
		return err
	}
	if err := c.printChanges(live, changes); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "applied version %d of %s\n", next.Number, c.app)
	if n := len(catalog.Lint(cat)); n > 0 {
		fmt.Fprintf(c.stdout, "catalog lint has %d findings\n", n)
	}
	return nil
}

// sameCatalog reports whether two catalogs are equal.
func sameCatalog(a, b *catalog.Catalog) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return string(x) == string(y), err
}

// printChanges prints the changes of a version relative to the one in force.
func (c *command) printChanges(live *catalog.Version, ch *catalog.Changes) error {
	if live == nil {
		fmt.Fprintf(c.stdout, "%s has no catalog yet\n", c.app)
	} else {
		fmt.Fprintf(c.stdout, "version %d of %s is in force, applied %s by %s\n", live.Number, c.app, live.AppliedAt.Format(time.RFC3339), live.Author)
	}
	if ch.Empty() {
		fmt.Fprintln(c.stdout, "no feature and no event name changes")
		return nil
	}
	word := func(history string) string {
		switch history {
		case catalog.HistoryMove:
			return "its history moves"
		case catalog.HistoryKeep:
			return "its history stays"
		}
		return "NOT DECIDED: history says neither move nor keep"
	}
	var rows []string
	for _, id := range ch.Added {
		rows = append(rows, "+ feature\t"+id)
	}
	for _, id := range ch.Removed {
		rows = append(rows, "- feature\t"+id+"\t\tits history stays")
	}
	for _, f := range ch.Features {
		from := strings.Trim(f.From.ProductID+"/"+f.From.ModuleID+"/"+f.From.FeatureID, "/")
		rows = append(rows, fmt.Sprintf("~ feature\t%s\t%s to %s/%s/%s\t%s", f.Kind, from, f.To.ProductID, f.To.ModuleID, f.To.FeatureID, word(f.History)))
	}
	for _, id := range ch.Edited {
		rows = append(rows, "~ feature\t"+id+"\tname, owner, purpose, kind, status or rules")
	}
	for _, n := range ch.Names {
		switch {
		case n.From == "" && n.Why != "":
			rows = append(rows, fmt.Sprintf("+ name\t%q\tto %s\tits history stays unmapped: %s", n.Event, n.To, n.Why))
		case n.From == "":
			rows = append(rows, fmt.Sprintf("+ name\t%q\tto %s\t%s", n.Event, n.To, word(n.History)))
		case n.To == "":
			rows = append(rows, fmt.Sprintf("- name\t%q\tfrom %s\tits history stays", n.Event, n.From))
		case n.Why != "":
			rows = append(rows, fmt.Sprintf("~ name\t%q\t%s to %s\tits history stays: %s", n.Event, n.From, n.To, n.Why))
		default:
			rows = append(rows, fmt.Sprintf("~ name\t%q\t%s to %s\t%s", n.Event, n.From, n.To, word(n.History)))
		}
	}
	if err := c.table(rows...); err != nil {
		return err
	}
	if n := len(ch.Moves); n > 0 {
		fmt.Fprintf(c.stdout, "every partition applies %d moves of history\n", n)
	}
	return nil
}

func (c *command) printFlows(flows []flow, days int) error {
	fmt.Fprintf(c.stdout, "\nof the events of the last %d days:\n", days)
	rows := []string{"events\tkind\tname\tnow\tthen"}
	or := func(id string) string { return cmp.Or(id, "(unmapped)") }
	var same, changed, unmapped uint64
	for _, f := range flows {
		if f.from == f.to {
			same += f.events
			if f.to == "" {
				unmapped += f.events
			}
			continue
		}
		changed += f.events
		about := ""
		if f.estimate {
			about = "~"
		}
		rows = append(rows, fmt.Sprintf("%s%d\t%s\t%q\t%s\t%s", about, f.events, f.kind, f.event, or(f.from), or(f.to)))
	}
	if changed == 0 {
		rows = rows[:0]
	}
	if err := c.table(rows...); err != nil {
		return err
	}
	fmt.Fprintf(c.stdout, "%d events would map to another feature, %d as they do now, %d of those to none\n", changed, same, unmapped)
	shown := 0
	for _, f := range flows {
		if f.to == "" && f.from == "" && shown < 20 {
			if shown == 0 {
				fmt.Fprintln(c.stdout, "still unmapped, the most frequent first:")
			}
			shown++
			fmt.Fprintf(c.stdout, "  %d %s %q\n", f.events, f.kind, f.event)
		}
	}
	return nil
}

// pick returns the version of a number, or the one in force for 0.
func (c *command) pick(ctx context.Context, number int64) (*catalog.Version, error) {
	vs, err := c.versions()
	if err != nil {
		return nil, err
	}
	defer vs.close()
	all, err := vs.all(ctx)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no catalog", c.app)
	}
	if number == 0 {
		return all[len(all)-1], nil
	}
	i := slices.IndexFunc(all, func(v *catalog.Version) bool { return v.Number == number })
	if i < 0 {
		return nil, fmt.Errorf("%s has no version %d; the newest is %d", c.app, number, all[len(all)-1].Number)
	}
	return all[i], nil
}

func (c *command) catalogExport(ctx context.Context, args []string) error {
	c.needsLog()
	number := c.set.Int64("version", 0, "`number` of the version; 0: the one in force")
	format := c.set.String("format", "yaml", "yaml, csv, json (the whole version) or segment (a tracking plan)")
	out := c.set.String("o", "-", "`file` to write to; - for standard output")
	if _, err := c.parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := c.pick(ctx, *number)
	if err != nil {
		return err
	}
	var text []byte
	switch *format {
	case "yaml":
		text, err = v.Catalog.YAML()
	case "csv":
		text, err = exportCSV(v.Catalog)
	case "segment":
		text, err = exportSegment(v.Catalog)
	case "json":
		text, err = json.MarshalIndent(v, "", "  ")
		text = append(text, '\n')
	default:
		return process.UsageError(fmt.Errorf("format must be yaml, csv, json or segment (got %q)", *format))
	}
	if err != nil {
		return err
	}
	return c.write(*out, text)
}

func (c *command) catalogHistory(ctx context.Context, args []string) error {
	c.needsLog()
	if _, err := c.parse(args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	vs, err := c.versions()
	if err != nil {
		return err
	}
	defer vs.close()
	all, err := vs.all(ctx)
	if err != nil {
		return err
	}
	rows := []string{"version\tapplied at\tauthor\tfeatures\tmoves\treason"}
	for _, v := range all {
		n := 0
		v.Catalog.Each(func(*catalog.Product, *catalog.Module, *catalog.Feature) { n++ })
		rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%d\t%d\t%s", v.Number, v.AppliedAt.Format(time.RFC3339), v.Author, n, len(v.HistoryMoves), v.Reason))
	}
	return c.table(rows...)
}

func (c *command) catalogImport(_ context.Context, args []string) error {
	format := c.set.String("format", "", "csv or segment; empty: by the file's name, .csv or .json")
	name := c.set.String("catalog", "imported", "`name` of the catalog")
	product := c.set.String("product", "", "`name` of the product where the file names none; empty: the catalog's")
	out := c.set.String("o", "-", "`file` to write the YAML to; - for standard output")
	rest, err := c.parse(args, "FILE")
	if err != nil {
		return err
	}
	text, err := read(rest[0])
	if err != nil {
		return err
	}
	kind := *format
	if kind == "" {
		kind = map[bool]string{strings.HasSuffix(rest[0], ".csv"): "csv", strings.HasSuffix(rest[0], ".json"): "segment"}[true]
	}
	im := newImporter(*name, cmp.Or(*product, *name))
	var read func([]byte) error
	switch kind {
	case "csv":
		read = im.csv
	case "segment":
		read = im.segment
	default:
		return process.UsageError(fmt.Errorf("format must be csv or segment (got %q)", *format))
	}
	if err = checkEncoding(text); err == nil {
		err = read(text)
	}
	if err != nil {
		return fmt.Errorf("import %s:\n%w", rest[0], err)
	}
	if err := im.cat.Check(); err != nil {
		return fmt.Errorf("import %s:\n%w", rest[0], err)
	}
	for _, finding := range im.findings {
		fmt.Fprintln(c.stderr, finding)
	}
	yaml, err := im.cat.YAML()
	if err != nil {
		return err
	}
	return c.write(*out, yaml)
}
