package alert

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
)

// dated are definitions that are in force from an instant on.
type dated struct {
	From  time.Time      `json:"from"`
	Rules []insight.Rule `json:"rules"`

	signals insight.Signals
}

// segment of the definitions, or nil.
func (d *dated) segment(id string) *insight.Segment {
	for i := range d.signals.Segments {
		if d.signals.Segments[i].ID == id {
			return &d.signals.Segments[i]
		}
	}
	return nil
}

// definition is one signal with its versions.
type definition struct {
	use, id  string
	step     time.Duration
	level    string
	versions []version // by from
}

// version of a signal, in force from a tick on; alert, segment and health are nil
// where it is not defined.
type version struct {
	from    evaluate.Tick
	alert   *insight.Alert
	segment *insight.Segment
	health  *insight.Health
	band    int // of health
	all     *dated
}

func (v *version) meta() *insight.Meta {
	switch {
	case v.alert != nil:
		return &v.alert.Meta
	case v.segment != nil:
		return &v.segment.Meta
	case v.health != nil:
		return &v.health.Meta
	}
	return nil
}

// id of the signal that v is a version of.
func (v *version) id() string {
	if v.health != nil {
		return bandSignal(v.health.ID, v.health.Bands[v.band].ID)
	}
	return v.meta().ID
}

// members is the segment that the signal is evaluated for; nil: all.
func (v *version) members() *insight.Segment {
	switch {
	case v.segment != nil:
		return v.segment
	case v.alert != nil:
		return v.all.segment(v.alert.Segment)
	case v.health != nil:
		return v.all.segment(v.health.Segment)
	}
	return nil
}

// rank orders signals: segments before the alerts that refer to them.
func (s *definition) compare(o *definition) int {
	return cmp.Or(-cmp.Compare(s.use, o.use), cmp.Compare(s.id, o.id))
}

// signals returns the versions of an app's signals. The first version of a signal is in
// force from the beginning: alerts that are true already are delivered at once, and
// those that ended before are recorded. Later versions hold from the tick after they
// were applied.
func signals(history []dated) []*definition {
	byKey := map[string]*definition{}
	var all []*definition
	for i := range history {
		d := &history[i]
		defined := map[string]bool{}
		add := func(use string, step time.Duration, v version) {
			id := v.id()
			key := use + " " + id
			defined[key] = true
			s := byKey[key]
			if s == nil {
				s = &definition{use: use, id: id}
				byKey[key] = s
				all = append(all, s)
			} else {
				v.from = tickOf(d.From, step)
			}
			s.step, s.level = step, v.meta().Level
			v.all = d
			s.versions = append(s.versions, v)
		}
		for j := range d.signals.Segments {
			add(insight.UseSegment, day, version{segment: &d.signals.Segments[j]})
		}
		for j := range d.signals.Health {
			h := &d.signals.Health[j]
			for band := range h.Bands {
				add(insight.UseHealth, day, version{health: h, band: band})
			}
		}
		for j := range d.signals.Alerts {
			add(insight.UseAlert, d.signals.Alerts[j].Every, version{alert: &d.signals.Alerts[j]})
		}
		for key, s := range byKey {
			if !defined[key] {
				s.versions = append(s.versions, version{from: tickOf(d.From, s.step), all: d})
			}
		}
	}
	slices.SortFunc(all, (*definition).compare)
	return all
}

const day = 24 * time.Hour

func tickOf(at time.Time, step time.Duration) evaluate.Tick {
	return evaluate.Tick(at.Unix() / int64(step/time.Second))
}

// timeOf is the end of a tick.
func timeOf(t evaluate.Tick, step time.Duration) time.Time {
	return time.Unix((int64(t)+1)*int64(step/time.Second), 0).UTC()
}

func ticks(d, step time.Duration) evaluate.Tick { return evaluate.Tick((d + step - 1) / step) }

// newest returns the newest version that defines the signal; nil: it is no longer
// defined.
func (s *definition) newest() *version { return &s.versions[len(s.versions)-1] }

// measures returns the measures that the signal needs, in all its versions, and how far
// back each looks.
func (s *definition) measures(visit func(m *insight.Measure, level string, back evaluate.Tick)) {
	for i := range s.versions {
		v := &s.versions[i]
		if a := v.alert; a != nil {
			windows := 1 + max(a.Fires.Previous, previous(a.Clears))
			visit(&a.Measure, s.level, ticks(a.Measure.Window, s.step)*evaluate.Tick(windows))
		}
		if v.health != nil {
			for j := range v.health.Parts {
				if m := v.health.Parts[j].Measure; m != nil {
					visit(m, s.level, ticks(m.Window, s.step)+twelveWeeks)
				}
			}
		}
		if seg := v.members(); seg != nil {
			v.all.conditions(seg, s.step, visit)
		}
	}
}

