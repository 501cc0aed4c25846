package catalog

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Checks of Lint.
const (
	CheckDuplicate  = "duplicate"  // names of different features that say the same
	CheckNaming     = "naming"     // a feature's name against the convention
	CheckOwner      = "owner"      // a feature, or all around it, without owner
	CheckPurpose    = "purpose"    // a feature without purpose
	CheckEmpty      = "empty"      // a product without modules, a module without features
	CheckSize       = "size"       // more than people keep in mind
	CheckConflict   = "conflict"   // only the order decides, or a rule is never reached
	CheckDeprecated = "deprecated" // deprecated, and events come
	CheckPlanned    = "planned"    // planned, and events come
)

func lintChecks() []string {
	return []string{
		CheckDuplicate, CheckNaming, CheckOwner, CheckPurpose, CheckEmpty, CheckSize,
		CheckConflict, CheckDeprecated, CheckPlanned,
	}
}

// Sizes above which people lose track.
const (
	manyFeatures = 100 // of one product
	manyModules  = 20  // of one product
)

// Finding is a problem that Lint found: a catalog with findings works, but will confuse
// people.
type Finding struct {
	Check string
	ID    string // of the feature, module, product or metric
	Line  int    // 0 when the catalog did not come from YAML
	Path  string
	Text  string
}

func (f Finding) String() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s: %s", f.Line, f.Check, f.ID, f.Text)
	}
	return fmt.Sprintf("%s: %s: %s", f.Check, f.ID, f.Text)
}

type linter struct {
	c        *Catalog
	findings []Finding
	paths    map[string]string // of things by kind and id
}

// Lint reports likely mistakes in a catalog that Check accepted. Findings named in the
// catalog's lint.ignore are omitted.
func Lint(c *Catalog) []Finding {
	l := newLinter(c)
	l.things()
	l.duplicates()
	l.conflicts()
	return l.done()
}

// LintUsage reports features that should have no events according to their status, and
// have some: events by feature id.
func LintUsage(c *Catalog, events map[string]uint64) []Finding {
	l := newLinter(c)
	c.Each(func(_ *Product, _ *Module, f *Feature) {
		n := events[f.ID]
		if n == 0 {
			return
		}
		switch f.Status {
		case StatusDeprecated:
			l.find(CheckDeprecated, f.ID, ".status", "is deprecated and still in use: %d events", n)
		case StatusPlanned:
			l.find(CheckPlanned, f.ID, ".status", "is planned and already in use: %d events", n)
		}
	})
	return l.done()
}

func newLinter(c *Catalog) *linter {
	l := &linter{c: c, paths: map[string]string{}}
	for i := range c.Products {
		p := &c.Products[i]
		l.paths[p.ID] = fmt.Sprintf("products[%d]", i)
		for j := range p.Modules {
			m := &p.Modules[j]
			l.paths[m.ID] = fmt.Sprintf("products[%d].modules[%d]", i, j)
		}
	}
	// Where one id names a product, a module and a feature, the feature's place
	// is shown.
	for i := range c.Products {
		for j := range c.Products[i].Modules {
			for k := range c.Products[i].Modules[j].Features {
				l.paths[c.Products[i].Modules[j].Features[k].ID] = fmt.Sprintf("products[%d].modules[%d].features[%d]", i, j, k)
			}
		}
	}
	return l
}

func (l *linter) find(check, id, field, format string, args ...any) {
	line, path := l.c.Place(l.paths[id] + field)
	l.findings = append(l.findings, Finding{Check: check, ID: id, Line: line, Path: path, Text: fmt.Sprintf(format, args...)})
}

func (l *linter) done() []Finding {
	kept := slices.DeleteFunc(l.findings, func(f Finding) bool {
		return slices.ContainsFunc(l.c.Lint.Ignore, func(ig Ignore) bool { return ig.Check == f.Check && ig.ID == f.ID })
	})
	slices.SortFunc(kept, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Check, b.Check), cmp.Compare(a.Text, b.Text))
	})
	return kept
}

