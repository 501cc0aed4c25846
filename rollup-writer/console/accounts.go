package console

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
)

type accountRow struct {
	Account              named
	Traits               []page.Pair
	People, Features     int64
	PeopleBefore         int64
	Uses, UsesBefore     int64
	Change               page.Difference
	Health, Band         string // of the first health definition; empty: none
	Alerts               int64  // that fire
	LastDay, Signal, Why string // Signal: lost, falling, steady, growing or new
	Spark                []float64
}

type accountsBody struct {
	Rows   []accountRow
	Total  int
	Door   door
	Counts []page.Pair // signal and how many have it
	Filter string
	All    string
	Links  map[string]string
	Empty  *emptyState
}

// signalOf compares an account with itself in the previous period. The page shows the
// bounds.
func signalOf(people, peopleBefore, uses, usesBefore int64) (signal, why string) {
	switch {
	case usesBefore == 0:
		return "new", "no usage in the period before"
	case uses == 0:
		return "silent", "no usage in this period"
	case float64(uses) <= 0.6*float64(usesBefore):
		why = fmt.Sprintf("%s events in place of %s", page.Whole(uses), page.Whole(usesBefore))
		if people < peopleBefore {
			why += fmt.Sprintf(", %s in place of %s", page.Plural(people, "person", "people"), page.Whole(peopleBefore))
		}
		return "falling", why
	case float64(uses) >= 1.4*float64(usesBefore):
		return "growing", fmt.Sprintf("%s events in place of %s", page.Whole(uses), page.Whole(usesBefore))
	}
	return "steady", ""
}

var signals = []string{"silent", "falling", "steady", "growing", "new"}

func (c *Console) accounts(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "accounts")
	if err != nil {
		return nil, err
	}
	f := a["accounts"]
	b := &accountsBody{Door: s.door("accounts"), Filter: r.URL.Query().Get("signal"), All: s.link("/accounts"), Links: map[string]string{}, Total: len(f.Rows)}
	p := &page.Page{Title: "Accounts", Body: b}
	counts := map[string]int{}
	active := 0
	for i := range f.Rows {
		row := accountRow{
			Account: s.accountLink(text(f.cell(i, "account_id"))), People: number(f.cell(i, "people")), PeopleBefore: number(f.cell(i, "people_before")),
			Features: number(f.cell(i, "features")), Uses: number(f.cell(i, "uses")), UsesBefore: number(f.cell(i, "uses_before")),
			LastDay: dayText(f.cell(i, "last_day")), Spark: s.byDay(f.cell(i, "by_day")),
		}
		row.Alerts = number(f.cell(i, "alerts"))
		if score, ok := f.cell(i, "health").(float64); ok {
			row.Health, row.Band = fmt.Sprintf("%.0f", score), text(f.cell(i, "band"))
		}
		traits, _ := f.cell(i, "traits").(map[string]string)
		if name := traits["name"]; name != "" {
			row.Account.Name = name
		}
		for _, name := range []string{"plan", "owner", "industry"} {
			if traits[name] != "" {
				row.Traits = append(row.Traits, page.Pair{Name: name, Value: traits[name]})
			}
		}
		row.Change = page.Change(row.Uses, row.UsesBefore)
		row.Signal, row.Why = signalOf(row.People, row.PeopleBefore, row.Uses, row.UsesBefore)
		counts[row.Signal]++
		if row.Uses > 0 {
			active++
		}
		if b.Filter == "" || b.Filter == row.Signal {
			b.Rows = append(b.Rows, row)
		}
	}
	for _, name := range signals {
		if counts[name] > 0 {
			b.Counts = append(b.Counts, page.Pair{Name: name, Value: page.Whole(counts[name])})
			b.Links[name] = s.link("/accounts", "signal", name)
		}
	}
	// Accounts with the largest loss of usage first.
	slices.SortStableFunc(b.Rows, func(x, y accountRow) int {
		return cmp.Or(cmp.Compare(x.Uses-x.UsesBefore, y.Uses-y.UsesBefore), strings.Compare(x.Account.ID, y.Account.ID))
	})
	if len(f.Rows) == 0 {
		p.Sentence = fmt.Sprintf("No account of %s was active in %s or in %s.", s.App, s.period(), s.before())
		b.Empty = c.empty(s)
		return p, nil
	}
	p.Sentence = fmt.Sprintf("%s active in %s. %s silent, %s the product much less.", page.Plural(active, "account was", "accounts were"), s.period(),
		page.Plural(counts["silent"], "other fell", "others fell"), page.Plural(counts["falling"], "uses", "use"))
	return p, nil
}

type accountFeature struct {
	Feature         named
	Module, Kind    string
	People, Uses    int64
	Change          page.Difference
	LastDay         string
	Spark           []float64
	Adopted, Before bool
	Explain         string // address
}

type accountPerson struct {
	Person         person
	Role           string
	Uses, Features int64
	LastUse, UTC   string
}

type timelineEntry struct {
	Time, UTC       string
	Kind, Event     string
	Feature         named
	Who             person
	Account         named
	Role, Protocol  string
	MessageID, Note string
}

