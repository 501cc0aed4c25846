package alert

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/insight"
)

// store reads the views of the database for people.
type store struct{ conn driver.Conn }

// question returns the query of a measure: for each subject its points, as lists in any
// order. from and to are ticks, to exclusive. It reads the views of signed rows: it sums
// them by subject, tick and key itself, and to sum them by all columns first costs more
// than the rest of the query.
func question(app string, m *insight.Measure, level string, step time.Duration, from, to evaluate.Tick, excluded bool) (query string, args []any) {
	unit := "toUnixTimestamp(hour)"
	table := "usage_hourly_sums"
	begin, end := timeOf(from-1, step), timeOf(to-1, step)
	where := []string{"app_id = ?"}
	args = []any{app}
	if m.Count == insight.CountMetric {
		table = "metric_hourly"
		where = append(where, "metric_id = ?")
		args = append(args, m.Metric)
	} else if step == day && !names(m, insight.MatchEvent) {
		table, unit = "user_feature_daily_sums", "toUnixTimestamp(toDateTime(day, 'UTC'))"
	}
	if table == "user_feature_daily_sums" {
		where = append(where, "day >= toDate(?)", "day < toDate(?)")
		args = append(args, begin.Format(time.DateOnly), end.Format(time.DateOnly))
	} else {
		where = append(where, "hour >= toDateTime(?, 'UTC')", "hour < toDateTime(?, 'UTC')")
		args = append(args, begin.Format(time.DateTime), end.Format(time.DateTime))
	}
	if len(m.Of) > 0 {
		var any []string
		for _, r := range m.Of {
			any = append(any, map[string]string{insight.MatchFeature: "feature_id", insight.MatchModule: "module_id", insight.MatchProduct: "product_id", insight.MatchEvent: "event"}[r.Match]+" = ?")
			args = append(args, r.Value)
		}
		where = append(where, "("+strings.Join(any, " OR ")+")")
	}
	subject := "''"
	switch level {
	case insight.LevelAccount:
		subject = "account_id"
		where = append(where, "account_id != ''")
	case insight.LevelUser:
		subject = "actor_id"
		where = append(where, "actor_kind = 'user'")
	}
	key, amount := "toUInt64(0)", "toFloat64(sum(events))"
	switch m.Count {
	case insight.CountQuantity:
		amount = "toFloat64(sum(quantity))"
	case insight.CountMetric:
		amount = "sum(ifNull(value, 0))"
	case insight.CountUsers:
		key = "sipHash64(actor_kind, actor_id)"
		where = append(where, "actor_kind IN ('user', 'anonymous')")
	case insight.CountFeatures:
		key = "sipHash64(feature_id)"
		where = append(where, "feature_id != ''")
	}
	if excluded {
		// Staff, test users and bots are excluded within accounts too.
		where = append(where, "(toString(actor_kind), actor_id) NOT IN (SELECT toString(kind), id FROM exclusions(app = ?) WHERE kind IN ('user', 'anonymous'))")
		args = append(args, app)
		where = append(where, "account_id NOT IN (SELECT id FROM exclusions(app = ?) WHERE kind = 'account')")
		args = append(args, app)
	}
	return fmt.Sprintf(`SELECT subject, groupArray(tick), groupArray(k), groupArray(amount) FROM (
	SELECT %s AS subject, toInt32(intDiv(%s, %d)) AS tick, %s AS k, %s AS amount FROM %s WHERE %s GROUP BY subject, tick, k HAVING amount != 0
) GROUP BY subject`, subject, unit, int64(step/time.Second), key, amount, table, strings.Join(where, " AND ")), args
}

func names(m *insight.Measure, match string) bool {
	for _, r := range m.Of {
		if r.Match == match {
			return true
		}
	}
	return false
}

// points reads a measure.
func (s store) points(ctx context.Context, app string, m *insight.Measure, level string, step time.Duration, from, to evaluate.Tick, excluded bool) (map[string][]evaluate.Point, error) {
	query, args := question(app, m, level, step, from, to, excluded)
	type series struct {
		subject string
		at      []int32
		keys    []uint64
		amounts []float64
	}
	all := map[string][]evaluate.Point{}
	err := tables.Each(ctx, s.conn, func(r *series) []any { return []any{&r.subject, &r.at, &r.keys, &r.amounts} }, func(r *series) {
		points := make([]evaluate.Point, len(r.at))
		for i := range r.at {
			points[i] = evaluate.Point{Tick: evaluate.Tick(r.at[i]), Key: r.keys[i], Amount: r.amounts[i]}
			if m.Count == insight.CountDays {
				points[i].Key = uint64(r.at[i])
			}
		}
		slices.SortFunc(points, func(a, b evaluate.Point) int { return cmp.Or(cmp.Compare(a.Tick, b.Tick), cmp.Compare(a.Key, b.Key)) })
		all[r.subject] = points
	}, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read %s of app %s: %w", m, app, err)
	}
	return all, nil
}

