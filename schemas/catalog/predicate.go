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

// spans says where the values that rules look at stand in the event, by the
// matcher's table of paths. An empty span is an absent value.
type spans [reservedPaths + MaxRuleProperties]span

type span struct{ start, end uint32 }

// key is a property that rules look at.
type key struct {
	at        int
	inContext bool
}

// text returns the comparable text of the value; false if there is none, or
// nothing a rule's value could equal. It is valid until the next call.
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
		// Six bytes of text are at least one byte of what it says.
		if len(raw) > 6*maxComparable+2 {
			return nil, false
		}
		if len(raw)-2 <= maxComparable {
			return rawjson.AppendUnquoted(s.value[:0], raw), true
		}
		text := rawjson.AppendUnquoted(nil, raw)
		return text, true
	case rawjson.Number:
		return appendNumber(s.value[:0], raw), true
	case rawjson.Bool:
		return raw, true
	}
	return nil, false
}

// number returns the value as a number; a string that holds one counts.
func (k key) number(s *search) (float64, bool) {
	text, ok := k.text(s)
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

// pathTable numbers the properties that rules look at.
type pathTable struct {
	m    *Matcher
	next int
}

func compilePredicate(p *Predicate, paths *pathTable) predicate {
	tree, path, inContext := paths.m.properties, p.Property, false
	if p.Context != "" {
		tree, path, inContext = paths.m.context, p.Context, true
	}
	at := tree.add(path, paths.next)
	if at == paths.next {
		paths.next++
	}
	return predicate{key: key{at: at, inContext: inContext}, src: p}
}

// indexable says that the predicate asks for one of some values.
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
	exists := len(raw) > 0 && raw[0] != 'n'
	if src.Exists != nil && *src.Exists != exists {
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

// keyTree finds the values of certain key paths in one pass over an object.
type keyTree struct {
	children map[string]*keyTree
	at       int // -1: only on the way to others
}

func newKeyTree() *keyTree { return &keyTree{at: -1} }

// add asks for a key path; it returns the place the path had, or at.
func (t *keyTree) add(path string, at int) int {
	for part := range strings.SplitSeq(path, ".") {
		next := t.children[part]
		if next == nil {
			if t.children == nil {
				t.children = map[string]*keyTree{}
			}
			next = newKeyTree()
			t.children[part] = next
		}
		t = next
	}
	if t.at < 0 {
		t.at = at
	}
	return t.at
}

// maxScanDepth bounds what scan steps over; normalized objects are flatter.
const maxScanDepth = 128

// scan sets the spans of what it finds in the JSON object doc. Of a key that is
// there twice the first counts. Where doc is no valid JSON it stops.
func (t *keyTree) scan(doc []byte, into *spans) {
	if len(t.children) == 0 || len(doc) > math.MaxUint32 {
		return
	}
	t.scanObject(doc, rawjson.Space(doc, 0), into)
}

// scanObject returns the index after the object at i, or Bad.
func (t *keyTree) scanObject(doc []byte, i int, into *spans) int {
	if i >= len(doc) || doc[i] != '{' {
		return rawjson.Bad
	}
	i = rawjson.Space(doc, i+1)
	if i < len(doc) && doc[i] == '}' {
		return i + 1
	}
	for {
		end, escaped := rawjson.EndString(doc, i)
		if end == rawjson.Bad {
			return rawjson.Bad
		}
		var next *keyTree
		if !escaped {
			next = t.children[string(doc[i+1:end-1])]
		} else {
			var buf [64]byte
			next = t.children[string(rawjson.AppendUnquoted(buf[:0], doc[i:end]))]
		}
		if i = rawjson.Colon(doc, end); i == rawjson.Bad {
			return rawjson.Bad
		}
		if next != nil && len(next.children) > 0 && i < len(doc) && doc[i] == '{' {
			end = next.scanObject(doc, i, into)
		} else {
			end = rawjson.EndValue(doc, i, maxScanDepth)
		}
		if end == rawjson.Bad {
			return rawjson.Bad
		}
		if next != nil && next.at >= 0 && into[next.at].end == 0 {
			into[next.at] = span{start: uint32(i), end: uint32(end)}
		}
		next2, more := rawjson.Next(doc, end, '}')
		if !more {
			return next2
		}
		i = next2
	}
}
