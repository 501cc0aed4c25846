package clickhouse

import (
	"fmt"
	"slices"
	"strings"
)

// Derived is a table of minima and maxima that a materialized view fills from the
// rows of another: a repeat of such rows changes nothing in it, and all of it can be
// made again from them.
type Derived struct {
	Name, View, From string
	// Key are the columns beside app_id by which a row is told apart, Values what
	// is kept of each, as SQL aggregates.
	Key    []string
	Values []string
	// Absent are values, in SQL, of rows that were written before a migration added
	// the column: such a row says no less than its source for it.
	Absent map[string]string
}

// DerivedTables are all of them.
var DerivedTables = []Derived{
	{
		Name: "identity_facts", View: "identity_facts_from_events", From: "events",
		Key: []string{"fact", "subject", "object", "at"}, Values: []string{"min(first)", "max(last)", "max(stated)"},
		Absent: map[string]string{"max(stated)": "(toDateTime64(0, 6, 'UTC'), toDateTime64(0, 6, 'UTC'), toInt64(0), '')"},
	},
	{
		Name: "metric_values", View: "metric_values_from_events", From: "events",
		Key:    []string{"event", "number", "user_id", "anonymous_id", "account_id", "dimensions", "period_start", "period_end", "message_id"},
		Values: []string{"max(last)"},
	},
	{
		Name: "user_agents", View: "user_agents_from_events", From: "events",
		Key: []string{"user_agent", "anonymous_id", "user_id", "actor_kind", "actor_id"}, Values: []string{"max(last_seen)"},
	},
	{
		Name: "identity_unlinks", View: "identity_unlinks_from_plans", From: "correction_plans",
		Key: []string{"id_kind", "id", "user_id"}, Values: []string{"max(until)"},
	},
}

// Columns are those beside app_id, as SQL lists them.
func (d *Derived) Columns() string {
	list := slices.Clone(d.Key)
	for _, v := range d.Values {
		_, name, _ := strings.Cut(v, "(")
		list = append(list, strings.TrimSuffix(name, ")"))
	}
	return strings.Join(list, ", ")
}

// Select returns what the view of a derived table selects, as the migrations say
// (the last one that names it) and not as the server has it, from those rows of its source for which where is
// true. With local it reads the rows of one server.
func (d *Derived) Select(s Schema, where string, local bool) (string, error) {
	from := s.Table(d.From)
	if local {
		from = s.Local(d.From)
	}
	ms, err := Migrations()
	if err != nil {
		return "", err
	}
	selected := ""
	for _, m := range ms {
		statements, err := m.Statements(s)
		if err != nil {
			return "", err
		}
		for _, st := range statements {
			for _, start := range []string{"CREATE MATERIALIZED VIEW IF NOT EXISTS " + s.Table(d.View) + s.onCluster() + " TO " + s.Local(d.Name) + " AS\n", s.alterView(d.View) + "\n"} {
				if _, query, ok := strings.Cut(st, start); ok {
					selected = query
				}
			}
		}
	}
	source := "FROM " + s.Local(d.From)
	if strings.Count(selected, source) != 1 {
		return "", fmt.Errorf("the migrations make no view %s that reads %s once", d.View, d.From)
	}
	return strings.Replace(selected, source, "FROM (SELECT * FROM "+from+" WHERE "+where+")", 1), nil
}
