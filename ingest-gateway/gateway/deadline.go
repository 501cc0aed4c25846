package gateway

import "time"

// deadline is the deadline of one direction. The server sets three deadlines for every
// request, and each moves a runtime timer, which costs a few percent of a request with
// one event; most are replaced before anything waits for them. So a requested deadline
// is only noted, and the timer is set when something may wait, an eighth of the time
// too late, so that it also serves the requests within that eighth.
type deadline struct {
	set   func(time.Time) error
	want  time.Time // what was asked for; zero: none
	alarm time.Time // what set was called with
}

// until makes sure that the next operation ends no earlier than due (never, if due is
// zero), and no later than an eighth of the time after it.
func (d *deadline) until(due time.Time) error {
	if due.IsZero() {
		if d.alarm.IsZero() {
			return nil
		}
		d.alarm = time.Time{}
		return d.set(d.alarm)
	}
	late := max(time.Until(due)/8, 0)
	if ahead := d.alarm.Sub(due); ahead >= 0 && ahead <= late && !d.alarm.IsZero() {
		return nil
	}
	d.alarm = due.Add(late)
	return d.set(d.alarm)
}
