// Package behaviour groups the users or the accounts of an app by how they use the
// product (`rollup-writer cluster`): it reads their behaviour from the view of that
// name, finds clusters by density, and stores who is in which, and what sets each
// cluster apart.
//
// It owns the tables behaviour_clusters and behaviour_cluster_members. Whose behaviour
// counts is up to the view; internal/dbscan finds the clusters.
package behaviour

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
)

// Units that are grouped.
const (
	Users    = "user"
	Accounts = "account"
)

// Config is what a run depends on.
type Config struct {
	App      string
	Unit     string
	From, To string // days of the zone, To exclusive; To empty: today; From empty: 28 days before
	Zone     string

	Eps       float64 // 0: the one that gives the most clusters
	MinPoints int     // 0: a hundredth of the units, at least their logarithm and 4
	MinEvents int
	Sample    int
	Most      int
	Seed      uint64
}

// DefaultConfig is for users of the last four weeks.
func DefaultConfig() Config {
	return Config{Unit: Users, Zone: "UTC", MinEvents: 20, Sample: 10_000, Most: 200_000, Seed: 1}
}

// Flags binds the fields to flags of set.
func (c *Config) Flags(set *flag.FlagSet) {
	set.StringVar(&c.App, "app", c.App, "`id` of the app")
	set.StringVar(&c.Unit, "unit", c.Unit, "what to group: `user or account`")
	set.StringVar(&c.From, "from", c.From, "first `day` of the usage that counts, YYYY-MM-DD (default: 28 days before to)")
	set.StringVar(&c.To, "to", c.To, "`day` after the last one (default: today)")
	set.StringVar(&c.Zone, "zone", c.Zone, "time `zone` of the days")
	set.Float64Var(&c.Eps, "eps", c.Eps, "`distance` within which two are neighbours, above 0 to 2; 0: the one that gives the most clusters of at least a hundredth")
	set.IntVar(&c.MinPoints, "min-points", c.MinPoints, "how many within eps, itself included, begin a cluster: 2 to 1000; 0: a hundredth of how many are grouped (at most of sample), at least their natural logarithm and 4")
	set.IntVar(&c.MinEvents, "min-events", c.MinEvents, "leave out those with fewer `events` of features: their shares are chance")
	set.IntVar(&c.Sample, "sample", c.Sample, "find the clusters from at most this `many`, and assign the others: 100 to 50000")
	set.IntVar(&c.Most, "most", c.Most, "refuse to group more than this `many`, since all are held in memory")
	set.Uint64Var(&c.Seed, "seed", c.Seed, "what the sample is drawn with")
}

// Validate reports all faults, and fills in the days where now is.
func (c *Config) Validate(now time.Time) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.App == "" {
		fail("app must name an app")
	}
	if c.Unit != Users && c.Unit != Accounts {
		fail("unit must be user or account (got %q)", c.Unit)
	}
	zone, err := time.LoadLocation(c.Zone)
	if err != nil || c.Zone == "" || c.Zone == "Local" {
		fail("zone must be a time zone such as UTC or Europe/Vienna (got %q)", c.Zone)
		zone = time.UTC
	}
	if c.To == "" {
		c.To = now.In(zone).Format(time.DateOnly)
	}
	to, err := time.Parse(time.DateOnly, c.To)
	if err != nil {
		fail("to must be a day like 2026-01-31 (got %q)", c.To)
	} else if c.From == "" {
		c.From = to.AddDate(0, 0, -28).Format(time.DateOnly)
	}
	if from, wrong := time.Parse(time.DateOnly, c.From); wrong != nil && c.From != "" {
		fail("from must be a day like 2026-01-31 (got %q)", c.From)
	} else if err == nil && !from.Before(to) {
		fail("from must be before to (got %s and %s)", c.From, c.To)
	}
	if !(c.Eps >= 0 && c.Eps <= 2) { // refuses NaN
		fail("eps must be 0 to 2 (got %g)", c.Eps)
	}
	if c.MinPoints != 0 && (c.MinPoints < 2 || c.MinPoints > 1000) {
		fail("min-points must be 0 or 2 to 1000 (got %d)", c.MinPoints)
	}
	if c.MinEvents < 1 {
		fail("min-events must be at least 1 (got %d)", c.MinEvents)
	}
	if c.Sample < 100 || c.Sample > 50_000 {
		fail("sample must be 100 to 50000 (got %d)", c.Sample)
	}
	if c.Most < 1 {
		fail("most must be at least 1 (got %d)", c.Most)
	}
	return errors.Join(errs...)
}

// days of the range; c is valid.
func (c *Config) days() float64 {
	from, _ := time.Parse(time.DateOnly, c.From) // cannot fail: Validate has checked both
	to, _ := time.Parse(time.DateOnly, c.To)
	return to.Sub(from).Hours() / 24
}

