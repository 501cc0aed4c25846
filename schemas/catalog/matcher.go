package catalog

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"sort"
	"strings"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Mapping is the feature of an event, with its module and product.
type Mapping struct {
	FeatureID string `json:"feature_id"`
	ModuleID  string `json:"module_id"`
	ProductID string `json:"product_id"`
}

// Matcher maps events to features. It is immutable, safe for concurrent use
// and allocates nothing, but for a text of more than MaxValueBytes with escapes
// that a rule looks into.
//
// One rule decides between all exact names and rules that fit an event. The
// first of these that differs decides:
//
//  1. the higher priority (exact names have 0, as have rules by default);
//  2. the class: a rule that names the event, an exact name, a rule with a path,
//     method or route, any other rule;
//  3. the more literal segments in path or route;
//  4. path or route without ** at its end;
//  5. the more conditions (method, and each of where);
//  6. the earlier in the catalog.
//
// What an event costs does not depend on the number of exact names. Rules are
// looked at only when they name the event, or their pattern fits its path, or
// they are for any event; among those with an equals or in condition only the
// ones whose value the event has; and none that ranks behind one that fits.
type Matcher struct {
	mappings []Mapping
	events   map[string]*eventEntry
	patterns [numKinds]*node // by path or route; nil when there are none
	any      [numKinds]*bucket

	properties *keyTree
	context    *keyTree
}

// eventEntry holds the names and rules for one event name.
type eventEntry struct {
	rank    int32 // of the exact name; noRank if there is none
	mapping int32
	bucket  *bucket // of the rules that name it
}

const noRank = math.MaxInt32

// Kinds of calls that count as usage, as indexes.
const (
	kindTrack = iota
	kindPage
	kindScreen
	kindAPICall
	numKinds
)

func kindIndex(kind string) int {
	switch kind {
	case event.KindTrack:
		return kindTrack
	case event.KindPage:
		return kindPage
	case event.KindScreen:
		return kindScreen
	case event.KindAPICall:
		return kindAPICall
	}
	return -1
}

// The properties that path, method and route read, in this order; the first one that is
// a string counts.
const (
	atPath = iota
	atURL
	atRoute
	atURI
	atMethod
	atVerb
	atContextPath
	atContextURL
	atContextURI
	atContextVerb
	reservedPaths
)

var (
	reservedProperties = [...]string{atPath: "path", atURL: "url", atRoute: "route", atURI: "uri", atMethod: "method", atVerb: "verb"}
	reservedContext    = [...]string{"page.path", "page.url", "request.uri", "request.verb"} // from atContextPath on
)

// candidate is an exact name or a rule before it is ranked.
type candidate struct {
	name     string // exact name, or empty
	rule     *Rule
	mapping  int32
	priority int
	class    int
	literals int
	open     bool // ends with **
	conds    int
	order    int
}

func (c *candidate) before(o *candidate) int {
	open := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	return cmp.Or(
		-cmp.Compare(c.priority, o.priority),
		cmp.Compare(c.class, o.class),
		-cmp.Compare(c.literals, o.literals),
		cmp.Compare(open(c.open), open(o.open)),
		-cmp.Compare(c.conds, o.conds),
		cmp.Compare(c.order, o.order),
	)
}

// Classes of candidates, see Matcher.
const (
	classEventRule = iota
	classExact
	classPattern
	classOther
)

// candidates lists all exact names and rules of c by rank, and the mappings
// they point to.
func candidates(c *Catalog) ([]*candidate, []Mapping) {
	var all []*candidate
	var mappings []Mapping
	c.Each(func(p *Product, m *Module, f *Feature) {
		at := int32(len(mappings))
		mappings = append(mappings, Mapping{FeatureID: f.ID, ModuleID: m.ID, ProductID: p.ID})
		for _, name := range f.Names {
			all = append(all, &candidate{name: name, mapping: at, class: classExact, order: len(all)})
		}
		for i := range f.Rules {
			r := &f.Rules[i]
			cd := &candidate{rule: r, mapping: at, priority: r.Priority, conds: len(r.Where), order: len(all), class: classOther}
			if r.Method != "" {
				cd.conds++
			}
			for _, s := range splitPattern(r.Path + r.Route) {
				switch s {
				case anySegments:
					cd.open = true
				case anySegment:
				default:
					cd.literals++
				}
			}
			switch {
			case r.Event != "":
				cd.class = classEventRule
			case r.Path != "" || r.Route != "" || r.Method != "":
				cd.class = classPattern
			}
			all = append(all, cd)
		}
	})
	slices.SortFunc(all, (*candidate).before)
	return all, mappings
}

