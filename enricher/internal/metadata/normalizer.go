package metadata

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Reason is the reason why a value is kept under conflicts.
type Reason uint8

// Reasons.
const (
	ReasonType      Reason = iota // it does not convert to the key's type without loss
	ReasonLimit                   // keys, depth, lengths, or the app's number of keys
	ReasonDuplicate               // its key, with underscores for dots, equals another key of the object
	ReasonText                    // not UTF-8, half a surrogate pair, or a number no column holds
	ReasonMetric                  // it is part of a metric event and cannot be read (package metric)
	NumReasons
)

var reasonNames = [NumReasons]string{"type", "limit", "duplicate", "text", "metric"}

func (r Reason) String() string {
	if r < NumReasons {
		return reasonNames[r]
	}
	return "invalid"
}

// Key names a key of an app.
type Key struct {
	App  string
	Path string // such as properties.cart.items.[].sku
}

// Proposal is a key that has no type yet, with the type of its first value; or one that
// is an integer so far, with Float.
type Proposal struct {
	Key
	Type   Type
	Source string // of the event; empty: not bounded
}

// Stats counts the outcomes of an event's values.
type Stats struct {
	Keys      int // with those in conflicts
	Converted int
	Conflicts [NumReasons]int
	NoRoom    struct{ App, Source int } // values whose key may not be created: because of Limits.AppKeys and SourceKeys
}

// Normalizer normalizes the objects of one event after the other. It reuses its
// buffers, so it allocates almost nothing.
type Normalizer struct {
	limits Limits

	memo  memo
	at    *appMemo // of the event's app
	known int      // keys of the app, with the new ones in missing

	address string // of the sender
	rooms   Rooms  // nil: sources are not bounded
	source  string // empty: not looked up yet
	room    int    // keys that the source may still make

	missing  []Proposal
	proposed map[string]int // their paths, with the places in missing
	stats    Stats

	conflicts []byte         // members of the object of conflicts, a comma after each
	paths     map[string]int // paths in conflicts, with the last number given to one of them

	// State of the current object.
	keysLeft int
	frames   []frame  // from the root to the current object or array
	members  []member // of all objects from the root to the current one
	names    []byte   // normalized names of members
	table    []int32  // finds members by name, see hash
	seed     maphash.Seed
	probes   int64  // slots of table that were looked at
	root     []byte // name of the event's object
	path     []byte // scratch of peoplesPath and typePath
}

// frame is one step of the path to a value.
type frame struct {
	name  []byte // of a member
	index int    // of an element; -1: it is a member
}

// member is one member of an object.
type member struct {
	key, keyEnd int // as written, with quotes
	val, valEnd int
	name        int // in names
	nameEnd     int
	kind        rawjson.Kind
	dotted      bool // the key was written with dots
	plain       bool // the key is the name in quotes
	loser       bool // another member has the name
	badText     bool // the key is no UTF-8
}

// New returns a Normalizer with limits that are valid.
func New(limits Limits) *Normalizer {
	return &Normalizer{
		limits: limits, paths: map[string]int{}, proposed: map[string]int{}, seed: maphash.MakeSeed(),
		names: []byte{}, // not nil: an empty slice of it is the empty key, nil is no key
	}
}

// Begin starts an event of an app, with the types that view knows.
func (n *Normalizer) Begin(view *View, app string) {
	n.at, n.stats = n.memo.of(view, app), Stats{}
	n.address, n.rooms, n.source = "", nil, ""
	n.known = n.at.count
	if len(n.missing) > 0 {
		n.missing = n.missing[:0]
		clear(n.proposed)
	}
	n.conflicts = n.conflicts[:0]
	if len(n.paths) > 0 {
		clear(n.paths)
	}
}

// Missing returns the keys of the event without a type, and those whose type must be
// widened for it, since Begin. If there are any, discard what was appended, have the
// keys agreed on, and begin again with the new view. It is valid until Begin.
func (n *Normalizer) Missing() []Proposal { return n.missing }