func (l *linter) things() {
	products, modules := map[string]string{}, map[string]string{} // ids, by name without its case
	same := func(seen map[string]string, what, key, id, name string) {
		key = strings.ToLower(key)
		if other, ok := seen[key]; ok {
			l.find(CheckDuplicate, id, ".name", "%s %q has the name of %s %s", what, name, what, other)
			return
		}
		seen[key] = id
	}
	for i := range l.c.Products {
		p := &l.c.Products[i]
		same(products, "product", p.Name, p.ID, p.Name)
		if len(p.Modules) == 0 {
			l.find(CheckEmpty, p.ID, "", "product has no modules")
		}
		if len(p.Modules) > manyModules {
			l.find(CheckSize, p.ID, ".modules", "product has %d modules; more than %d nobody keeps in mind", len(p.Modules), manyModules)
		}
		features := 0
		for j := range p.Modules {
			m := &p.Modules[j]
			same(modules, "module", p.ID+"\x00"+m.Name, m.ID, m.Name)
			features += len(m.Features)
			if len(m.Features) == 0 {
				l.find(CheckEmpty, m.ID, "", "module has no features")
			}
			for k := range m.Features {
				l.feature(p, m, &m.Features[k])
			}
		}
		if features > manyFeatures {
			l.find(CheckSize, p.ID, ".modules", "product has %d features; more than %d nobody keeps in mind", features, manyFeatures)
		}
	}
}

func (l *linter) feature(p *Product, m *Module, f *Feature) {
	if FeatureOwner(p, m, f) == "" {
		l.find(CheckOwner, f.ID, "", "feature has no owner, nor have its module and product")
	}
	if f.Purpose == "" {
		l.find(CheckPurpose, f.ID, "", "feature has no purpose: what does a customer get done with it?")
	}
	convention, casing := l.c.Lint.Convention, l.c.Lint.Casing
	words := splitWords(f.Name)
	if len(words) == 0 {
		return
	}
	switch convention {
	case "", conventionObjectAction:
		if len(words) < 2 || !isPast(words[len(words)-1]) {
			l.find(CheckNaming, f.ID, ".name", "name must be an object and what was done to it, such as Item Scanned (got %q)", f.Name)
			return
		}
	case conventionActionObject:
		if len(words) < 2 || isPast(words[len(words)-1]) && !isPast(words[0]) {
			l.find(CheckNaming, f.ID, ".name", "name must be what was done and to what, such as Scanned Item (got %q)", f.Name)
			return
		}
	case conventionNone:
		return
	}
	if !inCasing(f.Name, casing) {
		l.find(CheckNaming, f.ID, ".name", "name must be in %s case (got %q)", cmp.Or(casing, casings()[0]), f.Name)
	}
}

// said is one name of one feature.
type said struct{ id, name string }

func (l *linter) duplicates() {
	v := newVocabulary(l.c.Lint.Synonyms)
	first, firstPlain := map[string]said{}, map[string]said{}
	var plains []string
	reported := map[[2]string]bool{}
	report := func(a, b said, how string) {
		pair := [2]string{a.id, b.id}
		if a.id == b.id || reported[pair] {
			return
		}
		reported[pair] = true
		l.find(CheckDuplicate, b.id, "", "%q %s %q of feature %s: make one an alias of the other, or merge them", b.name, how, a.name, a.id)
	}
	l.c.Each(func(_ *Product, _ *Module, f *Feature) {
		for _, name := range slices.Compact(append([]string{f.Name}, f.Names...)) {
			key, plain := v.keys(name)
			if key == "" {
				continue
			}
			s := said{f.ID, name}
			if other, ok := first[key]; ok {
				report(other, s, "says the same as")
			} else {
				first[key] = s
			}
			if _, ok := firstPlain[plain]; !ok {
				firstPlain[plain] = s
				plains = append(plains, plain)
			}
		}
	})
	// Names that are equal after removing one letter may be one letter apart: comparing
	// only those keeps ten thousand names fast.
	const shortest = 8 // below, one letter makes another word
	byRest := map[string][]string{}
	for _, key := range plains {
		if len(key) < shortest {
			continue
		}
		rests := map[string]bool{key: true}
		for i := range key {
			rests[key[:i]+key[i+1:]] = true
		}
		for rest := range rests {
			for _, other := range byRest[rest] {
				if nearly(other, key) {
					report(firstPlain[other], firstPlain[key], "is one letter away from")
				}
			}
			byRest[rest] = append(byRest[rest], key)
		}
	}
}

