// Package metric reads the metrics that a metric event reports: numbers, each with its
// name, dimensions that distinguish series, and the period that they apply to.
//
// It owns the property keys, the parsing of numbers and instants in text, and the form
// in which a report travels to ClickHouse. The meaning of a number (delta, gauge,
// cumulative) is declared in the catalog and is applied when metrics are read, so it is
// not here.
//
// A number is read correctly or not at all: "10,000" is ten thousand, and "1,5", which
// is ambiguous, stays as it was sent. docs/catalog.md has the rules for people who send
// metrics.
package metric

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/uptakehq/uptake/enricher/internal/metadata"
	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/rawjson"
)

// Bounds of a report; anything above them is not read.
const (
	maxNumbers    = 64
	maxDimensions = 32
	maxNameBytes  = 128 // of a number or a dimension
	maxTextBytes  = 256 // of a dimension's value
	maxNesting    = 512
)

// Unread is a part of a report that could not be read.
type Unread struct {
	Path  string // such as metric.values.seats
	Value []byte // as it was sent; aliases the properties
}

// Report is what a metric event reports. Its slices are valid until the next
// Read of the Reader that made it.
type Report struct {
	Numbers    []Number
	Dimensions []Dimension // by name
	// Named: the call names its period, so another report of the same period replaces
	// this one. Otherwise each call stands by itself.
	Named      bool
	Start, End event.Micros // equal where the call names one instant
	Unread     []Unread
}

// Number is one number of a report; a single one has no name.
type Number struct {
	Name  string
	Value float64
}

// Dimension is a key and a value that distinguish series of a metric.
type Dimension struct{ Name, Value string }

// Reader reads one report after the other. It is for one goroutine.
type Reader struct {
	report  Report
	members []member
}

// member is a member of an object, as it stands in the text.
type member struct {
	name  string
	sound bool // the key is text
	value []byte
}

// Read reads the properties of a metric event: valid JSON or empty. When no number can
// be used, the report has none, and Unread has the reasons.
func (r *Reader) Read(properties []byte) *Report {
	r.report = Report{Numbers: r.report.Numbers[:0], Dimensions: r.report.Dimensions[:0], Unread: r.report.Unread[:0]}
	var value, values, dimensions, period, start, end []byte
	r.members = list(r.members[:0], properties)
	for _, m := range r.members {
		// The last of repeated keys counts, as in the columns.
		switch m.name {
		case "value":
			value = m.value
		case "values":
			values = m.value
		case "dimensions":
			dimensions = m.value
		case "period":
			period = m.value
		case "period_start", "periodStart":
			start = m.value
		case "period_end", "periodEnd":
			end = m.value
		}
	}
	ok := r.period(period, start, end)
	ok = r.dimensions(dimensions) && ok
	r.numbers(value, values)
	if len(r.report.Numbers)+len(r.report.Unread) == 0 {
		r.unread("metric.value", []byte("null")) // it reports nothing
	}
	if !ok {
		// With a wrong period or wrong dimensions the numbers would replace or join
		// others.
		r.report.Numbers = r.report.Numbers[:0]
	}
	return &r.report
}

// absent reports whether a key is missing or null.
func absent(v []byte) bool { return len(v) == 0 || rawjson.KindAt(v, 0) == rawjson.Null }

func (r *Reader) unread(path string, v []byte) {
	r.report.Unread = append(r.report.Unread, Unread{path, v})
}

// numbers reads value and values.
func (r *Reader) numbers(value, values []byte) {
	if !absent(value) {
		r.number("", "metric.value", value)
	}
	switch {
	case absent(values):
		return
	case rawjson.KindAt(values, 0) != rawjson.Object:
		r.unread("metric.values", values)
		return
	}
	r.members = list(r.members[:0], values)
	for i, m := range r.members {
		switch {
		case absent(m.value) || again(r.members[i+1:], m):
		case !m.sound || m.name == "" || len(m.name) > maxNameBytes || len(r.report.Numbers) == maxNumbers:
			r.unread("metric.values."+m.name, m.value)
		default:
			r.number(m.name, "metric.values."+m.name, m.value)
		}
	}
}

