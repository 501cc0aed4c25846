package columns

import (
	"encoding/binary"
	"math"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/ClickHouse/ch-go/proto"
)

// A JSON column can be sent in two ways: as text, which the server parses, or as
// typed paths, which it takes as they are, at a third of the CPU. This file owns
// the second: it reads the texts of a block and builds for each path the values
// by type, with the types that the server infers from text under the settings
// that a request pins (package clickhouse). Whatever it does not hold, such as a
// key that comes twice, an array of mixed values, or text that is not JSON, makes
// the block be sent as text, so that the server decides as it always did. The
// tests compare both ways.
//
// The format is that of ClickHouse's flattened serialization of JSON and Dynamic
// (SerializationObject and SerializationDynamic, version FLATTENED), which
// servers from 25.6 on read.
const (
	flattenedVersion = 3
	absent           = 0xFF // a row without a value; on the wire the number of types
)

// Bounds of a block that is sent as typed paths: each path has a byte for each
// row.
const (
	maxTypedPaths = 512
	maxTypedCells = 64 << 20
	maxPathDepth  = 32
)

// The types of values, in the order in which a path lists those that it has.
const (
	typeInt = iota
	typeFloat
	typeBool
	typeString
	typeInts // arrays
	typeFloats
	typeBools
	typeStrings
	typeObjects
	types
)

var typeNames = [types]string{
	typeInt: "Int64", typeFloat: "Float64", typeBool: "Bool", typeString: "String",
	typeInts: "Array(Nullable(Int64))", typeFloats: "Array(Nullable(Float64))", typeBools: "Array(Nullable(Bool))", typeStrings: "Array(Nullable(String))",
}

// path is one path of a block's objects, with its values.
type path struct {
	name   string
	seen   int    // number of the last row that has the key, counted from 1
	which  []byte // of each row up to the last value: its type, or absent
	values [types]values
}

// values are the values of one type, as they are sent. Those of arrays are
// numbers of elements, counted up, and the elements.
type values struct {
	rows  int
	wire  []byte
	ends  []byte // of arrays
	nulls []byte // of arrays of scalars
	count uint64 // of elements
}

// typed is a block's objects as typed paths.
type typed struct {
	paths   []*path // those of this block come first, in order of appearance
	used    int
	byName  map[string]int // of paths
	last    []int          // paths of the previous row's keys, in order
	row     int
	at      int    // place in the row
	prefix  []byte // name of the path down to the current object, with a dot at its end
	depth   int
	scratch []byte
}

// typedPool has those that no block under way needs: a block's objects are read
// when it is sent.
var typedPool = sync.Pool{New: func() any { return &typed{byName: map[string]int{}} }}

func (t *typed) reset() {
	for _, p := range t.paths[:t.used] {
		p.which, p.seen = p.which[:0], 0
		for i := range p.values {
			v := &p.values[i]
			v.rows, v.wire, v.ends, v.nulls, v.count = 0, v.wire[:0], v.ends[:0], v.nulls[:0], 0
		}
	}
	clear(t.byName)
	t.used, t.row, t.last = 0, 0, t.last[:0]
}

// read takes in a column of texts. It returns false when they cannot be sent as
// typed paths.
func (t *typed) read(c *text) bool {
	t.reset()
	r := reader{buf: c.buf}
	for t.row = range c.rows {
		v := r.next()
		if v == "{}" {
			continue
		}
		t.at, t.depth, t.prefix = 0, 0, t.prefix[:0]
		if !utf8.ValidString(v) {
			return false
		}
		end, ok := t.object(v, skipSpace(v, 0))
		if !ok || skipSpace(v, end) != len(v) {
			return false
		}
	}
	for _, p := range t.paths[:t.used] {
		// Of text the server puts integers into an array of floats where the path
		// had one before.
		if p.values[typeInts].rows > 0 && p.values[typeFloats].rows > 0 {
			return false
		}
	}
	if t.used*c.rows > maxTypedCells {
		return false
	}
	for _, p := range t.paths[:t.used] {
		if p.any() {
			p.number(c.rows)
		}
	}
	return true
}

