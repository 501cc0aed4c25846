// Package scan reads JSON in one pass and keeps values as raw bytes.
//
// A protocol walks the few fields that it needs and takes everything else as
// the bytes of the request, which are validated as they go by: syntax, escapes,
// numbers and UTF-8, as strictly as RFC 8259 and I-JSON (RFC 7493) ask, so that
// nobody behind the gateway meets text that a parser refuses. The package does
// not build trees, and it does not look for names that an object has twice: the
// walker sees the names of the objects it enters, and of those alone it matters
// here.
//
// Two faults do not end the walk, because they concern one event and not its
// neighbours: bytes that are not UTF-8 and nesting past MaxDepth. They are noted,
// see Noted. An escape of half a surrogate pair (what JavaScript writes for text
// cut in the middle of an emoji) is no character. In values it stays as it is, for
// the enricher to put under conflicts; in a text that is read, such as an id, it
// stands for itself (Value.Text), so that ids that differ in it alone are two.
//
// It walks on its own and not by package rawjson, which reads text that is known
// to be valid, or is small, a value at a time: this one is given what anybody
// sends, says at which byte it is wrong and why, checks UTF-8 and depth
// in the same pass, and keeps its place in itself. What both do once a string is
// known to be one, its escapes, is rawjson's.
package scan

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Kind is the type of a JSON value.
type Kind uint8

// Kinds. Invalid is of the zero Value: no such value.
const (
	Invalid Kind = iota
	Null
	False
	True
	Number
	String
	Object
	Array
)

var kindNames = [...]string{"nothing", "null", "a boolean", "a boolean", "a number", "a string", "an object", "an array"}

// String names the kind as a sentence needs it.
func (k Kind) String() string { return kindNames[k] }

// Value is a JSON value as it stands in the text.
type Value struct {
	Raw     []byte // aliases the text; of a string with its quotes
	Kind    Kind
	escaped bool // a string with escapes
}

// IsNull reports whether the value is null or none at all.
func (v Value) IsNull() bool { return v.Kind <= Null }

// IsEmptyObject reports whether a value stands for an object without fields where one
// is expected: null or absent, "" and an empty array, as which PHP writes an empty map.
func (v Value) IsEmptyObject() bool {
	switch v.Kind {
	case Array:
		return len(bytes.TrimSpace(v.Raw[1:len(v.Raw)-1])) == 0
	case String:
		return len(v.Raw) == len(`""`)
	}
	return v.IsNull()
}

// Text returns a string's text or a number as it is written. It aliases the
// value's bytes, unless a string has escapes. Of half a surrogate pair it has the
// escape in lower case, \ud83d. Of other kinds it is empty.
func (v Value) Text() string {
	switch v.Kind {
	case String:
		inner := v.Raw[1 : len(v.Raw)-1]
		if v.escaped {
			return string(rawjson.AppendText(make([]byte, 0, len(inner)), v.Raw))
		}
		return alias(inner)
	case Number:
		return alias(v.Raw)
	}
	return ""
}

// Int returns a number without decimals and exponent.
func (v Value) Int() (int64, bool) {
	if v.Kind != Number {
		return 0, false
	}
	n, err := strconv.ParseInt(alias(v.Raw), 10, 64)
	return n, err == nil
}

// Float returns a number.
func (v Value) Float() (float64, bool) {
	if v.Kind != Number {
		return 0, false
	}
	f, err := strconv.ParseFloat(alias(v.Raw), 64)
	return f, err == nil
}

