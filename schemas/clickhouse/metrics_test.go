package clickhouse

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// declare writes a catalog's metrics: "event metric_id semantics".
func declare(t *testing.T, conn installed, version int, metrics ...string) {
	t.Helper()
	for _, m := range metrics {
		f := strings.Fields(m)
		err := conn.machinery.Exec(context.Background(), `INSERT INTO catalog_metrics (app_id, event, metric_id, semantics, unit, catalog_version, removed)
			VALUES ('dev', ?, ?, ?, 'seats', ?, ?)`, f[0], f[1], f[2], version, len(f) > 3)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// report is a metric event of an account; the rest is its fields.
func report(event, numbers, rest string) string {
	return "kind=metric, event=" + event + ", actor_kind=account, account_id=acme, account_source=event, metric={\"numbers\":{" + numbers + "}" + rest
}

// days is the period from one day of November 2026 to another.
func days(from, to int) string {
	const november = 1_793_491_200_000_000
	return fmt.Sprintf(`,"dimensions":"{}","period":[%d,%d]}`, november+int64(from-1)*86_400_000_000, november+int64(to-1)*86_400_000_000)
}

func told(clock string) string { return ", event_time=2026-11-21 " + clock }

func TestMetricsBySemantics(t *testing.T) {
	conn := schema(t)
	declare(t, conn, 1, "Orders orders delta", "Seats seats gauge", "Sent sent cumulative", "Bytes bytes cumulative")
	declare(t, conn, 2, "Orders orders delta", "Bestellungen orders delta", "Gone gone gauge removed")
	declare(t, conn, 1, "Gone gone gauge")
	events := []string{
		report("Orders", `"":10`, days(20, 21)+told("01:00:00")),
		report("Orders", `"":12`, days(20, 21)+told("03:00:00")), // says 20 November again
		report("Orders", `"":11`, days(20, 21)+told("02:00:00")), // came late
		report("Orders", `"":5`, days(21, 22)+told("04:00:00")),
		report("Orders", `"":7`, `,"dimensions":"{}"}`+told("04:00:00")), // no period: each call for itself
		report("Orders", `"":7`, `,"dimensions":"{}"}`+told("04:00:00")),
		report("Bestellungen", `"":6`, days(21, 22)+told("05:00:00")), // another name of it
		report("Orders", `"":1`, strings.Replace(days(21, 22), "{}", `{\\"plan\\":\\"pro\\"}`, 1)+told("04:00:00")),
		report("Seats", `"used":40,"free":2`, days(20, 21)+told("01:00:00")),
		report("Seats", `"used":41`, `,"dimensions":"{}"}`+told("09:00:00")),
		report("Seats", `"used":39`, `,"dimensions":"{}"}`+told("08:00:00")),
		report("Sent", `"":100`, `,"dimensions":"{}"}`+told("01:00:00")),
		report("Sent", `"":130`, `,"dimensions":"{}"}`+told("02:00:00")),
		report("Sent", `"":20`, `,"dimensions":"{}"}`+told("03:00:00")), // began anew
		report("Sent", `"":25`, `,"dimensions":"{}"}`+", event_time=2026-11-22 01:00:00"),
		report("Bytes", `"":50`, days(1, 21)+told("01:00:00")), // since the first of the month
		report("Bytes", `"":80`, days(1, 22)+told("01:00:00")),
		report("Bytes", `"":90`, days(21, 23)+told("01:00:00")), // since another day
		report("Unheard", `"":3`, days(20, 21)+told("01:00:00")),
		report("Gone", `"":4`, days(20, 21)+told("01:00:00")),
	}
	rand.New(rand.NewPCG(5, 5)).Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	insertEvents(t, conn, events...)
	check := func(when string) {
		t.Helper()
		same(t, "by day "+when, table(t, conn, `SELECT metric_id, number, if(empty(dimensions), '', toString(dimensions)), toDayOfMonth(day), ifNull(toString(value), 'none')
			FROM metric_daily ORDER BY ALL`),
			"Gone   20 none", "Unheard   20 none",
			"bytes   20 50", "bytes   21 30", "bytes   22 90",
			"orders   20 12", "orders   21 20", "orders  {'plan':'pro'} 21 1",
			"seats free  20 2", "seats used  20 40", "seats used  21 41",
			"sent   21 150", "sent   22 5")
		same(t, "by month "+when, table(t, conn, `SELECT metric_id, number, month, sum(value) FROM metric_monthly WHERE semantics != '' GROUP BY ALL ORDER BY ALL`),
			"bytes  2026-11-01 170", "orders  2026-11-01 33", "seats free 2026-11-01 2", "seats used 2026-11-01 41", "sent  2026-11-01 155")
		same(t, "by hour "+when, table(t, conn, `SELECT toHour(hour), value FROM metric_hourly WHERE metric_id = 'sent' ORDER BY hour`),
			"1 100", "2 30", "3 20", "1 5")
		same(t, "on the account "+when, table(t, conn, `SELECT account_id, metric_id, number, value, toDayOfMonth(at), unit FROM account_metrics
			WHERE metric_id IN ('seats', 'orders') AND empty(dimensions) ORDER BY ALL`),
			"acme orders  6 21 seats", "acme seats free 2 20 seats", "acme seats used 41 21 seats")
		same(t, "points "+when, table(t, conn, "SELECT count() FROM metric_points WHERE metric_id = 'orders'"), "5")
	}
	check("as it came")
	exec(t, conn, "INSERT INTO events SELECT * FROM events ORDER BY message_id DESC SETTINGS insert_deduplicate = 0")
	check("a second time, backwards")
	exec(t, conn.machinery, "OPTIMIZE TABLE metric_values FINAL")
	check("merged")
	same(t, "usage", table(t, conn, "SELECT count() FROM usage_hourly"), "0")
}

// A report belongs to whom its call names; for whom it counts is the last one's
// word, and moves all of it.
func TestMetricFollowsItsActor(t *testing.T) {
	conn := schema(t)
	declare(t, conn, 1, "Orders orders delta")
	at := func(clock, who string, value int) string {
		return fmt.Sprintf("kind=metric, event=Orders, anonymous_id=a, %s, event_time=2026-11-21 %s, metric={\"numbers\":{\"\":%d}%s", who, clock, value, days(20, 21))
	}
	insertEvents(t, conn,
		at("01:00:00", "actor_id=a, actor_kind=anonymous, account_source=none", 10),
		at("02:00:00", "actor_id=u, actor_kind=user, account_id=acme, account_source=membership", 11))
	same(t, "counted once, for the user", table(t, conn, "SELECT account_id, actor_id, actor_kind, value FROM metric_daily"), "acme u user 11")
	same(t, "on the user", table(t, conn, "SELECT user_id, value FROM user_metrics"), "u 11")
}

// The timestamp that a report was sent with says which one is the latest, whatever
// became of it in event_time; of one request the last one counts.
func TestMetricIsTheLatestSent(t *testing.T) {
	conn := schema(t)
	declare(t, conn, 1, "Seats seats gauge")
	offset := 0
	sent := func(value int, timestamp, eventTime string) string {
		offset++
		return report("Seats", fmt.Sprintf(`"":%d`, value), days(20, 21)+fmt.Sprintf(", timestamp=2026-11-%s, event_time=2026-11-%s, source_offset=%d", timestamp, eventTime, offset))
	}
	insertEvents(t, conn,
		sent(2, "21 03:00:00", "21 03:00:00"),
		sent(3, "21 09:00:00", "21 02:00:00"), // a clock ahead, which was corrected
		sent(1, "21 01:00:00", "21 08:00:00"))
	same(t, "by the timestamp sent", table(t, conn, "SELECT value, said_at FROM metric_points"), "3 2026-11-21 09:00:00.000000")
	insertEvents(t, conn,
		sent(7, "22 01:00:00", "22 01:00:00"),
		sent(5, "22 01:00:00", "22 01:00:00"),
		sent(6, "22 01:00:00", "22 01:00:00"))
	same(t, "within a request by order", table(t, conn, "SELECT value FROM metric_points"), "6")
}

// All names of a user are one series: with and without the anonymous id beside
// it, a visitor that turned out to be the user, and an alias.
func TestMetricOfAUserWithTwoNames(t *testing.T) {
	conn := schema(t)
	declare(t, conn, 1, "Sent sent cumulative", "Seats seats gauge")
	name := func(event string, value int, who, period, clock string) string {
		return fmt.Sprintf("kind=metric, event=%s, account_source=none, %s, event_time=2026-11-21 %s, timestamp=2026-11-21 %s, metric={\"numbers\":{\"\":%d}%s", event, who, clock, clock, value, period)
	}
	instant := `,"dimensions":"{}"}`
	const (
		visitor = "anonymous_id=a, actor_id=a, actor_kind=anonymous"
		both    = "user_id=u, anonymous_id=a, actor_id=u, actor_kind=user"
		user    = "user_id=u, actor_id=u, actor_kind=user"
		old     = "user_id=w, actor_id=w, actor_kind=user"
		other   = "user_id=x, actor_id=x, actor_kind=user"
	)
	insertEvents(t, conn,
		"kind=identify, user_id=u, anonymous_id=a, actor_id=u, actor_kind=user, event_time=2026-11-21 02:30:00",
		"kind=alias, user_id=u, previous_id=w, actor_id=u, actor_kind=user, event_time=2026-11-21 02:40:00",
		name("Sent", 100, visitor, instant, "01:00:00"),
		name("Sent", 130, both, instant, "03:00:00"),
		name("Sent", 150, user, instant, "04:00:00"),
		name("Sent", 170, old, instant, "05:00:00"),
		name("Sent", 10, other, instant, "06:00:00"),
		name("Seats", 5, visitor, days(20, 21), "01:00:00"),
		name("Seats", 7, user, days(20, 21), "02:00:00"),
		name("Seats", 6, both, days(20, 21), "01:30:00"),
		name("Seats", 1, other, days(20, 21), "07:00:00"))
	same(t, "increases", table(t, conn, "SELECT sum(increase) FROM metric_increases WHERE metric_id = 'sent' GROUP BY series ORDER BY ALL"), "10", "170")
	same(t, "a period", table(t, conn, "SELECT actor_id, value FROM metric_points WHERE metric_id = 'seats' ORDER BY ALL"), "u 7", "x 1")
}
