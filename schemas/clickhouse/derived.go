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
}

// DerivedTables are all of them.
var DerivedTables = []Derived{
	{
		Name: "identity_facts", View: "identity_facts_from_events", From: "events",
		Key: []string{"fact", "subject", "object", "at"}, Values: []string{"min(first)", "max(last)"},
	},
	{
		Name: "metric_values", View: "metric_values_from_events", From: "events",
		Key:    []string{"event", "number", "user_id", "anonymous_id", "account_id", "dimensions", "period_start", "period_end", "message_id"},
		Values: []string{"max(last)"},
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
// and not as the server has it, from those rows of its source for which where is
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
	for _, m := range ms {
		statements, err := m.Statements(s)
		if err != nil {
			return "", err
		}
		for _, st := range statements {
			_, query, ok := strings.Cut(st, "CREATE MATERIALIZED VIEW IF NOT EXISTS "+s.Table(d.View)+s.onCluster()+" TO "+s.Local(d.Name)+" AS\n")
			if !ok {
				continue
			}
			source := "FROM " + s.Local(d.From)
			if strings.Count(query, source) != 1 {
				return "", fmt.Errorf("view %s does not read %s once", d.View, d.From)
			}
			return strings.Replace(query, source, "FROM (SELECT * FROM "+from+" WHERE "+where+")", 1), nil
		}
	}
	return "", fmt.Errorf("no migration makes the view %s", d.View)
}
