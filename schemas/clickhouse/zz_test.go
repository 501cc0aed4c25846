package clickhouse
import ("testing";"time";"context")
func TestZZ(t *testing.T) {
	conn := schema(t)
	ctx := context.Background()
	if err := conn.Exec(ctx, `INSERT INTO identity_facts (app_id, fact, subject, object, at, first, last) SELECT 'a','parent', concat('acc', toString(number+1)), concat('acc', toString(intDiv(number, 4))), toDateTime64('2026-01-01',6,'UTC') + number AS tt, tt, (tt, '') FROM numbers(20000)`); err != nil { t.Fatal(err) }
	for range 2 { for _, q := range []string{
		"SELECT count() FROM account_subtree WHERE app_id='a' AND account_id='acc7'",
		"SELECT count() FROM account_paths WHERE app_id='a'",
		"SELECT count() FROM account_paths_history WHERE app_id='a'",
		"SELECT count() FROM account_parents WHERE app_id='a'",
	} {
		var n uint64
		b := time.Now()
		if err := conn.QueryRow(ctx, q).Scan(&n); err != nil { t.Fatal(err) }
		t.Log(q, n, time.Since(b))
	} }
}
