package catalog

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// spans holds the positions of the values that rules read in the event, by the
// matcher's table of paths. An empty span is an absent value.
type spans [reservedPaths + MaxRuleProperties]span

type span struct{ start, end uint32 }

// key is a property that rules read.
type key struct {
	at        int
	inContext bool
}

// text returns the value as text; false if it has none. It is valid until the next
// call.
func (k key) text(s *search) ([]byte, bool) {
	raw := s.raw(k.at, k.inContext)
	if len(raw) == 0 {
		return nil, false
	}
	switch rawjson.KindAt(raw, 0) {
	case rawjson.String:
		if bytes.IndexByte(raw, '\\') < 0 {
			return raw[1 : len(raw)-1], true
		}
		if len(raw)-2 <= len(s.value) {
			return rawjson.AppendUnquoted(s.value[:0], raw), true
		}
		if s.long == nil || s.long.of != k {
			s.long = &longText{of: k, text: rawjson.AppendUnquoted(nil, raw)}
		}
		return s.long.text, true
	case rawjson.Number:
		return appendNumber(s.value[:0], raw), true
	case rawjson.Bool:
		return raw, true
	}
	return nil, false
}

// comparable returns the value's text as text does, if a rule's value can be
// equal to it.
func (k key) comparable(s *search) ([]byte, bool) {
	// A byte of text takes up to six bytes when escaped.
	if len(s.raw(k.at, k.inContext)) > 6*MaxValueBytes+2 {
		return nil, false
	}
	return k.text(s)
}

// number returns the value as a number; a string that holds one counts.
func (k key) number(s *search) (float64, bool) {
	text, ok := k.comparable(s)
	if !ok || len(text) == 0 || len(text) > 64 {
		return 0, false
	}
	v, err := strconv.ParseFloat(unsafe.String(&text[0], len(text)), 64)
	return v, err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// appendNumber appends a JSON number in its shortest form: 12.0 and 1.2e1 are 12.
func appendNumber(dst, raw []byte) []byte {
	if _, integer := rawjson.EndNumber(raw, 0); integer {
		if string(raw) == "-0" {
			return append(dst, '0')
		}
		return append(dst, raw...)
	}
	v, err := strconv.ParseFloat(unsafe.String(&raw[0], len(raw)), 64)
	if err != nil {
		return append(dst, raw...)
	}
	return appendFloat(dst, v)
}

func appendFloat(dst []byte, v float64) []byte {
	if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
		return strconv.AppendInt(dst, int64(v), 10)
	}
	return strconv.AppendFloat(dst, v, 'g', -1, 64)
}

// predicate is a compiled Predicate.
type predicate struct {
	key key
	src *Predicate
}

// pathTable numbers the properties that rules read.
type pathTable struct {
	m     *Matcher
	next  int
	nodes int // of both trees
}

func compilePredicate(p *Predicate, paths *pathTable) predicate {
	tree, path, inContext := paths.m.properties, p.Property, false
	if p.Context != "" {
		tree, path, inContext = paths.m.context, p.Context, true
	}
	at := tree.add(path, paths.next, &paths.nodes)
	if at == paths.next {
		paths.next++
	}
	return predicate{key: key{at: at, inContext: inContext}, src: p}
}

// indexable reports whether the predicate requires one of some values.
func (p *Predicate) indexable() bool { return p.Equals != nil || len(p.In) > 0 }

// values returns the values that the property must have, nil if there is no
// such list.
func (p *predicate) values() []string {
	switch {
	case p.src.Equals != nil:
		return []string{*p.src.Equals}
	case len(p.src.In) > 0:
		// A value given twice must not list the rule twice.
		values := slices.Clone(p.src.In)
		slices.Sort(values)
		return slices.Compact(values)
	}
	return nil
}

func (p *predicate) fits(s *search) bool {
	src := p.src
	raw := s.raw(p.key.at, p.key.inContext)
	if src.Exists != nil && *src.Exists != saysSomething(raw) {
		return false
	}
	if src.GT != nil || src.GTE != nil || src.LT != nil || src.LTE != nil {
		v, ok := p.key.number(s)
		if !ok || (src.GT != nil && v <= *src.GT) || (src.GTE != nil && v < *src.GTE) ||
			(src.LT != nil && v >= *src.LT) || (src.LTE != nil && v > *src.LTE) {
			return false
		}
	}
	if src.Equals == nil && src.Not == nil && len(src.In) == 0 && len(src.NotIn) == 0 &&
		src.Prefix == "" && src.Suffix == "" && src.Contains == "" {
		return true
	}
	b, ok := p.key.text(s)
	text := unsafe.String(unsafe.SliceData(b), len(b)) // lives as long as b, in this call
	switch {
	case src.Not != nil && ok && text == *src.Not,
		ok && slices.Contains(src.NotIn, text),
		src.Equals != nil && (!ok || text != *src.Equals),
		len(src.In) > 0 && (!ok || !slices.Contains(src.In, text)),
		!strings.HasPrefix(text, src.Prefix),
		!strings.HasSuffix(text, src.Suffix),
		!strings.Contains(text, src.Contains):
		return false
	}
	return true
}

