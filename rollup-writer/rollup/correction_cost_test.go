package rollup

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/uptakehq/uptake/schemas/event"
)

// A month of a visitor's events, an hour each, linked late. What the correction
// reads must not grow with what others did: neither the visitor's nor a user's,
// whether aliased or member of an account since.
func TestCorrectionReadsTheVisitorsOwnRows(t *testing.T) {
	const (
		own     = 720
		granule = 8192
	)
	others := []int{10 * own, 100 * own, 1000 * own}
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
	filled := 0
	for _, n := range others {
		exec(`INSERT INTO usage_hourly (%s) SELECT 'shop', concat('other', toString(cityHash64(number) %% 20000)) AS other, 'anonymous', other, '', 'none', 'f', 'e',
			toDateTime('2026-10-01 00:00:00', 'UTC') + INTERVAL (number %% 720) HOUR, 0, 1, 1 FROM numbers(%d, %d)
			SETTINGS max_insert_threads = 1, max_insert_block_size = 1000000`, columns, filled, n-filled)
		filled = n
		visitor, anonymous, user, named := "visitor", event.ActorAnonymous, event.ActorUser, "known"
		none, empty, account, membership := event.AccountNone, "", "acme", event.AccountFromMembership
		match := event.Attribution{ActorID: &visitor, ActorKind: &anonymous, AnonymousID: &visitor, UserID: &empty}
		unnamed := match
		unnamed.AccountSource = &none
		moves := event.Moves{Moves: []event.Move{
			{Match: unnamed, Set: event.Attribution{ActorID: &named, ActorKind: &user, UserID: &named, AccountID: &account, AccountSource: &membership}},
			{Match: match, Set: event.Attribution{ActorID: &named, ActorKind: &user, UserID: &named}},
		}}
		var read, bytes atomic.Uint64
		progress := clickhousego.Context(ctx, clickhousego.WithProgress(func(p *clickhousego.Progress) {
			read.Add(p.Rows)
			bytes.Add(p.Bytes)
		}))
		began := time.Now()
		rows, err := b.SQL.Query(progress, baseQuery("usage_hourly", "shop", 0, moves))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for rows.Next() {
			found++
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		var parts, marks uint64
		if err := b.SQL.QueryRow(ctx, "SELECT count(), sum(marks) FROM system.parts WHERE database = currentDatabase() AND table = 'usage_hourly' AND active").Scan(&parts, &marks); err != nil {
			t.Fatal(err)
		}
		t.Logf("%d rows of others in %d parts: %d rows found, %d read (%d bytes), %s", n, parts, found, read.Load(), bytes.Load(), took.Round(100*time.Microsecond))
		if found != own {
			t.Errorf("found %d rows of the visitor, want %d", found, own)
		}
		// A part gives the granules that hold the visitor, and at most one more.
		if most := own + 2*granule*parts; read.Load() > most || read.Load() == 0 {
			t.Errorf("%d rows of others: read %d rows in %d parts, want %d at most", n, read.Load(), parts, most)
		}
	}
}
