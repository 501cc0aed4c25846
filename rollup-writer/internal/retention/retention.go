// Package retention makes ClickHouse remove the events of an app that are older than
// the app's retention.
//
// It owns the TTL of the tables with single events: events and rejected_events. The
// retention of each app is in the privacy rules (package privacy). Rollups and metrics
// hold sums and stay: they are not computed from events again, and an expired row is
// not a correction.
//
// The TTL has one rule for each retention, with its apps, so that an app without one
// keeps its events forever. ClickHouse removes rows when it merges parts, at the latest
// some hours after they expired.
package retention

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Tables are those with single events.
var Tables = []string{"events", "rejected_events"}

// Change is a change of a table's TTL clauses, "" for none.
type Change struct{ Table, Was, Is string }

// Apply gives the tables of a schema the TTL that keeps each app's events for
// that many days, and no other. It returns the tables that had another one; with
// look it changes nothing. Where a TTL changes, ClickHouse works it out anew for
// all parts, in the background; on a table that has the right one already nothing
// is done.
func Apply(ctx context.Context, conn driver.Conn, schema tables.Schema, days map[string]int, look bool) ([]Change, error) {
	want := clause(days)
	if want != "" {
		// As ClickHouse writes it.
		var text string
		if err := conn.QueryRow(ctx, "SELECT formatQuerySingleLine(?)", "ALTER TABLE t MODIFY TTL "+want).Scan(&text); err != nil {
			return nil, fmt.Errorf("format the ttl: %w", err)
		}
		before, formatted, ok := strings.Cut(text, "MODIFY TTL ")
		if !ok {
			return nil, fmt.Errorf("format the ttl: got %q", text)
		}
		if strings.HasSuffix(before, "(") { // some versions put a command in parentheses
			formatted = strings.TrimSuffix(formatted, ")")
		}
		want = formatted
	}
	var changes []Change
	for _, t := range Tables {
		was, err := current(ctx, conn, schema, t)
		if err != nil {
			return changes, err
		}
		if was == want {
			continue
		}
		changes = append(changes, Change{t, was, want})
		if look {
			continue
		}
		statement := schema.Alter(t) + " MODIFY TTL " + want
		if want == "" {
			statement = schema.Alter(t) + " REMOVE TTL"
		}
		if err := conn.Exec(ctx, statement); err != nil {
			return changes, fmt.Errorf("set the ttl of %s: %w", t, err)
		}
	}
	return changes, nil
}

// clause writes the TTL: a rule for each length.
func clause(days map[string]int) string {
	byDays := map[int][]string{}
	for _, app := range slices.Sorted(maps.Keys(days)) {
		byDays[days[app]] = append(byDays[days[app]], clickhouse.Quote(app))
	}
	var rules []string
	for _, n := range slices.Sorted(maps.Keys(byDays)) {
		rules = append(rules, fmt.Sprintf("toDateTime(received_at) + toIntervalDay(%d) DELETE WHERE app_id IN (%s)", n, strings.Join(byDays[n], ", ")))
	}
	return strings.Join(rules, ", ")
}

// current reads the TTL that a table has.
func current(ctx context.Context, conn driver.Conn, schema tables.Schema, table string) (string, error) {
	engines, err := tables.CollectColumn[string](ctx, conn, "SELECT engine_full FROM system.tables WHERE "+schema.Where("database", "name", table))
	if err != nil {
		return "", fmt.Errorf("read the ttl of %s: %w", table, err)
	}
	if len(engines) == 0 {
		return "", fmt.Errorf("there is no table %s: see `rollup-writer migrate`", schema.Local(table))
	}
	_, ttl, _ := strings.Cut(engines[0], " TTL ")
	ttl, _, _ = strings.Cut(ttl, " SETTINGS ")
	return ttl, nil
}
