package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

// layoutCase is a layout of the rollups whose cost is measured: what is changed
// in freshly made tables, and against which other case it is held.
type layoutCase struct {
	id      string // as the command line names it
	name    string
	drop    []string // views that fill a rollup
	columns []string // that usage_hourly goes without
}

var (
	accountViews = []string{"account_feature_daily_view", "account_module_daily_view", "account_product_daily_view"}
	userViews    = []string{"user_feature_daily_view"}
	baseViews    = []string{"usage_hourly_from_events"}
)

// layoutCases are the cases of a run: by materialized view, or by column of the
// base's key.
func layoutCases(columns bool) []layoutCase {
	if columns {
		onlyBase := slices.Concat(accountViews, userViews)
		return []layoutCase{
			{id: "base", name: "base alone", drop: onlyBase},
			{id: "role", name: "without role", drop: onlyBase, columns: []string{"role"}},
			{id: "event", name: "without event", drop: onlyBase, columns: []string{"event"}},
			{id: "partition", name: "without source_partition", drop: onlyBase, columns: []string{"source_partition"}},
			{id: "ids", name: "without account_source, user_id, anonymous_id", drop: onlyBase, columns: []string{"account_source", "user_id", "anonymous_id"}},
		}
	}
	return []layoutCase{
		{id: "plain", name: "plain insert", drop: slices.Concat(baseViews, accountViews, userViews)},
		{id: "base", name: "base alone", drop: slices.Concat(accountViews, userViews)},
		{id: "user", name: "base, user_feature_daily", drop: accountViews},
		{id: "feature", name: "base, account_feature_daily", drop: slices.Concat(accountViews[1:], userViews)},
		{id: "accounts", name: "base, three by account", drop: userViews},
		{id: "all", name: "all"},
	}
}

// RollupCost is what a row costs in ClickHouse under one layout.
type RollupCost struct {
	Name   string
	Micros float64 // CPU of the server per row, its merges in it
	Rows   int
	Bytes  int64 // of active parts, compressed
	Parts  int
}

// LayoutNames lists the layouts that can be chosen, by view or by column.
func LayoutNames(columns bool) (names []string) {
	for _, lc := range layoutCases(columns) {
		names = append(names, lc.id)
	}
	return names
}

