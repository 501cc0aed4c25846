// Package catalog maps events to features.
//
// It owns the catalog's YAML format and its checks, its entities (features, modules,
// products, metrics), the matcher that maps an event to a feature, the versions of a
// catalog in the compacted topic, the changes from one version to the next (and which
// history moves), and the linter. It reads no files and talks to no broker: callers do
// that, and switch from one version to the next.
//
// docs/catalog.md describes the format for the people who write catalogs.
package catalog

import (
	"fmt"
	"strings"
	"unicode"
)

// Kinds of features.
const (
	KindCore       = "core"
	KindOnboarding = "onboarding"
	KindUpsell     = "upsell"
	KindRisk       = "risk"
	KindFriction   = "friction"
)

// Kinds lists the kinds of features; the first is the default.
func Kinds() []string {
	return []string{KindCore, KindOnboarding, KindUpsell, KindRisk, KindFriction}
}

// Statuses of products, modules and features.
const (
	StatusPlanned    = "planned"
	StatusActive     = "active"
	StatusDeprecated = "deprecated"
)

// Statuses lists the statuses; the default is active.
func Statuses() []string { return []string{StatusPlanned, StatusActive, StatusDeprecated} }

// Semantics of a metric's values.
const (
	SemanticsDelta      = "delta"      // adds to what was before
	SemanticsGauge      = "gauge"      // is the value at that time
	SemanticsCumulative = "cumulative" // is the total since its start
)

// Semantics lists them; there is no default.
func Semantics() []string { return []string{SemanticsDelta, SemanticsGauge, SemanticsCumulative} }

// Values of History.
const (
	HistoryMove = "move"
	HistoryKeep = "keep"
)

// Catalog defines the meaning of one app's events. Its JSON form is part of a Version;
// its YAML form is what people write.
type Catalog struct {
	Name        string      `json:"name"`
	Description string      `json:"description,omitempty"`
	Products    []Product   `json:"products"`
	Metrics     []Metric    `json:"metrics,omitempty"`
	History     History     `json:"history,omitzero"`
	Lint        LintOptions `json:"lint,omitzero"`

	places map[string]place // where each path stands in the YAML, if it came from there
}

// Product is something that is sold or shipped as a whole.
type Product struct {
	ID      string   `json:"id"`
	Name    string   `json:"name"`
	Owner   string   `json:"owner,omitempty"`
	Purpose string   `json:"purpose,omitempty"`
	Status  string   `json:"status"`
	Modules []Module `json:"modules"`
}

// Module is a part of a product. An empty Owner means the product's.
type Module struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Owner    string    `json:"owner,omitempty"`
	Purpose  string    `json:"purpose,omitempty"`
	Status   string    `json:"status"`
	Features []Feature `json:"features"`
}

// Feature is something that people use. An empty Owner means the module's.
type Feature struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Owner   string `json:"owner,omitempty"`
	Purpose string `json:"purpose,omitempty"`
	Kind    string `json:"kind"`
	Status  string `json:"status"`
	// Names are the exact event names of the feature.
	Names []string `json:"names,omitempty"`
	Rules []Rule   `json:"rules,omitempty"`
	// Replaces are ids of features that this one replaces from now on.
	Replaces []string `json:"replaces,omitempty"`
}

// Rule matches an event when all of its conditions hold.
type Rule struct {
	// Kind of call: track, page, screen or api_call. Empty: page with Path,
	// api_call with Method or Route, else all four.
	Kind  string `json:"kind,omitempty"`
	Event string `json:"event,omitempty"` // exact event name
	// Path is a pattern for the path of the page's URL, Route for that of an API call:
	// see docs/catalog.md.
	Path     string      `json:"path,omitempty"`
	Method   string      `json:"method,omitempty"`
	Route    string      `json:"route,omitempty"`
	Where    []Predicate `json:"where,omitempty"`
	Priority int         `json:"priority,omitempty"`
}

// Predicate is a condition on one property. All given operators must hold. Values
// compare as text, numbers in their shortest form.
type Predicate struct {
	Property string   `json:"property,omitempty"` // key path with dots, normalized keys
	Context  string   `json:"context,omitempty"`  // the same in the context object
	Equals   *string  `json:"equals,omitempty"`
	In       []string `json:"in,omitempty"`
	Not      *string  `json:"not_equals,omitempty"`
	NotIn    []string `json:"not_in,omitempty"`
	Exists   *bool    `json:"exists,omitempty"`
	Prefix   string   `json:"prefix,omitempty"`
	Suffix   string   `json:"suffix,omitempty"`
	Contains string   `json:"contains,omitempty"`
	GT       *float64 `json:"gt,omitempty"`
	GTE      *float64 `json:"gte,omitempty"`
	LT       *float64 `json:"lt,omitempty"`
	LTE      *float64 `json:"lte,omitempty"`
}

