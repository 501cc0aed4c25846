package metadata

import (
	"bytes"
	"strings"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// memo caches keys for one view of the registry: their names in the columns and their
// types. Nearly every event has known keys, each with a value that fits its type; such
// an event is processed in one pass from the cache (plain), any other by the general
// code (object). Both append the same text.
type memo struct {
	view *View
	apps map[string]*appMemo
	size int    // keys and apps
	turn uint64 // number of the current object
}

// maxMemo bounds the cached keys and apps. Beyond it others use the general code until
// the view changes.
const maxMemo = 16 << 10

// appMemo is the cache of an app.
type appMemo struct {
	name               string
	tree               *node // nil: nothing known
	count              int   // of keys in tree
	properties, traits *shape
}

// shape is the cache of the keys of an object.
type shape struct {
	t     *node
	keys  map[string]*memoKey // by how they are written, with quotes
	turns map[string]*uint64  // by name: the object that has it
	first *memoKey            // that the last object began with
}

// memoKey is a key that has a place in the columns.
type memoKey struct {
	place
	written string // with quotes
	name    string // as it is appended: with quotes and colon
	turn    *uint64
	next    *memoKey // that followed it the last time
}

// place is the destination of the values of a key, or of the elements of an array.
type place struct {
	t        *node  // nil: it has no type
	within   *shape // of an object
	elements *place // of an array
}

// of returns the cache of an app. When there is no room for it, it is temporary and
// valid until the next call.
func (m *memo) of(view *View, app string) *appMemo {
	if m.view != view {
		*m = memo{view: view, apps: map[string]*appMemo{}, turn: m.turn}
	}
	if a := m.apps[app]; a != nil {
		return a
	}
	a := &appMemo{name: strings.Clone(app)}
	a.tree, a.count = view.app(app)
	if m.size < maxMemo {
		m.size++
		m.apps[a.name] = a
	}
	return a
}

func (a *appMemo) object(name string) *shape {
	at := &a.properties
	if name == Traits {
		at = &a.traits
	}
	if *at == nil {
		*at = newShape(a.tree.child([]byte(name)))
	}
	return *at
}

func newShape(t *node) *shape {
	return &shape{t: t, keys: map[string]*memoKey{}, turns: map[string]*uint64{}}
}

// plainObject appends the event's object, which starts at i, if it is plain. Otherwise
// it changes only the cache.
func (n *Normalizer) plainObject(dst, doc []byte, i int, object string) (out []byte, ok bool) {
	stats := n.stats
	out, end, ok := n.plain(dst, doc, i, n.at.object(object), 1)
	if ok = ok && rawjson.Space(doc, end) == len(doc); !ok {
		n.stats, n.keysLeft = stats, n.limits.Keys
	}
	return out, ok
}

// plain appends the object at i, if nothing in it has to be agreed on or kept under
// conflicts, and returns the index after it.
func (n *Normalizer) plain(dst, doc []byte, i int, s *shape, depth int) (out []byte, end int, ok bool) {
	if i >= len(doc) || doc[i] != '{' {
		return dst, i, false
	}
	dst = append(dst, '{')
	i, more := rawjson.First(doc, i, '}')
	if !more {
		return append(dst, '}'), i, i != rawjson.Bad
	}
	n.memo.turn++
	turn := n.memo.turn
	for guess := &s.first; ; {
		k := *guess
		if k == nil || len(doc)-i < len(k.written) || string(doc[i:i+len(k.written)]) != k.written {
			if k = n.memoKey(s, doc, i); k == nil {
				return dst, i, false
			}
			*guess = k
		}
		if n.keysLeft == 0 || *k.turn == turn { // too many keys, or two of one name
			return dst, i, false
		}
		n.keysLeft--
		n.stats.Keys++
		*k.turn = turn
		guess = &k.next
		i += len(k.written)
		if i < len(doc) && doc[i] == ':' {
			i = rawjson.Space(doc, i+1)
		} else if i = rawjson.Colon(doc, i); i == rawjson.Bad {
			return dst, i, false
		}
		dst = append(dst, k.name...)
		if dst, i, ok = n.plainValue(dst, doc, i, &k.place, depth); !ok {
			return dst, i, false
		}
		if i, more = rawjson.Next(doc, i, '}'); !more {
			return append(dst, '}'), i, i != rawjson.Bad
		}
		dst = append(dst, ',')
	}
}

// memoKey returns the cached key at i, nil when it has no column or there is no room.
func (n *Normalizer) memoKey(s *shape, doc []byte, i int) *memoKey {
	end, escaped := rawjson.EndString(doc, i)
	if end == rawjson.Bad || escaped {
		return nil
	}
	if k := s.keys[string(doc[i:end])]; k != nil {
		return k
	}
	m := member{key: i, keyEnd: end}
	n.name(doc, &m, false)
	name := string(n.names[m.name:m.nameEnd])
	n.names = n.names[:m.name]
	t := s.t.child([]byte(name))
	if m.badText || len(name) > n.limits.KeyBytes || name == elements || n.memo.size >= maxMemo {
		return nil
	}
	if t.typ() == None {
		if value := rawjson.Colon(doc, end); value == rawjson.Bad || rawjson.KindAt(doc, value) != rawjson.Null {
			return nil // not cached: their number is unbounded
		}
	}
	n.memo.size++
	turn := s.turns[name]
	if turn == nil {
		turn = new(uint64)
		s.turns[name] = turn
	}
	k := &memoKey{place: place{t: t}, written: string(doc[i:end]), turn: turn}
	k.name = k.written + ":"
	if !m.plain {
		k.name = string(rawjson.AppendQuoted(nil, name)) + ":"
	}
	s.keys[k.written] = k
	return k
}

// plainValue is plain for any kind of value.
func (n *Normalizer) plainValue(dst, doc []byte, i int, p *place, depth int) (out []byte, end int, ok bool) {
	kind := rawjson.KindAt(doc, i)
	switch kind {
	case rawjson.Object:
		if p.t.typ() != Object || depth >= n.limits.Depth {
			return dst, i, false
		}
		if p.within == nil {
			p.within = newShape(p.t)
		}
		return n.plain(dst, doc, i, p.within, depth+1)
	case rawjson.Array:
		if p.t.typ() != Array || depth >= n.limits.Depth {
			return dst, i, false
		}
		if p.elements == nil {
			p.elements = &place{t: p.t.child(elementsName)}
		}
		return n.plainArray(dst, doc, i, p.elements, depth+1)
	case rawjson.String:
		if end = rawjson.EndASCII(doc, i); end != rawjson.Bad && p.t.typ() == String && end-i-2 <= n.limits.ValueBytes {
			return append(dst, doc[i:end]...), end, true
		}
	case rawjson.Invalid:
		return dst, i, false
	}
	if end = rawjson.EndValue(doc, i, 0); end == rawjson.Bad {
		return dst, end, false
	}
	value := doc[i:end]
	if kind == rawjson.Null {
		return append(dst, value...), end, true
	}
	switch p.t.typ() {
	case None, Object, Array:
		return dst, end, false
	}
	start := len(dst)
	if dst, _, ok = n.scalar(dst, value, kind, p.t.is); ok && !bytes.Equal(dst[start:], value) {
		n.stats.Converted++
	}
	return dst, end, ok
}

func (n *Normalizer) plainArray(dst, doc []byte, i int, p *place, depth int) (out []byte, end int, ok bool) {
	dst = append(dst, '[')
	i, more := rawjson.First(doc, i, ']')
	for more {
		if kind := rawjson.KindAt(doc, i); kind == rawjson.Object || kind == rawjson.Array {
			if n.keysLeft == 0 {
				return dst, i, false
			}
			n.keysLeft--
		}
		if dst, i, ok = n.plainValue(dst, doc, i, p, depth); !ok {
			return dst, i, false
		}
		if i, more = rawjson.Next(doc, i, ']'); more {
			dst = append(dst, ',')
		}
	}
	return append(dst, ']'), i, i != rawjson.Bad
}