// Stats returns what was counted since Begin.
func (n *Normalizer) Stats() Stats { return n.stats }

// AppendConflicts appends the conflicts of the event since Begin, as JSON object text:
// path to original value. It appends nothing if there are none. A value that JSON
// parsers cannot read is written as {"$raw": its JSON text}, or, when it is not UTF-8,
// as {"$base64": the bytes}.
func (n *Normalizer) AppendConflicts(dst []byte) []byte {
	if len(n.conflicts) == 0 {
		return dst
	}
	dst = append(dst, '{')
	dst = append(dst, n.conflicts[:len(n.conflicts)-1]...)
	return append(dst, '}')
}

// Append appends an object of the event, normalized. object is Properties or Traits. An
// empty doc appends nothing.
func (n *Normalizer) Append(dst []byte, object string, doc []byte) ([]byte, error) {
	i := rawjson.Space(doc, 0)
	if i == len(doc) {
		return dst, nil
	}
	n.keysLeft = n.limits.Keys
	if out, ok := n.plainObject(dst, doc, i, object); ok {
		return out, nil
	}
	n.root = append(n.root[:0], object...)
	n.frames = append(n.frames[:0], frame{name: n.root, index: -1})
	n.members, n.names = n.members[:0], n.names[:0]
	start, conflicts := len(dst), len(n.conflicts)
	dst, end := n.object(dst, doc, i, n.at.tree.child(n.root), 1)
	if end == rawjson.Bad || rawjson.Space(doc, end) != len(doc) {
		n.conflicts = n.conflicts[:conflicts]
		return dst[:start], fmt.Errorf("%s: %w", object, ErrInvalid)
	}
	return dst, nil
}

// object appends the object at i, whose keys have the types t, and returns the index
// after it. Its members, and all nested values, are listed first, which checks that
// they are valid JSON. The index can be Bad only for the event's whole object.
func (n *Normalizer) object(dst, doc []byte, i int, t *node, depth int) ([]byte, int) {
	first, names := len(n.members), len(n.names)
	rest, end := n.list(doc, i)
	if end == rawjson.Bad {
		return dst, end
	}
	last := len(n.members)
	n.findLosers(n.members[first:last])
	dst = append(dst, '{')
	open := len(dst)
	for m := first; m < last; m++ {
		dst = n.member(dst, doc, &n.members[m], t, depth, open)
	}
	if rest > 0 {
		n.keepRest(doc[rest : end-1])
	}
	n.members, n.names = n.members[:first], n.names[:names]
	return append(dst, '}'), end
}

// list lists the members of the object at i and returns the index after it. Members
// from rest on, if not 0, are not listed: the event is at the bound of keys.
func (n *Normalizer) list(doc []byte, i int) (rest, end int) {
	if i >= len(doc) || doc[i] != '{' {
		return 0, rawjson.Bad
	}
	i, more := rawjson.First(doc, i, '}')
	for more {
		if n.keysLeft == 0 && rest == 0 {
			rest = i
		}
		keyEnd, value, escaped := rawjson.Member(doc, i)
		if value == rawjson.Bad {
			return 0, rawjson.Bad
		}
		m := member{key: i, keyEnd: keyEnd, val: value}
		m.kind = rawjson.KindAt(doc, m.val)
		if m.valEnd = rawjson.EndValue(doc, m.val, maxNesting-1); m.valEnd == rawjson.Bad {
			return 0, rawjson.Bad
		}
		n.stats.Keys++
		if rest == 0 {
			n.keysLeft--
			n.name(doc, &m, escaped)
			n.members = append(n.members, m)
		} else {
			n.stats.Conflicts[ReasonLimit]++
		}
		i, more = rawjson.Next(doc, m.valEnd, '}')
	}
	return rest, i
}

