package metric

import (
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
	"github.com/uptakehq/uptake/schemas/rawjson"
)

// period reads the period that a call names: period as text or as an object of start
// and end, or period_start and period_end. It returns false when a named period cannot
// be read.
func (r *Reader) period(period, start, end []byte) bool {
	switch {
	case !absent(period):
		switch rawjson.KindAt(period, 0) {
		case rawjson.String:
			text, ok := sound(period)
			if from, to, read := span(text); ok && read {
				r.named(from, to)
				return true
			}
			r.unread("metric.period", period)
			return false
		case rawjson.Object:
			start, end = nil, nil
			for _, m := range list(nil, period) {
				switch m.name {
				case "start":
					start = m.value
				case "end":
					end = m.value
				}
			}
			return r.bounds(start, end, "metric.period.start", "metric.period.end", period)
		}
		r.unread("metric.period", period)
		return false
	case !absent(start) || !absent(end):
		return r.bounds(start, end, "metric.period_start", "metric.period_end", start)
	}
	return true
}

// bounds reads both ends of a period; a single one is an instant.
func (r *Reader) bounds(start, end []byte, startPath, endPath string, all []byte) bool {
	from, fromOK := bound(start)
	to, toOK := bound(end)
	if !fromOK {
		r.unread(startPath, start)
	}
	if !toOK {
		r.unread(endPath, end)
	}
	if !fromOK || !toOK {
		return false
	}
	switch {
	case absent(start) && absent(end):
		r.unread("metric.period", all)
		return false
	case absent(start):
		from = to
	case absent(end):
		to = from
	}
	if to.Before(from) {
		r.unread(endPath, end)
		return false
	}
	r.named(from, to)
	return true
}

func (r *Reader) named(from, to time.Time) {
	r.report.Named, r.report.Start, r.report.End = true, event.FromTime(from), event.FromTime(to)
}

// The range of instants that a column can hold.
var earliest, latest = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2298, 12, 31, 0, 0, 0, 0, time.UTC)

func inRange(t time.Time) bool { return !t.Before(earliest) && !t.After(latest) }

// millisFrom is the number from which an instant is in milliseconds; in seconds it
// would be after the year 5000.
const millisFrom = 1e11

// bound reads one end: text, or seconds or milliseconds since the epoch. It returns the
// zero time for a missing end.
func bound(v []byte) (time.Time, bool) {
	if absent(v) {
		return time.Time{}, true
	}
	var t time.Time
	switch rawjson.KindAt(v, 0) {
	case rawjson.Number:
		n, err := strconv.ParseInt(string(v), 10, 64)
		switch {
		case err != nil:
			return t, false
		case n >= millisFrom || n <= -millisFrom:
			t = time.UnixMilli(n).UTC()
		default:
			t = time.Unix(n, 0).UTC()
		}
	case rawjson.String:
		text, ok := sound(v)
		if !ok {
			return t, false
		}
		if t, _, ok = instant(text); !ok {
			return t, false
		}
	default:
		return t, false
	}
	return t, inRange(t)
}

// unit returns the end of the unit of time that a text names.
type unit func(time.Time) time.Time

// Forms of instants, and the unit that a text in the form names. Without a zone it is
// UTC.
var forms = []struct {
	layout string
	end    unit
}{
	{"2006", func(t time.Time) time.Time { return t.AddDate(1, 0, 0) }},
	{"2006-01", func(t time.Time) time.Time { return t.AddDate(0, 1, 0) }},
	{"2006-01-02", func(t time.Time) time.Time { return t.AddDate(0, 0, 1) }},
	{"2006-01-02T15", func(t time.Time) time.Time { return t.Add(time.Hour) }},
	{"2006-01-02T15:04", nil},
	{"2006-01-02T15:04:05", nil},
	{time.RFC3339, nil},
	{"2006-01-02T15:04Z07:00", nil},
}

// instant reads an instant, and the end of the unit of time that the text names;
// equal ones for a text that names an instant.
func instant(s string) (start, end time.Time, ok bool) {
	s = strings.TrimSpace(s)
	if len(s) > 10 && s[10] == ' ' {
		s = s[:10] + "T" + s[11:]
	}
	for _, f := range forms {
		t, err := time.Parse(f.layout, s)
		if err != nil {
			continue
		}
		t = t.UTC()
		if f.end == nil {
			return t, t, inRange(t)
		}
		return t, f.end(t), inRange(t)
	}
	return time.Time{}, time.Time{}, false
}

// span reads a period: a year, month, day or hour, an instant, or two of them separated
// by a slash, of which the second is the end.
func span(s string) (from, to time.Time, ok bool) {
	first, second, two := strings.Cut(s, "/")
	from, to, ok = instant(first)
	if !ok || !two {
		return from, to, ok
	}
	to, _, ok = instant(second)
	return from, to, ok && !to.Before(from)
}
