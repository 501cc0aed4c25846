package alert

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
	"github.com/uptakehq/uptake/schemas/topic/arbiter"
)

// nowTick is the last complete tick of a step, with time for its events to arrive.
func (s *Service) nowTick(now time.Time) func(step time.Duration) evaluate.Tick {
	return func(step time.Duration) evaluate.Tick { return tickOf(now.Add(-s.cfg.Settle), step) - 1 }
}

// round evaluates the signals of every app, and writes the changes in one transaction
// for each.
func (s *Service) round(ctx context.Context, now time.Time) error {
	lag, at, err := s.lag(ctx, now)
	if err != nil {
		return err
	}
	// If nothing that a round depends on has changed, it has no outcomes. Traits arrive
	// through the writers, too; exclusions are checked again each hour.
	hour, rules := s.nowTick(now)(time.Hour), rulesText(s.definitions)+s.applied
	seen := fmt.Sprint(hour, at.sum, at.tables, rules)
	if seen == s.evaluated && !s.memory.disturbed() {
		return nil
	}
	s.metrics.lag.Set(lag.Seconds())
	changes, why, err := s.changes(ctx, hour, rules, at)
	if err != nil {
		return err
	}
	next := &base{hour: hour, rules: rules, position: at, apps: map[string]*appBase{}}
	for _, app := range slices.Sorted(maps.Keys(s.definitions)) {
		if next.apps[app], err = s.roundOf(ctx, app, now, lag, next, changes[app], why); err != nil {
			s.evaluated, s.base = "", nil
			return fmt.Errorf("app %s: %w", app, err)
		}
	}
	s.evaluated, s.base = seen, next
	return nil
}

// rulesText is equal for equal definitions.
func rulesText(definitions map[string]*insight.Definitions) string {
	text := ""
	for _, app := range slices.Sorted(maps.Keys(definitions)) {
		text += fmt.Sprint(app, definitions[app].Rules)
	}
	return text
}

// defined returns the versions of an app's definitions, including that of the file if
// it differs from the last; changed reports whether it does.
func (s *Service) defined(app string, now time.Time) (list []dated, changed bool) {
	list = slices.Clone(s.memory.versions[app])
	d := s.definitions[app]
	rules := slices.DeleteFunc(slices.Clone(d.Rules), func(r insight.Rule) bool {
		return r.Use != insight.UseAlert && r.Use != insight.UseSegment && r.Use != insight.UseHealth
	})
	if len(list) > 0 && slices.Equal(list[len(list)-1].Rules, rules) {
		return list, false
	}
	// Versions that ended before the horizon are not needed.
	for len(list) > 1 && list[1].From.Before(now.Add(-2*s.cfg.Horizon)) {
		list = list[1:]
	}
	next := dated{From: now.UTC(), Rules: rules, signals: d.Signals}
	return append(list, next), true
}

// roundOf evaluates an app: the subjects that c names, or all of them, if why says so. It
// returns what the next round starts from; nil: the app has no signals.
func (s *Service) roundOf(ctx context.Context, app string, now time.Time, lag time.Duration, next *base, c *change, why string) (*appBase, error) {
	// Data read from ClickHouse does not depend on earlier outcomes, but on when it is
	// read: what another evaluator writes after this may be decided on newer data, so that
	// this round would take it back. Definitions are decided below, and read here to know
	// which queries are needed.
	s.progress.enter("evaluate app " + app + ": read the log")
	if err := s.memory.catchUp(ctx); err != nil {
		return nil, err
	}
	others := s.memory.others[app]
	history, _ := s.defined(app, now)
	if len(history) == 1 && len(history[0].Rules) == 0 {
		return nil, nil // the app never had a signal
	}
	tick := s.nowTick(now)
	list := slices.DeleteFunc(signals(history), func(sig *definition) bool {
		late := lag > sig.window()
		if late {
			next.delayed = true
			s.log.Warn("signal not evaluated: the writers lag more than its window", "app", app, "signal", sig.id, "lag", lag, "window", sig.window())
		}
		return late
	})
	var within *scope
	var err error
	if why == "" {
		if within, why, err = s.changed(ctx, app, list, c); err != nil {
			return nil, err
		}
		if within != nil && c == nil && len(within.accounts) == 0 {
			return s.base.apps[app], nil // nothing has changed
		}
	}
	s.progress.enter("evaluate app " + app + ": read ClickHouse")
	parts, b, err := s.read(ctx, app, list, tick, within)
	if err != nil {
		return nil, err
	}
	s.progress.enter("evaluate app " + app + ": decide and write")
	written, err := arbiter.Write(ctx, arbiter.Config{
		Options: s.kafka, TransactionalID: transactionalID(s.names),
		Attempted: func(err error) { s.log.Info("repeating the round", "error", err) },
	}, func(ctx context.Context) ([]*kgo.Record, error) {
		if err := s.hit("alerts.before-decide"); err != nil {
			return nil, err
		}
		if err := s.memory.catchUp(ctx); err != nil {
			return nil, err
		}
		now, changed := s.defined(app, now)
		if len(now) != len(history) || s.memory.others[app] != others || !s.memory.covered(app, within) {
			return nil, errOvertaken // by another evaluator; the next round reads anew
		}
		s.memory.settled(app)
		var records []*kgo.Record
		if changed {
			records = append(records, stateRecord(s.names, signal.Key(signal.KeyVersions, app), now))
		}
		for _, p := range parts {
			records = append(records, s.decide(app, p.list, p.facts, tick, next.delayed)...)
		}
		if err := s.hit("alerts.before-commit"); err != nil {
			return nil, err
		}
		return records, nil
	})
	if err != nil {
		return nil, err
	}
	s.memory.wrote(written)
	s.report(app, within, why, len(written))
	return b, s.hit("alerts.after-commit")
}

// report logs and counts an evaluation.
func (s *Service) report(app string, within *scope, why string, records int) {
	level, attrs := slog.LevelDebug, []any{"app", app, "records", records}
	if records > 0 {
		level = slog.LevelInfo
	}
	if within != nil {
		s.metrics.evaluated.WithLabelValues("changed", "").Inc()
		attrs = append(attrs, "evaluated", "changed", "accounts", len(within.accounts), "users", len(within.users))
	} else {
		s.metrics.evaluated.WithLabelValues("all", why).Inc()
		attrs = append(attrs, "evaluated", "all", "reason", why)
	}
	s.log.Log(context.Background(), level, "round evaluated", attrs...)
}

// part is a part of the signals, and what was read for them.
type part struct {
	list  []*definition
	facts *facts
}