// Rollups inserts blocks of production's size under each layout in turns, every
// layout with a server, a log and a writer of its own, for about d. only, if it
// is not empty, names the layouts; the first is the measure of the others. The
// servers' merges are in the figures, also those that are left at the end.
func Rollups(ctx context.Context, cfg Config, columns bool, only []string, d time.Duration) (costs []RollupCost, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	for _, id := range only {
		if !slices.Contains(LayoutNames(columns), id) {
			return nil, fmt.Errorf("rollup-layouts must be of %s (got %q)", strings.Join(LayoutNames(columns), ", "), id)
		}
	}
	r := &runner{cfg: cfg}
	var c closers
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	cases := slices.DeleteFunc(layoutCases(columns), func(lc layoutCase) bool { return len(only) > 0 && !slices.Contains(only, lc.id) })
	lanes := make([]*lane, len(cases))
	for i, lc := range cases {
		if lanes[i], err = c.lane(ctx, r, lc); err != nil {
			return nil, fmt.Errorf("%s: %w", lc.name, err)
		}
	}
	for begin, round := time.Now(), 0; round == 0 || time.Since(begin) < d; round++ {
		for i := range lanes {
			// The order turns, so that none is always behind the same other.
			l := lanes[(i+round)%len(lanes)]
			if err := l.insert(ctx, r); err != nil {
				return nil, fmt.Errorf("%s: %w", l.name, err)
			}
		}
		fmt.Fprintf(cfg.Progress, "rollups: %d rows each after %s\n", lanes[0].rows, time.Since(begin).Round(time.Second))
	}
	for _, l := range lanes {
		cost, err := l.cost(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		costs = append(costs, cost)
	}
	return costs, nil
}

// lane is one layout under load.
type lane struct {
	name   string
	log    *log
	server *embedded.Server
	writer *process
	begin  span
	rows   int // that must have been inserted
}

func (c *closers) lane(ctx context.Context, r *runner, lc layoutCase) (*lane, error) {
	l := &lane{name: lc.name}
	var err error
	if l.log, err = c.log(ctx, r); err != nil {
		return nil, err
	}
	dir, err := r.dir("rollups")
	if err != nil {
		return nil, err
	}
	if l.server, err = c.clickhouse(ctx, r, dir, l.log, blockInterval); err != nil {
		return nil, err
	}
	for _, view := range lc.drop {
		if _, err := l.server.Query(ctx, "DROP VIEW uptake_internal."+view+" SYNC"); err != nil {
			return nil, err
		}
	}
	if err := without(ctx, l.server, lc.columns); err != nil {
		return nil, err
	}
	if l.writer, err = c.writer(ctx, r, dir, l.log, l.server, blockInterval); err != nil {
		return nil, err
	}
	closing := 1000 * r.cfg.Partitions
	if err := l.log.enrichedRecords(ctx, r.cfg, -int64(closing), closing); err != nil {
		return nil, err
	}
	l.begin, err = startSpan(l.server.Pid())
	return l, err
}

// insert has the writer insert one block in each partition.
func (l *lane) insert(ctx context.Context, r *runner) error {
	n := blockRows * r.cfg.Partitions
	if err := l.log.enrichedRecords(ctx, r.cfg, int64(l.rows), n); err != nil {
		return err
	}
	l.rows += n
	err := l.writer.await(ctx, "the rows", func() (bool, error) {
		have, err := count(ctx, l.server, "uptake.events")
		return have >= l.rows, err
	})
	if err != nil {
		return err
	}
	// A long run would fill the memory. What comes before the last block of each
	// partition is surely written.
	return l.log.forget(ctx, int64(l.rows/r.cfg.Partitions-blockRows))
}

func (l *lane) cost(ctx context.Context) (RollupCost, error) {
	if err := merged(ctx, l.writer, l.server); err != nil {
		return RollupCost{}, err
	}
	s, err := l.begin.stop(l.rows)
	if err != nil {
		return RollupCost{}, err
	}
	cost := RollupCost{Name: l.name, Micros: s.Micros(), Rows: l.rows}
	text, err := l.server.Query(ctx, "SELECT sum(bytes_on_disk), count() FROM system.parts WHERE startsWith(database, 'uptake') AND active")
	if err != nil {
		return cost, err
	}
	_, err = fmt.Sscan(text, &cost.Bytes, &cost.Parts)
	return cost, err
}

// without makes usage_hourly anew, and empty, without some of its columns.
func without(ctx context.Context, server *embedded.Server, columns []string) error {
	if len(columns) == 0 {
		return nil
	}
	text, err := server.Query(ctx, "SHOW CREATE TABLE uptake_internal.usage_hourly FORMAT TSVRaw")
	if err != nil {
		return err
	}
	var lines []string
	for _, line := range strings.Split(text, "\n") {
		defined := func(c string) bool { return strings.HasPrefix(strings.TrimSpace(line), "`"+c+"` ") }
		if slices.ContainsFunc(columns, defined) {
			continue
		}
		if strings.HasPrefix(line, "ORDER BY ") {
			for _, c := range columns {
				line = strings.Replace(line, ", "+c, "", 1)
			}
		}
		lines = append(lines, line)
	}
	for _, statement := range []string{"DROP TABLE uptake_internal.usage_hourly SYNC", strings.Join(lines, "\n")} {
		if _, err := server.Query(ctx, statement); err != nil {
			return fmt.Errorf("make usage_hourly without %s: %w", strings.Join(columns, ", "), err)
		}
	}
	return nil
}

// RollupValues are what docs/performance.json keeps of a run by view: what all
// rollups cost against a plain insert, and what a row takes on disk; nothing where
// these two were not measured.
func RollupValues(costs []RollupCost) map[string]any {
	plain, all := costs[0], costs[len(costs)-1]
	if plain.Name != "plain insert" || all.Name != "all" {
		return nil
	}
	return map[string]any{
		"rollups_us": round(all.Micros), "plain_insert_us": round(plain.Micros), "rollups_ratio": round(all.Micros / plain.Micros),
		"clickhouse_bytes_per_row": round(float64(all.Bytes) / float64(all.Rows)),
	}
}

// WriteRollups writes costs as a Markdown table; the first one is the measure.
func WriteRollups(w io.Writer, costs []RollupCost) error {
	var b strings.Builder
	b.WriteString("| layout | ClickHouse CPU µs/row | ratio | bytes/row on disk | parts |\n|---|---|---|---|---|\n")
	for _, c := range costs {
		fmt.Fprintf(&b, "| %s | %.1f | %.2f | %.0f | %d |\n", c.Name, c.Micros, c.Micros/costs[0].Micros, float64(c.Bytes)/float64(c.Rows), c.Parts)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