// who reads traits, roles and exclusions.
func (s store) who(ctx context.Context, app string, excluded bool) (_ *facts, err error) {
	f := &facts{
		points: map[string]map[string][]evaluate.Point{}, traits: map[string]map[string]map[string]string{}, roles: map[string]string{}, accountOf: map[string]string{},
		excluded: map[string]map[string]bool{insight.LevelAccount: {}, insight.LevelUser: {}, insight.LevelApp: {}},
	}
	for level, query := range map[string]string{
		insight.LevelAccount: "SELECT account_id, traits FROM accounts WHERE app_id = ?",
		insight.LevelUser:    "SELECT user_id, traits FROM users WHERE app_id = ?",
	} {
		if f.traits[level], err = tables.CollectMap[string, map[string]string](ctx, s.conn, query, app); err != nil {
			return nil, fmt.Errorf("read traits of %ss: %w", level, err)
		}
	}
	type member struct{ user, account, role string }
	if err := tables.Each(ctx, s.conn, func(m *member) []any { return []any{&m.user, &m.account, &m.role} }, func(m *member) {
		f.accountOf[m.user], f.roles[m.user] = m.account, m.role
	}, "SELECT user_id, account_id, role FROM users_today WHERE app_id = ?", app); err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	if !excluded {
		return f, nil
	}
	type exclusion struct{ kind, id string }
	if err := tables.Each(ctx, s.conn, func(x *exclusion) []any { return []any{&x.kind, &x.id} }, func(x *exclusion) {
		if ids, ok := f.excluded[x.kind]; ok {
			ids[x.id] = true
		}
	}, "SELECT toString(kind), id FROM exclusions(app = ?)", app); err != nil {
		return nil, fmt.Errorf("read exclusions: %w", err)
	}
	return f, nil
}

// applied are the definitions that `insight apply` put in force, by app.
func (s store) applied(ctx context.Context) (map[string]*insight.Definitions, error) {
	apps, err := tables.CollectColumn[string](ctx, s.conn, "SELECT DISTINCT app_id FROM insight_versions ORDER BY app_id")
	if err != nil {
		return nil, fmt.Errorf("read which apps have definitions: %w", err)
	}
	all := map[string]*insight.Definitions{}
	for _, app := range apps {
		d := &insight.Definitions{}
		err := tables.Each(ctx, s.conn, func(r *insight.Rule) []any { return []any{&r.Use, &r.Match, &r.Key, &r.Value} }, func(r *insight.Rule) {
			if r.Use != insight.UseVersion {
				d.Rules = append(d.Rules, *r)
			}
		}, "SELECT toString(use), toString(match), key, value FROM insight_definitions(app = ?)", app)
		if err == nil {
			d.Signals, err = insight.SignalsOf(d.Rules)
		}
		if err != nil {
			return nil, fmt.Errorf("read the definitions of app %s: %w", app, err)
		}
		all[app] = d
	}
	return all, nil
}

// excludes reports whether the database has definitions of exclusions.
func (s store) excludes(ctx context.Context) (has bool, err error) {
	var n uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = 'exclusions'").Scan(&n); err != nil {
		return false, fmt.Errorf("look for exclusions: %w", err)
	}
	return n > 0, nil
}

// read reads the data that the signals need up to the present tick of each step.
func (s store) read(ctx context.Context, app string, list []*definition, now func(step time.Duration) evaluate.Tick, horizon time.Duration) (*facts, error) {
	excluded, err := s.excludes(ctx)
	if err != nil {
		return nil, err
	}
	f, err := s.who(ctx, app, excluded)
	if err != nil {
		return nil, err
	}
	type need struct {
		m     *insight.Measure
		level string
		step  time.Duration
		back  evaluate.Tick
	}
	needs := map[string]*need{}
	for _, sig := range list {
		sig.measures(func(m *insight.Measure, level string, back evaluate.Tick) {
			key := measureKey(m, level, sig.step)
			if needs[key] == nil {
				needs[key] = &need{m: m, level: level, step: sig.step}
			}
			needs[key].back = max(needs[key].back, back+sig.longestFor())
		})
	}
	for key, n := range needs {
		to := now(n.step) + 1
		from := to - ticks(horizon, n.step) - n.back - 2
		if f.points[key], err = s.points(ctx, app, n.m, n.level, n.step, from, to, excluded); err != nil {
			return nil, err
		}
	}
	return f, nil
}
