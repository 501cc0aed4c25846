package ingest

import (
	"math"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// ParseTime reads an instant as ISO 8601 writes it: a date, "T", "t" or a space,
// a time with or without seconds and any number of decimals after a point or a
// comma, and Z, +hh:mm, +hhmm, +hh or nothing, which is UTC; or a date alone,
// which is its midnight in UTC. Decimals past the microsecond are cut. It reports
// false for anything else.
func ParseTime(s string) (event.Micros, bool) {
	if len(s) < 10 || s[4] != '-' || s[7] != '-' {
		return 0, false
	}
	year, ok1 := digits4(s)
	month, ok2 := digits2(s[5:])
	day, ok3 := digits2(s[8:])
	if !ok1 || !ok2 || !ok3 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) {
		return 0, false
	}
	seconds := daysSinceEpoch(year, month, day) * 86400
	s = s[10:]
	if s == "" {
		return micros(seconds * 1e6), true
	}
	if (s[0] != 'T' && s[0] != 't' && s[0] != ' ') || len(s) < 6 || s[3] != ':' {
		return 0, false
	}
	hour, ok1 := digits2(s[1:])
	minute, ok2 := digits2(s[4:])
	if !ok1 || !ok2 || hour > 23 || minute > 59 {
		return 0, false
	}
	s = s[6:]
	second, fraction := 0, 0
	if s != "" && s[0] == ':' {
		if len(s) < 3 {
			return 0, false
		}
		if second, ok1 = digits2(s[1:]); !ok1 || second > 60 {
			return 0, false
		}
		// A leap second is counted as the second after it.
		s = s[3:]
		if s != "" && (s[0] == '.' || s[0] == ',') {
			i, unit := 1, 100_000
			for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
				fraction += int(s[i]-'0') * unit
				unit /= 10
			}
			if i == 1 {
				return 0, false
			}
			s = s[i:]
		}
	}
	offset, ok := parseOffset(s)
	if !ok {
		return 0, false
	}
	seconds += int64(hour*3600+minute*60+second) - int64(offset)
	return micros(seconds*1e6 + int64(fraction)), true
}

// parseOffset returns the seconds east of UTC.
func parseOffset(s string) (int, bool) {
	if s == "" || s == "Z" || s == "z" {
		return 0, true
	}
	sign := 1
	switch s[0] {
	case '+':
	case '-':
		sign = -1
	default:
		return 0, false
	}
	if len(s) < 3 {
		return 0, false
	}
	hours, ok := digits2(s[1:])
	if !ok || hours > 23 {
		return 0, false
	}
	s = s[3:]
	minutes := 0
	if s != "" {
		if s[0] == ':' {
			s = s[1:]
		}
		if len(s) != 2 {
			return 0, false
		}
		if minutes, ok = digits2(s); !ok || minutes > 59 {
			return 0, false
		}
	}
	return sign * (hours*3600 + minutes*60), true
}

func digits2(s string) (int, bool) {
	a, b := s[0]-'0', s[1]-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}

func digits4(s string) (int, bool) {
	hi, ok1 := digits2(s)
	lo, ok2 := digits2(s[2:])
	return hi*100 + lo, ok1 && ok2
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
	days := 365*year + floorDiv(year, 4) - floorDiv(year, 100) + floorDiv(year, 400)
	return int64(days + (153*(month-3)+2)/5 + day - 1 - 719468)
}

func floorDiv(a, b int) int {
	if a < 0 {
		return (a - b + 1) / b
	}
	return a / b
}

// micros keeps the epoch itself from being taken for an absent instant, as
// event.FromTime does.
func micros(us int64) event.Micros {
	if us == 0 {
		return 1
	}
	return us
}

// FromMillis returns an instant given in milliseconds since the Unix epoch; it
// reports false outside of the years 1 to 9999.
func FromMillis(ms float64) (event.Micros, bool) { return fromMicros(ms * 1e3) }

// FromSeconds returns an instant given in seconds since the Unix epoch; it
// reports false outside of the years 1 to 9999.
func FromSeconds(s float64) (event.Micros, bool) { return fromMicros(s * 1e6) }

var (
	firstMicros = float64(time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	lastMicros  = float64(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
)

func fromMicros(us float64) (event.Micros, bool) {
	if !(us >= firstMicros && us < lastMicros) {
		return 0, false
	}
	return micros(int64(math.Round(us))), true
}
