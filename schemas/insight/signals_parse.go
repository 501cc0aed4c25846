package insight

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// named is a reference of a signal to something that must exist, and where it is.
type named struct {
	kind, value string
	level       string // of a trait: whose
	at          position
}

// signal reads the items of a list of signals of one use. Ids are unique per use.
func (p *parser) signals(use string, levels []string, read func(path string, n *yaml.Node, m *Meta)) field {
	seen := map[string]bool{}
	return func(path string, n *yaml.Node) {
		p.List(path, n, func(path string, n *yaml.Node) {
			m := Meta{Version: 1, Level: levels[0]}
			before := len(p.Faults)
			read(path, n, &m)
			p.count++
			if p.count == MaxSignals+1 {
				p.Fault(path, n, "is one too many: there may be %d signals", MaxSignals)
			}
			if len(p.Faults) > before {
				return
			}
			for name, value := range map[string]string{"id": m.ID, "description": m.Description, "owner": m.Owner} {
				if value == "" {
					p.Fault(path, n, "must have %s", name)
				}
			}
			if seen[m.ID] {
				p.Fault(path, n, "is the second %s with id %q", use, m.ID)
			}
			seen[m.ID] = true
			if !slices.Contains(levels, m.Level) {
				p.Fault(path, n, "level must be %s (got %q)", strings.Join(levels, " or "), m.Level)
			}
			p.d.lines[Rule{Use: use, Key: m.ID}] = position{n.Line, n.Column}
		})
	}
}

var signalID = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`)

// meta are the fields that every signal has, and those of fields.
func (p *parser) meta(m *Meta, fields map[string]field) map[string]field {
	all := map[string]field{
		"id":          p.id(&m.ID),
		"version":     p.version(&m.Version),
		"description": p.text(&m.Description),
		"owner":       p.text(&m.Owner),
		"level":       p.text(&m.Level),
	}
	maps.Copy(all, fields)
	return all
}

func (p *parser) id(into *string) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if ok && !signalID.MatchString(s) {
			p.Fault(path, n, "must be at most 64 lower-case letters, digits, _ . and -, and begin with a letter or digit (got %q)", s)
		}
		*into = s
	}
}

func (p *parser) version(into *uint32) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if !ok {
			return
		}
		v, err := strconv.ParseUint(s, 10, 32)
		if err != nil || v == 0 {
			p.Fault(path, n, "must be a whole number from 1 on (got %q)", s)
		}
		*into = uint32(v)
	}
}

func (p *parser) name(kind, level string, into *string) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if ok {
			*into = s
			p.d.names = append(p.d.names, named{kind, s, level, position{n.Line, n.Column}})
		}
	}
}

func (p *parser) oneOf(into *string, words ...string) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if ok && !slices.Contains(words, s) {
			p.Fault(path, n, "must be one of %s (got %q)", strings.Join(words, ", "), s)
		}
		*into = s
	}
}

// of reads references as [parser.references] does.
func (p *parser) of(into *[]Reference) field {
	return func(path string, n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			n = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Column: n.Column, Content: []*yaml.Node{n}}
		}
		p.List(path, n, func(path string, n *yaml.Node) {
			match, value, ok := p.reference(path, n, MatchFeature, MatchModule, MatchProduct, MatchEvent)
			if !ok {
				return
			}
			r := Reference{match, value}
			if slices.Contains(*into, r) {
				p.Fault(path, n, "is given twice")
				return
			}
			*into = append(*into, r)
			p.d.names = append(p.d.names, named{match, value, "", position{n.Line, n.Column}})
		})
	}
}

// number splits a number from the unit behind it.
var number = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)\s*([^0-9.].*)?$`)

