package privacy

import (
	"bytes"
	"slices"
	"strings"
)

// detector finds one sort of thing in text.
type detector int

const (
	email detector = iota
	card
	phone
	token
	numDetectors
)

var detectorNames = [numDetectors]string{"email", "card", "phone", "token"}

// detectors is a set of them, a bit each.
type detectors uint8

func detectorOf(name string) detector {
	return detector(slices.Index(detectorNames[:], name))
}

// possible leaves out the detectors that cannot find anything in text.
func possible(text []byte) detectors {
	digits := 0
	for _, c := range text {
		if isDigit(c) {
			digits++
		}
	}
	all := detectors(1<<email | 1<<token)
	if digits >= 8 {
		all |= 1 << phone
	}
	if digits >= 14 {
		all |= 1 << card
	}
	return all
}

// find returns the first thing in text at or after from, or false.
func (d detector) find(text []byte, from int) (start, end int, ok bool) {
	switch d {
	case email:
		return findEmail(text, from)
	case card:
		return findCard(text, from)
	case phone:
		return findPhone(text, from)
	case token:
		return findToken(text, from)
	}
	return 0, 0, false
}

func isDigit(c byte) bool { return c-'0' <= 9 }

func isLetter(c byte) bool { return (c|0x20)-'a' <= 25 }

func isAlnum(c byte) bool { return isDigit(c) || isLetter(c) }

// findEmail finds local@domain.tld, also as local%40domain.tld, which URLs have. Letters
// beyond ASCII count as letters.
func findEmail(text []byte, from int) (int, int, bool) {
	for at := from; ; at++ {
		i, sign, local := bytes.IndexByte(text[at:], '@'), 1, ".!#$%&'*+/=?^_`{|}~-"
		if j := bytes.Index(text[at:], []byte("%40")); j >= 0 && (i < 0 || j < i) {
			i, sign, local = j, len("%40"), ".!$%'*+^_`{|}~-" // without what separates the parts of a URL
		}
		if i < 0 {
			return 0, 0, false
		}
		at += i
		start := at
		for start > from && (isAlnum(text[start-1]) || text[start-1] >= 0x80 || strings.IndexByte(local, text[start-1]) >= 0) {
			start--
		}
		for start < at && text[start] == '.' {
			start++
		}
		end, labels, lastLabel := at+sign, 0, 0
		for label := end; ; label = end {
			for end < len(text) && (isAlnum(text[end]) || text[end] == '-' || text[end] >= 0x80) {
				end++
			}
			if end == label {
				end = label - 1 // the dot before it ends a sentence
				break
			}
			labels++
			lastLabel = end - label
			if end == len(text) || text[end] != '.' {
				break
			}
			end++
		}
		if start < at && labels >= 2 && lastLabel >= 2 {
			return start, end, true
		}
	}
}

// findCard finds the numbers of payment cards: 14 to 19 digits, with single
// blanks or hyphens between them, that start and end as those of a card scheme.
func findCard(text []byte, from int) (int, int, bool) {
	for i := from; i < len(text); i++ {
		if !isDigit(text[i]) || (i > 0 && (isAlnum(text[i-1]) || text[i-1] == '_' || text[i-1] == '.')) {
			continue
		}
		var digits [19]byte
		n, best := 0, 0
		for end := i; end < len(text) && n < len(digits); {
			digits[n] = text[end] - '0'
			n++
			end++
			if end < len(text) && isDigit(text[end]) {
				continue
			}
			// A card's number may stand before another number.
			if (end == len(text) || !isLetter(text[end])) && isCard(digits[:n]) {
				best = end
			}
			if end+1 >= len(text) || (text[end] != ' ' && text[end] != '-') || !isDigit(text[end+1]) {
				break
			}
			end++
		}
		if best > 0 {
			return i, best, true
		}
	}
	return 0, 0, false
}

