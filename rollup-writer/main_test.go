package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// The exit status of audit is 0 if all is equal, 1 if not, 2 if it was called
// wrongly.
func TestAuditExitStatus(t *testing.T) {
	addr, db := embedded.Database(t)
	call := func(command string, args ...string) (int, string) {
		var out, errs bytes.Buffer
		args = append([]string{command, "-clickhouse-addr", addr, "-clickhouse-database", db}, args...)
		code := process.Main(&errs, "rollup-writer", func() error {
			return run(args, func(string) (string, bool) { return "", false }, &out, &errs)
		})
		return code, out.String() + errs.String()
	}
	if code, out := call("audit", "-clickhouse-database", "none"); code != process.ExitFailed || !strings.Contains(out, "no database none: see `rollup-writer migrate`") {
		t.Errorf("no database: got %d: %s", code, out)
	}
	if code, out := call("migrate"); code != process.ExitOK {
		t.Fatalf("migrate: got %d: %s", code, out)
	}
	if code, out := call("audit", "-in-flight-records", "0"); code != process.ExitOK || !strings.HasSuffix(out, "\nequal\n") || !strings.Contains(out, "\nbalanced\n") {
		t.Errorf("equal: got %d: %s", code, out)
	}
	// Nobody listens at port 1.
	code, out := call("audit", "-settle", "0", "-kafka-brokers", "127.0.0.1:1")
	if code != process.ExitFailed || strings.Contains(out, "\nequal\n") || strings.Contains(out, "\nbalanced\n") ||
		!strings.Contains(out, "what is in flight is not known: ") || !strings.Contains(out, "it is not known whether anything is missing") {
		t.Errorf("without Kafka: got %d: %s", code, out)
	}
	if code, out := call("audit", "-settle", "0", "-kafka-brokers", "127.0.0.1:1", "-json"); code != process.ExitFailed || !strings.Contains(out, `"in_flight_unknown"`) || !strings.Contains(out, `"equal": false`) {
		t.Errorf("without Kafka, -json: got %d: %s", code, out)
	}
	s := embedded.ForTest(t)
	if _, err := s.Query(t.Context(), "INSERT INTO "+db+"_internal.account_product_daily VALUES ('shop', 'acct', 'p', '2026-11-21', 1, 1)"); err != nil {
		t.Fatal(err)
	}
	if code, out := call("audit", "-settle", "0"); code != process.ExitFailed || !strings.Contains(out, "account_product_daily is doubled") || !strings.Contains(out, "tables differ") {
		t.Errorf("different: got %d: %s", code, out)
	}
	var report struct {
		Equal        *bool
		Conservation struct {
			Balanced bool
			Hours    []struct{ Accepted, Difference int64 }
		}
	}
	code, out = call("audit", "-settle", "0", "-json", "-in-flight-records", "0")
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&report); code != process.ExitFailed || err != nil || report.Equal == nil || *report.Equal || !report.Conservation.Balanced {
		t.Errorf("-json: got %d, %v: %s", code, err, out)
	}
	// Two were accepted, and events has one of them.
	if _, err := s.Query(t.Context(), "INSERT INTO "+db+"_internal.audit_blocks (app_id, hour, accepted, stored, raw_topic_id, raw_next, source_topic_id, source_offset, counted_at) "+
		"SELECT 'shop', toStartOfHour(now('UTC')), 2, 2, 'raw', 2, 'enriched', 9, now()"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Query(t.Context(), "INSERT INTO "+db+".events (app_id, kind, message_id, received_at, source_topic_id, source_offset) "+
		"SELECT 'shop', 'identify', 'm', toStartOfHour(now('UTC')), 'enriched', 1"); err != nil {
		t.Fatal(err)
	}
	code, out = call("audit", "-settle", "0", "-json", "-in-flight-records", "0")
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&report); code != process.ExitFailed || err != nil || report.Conservation.Balanced ||
		len(report.Conservation.Hours) != 1 || report.Conservation.Hours[0].Accepted != 2 || report.Conservation.Hours[0].Difference != 1 {
		t.Errorf("conservation: got %d, %v: %s", code, err, out)
	}
	if code, out := call("audit", "-settle", "-1", "-from", "2026-11-21T00:30:00Z"); code != process.ExitUsage || !strings.Contains(out, "settle must") || !strings.Contains(out, "from must") {
		t.Errorf("usage: got %d: %s", code, out)
	}
}

