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
		{ask(all, "behaviour", ", unit = '"+unit+"'"), o.Behaviour(unit)},
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

// Who came with a listed user agent is left out wherever usage of their ids counts
// today: moves take the exclusion with them, in both directions, and an erasure ends it.
func TestBotsAreExcludedAsOfNow(t *testing.T) {
	s := newStore(t)
	at := time.Date(2026, 11, 18, 9, 0, 0, 0, time.UTC)
	const browser, bot = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Mozilla/5.0 (compatible; GOOGLEBOT/2.1)"
	event := func(n int, kind, user, anonymous, actor, actorKind, agent string) string {
		return tuple("shop", kind, "Event scan", fmt.Sprint("m", n), user, anonymous, actor, actorKind, "acme", "event", "scan", "till", "sales", at.Add(time.Duration(n)*time.Minute), at, 1, `{"method":"GET","route":"/r","status":200}`, agent, topic, 0, n)
	}
	s.insert(t, "events", "app_id, kind, event, message_id, user_id, anonymous_id, actor_id, actor_kind, account_id, account_source, feature_id, module_id, product_id, event_time, received_at, quantity, properties, user_agent, source_topic_id, source_partition, source_offset", []string{
		event(1, "track", "", "v1", "v1", "anonymous", bot),                 // a bot
		event(2, "track", "", "v2", "v2", "anonymous", bot),                 // a bot, whose device turns out to be ann's
		event(3, "track", "ann", "", "ann", "user", browser),                //
		event(4, "track", "", "v3", "bob", "user", bot),                     // linked to bob on arrival, but it is carol's
		event(5, "track", "bob", "", "bob", "user", browser),                //
		event(6, "track", "carol", "", "carol", "user", browser),            //
		event(7, "track", "dan", "", "dan", "user", bot),                    // signs in as a bot
		event(8, "track", "dan", "", "dan", "user", browser),                //
		event(9, "track", "eve", "", "eve", "user", browser),                //
		event(10, "track", "", "v1", "v1", "anonymous", ""),                 //
		event(11, "api_call", "", "", "", "account", "GoogleBot-Monitor/1"), // a server's own calls
		event(12, "api_call", "", "", "", "account", "curl/8"),
		event(13, "api_call", "eve", "", "eve", "user", "curl/8"),
		event(14, "api_call", "dan", "", "dan", "user", "curl/8"),
		event(15, "identify", "frank", "", "frank", "user", bot), // no usage
		event(16, "track", "frank", "", "frank", "user", "VoogleBot"),
	})
	move := func(offset, events int, anonymous string, from, to Who) (rows []string) {
		for i, who := range []Who{from, to} {
			user := ""
			if who.Kind == "user" {
				user = who.ID
			}
			n := (2*i - 1) * events
			rows = append(rows, tuple("shop", "acme", "event", who.ID, who.Kind, user, anonymous, "scan", "till", "sales", "", "Event scan", at.Format(time.DateTime), time.Unix(0, 0), time.Unix(0, 0), 0, n, n, topic, offset, offset, i+1))
		}
		return rows
	}
	define := func(version int, agents ...string) {
		rows := []string{tuple("shop", version, "version", "", "", "")}
		for _, a := range agents {
			rows = append(rows, tuple("shop", version, "exclude", "user_agent", "", a))
		}
		s.insert(t, s.internal+".insight_rules", "app_id, version, use, match, key, value", rows)
	}
	base := "(app = 'shop', from = '2026-11-01', to = '2026-12-01', zone = 'UTC'"
	check := func(what string, excluded []Row, active, calls int) {
		t.Helper()
		compare(t, s, question{"SELECT kind, id, reason FROM exclusions(app = 'shop')", excluded})
		compare(t, s, question{"SELECT active_people FROM active_users" + base + ", period = 'month')", []Row{{fmt.Sprint(active)}}})
		compare(t, s, question{"SELECT sum(calls) FROM api_usage" + base + ")", []Row{{fmt.Sprint(calls)}}})
		compare(t, s, question{"SELECT sum(people) FROM excluded_usage" + base + ")", []Row{{fmt.Sprint(len(excluded))}}})
		if t.Failed() {
			t.Fatal(what)
		}
	}
	check("without a list", nil, 8, 4)
	define(1, "googlebot", "nothing")
	const why = "user_agent googlebot"
	check("before any move", []Row{{"anonymous", "v1", why}, {"anonymous", "v2", why}, {"user", "bob", why}, {"user", "dan", why}}, 4, 2)
	s.correct(t, move(100, 1, "v2", Who{"anonymous", "v2"}, Who{"user", "ann"}))
	s.correct(t, move(101, 1, "v3", Who{"user", "bob"}, Who{"user", "carol"}))
	check("after the moves", []Row{{"anonymous", "v1", why}, {"user", "ann", why}, {"user", "carol", why}, {"user", "dan", why}}, 3, 2)
	define(2, "voogle", "vooglebot")
	check("with another list", []Row{{"user", "frank", "user_agent voogle"}}, 6, 4)
	define(3, "googlebot")
	s.correct(t, move(102, 3, "", Who{"user", "dan"}, Who{"erased", ""})) // and what erase deletes:
	s.exec(t, "ALTER TABLE "+s.internal+".user_agents DELETE WHERE actor_kind = 'user' AND actor_id = 'dan' SETTINGS mutations_sync = 2")
	check("after an erasure", []Row{{"anonymous", "v1", why}, {"user", "ann", why}, {"user", "carol", why}}, 3, 3)
}
