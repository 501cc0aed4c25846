package alert

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/rollup-writer/alert/evaluate"
	"github.com/uptakehq/uptake/schemas/insight"
)

// store reads the views of the database for people.
type store struct{ conn driver.Conn }

// each calls row for each row of a query.
func (s store) each(ctx context.Context, query string, args []any, row func(driver.Rows) error) (err error) {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// question returns the query of a measure: for each subject its points, as lists. from
// and to are ticks, to exclusive.
func question(app string, m *insight.Measure, level string, step time.Duration, from, to evaluate.Tick, excluded bool) (query string, args []any) {
	unit := "toUnixTimestamp(hour)"
	table := "usage_hourly"
	begin, end := timeOf(from-1, step), timeOf(to-1, step)
	where := []string{"app_id = ?"}
	args = []any{app}
	if m.Count == insight.CountMetric {
		table = "metric_hourly"
		where = append(where, "metric_id = ?")
		args = append(args, m.Metric)
	} else if step == day && !names(m, insight.MatchEvent) {
		table, unit = "user_feature_daily", "toUnixTimestamp(toDateTime(day, 'UTC'))"
	}
	if table == "user_feature_daily" {
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
		// Staff and test users are excluded within accounts too.
		where = append(where, "NOT (actor_kind = 'user' AND actor_id IN (SELECT id FROM exclusions(app = ?) WHERE kind = 'user'))")
		args = append(args, app)
		where = append(where, "account_id NOT IN (SELECT id FROM exclusions(app = ?) WHERE kind = 'account')")
		args = append(args, app)
	}
	return fmt.Sprintf(`SELECT subject, groupArray(tick), groupArray(k), groupArray(amount) FROM (
	SELECT %s AS subject, toInt32(intDiv(%s, %d)) AS tick, %s AS k, %s AS amount FROM %s WHERE %s GROUP BY subject, tick, k HAVING amount != 0 ORDER BY subject, tick
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
	all := map[string][]evaluate.Point{}
	err := s.each(ctx, query, args, func(rows driver.Rows) error {
		var subject string
		var at []int32
		var keys []uint64
		var amounts []float64
		if err := rows.Scan(&subject, &at, &keys, &amounts); err != nil {
			return err
		}
		points := make([]evaluate.Point, len(at))
		for i := range at {
			points[i] = evaluate.Point{Tick: evaluate.Tick(at[i]), Key: keys[i], Amount: amounts[i]}
			if m.Count == insight.CountDays {
				points[i].Key = uint64(at[i])
			}
		}
		all[subject] = points
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s of app %s: %w", m, app, err)
	}
	return all, nil
}

// who reads traits, roles and exclusions.
func (s store) who(ctx context.Context, app string, excluded bool) (*facts, error) {
	f := &facts{
		points: map[string]map[string][]evaluate.Point{}, traits: map[string]map[string]map[string]string{}, roles: map[string]string{}, accountOf: map[string]string{},
		excluded: map[string]map[string]bool{insight.LevelAccount: {}, insight.LevelUser: {}, insight.LevelApp: {}},
	}
	for level, query := range map[string]string{
		insight.LevelAccount: "SELECT account_id, traits FROM accounts WHERE app_id = ?",
		insight.LevelUser:    "SELECT user_id, traits FROM users WHERE app_id = ?",
	} {
		f.traits[level] = map[string]map[string]string{}
		if err := s.each(ctx, query, []any{app}, func(rows driver.Rows) error {
			var id string
			var traits map[string]string
			if err := rows.Scan(&id, &traits); err != nil {
				return err
			}
			f.traits[level][id] = traits
			return nil
		}); err != nil {
			return nil, fmt.Errorf("read traits of %ss: %w", level, err)
		}
	}
	if err := s.each(ctx, "SELECT user_id, account_id, role FROM users_today WHERE app_id = ?", []any{app}, func(rows driver.Rows) error {
		var user, account, role string
		if err := rows.Scan(&user, &account, &role); err != nil {
			return err
		}
		f.accountOf[user], f.roles[user] = account, role
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	if !excluded {
		return f, nil
	}
	if err := s.each(ctx, "SELECT toString(kind), id FROM exclusions(app = ?)", []any{app}, func(rows driver.Rows) error {
		var kind, id string
		if err := rows.Scan(&kind, &id); err != nil {
			return err
		}
		if ids, ok := f.excluded[kind]; ok {
			ids[id] = true
		}
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read exclusions: %w", err)
	}
	return f, nil
}

// applied are the definitions that `insight apply` put in force, by app.
func (s store) applied(ctx context.Context) (map[string]*insight.Definitions, error) {
	var apps []string
	if err := s.each(ctx, "SELECT DISTINCT app_id FROM insight_versions ORDER BY app_id", nil, func(rows driver.Rows) error {
		var app string
		err := rows.Scan(&app)
		apps = append(apps, app)
		return err
	}); err != nil {
		return nil, fmt.Errorf("read which apps have definitions: %w", err)
	}
	all := map[string]*insight.Definitions{}
	for _, app := range apps {
		d := &insight.Definitions{}
		err := s.each(ctx, "SELECT toString(use), toString(match), key, value FROM insight_definitions(app = ?)", []any{app}, func(rows driver.Rows) error {
			var r insight.Rule
			err := rows.Scan(&r.Use, &r.Match, &r.Key, &r.Value)
			if r.Use != insight.UseVersion {
				d.Rules = append(d.Rules, r)
			}
			return err
		})
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