func alias(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Notes are faults that do not end the walk.
type Notes uint8

// Notes.
const (
	BadUTF8 Notes = 1 << iota
	TooDeep
)

// hardDepth bounds the nesting that is walked at all.
const hardDepth = 1024

// Scanner walks one JSON text. The zero value needs Reset.
type Scanner struct {
	b        []byte
	i        int
	first    bool // nothing was read yet of the container entered last
	notes    Notes
	level    int // containers entered by Object and Array
	base     int // level at Mark
	maxDepth int
	err      error
	stack    [hardDepth / 64]uint64 // of skip: bit set for an object
	key      []byte                 // the last key that had escapes
}

// Reset starts at the beginning of text.
// MaxDepth bounds the nesting below Mark.
func (s *Scanner) Reset(text []byte, maxDepth int) {
	s.b, s.i, s.first, s.notes, s.level, s.base, s.err = text, 0, false, 0, 0, 0, nil
	s.maxDepth = maxDepth
}

// Mark forgets what was noted and counts depth from here.
func (s *Scanner) Mark() { s.notes, s.base = 0, s.level }

// Noted returns what was noted since Mark.
func (s *Scanner) Noted() Notes { return s.notes }

// Err returns the fault that ended the walk. After one, every call reports that
// there is nothing more.
func (s *Scanner) Err() error { return s.err }

// Offset is where in the text the scanner is.
func (s *Scanner) Offset() int { return s.i }

// Since returns the text from an offset to here.
func (s *Scanner) Since(offset int) []byte { return s.b[offset:s.i:s.i] }

// SyntaxError says where a text is no JSON.
type SyntaxError struct {
	Offset int
	What   string
}

// Error implements error.
func (e *SyntaxError) Error() string { return fmt.Sprintf("JSON: %s at byte %d", e.What, e.Offset) }

func (s *Scanner) fail(at int, what string) {
	if s.err == nil {
		if at >= len(s.b) {
			at, what = len(s.b), "ends too early"
		}
		s.err = &SyntaxError{at, what}
	}
	s.i = len(s.b)
}

// space moves over white space and reports whether there is a byte at s.i.
func (s *Scanner) space() bool {
	for s.i < len(s.b) {
		if c := s.b[s.i]; c > ' ' || (c != ' ' && c != '\n' && c != '\r' && c != '\t') {
			return true
		}
		s.i++
	}
	return false
}

// Peek returns the kind of the value that comes next, as far as its first byte
// tells.
func (s *Scanner) Peek() Kind {
	if s.err != nil || !s.space() {
		return Invalid
	}
	switch c := s.b[s.i]; c {
	case '{':
		return Object
	case '[':
		return Array
	case '"':
		return String
	case 'n':
		return Null
	case 't':
		return True
	case 'f':
		return False
	default:
		if c == '-' || c-'0' <= 9 {
			return Number
		}
	}
	return Invalid
}

// Object enters an object; it reports false and stays when the next value is
// none. Read it with Key until that reports false.
func (s *Scanner) Object() bool { return s.enter('{') }

// Array enters an array; it reports false and stays when the next value is none.
// Read it with More until that reports false.
func (s *Scanner) Array() bool { return s.enter('[') }

func (s *Scanner) enter(open byte) bool {
	if s.err != nil || !s.space() || s.b[s.i] != open {
		return false
	}
	s.i++
	s.level++
	if s.level-s.base > s.maxDepth {
		s.notes |= TooDeep
	}
	s.first = true
	return true
}

// more reports whether the container entered last has something more, and leaves
// it if not.
func (s *Scanner) more(end byte) bool {
	if s.err != nil {
		return false
	}
	if !s.space() {
		s.fail(s.i, "")
		return false
	}
	c := s.b[s.i]
	if c == end {
		s.i++
		s.level--
		s.first = false
		return false
	}
	if !s.first {
		if c != ',' {
			s.fail(s.i, "neither a comma nor an end")
			return false
		}
		s.i++
		if !s.space() {
			s.fail(s.i, "")
			return false
		}
	}
	s.first = false
	return true
}

// More reports whether the array has another element, which comes next.
func (s *Scanner) More() bool { return s.more(']') }

// Key returns the next name of the object, unescaped, whose value comes next. It
// is valid until the next call.
func (s *Scanner) Key() ([]byte, bool) {
	if !s.more('}') {
		return nil, false
	}
	if s.b[s.i] != '"' {
		s.fail(s.i, "no name")
		return nil, false
	}
	start := s.i + 1
	end, escaped := s.str(start)
	if end < 0 {
		return nil, false
	}
	s.i = end
	if !s.space() || s.b[s.i] != ':' {
		s.fail(s.i, "no colon")
		return nil, false
	}
	s.i++
	key := s.b[start : end-1]
	if escaped {
		s.key = rawjson.AppendUnquoted(s.key[:0], s.b[start-1:end])
		key = s.key
	}
	return key, true
}

// End reports whether nothing but white space is left.
func (s *Scanner) End() bool {
	if s.err == nil && s.space() {
		s.fail(s.i, "more after the end")
	}
	return s.err == nil
}

// str reads a string from behind its opening quote. It returns the offset behind
// the closing one, or -1 after a fault.
func (s *Scanner) str(i int) (end int, escaped bool) {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	b := s.b
	for {
		// Eight bytes at a time: a bit for each that is a quote, a backslash, a
		// control character or not ASCII. A borrow can set bits wrongly only
		// above a right one, and the lowest is taken.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			q, e := w^(ones*'"'), w^(ones*'\\')
			m := (w | (w-ones*' ')&^w | (q-ones)&^q | (e-ones)&^e) & highs
			if m != 0 {
				i += bits.TrailingZeros64(m) >> 3
				break
			}
			i += 8
		}
		if i >= len(b) {
			s.fail(i, "")
			return -1, false
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			if i = s.escape(i); i < 0 {
				return -1, false
			}
		case c < ' ':
			s.fail(i, "control character in a string")
			return -1, false
		case c < utf8.RuneSelf:
			i++ // the last seven bytes of the text
		default:
			for i < len(b) && b[i] >= utf8.RuneSelf {
				r, n := utf8.DecodeRune(b[i:])
				if r == utf8.RuneError && n == 1 {
					s.notes |= BadUTF8
				}
				i += n
			}
		}
	}
}

