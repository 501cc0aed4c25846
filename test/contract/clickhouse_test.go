package contract

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/uptakehq/uptake/schemas/clickhouse/embedded"
	"github.com/uptakehq/uptake/test/harness/container"
)

func TestMain(m *testing.M) { embedded.TestMain(m, nil) }

var clickhouseCases = []struct {
	name string
	run  func(*testing.T, store)
}{
	{"same token once", testSameTokenOnce},
	{"same token heals a failed view", testSameTokenHeals},
	{"same token again in another layout", testOtherLayout},
	{"no window no dedup", testNoWindow},
	{"token outlives merges", testTokenOutlivesMerges},
	{"minus rows cancel", testMinusRowsCancel},
}

func TestClickHouse(t *testing.T) {
	forms := []struct {
		name string
		open func(*testing.T) (addr string)
	}{
		{"embedded", func(t *testing.T) string { return embedded.ForTest(t).NativeAddr() }},
		{"container", func(t *testing.T) string { return container.ClickHouseForTest(t) }},
	}
	for _, form := range forms {
		t.Run(form.name, func(t *testing.T) {
			addr := form.open(t)
			for _, c := range clickhouseCases {
				t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) { c.run(t, openStore(t, addr)) })
			}
		})
	}
}

// store is a fresh database with the shape of Uptake's: a table that blocks go
// into, a sum by key that a view fills from it, and a coarser sum that a view
// fills from that.
type store struct {
	conn driver.Conn
}

func openStore(t *testing.T, addr string) store {
	t.Helper()
	db := strings.ReplaceAll(name("contract"), "-", "_")
	admin := connect(t, addr, "default")
	s := store{conn: admin}
	s.exec(t, "CREATE DATABASE "+db)
	t.Cleanup(func() {
		if err := admin.Exec(context.WithoutCancel(t.Context()), "DROP DATABASE "+db+" SYNC"); err != nil {
			t.Error(err)
		}
	})
	s = store{conn: connect(t, addr, db)}
	s.exec(t, "CREATE TABLE events (id UInt64, account String, quantity Int64) ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000")
	s.exec(t, "CREATE TABLE by_account (account String, quantity Int64) ENGINE = SummingMergeTree ORDER BY account SETTINGS non_replicated_deduplication_window = 1000")
	s.exec(t, "CREATE TABLE total (one UInt8, quantity Int64) ENGINE = SummingMergeTree ORDER BY one SETTINGS non_replicated_deduplication_window = 1000")
	s.exec(t, "CREATE TABLE fail (x UInt8) ENGINE = MergeTree ORDER BY x")
	s.exec(t, "CREATE MATERIALIZED VIEW first TO by_account AS SELECT account, sum(quantity) AS quantity FROM events GROUP BY account")
	s.exec(t, "CREATE MATERIALIZED VIEW second TO total AS SELECT 1 AS one, sum(quantity) AS quantity FROM by_account WHERE throwIf((SELECT count() FROM fail) > 0, 'told to fail') = 0 GROUP BY one")
	return s
}

