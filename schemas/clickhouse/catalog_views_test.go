package clickhouse

import "testing"

// What no feature has is listed by name, from its own events and until a
// correction took all of it away; conflicts are listed by key.
func TestUnmappedAndConflicts(t *testing.T) {
	conn := schema(t)
	use := func(event, feature, clock, rest string) string {
		return "kind=track, event=" + event + ", feature_id=" + feature + ", user_id=u, actor_id=u, actor_kind=user, account_source=none, event_time=2026-11-20 " + clock + rest
	}
	insertEvents(t, conn,
		use("drawer", "", "09:30:00", `, properties={"till":1}`), use("drawer", "", "11:00:00", `, properties={"till":2}`), use("drawer", "", "10:00:00", ""),
		use("scan", "item_scanned", "09:00:00", `, conflicts={"properties.total":"free","properties.total#2":12}`),
		use("scan", "item_scanned", "10:00:00", `, conflicts={"properties.a.b":{"x":1}}`),
		use("print", "", "12:00:00", ""),
	)
	same(t, "unmapped", table(t, conn, "SELECT event, events, formatDateTime(first_seen, '%H'), formatDateTime(last_seen, '%H') FROM unmapped_events ORDER BY event"),
		"drawer 3 09 11", "print 1 12 12")
	same(t, "samples", table(t, conn, "SELECT event, toString(properties.till) FROM unmapped_samples WHERE event = 'drawer' ORDER BY event_time DESC"),
		"drawer 2", "drawer ", "drawer 1")
	same(t, "conflicts", table(t, conn, "SELECT path, events, last_value FROM metadata_conflicts ORDER BY path"),
		`properties.a.b 1 {"x":1}`, `properties.total 2 "free"`)
	// A version names them, and history moves: the last of them first.
	exec(t, conn.machinery, `INSERT INTO corrections (app_id, actor_id, actor_kind, user_id, account_source, feature_id, event, hour, events, quantity)
		VALUES ('dev', 'u', 'user', 'u', 'none', '', 'print', '2026-11-20 12:00:00', -1, -1), ('dev', 'u', 'user', 'u', 'none', 'printed', 'print', '2026-11-20 12:00:00', 1, 1),
			('dev', 'u', 'user', 'u', 'none', '', 'drawer', '2026-11-20 11:00:00', -1, -1)`)
	same(t, "after a move", table(t, conn, "SELECT event, events, formatDateTime(last_seen, '%H') FROM unmapped_events ORDER BY event"), "drawer 2 10")
	same(t, "samples after it", table(t, conn, "SELECT DISTINCT event FROM unmapped_samples"), "drawer")
}

// The catalog in force is the newest version of each row, without what it removed;
// the history has all of them.
func TestCatalogInForce(t *testing.T) {
	conn := schema(t)
	for _, table := range []string{"catalog_features", "catalog_features_history"} {
		for _, rows := range []string{
			"('dev', 'scan', 'Item Scanned', 'till', 'core', 1, 0), ('dev', 'gone', 'Gone', 'till', 'risk', 1, 0)",
			"('dev', 'scan', 'Item Scanned', 'desk', 'upsell', 2, 0), ('dev', 'gone', 'Gone', 'till', 'risk', 2, 1)",
		} {
			exec(t, conn.machinery, "INSERT INTO "+table+" (app_id, feature_id, feature_name, module_id, kind, catalog_version, removed) VALUES "+rows)
		}
	}
	same(t, "features", table(t, conn, "SELECT feature_id, module_id, kind, catalog_version FROM catalog_features"), "scan desk upsell 2")
	same(t, "history", table(t, conn, "SELECT feature_id, module_id, catalog_version, removed FROM catalog_features_history ORDER BY ALL"),
		"gone till 1 0", "gone till 2 1", "scan desk 2 0", "scan till 1 0")
}
