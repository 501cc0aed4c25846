package gateway

import "time"

// deadline is the deadline of one direction. The server sets three for every
// request, each an alarm that the runtime has to move, a few percent of what a
// request of one event costs; most are replaced before anything waits for them.
// So what is asked for is only noted, and the alarm is set when something may
// wait, an eighth of the time too late, so that it can stand for the requests
// that come in that eighth.
type deadline struct {
	set   func(time.Time) error
	want  time.Time // what was asked for; zero: none
	alarm time.Time // what set was called with
}

// until sees to it that what comes next ends no earlier than at due, never if that
// is zero, and no later than an eighth of the time after that.
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
