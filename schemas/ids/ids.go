// Package ids reads the ids of people and accounts that clients send: it trims them,
// and knows the texts that are sent where a program had no id, such as undefined or
// null. Used as ids, those would link strangers: everybody whose integration has the
// same fault would be one visitor, or one account.
//
// The gateway applies it before it chooses a record's partition, with the app's own
// list; the enricher applies the built-in list to records of gateways that did not
// (Rules).
package ids

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Rules is the version of these rules, which the gateway writes to each record.
const Rules = 1

// Field names in RawEvent.Unread, as the columns of ClickHouse have them.
const (
	User      = "user_id"
	Anonymous = "anonymous_id"
	Previous  = "previous_id"
	Account   = "account_id"

	// Timestamp is the field of an instant that could not be parsed.
	Timestamp = "timestamp"
)

// builtin are the texts that languages and SDKs write for "none", and placeholders for
// nobody in particular; in lower case.
var builtin = []string{
	"undefined", "null", "(null)", "<null>", "none", "nil", "nan", "[object object]", "{}", "[]", "true", "false", "0", "-1",
	"anonymous", "guest", "unknown", "n/a", "00000000-0000-0000-0000-000000000000",
}

// Builtin returns the built-in list of texts that are not ids, in lower case.
func Builtin() []string { return slices.Clone(builtin) }

// MaxText bounds the texts of a List, in bytes.
const MaxText = 64

// List is a set of texts that are not ids. It is immutable, and safe for concurrent
// use. The zero value is empty.
type List struct {
	texts map[string]struct{}
	// lengths has a bit for each length of a text that begins with the byte, so that
	// nearly every id is decided by its first byte and its length.
	lengths [256]uint64
}

// Default is the built-in list.
var Default = NewList(builtin)

// NewList returns the list of texts, whose case does not matter. Texts longer than
// MaxText, or of blanks, are left out.
func NewList(texts []string) *List {
	l := &List{texts: map[string]struct{}{}}
	for _, t := range texts {
		t = strings.ToLower(Trim(t))
		if t == "" || len(t) > MaxText {
			continue
		}
		l.texts[t] = struct{}{}
		l.lengths[t[0]] |= 1 << (len(t) - 1)
	}
	return l
}

// None reports whether a trimmed id is a text of the list.
func (l *List) None(id string) bool {
	if id == "" || len(id) > MaxText {
		return false
	}
	c := id[0]
	switch {
	case c >= utf8.RuneSelf:
		_, ok := l.texts[strings.ToLower(id)]
		return ok
	case c >= 'A' && c <= 'Z':
		c |= 0x20
	}
	if l.lengths[c]&(1<<(len(id)-1)) == 0 {
		return false
	}
	var buf [MaxText]byte
	lower := append(buf[:0], id...)
	for i, c := range lower {
		switch {
		case c >= utf8.RuneSelf:
			_, ok := l.texts[strings.ToLower(id)]
			return ok
		case c >= 'A' && c <= 'Z':
			lower[i] = c | 0x20
		}
	}
	_, ok := l.texts[string(lower)]
	return ok
}

// Read returns the id in an id field: without blanks around it, and "" when it is a
// text of the list. dropped reports that there was a text that is not an id.
func (l *List) Read(id string) (read string, dropped bool) {
	read = Trim(id)
	if l.None(read) {
		read = ""
	}
	return read, read == "" && id != ""
}

// Trim returns s without surrounding blanks: white space, control characters and
// characters without width, such as a byte order mark.
func Trim(s string) string {
	if s == "" || (visible(s[0]) && visible(s[len(s)-1])) {
		return s
	}
	return strings.TrimFunc(s, func(r rune) bool {
		switch r {
		case '\u00ad', '\u180e', '\u200b', '\u200c', '\u200d', '\u2060', '\ufeff': // unicode.Cf has marks that belong to words too
			return true
		}
		return unicode.IsSpace(r) || unicode.IsControl(r)
	})
}

func visible(c byte) bool { return c > ' ' && c < 0x7f }

// AppendUnread appends an unused field to JSON object text, as in RawEvent.Unread; dst
// is empty, or an object without the field.
func AppendUnread(dst []byte, field, text string) []byte {
	if len(dst) == 0 {
		dst = append(dst, '{')
	} else {
		dst[len(dst)-1] = ','
	}
	quoted, _ := json.Marshal(text) // cannot fail: strings always encode
	dst = append(dst, '"')
	dst = append(dst, field...)
	dst = append(dst, '"', ':')
	dst = append(dst, quoted...)
	return append(dst, '}')
}

// Number returns the text of an id that was sent as a JSON number: 4711, 4711.0 and
// 4.711e3 are the id "4711". Beyond 2^53 the digits count as they were sent, since a
// double does not distinguish such numbers.
func Number(number string) string {
	if i := strings.IndexAny(number, ".eE"); i < 0 {
		if number == "-0" {
			return "0"
		}
		return number
	}
	// Digits, not a double: 9007199254740993.0 is not 9007199254740992.
	if whole, fraction, _ := strings.Cut(number, "."); strings.Trim(fraction, "0") == "" && strings.Trim(whole, "-0") != "" && !strings.ContainsAny(whole, "eE") {
		return whole
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || v >= 1<<53 || v <= -1<<53 {
		return number
	}
	return strconv.FormatFloat(v+0, 'f', -1, 64) // + 0: -0 is 0
}
