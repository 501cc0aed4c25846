package alert

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
)

// Trends of a score, in ticks of a day.
const (
	fourWeeks   evaluate.Tick = 28
	twelveWeeks evaluate.Tick = 84
)

// bandSignal is the id by which a band of a score is evaluated: an account enters
// and leaves it as it does a segment. Ids of definitions have no colon.
func bandSignal(health, band string) string { return health + ":" + band }

// score is a health definition for one account.
type score struct {
	h      *insight.Health
	values []evaluate.Value // by part
	weight float64          // of all parts

	// What at has returned, for the ticks from first on; NaN: not computed yet.
	first evaluate.Tick
	known []float64
}

// score returns h for the subject. It is compiled once for a subject, as long as no
// other subject's is asked for in between.
func (c *compiler) score(h *insight.Health) *score {
	if c.f.scores == nil || c.f.scored != c.subject {
		c.f.scored, c.f.scores = c.subject, map[*insight.Health]*score{}
	}
	s := c.f.scores[h]
	if s == nil {
		s = c.newScore(h)
		c.f.scores[h] = s
	}
	return s
}

// newScore compiles h for the subject. A part by a trait has no history: it is the trait
// as now stated at every tick, and 0 where none is stated.
func (c *compiler) newScore(h *insight.Health) *score {
	s := &score{h: h}
	for i := range h.Parts {
		p := &h.Parts[i]
		s.weight += p.Weight
		if p.Measure != nil {
			s.values = append(s.values, c.value(p.Measure, insight.LevelAccount, c.subject))
			continue
		}
		stated := c.trait(p.Trait)
		s.values = append(s.values, func(evaluate.Tick) float64 { return stated })
	}
	return s
}

// trait of the account as a number; 0 where it is none.
func (c *compiler) trait(name string) float64 {
	n, err := strconv.ParseFloat(c.f.traits[insight.LevelAccount][c.subject][name], 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0
	}
	return n
}

// share of a part at t: how much of its yardstick is reached, 0 to 1. Of friction, how
// much is left of it.
func (s *score) share(i int, t evaluate.Tick) float64 {
	p := &s.h.Parts[i]
	reached := min(max(s.values[i](t)/p.Yardstick, 0), 1)
	if p.Kind == insight.PartFriction {
		return 1 - reached
	}
	return reached
}

// at is the score at t, 0 to 100. It is computed once for each tick from the first that
// is asked for: each band asks for all of them.
func (s *score) at(t evaluate.Tick) float64 {
	if s.known == nil {
		s.first = t
	}
	i := int(t - s.first)
	if i < 0 { // of a trend
		return s.compute(t)
	}
	for len(s.known) <= i {
		s.known = append(s.known, math.NaN())
	}
	if math.IsNaN(s.known[i]) {
		s.known[i] = s.compute(t)
	}
	return s.known[i]
}

func (s *score) compute(t evaluate.Tick) float64 {
	sum := 0.0
	for i := range s.h.Parts {
		sum += s.h.Parts[i].Weight * s.share(i, t)
	}
	return 100 * sum / s.weight
}

// band of a score: the last one that begins at or below it.
func (s *score) band(value float64) int {
	band := 0
	for i := range s.h.Bands {
		if value >= s.h.Bands[i].From {
			band = i
		}
	}
	return band
}

// parts of the score at t, with what changed in the four weeks before.
func (s *score) parts(t evaluate.Tick) []signal.Part {
	parts := make([]signal.Part, len(s.h.Parts))
	for i := range s.h.Parts {
		p := &s.h.Parts[i]
		what := "trait " + p.Trait
		if p.Measure != nil {
			what = p.Measure.String()
		}
		value, share := s.values[i](t), s.share(i, t)
		full := "full at"
		if p.Kind == insight.PartFriction {
			full = "worst from"
		}
		parts[i] = signal.Part{
			ID: p.ID, Kind: p.Kind, Value: value, Yardstick: p.Yardstick, Weight: p.Weight, Share: share,
			Change:   100 * p.Weight * (share - s.share(i, t-fourWeeks)) / s.weight,
			Sentence: fmt.Sprintf("%s: %s, %s %s", what, rounded(value), full, rounded(p.Yardstick)),
		}
	}
	return parts
}

