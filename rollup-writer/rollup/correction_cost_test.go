package rollup

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	"github.com/uptakehq/uptake/rollup-writer/internal/plan"
)

// A month of some visitors' events, an hour each, linked late. What planning
// their corrections reads must not grow with what others did, and by the named
// actors rather than by the table.
func TestCorrectionReadsTheVisitorsOwnRows(t *testing.T) {
	const (
		own     = 720
		granule = 1024
	)
	others := []int{10 * own, 200 * own}
	if long {
		others = []int{10 * own, 100 * own, 1000 * own}
	}
	b := newBench(t)
	ctx := context.Background()
	exec := func(query string, args ...any) {
		t.Helper()
		if err := b.SQL.Exec(ctx, fmt.Sprintf(query, args...)); err != nil {
			t.Fatal(err)
		}
	}
	const columns = "app_id, actor_id, actor_kind, anonymous_id, user_id, account_source, feature_id, event, hour, source_partition, events, quantity"
	for i := range 4 { // as blocks of the month bring it
		exec(`INSERT INTO usage_hourly (%s) SELECT 'shop', 'visitor', 'anonymous', 'visitor', '', 'none', 'f', 'e', toDateTime('2026-10-01 00:00:00', 'UTC') + INTERVAL number HOUR, 0, 1, 1
			FROM numbers(%d, %d)`, columns, i*(own/4), own/4)
	}
	conn, err := clickhouse.NewConn(&b.cfg.ClickHouse, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	filled := 0
	for _, n := range others {
		exec(`INSERT INTO usage_hourly (%s) SELECT 'shop', concat('other', toString(cityHash64(number) %% 20000)) AS other, 'anonymous', other, '', 'none', 'f', 'e',
			toDateTime('2026-10-01 00:00:00', 'UTC') + INTERVAL (number %% 720) HOUR, 0, 1, 1 FROM numbers(%d, %d)
			SETTINGS max_insert_threads = 1, max_insert_block_size = 1000000`, columns, filled, n-filled)
		filled = n
		for _, unknown := range []int{0, 20} {
			actors := []plan.Actor{{AppID: "shop", ActorID: "visitor"}}
			for i := range unknown { // with nothing to move
				actors = append(actors, plan.Actor{AppID: "shop", ActorID: fmt.Sprint("visitor-never-seen-", i)})
			}
			var r signedRows
			found := 0
			began := time.Now()
			read, err := conn.Ask(ctx, namedQuestion("usage_hourly", 0, actors), r.base(), func() error {
				found += r.hour.Rows()
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			took := time.Since(began)
			var parts, marks uint64
			if err := b.SQL.QueryRow(ctx, "SELECT count(), sum(marks) FROM system.parts WHERE database = currentDatabase() AND table = 'usage_hourly' AND active").Scan(&parts, &marks); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d rows of others in %d parts, %d actors: %d rows found, %d read, %s", n, parts, len(actors), found, read, took.Round(100*time.Microsecond))
			if found != own {
				t.Errorf("found %d rows of the visitor, want %d", found, own)
			}
			// A part gives the granules that hold the visitors, and at most one
			// more: those that were never seen lie beside the one that was.
			if most := own + 2*granule*parts; read > most || read == 0 {
				t.Errorf("%d rows of others: read %d rows in %d parts, want %d at most", n, read, parts, most)
			}
		}
	}
}
