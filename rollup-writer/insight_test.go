package main

import (
	"bytes"
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
