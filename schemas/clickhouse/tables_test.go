package clickhouse

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// described is a table as the server has it.
type described struct {
	engine       string
	columns, key []string // key: sorted by, without app_id
}

func describe(t *testing.T, conn installed) map[string]described {
	t.Helper()
	all := map[string]described{}
	// A name in both databases is the view over the table of that name.
	rows, err := conn.Query(context.Background(), `SELECT t.name, t.engine, groupArray(c.name), groupArrayIf(c.name, c.is_in_sorting_key AND c.name != 'app_id')
FROM system.tables AS t JOIN system.columns AS c ON c.database = t.database AND c.table = t.name WHERE t.database IN (?, ?)
GROUP BY t.database, t.name, t.engine ORDER BY t.database`, conn.schema.Database, Internal(conn.schema.Database))
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var d described
		if err := rows.Scan(&name, &d.engine, &d.columns, &d.key); err != nil {
			t.Fatal(err)
		}
		all[name] = d
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func sorted(lists ...[]string) []string {
	all := slices.Concat(lists...)
	slices.Sort(all)
	return all
}

// The declaration is what the migrations make: every table that holds rows is
// declared, and a rollup's columns are its key and its sums and no other.
func TestDeclaredTablesAreTheServers(t *testing.T) {
	conn := schema(t)
	server := describe(t, conn)
	for name, d := range server {
		if strings.HasSuffix(d.engine, "MergeTree") && !slices.ContainsFunc(Tables, func(t Table) bool { return t.Name == name }) {
			t.Errorf("%s holds rows and is not declared in Tables", name)
		}
		if d.engine == "SummingMergeTree" && TableOf(name).Kind != Base && TableOf(name).Kind != Rollup {
			t.Errorf("%s sums and is declared as neither base nor rollup", name)
		}
	}
	for _, table := range Tables {
		d, ok := server[table.Name]
		if !ok {
			t.Errorf("%s is declared and not there", table.Name)
			continue
		}
		if view := d.engine == "View"; view != table.Plain {
			t.Errorf("%s: engine %s, declared plain: %t", table.Name, d.engine, table.Plain)
		}
		for _, c := range slices.Concat(table.Key, table.Sums) {
			if !slices.Contains(d.columns, c) {
				t.Errorf("%s has no column %s", table.Name, c)
			}
		}
		if table.Kind != Base && table.Kind != Rollup {
			continue
		}
		if got, want := sorted(d.columns), sorted(table.Key, table.Sums, []string{"app_id"}); !slices.Equal(got, want) {
			t.Errorf("columns of %s: got %v, declared %v", table.Name, got, want)
		}
		if got, want := sorted(d.key), sorted(table.Key); !table.Plain && !slices.Equal(got, want) {
			t.Errorf("%s is sorted by %v, and the declared key is %v", table.Name, got, want)
		}
		from := TableOf(table.From)
		if table.Kind == Rollup && from.Kind != Base && from.Kind != Rollup {
			t.Errorf("%s is declared to come from %s, which is no base", table.Name, table.From)
		}
		for _, c := range table.Key {
			if table.Kind == Rollup && c != "day" && !from.Has(c) {
				t.Errorf("%s has the key column %s, which %s lacks", table.Name, c, from.Name)
			}
		}
	}
}
