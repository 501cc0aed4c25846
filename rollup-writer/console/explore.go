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
	"github.com/uptakehq/uptake/rollup-writer/console/question"
)

// tab of Explore: one question, whose choices are in the address.
type tab struct {
	name, title string
	fill        func(*Console, *http.Request, *scope, *exploreBody) (sentence string, err error)
}

var tabs = []tab{
	{"trends", "Trends", (*Console).trends},
	{"active", "Active", (*Console).active},
	{"funnel", "Funnel", (*Console).funnel},
	{"retention", "Retention", (*Console).retentionTab},
	{"paths", "Paths", (*Console).paths},
	{"breakdown", "Breakdown", (*Console).breakdown},
	{"sessions", "Sessions", (*Console).sessions},
}

type exploreBody struct {
	Tab     string
	Tabs    []page.Link
	Steps   []string // what can be chosen as a step
	Choices question.Values
	Door    door
	Name    string    // of the statement that answers; empty: something is not chosen yet
	Save    *saveForm // nil: it cannot be saved
	Folded  bool      // the numbers of a chart are shown on demand, as on a board

	Chosen  []string    // steps of the funnel, with empty ones to fill in
	Windows []page.Link // of the funnel; URL is the number of seconds
	Without string      // the step that must not lie between
	Before  bool        // of paths

	Chart  *page.Lines
	Table  *plainTable
	Funnel *funnelTable
	Paths  []pathRow

	Retention *retentionTable
	Features  []named
}

// asked notes which statement answers, with the values of its own.
func (b *exploreBody) asked(s *scope, name string, extra ...string) {
	b.Name, b.Door = name, s.door(name, extra...)
}

func (c *Console) explore(r *http.Request, s *scope) (*page.Page, error) {
	b, sentence, err := c.fill(r, s)
	if err != nil {
		return nil, err
	}
	if b.Name != "" {
		err = c.savable(r, s, b)
	}
	title := ""
	for _, t := range tabs {
		b.Tabs = append(b.Tabs, page.Link{Text: t.title, URL: s.link("/explore", "show", t.name), Current: t.name == b.Tab})
		if t.name == b.Tab {
			title = t.title
		}
	}
	return &page.Page{Title: title, Sentence: sentence, Body: b}, err
}

// fill answers the question of an address.
func (c *Console) fill(r *http.Request, s *scope) (b *exploreBody, sentence string, err error) {
	show := r.URL.Query().Get("show")
	i := slices.IndexFunc(tabs, func(t tab) bool { return t.name == show })
	switch {
	case show == "":
		i = 0
	case i < 0:
		return nil, "", &refusal{fmt.Sprintf("There is no %q under Explore.", show), "Choose one of its tabs."}
	}
	b = &exploreBody{Tab: tabs[i].name, Choices: s.values}
	sentence, err = tabs[i].fill(c, r, s, b)
	return b, sentence, err
}

// steps are what can be chosen as a step of a funnel or a path.
func (c *Console) steps(r *http.Request, s *scope, b *exploreBody) error {
	known, err := c.asker.ask(r.Context(), "steps", s.values)
	if err != nil {
		return err
	}
	for i := range known.Rows {
		b.Steps = append(b.Steps, text(known.cell(i, "step")))
	}
	return nil
}

// active shows how many people and accounts are active by day, as the overview does.
func (c *Console) active(r *http.Request, s *scope, b *exploreBody) (string, error) {
	a, err := c.all(r.Context(), s.values, "active_by_day", "summary")
	if err != nil {
		return "", err
	}
	b.asked(s, "active_by_day")
	b.Chart, b.Table = s.chart(a["active_by_day"], "People and accounts active by day", []string{"people", "accounts"}), s.plain(a["active_by_day"])
	people, accounts := number(a["summary"].cell(0, "people")), number(a["summary"].cell(0, "accounts"))
	return fmt.Sprintf("%s and %s were active in %s.", page.Plural(accounts, "account", "accounts"), page.Plural(people, "person", "people"), s.period()), c.mark(r.Context(), s, b.Chart)
}

// trendLines is how many values the chart of trends shows.
const trendLines = 3