func again(later []member, m member) bool {
	return slices.ContainsFunc(later, func(o member) bool { return o.name == m.name })
}

func (r *Reader) number(name, path string, v []byte) {
	n, ok := number(v)
	if !ok {
		r.unread(path, v)
		return
	}
	r.report.Numbers = append(r.report.Numbers, Number{name, n})
}

// number reads a number, or a text that is one.
func number(v []byte) (float64, bool) {
	switch rawjson.KindAt(v, 0) {
	case rawjson.Number:
	case rawjson.String:
		if v = plain(string(rawjson.AppendUnquoted(nil, v))); v == nil {
			return 0, false
		}
	default:
		return 0, false
	}
	return metadata.Double(v)
}

// plain returns a number written for people in JSON form, nil if it is ambiguous or not
// a number.
//
// Groups of three digits may be separated by commas, blanks, apostrophes or
// underscores, always the same ones; a decimal point may follow. Points may be
// separators too, if there are at least two of them. One point followed by three digits
// is ambiguous unless the digits before it cannot be a first group; a comma followed by
// anything but three digits is not read.
func plain(s string) []byte {
	s = strings.TrimSpace(s)
	sign := ""
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		sign, s = "-", rest
	} else {
		s = strings.TrimPrefix(s, "+")
	}
	for _, group := range []string{",", " ", "\u00a0", "\u202f", "\u2009", "'", "\u2019", "_"} {
		if !strings.Contains(s, group) {
			continue
		}
		whole, fraction, point := strings.Cut(s, ".")
		if point && !digits(fraction) {
			return nil
		}
		if whole = ungroup(whole, group); whole == "" {
			return nil
		}
		s = whole
		if point {
			s += "." + fraction
		}
		return []byte(sign + s)
	}
	if strings.Count(s, ".") > 1 {
		if s = ungroup(s, "."); s == "" {
			return nil
		}
		return []byte(sign + s)
	}
	if whole, fraction, point := strings.Cut(s, "."); point && len(fraction) == 3 && firstGroup(whole) {
		return nil
	}
	if end, _ := rawjson.EndNumber([]byte(s), 0); end != len(s) || strings.HasPrefix(s, "-") {
		return nil
	}
	return []byte(sign + s)
}

// ungroup removes the separators of groups of three digits; "" if the groups are not
// valid.
func ungroup(s, mark string) string {
	groups := strings.Split(s, mark)
	if !firstGroup(groups[0]) {
		return ""
	}
	for _, g := range groups[1:] {
		if len(g) != 3 || !digits(g) {
			return ""
		}
	}
	return strings.Join(groups, "")
}

// firstGroup reports whether s can be the first group of digits: one to three, without
// a leading zero.
func firstGroup(s string) bool { return len(s) <= 3 && digits(s) && s[0] != '0' }

func digits(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' }) < 0
}

// dimensions reads an object of texts, numbers and bools. It returns false when one
// cannot be used: without it the number would belong to another series.
func (r *Reader) dimensions(v []byte) bool {
	if absent(v) {
		return true
	}
	if rawjson.KindAt(v, 0) != rawjson.Object {
		r.unread("metric.dimensions", v)
		return false
	}
	ok := true
	r.members = list(r.members[:0], v)
	for i, m := range r.members {
		if absent(m.value) || again(r.members[i+1:], m) {
			continue
		}
		text, sound := label(m.value)
		if !sound || !m.sound || m.name == "" || len(m.name) > maxNameBytes || len(r.report.Dimensions) == maxDimensions {
			r.unread("metric.dimensions."+m.name, m.value)
			ok = false
			continue
		}
		r.report.Dimensions = append(r.report.Dimensions, Dimension{m.name, text})
	}
	slices.SortFunc(r.report.Dimensions, func(a, b Dimension) int { return strings.Compare(a.Name, b.Name) })
	return ok
}

