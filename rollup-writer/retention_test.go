package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// Rows past their app's retention go, from events and from rejected events; those
// of another app, of an app that keeps them forever, and all that was counted of
// them stay.
func TestRetention(t *testing.T) {
	addr, db := embedded.Database(t)
	s := embedded.ForTest(t)
	call := func(command string, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		args = append([]string{command, "-clickhouse-addr", addr, "-clickhouse-database", db}, args...)
		code := process.Main(&errs, "rollup-writer", func() error {
			return run(args, func(string) (string, bool) { return "", false }, &out, &errs)
		})
		if code != process.ExitOK {
			t.Fatalf("%s: got %d: %s", command, code, errs.String())
		}
		return out.String()
	}
	query := func(q string) string {
		t.Helper()
		out, err := s.Query(t.Context(), strings.ReplaceAll(q, "DB.", db+"."))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(strings.TrimSpace(out), `\'`, "'")
	}
	rules := filepath.Join(t.TempDir(), "privacy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(rules, []byte(text+"\n...\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call("migrate")
	for i, app := range []string{"short", "o'long", "ever"} {
		for j, age := range []int{1, 40, 500} {
			query(fmt.Sprintf(`INSERT INTO DB.events (app_id, kind, event, message_id, actor_id, actor_kind, account_id, feature_id, quantity, event_time, received_at, source_offset)
				SELECT '%s', 'track', 'e', 'm%d', 'u', 'user', 'acct', 'f', 2, now64(6, 'UTC') - INTERVAL %d DAY AS t, t, %d`, strings.ReplaceAll(app, "'", `\'`), j, age, 10*i+j))
			query(fmt.Sprintf(`INSERT INTO DB.rejected_events (app_id, stage, code, original, received_at, source_offset)
				SELECT '%s', 'gateway', 'bad_event', 'secret', now64(6, 'UTC') - INTERVAL %d DAY, %d`, strings.ReplaceAll(app, "'", `\'`), age, 10*i+j))
		}
	}
	left := func(table string) string {
		return query("SELECT arrayStringConcat(groupArray(concat(app_id, ' ', toString(n))), ', ') FROM (SELECT app_id, count() AS n FROM DB." + table + " GROUP BY app_id ORDER BY app_id)")
	}
	counted := func() string {
		return query("SELECT (SELECT concat(toString(sum(events)), ' ', toString(sum(quantity))) FROM DB.usage_hourly), (SELECT sum(events) FROM DB.account_feature_daily), (SELECT sum(events) FROM DB.user_feature_daily)")
	}
	merge := func() {
		t.Helper()
		for _, table := range []string{"events", "rejected_events"} {
			query("ALTER TABLE DB." + table + " MATERIALIZE TTL SETTINGS mutations_sync = 2")
			query("OPTIMIZE TABLE DB." + table + " FINAL")
		}
	}
	const usage = "9 18\t9\t9"
	write("apps: {short: {retention_days: 30}, \"o'long\": {retention_days: 365}, ever: {ip: none}, unheard: {retention_days: 30}}")
	if out := call("retention", "-privacy-file", rules, "-dry-run"); !strings.Contains(out, "was: kept forever") {
		t.Errorf("dry run: got %s", out)
	}
	query("OPTIMIZE TABLE DB.events FINAL")
	if got, want := left("events"), "ever 3, o'long 3, short 3"; got != want {
		t.Errorf("after a dry run: got %s, want %s", got, want)
	}
	if out := call("retention", "-privacy-file", rules); !strings.Contains(out, "events\n  was: kept forever") || !strings.Contains(out, "rejected_events") {
		t.Errorf("first: got %s", out)
	}
	merge()
	for _, table := range []string{"events", "rejected_events"} {
		if got, want := left(table), "ever 3, o'long 2, short 1"; got != want {
			t.Errorf("%s: got %s, want %s", table, got, want)
		}
	}
	if got := counted(); got != usage {
		t.Errorf("rollups: got %s, want %s", got, usage)
	}
	if out := call("retention", "-privacy-file", rules); out != "nothing changes\n" {
		t.Errorf("again: got %s", out)
	}
	call("audit", "-in-flight-records", "0", "-from", query("SELECT toString(today() - 25)"))
	write("apps: {short: {retention_days: 30}}")
	if out := call("retention", "-privacy-file", rules); !strings.Contains(out, "toIntervalDay(365)") {
		t.Errorf("one app less: got %s", out)
	}
	write("apps: {}")
	if out := call("retention", "-privacy-file", rules); !strings.Contains(out, "is:  kept forever") {
		t.Errorf("none: got %s", out)
	}
	query("INSERT INTO DB.events (app_id, message_id, received_at, source_offset) SELECT 'short', 'late', now64(6, 'UTC') - INTERVAL 400 DAY, 99")
	query("OPTIMIZE TABLE DB.events FINAL")
	if got, want := left("events"), "ever 3, o'long 2, short 2"; got != want {
		t.Errorf("without retention: got %s, want %s", got, want)
	}
}