func previous(b *insight.Bound) int {
	if b == nil {
		return 0
	}
	return b.Previous
}

// conditions visits the measures of a segment, and of those that it names.
func (d *dated) conditions(seg *insight.Segment, step time.Duration, visit func(m *insight.Measure, level string, back evaluate.Tick)) {
	for i := range seg.Where {
		c := &seg.Where[i]
		if c.Measure != nil {
			visit(c.Measure, seg.Level, ticks(c.Measure.Window, step))
		}
		if inner := d.segment(c.Segment); inner != nil {
			d.conditions(inner, step, visit)
		}
	}
}

// longestFor of all versions.
func (s *definition) longestFor() evaluate.Tick {
	longest := evaluate.Tick(0)
	for i := range s.versions {
		if a := s.versions[i].alert; a != nil {
			longest = max(longest, ticks(a.For, s.step))
		}
	}
	return longest
}

// measureKey names the facts of a measure.
func measureKey(m *insight.Measure, level string, step time.Duration) string {
	text, err := json.Marshal(struct {
		M     insight.Measure
		Level string
		Step  time.Duration
	}{insight.Measure{Count: m.Count, Of: m.Of, Metric: m.Metric}, level, step})
	if err != nil {
		panic(err) // cannot happen: strings and numbers
	}
	return string(text)
}

// facts are the data of a round.
type facts struct {
	points    map[string]map[string][]evaluate.Point  // by measureKey and subject
	traits    map[string]map[string]map[string]string // by level and subject
	roles     map[string]string                       // of users today
	accountOf map[string]string                       // of users today
	excluded  exclusions
	scope     *scope                         // the subjects that it is about; nil: all
	asked     map[string]map[string]struct{} // subjects by level that were read; nil: all
	// complete facts are those of all signals of the app.
	complete bool

	// What series returned, by measure: to name a measure costs more than to look it up.
	bySource map[sourceKey]map[string][]evaluate.Point

	// The scores of the subject that was asked for last: the bands of a score, the
	// reason and the record of an outcome share one.
	scored string
	scores map[*insight.Health]*score
}

type sourceKey struct {
	m     *insight.Measure
	level string
	step  time.Duration
}

// series returns the points of a measure, by subject.
func (f *facts) series(m *insight.Measure, level string, step time.Duration) map[string][]evaluate.Point {
	k := sourceKey{m, level, step}
	points, ok := f.bySource[k]
	if !ok {
		if f.bySource == nil {
			f.bySource = map[sourceKey]map[string][]evaluate.Point{}
		}
		points = f.points[measureKey(m, level, step)]
		f.bySource[k] = points
	}
	return points
}

// compiler makes the rules of one signal for one subject.
type compiler struct {
	s       *definition
	f       *facts
	subject string
	made    []*evaluate.Rule // by version
	done    []bool

	stated bool // only conditions on traits and roles are asked for
}

// rules of the subject.
func (s *definition) rules(f *facts, subject string) evaluate.Rules {
	c := &compiler{s: s, f: f, subject: subject, made: make([]*evaluate.Rule, len(s.versions)), done: make([]bool, len(s.versions))}
	return func(t evaluate.Tick) *evaluate.Rule {
		i := len(s.versions) - 1
		for i > 0 && s.versions[i].from > t {
			i--
		}
		if !c.done[i] {
			c.made[i], c.done[i] = c.rule(&s.versions[i]), true
		}
		return c.made[i]
	}
}

func (c *compiler) rule(v *version) *evaluate.Rule {
	m := v.meta()
	if m == nil {
		return nil
	}
	r := &evaluate.Rule{Version: m.Version, Needs: c.membership(v)}
	if a := v.alert; a != nil {
		r.Value, r.Fires = c.value(&a.Measure, c.s.level, c.subject), c.bound(a.Fires, a.Measure.Window)
		r.For, r.Cooldown = ticks(a.For, c.s.step), ticks(a.Cooldown, c.s.step)
		if a.Clears != nil {
			b := c.bound(*a.Clears, a.Measure.Window)
			r.Clears = &b
		}
	}
	if v.health != nil {
		r.Value, r.Fires = c.inBand(v), evaluate.Bound{Limit: 1}
	}
	return r
}

// membership returns the measured conditions of the segment that v is evaluated for.
func (c *compiler) membership(v *version) []evaluate.Need {
	seg := v.members()
	if seg == nil {
		return nil
	}
	needs, _ := c.needs(v.all, seg, c.of(seg.Level))
	return needs
}

// of returns the subject at a level: for a user, its account today.
func (c *compiler) of(level string) string {
	if level == insight.LevelAccount && c.s.level == insight.LevelUser {
		return c.f.accountOf[c.subject]
	}
	return c.subject
}

