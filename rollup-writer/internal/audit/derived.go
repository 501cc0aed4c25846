package audit

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/uptakehq/uptake/rollup-writer/internal/derived"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Exceptions are the tables that no audit compares and no rebuild makes again, and
// why.
var Exceptions = map[string]string{
	"replayed_events":           "marks of `rollup-writer replay-rejected`: nothing else has them; without a mark an event is sent once more, and the enrichers drop it as a duplicate",
	"insight_rules":             "made from a file that is under version control: `rollup-writer insight plan` shows what differs, and `apply` stores it again",
	"catalog_features":          fromCatalog,
	"catalog_features_history":  fromCatalog,
	"catalog_metrics":           fromCatalog,
	"signal_log":                fromSignals,
	"health_scores":             fromSignals,
	"notes":                     "copied from the compacted topic of notes: when the table is emptied, a writer that is started copies the newest version of every note again",
	"looks":                     "copied from the topic of looks: when the table is emptied, a writer that is started copies again what the topic holds",
	"behaviour_clusters":        fromClusters,
	"behaviour_cluster_members": fromClusters,
	"schema_migrations":         "which migrations were applied: every command compares it with this release when it starts",
	"schema_views":              "which views were applied: `rollup-writer migrate` applies again what differs",
}

const fromCatalog = "copied from the compacted topic of catalogs: when all three tables are emptied, a writer that is started copies every version again"

const fromSignals = "copied from the topics of `rollup-writer alerts`: when the table is emptied, a writer that is started copies again what the topic holds"

const fromClusters = "written by `rollup-writer cluster`, which replaces all of it when it runs again"

// Derived is how a table that is made from the rows of another agrees with them.
type Derived struct {
	Table string `json:"table"`
	From  string `json:"from"`
	Rows  uint64 `json:"rows"` // that it should hold
	// Less are rows that it lacks, or that say less than their source; More are
	// rows that say what the source does not.
	Less uint64 `json:"less"`
	More uint64 `json:"more"`
}

// derived compares the tables that are made from events and plans. Whatever
// differs is looked at again, as cells are.
func (a *auditor) derived(ctx context.Context, app string) ([]*Derived, error) {
	var list []*Derived
	for i := range tables.DerivedTables {
		t := &tables.DerivedTables[i]
		c := derived.Comparison{Table: t, Schema: a.schema, App: app}
		query, err := c.Query()
		if err != nil {
			return nil, err
		}
		d := &Derived{Table: t.Name, From: t.From}
		hash, only := "cityHash64("+c.Keys()+")", ""
		for look := 0; ; look++ {
			var rows uint64
			var held []uint64
			err := a.conn.QueryRow(ctx, fmt.Sprintf("SELECT countIf(has_want), countIf(less), countIf(more), groupArrayIf(%d)(%s, less OR more) FROM (%s)%s", maxHeld, hash, query, only)).
				Scan(&rows, &d.Less, &d.More, &held)
			if err != nil {
				return nil, fmt.Errorf("compare %s with %s: %w", t.Name, t.From, err)
			}
			if look == 0 {
				d.Rows = rows
			}
			if !a.cfg.From.IsZero() {
				d.More = 0 // what it came from may have been deleted before that
			}
			if d.Less+d.More == 0 || look == a.cfg.Settle {
				break
			}
			if uint64(len(held)) >= d.Less+d.More {
				only = fmt.Sprintf(" WHERE has(%s, %s)", numbers(held), hash)
			}
			if err := a.wait(ctx, a.cfg.SettleWait); err != nil {
				return nil, err
			}
		}
		list = append(list, d)
	}
	return list, nil
}

// derivedFindings says what is wrong with derived tables. Where events lost rows,
// what was made from them is the only copy of what they said.
func derivedFindings(list []*Derived, eventsLost bool) []Finding {
	var found []Finding
	for _, d := range list {
		if d.Less > 0 {
			found = append(found, Finding{
				Table: d.Table, Repair: "`rollup-writer rebuild` of this app",
				What: fmt.Sprintf("%s lacks %d rows that %s has, or says less than it: a part of %[1]s was lost, or rows were changed", d.Table, d.Less, d.From),
			})
		}
		if d.More > 0 && !eventsLost {
			found = append(found, Finding{
				Table: d.Table, Repair: "`rollup-writer rebuild -from-log -shrink` of this app, which first puts back what the log has; -dry-run shows what it would take out",
				What: fmt.Sprintf("%s holds %d rows that say what %s does not: %[3]s lost rows that count nothing, or rows of %[1]s were written or changed by hand", d.Table, d.More, d.From),
			})
		}
	}
	return found
}

// numbers is an array in SQL.
func numbers(list []uint64) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.FormatUint(n, 10)
	}
	return "[" + strings.Join(texts, ",") + "]"
}

// Compared are the tables that an audit compares with what they are made from.
func Compared() []string {
	list := []string{"events", "corrections", "correction_plans", "usage_hourly", "audit_blocks", "rejected_events"}
	list = append(list, rollups...)
	for i := range tables.DerivedTables {
		list = append(list, tables.DerivedTables[i].Name)
	}
	return list
}