// isCard says that a card scheme gives out numbers such as this one. Article
// numbers are of that length too, and one in ten has the right check digit.
func isCard(d []byte) bool {
	n := len(d)
	if n < 14 || !luhn(d) {
		return false
	}
	two := int(d[0])*10 + int(d[1])
	four := two*100 + int(d[2])*10 + int(d[3])
	switch {
	case d[0] == 4:
		return n == 16 || n == 19
	case two >= 51 && two <= 55, four >= 2221 && four <= 2720:
		return n == 16
	case two == 34, two == 37:
		return n == 15
	case four == 6011, two == 65, four >= 6440 && four <= 6499, two == 62, four >= 3528 && four <= 3589:
		return n >= 16
	case four >= 3000 && four <= 3059, two == 36, two == 38, two == 39:
		return true
	}
	return false
}

// luhn says that the last digit is the check digit of those before it.
func luhn(digits []byte) bool {
	sum := 0
	for i := range digits {
		d := int(digits[len(digits)-1-i])
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0
}

// findPhone finds numbers with their country (+ or 00 and 8 to 15 digits) and
// those in the North American form of 3, 3 and 4 digits with something between.
// Other national numbers look like any number.
func findPhone(text []byte, from int) (int, int, bool) {
	for i := from; i < len(text); i++ {
		if i > 0 && (isAlnum(text[i-1]) || text[i-1] == '+') {
			continue
		}
		if i > 1 && (text[i-1] == '.' || text[i-1] == '-') && isDigit(text[i-2]) {
			continue // inside of another number
		}
		c := text[i]
		if c == '+' || (c == '0' && i+2 < len(text) && text[i+1] == '0' && text[i+2] != '0') {
			if end, n := phoneDigits(text, i); n >= minPhoneDigits && n <= maxPhoneDigits {
				return i, end, true
			}
		}
		if c == '(' || isDigit(c) {
			if end := northAmerican(text[i:]); end > 0 {
				return i, i + end, true
			}
		}
	}
	return 0, 0, false
}

// phoneDigits reads + or 00 and the digits behind it, with single separators
// and brackets between them. Where another number follows, the phone number ends with
// the last group of digits that it may have.
func phoneDigits(text []byte, i int) (end, n int) {
	if text[i] == '+' {
		i++
	} else {
		i += 2
	}
	end = i
	groupEnd, groupDigits := 0, 0
	for gap := 0; i < len(text) && n <= maxPhoneDigits; i++ {
		switch c := text[i]; {
		case isDigit(c):
			n++
			end, gap = i+1, 0
			continue
		case bytes.IndexByte([]byte(" -./()"), c) >= 0 && gap < 2 && (n > 0 || c == '('):
			if gap++; n > 0 && end == i {
				groupEnd, groupDigits = end, n
			}
			continue
		case isLetter(c) && end == i:
			return end, 0
		}
		break
	}
	if n > maxPhoneDigits && groupDigits >= minPhoneDigits {
		return groupEnd, groupDigits
	}
	return end, n
}

// An international number has at most 15 digits (ITU-T E.164); shorter ones are not found.
const minPhoneDigits, maxPhoneDigits = 8, 15

// northAmerican returns the length of a number of 3, 3 and 4 digits.
func northAmerican(text []byte) int {
	i := 0
	digits := func(n int) bool {
		for range n {
			if i >= len(text) || !isDigit(text[i]) {
				return false
			}
			i++
		}
		return true
	}
	separator := func() bool {
		if i < len(text) && bytes.IndexByte([]byte(" -."), text[i]) >= 0 {
			i++
			return true
		}
		return false
	}
	if text[0] == '(' {
		i++
		if !digits(3) || i >= len(text) || text[i] != ')' {
			return 0
		}
		i++
		separator()
	} else if !digits(3) || !separator() {
		return 0
	}
	if !digits(3) || !separator() || !digits(4) {
		return 0
	}
	if i < len(text) && (isAlnum(text[i]) || text[i] == '-' && i+1 < len(text) && isDigit(text[i+1])) {
		return 0
	}
	return i
}

// Words before a secret, and the least length of what follows them.
var tokenPrefixes = [...]struct {
	text string
	min  int
}{
	{"eyJ", 20},         // a signed token: header, payload, signature
	{"sk_live_", 8},     // payment services
	{"sk_test_", 8},     //
	{"rk_live_", 8},     //
	{"ghp_", 20},        // code hosts
	{"gho_", 20},        //
	{"ghs_", 20},        //
	{"github_pat_", 20}, //
	{"glpat-", 16},      //
	{"xoxb-", 10},       // chat services
	{"xoxp-", 10},       //
	{"AKIA", 16},        // cloud services
	{"ASIA", 16},        //
	{"AIza", 30},        //
	{"Bearer ", 8},      // an Authorization header
	{"Basic ", 8},       //
}

// Parameters of a URL, and keys of a text such as password=..., that carry one.
var tokenParameters = [...]string{
	"access_token", "refresh_token", "id_token", "auth_token", "token", "api_key", "apikey", "api-key", "password", "passwd", "pwd",
	"secret", "client_secret", "signature", "sig", "session_id", "sessionid", "auth",
}

// findToken finds secrets by their well-known beginnings, in parameters of URLs
// and the like, between the host's slashes and its @, and private keys.
func findToken(text []byte, from int) (int, int, bool) {
	for i := from; i < len(text); i++ {
		var start, end int
		var ok bool
		switch c := text[i]; c {
		case '=', ':':
			start, end, ok = parameterAt(text, from, i)
		case '/':
			start, end, ok = credentialAt(text, i)
		case '-':
			// -----BEGIN RSA PRIVATE KEY-----, and the like
			head := text[i:min(i+64, len(text))]
			start, end, ok = i, len(text), hasPrefix(head, "-----BEGIN ") && bytes.Contains(head, []byte("PRIVATE KEY-----"))
		case 'e', 's', 'r', 'g', 'x', 'A', 'B':
			if i == from || (!isAlnum(text[i-1]) && text[i-1] != '_') {
				start, end, ok = prefixedAt(text, i)
			}
		}
		if ok {
			return start, end, true
		}
	}
	return 0, 0, false
}

// prefixedAt finds what starts with one of tokenPrefixes, whose first letters
// findToken knows.
func prefixedAt(text []byte, i int) (start, end int, ok bool) {
	for _, p := range tokenPrefixes {
		if !hasPrefix(text[i:], p.text) {
			continue
		}
		start := i + len(p.text)
		end := tokenEnd(text, start)
		if end-start >= p.min {
			if p.text[len(p.text)-1] != ' ' {
				start = i
			}
			return start, end, true
		}
	}
	return 0, 0, false
}

// parameterAt finds the value behind = or : at i, if one of tokenParameters
// stands before it.
func parameterAt(text []byte, from, i int) (start, end int, ok bool) {
	const longest = 16
	word := i
	for word > from && i-word <= longest && (isAlnum(text[word-1]) || text[word-1] == '_' || text[word-1] == '-') {
		word--
	}
	known := false
	for _, p := range tokenParameters {
		known = known || (len(p) == i-word && foldPrefix(text[word:], p))
	}
	if !known {
		return 0, 0, false
	}
	for start = i + 1; start < len(text) && bytes.IndexByte([]byte(" \"'"), text[start]) >= 0; {
		start++
	}
	for end = start; end < len(text) && bytes.IndexByte([]byte("&;# \"'<>,"), text[end]) < 0; {
		end++
	}
	return start, end, end > start
}

// credentialAt finds user:password between // and @ of a URL.
func credentialAt(text []byte, i int) (start, end int, ok bool) {
	if i+1 >= len(text) || text[i+1] != '/' || i == 0 || text[i-1] != ':' {
		return 0, 0, false
	}
	colon := false
	for j := i + 2; j < len(text); j++ {
		switch text[j] {
		case ':':
			colon = true
		case '@':
			return i + 2, j, colon && j > i+2
		case '/', '?', '#', ' ', '"':
			return 0, 0, false
		}
	}
	return 0, 0, false
}

func tokenEnd(text []byte, i int) int {
	for i < len(text) && (isAlnum(text[i]) || bytes.IndexByte([]byte("-_.+/=~"), text[i]) >= 0) {
		i++
	}
	return i
}

func hasPrefix(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && string(text[:len(prefix)]) == prefix
}

// foldPrefix compares without case; prefix is lower-case.
func foldPrefix(text []byte, prefix string) bool {
	if len(text) < len(prefix) {
		return false
	}
	for i := range len(prefix) {
		c := text[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != prefix[i] {
			return false
		}
	}
	return true
}
