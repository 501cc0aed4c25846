package rollup

import (
	"context"
	"fmt"

	"github.com/uptakehq/uptake/schemas/catalog"
)

// metricRow is a name of metric events and the metric that they report.
type metricRow struct {
	event   string
	metric  *catalog.Metric
	removed bool
}

// metricRows returns the names of v's metrics, and those of before that v no longer
// has.
func metricRows(v, before *catalog.Version) []metricRow {
	var rows []metricRow
	has := map[string]bool{}
	add := func(c *catalog.Catalog, removed bool) {
		for i := range c.Metrics {
			m := &c.Metrics[i]
			for _, name := range m.Names {
				if !has[name] {
					has[name] = true
					rows = append(rows, metricRow{name, m, removed})
				}
			}
		}
	}
	add(v.Catalog, false)
	if before != nil {
		add(before.Catalog, true)
	}
	return rows
}

// copyMetrics writes the metrics of a version, once, as copy does for features. A
// version without metrics leaves no row, so the next writer looks at it again; that
// costs nothing.
func (c *catalogCopy) copyMetrics(ctx context.Context, v, before *catalog.Version) error {
	list := metricRows(v, before)
	if v.Number <= c.metrics[v.App] || len(list) == 0 {
		return nil
	}
	rows := make([][]any, len(list))
	for i, r := range list {
		m := r.metric
		rows[i] = []any{v.App, r.event, m.ID, m.Name, m.Semantics, m.Unit, m.Owner, m.Purpose, v.Number, v.AppliedAt.UTC(), r.removed}
	}
	if err := c.s.insertRows(ctx, "catalog_metrics", "app_id, event, metric_id, metric_name, semantics, unit, owner, purpose, catalog_version, applied_at, removed", rows); err != nil {
		return fmt.Errorf("write metrics of version %d of %s: %w", v.Number, v.App, err)
	}
	c.metrics[v.App] = v.Number
	return nil
}