// span reads a duration such as 36h, 7d or 4w.
func (p *parser) span(into *time.Duration, least, most time.Duration) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if !ok {
			return
		}
		units := map[string]time.Duration{"h": time.Hour, "d": 24 * time.Hour, "w": 7 * 24 * time.Hour}
		m := number.FindStringSubmatch(s)
		if m == nil {
			p.Fault(path, n, "must be a duration such as 36h, 7d or 4w (got %q)", s)
			return
		}
		unit, ok := units[m[2]]
		if !ok {
			p.Fault(path, n, "unknown unit %q; there are h, d and w", m[2])
			return
		}
		count, err := strconv.Atoi(m[1])
		if err != nil || count > int(most/unit) || time.Duration(count)*unit < least {
			p.Fault(path, n, "must be a whole number of hours, days or weeks, %s to %s (got %q)", Duration(least), Duration(most), s)
			return
		}
		*into = time.Duration(count) * unit
	}
}

func (p *parser) float(into *float64, least float64) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if !ok {
			return
		}
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || v < least {
			p.Fault(path, n, "must be a number of at least %g (got %q)", least, s)
			return
		}
		*into = v
	}
}

func (p *parser) whole(into *int, least, most int) field {
	return func(path string, n *yaml.Node) {
		s, ok := p.Word(path, n)
		if !ok {
			return
		}
		v, err := strconv.Atoi(s)
		if err != nil || v < least || v > most {
			p.Fault(path, n, "must be a whole number of %d to %d (got %q)", least, most, s)
			return
		}
		*into = v
	}
}

// measure reads a measure into m.
func (p *parser) measure(m *Measure) field {
	return func(path string, n *yaml.Node) {
		before := len(p.Faults)
		p.Mapping(path, n, map[string]field{
			"count":  p.oneOf(&m.Count, counts()...),
			"of":     p.of(&m.Of),
			"metric": p.name("metric", "", &m.Metric),
			"window": p.span(&m.Window, time.Hour, MaxWindow),
		})
		if len(p.Faults) > before {
			return
		}
		if m.Metric != "" && m.Count == "" {
			m.Count = CountMetric
		}
		switch {
		case m.Count == "":
			p.Fault(path, n, "must have count, one of %s, or metric", strings.Join(counts(), ", "))
		case m.Window == 0:
			p.Fault(path, n, "must have window, such as 7d")
		case (m.Count == CountMetric) != (m.Metric != ""):
			p.Fault(path, n, "must have metric for the count metric, and for no other")
		case m.Metric != "" && len(m.Of) > 0:
			p.Fault(path, n, "must not have of together with metric")
		case m.Count == CountDays && m.Window < 24*time.Hour:
			p.Fault(path, n, "must have a window of at least 1d to count days")
		}
	}
}

// bound is a bound as it is written, before the measure is known.
type bound struct {
	n               *yaml.Node
	belowN, atLeast *yaml.Node
	previous        int
	baseline        float64
}

func (p *parser) boundFields(b *bound) map[string]field {
	return map[string]field{
		"below":             func(_ string, n *yaml.Node) { b.belowN = n },
		"at_least":          func(_ string, n *yaml.Node) { b.atLeast = n },
		"of_previous":       p.whole(&b.previous, 1, MaxPrevious),
		"baseline_at_least": p.float(&b.baseline, 0),
	}
}

// boundOf turns b into a bound of values of that unit.
func (p *parser) boundOf(path string, n *yaml.Node, b bound, unit string) *Bound {
	which, word := b.belowN, "below"
	if which == nil {
		which, word = b.atLeast, "at_least"
	}
	if which == nil || (b.belowN != nil && b.atLeast != nil) {
		p.Fault(path, n, "must have one of below and at_least")
		return nil
	}
	path += "." + word
	s, ok := p.Word(path, which)
	if !ok {
		return nil
	}
	m := number.FindStringSubmatch(s)
	if m == nil {
		p.Fault(path, which, "must be a number such as 5 or 50%% (got %q)", s)
		return nil
	}
	limit, err := strconv.ParseFloat(m[1], 64)
	if err != nil || math.IsInf(limit, 0) {
		p.Fault(path, which, "must be a number such as 5 or 50%% (got %q)", s)
		return nil
	}
	got := Bound{Below: word == "below", Limit: limit, Previous: b.previous, Baseline: b.baseline}
	switch {
	case m[2] == "%" && b.previous == 0:
		p.Fault(path, which, "must have of_previous beside it: the windows of whose mean it is the share")
	case m[2] == "%":
		got.Limit /= 100
	case m[2] != "" && m[2] != unit:
		p.Fault(path, which, "unknown unit %q; there are %s and %%", m[2], unit)
	case b.previous > 0:
		p.Fault(path, which, "must be a share such as 50%% with of_previous (got %q)", s)
	}
	if b.baseline > 0 && b.previous == 0 {
		p.Fault(path, which, "must not have baseline_at_least without of_previous")
	}
	return &got
}