// Compile builds the matcher of a catalog that Parse, Decode or Check accepted.
func Compile(c *Catalog) *Matcher {
	m := &Matcher{events: map[string]*eventEntry{}, properties: newKeyTree(), context: newKeyTree()}
	paths := pathTable{m: m, next: reservedPaths}
	for at, path := range reservedProperties {
		m.properties.add(path, at, &paths.nodes)
	}
	for i, path := range reservedContext {
		m.context.add(path, atContextPath+i, &paths.nodes)
	}
	all, mappings := candidates(c)
	m.mappings = mappings
	for rank, cd := range all {
		if cd.rule == nil {
			e := m.entry(cd.name)
			e.rank, e.mapping = int32(rank), cd.mapping
			continue
		}
		r := compileRule(cd, int32(rank), &paths)
		switch {
		case cd.rule.Event != "":
			e := m.entry(cd.rule.Event)
			if e.bucket == nil {
				e.bucket = &bucket{}
			}
			if pattern := cd.rule.Path + cd.rule.Route; pattern != "" {
				r.segments, r.hasPattern = splitPattern(pattern), true
			}
			e.bucket.add(r)
		case cd.rule.Path != "" || cd.rule.Route != "":
			for k := range m.patterns {
				if r.kinds&(1<<k) == 0 {
					continue
				}
				if m.patterns[k] == nil {
					m.patterns[k] = &node{minRank: noRank}
				}
				b := m.patterns[k].insert(splitPattern(cd.rule.Path + cd.rule.Route))
				if *b == nil {
					*b = &bucket{}
				}
				(*b).add(r)
			}
		default:
			for k := range m.any {
				if r.kinds&(1<<k) == 0 {
					continue
				}
				if m.any[k] == nil {
					m.any[k] = &bucket{}
				}
				m.any[k].add(r)
			}
		}
	}
	for _, e := range m.events {
		if e.bucket != nil {
			e.bucket.settle()
		}
	}
	for k := range m.patterns {
		if m.patterns[k] != nil {
			m.patterns[k].settle()
		}
		if m.any[k] != nil {
			m.any[k].settle()
		}
	}
	return m
}

func (m *Matcher) entry(name string) *eventEntry {
	e := m.events[name]
	if e == nil {
		e = &eventEntry{rank: noRank}
		m.events[name] = e
	}
	return e
}

// Features returns the number of features.
func (m *Matcher) Features() int { return len(m.mappings) }

// Match returns the feature that an event is usage of. kind is that of the
// call; calls that are no usage match nothing. properties and context are JSON
// object text as it was sent, or empty: what type the columns give a property must
// not decide whether a rule fits. The Mapping's strings live as long as the matcher.
func (m *Matcher) Match(kind, eventName string, properties, context []byte) (Mapping, bool) {
	k := kindIndex(kind)
	if k < 0 {
		return Mapping{}, false
	}
	best := int32(noRank)
	e := m.events[eventName]
	if e != nil {
		best = e.rank
	}
	byEvent := e != nil && e.bucket != nil && e.bucket.minRank < best
	byPattern := m.patterns[k] != nil && m.patterns[k].minRank < best
	byAny := m.any[k] != nil && m.any[k].minRank < best
	if !byEvent && !byPattern && !byAny {
		if best == noRank {
			return Mapping{}, false
		}
		return m.mappings[e.mapping], true
	}
	return m.matchRules(k, eventName, e, best, properties, context)
}

func (m *Matcher) matchRules(k int, eventName string, e *eventEntry, best int32, properties, context []byte) (Mapping, bool) {
	s := search{m: m, kind: uint8(1 << k), best: best, properties: properties, context: context}
	if e != nil {
		s.mapping = e.mapping
	}
	m.properties.scan(properties, &s)
	var pathBuf [512]byte // grows on the heap for a longer path with escapes
	var methodBuf [16]byte
	s.path = s.findPath(k, eventName, pathBuf[:0])
	s.method = s.findMethod(k, eventName, methodBuf[:0])
	if e != nil && e.bucket != nil {
		e.bucket.match(&s)
	}
	if m.patterns[k] != nil && s.path != nil {
		m.patterns[k].match(s.path, &s)
	}
	if m.any[k] != nil {
		m.any[k].match(&s)
	}
	if s.best == noRank {
		return Mapping{}, false
	}
	return m.mappings[s.mapping], true
}

// search is the matching of one event against the rules.
type search struct {
	m       *Matcher
	kind    uint8 // bit of the kind
	best    int32 // rank of the best that fits so far
	mapping int32

	properties, context []byte
	path                []byte // without slashes around it; nil if there is none
	method              []byte

	spans   spans // those of the context are there once scanned
	scanned bool
	seen    nodeSet             // of the trees' nodes, those whose key was there
	plain   nodeSet             // of these, those whose key was written without dots
	value   [MaxValueBytes]byte // scratch of text
	long    *longText           // the last one that was looked into
}

// longText is what a text with escapes says that does not fit into search.value.
type longText struct {
	of   key
	text []byte
}

// raw returns the JSON of what was found at a path of the table.
func (s *search) raw(at int, inContext bool) []byte {
	if inContext && !s.scanned {
		s.scanned = true // most events are decided without
		s.m.context.scan(s.context, s)
	}
	sp := s.spans[at]
	if inContext {
		return s.context[sp.start:sp.end]
	}
	return s.properties[sp.start:sp.end]
}