// number replaces the types of rows by what is sent: the place of the type in the
// list of those that the path has.
func (p *path) number(rows int) {
	for len(p.which) < rows {
		p.which = append(p.which, absent)
	}
	var number [256]byte
	n := byte(0)
	p.list(func(kind int, _ *values) {
		number[kind] = n
		n++
	})
	number[absent] = n
	for i, kind := range p.which {
		p.which[i] = number[kind]
	}
}

// path returns the path of a key, or nil when the block has too many or the row
// has the key already.
func (t *typed) path(key string) *path {
	p := t.find(key)
	if p == nil || p.seen == t.row+1 {
		return nil
	}
	p.seen = t.row + 1
	return p
}

func (t *typed) find(key string) *path {
	// Neighbours mostly have the same keys in the same order.
	if t.at < len(t.last) {
		if p := t.paths[t.last[t.at]]; len(p.name) == len(t.prefix)+len(key) && p.name[len(t.prefix):] == key && p.name[:len(t.prefix)] == string(t.prefix) {
			t.at++
			return p
		}
	}
	t.scratch = append(append(t.scratch[:0], t.prefix...), key...)
	n, ok := t.byName[string(t.scratch)]
	if !ok {
		if t.used == maxTypedPaths {
			return nil
		}
		n = t.used
		t.used++
		if n == len(t.paths) {
			t.paths = append(t.paths, &path{})
		}
		name := string(t.scratch)
		t.paths[n].name = name
		t.byName[name] = n
	}
	if t.at < len(t.last) {
		t.last[t.at] = n
	} else {
		t.last = append(t.last, n)
	}
	t.at++
	return t.paths[n]
}

// set notes that the current row has a value of a type, and returns where it
// goes.
func (t *typed) set(p *path, kind byte) *values {
	for len(p.which) < t.row {
		p.which = append(p.which, absent)
	}
	p.which = append(p.which, kind)
	v := &p.values[kind]
	v.rows++
	return v
}

func skipSpace(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// object reads an object that begins at i, and returns where it ends.
func (t *typed) object(s string, i int) (int, bool) {
	if i >= len(s) || s[i] != '{' || t.depth == maxPathDepth {
		return i, false
	}
	t.depth++
	defer func() { t.depth-- }()
	if i = skipSpace(s, i+1); i < len(s) && s[i] == '}' {
		return i + 1, true
	}
	for {
		key, next, ok := plainString(s, i)
		if !ok || key == "" || hasDot(key) {
			return i, false
		}
		if i = skipSpace(s, next); i >= len(s) || s[i] != ':' {
			return i, false
		}
		if i = skipSpace(s, i+1); i >= len(s) {
			return i, false
		}
		if s[i] == '{' {
			length := len(t.prefix)
			if skipSpace(s, i+1) < len(s) && s[skipSpace(s, i+1)] == '}' {
				return i, false // an empty object within another has no path
			}
			if t.path(key) == nil {
				return i, false
			}
			t.prefix = append(append(t.prefix, key...), '.')
			i, ok = t.object(s, i)
			t.prefix = t.prefix[:length]
		} else {
			i, ok = t.value(key, s, i)
		}
		if !ok {
			return i, false
		}
		if i = skipSpace(s, i); i >= len(s) {
			return i, false
		}
		if s[i] == '}' {
			return i + 1, true
		}
		if s[i] != ',' {
			return i, false
		}
		i = skipSpace(s, i+1)
	}
}

func hasDot(key string) bool {
	for i := range len(key) {
		if key[i] == '.' {
			return true
		}
	}
	return false
}

// value reads a value that is no object.
func (t *typed) value(key, s string, i int) (int, bool) {
	p := t.path(key)
	if p == nil {
		return i, false
	}
	if s[i] == '[' {
		return t.array(p, s, i)
	}
	kind, end, ok := scalar(s, i)
	if !ok {
		return i, false
	}
	if kind == absent { // null is no value
		return end, true
	}
	v := t.set(p, kind)
	v.wire, ok = appendScalar(v.wire, kind, s[i:end])
	return end, ok
}

// scalar returns the type of a scalar and where it ends.
func scalar(s string, i int) (kind byte, end int, ok bool) {
	switch c := s[i]; {
	case c == '"':
		end, ok = literalEnd(s, i)
		return typeString, end, ok
	case c == 't':
		return typeBool, i + 4, len(s) >= i+4 && s[i:i+4] == "true"
	case c == 'f':
		return typeBool, i + 5, len(s) >= i+5 && s[i:i+5] == "false"
	case c == 'n':
		return absent, i + 4, len(s) >= i+4 && s[i:i+4] == "null"
	case c == '-' || (c >= '0' && c <= '9'):
		return number(s, i)
	}
	return 0, i, false
}

// number reads a number as RFC 8259 has it.
func number(s string, i int) (kind byte, end int, ok bool) {
	digits := func() bool {
		first := i
		for i < len(s) && s[i] >= '0' && s[i] <= '9' {
			i++
		}
		return i > first
	}
	if s[i] == '-' {
		i++
	}
	if i < len(s) && s[i] == '0' {
		i++
	} else if !digits() {
		return 0, i, false
	}
	kind = typeInt
	if i < len(s) && s[i] == '.' {
		kind = typeFloat
		if i++; !digits() {
			return 0, i, false
		}
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		kind = typeFloat
		if i++; i < len(s) && (s[i] == '+' || s[i] == '-') {
			i++
		}
		if !digits() {
			return 0, i, false
		}
	}
	return kind, i, true
}

func appendScalar(dst []byte, kind byte, s string) ([]byte, bool) {
	switch kind {
	case typeInt:
		n, err := strconv.ParseInt(s, 10, 64)
		return binary.LittleEndian.AppendUint64(dst, uint64(n)), err == nil
	case typeFloat:
		f, err := strconv.ParseFloat(s, 64)
		return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), err == nil
	case typeBool:
		if s == "true" {
			return append(dst, 1), true
		}
		return append(dst, 0), true
	default:
		return appendLiteral(dst, s)
	}
}

