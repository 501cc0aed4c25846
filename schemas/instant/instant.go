// Package instant parses instants as clients and archives write them: ISO 8601 in its
// basic and extended forms, variants that SDKs send, RFC 2822 and the formats of
// programming languages, and numbers since the epoch, whose unit follows from their
// magnitude.
//
// It alone decides which texts are instants; the gateway, the enricher and the commands
// use it. An ambiguous text, such as 11/12/2026, is not an instant. Texts without a
// zone are UTC. docs/metadata.md has the rules for people.
package instant

import (
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/ids"
)

// Parse parses a text. It returns false for one that is not an instant, or is outside
// of the years 1 to 9999. Decimals beyond microseconds are truncated.
func Parse(s string) (event.Micros, bool) {
	us, _, ok := parse(s)
	return us, ok
}

// ParseIn is Parse for texts that are in a zone if they name none. ambiguous reports
// that the text names two instants, at the end of daylight saving time, of which the
// first is returned; a time that the clock skipped is read with the offset before the
// change.
func ParseIn(s string, zone *time.Location) (us event.Micros, ambiguous, ok bool) {
	us, local, ok := parse(s)
	if !ok || !local || zone == nil {
		return us, false, ok
	}
	us, ambiguous = InZone(us, zone)
	return us, ambiguous, true
}

// InZone returns the instant at which clocks in zone show the time that us shows in
// UTC; see ParseIn.
func InZone(us event.Micros, zone *time.Location) (at event.Micros, ambiguous bool) {
	offset := func(at int64) int64 {
		_, s := time.UnixMicro(at).In(zone).Zone()
		return int64(s) * 1e6
	}
	// Only the offsets in force a day before and a day after can apply.
	before, after := offset(us-24*3600e6), offset(us+24*3600e6)
	first, second := us-before, us-after
	okFirst, okSecond := first+offset(first) == us, second+offset(second) == us
	switch {
	case okFirst && okSecond:
		return keepEpoch(min(first, second)), first != second
	case okSecond:
		return keepEpoch(second), false
	default: // also in the gap, where the old offset applies
		return keepEpoch(first), false
	}
}

// parse parses a text; local reports that it names no zone and was read as UTC.
func parse(s string) (us event.Micros, local, ok bool) {
	if us, local, ok = extended(s); ok {
		return us, local, true
	}
	if s = ids.Trim(s); s == "" || len(s) > maxText {
		return 0, false, false
	}
	if us, ok = digitsOnly(s); ok {
		return us, len(s) == 4 || len(s) == 8 || (len(s) == 14 && s[0] <= '2'), true
	}
	if us, ok = jsonDate(s); ok {
		return us, false, true
	}
	if us, local, ok = loose(s); ok {
		return us, local, true
	}
	return words(s)
}

// maxText bounds the texts that are parsed, in bytes.
const maxText = 128

// Number parses a JSON number: by the digits before the point, 9 to 11 are seconds, 12
// to 14 milliseconds, 15 to 17 microseconds and 18 to 20 nanoseconds since the epoch.
// It returns false for any other.
func Number(s string) (event.Micros, bool) {
	if strings.ContainsAny(s, "eE") {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return 0, false
		}
		s = strconv.FormatFloat(f, 'f', -1, 64)
	}
	sign := int64(1)
	if strings.HasPrefix(s, "-") {
		sign, s = -1, s[1:]
	}
	whole, fraction, point := strings.Cut(s, ".")
	if !digits(whole) || (point && !digits(fraction)) {
		return 0, false
	}
	text := whole
	switch n := len(whole); {
	case n < 9 || n > 20:
		return 0, false
	case n <= 11:
		text += (fraction + "000000")[:6]
	case n <= 14:
		text += (fraction + "000")[:3]
	case n >= 18:
		text = whole[:n-3]
	}
	us, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, false
	}
	return keepEpoch(sign * us), inYears(sign * us)
}