type relative struct {
	Relation string
	Account  named
	Depth    int64
}

type accountBody struct {
	ID          string
	Traits      []page.Pair
	Chart       *page.Lines
	Features    []accountFeature
	Adopted     int
	MissingCore []named
	People      []accountPerson
	Timeline    []timelineEntry
	Relatives   []relative
	Metrics     *plainTable
	Health      *plainTable // nil: no definition has a score of it
	Parts       *plainTable
	Alerts      *plainTable
	Milestones  *plainTable
	Doors       map[string]door
	Tiles       []tile
	Looks       string // address of who looked at its people, for admins
}

func (c *Console) account(r *http.Request, s *scope) (*page.Page, error) {
	id := s.values["account"]
	if id == "" {
		return nil, &refusal{"The address names no account.", "Choose one under Accounts."}
	}
	a, err := c.all(r.Context(), s.values, "account_by_day", "account_features", "account_people", "account_traits", "account_family", "account_metrics", "account_timeline",
		"account_health", "account_health_parts", "account_alerts", "account_milestones")
	if err != nil {
		return nil, err
	}
	b := &accountBody{ID: id, Doors: s.doors(a, "account", id), Looks: s.looksLink("account", id)}
	name := id
	for i := range a["account_traits"].Rows {
		t := a["account_traits"]
		pair := page.Pair{Name: text(t.cell(i, "trait")), Value: text(t.cell(i, "value"))}
		if pair.Name == "name" && pair.Value != "" {
			name = pair.Value
		}
		b.Traits = append(b.Traits, pair)
	}
	b.Chart = s.chart(a["account_by_day"], "People of "+name+" active by day", []string{"people"})
	var uses, before int64
	f := a["account_features"]
	for i := range f.Rows {
		row := accountFeature{
			Feature: s.featureLink(text(f.cell(i, "feature_id")), text(f.cell(i, "feature_name"))), Module: text(f.cell(i, "module_id")), Kind: text(f.cell(i, "kind")),
			People: number(f.cell(i, "people")), Uses: number(f.cell(i, "uses")), LastDay: dayText(f.cell(i, "last_day")), Spark: s.byDay(f.cell(i, "by_day")),
		}
		row.Explain = s.explain("account", id, "feature", row.Feature.ID)
		had := number(f.cell(i, "uses_before"))
		uses, before = uses+row.Uses, before+had
		row.Change, row.Adopted, row.Before = page.Change(row.Uses, had), row.Uses > 0, had > 0
		if row.Adopted {
			b.Adopted++
		} else if row.Kind == "core" {
			b.MissingCore = append(b.MissingCore, row.Feature)
		}
		if row.Adopted || row.Before {
			b.Features = append(b.Features, row)
		}
	}
	people := 0
	w := a["account_people"]
	for i := range w.Rows {
		row := accountPerson{
			Person: s.person(text(w.cell(i, "actor_kind")), text(w.cell(i, "actor_id"))), Role: text(w.cell(i, "role")),
			Uses: number(w.cell(i, "uses")), Features: number(w.cell(i, "features")),
		}
		row.LastUse, row.UTC = s.stampText(w.cell(i, "last_use"))
		if row.Uses > 0 {
			people++
		}
		b.People = append(b.People, row)
	}
	for i := range a["account_timeline"].Rows {
		b.Timeline = append(b.Timeline, s.entry(a["account_timeline"], i))
	}
	fam := a["account_family"]
	for i := range fam.Rows {
		b.Relatives = append(b.Relatives, relative{text(fam.cell(i, "relation")), s.accountLink(text(fam.cell(i, "account"))), number(fam.cell(i, "depth"))})
	}
	for question, table := range map[string]**plainTable{
		"account_metrics": &b.Metrics, "account_health": &b.Health, "account_health_parts": &b.Parts, "account_alerts": &b.Alerts, "account_milestones": &b.Milestones,
	} {
		if len(a[question].Rows) > 0 {
			*table = s.plain(a[question])
		}
	}
	b.Tiles = []tile{
		{Name: "Active people", Value: page.Whole(people), Door: b.Doors["account_people"]},
		{Name: "Features used", Value: fmt.Sprintf("%d of %d", b.Adopted, len(f.Rows)), Door: b.Doors["account_features"]},
		{Name: "Uses of features", Value: page.Whole(uses), Change: page.Change(uses, before), Door: b.Doors["account_features"]},
	}
	signal, why := signalOf(int64(people), 0, uses, before)
	sentence := fmt.Sprintf("%s of %s used %s in %s", page.Plural(people, "person", "people"), name, page.Plural(b.Adopted, "feature", "features"), s.period())
	if why != "" && signal != "new" {
		sentence += ": " + signal + ", " + why
	}
	return &page.Page{Title: name, Sentence: sentence + ".", Body: b}, nil
}