// array reads an array of scalars of one type, or of objects.
func (t *typed) array(p *path, s string, i int) (int, bool) {
	if i = skipSpace(s, i+1); i >= len(s) || s[i] == ']' {
		return i, false // the server gives an empty array a type of its own
	}
	kind := byte(absent)
	if s[i] == '{' {
		kind = typeObjects
	} else {
		// The first element that is not null says of what type they are.
		for j := i; kind == absent; {
			k, end, ok := scalar(s, j)
			if j = skipSpace(s, end); !ok || j >= len(s) {
				return i, false
			}
			if kind = k; kind != absent {
				break
			}
			if s[j] != ',' {
				return i, false // nothing but null
			}
			if j = skipSpace(s, j+1); j >= len(s) {
				return i, false
			}
		}
		kind += typeInts - typeInt
	}
	v := t.set(p, kind)
	for {
		var end int
		var ok bool
		if kind == typeObjects {
			if s[i] != '{' {
				return i, false
			}
			if end, ok = objectEnd(s, i); !ok {
				return i, false
			}
			v.wire = append(binary.AppendUvarint(v.wire, uint64(end-i)), s[i:end]...)
		} else {
			var k byte
			if k, end, ok = scalar(s, i); !ok {
				return i, false
			}
			switch k {
			case absent:
				v.nulls = append(v.nulls, 1)
				if kind == typeBools || kind == typeStrings {
					v.wire = append(v.wire, 0)
				} else {
					v.wire = append(v.wire, 0, 0, 0, 0, 0, 0, 0, 0)
				}
			case kind - (typeInts - typeInt):
				v.nulls = append(v.nulls, 0)
				if v.wire, ok = appendScalar(v.wire, k, s[i:end]); !ok {
					return i, false
				}
			default:
				return i, false // mixed
			}
		}
		v.count++
		if i = skipSpace(s, end); i >= len(s) {
			return i, false
		}
		if s[i] == ']' {
			v.ends = binary.LittleEndian.AppendUint64(v.ends, v.count)
			return i + 1, true
		}
		if s[i] != ',' {
			return i, false
		}
		if i = skipSpace(s, i+1); i >= len(s) {
			return i, false
		}
	}
}

