package main

import (
	"bytes"
	"strings"
	"testing"

	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// Users of two kinds are two clusters, which another run replaces; what cannot be
// grouped changes nothing.
func TestCluster(t *testing.T) {
	addr, db := embedded.Database(t)
	s := embedded.ForTest(t)
	call := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		args = append(args, "-clickhouse-addr", addr, "-clickhouse-database", db)
		code := process.Main(&out, "rollup-writer", func() error {
			return run(args, func(string) (string, bool) { return "", false }, &out, &out)
		})
		if code != want {
			t.Fatalf("%q: got %d, want %d: %s", args, code, want, out.String())
		}
		return out.String()
	}
	query := func(q string) string {
		t.Helper()
		out, err := s.Query(t.Context(), strings.NewReplacer("INTERNAL", tables.Internal(db), "PEOPLE", db).Replace(q))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(out), "\n", "; ")
	}
	holds := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got %q, want %q in it", got, w)
			}
		}
	}
	users := func(app string) {
		t.Helper()
		// Of 30 users 20 scan and 10 print; one more does too little, and a visitor is nobody's user.
		query(`INSERT INTO PEOPLE.events (app_id, kind, event, message_id, user_id, actor_id, actor_kind, account_id, account_source, feature_id, module_id, product_id, event_time, received_at, quantity, source_topic_id, source_partition, source_offset)
			SELECT '` + app + `', 'track', f, concat('m', toString(number)), if(n < 31, u, ''), u, if(n < 31, 'user', 'anonymous'), concat('shop', toString(n % 3)), 'event', f, 'm', 'p',
				toDateTime64('2026-11-10 09:00:00', 6, 'UTC') + toIntervalHour(24 * (number % 5)), '2026-11-20 09:00:00', 1, 't', 0, number
			FROM (SELECT number, intDiv(number, 40) AS n, concat('u', toString(n)) AS u, if(n < 20, if(number % 10 = n % 3, 'pay', 'scan'), if(number % 10 = n % 3, 'pay', 'print')) AS f FROM numbers(1280) WHERE n != 30 OR number % 40 < 19)`)
	}
	holds(call(process.ExitFailed, "cluster", "-app", "dev"), "no database "+db+": see `rollup-writer migrate`")
	call(process.ExitOK, "migrate")
	holds(call(process.ExitUsage, "cluster", "-unit", "team"), "app must name an app", `unit must be user or account (got "team")`)
	days := []string{"-from", "2026-11-01", "-to", "2026-11-29"}
	group := func(want int, args ...string) string {
		t.Helper()
		return call(want, append(append([]string{"cluster"}, args...), days...)...)
	}
	holds(group(process.ExitFailed, "-app", "dev"), "too few to group: 0 users of app dev have at least 20 events of features (min-events)", "nothing was changed")
	users("dev")
	users("other")
	query("INSERT INTO INTERNAL.catalog_features (app_id, feature_id, feature_name, status, catalog_version) VALUES ('dev', 'print', 'Invoice Printed', 'active', 1)")
	// What a run left that was cut short before it wrote its clusters.
	query("INSERT INTO INTERNAL.behaviour_cluster_members (app_id, unit_kind, computed_at, unit_id, cluster) VALUES ('dev', 'user', '2026-11-21', 'u1', 7), ('other', 'user', '2026-11-21', 'u1', 7)")
	if got := query("SELECT count() FROM PEOPLE.behaviour_cluster_members"); got != "0" {
		t.Errorf("%s members of a run that was cut short are shown", got)
	}
	holds(group(process.ExitFailed, "-app", "dev", "-most", "30"), "app dev has 31 users with usage from 2026-11-01 to 2026-11-29, and most is 30")

	holds(group(process.ExitOK, "-app", "dev"), "30 grouped, 1 left out with fewer than 20 events", "min-points 4",
		"cluster 1: 20 (67 %): uses scan, which the rest hardly does", "cluster 2: 10 (33 %): ", "uses Invoice Printed, which the rest hardly does (90 of 100 events, the rest 0)")
	const shown = "SELECT concat(unit_kind, ' ', toString(cluster), ' ', toString(units), ' ', toString(round(share, 2))) FROM PEOPLE.behaviour_clusters WHERE app_id = 'dev' ORDER BY ALL"
	if got, want := query(shown), "user 1 20 0.67; user 2 10 0.33"; got != want {
		t.Errorf("clusters: got %q, want %q", got, want)
	}
	const members = "SELECT countIf(cluster = 1 AND toUInt8(substring(unit_id, 2)) < 20) + 100 * countIf(cluster = 2 AND toUInt8(substring(unit_id, 2)) BETWEEN 20 AND 29), count() FROM PEOPLE.behaviour_cluster_members WHERE app_id = 'dev' AND unit_kind = 'user'"
	if got, want := query(members), "1020\t30"; got != want {
		t.Errorf("members: got %q, want %q", got, want)
	}

	// Accounts are beside users, each app by itself, and a second run replaces the first.
	holds(group(process.ExitOK, "-app", "dev", "-unit", "account", "-min-points", "2", "-eps", "1"), "accounts from", "3 grouped", "all that were grouped: there is no rest to compare with")
	group(process.ExitOK, "-app", "other")
	holds(group(process.ExitOK, "-app", "dev", "-eps", "2"), "cluster 1: 30 (100 %)")
	if got, want := query(shown), "account 1 3 1; user 1 30 1"; got != want {
		t.Errorf("clusters of the second run: got %q, want %q", got, want)
	}
	if got, want := query("SELECT countIf(app_id = 'dev' AND unit_kind = 'user'), countIf(app_id = 'dev' AND unit_kind = 'account'), countIf(app_id = 'other') FROM INTERNAL.behaviour_cluster_members"), "30\t3\t30"; got != want {
		t.Errorf("stored members: got %q, want %q", got, want)
	}
	// A clock that was set back does not hide a run.
	query("INSERT INTO INTERNAL.behaviour_clusters SELECT * REPLACE ('2100-01-01' AS computed_at) FROM INTERNAL.behaviour_clusters WHERE app_id = 'other'")
	group(process.ExitOK, "-app", "other", "-eps", "2")
	if got, want := query("SELECT count(), any(toYear(computed_at)) FROM PEOPLE.behaviour_clusters WHERE app_id = 'other'"), "1\t2100"; got != want {
		t.Errorf("after a clock that was set back: got %q, want %q", got, want)
	}
	// With too little usage the clusters stay.
	days = []string{"-from", "2026-11-14", "-to", "2026-11-15"}
	holds(group(process.ExitFailed, "-app", "dev"), "too few to group: 0 users", "31 have fewer events")
	if got, want := query(shown), "account 1 3 1; user 1 30 1"; got != want {
		t.Errorf("clusters after a refusal: got %q, want %q", got, want)
	}
}