// Metric is a number that is reported rather than counted.
type Metric struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Names     []string `json:"names"` // exact names of metric events
	Semantics string   `json:"semantics"`
	Unit      string   `json:"unit,omitempty"`
	Owner     string   `json:"owner,omitempty"`
	Purpose   string   `json:"purpose,omitempty"`
}

// History declares what happens to usage counted before the version.
type History struct {
	// Default says whether the history of a feature that changes module,
	// product or id moves with it. Empty: each one must be named in Features.
	Default string `json:"default,omitempty"`
	// Unmapped decides whether usage under a name without a feature moves to the
	// feature that names it now. Empty is move.
	Unmapped string `json:"unmapped,omitempty"`
	// Features overrides Default by the feature's id in this version.
	Features map[string]string `json:"features,omitempty"`
}

// For returns move, keep, or empty when the feature's history is not decided.
func (h History) For(featureID string) string {
	if w, ok := h.Features[featureID]; ok {
		return w
	}
	return h.Default
}

// LintOptions tune Lint for this catalog.
type LintOptions struct {
	Convention string     `json:"convention,omitempty"` // object_action (default), action_object or none
	Casing     string     `json:"casing,omitempty"`     // title (default), snake, kebab, camel or any
	Synonyms   [][]string `json:"synonyms,omitempty"`   // words that mean the same in names
	Ignore     []Ignore   `json:"ignore,omitempty"`
}

// Ignore suppresses one finding of Lint, with a reason.
type Ignore struct {
	Check  string `json:"check"`
	ID     string `json:"id"` // of the feature, module, product or metric
	Reason string `json:"reason"`
}

// Limits of a catalog. They bound a matcher's cost and a version's size; people can
// keep track of far less, and Lint reports that.
const (
	MaxBytes        = 4 << 20
	MaxFeatures     = 10_000
	MaxNames        = 50_000
	MaxRules        = 5_000
	MaxTextBytes    = 2_000 // purpose, description
	MaxNameBytes    = 256   // names of things and of events
	MaxIDBytes      = 128
	MaxPathSegments = 16
	MaxPredicates   = 16  // of one rule
	MaxValues       = 256 // of one in or not_in
	MaxValueBytes   = 256 // of one value of a predicate
	// MaxRuleProperties is how many different properties all rules together
	// may look at.
	MaxRuleProperties = 256 - reservedPaths
	// MaxUnindexed is how many rules may compete for an event without an equals or in
	// condition that distinguishes them.
	MaxUnindexed = 64
)

// Slug derives an id from a name: letters and digits, lower-case, every run of
// anything else one underscore, none at the ends. "Item Scanned" and
// "item-scanned" are item_scanned; "itemScanned" is itemscanned.
func Slug(name string) string {
	var b strings.Builder
	gap := false
	for _, r := range name {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			gap = b.Len() > 0
			continue
		}
		if gap {
			b.WriteByte('_')
			gap = false
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// checkID returns the fault of an id, or nil.
func checkID(id string) string {
	switch {
	case id == "":
		return "must not be empty"
	case len(id) > MaxIDBytes:
		return fmt.Sprintf("must be at most %d bytes (got %d)", MaxIDBytes, len(id))
	}
	for _, r := range id {
		if unicode.IsDigit(r) || r == '_' || r == '-' || r == '.' || (unicode.IsLetter(r) && unicode.ToLower(r) == r) {
			continue
		}
		return fmt.Sprintf("must be lower-case letters, digits, _ - and . only (got %q)", id)
	}
	return ""
}

// Each calls f with every feature, its module and its product, in order.
func (c *Catalog) Each(f func(p *Product, m *Module, f *Feature)) {
	for i := range c.Products {
		p := &c.Products[i]
		for j := range p.Modules {
			m := &p.Modules[j]
			for k := range m.Features {
				f(p, m, &m.Features[k])
			}
		}
	}
}

// FeatureOwner returns the feature's owner, else its module's, else its product's.
func FeatureOwner(p *Product, m *Module, f *Feature) string {
	switch {
	case f.Owner != "":
		return f.Owner
	case m.Owner != "":
		return m.Owner
	}
	return p.Owner
}

// place is a position in the YAML text.
type place struct {
	line int
	path string // as the text has it, if that is another one: aliases[0] for names[1]
}

// Place returns the position of a path such as products[0].modules[1].name in the YAML
// text: its line, else that of the nearest enclosing element, and the path as in the
// text. The line is 0 when the catalog was not read from YAML.
func (c *Catalog) Place(path string) (line int, source string) {
	for around := path; ; {
		if p, ok := c.places[around]; ok || around == "" {
			if around == path && p.path != "" {
				path = p.path
			}
			return p.line, path
		}
		around = around[:max(0, strings.LastIndexAny(around, ".["))]
	}
}