// migrate -roles prints what it would make, and says what to do where a server keeps
// users in files only, as the embedded one does.
func TestMigrateRoles(t *testing.T) {
	passwords := t.TempDir()
	for name, text := range map[string]string{"writer": "long enough for a test\n", "analyst_dev": "long enough for a test", ".hidden": "x"} {
		if err := os.WriteFile(filepath.Join(passwords, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := process.Main(&errs, "rollup-writer", func() error {
			return run(append([]string{"migrate"}, args...), func(string) (string, bool) { return "", false }, &out, &errs)
		})
		return code, out.String(), errs.String()
	}
	code, out, errs := call("-roles", "-roles-print", "sql", "-role-users", passwords, "-role-apps", "dev", "-clickhouse-database", "stage", "-role-seconds", "7")
	for _, want := range []string{
		"CREATE USER IF NOT EXISTS `stage_views` IDENTIFIED", "CREATE ROLE IF NOT EXISTS `stage_app_dev`;", "GRANT `stage_analyst`, `stage_app_dev` TO `stage_analyst_dev_user` WITH",
		"max_execution_time = 7 MIN 1", "CREATE USER IF NOT EXISTS `stage_writer_user` IDENTIFIED WITH sha256_hash BY '316614ab18cea44b",
	} {
		if code != process.ExitOK || !strings.Contains(out, want) {
			t.Errorf("sql: got %d %s, want %s in:\n%.2000s", code, errs, want, out)
		}
	}
	if strings.Contains(out, "long enough") {
		t.Error("sql has the password")
	}
	if code, out, errs = call("-roles", "-roles-print", "xml", "-role-users", passwords, "-role-apps", "dev"); code != process.ExitOK || !strings.Contains(out, "<uptake_analyst_dev_user>") {
		t.Errorf("xml: got %d %s\n%.2000s", code, errs, out)
	}
	if code, _, errs = call("-roles", "-role-users", passwords); code != process.ExitFailed || !strings.Contains(errs, "app dev is not in role-apps") {
		t.Errorf("app without a role: got %d %s", code, errs)
	}
	if code, _, errs = call("-role-apps", "dev", "-schema=false", "-roles-print", "yaml", "-role-threads", "0"); code != process.ExitUsage ||
		!strings.Contains(errs, "need roles") || !strings.Contains(errs, "nothing to do") || !strings.Contains(errs, "sql or xml") || !strings.Contains(errs, "role-threads must") {
		t.Errorf("usage: got %d %s", code, errs)
	}
	addr, db := embedded.Database(t)
	if code, _, errs = call("-roles", "-clickhouse-addr", addr, "-clickhouse-database", db); code != process.ExitFailed || !strings.Contains(errs, "-roles-print xml") {
		t.Errorf("a server with users in files: got %d %s", code, errs)
	}
}

// rebuild says what it was not told before it connects to anything.
func TestRebuildUsage(t *testing.T) {
	var out bytes.Buffer
	code := process.Main(&out, "rollup-writer", func() error {
		return run([]string{"rebuild", "-from", "2026-11-22", "-to", "2026-11-21T10:00:00Z"}, func(string) (string, bool) { return "", false }, &out, &out)
	})
	if got := out.String(); code != process.ExitUsage || !strings.Contains(got, "app must be set") || !strings.Contains(got, "from must be before to") {
		t.Errorf("got %d: %s", code, got)
	}
}