// name sets the name of a member in the columns.
func (n *Normalizer) name(doc []byte, m *member, escaped bool) {
	m.name = len(n.names)
	if escaped {
		n.names = rawjson.AppendUnquoted(n.names, doc[m.key:m.keyEnd])
	} else {
		n.names = append(n.names, doc[m.key+1:m.keyEnd-1]...)
	}
	m.nameEnd = len(n.names)
	name := n.names[m.name:]
	m.badText = !utf8.Valid(name) || (escaped && loneSurrogate(doc[m.key:m.keyEnd]))
	m.plain = !escaped
	if at := bytes.IndexByte(name, '.'); at >= 0 {
		m.dotted, m.plain = true, false
		for ; at < len(name); at++ {
			if name[at] == '.' {
				name[at] = '_'
			}
		}
	}
}

// fewMembers is the number of members up to which names are compared one by one.
const fewMembers = 12

// findLosers marks the members whose name another member of the object takes. A key
// written without dots precedes one with dots; among equals the last in the text wins.
func (n *Normalizer) findLosers(ms []member) {
	if len(ms) <= fewMembers {
		for i := 1; i < len(ms); i++ {
			for j := i - 1; j >= 0; j-- {
				if !ms[j].loser && n.sameName(&ms[i], &ms[j]) {
					settle(&ms[i], &ms[j])
					break
				}
			}
		}
		return
	}
	size := 32
	for size < 2*len(ms) {
		size *= 2
	}
	if cap(n.table) < size {
		n.table = make([]int32, size)
	}
	table := n.table[:size]
	clear(table)
	for i := range ms {
		for at := n.hash(&ms[i]) & (size - 1); ; at = (at + 1) & (size - 1) {
			n.probes++
			if table[at] == 0 {
				table[at] = int32(i + 1)
				break
			}
			if other := &ms[table[at]-1]; n.sameName(&ms[i], other) {
				settle(&ms[i], other)
				if !ms[i].loser {
					table[at] = int32(i + 1)
				}
				break
			}
		}
	}
}

// settle marks the loser of two members with one name, of which a is the later.
func settle(a, b *member) {
	if a.dotted && !b.dotted {
		a.loser = true
	} else {
		b.loser = true
	}
}

func (n *Normalizer) sameName(a, b *member) bool {
	return a.nameEnd-a.name == b.nameEnd-b.name &&
		string(n.names[a.name:a.nameEnd]) == string(n.names[b.name:b.nameEnd])
}

// hash has a secret seed, since senders choose the names.
func (n *Normalizer) hash(m *member) int {
	return int(maphash.Bytes(n.seed, n.names[m.name:m.nameEnd]))
}

// member appends one member, if it fits the columns; open is where the object's members
// start.
func (n *Normalizer) member(dst, doc []byte, m *member, t *node, depth, open int) []byte {
	name := n.names[m.name:m.nameEnd]
	value := doc[m.val:m.valEnd]
	switch {
	case m.badText:
		n.keepMember(doc, m)
		return dst
	case m.loser:
		n.keepAs(doc, m, ReasonDuplicate)
		return dst
	case len(name) > n.limits.KeyBytes, string(name) == elements:
		n.keepAs(doc, m, ReasonLimit)
		return dst
	}
	start := len(dst)
	if len(dst) > open {
		dst = append(dst, ',')
	}
	if m.plain {
		dst = append(dst, doc[m.key:m.keyEnd]...)
	} else {
		dst = rawjson.AppendQuoted(dst, name)
	}
	dst = append(dst, ':')
	n.frames = append(n.frames, frame{name: name, index: -1})
	dst, reason, ok := n.value(dst, value, m.kind, t.child(name), depth)
	if !ok {
		dst = dst[:start]
		n.keep(value, reason)
	}
	n.frames = n.frames[:len(n.frames)-1]
	return dst
}

