// Package rawjson reads JSON text in place.
//
// It owns the small steps that the hot paths share: where a value ends, what kind it
// is, what a string contains. It builds no tree and allocates nothing except what is
// appended to the caller's slice. Everything it accepts is valid JSON (RFC 8259),
// except that it does not check UTF-8, which is the caller's task.
//
// The gateway's package scan has its own walk, since it also checks UTF-8, repairs, and
// reports the position and reason of a fault, in one pass: functions of a text and an
// index, as here, cannot do that without slowing down both.
package rawjson

import (
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// Kind is the kind of a value.
type Kind uint8

// Kinds of values.
const (
	Invalid Kind = iota
	Null
	Bool
	Number
	String
	Object
	Array
)

// Bad is the index that means "no valid JSON here".
const Bad = -1

// Space returns the index of the first byte at or after i that is not white space.
func Space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// KindAt returns the kind of value that the byte at i starts, without checking that it
// is valid.
func KindAt(b []byte, i int) Kind {
	if i >= len(b) {
		return Invalid
	}
	switch c := b[i]; {
	case c == '"':
		return String
	case c == '{':
		return Object
	case c == '[':
		return Array
	case c == 't' || c == 'f':
		return Bool
	case c == 'n':
		return Null
	case c == '-' || c-'0' <= 9:
		return Number
	}
	return Invalid
}

// EndString returns the index after the string that starts at i, or Bad. escaped
// reports whether it contains a backslash.
func EndString(b []byte, i int) (end int, escaped bool) {
	if i >= len(b) || b[i] != '"' {
		return Bad, false
	}
	for i++; i < len(b); i++ {
		for i+8 <= len(b) {
			stop := special(binary.LittleEndian.Uint64(b[i:]))
			if stop < 8 {
				i += stop
				break
			}
			i += 8
		}
		if i >= len(b) {
			return Bad, escaped
		}
		switch c := b[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			i++
			if i >= len(b) {
				return Bad, true
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				if i+4 >= len(b) || Hex4(b[i+1:]) < 0 {
					return Bad, true
				}
				i += 4
			default:
				return Bad, true
			}
		case c < 0x20:
			return Bad, escaped
		}
	}
	return Bad, escaped
}

// EndASCII returns the index after the string that starts at i, or Bad when it is not a
// string, or contains a backslash or a byte that is not ASCII.
func EndASCII(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return Bad
	}
	for i++; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		if stop := firstHigh(specials(x) | x); stop < 8 {
			if b[i+stop] == '"' {
				return i + stop + 1
			}
			return Bad
		}
	}
	for ; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c == '\\', c < 0x20, c >= utf8.RuneSelf:
			return Bad
		}
	}
	return Bad
}

// special returns the index of the first of eight bytes that is a quote, a
// backslash or a control character, or 8.
func special(x uint64) int { return firstHigh(specials(x)) }

// specials has the high bit of a byte set where the byte of x is special; a
// borrow can set more of them, but only above the first.
func specials(x uint64) uint64 {
	const ones = 0x0101010101010101
	quote, slash := x^('"'*ones), x^('\\'*ones)
	return (quote-ones)&^quote | (slash-ones)&^slash | (x-0x20*ones)&^x
}

// firstHigh returns the index of the first of eight bytes that has its high bit
// set, or 8.
func firstHigh(x uint64) int { return bits.TrailingZeros64(x&0x8080808080808080) / 8 }

// EndNumber returns the index after the number that starts at i, or Bad. integer
// reports that it has neither fraction nor exponent.
func EndNumber(b []byte, i int) (end int, integer bool) {
	if i < len(b) && b[i] == '-' {
		i++
	}
	switch {
	case i >= len(b) || b[i]-'0' > 9:
		return Bad, false
	case b[i] == '0':
		i++
	default:
		i = digits(b, i)
	}
	integer = true
	if i < len(b) && b[i] == '.' {
		integer = false
		j := digits(b, i+1)
		if j == i+1 {
			return Bad, false
		}
		i = j
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		integer = false
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		j := digits(b, i)
		if j == i {
			return Bad, false
		}
		i = j
	}
	return i, integer
}

func digits(b []byte, i int) int {
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	return i
}

// endLiteral returns the index after true, false or null at i, or Bad.
func endLiteral(b []byte, i int) int {
	for _, lit := range [...]string{"true", "false", "null"} {
		if len(b)-i >= len(lit) && string(b[i:i+len(lit)]) == lit {
			return i + len(lit)
		}
	}
	return Bad
}

