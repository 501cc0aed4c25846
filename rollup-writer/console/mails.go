package console

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/schemas/note"
)

// Saved questions and boards are mailed on a schedule by the alerts process, which asks the
// console for what to mail at reportPath: numbers in a mail are those of the pages.

const reportPath = "/api/v1/report"

// reportRows is how many rows of a table stand in the text of a mail; all are attached.
const reportRows = 12

// defaultMail is what the form has where nothing is mailed yet.
var defaultMail = note.Mail{Every: note.Weekly, Weekday: 1, Hour: 8, Days: 7}

// choice of a select.
type choice struct {
	Value, Text string
	Chosen      bool
}

// mailForm are the fields of the schedule.
type mailForm struct {
	When, Hours, Periods, Targets []choice
	Now                           string // the schedule in words
}

var weekdays = []string{"Mondays", "Tuesdays", "Wednesdays", "Thursdays", "Fridays", "Saturdays", "Sundays"}

// mailFields are the fields with the choices of m, which may be nil. They are nil where
// nobody can be mailed to.
func (c *Console) mailFields(m *note.Mail) *mailForm {
	if len(c.cfg.MailTargets) == 0 {
		return nil
	}
	f := &mailForm{When: []choice{{"", "never", m == nil}, {"day", "every day", m != nil && m.Every == note.Daily}}, Now: mailWords(m)}
	for i, name := range weekdays {
		f.When = append(f.When, choice{strconv.Itoa(i + 1), "on " + name, m != nil && m.Every == note.Weekly && m.Weekday == i+1})
	}
	if m == nil {
		m = &defaultMail
	}
	for hour := range 24 {
		f.Hours = append(f.Hours, choice{strconv.Itoa(hour), fmt.Sprintf("%d:00", hour), hour == m.Hour})
	}
	days := slices.Clone(periods)
	if !slices.Contains(days, m.Days) {
		days = append(days, m.Days)
	}
	for _, n := range days {
		f.Periods = append(f.Periods, choice{strconv.Itoa(n), page.Plural(n, "day", "days"), n == m.Days})
	}
	for _, name := range c.cfg.MailTargets {
		f.Targets = append(f.Targets, choice{name, name, slices.Contains(m.To, name)})
	}
	return f
}

// mailWords is a schedule in words, empty for none.
func mailWords(m *note.Mail) string {
	if m == nil {
		return ""
	}
	when := "every day"
	if m.Every == note.Weekly && m.Weekday >= 1 && m.Weekday <= len(weekdays) {
		when = "on " + weekdays[m.Weekday-1]
	}
	return fmt.Sprintf("Mailed %s at %d:00 (%s) to %s, about the %s before.", when, m.Hour, m.Zone, strings.Join(m.To, ", "), page.Plural(m.Days, "day", "days"))
}

// mailOf is the schedule in the column mail of a row, nil for none.
func mailOf(r *Result, i int) (*note.Mail, error) {
	given := text(r.cell(i, "mail"))
	if given == "" {
		return nil, nil
	}
	m := &note.Mail{}
	return m, json.Unmarshal([]byte(given), m)
}

