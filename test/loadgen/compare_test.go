package loadgen

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// Compare over the real tables and views: equal when they hold what was sent,
// and each table's own difference is told as that table's.
func TestCompareOverRealTables(t *testing.T) {
	addr, db := embedded.Database(t)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{addr}, Auth: clickhouse.Auth{Database: db}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	schema := tables.Schema{Database: db, Form: tables.SingleForm()}
	if _, err := schema.Apply(ctx, conn); err != nil {
		t.Fatal(err)
	}
	c := testConfig()
	c.Events = 2_000
	p := newPlan(t, c)
	l := NewLedger()
	for n := range p.Requests {
		if err := l.Add(Outcome{Request: n, Attempts: 1, Acked: true}); err != nil {
			t.Fatal(err)
		}
	}
	o := NewOracle("dev", AsNamed)
	o.Add(p, l)
	insert(t, ctx, conn, o)

	d, err := Compare(ctx, conn, db, o)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Equal() || d.Lost() != 0 || d.Doubled() != 0 || len(d.Tables) != 9 {
		t.Fatalf("equal tables differ:\n%s", d)
	}
	for _, spoil := range []struct {
		table, statement string
		lost, doubled    int64
	}{
		{"account_module_daily", "INSERT INTO %s SELECT * REPLACE (1 AS events, 1 AS quantity) FROM account_module_daily LIMIT 1", 0, 1},
		{"account_product_daily", "INSERT INTO %s SELECT * REPLACE (-1 AS events, -1 AS quantity) FROM account_product_daily LIMIT 1", 1, 0},
		{"rejected_events", "INSERT INTO %s SELECT * FROM rejected_events LIMIT 1", 0, 1},
	} {
		if err := conn.Exec(ctx, fmt.Sprintf(spoil.statement, schema.Table(spoil.table))); err != nil {
			t.Fatal(err)
		}
		d, err := Compare(ctx, conn, db, o)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range d.Tables {
			if table.Table != spoil.table {
				continue
			}
			if table.Wrong != 1 || table.Lost != spoil.lost || table.Doubled != spoil.doubled {
				t.Errorf("after %q: %+v", spoil.statement, table)
			}
			if s := d.String(); !strings.Contains(s, "got  ") || !strings.Contains(s, spoil.table) {
				t.Errorf("the difference is not told:\n%s", s)
			}
		}
	}
}

func insert(t *testing.T, ctx context.Context, conn driver.Conn, o *Oracle) {
	t.Helper()
	batch, err := conn.PrepareBatch(ctx, `INSERT INTO events (app_id, kind, event, message_id, user_id, anonymous_id,
		actor_id, actor_kind, account_id, role, feature_id, module_id, product_id, event_time, received_at, quantity)`)
	if err != nil {
		t.Fatal(err)
	}
	for id, c := range o.stored(func(string) bool { return false }) {
		r := c.row()
		if err := batch.Append(o.App, r.Kind, r.Event, id, r.UserID, r.Anonymous, r.Actor, r.ActorKind, r.Account, r.Role,
			r.Feature, r.Module, r.Product, c.Time, c.Time, r.Quantity); err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
	batch, err = conn.PrepareBatch(ctx, "INSERT INTO rejected_events (app_id, code, original, received_at)")
	if err != nil {
		t.Fatal(err)
	}
	for k, c := range o.rejected {
		for range c.Min {
			if err := batch.Append(o.App, k.Code, k.Original, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(fmt.Errorf("insert rejected: %w", err))
	}
}
