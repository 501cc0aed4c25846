package clickhouse

import "testing"

// Rollups are by the hour, so whoever asks cuts days in a zone of their own: also
// the day of 25 hours, in which an hour comes twice, and the one of 23. Where a
// zone is off by half an hour, events has the instants.
func TestDaysOfAnyZone(t *testing.T) {
	conn := schema(t)
	at := func(instant string) string {
		return "kind=track, event=e, feature_id=f, actor_id=u, actor_kind=user, account_id=a, account_source=event, event_time=" + instant
	}
	insertEvents(t, conn,
		at("2026-10-24 21:30:00"), // 23:30 on Saturday in Vienna
		at("2026-10-24 22:30:00"), // 00:30 on Sunday
		at("2026-10-25 00:30:00"), // 02:30, summer time
		at("2026-10-25 01:30:00"), // 02:30 again
		at("2026-10-25 22:59:59"), // 23:59:59
		at("2026-10-25 23:00:00"), // Monday
		at("2026-03-28 22:30:00"), at("2026-03-28 23:00:00"), at("2026-03-29 21:59:59"), at("2026-03-29 22:00:00"),
	)
	same(t, "Vienna", table(t, conn, "SELECT toDate(hour, 'Europe/Vienna') AS day, sum(events) FROM usage_hourly WHERE app_id = 'dev' GROUP BY day ORDER BY day"),
		"2026-03-28 1", "2026-03-29 2", "2026-03-30 1", "2026-10-24 1", "2026-10-25 4", "2026-10-26 1")
	same(t, "UTC", table(t, conn, "SELECT day, sum(events) FROM account_feature_daily WHERE app_id = 'dev' AND day >= '2026-10-01' GROUP BY day ORDER BY day"),
		"2026-10-24 2", "2026-10-25 4")
	same(t, "an hour that comes twice", table(t, conn, "SELECT hour, sum(events) FROM usage_hourly WHERE toHour(hour, 'Europe/Vienna') = 2 AND hour >= '2026-10-01' GROUP BY hour ORDER BY hour"),
		"2026-10-25 00:00:00 1", "2026-10-25 01:00:00 1")
	same(t, "Kolkata, from events", table(t, conn, "SELECT toDate(event_time, 'Asia/Kolkata') AS day, count() FROM events WHERE event_time >= '2026-10-01' GROUP BY day ORDER BY day"),
		"2026-10-25 4", "2026-10-26 2")
}