// objectEnd returns where an object ends, if it is one that the server reads.
func objectEnd(s string, i int) (int, bool) {
	depth := 0
	for j := i; j < len(s); j++ {
		switch s[j] {
		case '"':
			end, ok := literalEnd(s, j)
			if !ok {
				return j, false
			}
			j = end - 1
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return j + 1, readable([]byte(s[i : j+1]))
			}
		}
	}
	return len(s), false
}

// plainString reads a string literal without escapes.
func plainString(s string, i int) (v string, end int, ok bool) {
	if i >= len(s) || s[i] != '"' {
		return "", i, false
	}
	for j := i + 1; j < len(s); j++ {
		switch c := s[j]; {
		case c == '"':
			return s[i+1 : j], j + 1, true
		case c == '\\' || c < 0x20:
			return "", j, false
		}
	}
	return "", len(s), false
}

// literalEnd returns where a string literal ends.
func literalEnd(s string, i int) (int, bool) {
	for j := i + 1; j < len(s); j++ {
		switch c := s[j]; {
		case c == '"':
			return j + 1, true
		case c == '\\':
			j++
		case c < 0x20:
			return j, false
		}
	}
	return len(s), false
}

// appendLiteral appends the text of a string literal with its length.
func appendLiteral(dst []byte, s string) ([]byte, bool) {
	body := s[1 : len(s)-1]
	for i := range len(body) {
		if body[i] == '\\' {
			return appendEscaped(dst, body)
		}
	}
	return append(binary.AppendUvarint(dst, uint64(len(body))), body...), true
}

var plainEscapes = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func appendEscaped(dst []byte, s string) ([]byte, bool) {
	v := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			v = append(v, s[i])
			continue
		}
		if i++; i >= len(s) {
			return dst, false
		}
		if c := plainEscapes[s[i]]; c != 0 {
			v = append(v, c)
			continue
		}
		if s[i] != 'u' || i+4 >= len(s) {
			return dst, false
		}
		u, err := strconv.ParseUint(s[i+1:i+5], 16, 32)
		if err != nil || (u >= 0xD800 && u < 0xE000) || u == 0 {
			return dst, false // surrogates are rare
		}
		v = utf8.AppendRune(v, rune(u))
		i += 4
	}
	return append(binary.AppendUvarint(dst, uint64(len(v))), v...), true
}

// list calls fn for each type of which a path has values, in the order in which
// they are sent.
func (p *path) list(fn func(kind int, v *values)) {
	for kind := range p.values {
		if v := &p.values[kind]; v.rows > 0 {
			fn(kind, v)
		}
	}
}

// state writes what precedes the values: the paths, and the types of each.
// objects is the type of arrays of objects.
func (t *typed) state(b *proto.Buffer, objects string) {
	b.PutUInt64(flattenedVersion)
	n := 0
	for _, p := range t.paths[:t.used] {
		if p.any() {
			n++
		}
	}
	b.PutUVarInt(uint64(n))
	for _, p := range t.paths[:t.used] {
		if p.any() {
			b.PutString(p.name)
		}
	}
	for _, p := range t.paths[:t.used] {
		if !p.any() {
			continue
		}
		b.PutUInt64(flattenedVersion)
		n := 0
		p.list(func(int, *values) { n++ })
		b.PutUVarInt(uint64(n))
		p.list(func(kind int, _ *values) {
			if kind == typeObjects {
				b.PutString(objects)
			} else {
				b.PutString(typeNames[kind])
			}
		})
		if p.values[typeObjects].rows > 0 {
			b.PutUInt64(proto.JSONStringSerializationVersion)
		}
	}
}

// any reports whether a path has values; one that was only ever null has none.
func (p *path) any() bool {
	for i := range p.values {
		if p.values[i].rows > 0 {
			return true
		}
	}
	return false
}

// write writes the values. What it writes stays in use until the writer is
// flushed.
func (t *typed) write(w func([]byte)) {
	for _, p := range t.paths[:t.used] {
		if !p.any() {
			continue
		}
		w(p.which)
		p.list(func(kind int, v *values) {
			if kind >= typeInts {
				w(v.ends)
			}
			if kind >= typeInts && kind < typeObjects {
				w(v.nulls)
			}
			w(v.wire)
		})
	}
}
