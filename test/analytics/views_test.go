package analytics

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// question is a query over a view and the rows that it has to return, in any
// order.
type question struct {
	query string
	want  []Row
}

// questions asks every view about a world.
func questions(o *Oracle, seed uint64) []question {
	w := o.w
	r := rand.New(rand.NewPCG(seed, 1))
	base := fmt.Sprintf("app = '%s', from = '%s', to = '%s', zone = '%s'", w.App, w.From, w.To, w.Zone)
	period := pick(r, []string{"day", "week", "sunday_week", "month", "quarter"})
	period2 := pick(r, []string{"day", "week", "month"})
	by := pick(r, []string{"product", "module", "feature", "account", "role", "account.plan", "user.team"})
	unit := pick(r, []string{"person", "account"})
	level := pick(r, []string{"feature", "module", "product"})
	steps := pick(r, [][]string{{"scan", "bag", "pay"}, {"scan", "scan"}, {"scan", "bag", "scan"}, {"event:Home", "scan", "event:Event pay", "invoice"}, {"bag"}, {"pay", "bag", "pay", "bag"}})
	window := pick(r, []time.Duration{time.Second, time.Hour, 24 * time.Hour, 14 * 24 * time.Hour})
	funnelBy := pick(r, []string{"", "account", "role", "user.team"})
	start, back := pick(r, [][]string{{}, {"scan"}, {"pay", "bag"}}), pick(r, [][]string{{}, {"scan"}})
	step := pick(r, []string{"scan", "pay", "event:Home"})
	list := func(words []string) string {
		quoted := make([]string, len(words))
		for i, s := range words {
			quoted[i] = text(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	ask := func(columns, view, more string) string {
		return "SELECT " + columns + " FROM " + view + "(" + base + more + ")"
	}
	all := "* EXCEPT app_id"
	funnel := o.Funnel(steps, window, "person", "")
	for i := range funnel {
		funnel[i] = funnel[i][1:] // has no value
	}
	inFunnel := fmt.Sprintf(", steps = %s, window = %d", list(steps), int(window.Seconds()))
	tries := pick(r, [][]string{{"scan", "bag", "pay"}, {"scan", "bag", "scan"}, {"scan", "event:Home", "scan", "bag"}, {"event:Event scan", "scan"}})
	tryWindow := pick(r, []time.Duration{time.Hour, 24 * time.Hour, 14 * 24 * time.Hour})
	options := func(ordering string, without ...string) question {
		return question{
			ask(all, "funnel_options", fmt.Sprintf(", steps = %s, window = %d, unit = '%s', by = '%s', ordering = '%s', without = %s",
				list(tries), int(tryWindow.Seconds()), unit, funnelBy, ordering, list(without))),
			o.FunnelOptions(tries, tryWindow, unit, funnelBy, ordering, without),
		}
	}
	var reached []Row
	for _, p := range o.FunnelPeople(steps, window, unit, funnelBy) {
		reached = append(reached, row(p.Kind, p.ID, p.Level, p.Value))
	}
	person := pick(r, w.Users)
	return []question{
		{ask("source_partition, source_offset, actor_id, actor_kind, account_id, account_source, role, feature_id, module_id, product_id", "events_now", ""), o.Attribution()},
		{ask(all, "active_users", ", period = '"+period+"'"), o.ActiveUsersBy(period, "")},
		{ask(all, "active_users_by", ", period = '"+period2+"', by = '"+by+"'"), o.ActiveUsersBy(period2, by)},
		{ask(all, "stickiness", ""), o.Stickiness()},
		{ask(all, "stickiness_histogram", ""), o.StickinessHistogram()},
		{ask(all, "lifecycle", ", period = '"+period+"'"), o.Lifecycle(period, "person")},
		{ask(all, "lifecycle_by", ", period = '"+period2+"', unit = 'account'"), o.Lifecycle(period2, "account")},
		{ask(all, "adoption", ""), o.Adoption("feature")},
		{ask(all, "adoption_by", ", level = '"+level+"'"), o.Adoption(level)},
		{ask(all, "adoption_changes", ""), o.AdoptionChanges()},
		{ask(all, "feature_first_use", ""), o.FirstUse()},
		{ask(all, "feature_first_use_summary", ""), o.FirstUseSummary()},
		{ask(all, "licence_use", ""), o.LicenceUse()},
		{ask(all, "retention", ", period = '"+period2+"'"), o.Retention(period2, "person", nil, nil)},
		{ask(all, "retention_by", fmt.Sprintf(", period = '%s', unit = '%s', start = %s, return = %s", period, unit, list(start), list(back))), o.Retention(period, unit, start, back)},
		{ask(all, "funnel", inFunnel), funnel},
		{ask(all, "funnel_by", inFunnel+", unit = '"+unit+"', by = '"+funnelBy+"'"), o.Funnel(steps, window, unit, funnelBy)},
		options("ordered"), options("ordered", "pay", "event:Home"), options("any"), options("any", "invoice"), options("strict"), options("strict", "pay"),
		{ask("unit_kind, unit_id, level, value", "funnel_people", inFunnel+", unit = '"+unit+"', by = '"+funnelBy+"'"), reached},
		{ask(all, "sessions", ""), o.Sessions()},
		{ask(all, "session_summary", ", period = '"+period+"'"), o.SessionSummary(period)},
		{ask(all, "paths_after", ", step = '"+step+"', length = 4"), o.Paths(step, 4, false)},
		{ask(all, "paths_before", ", step = '"+step+"', length = 3"), o.Paths(step, 3, true)},
		{"SELECT * EXCEPT app_id FROM fit_people(app = '" + w.App + "')", o.FitPeople()},
		{ask(all, "fit", ""), o.Fit()},
		{ask(all, "time_to_value", ""), o.TimeToValue()},
		{ask(all, "friction", ""), o.Friction()},
		{ask(all, "touches", ""), o.Touches()},
		{ask(all, "excluded_usage", ""), o.ExcludedUsage()},
		{ask(all, "metadata_breakdown", ", step = '"+step+"', path = 'till.kind'"), o.Breakdown(step)},
		{ask("event_time, kind, event, feature_id, account_id, role", "user_timeline", ", user = '"+person+"'") + " WHERE kind NOT IN ('identify', 'group')", o.Timeline(person)},
	}
}

// Every view says what a brute-force computation over the events says, in random
// worlds with repeated instants and steps, long gaps, several zones, the turns of
// daylight saving, visitors who turn out to be users, remapped features and
// accounts that come late, as definitions exclude and include.
func TestViewsEqualBruteForce(t *testing.T) {
	worlds, events := 1, 600
	if os.Getenv("UPTAKE_LONG") != "" {
		worlds, events = 60, 2000
	}
	first := uint64(5) // in a zone whose summer is half an hour long
	s := newStore(t)
	for seed := range uint64(worlds) {
		w := NewWorld(fmt.Sprintf("w%d", seed), seed+first, 40, events)
		s.arrive(t, w)
		rows := corrections(w)
		for _, part := range [][]string{nil, rows[:len(rows)/4*2], rows[len(rows)/4*2:]} {
			s.correct(t, part)
			addUp(t, s, w)
		}
		o, err := NewOracle(w)
		if err != nil {
			t.Fatal(err)
		}
		var workers sync.WaitGroup
		list := make(chan question)
		for range 2 {
			workers.Go(func() {
				for q := range list {
					compare(t, s, q)
				}
			})
		}
		empty := 0
		for _, q := range questions(o, seed) {
			list <- q
			if len(q.want) == 0 {
				empty++
			}
		}
		close(list)
		workers.Wait()
		if empty > 4 {
			t.Errorf("%d questions about world %s have no rows in their answers", empty, w.App)
		}
	}
}

// addUp compares the cells of events_now with those of user_feature_daily. They are
// equal whenever the corrections so far are whole moves, in the order of the log.
func addUp(t *testing.T, s store, w *World) {
	t.Helper()
	const key = "account_id, actor_id, toString(actor_kind) AS kind, toString(role) AS role, toString(feature_id) AS feature, toString(module_id) AS module, toString(product_id) AS product"
	differing, err := s.rows(t.Context(), fmt.Sprintf(`SELECT account_id, actor_id, kind, role, feature, module, product, day, sum(n) AS more_events, sum(q) AS more_quantity FROM
(
	SELECT %[1]s, toDate(event_time) AS day, toInt64(1) AS n, quantity AS q FROM events_now(app = '%[2]s', from = '2026-01-01', to = '2027-01-01', zone = 'UTC')
	UNION ALL
	SELECT %[1]s, day, -events, -quantity FROM user_feature_daily WHERE app_id = '%[2]s'
)
GROUP BY ALL HAVING more_events != 0 OR more_quantity != 0 LIMIT 5`, key, w.App))
	if err != nil || len(differing) > 0 {
		t.Errorf("world %s: events_now differs from user_feature_daily: %q, %v", w.App, differing, err)
	}
}

func compare(t *testing.T, s store, q question) {
	t.Helper()
	got, err := s.rows(t.Context(), q.query)
	if err != nil {
		t.Errorf("%.1500v\nin %s", err, q.query)
		return
	}
	want := byText(slices.Clone(q.want))
	byText(got)
	if slices.EqualFunc(got, want, slices.Equal) {
		return
	}
	var b strings.Builder
	n := 0
	for _, d := range []struct {
		mark string
		a, b []Row
	}{{"got", got, want}, {"want", want, got}} {
		for _, r := range d.a {
			if !slices.ContainsFunc(d.b, func(x Row) bool { return slices.Equal(r, x) }) && n < 8 {
				fmt.Fprintf(&b, "%s %s\n", d.mark, strings.Join(r, " "))
				n++
			}
		}
		n = 0
	}
	t.Errorf("%s: got %d rows, want %d:\n%s", q.query, len(got), len(want), b.String())
}
