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
		columns, values := []string{"app_id", "message_id", "quantity"}, []string{"'dev'", fmt.Sprintf("'m%d'", i), "1"}
		if !strings.Contains(e, "received_at=") {
			columns, values = append(columns, "received_at"), append(values, "'2026-11-21 12:00:00'")
		}
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
	conn := schema(t)
	at := "event_time=2026-11-21 11:30:00, kind=track, event=e"
	insertEvents(t, conn,
		at+", user_id=u, anonymous_id=a, actor_id=u, actor_kind=user, account_id=acct, account_source=event",
		at+", anonymous_id=a, linked_user_id=u, actor_id=v, actor_kind=user, account_id=acct, account_source=membership",
		at+", anonymous_id=b, actor_id=b, actor_kind=anonymous, account_source=none",
		at+", anonymous_id=b, actor_id=b, actor_kind=anonymous, account_source=none",
		at+", actor_kind=account, account_id=acct, account_source=event",
	)
	insert := "INSERT INTO corrections (app_id, actor_id, actor_kind, anonymous_id, account_source, event, hour, events, quantity) VALUES"
	if err := conn.machinery.Exec(context.Background(), insert+" ('dev', 'b', 'anonymous', 'b', 'none', 'e', '2026-11-21 11:00:00', -1, -1)"); err != nil {
		t.Fatal(err)
	}
	got := table(t, conn, `SELECT actor_kind, actor_id, concat('u=', user_id), concat('a=', anonymous_id), account_source, toString(sum(events) AS n)
		FROM usage_hourly GROUP BY ALL ORDER BY ALL`)
	want := []string{"account  u= a= event 1", "anonymous b u= a=b none 1", "user u u=u a= event 1", "user v u=u a=a membership 1"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func exec(t *testing.T, conn driver.Conn, query string) {
	t.Helper()
	if err := conn.Exec(context.Background(), query); err != nil {
		t.Fatalf("%v in %s", err, query)
	}
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

// said inserts calls at minutes of an hour: "minute, column=value, ...".
func said(t *testing.T, conn driver.Conn, calls ...string) {
	t.Helper()
	for i, c := range calls {
		minute, rest, _ := strings.Cut(c, ", ")
		calls[i] = fmt.Sprintf("event_time=2026-11-21 11:%s:00, %s", minute, rest)
	}
	insertEvents(t, conn, calls...)
}

func TestWhoIsWho(t *testing.T) {
	conn := schema(t)
	said(t, conn,
		"20, kind=identify, user_id=u1, anonymous_id=kiosk",
		"10, kind=track, user_id=u1, anonymous_id=kiosk",
		"30, kind=identify, user_id=u2, anonymous_id=kiosk",
		"31, kind=identify, user_id=wrong, anonymous_id=a2",
		"40, kind=alias, user_id=u2, previous_id=u1",
		"41, kind=alias, user_id=u3, previous_id=u2",
		"42, kind=alias, user_id=u3, previous_id=u3",
		"50, kind=alias, user_id=y, previous_id=x",
		"51, kind=alias, user_id=x, previous_id=y",
	)
	// The plan of a correction says why, where an operator ordered it.
	exec(t, conn.machinery, `INSERT INTO correction_plans (app_id, corrected_at, chunk, reason) VALUES
		('dev', now(), 0, '{"kind":"unlink","id_kind":"anonymous","id":"a2","user_id":"wrong","until":1795262400000000}'), ('dev', now(), 0, ''), ('dev', now(), 1, '')`)
	same(t, "identities", table(t, conn, `SELECT id_kind, id, user_id, formatDateTime(since, '%H:%i'), toString(in_force)
		FROM identities WHERE id != 'x' AND id != 'y' ORDER BY id_kind, id, user_id`),
		"anonymous kiosk u1 11:10 0", "anonymous kiosk u2 11:30 1", "anonymous u1 u2 11:40 1", "anonymous u2 u3 11:41 1",
		"user u1 u2 11:40 1", "user u2 u3 11:41 1")
	// Of a cycle the alias that was said last is not in force.
	same(t, "roots", table(t, conn, "SELECT user_id, root_id FROM user_roots ORDER BY user_id"), "u1 u3", "u2 u3", "x y", "y y")
}

func TestTraitsAndMemberships(t *testing.T) {
	conn := schema(t)
	said(t, conn,
		`20, kind=identify, user_id=u1, traits={"name":"Maria","age":33,"address":{"city":"Rome"}}`,
		`10, kind=identify, user_id=u1, traits={"name":"M.","plan":"pro"}`,
		`11, kind=identify, user_id=u2`,
		`12, kind=group, user_id=u1, account_id=shop, account_source=event, role=clerk, traits={"name":"Shop"}`,
		`14, kind=group, user_id=u1, account_id=shop, account_source=event, role=clerk`,
		`16, kind=group, user_id=u1, account_id=bank, account_source=event, role=owner`,
		`18, kind=group, user_id=u1, account_id=shop, account_source=event, role=admin`,
	)
	same(t, "users", table(t, conn, "SELECT user_id, toString(traits), formatDateTime(updated_at, '%H:%i') FROM users ORDER BY user_id"),
		`u1 {'address':'{"city":"Rome"}','age':'33','name':'Maria','plan':'pro'} 11:20`, "u2 {} 11:11")
	same(t, "accounts", table(t, conn, "SELECT account_id, toString(traits) FROM accounts ORDER BY account_id"), "bank {}", "shop {'name':'Shop'}")
	same(t, "memberships", table(t, conn, `SELECT user_id, account_id, role, formatDateTime(valid_from, '%H:%i'), formatDateTime(valid_to, '%H:%i')
		FROM memberships_history ORDER BY account_id, valid_from`),
		"u1 bank owner 11:16 23:59", "u1 shop clerk 11:12 11:18", "u1 shop admin 11:18 23:59")
	same(t, "today", table(t, conn, "SELECT user_id, account_id, role FROM users_today"), "u1 shop admin")
}

func TestAccountsBelowAccounts(t *testing.T) {
	conn := schema(t)
	day := func(d, rest string) string { return "event_time=2026-11-" + d + " 10:00:00, " + rest }
	parent := func(d, account, parent string) string {
		return day(d, "kind=group, account_id="+account+", parent_account_id="+parent+", account_source=event")
	}
	use := func(d, account string) string {
		return day(d, "kind=track, event=e, account_id="+account+", account_source=event, actor_kind=account, feature_id=f")
	}
	insertEvents(t, conn,
		parent("10", "shop", "north"), parent("10", "north", "group"), parent("10", "south", "group"),
		parent("20", "shop", "south"),
		parent("20", "shop", "south"),                                   // twice
		parent("21", "group", "shop"),                                   // leads back: refused
		day("10", "kind=group, account_id=alone, account_source=event"), // neither above nor below
		use("12", "shop"), use("22", "shop"), use("22", "north"), use("22", "alone"), use("22", "unknown"), use("05", "shop"),
	)
	same(t, "paths", table(t, conn, `SELECT account_id, formatDateTime(valid_from, '%d'), formatDateTime(valid_to, '%d'), arrayStringConcat(ancestors, '>')
		FROM account_paths_history WHERE account_id IN ('shop', 'group') ORDER BY account_id, valid_from`),
		"group 01 31 group", "shop 01 10 shop", "shop 10 20 shop>north>group", "shop 20 31 shop>south>group")
	same(t, "subtree", table(t, conn, "SELECT account_id, member_id, depth FROM account_subtree ORDER BY ALL"),
		"alone alone 0", "group group 0", "group north 1", "group shop 2", "group south 1", "north north 0", "shop shop 0", "south shop 1", "south south 0")
	same(t, "one SELECT over a rollup", table(t, conn, `SELECT toString(sum(events)) FROM account_feature_daily
		WHERE (app_id, account_id) IN (SELECT app_id, member_id FROM account_subtree WHERE account_id = 'group')`), "4")
	same(t, "as then", table(t, conn, "SELECT under_account_id, toString(sum(events)) FROM account_feature_daily_as_then GROUP BY ALL ORDER BY ALL"),
		"alone 1", "group 3", "north 2", "shop 3", "south 1", "unknown 1")
	same(t, "as today", table(t, conn, "SELECT under_account_id, toString(sum(events)) FROM account_product_daily_as_today GROUP BY ALL ORDER BY ALL"),
		"alone 1", "group 4", "north 1", "shop 3", "south 3", "unknown 1")
}

// Operators on traits take effect in the order of event times, whatever order
// they arrive in, and each once.
func TestTraitOperators(t *testing.T) {
	conn := schema(t)
	said(t, conn,
		`20, kind=identify, user_id=u1, traits={"plan":"pro","$set_once":{"first":1,"plan":"free"},"$add":{"logins":2},"$append":{"tags":"a"}}`,
		`21, kind=identify, user_id=u1, traits={"$set_once":{"first":2},"$add":{"logins":0.5},"$append":{"tags":["b","a"]}}`,
		`21, kind=identify, user_id=u1, traits={"$add":{"logins":1},"$union":{"list":["x","y"]}}`,
		`22, kind=identify, user_id=u1, traits={"$union":{"list":["y","z"]},"$remove":{"tags":"a","none":1},"$prepend":{"tags":"c"}}`,
		`19, kind=identify, user_id=u1, traits={"$add":{"logins":10},"$setOnce":{"plan":"trial"}}`,
		`23, kind=identify, user_id=u1, traits={"$unset":["gone"],"kept":"yes"}`,
		`18, kind=identify, user_id=u1, traits={"gone":1,"also":2}`,
		`24, kind=identify, user_id=u1, traits={"$unset":{"also":"-"}}`,
		`30, kind=identify, user_id=u2, traits={"plan":"pro","$add":{"logins":1}}`,
		`31, kind=identify, user_id=u2, traits={"$delete":""}`,
		`32, kind=identify, user_id=u2, traits={"$add":{"logins":4}}`,
		`10, kind=identify, user_id=u3, traits={"$delete":""}`,
		`20, kind=group, user_id=u1, account_id=shop, account_source=event, traits={"seats":3,"$add":{"tills":2}}`,
		`21, kind=group, account_id=shop, traits={"$add":{"seats":2,"tills":1},"$append":{"sites":{"city":"Rome"}}}`,
	)
	same(t, "users", table(t, conn, "SELECT user_id, toString(traits) FROM users ORDER BY user_id"),
		`u1 {'first':'1','kept':'yes','list':'["x","y","z"]','logins':'13.5','plan':'pro','tags':'["c","b"]'}`,
		`u2 {'logins':'4'}`, "u3 {}")
	same(t, "accounts", table(t, conn, "SELECT account_id, toString(traits) FROM accounts"),
		`shop {'seats':'5','sites':'[{"city":"Rome"}]','tills':'3'}`)
	// The same rows once more, as after a window that was lost: nothing changes.
	exec(t, conn.machinery, "INSERT INTO identity_facts SELECT * FROM identity_facts")
	same(t, "users again", table(t, conn, "SELECT toString(traits['logins']) FROM users WHERE user_id = 'u1'"), "13.5")
}

// Of calls with the same event time the one that came later counts, whatever it
// says: the one received later, and of those of one request the later one in the log.
func TestTraitsStatedAtTheSameInstant(t *testing.T) {
	conn := schema(t)
	call := func(received string, offset int, rest string) string {
		return fmt.Sprintf("event_time=2026-11-21 11:20:00, received_at=2026-11-21 %s, source_offset=%d, %s", received, offset, rest)
	}
	first, second := "12:00:00", "12:00:01"
	calls := []string{
		call(first, 7, `kind=identify, user_id=u1, traits={"plan":"pro","seats":9}`),
		call(second, 8, `kind=identify, user_id=u1, traits={"plan":"free","seats":10}`),
		call(first, 8, `kind=identify, user_id=u2, traits={"plan":"a","tags":"x"}`), // one request
		call(first, 7, `kind=identify, user_id=u2, traits={"plan":"b","tags":"y"}`),
		call(first, 9, `kind=identify, user_id=u3, traits={"plan":"pro","$append":{"tags":"z"}}`),
		call(first, 10, `kind=identify, user_id=u3, traits={"$append":{"tags":"a"},"$set_once":{"plan":"free"}}`),
		call(first, 11, `kind=identify, user_id=u4, traits={"plan":"pro","gone":1}`),
		call(first, 12, `kind=identify, user_id=u4, traits={"$delete":""}`),
		call(first, 13, `kind=identify, user_id=u4, traits={"plan":"free"}`),
		call(first, 20, `kind=group, account_id=shop, traits={"tier":"silver"}`), // another partition
		call(second, 3, `kind=group, account_id=shop, traits={"tier":"gold"}`),
		`event_time=2026-11-21 11:19:59, received_at=2026-11-21 13:00:00, source_offset=30, kind=identify, user_id=u1, traits={"plan":"zzz"}`, // late, of earlier
	}
	insertEvents(t, conn, calls...)
	want := []string{
		"u1 {'plan':'free','seats':'10'}", "u2 {'plan':'a','tags':'x'}", `u3 {'plan':'pro','tags':'["z","a"]'}`, "u4 {'plan':'free'}",
	}
	users := "SELECT user_id, toString(traits) FROM users ORDER BY user_id"
	same(t, "users", table(t, conn, users), want...)
	same(t, "accounts", table(t, conn, "SELECT account_id, toString(traits) FROM accounts"), "shop {'tier':'gold'}")
	exec(t, conn.machinery, "OPTIMIZE TABLE identity_facts FINAL")
	same(t, "users merged", table(t, conn, users), want...)
}

// Rows from before the migration of the order say what they said, until a later
// call, or one of the same instant, states the trait.
func TestTraitsFromBeforeTheirOrder(t *testing.T) {
	conn := schema(t)
	exec(t, conn.machinery, `INSERT INTO identity_facts (app_id, fact, subject, object, first, last) SELECT 'dev', 'user', 'u1', o, '2026-11-21 11:20:00', ('2026-11-21 11:20:00', v)
		FROM values('o String, v String', ('', ''), ('plan', '"z"'), ('kept', '1'), ('newer', '"n"'))`)
	insertEvents(t, conn,
		`event_time=2026-11-21 11:20:00, kind=identify, user_id=u1, traits={"plan":"a"}`,
		`event_time=2026-11-21 11:19:00, kind=identify, user_id=u1, traits={"newer":"older"}`)
	for range 2 {
		same(t, "users", table(t, conn, "SELECT toString(traits) FROM users"), "{'kept':'1','newer':'n','plan':'a'}")
		exec(t, conn.machinery, "OPTIMIZE TABLE identity_facts FINAL")
	}
}
