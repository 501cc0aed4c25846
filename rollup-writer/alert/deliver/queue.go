package deliver

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"github.com/uptakehq/uptake/schemas/signal"
)

// Queue decides what to send to one target, and when. It is pure: times are parameters.
type Queue struct {
	target  *Target
	waiting []entry
	sent    []time.Time // of the last hour, for the rate
	busy    bool
}

type entry struct {
	signal.Message
	since   time.Time // when it was put in
	first   time.Time // of its first attempt
	next    time.Time // not before
	attempt int
}

// Pauses between attempts.
const (
	minPause = 5 * time.Second
	maxPause = time.Hour
	// maxBatch bounds a digest.
	maxBatch = 50
)

// NewQueue returns an empty queue. The target must have been checked.
func NewQueue(t *Target) *Queue { return &Queue{target: t} }

// Len is the number of messages waiting or being sent.
func (q *Queue) Len() int { return len(q.waiting) }

// Put adds a message, unless it is already in the queue.
func (q *Queue) Put(m signal.Message, now time.Time) {
	if !slices.ContainsFunc(q.waiting, func(e entry) bool { return e.ID == m.ID }) {
		q.waiting = append(q.waiting, entry{Message: m, since: now})
	}
}

// Drop removes a message.
func (q *Queue) Drop(id string) {
	q.waiting = slices.DeleteFunc(q.waiting, func(e entry) bool { return e.ID == id })
}

// QuietAt reports whether nothing is delivered at now.
func (t *Target) QuietAt(now time.Time) bool {
	q := t.Quiet
	if q == nil {
		return false
	}
	local := now.In(t.location)
	if q.days[local.Weekday()] {
		return true
	}
	m := local.Hour()*60 + local.Minute()
	if q.from <= q.to {
		return q.from <= m && m < q.to
	}
	return m >= q.from || m < q.to
}

// Next returns what to send at now, if anything. Until Done is called with it, Next
// returns nothing else: a target has one attempt at a time.
func (q *Queue) Next(now time.Time) (Batch, bool) {
	if q.busy || q.target.QuietAt(now) {
		return Batch{}, false
	}
	q.sent = slices.DeleteFunc(q.sent, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
	if q.target.MaxPerHour > 0 && len(q.sent) >= q.target.MaxPerHour {
		return Batch{}, false
	}
	// Failed messages do not delay the others.
	i := slices.IndexFunc(q.waiting, func(e entry) bool {
		return !now.Before(e.next) && now.Sub(e.since) >= q.target.GroupWait
	})
	if i < 0 {
		return Batch{}, false
	}
	b := Batch{Target: q.target.Name}
	owner, attempt := q.waiting[i].Owner, q.waiting[i].attempt
	for j := range q.waiting {
		e := &q.waiting[j]
		same := j == i || (q.target.Kind != KindWebhook && e.Owner == owner && e.attempt == attempt && !now.Before(e.next))
		if !same || len(b.Messages) == maxBatch {
			continue
		}
		e.attempt++
		if e.first.IsZero() {
			e.first = now
		}
		b.Messages = append(b.Messages, e.Message)
		b.Attempt = max(b.Attempt, e.attempt)
	}
	q.busy = true
	q.sent = append(q.sent, now)
	return b, true
}

// Done records how the attempt of b ended. It returns the messages that are finished:
// delivered, or given up after an error that is permanent or lasted too long.
func (q *Queue) Done(b Batch, err error, now time.Time) (delivered, dead []signal.Message) {
	q.busy = false
	for _, m := range b.Messages {
		i := slices.IndexFunc(q.waiting, func(e entry) bool { return e.ID == m.ID })
		if i < 0 {
			continue
		}
		var permanent *PermanentError
		e := &q.waiting[i]
		switch {
		case err == nil:
			delivered = append(delivered, m)
		case errors.As(err, &permanent) || now.Sub(e.first) >= q.target.GiveUp:
			dead = append(dead, m)
		default:
			e.next = now.Add(pause(e.attempt))
			continue
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	return delivered, dead
}

func pause(attempt int) time.Duration {
	p := minPause
	for range attempt - 1 {
		p = min(2*p, maxPause)
	}
	return cmp.Or(p, minPause)
}
