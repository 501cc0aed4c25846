// Package loadgen makes a realistic week of MyPOS usage, sends it to a gateway
// as SDKs would, and knows what has to be in ClickHouse afterwards.
//
// It owns three things that belong together because they must agree: the plan
// (a pure function of its Config: who does what and when, how it is packed into
// requests, what is resent, what is wrong on purpose), the sender with its
// ledger (which requests were acked, how often each was tried), and the oracle
// (plan + ledger → the rows and rollup cells that are right). The oracle shares
// no code with the services: it would share their mistakes.
//
// It does not own the processes that the traffic goes through (test/harness).
package loadgen

import (
	"errors"
	"fmt"
	"time"
)

// Config is all that a plan depends on: equal configs give equal plans.
type Config struct {
	Seed     uint64
	Start    time.Time // first instant of the traffic, UTC
	Days     int
	Accounts int
	Events   int    // how many good events, about
	IDPrefix string // starts every id, so that plans can share one app

	BatchMax int // events in a batch, at most

	// Shares of events, 0 to 1.
	Single    float64 // sent as a call of their own and not in a batch
	Alias     float64 // sent under another name of the same feature
	Unmapped  float64 // of names that the catalog does not have
	Late      float64 // sent hours after they happened
	Bad       float64 // added, and to be rejected
	Resend    float64 // requests sent a second time, whole, after they were acked
	Repeat    float64 // sent again in a later request, under the same message id
	Reordered float64 // requests that leave their place for one shortly after
	Visitors  float64 // sales that begin with an anonymous visitor

	// Stories adds accounts that views about people and accounts have something to say
	// of: see [Stories]. They begin StoryWeeks before Start, and their events come on
	// top of Events.
	Stories bool
}

// DefaultConfig is the week of the demo. Start is the Monday at or before seven
// days ago, so that the week is over and no instant lies in the future.
func DefaultConfig(now time.Time) Config {
	start := now.UTC().Truncate(24*time.Hour).AddDate(0, 0, -7)
	for start.Weekday() != time.Monday {
		start = start.AddDate(0, 0, -1)
	}
	return Config{
		Seed: 1, Start: start, Days: 7, Accounts: 300, Events: 100_000, BatchMax: 100,
		Single: 0.04, Alias: 0.08, Unmapped: 0.01, Late: 0.02, Bad: 0.004,
		Resend: 0.02, Repeat: 0.01, Reordered: 0.05, Visitors: 0.12,
	}
}

// Validate reports all faults, each with the name of its field.
func (c *Config) Validate() error {
	var errs []error
	for _, n := range []struct {
		name      string
		got, most int
	}{
		{"Days", c.Days, 366},
		{"Accounts", c.Accounts, 100_000},
		{"Events", c.Events, 50_000_000},
		{"BatchMax", c.BatchMax, 2_500},
	} {
		if n.got < 1 || n.got > n.most {
			errs = append(errs, fmt.Errorf("%s must be 1 to %d (got %d)", n.name, n.most, n.got))
		}
	}
	for _, s := range []struct {
		name string
		got  float64
	}{
		{"Single", c.Single},
		{"Alias", c.Alias},
		{"Unmapped", c.Unmapped},
		{"Late", c.Late},
		{"Bad", c.Bad},
		{"Resend", c.Resend},
		{"Repeat", c.Repeat},
		{"Reordered", c.Reordered},
		{"Visitors", c.Visitors},
	} {
		if s.got < 0 || s.got > 1 {
			errs = append(errs, fmt.Errorf("%s must be 0 to 1 (got %g)", s.name, s.got))
		}
	}
	if c.Start.IsZero() {
		errs = append(errs, fmt.Errorf("the start must be set (got %s)", c.Start))
	}
	return errors.Join(errs...)
}

// Event is one call of a producer. Time is in whole milliseconds, which is what
// the SDKs send.
type Event struct {
	Kind      string
	Name      string
	MessageID string
	User      string
	Anonymous string
	Previous  string // alias only
	Account   string
	Role      string // the user's, in the traits of identify and group calls
	Time      time.Time
	Quantity  int64  // how many actions it stands for; 0 is not said, so 1
	Props     string // JSON object text
	Bad       *Bad   // nil: a good event
}

// Request is one HTTP request of the plan: a batch, or a call of its own.
type Request struct {
	Path   string  // below the gateway's root
	Events []int32 // indexes into Plan.Events
}

// Batch reports whether the request is a batch.
func (r *Request) Batch() bool { return r.Path == pathBatch }

// Plan is what is going to be sent, in order.
type Plan struct {
	Config   Config
	Events   []Event
	Requests []Request
	Stories  *Stories // nil: none
}

// New makes the plan of c.
func New(c Config) (*Plan, error) {
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("load plan: %w", err)
	}
	c.Start = c.Start.UTC().Truncate(time.Millisecond)
	g := newGenerator(c)
	g.people()
	for g.good < c.Events {
		g.sale()
	}
	p := &Plan{Config: c}
	if c.Stories {
		p.Stories = g.stories()
	}
	p.Requests = g.pack()
	p.Events = g.events
	return p, nil
}

// Good returns how many of the plan's events are to be stored.
func (p *Plan) Good() int {
	n := 0
	for i := range p.Events {
		if p.Events[i].Bad == nil {
			n++
		}
	}
	return n
}
