package console

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/rollup-writer/console/question"
	"github.com/uptakehq/uptake/rollup-writer/console/signin"
)

// Column of a result.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"` // ClickHouse's name
}

// Result is the answer to a question. It is shared between readers and immutable.
type Result struct {
	Question *question.Question
	Values   question.Values
	Columns  []Column
	Rows     [][]any
	AsOf     time.Time // when it was asked
}

// cell returns a value by the name of its column, nil for one that is not there.
func (r *Result) cell(row int, name string) any {
	i := slices.IndexFunc(r.Columns, func(c Column) bool { return c.Name == name })
	if i < 0 || row >= len(r.Rows) {
		return nil
	}
	return r.Rows[row][i]
}

// refusal is an error whose text is shown to people.
type refusal struct {
	what, todo string
}

func (e *refusal) Error() string { return e.what + " " + e.todo }

// denial is a refusal of what the viewer has no right to.
type denial struct {
	what, todo string
}

func (e *denial) Error() string { return e.what + " " + e.todo }

// asker queries ClickHouse, within bounds, and caches answers for a short time.
type asker struct {
	cfg     Config
	conns   *conns
	hide    func(app, id string) string
	saw     func(who *signin.Person, app, person, account string)
	metrics *metrics
	now     func() time.Time
	slots   chan struct{} // at most so many questions at once

	mu    sync.Mutex // covers cache
	cache map[string]*Result
}

const (
	cacheFor     = 5 * time.Second
	cacheAnswers = 200
	askAtOnce    = 8
)

func newAsker(cfg Config, conns *conns, hide func(app, id string) string, saw func(who *signin.Person, app, person, account string), m *metrics, now func() time.Time) *asker {
	return &asker{cfg: cfg, conns: conns, hide: hide, saw: saw, metrics: m, now: now, slots: make(chan struct{}, askAtOnce), cache: map[string]*Result{}}
}

// key is the cache key of a question with its values.
func key(q *question.Question, v question.Values) string {
	var b strings.Builder
	b.WriteString(q.Name)
	for _, p := range q.Parameters {
		fmt.Fprintf(&b, "\x00%s", v[p])
	}
	return b.String()
}

// ask answers a question as far as the viewer of ctx may know the answer. The caller
// binds its values, including app.
func (a *asker) ask(ctx context.Context, name string, values question.Values) (*Result, error) {
	q := question.Get(name)
	if q == nil {
		return nil, fmt.Errorf("no question %q", name)
	}
	v, err := q.Bound(values)
	if err != nil {
		return nil, err
	}
	who := signin.From(ctx)
	grant := who.On(v["app"])
	if name == "apps" {
		grant = signin.Grant{Role: who.Any(), People: true}
	}
	switch {
	case grant.Role == signin.Nobody:
		return nil, &denial{fmt.Sprintf("You may not see the app %q.", v["app"]), noRight}
	case q.Admins && grant.Role < signin.Admin:
		return nil, &denial{"This question is for admins.", noRight}
	case !grant.People && (q.People.Hidden || v["person"] != "" || strings.HasPrefix(v["by"], "user.")):
		return nil, &denial{"This question is about single people, who are not shown to you.", noRight}
	}
	r, err := a.answer(ctx, q, v)
	switch {
	case err != nil:
		return nil, err
	case name == "apps":
		return r.only(func(row []any) bool { return who.On(text(row[0])).Role != signin.Nobody }), nil
	case !grant.People:
		return r.withoutPeople(func(id string) string { return a.hide(v["app"], id) }), nil
	}
	if person, account := r.about(); person != "" || account != "" {
		a.saw(who, v["app"], person, account)
	}
	return r, nil
}

// about returns whom a result shows: a person, or the people of an account. Both are empty
// for a result that is not about one of these, or says nothing.
func (r *Result) about() (person, account string) {
	people := r.Question.People
	if !people.Hidden && len(people.Columns) == 0 || r.Question.Admins || !r.says() {
		return "", ""
	}
	if q := r.Values["q"]; q != "" {
		for i := range r.Rows {
			if text(r.cell(i, "actor_id")) == q {
				return q, ""
			}
		}
	}
	if person = r.Values["person"]; person == "" {
		account = r.Values["account"]
	}
	return person, account
}

// says reports whether a row has more than its label in the first column: sums over nobody
// are zero.
func (r *Result) says() bool {
	return slices.ContainsFunc(r.Rows, func(row []any) bool {
		return slices.ContainsFunc(row[1:], func(v any) bool { return v != nil && !reflect.ValueOf(v).IsZero() })
	})
}

// only returns the result with some of its rows.
func (r *Result) only(keep func(row []any) bool) *Result {
	some := *r
	some.Rows = slices.DeleteFunc(slices.Clone(r.Rows), func(row []any) bool { return !keep(row) })
	return &some
}

// withoutPeople returns the result as it is for those to whom people are not shown.
func (r *Result) withoutPeople(hide func(id string) string) *Result {
	people := r.Question.People
	hidden := r
	if people.RowsBy != "" {
		by := slices.IndexFunc(r.Columns, func(c Column) bool { return c.Name == people.RowsBy })
		hidden = r.only(func(row []any) bool { return by >= 0 && !slices.Contains(people.Rows, text(row[by])) })
	}
	if len(people.Columns) == 0 {
		return hidden
	}
	masked := *hidden
	masked.Rows = make([][]any, len(hidden.Rows))
	for i, row := range hidden.Rows {
		masked.Rows[i] = slices.Clone(row)
		for k, c := range hidden.Columns {
			if slices.Contains(people.Columns, c.Name) && text(row[k]) != "" {
				masked.Rows[i][k] = hide(text(row[k]))
			}
		}
	}
	return &masked
}