// value appends a value of a key with the type t. When it does not fit, it returns the
// reason; the caller then truncates what was appended.
func (n *Normalizer) value(dst, value []byte, kind rawjson.Kind, t *node, depth int) ([]byte, Reason, bool) {
	if kind == rawjson.Null {
		return append(dst, "null"...), 0, true
	}
	typ := t.typ()
	if typ == None {
		var reason Reason
		if typ, reason = n.natural(value, kind); typ == None {
			return dst, reason, false
		}
		if !n.propose(typ) {
			return dst, ReasonLimit, false
		}
	}
	switch typ {
	case Object, Array:
		switch {
		case (typ == Object) != (kind == rawjson.Object), (typ == Array) != (kind == rawjson.Array):
			return dst, ReasonType, false
		case depth >= n.limits.Depth:
			return dst, ReasonLimit, false
		case typ == Object:
			dst, _ = n.object(dst, value, 0, t, depth+1)
			return dst, 0, true
		}
		return n.array(dst, value, t.child(elementsName), depth+1)
	}
	start := len(dst)
	dst, reason, ok := n.scalar(dst, value, kind, typ)
	if !ok && kind == rawjson.Number && t.widens() {
		if natural, _ := n.natural(value, kind); natural == Float {
			n.note(Float)
		}
	}
	if ok && !bytes.Equal(dst[start:], value) {
		n.stats.Converted++
	}
	return dst, reason, ok
}

var elementsName = []byte(elements)

// array appends the array at the start of value. An element that does not fit sends the
// whole array to conflicts, since the others would change their indexes.
func (n *Normalizer) array(dst, value []byte, t *node, depth int) ([]byte, Reason, bool) {
	conflicts, stats := len(n.conflicts), n.stats
	keysLeft := n.keysLeft
	giveUp := func(reason Reason) ([]byte, Reason, bool) {
		// Conflicts of objects within the array are dropped with it, since all of it is
		// kept. Their paths stay taken, which is harmless.
		stats.NoRoom = n.stats.NoRoom
		n.conflicts, n.stats, n.keysLeft = n.conflicts[:conflicts], stats, keysLeft
		return dst, reason, false
	}
	dst = append(dst, '[')
	i, more := rawjson.First(value, 0, ']')
	for index := 0; more; index++ {
		end := rawjson.EndValue(value, i, maxNesting)
		kind := rawjson.KindAt(value, i)
		if kind == rawjson.Object || kind == rawjson.Array {
			if n.keysLeft == 0 {
				return giveUp(ReasonLimit)
			}
			n.keysLeft--
		}
		if index > 0 {
			dst = append(dst, ',')
		}
		n.frames = append(n.frames, frame{index: index})
		var reason Reason
		var ok bool
		dst, reason, ok = n.value(dst, value[i:end], kind, t, depth)
		n.frames = n.frames[:len(n.frames)-1]
		if !ok {
			return giveUp(reason)
		}
		i, more = rawjson.Next(value, end, ']')
	}
	return append(dst, ']'), 0, true
}

// natural returns the type of a value by itself; None, with the reason, for a value
// that no column can hold.
func (n *Normalizer) natural(value []byte, kind rawjson.Kind) (Type, Reason) {
	switch kind {
	case rawjson.Bool:
		return Bool, 0
	case rawjson.Object:
		return Object, 0
	case rawjson.Array:
		return Array, 0
	case rawjson.String:
		if !IsText(value) {
			return None, ReasonText
		}
		return String, 0
	}
	if _, integer := rawjson.EndNumber(value, 0); integer {
		if _, ok := appendInteger(nil, value); ok {
			return Integer, 0
		}
		return None, ReasonText
	}
	if _, ok := Double(value); ok {
		return Float, 0
	}
	return None, ReasonText
}

// scalar appends a value converted to a scalar type, if that loses nothing.
func (n *Normalizer) scalar(dst, value []byte, kind rawjson.Kind, typ Type) ([]byte, Reason, bool) {
	if kind == rawjson.Object || kind == rawjson.Array {
		return dst, ReasonType, false
	}
	if kind == rawjson.String {
		if !IsText(value) {
			return dst, ReasonText, false
		}
		if typ == String {
			if len(value)-2 > n.limits.ValueBytes {
				return dst, ReasonLimit, false
			}
			return append(dst, value...), 0, true
		}
		return fromText(dst, value[1:len(value)-1], typ)
	}
	switch typ {
	case String:
		dst = append(dst, '"')
		dst = append(dst, value...)
		return append(dst, '"'), 0, true
	case Bool:
		if kind == rawjson.Bool {
			return append(dst, value...), 0, true
		}
	case Integer:
		if kind == rawjson.Number {
			dst, ok := appendInteger(dst, value)
			return dst, ReasonType, ok
		}
	case Float:
		if kind == rawjson.Number {
			dst, ok := appendFloat(dst, value)
			return dst, ReasonType, ok
		}
	}
	return dst, ReasonType, false
}

