// Package client reads what an event says of the client that it came from, and of what
// brought the client there: country, browser, operating system, class of device,
// referrer and campaign.
//
// It owns the names under which the protocols' SDKs send these (the tables below, and
// docs/metadata.md for users), and the table by which user agents are read. What the
// sender states has precedence over what is derived. It does not own privacy rules: it
// is given what they let through.
package client

import (
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Bounds of the columns, in bytes. Longer texts are cut.
const (
	maxName     = 64  // browser and operating system
	maxHost     = 253 // of the domain name system
	maxCampaign = 256
)

// maxDepth bounds the nesting of values that are skipped.
const maxDepth = 512

// field is something that a sender may state.
type field uint8

const (
	none field = iota
	country
	browser
	system
	device       // a class, or what implies one
	model        // of the device
	mobile       // true or false
	platform     // Amplitude's, by which its os_name is read
	platformName // Amplitude's os_name: of platform Web a browser
	referrer
	page // URL of the page
	host // of the page
	search
	source
	medium
	campaign
	numFields
)

// Reader reads events one after the other. Texts that it returns are valid until the
// next call. It belongs to one goroutine.
type Reader struct {
	agents agents
	values [numFields]string
	ranks  [numFields]uint8
	text   []byte // of escaped strings
	other  []byte // what is changed of a text
	picked []byte
}

// Sent is an event as far as it is read here, after the privacy rules.
type Sent struct {
	Kind                string
	Properties, Context []byte // JSON object text, or empty
	UserAgent           string
	Country             string // by the address
}

// Read returns what is known of the client.
func (r *Reader) Read(e *Sent) event.Client {
	r.values, r.ranks = [numFields]string{}, [numFields]uint8{}
	r.text, r.other = r.text[:0], r.other[:0]
	r.object(e.Context, contextNames, e.Kind)
	r.object(e.Properties, propertyNames, e.Kind)
	agent := r.agents.read(e.UserAgent)
	c := event.Client{
		Country: or(countryOf(r.values[country]), e.Country),
		Browser: or(browserOf(r.values[browser]), or(r.amplitudeBrowser(), agent.browser)),
		OS:      or(systemOf(r.values[system]), or(r.amplitudeSystem(), agent.os)),
	}
	c.DeviceClass = or(r.deviceClass(), agent.device)
	if c.DeviceClass == "" {
		c.DeviceClass = deviceOfSystem(c.OS)
	}
	if e.Kind != event.KindAPICall { // its page is the call's own URL
		c.Referrer = r.referrer()
	}
	query := queryOf(r.values[page])
	if query == "" {
		query = strings.TrimPrefix(r.values[search], "?")
	}
	c.UTMSource = r.campaignText(source, query, "utm_source")
	c.UTMMedium = r.campaignText(medium, query, "utm_medium")
	c.UTMCampaign = r.campaignText(campaign, query, "utm_campaign")
	return c
}

// Pick returns an object of those properties that Read looks at, so that privacy rules
// need not be applied to all of them once more. It is valid until the next call.
func (r *Reader) Pick(properties []byte) []byte {
	out := append(r.picked[:0], '{')
	each(properties, func(key, name, value []byte) {
		if propertyNames.find(name) == nil {
			return
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, key...), ':'), value...)
	})
	r.picked = append(out, '}')
	if len(r.picked) == len("{}") {
		return nil
	}
	return r.picked
}

func or(stated, derived string) string {
	if stated != "" {
		return stated
	}
	return derived
}

// object reads the members of an object that are in names.
func (r *Reader) object(doc []byte, names *table, kind string) {
	each(doc, func(_, key, value []byte) {
		n := names.find(key)
		if n == nil {
			return
		}
		if n.within != nil && value[0] == '{' {
			r.object(value, n.within, kind)
		}
		if n.field == none || (n.pages && kind != event.KindPage && kind != event.KindScreen) {
			return
		}
		if rank := r.ranks[n.field]; rank != 0 && rank <= n.rank {
			return
		}
		if text := strings.TrimSpace(r.textOf(value)); text != "" {
			r.values[n.field], r.ranks[n.field] = text, n.rank
		}
	})
}

// each calls fn for the members of an object whose keys have no escapes: key is the key
// with its quotes, name the key without. What follows a fault of the text is not read.
func each(doc []byte, fn func(key, name, value []byte)) {
	i := rawjson.Space(doc, 0)
	if rawjson.KindAt(doc, i) != rawjson.Object {
		return
	}
	i, more := rawjson.First(doc, i, '}')
	for more {
		keyEnd, value, escaped := rawjson.Member(doc, i)
		if value == rawjson.Bad {
			return
		}
		end := rawjson.EndValue(doc, value, maxDepth)
		if end == rawjson.Bad {
			return
		}
		if !escaped {
			fn(doc[i:keyEnd], doc[i+1:keyEnd-1], doc[value:end])
		}
		i, more = rawjson.Next(doc, end, '}')
	}
}

// maxText bounds a value that is looked at, in bytes of JSON; pages have long URLs.
const maxText = 8 << 10