func (p *parser) condition(segment *Segment) field {
	return func(path string, n *yaml.Node) {
		var c Condition
		var m Measure
		var b bound
		fields := p.boundFields(&b)
		delete(fields, "of_previous")
		delete(fields, "baseline_at_least")
		level := segment.Level
		maps.Copy(fields, map[string]field{
			"trait":   p.name("trait", level, &c.Trait),
			"role":    p.text(&c.Role),
			"segment": p.name("segment", level, &c.Segment),
			"measure": p.measure(&m),
			"in": func(path string, n *yaml.Node) {
				p.List(path, n, func(path string, n *yaml.Node) {
					if s, ok := p.Word(path, n); ok {
						c.Values = append(c.Values, s)
					}
				})
			},
			"not": func(path string, n *yaml.Node) {
				var word string
				p.oneOf(&word, "true", "false")(path, n)
				c.Not = word == "true"
			},
		})
		before := len(p.Faults)
		p.Mapping(path, n, fields)
		if len(p.Faults) > before {
			return
		}
		kinds, unit := 0, c.Trait
		if m.Count != "" {
			c.Measure, unit = &m, m.Count
			kinds++
		}
		for _, s := range []string{c.Trait, c.Role, c.Segment} {
			if s != "" {
				kinds++
			}
		}
		bounded := b.belowN != nil || b.atLeast != nil
		switch {
		case kinds != 1:
			p.Fault(path, n, "must have one of trait, role, segment and measure")
		case c.Role != "" && level == LevelAccount:
			p.Fault(path, n, "must not name a role: accounts have none")
		case (c.Trait != "") != (len(c.Values) > 0 || bounded), len(c.Values) > 0 && bounded:
			if c.Measure == nil {
				p.Fault(path, n, "must have in, below or at_least for a trait, and for no role or segment")
			}
		case len(c.Values) > 0 && c.Trait == "":
			p.Fault(path, n, "must have in for a trait alone")
		}
		if len(p.Faults) == before && (bounded || c.Measure != nil) {
			c.Bound = p.boundOf(path, n, b, unit)
		}
		segment.Where = append(segment.Where, c)
	}
}

// peek is the value of a field that others of the same mapping depend on.
func peek(n *yaml.Node, name, otherwise string) string {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name && n.Content[i+1].Kind == yaml.ScalarNode {
			return strings.TrimSpace(n.Content[i+1].Value)
		}
	}
	return otherwise
}

func (p *parser) segments() field {
	return p.signals(UseSegment, []string{LevelAccount, LevelUser}, func(path string, n *yaml.Node, m *Meta) {
		s := Segment{Meta: Meta{Level: peek(n, "level", LevelAccount)}}
		p.Mapping(path, n, p.meta(m, map[string]field{
			"where": func(path string, n *yaml.Node) { p.List(path, n, p.condition(&s)) },
		}))
		if len(s.Where) == 0 || len(s.Where) > MaxConditions {
			p.Fault(path, n, "must have 1 to %d conditions in where (got %d)", MaxConditions, len(s.Where))
		}
		s.Meta = *m
		p.d.Signals.Segments = append(p.d.Signals.Segments, s)
	})
}

