package catalogcli

import (
	"bytes"
	"cmp"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/uptakehq/uptake/schemas/catalog"
)

// importer assembles features that are added one by one.
type importer struct {
	cat     *catalog.Catalog
	product string // where a feature names none

	taken    map[string]bool // ids, with their kind before them
	names    map[string]bool // event names
	findings []string        // findings like those of lint, about names that are read differently from how they are written
}

func newImporter(name, product string) *importer {
	return &importer{cat: &catalog.Catalog{Name: catalog.Slug(name)}, product: product, taken: map[string]bool{}, names: map[string]bool{}}
}

// id returns the slug of a name, made unique among those of its kind with the name of
// the enclosing module or product.
func (im *importer) id(kind, name, within string) string {
	id := catalog.Slug(name)
	if im.taken[kind+id] && within != "" {
		id = catalog.Slug(within) + "_" + id
	}
	for base, n := id, 2; im.taken[kind+id]; n++ {
		id = fmt.Sprintf("%s_%d", base, n)
	}
	im.taken[kind+id] = true
	return id
}

// sameName reports whether two names of products, of modules of one product or of
// features of one module differ only in case, blanks and how Unicode composes their
// letters: people write Till, till and TILL in a table and mean one module.
func sameName(a, b string) bool {
	plain := func(s string) string { return norm.NFKC.String(strings.Join(strings.Fields(s), " ")) }
	return strings.EqualFold(plain(a), plain(b))
}

// check reports faults of a feature and of the names of its module and product, while
// the line they come from is known.
func (im *importer) check(product, module string, f catalog.Feature) error {
	for _, it := range [...]struct{ what, name string }{{"feature", f.Name}, {"module", module}, {"product", product}} {
		if catalog.Slug(it.name) == "" {
			return fmt.Errorf("%s name must have a letter or a digit, of which its id is made (got %q)", it.what, it.name)
		}
	}
	f.ID = catalog.Slug(f.Name)
	one := catalog.Catalog{Name: "one", Products: []catalog.Product{{
		ID: catalog.Slug(product), Name: product, Status: catalog.StatusActive,
		Modules: []catalog.Module{{ID: catalog.Slug(module), Name: module, Status: catalog.StatusActive, Features: []catalog.Feature{f}}},
	}}}
	var faults catalog.Faults
	if !errors.As(one.Check(), &faults) {
		return nil
	}
	texts := make([]string, len(faults))
	for i, fault := range faults {
		_, field, _ := strings.Cut(fault.Path, "modules[0].")
		texts[i] = strings.TrimPrefix(strings.TrimPrefix(cmp.Or(field, fault.Path), "features[0]"), ".") + ": " + fault.Text
	}
	return errors.New(strings.Join(texts, "; "))
}

// find notes what lint would report if it knew how a name was written.
func (im *importer) find(kind, written, taken string) {
	text := fmt.Sprintf("%s: %s %q is read as %q", catalog.CheckDuplicate, kind, written, taken)
	if written != taken && !slices.Contains(im.findings, text) {
		im.findings = append(im.findings, text)
	}
}

// add adds a feature to its module, which is created if it is new. f has no id yet; its
// names are its event names.
func (im *importer) add(product, module string, f catalog.Feature) error {
	product = cmp.Or(product, im.product)
	module = cmp.Or(module, product)
	f.Kind, f.Status = cmp.Or(f.Kind, catalog.KindCore), cmp.Or(f.Status, catalog.StatusActive)
	if err := im.check(product, module, f); err != nil {
		return err
	}
	i := slices.IndexFunc(im.cat.Products, func(p catalog.Product) bool { return sameName(p.Name, product) })
	if i < 0 {
		i = len(im.cat.Products)
		im.cat.Products = append(im.cat.Products, catalog.Product{ID: im.id("p/", product, ""), Name: product, Status: catalog.StatusActive})
	}
	p := &im.cat.Products[i]
	im.find("product", product, p.Name)
	j := slices.IndexFunc(p.Modules, func(m catalog.Module) bool { return sameName(m.Name, module) })
	if j < 0 {
		j = len(p.Modules)
		p.Modules = append(p.Modules, catalog.Module{ID: im.id("m/", module, product), Name: module, Status: catalog.StatusActive})
	}
	m := &p.Modules[j]
	im.find("module", module, m.Name)
	if k := slices.IndexFunc(m.Features, func(o catalog.Feature) bool { return sameName(o.Name, f.Name) }); k >= 0 {
		as := ""
		if other := m.Features[k].Name; other != f.Name {
			as = fmt.Sprintf(", as %q", other)
		}
		return fmt.Errorf("feature %q is in module %q already%s", f.Name, m.Name, as)
	}
	for k, n := range f.Names {
		if im.names[n] || slices.Contains(f.Names[:k], n) {
			return fmt.Errorf("event name %q belongs to another feature", n)
		}
	}
	for _, n := range f.Names {
		im.names[n] = true
	}
	f.ID = im.id("f/", f.Name, module)
	m.Features = append(m.Features, f)
	return nil
}

// errEncoding is the error about a file that is not UTF-8.
var errEncoding = errors.New(`file is no UTF-8: save it as "CSV UTF-8"`)

// checkEncoding reports text in another encoding. UTF-16 begins with a byte order mark,
// or has a zero byte beside each letter of the first line.
func checkEncoding(text []byte) error {
	if bytes.HasPrefix(text, []byte("\xff\xfe")) || bytes.HasPrefix(text, []byte("\xfe\xff")) || bytes.IndexByte(text[:min(len(text), 64)], 0) >= 0 {
		return fmt.Errorf("%w (it is UTF-16, which spreadsheets call Unicode text)", errEncoding)
	}
	for n, line := range bytes.Split(text, []byte("\n")) {
		if !utf8.Valid(line) {
			return fmt.Errorf("line %d: %w", n+1, errEncoding)
		}
	}
	return nil
}

// columns of the CSV form; the first three are needed in an import.
var columns = []string{"Feature", "Module", "Product", "Kind", "Status", "Owner", "Purpose", "Events"}

// eventSeparator separates event names in a cell.
const eventSeparator = "|"

// csv reads the onboarding template: a line with the names of the columns, in any
// order and case, then a feature a line. All faults are reported at once.
func (im *importer) csv(text []byte) error {
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // spreadsheets write it
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord = -1
	r.TrimLeadingSpace = true
	first, _, _ := bytes.Cut(text, []byte("\n"))
	commas, semicolons := bytes.Count(first, []byte(",")), bytes.Count(first, []byte(";"))
	if bytes.Count(first, []byte("\t")) > max(commas, semicolons) {
		return errors.New("line 1: columns are separated by tabs: save the file as CSV, with commas or semicolons between them")
	}
	if semicolons > commas {
		r.Comma = ';' // spreadsheets of many countries
	}
	head, err := r.Read()
	if errors.Is(err, io.EOF) {
		return errors.New("file is empty")
	}
	if err != nil {
		return err
	}
	at := map[string]int{}
	var errs []error
	for i, h := range head {
		h = strings.TrimSpace(h)
		k := slices.IndexFunc(columns, func(c string) bool { return strings.EqualFold(c, h) })
		switch {
		case h == "":
		case k < 0:
			errs = append(errs, fmt.Errorf("line 1: unknown column %q; there are %s", h, strings.Join(columns, ", ")))
		default:
			at[columns[k]] = i
		}
	}
	for _, need := range columns[:3] {
		if _, ok := at[need]; !ok {
			errs = append(errs, fmt.Errorf("line 1: column %q is missing", need))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			return errors.Join(errs...)
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		line, _ := r.FieldPos(0)
		cell := func(column string) string {
			if i, ok := at[column]; ok && i < len(rec) {
				return strings.TrimSpace(rec[i])
			}
			return ""
		}
		if strings.TrimSpace(strings.Join(rec, "")) == "" {
			continue
		}
		f := catalog.Feature{
			Name: cell("Feature"), Kind: strings.ToLower(cell("Kind")), Status: strings.ToLower(cell("Status")),
			Owner: cell("Owner"), Purpose: cell("Purpose"), Names: []string{cell("Feature")},
		}
		if events := cell("Events"); events != "" {
			f.Names = nil
			for e := range strings.SplitSeq(events, eventSeparator) {
				if e = strings.TrimSpace(e); e != "" {
					f.Names = append(f.Names, e)
				}
			}
		}
		var faults []string
		for _, need := range columns[:3] {
			if cell(need) == "" {
				faults = append(faults, fmt.Sprintf("column %q is empty", need))
			}
		}
		if f.Kind != "" && !slices.Contains(catalog.Kinds(), f.Kind) {
			faults = append(faults, fmt.Sprintf("kind must be one of %s (got %q)", strings.Join(catalog.Kinds(), ", "), f.Kind))
		}
		if f.Status != "" && !slices.Contains(catalog.Statuses(), f.Status) {
			faults = append(faults, fmt.Sprintf("status must be one of %s (got %q)", strings.Join(catalog.Statuses(), ", "), f.Status))
		}
		if len(faults) == 0 {
			if err := im.add(cell("Product"), cell("Module"), f); err != nil {
				faults = append(faults, err.Error())
			}
		}
		for _, fault := range faults {
			errs = append(errs, fmt.Errorf("line %d: %s", line, fault))
		}
	}
}

// exportCSV writes a catalog in the form that csv reads. The form cannot express rules,
// ids and metrics.
func exportCSV(c *catalog.Catalog) ([]byte, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if err := w.Write(columns); err != nil {
		return nil, err
	}
	var err error
	c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
		if err == nil {
			err = w.Write([]string{f.Name, m.Name, p.Name, f.Kind, f.Status, catalog.FeatureOwner(p, m, f), f.Purpose, strings.Join(f.Names, eventSeparator)})
		}
	})
	w.Flush()
	return out.Bytes(), errors.Join(err, w.Error())
}