// digitsOnly parses a text of digits, with or without a fraction: first as dates of 4,
// 8 and 14 digits between 1970 and 2100, then as numbers.
func digitsOnly(s string) (event.Micros, bool) {
	if c := s[len(s)-1]; c < '0' || c > '9' {
		return 0, false
	}
	if digits(s) {
		var year int
		month, day, clock := 1, 1, 0
		switch len(s) {
		case 14:
			h, m, sec := num(s[8:10]), num(s[10:12]), num(s[12:14])
			if h > 23 || m > 59 || sec > 59 {
				return Number(s)
			}
			clock = h*3600 + m*60 + sec
			fallthrough
		case 8:
			month, day = num(s[4:6]), num(s[6:8])
			fallthrough
		case 4:
			year = num(s[:4])
			if year >= 1970 && year < 2100 && month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month) {
				return keepEpoch((daysSinceEpoch(year, month, day)*86400 + int64(clock)) * 1e6), true
			}
		}
	}
	return Number(s)
}

// jsonDate parses /Date(1795168800000+0100)/, as .NET writes it; the offset does not
// change the instant.
func jsonDate(s string) (event.Micros, bool) {
	s = strings.TrimSuffix(strings.TrimPrefix(s, "/"), "/")
	s, ok := strings.CutPrefix(s, "Date(")
	if !ok || !strings.HasSuffix(s, ")") {
		return 0, false
	}
	s = s[:len(s)-1]
	if i := strings.LastIndexAny(s, "+-"); i > 0 {
		s = s[:i]
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms > 1e15 || ms < -1e15 {
		return 0, false
	}
	return keepEpoch(ms * 1e3), inYears(ms * 1e3)
}

// extended parses in one pass what nearly all clients write: a date, "T", "t" or a
// blank, a time with or without seconds and decimals, and a zone or none; or a date.
func extended(s string) (us event.Micros, local, ok bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' || !digits(s[:4]) || !digits(s[5:7]) || !digits(s[8:10]) {
		return 0, false, false
	}
	year, month, day := num(s[:4]), num(s[5:7]), num(s[8:10])
	if year < 1 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false, false
	}
	days := daysSinceEpoch(year, month, day)
	s = s[10:]
	if s == "" {
		return keepEpoch(days * 86400e6), true, true
	}
	if s[0] != 'T' && s[0] != 't' && s[0] != ' ' {
		return 0, false, false
	}
	clock, rest, ok := clockOf(s[1:])
	if !ok {
		return 0, false, false
	}
	offset, local, ok := zoneOf(rest)
	if !ok {
		return 0, false, false
	}
	us = days*86400e6 + clock - offset
	return keepEpoch(us), local, inYears(us)
}

// loose parses other spellings of ISO 8601: dates with one digit, with slashes, of the
// basic form, by week or by day of the year, and months.
func loose(s string) (us event.Micros, local, ok bool) {
	days, rest, ok := dateOf(s)
	if !ok {
		return 0, false, false
	}
	if rest == "" {
		return keepEpoch(days * 86400e6), true, true
	}
	switch rest[0] {
	case 'T', 't', ' ', '_':
		rest = strings.TrimLeft(rest[1:], " ")
	default:
		return 0, false, false
	}
	clock, rest, ok := clockOf(rest)
	if !ok {
		return 0, false, false
	}
	offset, local, ok := zoneOf(rest)
	if !ok {
		return 0, false, false
	}
	us = days*86400e6 + clock - offset
	return keepEpoch(us), local, inYears(us)
}

