package note

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Mail is a schedule by which the alerts process mails a question or a board.
type Mail struct {
	Every   string   `json:"every"`             // Daily or Weekly
	Weekday int      `json:"weekday,omitempty"` // of Weekly: 1, Monday, to 7
	Hour    int      `json:"hour"`              // 0 to 23, in Zone
	Zone    string   `json:"zone"`
	Days    int      `json:"days"` // how many whole days before that it is about
	To      []string `json:"to"`   // names of targets of the alerts process
}

// How often something is mailed.
const (
	Daily  = "day"
	Weekly = "week"
)

// Bounds of a Mail.
const (
	MaxMailTo   = 10
	MaxMailDays = 400
)

func (m *Mail) validate() error {
	if m == nil {
		return nil
	}
	var errs []error
	fault := func(format string, args ...any) { errs = append(errs, fmt.Errorf("mail."+format, args...)) }
	switch {
	case m.Every == Daily && m.Weekday == 0, m.Every == Weekly && m.Weekday >= 1 && m.Weekday <= 7:
	default:
		fault("every must be %s, or %s with a weekday from 1 to 7 (got %q, %d)", Daily, Weekly, m.Every, m.Weekday)
	}
	if m.Hour < 0 || m.Hour > 23 {
		fault("hour must be 0 to 23 (got %d)", m.Hour)
	}
	if _, err := time.LoadLocation(m.Zone); err != nil || m.Zone == "" || m.Zone == "Local" {
		fault("zone must be the name of a time zone such as Europe/Vienna (got %.80q)", m.Zone)
	}
	if m.Days < 1 || m.Days > MaxMailDays {
		fault("days must be 1 to %d (got %d)", MaxMailDays, m.Days)
	}
	if len(m.To) == 0 || len(m.To) > MaxMailTo {
		fault("to must name 1 to %d targets (got %d)", MaxMailTo, len(m.To))
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(m.To))) {
		if err := checkText("mail.to", name, MaxName, true); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Due is the newest instant of a valid schedule that is not after now.
func (m *Mail) Due(now time.Time) (time.Time, error) {
	zone, err := time.LoadLocation(m.Zone)
	if err != nil {
		return time.Time{}, err
	}
	local := now.In(zone)
	at := func(back int) time.Time {
		return time.Date(local.Year(), local.Month(), local.Day()-back, m.Hour, 0, 0, 0, zone)
	}
	back, step := 0, 1
	if m.Every == Weekly {
		back, step = (int(local.Weekday())-m.Weekday+7)%7, 7
	}
	if at(back).After(now) {
		back += step
	}
	return at(back), nil
}
