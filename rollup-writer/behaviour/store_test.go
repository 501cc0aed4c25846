package behaviour

import (
	"errors"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/sqltest"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// Who is erased while a run groups is not stored by it, and the run before stays.
func TestErasedMeanwhile(t *testing.T) {
	ctx := t.Context()
	addr, db := sqltest.Database(t)
	ch := clickhouse.DefaultConfig()
	ch.Addr, ch.Database = addr, db
	conn, schema := sqltest.Open(t, &ch), ch.Schema()
	exec := func(q string) {
		t.Helper()
		if err := conn.Exec(ctx, q); err != nil {
			t.Fatalf("%v in %s", err, q)
		}
	}
	exec(`INSERT INTO events (app_id, kind, event, message_id, user_id, actor_id, actor_kind, account_source, feature_id, event_time, received_at, quantity, source_topic_id, source_offset)
		SELECT 'dev', 'track', 'scan', concat('m', toString(number)), concat('u', toString(number % 8)) AS u, u, 'user', 'none', 'scan', '2026-11-10 09:00:00', '2026-11-10 09:00:00', 1, 't', number FROM numbers(240)`)
	c := valid(t, nil)
	grouped := func() *Grouped {
		t.Helper()
		units, err := read(ctx, conn, schema, c)
		if err != nil {
			t.Fatal(err)
		}
		return Group(units, c, nil)
	}
	members := func() string {
		t.Helper()
		list, err := tables.CollectColumn[string](ctx, conn, "SELECT unit_id FROM "+schema.Table("behaviour_cluster_members")+" ORDER BY unit_id")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, " ")
	}
	if err := store(ctx, conn, schema, c, grouped()); err != nil {
		t.Fatal(err)
	}
	if got, want := members(), "u0 u1 u2 u3 u4 u5 u6 u7"; got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	g := grouped()
	for _, table := range []string{"usage_hourly", "user_feature_daily"} {
		exec(schema.Alter(table) + " DELETE WHERE actor_id = 'u3' SETTINGS mutations_sync = 2")
	}
	exec(schema.Alter("behaviour_cluster_members") + " DELETE WHERE unit_id = 'u3' SETTINGS mutations_sync = 2")
	if err := store(ctx, conn, schema, c, g); !errors.Is(err, errGone) || !strings.Contains(err.Error(), "1 users; nothing was changed") {
		t.Errorf("got %v, want %v", err, errGone)
	}
	for range 2 { // the run before, and then one without the user
		if got, want := members(), "u0 u1 u2 u4 u5 u6 u7"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if err := store(ctx, conn, schema, c, grouped()); err != nil {
			t.Fatal(err)
		}
	}
}
