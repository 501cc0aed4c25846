package note

import (
	"strings"
	"testing"
	"time"
)

func TestMailIsDue(t *testing.T) {
	for _, tt := range []struct{ every, zone, now, want string }{
		{"day", "UTC", "2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z"},
		{"day", "UTC", "2026-11-20T07:59:59Z", "2026-11-19T08:00:00Z"},
		{"day", "Europe/Vienna", "2026-11-20T07:00:00Z", "2026-11-20T07:00:00Z"},
		{"day", "Europe/Vienna", "2026-10-25T08:00:00Z", "2026-10-25T07:00:00Z"}, // a day of 25 hours
		{"day", "Pacific/Auckland", "2026-11-20T20:00:00Z", "2026-11-20T19:00:00Z"},
		{"1", "UTC", "2026-11-20T12:00:00Z", "2026-11-16T08:00:00Z"}, // a Friday
		{"5", "UTC", "2026-11-20T07:00:00Z", "2026-11-13T08:00:00Z"},
		{"5", "UTC", "2026-11-20T08:00:00Z", "2026-11-20T08:00:00Z"},
		{"7", "UTC", "2026-11-20T12:00:00Z", "2026-11-15T08:00:00Z"},
		{"7", "UTC", "2026-11-22T09:00:00Z", "2026-11-22T08:00:00Z"},
	} {
		m := Mail{Every: Daily, Hour: 8, Zone: tt.zone, Days: 7, To: []string{"cs"}}
		if tt.every != "day" {
			m.Every, m.Weekday = Weekly, int(tt.every[0]-'0')
		}
		at, err := time.Parse(time.RFC3339, tt.now)
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Due(at)
		if s := got.UTC().Format(time.RFC3339); err != nil || s != tt.want || m.validate() != nil {
			t.Errorf("%+v: got %s, %v, want it valid and %s", tt, s, err, tt.want)
		}
	}
}

func TestMailIsValidated(t *testing.T) {
	for want, m := range map[string]Mail{
		`mail.every must be day, or week with a weekday from 1 to 7 (got "month", 0)`: {Every: "month", Zone: "UTC", Days: 1, To: []string{"x"}},
		"weekday from 1 to 7 (got \"week\", 8)":                                       {Every: Weekly, Weekday: 8, Zone: "UTC", Days: 1, To: []string{"x"}},
		"mail.hour must be 0 to 23 (got 24)":                                          {Every: Daily, Hour: 24, Zone: "UTC", Days: 1, To: []string{"x"}},
		`mail.zone must be the name of a time zone such as Europe/Vienna (got "X/Y")`: {Every: Daily, Zone: "X/Y", Days: 1, To: []string{"x"}},
		"mail.days must be 1 to 400 (got 0)":                                          {Every: Daily, Zone: "UTC", To: []string{"x"}},
		"mail.to must name 1 to 10 targets (got 0)":                                   {Every: Daily, Zone: "UTC", Days: 1},
		"mail.to must be one line":                                                    {Every: Daily, Zone: "UTC", Days: 1, To: []string{"a\nb"}},
	} {
		n := Note{App: "dev", Kind: KindBoard, ID: "b", Written: now, Board: &Board{Name: "b", Mail: &m}}
		if err := n.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