// mail returns the schedule that a form chooses. A form without the fields leaves it as it
// is. The error is for people.
func (c *Console) mail(r *http.Request, f noteForm, kind string) (*note.Mail, error) {
	if !f.Has("mail") {
		list, err := c.asker.ask(r.Context(), lists[kind][0], f.values())
		if err != nil {
			return nil, err
		}
		for i := range list.Rows {
			if id := f.get("id"); id != "" && text(list.cell(i, "id")) == id {
				return mailOf(list, i)
			}
		}
		return nil, nil
	}
	when := f.get("mail")
	if when == "" {
		return nil, nil
	}
	m := &note.Mail{Every: note.Daily, Zone: f.get("zone"), To: trimmed(f.Values["to"])}
	var errs []error
	number := func(name, text string, to *int) {
		n, err := strconv.Atoi(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s must be a number (got %.40q)", name, text))
		}
		*to = n
	}
	number("hour", f.get("hour"), &m.Hour)
	number("days", f.get("days"), &m.Days)
	if when != note.Daily {
		m.Every = note.Weekly
		number("mail", when, &m.Weekday)
	}
	if m.Zone == "" {
		m.Zone = c.cfg.Zone
	}
	for _, name := range m.To {
		if !slices.Contains(c.cfg.MailTargets, name) {
			errs = append(errs, fmt.Errorf("to must be one of %s (got %.80q): console-mail-targets names them", strings.Join(c.cfg.MailTargets, ", "), name))
		}
	}
	if len(m.To) == 0 {
		errs = append(errs, errors.New("choose to whom it is mailed"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, &refusal{"This cannot be mailed: " + strings.ReplaceAll(err.Error(), "\n", "; ") + ".", "Go back and correct it."}
	}
	return m, nil
}

// reportPart is one question of a report.
type reportPart struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Sentence string     `json:"sentence"`
	Path     string     `json:"path"` // of the page that asks it
	Columns  []string   `json:"columns,omitempty"`
	Rows     [][]string `json:"rows,omitempty"` // the first ones
	More     int        `json:"more,omitempty"` // how many rows there are beyond
	CSV      string     `json:"csv,omitempty"`
}

// report answers the alerts process: what a mail about a board or a saved question says.
func (c *Console) report(w http.ResponseWriter, r *http.Request) {
	s, ok := c.dataScope(w, r, true)
	if !ok {
		return
	}
	if err := c.addNames(r.Context(), s); err != nil {
		c.refuseAsked(w, "account_names", err)
		return
	}
	kind, id := r.URL.Query().Get("kind"), r.URL.Query().Get("id")
	a, err := c.all(r.Context(), s.values, "boards", "saved_questions")
	if err != nil {
		c.refuseAsked(w, "boards", err)
		return
	}
	name, path := "", ""
	var parts []savedQuestion
	for i := range a["boards"].Rows {
		if kind == note.KindBoard && text(a["boards"].cell(i, "id")) == id {
			name, path = text(a["boards"].cell(i, "name")), s.link("/board", "board", id)
		}
	}
	for i := range a["saved_questions"].Rows {
		q := savedOf(a["saved_questions"], i)
		if kind == note.KindQuestion && q.ID == id {
			name, path = q.Name, ""
			parts = append(parts, q)
		}
		if kind == note.KindBoard && slices.Contains(q.Boards, id) {
			parts = append(parts, q)
		}
	}
	if name == "" {
		c.refuse(w, http.StatusNotFound, "unknown_note", fmt.Sprintf("no %.40q with the id %.64q in this app: kind must be board or question", kind, id))
		return
	}
	missing := max(0, len(parts)-mostPanels)
	answers := []reportPart{}
	for _, q := range parts[:len(parts)-missing] {
		part, err := c.reportPart(r, s, &q)
		if err != nil {
			c.refuseAsked(w, q.ID, err)
			return
		}
		answers = append(answers, part)
	}
	if path == "" && len(answers) == 1 {
		path = answers[0].Path
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the reader is gone if this fails
		"name": name, "path": path, "period": s.period(), "as_of": s.Now.UTC().Format(time.RFC3339), "questions": answers, "not_shown": missing,
	})
	c.metrics.requests.WithLabelValues("api", "2xx").Inc()
}

func (c *Console) reportPart(r *http.Request, s *scope, q *savedQuestion) (reportPart, error) {
	p := reportPart{ID: q.ID, Name: q.Name}
	address, _, err := q.link(s)
	if err != nil {
		return p, err
	}
	p.Path = address
	asked, own, err := c.saved(r.Context(), s, q)
	if err != nil {
		return p, err
	}
	b, sentence, err := c.fill(asked, own)
	if refused := new(refusal); errors.As(err, &refused) {
		p.Sentence = refused.Error()
		return p, nil
	}
	if err != nil {
		return p, err
	}
	p.Sentence = sentence
	if b.Name == "" {
		return p, nil // a choice is missing; the sentence says so
	}
	result, err := c.asker.ask(r.Context(), b.Name, own.values) // just asked: cached
	if err != nil {
		return p, err
	}
	table := own.plain(result)
	for _, column := range table.Columns {
		p.Columns = append(p.Columns, column.Name)
	}
	p.More = max(0, len(table.Rows)-reportRows)
	p.Rows = table.Rows[:len(table.Rows)-p.More]
	var out bytes.Buffer
	writeCSV(csv.NewWriter(&out), result)
	p.CSV = out.String()
	return p, nil
}