// trends shows who is active by a dimension.
func (c *Console) trends(r *http.Request, s *scope, b *exploreBody) (string, error) {
	if s.values["by"] == "" {
		s.values["by"] = "product"
	}
	by := s.values["by"]
	trend, err := c.asker.ask(r.Context(), "trend", s.values)
	if err != nil {
		return "", err
	}
	b.asked(s, "trend", "by", by, "grain", s.values["grain"])
	type total struct {
		value        string
		most, events int64
	}
	byValue := map[string]*total{}
	people := map[string]map[time.Time]float64{}
	var days []time.Time
	for i := range trend.Rows {
		value, day := text(trend.cell(i, "value")), instant(trend.cell(i, "day")).UTC()
		if byValue[value] == nil {
			byValue[value], people[value] = &total{value: value}, map[time.Time]float64{}
		}
		t := byValue[value]
		t.most, t.events = max(t.most, number(trend.cell(i, "people"))), t.events+number(trend.cell(i, "events"))
		people[value][day] = fraction(trend.cell(i, "people"))
		days = append(days, day)
	}
	if len(days) == 0 {
		return fmt.Sprintf("Nobody was active in %s.", s.period()), nil
	}
	days = s.axis(s.values["grain"], days)
	totals := slices.SortedFunc(maps.Values(byValue), func(a, b *total) int {
		return cmp.Or(cmp.Compare(b.most, a.most), cmp.Compare(b.events, a.events), cmp.Compare(a.value, b.value))
	})
	name := func(value string) string { return cmp.Or(value, "none") }
	b.Chart = &page.Lines{Title: "Active people by " + by, Days: days, Open: true}
	b.Table = &plainTable{Columns: []page.Column{{Name: by}, {Name: "most people in a " + s.values["grain"], Number: true}, {Name: "events", Number: true}}}
	for i, t := range totals {
		if i < trendLines {
			line := page.Series{Name: name(t.value), Class: string(rune('a' + i))}
			for _, day := range days {
				line.Values = append(line.Values, people[t.value][day])
			}
			b.Chart.Series = append(b.Chart.Series, line)
		}
		b.Table.Rows = append(b.Table.Rows, []string{name(t.value), page.Whole(t.most), page.Whole(t.events)})
	}
	if err := c.mark(r.Context(), s, b.Chart); err != nil {
		return "", err
	}
	return fmt.Sprintf("Of %s, %s had the most active people in a %s of %s: %s.", page.Plural(len(totals), "value of "+by, "values of "+by),
		name(totals[0].value), s.values["grain"], s.period(), page.Whole(totals[0].most)), nil
}

// funnelStep is a step of the whole funnel.
type funnelStep struct {
	Name                string
	Reached             int64
	Width               int // 0 to 20, for a class
	OfFirst, OfPrevious string
	Median, Ninetieth   string
	Lost                int64
}

// funnelValue is a row of the breakdown: the value with its steps.
type funnelValue struct {
	Value string
	Steps []funnelStep
}

type funnelTable struct {
	Steps  []string
	Values []funnelValue // one without breakdown
	By     string
}

// windows of a funnel that the page offers, in seconds.
var windows = []struct {
	Seconds string
	Text    string
}{{"3600", "1 hour"}, {"86400", "1 day"}, {"604800", "7 days"}, {"2592000", "30 days"}}

