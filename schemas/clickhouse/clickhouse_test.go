package clickhouse

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clickhousego "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
)

var update = flag.Bool("update", false, "rewrite the golden DDL")

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

// database returns a connection to a fresh database.
func database(t *testing.T) (driver.Conn, string) {
	t.Helper()
	addr, db := embedded.Database(t)
	conn, err := clickhousego.Open(&clickhousego.Options{Addr: []string{addr}, Auth: clickhousego.Auth{Database: db}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, db
}

// What is published never changes, so the DDL of both forms is pinned as a
// whole: a change of a file or of the code that expands it shows here.
func TestStatementsAreGolden(t *testing.T) {
	ms, err := Migrations()
	if err != nil {
		t.Fatal(err)
	}
	for name, form := range map[string]Form{"single": SingleForm(), "cluster": ClusterForm("main")} {
		var b strings.Builder
		for _, m := range ms {
			statements, err := m.Statements(form, "uptake")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&b, "-- %s\n\n", m.Name)
			for _, s := range statements {
				fmt.Fprintf(&b, "%s;\n\n", s)
			}
		}
		path := filepath.Join("testdata", name+".sql")
		if *update {
			if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.String(); got != string(want) {
			t.Errorf("DDL of form %s differs from %s; got:\n%s", name, path, got)
		}
	}
}

func TestApplyIsRerunnableAndCheckAgrees(t *testing.T) {
	ctx := context.Background()
	conn, _ := database(t)
	if err := Check(ctx, conn); !errors.Is(err, ErrNoSchema) {
		t.Errorf("check of an empty database: got %v, want %v", err, ErrNoSchema)
	}
	all, err := Migrations()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{len(all), 0} {
		got, err := Apply(ctx, conn, SingleForm())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != want {
			t.Errorf("run %d applied %d migrations, want %d", i, len(got), want)
		}
	}
	if err := Check(ctx, conn); err != nil {
		t.Error(err)
	}
	windows, err := Windows(ctx, conn, SingleForm())
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range slices.Concat(EventTables, RejectedTables) {
		if got, want := windows[table], (Window{Entries: SingleForm().WindowEntries}); got != want {
			t.Errorf("window of %s: got %+v, want %+v", table, got, want)
		}
	}
	if _, err := Apply(ctx, conn, ClusterForm("main")); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), "form") {
		t.Errorf("apply of another form: got %v", err)
	}
}

// A migration that died between two of its statements is run again.
func TestApplyResumes(t *testing.T) {
	ctx := context.Background()
	conn, db := database(t)
	all, err := Migrations()
	if err != nil {
		t.Fatal(err)
	}
	statements, err := all[0].Statements(SingleForm(), db)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Exec(ctx, statements[0]); err != nil {
		t.Fatal(err)
	}
	if got, err := Apply(ctx, conn, SingleForm()); err != nil || len(got) != len(all) {
		t.Errorf("applied %d of %d: %v", len(got), len(all), err)
	}
}

func TestCheckSaysWhatToDo(t *testing.T) {
	ctx := context.Background()
	conn, _ := database(t)
	if _, err := Apply(ctx, conn, SingleForm()); err != nil {
		t.Fatal(err)
	}
	all, _ := Migrations()
	last := all[len(all)-1]
	for _, tc := range []struct{ change, want string }{
		{fmt.Sprintf("DELETE FROM schema_migrations WHERE version = %d", last.Version), "it lacks migration " + last.Name + ": run `rollup-writer migrate`"},
		{"ALTER TABLE schema_migrations UPDATE checksum = 'x' WHERE version = 1", "migration 0001_events was applied with checksum x and is"},
		{"INSERT INTO schema_migrations VALUES (9001, '9001_later', 'y', 'single', now())", "it has migration 9001_later, which this binary does not know"},
	} {
		err := conn.Exec(clickhousego.Context(ctx, clickhousego.WithSettings(clickhousego.Settings{"mutations_sync": 1})), tc.change)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(ctx, conn); !errors.Is(err, ErrSchema) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("after %s: got %v, want %q", tc.change, err, tc.want)
		}
	}
	if _, err := Apply(ctx, conn, SingleForm()); !errors.Is(err, ErrSchema) {
		t.Errorf("apply over a changed migration: got %v, want %v", err, ErrSchema)
	}
}

func TestWindowsNamesTablesWithoutOne(t *testing.T) {
	ctx := context.Background()
	conn, _ := database(t)
	if _, err := Apply(ctx, conn, SingleForm()); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"ALTER TABLE user_feature_daily RESET SETTING non_replicated_deduplication_window", "DROP TABLE rejected_events"} {
		if err := conn.Exec(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Windows(ctx, conn, SingleForm())
	for _, want := range []string{"table user_feature_daily has no dedup window", "table rejected_events does not exist"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestFormValidate(t *testing.T) {
	for _, tc := range []struct {
		form Form
		want []string
	}{
		{SingleForm(), nil},
		{ClusterForm("main"), nil},
		{Form{WindowEntries: 10}, []string{"clickhouse-window-entries"}},
		{Form{Cluster: "a b", WindowEntries: 10, Window: time.Minute}, []string{"clickhouse-cluster", "clickhouse-window-entries", "clickhouse-window must"}},
	} {
		err := tc.form.Validate()
		if (err == nil) != (tc.want == nil) {
			t.Errorf("%+v: got %v, want %v", tc.form, err, tc.want)
		}
		for _, w := range tc.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: got %v, want %q", tc.form, err, w)
			}
		}
	}
}

// Every statement of the cluster form parses; that it runs is for a cluster.
func TestClusterStatementsParse(t *testing.T) {
	ctx := context.Background()
	conn, _ := database(t)
	ms, _ := Migrations()
	for _, m := range ms {
		statements, err := m.Statements(ClusterForm("main"), "uptake")
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range append(statements, dialect{ClusterForm("main"), "uptake"}.migrationsDDL()) {
			var out string
			if err := conn.QueryRow(ctx, "SELECT formatQuery(?)", s).Scan(&out); err != nil {
				t.Errorf("%s: %v in\n%s", m.Name, err, s)
			}
		}
	}
}