// dateOf parses the date at the start of a text, as days since the epoch.
func dateOf(s string) (days int64, rest string, ok bool) {
	n := leading(s)
	if n < 4 {
		return 0, "", false
	}
	year := num(s[:4])
	if year < 1 {
		return 0, "", false
	}
	day := func(month, day int, rest string) (int64, string, bool) {
		if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
			return 0, "", false
		}
		return daysSinceEpoch(year, month, day), rest, true
	}
	ordinal := func(n int, rest string) (int64, string, bool) {
		if n < 1 || n > 365 && (n > 366 || daysIn(year, 2) == 28) {
			return 0, "", false
		}
		return daysSinceEpoch(year, 1, 1) + int64(n) - 1, rest, true
	}
	switch n {
	case 8:
		return day(num(s[4:6]), num(s[6:8]), s[8:])
	case 7: // in the basic form only with a time: otherwise it is ambiguous
		if len(s) > 7 && (s[7] == 'T' || s[7] == 't') {
			return ordinal(num(s[4:7]), s[7:])
		}
		return 0, "", false
	case 4:
	default:
		return 0, "", false
	}
	s = s[4:]
	if s == "" {
		return 0, "", false
	}
	separator := s[0]
	if separator == '-' || separator == '/' {
		s = s[1:]
	}
	if s != "" && (s[0] == 'W' || s[0] == 'w') && separator != '/' {
		return weekOf(year, s[1:])
	}
	n = leading(s)
	switch {
	case separator != '-' && separator != '/':
		return 0, "", false
	case n == 3 && separator == '-':
		return ordinal(num(s[:3]), s[3:])
	case n < 1 || n > 2:
		return 0, "", false
	}
	month := num(s[:n])
	if s = s[n:]; s == "" && n == 2 && separator == '-' {
		return day(month, 1, "")
	}
	if s == "" || s[0] != separator {
		return 0, "", false
	}
	s = s[1:]
	if n = leading(s); n < 1 || n > 2 {
		return 0, "", false
	}
	return day(month, num(s[:n]), s[n:])
}

// weekOf parses the week and day after a W: 48-7 or 487; without a day it is the week's
// Monday. ISO 8601: week 1 contains the year's 4 January.
func weekOf(year int, s string) (days int64, rest string, ok bool) {
	n := leading(s)
	if n != 2 && n != 3 {
		return 0, "", false
	}
	week, day := num(s[:2]), 1
	switch {
	case n == 3:
		day, s = num(s[2:3]), s[3:]
	case len(s) > 3 && s[2] == '-' && leading(s[3:]) == 1:
		day, s = num(s[3:4]), s[4:]
	default:
		s = s[2:]
	}
	monday := mondayOf(daysSinceEpoch(year, 1, 4))
	if week < 1 || day < 1 || day > 7 || monday+int64(week-1)*7 >= mondayOf(daysSinceEpoch(year+1, 1, 4)) {
		return 0, "", false
	}
	return monday + int64(week-1)*7 + int64(day-1), s, true
}

// mondayOf returns the Monday of a day's week; 1 January 1970 was a Thursday.
func mondayOf(day int64) int64 { return day - ((day+3)%7+7)%7 }

// clockOf parses the time of day at the start of a text, in microseconds.
func clockOf(s string) (us int64, rest string, ok bool) {
	n := leading(s)
	var hour, minute, second int
	seconds := false
	switch n {
	case 1, 2:
		hour = num(s[:n])
		s = s[n:]
		if len(s) < 3 || s[0] != ':' || leading(s[1:]) != 2 {
			if n == 2 && (s == "" || s[0] != ':') { // hours alone
				break
			}
			return 0, "", false
		}
		minute, s = num(s[1:3]), s[3:]
		if len(s) >= 3 && s[0] == ':' && leading(s[1:]) == 2 {
			second, s, seconds = num(s[1:3]), s[3:], true
		}
	case 4, 6:
		hour, minute = num(s[:2]), num(s[2:4])
		if n == 6 {
			second, seconds = num(s[4:6]), true
		}
		s = s[n:]
	default:
		return 0, "", false
	}
	if minute > 59 || second > 60 || hour > 24 {
		return 0, "", false
	}
	fraction := int64(0)
	if seconds && len(s) > 1 && (s[0] == '.' || s[0] == ',' || s[0] == ':') {
		if n := leading(s[1:]); n > 0 && (s[0] != ':' || n == 3) {
			fraction = int64(num((s[1:1+n] + "00000")[:6]))
			s = s[1+n:]
		} else if s[0] != ':' {
			return 0, "", false
		}
	} else if seconds && (s == "." || s == ",") {
		return 0, "", false
	}
	if half := strings.TrimLeft(s, " "); len(half) >= 2 && (half[1] == 'M' || half[1] == 'm') {
		switch half[0] | 0x20 {
		case 'a', 'p':
			if hour < 1 || hour > 12 {
				return 0, "", false
			}
			hour %= 12
			if half[0]|0x20 == 'p' {
				hour += 12
			}
			s = half[2:]
		}
	}
	if hour == 24 && (minute > 0 || second > 0 || fraction > 0) {
		return 0, "", false
	}
	// A leap second is read as the second after it.
	return int64(hour*3600+minute*60+second)*1e6 + fraction, s, true
}