// trackingPlan is a Segment tracking plan in both forms that Segment's APIs
// give: events with name and description under rules.events, or a list of rules
// with key, type and jsonSchema. Either may lie under data.
type trackingPlan struct {
	Name        string          `json:"name"`
	DisplayName string          `json:"display_name"`
	Rules       json.RawMessage `json:"rules"`
	Data        *trackingPlan   `json:"data"`
	// The response for a single plan has the plan here.
	TrackingPlan *trackingPlan `json:"trackingPlan"`
	// A list of rules is returned in pages.
	Pagination struct {
		Next         string `json:"next"`
		TotalEntries int    `json:"totalEntries"`
	} `json:"pagination"`
}

type planEvent struct {
	Name        string            `json:"name"`
	Description string            `json:"description"`
	Labels      map[string]string `json:"labels,omitempty"`
	Version     int               `json:"version"`
	Rules       json.RawMessage   `json:"rules,omitempty"`
}

type planRule struct {
	Key        string `json:"key"`
	Type       string `json:"type"`
	Version    int    `json:"version"`
	JSONSchema struct {
		Description string            `json:"description"`
		Labels      map[string]string `json:"labels"`
	} `json:"jsonSchema"`
}

// segment reads a tracking plan, all of its pages one after the other. Its events
// become features of one module, unless their labels product, module, kind and owner
// are set.
func (im *importer) segment(text []byte) error {
	var p trackingPlan // of all pages
	var events []planEvent
	rules := map[string]bool{} // a page that is there twice does not stand for another
	pages, err := pagesOf(text)
	if err != nil {
		return fmt.Errorf("tracking plan: %w", err)
	}
	for _, page := range pages {
		more, err := page.events(&p, rules)
		if err != nil {
			return err
		}
		events = append(events, more...)
	}
	switch total := p.Pagination.TotalEntries; {
	case len(rules) < total:
		return fmt.Errorf("tracking plan is incomplete: it has %d of %d rules. Put all pages into the file, one after the other", len(rules), total)
	case p.Pagination.Next != "" && total == 0:
		return errors.New("tracking plan is incomplete: its last page announces another one. Put all pages into the file, one after the other")
	}
	// An event may occur in several versions: the newest counts.
	newest := map[string]int{}
	for _, e := range events {
		newest[e.Name] = max(newest[e.Name], e.Version)
	}
	var errs []error
	done := map[string]bool{}
	for i, e := range events {
		if e.Version != newest[e.Name] || done[e.Name] {
			continue
		}
		done[e.Name] = true
		if e.Name == "" {
			errs = append(errs, fmt.Errorf("event %d has no name", i+1))
			continue
		}
		label := func(name string) string {
			for k, v := range e.Labels {
				if strings.EqualFold(k, name) {
					return v
				}
			}
			return ""
		}
		f := catalog.Feature{Name: e.Name, Purpose: cut(e.Description), Kind: strings.ToLower(label("kind")), Owner: label("owner"), Names: []string{e.Name}}
		if f.Kind != "" && !slices.Contains(catalog.Kinds(), f.Kind) {
			errs = append(errs, fmt.Errorf("event %q: label kind must be one of %s (got %q)", e.Name, strings.Join(catalog.Kinds(), ", "), f.Kind))
			continue
		}
		if err := im.add(label("product"), cmp.Or(label("module"), p.DisplayName, p.Name), f); err != nil {
			errs = append(errs, err)
		}
	}
	if len(done) == 0 {
		errs = append(errs, errors.New("tracking plan has no track events"))
	}
	return errors.Join(errs...)
}

