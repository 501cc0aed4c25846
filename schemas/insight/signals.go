package insight

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Uses of the rules that hold the definitions of signals: Match is the level, Key
// the id, Value the definition as JSON.
const (
	UseSegment   = "segment"
	UseHealth    = "health"
	UseMilestone = "milestone"
	UseAlert     = "alert"
)

// Levels that a signal can be about.
const (
	LevelAccount = "account"
	LevelUser    = "user"
	LevelApp     = "app" // the app as a whole; alerts only
)

// What a measure counts.
const (
	CountEvents   = "events"
	CountQuantity = "quantity"
	CountUsers    = "users"    // distinct users and visitors
	CountDays     = "days"     // distinct UTC days with usage
	CountFeatures = "features" // distinct features
	CountMetric   = "metric"   // a reported metric of the catalog, summed over the window
)

func counts() []string {
	return []string{CountEvents, CountQuantity, CountUsers, CountDays, CountFeatures, CountMetric}
}

// Severities of alerts, the mildest first.
func Severities() []string { return []string{"info", "warning", "critical"} }

// Parts of a health score.
const (
	PartBehaviour = "behaviour"
	PartFriction  = "friction" // counts against health
	PartRevenue   = "revenue"
)

func parts() []string { return []string{PartBehaviour, PartFriction, PartRevenue} }

// Limits of signals.
const (
	MaxWindow     = 90 * 24 * time.Hour
	MaxPrevious   = 12  // windows that a measure is compared with
	MaxSignals    = 500 // definitions of signals in a file
	MaxConditions = 50  // of one segment
)

// Meta is what every signal has.
type Meta struct {
	ID          string `json:"id"`
	Version     uint32 `json:"version"` // raised by the author with each change
	Description string `json:"description"`
	Owner       string `json:"owner"`
	Level       string `json:"level"`
}

// Reference names usage: a feature, module or product, or the event of no feature.
type Reference struct {
	Match string `json:"match"`
	Value string `json:"value"`
}

func (r Reference) String() string {
	if r.Match == MatchFeature {
		return r.Value
	}
	return r.Match + ":" + r.Value
}

// Measure is a number for each subject at any time: what is counted in a window
// that ends then.
type Measure struct {
	Count  string        `json:"count"`
	Of     []Reference   `json:"of,omitempty"` // empty: all usage
	Metric string        `json:"metric,omitempty"`
	Window time.Duration `json:"window"`
}

// String is the measure in words.
func (m Measure) String() string {
	s := m.Count
	if m.Count == CountMetric {
		s = "metric " + m.Metric
	}
	if len(m.Of) > 0 {
		names := make([]string, len(m.Of))
		for i, r := range m.Of {
			names[i] = r.String()
		}
		s += " of " + strings.Join(names, ", ")
	}
	return s + " in " + Duration(m.Window)
}

// Duration formats whole days as days and the rest as Go does.
func Duration(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	if d >= time.Hour && d%time.Hour == 0 {
		return fmt.Sprintf("%dh", d/time.Hour)
	}
	return d.String()
}

// Bound is true of values below a limit, or of those at or above it. A relative
// limit is a share of the mean of the windows before.
type Bound struct {
	Below    bool    `json:"below"`
	Limit    float64 `json:"limit"`
	Previous int     `json:"of_previous,omitempty"` // windows that the mean is over; 0: the limit is absolute
	// Baseline is the least mean for which a relative bound can be true.
	Baseline float64 `json:"baseline_at_least,omitempty"`
}

func (b Bound) String() string {
	word := "at least"
	if b.Below {
		word = "below"
	}
	if b.Previous == 0 {
		return fmt.Sprintf("%s %g", word, b.Limit)
	}
	return fmt.Sprintf("%s %g%% of the mean of the %d windows before", word, b.Limit*100, b.Previous)
}

// Condition of a segment: one of a trait, a role, a segment or a measure.
type Condition struct {
	Trait   string   `json:"trait,omitempty"`
	Role    string   `json:"role,omitempty"` // role of the user today
	Segment string   `json:"segment,omitempty"`
	Measure *Measure `json:"measure,omitempty"`

	Values []string `json:"values,omitempty"` // of a trait: one of these
	Bound  *Bound   `json:"bound,omitempty"`  // of a trait or a measure
	Not    bool     `json:"not,omitempty"`
}

