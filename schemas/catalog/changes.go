package catalog

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/event"
)

// Values of FeatureChange.Kind.
const (
	ChangeMoved   = "moved"   // same id, other module or product
	ChangeRenamed = "renamed" // other id
	ChangeMerged  = "merged"  // its id is gone, another feature that was there before stands for it
)

// FeatureChange is a feature whose place in the rollups changes.
type FeatureChange struct {
	Kind string  `json:"kind"`
	From Mapping `json:"from"` // module and product empty: no version had the feature
	To   Mapping `json:"to"`
	// History is the new version's decision about earlier usage: move, keep or empty.
	History string `json:"history"`
}

// NameChange is an exact event name that maps to another feature than before.
type NameChange struct {
	Event   string `json:"event"`
	From    string `json:"from"` // feature id; empty: no exact name
	To      string `json:"to"`   // feature id; empty: no exact name any more
	History string `json:"history"`
	// Why is the reason why no history moves although it should; empty if there is
	// none.
	Why string `json:"why,omitempty"`
}

// Changes are the changes of a catalog relative to the previous one.
type Changes struct {
	Added    []string        `json:"added,omitempty"`   // feature ids, without the renamed
	Removed  []string        `json:"removed,omitempty"` // feature ids, without the renamed and merged
	Edited   []string        `json:"edited,omitempty"`  // feature ids whose name, owner, purpose, kind, status or rules differ
	Features []FeatureChange `json:"features,omitempty"`
	Names    []NameChange    `json:"names,omitempty"`
	// Undecided are ids of features of the new catalog whose history the new version
	// neither moves nor keeps.
	Undecided []string `json:"undecided,omitempty"`
	// Moves apply the decisions on history. Each row of the base rollup is moved by the
	// first that matches it.
	Moves []event.Move `json:"moves,omitempty"`
}

// Empty reports whether nothing changes.
func (c *Changes) Empty() bool {
	return len(c.Added)+len(c.Removed)+len(c.Edited)+len(c.Features)+len(c.Names) == 0
}

// placed is a feature with its module and product.
type placed struct {
	at    Mapping
	owner string
	*Feature
}

func (p placed) replaces() []string {
	if p.Feature == nil {
		return nil
	}
	return p.Replaces
}

func (p placed) names() []string {
	if p.Feature == nil {
		return nil
	}
	return p.Names
}

func indexed(c *Catalog) (byID map[string]placed, byName map[string]string, order []string) {
	byID, byName = map[string]placed{}, map[string]string{}
	if c == nil {
		return byID, byName, nil
	}
	c.Each(func(p *Product, m *Module, f *Feature) {
		byID[f.ID] = placed{at: Mapping{FeatureID: f.ID, ModuleID: m.ID, ProductID: p.ID}, owner: FeatureOwner(p, m, f), Feature: f}
		order = append(order, f.ID)
		for _, n := range f.Names {
			byName[n] = f.ID
		}
	})
	return byID, byName, order
}

// removed returns the features of these ids as of the last version that had them.
func removed(versions []*Version, ids []string) map[string]placed {
	found := map[string]placed{}
	for i := len(versions) - 1; i >= 0 && len(found) < len(ids); i-- {
		byID, _, _ := indexed(versions[i].Catalog)
		for _, id := range ids {
			if f, ok := byID[id]; ok && found[id].Feature == nil {
				found[id] = f
			}
		}
	}
	return found
}

