package console

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
)

// scope is the subject of a page, all of it from its address: a copied link opens the
// same page.
type scope struct {
	App      string
	Days     int // length of the period
	Zone     *time.Location
	From, To time.Time // whole hours, UTC; To is in the future while today is not over
	Before   time.Time // start of the period before
	Now      time.Time
	Until    string       // the period's last day in words, where it is not today
	grant    signin.Grant // of the viewer, on App
	values   question.Values
	steps    []string          // of a funnel; the first is that of a path
	without  []string          // steps that end a try of a funnel
	names    map[string]string // of accounts, by id
	features map[string]string // names of features, by id
}

// periods that the menu offers, in days.
var periods = []int{1, 7, 28, 90, 365}

const defaultDays = 28

// scopeOf reads the address. It returns an error that names what it cannot use.
func (c *Console) scopeOf(r *http.Request, app string) (*scope, error) {
	q := r.URL.Query()
	s := &scope{App: app, Days: defaultDays, Now: c.now()}
	if text := q.Get("p"); text != "" {
		n, err := strconv.Atoi(strings.TrimSuffix(text, "d"))
		if err != nil || n < 1 || n > 400 {
			return nil, &refusal{fmt.Sprintf("The period %q cannot be used.", text), "Give 1d to 400d."}
		}
		s.Days = n
	}
	zone := q.Get("zone")
	if zone == "" {
		zone = c.cfg.Zone
	}
	var err error
	if s.Zone, err = time.LoadLocation(zone); err != nil || zone == "Local" {
		return nil, &refusal{fmt.Sprintf("The time zone %q is unknown.", zone), "Give a name such as Europe/Vienna."}
	}
	local := s.Now.In(s.Zone)
	day := func(back int) time.Time {
		return time.Date(local.Year(), local.Month(), local.Day()-back, 0, 0, 0, 0, s.Zone).UTC()
	}
	if text := q.Get("until"); text != "" {
		if !strings.HasPrefix(r.URL.Path, "/api/v1/") { // a page says "the last 28 days"
			return nil, &refusal{"Pages show periods that end today.", "Leave out until, or ask /api/v1."}
		}
		end, err := time.ParseInLocation(time.DateOnly, text, s.Zone)
		if err != nil || end.After(day(-1)) || end.Year() < 2000 {
			return nil, &refusal{fmt.Sprintf("until=%q cannot be used.", text), "Give the day after the period's last, such as 2026-11-01, at most tomorrow."}
		}
		local = end.AddDate(0, 0, -1)
		s.Until = local.Format("2 Jan 2006")
	}
	s.To, s.From, s.Before = day(-1), day(s.Days-1), day(2*s.Days-1)
	// Totals are kept by UTC hour: a zone whose days begin between two full hours would
	// silently give wrong results.
	for _, t := range []time.Time{s.To, s.From, s.Before} {
		if t.Minute() != 0 || t.Second() != 0 {
			return nil, &refusal{fmt.Sprintf("Days of the zone %s begin at half or quarter past a UTC hour, and the totals are kept by UTC hour.", zone), "Choose a zone with whole hours, such as UTC."}
		}
	}
	s.values = question.Values{
		"app": app, "zone": s.Zone.String(), "from": stamp(s.From), "to": stamp(s.To), "before": stamp(s.Before),
		"first": s.From.In(s.Zone).Format(time.DateOnly), "end": s.To.In(s.Zone).Format(time.DateOnly),
		"account": q.Get("account"), "alert": q.Get("alert"), "person": q.Get("person"), "feature": q.Get("feature"), "q": q.Get("q"), "path": q.Get("path"), "by": q.Get("by"),
		"since":  cmp.Or(q.Get("since"), "0"),
		"window": cmp.Or(q.Get("window"), "86400"),
		"unit":   cmp.Or(q.Get("unit"), "person"),
		"grain":  cmp.Or(q.Get("grain"), "day"),

		"ordering": cmp.Or(q.Get("ordering"), "ordered"),
	}
	s.steps, s.without = trimmed(q["step"]), trimmed(q["without"])
	if len(s.steps) > 0 {
		s.values["step"] = s.steps[0]
	} else {
		s.values["step"] = ""
	}
	s.values["steps"], s.values["without"] = question.Array(s.steps), question.Array(s.without)
	return s, s.check()
}

// trimmed are the texts without blanks around them, and without those that are empty.
func trimmed(texts []string) (kept []string) {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t != "" {
			kept = append(kept, t)
		}
	}
	return kept
}

// mostSteps of a funnel, and of those that end a try of it.
const mostSteps = 8