// Segment is a set of accounts or users: those for which all conditions hold.
type Segment struct {
	Meta
	Where []Condition `json:"where"`
}

// Part is one component of a health score: a measure or a trait over a yardstick.
type Part struct {
	ID        string   `json:"id"`
	Kind      string   `json:"kind"` // behaviour, friction or revenue
	Measure   *Measure `json:"measure,omitempty"`
	Trait     string   `json:"trait,omitempty"`
	Yardstick float64  `json:"yardstick"` // value at which the part is full
	Weight    float64  `json:"weight"`
}

// Band is a range of scores, from a score on.
type Band struct {
	ID   string  `json:"id"`
	From float64 `json:"from"` // 0 to 100
}

// Health is a score of 0 to 100 of each account.
type Health struct {
	Meta
	Segment     string `json:"segment,omitempty"`
	Parts       []Part `json:"parts"`
	Bands       []Band `json:"bands"` // by score, from 0 on
	Consequence string `json:"consequence,omitempty"`
}

// Milestone is reached by the nth use of something.
type Milestone struct {
	Meta
	Of    []Reference `json:"of"`
	Times int         `json:"times"`
}

// Alert is a rule over a measure.
type Alert struct {
	Meta
	Segment  string        `json:"segment,omitempty"`
	Measure  Measure       `json:"measure"`
	Every    time.Duration `json:"every"` // an hour or a day
	Fires    Bound         `json:"fires"`
	Clears   *Bound        `json:"clears,omitempty"` // nil: when fires is not true
	For      time.Duration `json:"for,omitempty"`
	Cooldown time.Duration `json:"cooldown,omitempty"`
	Severity string        `json:"severity"`
	Audience []string      `json:"audience,omitempty"` // targets
	Playbook string        `json:"playbook,omitempty"`
	Closes   string        `json:"closes,omitempty"` // what closes the loop
}

// Signals are the definitions of a file that are evaluated.
type Signals struct {
	Segments   []Segment
	Health     []Health
	Milestones []Milestone
	Alerts     []Alert
}

// rules are the rows that the signals become.
func (s *Signals) rules() []Rule {
	var rules []Rule
	add := func(use string, m Meta, definition any) {
		text, err := json.Marshal(definition)
		if err != nil {
			panic(err) // cannot happen: finite numbers, strings and lists of them
		}
		rules = append(rules, Rule{Use: use, Match: m.Level, Key: m.ID, Value: string(text)})
	}
	for _, d := range s.Segments {
		add(UseSegment, d.Meta, d)
	}
	for _, d := range s.Health {
		add(UseHealth, d.Meta, d)
	}
	for _, d := range s.Milestones {
		add(UseMilestone, d.Meta, d)
	}
	for _, d := range s.Alerts {
		add(UseAlert, d.Meta, d)
	}
	return rules
}

// SignalsOf reads the signals from the rules of a version.
func SignalsOf(rules []Rule) (Signals, error) {
	var s Signals
	for _, r := range rules {
		var err error
		switch r.Use {
		case UseSegment:
			err = decode(r.Value, &s.Segments)
		case UseHealth:
			err = decode(r.Value, &s.Health)
		case UseMilestone:
			err = decode(r.Value, &s.Milestones)
		case UseAlert:
			err = decode(r.Value, &s.Alerts)
		}
		if err != nil {
			return Signals{}, fmt.Errorf("%s %s: %w", r.Use, r.Key, err)
		}
	}
	return s, nil
}

func decode[T any](text string, into *[]T) error {
	var d T
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return err
	}
	*into = append(*into, d)
	return nil
}

// Unversioned returns the signals that c changes without a new version. History
// names the version that a signal was evaluated under, so one version must have
// one meaning.
func (c Change) Unversioned() []Rule {
	var same []Rule
	for _, r := range c.Added {
		for _, old := range c.Removed {
			if r.Use == old.Use && r.Key == old.Key && signalVersion(r) != 0 && signalVersion(r) <= signalVersion(old) {
				same = append(same, r)
			}
		}
	}
	return same
}

func signalVersion(r Rule) uint32 {
	switch r.Use {
	case UseSegment, UseHealth, UseMilestone, UseAlert:
		var m Meta
		if json.Unmarshal([]byte(r.Value), &m) == nil { // written by rules
			return m.Version
		}
	}
	return 0
}