func (c *compiler) bound(b insight.Bound, window time.Duration) evaluate.Bound {
	return evaluate.Bound{Below: b.Below, Limit: b.Limit, Previous: b.Previous, Window: ticks(window, c.s.step), Baseline: b.Baseline}
}

func (c *compiler) value(m *insight.Measure, level, subject string) evaluate.Value {
	points := c.f.series(m, level, c.s.step)[subject]
	window := ticks(m.Window, c.s.step)
	switch m.Count {
	case insight.CountUsers, insight.CountDays, insight.CountFeatures:
		return evaluate.Distinct(points, window)
	}
	return evaluate.Sum(points, window)
}

// needs returns the measured conditions of a segment; active reports whether those on
// traits and roles, which have no history, hold now.
func (c *compiler) needs(d *dated, seg *insight.Segment, subject string) (needs []evaluate.Need, active bool) {
	active = true
	for i := range seg.Where {
		w := &seg.Where[i]
		var holds bool
		switch {
		case w.Measure != nil && c.stated:
			continue
		case w.Measure != nil:
			needs = append(needs, evaluate.Need{Value: c.value(w.Measure, seg.Level, subject), Bound: c.bound(*w.Bound, w.Measure.Window), Not: w.Not})
			continue
		case w.Segment != "":
			inner := d.segment(w.Segment)
			of := subject
			if inner.Level != seg.Level {
				of = c.f.accountOf[subject]
			}
			more, on := c.needs(d, inner, of)
			if !w.Not {
				needs, active = append(needs, more...), active && on
				continue
			}
			needs = append(needs, evaluate.Need{Value: all(more, on), Bound: evaluate.Bound{Limit: 1}, Not: true})
			continue
		case w.Role != "":
			holds = c.f.roles[subject] == w.Role
		case w.Bound != nil:
			n, err := strconv.ParseFloat(c.f.traits[seg.Level][subject][w.Trait], 64)
			holds = err == nil && (n < w.Bound.Limit) == w.Bound.Below
		default:
			text, stated := c.f.traits[seg.Level][subject][w.Trait]
			holds = stated && slices.Contains(w.Values, text)
		}
		active = active && holds != w.Not
	}
	return needs, active
}

// all is 1 where all needs hold.
func all(needs []evaluate.Need, on bool) evaluate.Value {
	r := &evaluate.Rule{Needs: needs}
	return func(t evaluate.Tick) float64 {
		if on && r.Needed(t) {
			return 1
		}
		return 0
	}
}

// active reports whether the subject belongs to the signal's segment now, as far as
// traits and roles decide.
func (s *definition) active(f *facts, subject string) bool {
	v := s.newest()
	seg := v.members()
	if seg == nil {
		return true
	}
	c := &compiler{s: s, f: f, subject: subject, stated: true}
	_, active := c.needs(v.all, seg, c.of(seg.Level))
	return active
}

// reason explains an outcome in words and numbers.
func (s *definition) reason(f *facts, subject string, o evaluate.Outcome, excluded bool) string {
	var m *insight.Measure
	var b *insight.Bound
	for i := range s.versions {
		if a := s.versions[i].alert; a != nil && (a.Version == o.Version || m == nil) {
			m, b = &a.Measure, &a.Fires
		}
	}
	text := ""
	if m != nil {
		word := "at least"
		if b.Below != (o.Facts.Value >= o.Facts.Limit) {
			word = "below"
		}
		text = fmt.Sprintf("%s %s, %s %s", number(o.Facts.Value), m, word, number(o.Facts.Limit))
		if b.Below && word == "at least" || !b.Below && word == "below" {
			text = fmt.Sprintf("%s %s, the limit is %s", number(o.Facts.Value), m, number(o.Facts.Limit))
		}
		if o.Facts.Relative {
			text += fmt.Sprintf(" (%s%% of the mean of the %d windows before, %s)", number(b.Limit*100), b.Previous, number(o.Facts.Mean))
		}
	}
	if v := s.version(o.Version); v.health != nil {
		score := (&compiler{s: s, f: f, subject: subject}).score(v.health)
		text = fmt.Sprintf("score %.0f, %s; %s", score.at(o.At), v.health.Bands[score.band(score.at(o.At))].ID, score.reason(o.At, score.parts(o.At)))
	}
	switch {
	case excluded:
		return "withdrawn: the subject is excluded from usage"
	case o.State == signal.Retracted:
		return "withdrawn: history was corrected; as now known, " + cmp.Or(text, "it was not of the segment")
	case o.Left && s.use != insight.UseSegment:
		return "no longer in the segment, or no longer defined"
	case o.State == signal.Firing && o.Late && o.To == evaluate.Open:
		return "not over: history was corrected; " + text
	}
	return cmp.Or(text, "segment "+s.id)
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }
