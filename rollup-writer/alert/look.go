package alert

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/signal"
)

// Look evaluates definitions without saying anything: for plan and backtest. Close it.
type Look struct {
	store  store
	app    string
	settle time.Duration
}

// OpenLook connects to the database, which must exist.
func OpenLook(cfg *clickhouse.Config, app string) (*Look, error) {
	conn, err := clickhouse.OpenViews(cfg)
	if err != nil {
		return nil, err
	}
	return &Look{store{conn}, app, DefaultConfig().Settle}, nil
}

// Close closes the connections.
func (l *Look) Close() error { return l.store.conn.Close() }

// Found is a span in which a signal was true of a subject.
type Found struct {
	Use, Signal, Subject string
	From                 time.Time
	To                   time.Time // zero: it lasts
	Reason               string    // at From
}

// episodes of the signals that want is true of, on history as now known: those that
// began or lasted after from, up to the last tick that is over at to.
func (l *Look) episodes(ctx context.Context, d *insight.Definitions, want func(*definition) bool, from, to time.Time) ([]Found, error) {
	history := []dated{{Rules: d.Rules, signals: d.Signals}}
	list := slices.DeleteFunc(signals(history), func(sig *definition) bool { return !want(sig) })
	now := func(step time.Duration) evaluate.Tick { return tickOf(to, step) - 1 }
	out, err := l.store.exclusions(ctx, l.app)
	if err != nil {
		return nil, err
	}
	f, err := l.store.read(ctx, reading{app: l.app, list: list, now: now, horizon: to.Sub(from), exclusions: out})
	if err != nil {
		return nil, err
	}
	var found []Found
	for _, sig := range list {
		for _, subject := range subjects(sig, f) {
			if !sig.active(f, subject) {
				continue // because of a trait or a role, which have no history
			}
			var state evaluate.Subject
			outcomes := state.Advance(evaluate.Input{
				Now: now(sig.step), Horizon: ticks(to.Sub(from), sig.step), Rules: sig.rules(f, subject), LongestFor: sig.longestFor(), Changed: true,
				Excluded: f.excluded[sig.level][subject],
				NewID:    func(from evaluate.Tick, n int) string { return alertID(l.app, sig.use, sig.id, subject, from, n) },
			})
			for _, o := range outcomes {
				switch o.State {
				case signal.Firing:
					found = append(found, Found{Use: sig.use, Signal: sig.id, Subject: subject, From: timeOf(o.From, sig.step), Reason: sig.reason(f, subject, o, false)})
				case signal.Resolved:
					found[len(found)-1].To = timeOf(o.To, sig.step)
				}
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Found) int { return a.From.Compare(b.From) })
	return found, nil
}

// Backtest returns when an alert would have fired by d between two instants.
func (l *Look) Backtest(ctx context.Context, d *insight.Definitions, id string, from, to time.Time) ([]Found, error) {
	if !slices.ContainsFunc(d.Signals.Alerts, func(a insight.Alert) bool { return a.ID == id }) {
		var ids []string
		for _, a := range d.Signals.Alerts {
			ids = append(ids, a.ID)
		}
		return nil, fmt.Errorf("no alert %q in the definitions; there are %q", id, ids)
	}
	return l.episodes(ctx, d, func(sig *definition) bool { return sig.use == insight.UseAlert && sig.id == id }, from, to)
}

// Touch is what a change of definitions does to a signal today.
type Touch struct {
	Use, Signal string
	// Entering are subjects of which it is true by the new definitions alone, Leaving
	// those of which it is true by the old ones alone.
	Entering, Leaving []string
	Now               int // subjects of which it is true by the new definitions
}

// Touches compares what two definitions say of today, signal by signal. Signals of
// which both say the same are left out.
func (l *Look) Touches(ctx context.Context, before, after *insight.Definitions, now time.Time) ([]Touch, error) {
	type key struct{ use, id string }
	sets := [2]map[key]map[string]bool{}
	for i, d := range []*insight.Definitions{before, after} {
		sets[i] = map[key]map[string]bool{}
		if d == nil {
			continue
		}
		found, err := l.episodes(ctx, d, func(*definition) bool { return true }, now.Add(-DefaultConfig().Horizon), now.Add(-l.settle))
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if !f.To.IsZero() {
				continue
			}
			k := key{f.Use, f.Signal}
			if sets[i][k] == nil {
				sets[i][k] = map[string]bool{}
			}
			sets[i][k][f.Subject] = true
		}
	}
	keys := maps.Clone(sets[0])
	maps.Copy(keys, sets[1])
	var touches []Touch
	for k := range keys {
		t := Touch{Use: k.use, Signal: k.id, Entering: missing(sets[1][k], sets[0][k]), Leaving: missing(sets[0][k], sets[1][k]), Now: len(sets[1][k])}
		if len(t.Entering)+len(t.Leaving) > 0 {
			touches = append(touches, t)
		}
	}
	slices.SortFunc(touches, func(a, b Touch) int {
		return (&definition{use: a.Use, id: a.Signal}).compare(&definition{use: b.Use, id: b.Signal})
	})
	return touches, nil
}

// missing are the members of set that other does not have, sorted.
func missing(set, other map[string]bool) []string {
	var list []string
	for id := range set {
		if !other[id] {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

// Feedback is what receivers said about an alert's messages.
type Feedback struct {
	Signal                                    string
	Alerts, Retracted, Useful, FalsePositives uint64
}

// Feedback returns what was said of the app's alerts so far, by definition.
func (l *Look) Feedback(ctx context.Context) (map[string]Feedback, error) {
	all := map[string]Feedback{}
	err := tables.Each(ctx, l.store.conn, func(f *Feedback) []any {
		return []any{&f.Signal, &f.Alerts, &f.Retracted, &f.Useful, &f.FalsePositives}
	}, func(f *Feedback) { all[f.Signal] = *f },
		"SELECT toString(signal), sum(alerts), sum(retracted), sum(useful), sum(false_positives) FROM alert_precision WHERE app_id = ? GROUP BY signal", l.app)
	if err != nil {
		return nil, fmt.Errorf("read feedback: %w", err)
	}
	return all, nil
}
