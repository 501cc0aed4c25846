package console

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/console/page"
	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
)

// view fills the page of a request. It returns the page without its menu.
type view func(r *http.Request, s *scope) (*page.Page, error)

// serve answers with a view's page.
func (c *Console) serve(name string, v view) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		apps, err := c.apps(r.Context())
		if err != nil {
			c.failed(w, r, err)
			return
		}
		app := r.URL.Query().Get("app")
		if app == "" {
			app = "dev"
			if len(apps) > 0 {
				app = apps[0]
			} else if only := signin.From(r.Context()).Apps(); len(only) > 0 {
				app = only[0] // without an event yet
			}
		}
		s, err := c.scopeOf(r, app)
		if err == nil {
			err = may(r, name, app)
		}
		if err != nil {
			c.failed(w, r, err)
			return
		}
		s.grant = signin.From(r.Context()).On(app)
		if err := c.addNames(r.Context(), s); err != nil {
			c.failed(w, r, err)
			return
		}
		p, err := v(r, s)
		if err != nil {
			c.failed(w, r, err)
			return
		}
		if !slices.Contains(apps, app) {
			apps = append(apps, app)
		}
		menu := s.menu(name, r, apps)
		if c.access.provider != nil {
			menu.Viewer, menu.SignOut = signin.From(r.Context()).Name, signin.SignOutPath
		}
		p.Menu = &menu
		c.write(w, name, http.StatusOK, p)
	}
}

func (c *Console) write(w http.ResponseWriter, name string, status int, p *page.Page) {
	var b bytes.Buffer
	if err := c.pages.Write(&b, name, p); err != nil {
		c.log.Error("page not drawn", "page", name, "error", err)
		http.Error(w, "The page could not be drawn; the console's log says why.", http.StatusInternalServerError)
		c.metrics.requests.WithLabelValues(name, "5xx").Inc()
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // the reader is gone if this fails
	c.metrics.requests.WithLabelValues(name, fmt.Sprintf("%dxx", status/100)).Inc()
}

// fail answers with a page that explains the problem and what to do.
func (c *Console) fail(w http.ResponseWriter, _ *http.Request, status int, what, todo string) {
	c.write(w, "failed", status, &page.Page{Title: "Uptake", Sentence: what, Body: todo})
}

// failed answers with a page about an error.
func (c *Console) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // the reader went away
	}
	if denied := new(denial); errors.As(err, &denied) {
		c.fail(w, r, http.StatusForbidden, denied.what, denied.todo)
		return
	}
	if refused := new(refusal); errors.As(err, &refused) {
		c.fail(w, r, http.StatusBadRequest, refused.what, refused.todo)
		return
	}
	c.log.Warn("question failed", "path", r.URL.Path, "error", err)
	c.fail(w, r, http.StatusBadGateway, "ClickHouse did not answer the question of this page.", "Is it reachable? The console's log has the error. Reload to try again.")
}

func (c *Console) apps(ctx context.Context) ([]string, error) {
	r, err := c.asker.ask(ctx, "apps", question.Values{})
	if err != nil {
		return nil, err
	}
	var apps []string
	for i := range r.Rows {
		apps = append(apps, text(r.cell(i, "app_id")))
	}
	return apps, nil
}

// addNames adds the names of accounts, from group calls, and of features, from the catalog.
func (c *Console) addNames(ctx context.Context, s *scope) error {
	a, err := c.all(ctx, question.Values{"app": s.App}, "account_names", "feature_names")
	if err != nil {
		return err
	}
	s.names, s.features = map[string]string{}, map[string]string{}
	for i := range a["account_names"].Rows {
		s.names[text(a["account_names"].cell(i, "account_id"))] = text(a["account_names"].cell(i, "name"))
	}
	for i := range a["feature_names"].Rows {
		s.features[text(a["feature_names"].cell(i, "feature_id"))] = text(a["feature_names"].cell(i, "feature_name"))
	}
	return nil
}

