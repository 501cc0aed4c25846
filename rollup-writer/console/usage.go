package console

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
)

type featureRow struct {
	Feature             named
	Kind, Status, Owner string
	People              int64
	Change              page.Difference
	BreadthText         string
	BreadthWidth        int // 0 to 20, for a class
	Accounts, Uses      int64
	Depth               string
	Spark               []float64
}

type moduleRows struct {
	Name     string
	Features []featureRow
}

type productRows struct {
	Name    string
	Modules []*moduleRows
}

type usageBody struct {
	Products []*productRows
	Door     door
	Empty    *emptyState
	Quality  string
}

func (c *Console) usage(r *http.Request, s *scope) (*page.Page, error) {
	a, err := c.all(r.Context(), s.values, "features")
	if err != nil {
		return nil, err
	}
	f := a["features"]
	b := &usageBody{Door: s.door("features"), Quality: s.link("/quality")}
	p := &page.Page{Title: "Usage", Body: b}
	used, grown := 0, 0
	for i := range f.Rows {
		product, module := text(f.cell(i, "product_id")), text(f.cell(i, "module_id"))
		if n := len(b.Products); n == 0 || b.Products[n-1].Name != orName(f.cell(i, "product_name"), product) {
			b.Products = append(b.Products, &productRows{Name: orName(f.cell(i, "product_name"), product)})
		}
		last := b.Products[len(b.Products)-1]
		if n := len(last.Modules); n == 0 || last.Modules[n-1].Name != orName(f.cell(i, "module_name"), module) {
			last.Modules = append(last.Modules, &moduleRows{Name: orName(f.cell(i, "module_name"), module)})
		}
		people, before, breadth := number(f.cell(i, "people")), number(f.cell(i, "people_before")), fraction(f.cell(i, "breadth"))
		if people > 0 {
			used++
		}
		if people > before {
			grown++
		}
		m := last.Modules[len(last.Modules)-1]
		m.Features = append(m.Features, featureRow{
			Feature: s.featureLink(text(f.cell(i, "feature_id")), text(f.cell(i, "feature_name"))),
			Kind:    text(f.cell(i, "kind")), Status: text(f.cell(i, "status")), Owner: text(f.cell(i, "owner")),
			People: people, Change: page.Change(people, before), BreadthText: page.Percent(breadth), BreadthWidth: int(breadth*20 + 0.5),
			Accounts: number(f.cell(i, "accounts")), Uses: number(f.cell(i, "uses")),
			Depth: strconv.FormatFloat(fraction(f.cell(i, "depth")), 'f', 1, 64), Spark: s.byDay(f.cell(i, "by_day")),
		})
	}
	if len(f.Rows) == 0 {
		p.Sentence = fmt.Sprintf("No feature of %s was used in %s.", s.App, s.period())
		b.Empty = c.empty(s)
		return p, nil
	}
	p.Sentence = fmt.Sprintf("%s in use in %s; %d gained people, compared with %s.", page.Plural(used, "feature was", "features were"), s.period(), grown, s.before())
	return p, nil
}

func orName(name any, id string) string {
	if n := text(name); n != "" {
		return n
	}
	return id
}

type accountUse struct {
	Feature      named
	Account      named
	People, Uses int64
	Change       page.Difference
	LastDay      string
	Spark        []float64
	Explain      string // address of what Uses is made of
}

type personUse struct {
	Person  person
	Account named
	Uses    int64
	LastDay string
}

type featureBody struct {
	ID        string
	Chart     *page.Lines
	Accounts  []accountUse
	People    []personUse
	Retention *retentionTable
	Before    []pathRow // what its people did before and after it, in the session
	After     []pathRow
	Doors     map[string]door
}

// featurePaths is how many paths a feature's page lists.
const featurePaths = 8

