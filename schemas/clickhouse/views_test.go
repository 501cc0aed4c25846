package clickhouse

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/template"
)

// parameters are values for the parameters of views, by type.
var parameters = map[string]string{
	"String": "'x'", "Date": "'2026-11-21'", "DateTime": "'2026-11-21 10:00:00'", "UInt8": "1", "UInt16": "1", "UInt32": "1", "UInt64": "1",
	"Int32": "1", "Int64": "1", "Float64": "1", "Array(String)": "['x']",
}

// named are values for those of which not any will do.
var named = map[string]string{
	"app": "'dev'", "from": "'2026-11-01'", "to": "'2026-12-01'", "zone": "'Europe/Vienna'", "period": "'week'", "unit": "'person'", "by": "'account.plan'", "level": "'module'", "ordering": "'strict'",
}

// call is how a name is read: itself, or with its parameters.
func call(t *testing.T, conn installed, name string) string {
	t.Helper()
	var list []string
	for _, p := range table(t, conn, "SELECT arrayJoin(parameterized_view_parameters) AS p FROM system.tables WHERE database = currentDatabase() AND name = '"+name+"'") {
		key, kind, _ := strings.Cut(strings.NewReplacer("('", "", "','", " ", "')", "").Replace(p), " ")
		value, ok := named[key]
		if !ok {
			value, ok = parameters[kind]
		}
		if !ok {
			t.Fatalf("%s: no value here for parameter %s of type %s", name, key, kind)
		}
		list = append(list, key+" = "+value)
	}
	if list == nil {
		return name
	}
	return name + "(" + strings.Join(list, ", ") + ")"
}

// returned are the columns that a parameterized view returns, as name|type.
func returned(t *testing.T, conn installed, view string) (columns []string) {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT * FROM "+view+" LIMIT 0")
	if err != nil {
		t.Fatalf("%v in %s", err, view)
	}
	defer rows.Close()
	for i, c := range rows.ColumnTypes() {
		columns = append(columns, rows.Columns()[i]+"|"+c.DatabaseTypeName())
	}
	return columns
}