// answer returns the answer to a question with its values, a kept one where it is young.
func (a *asker) answer(ctx context.Context, q *question.Question, v question.Values) (*Result, error) {
	name := q.Name
	if v["steps"] == "[]" {
		return nil, &refusal{"The address names no step.", "Give step=FEATURE or step=event:NAME, once for each step."}
	}
	k, now := key(q, v), a.now()
	a.mu.Lock()
	kept := a.cache[k]
	a.mu.Unlock()
	if kept != nil && now.Sub(kept.AsOf) < cacheFor {
		a.metrics.asked.WithLabelValues("cached").Inc()
		return kept, nil
	}
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	r, err := a.query(ctx, q, v, now)
	switch {
	case err == nil:
		a.metrics.asked.WithLabelValues("answered").Inc()
	case errors.As(err, new(*refusal)), errors.As(err, new(*denial)):
		a.metrics.asked.WithLabelValues("refused").Inc()
		return nil, err
	default:
		a.metrics.asked.WithLabelValues("failed").Inc()
		return nil, fmt.Errorf("ask %s: %w", name, err)
	}
	a.metrics.seconds.Observe(a.now().Sub(now).Seconds())
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.cache) >= cacheAnswers {
		for old, r := range a.cache {
			if now.Sub(r.AsOf) >= cacheFor {
				delete(a.cache, old)
			}
		}
		if len(a.cache) >= cacheAnswers {
			clear(a.cache)
		}
	}
	a.cache[k] = r
	return r, nil
}

// drop removes the cached answers of questions whose tables are known to change.
func (a *asker) drop(names ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for k := range a.cache {
		name, _, _ := strings.Cut(k, "\x00")
		if slices.Contains(names, name) {
			delete(a.cache, k)
		}
	}
}

func (a *asker) query(ctx context.Context, q *question.Question, v question.Values, now time.Time) (*Result, error) {
	if q.Name == "apps" && a.conns.apps != nil { // no user of ClickHouse sees more than one
		r := &Result{Question: q, Values: v, AsOf: now, Columns: []Column{{Name: "app_id", Type: "String"}}}
		for _, app := range slices.Sorted(maps.Keys(a.conns.apps)) {
			r.Rows = append(r.Rows, []any{app})
		}
		return r, nil
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.QueryTimeout+2*time.Second)
	defer cancel()
	ctx = clickhousego.Context(ctx, clickhousego.WithParameters(clickhousego.Parameters(v)), clickhousego.WithSettings(clickhousego.Settings{
		// Pages only read, whatever the user's rights.
		"readonly":             2,
		"max_execution_time":   int(a.cfg.QueryTimeout.Seconds()),
		"max_rows_to_read":     a.cfg.QueryRows,
		"max_memory_usage":     a.cfg.QueryMemory,
		"max_result_rows":      10_000,
		"result_overflow_mode": "throw",
	}))
	conn, err := a.conns.of(v["app"])
	if err != nil {
		return nil, err
	}
	rows, err := conn.Query(ctx, q.SQL)
	if err != nil {
		return nil, a.refused(ctx, err)
	}
	defer func() { _ = rows.Close() }() // Err has what matters
	types := rows.ColumnTypes()
	r := &Result{Question: q, Values: v, AsOf: now}
	for _, t := range types {
		r.Columns = append(r.Columns, Column{Name: t.Name(), Type: t.DatabaseTypeName()})
	}
	for rows.Next() {
		into := make([]any, len(types))
		for i, t := range types {
			into[i] = reflect.New(t.ScanType()).Interface()
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]any, len(types))
		for i := range into {
			row[i] = plain(reflect.ValueOf(into[i]).Elem())
		}
		r.Rows = append(r.Rows, row)
	}
	if err := rows.Err(); err != nil {
		return nil, a.refused(ctx, err)
	}
	return r, nil
}

// plain replaces pointers (of Nullable columns) by their values, or nil.
func plain(v reflect.Value) any {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil
		}
		return v.Elem().Interface()
	}
	return v.Interface()
}

// Codes of ClickHouse's exceptions that mean that a bound was reached.
const (
	tooManyRows   = 158
	timeout       = 159
	memoryLimit   = 241
	tooManyResult = 396
)

// refused turns an exception caused by a bound into a refusal that names the bound and
// its setting.
func (a *asker) refused(ctx context.Context, err error) error {
	const shorter = "Choose a shorter period, or ask it with SQL."
	long := &refusal{fmt.Sprintf("This question takes longer than %s (console-query-timeout).", a.cfg.QueryTimeout), shorter}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) { // ClickHouse did not stop in time
		return long
	}
	var e *clickhousego.Exception
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code {
	case tooManyRows:
		return &refusal{fmt.Sprintf("This question would read more than %d rows (console-query-rows).", a.cfg.QueryRows), shorter}
	case timeout:
		return long
	case memoryLimit:
		return &refusal{fmt.Sprintf("This question needs more memory than ClickHouse or the console allows: %d MiB (console-query-memory).", a.cfg.QueryMemory>>20), shorter}
	case tooManyResult:
		return &refusal{"This question has more than 10,000 rows as its answer.", "Ask it with SQL."}
	}
	return err
}