func (c *Console) feature(r *http.Request, s *scope) (*page.Page, error) {
	id := s.values["feature"]
	if id == "" {
		return nil, &refusal{"The address names no feature.", "Choose one under Usage."}
	}
	s.values["step"] = id
	a, err := c.all(r.Context(), s.values, "feature_by_day", "feature_accounts", "feature_people", "retention", "paths_before", "paths_after")
	if err != nil {
		return nil, err
	}
	b := &featureBody{ID: id, Doors: s.doors(a, "feature", id, "step", id)}
	b.Before, b.After = pathRows(a["paths_before"]), pathRows(a["paths_after"])
	b.Before, b.After = b.Before[:min(len(b.Before), featurePaths)], b.After[:min(len(b.After), featurePaths)]
	days := a["feature_by_day"]
	b.Chart = s.chart(days, "Use of "+id+" by day", []string{"people", "accounts"})
	if err := c.mark(r.Context(), s, b.Chart); err != nil {
		return nil, err
	}
	active, lost := 0, 0
	for i := range a["feature_accounts"].Rows {
		f := a["feature_accounts"]
		uses, before := number(f.cell(i, "uses")), number(f.cell(i, "uses_before"))
		if uses > 0 {
			active++
		} else {
			lost++
		}
		b.Accounts = append(b.Accounts, accountUse{
			Account: s.accountLink(text(f.cell(i, "account_id"))), People: number(f.cell(i, "people")), Uses: uses, Change: page.Change(uses, before),
			LastDay: dayText(f.cell(i, "last_day")), Spark: s.byDay(f.cell(i, "by_day")),
		})
	}
	for i := range a["feature_people"].Rows {
		f := a["feature_people"]
		b.People = append(b.People, personUse{
			Person: s.person(text(f.cell(i, "actor_kind")), text(f.cell(i, "actor_id"))), Account: s.accountLink(text(f.cell(i, "account_id"))),
			Uses: number(f.cell(i, "uses")), LastDay: dayText(f.cell(i, "last_day")),
		})
	}
	b.Retention = s.retention(a["retention"])
	name := s.featureLink(id, "").Name
	sentence := fmt.Sprintf("%s used %s in %s", page.Plural(active, "account", "accounts"), name, s.period())
	if lost > 0 {
		sentence += fmt.Sprintf("; %s used it in %s and no more", page.Plural(lost, "account", "accounts"), s.before())
	}
	return &page.Page{Title: name, Body: b, Sentence: sentence + "."}, nil
}

// chart of a result with a row a day.
func (s *scope) chart(r *Result, title string, columns []string) *page.Lines {
	c := &page.Lines{Title: title, Open: true}
	if len(r.Rows) == 0 {
		return c
	}
	rows := map[time.Time]int{}
	for i := range r.Rows {
		rows[instant(r.cell(i, "day")).UTC()] = i
	}
	c.Days = s.axis("day", slices.Collect(maps.Keys(rows)))
	for k, name := range columns {
		series := page.Series{Name: name, Class: string(rune('a' + k))}
		for _, day := range c.Days {
			value := 0.0
			if i, ok := rows[day]; ok {
				value = fraction(r.cell(i, name))
			}
			series.Values = append(series.Values, value)
		}
		c.Series = append(c.Series, series)
	}
	return c
}

// axis are the first days of all days, weeks or months of the period, as answers have them,
// and those of an answer: a chart whose axis ended with the last day that has something
// would show that day as the one that is not over.
func (s *scope) axis(grain string, answered []time.Time) []time.Time {
	days := answered
	for _, d := range s.days() {
		day := time.Date(d.Year(), d.Month(), d.Day(), 0, 0, 0, 0, time.UTC)
		switch grain {
		case "week":
			day = day.AddDate(0, 0, -(int(day.Weekday())+6)%7)
		case "month":
			day = day.AddDate(0, 0, 1-day.Day())
		}
		days = append(days, day)
	}
	slices.SortFunc(days, time.Time.Compare)
	return slices.CompactFunc(days, time.Time.Equal)
}

type retentionCell struct {
	People      int64
	Text, Title string
	Tint        int // 0 to 10
}

type retentionRow struct {
	Week  string
	Size  int64
	Cells []retentionCell // one a week that has begun
}

type retentionTable struct {
	Weeks []int
	Rows  []retentionRow
}

const week = 7 * 24 * time.Hour

// retention builds the triangle from a result with a row for each cohort and week.
func (s *scope) retention(r *Result) *retentionTable {
	people := map[time.Time]map[int64]int64{}
	var starts []time.Time
	for i := range r.Rows {
		start := instant(r.cell(i, "cohort")).UTC()
		if people[start] == nil {
			people[start] = map[int64]int64{}
			starts = append(starts, start)
		}
		people[start][number(r.cell(i, "week_number"))] = number(r.cell(i, "people"))
	}
	today := s.Now.In(s.Zone)
	date := time.Date(today.Year(), today.Month(), today.Day(), 0, 0, 0, 0, time.UTC)
	monday := date.AddDate(0, 0, -(int(date.Weekday())+6)%7)
	t := &retentionTable{}
	for _, start := range starts {
		row := retentionRow{Week: start.Format("2 Jan"), Size: people[start][0]}
		for w := range int64(monday.Sub(start)/week) + 1 {
			share := float64(people[start][w]) / float64(max(1, row.Size))
			row.Cells = append(row.Cells, retentionCell{
				People: people[start][w], Text: page.Percent(share), Tint: min(10, int(share*10+0.5)),
				Title: fmt.Sprintf("%s of %s active %d weeks after the week of %s", page.Whole(people[start][w]), page.Whole(row.Size), w, row.Week),
			})
		}
		for len(t.Weeks) < len(row.Cells) {
			t.Weeks = append(t.Weeks, len(t.Weeks))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