// pagesOf reads a plan's pages, which stand one after the other or in an array.
func pagesOf(text []byte) (pages []*trackingPlan, err error) {
	for in := json.NewDecoder(bytes.NewReader(text)); ; {
		var raw json.RawMessage
		if err := in.Decode(&raw); errors.Is(err, io.EOF) {
			return pages, nil
		} else if err != nil {
			return nil, err
		}
		list := []*trackingPlan{{}}
		if raw[0] == '[' {
			err = json.Unmarshal(raw, &list)
		} else {
			err = json.Unmarshal(raw, list[0])
		}
		if err != nil {
			return nil, err
		}
		if slices.Contains(list, nil) {
			return nil, errors.New("a page is null")
		}
		pages = append(pages, list...)
	}
}

// events returns the track events of a page. It adds its rules to rules, and the plan's
// names and the page's position to all.
func (p *trackingPlan) events(all *trackingPlan, rules map[string]bool) (events []planEvent, err error) {
	for {
		all.DisplayName, all.Name = cmp.Or(all.DisplayName, p.DisplayName), cmp.Or(all.Name, p.Name)
		next := p.Data
		if next == nil {
			next = p.TrackingPlan
		}
		if next == nil {
			break
		}
		if next.Pagination.Next == "" && next.Pagination.TotalEntries == 0 {
			next.Pagination = p.Pagination
		}
		p = next
	}
	all.Pagination.Next = p.Pagination.Next
	all.Pagination.TotalEntries = max(all.Pagination.TotalEntries, p.Pagination.TotalEntries)
	switch text := bytes.TrimSpace(p.Rules); {
	case len(text) == 0:
		return nil, errors.New("tracking plan has no rules")
	case text[0] == '[':
		var byKey []planRule
		if err := json.Unmarshal(text, &byKey); err != nil {
			return nil, fmt.Errorf("tracking plan: rules: %w", err)
		}
		for _, r := range byKey {
			rules[fmt.Sprintf("%s %d %s", r.Type, r.Version, r.Key)] = true
			if strings.EqualFold(r.Type, "TRACK") && r.Key != "" {
				events = append(events, planEvent{Name: r.Key, Description: r.JSONSchema.Description, Labels: r.JSONSchema.Labels, Version: r.Version})
			}
		}
		return events, nil
	default:
		var byName struct {
			Events []planEvent `json:"events"`
		}
		if err := json.Unmarshal(text, &byName); err != nil {
			return nil, fmt.Errorf("tracking plan: rules: %w", err)
		}
		for _, e := range byName.Events {
			rules[fmt.Sprintf("TRACK %d %s", e.Version, e.Name)] = true
		}
		return byName.Events, nil
	}
}

// cut shortens a description to the length of a purpose.
func cut(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > catalog.MaxTextBytes {
		s = strings.ToValidUTF8(s[:catalog.MaxTextBytes-3], "") + "..."
	}
	return s
}

// exportSegment writes a catalog as a tracking plan with one event per event name. The
// form cannot express rules.
func exportSegment(c *catalog.Catalog) ([]byte, error) {
	var events []planEvent
	c.Each(func(p *catalog.Product, m *catalog.Module, f *catalog.Feature) {
		for _, name := range f.Names {
			events = append(events, planEvent{
				Name: name, Description: f.Purpose, Version: 1,
				Labels: map[string]string{"product": p.Name, "module": m.Name, "feature": f.Name, "kind": f.Kind, "owner": catalog.FeatureOwner(p, m, f)},
				Rules:  json.RawMessage(`{"$schema":"http://json-schema.org/draft-07/schema#","type":"object","properties":{}}`),
			})
		}
	})
	text, err := json.MarshalIndent(map[string]any{"display_name": c.Name, "rules": map[string]any{"events": events}}, "", "  ")
	return append(text, '\n'), err
}