// Every object that people see and each of its columns has a comment and a column
// of the app, by which rows are granted. ClickHouse lists no columns of
// parameterized views: those are declared in the views' files, and are the ones
// that the view returns.
func TestEveryNameIsDescribed(t *testing.T) {
	conn := schema(t)
	people, err := People()
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string][]Column{}
	views, err := Views()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range views {
		if declared[v.Name], err = v.Columns(conn.schema); err != nil {
			t.Error(err)
		}
	}
	names := table(t, conn, "SELECT name FROM system.tables WHERE database = currentDatabase() ORDER BY name")
	same(t, "names of row policies", people, names...)
	for _, name := range names {
		columns := table(t, conn, "SELECT concat(name, '|', type, '|', comment) FROM system.columns WHERE database = currentDatabase() AND table = '"+name+"' ORDER BY position")
		if columns == nil {
			for i, c := range returned(t, conn, call(t, conn, name)) {
				if i >= len(declared[name]) || c != declared[name][i].Name+"|"+declared[name][i].Type {
					t.Errorf("%s returns %s; its file declares %v", name, c, declared[name])
					continue
				}
				columns = append(columns, c+"|"+declared[name][i].Comment)
			}
		}
		for _, c := range columns {
			if strings.HasSuffix(c, "|") {
				t.Errorf("%s: column %s has no comment", name, c)
			}
		}
		if !slices.ContainsFunc(columns, func(c string) bool { return strings.HasPrefix(c, "app_id|LowCardinality(String)|") }) {
			t.Errorf("%s has no column app_id: %q", name, columns)
		}
	}
	same(t, "without a comment", table(t, conn, "SELECT name FROM system.tables WHERE database = currentDatabase() AND comment = ''"))
	same(t, "views that run as their reader", table(t, conn, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View' AND create_table_query NOT LIKE '%SQL SECURITY DEFINER%'"))
}

func parameterized(t *testing.T, conn installed, name string) bool {
	t.Helper()
	return call(t, conn, name) != name
}

// What people read is the same before and after merges, also right after a
// correction moved everything of an actor to another one: emptied rows and several
// parts with rows of one key do not show. The names that end in _sums promise that
// of sums alone, and the attribution columns of events stay as counted on arrival. Views
// with parameters are held against a computation, corrections included, in
// test/analytics.
func TestAnswersDoNotWaitForMerges(t *testing.T) {
	conn := schema(t)
	stored := table(t, conn.machinery, "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND NOT startsWith(name, 'schema_')")
	for _, name := range stored {
		exec(t, conn.machinery, "SYSTEM STOP MERGES "+name)
	}
	exec(t, conn, "SYSTEM STOP MERGES events")
	for i := range 3 { // parts with the same keys
		fillEveryName(t, conn, i)
	}
	// Everything of lost goes to kept; the alias of an operator is undone.
	columns := "app_id, account_id, account_source, actor_id, actor_kind, user_id, anonymous_id, feature_id, module_id, product_id, role, event, hour, source_partition"
	to := strings.NewReplacer("actor_id", "'kept'", "user_id", "'kept'").Replace(columns)
	exec(t, conn.machinery, fmt.Sprintf("INSERT INTO corrections (%s, events, quantity) SELECT %s, -events, -quantity FROM usage_hourly WHERE actor_id = 'lost' "+
		"UNION ALL SELECT %s, events, quantity FROM usage_hourly WHERE actor_id = 'lost'", columns, columns, to))
	names := table(t, conn, "SELECT name FROM system.tables WHERE database = currentDatabase() ORDER BY name")
	read := func(name string) []string {
		t.Helper()
		what := "*"
		if name == "events" {
			what = "* EXCEPT (properties, traits, timestamp, sent_at)"
		}
		if strings.HasSuffix(name, "_sums") {
			return table(t, conn, "SELECT actor_id, sum(events) AS n, sum(quantity) FROM "+strings.TrimSuffix(name, "_sums")+" GROUP BY actor_id HAVING n != 0 ORDER BY ALL")
		}
		return table(t, conn, "SELECT toString(tuple("+what+")) AS row FROM "+call(t, conn, name)+" ORDER BY row")
	}
	before := map[string][]string{}
	for _, name := range names {
		if strings.HasSuffix(name, "_sums") || parameterized(t, conn, name) {
			continue
		}
		before[name] = read(name)
		if len(before[name]) == 0 {
			t.Errorf("%s is empty here: give it rows", name)
		}
		ids := table(t, conn, "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '"+name+"' AND name IN ('actor_id', 'user_id')")
		for _, id := range ids {
			if got := table(t, conn, fmt.Sprintf("SELECT count() FROM %s WHERE %s = 'lost'", call(t, conn, name), id)); got[0] != "0" && name != "events" {
				t.Errorf("%s has %s rows of the %s whose events were all moved", name, got[0], id)
			}
		}
	}
	for _, q := range []string{"count()", "uniqExact(actor_id)", "uniqExact(feature_id)"} {
		same(t, q, table(t, conn, "SELECT "+q+" FROM user_feature_daily WHERE feature_id = 'scan'"), "1")
	}
	for _, name := range names {
		base, ok := strings.CutSuffix(name, "_sums")
		if !ok {
			continue
		}
		q := "SELECT feature_id, sum(events), sum(quantity) FROM %s WHERE product_id = 'pos' GROUP BY feature_id ORDER BY ALL"
		if !slices.Contains(table(t, conn, "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '"+name+"'"), "feature_id") {
			q = strings.ReplaceAll(q, "feature_id", "product_id")
		}
		same(t, name, table(t, conn, fmt.Sprintf(q, name)), table(t, conn, fmt.Sprintf(q, base))...)
	}
	for _, name := range stored {
		exec(t, conn.machinery, "SYSTEM START MERGES "+name)
		exec(t, conn.machinery, "OPTIMIZE TABLE "+name+" FINAL")
	}
	for name := range before {
		if got := read(name); !slices.Equal(got, before[name]) {
			t.Errorf("%s before merges:\n%s\nafter:\n%s", name, strings.Join(before[name], "\n"), strings.Join(got, "\n"))
		}
	}
}

// fillEveryName inserts rows of the app dev from which each name for people has
// rows; parts of several rounds have the same keys.
func fillEveryName(t *testing.T, conn installed, i int) {
	t.Helper()
	use := func(actor, feature string) string {
		return "kind=track, event=" + feature + " used, user_id=" + actor + ", actor_id=" + actor + ", actor_kind=user, account_id=shop, account_source=membership, role=clerk, " +
			"feature_id=" + feature + ", module_id=till, product_id=pos, event_time=2026-11-21 11:30:00"
	}
	round := fmt.Sprintf(", session_id=%d", i) // so that the block is not taken for a repeat
	insertEvents(t, conn, use("lost", "scan")+round, use("kept", "scan")+round, use("kept", "print")+round, use("kept", "")+round,
		"kind=identify, user_id=kept, anonymous_id=phone, event_time=2026-11-21 11:00:00, traits={\"plan\":\"pro\"}"+round,
		"kind=group, user_id=kept, account_id=shop, account_source=event, role=clerk, event_time=2026-11-21 11:01:00, traits={\"seats\":3}"+round,
		"kind=group, account_id=shop, parent_account_id=chain, account_source=event, event_time=2026-11-21 11:02:00"+round,
		"kind=alias, user_id=kept, previous_id=old, event_time=2026-11-21 11:03:00"+round,
		report("Seats", `"":41`, `,"dimensions":"{}"}`+told("09:00:00"))+round,
		strings.Replace(report("Seats", `"":1`, `,"dimensions":"{}"}`+told("09:00:00")), "actor_kind=account", "user_id=kept, actor_id=kept, actor_kind=user", 1)+round)
	declare(t, conn, 1, "Seats seats gauge")
	exec(t, conn.machinery, "INSERT INTO catalog_features (app_id, feature_id, catalog_version) VALUES ('dev', 'scan', 1)")
	exec(t, conn.machinery, "INSERT INTO catalog_features_history (app_id, feature_id, catalog_version) VALUES ('dev', 'scan', 1)")
	exec(t, conn.machinery, `INSERT INTO correction_plans (app_id, reason, corrected_at) VALUES ('dev', '{"kind":"whole_hour","id_kind":"anonymous","id":"till","hour":1795255200,"events":3}', '2026-11-21 12:00:00')`)
	exec(t, conn.machinery, "INSERT INTO replayed_events (app_id, source_offset) VALUES ('dev', 7)")
	exec(t, conn.machinery, "INSERT INTO audit_blocks (app_id, hour, accepted, stored, raw_topic_id, raw_next, source_topic_id, source_offset, counted_at) VALUES ('dev', '2026-11-21 12:00:00', 5, 5, 'r', 5, 'e', 5, now())")
	at := fmt.Sprintf("'2026-11-21 12:00:0%d'", i)
	exec(t, conn.machinery, "INSERT INTO insight_rules (app_id, version, use, value, applied_at) VALUES ('dev', 1, 'activity', 'scan', '2026-11-21 12:00:00')")
	exec(t, conn.machinery, "INSERT INTO signal_log (app_id, signal_use, alert_id, message_id, signal, state, level, subject, valid_from, written_at) VALUES ('dev', 'alert', 'a', 'm1', 'silent', 'firing', 'account', 'shop', '2026-11-21', "+at+"), ('dev', 'segment', 's', 'm2', 'regular', 'entered', 'account', 'shop', '2026-11-21', "+at+")")
	exec(t, conn.machinery, "INSERT INTO health_scores (app_id, health_id, account_id, score, parts, written_at) VALUES ('dev', 'fit', 'shop', 50, [('use', 'behaviour', 1, 2, 1, 0.5, 0, 's')], "+at+")")
	exec(t, conn.machinery, "INSERT INTO looks (app_id, looked_at, viewer, person_id, written_at) VALUES ('dev', '2026-11-21 12:00:00', 'joan', 'kept', "+at+")")
	exec(t, conn.machinery, fmt.Sprintf(`INSERT INTO notes (app_id, kind, id, value, version, written_at) VALUES ('dev', 'annotation', 'r1', '{"annotation":{"at":"2026-11-21T00:00:00Z","whole_day":true,"category":"release","text":"release %[1]d"}}', %[1]d, %[2]s),
		('dev', 'question', 'q1', '{"question":{"name":"n %[1]d","query":"show=active","boards":["b1"]}}', %[1]d, %[2]s), ('dev', 'board', 'b1', '{"board":{"name":"n %[1]d"}}', %[1]d, %[2]s)`, i, at))
	exec(t, conn.machinery, "INSERT INTO behaviour_clusters (app_id, unit_kind, computed_at, cluster, units) VALUES ('dev', 'user', '2026-11-21', 1, 3), ('dev', 'user', "+at+", 1, 2)")
	exec(t, conn.machinery, "INSERT INTO behaviour_cluster_members (app_id, unit_kind, computed_at, unit_id, cluster) VALUES ('dev', 'user', '2026-11-21', 'gone', 1), ('dev', 'user', "+at+", 'kept', 1)")
	exec(t, conn, "INSERT INTO rejected_events (app_id, stage, code, received_at, rejected_at) VALUES ('dev', 'gateway', 'bad', now(), now())")
	exec(t, conn, `INSERT INTO events (app_id, message_id, kind, event, conflicts, received_at, event_time) VALUES ('dev', 'c', 'track', 'x', '{"properties.a":1}', '2026-11-21 12:00:00', '2026-11-21 11:00:00')`)
}

// A condition on the columns that a stored rollup is sorted by first selects
// granules of it, through the view.
func TestConditionsReachThePrimaryKey(t *testing.T) {
	conn := schema(t)
	insertEvents(t, conn, "kind=track, event=e, feature_id=f, module_id=m, product_id=p, user_id=u, actor_id=u, actor_kind=user, account_id=a, account_source=event, event_time=2026-11-21 11:30:00")
	for name, keys := range map[string][]string{
		"usage_hourly": {"app_id", "actor_id"}, "usage_hourly_sums": {"app_id", "actor_id"},
		"account_feature_daily": {"app_id", "account_id", "feature_id", "day"}, "account_feature_daily_sums": {"app_id", "account_id", "feature_id", "day"},
		"account_module_daily": {"app_id", "account_id", "module_id", "day"}, "account_product_daily": {"app_id", "account_id", "product_id", "day"},
		"user_feature_daily": {"app_id", "account_id", "actor_id"}, "user_feature_daily_sums": {"app_id", "account_id", "actor_id"},
		"user_module_daily": {"app_id", "account_id", "actor_id"}, "user_product_daily": {"app_id", "account_id", "actor_id"},
	} {
		values := map[string]string{"app_id": "'dev'", "actor_id": "'u'", "account_id": "'a'", "feature_id": "'f'", "module_id": "'m'", "product_id": "'p'", "day": "'2026-11-21'"}
		var where []string
		for _, k := range keys {
			where = append(where, k+" = "+values[k])
		}
		plan := strings.Join(table(t, conn, "SELECT trimLeft(explain) FROM (EXPLAIN indexes = 1 SELECT sum(events) FROM "+name+" WHERE "+strings.Join(where, " AND ")+")"), " ")
		if !strings.Contains(plan, "PrimaryKey Keys: "+strings.Join(keys, " ")+" ") {
			t.Errorf("%s: want the keys %v in:\n%s", name, keys, plan)
		}
	}
}

// Apply makes the views what the files say: it repairs one that is missing or was
// made from another text, and drops one whose file is gone.
func TestViewsFollowTheirFiles(t *testing.T) {
	ctx := context.Background()
	conn := schema(t)
	db := conn.schema.Database
	exec(t, conn, "DROP VIEW users_today")
	exec(t, conn.machinery, "INSERT INTO schema_views VALUES ('"+db+".account_paths', 'another', now() + 1), ('"+db+".gone', 'x', now())")
	exec(t, conn, "CREATE VIEW gone AS SELECT 1")
	got, err := conn.schema.Apply(ctx, conn)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "applied", got, db+".account_paths", db+".users_today", db+".gone")
	same(t, "there", table(t, conn, "SELECT name FROM system.tables WHERE database = currentDatabase() AND name IN ('users_today', 'account_paths', 'gone') ORDER BY name"), "account_paths", "users_today")
	conn.schema.Definer = "nobody"
	if _, err := conn.schema.Apply(ctx, conn); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("apply with a definer that does not exist: got %v", err)
	}
}

// A view file that cannot be used is refused with its name.
func TestViewsAreChecked(t *testing.T) {
	s := Schema{Database: "d", Form: SingleForm(), Definer: "u"}
	text := func(s string) *template.Template { return template.Must(template.New("").Parse(s)) }
	for _, tc := range []struct {
		views []View
		want  string
	}{
		{[]View{{Name: "a", text: text(`{{.View "nothing"}}`)}}, "there is no view nothing"},
		{[]View{{Name: "users", text: text(`{{.View "users"}}`)}}, "view users reads itself"},
		{[]View{{Name: "a", text: text(`{{.Nothing}}`)}}, "view a"},
	} {
		if _, _, err := s.ordered(tc.views); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
	if _, err := (View{Name: "a", text: text("{{.Create}} AS SELECT 1")}).Columns(s); err == nil || !strings.Contains(err.Error(), "view a: it declares no columns") {
		t.Errorf("got %v", err)
	}
}
