package catalog

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/uptakehq/uptake/schemas/event"
)

// Check reports all faults of c, as Parse and Decode do; Compile accepts a catalog
// without faults.
func (c *Catalog) Check() error {
	if fs := check(c); len(fs) > 0 {
		for i := range fs {
			fs[i].Line, fs[i].Path = c.Place(fs[i].Path)
		}
		return fs.Sorted()
	}
	return nil
}

func check(c *Catalog) Faults {
	k := &checker{
		c: c, products: ids{}, modules: ids{}, features: ids{}, metrics: ids{},
		names: map[string]string{}, metricNames: map[string]string{}, replaced: map[string]string{},
		properties: map[string]bool{}, unindexed: map[string]int{},
	}
	k.catalog()
	return k.faults
}

// ids maps an id to the path of what has it.
type ids map[string]string

type checker struct {
	c      *Catalog
	faults Faults

	products, modules, features, metrics ids

	names       map[string]string // exact name to path of its feature
	metricNames map[string]string
	replaced    map[string]string
	properties  map[string]bool // what rules look at
	unindexed   map[string]int  // rules that compete without an index, by bucket

	countFeatures, countNames, countRules int
}

func (k *checker) fault(path, format string, args ...any) {
	k.faults = append(k.faults, Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// at returns the position of a path as displayed: with its line if known.
func (k *checker) at(path string) string {
	line, path := k.c.Place(path)
	if line > 0 {
		return fmt.Sprintf("%s, line %d", path, line)
	}
	return path
}

func (k *checker) catalog() {
	c := k.c
	if why := checkID(c.Name); why != "" {
		k.fault("catalog", "%s", why)
	}
	k.longText("description", c.Description)
	if len(c.Products) == 0 {
		k.fault("products", "must list at least one product")
	}
	for i := range c.Products {
		k.product(fmt.Sprintf("products[%d]", i), &c.Products[i])
	}
	for i := range c.Metrics {
		k.metric(fmt.Sprintf("metrics[%d]", i), &c.Metrics[i])
	}
	// A feature may replace another only when that one is removed, which is known once
	// all features have been read.
	c.Each(func(_ *Product, _ *Module, f *Feature) {
		for j, id := range f.Replaces {
			if at, ok := k.features[id]; ok {
				k.fault(fmt.Sprintf("%s.replaces[%d]", k.features[f.ID], j), "%q is a feature of this catalog (%s): a replaced feature must be gone", id, k.at(at))
			}
		}
	})
	k.limit("products", "features", k.countFeatures, MaxFeatures)
	k.limit("products", "event names", k.countNames, MaxNames)
	k.limit("products", "rules", k.countRules, MaxRules)
	k.limit("products", "different properties in rules", len(k.properties), MaxRuleProperties)
	k.history()
	k.lintOptions()
}

func (k *checker) limit(path, what string, got, most int) {
	if got > most {
		k.fault(path, "must have at most %d %s (got %d)", most, what, got)
	}
}

func (k *checker) longText(path, s string) {
	if len(s) > MaxTextBytes {
		k.fault(path, "must be at most %d bytes (got %d)", MaxTextBytes, len(s))
	}
	if !utf8.ValidString(s) {
		k.fault(path, "must be UTF-8 (got %q)", s)
	}
}

// shortText checks the name of something, or of an event.
func (k *checker) shortText(path, s string) {
	switch {
	case s == "":
		k.fault(path, "must not be empty")
	case len(s) > MaxNameBytes:
		k.fault(path, "must be at most %d bytes (got %d)", MaxNameBytes, len(s))
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		k.fault(path, "must be UTF-8 without control characters (got %q)", s)
	case strings.TrimSpace(s) != s:
		k.fault(path, "must not start or end with white space (got %q)", s)
	}
}

func (k *checker) oneOf(path, got string, want []string) {
	if !slices.Contains(want, got) {
		k.fault(path, "must be one of %s (got %q)", strings.Join(want, ", "), got)
	}
}

// thing checks the fields that products, modules, features and metrics share.
func (k *checker) thing(path, what string, seen ids, id, name, owner, purpose string) {
	k.shortText(path+".name", name)
	if len(owner) > MaxNameBytes {
		k.fault(path+".owner", "must be at most %d bytes (got %d)", MaxNameBytes, len(owner))
	}
	k.longText(path+".purpose", purpose)
	if id == "" && name == "" {
		return // the empty name has been reported
	}
	if why := checkID(id); why != "" {
		k.fault(path+".id", "%s", why)
		return
	}
	if other, ok := seen[id]; ok {
		k.fault(path+".id", "%s id %q is taken (%s): give one of them another id", what, id, k.at(other))
		return
	}
	seen[id] = path
}

func (k *checker) product(path string, p *Product) {
	k.thing(path, "product", k.products, p.ID, p.Name, p.Owner, p.Purpose)
	k.oneOf(path+".status", p.Status, Statuses())
	for i := range p.Modules {
		k.module(fmt.Sprintf("%s.modules[%d]", path, i), &p.Modules[i])
	}
}

func (k *checker) module(path string, m *Module) {
	k.thing(path, "module", k.modules, m.ID, m.Name, m.Owner, m.Purpose)
	k.oneOf(path+".status", m.Status, Statuses())
	for i := range m.Features {
		k.feature(fmt.Sprintf("%s.features[%d]", path, i), &m.Features[i])
	}
}

func (k *checker) feature(path string, f *Feature) {
	k.countFeatures++
	k.thing(path, "feature", k.features, f.ID, f.Name, f.Owner, f.Purpose)
	k.oneOf(path+".kind", f.Kind, Kinds())
	k.oneOf(path+".status", f.Status, Statuses())
	if len(f.Names) == 0 && len(f.Rules) == 0 && f.Status != StatusPlanned {
		k.fault(path, "feature %q matches no event: give it events or rules, or the status planned", f.Name)
	}
	k.eventNames(path, f.Names, k.names, "feature")
	for i := range f.Rules {
		k.countRules++
		k.rule(fmt.Sprintf("%s.rules[%d]", path, i), &f.Rules[i])
	}
	for i, id := range f.Replaces {
		p := fmt.Sprintf("%s.replaces[%d]", path, i)
		if why := checkID(id); why != "" {
			k.fault(p, "%s", why)
		} else if other, ok := k.replaced[id]; ok {
			k.fault(p, "%q is replaced already (%s)", id, k.at(other))
		} else {
			k.replaced[id] = p
		}
	}
}

func (k *checker) eventNames(path string, names []string, seen map[string]string, what string) {
	for i, name := range names {
		k.countNames++
		p := fmt.Sprintf("%s.names[%d]", path, i)
		if name == "" || len(name) > MaxNameBytes || !utf8.ValidString(name) {
			k.fault(p, "event name must be 1 to %d bytes of UTF-8 (got %q)", MaxNameBytes, name)
			continue
		}
		if other, ok := seen[name]; ok {
			if strings.HasPrefix(other, path+".") {
				k.fault(p, "event name %q is given twice", name)
			} else {
				k.fault(p, "event name %q belongs to another %s (%s)", name, what, k.at(other))
			}
			continue
		}
		seen[name] = p
	}
}

func impliedKind(r *Rule) string {
	switch {
	case r.Method != "" || r.Route != "":
		return event.KindAPICall
	case r.Path != "":
		return event.KindPage
	}
	return ""
}

func (k *checker) rule(path string, r *Rule) {
	usage := []string{event.KindTrack, event.KindPage, event.KindScreen, event.KindAPICall}
	if r.Kind != "" {
		k.oneOf(path+".kind", r.Kind, usage)
	}
	if r.Event == "" && r.Path == "" && r.Method == "" && r.Route == "" && len(r.Where) == 0 {
		k.fault(path, "must have a condition besides kind: event, path, method, route or where")
		return
	}
	if r.Priority < -1000 || r.Priority > 1000 {
		k.fault(path+".priority", "must be -1000 to 1000 (got %d)", r.Priority)
	}
	if len(r.Event) > MaxNameBytes || !utf8.ValidString(r.Event) {
		k.fault(path+".event", "must be at most %d bytes of UTF-8 (got %q)", MaxNameBytes, r.Event)
	}
	if r.Path != "" && (r.Method != "" || r.Route != "") {
		k.fault(path, "path is for pages, method and route are for API calls: give one or the other")
	}
	if r.Path != "" && r.Kind == event.KindAPICall {
		k.fault(path+".path", "is for pages, screens and tracks; of an API call give route (got kind %q)", r.Kind)
	}
	if (r.Method != "" || r.Route != "") && r.Kind != event.KindAPICall {
		k.fault(path+".kind", "must be %s with method or route (got %q)", event.KindAPICall, r.Kind)
	}
	if r.Method != "" && (len(r.Method) > 16 || strings.ContainsFunc(r.Method, func(c rune) bool { return c < 'A' || c > 'Z' })) {
		k.fault(path+".method", "must be an HTTP method such as GET (got %q)", r.Method)
	}
	k.pattern(path+".path", r.Path)
	k.pattern(path+".route", r.Route)
	k.limit(path+".where", "conditions", len(r.Where), MaxPredicates)
	indexed := false
	for i := range r.Where {
		p := &r.Where[i]
		k.predicate(fmt.Sprintf("%s.where[%d]", path, i), p)
		indexed = indexed || p.indexable()
	}
	if !indexed {
		bucket := contest(r)
		k.unindexed[bucket]++
		if k.unindexed[bucket] == MaxUnindexed+1 {
			k.fault(path, "more than %d rules compete for %s without an equals or in condition that tells them apart", MaxUnindexed, bucket)
		}
	}
}

// contest identifies the rules with which a rule competes, as the matcher groups them.
func contest(r *Rule) string {
	switch {
	case r.Event != "":
		return fmt.Sprintf("the event %q", r.Event)
	case r.Path != "":
		return "the path /" + strings.Join(splitPattern(r.Path), "/")
	case r.Route != "":
		return "the route /" + strings.Join(splitPattern(r.Route), "/")
	}
	return "any event"
}

func (k *checker) pattern(path, pattern string) {
	if pattern == "" {
		return
	}
	if why := checkPattern(pattern); why != "" {
		k.fault(path, "%s (got %q)", why, pattern)
	}
}

func (k *checker) predicate(path string, p *Predicate) {
	if (p.Property == "") == (p.Context == "") {
		k.fault(path, "must name either a property or a context key")
		return
	}
	key, field := p.Property, ".property"
	if p.Context != "" {
		key, field = p.Context, ".context"
	}
	if len(key) > MaxNameBytes || slices.Contains(strings.Split(key, "."), "") || strings.Count(key, ".") >= MaxPathSegments {
		k.fault(path+field, "must be up to %d keys joined by dots (got %q)", MaxPathSegments, key)
	}
	k.properties[field+key] = true
	if p.Equals == nil && p.Not == nil && p.Exists == nil && len(p.In) == 0 && len(p.NotIn) == 0 &&
		p.Prefix == "" && p.Suffix == "" && p.Contains == "" && p.GT == nil && p.GTE == nil && p.LT == nil && p.LTE == nil {
		k.fault(path, "must have a condition: equals, not_equals, in, not_in, exists, prefix, suffix, contains, gt, gte, lt or lte")
	}
	k.limit(path+".in", "values", len(p.In), MaxValues)
	k.limit(path+".not_in", "values", len(p.NotIn), MaxValues)
	check := func(field, v string) {
		if len(v) > MaxValueBytes {
			k.fault(path+field, "must be at most %d bytes (got %d)", MaxValueBytes, len(v))
		}
	}
	for _, v := range p.In {
		check(".in", v)
	}
	for _, v := range p.NotIn {
		check(".not_in", v)
	}
	if p.Equals != nil {
		check(".equals", *p.Equals)
	}
	if p.Not != nil {
		check(".not_equals", *p.Not)
	}
	check(".prefix", p.Prefix)
	check(".suffix", p.Suffix)
	check(".contains", p.Contains)
}

func (k *checker) metric(path string, m *Metric) {
	k.thing(path, "metric", k.metrics, m.ID, m.Name, m.Owner, m.Purpose)
	k.oneOf(path+".semantics", m.Semantics, Semantics())
	if len(m.Unit) > MaxNameBytes {
		k.fault(path+".unit", "must be at most %d bytes (got %d)", MaxNameBytes, len(m.Unit))
	}
	if len(m.Names) == 0 {
		k.fault(path, "metric %q matches no event: give it events", m.Name)
	}
	k.eventNames(path, m.Names, k.metricNames, "metric")
}

func (k *checker) history() {
	h := k.c.History
	words := []string{HistoryMove, HistoryKeep}
	if h.Default != "" {
		k.oneOf("history.default", h.Default, words)
	}
	if h.Unmapped != "" {
		k.oneOf("history.unmapped", h.Unmapped, words)
	}
	for _, id := range sortedKeys(h.Features) {
		path := "history.features." + id
		k.oneOf(path, h.Features[id], words)
		if _, ok := k.features[id]; !ok {
			k.fault(path, "there is no feature %q in this catalog", id)
		}
	}
}

func (k *checker) lintOptions() {
	o := k.c.Lint
	if o.Convention != "" {
		k.oneOf("lint.convention", o.Convention, conventions())
	}
	if o.Casing != "" {
		k.oneOf("lint.casing", o.Casing, casings())
	}
	for i, ig := range o.Ignore {
		path := fmt.Sprintf("lint.ignore[%d]", i)
		k.oneOf(path+".check", ig.Check, lintChecks())
		if ig.ID == "" {
			k.fault(path+".id", "must name a feature, module, product or metric")
		} else if k.features[ig.ID] == "" && k.modules[ig.ID] == "" && k.products[ig.ID] == "" && k.metrics[ig.ID] == "" {
			k.fault(path+".id", "there is no feature, module, product or metric %q", ig.ID)
		}
		if ig.Reason == "" {
			k.fault(path+".reason", "must say why")
		}
	}
}