// all runs several queries concurrently.
func (c *Console) all(ctx context.Context, v question.Values, names ...string) (map[string]*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make([]*Result, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			if results[i], errs[i] = c.asker.ask(ctx, name, v); errs[i] != nil {
				cancel() // one missing part is a missing page
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return nil, err
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	byName := map[string]*Result{}
	for i, name := range names {
		byName[name] = results[i]
	}
	return byName, nil
}

// door links a number to its statement, its definition and its rows; for viewers it has
// the definition alone.
type door struct {
	Definition string
	SQL, CSV   string
}

func (s *scope) door(name string, extra ...string) door {
	if s.grant.Role < signin.Analyst {
		return door{Definition: question.Get(name).Definition}
	}
	return door{
		Definition: question.Get(name).Definition,
		SQL:        s.link("/question", append([]string{"name", name}, extra...)...),
		CSV:        s.link("/api/v1/"+name, append([]string{"format", "csv"}, extra...)...),
	}
}

// doors of the answers of a page.
func (s *scope) doors(answers map[string]*Result, extra ...string) map[string]door {
	doors := map[string]door{}
	for name := range answers {
		doors[name] = s.door(name, extra...)
	}
	return doors
}

// Values of cells, of any width that ClickHouse uses.

func number(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case uint64:
		return int64(n)
	case int32:
		return int64(n)
	case uint32:
		return int64(n)
	case uint16:
		return int64(n)
	case uint8:
		return int64(n)
	case float64:
		return int64(n)
	}
	return 0
}

func fraction(v any) float64 {
	if f, ok := v.(float64); ok {
		return f
	}
	return float64(number(v))
}

func text(v any) string {
	switch t := v.(type) {
	case nil:
		return ""
	case string:
		return t
	}
	return fmt.Sprint(v)
}

func instant(v any) time.Time {
	t, _ := v.(time.Time)
	return t
}

func texts(v any) []string {
	t, _ := v.([]string)
	return t
}

func truth(v any) bool {
	if b, ok := v.(bool); ok {
		return b
	}
	return number(v) != 0
}

// byDay spreads a map from day to count over the days of the period.
func (s *scope) byDay(v any) []float64 {
	counts := map[string]float64{}
	if m, ok := v.(map[time.Time]int64); ok {
		for d, n := range m {
			counts[d.Format(time.DateOnly)] += float64(n)
		}
	}
	days := s.days()
	values := make([]float64, len(days))
	for i, d := range days {
		values[i] = counts[d.Format(time.DateOnly)]
	}
	return values
}

// person in words and with its address, if people are shown.
type person struct {
	ID, URL string
	Visitor bool
}

func (s *scope) person(kind, id string) person {
	if !s.grant.People {
		return person{ID: id, Visitor: kind == "anonymous"}
	}
	return person{ID: id, URL: s.link("/person", "person", id), Visitor: kind == "anonymous"}
}

// named is an id with the address of its page.
type named struct{ Name, ID, URL string }

func (s *scope) accountLink(id string) named {
	n := named{Name: s.names[id], ID: id, URL: s.link("/account", "account", id)}
	if n.Name == "" {
		n.Name = id
	}
	return n
}

func (s *scope) featureLink(id, name string) named {
	n := named{Name: name, ID: id, URL: s.link("/feature", "feature", id)}
	if n.Name == "" {
		n.Name = cmp.Or(s.features[id], id)
	}
	return n
}

// compared describes a difference in words: "3 more than in the 28 days before".
func compared(now, before int64, period string) string {
	switch d := now - before; {
	case d > 0:
		return fmt.Sprintf("%s more than %s", page.Whole(d), inPeriod(period))
	case d < 0:
		return fmt.Sprintf("%s fewer than %s", page.Whole(-d), inPeriod(period))
	}
	return "as many as " + inPeriod(period)
}

func inPeriod(period string) string {
	if period == "yesterday" {
		return period
	}
	return "in " + period
}

// sentenceCase begins with a capital.
func sentenceCase(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
