package main

import (
	"bytes"
	"encoding/json"
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
	if code, out := call("audit"); code != process.ExitOK || !strings.HasSuffix(out, "\nequal\n") {
		t.Errorf("equal: got %d: %s", code, out)
	}
	s := embedded.ForTest(t)
	if _, err := s.Query(t.Context(), "INSERT INTO "+db+".account_product_daily VALUES ('shop', 'acct', 'p', '2026-11-21', 1, 1)"); err != nil {
		t.Fatal(err)
	}
	if code, out := call("audit", "-settle", "0"); code != process.ExitFailed || !strings.Contains(out, "account_product_daily is doubled") || !strings.Contains(out, "tables differ") {
		t.Errorf("different: got %d: %s", code, out)
	}
	var report struct{ Equal *bool }
	code, out := call("audit", "-settle", "0", "-json")
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&report); code != process.ExitFailed || err != nil || report.Equal == nil || *report.Equal {
		t.Errorf("-json: got %d, %v: %s", code, err, out)
	}
	if code, out := call("audit", "-settle", "-1", "-from", "2026-11-21T00:30:00Z"); code != process.ExitUsage || !strings.Contains(out, "settle must") || !strings.Contains(out, "from must") {
		t.Errorf("usage: got %d: %s", code, out)
	}
}