func (c *Console) funnel(r *http.Request, s *scope, b *exploreBody) (string, error) {
	if err := c.steps(r, s, b); err != nil {
		return "", err
	}
	steps := s.steps
	for len(b.Chosen) < max(3, len(steps)+1) && len(b.Chosen) < mostSteps {
		chosen := ""
		if len(b.Chosen) < len(steps) {
			chosen = steps[len(b.Chosen)]
		}
		b.Chosen = append(b.Chosen, chosen)
	}
	if len(s.without) > 0 { // the form has one
		b.Without = s.without[0]
	}
	within := s.values["window"] + " s"
	for _, w := range windows {
		chosen := w.Seconds == s.values["window"]
		if chosen {
			within = w.Text
		}
		b.Windows = append(b.Windows, page.Link{Text: w.Text, URL: w.Seconds, Current: chosen})
	}
	if len(steps) < 2 {
		return "Choose two steps or more: how many people came from the first to the last?", nil
	}
	name, anyOrder := "funnel", s.values["ordering"] == "any"
	extra := []string{"window", s.values["window"], "unit", s.values["unit"], "by", s.values["by"]}
	for _, step := range steps {
		extra = append(extra, "step", step)
	}
	if s.values["ordering"] != "ordered" || len(s.without) > 0 {
		name, extra = "funnel_options", append(extra, "ordering", s.values["ordering"])
		for _, step := range s.without {
			extra = append(extra, "without", step)
		}
	}
	result, err := c.asker.ask(r.Context(), name, s.values)
	if err != nil {
		return "", err
	}
	b.asked(s, name, extra...)
	f := &funnelTable{Steps: steps, By: s.values["by"]}
	if anyOrder {
		f.Steps = nil
		for i := range steps {
			f.Steps = append(f.Steps, fmt.Sprintf("%d of %d steps", i+1, len(steps)))
		}
	}
	for i := range result.Rows {
		value := text(result.cell(i, "value"))
		if n := len(f.Values); n == 0 || f.Values[n-1].Value != value {
			f.Values = append(f.Values, funnelValue{Value: value})
		}
		v := &f.Values[len(f.Values)-1]
		share := fraction(result.cell(i, "conversion_from_first"))
		step := funnelStep{
			Name: f.Steps[number(result.cell(i, "step"))-1], Reached: number(result.cell(i, "reached")),
			Width: int(share*20 + 0.5), OfFirst: page.Percent(share),
			Median: duration(result.cell(i, "median_seconds_from_previous")), Ninetieth: duration(result.cell(i, "p90_seconds_from_previous")),
		}
		if n := len(v.Steps); n > 0 {
			step.Lost = v.Steps[n-1].Reached - step.Reached
			step.OfPrevious = page.Percent(fraction(result.cell(i, "conversion_from_previous")))
		}
		v.Steps = append(v.Steps, step)
	}
	var first, last int64
	for _, v := range f.Values {
		first, last = first+v.Steps[0].Reached, last+v.Steps[len(v.Steps)-1].Reached
	}
	one, many := "person", "people"
	if s.values["unit"] == "account" {
		one, many = "account", "accounts"
	}
	began, came := steps[0], "came to "+steps[len(steps)-1]
	if anyOrder {
		began, came = "one of the steps", fmt.Sprintf("did all %d", len(steps))
	}
	if first == 0 {
		return fmt.Sprintf("Nobody did %s in %s.", began, s.period()), nil
	}
	b.Funnel = f
	if s.values["ordering"] == "strict" {
		came += " with nothing else in between"
	}
	if len(s.without) > 0 {
		came += " without " + strings.Join(s.without, " or ")
	}
	return fmt.Sprintf("Of %s who did %s in %s, %s %s within %s: %s.", page.Plural(first, one, many), began, s.period(),
		page.Whole(last), came, within, page.Percent(float64(last)/float64(first))), nil
}

// duration in words, empty for none.
func duration(v any) string {
	if v == nil {
		return ""
	}
	switch s := fraction(v); {
	case s < 120:
		return page.Short(s) + " s"
	case s < 2*3600:
		return fmt.Sprintf("%.0f min", s/60)
	case s < 48*3600:
		return fmt.Sprintf("%.1f h", s/3600)
	default:
		return fmt.Sprintf("%.1f days", s/86400)
	}
}

func (c *Console) retentionTab(r *http.Request, s *scope, b *exploreBody) (string, error) {
	a, err := c.all(r.Context(), s.values, "retention", "features")
	if err != nil {
		return "", err
	}
	b.asked(s, "retention", "feature", s.values["feature"])
	b.Retention = s.retention(a["retention"])
	f := a["features"]
	for i := range f.Rows {
		b.Features = append(b.Features, s.featureLink(text(f.cell(i, "feature_id")), text(f.cell(i, "feature_name"))))
	}
	what := "anything"
	if s.values["feature"] != "" {
		what = s.values["feature"]
	}
	if back, of := weekOne(b.Retention); of > 0 {
		return fmt.Sprintf("Of the people who first used %s in the last 12 weeks, %s came back in the week after.", what, page.Percent(float64(back)/float64(of))), nil
	}
	var first int64
	for _, row := range b.Retention.Rows {
		first += row.Size
	}
	if first > 0 {
		return fmt.Sprintf("%s first used %s in the last 12 weeks; the week after is not over for anybody.", page.Plural(first, "person", "people"), what), nil
	}
	return fmt.Sprintf("Nobody used %s for the first time in the last 12 weeks.", what), nil
}