// escape reads an escape at i and returns the offset behind it, or -1.
func (s *Scanner) escape(i int) int {
	if i+1 >= len(s.b) {
		s.fail(i+1, "")
		return -1
	}
	switch s.b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		s.fail(i, "bad escape")
		return -1
	}
	r := rawjson.Hex4(s.b[i+2:])
	switch {
	case r < 0:
		s.fail(i, "bad escape")
		return -1
	case !utf16.IsSurrogate(r):
		return i + 6
	case r < 0xdc00 && i+12 <= len(s.b) && s.b[i+6] == '\\' && s.b[i+7] == 'u':
		if low := rawjson.Hex4(s.b[i+8:]); low >= 0xdc00 && low <= 0xdfff {
			return i + 12
		}
	}
	return i + 6 // half a pair, or an escape that is no hexadecimal comes next
}

// Value reads the next value whole.
func (s *Scanner) Value() Value {
	if s.err != nil || !s.space() {
		s.fail(s.i, "")
		return Value{}
	}
	start := s.i
	kind, escaped := s.skip()
	if s.err != nil {
		return Value{}
	}
	return Value{Raw: s.b[start:s.i:s.i], Kind: kind, escaped: escaped}
}

// skip reads the value at s.i. It keeps the kinds of the containers it is in as
// bits, so that no input makes it recurse.
func (s *Scanner) skip() (kind Kind, escaped bool) {
	b := s.b
	i := s.i
	depth := 0
value:
	for {
		if i >= len(b) {
			s.fail(i, "")
			return Invalid, false
		}
		var k Kind
		switch c := b[i]; c {
		case ' ', '\t', '\r', '\n':
			i++
			continue
		case '"':
			end, esc := s.str(i + 1)
			if end < 0 {
				return Invalid, false
			}
			k, i, escaped = String, end, esc
		case '{', '[':
			k = Object
			if c == '[' {
				k = Array
			}
			if depth == hardDepth {
				s.fail(i, "nested too deeply")
				return Invalid, false
			}
			if depth == 0 {
				kind = k
			}
			if k == Object {
				s.stack[depth>>6] |= 1 << (depth & 63)
			} else {
				s.stack[depth>>6] &^= 1 << (depth & 63)
			}
			depth++
			if s.level-s.base+depth > s.maxDepth {
				s.notes |= TooDeep
			}
			i++
			for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
				i++
			}
			if i < len(b) && b[i] == c+2 { // '}' is '{'+2 and ']' is '['+2
				i++
				depth--
				break
			}
			if k == Object {
				if i = s.name(i); i < 0 {
					return Invalid, false
				}
			}
			continue
		case 't':
			k, i = True, s.literal(i, "true")
		case 'f':
			k, i = False, s.literal(i, "false")
		case 'n':
			k, i = Null, s.literal(i, "null")
		default:
			k, i = Number, s.number(i)
		}
		if i < 0 {
			return Invalid, false
		}
		// A value is over: what closes or follows.
		for {
			if depth == 0 {
				if kind == Invalid {
					kind = k
				}
				s.i = i
				return kind, escaped
			}
			for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
				i++
			}
			if i >= len(b) {
				s.fail(i, "")
				return Invalid, false
			}
			object := s.stack[(depth-1)>>6]&(1<<((depth-1)&63)) != 0
			switch c := b[i]; {
			case c == ',' && object:
				i++
				for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
					i++
				}
				if i = s.name(i); i < 0 {
					return Invalid, false
				}
				continue value
			case c == ',':
				i++
				continue value
			case (c == '}' && object) || (c == ']' && !object):
				i++
				depth--
			default:
				s.fail(i, "neither a comma nor an end")
				return Invalid, false
			}
		}
	}
}

// name reads a name and its colon at i and returns the offset behind, or -1.
func (s *Scanner) name(i int) int {
	b := s.b
	if i >= len(b) || b[i] != '"' {
		s.fail(i, "no name")
		return -1
	}
	i, _ = s.str(i + 1)
	if i < 0 {
		return -1
	}
	for i < len(b) && (b[i] == ' ' || b[i] == '\t' || b[i] == '\r' || b[i] == '\n') {
		i++
	}
	if i >= len(b) || b[i] != ':' {
		s.fail(i, "no colon")
		return -1
	}
	return i + 1
}

func (s *Scanner) literal(i int, word string) int {
	if len(s.b)-i < len(word) || alias(s.b[i:i+len(word)]) != word {
		s.fail(i, "no value")
		return -1
	}
	return i + len(word)
}

// number reads -?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?
func (s *Scanner) number(i int) int {
	b := s.b
	start := i
	if b[i] == '-' {
		i++
	}
	digits := i
	i = skipDigits(b, i)
	if i == digits || (b[digits] == '0' && i > digits+1) {
		if i >= len(b) && i == digits {
			s.fail(len(b), "")
		} else {
			s.fail(start, "no value")
		}
		return -1
	}
	if i < len(b) && b[i] == '.' {
		i++
		decimals := i
		if i = skipDigits(b, i); i == decimals {
			s.fail(i, "no decimals")
			return -1
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		exponent := i
		if i = skipDigits(b, i); i == exponent {
			s.fail(i, "no exponent")
			return -1
		}
	}
	return i
}

func skipDigits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}