// label returns the text of a value: 2, 2.0 and "2" are the same series.
func label(v []byte) (string, bool) {
	switch rawjson.KindAt(v, 0) {
	case rawjson.Bool:
		return string(v), true
	case rawjson.Number:
		text := string(v)
		if n, ok := metadata.Double(v); ok {
			text = strconv.FormatFloat(n+0, 'f', -1, 64) // + 0: -0 is 0
		}
		return text, len(text) <= maxTextBytes
	case rawjson.String:
		text, ok := sound(v)
		return text, ok && len(text) <= maxTextBytes
	}
	return "", false
}

// sound returns the text of a string, and whether it is text: UTF-8 without half
// surrogate pairs.
func sound(quoted []byte) (string, bool) {
	ok := utf8.Valid(quoted) && metadata.IsText(quoted)
	return strings.ToValidUTF8(string(rawjson.AppendUnquoted(nil, quoted)), "\uFFFD"), ok
}

// list appends the members of an object, in order. Of other texts it has none.
func list(dst []member, doc []byte) []member {
	i := rawjson.Space(doc, 0)
	if rawjson.KindAt(doc, i) != rawjson.Object {
		return dst
	}
	i, more := rawjson.First(doc, i, '}')
	for more {
		keyEnd, v, _ := rawjson.Member(doc, i)
		if v == rawjson.Bad {
			return dst
		}
		end := rawjson.EndValue(doc, v, maxNesting)
		if end == rawjson.Bad {
			return dst
		}
		name, ok := sound(doc[i:keyEnd])
		dst = append(dst, member{name, ok, bytes.TrimRight(doc[v:end], " \t\r\n")})
		i, more = rawjson.Next(doc, end, '}')
	}
	return dst
}

// Append appends the report as JSON object text:
// {"numbers":{"":12.5},"dimensions":"{\"plan\":\"pro\"}","period":[start,end]}.
// dimensions are text, so that equal ones are equal bytes; there is no period
// where the call names none. It appends nothing when there are no numbers.
func (r *Report) Append(dst []byte) []byte {
	if len(r.Numbers) == 0 {
		return dst
	}
	dst = append(dst, `{"numbers":{`...)
	for i, n := range r.Numbers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = rawjson.AppendQuoted(dst, n.Name)
		dst = append(dst, ':')
		dst = strconv.AppendFloat(dst, n.Value, 'g', -1, 64)
	}
	dst = append(dst, `},"dimensions":`...)
	text := []byte{'{'}
	for i, d := range r.Dimensions {
		if i > 0 {
			text = append(text, ',')
		}
		text = rawjson.AppendQuoted(text, d.Name)
		text = append(text, ':')
		text = rawjson.AppendQuoted(text, d.Value)
	}
	dst = rawjson.AppendQuoted(dst, append(text, '}'))
	if r.Named {
		dst = append(dst, `,"period":[`...)
		dst = strconv.AppendInt(dst, r.Start, 10)
		dst = append(dst, ',')
		dst = strconv.AppendInt(dst, r.End, 10)
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

// AppendConflicts adds the unread parts to conflicts, JSON object text or empty, in the
// form of package metadata.
func (r *Report) AppendConflicts(conflicts []byte) []byte {
	for _, u := range r.Unread {
		if len(conflicts) == 0 {
			conflicts = append(conflicts, '{')
		} else {
			conflicts[len(conflicts)-1] = ','
		}
		conflicts = rawjson.AppendQuoted(conflicts, u.Path)
		conflicts = append(conflicts, ':')
		conflicts = metadata.AppendOriginal(conflicts, u.Value)
		conflicts = append(conflicts, '}')
	}
	return conflicts
}