func connect(t *testing.T, addr, db string) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(&clickhouse.Options{Addr: []string{addr}, Auth: clickhouse.Auth{Database: db}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s store) exec(t *testing.T, statement string) {
	t.Helper()
	if err := s.conn.Exec(within(t), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

type row struct {
	id       uint64
	account  string
	quantity int64
}

// block is n rows over three accounts, always the same ones.
func block(from, n int) (rows []row) {
	for i := from; i < from+n; i++ {
		rows = append(rows, row{uint64(i), fmt.Sprint("acc-", i%3), int64(i%5 + 1)})
	}
	return rows
}

func sum(rows []row) (total int64) {
	for _, r := range rows {
		total += r.quantity
	}
	return total
}

// insert sends rows as one native block, with the settings that the writer pins.
func (s store) insert(t *testing.T, token string, rows []row) error {
	t.Helper()
	ctx := clickhouse.Context(within(t), clickhouse.WithSettings(clickhouse.Settings{
		"async_insert":               0,
		"insert_deduplicate":         1,
		"insert_deduplication_token": token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		"materialized_views_ignore_errors":                   0,
		"max_insert_block_size":                              1_000_000,
		"min_insert_block_size_rows":                         0,
		"min_insert_block_size_bytes":                        0,
		"max_block_size":                                     1_000_000,
		"parallel_view_processing":                           0,
	}))
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO events")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if err := batch.Append(r.id, r.account, r.quantity); err != nil {
			t.Fatal(err)
		}
	}
	return batch.Send()
}

func (s store) mustInsert(t *testing.T, token string, rows []row) {
	t.Helper()
	if err := s.insert(t, token, rows); err != nil {
		t.Fatalf("insert %s: %v", token, err)
	}
}

// sums are the quantities of the table and of the two levels of rollups.
func (s store) sums(t *testing.T) (sums []int64) {
	t.Helper()
	for _, table := range []string{"events", "by_account", "total"} {
		var n int64
		if err := s.conn.QueryRow(within(t), "SELECT sum(quantity) FROM "+table).Scan(&n); err != nil {
			t.Fatalf("sum of %s: %v", table, err)
		}
		sums = append(sums, n)
	}
	return sums
}

func (s store) check(t *testing.T, when string, events, byAccount, total int64) {
	t.Helper()
	if got, want := s.sums(t), []int64{events, byAccount, total}; !slices.Equal(got, want) {
		t.Errorf("%s: got sums %v of events, by_account, total; want %v", when, got, want)
	}
}

// A repeat of a block changes nothing on any level; another block counts, also
// with the very same rows.
func testSameTokenOnce(t *testing.T, s store) {
	rows := block(0, 1000)
	n := sum(rows)
	for i := range 3 {
		s.mustInsert(t, "v1|a|0-1000", rows)
		s.check(t, fmt.Sprint("insert ", i), n, n, n)
	}
	s.mustInsert(t, "v1|a|1000-2000", rows)
	s.check(t, "same rows under another token", 2*n, 2*n, 2*n)
	s.mustInsert(t, "v1|a|0-1000", rows)
	s.check(t, "the first block once more", 2*n, 2*n, 2*n)
}

// An attempt that failed in the last view left the table and the first rollup
// filled. The same block under the same token fills what is missing and nothing
// else.
func testSameTokenHeals(t *testing.T, s store) {
	before, rows := block(0, 500), block(500, 1000)
	s.mustInsert(t, "v1|a|0-500", before)
	s.exec(t, "INSERT INTO fail VALUES (1)")
	for range 2 { // also when it fails again
		if err := s.insert(t, "v1|a|500-1500", rows); err == nil || !strings.Contains(err.Error(), "told to fail") {
			t.Fatalf("insert with a view that throws: got %v", err)
		}
	}
	if got := s.sums(t); got[0] == got[2] {
		t.Errorf("after the failure: got sums %v; the failure left no gap, so this case shows nothing", got)
	}
	s.exec(t, "TRUNCATE TABLE fail")
	n := sum(before) + sum(rows)
	for range 2 {
		s.mustInsert(t, "v1|a|500-1500", rows)
		s.check(t, "after the retry", n, n, n)
	}
}

// What the protocol stands on the token for: the rows alone would not do. A
// repeat whose rows come in another order is known by its token all the same,
// as long as no attempt failed in between.
func testOtherLayout(t *testing.T, s store) {
	rows := block(0, 1000)
	n := sum(rows)
	s.mustInsert(t, "v1|a|0-1000", rows)
	turned := slices.Clone(rows)
	slices.Reverse(turned)
	s.mustInsert(t, "v1|a|0-1000", turned)
	s.check(t, "the same rows turned round", n, n, n)
}

// The negative control: where a rollup has no window, a repeat counts again in
// it. The writer refuses to run on such a table.
func testNoWindow(t *testing.T, s store) {
	s.exec(t, "ALTER TABLE total MODIFY SETTING non_replicated_deduplication_window = 0")
	rows := block(0, 1000)
	n := sum(rows)
	s.exec(t, "INSERT INTO fail VALUES (1)")
	if err := s.insert(t, "v1|a|0-1000", rows); err == nil {
		t.Fatal("the view did not throw")
	}
	s.exec(t, "TRUNCATE TABLE fail")
	for range 3 {
		s.mustInsert(t, "v1|a|0-1000", rows)
	}
	got := s.sums(t)
	if got[0] != n || got[1] != n {
		t.Errorf("with windows: got %v, want %d", got[:2], n)
	}
	if got[2] == n {
		t.Errorf("without a window: got %d, which is right; then this suite cannot see a double", got[2])
	}
}

// Tokens are kept beside the parts, not in them.
func testTokenOutlivesMerges(t *testing.T, s store) {
	var n int64
	for i := range 10 {
		rows := block(i*100, 100)
		n += sum(rows)
		s.mustInsert(t, fmt.Sprint("v1|a|", i), rows)
	}
	for _, table := range []string{"events", "by_account", "total"} {
		s.exec(t, "OPTIMIZE TABLE "+table+" FINAL")
	}
	for i := range 10 {
		s.mustInsert(t, fmt.Sprint("v1|a|", i), block(i*100, 100))
	}
	s.check(t, "after merges and repeats", n, n, n)
}

// Corrections are rows with a minus: rollups are plain sums, and a sum of zero
// is as good as no row.
func testMinusRowsCancel(t *testing.T, s store) {
	rows := block(0, 300)
	s.mustInsert(t, "v1|a|0-300", rows)
	var minus []row
	for _, r := range rows {
		minus = append(minus, row{r.id, r.account, -r.quantity})
	}
	s.mustInsert(t, "v1|a|300-301", minus)
	s.check(t, "after the minus rows", 0, 0, 0)
	s.exec(t, "OPTIMIZE TABLE by_account FINAL")
	var left uint64
	if err := s.conn.QueryRow(within(t), "SELECT count() FROM by_account").Scan(&left); err != nil {
		t.Fatal(err)
	}
	if left != 0 {
		t.Errorf("rows of by_account after the merge: got %d, want 0", left)
	}
}