// Compare says what next changes against the last of versions, which are all of
// the app so far, the first one first.
//
// What can move exactly: all of a feature's history, and of an exact event name
// what was counted under it with a given feature or with none. What rules matched
// depends on properties, which the base rollup does not hold, so no rule ever
// reaches back; and a name does not either when a rule of the new version comes
// before it and could claim some of the same events.
//
// A feature that stands for one which an earlier version removed takes over what
// was counted for that one. What came under its names since then was of no feature
// by that version's word, and stays so, unless history.unmapped is given.
func Compare(versions []*Version, next *Catalog) *Changes {
	c := &Changes{}
	var old *Catalog
	if len(versions) > 0 {
		old = versions[len(versions)-1].Catalog
	}
	was, wasName, wasOrder := indexed(old)
	is, isName, isOrder := indexed(next)
	replacedBy := map[string]string{} // id that is gone to the feature that stands for it
	var before []string               // those of them that an earlier version removed
	for _, id := range isOrder {
		for _, gone := range is[id].Replaces {
			replacedBy[gone] = id
			if was[gone].Feature == nil && !slices.Contains(was[id].replaces(), gone) {
				before = append(before, gone)
			}
		}
	}
	past := removed(versions, before)
	pastName := map[string]string{} // names of those to their ids
	for _, gone := range before {
		for _, name := range past[gone].names() {
			pastName[name] = gone
		}
	}
	undecided := map[string]bool{}
	decide := func(id string) string {
		word := next.History.For(id)
		if word == "" {
			undecided[id] = true
		}
		return word
	}

	var moved, renamed, renamedRest []event.Move
	for _, id := range isOrder {
		f, before := is[id], was[id]
		switch {
		case before.Feature == nil:
		case before.at != f.at:
			ch := FeatureChange{Kind: ChangeMoved, From: before.at, To: f.at, History: decide(id)}
			c.Features = append(c.Features, ch)
			if ch.History == HistoryMove {
				moved = append(moved, move(full(before.at), where(f.at)))
			}
		}
		if before.Feature != nil && edited(before, f) {
			c.Edited = append(c.Edited, id)
		}
		stands := false
		for _, gone := range f.Replaces {
			g, there := was[gone]
			if !there {
				if slices.Contains(before.replaces(), gone) {
					continue // done by an earlier version
				}
				if g, there = past[gone]; !there {
					g.at = Mapping{FeatureID: gone}
				}
			}
			ch := FeatureChange{Kind: ChangeRenamed, From: g.at, To: f.at, History: decide(id)}
			if before.Feature != nil || stands {
				ch.Kind = ChangeMerged
			}
			stands = true
			c.Features = append(c.Features, ch)
			if ch.History != HistoryMove {
				continue
			}
			switch {
			case !there:
				renamed = append(renamed, move(event.Attribution{FeatureID: &gone}, full(f.at)))
			case g.at.ModuleID == f.at.ModuleID && g.at.ProductID == f.at.ProductID:
				renamedRest = append(renamedRest, move(event.Attribution{FeatureID: &gone}, event.Attribution{FeatureID: &f.at.FeatureID}))
			default:
				// History that an earlier version kept in a module stays there: only
				// the new id applies to it.
				renamed = append(renamed, move(full(g.at), full(f.at)))
				renamedRest = append(renamedRest, move(event.Attribution{FeatureID: &gone}, event.Attribution{FeatureID: &f.at.FeatureID}))
			}
		}
		if before.Feature == nil && !stands {
			c.Added = append(c.Added, id)
		}
	}
	for _, id := range wasOrder {
		if is[id].Feature == nil && replacedBy[id] == "" {
			c.Removed = append(c.Removed, id)
		}
	}

	var reassigned, mapped []event.Move
	claims := newClaims(next)
	for _, id := range isOrder {
		for _, name := range is[id].Names {
			from := wasName[name]
			if from == id {
				continue
			}
			ch := NameChange{Event: name, From: from, To: id}
			to := is[id].at
			switch {
			case from == "" && next.History.Unmapped == "" && replacedBy[pastName[name]] == id:
				ch.History = HistoryKeep
				ch.Why = fmt.Sprintf("feature %s, which had the name, was removed by an earlier version; history.unmapped: move takes what came since then", pastName[name])
			case from == "":
				if ch.History = next.History.Unmapped; ch.History == "" {
					ch.History = HistoryMove
				}
				if ch.History == HistoryMove {
					if ch.Why = claims.before(name); ch.Why == "" {
						none := ""
						mapped = append(mapped, move(event.Attribution{FeatureID: &none, Event: &name}, full(to)))
					}
				}
			case replacedBy[from] == id:
				// Its history moves with the feature.
				ch.History = next.History.For(id)
			default:
				if ch.History = decide(id); ch.History == HistoryMove {
					if ch.Why = claims.before(name); ch.Why == "" {
						reassigned = append(reassigned, move(event.Attribution{FeatureID: &from, Event: &name}, full(to)))
					}
				}
			}
			c.Names = append(c.Names, ch)
		}
	}
	for _, id := range wasOrder {
		for _, name := range was[id].Names {
			if isName[name] == "" {
				c.Names = append(c.Names, NameChange{Event: name, From: id, History: HistoryKeep})
			}
		}
	}
	for _, id := range isOrder {
		if undecided[id] {
			c.Undecided = append(c.Undecided, id)
		}
	}
	// A name that moves to another feature moves before its feature does.
	c.Moves = slices.Concat(reassigned, moved, renamed, renamedRest, mapped)
	return c
}

