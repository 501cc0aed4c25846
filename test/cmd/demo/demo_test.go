package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/test/harness/stack"
	"github.com/uptakehq/uptake/test/loadgen"
)

func noEnv(string) (string, bool) { return "", false }

// leaves holds that the sample's alert of a shop that has fallen silent fired for the
// account of the stories that leaves, and that its health fell because it used fewer features.
func leaves(ctx context.Context, t *testing.T, conn driver.Conn) {
	t.Helper()
	const query = `SELECT (SELECT count() FROM alert_history WHERE app_id = ? AND signal = 'silent_shop' AND subject = 'story-churned' AND state = 'firing'),
		(SELECT countIf(account_id = 'story-churned' AND score < score_4w) + 10 * countIf(startsWith(account_id, 'story-crew-') AND score >= 90) FROM account_health WHERE app_id = ?)`
	var fired, health uint64
	var err error
	for last := time.Now().Add(2 * time.Minute); time.Now().Before(last); time.Sleep(time.Second) {
		if err = conn.QueryRow(ctx, strings.NewReplacer(" alert_history", " "+stack.Database+".alert_history", " account_health", " "+stack.Database+".account_health").Replace(query), stack.App, stack.App).Scan(&fired, &health); err == nil && fired > 0 && health == 31 {
			return
		}
	}
	t.Errorf("silent_shop fired %d times for the account that leaves; health %d, want 31; %v", fired, health, err)
}

// The demo's totals are the oracle's, although standalone is stopped and started
// again in the middle of the week; a plan that was not sent is told apart.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a standalone; not under -short")
	}
	dir := filepath.Join(t.TempDir(), "demo")
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	var stdout, stderr strings.Builder
	err := run(ctx, []string{"-events", "4000", "-accounts", "40", "-seed", "5", "-restart", "-data", dir}, noEnv, &stdout, &stderr)
	if err != nil {
		tail, _ := os.ReadFile(filepath.Join(dir, "standalone.log"))
		t.Fatalf("%v\n%s\n%s\nstandalone.log:\n%s", err, stderr.String(), stdout.String(), tail[max(0, len(tail)-6000):])
	}
	for _, want := range []string{
		"account_product_daily", "account_module_daily", "account_feature_daily",
		"user_product_daily", "user_module_daily", "user_feature_daily",
		"mypos_sales", "item_scanned", "Every table holds exactly what was sent.",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("%q is not in what the demo prints:\n%s", want, stdout.String())
		}
	}
	if !strings.Contains(stderr.String(), "100 %") {
		t.Errorf("no progress:\n%s", stderr.String())
	}

	// The data outlives the demo, and another plan does not pass for this one.
	own, err := stack.StartStandalone(ctx, stack.StandaloneConfig{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := own.Close(); err != nil {
			t.Error(err)
		}
	}()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{own.ClickHouse}, Auth: clickhouse.Auth{Username: "uptake_reader"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	leaves(ctx, t, conn)
	s := settings{plan: loadgen.DefaultConfig(time.Now()), database: stack.Database, app: stack.App, wait: time.Second}
	expect := func(events int) (*loadgen.Plan, *loadgen.Oracle) {
		s.plan.Events, s.plan.Accounts, s.plan.Seed = events, 40, 6
		p, err := loadgen.New(s.plan)
		if err != nil {
			t.Fatal(err)
		}
		l := loadgen.NewLedger()
		for n := range p.Requests {
			if err := l.Add(loadgen.Outcome{Request: n, Attempts: 1, Acked: true}); err != nil {
				t.Fatal(err)
			}
		}
		o := loadgen.NewOracle(s.app, loadgen.Resolved)
		o.Add(p, l)
		return p, o
	}
	p, o := expect(4_000)
	stdout.Reset()
	if err := show(ctx, s, conn, o, p, &stdout); !errors.Is(err, errDifferent) || !strings.Contains(stdout.String(), "events lost") {
		t.Errorf("got %v, want %v:\n%s", err, errDifferent, stdout.String())
	}

	// What has not come is late, not different.
	_, o = expect(60_000)
	if err := awaitAll(ctx, s, conn, o, &stderr); !errors.Is(err, errLate) || errors.Is(err, errDifferent) || !strings.Contains(err.Error(), "nothing moved for 1s (-wait)") {
		t.Errorf("got %v, want %v", err, errLate)
	}
}