// saysSomething reports whether a value is present: null is not, and neither is an
// object without content. Columns of ClickHouse keep no trace of either, and the result
// of a rule must not depend on whether it is evaluated before or after storing.
func saysSomething(raw []byte) bool {
	if len(raw) == 0 || raw[0] == 'n' {
		return false
	}
	if raw[0] != '{' {
		return true
	}
	i, more := rawjson.First(raw, 0, '}')
	for more {
		_, value, _ := rawjson.Member(raw, i)
		if value == rawjson.Bad {
			return false
		}
		end := rawjson.EndValue(raw, value, maxScanDepth)
		if end == rawjson.Bad || saysSomething(raw[value:end]) {
			return end != rawjson.Bad
		}
		i, more = rawjson.Next(raw, end, '}')
	}
	return false
}

// keyTree finds the values of certain key paths in one pass over an object, whose
// keys are as the sender wrote them. A dot in a key is an underscore, and of two
// keys of one object that come out alike one counts, as docs/metadata.md says: one
// without dots before one with, and the last of several.
type keyTree struct {
	children map[string]*keyTree
	at       int // -1: only on the way to others
	number   int // among all nodes of a matcher
}

func newKeyTree() *keyTree { return &keyTree{at: -1} }

// maxNodes bounds the nodes of a matcher's trees.
const maxNodes = (reservedPaths + MaxRuleProperties) * MaxPathSegments

// nodeSet is a set of nodes by their numbers.
type nodeSet [maxNodes / 64]uint64

func (n *nodeSet) has(number int) bool { return n[number/64]&(1<<(number%64)) != 0 }
func (n *nodeSet) add(number int)      { n[number/64] |= 1 << (number % 64) }
func (n *nodeSet) remove(number int)   { n[number/64] &^= 1 << (number % 64) }

// add requests a key path; it returns the path's number, or at. nodes are counted on.
func (t *keyTree) add(path string, at int, nodes *int) int {
	for part := range strings.SplitSeq(path, ".") {
		next := t.children[part]
		if next == nil {
			if t.children == nil {
				t.children = map[string]*keyTree{}
			}
			next = newKeyTree()
			next.number = *nodes
			*nodes++
			t.children[part] = next
		}
		t = next
	}
	if t.at < 0 {
		t.at = at
	}
	return t.at
}

// maxScanDepth bounds the nesting that scan skips, as in the normalizer.
const maxScanDepth = 512

// scan sets the spans of the values that it finds in the JSON object doc. It stops
// where doc is not valid JSON.
func (t *keyTree) scan(doc []byte, s *search) {
	if len(t.children) == 0 || len(doc) > math.MaxUint32 {
		return
	}
	t.scanObject(doc, rawjson.Space(doc, 0), s)
}

// scanObject returns the index after the object at i, or Bad.
func (t *keyTree) scanObject(doc []byte, i int, s *search) int {
	if i >= len(doc) || doc[i] != '{' {
		return rawjson.Bad
	}
	i, more := rawjson.First(doc, i, '}')
	for more {
		end, value, escaped := rawjson.Member(doc, i)
		if value == rawjson.Bad {
			return rawjson.Bad
		}
		next := t.take(doc[i:end], escaped, s)
		if next != nil && len(next.children) > 0 && rawjson.KindAt(doc, value) == rawjson.Object {
			end = next.scanObject(doc, value, s)
		} else {
			end = rawjson.EndValue(doc, value, maxScanDepth)
		}
		if end == rawjson.Bad {
			return rawjson.Bad
		}
		if next != nil && next.at >= 0 {
			s.spans[next.at] = span{start: uint32(value), end: uint32(end)}
		}
		i, more = rawjson.Next(doc, end, '}')
	}
	return i
}

// take returns the node of a key as written, with quotes; nil if no rule reads it, or
// another key of the object has the name.
func (t *keyTree) take(written []byte, escaped bool, s *search) *keyTree {
	next, dotted := t.children[string(written[1:len(written)-1])], false
	if next == nil || escaped {
		var buf [64]byte
		name := written[1 : len(written)-1]
		if dotted = bytes.IndexByte(name, '.') >= 0; !dotted && !escaped {
			return nil
		}
		if name = buf[:0]; escaped {
			name = rawjson.AppendUnquoted(name, written)
		} else {
			name = append(name, written[1:len(written)-1]...)
		}
		for at, c := range name {
			if c == '.' {
				name[at], dotted = '_', true
			}
		}
		if next = t.children[string(name)]; next == nil {
			return nil
		}
	}
	if s.seen.has(next.number) {
		if dotted && s.plain.has(next.number) {
			return nil
		}
		next.reset(s)
	}
	s.seen.add(next.number)
	if !dotted {
		s.plain.add(next.number)
	}
	return next
}

// reset clears the spans of the node and of all nodes below it.
func (t *keyTree) reset(s *search) {
	if !s.seen.has(t.number) {
		return
	}
	s.seen.remove(t.number)
	s.plain.remove(t.number)
	if t.at >= 0 {
		s.spans[t.at] = span{}
	}
	for _, child := range t.children {
		child.reset(s)
	}
}