func move(match, set event.Attribution) event.Move { return event.Move{Match: match, Set: set} }

func full(m Mapping) event.Attribution {
	return event.Attribution{FeatureID: &m.FeatureID, ModuleID: &m.ModuleID, ProductID: &m.ProductID}
}

func where(m Mapping) event.Attribution {
	return event.Attribution{ModuleID: &m.ModuleID, ProductID: &m.ProductID}
}

func edited(a, b placed) bool {
	return a.Name != b.Name || a.owner != b.owner || a.Purpose != b.Purpose || a.Kind != b.Kind || a.Status != b.Status ||
		!reflect.DeepEqual(a.Rules, b.Rules)
}

// claims knows which rules take precedence over exact names.
type claims struct {
	byEvent map[string]string // event to the feature of a rule that comes before its exact name
	any     string            // feature of a rule without event that comes before all exact names
}

func newClaims(c *Catalog) claims {
	cl := claims{byEvent: map[string]string{}}
	c.Each(func(_ *Product, _ *Module, f *Feature) {
		for i := range f.Rules {
			switch r := &f.Rules[i]; {
			case r.Event != "" && r.Priority >= 0:
				cl.byEvent[r.Event] = f.ID
			case r.Event == "" && r.Priority > 0:
				cl.any = f.ID
			}
		}
	})
	return cl
}

func (c claims) before(name string) string {
	if id, ok := c.byEvent[name]; ok {
		return fmt.Sprintf("a rule of feature %s comes before the name, and which events it would have claimed cannot be told afterwards", id)
	}
	if c.any != "" {
		return fmt.Sprintf("a rule of feature %s has a priority above every name, and which events it would have claimed cannot be told afterwards", c.any)
	}
	return ""
}

// MaxHistoryMoves bounds the moves of one version.
const MaxHistoryMoves = 10_000

// NewVersion makes the version that follows the last of versions, which are all of
// the app so far, the first one first. It refuses a version that moves features
// without a word on their history.
func NewVersion(versions []*Version, app string, c *Catalog, author, reason string, at time.Time) (*Version, *Changes, error) {
	v := &Version{App: app, Number: 1, Author: author, Reason: reason, AppliedAt: at.UTC(), Catalog: c}
	if len(versions) > 0 {
		live := versions[len(versions)-1]
		if live.App != app {
			return nil, nil, fmt.Errorf("live version is of app %q, not of %q", live.App, app)
		}
		v.Number = live.Number + 1
	}
	if err := v.check(); err != nil {
		return nil, nil, err
	}
	changes := Compare(versions, c)
	if len(changes.Undecided) > 0 {
		return nil, changes, fmt.Errorf("features change their module, product, id or event names, and history says neither move nor keep of them: %s", strings.Join(changes.Undecided, ", "))
	}
	if len(changes.Moves) > MaxHistoryMoves {
		return nil, changes, fmt.Errorf("version moves history %d times, at most %d are possible: apply it in steps, or with history unmapped: keep", len(changes.Moves), MaxHistoryMoves)
	}
	v.HistoryMoves = changes.Moves
	return v, changes, nil
}
