// Package derived compares tables that a materialized view fills by minima and
// maxima (schemas/clickhouse, DerivedTables) with what they are made from. It owns
// the SQL of that comparison, which the audit reports and a rebuild acts on.
//
// An app's rows are compared whole, of all days: a fact has no day of its own.
//
// # What is no difference
//
// Where the source lost rows on purpose, the derived table knows more than can be
// made again: an app whose events expire (`rollup-writer retention`), what an
// account's traits were by calls of a person who was erased, metrics that were kept
// under a hash when a person was erased, and unlinks whose plans have expired. Such
// rows may say more than their source, and never less. A row that was written before
// a migration added a column lacks the column's value, and nothing else.
package derived

import (
	"fmt"
	"strings"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Comparison is of one table and app.
type Comparison struct {
	Table  *tables.Derived
	Schema tables.Schema
	App    string
	Local  bool // the rows of one server
}

func (c *Comparison) read(name string) string {
	if c.Local {
		return c.Schema.Local(name)
	}
	return c.Schema.Table(name)
}

func (c *Comparison) app() string { return "app_id = " + clickhouse.Quote(c.App) }

// Keys are the columns by which a row of the app is told apart, as SQL lists them.
func (c *Comparison) Keys() string { return strings.Join(c.Table.Key, ", ") }

// Wanted lists the key and the values that a row of Query should have, by the names
// of the table's columns.
func (c *Comparison) Wanted() (columns, selected string) {
	selected = c.Keys()
	for i := range c.Table.Values {
		selected += fmt.Sprintf(", w%d", i+1)
	}
	return c.Table.Columns(), selected
}

// excused is the condition under which a row may say more than its source.
func (c *Comparison) excused() string {
	switch c.Table.Name {
	case "identity_unlinks":
		return "1"
	case "user_agents":
		return "expires"
	case "metric_values":
		return "(expires OR startsWith(anonymous_id, 'erased:'))"
	}
	return "(expires OR fact = 'account' AND erased)"
}

// Query selects every row that is on one side or the other: the key; has_want and
// has_got; less: the table lacks the row, or the row says less than its source;
// more: it says something that the source does not; and the values w1, w2, … that
// it should have and g1, g2, … that it has.
func (c *Comparison) Query() (string, error) {
	view, err := c.Table.Select(c.Schema, c.app(), c.Local)
	if err != nil {
		return "", err
	}
	var own, picks, less, more []string
	for i, v := range c.Table.Values {
		n := i + 1
		w, g := fmt.Sprintf("w%d", n), fmt.Sprintf("g%d", n)
		own = append(own, fmt.Sprintf("%s AS v%d", v, n))
		picks = append(picks, fmt.Sprintf("anyIf(v%[1]d, is_want) AS %[2]s, anyIf(v%[1]d, NOT is_want) AS %[3]s", n, w, g))
		if strings.HasPrefix(v, "min(") {
			w, g = g, w
		}
		if absent := c.Table.Absent[v]; absent != "" {
			less = append(less, fmt.Sprintf("%[1]s < %[2]s AND %[1]s != %[3]s", g, w, absent))
		} else {
			less = append(less, g+" < "+w)
		}
		more = append(more, g+" > "+w)
	}
	side := func(from string, want bool) string {
		return fmt.Sprintf("SELECT %s, %t AS is_want, %s FROM %s GROUP BY %[1]s", c.Keys(), want, strings.Join(own, ", "), from)
	}
	return fmt.Sprintf(`WITH (SELECT count() > 0 FROM system.tables WHERE %s AND has(extractAll(extract(engine_full, ' TTL (.*)'), '\'((?:[^\'\\\\]|\\\\.)*)\''), %s)) AS expires,
	(SELECT count() > 0 FROM %s WHERE %s AND actor_kind = 'erased') AS erased
SELECT %s, max(is_want) AS has_want, max(NOT is_want) AS has_got, %s,
	(has_want AND (NOT has_got OR %s)) AS less, (has_got AND (NOT has_want OR %s) AND NOT %s) AS more
FROM (%s
UNION ALL
%s)
GROUP BY %s`,
		c.Schema.Where("database", "name", "events"), clickhouse.Quote(strings.Trim(clickhouse.Quote(c.App), "'")),
		c.read("events"), c.app(),
		c.Keys(), strings.Join(picks, ", "), strings.Join(less, " OR "), strings.Join(more, " OR "), c.excused(),
		side("("+view+")", true), side(c.read(c.Table.Name)+" WHERE "+c.app(), false), c.Keys()), nil
}
