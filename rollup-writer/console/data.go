package console

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
)

type questionBody struct {
	Definition, Version, SQL, CSV, JSON, Count string
	Table                                      *plainTable
}

// questionPage shows the background of a number: definition, statement, rows.
func (c *Console) questionPage(r *http.Request, s *scope) (*page.Page, error) {
	q := question.Get(r.URL.Query().Get("name"))
	if q == nil {
		return nil, &refusal{fmt.Sprintf("There is no question %q.", r.URL.Query().Get("name")), "Follow a link of a chart or a number."}
	}
	result, err := c.asker.ask(r.Context(), q.Name, s.values)
	if err != nil {
		return nil, err
	}
	rest := r.URL.Query()
	rest.Del("name")
	link := func(format string) string {
		v := url.Values{}
		for k, x := range rest {
			v[k] = x
		}
		v.Set("format", format)
		return "/api/v1/" + q.Name + "?" + v.Encode()
	}
	shown := *result
	most := 200
	count := page.Plural(len(result.Rows), "row", "rows")
	if len(result.Rows) > most {
		shown.Rows, count = result.Rows[:most], fmt.Sprintf("first %d of %s", most, count)
	}
	return &page.Page{Title: q.Title, Sentence: q.Title, Body: &questionBody{
		Definition: q.Definition, Version: q.Version, SQL: q.Statement(result.Values), CSV: link("csv"), JSON: link("json"), Count: sentenceCase(count), Table: s.plain(&shown),
	}}, nil
}

// data answers a question as JSON, or as CSV with format=csv.
func (c *Console) data(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("question")
	if question.Get(name) == nil {
		c.refuse(w, http.StatusNotFound, "unknown_question", "no question "+name+"; there are: "+strings.Join(question.Names(), ", "))
		return
	}
	s, ok := c.dataScope(w, r, name != "apps")
	if !ok {
		return
	}
	result, err := c.asker.ask(r.Context(), name, s.values)
	if err != nil {
		c.refuseAsked(w, name, err)
		return
	}
	c.writeResult(w, r, s, result)
}

// refuse answers a program with an error.
func (c *Console) refuse(w http.ResponseWriter, status int, code, detail string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": code, "detail": detail}}) // the reader is gone if this fails
	c.metrics.requests.WithLabelValues("api", fmt.Sprintf("%dxx", status/100)).Inc()
}

// refuseAsked answers a program whose question had an error.
func (c *Console) refuseAsked(w http.ResponseWriter, name string, err error) {
	if denied := new(denial); errors.As(err, &denied) {
		c.refuse(w, http.StatusForbidden, "forbidden", denied.Error())
		return
	}
	if refused := new(refusal); errors.As(err, &refused) {
		c.refuse(w, http.StatusUnprocessableEntity, "bound_reached", refused.Error())
		return
	}
	c.log.Warn("question failed", "question", name, "error", err)
	c.refuse(w, http.StatusBadGateway, "clickhouse", "ClickHouse did not answer; the console's log has the error")
}

// dataScope reads the address of a program's question. It reports false after it has
// answered that it cannot.
func (c *Console) dataScope(w http.ResponseWriter, r *http.Request, ofApp bool) (*scope, bool) {
	app := r.URL.Query().Get("app")
	if app == "" && ofApp {
		c.refuse(w, http.StatusBadRequest, "missing_app", "the parameter app must name the app")
		return nil, false
	}
	s, err := c.scopeOf(r, app)
	if err != nil {
		c.refuse(w, http.StatusBadRequest, "bad_parameter", err.Error())
		return nil, false
	}
	if ofApp {
		if err := may(r, "api", app); err != nil {
			c.refuse(w, http.StatusForbidden, "forbidden", err.Error())
			return nil, false
		}
	}
	s.grant = signin.From(r.Context()).On(app)
	return s, true
}

// writeResult answers with a result as JSON, or as CSV with format=csv.
func (c *Console) writeResult(w http.ResponseWriter, r *http.Request, s *scope, result *Result) {
	q := result.Question
	c.metrics.requests.WithLabelValues("api", "2xx").Inc()
	if r.URL.Query().Get("format") == "csv" {
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", `attachment; filename="`+q.Name+`.csv"`)
		writeCSV(csv.NewWriter(w), result)
		return
	}
	rows := make([]map[string]any, len(result.Rows))
	for i, row := range result.Rows {
		rows[i] = map[string]any{}
		for k, v := range row {
			rows[i][result.Columns[k].Name] = jsonCell(v)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(struct { // the reader is gone if this fails
		Question   string           `json:"question"`
		Version    string           `json:"version"`
		Definition string           `json:"definition"`
		AsOf       time.Time        `json:"as_of"`
		Closed     bool             `json:"period_is_closed"`
		Parameters question.Values  `json:"parameters"`
		Columns    []Column         `json:"columns"`
		Rows       []map[string]any `json:"rows"`
	}{q.Name, q.Version, q.Definition, result.AsOf.UTC(), !s.To.After(s.Now), result.Values, result.Columns, rows})
}

// writeCSV writes a result, as far as its reader is there.
func writeCSV(out *csv.Writer, result *Result) {
	header := make([]string, len(result.Columns))
	for i, column := range result.Columns {
		header[i] = column.Name
	}
	_ = out.Write(header)
	for _, row := range result.Rows {
		cells := make([]string, len(row))
		for i, v := range row {
			cells[i] = csvCell(v)
		}
		_ = out.Write(cells)
	}
	out.Flush() // the reader is gone if it fails
}

// csvCell returns a value for a spreadsheet. Text that a spreadsheet would interpret as
// a formula gets a leading quote: event names and ids come from untrusted senders.
func csvCell(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case time.Time:
		return t.UTC().Format(time.RFC3339Nano)
	case string:
		if t != "" && strings.ContainsRune("=+-@\t\r", rune(t[0])) {
			return "'" + t
		}
		return t
	case []string:
		return csvCell(strings.Join(t, ", "))
	case map[time.Time]int64, map[string]string:
		b, _ := json.Marshal(jsonCell(v)) // cannot fail: strings and numbers
		return string(b)
	}
	return fmt.Sprint(v)
}

func jsonCell(v any) any {
	if m, ok := v.(map[time.Time]int64); ok {
		days := map[string]int64{}
		for d, n := range m {
			days[d.Format(time.DateOnly)] = n
		}
		return days
	}
	return v
}

type hit struct{ Kind, Label, URL string }

type searchBody struct{ Hits []hit }

func (c *Console) search(r *http.Request, s *scope) (*page.Page, error) {
	q := strings.TrimSpace(s.values["q"])
	p := &page.Page{Title: "Search", Body: &searchBody{}, Sentence: "Search for an account, a person or a feature."}
	if q == "" {
		return p, nil
	}
	s.values["q"] = q
	a, err := c.all(r.Context(), s.values, "search")
	if err != nil {
		return nil, err
	}
	b := &searchBody{}
	for i := range a["search"].Rows {
		t := a["search"]
		h := hit{Kind: text(t.cell(i, "kind")), Label: text(t.cell(i, "label"))}
		id := text(t.cell(i, "id"))
		switch h.Kind {
		case "feature":
			h.URL = s.link("/feature", "feature", id)
		case "account":
			h.URL = s.link("/account", "account", id)
		default:
			h.URL = s.link("/person", "person", id)
		}
		if h.Label == "" {
			h.Label = id
		}
		b.Hits = append(b.Hits, h)
	}
	p.Body = b
	p.Sentence = fmt.Sprintf("%s %q.", page.Plural(len(b.Hits), "match for", "matches for"), q)
	return p, nil
}