func (p *parser) health() field {
	return p.signals(UseHealth, []string{LevelAccount}, func(path string, n *yaml.Node, m *Meta) {
		var h Health
		p.Mapping(path, n, p.meta(m, map[string]field{
			"segment":     p.name("segment", LevelAccount, &h.Segment),
			"parts":       func(path string, n *yaml.Node) { p.List(path, n, p.part(&h)) },
			"bands":       func(path string, n *yaml.Node) { p.List(path, n, p.band(&h)) },
			"consequence": p.name("trait", LevelAccount, &h.Consequence),
		}))
		switch {
		case len(h.Parts) == 0:
			p.Fault(path, n, "must have parts")
		case len(h.Bands) == 0 || h.Bands[0].From != 0:
			p.Fault(path, n, "must have bands, the first from 0")
		case !slices.IsSortedFunc(h.Bands, func(a, b Band) int {
			if a.From < b.From {
				return -1
			}
			return 1
		}):
			p.Fault(path, n, "must have bands by rising from")
		}
		h.Meta = *m
		p.d.Signals.Health = append(p.d.Signals.Health, h)
	})
}

func (p *parser) part(h *Health) field {
	return func(path string, n *yaml.Node) {
		part := Part{Kind: PartBehaviour, Weight: 1}
		var m Measure
		before := len(p.Faults)
		p.Mapping(path, n, map[string]field{
			"id":        p.id(&part.ID),
			"kind":      p.oneOf(&part.Kind, parts()...),
			"measure":   p.measure(&m),
			"trait":     p.name("trait", LevelAccount, &part.Trait),
			"yardstick": p.float(&part.Yardstick, 0),
			"weight":    p.float(&part.Weight, 0),
		})
		if len(p.Faults) > before {
			return
		}
		if m.Count != "" {
			part.Measure = &m
		}
		switch {
		case part.ID == "":
			p.Fault(path, n, "must have id")
		case (part.Measure == nil) == (part.Trait == ""):
			p.Fault(path, n, "must have one of measure and trait")
		case part.Yardstick <= 0 || part.Weight <= 0:
			p.Fault(path, n, "must have a yardstick and a weight above 0")
		case slices.ContainsFunc(h.Parts, func(o Part) bool { return o.ID == part.ID }):
			p.Fault(path, n, "is the second part with id %q", part.ID)
		}
		h.Parts = append(h.Parts, part)
	}
}

func (p *parser) band(h *Health) field {
	return func(path string, n *yaml.Node) {
		var b Band
		p.Mapping(path, n, map[string]field{"id": p.id(&b.ID), "from": p.float(&b.From, 0)})
		if b.ID == "" {
			p.Fault(path, n, "must have id")
		}
		h.Bands = append(h.Bands, b)
	}
}

// steps reads the items of milestones.steps.
func (p *parser) steps() field {
	return p.signals(UseMilestone, []string{LevelAccount, LevelUser}, func(path string, n *yaml.Node, m *Meta) {
		ms := Milestone{Times: 1}
		p.Mapping(path, n, p.meta(m, map[string]field{"of": p.of(&ms.Of), "times": p.whole(&ms.Times, 1, 1_000_000)}))
		if len(ms.Of) == 0 {
			p.Fault(path, n, "must have of")
		}
		ms.Meta = *m
		p.d.Signals.Milestones = append(p.d.Signals.Milestones, ms)
	})
}

func (p *parser) alerts() field {
	return p.signals(UseAlert, []string{LevelAccount, LevelUser, LevelApp}, func(path string, n *yaml.Node, m *Meta) {
		a := Alert{Every: 24 * time.Hour, Severity: "warning"}
		var fires, clears bound
		level := peek(n, "level", LevelAccount)
		p.Mapping(path, n, p.meta(m, map[string]field{
			"segment":  p.name("segment", level, &a.Segment),
			"measure":  p.measure(&a.Measure),
			"every":    p.span(&a.Every, time.Hour, 24*time.Hour),
			"fires":    func(path string, n *yaml.Node) { fires.n = n; p.Mapping(path, n, p.boundFields(&fires)) },
			"clears":   func(path string, n *yaml.Node) { clears.n = n; p.Mapping(path, n, p.boundFields(&clears)) },
			"for":      p.span(&a.For, time.Hour, MaxWindow),
			"cooldown": p.span(&a.Cooldown, time.Hour, MaxWindow),
			"severity": p.oneOf(&a.Severity, Severities()...),
			"audience": func(path string, n *yaml.Node) {
				p.List(path, n, func(path string, n *yaml.Node) {
					if s, ok := p.Word(path, n); ok {
						a.Audience = append(a.Audience, s)
					}
				})
			},
			"playbook": p.text(&a.Playbook),
			"closes":   p.text(&a.Closes),
		}))
		p.alert(path, n, &a, fires, clears)
		a.Meta = *m
		if a.Level == LevelApp && a.Segment != "" {
			p.Fault(path, n, "must not have a segment at level app")
		}
		p.d.Signals.Alerts = append(p.d.Signals.Alerts, a)
	})
}