// zoneOf parses the zone at the end of a text, as microseconds east of UTC.
func zoneOf(s string) (us int64, local, ok bool) {
	s = strings.TrimLeft(s, " ")
	if s == "" {
		return 0, true, true
	}
	if s[0] == ':' { // analytics-swift 1.0 wrote 27.029:Z
		s = s[1:]
		if s == "" {
			return 0, false, false
		}
	}
	named := false
	switch {
	case s == "Z" || s == "z":
		return 0, false, true
	case hasWord(s, "UTC"), hasWord(s, "GMT"):
		named, s = true, strings.TrimLeft(s[3:], " ")
	case hasWord(s, "UT"):
		named, s = true, strings.TrimLeft(s[2:], " ")
	}
	if named && (s == "" || s[0] == '(') {
		return 0, false, true
	}
	sign := int64(1)
	switch {
	case strings.HasPrefix(s, "+"):
		s = s[1:]
	case strings.HasPrefix(s, "-"):
		sign, s = -1, s[1:]
	case strings.HasPrefix(s, "\u2212"):
		sign, s = -1, s[len("\u2212"):]
	default:
		return 0, false, false
	}
	var hours, minutes int
	switch n := leading(s); {
	case n == 4:
		hours, minutes, s = num(s[:2]), num(s[2:4]), s[4:]
	case n == 2 && len(s) >= 5 && s[2] == ':' && leading(s[3:]) == 2:
		hours, minutes, s = num(s[:2]), num(s[3:5]), s[5:]
	case n == 2 && (len(s) == 2 || s[2] != ':'):
		hours, s = num(s[:2]), s[2:]
	default:
		return 0, false, false
	}
	if hours > 23 || minutes > 59 {
		return 0, false, false
	}
	us = sign * int64(hours*3600+minutes*60) * 1e6
	// The rest repeats the zone: its name, and Go's reading of its monotonic clock.
	if i := strings.Index(s, " m="); i >= 0 {
		s = s[:i]
	}
	s = strings.TrimLeft(s, " ")
	switch {
	case s == "":
	case (s == "Z" || s == "z") && us == 0:
	case s[0] == '[' && strings.HasSuffix(s, "]"), s[0] == '(' && strings.HasSuffix(s, ")"):
	case len(s) <= 5 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ+-0123456789") == "" && s != "Z":
	default:
		return 0, false, false
	}
	return us, false, true
}

// hasWord reports whether s starts with the word, and no other letter follows.
func hasWord(s, word string) bool {
	return len(s) >= len(word) && strings.EqualFold(s[:len(word)], word) && (len(s) == len(word) || s[len(word)]|0x20 < 'a' || s[len(word)]|0x20 > 'z')
}