// read reads what the signals need: within a scope, two parts, of the signals that are
// evaluated for all subjects nonetheless, and of all others. It returns what the next
// round starts from.
func (s *Service) read(ctx context.Context, app string, list []*definition, tick func(time.Duration) evaluate.Tick, within *scope) ([]part, *appBase, error) {
	r := reading{app: app, list: list, now: tick, horizon: s.cfg.Horizon, scope: within}
	var b *appBase
	var err error
	if within == nil {
		b = &appBase{}
		if b.exclusions, err = s.store.exclusions(ctx, app); err != nil {
			return nil, nil, err
		}
	} else {
		b = s.base.apps[app] // its exclusions are those of now: see changed
	}
	r.exclusions = b.exclusions
	if within == nil {
		f, err := s.store.read(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		f.complete = true
		b.accountOf = f.accountOf
		for _, level := range []string{insight.LevelAccount, insight.LevelUser} {
			b.subjects = max(b.subjects, len(f.traits[level]))
		}
		for _, points := range f.points {
			b.subjects = max(b.subjects, len(points))
		}
		return []part{{list, f}}, b, nil
	}
	var parts []part
	for _, whole := range []bool{true, false} {
		r.list = slices.DeleteFunc(slices.Clone(list), func(sig *definition) bool { return sig.whole() != whole })
		if r.scope = within; whole {
			r.scope = nil
		}
		if len(r.list) == 0 {
			continue
		}
		f, err := s.store.read(ctx, r)
		if err != nil {
			return nil, nil, err
		}
		if _, users := levels(r.list); users && !whole {
			for user := range within.users {
				delete(b.accountOf, user)
			}
			maps.Copy(b.accountOf, f.accountOf)
		}
		parts = append(parts, part{r.list, f})
	}
	return parts, b, nil
}

// decide returns the records of a round on f: outcomes, changed states and changed
// scores. held: some signal is not evaluated, so scores are not either.
func (s *Service) decide(app string, all []*definition, f *facts, tick func(time.Duration) evaluate.Tick, held bool) []*kgo.Record {
	var records []*kgo.Record
	for list := all; len(list) > 0; {
		n := 1
		for n < len(list) && list[n].sharesScore(list[0]) {
			n++
		}
		records = append(records, s.evaluate(app, list[:n], f, tick(list[0].step))...)
		list = list[n:]
	}
	if !held {
		records = append(records, s.health(app, all, f, tick(day))...)
	}
	return records
}

// window is the shortest window of a signal.
func (s *definition) window() time.Duration {
	shortest := insight.MaxWindow
	s.measures(func(m *insight.Measure, _ string, _ evaluate.Tick) { shortest = min(shortest, m.Window) })
	return shortest
}

// subjects that a signal is evaluated for: those with data or traits, and those of
// which something is kept.
func (s *Service) subjects(app string, sig *definition, f *facts) []string {
	if f.scope != nil {
		return s.subjectsWithin(app, sig, f)
	}
	ids := subjects(sig, f)
	prefix := signal.Key(signal.KeySubject, app, sig.use, sig.id, "")
	for k := range s.memory.subjects {
		if id, ok := strings.CutPrefix(k, prefix); ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// subjectsWithin is subjects of the scope that f is about.
func (s *Service) subjectsWithin(app string, sig *definition, f *facts) []string {
	var keys []string // of the points of the signal
	sig.measures(func(m *insight.Measure, level string, _ evaluate.Tick) {
		if level == sig.level {
			keys = append(keys, measureKey(m, level, sig.step))
		}
	})
	var ids []string
	for id := range f.scope.of(sig.level) {
		_, known := f.traits[sig.level][id]
		if _, kept := s.memory.subjects[signal.Key(signal.KeySubject, app, sig.use, sig.id, id)]; known || kept || slices.ContainsFunc(keys, func(key string) bool { return f.points[key][id] != nil }) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// subjects returns the subjects for which a signal is evaluated: those with data, and
// those with stored state.
func subjects(sig *definition, f *facts) []string {
	if sig.level == insight.LevelApp {
		return []string{""}
	}
	ids := map[string]bool{}
	sig.measures(func(m *insight.Measure, level string, _ evaluate.Tick) {
		if level == sig.level {
			for id := range f.points[measureKey(m, level, sig.step)] {
				ids[id] = true
			}
		}
	})
	for id := range f.traits[sig.level] {
		ids[id] = true
	}
	return slices.Sorted(maps.Keys(ids))
}

// sharesScore reports whether both are bands of one score. In the order of compare the
// bands of a score are neighbours.
func (s *definition) sharesScore(o *definition) bool {
	score, _, band := strings.Cut(s.id, bandSignal("", ""))
	other, _, _ := strings.Cut(o.id, bandSignal("", ""))
	return band && s.use == o.use && score == other
}

// evaluate returns the records of a signal, or of all bands of a score: their outcomes,
// and the changed states. The bands are evaluated account by account, so that the
// account's score is computed once for each tick and not once for each band.
func (s *Service) evaluate(app string, bands []*definition, f *facts, now evaluate.Tick) []*kgo.Record {
	var all []string
	of := make([]map[string]bool, len(bands))
	for i, sig := range bands {
		ids := s.subjects(app, sig, f)
		if len(bands) == 1 {
			all = ids
			break
		}
		of[i] = make(map[string]bool, len(ids))
		for _, id := range ids {
			of[i][id] = true
		}
		all = append(all, ids...)
	}
	slices.Sort(all)
	var records []*kgo.Record
	for _, subject := range slices.Compact(all) {
		for i, sig := range bands {
			if len(bands) == 1 || of[i][subject] {
				records = append(records, s.advance(app, sig, f, subject, now)...)
			}
		}
	}
	return records
}

// advance evaluates a signal about a subject.
func (s *Service) advance(app string, sig *definition, f *facts, subject string, now evaluate.Tick) []*kgo.Record {
	var records []*kgo.Record
	k := signal.Key(signal.KeySubject, app, sig.use, sig.id, subject)
	before, had := s.memory.subjects[k]
	state := before
	// The lists of before belong to the memory.
	state.Said, state.Off = slices.Clone(before.Said), slices.Clone(before.Off)
	excluded := f.excluded[sig.level][subject]
	outcomes := state.Advance(evaluate.Input{
		Now: now, Horizon: ticks(s.cfg.Horizon, sig.step), Rules: sig.rules(f, subject), LongestFor: sig.longestFor(), Changed: true,
		Inactive: !sig.active(f, subject), Excluded: excluded,
		NewID: func(from evaluate.Tick, n int) string { return alertID(app, sig.use, sig.id, subject, from, n) },
	})
	if (len(outcomes) > 0 || !state.Equal(&before)) && sig.level == insight.LevelUser && s.memory.erased.Has(app, subject) {
		// The user's events have no name any more, which would look like a correction.
		if had {
			records = append(records, stateRecord(s.names, k, nil))
		}
		return records
	}
	for _, o := range outcomes {
		records = append(records, alertRecord(s.names, s.record(app, sig, f, subject, o, excluded)))
	}
	switch forget := state.Forget(); {
	case forget && had:
		records = append(records, stateRecord(s.names, k, nil))
	case !forget && !state.Equal(&before):
		records = append(records, stateRecord(s.names, k, state))
	}
	return records
}

// record returns the record of an outcome.
func (s *Service) record(app string, sig *definition, f *facts, subject string, o evaluate.Outcome, excluded bool) *signal.Record {
	v := sig.version(o.Version)
	m := v.meta()
	r := &signal.Record{
		Message: signal.Message{
			ID: "msg_" + uuid.Must(uuid.NewV7()).String(), AlertID: o.ID, App: app, Signal: sig.id, Version: o.Version, State: o.State,
			Level: sig.level, Subject: subject, Severity: insight.Severities()[0], Owner: m.Owner, At: timeOf(o.At, sig.step),
			Reason: sig.reason(f, subject, o, excluded), Title: m.Description,
		},
		Use: sig.use, Facts: o.Facts, From: timeOf(o.From, sig.step), Written: s.now().UTC(),
		Silent: o.Late && o.To != evaluate.Open,
	}
	if sig.level == insight.LevelApp {
		r.Subject = app
	}
	if o.To != evaluate.Open {
		to := timeOf(o.To, sig.step)
		r.To = &to
	}
	if a := v.alert; a != nil {
		r.Severity, r.Audience, r.Playbook, r.Closes = a.Severity, a.Audience, a.Playbook, a.Closes
	}
	if h := v.health; h != nil {
		score := (&compiler{s: sig, f: f, subject: subject}).score(h)
		r.Signal, r.Band = h.ID, h.Bands[v.band].ID
		r.Facts = signal.Facts{Value: score.at(o.At), Limit: h.Bands[v.band].From}
		// A change of band is two changes; the band that was entered is delivered.
		r.Silent = r.Silent || (o.State == signal.Resolved && !o.Left)
	}
	account := subject
	if sig.level == insight.LevelUser {
		account = f.accountOf[subject]
	}
	r.Owner = cmp.Or(f.traits[insight.LevelAccount][account]["owner"], r.Owner)
	if sig.use != insight.UseAlert {
		r.State = map[string]string{signal.Firing: signal.Entered, signal.Resolved: signal.Left, signal.Retracted: signal.Retracted}[o.State]
	}
	return r
}

// version returns the version with that number, else the newest that is defined.
func (s *definition) version(number uint32) *version {
	for _, exact := range []bool{true, false} {
		for i := len(s.versions) - 1; i >= 0; i-- {
			if m := s.versions[i].meta(); m != nil && (!exact || m.Version == number) {
				return &s.versions[i]
			}
		}
	}
	return s.newest() // cannot happen: the first version is defined
}