// alert checks what depends on several fields.
func (p *parser) alert(path string, n *yaml.Node, a *Alert, fires, clears bound) {
	if a.Measure.Count == "" || fires.n == nil {
		p.Fault(path, n, "must have measure and fires")
		return
	}
	if a.Every != time.Hour && a.Every != 24*time.Hour {
		p.Fault(path+".every", n, "must be 1h or 1d (got %s)", Duration(a.Every))
	}
	for name, d := range map[string]time.Duration{"measure.window": a.Measure.Window, "for": a.For, "cooldown": a.Cooldown} {
		if d%a.Every != 0 {
			p.Fault(path+"."+name, n, "must be a multiple of every, %s (got %s)", Duration(a.Every), Duration(d))
		}
	}
	if a.Measure.Count == CountDays && a.Every != 24*time.Hour {
		p.Fault(path+".every", n, "must be 1d to count days")
	}
	if a.Measure.Window*time.Duration(1+max(fires.previous, clears.previous)) > 4*MaxWindow {
		p.Fault(path+".fires", fires.n, "must look back at most %s in all windows", Duration(4*MaxWindow))
	}
	if b := p.boundOf(path+".fires", fires.n, fires, a.Measure.Count); b != nil {
		a.Fires = *b
	}
	if clears.n == nil {
		return
	}
	a.Clears = p.boundOf(path+".clears", clears.n, clears, a.Measure.Count)
	if c := a.Clears; c != nil && (c.Below == a.Fires.Below || c.Previous != a.Fires.Previous || (c.Below && c.Limit > a.Fires.Limit) || (!c.Below && c.Limit < a.Fires.Limit)) {
		p.Fault(path+".clears", clears.n, "must lie on the other side of fires, so that an alert cannot fire and clear at once (fires %s, clears %s)", a.Fires, *c)
	}
}

// references of signals to segments must be to one that exists, of the same level
// or, for users, of accounts; and not in a circle.
func (p *parser) resolve() {
	levels := map[string]string{}
	of := map[string][]string{}
	for _, s := range p.d.Signals.Segments {
		levels[s.ID] = s.Level
		for _, c := range s.Where {
			if c.Segment != "" {
				of[s.ID] = append(of[s.ID], c.Segment)
			}
		}
	}
	for _, r := range p.d.names {
		if r.kind != "segment" {
			continue
		}
		n := &yaml.Node{Line: r.at.line, Column: r.at.column}
		level, ok := levels[r.value]
		switch {
		case !ok:
			p.Fault("", n, "unknown segment %q; there are %s", r.value, fmt.Sprint(slices.Sorted(maps.Keys(levels))))
		case level == LevelUser && r.level != LevelUser:
			p.Fault("", n, "segment %q is of users, and must be of accounts here", r.value)
		}
	}
	for id := range of {
		p.circle(id, id, of, map[string]bool{})
	}
}

func (p *parser) circle(start, at string, of map[string][]string, seen map[string]bool) {
	for _, next := range of[at] {
		if next == start {
			where := p.d.lines[Rule{Use: UseSegment, Key: start}]
			p.Fault("", &yaml.Node{Line: where.line, Column: where.column}, "segment %q depends on itself", start)
		} else if !seen[next] {
			seen[next] = true
			p.circle(start, next, of, seen)
		}
	}
}
