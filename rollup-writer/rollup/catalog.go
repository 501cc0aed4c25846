package rollup

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/uptakehq/uptake/rollup-writer/internal/boundary"
	"github.com/uptakehq/uptake/schemas/catalog"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/svc/backoff"
)

// catalogCopy copies the versions of the catalog into ClickHouse, where analysts join
// features with their names, owners and kinds. Every writer makes its own copy: the
// rows of a version are the same from all of them, and both tables replace rows of
// equal key, so that several copies have the effect of one.
type catalogCopy struct {
	s      *Service
	before map[string]*catalog.Version // the version of each app that was read most recently
	copied map[string]int64            // the highest version of each app that ClickHouse has
	// metrics holds the highest version of each app whose metrics ClickHouse has.
	metrics map[string]int64
}

// followCatalog copies existing and future versions until ctx ends. A version that
// cannot be copied does not delay events.
func (s *Service) followCatalog(ctx context.Context) error {
	in, err := s.reader()
	if err != nil {
		return err
	}
	defer in.Close()
	c := &catalogCopy{s: s, before: map[string]*catalog.Version{}}
	if err := s.untilDone(ctx, "read catalog versions from clickhouse", c.readCopied); err != nil {
		return nil // stopped
	}
	for {
		// Read the topic from its start: copying a version again changes nothing.
		err := in.Follow(ctx, s.names.Catalog, 0, func(r *kgo.Record) error { return c.take(ctx, r) }, func() {})
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("reading the catalog failed; retrying", "error", err)
		if backoff.Sleep(ctx, checkRetry) != nil {
			return nil // stopped
		}
	}
}

// take copies the version in a record. It returns an error only when ctx ends.
func (c *catalogCopy) take(ctx context.Context, r *kgo.Record) error {
	if len(r.Value) == 0 {
		return nil // tombstone: the version was withdrawn
	}
	v, err := catalog.Decode(r.Value)
	if err != nil {
		c.s.notCopied(r, err)
		return nil
	}
	return c.s.untilDone(ctx, "copy the catalog", func(ctx context.Context) error { return c.copy(ctx, v) })
}

// untilDone calls do until it succeeds or ctx ends.
func (s *Service) untilDone(ctx context.Context, what string, do func(context.Context) error) error {
	for attempt := 0; ; attempt++ {
		ask, cancel := boundary.Uncut(ctx)
		err := do(ask)
		cancel()
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if attempt%60 == 0 {
			s.log.Warn("failed; retrying", "what", what, "error", err)
		}
		if backoff.Sleep(ctx, checkRetry) != nil {
			return ctx.Err()
		}
	}
}

func (c *catalogCopy) readCopied(ctx context.Context) (err error) {
	if c.metrics, err = c.highest(ctx, "catalog_metrics"); err != nil {
		return err
	}
	c.copied, err = c.highest(ctx, "catalog_features_history")
	return err
}

// highest returns the highest version of each app that a table has rows of.
func (c *catalogCopy) highest(ctx context.Context, table string) (map[string]int64, error) {
	return tables.CollectMap[string, int64](ctx, c.s.sql, "SELECT app_id, max(catalog_version) FROM "+c.s.schema.Local(table)+" GROUP BY app_id")
}

// copy writes one version: its features, and, marked as removed, those of the previous
// version that it no longer has. The history row is written last: a version that has
// one was copied completely.
func (c *catalogCopy) copy(ctx context.Context, v *catalog.Version) error {
	before := c.before[v.App]
	if err := c.copyMetrics(ctx, v, before); err != nil {
		return err
	}
	if v.Number > c.copied[v.App] {
		rows := featureRows(v, before)
		for _, table := range []string{"catalog_features", "catalog_features_history"} {
			if err := c.insert(ctx, table, v, rows); err != nil {
				return fmt.Errorf("write version %d of %s: %w", v.Number, v.App, err)
			}
		}
		c.copied[v.App] = v.Number
		c.s.log.Info("catalog copied", "app", v.App, "version", v.Number, "features", len(rows))
	}
	if before == nil || v.Number > before.Number {
		c.before[v.App] = v
	}
	return nil
}

func (c *catalogCopy) insert(ctx context.Context, table string, v *catalog.Version, list []featureRow) error {
	rows := make([][]any, len(list))
	for i, r := range list {
		rows[i] = []any{
			v.App, r.feature.ID, r.feature.Name, r.module.ID, r.module.Name, r.product.ID, r.product.Name,
			firstOf(r.feature.Owner, r.module.Owner, r.product.Owner), r.feature.Purpose, r.feature.Kind, r.feature.Status, v.Number, v.AppliedAt.UTC(), r.removed,
		}
	}
	return c.s.insertRows(ctx, table, "app_id, feature_id, feature_name, module_id, module_name, product_id, product_name, "+
		"owner, purpose, kind, status, catalog_version, applied_at, removed", rows)
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// featureRow is a feature with its module and product.
type featureRow struct {
	product *catalog.Product
	module  *catalog.Module
	feature *catalog.Feature
	removed bool
}

// featureRows returns the features of v, and those of before that v no longer has.
func featureRows(v, before *catalog.Version) []featureRow {
	rows := features(v.Catalog, false)
	if before == nil {
		return rows
	}
	has := map[string]bool{}
	for _, r := range rows {
		has[r.feature.ID] = true
	}
	for _, r := range features(before.Catalog, true) {
		if !has[r.feature.ID] {
			rows = append(rows, r)
		}
	}
	return rows
}

func features(c *catalog.Catalog, removed bool) []featureRow {
	var rows []featureRow
	for i := range c.Products {
		p := &c.Products[i]
		for j := range p.Modules {
			m := &p.Modules[j]
			for k := range m.Features {
				rows = append(rows, featureRow{p, m, &m.Features[k], removed})
			}
		}
	}
	return rows
}