// Offsets of the zones that RFC 2822 names, in hours.
var zones = map[string]int{"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}

const monthNames = "janfebmaraprmayjunjulaugsepoctnovdec"

// words parses texts with the name of a month: RFC 2822 and its predecessors, what C
// and JavaScript print, and "Nov 29, 2026 10:11 AM".
func words(s string) (us event.Micros, local, ok bool) {
	year, month, day := -1, 0, 0
	clock, offset := int64(-1), int64(0)
	local = true
	for s = strings.TrimLeft(s, ", "); s != ""; s = strings.TrimLeft(s, ", ") {
		n := 0
		for n < len(s) && s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z' {
			n++
		}
		if n == 0 {
			n = leading(s)
			switch {
			case n > 0 && n <= 2 && n < len(s) && s[n] == ':': // a time; a zone may follow
				if clock >= 0 {
					return 0, false, false
				}
				if clock, s, ok = clockOf(s); !ok {
					return 0, false, false
				}
				continue
			case n == 4 && year < 0:
				year = num(s[:4])
			case (n == 1 || n == 2) && day == 0:
				day = num(s[:n])
			case n == 2 && year < 0: // RFC 850; RFC 2822, section 4.3
				if year = 2000 + num(s[:2]); year >= 2050 {
					year -= 100
				}
			case n == 0 && clock >= 0 && year >= 0 && (s[0] == '+' || s[0] == '-' || s[0] == '('):
				if s[0] == '(' && !local && strings.HasSuffix(s, ")") {
					s = ""
					continue
				}
				if offset, _, ok = zoneOf(s); !ok || !local {
					return 0, false, false
				}
				local, s = false, ""
				continue
			case n == 0 && s[0] == '-' && clock < 0: // of 29-Nov-26
				n = 1
			default:
				return 0, false, false
			}
			s = s[n:]
			continue
		}
		word := strings.ToLower(s[:n])
		switch at := -1; {
		case n >= 3 && monthAt(word, &at):
			if month > 0 {
				return 0, false, false
			}
			month = at
		case isWeekday(word) && month == 0 && day == 0:
		case clock >= 0 && local && (word == "utc" || word == "gmt" || word == "ut" || word == "z"):
			rest := strings.TrimLeft(s[n:], " ")
			if rest != "" && (rest[0] == '+' || rest[0] == '-') {
				if offset, _, ok = zoneOf(untilYear(&rest, &year)); !ok {
					return 0, false, false
				}
				s, local = rest, false
				continue
			}
			local = false
		case clock >= 0 && local && zones[strings.ToUpper(word)] != 0:
			offset, local = int64(zones[strings.ToUpper(word)])*3600e6, false
		default:
			return 0, false, false
		}
		s = s[n:]
		s = strings.TrimPrefix(s, ".")
	}
	if year < 1 || month == 0 || day < 1 || day > daysIn(year, month) {
		return 0, false, false
	}
	us = daysSinceEpoch(year, month, day)*86400e6 + max(clock, 0) - offset
	return keepEpoch(us), local, inYears(us)
}

// untilYear returns the zone that rest is, and what is left of rest.
func untilYear(rest *string, year *int) string {
	zone := *rest
	if *year < 0 {
		if i := strings.IndexByte(zone, ' '); i > 0 {
			zone, *rest = zone[:i], zone[i:]
			return zone
		}
	}
	*rest = ""
	return zone
}

func monthAt(word string, at *int) bool {
	i := strings.Index(monthNames, word[:3])
	if i < 0 || i%3 != 0 || !strings.HasPrefix(strings.ToLower(time.Month(i/3+1).String()), word) && word != "sept" {
		return false
	}
	*at = i/3 + 1
	return true
}

func isWeekday(word string) bool {
	for d := time.Sunday; d <= time.Saturday; d++ {
		if len(word) >= 3 && strings.HasPrefix(strings.ToLower(d.String()), word) {
			return true
		}
	}
	return false
}

// leading is how many digits s starts with.
func leading(s string) int {
	n := 0
	for n < len(s) && s[n]-'0' <= 9 {
		n++
	}
	return n
}

func digits(s string) bool { return s != "" && leading(s) == len(s) }

// num is the value of a few digits.
func num(s string) int {
	n := 0
	for i := range len(s) {
		n = n*10 + int(s[i]-'0')
	}
	return n
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// daysSinceEpoch counts days of the proleptic Gregorian calendar, in years that
// start with March, so that the leap day is the last.
func daysSinceEpoch(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return int64(365*year + year/4 - year/100 + year/400 + (153*(month-3)+2)/5 + day - 1 - 719468)
}

var (
	first = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	last  = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
)

func inYears(us int64) bool { return us >= first && us < last }

// keepEpoch keeps the epoch itself from being taken for an absent instant, as
// event.FromTime does.
func keepEpoch(us int64) event.Micros {
	if us == 0 {
		return 1
	}
	return us
}