// fromText appends the content of a string as a bool or a number, if the value would be
// written that way. "012", "1,000" and " 12" are not converted.
func fromText(dst, text []byte, typ Type) ([]byte, Reason, bool) {
	if typ == Bool {
		if s := string(text); s != "true" && s != "false" {
			return dst, ReasonType, false
		}
		return append(dst, text...), 0, true
	}
	end, integer := rawjson.EndNumber(text, 0)
	if end != len(text) || (typ == Integer && (!integer || string(text) == "-0")) {
		return dst, ReasonType, false
	}
	var ok bool
	if typ == Integer {
		dst, ok = appendInteger(dst, text)
	} else {
		dst, ok = appendFloat(dst, text)
	}
	return dst, ReasonType, ok
}

// IsText reports whether a JSON string is valid UTF-8 without half surrogate pairs.
func IsText(quoted []byte) bool {
	return utf8.Valid(quoted) && (bytes.IndexByte(quoted, '\\') < 0 || !loneSurrogate(quoted))
}

// loneSurrogate says that a \u escape of a valid string is half a pair.
func loneSurrogate(quoted []byte) bool {
	for i := 0; i < len(quoted); i++ {
		if quoted[i] != '\\' {
			continue
		}
		i++
		if quoted[i] != 'u' {
			continue
		}
		hi := quoted[i+1] | 0x20
		i += 4
		if hi != 'd' {
			continue
		}
		switch quoted[i-2] | 0x20 {
		case '8', '9', 'a', 'b': // 0x20 is set in the digits already
			if i+6 < len(quoted) && quoted[i+1] == '\\' && quoted[i+2] == 'u' && quoted[i+3]|0x20 == 'd' {
				switch quoted[i+4] | 0x20 {
				case 'c', 'd', 'e', 'f':
					i += 6
					continue
				}
			}
			return true
		case 'c', 'd', 'e', 'f':
			return true
		}
	}
	return false
}

// keep keeps the value at the present path as a conflict.
func (n *Normalizer) keep(value []byte, reason Reason) {
	n.keepUnder(n.peoplesPath(nil), value, reason)
}

// keepAs keeps a member under its key as it was written.
func (n *Normalizer) keepAs(doc []byte, m *member, reason Reason) {
	key := n.names[m.name:m.nameEnd]
	if m.dotted {
		key = rawjson.AppendUnquoted(nil, doc[m.key:m.keyEnd])
	}
	n.keepUnder(n.peoplesPath(key), doc[m.val:m.valEnd], reason)
}

// keepMember keeps a member whose key is not valid text: key and value as they were
// written.
func (n *Normalizer) keepMember(doc []byte, m *member) {
	n.keepUnder(n.peoplesPath(n.names[m.name:m.nameEnd]), doc[m.key:m.valEnd], ReasonText)
}

// keepRest keeps the members of an object above the bound. They are already counted,
// and share one entry: an event must not grow by long paths.
func (n *Normalizer) keepRest(members []byte) {
	rest := append([]byte{'{'}, members...)
	n.stats.Conflicts[ReasonLimit]--
	n.keepUnder(n.peoplesPath([]byte("*")), append(rest, '}'), ReasonLimit)
}