// conflicts finds rules that only their order keeps apart, and rules and names
// that are never reached because another comes before them for all their events.
func (l *linter) conflicts() {
	all, mappings := candidates(l.c)
	id := func(c *candidate) string { return mappings[c.mapping].FeatureID }
	before := map[string][]*candidate{} // by the event they name, empty for rules that name none
	for _, c := range all {
		r := c.rule
		if r == nil {
			r = &Rule{Event: c.name}
		}
		// Rules that name an event compete with those for that event and with those for
		// any event.
		rivals := before[r.Event]
		if r.Event != "" {
			rivals = slices.Concat(rivals, before[""])
		}
		for _, b := range rivals {
			if id(b) == id(c) {
				continue
			}
			br := b.rule
			if br == nil {
				br = &Rule{Event: b.name}
			}
			if covers(br, r) {
				l.find(CheckConflict, id(c), "", "%s is never reached: %s of feature %s comes first and fits all its events", describe(c), describe(b), id(b))
				break
			}
			tied := *b
			tied.order = c.order
			if tied.before(c) == 0 && overlap(br, r) {
				l.find(CheckConflict, id(c), "", "%s and %s of feature %s can fit the same event, and only their order in the catalog decides: give one a priority", describe(c), describe(b), id(b))
				break
			}
		}
		before[r.Event] = append(before[r.Event], c)
	}
}

func describe(c *candidate) string {
	if c.rule == nil {
		return fmt.Sprintf("name %q", c.name)
	}
	return "rule " + c.rule.String()
}

// String describes a rule in one line.
func (r *Rule) String() string {
	var parts []string
	add := func(name, v string) {
		if v != "" {
			parts = append(parts, name+" "+v)
		}
	}
	add("kind", r.Kind)
	add("event", r.Event)
	add("path", r.Path)
	add("method", r.Method)
	add("route", r.Route)
	for i := range r.Where {
		add("where", cmp.Or(r.Where[i].Property, "context "+r.Where[i].Context))
	}
	return strings.Join(parts, ", ")
}

// covers reports whether a matches every event that b matches.
func covers(a, b *Rule) bool {
	return (a.Kind == "" || a.Kind == b.Kind) && (a.Event == "" || a.Event == b.Event) &&
		(a.Method == "" || a.Method == b.Method) &&
		(a.Path+a.Route == "" || patternCovers(splitPattern(a.Path+a.Route), b.Path+b.Route)) &&
		!slices.ContainsFunc(a.Where, func(p Predicate) bool {
			return !slices.ContainsFunc(b.Where, func(q Predicate) bool { return reflect.DeepEqual(p, q) })
		})
}

func patternCovers(a []string, pattern string) bool {
	if pattern == "" {
		return false
	}
	b := splitPattern(pattern)
	for i, s := range a {
		if s == anySegments {
			return len(b) >= i
		}
		if i >= len(b) || b[i] == anySegments || (s != anySegment && s != b[i]) {
			return false
		}
	}
	return len(a) == len(b)
}

// overlap reports whether some event may match both; of conditions it considers only
// those that require one of some values.
func overlap(a, b *Rule) bool {
	differ := func(x, y string) bool { return x != "" && y != "" && x != y }
	if differ(a.Kind, b.Kind) || differ(a.Event, b.Event) || differ(a.Method, b.Method) {
		return false
	}
	pa, pb := a.Path+a.Route, b.Path+b.Route
	if pa != "" && pb != "" && !patternsOverlap(splitPattern(pa), splitPattern(pb)) {
		return false
	}
	for i := range a.Where {
		for j := range b.Where {
			p, q := predicate{src: &a.Where[i]}, predicate{src: &b.Where[j]}
			if p.src.Property != q.src.Property || p.src.Context != q.src.Context {
				continue
			}
			pv, qv := p.values(), q.values()
			if pv != nil && qv != nil && !slices.ContainsFunc(pv, func(v string) bool { return slices.Contains(qv, v) }) {
				return false
			}
		}
	}
	return true
}

func patternsOverlap(a, b []string) bool {
	for i := 0; ; i++ {
		switch {
		case i < len(a) && a[i] == anySegments:
			return true
		case i < len(b) && b[i] == anySegments:
			return true
		case i == len(a) || i == len(b):
			return len(a) == len(b)
		case a[i] != anySegment && b[i] != anySegment && a[i] != b[i]:
			return false
		}
	}
}
