// Package definitions stores the versions of an app's insight definitions in
// ClickHouse: the one in force, and the next one. The format and its lint belong to
// schemas/insight.
package definitions

import (
	"context"
	"errors"
	"fmt"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/schemas/catalog"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/insight"
)

// ErrConflict is in the chain of the error of an apply that lost against a concurrent
// one.
var ErrConflict = errors.New("another version was applied at the same time")

// Store is the definitions of one app. Close it.
type Store struct {
	conn driver.Conn
	app  string
}

// Open connects to the database, which must exist.
func Open(ctx context.Context, cfg *clickhouse.Config, app string) (*Store, error) {
	if app == "" {
		return nil, errors.New("app must not be empty")
	}
	has, err := clickhouse.HasDatabase(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if !has {
		return nil, fmt.Errorf("no database %s: see `rollup-writer migrate`", cfg.Database)
	}
	conn, err := clickhouse.OpenSQL(cfg)
	if err != nil {
		return nil, err
	}
	return &Store{conn, app}, nil
}

// Close closes the connections.
func (s *Store) Close() error { return s.conn.Close() }

// Version is one applied version.
type Version struct {
	Number  uint32 // 0: nothing was applied yet
	Text    string // of the file
	By      string
	Applied time.Time
	Rules   []insight.Rule // without the row that holds the text
}

// InForce returns the newest version.
func (s *Store) InForce(ctx context.Context) (v Version, err error) {
	err = tables.Each(ctx, s.conn, func(r *insight.Rule) []any {
		return []any{&v.Number, &r.Use, &r.Match, &r.Key, &r.Value, &v.By, &v.Applied}
	}, func(r *insight.Rule) {
		if r.Use == insight.UseVersion {
			v.Text = r.Value
		} else {
			v.Rules = append(v.Rules, *r)
		}
	}, `SELECT version, toString(use), toString(match), key, value, applied_by, applied_at FROM insight_rules
		WHERE app_id = ? AND version = (SELECT max(version) FROM insight_rules WHERE app_id = ?) ORDER BY use, match, key, value`, s.app, s.app)
	if err != nil {
		return v, fmt.Errorf("read insight_rules: %w", err)
	}
	return v, nil
}

// Apply makes d the version after v; text is its file. All of its rows are one block
// under a token that names the version: of two concurrent applies ClickHouse accepts
// one, and the other returns [ErrConflict].
func (s *Store) Apply(ctx context.Context, v Version, d *insight.Definitions, text, by string, now time.Time) (uint32, error) {
	next := v.Number + 1
	ctx = clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{
		"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": fmt.Sprintf("insight|%s|%d", s.app, next),
	}))
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO insight_rules (app_id, version, use, match, key, value, applied_by, applied_at)")
	if err != nil {
		return 0, fmt.Errorf("insert into insight_rules: %w", err)
	}
	for _, r := range append([]insight.Rule{{Use: insight.UseVersion, Value: text}}, d.Rules...) {
		if err := batch.Append(s.app, next, r.Use, r.Match, r.Key, r.Value, by, now.UTC()); err != nil {
			return 0, errors.Join(fmt.Errorf("insert into insight_rules: %w", err), batch.Abort())
		}
	}
	if err := batch.Send(); err != nil {
		return 0, fmt.Errorf("insert into insight_rules: %w", err)
	}
	got, err := s.InForce(ctx)
	if err != nil {
		return 0, err
	}
	if got.Number < next || (got.Number == next && got.Text != text) {
		return 0, fmt.Errorf("%w as version %d: look at it with `rollup-writer insight show`, and apply again", ErrConflict, got.Number)
	}
	return next, nil
}

// ApplyFirst applies the text of a file to an app that has no definitions yet.
func ApplyFirst(ctx context.Context, cfg *clickhouse.Config, app, by string, text []byte) (applied bool, err error) {
	d, err := insight.Parse(text)
	if err != nil {
		return false, err
	}
	s, err := Open(ctx, cfg, app)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v, err := s.InForce(ctx)
	if err != nil || v.Number > 0 {
		return false, err
	}
	_, err = s.Apply(ctx, v, d, string(text), by, time.Now())
	return err == nil, err
}

// Lint is [insight.Lint] against the features that the rollup-writer has of the
// app's catalog.
func (s *Store) Lint(ctx context.Context, d *insight.Definitions) (found []insight.Finding, err error) {
	type place struct {
		product, module string
		feature         catalog.Feature
	}
	var c catalog.Catalog
	err = tables.Each(ctx, s.conn, func(p *place) []any { return []any{&p.product, &p.module, &p.feature.ID, &p.feature.Status} }, func(p *place) {
		c.Products = append(c.Products, catalog.Product{
			ID: p.product, Status: catalog.StatusActive,
			Modules: []catalog.Module{{ID: p.module, Status: catalog.StatusActive, Features: []catalog.Feature{p.feature}}},
		})
	}, `SELECT product_id, module_id, feature_id, toString(status) FROM catalog_features FINAL WHERE app_id = ? AND removed = 0 ORDER BY ALL`, s.app)
	if err != nil {
		return nil, fmt.Errorf("read catalog_features: %w", err)
	}
	return insight.Lint(d, &c), nil
}