// EndValue returns the index after the value that starts at i (no white space
// before it), or Bad. Depth bounds how many objects and arrays may be open at
// once, and with it the stack.
func EndValue(b []byte, i, depth int) int {
	switch KindAt(b, i) {
	case String:
		end, _ := EndString(b, i)
		return end
	case Number:
		end, _ := EndNumber(b, i)
		return end
	case Bool, Null:
		return endLiteral(b, i)
	case Object:
		if depth <= 0 {
			return Bad
		}
		// First and Member are not called here: they cost 4 to 14 % of the time.
		i = Space(b, i+1)
		if i < len(b) && b[i] == '}' {
			return i + 1
		}
		for {
			if i, _ = EndString(b, i); i == Bad {
				return Bad
			}
			if i = Colon(b, i); i == Bad {
				return Bad
			}
			if i = EndValue(b, i, depth-1); i == Bad {
				return Bad
			}
			next, more := Next(b, i, '}')
			if !more {
				return next
			}
			i = next
		}
	case Array:
		if depth <= 0 {
			return Bad
		}
		i = Space(b, i+1)
		if i < len(b) && b[i] == ']' {
			return i + 1
		}
		for {
			if i = EndValue(b, i, depth-1); i == Bad {
				return Bad
			}
			next, more := Next(b, i, ']')
			if !more {
				return next
			}
			i = next
		}
	}
	return Bad
}

// First steps into the object or array that starts at i, which closing ends: more
// is true when it has elements (the index is that of the first), false when it is
// empty (the index after it). With Member and Next a loop over the members of an
// object, which ends with the index after it, is
//
//	i, more := First(b, i, '}')
//	for more {
//		keyEnd, value, _ := Member(b, i)
//		if value == Bad {
//			return Bad
//		}
//		// b[i:keyEnd] is the key; end is the index after the value, not Bad
//		i, more = Next(b, end, '}')
//	}
func First(b []byte, i int, closing byte) (next int, more bool) {
	if i = Space(b, i+1); i < len(b) && b[i] == closing {
		return i + 1, false
	}
	return i, true
}

// Member returns the index after the key at i, and that of its value, Bad when
// there is no key and colon. escaped says whether the key holds a backslash.
func Member(b []byte, i int) (keyEnd, value int, escaped bool) {
	keyEnd, escaped = EndString(b, i)
	if keyEnd == Bad {
		return Bad, Bad, escaped
	}
	return keyEnd, Colon(b, keyEnd), escaped
}

// Colon steps over white space, a colon and white space.
func Colon(b []byte, i int) int {
	i = Space(b, i)
	if i >= len(b) || b[i] != ':' {
		return Bad
	}
	return Space(b, i+1)
}

// Next steps over what follows an element: a comma (more is true and the index
// is that of the next element) or the closing byte (the index after it). The
// index is Bad when it is neither.
func Next(b []byte, i int, closing byte) (next int, more bool) {
	i = Space(b, i)
	if i >= len(b) {
		return Bad, false
	}
	switch b[i] {
	case ',':
		return Space(b, i+1), true
	case closing:
		return i + 1, false
	}
	return Bad, false
}

// AppendUnquoted appends the content of a string; quoted is the whole string with its
// quotes, as delimited by EndString. A lone surrogate reads as U+FFFD.
func AppendUnquoted(dst, quoted []byte) []byte { return appendUnquoted(dst, quoted, false) }

// AppendText is AppendUnquoted for a text that is compared, such as an id: a lone
// surrogate reads as its escape in lower case, \ud83d, so that texts that differ only
// in it stay different.
func AppendText(dst, quoted []byte) []byte { return appendUnquoted(dst, quoted, true) }

func appendUnquoted(dst, quoted []byte, lone bool) []byte {
	s := quoted[1 : len(quoted)-1]
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			dst = append(dst, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := Hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 < len(s) && s[i+1] == '\\' && s[i+2] == 'u' {
					low = Hex4(s[i+3:])
				}
				switch pair := utf16.DecodeRune(r, low); {
				case pair != utf8.RuneError:
					r, i = pair, i+6
				case lone:
					dst = append(dst, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
					continue
				default:
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, s[i])
		}
	}
	return dst
}

const hexDigits = "0123456789abcdef"

// AppendQuoted appends s as a JSON string. Bytes that are not UTF-8 are written
// as U+FFFD.
func AppendQuoted[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := decodeRune(s[i:])
			if r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			start = i
			continue
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func decodeRune[T ~string | ~[]byte](s T) (rune, int) {
	var buf [utf8.UTFMax]byte
	n := copy(buf[:], s[:min(len(s), utf8.UTFMax)])
	return utf8.DecodeRune(buf[:n])
}

// Hex4 returns the value of the four hex digits that b begins with, or -1.
func Hex4(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var v rune
	for _, c := range b[:4] {
		switch {
		case c-'0' <= 9:
			v = v<<4 | rune(c-'0')
		case c-'a' <= 5:
			v = v<<4 | rune(c-'a'+10)
		case c-'A' <= 5:
			v = v<<4 | rune(c-'A'+10)
		default:
			return -1
		}
	}
	return v
}
