package alert

import (
	"context"
	"fmt"
	"reflect"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	"github.com/uptakehq/uptake/schemas/insight"
)

// What corrections have moved elsewhere has no points, whether or not ClickHouse has
// merged the signed rows.
func TestPointsOfSignedRows(t *testing.T) {
	addr, db := sqltest.Database(t)
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.Database = addr, db
	sql := sqltest.Open(t, &cfg)
	ctx := context.Background()
	for _, r := range []struct {
		day              int
		account, user    string
		feature          string
		events, quantity int
	}{
		{18, "acme", "ann", "scan", 3, 30},
		{19, "acme", "ann", "scan", 2, 20},
		{19, "acme", "bob", "scan", 1, 10},
		{18, "acme", "ann", "scan", -3, -30}, // moved to beta
		{18, "beta", "ann", "scan", 3, 30},
		{19, "acme", "ann", "scan", -2, -20}, // and to another feature, to half
		{19, "acme", "ann", "sell", 1, 5},
		{20, "acme", "bob", "scan", 9, 90}, // after the range
	} {
		if err := sql.Exec(ctx, fmt.Sprintf("INSERT INTO user_feature_daily (app_id, account_id, actor_id, actor_kind, feature_id, day, events, quantity) VALUES ('dev', '%s', '%s', 'user', '%s', '2026-11-%d', %d, %d)",
			r.account, r.user, r.feature, r.day, r.events, r.quantity)); err != nil {
			t.Fatal(err)
		}
	}
	// More rows than are read of one subject.
	if err := sql.Exec(ctx, fmt.Sprintf("INSERT INTO user_feature_daily (app_id, account_id, actor_id, actor_kind, feature_id, day, events, quantity) SELECT 'dev', 'large', concat('u', toString(number)), 'user', 'scan', '2026-11-19', 1, 2 FROM numbers(%d)", mostRows+1)); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.OpenViews(&cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	end := tickOf(now, day) // the 20th, exclusive
	for count, want := range map[string]map[string][]float64{
		insight.CountQuantity: {"acme": {15}, "beta": {30}},
		insight.CountUsers:    {"acme": {1, 1}, "beta": {3}}, // ann and bob on the 19th
		insight.CountFeatures: {"acme": {1, 1}, "beta": {3}}, // scan and sell
		insight.CountDays:     {"acme": {2}, "beta": {3}},
	} {
		points, err := (store{conn}).points(ctx, &question{app: "dev", m: &insight.Measure{Count: count}, level: insight.LevelAccount, step: day, from: end - 5, to: end})
		if err != nil {
			t.Fatal(err)
		}
		large, sum := points["large"], 0.0
		for _, p := range large {
			sum += p.Amount
		}
		if wanted := map[string][2]float64{insight.CountQuantity: {1, 2 * (mostRows + 1)}, insight.CountUsers: {mostRows + 1, mostRows + 1}}[count]; wanted[0] > 0 && (float64(len(large)) != wanted[0] || sum != wanted[1]) {
			t.Errorf("%s of a large account: %d points with a sum of %g, want %g", count, len(large), sum, wanted)
		}
		delete(points, "large")
		got := map[string][]float64{}
		for account, list := range points {
			for _, p := range list {
				got[account] = append(got[account], p.Amount)
				if wanted := map[string]int{"acme": 1, "beta": 2}[account]; int(end-p.Tick) != wanted {
					t.Errorf("%s of %s: a point %d days before the end, want %d", count, account, end-p.Tick, wanted)
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", count, got, want)
		}
	}
	// Bob came with a user agent of the definitions, on a day before.
	for _, q := range []string{
		"INSERT INTO insight_rules (app_id, version, use, match, value) VALUES ('dev', 1, 'exclude', 'user_agent', 'uptimerobot')",
		"INSERT INTO user_agents (app_id, user_agent, user_id, actor_kind, actor_id) VALUES ('dev', 'UptimeRobot/2', 'bob', 'user', 'bob')",
		"INSERT INTO usage_hourly (app_id, account_id, actor_id, actor_kind, user_id, feature_id, hour, events) VALUES ('dev', 'acme', 'bob', 'user', 'bob', 'scan', '2026-11-02 10:00:00', 1)",
	} {
		if err := sql.Exec(ctx, q); err != nil {
			t.Fatalf("%v in %s", err, q)
		}
	}
	out, err := (store{conn}).exclusions(ctx, "dev")
	if err != nil {
		t.Fatal(err)
	}
	points, err := (store{conn}).points(ctx, &question{app: "dev", m: &insight.Measure{Count: insight.CountQuantity}, level: insight.LevelAccount, step: day, from: end - 5, to: end, excluded: out})
	if err != nil || len(points["acme"]) != 1 || points["acme"][0].Amount != 5 {
		t.Errorf("without bots: got %v, %v, want 5 of acme", points, err)
	}
}