// pathRow is a path with how many sessions took it.
type pathRow struct {
	Path             []string
	Sessions, People int64
	Width            int
}

// pathRows of a result of paths_after or paths_before.
func pathRows(r *Result) []pathRow {
	var rows []pathRow
	most := int64(1)
	for i := range r.Rows {
		row := pathRow{Path: texts(r.cell(i, "path")), Sessions: number(r.cell(i, "sessions")), People: number(r.cell(i, "people"))}
		most = max(most, row.Sessions)
		row.Width = int(float64(row.Sessions)/float64(most)*20 + 0.5)
		rows = append(rows, row)
	}
	return rows
}

func (c *Console) paths(r *http.Request, s *scope, b *exploreBody) (string, error) {
	if err := c.steps(r, s, b); err != nil {
		return "", err
	}
	step, name := s.values["step"], "paths_after"
	if b.Before = r.URL.Query().Get("side") == "before"; b.Before {
		name = "paths_before"
	}
	if step == "" {
		return "Choose a step: what do people do after it, or before?", nil
	}
	result, err := c.asker.ask(r.Context(), name, s.values)
	if err != nil {
		return "", err
	}
	b.asked(s, name, "step", step)
	b.Paths = pathRows(result)
	if len(b.Paths) == 0 {
		return fmt.Sprintf("Nobody did %s in %s.", step, s.period()), nil
	}
	where := "after"
	if b.Before {
		where = "before"
	}
	if len(b.Paths[0].Path) < 2 {
		return fmt.Sprintf("Most often there is nothing %s %s in a session.", where, step), nil
	}
	next := b.Paths[0].Path[1]
	if b.Before {
		next = b.Paths[0].Path[len(b.Paths[0].Path)-2]
	}
	return fmt.Sprintf("The most frequent path %s %s has %s next to it: %s.", where, step, next, page.Plural(b.Paths[0].Sessions, "session", "sessions")), nil
}

func (c *Console) breakdown(r *http.Request, s *scope, b *exploreBody) (string, error) {
	if err := c.steps(r, s, b); err != nil {
		return "", err
	}
	path := s.values["path"]
	if path == "" {
		return "Name a key of the metadata: which values did it have?", nil
	}
	result, err := c.asker.ask(r.Context(), "breakdown", s.values)
	if err != nil {
		return "", err
	}
	b.asked(s, "breakdown", "step", s.values["step"], "path", path)
	b.Table = s.plain(result)
	var events, with int64
	values := 0
	for i := range result.Rows {
		n := number(result.cell(i, "events"))
		events += n
		if text(result.cell(i, "value")) != "" {
			with += n
			values++
		} else {
			b.Table.Rows[i][0] = "none"
		}
	}
	if events == 0 {
		return fmt.Sprintf("There are no such events in %s.", s.period()), nil
	}
	return fmt.Sprintf("%s of %s have %s, with %s.", page.Whole(with), page.Plural(events, "event", "events"), path, page.Plural(values, "value", "values")), nil
}

func (c *Console) sessions(r *http.Request, s *scope, b *exploreBody) (string, error) {
	result, err := c.asker.ask(r.Context(), "sessions", s.values)
	if err != nil {
		return "", err
	}
	b.asked(s, "sessions")
	if len(result.Rows) == 0 {
		return fmt.Sprintf("There was no session in %s.", s.period()), nil
	}
	b.Chart = s.chart(result, "Sessions by day", []string{"sessions", "people"})
	if err := c.mark(r.Context(), s, b.Chart); err != nil {
		return "", err
	}
	b.Table = s.plain(result)
	var total int64
	for i := range result.Rows {
		total += number(result.cell(i, "sessions"))
		b.Table.Rows[i][len(result.Columns)-1] = page.Percent(fraction(result.cell(i, "single_event_rate")))
	}
	return fmt.Sprintf("%s began in %s.", page.Plural(total, "session", "sessions"), s.period()), nil
}

// weekOne counts who came back in the week after the first, for cohorts whose second
// week is complete.
func weekOne(t *retentionTable) (back, of int64) {
	for _, r := range t.Rows {
		if len(r.Cells) > 2 {
			back, of = back+r.Cells[1].People, of+r.Size
		}
	}
	return back, of
}
