// Package insight defines what views about usage go by: which usage counts as
// activity, who is left out, which events are milestones, how long a session's gap
// is; and the signals that are evaluated over it: segments, health scores, steps
// and alerts.
//
// It owns the YAML format, its strict parser, the lint against a catalog, and the
// rules that definitions become in ClickHouse. It reads no files and speaks to no
// server: that is for the callers.
//
// docs/insights.md describes the format for the people who write it.
package insight

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/uptakehq/uptake/schemas/yamldoc"
)

// Uses of a rule, as the table insight_rules names them.
const (
	UseVersion    = "version" // of the row that holds the text of the file
	UseActivity   = "activity"
	UseExclude    = "exclude"
	UseFriction   = "friction"
	UseSessionGap = "session_gap"
	UseSeats      = "seats"
)

// Milestones are the uses whose first event per person counts, in the order in
// which people reach them.
func Milestones() []string {
	return []string{"signup_page", "signup", "activation", "value", "subscription", "paid"}
}

// What a rule matches.
const (
	MatchFeature      = "feature"
	MatchModule       = "module"
	MatchProduct      = "product"
	MatchEvent        = "event"
	MatchUser         = "user"
	MatchMailDomain   = "mail_domain"
	MatchUserAgent    = "user_agent"
	MatchTrait        = "trait"
	MatchAccount      = "account"
	MatchAccountTrait = "account_trait"
	MatchRole         = "role"
)

// Limits of a file.
const (
	MaxBytes = 1 << 20
	MaxRules = 10_000
	// MaxUserAgents is how many texts ClickHouse looks for at once.
	MaxUserAgents = 255
)

// Rule is one row of insight_rules.
type Rule struct {
	Use, Match, Key, Value string
}

// String is a rule as plans show it.
func (r Rule) String() string {
	s := r.Use
	if v := signalVersion(r); v > 0 {
		return fmt.Sprintf("%s %s version %d", s, r.Key, v)
	}
	if r.Match != "" {
		s += " " + r.Match
	}
	if r.Key != "" {
		s += " " + r.Key + " ="
	}
	return s + " " + r.Value
}

// Definitions are the content of a file.
type Definitions struct {
	Name        string
	Description string
	// Rules are sorted and distinct, without the row that holds the text.
	Rules []Rule
	// Signals are what is evaluated; Rules have them as rows, too.
	Signals Signals

	lines map[Rule]position
	names []named // what signals refer to
}

type position struct{ line, column int }

// Fault is one fault of a file.
type Fault = yamldoc.Fault

// Faults is the error of [Parse]: everything that is wrong at once.
type Faults = yamldoc.Faults

// Change is the difference between two versions.
type Change struct {
	Added, Removed []Rule
}

// Compare returns what changes from the rules in force to those of d.
func (d *Definitions) Compare(inForce []Rule) Change {
	var c Change
	for _, r := range d.Rules {
		if !slices.Contains(inForce, r) {
			c.Added = append(c.Added, r)
		}
	}
	for _, r := range inForce {
		if r.Use != UseVersion && !slices.Contains(d.Rules, r) {
			c.Removed = append(c.Removed, r)
		}
	}
	slices.SortFunc(c.Removed, compareRules)
	return c
}

// Empty reports whether nothing changes.
func (c Change) Empty() bool { return len(c.Added)+len(c.Removed) == 0 }

func compareRules(a, b Rule) int {
	return cmp.Or(cmp.Compare(a.Use, b.Use), cmp.Compare(a.Match, b.Match), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Value, b.Value))
}

// Gap is the defined gap of sessions, 0 where none is.
func (d *Definitions) Gap() time.Duration {
	for _, r := range d.Rules {
		if r.Use == UseSessionGap {
			seconds, _ := strconv.Atoi(r.Value) // written by Parse
			return time.Duration(seconds) * time.Second
		}
	}
	return 0
}