var (
	errTooFew  = errors.New("too few to group")
	errTooMany = errors.New("too many to group")
	errGone    = errors.New("their usage was erased or excluded meanwhile")
)

// Run groups the units of cfg, which is valid, and stores the outcome in place of that of
// earlier runs for the same app and unit.
func Run(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg *Config, log *slog.Logger) (*Grouped, error) {
	units, err := read(ctx, conn, schema, cfg)
	if err != nil {
		return nil, err
	}
	names, err := tables.CollectMap[string, string](ctx, conn, "SELECT feature_id, feature_name FROM "+schema.Table("catalog_features")+" FINAL WHERE app_id = ? AND removed = 0", cfg.App)
	if err != nil {
		return nil, fmt.Errorf("read names of features: %w", err)
	}
	log.Info("behaviour read", "unit", cfg.Unit, "units", len(units))
	g := Group(units, cfg, names)
	// Below the number that begins a cluster there is none, whatever they do.
	if n := g.LookedAt - g.LeftOut; n < g.MinPoints {
		return nil, fmt.Errorf("%w: %d %ss of app %s have at least %d events of features (min-events) from %s to %s, and %d begin a cluster (min-points); %d have fewer events; nothing was changed",
			errTooFew, n, cfg.Unit, cfg.App, cfg.MinEvents, cfg.From, cfg.To, g.MinPoints, g.LeftOut)
	}
	return g, store(ctx, conn, schema, cfg, g)
}

// view is the behaviour that is grouped, as a table in SQL.
func (c *Config) view(schema tables.Schema) string {
	kind := map[string]string{Users: "person", Accounts: "account"}[c.Unit]
	return fmt.Sprintf("%s(app = %s, from = %s, to = %s, zone = %s, unit = '%s')", schema.View("behaviour"),
		clickhouse.Quote(c.App), clickhouse.Quote(c.From), clickhouse.Quote(c.To), clickhouse.Quote(c.Zone), kind)
}

func read(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg *Config) ([]Unit, error) {
	view := cfg.view(schema)
	var n uint64
	if err := conn.QueryRow(ctx, "SELECT count() FROM "+view+" WHERE unit_kind = ?", cfg.Unit).Scan(&n); err != nil {
		return nil, fmt.Errorf("count %ss: %w", cfg.Unit, err)
	}
	if n > uint64(cfg.Most) {
		return nil, fmt.Errorf("%w: app %s has %d %ss with usage from %s to %s, and most is %d: choose fewer days, or raise most where there is memory (about 4 KiB each, where they use 30 features)", errTooMany, cfg.App, n, cfg.Unit, cfg.From, cfg.To, cfg.Most)
	}
	type row struct {
		Unit
		since uint32
	}
	units := make([]Unit, 0, n)
	err := tables.Each(ctx, conn, func(r *row) []any {
		return []any{&r.ID, &r.Events, &r.Shares, &r.Frequency, &r.since, &r.Recency}
	}, func(r *row) {
		r.DaysSinceLast = float64(r.since)
		units = append(units, r.Unit)
	}, "SELECT unit_id, events, feature_shares, frequency, days_since_last, recency FROM "+view+" WHERE unit_kind = ?", cfg.Unit)
	if err != nil {
		return nil, fmt.Errorf("read behaviour of %ss: %w", cfg.Unit, err)
	}
	return units, nil
}

// blockRows bounds a block of members.
const blockRows = 100_000

// store writes the members, then all clusters in one block, which makes them the newest
// run, and then deletes older runs, also such as were cut short.
func store(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg *Config, g *Grouped) error {
	at, err := nextRun(ctx, conn, schema, cfg)
	if err != nil {
		return err
	}
	members, clusters := schema.Local("behaviour_cluster_members"), schema.Local("behaviour_clusters")
	var rows [][]any
	for i := range g.Clusters {
		for _, m := range g.Clusters[i].Members {
			rows = append(rows, []any{cfg.App, cfg.Unit, at, m.ID, g.Clusters[i].Number, m.Distance})
			if len(rows) == blockRows {
				if err := insert(ctx, conn, members+" (app_id, unit_kind, computed_at, unit_id, cluster, distance)", rows); err != nil {
					return err
				}
				rows = rows[:0]
			}
		}
	}
	if err := insert(ctx, conn, members+" (app_id, unit_kind, computed_at, unit_id, cluster, distance)", rows); err != nil {
		return err
	}
	if err := stillThere(ctx, conn, schema, cfg, at); err != nil {
		return err
	}
	rows = nil
	for i := range g.Clusters {
		k := &g.Clusters[i]
		rows = append(rows, []any{
			cfg.App, cfg.Unit, at, k.Number, uint64(k.Mean.Units), k.Description, k.Mean.Shares, k.Rest.Shares, k.Mean.Frequency, k.Mean.DaysSinceLast, k.Mean.Events,
			cfg.From, cfg.To, cfg.Zone, uint64(g.LookedAt), uint64(g.LeftOut), uint64(g.Sampled), uint32(cfg.MinEvents), uint32(g.MinPoints), g.Eps, cfg.Seed,
		})
	}
	if err := insert(ctx, conn, clusters+` (app_id, unit_kind, computed_at, cluster, units, description, feature_shares, rest_feature_shares, frequency, days_since_last, events,
		from_day, to_day, zone, units_looked_at, units_left_out, units_sampled, min_events, min_points, eps, seed)`, rows); err != nil {
		return err
	}
	for _, table := range []string{"behaviour_clusters", "behaviour_cluster_members"} {
		if err := conn.Exec(ctx, remove(schema, cfg, table, "<", at)); err != nil {
			return fmt.Errorf("the clusters are stored; delete those of earlier runs from %s: %w", table, err)
		}
	}
	return nil
}

