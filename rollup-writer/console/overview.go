package console

import (
	"fmt"
	"net/http"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
)

type tile struct {
	Name   string
	Value  string
	Change page.Difference
	Spark  []float64
	Door   door
}

type featureChange struct {
	Feature            named
	Adopted, Dropped   int64
	AdoptedBy, LeftOut []named
}

type silentAccount struct {
	Account named
	LastDay string
	Before  int64
}

type overviewBody struct {
	Empty    *emptyState
	Tiles    []tile
	Life     []tile
	Chart    *page.Lines
	Door     door
	Fit      []fitStep // empty: no event is defined as a sign-up
	FitDoor  door
	Value    string // time to first value, in words
	Changes  []featureChange
	Silent   []silentAccount
	More     int // silent accounts beyond those shown
	Doors    map[string]door
	Accounts string
}

// emptyState explains how to send a first event.
type emptyState struct{ Gateway, Key, Live string }

func (c *Console) empty(s *scope) *emptyState {
	key := c.cfg.WriteKey
	if key == "" {
		key = "YOUR_WRITE_KEY"
	}
	return &emptyState{Gateway: c.cfg.GatewayURL, Key: key, Live: s.link("/live")}
}

func (c *Console) overview(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "summary", "active_by_day", "lifecycle", "stickiness", "changes", "silent_accounts", "fit", "time_to_value")
	if err != nil {
		return nil, err
	}
	p := &page.Page{Title: "Overview"}
	b := &overviewBody{Doors: map[string]door{}, Door: s.door("active_by_day"), Accounts: s.link("/accounts")}
	p.Body = b
	sum := a["summary"]
	count := func(name string) int64 { return number(sum.cell(0, name)) }
	if count("events") == 0 && count("events_before") == 0 {
		p.Sentence = fmt.Sprintf("No usage of %s arrived in %s or in %s.", s.App, s.period(), s.before())
		b.Empty = c.empty(s)
		return p, nil
	}
	p.Sentence = fmt.Sprintf("%s and %s were active in %s, %s.", page.Plural(count("accounts"), "account", "accounts"),
		page.Plural(count("people"), "person", "people"), s.period(), compared(count("people"), count("people_before"), s.before()))
	if s.Days == 1 {
		p.Sentence = fmt.Sprintf("%s and %s were active today so far, %s.", page.Plural(count("accounts"), "account", "accounts"),
			page.Plural(count("people"), "person", "people"), compared(count("people"), count("people_before"), "yesterday"))
	}

	days := a["active_by_day"]
	series := func(name string) []float64 {
		var values []float64
		for i := range days.Rows {
			values = append(values, fraction(days.cell(i, name)))
		}
		return values
	}
	stick := fraction(a["stickiness"].cell(0, "stickiness"))
	b.Tiles = []tile{
		{"Active people", page.Whole(count("people")), page.Change(count("people"), count("people_before")), series("people"), s.door("active_by_day")},
		{"Active accounts", page.Whole(count("accounts")), page.Change(count("accounts"), count("accounts_before")), series("accounts"), s.door("active_by_day")},
		{"Events", page.Whole(count("events")), page.Change(count("events"), count("events_before")), series("events"), s.door("summary")},
		{"Stickiness", page.Percent(stick), page.Difference{Text: fmt.Sprintf("%.1f people on an average day", fraction(a["stickiness"].cell(0, "average_daily_people"))), Class: "same"}, nil, s.door("stickiness")},
	}
	life := a["lifecycle"]
	for _, l := range []struct{ name, column string }{{"New", "new"}, {"Returning", "returning"}, {"Resurrected", "resurrected"}, {"Dormant", "dormant"}} {
		b.Life = append(b.Life, tile{Name: l.name, Value: page.Whole(number(life.cell(0, l.column))), Door: s.door("lifecycle")})
	}
	chart := &page.Lines{Title: "People and accounts active by day", Open: true}
	for i := range days.Rows {
		chart.Days = append(chart.Days, instant(days.cell(i, "day")))
	}
	chart.Series = []page.Series{{Name: "people", Values: series("people"), Class: "a"}, {Name: "accounts", Values: series("accounts"), Class: "b"}}
	if err := c.mark(r.Context(), s, chart); err != nil {
		return nil, err
	}
	b.Chart = chart

	b.fit(a["fit"], a["time_to_value"])
	b.FitDoor = s.door("fit")
	b.Doors["time_to_value"] = s.door("time_to_value")
	changes := a["changes"]
	for i := range changes.Rows {
		ch := featureChange{
			Feature: s.featureLink(text(changes.cell(i, "feature_id")), ""),
			Adopted: number(changes.cell(i, "adopted")), Dropped: number(changes.cell(i, "dropped")),
		}
		for _, id := range texts(changes.cell(i, "adopted_by")) {
			ch.AdoptedBy = append(ch.AdoptedBy, s.accountLink(id))
		}
		for _, id := range texts(changes.cell(i, "dropped_by")) {
			ch.LeftOut = append(ch.LeftOut, s.accountLink(id))
		}
		b.Changes = append(b.Changes, ch)
	}
	b.Doors["changes"], b.Doors["silent_accounts"], b.Doors["lifecycle"] = s.door("changes"), s.door("silent_accounts"), s.door("lifecycle")
	silent := a["silent_accounts"]
	for i := range silent.Rows {
		if i == 6 {
			b.More = len(silent.Rows) - i
			break
		}
		b.Silent = append(b.Silent, silentAccount{
			Account: s.accountLink(text(silent.cell(i, "account_id"))),
			LastDay: instant(silent.cell(i, "last_day")).Format("2 Jan"), Before: number(silent.cell(i, "events_before")),
		})
	}
	return p, nil
}