// keepUnder adds a member to conflicts.
func (n *Normalizer) keepUnder(path, value []byte, reason Reason) {
	n.stats.Conflicts[reason]++
	p := strings.ToValidUTF8(string(path), "\uFFFD")
	if last, taken := n.paths[p]; taken {
		base := p
		for taken {
			last++
			p = base + "#" + strconv.Itoa(last+1)
			_, taken = n.paths[p]
		}
		n.paths[base] = last
	}
	n.paths[p] = 0
	n.conflicts = rawjson.AppendQuoted(n.conflicts, p)
	n.conflicts = append(n.conflicts, ':')
	n.conflicts = appendOriginal(n.conflicts, value, reason == ReasonText)
	n.conflicts = append(n.conflicts, ',')
}

// AppendOriginal appends a value as it stands in conflicts: see AppendConflicts.
func AppendOriginal(dst, value []byte) []byte { return appendOriginal(dst, value, false) }

// appendOriginal appends a value of conflicts; raw marks one that parsers cannot read.
func appendOriginal(dst, value []byte, raw bool) []byte {
	switch {
	case !utf8.Valid(value):
		dst = append(dst, `{"$base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, value)
		return append(dst, `"}`...)
	case raw || !readable(value):
		dst = append(dst, `{"$raw":`...)
		dst = rawjson.AppendQuoted(dst, value)
		return append(dst, '}')
	}
	return append(dst, value...)
}

// readable reports whether every JSON parser can read a value: ClickHouse's rejects the
// whole text because of half a surrogate pair, or a number beyond what 64 bits or a
// double can hold.
func readable(value []byte) bool {
	for i := 0; i < len(value); {
		switch c := value[i]; {
		case c == '"':
			end, escaped := rawjson.EndString(value, i)
			if escaped && loneSurrogate(value[i:end]) {
				return false
			}
			i = end
		case c == '-' || c-'0' <= 9:
			end, _ := rawjson.EndNumber(value, i)
			if !inRange(value[i:end]) {
				return false
			}
			i = end
		default:
			i++
		}
	}
	return true
}

// peoplesPath returns the present path as displayed: keys joined by dots, elements by
// their index. key, if any, is appended. It is valid until the next call.
func (n *Normalizer) peoplesPath(key []byte) []byte {
	dst := n.path[:0]
	for i, f := range n.frames {
		if f.index >= 0 {
			dst = append(dst, '[')
			dst = strconv.AppendInt(dst, int64(f.index), 10)
			dst = append(dst, ']')
			continue
		}
		if i > 0 {
			dst = append(dst, '.')
		}
		dst = append(dst, f.name...)
	}
	if key != nil {
		dst = append(dst, '.')
		dst = append(dst, key...)
	}
	n.path = dst
	return dst
}

// typePath returns the key path of the present position. It is valid until the next
// call.
func (n *Normalizer) typePath() []byte {
	dst := n.path[:0]
	for i, f := range n.frames {
		if i > 0 {
			dst = append(dst, '.')
		}
		if f.index >= 0 {
			dst = append(dst, elements...)
		} else {
			dst = append(dst, f.name...)
		}
	}
	n.path = dst
	return dst
}

// propose notes a key that has no type yet. It returns false when the app has its
// maximum of keys.
func (n *Normalizer) propose(typ Type) bool {
	if _, ok := n.proposed[string(n.typePath())]; !ok {
		if n.known >= n.limits.AppKeys {
			n.stats.NoRoom.App++
			return false
		}
		if !n.admit() {
			n.stats.NoRoom.Source++
			return false
		}
		n.known++
	}
	n.note(typ)
	return true
}

// note adds the key at the present path to Missing, once: as a float when one value of
// the event is an integer and another is not.
func (n *Normalizer) note(typ Type) {
	path := n.typePath()
	if i, ok := n.proposed[string(path)]; ok {
		if p := &n.missing[i]; p.Type == Integer && typ == Float {
			p.Type = Float
		}
		return
	}
	p := Proposal{Key: Key{App: n.at.name, Path: string(path)}, Type: typ, Source: n.source}
	n.proposed[p.Path] = len(n.missing)
	n.missing = append(n.missing, p)
}