// str returns what the string at a reserved path says; nil if there is none.
func (s *search) str(at int, buf []byte) []byte {
	raw := s.raw(at, at >= atContextPath)
	if len(raw) < 2 || raw[0] != '"' {
		return nil
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	return rawjson.AppendUnquoted(buf, raw)
}

// findPath returns the path that patterns are compared with, or nil.
func (s *search) findPath(k int, eventName string, buf []byte) []byte {
	order := [...]int{atPath, atURL, atContextPath, atContextURL}
	if k == kindAPICall {
		order = [...]int{atRoute, atPath, atURI, atURL}
	}
	for _, at := range order {
		if p := s.str(at, buf); len(p) > 0 {
			return pathOf(p)
		}
	}
	if k != kindAPICall {
		return nil
	}
	if p := s.str(atContextURI, buf); len(p) > 0 {
		return pathOf(p)
	}
	// Without properties an API call may be identified by its name: GET /v1/items.
	if method, path, ok := strings.Cut(eventName, " "); ok && isMethod(method) && strings.HasPrefix(path, "/") {
		return pathOf(view(path))
	}
	return nil
}

func (s *search) findMethod(k int, eventName string, buf []byte) []byte {
	if k != kindAPICall {
		return nil
	}
	for _, at := range [...]int{atMethod, atVerb, atContextVerb} {
		if p := s.str(at, buf); len(p) > 0 {
			return p
		}
	}
	if method, _, ok := strings.Cut(eventName, " "); ok && isMethod(method) {
		return view(method)
	}
	return nil
}

// view returns the bytes of s, which must not be written to.
func view(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func isMethod(s string) bool {
	for i := range len(s) {
		if s[i] < 'A' || s[i] > 'Z' {
			return false
		}
	}
	return s != "" && len(s) <= 16
}

// rule is a compiled Rule.
type rule struct {
	rank    int32
	mapping int32
	kinds   uint8 // bits of the kinds that it is for
	method  string
	preds   []predicate

	// For a rule that names the event and has a path or route; the patterns of others
	// are in the tree that leads to them.
	hasPattern bool
	segments   []string
}

const allKinds = 1<<numKinds - 1

func compileRule(cd *candidate, rank int32, paths *pathTable) *rule {
	r := &rule{rank: rank, mapping: cd.mapping, kinds: allKinds, method: cd.rule.Method}
	if k := kindIndex(cd.rule.Kind); k >= 0 {
		r.kinds = 1 << k
	}
	for i := range cd.rule.Where {
		r.preds = append(r.preds, compilePredicate(&cd.rule.Where[i], paths))
	}
	return r
}

func (r *rule) fits(s *search) bool {
	if r.kinds&s.kind == 0 || (r.method != "" && !equalFold(s.method, r.method)) {
		return false
	}
	if r.hasPattern && (s.path == nil || !fitsSegments(r.segments, s.path)) {
		return false
	}
	for i := range r.preds {
		if !r.preds[i].fits(s) {
			return false
		}
	}
	return true
}

// equalFold compares with an upper-case word.
func equalFold(b []byte, upper string) bool {
	if len(b) != len(upper) {
		return false
	}
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}

// bucket holds rules that compete for the same events.
type bucket struct {
	minRank int32
	rules   []*rule // those without an index, by rank
	indexes []*index
}

// index holds rules by the value that one property must have.
type index struct {
	minRank int32
	key     key
	values  map[string][]*rule
}

// add adds a rule; rules are added in order of rank.
func (b *bucket) add(r *rule) {
	for i := range r.preds {
		values := r.preds[i].values()
		if values == nil {
			continue
		}
		key := r.preds[i].key
		at := slices.IndexFunc(b.indexes, func(ix *index) bool { return ix.key == key })
		if at < 0 {
			at = len(b.indexes)
			b.indexes = append(b.indexes, &index{key: key, values: map[string][]*rule{}})
		}
		ix := b.indexes[at]
		for _, v := range values {
			ix.values[v] = append(ix.values[v], r)
		}
		return
	}
	b.rules = append(b.rules, r)
}

func (b *bucket) settle() int32 {
	b.minRank = noRank
	if len(b.rules) > 0 {
		b.minRank = b.rules[0].rank
	}
	for _, ix := range b.indexes {
		ix.minRank = noRank
		for _, rules := range ix.values {
			ix.minRank = min(ix.minRank, rules[0].rank)
		}
		b.minRank = min(b.minRank, ix.minRank)
	}
	sort.Slice(b.indexes, func(i, j int) bool { return b.indexes[i].minRank < b.indexes[j].minRank })
	return b.minRank
}

func (b *bucket) match(s *search) {
	if b.minRank >= s.best {
		return
	}
	try(b.rules, s)
	for _, ix := range b.indexes {
		if ix.minRank >= s.best {
			return // sorted by minRank
		}
		if text, ok := ix.key.comparable(s); ok {
			try(ix.values[string(text)], s)
		}
	}
}

// try selects the first rule that matches and ranks before the best so far.
func try(rules []*rule, s *search) {
	for _, r := range rules {
		if r.rank >= s.best {
			return
		}
		if r.fits(s) {
			s.best, s.mapping = r.rank, r.mapping
			return
		}
	}
}