// fitStep is a step from the sign-up page to payment.
type fitStep struct {
	Name  string
	Count int64
	Share string // of those before it
	Time  string // median
}

// fit fills in the way from sign-up to payment, of the steps that are defined.
func (b *overviewBody) fit(fit, value *Result) {
	count := func(name string) int64 { return number(fit.cell(0, name)) }
	share := func(name string) string {
		if v := fit.cell(0, name); v != nil {
			return page.Percent(fraction(v))
		}
		return ""
	}
	if count("saw_signup_page") > 0 {
		b.Fit = append(b.Fit, fitStep{"saw a sign-up page", count("saw_signup_page"), "", ""}, fitStep{"of them signed up", count("signed_up_after_page"), share("signup_rate"), duration(fit.cell(0, "median_seconds_to_signup"))})
	}
	if count("signups") > 0 {
		b.Fit = append(b.Fit, fitStep{"signed up", count("signups"), "", ""}, fitStep{"activated", count("activated"), share("activation_rate"), duration(fit.cell(0, "median_seconds_to_activation"))},
			fitStep{"paid", count("converted"), share("free_to_paid_rate"), duration(fit.cell(0, "median_seconds_to_paid"))})
	}
	if n := number(value.cell(0, "reached_value")); n > 0 {
		b.Value = fmt.Sprintf("%s of %s first seen in the period reached first value (%s), half of them within %s.", page.Whole(n), page.Plural(number(value.cell(0, "people")), "person", "people"),
			page.Percent(fraction(value.cell(0, "value_rate"))), duration(value.cell(0, "median_seconds_to_value")))
	}
}

// dayText is a day of a table; empty for none.
func dayText(v any) string {
	t := instant(v)
	if t.Unix() <= 0 {
		return ""
	}
	return t.Format("2 Jan 2006")
}

func (s *scope) stampText(v any) (local, utc string) {
	t := instant(v)
	if t.Unix() <= 0 {
		return "", ""
	}
	return t.In(s.Zone).Format("2 Jan 15:04:05"), t.UTC().Format(time.RFC3339)
}
