package clickhouse

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// insertEvents inserts events of partition 0, each as "column=value, ...", with
// an hour as its event time.
func insertEvents(t *testing.T, conn driver.Conn, events ...string) {
	t.Helper()
	for i, e := range events {
		columns, values := []string{"app_id", "message_id", "quantity", "received_at"}, []string{"'dev'", fmt.Sprintf("'m%d'", i), "1", "'2026-11-21 12:00:00'"}
		for _, f := range strings.Split(e, ", ") {
			c, v, _ := strings.Cut(f, "=")
			columns, values = append(columns, c), append(values, "'"+v+"'")
		}
		q := fmt.Sprintf("INSERT INTO events (%s) VALUES (%s)", strings.Join(columns, ", "), strings.Join(values, ", "))
		if err := conn.Exec(context.Background(), q); err != nil {
			t.Fatalf("%v in %s", err, q)
		}
	}
}

// table returns the rows of a query, the columns joined by a space.
func table(t *testing.T, conn driver.Conn, query string, args ...any) []string {
	t.Helper()
	rows, err := conn.Query(context.Background(), "SELECT arrayStringConcat(arrayMap(x -> toString(x), [*]), ' ') FROM ("+query+")", args...)
	if err != nil {
		t.Fatalf("%v in %s", err, query)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestBaseRowsKnowHowTheyCameToTheirActor(t *testing.T) {
	conn, _ := database(t)
	if _, err := Apply(context.Background(), conn, SingleForm()); err != nil {
		t.Fatal(err)
	}
	at := "event_time=2026-11-21 11:30:00, kind=track, event=e"
	insertEvents(t, conn,
		at+", user_id=u, anonymous_id=a, actor_id=u, actor_kind=user, account_id=acct, account_source=event",
		at+", anonymous_id=a, linked_user_id=u, actor_id=v, actor_kind=user, account_id=acct, account_source=membership",
		at+", anonymous_id=b, actor_id=b, actor_kind=anonymous, account_source=none",
		at+", anonymous_id=b, actor_id=b, actor_kind=anonymous, account_source=none",
		at+", actor_kind=account, account_id=acct, account_source=event",
	)
	insert := "INSERT INTO corrections (app_id, actor_id, actor_kind, anonymous_id, account_source, event, hour, events, quantity) VALUES"
	if err := conn.Exec(context.Background(), insert+" ('dev', 'b', 'anonymous', 'b', 'none', 'e', '2026-11-21 11:00:00', -1, -1)"); err != nil {
		t.Fatal(err)
	}
	got := table(t, conn, `SELECT actor_kind, actor_id, concat('u=', user_id), concat('a=', anonymous_id), account_source, toString(sum(events) AS n)
		FROM usage_hourly GROUP BY ALL ORDER BY ALL`)
	want := []string{"account  u= a= event 1", "anonymous b u= a=b none 1", "user u u=u a= event 1", "user v u=u a=a membership 1"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}