// check refuses values that no question can use.
func (s *scope) check() error {
	for _, name := range []string{"since", "window"} {
		if n, err := strconv.ParseInt(s.values[name], 10, 64); err != nil || n < 0 {
			return &refusal{fmt.Sprintf("%s=%q is not a whole number.", name, s.values[name]), "Leave it out."}
		}
	}
	for name, allowed := range map[string][]string{"unit": {"person", "account"}, "grain": {"day", "week", "month"}, "ordering": orderings} {
		if !slices.Contains(allowed, s.values[name]) {
			return &refusal{fmt.Sprintf("%s=%q is unknown.", name, s.values[name]), "Give one of " + strings.Join(allowed, ", ") + "."}
		}
	}
	for _, steps := range [][]string{s.steps, s.without} {
		if len(steps) > mostSteps {
			return &refusal{fmt.Sprintf("A funnel of %d steps cannot be computed.", len(steps)), fmt.Sprintf("Give at most %d.", mostSteps)}
		}
	}
	by := s.values["by"]
	if trait, _ := strings.CutPrefix(strings.TrimPrefix(by, "account."), "user."); by != "" && (trait == "" || trait == by) && !slices.Contains(dimensions, by) {
		return &refusal{fmt.Sprintf("by=%q is no dimension.", by), "Give " + strings.Join(dimensions, ", ") + ", account.TRAIT or user.TRAIT."}
	}
	return nil
}

// orderings of the steps of a funnel.
var orderings = []string{"ordered", "any", "strict"}

// dimensions by which activity and funnels can be broken down, besides traits.
var dimensions = []string{"product", "module", "feature", "account", "role"}

// stamp is an instant as ClickHouse reads it: whole seconds since 1970.
func stamp(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// query is the part of every address that identifies the scope.
func (s *scope) query(extra ...string) string {
	v := url.Values{"app": {s.App}, "p": {fmt.Sprintf("%dd", s.Days)}, "zone": {s.Zone.String()}}
	for i := 0; i+1 < len(extra); i += 2 {
		if i > 0 && extra[i] == extra[i-2] { // a list, such as the steps of a funnel
			v.Add(extra[i], extra[i+1])
		} else {
			v.Set(extra[i], extra[i+1])
		}
	}
	return v.Encode()
}

func (s *scope) link(path string, extra ...string) string { return path + "?" + s.query(extra...) }

// period in words.
func (s *scope) period() string {
	if s.Until != "" {
		return "the " + page.Plural(s.Days, "day", "days") + " to " + s.Until
	}
	switch s.Days {
	case 1:
		return "today"
	case 365:
		return "the last 365 days"
	}
	return fmt.Sprintf("the last %d days", s.Days)
}

func (s *scope) before() string {
	if s.Days == 1 {
		return "yesterday"
	}
	return fmt.Sprintf("the %d days before", s.Days)
}

// days lists the days of the period, in the zone.
func (s *scope) days() []time.Time {
	var days []time.Time
	for d := s.From.In(s.Zone); d.Before(s.To); d = time.Date(d.Year(), d.Month(), d.Day()+1, 0, 0, 0, 0, s.Zone) {
		days = append(days, d)
	}
	return days
}

// menu of the page head.
func (s *scope) menu(current string, r *http.Request, apps []string) page.Menu {
	m := page.Menu{App: s.App, Zone: s.Zone.String(), Path: r.URL.Path, AsOf: s.Now.In(s.Zone).Format("15:04:05"), Period: fmt.Sprintf("%dd", s.Days)}
	for _, e := range []struct{ path, name string }{
		{"overview", "Overview"}, {"usage", "Usage"}, {"accounts", "Accounts"}, {"alerts", "Alerts"}, {"explore", "Explore"}, {"boards", "Boards"}, {"live", "Live"}, {"quality", "Quality"}, {"health", "Health"},
	} {
		if n := needs[e.path]; s.grant.Role < n.role || n.people && !s.grant.People {
			continue
		}
		m.Entries = append(m.Entries, page.Link{Text: e.name, URL: s.link("/" + e.path), Current: e.path == current})
	}
	keep := func(name, value string) string {
		v := r.URL.Query()
		v.Set("app", s.App)
		v.Set(name, value)
		return r.URL.Path + "?" + v.Encode()
	}
	for _, days := range periods {
		text := fmt.Sprintf("%d days", days)
		if days == 1 {
			text = "today"
		}
		m.Periods = append(m.Periods, page.Link{Text: text, URL: keep("p", fmt.Sprintf("%dd", days)), Current: days == s.Days})
	}
	for _, app := range apps {
		m.Apps = append(m.Apps, page.Link{Text: app, URL: s.withApp(current, app), Current: app == s.App})
	}
	for name, values := range r.URL.Query() {
		if name != "zone" && name != "token" {
			for _, value := range values {
				m.Hidden = append(m.Hidden, page.Pair{Name: name, Value: value})
			}
		}
	}
	return m
}

// withApp is the menu's address for another app: ids of one app have no meaning in
// another.
func (s *scope) withApp(current, app string) string {
	other := *s
	other.App = app
	return other.link("/" + current)
}