// reason is the part that changed the score most in four weeks.
func (s *score) reason(t evaluate.Tick, parts []signal.Part) string {
	largest := slices.MaxFunc(parts, func(a, b signal.Part) int { return cmp.Compare(math.Abs(a.Change), math.Abs(b.Change)) })
	if math.Abs(largest.Change) < 0.05 {
		return "unchanged against 4 weeks before"
	}
	i := slices.IndexFunc(parts, func(p signal.Part) bool { return p.ID == largest.ID })
	return fmt.Sprintf("largest change in 4 weeks: %s, from %s to %s (%+.1f points)", largest.ID, rounded(s.values[i](t-fourWeeks)), rounded(largest.Value), largest.Change)
}

// rounded to two digits, for sentences.
func rounded(v float64) string { return number(math.Round(v*100) / 100) }

// inBand is 1 while the account's score lies in the band of v.
func (c *compiler) inBand(v *version) evaluate.Value {
	s := c.score(v.health)
	return func(t evaluate.Tick) float64 {
		if s.band(s.at(t)) == v.band {
			return 1
		}
		return 0
	}
}

// health returns the records of the scores of an app that changed since they were
// written last, of the subjects that f is about. Accounts that are excluded or not of the
// definition's segment have none.
func (s *Service) health(app string, list []*definition, f *facts, now evaluate.Tick) []*kgo.Record {
	var records []*kgo.Record
	current := map[string]bool{}
	of := map[string]bool{} // ids of definitions
	for _, d := range list {
		v := d.newest()
		if v.health == nil || v.band != 0 { // a definition has a signal for each band
			continue
		}
		of[v.health.ID] = true
		for _, account := range s.subjects(app, d, f) {
			if f.excluded[insight.LevelAccount][account] || !d.active(f, account) {
				continue
			}
			c := &compiler{s: d, f: f, subject: account}
			if r := (&evaluate.Rule{Needs: c.membership(v)}); !r.Needed(now) {
				continue
			}
			k := signal.Key(signal.KeyHealth, app, v.health.ID, account)
			current[k] = true
			value := encode(c.health(app, v.health, now))
			if sha256.Sum256(value) != s.memory.health[k] {
				records = append(records, stateRecord(s.names, k, value))
			}
		}
	}
	for _, k := range s.written(app, of, f) {
		if !current[k] {
			records = append(records, stateRecord(s.names, k, nil))
		}
	}
	return records
}

// written returns the keys of the scores in memory that health decides on.
func (s *Service) written(app string, of map[string]bool, f *facts) []string {
	var keys []string
	if f.scope != nil {
		for id := range of {
			for account := range f.scope.accounts {
				if k := signal.Key(signal.KeyHealth, app, id, account); s.memory.health[k] != [sha256.Size]byte{} {
					keys = append(keys, k)
				}
			}
		}
	} else {
		for k := range s.memory.health {
			if p := signal.Parts(k); p[1] == app && (f.complete || of[p[2]]) {
				keys = append(keys, k)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

// health is the account's row.
func (c *compiler) health(app string, h *insight.Health, now evaluate.Tick) signal.Health {
	s := c.score(h)
	value, parts := s.at(now), s.parts(now)
	row := signal.Health{
		App: app, Health: h.ID, Version: h.Version, Account: c.subject, Owner: cmp.Or(c.f.traits[insight.LevelAccount][c.subject]["owner"], h.Owner),
		Day: timeOf(now, day).Add(-day), Score: value, Band: h.Bands[s.band(value)].ID, Score4: s.at(now - fourWeeks), Score12: s.at(now - twelveWeeks),
		Reason: s.reason(now, parts), Parts: parts, Priority: (100 - value) / 100,
	}
	if _, stated := c.f.traits[insight.LevelAccount][c.subject][h.Consequence]; stated {
		weight := c.trait(h.Consequence)
		row.Consequence = &weight
		row.Priority *= weight
	}
	return row
}