// remove is the statement that deletes runs before at ("<") or at it ("=").
func remove(schema tables.Schema, cfg *Config, table, operator string, at time.Time) string {
	return schema.Alter(table) + fmt.Sprintf(" DELETE WHERE app_id = %s AND unit_kind = '%s' AND computed_at %s fromUnixTimestamp64Milli(%d) SETTINGS mutations_sync = 2",
		clickhouse.Quote(cfg.App), cfg.Unit, operator, at.UnixMilli())
}

// stillThere deletes the members of the run and returns an error if one of them has no
// usage any more. erase takes a person's usage away before it deletes their rows in
// behaviour_cluster_members: rows that this run wrote before are deleted by erase, and
// of those that it wrote after, the usage is gone by now.
func stillThere(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg *Config, at time.Time) error {
	var gone uint64
	err := conn.QueryRow(ctx, fmt.Sprintf("SELECT count() FROM %s WHERE app_id = ? AND unit_kind = ? AND computed_at = fromUnixTimestamp64Milli(%d) AND unit_id GLOBAL NOT IN (SELECT unit_id FROM %s WHERE unit_kind = ?)",
		schema.Table("behaviour_cluster_members"), at.UnixMilli(), cfg.view(schema)), cfg.App, cfg.Unit, cfg.Unit).Scan(&gone)
	if err == nil && gone == 0 {
		return nil
	}
	if err == nil {
		err = fmt.Errorf("%w: %d %ss; nothing was changed: run it again", errGone, gone, cfg.Unit)
	}
	if wrong := conn.Exec(context.WithoutCancel(ctx), remove(schema, cfg, "behaviour_cluster_members", "=", at)); wrong != nil {
		return errors.Join(err, fmt.Errorf("delete the members of this run: %w", wrong))
	}
	return err
}

// nextRun is now, or right after the newest run where a clock was set back.
func nextRun(ctx context.Context, conn driver.Conn, schema tables.Schema, cfg *Config) (time.Time, error) {
	var newest time.Time
	err := conn.QueryRow(ctx, "SELECT max(computed_at) FROM "+schema.Table("behaviour_clusters")+" WHERE app_id = ? AND unit_kind = ?", cfg.App, cfg.Unit).Scan(&newest)
	if err != nil {
		return newest, fmt.Errorf("look for the newest run: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	if !now.After(newest) {
		now = newest.Add(time.Millisecond)
	}
	return now, nil
}

func insert(ctx context.Context, conn driver.Conn, into string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+into)
	if err != nil {
		return fmt.Errorf("insert clusters: %w", err)
	}
	for _, r := range rows {
		if err := batch.Append(r...); err != nil {
			return errors.Join(fmt.Errorf("insert clusters: %w", err), batch.Abort())
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert clusters: %w", err)
	}
	return nil
}

// WriteText writes the clusters for people.
func (g *Grouped) WriteText(w io.Writer, cfg *Config) error {
	n := g.LookedAt - g.LeftOut
	var b strings.Builder
	fmt.Fprintf(&b, "app %s, %ss from %s to %s (%s): %d grouped, %d left out with fewer than %d events; eps %.3f, min-points %d", cfg.App, cfg.Unit, cfg.From, cfg.To, cfg.Zone, n, g.LeftOut, cfg.MinEvents, g.Eps, g.MinPoints)
	if g.Sampled < n {
		fmt.Fprintf(&b, ", found from %d (sample)", g.Sampled)
	}
	b.WriteString("\n")
	for i := range g.Clusters {
		k := &g.Clusters[i]
		name := fmt.Sprintf("cluster %d", k.Number)
		if k.Number == 0 {
			name = "no cluster"
		}
		fmt.Fprintf(&b, "%s: %d (%.0f %%): %s\n", name, k.Mean.Units, 100*float64(k.Mean.Units)/float64(n), k.Description)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
