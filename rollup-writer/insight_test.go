package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/uptakehq/uptake/rollup-writer/definitions"
	"github.com/uptakehq/uptake/rollup-writer/internal/clickhouse"
	tables "github.com/uptakehq/uptake/schemas/clickhouse"
	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/schemas/insight"
	"github.com/uptakehq/uptake/schemas/svc/process"
)

// A file is linted, planned, applied and shown; views go by the version in force
// at once, and by none of those before it.
func TestInsight(t *testing.T) {
	addr, db := embedded.Database(t)
	s := embedded.ForTest(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "insight.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
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
	holds := func(got string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got %q, want %q in it", got, w)
			}
		}
	}
	inForce := func() string {
		t.Helper()
		out, err := s.Query(t.Context(), "SELECT concat(toString(version), ' ', use, ' ', match, ' ', value) FROM "+db+".insight_definitions(app = 'dev') WHERE use != 'version'")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(out)
	}
	call(process.ExitOK, "migrate")
	if _, err := s.Query(t.Context(), "INSERT INTO "+tables.Internal(db)+".catalog_features (app_id, feature_id, module_id, product_id, status, catalog_version) VALUES ('dev', 'scan', 'till', 'pos', 'active', 1)"); err != nil {
		t.Fatal(err)
	}

	write("insight: shop\nactivity: [scan]\nsession: {gap: 30m}\n")
	holds(call(process.ExitFailed, "insight", "lint", "-file", file), `line 3, column 1: session: unknown field "session"`)
	holds(call(process.ExitFailed, "insight", "show", "-app", "dev"), "app dev has no definitions")

	write("insight: shop\nactivity: [scan, gone]\nmilestones: {signup: [scan], value: [scan]}\n")
	holds(call(process.ExitOK, "insight", "lint", "-file", file), "4 rules")
	holds(call(process.ExitOK, "insight", "plan", "-app", "dev", "-file", file),
		`finding: line 2, column 18: the catalog has no feature "gone"`, "+ activity feature scan", "version 0 would become 1")
	if got := inForce(); got != "" {
		t.Errorf("a plan put %q in force", got)
	}
	holds(call(process.ExitOK, "insight", "apply", "-app", "dev", "-file", file, "-by", "ci"), "version 1 is in force")
	holds(call(process.ExitOK, "insight", "apply", "-app", "dev", "-file", file), "nothing changes: version 1")

	write("insight: shop\nactivity: [scan]\nmilestones: {signup: [scan], value: [scan]}\n")
	holds(call(process.ExitOK, "insight", "apply", "-app", "dev", "-file", file, "-by", "ci"), "- activity feature gone", "version 2 is in force")
	if got, want := inForce(), "2 activity feature scan\n2 signup feature scan\n2 value feature scan"; got != want {
		t.Errorf("in force: got %q, want %q", got, want)
	}
	holds(call(process.ExitOK, "insight", "show", "-app", "dev"), "# version 2 of app dev", "by ci", "activity: [scan]\n")

	// Of two applies of the same next version one is taken whole.
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.Database = addr, db
	store, err := definitions.Open(t.Context(), &cfg, "dev")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	before, err := store.InForce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range []string{"insight: first\nfriction: [scan]\n", "insight: second\nactivity: [scan]\n"} {
		d, err := insight.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		_, err = store.Apply(t.Context(), before, d, text, "ci", time.Now())
		if (err != nil) != (i == 1) {
			t.Errorf("apply %d: got %v", i, err)
		}
	}
	if got, want := inForce(), "3 friction feature scan"; got != want {
		t.Errorf("in force: got %q, want %q", got, want)
	}
}

// A plan says whom signals would touch today, and a backtest when an alert would have
// fired.
func TestPlanTouchesAndBacktest(t *testing.T) {
	addr, db := embedded.Database(t)
	s := embedded.ForTest(t)
	file := filepath.Join(t.TempDir(), "insight.yaml")
	call := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		args = append(args, "-clickhouse-addr", addr, "-clickhouse-database", db)
		if code := process.Main(&out, "rollup-writer", func() error {
			return run(args, func(string) (string, bool) { return "", false }, &out, &out)
		}); code != process.ExitOK {
			t.Fatalf("%q: got %d: %s", args, code, out.String())
		}
		return out.String()
	}
	write := func(limit int) {
		t.Helper()
		text := fmt.Sprintf(`
insight: shop
segments:
  - id: regular
    description: Used on 3 of 28 days.
    owner: cs
    where: [{measure: {count: days, window: 28d}, at_least: 3}]
health:
  - id: fit
    description: Fit
    owner: cs
    parts: [{id: use, measure: {count: days, window: 28d}, yardstick: 28}]
    bands: [{id: low, from: 0}, {id: high, from: 60}]
alerts:
  - id: silent
    version: %d
    description: Gone silent
    owner: cs
    segment: regular
    measure: {count: events, window: 7d}
    fires: {below: %d}
`, limit, limit)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	call("migrate")
	today := time.Now().UTC().Truncate(24 * time.Hour)
	var values []string
	use := func(account string, from, to int) {
		for d := from; d >= to; d-- {
			at := today.AddDate(0, 0, -d).Add(12 * time.Hour).Format(time.DateTime)
			values = append(values, fmt.Sprintf("('dev', '%s%d', 'track', 'x', 'u', 'u', 'user', '%s', 'scan', 1, '%s', '%s')", account, d, account, at, at))
		}
	}
	use("acme", 40, 10)
	use("beta", 40, 1)
	use("rare", 4, 2) // few events in the last week
	if _, err := s.Query(t.Context(), "INSERT INTO "+db+".events (app_id, message_id, kind, event, user_id, actor_id, actor_kind, account_id, feature_id, quantity, received_at, event_time) VALUES "+strings.Join(values, ", ")); err != nil {
		t.Fatal(err)
	}
	write(1)
	got := call("insight", "plan", "-app", "dev", "-file", file)
	for _, want := range []string{"segment regular takes in 3: acme, beta, rare\n", "health fit:low takes in 1: rare\n", "health fit:high takes in 2: acme, beta\n", "alert silent would fire for 1: acme\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	call("insight", "apply", "-app", "dev", "-file", file, "-by", "ci")
	if got := call("insight", "plan", "-app", "dev", "-file", file); strings.Contains(got, "would fire") || !strings.Contains(got, "nothing changes") {
		t.Errorf("got %q", got)
	}
	if _, err := s.Query(t.Context(), "INSERT INTO "+tables.Internal(db)+".signal_log (app_id, signal_use, alert_id, message_id, signal, state, acted_by, feedback, written_at) VALUES ('dev', 'alert', 'a', 'm1', 'silent', 'firing', '', '', 1), ('dev', 'alert', 'a', 'm2', 'silent', 'acknowledged', 'joan', 'false_positive', 2)"); err != nil {
		t.Fatal(err)
	}
	write(4)
	got = call("insight", "plan", "-app", "dev", "-file", file)
	for _, want := range []string{"alert silent would fire for 1: rare\n", "alert silent fired 1 times so far: 0 useful, 1 false positives, 0 withdrawn by corrections\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
	got = call("insight", "backtest", "silent", "-app", "dev", "-from", today.AddDate(0, 0, -20).Format(time.DateOnly))
	want := today.AddDate(0, 0, -2).Format(time.DateOnly) + " 00:00:00  acme and lasts: 0 events in 7d, below 1\nalert silent would have fired 1 times for 1 subjects"
	if !strings.Contains(got, want) {
		t.Errorf("got %q, want %q in it", got, want)
	}
}
