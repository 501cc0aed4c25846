package columns

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Keys under which an object stands whose text ClickHouse does not read: as a
// string, or, where it is not UTF-8, in base64.
const (
	unreadKey       = "_unread"
	unreadBase64Key = "_unread_base64"
)

// Repair replaces object texts that ClickHouse does not read by objects that
// hold the whole text as a string, and returns how many it replaced. It is for a
// block that the server refused for its data: it refuses while it reads, so
// nothing of it is in any table, and since the replacement depends on the text
// alone every repeat of the block has the same rows. With all, no text is
// trusted.
func (c *Events) Repair(all bool) int {
	c.properties.choose(formText)
	c.traits.choose(formText)
	return c.properties.repair(all) + c.traits.repair(all)
}

func (c *object) repair(all bool) int {
	n := 0
	old := c.buf
	var out []byte // nil until something differs
	for pos := 0; pos < len(old); {
		size, w := binary.Uvarint(old[pos:])
		end := pos + w + int(size)
		v := old[pos+w : end]
		if (all && len(v) > len(emptyObject)) || !readable(v) {
			if out == nil {
				out = append(make([]byte, 0, len(old)+len(old)/8), old[:pos]...)
			}
			v = unread(v)
			out = append(binary.AppendUvarint(out, uint64(len(v))), v...)
			n++
		} else if out != nil {
			out = append(out, old[pos:end]...)
		}
		pos = end
	}
	if out != nil {
		c.buf = out
	}
	return n
}

func unread(text []byte) []byte {
	key, value := unreadKey, string(text)
	if !utf8.Valid(text) {
		key, value = unreadBase64Key, base64.StdEncoding.EncodeToString(text)
	}
	v, _ := json.Marshal(map[string]string{key: value}) // strings always encode
	return v
}

// maxDepth of objects and arrays; ClickHouse reads 1000.
const maxDepth = 500

// readable reports whether ClickHouse reads text as a JSON object: UTF-8, RFC
// 8259, integers within 64 bits (signed or not), other numbers within a float64,
// no unpaired surrogates.
func readable(text []byte) bool {
	if !utf8.Valid(text) || !json.Valid(text) {
		return false
	}
	depth, started := 0, false
	for i := 0; i < len(text); {
		switch b := text[i]; {
		case b == ' ' || b == '\t' || b == '\n' || b == '\r' || b == ',' || b == ':':
			i++
		case b == '{' || b == '[':
			if !started && b != '{' {
				return false
			}
			started = true
			if depth++; depth > maxDepth {
				return false
			}
			i++
		case b == '}' || b == ']':
			depth--
			i++
		case b == '"':
			n, ok := stringEnd(text[i:])
			if !ok {
				return false
			}
			i += n
		case b == '-' || (b >= '0' && b <= '9'):
			n := 1
			for i+n < len(text) && isNumber(text[i+n]) {
				n++
			}
			if !fits(string(text[i : i+n])) {
				return false
			}
			i += n
		default: // true, false, null
			i++
		}
		if !started && i > 0 && text[i-1] != ' ' && text[i-1] != '\t' && text[i-1] != '\n' && text[i-1] != '\r' {
			return false // another value than an object
		}
	}
	return started
}

// stringEnd returns the length of the string literal that s starts with, and
// whether its surrogates are paired.
func stringEnd(s []byte) (int, bool) {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return i + 1, true
		case '\\':
			i++
			if s[i] != 'u' {
				continue
			}
			u := rawjson.Hex4(s[i+1:])
			i += 4
			switch {
			case u >= 0xDC00 && u < 0xE000:
				return 0, false
			case u >= 0xD800 && u < 0xDC00:
				if i+6 >= len(s) || s[i+1] != '\\' || s[i+2] != 'u' {
					return 0, false
				}
				if low := rawjson.Hex4(s[i+3:]); low < 0xDC00 || low >= 0xE000 {
					return 0, false
				}
				i += 6
			}
		}
	}
	return 0, false
}

func isNumber(b byte) bool {
	return (b >= '0' && b <= '9') || b == '.' || b == 'e' || b == 'E' || b == '+' || b == '-'
}

func fits(number string) bool {
	for i := range len(number) {
		if c := number[i]; c == '.' || c == 'e' || c == 'E' {
			_, err := strconv.ParseFloat(number, 64)
			return err == nil
		}
	}
	if number[0] == '-' {
		_, err := strconv.ParseInt(number, 10, 64)
		return err == nil
	}
	_, err := strconv.ParseUint(number, 10, 64)
	return err == nil
}