// textOf returns a string, a number or a truth value as text, and of an array that of
// its first element.
func (r *Reader) textOf(value []byte) string {
	if len(value) > maxText {
		return ""
	}
	switch rawjson.KindAt(value, 0) {
	case rawjson.String:
		for _, c := range value {
			if c == '\\' {
				start := len(r.text)
				r.text = rawjson.AppendText(r.text, value)
				return view(r.text[start:])
			}
		}
		return view(value[1 : len(value)-1])
	case rawjson.Number, rawjson.Bool:
		return view(value)
	case rawjson.Array:
		first, more := rawjson.First(value, 0, ']')
		if !more || rawjson.KindAt(value, first) == rawjson.Array {
			return ""
		}
		if end := rawjson.EndValue(value, first, maxDepth); end != rawjson.Bad {
			return r.textOf(value[first:end])
		}
	}
	return ""
}

// amplitudeBrowser and amplitudeSystem read os_name, which Amplitude's older browser
// SDKs use for the browser.
func (r *Reader) amplitudeBrowser() string {
	if strings.EqualFold(r.values[platform], "web") {
		return browserOf(r.values[platformName])
	}
	return ""
}

func (r *Reader) amplitudeSystem() string {
	if p := r.values[platform]; !strings.EqualFold(p, "web") {
		return systemOf(or(r.values[platformName], p))
	}
	return ""
}

// deviceClass returns the class that the sender states.
func (r *Reader) deviceClass() string {
	if class := deviceOf(r.values[device]); class != "" {
		return class
	}
	if class := deviceOf(r.values[model]); class != "" {
		return class
	}
	if r.values[mobile] == "true" {
		return Mobile
	}
	return ""
}

// referrer returns the host of the page before, unless it is a page of the same host.
func (r *Reader) referrer() string {
	from := r.lower(hostOf(r.values[referrer]))
	if from == "" {
		return ""
	}
	here := r.lower(hostOf(r.values[page]))
	if here == "" {
		here = r.lower(hostOf(r.values[host]))
	}
	if strings.TrimPrefix(from, "www.") == strings.TrimPrefix(here, "www.") {
		return ""
	}
	return cut(from, maxHost)
}

// lower returns s in lower case, without garbage.
func (r *Reader) lower(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf {
			return strings.ToLower(s)
		} else if c >= 'A' && c <= 'Z' {
			start := len(r.other)
			for j := range len(s) {
				c := s[j]
				if c >= 'A' && c <= 'Z' {
					c += 'a' - 'A'
				}
				r.other = append(r.other, c)
			}
			return view(r.other[start:])
		}
	}
	return s
}

// hostOf returns the host of a URL, or of a text that begins with one; "" where there
// is none, as in "$direct" or "(direct)".
func hostOf(url string) string {
	if i := strings.Index(url, "://"); i >= 0 {
		url = url[i+3:]
	}
	url = strings.TrimPrefix(url, "//")
	if i := strings.IndexAny(url, `/?#\`); i >= 0 {
		url = url[:i]
	}
	if i := strings.LastIndexByte(url, '@'); i >= 0 {
		url = url[i+1:]
	}
	if strings.HasPrefix(url, "[") {
		end := strings.IndexByte(url, ']')
		if end < 0 {
			return ""
		}
		return url[1:end]
	}
	if i := strings.IndexByte(url, ':'); i >= 0 {
		url = url[:i]
	}
	url = strings.TrimSuffix(url, ".")
	if !strings.Contains(url, ".") && url != "localhost" {
		return ""
	}
	for i := range len(url) {
		if c := url[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`$()<>[]{}|^"'*,;!%`, c) >= 0 {
			return ""
		}
	}
	return url
}

// queryOf returns what stands between ? and # of a URL.
func queryOf(url string) string {
	_, query, _ := strings.Cut(url, "?")
	query, _, _ = strings.Cut(query, "#")
	return query
}

// campaignText returns what is stated of the campaign, else the parameter of the page's
// URL.
func (r *Reader) campaignText(f field, query, parameter string) string {
	if v := r.values[f]; v != "" {
		return cut(v, maxCampaign)
	}
	for query != "" {
		var pair string
		pair, query, _ = strings.Cut(query, "&")
		if len(pair) > len(parameter) && pair[len(parameter)] == '=' && pair[:len(parameter)] == parameter {
			return cut(strings.TrimSpace(r.unescape(pair[len(parameter)+1:])), maxCampaign)
		}
	}
	return ""
}

// unescape decodes the value of a URL's parameter. A percent sign that begins no escape
// stands for itself.
func (r *Reader) unescape(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	start := len(r.other)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '+':
			c = ' '
		case c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			c = hex(s[i+1])<<4 | hex(s[i+2])
			i += 2
		}
		r.other = append(r.other, c)
	}
	text := view(r.other[start:])
	if !utf8.ValidString(text) {
		return strings.ToValidUTF8(text, "\uFFFD")
	}
	return text
}

func isHex(c byte) bool { return c-'0' <= 9 || c|0x20 >= 'a' && c|0x20 <= 'f' }

func hex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// cut returns the first n bytes of s as whole characters.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// view returns the text of b, which must not change while it is used.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