func (s *scope) entry(r *Result, i int) timelineEntry {
	e := timelineEntry{
		Kind: text(r.cell(i, "kind")), Event: text(r.cell(i, "event")), Role: text(r.cell(i, "role")), Protocol: text(r.cell(i, "protocol")),
		MessageID: text(r.cell(i, "message_id")), Who: s.person(text(r.cell(i, "actor_kind")), text(r.cell(i, "actor_id"))),
	}
	if id := text(r.cell(i, "feature_id")); id != "" {
		e.Feature = s.featureLink(id, "")
	}
	if id := text(r.cell(i, "account_id")); id != "" {
		e.Account = s.accountLink(id)
	}
	e.Time, e.UTC = s.stampText(r.cell(i, "event_time"))
	return e
}

type identityRow struct {
	Kind, ID        string
	Since, SinceUTC string
	Last            string
	InForce         bool
}

type personBody struct {
	ID       string
	Traits   []page.Pair
	Ids      []identityRow
	Features []accountUse
	Timeline []timelineEntry
	Doors    map[string]door
	Looks    string // address of who looked at the person, for admins
}

func (c *Console) person(r *http.Request, s *scope) (*page.Page, error) {
	id := s.values["person"]
	if id == "" {
		return nil, &refusal{"The address names no person.", "Choose one on an account's page, or search."}
	}
	a, err := c.all(r.Context(), s.values, "person_timeline", "person_identity", "person_features", "person_traits")
	if err != nil {
		return nil, err
	}
	b := &personBody{ID: id, Doors: s.doors(a, "person", id), Looks: s.looksLink("person", id)}
	for i := range a["person_traits"].Rows {
		t := a["person_traits"]
		b.Traits = append(b.Traits, page.Pair{Name: text(t.cell(i, "trait")), Value: text(t.cell(i, "value"))})
	}
	for i := range a["person_identity"].Rows {
		t := a["person_identity"]
		row := identityRow{Kind: text(t.cell(i, "id_kind")), ID: text(t.cell(i, "id")), InForce: truth(t.cell(i, "in_force"))}
		row.Since, row.SinceUTC = s.stampText(t.cell(i, "since"))
		row.Last, _ = s.stampText(t.cell(i, "last_said"))
		b.Ids = append(b.Ids, row)
	}
	features := map[string]bool{}
	accounts := map[string]bool{}
	var uses int64
	for i := range a["person_features"].Rows {
		t := a["person_features"]
		row := accountUse{
			Account: s.accountLink(text(t.cell(i, "account_id"))), Uses: number(t.cell(i, "uses")), LastDay: dayText(t.cell(i, "last_day")), Spark: s.byDay(t.cell(i, "by_day")),
		}
		feature := text(t.cell(i, "feature_id"))
		row.Feature = s.featureLink(feature, "")
		row.Explain = s.explain("person", id, "account", row.Account.ID, "feature", feature)
		if feature == "" {
			row.Feature.Name = "no feature"
		} else {
			features[feature] = true
		}
		if row.Account.ID != "" {
			accounts[row.Account.ID] = true
		}
		uses += row.Uses
		b.Features = append(b.Features, row)
	}
	for i := range a["person_timeline"].Rows {
		b.Timeline = append(b.Timeline, s.entry(a["person_timeline"], i))
	}
	sentence := fmt.Sprintf("%s used %s in %s, %s in all", id, page.Plural(len(features), "feature", "features"), s.period(), page.Plural(uses, "event", "events"))
	if len(accounts) > 0 {
		sentence += fmt.Sprintf(", for %s", page.Plural(len(accounts), "account", "accounts"))
	}
	return &page.Page{Title: id, Sentence: sentence + ".", Body: b}, nil
}

// plainTable is a result without further formatting.
type plainTable struct {
	Columns []page.Column
	Rows    [][]string
}

func (s *scope) plain(r *Result) *plainTable {
	t := &plainTable{}
	for _, c := range r.Columns {
		t.Columns = append(t.Columns, page.Column{Name: strings.ReplaceAll(c.Name, "_", " "), Number: isNumber(c.Type)})
	}
	for _, row := range r.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = s.shown(v)
		}
		t.Rows = append(t.Rows, cells)
	}
	return t
}

func isNumber(kind string) bool {
	for _, prefix := range []string{"Int", "UInt", "Float", "Decimal"} {
		if strings.HasPrefix(kind, prefix) || strings.HasPrefix(kind, "Nullable("+prefix) {
			return true
		}
	}
	return false
}

// shown is a value of a plain table.
func (s *scope) shown(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case time.Time:
		if t.Hour() == 0 && t.Minute() == 0 && t.Second() == 0 && t.Nanosecond() == 0 {
			return t.Format(time.DateOnly)
		}
		return t.In(s.Zone).Format("2006-01-02 15:04:05")
	case float64:
		return page.Short(t)
	case int64:
		return page.Whole(t)
	case uint64:
		return page.Whole(t)
	case []string:
		return strings.Join(t, ", ")
	case map[time.Time]int64:
		return page.Plural(len(t), "day", "days")
	case map[string]string:
		var pairs []string
		for _, k := range slices.Sorted(maps.Keys(t)) {
			pairs = append(pairs, k+": "+t[k])
		}
		return strings.Join(pairs, ", ")
	}
	return fmt.Sprint(v)
}
